package sim

import (
	"encoding/binary"
	"fmt"

	"workmanager/jobs"
)

// job is what the world knows of a job.
type job struct {
	i     int
	id    jobs.ID
	keyed bool
	works []work // more than one: its key came with different work

	both     bool    // a client was told so
	ended    bool    // some fact has ended it
	gone     [2]bool // retention has dropped it there
	goneHurt int     // damages to any disk when the floor rose that it was first dropped by
	erased   bool    // a client was told that it is purged on both
	hurt     int     // damages when it was told so
	remade   bool    // a client has sent its key again after retention had dropped it somewhere
	sent     int     // times a client has made its row
}

type work struct {
	v1         jobs.Value
	iterations uint64
}

// value is what the work comes to. A hash would only cost time.
func (w work) value() jobs.Value {
	if w.iterations == 1 {
		return w.v1
	}
	v := w.v1
	v[0] ^= 0x55
	binary.BigEndian.PutUint64(v[56:], w.iterations)
	return v
}

// keeps reports whether a job of this work is to keep checkpoints. It is drawn
// from the work, so that the seeds of old mean what they meant.
func (w work) keeps() bool { return w.v1[6]%3 == 0 && w.iterations > 10 }

// rungs are the kept checkpoints of the work from the from-th to the to-th.
func (w work) rungs(from, to int) (r jobs.Rungs) {
	for i := from; i < to; i++ {
		r = r.Add(work{w.v1, uint64(1000 + i)}.value())
	}
	return r
}

func (j *job) workOf(v1 jobs.Value, iterations uint64) int {
	for k, w := range j.works {
		if w.v1 == v1 && w.iterations == iterations {
			return k
		}
	}
	return -1
}

func (w *world) job(id jobs.ID) *job {
	k := int(binary.BigEndian.Uint32(id[12:])) - 1<<20
	if k < 0 || k >= len(w.jobs) {
		w.violate("I3", nil, "a row of job %s, which nobody made", id)
	}
	return w.jobs[k]
}

// broken makes a violation.
func (w *world) broken(invariant string, j *job, format string, args ...any) *Violation {
	v := &Violation{Seed: w.cfg.Seed, Step: w.step, Invariant: invariant, Detail: fmt.Sprintf(format, args...)}
	if j != nil {
		v.Job = j.id.String()
	}
	return v
}

// violate ends the world.
func (w *world) violate(invariant string, j *job, format string, args ...any) {
	panic(w.broken(invariant, j, format, args...))
}

// damages counts those to both disks.
func (w *world) damages() int { return w.nodes[0].damages + w.nodes[1].damages }

// seen checks a row that a node has committed.
func (w *world) seen(n *node, c *jobs.Changed) {
	j := w.job(c.Job.ID)
	p := &n.shadow[j.i]
	w.hash(uint64(n.i)<<62 ^ uint64(j.i)<<40 ^ uint64(c.LSeq))
	if c.LSeq <= n.last {
		w.violate("I8", j, "%v commits it at lseq %d, behind %d", n, c.LSeq, n.last)
	}
	n.last = c.LSeq
	now := &c.Job
	if now.Purged && (now.V1 != jobs.Value{} || now.Result != jobs.Value{} || now.Checkpoint != jobs.Progress{} || now.Keep > 0 || now.Rungs != "" || now.Rank == jobs.Open) {
		w.violate("I16", j, "%v has it purged and keeps %+v", n, *now)
	}
	if !now.Purged {
		k := j.workOf(now.V1, now.Iterations)
		if k < 0 {
			w.violate("I5", j, "%v has it with work that no client sent: %+v", n, *now)
		}
		if now.Rank == jobs.Completed && now.Result != j.works[k].value() {
			w.violate("I5", j, "%v shows a value that is not its work's", n)
		}
		if kept := now.Rungs.Len(); kept > int(now.Keep) || now.Rungs != j.works[k].rungs(0, kept) {
			w.violate("I5", j, "%v keeps %d checkpoints that are not its work's", n, kept)
		}
		if j.erased && w.damages() == j.hurt && !n.enqueuing {
			w.violate("I16", j, "%v has its v1 again after the purge was on both", n)
		}
	}
	if now.Rank == jobs.Open && now.Checkpoint.Done > 0 && now.Checkpoint.Done >= now.Iterations {
		w.violate("J2", j, "%v has a checkpoint at its end", n)
	}
	if p.there {
		if m := jobs.Merge(p.job, *now); !m.Equal(*now) {
			w.violate("I5", j, "%v goes back from %+v to %+v", n, p.job, *now)
		}
		if !now.Ended() && now.GCAfter.After(p.job.GCAfter) {
			w.stats.Restamped++
		}
	} else if !now.Ended() && (j.gone[0] || j.gone[1]) && w.damages() == j.goneHurt && !j.remade && !n.enqueuing {
		w.violate("I7", j, "%v has it open again after retention dropped it: %+v", n, *now)
	}
	if w.cfg.Trace != nil {
		w.tracef("    %s: %d at lseq %d: %v home %s/%d gc %v", n.name, j.i, c.LSeq, now.Rank, now.Home, now.OwnEpoch, now.GCAfter.Sub(base))
	}
	p.there, p.lseq, p.job = true, c.LSeq, *now
}

// acked is told of an answer "both".
func (w *world) acked(n *node, p *wait, want *jobs.Job) {
	j := w.job(want.ID)
	j.both = true
	peer := n.peer()
	if p.what == "purge" && !j.erased {
		j.erased, j.hurt = true, w.damages()
	}
	for _, x := range w.nodes {
		at := &x.shadow[j.i]
		if x == peer && (peer.damages != n.heard || peer.damages != p.hurt) || j.gone[0] || j.gone[1] {
			continue // what it has confirmed may be what it has lost since
		}
		if want.Ended() && want.Key().Before(x.floor) {
			continue // to be dropped, and not to be taken in
		}
		if !at.there {
			w.violate("I1", j, "%v answers both for %s, and it is not at %v", n, p.what, x)
		}
		if m := jobs.Merge(at.job, *want); !m.Equal(at.job) {
			w.violate("I1", j, "%v answers both for %s of %+v, and at %v is %+v", n, p.what, *want, x, at.job)
		}
	}
}

// whole reports whether a node holds all that its peer holds.
func (w *world) whole(n *node) bool {
	floor := n.floor
	for i := range n.shadow {
		at, there := &n.shadow[i], &n.peer().shadow[i]
		if !there.there {
			continue
		}
		if !at.there {
			if there.job.Ended() && there.job.Key().Before(floor) {
				continue
			}
			return false
		}
		if m := jobs.Merge(at.job, there.job); !m.Equal(at.job) {
			return false
		}
	}
	return true
}

// dropped is told that a node has dropped n rows below its floor.
func (w *world) expired(n *node, count int) {
	floor, _ := n.rows.Floor()
	expected := 0
	for i := range n.shadow {
		p := &n.shadow[i]
		if !p.there || !p.job.Ended() || !p.job.Key().Before(floor) {
			continue
		}
		expected++
		j := w.jobs[i]
		if !j.ended {
			w.violate("I6", j, "%v drops it, and it never ended", n)
		}
		first := !j.gone[0] && !j.gone[1]
		if first {
			j.goneHurt = n.floorHurt
		}
		p.there, j.gone[n.i] = false, true
		w.stats.Dropped++
		if w.cfg.Trace != nil {
			w.tracef("    %s: %d dropped", n.name, i)
		}
		if first && p.job.Rank == jobs.Completed && !p.job.Purged && w.damages() == n.floorHurt { // else a disk that was lost or put back may not take it in any more
			for _, c := range w.clients {
				c.dropped(j, n)
			}
		}
	}
	if expected != count {
		w.violate("I6", nil, "%v has dropped %d rows below its floor %v, there were %d", n, count, floor.Sub(base), expected)
	}
}

// compare compares a node's store with what its commits told.
func (w *world) compare(n *node, invariant string) {
	there := 0
	w.dump(n, func(r *jobs.Row) {
		there++
		j := w.job(r.Job.ID)
		p := &n.shadow[j.i]
		if !p.there || !p.job.Equal(r.Job) || p.lseq != r.LSeq {
			w.violate(invariant, j, "%v has %+v, its commits told %+v", n, *r, *p)
		}
	})
	for i := range n.shadow {
		if n.shadow[i].there {
			there--
		}
	}
	if there != 0 {
		w.violate(invariant, nil, "%v has %d rows more than its commits told", n, there)
	}
}

// dump calls f with every row of a node's store.
func (w *world) dump(n *node, f func(r *jobs.Row)) {
	q := jobs.FeedQuery{Rows: 1 << 20, Bytes: 1 << 30}
	for {
		c, err := n.rows.Feed(ctx, q)
		if err != nil {
			panic(machineError{err})
		}
		for i := range c.Rows {
			f(&c.Rows[i])
		}
		if q.Cursor = c.Next; !c.More {
			return
		}
	}
}

// client follows the results, now at one node, now at the other.
type client struct {
	w      *world
	i      int
	cursor string
	at     *node
	hurt   int // damages to any disk at the last read
	run    int // of reads at one node
	got    []got
	told   int64 // when it was last told that it begins anew
	missed []int // jobs that were dropped unseen, and nobody has said so yet
}

// got is what a client has seen of a job's results: bit k for its k-th work.
type got struct {
	works byte
	here  byte // in this run
	run   int
	told  bool // that some are gone, this one among them
}

// read reads a page at a node.
func (c *client) read(n *node, limit int) (more bool) {
	w := c.w
	page, err := n.rows.Results(ctx, jobs.ResultsQuery{After: c.cursor, Limit: limit})
	if err != nil {
		w.violate("I15", nil, "%v: %v", n, err)
	}
	if c.at != n || c.hurt != w.damages() || page.Restarted {
		c.run++
	}
	if page.Restarted {
		w.stats.Restarted++
		for _, i := range c.missed {
			c.got[i].told = true // whatever its other node drops of it later
		}
		c.missed, c.told = c.missed[:0], w.t
	}
	c.at, c.hurt, c.cursor = n, w.damages(), page.Cursor
	w.stats.Results += len(page.Results)
	for i := range page.Results {
		r := &page.Results[i]
		j := w.job(r.ID)
		g := &c.got[j.i]
		k := -1
		for x, wk := range j.works {
			if wk.iterations == r.Iterations && wk.value() == r.Value {
				k = x
			}
		}
		if k < 0 {
			w.violate("I5", j, "%v gives a client a value that is not its work's", n)
		}
		if g.run != c.run {
			g.run, g.here = c.run, 0
		}
		bit := byte(1) << k
		if g.here&bit != 0 && len(j.works) == 1 && j.sent == 1 && !j.gone[0] && !j.gone[1] {
			w.violate("I15", j, "%v gives a client the same result twice in one run", n)
		}
		g.works, g.here = g.works|bit, g.here|bit
	}
	w.hash(uint64(len(page.Results)) ^ 0xabc)
	if w.cfg.Trace != nil {
		w.tracef("%d %.2fs client %d reads at %s: %d results, more %v, restarted %v, cursor %x", w.step, float64(w.t)/1e6, c.i, n.name, len(page.Results), page.More, page.Restarted, c.cursor)
		for _, r := range page.Results {
			w.tracef("    result %d", w.job(r.ID).i)
		}
	}
	return page.More
}

// dropped is told of a result that a node was the first to drop.
func (c *client) dropped(j *job, n *node) {
	if c.cursor != "" && c.got[j.i].works == 0 && !c.got[j.i].told && c.told <= n.floorAt {
		c.missed = append(c.missed, j.i)
	}
}

// rest heals everything, lets both nodes read each other and compares them.
func (w *world) rest() {
	w.mark("rest")
	w.link = [2]bool{true, true}
	for _, n := range w.nodes {
		n.slow, n.crashIn = 0, 0
		if !n.up {
			n.start()
		}
	}
	for len(w.net) > 0 {
		w.tick(20_000)
	}
	quiet := 0
	for round := 0; quiet < 3; round++ {
		if round == 400 {
			w.violate("I3", nil, "the nodes do not come to rest: %+v and %+v", w.nodes[0].rows.Reading(), w.nodes[1].rows.Reading())
		}
		w.tick(20_000)
		heads := [2]jobs.LSeq{w.nodes[0].last, w.nodes[1].last}
		done := true
		for _, n := range w.nodes {
			if w.hinted(n) {
				done = !w.exchange(n, 1000) && done
			}
			w.expire(n)
		}
		if quiet++; !done || heads != [2]jobs.LSeq{w.nodes[0].last, w.nodes[1].last} {
			quiet = 0
		}
	}
	for _, n := range w.nodes {
		for _, p := range n.waits {
			p.until = 0
		}
		n.answers(nil)
		w.compare(n, "I3")
	}
	a, b := w.nodes[0], w.nodes[1]
	if fa, fb := a.floor, b.floor; !fa.Equal(fb) {
		w.violate("I3", nil, "floors %v and %v", fa.Sub(base), fb.Sub(base))
	}
	digest := w.cfg.SQLite || w.cfg.Seed%8 == 0
	var sum [2]int64
	for i, j := range w.jobs {
		x, y := &a.shadow[i], &b.shadow[i]
		if x.there != y.there || x.there && !x.job.Equal(y.job) {
			w.violate("I3", j, "after rest\na %+v\nb %+v", *x, *y)
		}
		if digest && x.there {
			sum[0], sum[1] = sum[0]+x.job.Hash(), sum[1]+y.job.Hash()
		}
		if j.both && !x.there && !j.gone[0] && !j.gone[1] {
			w.violate("I1", j, "was answered as both and is on neither node")
		}
		if j.erased && x.there && !x.job.Purged && w.damages() == j.hurt {
			w.violate("I16", j, "was purged on both and is back: %+v", *x)
		}
	}
	if sum[0] != sum[1] {
		w.violate("I3", nil, "equal rows, different digests")
	}
	for _, c := range w.clients {
		n := w.nodes[w.rng.IntN(2)]
		for c.read(n, 100) {
		}
		for i, j := range w.jobs {
			p := &a.shadow[i]
			if p.there && p.job.Rank == jobs.Completed && !p.job.Purged && !c.got[i].told && !j.remade && c.got[i].works&(1<<j.workOf(p.job.V1, p.job.Iterations)) == 0 {
				w.violate("I15", j, "client %d has followed the results to the end at %v and never saw it", c.i, n)
			}
		}
		for _, i := range c.missed {
			if c.got[i].works == 0 && !a.shadow[i].job.Purged && !b.shadow[i].job.Purged && w.jobs[i].sent <= 1 {
				w.violate("I15", w.jobs[i], "was dropped before client %d saw it, and the client was never told", c.i)
			}
		}
	}
}
