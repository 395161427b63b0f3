package jobstest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"workmanager/jobs"
)

// world is two nodes and their one clock.
type world struct {
	t       testing.TB
	newDisk func() Disk
	now     time.Time
	a, b    *node
	made    int // ids
}

// node is one of them: its disk, and the store that is open on it.
type node struct {
	Store
	w         *world
	name      string
	disk      Disk
	last      jobs.LSeq      // of what OnCommit told
	stamped   []jobs.Changed // of the commit under way
	committed []jobs.Changed // of the last commit
}

func newWorld(t testing.TB, newDisk func() Disk) *world {
	w := &world{t: t, newDisk: newDisk, now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	w.a, w.b = w.node("a"), w.node("b")
	w.a.meet(w.b)
	w.b.meet(w.a)
	return w
}

func (w *world) node(name string) *node {
	n := &node{w: w, name: name, disk: w.newDisk()}
	n.open()
	w.t.Cleanup(func() { n.ok(n.Close()) })
	return n
}

// id returns an ID that was not there before.
func (w *world) id() jobs.ID {
	w.made++
	return jobs.KeyID("jobstest", "", fmt.Sprint(w.made))
}

// work returns n jobs of work that is different in each.
func (w *world) work(n int, iterations uint64) []Submission {
	batch := make([]Submission, n)
	for i := range batch {
		id := w.id()
		batch[i].Job = jobs.Job{ID: id, V1: jobs.Value{0: 1, 60: byte(w.made >> 16), 61: byte(w.made >> 8), 62: byte(w.made)}, Iterations: iterations}
	}
	return batch
}

func (n *node) ok(err error) {
	n.w.t.Helper()
	if err != nil {
		n.w.t.Fatalf("node %s: %v", n.name, err)
	}
}

func (n *node) errorf(format string, args ...any) {
	n.w.t.Helper()
	n.w.t.Errorf("node %s: %s", n.name, fmt.Sprintf(format, args...))
}

// show prints what tells two rows apart.
func show(r jobs.Row) string {
	j, zero := r.Job, jobs.Value{}
	at := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return t.Format("15:04:05.000000")
	}
	v := func(v jobs.Value) string {
		if v == zero {
			return "-"
		}
		return fmt.Sprintf("%x..%x", v[:2], v[61:])
	}
	return fmt.Sprintf("{%d: %x %v v1 %s x %d p%d origin %s home %s/%d created %s gc %s done %s result %s err %q verified %v pulled %v purged %v ck %d %s attempts %d lost %d restarts %d owner %q ext %x}",
		r.LSeq, j.ID[:3], j.Rank, v(j.V1), j.Iterations, j.Priority, j.Origin, j.Home, j.OwnEpoch, at(j.CreatedAt), at(j.GCAfter), at(j.DoneAt),
		v(j.Result), j.Err, j.Verified, j.Pulled, j.Purged, j.Checkpoint.Done, v(j.Checkpoint.Value), j.Attempts, j.Lost, j.Restarts, j.Owner, r.Ext)
}

func showChunk(c jobs.Chunk) string {
	rows := ""
	for _, r := range c.Rows {
		rows += "\n\t" + show(r)
	}
	return fmt.Sprintf("{of %s reset %v from %+v next %+v more %v rcov %d %v floor %v%s}", c.Peer, c.Reset, c.From, c.Next, c.More, c.RCov, c.HasRCov, c.Floor, rows)
}

func (n *node) open() {
	n.last = 0
	n.Store = n.disk.Open(Options{
		Node: n.name, Now: func() time.Time { return n.w.now },
		OnStamp: func(c []jobs.Changed) { n.stamped = slices.Clone(c) },
		OnCommit: func(c []jobs.Changed) {
			n.committed = slices.Clone(c)
			if len(c) != len(n.stamped) {
				n.errorf("OnCommit tells %d rows, OnStamp told %d", len(c), len(n.stamped))
				return
			}
			for i := range c {
				if c[i].LSeq <= n.last || c[i].LSeq != n.stamped[i].LSeq || !c[i].Job.Equal(n.stamped[i].Job) || c[i].Via != n.stamped[i].Via || c[i].Copy != n.stamped[i].Copy {
					n.errorf("OnCommit tells %s after lseq %d, OnStamp told %s", show(c[i].Row), n.last, show(n.stamped[i].Row))
				}
				n.last = c[i].LSeq
			}
		},
	})
}

// restart closes the store and opens it again.
func (n *node) restart() {
	n.w.t.Helper()
	n.ok(n.Close())
	n.open()
}

// replace gives the node another disk: an older copy, or an empty one.
func (n *node) replace(d Disk) {
	n.w.t.Helper()
	n.ok(n.Close())
	n.disk = d
	n.open()
}

func (n *node) meet(peer *node) {
	n.w.t.Helper()
	n.ok(n.SetPeer(context.Background(), peer.name, "", ""))
}

// enqueue enqueues jobs and returns their rows.
func (n *node) enqueue(batch ...Submission) []jobs.Job {
	n.w.t.Helper()
	out, err := n.Enqueue(context.Background(), batch)
	n.ok(err)
	made := make([]jobs.Job, len(out))
	for i, o := range out {
		n.ok(o.Err)
		made[i] = o.Job
	}
	return made
}

// fresh enqueues count open jobs, and done enqueues count that are completed.
func (n *node) fresh(count int) []jobs.Job { n.w.t.Helper(); return n.enqueue(n.w.work(count, 100)...) }
func (n *node) done(count int) []jobs.Job  { n.w.t.Helper(); return n.enqueue(n.w.work(count, 1)...) }

// record records one fact and returns the job after it.
func (n *node) record(id jobs.ID, fact func(j jobs.Job, at func() time.Time) (jobs.Job, bool)) jobs.Job {
	n.w.t.Helper()
	out, err := n.Record(context.Background(), []Fact{{ID: id, Apply: fact}})
	n.ok(err)
	if !out[0].Found || !out[0].Changed {
		n.errorf("Record() = %+v, want it to change job %v", out[0], id)
	}
	return out[0].Job
}

func complete(v jobs.Value) func(jobs.Job, func() time.Time) (jobs.Job, bool) {
	return func(j jobs.Job, at func() time.Time) (jobs.Job, bool) { return j.Complete(v, at()) }
}
func cancel(j jobs.Job, at func() time.Time) (jobs.Job, bool)  { return j.Cancel(at()) }
func purge(j jobs.Job, at func() time.Time) (jobs.Job, bool)   { return j.Purge(at()) }
func handOut(j jobs.Job, at func() time.Time) (jobs.Job, bool) { return j.Pull() }
func checkpoint(done uint64) func(jobs.Job, func() time.Time) (jobs.Job, bool) {
	return func(j jobs.Job, _ func() time.Time) (jobs.Job, bool) {
		return j.Advance(jobs.Progress{Done: done, Value: jobs.Value{byte(done), 7}})
	}
}

// ask reads a chunk of the peer's feed, at most limit rows, and checks its form.
func (n *node) ask(peer *node, limit int) jobs.Chunk {
	n.w.t.Helper()
	q := jobs.FeedQuery{Cursor: n.Reading().Cursor, Me: n.Boot(), Rows: limit, Bytes: 1 << 20}
	c, err := peer.Feed(context.Background(), q)
	n.ok(err)
	bad := func(what string) {
		n.w.t.Helper()
		n.errorf("Feed(%+v) of %s, head %d: %s: %+v", q, peer.name, peer.Head(), what, c)
	}
	next := c.Next
	start := q.Cursor
	if c.Reset {
		start = jobs.Begin(peer.Boot(), peer.Head(), q.Cursor)
	}
	switch {
	case c.Peer != peer.name || c.Boot != peer.Boot() || next.Boot != peer.Boot():
		bad("not from this start of the peer")
	case c.From != q.Cursor:
		bad("does not say what it was asked with")
	case len(c.Rows) > limit:
		bad("too many rows")
	case next.SeenHead != peer.Head() || next.At > next.SeenHead:
		bad("a head that is not the peer's")
	case next.At < start.At || next.Refilling() && next.BackAt < start.BackAt:
		bad("the cursor goes back")
	case c.Reset == peer.Chain().Covers(q.Cursor):
		bad("a reset where none is due, or none where it is")
	case c.More != (next.At < next.SeenHead || next.Refilling()):
		bad("More is wrong")
	}
	live := true
	for i, r := range c.Rows {
		if live && i > 0 && r.LSeq < c.Rows[i-1].LSeq || r.LSeq <= start.At {
			live = false
		}
		if live && (r.LSeq <= start.At || r.LSeq > next.At) || !live && (r.LSeq <= start.BackAt || r.LSeq > start.BackTo || next.Refilling() && r.LSeq > next.BackAt) ||
			i > 0 && r.LSeq <= c.Rows[i-1].LSeq && !(live || c.Rows[i-1].LSeq > start.At) {
			bad(fmt.Sprintf("row %d at lseq %d is out of place", i, r.LSeq))
		}
	}
	return c
}

// take applies a chunk and returns what changed.
func (n *node) take(c jobs.Chunk) []jobs.Changed {
	n.w.t.Helper()
	due := n.Reading().Cursor == c.From
	had := n.Reading().Cursor
	changed, err := n.Receive(context.Background(), c)
	n.ok(err)
	if got := n.Reading().Cursor; due && got != c.Next || !due && got != had {
		n.errorf("the cursor is %+v after %s, was %+v", got, showChunk(c), had)
	}
	return changed
}

// pull asks and takes.
func (n *node) pull(peer *node, limit int) (jobs.Chunk, []jobs.Changed) {
	n.w.t.Helper()
	c := n.ask(peer, limit)
	return c, n.take(c)
}

// pullAll pulls until nothing is left and returns the rows that came.
func (n *node) pullAll(peer *node, limit int) (came []jobs.Row) {
	n.w.t.Helper()
	for range 2000 {
		c, _ := n.pull(peer, limit)
		came = append(came, c.Rows...)
		if !c.More {
			return came
		}
	}
	n.w.t.Fatalf("node %s: the feed of %s has no end", n.name, peer.name)
	return nil
}

// meetAll pulls both ways until nothing goes any more.
func (w *world) meetAll() {
	w.t.Helper()
	for range 10 {
		if came := len(w.a.pullAll(w.b, 1000)) + len(w.b.pullAll(w.a, 1000)); came == 0 {
			return
		}
	}
	w.t.Errorf("rows still go between two nodes that have them")
}

// rows returns every row of a store.
func (n *node) rows() map[jobs.ID]jobs.Row {
	n.w.t.Helper()
	all := map[jobs.ID]jobs.Row{}
	var q jobs.FeedQuery
	q.Rows, q.Bytes = 1<<20, 1<<30
	for {
		c, err := n.Feed(context.Background(), q)
		n.ok(err)
		for _, r := range c.Rows {
			if _, twice := all[r.Job.ID]; twice {
				n.errorf("row %v stands twice in the feed", r.Job.ID)
			}
			all[r.Job.ID] = r
		}
		if q.Cursor = c.Next; !c.More {
			return all
		}
	}
}

// row returns one row, which must be there.
func (n *node) row(id jobs.ID) jobs.Row {
	n.w.t.Helper()
	r, found, err := n.Row(context.Background(), id)
	n.ok(err)
	if !found {
		n.errorf("no row %v", id)
	}
	return r
}

func (n *node) has(id jobs.ID) bool {
	n.w.t.Helper()
	_, found, err := n.Row(context.Background(), id)
	n.ok(err)
	return found
}

// same checks that both nodes hold equal rows, and that their counters say so.
func (w *world) same() {
	w.t.Helper()
	a, b := w.a.rows(), w.b.rows()
	var sum [2]int64
	for id, r := range a {
		o, ok := b[id]
		if !ok {
			w.t.Errorf("job %v is only at a: %s", id, show(r))
		} else if !r.Job.Equal(o.Job) || string(r.Ext) != string(o.Ext) {
			w.t.Errorf("job %v\nat a %s\nat b %s", id, show(r), show(o))
		}
		sum[0] += r.Job.Hash()
	}
	for id, r := range b {
		if _, ok := a[id]; !ok {
			w.t.Errorf("job %v is only at b: %s", id, show(r))
		}
		sum[1] += r.Job.Hash()
	}
	if sum[0] != sum[1] {
		w.t.Errorf("digests %x and %x of equal rows", sum[0], sum[1])
	}
	for _, n := range []*node{w.a, w.b} {
		n.recount()
	}
}

// recount compares the counters with the rows.
func (n *node) recount() {
	n.w.t.Helper()
	var want jobs.Counts
	for _, r := range n.rows() {
		switch r.Job.Rank {
		case jobs.Open:
			want.Open++
		case jobs.Failed:
			want.Failed++
		case jobs.Cancelled:
			want.Cancelled++
		case jobs.Completed:
			want.Completed++
		}
		if r.Job.Pulled {
			want.Pulled++
		}
		want.Remaining = want.Remaining.Add(r.Job.Remaining())
	}
	if got := n.Counts(); got != want {
		n.errorf("Counts() = %+v, recounted %+v", got, want)
	}
}

// follow reads the results behind a cursor to the end.
func (n *node) follow(after string, limit int) (ids []jobs.ID, cursor string, restarted bool) {
	n.w.t.Helper()
	for {
		page, err := n.Results(context.Background(), jobs.ResultsQuery{After: after, Limit: limit})
		n.ok(err)
		for _, r := range page.Results {
			ids = append(ids, r.ID)
		}
		after, restarted = page.Cursor, restarted || page.Restarted
		if !page.More {
			return ids, after, restarted
		}
	}
}

func (n *node) expire() (dropped int) {
	n.w.t.Helper()
	for {
		d, err := n.Expire(context.Background())
		n.ok(err)
		if dropped += d; d == 0 {
			return dropped
		}
	}
}
