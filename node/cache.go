package node

import (
	"slices"
	"sync"
	"sync/atomic"

	"workmanager/jobs"
)

// cache remembers the newest results by their work, so that the same work is
// answered at once. It is a ring over a map: the oldest entry makes room. It
// lives in memory because an index over random v1s would cost more than all
// else of a completion. Of long chains it also knows which began with the same
// data, so that a longer one goes on where a shorter one ended. It is safe for
// concurrent use.
type cache struct {
	mu    sync.Mutex // guards what follows, up to max
	index map[work]int32
	far   map[chain][]uint64 // iterations of those of at least minPrefix, ascending
	ring  []remembered
	next  int
	gone  map[work]struct{} // dropped while the cache is warmed, nil otherwise
	shut  bool              // all was dropped while it is warmed

	max          int
	apart        bool // each owner's results serve only its own jobs; set before use
	hits, misses atomic.Uint64
	resumed      atomic.Uint64 // longer ones that went on from a shorter one
}

const (
	// minPrefix is the shortest chain that another goes on from: what is saved of
	// shorter ones, a few milliseconds, is not worth a place in a second index,
	// and tiny jobs, of which there are the most, do not pay for it.
	minPrefix = 10_000
	// maxPrefixes bounds the places known of one chain. Of more, the one goes
	// that stands closest behind another.
	maxPrefixes = 32
)

// work is what a result is of. Whose it is comes with it where clients see only
// their own jobs: an answer at once would tell one that another has submitted
// the same data, and so let inputs be guessed.
type work struct {
	chain
	iterations uint64
}

// chain is what the works over one data are places of.
type chain struct {
	v1    jobs.Value
	owner string // "" where results are shared
}

type remembered struct {
	work  work
	value jobs.Value
	used  bool
}

// newCache returns a cache of up to max results; with 0 it remembers nothing.
func newCache(max int) *cache {
	return &cache{index: map[work]int32{}, far: map[chain][]uint64{}, max: max}
}

// chain returns what the job's work is a place of.
func (c *cache) chain(j jobs.Job) chain {
	if !c.apart {
		return chain{v1: j.V1}
	}
	return chain{j.V1, j.Owner}
}

// get returns the value of a job's work, nil if it is not remembered.
func (c *cache) get(j jobs.Job) *jobs.Value {
	if c.max == 0 || j.Iterations == 1 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, ok := c.index[work{c.chain(j), j.Iterations}]
	if !ok {
		c.misses.Add(1)
		return nil
	}
	c.hits.Add(1)
	v := c.ring[i].value
	return &v
}

// prefix returns the furthest place that is remembered of a job's chain and lies
// before its end. It reports false if there is none.
func (c *cache) prefix(j jobs.Job) (jobs.Progress, bool) {
	if c.max == 0 || j.Iterations <= minPrefix {
		return jobs.Progress{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	of := c.chain(j)
	ends := c.far[of]
	i, _ := slices.BinarySearch(ends, j.Iterations)
	if i == 0 {
		return jobs.Progress{}, false
	}
	n := ends[i-1]
	c.resumed.Add(1)
	return jobs.Progress{Done: n, Value: c.ring[c.index[work{of, n}]].value}, true
}

// reach adds an end to those of its chain. c.mu is held.
func (c *cache) reach(w work) {
	if w.iterations < minPrefix {
		return
	}
	ends := c.far[w.chain]
	i, _ := slices.BinarySearch(ends, w.iterations)
	ends = slices.Insert(ends, i, w.iterations)
	if len(ends) > maxPrefixes {
		least := 1 // never the last: it is the furthest
		for k := 2; k < len(ends)-1; k++ {
			if ends[k]-ends[k-1] < ends[least]-ends[least-1] {
				least = k
			}
		}
		ends = slices.Delete(ends, least, least+1)
	}
	c.far[w.chain] = ends
}

// lose takes back what reach did. c.mu is held.
func (c *cache) lose(w work) {
	ends := c.far[w.chain]
	i, found := slices.BinarySearch(ends, w.iterations)
	switch {
	case !found:
	case len(ends) == 1:
		delete(c.far, w.chain)
	default:
		c.far[w.chain] = slices.Delete(ends, i, i+1)
	}
}

// put remembers a result. A value of one iteration is its own v1 and is not.
func (c *cache) put(j jobs.Job) {
	if c.max == 0 || j.Iterations == 1 || j.Purged || j.Rank != jobs.Completed {
		return
	}
	w := work{c.chain(j), j.Iterations}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.gone[w]; ok || c.shut {
		return
	}
	if _, ok := c.index[w]; ok {
		return
	}
	if len(c.ring) < c.max {
		c.ring = append(c.ring, remembered{})
		c.next = len(c.ring) - 1
	}
	if c.next >= len(c.ring) {
		c.next = 0
	}
	if old := &c.ring[c.next]; old.used {
		delete(c.index, old.work)
		c.lose(old.work)
	}
	c.ring[c.next] = remembered{work: w, value: j.Result, used: true}
	c.index[w] = int32(c.next)
	c.reach(w)
	c.next++
}

// drop forgets the result of a job and wipes its bytes.
func (c *cache) drop(j jobs.Job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := work{c.chain(j), j.Iterations}
	if c.gone != nil {
		c.gone[w] = struct{}{}
	}
	if i, ok := c.index[w]; ok {
		delete(c.index, w)
		c.lose(w)
		c.ring[i] = remembered{}
	}
}

// clear forgets everything: something was purged at the peer, and which work it
// was is gone.
func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.ring)
	c.index, c.far, c.ring, c.next = map[work]int32{}, map[chain][]uint64{}, nil, 0
	c.shut = c.gone != nil
}

// warming notes what is dropped from here on, so that an older view of the disk
// does not bring it back; the function it returns ends that.
func (c *cache) warming() func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = map[work]struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.gone, c.shut = nil, false
	}
}

// len returns how many results are remembered.
func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.index)
}
