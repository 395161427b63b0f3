package node

import (
	"time"

	"workmanager/jobs"
)

// pace is how fast this node gets on and how fast work comes in at it, over
// times that a forecast can stand on: what is done, over the last minute of
// work; what comes in, over the last five minutes. It takes its time as values;
// its owner guards it.
type pace struct {
	beats []beat    // one a second, the oldest first
	began time.Time // since then work was open without a break; zero: none is
	moved time.Time // when anything was last computed or completed
}

// beat is what was counted up to an instant.
type beat struct {
	at                  time.Time
	enqueued, completed int64
	iterations          uint64
	incoming            float64 // iterations that came in
}

const (
	doneOver    = time.Minute
	arrivedOver = 5 * time.Minute
	arrivedStep = 5 * time.Second
	steps       = int(arrivedOver / arrivedStep)
	maxBeats    = int(arrivedOver/time.Second) + 2
	// enough is how long work must have gone on before its rate counts.
	enough = 10 * time.Second
)

// flow is rates a second. Over is how long what is done was measured; Idle is how
// long nothing has moved though work was open.
type flow struct {
	Iterations, Completed float64
	Arriving, Incoming    float64
	Over, Idle            time.Duration
}

// tick takes one beat; call it once a second. open says whether this node has
// open jobs.
func (p *pace) tick(b beat, open bool) {
	if n := len(p.beats); n > 0 {
		last := p.beats[n-1]
		if b.at.Before(last.at) { // the clock was set back: what was is of no use
			p.beats, p.began = p.beats[:0], time.Time{}
		} else if b.iterations != last.iterations || b.completed != last.completed {
			p.moved = b.at
		}
	}
	switch {
	case !open:
		p.began = time.Time{}
	case p.began.IsZero():
		p.began, p.moved = b.at, b.at
		if n := len(p.beats); n > 0 { // what this second did counts
			p.began = p.beats[n-1].at
		}
	}
	if len(p.beats) >= maxBeats {
		p.beats = append(p.beats[:0], p.beats[1:]...)
	}
	p.beats = append(p.beats, b)
}

// flow returns the rates as of the last beat.
func (p *pace) flow() (f flow) {
	n := len(p.beats)
	if n < 2 {
		return flow{}
	}
	last := p.beats[n-1]
	if !p.began.IsZero() {
		f.Idle = last.at.Sub(p.moved)
		from := last.at.Add(-doneOver)
		if p.began.After(from) {
			from = p.began
		}
		old := p.at(from)
		if f.Over = last.at.Sub(old.at); f.Over > 0 {
			s := f.Over.Seconds()
			f.Iterations, f.Completed = float64(last.iterations-old.iterations)/s, float64(last.completed-old.completed)/s
		}
	}
	var came, work [steps]float64 // the newest first
	newer := last
	for i := range steps {
		older := p.at(last.at.Add(-time.Duration(i+1) * arrivedStep))
		came[i], work[i] = float64(newer.enqueued-older.enqueued), newer.incoming-older.incoming
		newer = older
	}
	f.Arriving, f.Incoming = stream(&came), stream(&work)
	return f
}

// at returns the first beat not before t.
func (p *pace) at(t time.Time) beat {
	lo, hi := 0, len(p.beats)-1
	for lo < hi {
		if mid := (lo + hi) / 2; p.beats[mid].at.Before(t) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return p.beats[lo]
}

// stream returns the rate a second of what came in, the newest step first: the
// mean since it began. What came in one batch is no stream: if two steps have
// more than half of all, they are left out. And one that has dried up for a
// minute is none any more.
func stream(came *[steps]float64) float64 {
	sum, first, second := 0.0, 0.0, 0.0
	for _, n := range came {
		sum += n
		if n > first {
			first, second = n, first
		} else if n > second {
			second = n
		}
	}
	if first+second > sum/2 {
		sum -= first + second
	}
	recent := 0.0
	for _, n := range came[:int(doneOver/arrivedStep)] {
		recent += n
	}
	if sum <= 0 || recent <= 0 {
		return 0
	}
	begin := steps
	for begin > 0 && came[begin-1] == 0 {
		begin--
	}
	return sum / (float64(begin) * arrivedStep.Seconds())
}

// incoming is the iterations that new jobs bring.
func incoming(out []jobs.Outcome) (sum float64) {
	for i := range out {
		if o := &out[i]; o.Err == nil && !o.Existed {
			sum += float64(o.Job.Remaining())
		}
	}
	return sum
}
