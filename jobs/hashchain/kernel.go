package hashchain

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// MaxLanes bounds the lanes of a kernel and of an executor.
const MaxLanes = 8

// state holds a value a lane, in native words: word w of lane l stands at
// [w][l], as kernels want it. Bytes are made only where a chain enters or leaves.
type state [8][MaxLanes]uint64

func (s *state) set(lane int, v *[64]byte) {
	for w := range s {
		s[w][lane] = binary.BigEndian.Uint64(v[8*w:])
	}
}

func (s *state) value(lane int) (v [64]byte) {
	for w := range s {
		binary.BigEndian.PutUint64(v[8*w:], s[w][lane])
	}
	return v
}

// same tells whether the first lanes hold the same values as those of o.
func (s *state) same(o *state, lanes int) bool {
	for w := range s {
		if !slices.Equal(s[w][:lanes], o[w][:lanes]) {
			return false
		}
	}
	return true
}

// move copies the value of one lane into another.
func (s *state) move(to, from int) {
	for w := range s {
		s[w][to] = s[w][from]
	}
}

// kernel is one routine that advances several chains by as many steps.
type kernel struct {
	name  string
	lanes int // divides MaxLanes
	// cost is what one step of all lanes takes, in cycles of one core. Only
	// the order of the kernels' costs matters.
	cost      int
	available func() bool
	// run advances the lanes lanes from at on, a multiple of lanes, by n > 0
	// steps each; those that no chain has compute on what they hold. It writes
	// nothing before all are done, so that a panic leaves a consistent state.
	run func(s *state, at int, n uint64)
}

// advance advances the first chains lanes of s by n steps, lanes of them at a
// time. n = 0 never reaches a kernel: their loops test at the end.
func (k *kernel) advance(s *state, chains int, n uint64) {
	if n == 0 {
		return
	}
	for at := 0; at < chains; at += k.lanes {
		k.run(s, at, n)
	}
}

// right tells whether the kernel agrees with the generic one on a few steps of
// chains that all differ, at every number of chains it may be given.
func (k *kernel) right() bool {
	for chains := 1; chains <= MaxLanes; chains++ {
		var s state
		for i := range chains {
			v := Value([]byte{byte(chains), byte(i)}, 1)
			s.set(i, &v)
		}
		k.advance(&s, chains, 3)
		for i := range chains {
			if s.value(i) != Value([]byte{byte(chains), byte(i)}, 4) {
				return false
			}
		}
	}
	return true
}

// registry returns every kernel of this build, the reference first.
func registry() []*kernel {
	return append([]*kernel{&generic}, native...)
}

// selectKernel returns the kernel of that name, and an error if this build has
// none or this machine cannot run it.
func selectKernel(name string) (*kernel, error) {
	for _, k := range registry() {
		if k.name != name {
			continue
		}
		if !k.available() {
			return nil, fmt.Errorf("kernel %s: this machine cannot run it", name)
		}
		return k, nil
	}
	return nil, fmt.Errorf("kernel %s: not in this build", name)
}

// Kernel describes one kernel of this build.
type Kernel struct {
	Name      string
	Lanes     int
	Available bool // this machine can run it
	// Wrong says that it gave wrong values when it was tried, before its first
	// use. It is switched off then, and a person should know.
	Wrong bool
	// Rate is hashes a second of one core with all lanes full, as [Calibrate]
	// has found it; 0 before, and of kernels that are not used.
	Rate float64
}

// Kernels lists the kernels of this build, the generic one first. Safe for
// concurrent use.
func Kernels() []Kernel { return slices.Clone(current().list) }

// Lanes returns how many chains make an executor of this machine full: fewer
// leave lanes of the widest kernel empty, more gain nothing.
func Lanes() int { return current().d.lanes }

// Choice names the kernel that advances so many active chains, 1 to MaxLanes.
func Choice(chains int) string {
	return current().d.byActive[min(max(chains, 1), MaxLanes)].name
}

// choice is the kernels of this build and which of them to use. It is read-only.
type choice struct {
	list []Kernel
	use  []*kernel // those that this machine can run and that are right
	d    *dispatch
}

// probe tries every kernel once and chooses among the right ones, by the costs
// that they are known for.
var probe = sync.OnceValue(func() *choice { return try(registry()) })

func try(ks []*kernel) *choice {
	c := &choice{}
	for _, k := range ks {
		d := Kernel{Name: k.name, Lanes: k.lanes, Available: k.available()}
		if d.Available {
			if d.Wrong = k != &generic && !k.right(); !d.Wrong {
				c.use = append(c.use, k)
			}
		}
		c.list = append(c.list, d)
	}
	c.d = newDispatch(c.use)
	return c
}

// calibrated is what Calibrate chose last, nil before.
var calibrated atomic.Pointer[choice]

func current() *choice {
	if c := calibrated.Load(); c != nil {
		return c
	}
	return probe()
}

// Calibrate measures every kernel that this machine can run, for some 5 ms each,
// and returns them with their rates. Executors made from then on use what is
// fastest here. Safe for concurrent use.
func Calibrate() []Kernel {
	c := probe()
	step := stepTimes(c.use)
	n := &choice{list: slices.Clone(c.list), use: c.use, d: c.d.measured(c.use, step)}
	for i, k := range c.use {
		for j := range n.list {
			if n.list[j].Name == k.name {
				n.list[j].Rate = float64(k.lanes) * 1e9 / step[i]
			}
		}
	}
	calibrated.Store(n)
	return slices.Clone(n.list)
}

// dispatch says which kernel advances how many chains. It is read-only.
type dispatch struct {
	lanes    int                   // as Lanes returns
	byActive [MaxLanes + 1]*kernel // by the number of active chains
}

// newDispatch takes for each number of chains the kernel that advances all of
// them by one step at the least cost, calling it as often as it must.
func newDispatch(ks []*kernel) *dispatch {
	cost := make([]float64, len(ks))
	for i, k := range ks {
		cost[i] = float64(k.cost)
	}
	return (&dispatch{}).measured(ks, cost)
}

// better is how much cheaper than the kernel chosen before another must be:
// what is measured in a few milliseconds is off by a few percent.
const better = 0.95

// measured is d chosen anew by what a step of each of ks costs. Where the costs
// are about equal it stays as it is.
func (d *dispatch) measured(ks []*kernel, cost []float64) *dispatch {
	out := &dispatch{lanes: 1}
	for active := 1; active <= MaxLanes; active++ {
		all := func(i int) float64 { return float64((active+ks[i].lanes-1)/ks[i].lanes) * cost[i] }
		best := 0
		for i := range ks {
			if all(i) < all(best) {
				best = i
			}
		}
		if before := slices.Index(ks, d.byActive[active]); before >= 0 && all(best) > better*all(before) {
			best = before
		}
		out.byActive[active] = ks[best]
		out.lanes = max(out.lanes, ks[best].lanes)
	}
	if out.lanes == 1 {
		out.lanes = genericLanes
	}
	return out
}
