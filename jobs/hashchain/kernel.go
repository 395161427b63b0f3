package hashchain

import (
	"fmt"
	"sync"
)

// MaxLanes bounds the lanes of a kernel and of an executor.
const MaxLanes = 8

// kernel is one routine that advances several chains by as many steps.
type kernel struct {
	name  string
	lanes int
	// cost is what one step of all lanes takes, in cycles of one core. Only
	// the order of the kernels' costs matters.
	cost      int
	available func() bool
	// run advances 1 to lanes values by n > 0 steps each, and writes none
	// before all are done, so that a panic leaves a consistent state. A SIMD
	// kernel transposes on entry and exit, which is nothing beside a chunk.
	run func(v [][64]byte, n uint64)
}

// advance advances every value by n steps, lanes values at a time. n = 0
// never reaches a kernel: their loops test at the end.
func (k *kernel) advance(v [][64]byte, n uint64) {
	if n == 0 {
		return
	}
	for len(v) > k.lanes {
		k.run(v[:k.lanes], n)
		v = v[k.lanes:]
	}
	if len(v) > 0 {
		k.run(v, n)
	}
}

// right tells whether the kernel agrees with the generic one on a few steps of
// chains that all differ, at every number of chains it may be given.
func (k *kernel) right() bool {
	for chains := 1; chains <= k.lanes; chains++ {
		got := make([][64]byte, chains)
		for i := range got {
			got[i] = Value([]byte{byte(chains), byte(i)}, 1)
		}
		k.advance(got, 3)
		for i := range got {
			if got[i] != Value([]byte{byte(chains), byte(i)}, 4) {
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
}

// Kernels lists the kernels of this build, the generic one first. Safe for
// concurrent use.
func Kernels() []Kernel {
	list, _ := probe()
	return append([]Kernel(nil), list...)
}

// Lanes returns how many chains make an executor of this machine full: fewer
// leave lanes of the widest kernel empty, more gain nothing.
func Lanes() int {
	_, d := probe()
	return d.lanes
}

// probe tries every kernel once and chooses among the right ones.
var probe = sync.OnceValues(func() ([]Kernel, *dispatch) {
	var list []Kernel
	var use []*kernel
	for _, k := range registry() {
		d := Kernel{Name: k.name, Lanes: k.lanes, Available: k.available()}
		if d.Available {
			if d.Wrong = k != &generic && !k.right(); !d.Wrong {
				use = append(use, k)
			}
		}
		list = append(list, d)
	}
	return list, newDispatch(use)
})

// dispatch says which kernel advances how many chains. It is read-only.
type dispatch struct {
	lanes    int                   // as Lanes returns
	byActive [MaxLanes + 1]*kernel // by the number of active chains
}

// newDispatch takes for each number of chains the kernel that advances all of
// them by one step at the least cost, calling it as often as it must.
func newDispatch(ks []*kernel) *dispatch {
	d := &dispatch{lanes: 1}
	for active := 1; active <= MaxLanes; active++ {
		best := 0
		for _, k := range ks {
			cost := (active + k.lanes - 1) / k.lanes * k.cost
			if d.byActive[active] == nil || cost < best {
				d.byActive[active], best = k, cost
			}
		}
		d.lanes = max(d.lanes, d.byActive[active].lanes)
	}
	if d.lanes == 1 {
		d.lanes = genericLanes
	}
	return d
}
