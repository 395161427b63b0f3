package lease

import (
	"time"

	"workmanager/jobs"
)

// Where more jobs than maxAside whose turn it is are to be left to others, a
// worker gets what comes behind them: the table is searched for it, and the order
// is then kept roughly, as the heaps lie. A search looks at maxSearch jobs a
// Grant. If it finds none the next Grant of the worker goes on where it stopped,
// so in the end every job was looked at.

// maxSearch bounds what one Grant looks at, while its owner holds a lock.
const maxSearch = 256

// sweep is a place among the waiting jobs: those of higher priorities, and of its
// own those before at, were looked at.
type sweep struct{ priority, at int }

// search is what one Grant does of it.
type search struct {
	t      *Table
	worker string
	sweep
	left int
}

func (t *Table) search(worker string) *search {
	at, underWay := t.sweeps[worker]
	if !underWay {
		at.priority = jobs.MaxPriority
	}
	return &search{t, worker, at, maxSearch}
}

// next returns a job that the worker need not leave to others, nil if it found
// none so far.
func (s *search) next(now time.Time) *entry {
	for ; s.priority >= 0; s.priority, s.at = s.priority-1, 0 {
		for turns := s.t.waiting.lines[s.priority].turns; s.at < len(turns); s.at++ {
			if s.left == 0 {
				return nil
			}
			s.left--
			if e := turns[s.at].e; !s.t.shuns(now, e, s.worker) {
				return e
			}
		}
	}
	return nil
}

// searched notes where the worker's next Grant goes on, if this one searched in
// vain and has not looked at all; s is nil if it need not go on.
func (t *Table) searched(worker string, s *search) {
	if s == nil || s.priority < 0 {
		delete(t.sweeps, worker)
	} else {
		t.sweeps[worker] = s.sweep
	}
}

// Searches reports whether the worker's last Grant gave nothing and has not looked
// at all jobs that wait: then another may give some.
func (t *Table) Searches(worker string) bool {
	_, underWay := t.sweeps[worker]
	return underWay
}
