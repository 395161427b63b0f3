package sync

import "workmanager/jobs"

// maxTail bounds the rows that are remembered after their commit, about 500
// bytes each: what a peer in step asks for is then at hand, and reading it back
// from the disk would cost a sixth of what the commit did.
const maxTail = 4096

// maxTailRungs bounds the bytes of their kept checkpoints. At it all is left to
// the disk, from where such rows are read as fast as they can be sent.
const maxTailRungs = 8 << 20

// tail is the newest rows committed, in the order of their numbers: all of
// (from, last]. A row that changed twice stands in it twice. Engine.mu guards it.
type tail struct {
	from, last jobs.LSeq
	results    jobs.RSeq // newest rseq committed, 0 while it is not known
	rows       []jobs.Changed
	rungs      int // bytes of kept checkpoints added since rows was empty
}

// add takes in what a transaction changed.
func (t *tail) add(changed []jobs.Changed) {
	t.last = changed[len(changed)-1].LSeq
	for i := range changed {
		t.results = max(t.results, changed[i].RSeq)
		t.rungs += len(changed[i].Job.Rungs)
	}
	if t.rungs > maxTailRungs {
		t.clear()
		return
	}
	if len(changed) > maxTail {
		changed, t.rows = changed[len(changed)-maxTail:], t.rows[:0]
	}
	if n := len(t.rows) + len(changed); n > 2*maxTail { // seldom, so that adding is cheap
		kept := t.rows[n-maxTail-len(changed):]
		n = copy(t.rows, kept)
		clear(t.rows[n:])
		t.rows = t.rows[:n]
	}
	t.rows = append(t.rows, changed...)
	if len(t.rows) > 0 && len(t.rows) >= maxTail {
		t.from = t.rows[0].LSeq - 1
	}
}

// skip passes over what a transaction changed: there is nobody to read it.
func (t *tail) skip(changed []jobs.Changed) {
	t.last = changed[len(changed)-1].LSeq
	t.clear()
	t.results = 0
}

// clear forgets all rows.
func (t *tail) clear() {
	clear(t.rows)
	t.from, t.rows, t.rungs = t.last, t.rows[:0], 0
}

// chunk returns what a feed would answer to q. It reports false where it does
// not remember enough, and the disk must be asked.
func (t *tail) chunk(q jobs.FeedQuery, boot jobs.ID) (jobs.Chunk, bool) {
	if q.Cursor.At < t.from || q.Cursor.Refilling() {
		return jobs.Chunk{}, false
	}
	first := len(t.rows)
	for first > 0 && t.rows[first-1].LSeq > q.Cursor.At {
		first--
	}
	limit, bytes := max(min(q.Rows, q.Bytes/tailRowBytes), 1), q.Bytes
	c := jobs.Chunk{Boot: boot}
	latest := make(map[jobs.ID]jobs.LSeq, len(t.rows)-first)
	for i := first; i < len(t.rows); i++ {
		latest[t.rows[i].Job.ID] = t.rows[i].LSeq
	}
	at := t.last
	for i := first; i < len(t.rows); i++ {
		r := &t.rows[i]
		if r.Via != (jobs.ID{}) && r.Via == q.Me || latest[r.Job.ID] != r.LSeq {
			continue
		}
		if n := len(c.Rows); n == limit || n > 0 && bytes <= 0 {
			at, c.More = c.Rows[n-1].LSeq, true
			break
		}
		c.Rows = append(c.Rows, r.Row)
		bytes -= tailRowBytes + len(r.Job.Rungs)
	}
	c.Next = q.Cursor.Advance(boot, t.last, at, 0)
	c.RCov, c.HasRCov = t.results, !c.More && t.results > 0
	return c, true
}

// tailRowBytes is about what a row costs on its way.
const tailRowBytes = 250
