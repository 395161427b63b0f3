package node

import (
	"sync"
	"sync/atomic"
	"time"
)

// meter counts what happens and tells the rates of the last ten seconds. It is
// safe for concurrent use.
type meter struct {
	enqueued, completed atomic.Int64
	iterations          atomic.Uint64

	mu       sync.Mutex // guards the rest
	samples  []sample   // oldest first, at most meterSamples
	incoming float64    // iterations that came in
	pace     pace
	flow     flow // as of the last tick
}

const meterSamples = 11

type sample struct {
	at                  time.Time
	enqueued, completed int64
	iterations          uint64
}

// rates are per second.
type rates struct{ enqueued, completed, iterations float64 }

// came counts new jobs, and the iterations that they bring.
func (m *meter) came(n int, iterations float64) {
	m.enqueued.Add(int64(n))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.incoming += iterations
}

// pacing returns the rates that a forecast stands on, as of the last tick.
func (m *meter) pacing() flow {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flow
}

// tick takes a sample; call it once a second. open says whether this node has
// open jobs.
func (m *meter) tick(now time.Time, open bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pace.tick(beat{now, m.enqueued.Load(), m.completed.Load(), m.iterations.Load(), m.incoming}, open)
	m.flow = m.pace.flow()
	if len(m.samples) == meterSamples {
		m.samples = append(m.samples[:0], m.samples[1:]...)
	}
	m.samples = append(m.samples, m.now(now))
}

func (m *meter) now(now time.Time) sample {
	return sample{at: now, enqueued: m.enqueued.Load(), completed: m.completed.Load(), iterations: m.iterations.Load()}
}

// rates returns the rates since the oldest sample, 0 before there is one.
func (m *meter) rates(now time.Time) rates {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.samples) == 0 {
		return rates{}
	}
	old, cur := m.samples[0], m.now(now)
	s := cur.at.Sub(old.at).Seconds()
	if s <= 0 {
		return rates{}
	}
	return rates{
		enqueued:   float64(cur.enqueued-old.enqueued) / s,
		completed:  float64(cur.completed-old.completed) / s,
		iterations: float64(cur.iterations-old.iterations) / s,
	}
}
