package jobs

import (
	"math"
	"math/bits"
)

// Work is a number of iterations summed over many jobs. Ten million jobs of
// 2^53 iterations do not fit 64 bits, so it has 128.
type Work struct{ Hi, Lo uint64 }

// Add returns w + n.
func (w Work) Add(n uint64) Work {
	lo, c := bits.Add64(w.Lo, n, 0)
	return Work{Hi: w.Hi + c, Lo: lo}
}

// Plus returns w + v.
func (w Work) Plus(v Work) Work {
	w = w.Add(v.Lo)
	w.Hi += v.Hi
	return w
}

// Sub returns w - n.
func (w Work) Sub(n uint64) Work {
	lo, b := bits.Sub64(w.Lo, n, 0)
	return Work{Hi: w.Hi - b, Lo: lo}
}

// Float returns w as the nearest float64.
func (w Work) Float() float64 {
	return math.Ldexp(float64(w.Hi), 64) + float64(w.Lo)
}

// Clamp returns w, or the largest uint64 if it is larger.
func (w Work) Clamp() uint64 {
	if w.Hi > 0 {
		return math.MaxUint64
	}
	return w.Lo
}
