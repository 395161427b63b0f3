package node

import (
	"sync"
	"time"

	"workmanager/web/api"
)

// history is how the queue was, in two rings: five seconds apart for an hour,
// and a minute apart for a day. It is bounded, 170 KiB, begins with the node
// and is safe for concurrent use.
type history struct {
	mu   sync.Mutex // guards both
	hour ring
	day  ring
}

// moment is one point.
type moment struct {
	at             int64 // seconds since 1970
	queued, leased int64
	workers        int32
	done           float32
	iterations     float64
}

// ring holds the last points, step apart.
type ring struct {
	step  int64
	size  int
	list  []moment
	first int // the oldest, once list is full
	last  int64
}

func newHistory() *history {
	return &history{hour: ring{step: 5, size: 720}, day: ring{step: 60, size: 1440}}
}

// add takes a point where one is due.
func (h *history) add(m moment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hour.add(m)
	h.day.add(m)
}

func (r *ring) add(m moment) {
	slot := m.at / r.step
	if len(r.list) > 0 && slot == r.last {
		return
	}
	if slot < r.last { // the clock was set back
		r.list, r.first = nil, 0
	}
	r.last = slot
	m.at = slot * r.step
	if len(r.list) < r.size {
		r.list = append(r.list, m)
		return
	}
	r.list[r.first] = m
	r.first = (r.first + 1) % r.size
}

// due reports whether a point is due at an instant.
func (h *history) due(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.hour.list) == 0 || now.Unix()/h.hour.step != h.hour.last
}

// columns returns the ring for an hour or a day.
func (h *history) columns(day bool) api.History {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &h.hour
	if day {
		r = &h.day
	}
	n := len(r.list)
	out := api.History{
		StepSeconds: int(r.step), At: make([]int64, n), Queued: make([]int64, n), Leased: make([]int64, n),
		Workers: make([]int, n), RateCompleted: make([]float64, n), RateIterations: make([]float64, n),
	}
	for i := range n {
		m := &r.list[(r.first+i)%n]
		out.At[i], out.Queued[i], out.Leased[i], out.Workers[i] = m.at, m.queued, m.leased, int(m.workers)
		out.RateCompleted[i], out.RateIterations[i] = round3(float64(m.done)), round3(m.iterations)
	}
	return out
}

// round3 cuts what nobody reads: three decimals below a thousand, none above.
func round3(x float64) float64 {
	if x >= 1000 {
		return float64(int64(x))
	}
	return float64(int64(x*1000+0.5)) / 1000
}
