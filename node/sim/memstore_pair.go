package sim

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"workmanager/jobs"
)

// Feed returns the rows behind a cursor, what is new before what is old.
func (s *memStore) Feed(_ context.Context, q jobs.FeedQuery) (jobs.Chunk, error) {
	d := s.d
	if err := s.alive(); err != nil {
		return jobs.Chunk{}, err
	}
	c := jobs.Chunk{Peer: s.name, From: q.Cursor, Boot: s.boot, Floor: instant(d.floor)}
	at, reset := d.chain.Resume(q.Cursor, d.lseq)
	c.Reset = reset
	limit := max(min(q.Rows, q.Bytes/250), 1)
	to, back := s.stretch(&c, at.At, d.lseq, q.Me, limit), at.BackAt
	if at.Refilling() && len(c.Rows) < limit {
		back = s.stretch(&c, at.BackAt, at.BackTo, q.Me, limit-len(c.Rows))
	}
	c.More = to < d.lseq || back < at.BackTo
	c.Next = at.Advance(s.boot, d.lseq, to, back)
	c.RCov, c.HasRCov = d.rseq, !c.More || jobs.Broken("M22")
	return c, nil
}

// stretch appends the rows of (from, to] and returns up to where it got.
func (s *memStore) stretch(c *jobs.Chunk, from, to jobs.LSeq, me jobs.ID, limit int) jobs.LSeq {
	if from >= to {
		return to
	}
	o := &s.d.feed
	n := 0
	for i := o.find(int64(from) + 1); i < len(o.at) && o.at[i] <= int64(to); i++ {
		r := o.rows[i]
		if r == nil || r.via == me && me != (jobs.ID{}) {
			continue
		}
		c.Rows = append(c.Rows, r.wire())
		if n++; n == limit {
			return r.lseq
		}
	}
	return to
}

// SetPeer notes the peer's name and, where they are not empty, its addresses.
func (s *memStore) SetPeer(_ context.Context, node, api, gossip string) error {
	return s.commit(func() {
		r := s.reading
		if r.Peer != node {
			r = jobs.Reading{Peer: node, Amnesia: true}
		}
		r.API, r.Gossip = cmp.Or(api, r.API), cmp.Or(gossip, r.Gossip)
		if r != s.reading {
			s.save(r)
		}
	})
}

func (s *memStore) save(r jobs.Reading) { s.reading, s.d.reading, s.savedAt = r, r, s.now() }

// Receive commits a chunk of the peer's feed.
func (s *memStore) Receive(_ context.Context, c jobs.Chunk) ([]jobs.Changed, error) {
	if c.Peer != s.reading.Peer {
		return nil, fmt.Errorf("a chunk of node %q, the peer is %q", c.Peer, s.reading.Peer)
	}
	var changed []jobs.Changed
	err := s.commit(func() {
		s.raise(micros(c.Floor))
		from := len(s.changed)
		floor := instant(s.d.floor)
		for _, in := range c.Rows {
			old := s.d.rows[in.Job.ID]
			s.arrive(old, in, jobs.Receive(here(old), in, floor), c.Boot, false)
		}
		changed = slices.Clone(s.changed[from:])
		s.advance(c)
	})
	return changed, err
}

func here(old *memRow) *jobs.Row {
	if old == nil {
		return nil
	}
	r := old.wire()
	return &r
}

func (s *memStore) arrive(old *memRow, in jobs.Row, a jobs.Arrival, boot jobs.ID, copied bool) {
	if old != nil && jobs.Conflict(old.job, in.Job) {
		s.conflict(old.job, in.Job, a.Row.Job)
	}
	if old != nil && jobs.Disagree(old.job, in.Job) {
		s.disagreements++
	}
	if a.Ignored || !a.Changed {
		return
	}
	var via jobs.ID
	if a.Echo {
		via = boot
	}
	s.put(old, a.Row.Job, a.Row.Ext, via, copied)
}

// conflict keeps what the merge of two different works did not.
func (s *memStore) conflict(a, b, kept jobs.Job) {
	loser := a
	if a.V1 == kept.V1 && a.Iterations == kept.Iterations {
		loser = b
	}
	for _, j := range s.d.lost {
		if j.ID == loser.ID && j.V1 == loser.V1 && j.Iterations == loser.Iterations {
			return
		}
	}
	s.d.lost = append(s.d.lost, loser)
	s.conflicts++
}

// advance moves the cursor over the peer's feed. One that moves without rows is
// not written for a second, as in the store on a disk.
func (s *memStore) advance(c jobs.Chunk) {
	r, moved := s.reading.Take(c)
	if !moved {
		return
	}
	if len(c.Rows) == 0 && r.Amnesia == s.reading.Amnesia && s.now().Sub(s.savedAt).Abs() < time.Second {
		s.reading = r
		return
	}
	s.save(r)
	if c.HasRCov {
		s.pair(c.Boot, c.RCov)
	}
}

func (s *memStore) pair(boot jobs.ID, rcov jobs.RSeq) {
	d := s.d
	p := memPair{own: d.rseq, boot: boot, rcov: rcov}
	if n := len(d.pairs); n > 0 {
		last := &d.pairs[n-1]
		if last.boot == boot && last.rcov >= rcov {
			return
		}
		if last.own == p.own {
			*last = p
			return
		}
	}
	if len(d.pairs) >= 4096 {
		d.pairs = slices.Clone(d.pairs[256:])
	}
	d.pairs = append(d.pairs, p)
}

// ReceiveCopies joins rows that came by gossip.
func (s *memStore) ReceiveCopies(_ context.Context, boot jobs.ID, rows []jobs.Row) (changed []jobs.Changed, ignored int, err error) {
	err = s.commit(func() {
		if boot != s.reading.Cursor.Boot {
			ignored = len(rows)
			return
		}
		floor, promise := s.Floor()
		for _, in := range rows {
			old := s.d.rows[in.Job.ID]
			a := jobs.ReceiveCopy(here(old), in, floor, promise)
			if a.Ignored {
				ignored++
				continue
			}
			s.arrive(old, in, a, boot, true)
		}
		changed = slices.Clone(s.changed)
	})
	return changed, ignored, err
}

// Floor returns the floor and the promise.
func (s *memStore) Floor() (floor, promise time.Time) {
	return instant(s.d.floor), instant(s.d.promise)
}

// Promise commits that no row is made below the instant that it returns.
func (s *memStore) Promise(_ context.Context, upTo time.Time) (time.Time, jobs.LSeq, error) {
	t := micros(upTo)
	err := s.commit(func() {
		for _, r := range s.d.feed.rows {
			if r != nil && !r.job.Ended() {
				t = min(t, micros(r.job.Key()))
			}
		}
		if t > s.d.floor && t > s.d.promise {
			s.d.promise, s.last = t, max(s.last, t)
		}
	})
	return instant(t), s.d.lseq, err
}

// Raise commits the floor if it is above the present one.
func (s *memStore) Raise(_ context.Context, floor time.Time) error {
	return s.commit(func() { s.raise(micros(floor)) })
}

func (s *memStore) raise(t int64) {
	if t <= s.d.floor {
		return
	}
	floor := instant(t)
	for _, old := range s.openRows(func(j *jobs.Job) bool { return j.Key().Before(floor) }) {
		now := old.job
		now.GCAfter = floor
		s.put(old, now, old.ext, jobs.ID{}, false)
	}
	s.d.floor, s.last = t, max(s.last, t)
}

// Refresh counts the retention of this home's old open jobs from now on.
func (s *memStore) Refresh(_ context.Context, before time.Time, limit int) (n int, err error) {
	err = s.commit(func() {
		for _, old := range s.openRows(func(j *jobs.Job) bool { return j.Home == s.name && j.Key().Before(before) }) {
			if n == limit {
				break
			}
			now := old.job
			now.GCAfter = s.stamp()
			s.put(old, now, old.ext, jobs.ID{}, false)
			n++
		}
	})
	return n, err
}
