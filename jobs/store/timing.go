package store

import (
	"slices"
	"sync"
	"time"
)

// commitBounds are the bounds of the buckets of Commits. A commit is an fsync:
// a tenth of a millisecond on a good disk in a server, some 10 ms on a bad one.
var commitBounds = []time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond,
	5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 10 * time.Second,
}

// Commits is how long the transactions of a store took since it was opened,
// those that failed among them.
type Commits struct {
	Count, Rows int64
	Sum         time.Duration
	Bounds      []time.Duration
	AtMost      []int64 // how many took no longer than each of Bounds
	// Running is how long the one that runs now has taken, 0 if none does.
	Running time.Duration
}

// timing measures transactions. It is safe for concurrent use.
type timing struct {
	mu    sync.Mutex // guards the rest
	since time.Time  // when the one that runs began
	count int64
	rows  int64
	sum   time.Duration
	in    []int64 // by the first bound it fits; the last is beyond all
}

func (t *timing) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since = time.Now()
}

func (t *timing) end(rows int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	took := time.Since(t.since)
	t.since = time.Time{}
	if t.in == nil {
		t.in = make([]int64, len(commitBounds)+1)
	}
	i, _ := slices.BinarySearch(commitBounds, took)
	t.in[i]++
	t.count++
	t.rows += int64(rows)
	t.sum += took
}

// Commits returns how long the transactions took.
func (s *Store) Commits() Commits {
	t := &s.timing
	t.mu.Lock()
	defer t.mu.Unlock()
	c := Commits{Count: t.count, Rows: t.rows, Sum: t.sum, Bounds: slices.Clone(commitBounds), AtMost: make([]int64, len(commitBounds))}
	if !t.since.IsZero() {
		c.Running = time.Since(t.since)
	}
	n := int64(0)
	for i := range c.AtMost {
		if t.in != nil {
			n += t.in[i]
		}
		c.AtMost[i] = n
	}
	return c
}
