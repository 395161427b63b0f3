package lease

import (
	"math/bits"
	"time"
)

// stallAfter is how long a worker may keep a job that it does not bring on: one
// that computes goes on within milliseconds, and what is leased ahead is begun
// within seconds.
const stallAfter = time.Minute

// Stalls are the jobs of one worker whose leases have ended since it did not
// bring them on.
type Stalls struct {
	Jobs int
	News int // of them, those of which it is time to tell: the first time, the second, the fourth, the eighth and so on
}

// Stall ends the leases of workers that renew them and do not bring the job on:
// they lie, their computing has stopped, or other jobs keep their lanes. Nothing
// of the work is lost with them, so they are no losses. The jobs wait again, for
// other workers where there are some. It returns how many each worker had.
func (t *Table) Stall(now time.Time) map[string]Stalls {
	var stalled []*entry
	for _, held := range t.holders {
		for _, e := range held {
			if e.ttl > 0 && now.Sub(e.moved) >= stallAfter {
				stalled = append(stalled, e)
			}
		}
	}
	if len(stalled) == 0 {
		return nil
	}
	by := map[string]Stalls{}
	for _, e := range stalled {
		p := e.noted()
		p.stalled, p.at = e.holder, now
		p.stalls++
		s := by[e.holder]
		s.Jobs++
		if bits.OnesCount32(p.stalls) == 1 {
			s.News++
		}
		by[e.holder] = s
		t.release(e)
	}
	return by
}
