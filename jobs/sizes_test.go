package jobs

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestSizes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var s, other Sizes
	var kept []uint64
	for i := range 20_000 {
		n := rng.Uint64N(1 << (1 + rng.IntN(53)))
		switch {
		case i%3 == 0:
			s.Add(n)
			s.Sub(n)
			continue
		case i%3 == 1:
			s.Add(n)
		default:
			other.Add(n)
		}
		kept = append(kept, n)
	}
	s.Plus(&other)
	if got, want := s.Jobs(), int64(len(kept)); got != want {
		t.Errorf("Jobs() = %d, want %d", got, want)
	}
	for _, most := range []float64{0, 1, 7, 8, 100, 12345, 1e6, 3e9, 1e12, 1e17} {
		var want float64
		for _, n := range kept {
			want += min(float64(n), most)
		}
		if got := s.Capped(most); got < want*(1-1e-12) || got > want*(1+1./16) {
			t.Errorf("Capped(%g) = %g, want %g or up to a sixteenth more", most, got, want)
		}
	}
	last := -1
	for _, n := range []uint64{0, 1, 2, 7, 8, 9, 15, 16, 18, 1 << 53, math.MaxUint64} {
		i := sizeOf(n)
		if i <= last || i >= sizeCount {
			t.Errorf("sizeOf(%d) = %d after %d, of %d", n, i, last, sizeCount)
		}
		last = i
	}
}
