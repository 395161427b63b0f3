// Package sim runs whole nodes in one goroutine on a simulated network, clock
// and disk, with faults drawn from a seed, and checks what the nodes promise.
package sim

import (
	"cmp"
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"sort"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// memRow is a row as a disk keeps it. It is never changed: a change puts
// another in its place, so copies of a disk share their rows.
type memRow struct {
	job  jobs.Job
	n    int64 // in the order of insertion
	lseq jobs.LSeq
	rseq jobs.RSeq // 0 if it is no result
	ext  []byte
	via  jobs.ID
}

func (r *memRow) wire() jobs.Row { return jobs.Row{Job: r.job, LSeq: r.lseq, Ext: r.ext} }

// memPair says that all that the peer numbers up to rcov under boot is among
// the results up to own.
type memPair struct {
	own  jobs.RSeq
	boot jobs.ID
	rcov jobs.RSeq
}

// disk is what a node keeps over its starts. It is for one goroutine.
type disk struct {
	id    jobs.ID
	node  string
	chain jobs.BootChain
	rows  map[jobs.ID]*memRow
	feed  ordered // by lseq
	done  ordered // by rseq

	n              int64
	lseq           jobs.LSeq
	rseq, gone     jobs.RSeq // head, and the newest that retention dropped
	floor, promise int64     // microseconds
	counts         jobs.Counts
	reading        jobs.Reading
	pairs          []memPair  // ascending by own
	lost           []jobs.Job // what merges of different work did not keep

	starts int // of this disk; a store of an earlier one refuses
}

// ordered is rows by a number, ascending. Where a row was is left a gap.
type ordered struct {
	at   []int64
	rows []*memRow
	live int
}

func (o *ordered) find(n int64) int {
	if k := len(o.at); k > 0 && o.at[k-1] < n {
		return k
	}
	return sort.Search(len(o.at), func(i int) bool { return o.at[i] >= n })
}

// add appends a row; its number is above all others.
func (o *ordered) add(n int64, r *memRow) {
	if len(o.at) > 2*o.live+64 {
		k := 0
		for i, r := range o.rows {
			if r != nil {
				o.at[k], o.rows[k] = o.at[i], r
				k++
			}
		}
		clear(o.rows[k:])
		o.at, o.rows = o.at[:k], o.rows[:k]
	}
	o.at, o.rows = append(o.at, n), append(o.rows, r)
	o.live++
}

// set puts a row in the place of the one that has the number, nil to remove it.
func (o *ordered) set(n int64, r *memRow) {
	o.rows[o.find(n)] = r
	if r == nil {
		o.live--
	}
}

func (o *ordered) clone() ordered {
	return ordered{at: slices.Clone(o.at), rows: slices.Clone(o.rows), live: o.live}
}

// newDisk returns an empty disk.
func newDisk() *disk { return &disk{rows: map[jobs.ID]*memRow{}} }

// clone returns a copy of the disk: a backup of it, or what a kill leaves.
func (d *disk) clone() *disk {
	c := *d
	c.chain, c.rows, c.feed, c.done = slices.Clone(d.chain), maps.Clone(d.rows), d.feed.clone(), d.done.clone()
	c.pairs, c.lost = slices.Clone(d.pairs), slices.Clone(d.lost)
	return &c
}

// memStore is a store of rows in memory: one start of a node on a disk. It does
// what *store.Store does, by the same rules of package jobs, and jobstest holds
// both to it. It is for one goroutine, and a call that returns has committed.
type memStore struct {
	// OnStamp, if not nil, is called before each commit with the rows that it
	// will have changed, OnCommit after it. They must not keep the slice.
	OnStamp, OnCommit func(changed []jobs.Changed)

	d       *disk
	name    string
	boot    jobs.ID
	now     func() time.Time
	start   int
	last    int64        // microseconds of the newest stamp given out
	reading jobs.Reading // may be ahead of the disk's by a move without rows
	savedAt time.Time
	changed []jobs.Changed // of the commit under way

	conflicts, disagreements int64
}

// open starts a node on the disk under a new boot.
func (d *disk) open(node string, boot jobs.ID, now func() time.Time) *memStore {
	if d.id == (jobs.ID{}) {
		d.id, d.node = boot, node
		d.id[0] ^= 0xff
	}
	if d.node != node {
		panic("sim: the disk of " + d.node + " in node " + node)
	}
	d.starts++
	s := &memStore{d: d, name: node, boot: boot, now: now, start: d.starts, reading: d.reading, last: max(d.floor, d.promise)}
	for _, r := range d.feed.rows {
		if r != nil {
			s.last = max(s.last, micros(r.job.CreatedAt))
		}
	}
	for i := len(d.done.rows) - 1; i >= 0; i-- {
		if r := d.done.rows[i]; r != nil {
			s.last = max(s.last, micros(r.job.DoneAt))
			break
		}
	}
	d.chain = append(d.chain, jobs.Boot{ID: boot, StartLSeq: d.lseq + 1, StartRSeq: d.rseq + 1})
	if len(d.chain) > 1000 {
		d.chain = d.chain[1:]
	}
	return s
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func instant(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func (s *memStore) ID() jobs.ID           { return s.d.id }
func (s *memStore) Boot() jobs.ID         { return s.boot }
func (s *memStore) Chain() jobs.BootChain { return s.d.chain }
func (s *memStore) Schema() int           { return 3 }
func (s *memStore) Head() jobs.LSeq       { return s.d.lseq }

func (s *memStore) ResultsHead() jobs.RSeq { return s.d.rseq }
func (s *memStore) Counts() jobs.Counts    { return s.d.counts }
func (s *memStore) Reading() jobs.Reading  { return s.reading }
func (s *memStore) Conflicts() int64       { return s.conflicts }
func (s *memStore) Disagreements() int64   { return s.disagreements }

// alive refuses a store whose disk was opened again since.
func (s *memStore) alive() error {
	if s.start != s.d.starts {
		return jobs.Errorf(jobs.CodeStopping, "this start of node %s has ended", s.name)
	}
	return nil
}

// commit runs a write and tells of it.
func (s *memStore) commit(write func()) error {
	if err := s.alive(); err != nil {
		return err
	}
	s.changed = s.changed[:0]
	write()
	if len(s.changed) == 0 {
		return nil
	}
	if s.OnStamp != nil {
		s.OnStamp(s.changed)
	}
	if s.OnCommit != nil {
		s.OnCommit(s.changed)
	}
	return nil
}

// stamp returns an instant at which nothing of this node happened before.
func (s *memStore) stamp() time.Time {
	s.last = max(s.last+1, micros(s.now()))
	return instant(s.last)
}

// put writes now in the place of old, nil if there is none, under the next numbers.
func (s *memStore) put(old *memRow, now jobs.Job, ext []byte, via jobs.ID, copied bool) *memRow {
	d := s.d
	d.lseq++
	r := &memRow{job: now, lseq: d.lseq, ext: ext, via: via}
	was := jobs.Rank(0)
	if old == nil {
		d.n++
		r.n = d.n
	} else {
		was, r.n, r.rseq = old.job.Rank, old.n, old.rseq
		d.feed.set(int64(old.lseq), nil)
		s.count(&old.job, -1)
	}
	if now.Purged {
		r.ext = nil
	}
	switch {
	case now.Rank != jobs.Completed:
		r.rseq = 0
	case was != jobs.Completed || !now.Purged && now.Result != old.job.Result:
		d.rseq++
		r.rseq = d.rseq
	}
	if old != nil && old.rseq > 0 && old.rseq == r.rseq {
		d.done.set(int64(r.rseq), r)
	} else {
		if old != nil && old.rseq > 0 {
			d.done.set(int64(old.rseq), nil)
		}
		if r.rseq > 0 {
			d.done.add(int64(r.rseq), r)
		}
	}
	d.feed.add(int64(r.lseq), r)
	d.rows[now.ID] = r
	s.count(&now, 1)
	if now.Purged && (old == nil || !old.job.Purged) {
		d.lost = slices.DeleteFunc(d.lost, func(j jobs.Job) bool { return j.ID == now.ID })
	}
	s.changed = append(s.changed, jobs.Changed{Row: r.wire(), Via: via, Copy: copied})
	return r
}

func (s *memStore) count(j *jobs.Job, by int64) {
	c := &s.d.counts
	switch j.Rank {
	case jobs.Failed:
		c.Failed += by
	case jobs.Cancelled:
		c.Cancelled += by
	case jobs.Completed:
		c.Completed += by
	default:
		c.Open += by
		if by > 0 {
			c.Remaining = c.Remaining.Add(j.Remaining())
		} else {
			c.Remaining = c.Remaining.Sub(j.Remaining())
		}
	}
	if j.Pulled {
		c.Pulled += by
	}
}

// Enqueue commits the jobs and returns one outcome each, in their order.
func (s *memStore) Enqueue(_ context.Context, batch []store.Submission) ([]jobs.Outcome, error) {
	out := make([]jobs.Outcome, len(batch))
	err := s.commit(func() {
		for i := range batch {
			sub := &batch[i].Job
			r, known := s.d.rows[sub.ID]
			switch {
			case !known:
				r = s.put(nil, sub.Born(s.name, s.stamp(), batch[i].Known), nil, jobs.ID{}, false)
				out[i] = jobs.Outcome{Job: r.job, LSeq: r.lseq}
			case r.job.Iterations != sub.Iterations || !r.job.Purged && r.job.V1 != sub.V1:
				out[i] = jobs.Outcome{Job: r.job, LSeq: r.lseq, Err: jobs.Errorf(jobs.CodeConflict, "job %v is other work", sub.ID)}
			default:
				out[i] = jobs.Outcome{Job: r.job, LSeq: r.lseq, Existed: true}
			}
		}
	})
	return out, err
}

// Record commits the facts and returns one effect each, in their order.
func (s *memStore) Record(_ context.Context, facts []store.Fact) ([]store.Effect, error) {
	out := make([]store.Effect, len(facts))
	err := s.commit(func() {
		for i, f := range facts {
			r, found := s.d.rows[f.ID]
			if !found {
				continue
			}
			now, changed := f.Apply(r.job, s.stamp)
			if changed {
				r = s.put(r, now, r.ext, jobs.ID{}, false)
			}
			out[i] = store.Effect{Job: r.job, LSeq: r.lseq, Found: true, Changed: changed}
		}
	})
	return out, err
}

// Job returns one job.
func (s *memStore) Job(_ context.Context, id jobs.ID) (jobs.Job, bool, error) {
	if r, ok := s.d.rows[id]; ok {
		return r.job, true, s.alive()
	}
	return jobs.Job{}, false, s.alive()
}

// Row returns one job's row.
func (s *memStore) Row(_ context.Context, id jobs.ID) (jobs.Row, bool, error) {
	if r, ok := s.d.rows[id]; ok {
		return r.wire(), true, s.alive()
	}
	return jobs.Row{}, false, s.alive()
}

// openRows returns the open rows that are wanted by home, priority from the
// least, and age.
func (s *memStore) openRows(want func(j *jobs.Job) bool) []*memRow {
	var found []*memRow
	for _, r := range s.d.feed.rows {
		if r != nil && !r.job.Ended() && want(&r.job) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b *memRow) int {
		return cmp.Or(cmp.Compare(a.job.Home, b.job.Home), cmp.Compare(a.job.Priority, b.job.Priority), a.job.CreatedAt.Compare(b.job.CreatedAt), cmp.Compare(a.n, b.n))
	})
	return found
}

// Expire deletes ended jobs below the floor and returns how many.
func (s *memStore) Expire(context.Context) (n int, err error) {
	d := s.d
	floor := instant(d.floor)
	err = s.commit(func() {
		for i, r := range d.feed.rows {
			if r == nil || !r.job.Ended() || !r.job.Key().Before(floor) {
				continue
			}
			d.feed.rows[i] = nil
			d.feed.live--
			if r.rseq > 0 {
				d.gone = max(d.gone, r.rseq)
				d.done.set(int64(r.rseq), nil)
			}
			s.count(&r.job, -1)
			delete(d.rows, r.job.ID)
			n++
		}
	})
	return n, err
}

// TakeOver makes this node the home of open jobs of another home.
func (s *memStore) TakeOver(_ context.Context, from string, c jobs.Capacity) (taken []jobs.Job, err error) {
	err = s.commit(func() {
		found := s.openRows(func(j *jobs.Job) bool { return j.Home == from })
		slices.SortStableFunc(found, func(a, b *memRow) int { return cmp.Compare(b.job.Priority, a.job.Priority) })
		var sum uint64
		for _, old := range found {
			if len(taken) >= c.Jobs {
				break
			}
			need := old.job.Remaining()
			if len(taken) > 0 && sum+need > c.Iterations {
				break
			}
			sum += need
			now, _ := old.job.Rehome(s.name)
			s.put(old, now, old.ext, jobs.ID{}, false)
			taken = append(taken, now)
		}
	})
	return taken, err
}

// GiveAway moves open jobs of this home to another and returns those it moved.
func (s *memStore) GiveAway(_ context.Context, ids []jobs.ID, to string) (moved []jobs.ID, err error) {
	err = s.commit(func() {
		for _, id := range ids {
			old, ok := s.d.rows[id]
			if !ok || old.job.Ended() || old.job.Home != s.name {
				continue
			}
			if now, ok := old.job.Rehome(to); ok {
				s.put(old, now, old.ext, jobs.ID{}, false)
				moved = append(moved, id)
			}
		}
	})
	return moved, err
}

// memPlace is a place in the results of one boot.
type memPlace struct {
	boot jobs.ID
	n    jobs.RSeq
}

// memCursor packs a place here and, if its boot is not zero, one at the peer.
func memCursor(here, there memPlace) string {
	b := binary.BigEndian.AppendUint64(append(make([]byte, 0, 48), here.boot[:]...), uint64(here.n))
	if there.boot != (jobs.ID{}) {
		b = binary.BigEndian.AppendUint64(append(b, there.boot[:]...), uint64(there.n))
	}
	return string(b)
}

// Results returns the results behind a cursor in rseq order.
func (s *memStore) Results(_ context.Context, q jobs.ResultsQuery) (jobs.Results, error) {
	d := s.d
	if err := s.alive(); err != nil {
		return jobs.Results{}, err
	}
	out := jobs.Results{Results: []jobs.Result{}}
	var after jobs.RSeq
	if q.After != "" {
		if len(q.After)%24 != 0 || len(q.After) > 48 {
			return jobs.Results{}, jobs.Invalid("query", "after", "value_error.cursor", "is no cursor of the results")
		}
		covered := false
		for b := []byte(q.After); len(b) > 0 && !covered; b = b[24:] {
			n := jobs.RSeq(binary.BigEndian.Uint64(b[16:]))
			if covered = d.chain.CoversResult(jobs.ID(b[:16]), n); covered {
				after = n
			}
		}
		out.Restarted = !covered || d.gone > after
	}
	last := after
	for i := d.done.find(int64(after) + 1); i < len(d.done.at); i++ {
		r := d.done.rows[i]
		if r == nil || r.job.Purged {
			continue
		}
		if len(out.Results) == q.Limit {
			out.More = true
			break
		}
		out.Results = append(out.Results, jobs.Result{ID: r.job.ID, Value: r.job.Result, Iterations: r.job.Iterations, DoneAt: r.job.DoneAt})
		last = r.rseq
	}
	if !out.More {
		last = max(last, d.rseq)
	}
	var there memPlace
	if i := sort.Search(len(d.pairs), func(i int) bool { return d.pairs[i].own > last }); i > 0 {
		there = memPlace{d.pairs[i-1].boot, d.pairs[i-1].rcov}
	}
	out.Cursor = memCursor(memPlace{s.boot, last}, there)
	return out, nil
}
