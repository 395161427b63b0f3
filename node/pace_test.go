package node

import (
	"math"
	"testing"
	"time"
)

// walk ticks a pace once a second and returns its flow. each tells what is
// added in a second.
func walk(p *pace, from time.Time, seconds int, open bool, each func(i int) (enqueued, completed int64, iterations uint64, incoming float64)) flow {
	b := beat{at: from}
	if n := len(p.beats); n > 0 {
		b = p.beats[n-1]
		b.at = from
	}
	for i := range seconds {
		e, c, it, in := each(i)
		b.at = b.at.Add(time.Second)
		b.enqueued, b.completed, b.iterations, b.incoming = b.enqueued+e, b.completed+c, b.iterations+it, b.incoming+in
		p.tick(b, open)
	}
	return p.flow()
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 0.03*math.Max(math.Abs(want), 1) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestPace(t *testing.T) {
	begin := time.Date(2026, 11, 25, 14, 0, 0, 0, time.UTC)
	idle := func(int) (int64, int64, uint64, float64) { return 0, 0, 0, 0 }

	t.Run("what is done counts from when work began, not over the idle time before", func(t *testing.T) {
		var p pace
		walk(&p, begin, 100, false, idle)
		f := walk(&p, begin.Add(100*time.Second), 20, true, func(int) (int64, int64, uint64, float64) { return 0, 3, 1000, 0 })
		near(t, "iterations", f.Iterations, 1000)
		near(t, "completed", f.Completed, 3)
		near(t, "over", f.Over.Seconds(), 20)
	})
	t.Run("only the last minute of work counts", func(t *testing.T) {
		var p pace
		walk(&p, begin, 200, true, func(int) (int64, int64, uint64, float64) { return 0, 9, 9000, 0 })
		f := walk(&p, begin.Add(200*time.Second), 60, true, func(int) (int64, int64, uint64, float64) { return 0, 1, 100, 0 })
		near(t, "iterations", f.Iterations, 100)
		near(t, "completed", f.Completed, 1)
	})
	t.Run("a stream that has just begun has its own rate", func(t *testing.T) {
		var p pace
		walk(&p, begin, 250, false, idle)
		f := walk(&p, begin.Add(250*time.Second), 40, true, func(int) (int64, int64, uint64, float64) { return 5, 0, 0, 50 })
		near(t, "arriving", f.Arriving, 5)
		near(t, "incoming", f.Incoming, 50)
	})
	t.Run("one batch is no stream", func(t *testing.T) {
		var p pace
		walk(&p, begin, 100, false, idle)
		f := walk(&p, begin.Add(100*time.Second), 60, true, func(i int) (int64, int64, uint64, float64) {
			if i == 0 {
				return 10000, 0, 0, 1e9
			}
			return 0, 10, 1e6, 0
		})
		near(t, "arriving", f.Arriving, 0)
		near(t, "incoming", f.Incoming, 0)
	})
	t.Run("a batch beside a stream leaves the stream", func(t *testing.T) {
		var p pace
		f := walk(&p, begin, 200, true, func(i int) (int64, int64, uint64, float64) {
			if i == 150 {
				return 10000, 0, 0, 0
			}
			return 2, 0, 0, 0
		})
		if f.Arriving < 1.8 || f.Arriving > 2.1 {
			t.Errorf("arriving %v, want about 2", f.Arriving)
		}
	})
	t.Run("a stream that dried up a minute ago is none", func(t *testing.T) {
		var p pace
		walk(&p, begin, 100, true, func(int) (int64, int64, uint64, float64) { return 7, 0, 0, 0 })
		f := walk(&p, begin.Add(100*time.Second), 66, true, idle)
		near(t, "arriving", f.Arriving, 0)
	})
	t.Run("nothing moves", func(t *testing.T) {
		var p pace
		walk(&p, begin, 10, true, func(int) (int64, int64, uint64, float64) { return 0, 0, 10, 0 })
		if f := walk(&p, begin.Add(10*time.Second), 90, true, idle); f.Idle != 90*time.Second {
			t.Errorf("idle for %v, want 90s", f.Idle)
		}
		if f := walk(&p, begin.Add(100*time.Second), 1, false, idle); f.Idle != 0 {
			t.Errorf("idle for %v with nothing open, want 0", f.Idle)
		}
	})
	t.Run("bounded, and a clock that is set back begins anew", func(t *testing.T) {
		var p pace
		walk(&p, begin, 1000, true, idle)
		if len(p.beats) != maxBeats {
			t.Errorf("%d beats, want %d", len(p.beats), maxBeats)
		}
		walk(&p, begin.Add(-time.Hour), 3, true, idle)
		if len(p.beats) != 3 {
			t.Errorf("%d beats after the clock was set back, want 3", len(p.beats))
		}
	})
}
