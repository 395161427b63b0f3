package node

import (
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"workmanager/jobs"
)

// ladder is the checkpoints of a job of these tests from the from-th to the
// to-th, exclusive.
func ladder(id jobs.ID, iterations uint64, keep, from, to int) (r jobs.Rungs) {
	for i := from; i < to; i++ {
		r = r.Add(value(id, jobs.RungAt(iterations, keep, i)))
	}
	return r
}

// shown returns what a node's API says of a job's chain.
func (d *duo) shown(s *solo, id jobs.ID) []string {
	d.t.Helper()
	out, status := d.http(s, "GET", "/v1/jobs/"+id.String()+"/checkpoints", "", "")
	if status != 200 {
		d.t.Fatalf("GET checkpoints of %v at %s: %d", id, s.cfg.Name, status)
	}
	var list []string
	for _, c := range out["checkpoints"].([]any) {
		c := c.(map[string]any)
		list = append(list, fmt.Sprint(c["done"], " ", c["value"]))
	}
	return list
}

func (d *duo) wantShown(id jobs.ID, at ...uint64) {
	d.t.Helper()
	var want []string
	for _, n := range at {
		want = append(want, fmt.Sprint(n, " ", value(id, n)))
	}
	for _, s := range []*solo{d.a, d.b} {
		if s.ended == nil {
			continue
		}
		var got []string
		d.until(fmt.Sprintf("%d checkpoints at %s", len(want), s.cfg.Name), func() bool { got = d.shown(s, id); return len(got) == len(want) })
		if fmt.Sprint(got) != fmt.Sprint(want) {
			d.t.Errorf("checkpoints at %s: %v, want %v", s.cfg.Name, got, want)
		}
	}
}

// one leases one job.
func (d *duo) one(s *solo) (l jobs.Lease) {
	d.t.Helper()
	d.until("a lease at "+s.cfg.Name, func() bool {
		got := d.lease(s, "w", 1)
		if len(got) > 0 {
			l = got[0]
		}
		return len(got) > 0
	})
	return l
}

// TestKept: the checkpoints of a job are at either node, outlive the death of its
// home and go on at the other, are whole at the end, and are erased by a purge.
func TestKept(t *testing.T) {
	eachGossip(t, func(t *testing.T, mute bool) {
		d := newDuo(t, mute, func(a, b *Config) {
			a.CheckpointInterval, b.CheckpointInterval = 100*time.Millisecond, 100*time.Millisecond
		})
		const iterations, keep = 6001, 5
		enqueue := func(s *solo) jobs.ID {
			j, err := d.fresh(iterations).Keeping(keep)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.queue.Enqueue(t.Context(), []jobs.Job{j}, jobs.AckDefault); err != nil {
				t.Fatal(err)
			}
			return j.ID
		}
		progress := func(s *solo, l jobs.Lease, done uint64, from, to int) {
			d.until("a checkpoint on the disk", func() bool {
				v := d.report(s, "w", l, jobs.Report{Progress: jobs.Progress{Done: done, Value: value(l.ID, done)}, RungsFrom: from, Rungs: ladder(l.ID, iterations, keep, from, to)})
				if v != jobs.Kept {
					t.Fatalf("progress: verdict %v", v)
				}
				j, _, err := s.store.Job(t.Context(), l.ID)
				return err == nil && j.Checkpoint.Done == done
			})
		}
		id := enqueue(d.a)
		l := d.one(d.a)
		if l.ID != id || l.Keep != keep {
			t.Fatalf("lease %+v", l)
		}
		progress(d.a, l, 1500, 0, 1)
		d.wantShown(id, 1, 1001)
		progress(d.a, l, 3100, 1, 3)
		d.wantShown(id, 1, 1001, 2001, 3001)

		d.a.kill()
		next := d.one(d.b)
		if n := next; n.ID != id || n.Start.Done != 3100 || n.Keep != keep {
			t.Fatalf("lease after the take-over: %+v", n)
		}
		if v := d.report(d.b, "w", next, jobs.Report{Kind: jobs.ReportHandBack, Progress: jobs.Progress{Done: 4100, Value: value(id, 4100)}, RungsFrom: 3, Rungs: ladder(id, iterations, keep, 3, 4)}); v != jobs.Kept {
			t.Fatalf("hand-back: %v", v)
		}
		n := d.one(d.b)
		if v := d.report(d.b, "w", n, jobs.Report{Kind: jobs.ReportValue, Progress: jobs.Progress{Done: iterations, Value: value(id, iterations)}, RungsFrom: 4, Rungs: ladder(id, iterations, keep, 4, 5)}); v != jobs.Kept {
			t.Fatalf("value: %v", v)
		}
		d.a.start()
		d.synced()
		d.wantShown(id, 1, 1001, 2001, 3001, 4001, 5001, 6001)

		// A value that brings all, of a worker that the node had heard nothing of.
		whole := enqueue(d.b)
		n = d.one(d.b)
		d.report(d.b, "w", n, jobs.Report{Kind: jobs.ReportValue, Progress: jobs.Progress{Done: iterations, Value: value(whole, iterations)}, Rungs: ladder(whole, iterations, keep, 0, 5)})
		d.wantShown(whole, 1, 1001, 2001, 3001, 4001, 5001, 6001)

		// Cancelled and purged in the middle of the chain.
		for _, purge := range []bool{false, true} {
			mid := enqueue(d.b)
			n = d.one(d.b)
			progress(d.b, n, 2500, 0, 2)
			d.wantShown(mid, 1, 1001, 2001)
			if _, err := d.a.queue.Cancel(t.Context(), []jobs.ID{mid}, purge, jobs.AckDefault); err != nil {
				t.Fatal(err)
			}
			d.until("the end at the home", func() bool { return d.here(d.b, mid, jobs.Cancelled) })
			d.report(d.b, "w", n, jobs.Report{Kind: jobs.ReportValue, Progress: jobs.Progress{Done: iterations, Value: value(mid, iterations)}, Rungs: ladder(mid, iterations, keep, 0, 5)})
			if purge {
				d.wantShown(mid)
			} else {
				d.wantShown(mid, 1, 1001, 2001)
			}
		}
		for _, id := range []jobs.ID{id, whole} {
			if _, err := d.b.queue.Cancel(t.Context(), []jobs.ID{id}, true, jobs.AckDefault); err != nil {
				t.Fatal(err)
			}
			d.wantShown(id)
			for _, s := range []*solo{d.a, d.b} {
				j, found, err := s.store.Job(t.Context(), id)
				if err != nil || !found || j.Rungs != "" || j.Keep != 0 || !j.Purged {
					t.Errorf("purged, at %s: %+v, %v, %v", s.cfg.Name, j, found, err)
				}
			}
		}
	})
}

// TestPrefix: a longer job over the same data goes on where a shorter one ended,
// at either node, and not from one that was purged.
func TestPrefix(t *testing.T) {
	d := newDuo(t, true, nil)
	const short, long = 20_000, 30_000
	first := d.fresh(short)
	if _, err := d.a.queue.Enqueue(t.Context(), []jobs.Job{first}, jobs.AckDefault); err != nil {
		t.Fatal(err)
	}
	d.complete(d.a, 1)
	d.until("the result at the peer", func() bool { return d.here(d.b, first.ID, jobs.Completed) })
	again := func(s *solo, iterations uint64, keep int) jobs.Job {
		j := d.fresh(iterations)
		j.V1 = first.V1
		j, _ = j.Keeping(keep)
		if _, err := s.queue.Enqueue(t.Context(), []jobs.Job{j}, jobs.AckDefault); err != nil {
			t.Fatal(err)
		}
		return j
	}
	for i, s := range []*solo{d.a, d.b} {
		j := again(s, long+uint64(i), 0)
		l := d.one(s)
		if want := (jobs.Progress{Done: short, Value: value(first.ID, short)}); l.ID != j.ID || l.Start != want {
			t.Errorf("lease at %s: %+v, want a start at %d", s.cfg.Name, l, short)
		}
		for _, at := range []*solo{d.a, d.b} {
			d.until("the job at "+at.cfg.Name, func() bool { return d.here(at, j.ID, jobs.Open) })
			if out, _ := d.http(at, "GET", "/v1/jobs/"+j.ID.String(), "", ""); out["resumed_from"] != json.Number("20000") || out["done"] != json.Number("20000") {
				t.Errorf("of %s at %s: %v, want resumed from 20000", s.cfg.Name, at.cfg.Name, out)
			}
		}
		d.report(s, "w", l, jobs.Report{Kind: jobs.ReportFailure, Err: "enough"})
	}
	// Kept checkpoints, and what is shorter or as long, begin otherwise.
	if j := again(d.a, long, 3); d.view(d.a, j.ID).Start().Done != 1 || d.view(d.a, j.ID).ResumedFrom != 0 {
		t.Error("a job that keeps checkpoints was not begun at its data")
	}
	if j := again(d.a, short-1, 0); d.view(d.a, j.ID).Start().Done != 1 {
		t.Error("a shorter job was resumed from a longer one")
	}
	if j := again(d.a, short, 0); d.view(d.a, j.ID).Rank != jobs.Completed || d.view(d.a, j.ID).ResumedFrom != 0 {
		t.Error("the same work is not answered at once")
	}
	for _, id := range []jobs.ID{first.ID} {
		if _, err := d.a.queue.Cancel(t.Context(), []jobs.ID{id}, true, jobs.AckDefault); err != nil {
			t.Fatal(err)
		}
	}
	d.until("the purge at the peer", func() bool { return d.view(d.b, first.ID).Purged })
	for _, s := range []*solo{d.a, d.b} {
		if j := again(s, long+9, 0); d.view(s, j.ID).Start().Done != 1 || d.view(s, j.ID).ResumedFrom != 0 {
			t.Errorf("at %s a job was resumed from a purged value", s.cfg.Name)
		}
	}
}

// TestCacheModel holds the cache, with its bounds, to a list of what was put.
func TestCacheModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range 200 {
		c := newCache(1 + rng.IntN(60))
		c.apart = round%2 == 1
		known := map[work]jobs.Value{} // ever put and not dropped
		at := func(n uint64) jobs.Value { return jobs.Value{byte(n), byte(n >> 8), byte(n >> 16), 1} }
		for range 300 {
			w := work{chain{v1: jobs.Value{byte(rng.IntN(3))}}, minPrefix - 5 + rng.Uint64N(60)}
			owner := []string{"", "alice", "bob"}[rng.IntN(3)]
			if c.apart {
				w.owner = owner
			}
			if rng.IntN(3) == 0 {
				w.iterations = 2 + rng.Uint64N(1<<40)
			}
			switch rng.IntN(10) {
			case 0:
				c.drop(jobs.Job{V1: w.v1, Iterations: w.iterations, Owner: owner})
				delete(known, w)
			case 1:
				if rng.IntN(30) == 0 {
					c.clear()
					clear(known)
				}
			case 2, 3, 4, 5, 6:
				v := at(w.iterations)
				c.put(jobs.Job{Owner: owner, V1: w.v1, Iterations: w.iterations, Rank: jobs.Completed, Result: v, DoneAt: time.Now()})
				known[w] = v
			}
			j := jobs.Job{V1: w.v1, Iterations: w.iterations, Owner: owner}
			if v := c.get(j); v != nil && known[w] != *v {
				t.Fatalf("round %d: the value of %d is not known to %q", round, w.iterations, owner)
			}
			p, ok := c.prefix(j)
			if ok && (p.Done >= w.iterations || p.Done < minPrefix || known[work{w.chain, p.Done}] != p.Value || p.Value != at(p.Done)) {
				t.Fatalf("round %d: prefix of %d is %+v, which is not known", round, w.iterations, p)
			}
			if !ok {
				for _, n := range c.far[w.chain] {
					if n < w.iterations && w.iterations > minPrefix {
						t.Fatalf("round %d: no prefix of %d, %d is there", round, w.iterations, n)
					}
				}
			}
		}
		places := 0
		for of, ends := range c.far {
			if len(ends) == 0 || len(ends) > maxPrefixes {
				t.Fatalf("round %d: %d places of one chain", round, len(ends))
			}
			for _, n := range ends {
				if _, ok := c.index[work{of, n}]; !ok {
					t.Fatalf("round %d: %d is a place of a value that is gone", round, n)
				}
			}
			places += len(ends)
			furthest := uint64(0)
			for w := range c.index {
				if w.chain == of {
					furthest = max(furthest, w.iterations)
				}
			}
			if ends[len(ends)-1] != furthest {
				t.Fatalf("round %d: the furthest place is %d, want %d", round, ends[len(ends)-1], furthest)
			}
		}
		if places > c.max {
			t.Fatalf("round %d: %d places, %d results", round, places, c.max)
		}
	}
}

// BenchmarkCachePut is what remembering a result costs: of a tiny job, and of one
// that others may go on from.
func BenchmarkCachePut(b *testing.B) {
	for _, n := range []uint64{2, minPrefix} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := newCache(65_536)
			var seed [8]byte
			for i := range b.N {
				seed[0], seed[1], seed[2] = byte(i), byte(i>>8), byte(i>>16)
				c.put(jobs.Job{V1: sha512.Sum512(seed[:]), Iterations: n, Rank: jobs.Completed})
			}
		})
	}
}
