package jobs

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// A job may keep checkpoints: the values at evenly spaced places of its chain,
// its rungs. Whoever has the data, or v1, can then verify the segments between
// them side by side, and need not wait for one core to go the whole way.

const (
	// MaxKeep bounds the checkpoints that a job keeps: 64 kB, so that a row is
	// still one frame between the nodes and one small write of the disk.
	MaxKeep = 1000
	// RungSpacing is the least distance of two kept checkpoints. Below it they
	// would cut the chunks of the kernels, 1,024 steps, and a segment would be
	// over before a core has taken it up.
	RungSpacing = 1000
)

// Rungs is the values of a job's first kept checkpoints, 64 bytes each, in the
// order of the chain. It is a string so that rows stay values.
type Rungs string

// rungBytes is the length of one.
const rungBytes = len(Value{})

// Len returns how many there are.
func (r Rungs) Len() int { return len(r) / rungBytes }

// At returns the i-th, from 0.
func (r Rungs) At(i int) (v Value) {
	copy(v[:], r[i*rungBytes:])
	return v
}

// First returns the first n, or all if there are fewer.
func (r Rungs) First(n int) Rungs { return r[:min(len(r), max(n, 0)*rungBytes)] }

// From returns those from the i-th on.
func (r Rungs) From(i int) Rungs { return r[min(len(r), max(i, 0)*rungBytes):] }

// Add returns r with a value behind it.
func (r Rungs) Add(v Value) Rungs { return r + Rungs(v[:]) }

// MarshalText is base64, so that JSON can hold it.
func (r Rungs) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, []byte(r)), nil
}

// UnmarshalText reads what MarshalText wrote.
func (r *Rungs) UnmarshalText(text []byte) error {
	b, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return fmt.Errorf("kept checkpoints: %w", err)
	}
	if len(b)%rungBytes != 0 || len(b) > MaxKeep*rungBytes {
		return fmt.Errorf("kept checkpoints: %d bytes are not up to %d values of %d", len(b), MaxKeep, rungBytes)
	}
	*r = Rungs(b)
	return nil
}

// MostRungs returns how many checkpoints a chain has room for.
func MostRungs(iterations uint64) int {
	if iterations < 1+2*RungSpacing {
		return 0
	}
	return int(min((iterations-1)/RungSpacing-1, MaxKeep))
}

// RungAt returns the place of the i-th of keep checkpoints, from 0. They cut
// what is to be done, from v1 on, into keep+1 parts as equal as can be.
func RungAt(iterations uint64, keep, i int) uint64 {
	return 1 + (iterations-1)*uint64(i+1)/uint64(keep+1) // below 2^53 * 1,001
}

// RungsBy returns how many of keep checkpoints stand at or below done.
func RungsBy(iterations uint64, keep int, done uint64) int {
	if keep == 0 || done <= 1 || iterations <= 1 {
		return 0
	}
	return int(min((done*uint64(keep+1)-1)/(iterations-1), uint64(keep)))
}

// Keeping returns the job with k checkpoints to keep, or as many as its chain
// has room for: they stand at least RungSpacing apart. The error is for a k
// that no job may have.
func (j Job) Keeping(k int) (Job, error) {
	if err := CheckKeep("body", k); err != nil {
		return j, err
	}
	j.Keep = uint16(min(k, MostRungs(j.Iterations)))
	return j, nil
}

// CheckKeep returns an *Error naming the range if no job keeps k checkpoints.
func CheckKeep(in string, k int) error {
	if k < 0 || k > MaxKeep {
		return Invalid(in, "checkpoints", "value_error.number", "%d is not from 0 to %d", k, MaxKeep)
	}
	return nil
}

// AddRungs records kept checkpoints, of which the first is the from-th. What is
// known already, comes behind a gap, or is more than the job keeps, is left out.
func (j Job) AddRungs(from int, add Rungs) (Job, bool) {
	have := j.Rungs.Len()
	if j.Purged || from < 0 || from > have || len(add)%rungBytes != 0 {
		return j, false
	}
	add = add.From(have - from).First(int(j.Keep) - have)
	if len(add) == 0 {
		return j, false
	}
	j.Rungs += add
	return j, true
}

// Ladder returns what is known of the chain and stays: where it begins, v1, the
// kept checkpoints so far, and its value if it has one. It is empty for a
// purged job.
func (j Job) Ladder() []Progress {
	if j.Purged {
		return nil
	}
	n := j.Rungs.Len()
	l := make([]Progress, 0, n+2)
	l = append(l, Progress{Done: 1, Value: j.V1})
	for i := range n {
		l = append(l, Progress{Done: RungAt(j.Iterations, int(j.Keep), i), Value: j.Rungs.At(i)})
	}
	if j.Rank == Completed && j.Iterations > 1 {
		l = append(l, Progress{Done: j.Iterations, Value: j.Result})
	}
	return l
}

// disagreeRungs reports whether two rows of the same work have different values
// at one place.
func disagreeRungs(a, b Job) bool {
	if a.Keep != b.Keep || a.Restarts != b.Restarts {
		return false
	}
	short, long := a.Rungs, b.Rungs
	if len(short) > len(long) {
		short, long = long, short
	}
	return !strings.HasPrefix(string(long), string(short))
}
