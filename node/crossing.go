package node

import (
	"sync"
	"sync/atomic"

	"workmanager/jobs"
)

// Jobs cross from the store into the lease table: what is enqueued, taken over,
// adopted, sent by the peer or read from the disk is there first and enters the
// table a moment later. Within that moment another commit may end the job or give
// it to the peer, and who made that commit may be through with the table already:
// the job would enter after its end, and be leased once more. Or a commit makes it
// ours again, and who comes late from the one before would take it out for good.
//
// So every way into the table is a passage: it begins before its commit or its
// read, and ends when its jobs have entered. While any is on its way, crossing
// keeps for each job what its newest commit has made of it, as the store's writer
// tells it, in the order of the commits. The newest commit decides: a job enters
// unless that one says that it is gone, and leaves unless that one says that it is
// back.

// word is what is known of a job that crosses.
type word uint8

const (
	// wordNone: no commit of late has said otherwise than who asks.
	wordNone word = iota
	// wordGone: it has ended, or is the peer's. Who made that so has told the table,
	// or will.
	wordGone
	// wordBack: it was gone, and is open and ours again. Who made that so enters it.
	wordBack
	// wordSpared: GiveAway has it in hand. It goes to the peer, or back into the
	// table.
	wordSpared
	// wordLost: there was more to remember than there is room for. The job is left
	// to the disk, which knows.
	wordLost
)

// maxWords bounds the jobs of one span, about 40 bytes each.
const maxWords = 65536

// crossing is what is on its way between the store and the table. It is safe for
// concurrent use; committed never blocks.
type crossing struct {
	node string
	some atomic.Bool // there are words, or some were lost

	mu sync.Mutex // guards the rest; nothing else is locked under it
	// What was said since a passage began is in its span, in the one before that
	// and in the one after. A span goes when no passage of it and none of before is
	// on its way: so what is remembered is what came to be during the two longest
	// that are.
	last, this *span
	most       int // words of a span
	jobs       int // that passages on their way may bring, of those of which that is known
	unbounded  int // passages on their way of which it is not
}

// span is a time in which passages begin.
type span struct {
	passages int // on their way
	words    map[jobs.ID]word
	lost     bool // words was full
}

func newCrossing(node string) *crossing {
	return &crossing{node: node, last: &span{}, this: &span{}, most: maxWords}
}

// passage is one way into the table, of one call. Its end must be called.
type passage struct {
	c    *crossing
	s    *span
	most int // unknown if that is below 0
}

// begin begins a passage: call it before the commit, or the read, that it
// enters.
func (c *crossing) begin() passage { return c.beginOf(-1) }

// beginOf is begin for a passage that brings at most so many jobs.
func (c *crossing) beginOf(most int) passage {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.passages == 0 {
		c.last.forget()
		if c.this.passages == 0 {
			c.this.forget()
		} else if len(c.this.words) > 0 || c.this.lost {
			c.last, c.this = c.this, c.last
		}
		c.some.Store(len(c.last.words) > 0 || c.last.lost)
	}
	c.this.passages++
	if most < 0 {
		c.unbounded++
	} else {
		c.jobs += most
	}
	return passage{c, c.this, most}
}

// entering returns how many jobs may be in the store and not yet in the table,
// for a moment, and whether that is known.
func (c *crossing) entering() (most int, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.jobs, c.unbounded == 0
}

// forget empties a span that no passage needs.
func (s *span) forget() {
	if len(s.words) > 1024 { // clearing it would cost as much each time
		s.words = nil
	}
	clear(s.words)
	s.lost = false
}

func (p passage) end() {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.s.passages--
	if p.most < 0 {
		p.c.unbounded--
	} else {
		p.c.jobs -= p.most
	}
}

// committed is told of every commit by the store's writer.
func (c *crossing) committed(changed []jobs.Changed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.passages+c.this.passages == 0 {
		return
	}
	for i := range changed {
		j := &changed[i].Job
		switch ours := j.Rank == jobs.Open && j.Home == c.node; {
		case j.Home != c.node && j.OwnEpoch == 0 && !j.ID.Keyed():
			// It was never ours, so nobody brings it: nearly all that a peer
			// replicates is that, and would leave no room for words that matter.
		case !ours:
			c.put(j.ID, wordGone)
		case c.word(j.ID) == wordGone:
			c.put(j.ID, wordBack)
		}
	}
}

// spare says that GiveAway has taken jobs out of the table to give them to the
// peer: whoever meets them leaves them alone.
func (c *crossing) spare(ids []jobs.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if w := c.word(id); w == wordNone || w == wordBack {
			c.put(id, wordSpared)
		}
	}
}

// unspare ends that for jobs that were not given.
func (c *crossing) unspare(id jobs.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.word(id) == wordSpared {
		c.put(id, wordBack)
	}
}

// of returns what is known of a job. Who asks has a passage on its way.
func (c *crossing) of(id jobs.ID) word {
	if !c.some.Load() {
		return wordNone
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.word(id)
}

// word is of; mu is held.
func (c *crossing) word(id jobs.ID) word {
	if w, known := c.this.words[id]; known {
		return w
	}
	if w, known := c.last.words[id]; known && !c.this.lost {
		return w
	}
	if c.this.lost || c.last.lost {
		return wordLost
	}
	return wordNone
}

// put remembers a word; mu is held.
func (c *crossing) put(id jobs.ID, w word) {
	s := c.this
	if _, known := s.words[id]; !known && len(s.words) >= c.most {
		s.lost = true
	} else {
		if s.words == nil {
			s.words = map[jobs.ID]word{}
		}
		s.words[id] = w
	}
	c.some.Store(true)
}

// lockToEnter locks mu for a passage whose commit or read is behind it.
func (q *Queue) lockToEnter() {
	if q.between != nil {
		q.between()
	}
	q.mu.Lock()
}

// mayEnter reports whether a job that a commit has made ours may enter the table,
// and leaves it to the disk if that is not known. q.mu is held, and a passage is
// on its way that began before that commit.
func (q *Queue) mayEnter(j *jobs.Job) bool {
	switch q.crossing.of(j.ID) {
	case wordGone, wordSpared:
		return false
	case wordLost:
		if !q.table.Has(j.ID) {
			q.window.leaveOld(int(j.Priority))
			return false
		}
	}
	return true
}

// enter adds a job that is ours now to the table. A page of the disk may have
// brought it there first, as it was. It reports whether it waits since. q.mu is
// held.
func (q *Queue) enter(j jobs.Job) bool { return q.table.Add(j) || q.table.Further(j) }

// left takes a job that is the peer's now out of the table. q.mu is held, and a
// passage is on its way that began before the commit that made it so.
func (q *Queue) left(id jobs.ID) {
	switch q.crossing.of(id) {
	case wordBack:
		return
	case wordLost:
		q.window.leaveOld(jobs.MaxPriority)
	}
	q.table.Remove(id)
}

// ended takes a job that has ended out of the table, unless it is other work
// there, since its end: what has ended never opens again, but that one key came
// with other data. q.mu is held.
func (q *Queue) ended(j *jobs.Job) {
	if j.Purged || q.table.Knows(*j) {
		q.table.Remove(j.ID)
	}
}

// readAgain takes a job out of the table that is not there as its row is, and has
// it read from the disk, if it is open and ours. q.mu is held.
func (q *Queue) readAgain(id jobs.ID) {
	if q.table.Has(id) {
		q.table.Remove(id)
		q.window.leaveOld(jobs.MaxPriority)
	}
}
