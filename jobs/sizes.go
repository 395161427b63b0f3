package jobs

import "math/bits"

const (
	sizeBits  = 3 // a power of two is cut into 8
	sizeParts = 1 << sizeBits
	sizeCount = (64 - sizeBits + 1) * sizeParts
)

// Sizes counts jobs by the iterations that they have left, so that their sum
// can be had with each job cut at any bound, at a cost that is the same for ten
// jobs and for ten million. It takes 15 kB. It is not safe for concurrent use.
type Sizes struct {
	jobs  int64
	count [sizeCount]int64
	work  [sizeCount]Work
}

// Add counts a job with n iterations left.
func (s *Sizes) Add(n uint64) {
	i := sizeOf(n)
	s.jobs, s.count[i], s.work[i] = s.jobs+1, s.count[i]+1, s.work[i].Add(n)
}

// Sub takes back what was added with the same n.
func (s *Sizes) Sub(n uint64) {
	i := sizeOf(n)
	s.jobs, s.count[i], s.work[i] = s.jobs-1, s.count[i]-1, s.work[i].Sub(n)
}

// Plus counts all of t's jobs too.
func (s *Sizes) Plus(t *Sizes) {
	s.jobs += t.jobs
	for i := range s.count {
		s.count[i], s.work[i] = s.count[i]+t.count[i], s.work[i].Plus(t.work[i])
	}
}

// Jobs returns how many are counted.
func (s *Sizes) Jobs() int64 { return s.jobs }

// Capped returns the sum of the iterations left, with no job counted for more
// than most. What it returns is never too small, and at most a sixteenth too large.
func (s *Sizes) Capped(most float64) float64 {
	var sum float64
	for i, n := range s.count {
		if n > 0 {
			sum += min(s.work[i].Float(), most*float64(n))
		}
	}
	return sum
}

// sizeOf returns the place of n: exact below 8, then 8 places for each power of two.
func sizeOf(n uint64) int {
	if n < sizeParts {
		return int(n)
	}
	shift := bits.Len64(n) - 1 - sizeBits
	return (shift+1)*sizeParts + int(n>>shift)&(sizeParts-1)
}
