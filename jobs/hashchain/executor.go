package hashchain

import "iter"

// Chain is a place in one chain: Value is what it has reached after Done of
// its Iterations. Tag is the caller's, and names the chain in its executor.
type Chain[T comparable] struct {
	Tag              T
	Done, Iterations uint64
	Value            [64]byte
}

// Executor advances chains together, each in a lane. A lane whose chain ends
// is free at once; the caller fills it and goes on. It starts no goroutine and
// is not safe for concurrent use.
type Executor[T comparable] struct {
	d      *dispatch
	lanes  int
	active int // the lanes in use are the first ones

	// The lanes, one array a field: kernels want the values side by side.
	state state
	left  [MaxLanes]uint64
	done  [MaxLanes]uint64
	tag   [MaxLanes]T

	ended []Chain[T]
}

// NewExecutor returns an executor of that many lanes, at most MaxLanes; 0 takes
// as many as the machine's kernels want, see [Lanes].
func NewExecutor[T comparable](lanes int) *Executor[T] {
	return newExecutor[T](lanes, current().d)
}

func newExecutor[T comparable](lanes int, d *dispatch) *Executor[T] {
	if lanes <= 0 {
		lanes = d.lanes
	}
	return &Executor[T]{d: d, lanes: min(lanes, MaxLanes)}
}

// Lanes returns how many chains it takes, Active how many it has, and Free how
// many more it takes.
func (e *Executor[T]) Lanes() int { return e.lanes }

// Active returns the number of chains that have not ended.
func (e *Executor[T]) Active() int { return e.active }

// Free returns the number of lanes without a chain.
func (e *Executor[T]) Free() int { return e.lanes - e.active }

// Add puts a chain into a free lane and reports whether there was one. A chain
// with nothing left to do needs none: Done returns it next. The tag must differ
// from those of the active chains.
func (e *Executor[T]) Add(c Chain[T]) bool {
	if c.Done >= c.Iterations {
		e.ended = append(e.ended, c)
		return true
	}
	if e.active == e.lanes {
		return false
	}
	i := e.active
	e.state.set(i, &c.Value)
	e.tag[i] = c.Tag
	e.done[i], e.left[i] = c.Done, c.Iterations-c.Done
	e.active++
	return true
}

// Advance takes every active chain on by the same number of steps: at most
// steps, and no further than the end of the one that ends first. It returns
// the hashes computed over all chains. If a kernel panics, every chain is at a
// right place, and those that were not reached are where they were.
func (e *Executor[T]) Advance(steps uint64) uint64 {
	if e.active == 0 {
		return 0
	}
	n := steps
	for _, left := range e.left[:e.active] {
		n = min(n, left)
	}
	k := e.d.byActive[e.active]
	if n > 0 {
		for lo := 0; lo < e.active; lo += k.lanes {
			k.run(&e.state, lo, n)
			for i := lo; i < min(lo+k.lanes, e.active); i++ {
				e.done[i] += n
				e.left[i] -= n
			}
		}
	}
	hashes := n * uint64(e.active)
	for i := e.active - 1; i >= 0; i-- {
		if e.left[i] == 0 {
			e.ended = append(e.ended, e.chain(i))
			e.drop(i)
		}
	}
	return hashes
}

// Done returns the chains that have ended since it was asked last. The slice
// is good until the next Add or Advance.
func (e *Executor[T]) Done() []Chain[T] {
	ended := e.ended
	e.ended = e.ended[:0]
	return ended
}

// Remove takes an active chain out and returns where it is. It reports false
// if no active chain has the tag; one that has ended stays for Done.
func (e *Executor[T]) Remove(tag T) (Chain[T], bool) {
	for i := range e.active {
		if e.tag[i] == tag {
			c := e.chain(i)
			e.drop(i)
			return c, true
		}
	}
	return Chain[T]{}, false
}

// All yields where each active chain is. The executor must not be changed
// meanwhile.
func (e *Executor[T]) All() iter.Seq[Chain[T]] {
	return func(yield func(Chain[T]) bool) {
		for i := range e.active {
			if !yield(e.chain(i)) {
				return
			}
		}
	}
}

func (e *Executor[T]) chain(i int) Chain[T] {
	return Chain[T]{Tag: e.tag[i], Done: e.done[i], Iterations: e.done[i] + e.left[i], Value: e.state.value(i)}
}

// drop frees lane i. The last lane in use takes its place.
func (e *Executor[T]) drop(i int) {
	e.active--
	last := e.active
	if i != last {
		e.state.move(i, last)
		e.tag[i], e.done[i], e.left[i] = e.tag[last], e.done[last], e.left[last]
	}
	var none T
	e.tag[last] = none // lets go of what a pointer tag holds
}
