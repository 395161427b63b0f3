package node

import (
	"sync"
	"sync/atomic"

	"workmanager/jobs"
)

// cache remembers the newest results by their work, so that the same work is
// answered at once. It is a ring over a map: the oldest entry makes room. It
// lives in memory because an index over random v1s would cost more than all
// else of a completion. It is safe for concurrent use.
type cache struct {
	mu    sync.Mutex // guards index, ring, next
	index map[work]int32
	ring  []remembered
	next  int
	gone  map[work]struct{} // dropped while the cache is warmed, nil otherwise
	shut  bool              // all was dropped while it is warmed

	max          int
	hits, misses atomic.Uint64
}

type work struct {
	v1         jobs.Value
	iterations uint64
}

type remembered struct {
	work  work
	value jobs.Value
	used  bool
}

// newCache returns a cache of up to max results; with 0 it remembers nothing.
func newCache(max int) *cache {
	return &cache{index: map[work]int32{}, max: max}
}

// get returns the value of the work, nil if it is not remembered.
func (c *cache) get(v1 jobs.Value, iterations uint64) *jobs.Value {
	if c.max == 0 || iterations == 1 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, ok := c.index[work{v1, iterations}]
	if !ok {
		c.misses.Add(1)
		return nil
	}
	c.hits.Add(1)
	v := c.ring[i].value
	return &v
}

// put remembers a result. A value of one iteration is its own v1 and is not.
func (c *cache) put(j jobs.Job) {
	if c.max == 0 || j.Iterations == 1 || j.Purged || j.Rank != jobs.Completed {
		return
	}
	w := work{j.V1, j.Iterations}
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
	}
	c.ring[c.next] = remembered{work: w, value: j.Result, used: true}
	c.index[w] = int32(c.next)
	c.next++
}

// drop forgets a result and wipes its bytes.
func (c *cache) drop(v1 jobs.Value, iterations uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := work{v1, iterations}
	if c.gone != nil {
		c.gone[w] = struct{}{}
	}
	if i, ok := c.index[w]; ok {
		delete(c.index, w)
		c.ring[i] = remembered{}
	}
}

// clear forgets everything: something was purged at the peer, and which work it
// was is gone.
func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.ring)
	c.index, c.ring, c.next = map[work]int32{}, nil, 0
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
