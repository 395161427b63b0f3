package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"workmanager/jobs"
	peersync "workmanager/sync"
)

// duo is two real nodes in this process, on loopback ports, and what was
// logged.
type duo struct {
	t    *testing.T
	mute bool
	a, b *solo

	cloud *testCloud // nil: no fleet
}

// solo is one of them.
type solo struct {
	*Node
	t      *testing.T
	cfg    Config
	cloud  func(*Node) cloud // nil: the fleet's own, if it has one
	cancel context.CancelFunc
	ended  chan error // nil while it is stopped
}

// newDuo starts two nodes without workers, which change may alter, and waits
// until both are in sync.
func newDuo(t *testing.T, mute bool, change func(a, b *Config)) *duo {
	t.Helper()
	cfg := func(name string) Config {
		c := Default()
		c.Name, c.Listen, c.Gossip, c.DataDir, c.Workers = name, "127.0.0.1:0", "127.0.0.1:0", t.TempDir(), 0
		c.GossipMuted, c.AuditRate = mute, 0 // these workers compute nothing
		return c
	}
	d := &duo{t: t, mute: mute, a: &solo{t: t, cfg: cfg("a")}, b: &solo{t: t, cfg: cfg("b")}}
	if change != nil {
		change(&d.a.cfg, &d.b.cfg)
	}
	if d.a.cfg.Fleet.on() {
		d.cloud = newTestCloud()
		d.a.cloud, d.b.cloud = d.cloud.of, d.cloud.of
	}
	t.Cleanup(func() { d.b.stop(); d.a.stop() })
	d.a.start()
	d.b.cfg.Join = []string{d.a.GossipAddr()}
	d.b.start()
	d.synced()
	return d
}

// start makes the node and runs it. It keeps its addresses over starts.
func (s *solo) start() {
	s.t.Helper()
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("PAIR_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("on", s.cfg.Name)
	}
	n, err := New(s.cfg, Parts{StoreDSN: "&_pragma=synchronous(OFF)", Log: log, cloud: s.cloud})
	if err != nil {
		s.t.Fatal(err)
	}
	s.Node, s.cfg.Listen, s.cfg.Gossip = n, n.Addr(), n.GossipAddr()
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.ended = cancel, make(chan error, 1)
	go func() { s.ended <- n.Run(ctx) }()
}

// stop ends the node as an operator does.
func (s *solo) stop() {
	if s.ended == nil {
		return
	}
	s.cancel()
	if err := <-s.ended; err != nil {
		s.t.Errorf("node %s: %v", s.cfg.Name, err)
	}
	s.ended = nil
}

// kill ends the node in the middle: its connections break, nobody listens.
func (s *solo) kill() {
	_ = s.listener.Close()
	_ = s.server.Close()
	<-s.ended // it says that serving failed
	s.ended = nil
	s.cancel()
}

// until polls, and fails the test if it does not come to be.
func (d *duo) until(what string, ok func() bool) {
	d.t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			d.t.Fatalf("it did not come to be in 15 s: %s; a sees %+v, b sees %+v", what, d.a.pair.Peer(), d.b.pair.Peer())
		}
		<-tick.C
	}
}

func (d *duo) synced() {
	d.t.Helper()
	d.until("both in sync", func() bool {
		return d.a.pair.Unsynced() == "" && d.b.pair.Unsynced() == "" && d.a.pair.Whole() && d.b.pair.Whole()
	})
}

// patient lets every write wait long enough that a slow machine is no reason.
func (d *duo) patient(f func() bool) {
	d.t.Helper()
	d.until("a write in sync", func() bool {
		if d.a.pair.Unsynced() == "" && d.b.pair.Unsynced() == "" {
			return f()
		}
		return false
	})
}

// fresh is a job that is nowhere yet.
func (d *duo) fresh(iterations uint64) jobs.Job {
	d.t.Helper()
	id, err := jobs.NewID(time.Now(), rand.Reader)
	if err != nil {
		d.t.Fatal(err)
	}
	j, err := jobs.New(id, sha512.Sum512(id[:]), iterations, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	return j
}

// put enqueues n jobs at a node and returns their IDs.
func (d *duo) put(s *solo, n int, iterations uint64, ack jobs.Ack) []jobs.ID {
	d.t.Helper()
	var batch []jobs.Job
	var ids []jobs.ID
	for range n {
		batch = append(batch, d.fresh(iterations))
		ids = append(ids, batch[len(batch)-1].ID)
	}
	if _, err := s.queue.Enqueue(d.t.Context(), batch, ack); err != nil {
		d.t.Fatal(err)
	}
	return ids
}

func (d *duo) view(s *solo, id jobs.ID) jobs.View {
	d.t.Helper()
	v, err := s.queue.Job(d.t.Context(), id, 0)
	if err != nil && jobs.CodeOf(err) != jobs.CodeNotFound {
		d.t.Fatalf("job %s at %s: %v", id, s.cfg.Name, err)
	}
	return v
}

// here reports whether a node's own disk has the job in a state.
func (d *duo) here(s *solo, id jobs.ID, rank jobs.Rank) bool {
	d.t.Helper()
	j, found, err := s.store.Job(d.t.Context(), id)
	if err != nil {
		d.t.Fatal(err)
	}
	return found && j.Rank == rank
}

// lease takes up to n jobs at a node as a worker.
func (d *duo) lease(s *solo, worker string, n int) []jobs.Lease {
	d.t.Helper()
	got, err := s.queue.Lease(d.t.Context(), jobs.Worker{Name: worker, Cores: 1}, jobs.Capacity{Jobs: n, Iterations: 1 << 60})
	if err != nil {
		d.t.Fatal(err)
	}
	return got
}

// waits reports whether a node has a job in its lease table.
func (s *solo) waits(id jobs.ID) bool {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.queue.table.Has(id)
}

// report says of a lease what r says, and which it is.
func (d *duo) report(s *solo, worker string, l jobs.Lease, r jobs.Report) jobs.Verdict {
	d.t.Helper()
	r.LeaseRef, r.V1, r.Iterations = l.LeaseRef, l.V1, l.Iterations
	v, err := s.queue.Report(d.t.Context(), jobs.Worker{Name: worker, Cores: 1}, []jobs.Report{r})
	if err != nil {
		d.t.Fatal(err)
	}
	return v[0]
}

// value computes the value of a job of these tests, whose data is its ID.
func value(id jobs.ID, iterations uint64) jobs.Value {
	v := sha512.Sum512(id[:])
	for range iterations - 1 {
		v = sha512.Sum512(v[:])
	}
	return v
}

// complete computes jobs of a node, as a worker does, n of them.
func (d *duo) complete(s *solo, n int) []jobs.ID {
	d.t.Helper()
	var ids []jobs.ID
	d.until("jobs leased and completed", func() bool {
		for _, l := range d.lease(s, "w", n-len(ids)) {
			if v := d.report(s, "w", l, jobs.Report{Kind: jobs.ReportValue, Progress: jobs.Progress{Done: l.Iterations, Value: value(l.ID, l.Iterations)}}); v != jobs.Kept {
				d.t.Fatalf("value of %s: %v", l.ID, v)
			}
			ids = append(ids, l.ID)
		}
		return len(ids) >= n
	})
	return ids
}

// eachGossip runs a test with gossip, and with gossip muted after the first
// contact: all must hold without.
func eachGossip(t *testing.T, f func(t *testing.T, mute bool)) {
	for _, mute := range []bool{false, true} {
		t.Run(map[bool]string{false: "gossip", true: "muted"}[mute], func(t *testing.T) { f(t, mute) })
	}
}

// TestPair goes through what two nodes do while both are there.
func TestPair(t *testing.T) {
	eachGossip(t, func(t *testing.T, mute bool) {
		d := newDuo(t, mute, nil)
		on := func(s *solo) (here, other *solo) {
			if s == d.a {
				return d.a, d.b
			}
			return d.b, d.a
		}
		each := func(name string, f func(t *testing.T, here, other *solo)) {
			for _, s := range []*solo{d.a, d.b} {
				t.Run(name+"_at_"+s.cfg.Name, func(t *testing.T) {
					d.t, d.a.t, d.b.t = t, t, t
					here, other := on(s)
					d.synced()
					f(t, here, other)
				})
			}
		}

		each("enqueue_is_both", func(t *testing.T, here, other *solo) {
			for _, ack := range []jobs.Ack{jobs.AckDefault, jobs.AckBoth} {
				d.patient(func() bool {
					out, err := here.queue.Enqueue(t.Context(), []jobs.Job{d.fresh(1 << 40), d.fresh(1), d.fresh(1 << 40)}, ack)
					if jobs.CodeOf(err) == jobs.CodeUnavailable {
						return false // a slow machine has left sync between
					}
					if err != nil {
						t.Fatal(err)
					}
					for _, o := range out {
						if !o.Durability.Both {
							return false
						}
						if !d.here(other, o.Job.ID, o.Job.Rank) {
							t.Errorf("ack=%q: job %s is both, and not at the other node", ack, o.Job.ID)
						}
						if v := d.view(here, o.Job.ID); !v.Durability.Both {
							t.Errorf("ack=%q: job %s is shown as %+v", ack, o.Job.ID, v.Durability)
						}
					}
					return true
				})
			}
		})

		each("enqueue_local_is_not_waited_for", func(t *testing.T, here, other *solo) {
			j := d.fresh(1 << 40)
			out, err := here.queue.Enqueue(t.Context(), []jobs.Job{j}, jobs.AckLocal)
			if err != nil || out[0].Durability.Both && out[0].Durability.Reason != "" || !out[0].Durability.Both && out[0].Durability.Reason == "" {
				t.Errorf("Enqueue(ack=local) = %+v, %v", out, err)
			}
			d.until("the job follows by itself", func() bool { return d.here(other, j.ID, jobs.Open) })
			v, err := here.queue.JobReplicated(t.Context(), j.ID, 20*time.Second)
			if err != nil || !v.Durability.Both {
				t.Errorf("JobReplicated = %+v, %v, want both", v.Durability, err)
			}
		})

		each("results_on_both", func(t *testing.T, here, other *solo) {
			d.cancelAll()
			ids := d.put(here, 3, 1000, jobs.AckDefault)
			d.complete(here, 3)
			for _, id := range ids {
				d.until("result at the other node", func() bool { return d.here(other, id, jobs.Completed) })
				x, y := d.view(here, id), d.view(other, id)
				if !x.Job.Equal(y.Job) || x.Result != value(id, 1000) || y.Done != 1000 {
					t.Errorf("job %s: %+v here, %+v at the other node", id, x.Job, y.Job)
				}
				for _, s := range []*solo{here, other} {
					got, err := s.queue.Pull(t.Context(), 100)
					if err != nil || !hasResult(got, id) {
						t.Errorf("the newest results at %s lack %s: %v", s.cfg.Name, id, err)
					}
				}
			}
		})

		each("the_other_node_shows_lease_and_progress", func(t *testing.T, here, other *solo) {
			d.cancelAll()
			id := d.put(here, 1, 1<<40, jobs.AckDefault)[0]
			d.until("the job at the other node", func() bool { return d.here(other, id, jobs.Open) })
			if v := d.view(other, id); v.State() != jobs.StateQueued {
				t.Errorf("state %s before a lease", v.State())
			}
			l := d.lease(here, "w", 1)
			if len(l) != 1 {
				t.Fatalf("%d leases", len(l))
			}
			if len(d.lease(other, "w2", 1)) != 0 {
				t.Error("the other node leases a job of a home that is alive")
			}
			d.report(here, "w", l[0], jobs.Report{Progress: jobs.Progress{Done: 12345, Value: jobs.Value{1}}, Rate: 99})
			d.until("lease and progress at the other node", func() bool {
				v := d.view(other, id)
				return v.State() == jobs.StateLeased && v.Done == 12345 && v.Rate == 99 && v.Worker == "w"
			})
		})

		each("cancel_at_the_other_node_stops_the_run", func(t *testing.T, here, other *solo) {
			d.cancelAll()
			id := d.put(here, 1, 1<<40, jobs.AckDefault)[0]
			l := d.lease(here, "w", 1)
			d.until("the job at the other node", func() bool { return d.here(other, id, jobs.Open) })
			if out, err := other.queue.Cancel(t.Context(), []jobs.ID{id}, false, jobs.AckDefault); err != nil || out[0].Err != nil || out[0].Job.Rank != jobs.Cancelled {
				t.Fatalf("Cancel at the other node = %+v, %v", out, err)
			}
			d.until("the cancellation at its home", func() bool { return d.here(here, id, jobs.Cancelled) })
			d.until("the lease withdrawn", func() bool {
				return d.report(here, "w", l[0], jobs.Report{Progress: jobs.Progress{Done: 2, Value: jobs.Value{1}}}) != jobs.Kept
			})
		})

		each("purge_at_the_other_node", func(t *testing.T, here, other *solo) {
			d.cancelAll()
			open := d.put(here, 2, 1000, jobs.AckDefault)
			done := d.complete(here, 1)[0]
			for _, id := range open {
				d.until("the jobs at the other node", func() bool {
					_, found, err := other.store.Job(t.Context(), id)
					return err == nil && found
				})
			}
			d.until("the result at the other node", func() bool { return d.here(other, done, jobs.Completed) })
			if out, err := other.queue.Cancel(t.Context(), open, true, jobs.AckDefault); err != nil || out[0].Err != nil || out[1].Err != nil {
				t.Fatalf("purge at the other node = %+v, %v", out, err)
			}
			for _, id := range open {
				d.until("erased at its home", func() bool { return d.view(here, id).Purged })
				for _, s := range []*solo{here, other} {
					if v := d.view(s, id); !v.Purged || v.V1 != (jobs.Value{}) || v.Result != (jobs.Value{}) {
						t.Errorf("job %s at %s is not erased: %+v", id, s.cfg.Name, v.Job)
					}
				}
			}
			if l := d.lease(here, "w", 5); len(l) != 0 {
				t.Errorf("%d leases of erased jobs", len(l))
			}
		})

		each("unknown_is_404", func(t *testing.T, here, other *solo) {
			_, err := here.queue.Job(t.Context(), d.fresh(5).ID, 0)
			if jobs.CodeOf(err) != jobs.CodeNotFound {
				t.Errorf("Job of an unknown ID: %v, want not found", err)
			}
		})

		each("same_key_at_both", func(t *testing.T, here, other *solo) {
			d.cancelAll()
			key := "key-" + here.cfg.Name
			first, status := d.http(here, "PUT", "/enqueue?iterations=5000", key, "data")
			second, again := d.http(other, "PUT", "/enqueue?iterations=5000", key, "data")
			if status/100 != 2 || again/100 != 2 || first["Work ID"] != second["Work ID"] {
				t.Errorf("one key at both nodes: %d %v and %d %v, want one ID", status, first, again, second)
			}
			d.until("one row at one home", func() bool {
				id, err := jobs.ParseID(fmt.Sprint(first["Work ID"]))
				if err != nil {
					t.Fatal(err)
				}
				x, y := d.view(here, id), d.view(other, id)
				return x.Home == y.Home && x.Home != "" && x.Job.Equal(y.Job)
			})
			if _, status := d.http(other, "PUT", "/enqueue?iterations=5000", key, "other data"); status != http.StatusConflict {
				t.Errorf("one key with other data at the other node: %d, want 409", status)
			}
		})

		each("same_key_at_both_at_once", func(t *testing.T, here, other *solo) {
			d.cancelAll()
			var all sync.WaitGroup
			ids := make([]string, 20)
			for i := range ids {
				s := []*solo{here, other}[i%2]
				all.Go(func() {
					got, status := d.http(s, "PUT", "/enqueue?iterations=7000", fmt.Sprintf("at-once-%s-%d", here.cfg.Name, i/10), "data")
					if status/100 != 2 {
						t.Errorf("status %d: %v", status, got)
					}
					ids[i] = fmt.Sprint(got["Work ID"])
				})
			}
			all.Wait()
			for i, s := range ids {
				if s != ids[i/10*10] {
					t.Errorf("one key: jobs %s and %s", s, ids[i/10*10])
				}
				id, err := jobs.ParseID(s)
				if err != nil {
					t.Fatal(err)
				}
				d.until("equal rows", func() bool { return d.view(here, id).Job.Equal(d.view(other, id).Job) })
			}
			// Nobody but the home goes on to keep the job for a worker.
			for i := range ids {
				id, err := jobs.ParseID(ids[i])
				if err != nil {
					t.Fatal(err)
				}
				d.until("the job is in one lease table", func() bool { return here.waits(id) != other.waits(id) })
			}
		})

		each("steal_by_a_worker_where_nothing_is", func(t *testing.T, here, other *solo) {
			d.cancelAll()
			ids := d.put(other, 20, 1<<40, jobs.AckDefault) // there is no worker
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			got, err := here.queue.Lease(ctx, jobs.Worker{Name: "thief", Cores: 1}, jobs.Capacity{Jobs: 1, Iterations: 1 << 60, Wait: 20 * time.Second})
			if err != nil || len(got) != 1 {
				t.Fatalf("Lease where nothing is, with 20 jobs waiting at the other node = %d, %v", len(got), err)
			}
			d.until("the home moved at both", func() bool {
				return d.view(here, got[0].ID).Home == here.cfg.Name && d.view(other, got[0].ID).Home == here.cfg.Name
			})
			d.until("it counts as stolen", func() bool { return here.pair.Peer().Counters.Stolen > 0 })
			for _, id := range ids {
				d.until("one home for each job", func() bool { return d.view(here, id).Home == d.view(other, id).Home })
			}
		})

		each("consume_over_both", func(t *testing.T, here, other *solo) {
			d.cancelAll()
			d.drain()
			d.put(here, 3, 1000, jobs.AckDefault)
			x := d.complete(here, 3)
			d.put(other, 4, 1000, jobs.AckDefault)
			y := d.complete(other, 4)
			d.bothHave(append(x, y...))
			out, dur, err := here.queue.Consume(t.Context(), 5, "")
			if err != nil || len(out) != 5 {
				t.Fatalf("Consume(5) = %d, %+v, %v", len(out), dur, err)
			}
			rest, _, err := other.queue.Consume(t.Context(), 10, "")
			if err != nil || len(rest) != 2 {
				t.Fatalf("Consume(10) of the rest at the other node = %d, %v, want 2", len(rest), err)
			}
			seen := map[jobs.ID]int{}
			for _, r := range append(out, rest...) {
				seen[r.ID]++
				if r.Value != value(r.ID, 1000) {
					t.Errorf("result %s: %s", r.ID, r.Value)
				}
			}
			for _, id := range append(x, y...) {
				if seen[id] != 1 {
					t.Errorf("result %s handed out %d times", id, seen[id])
				}
			}
		})

		each("consume_with_a_key", func(t *testing.T, here, other *solo) {
			d.cancelAll()
			d.drain()
			d.put(here, 3, 1000, jobs.AckDefault)
			x := d.complete(here, 3)
			d.put(other, 4, 1000, jobs.AckDefault)
			y := d.complete(other, 4)
			d.bothHave(append(x, y...))
			key := "consume-" + here.cfg.Name
			first, _, err := here.queue.Consume(t.Context(), 5, key)
			if err != nil || len(first) != 5 {
				t.Fatalf("Consume(5) = %d, %v", len(first), err)
			}
			for _, s := range []*solo{here, other, here, other} {
				again, _, err := s.queue.Consume(t.Context(), 5, key)
				if err != nil || !sameResults(first, again) {
					t.Errorf("the key again at %s: %d results (%v), want the same %d", s.cfg.Name, len(again), err, len(first))
				}
			}
			rest, _, err := other.queue.Consume(t.Context(), 10, key+"-2")
			if err != nil || len(rest) != 2 {
				t.Errorf("another key gets %d, %v, want the other 2", len(rest), err)
			}
			for _, r := range rest {
				if hasResult(first, r.ID) {
					t.Errorf("result %s handed out under two keys", r.ID)
				}
			}
		})
		d.t = t
	})
}

// cancelAll withdraws all that is open, at both.
func (d *duo) cancelAll() {
	d.t.Helper()
	d.until("nothing open", func() bool {
		open := 0
		for _, s := range []*solo{d.a, d.b} {
			list, err := s.queue.Jobs(d.t.Context(), jobs.ListQuery{Limit: 100})
			if err != nil {
				d.t.Fatal(err)
			}
			var ids []jobs.ID
			for more := true; more; {
				for _, v := range list.Jobs {
					if !v.Ended() {
						ids = append(ids, v.ID)
					}
				}
				if more = list.More; more {
					if list, err = s.queue.Jobs(d.t.Context(), jobs.ListQuery{Limit: 100, After: list.Cursor}); err != nil {
						d.t.Fatal(err)
					}
				}
			}
			open += len(ids)
			if len(ids) == 0 {
				continue
			}
			if _, err := s.queue.Cancel(d.t.Context(), ids, false, jobs.AckDefault); err != nil {
				d.t.Fatal(err)
			}
		}
		return open == 0
	})
}

// drain takes all results.
func (d *duo) drain() {
	d.t.Helper()
	d.until("no results left", func() bool {
		left := 0
		for _, s := range []*solo{d.a, d.b} {
			out, _, err := s.queue.Consume(d.t.Context(), 1000, "")
			if err != nil {
				d.t.Fatal(err)
			}
			left += len(out)
		}
		return left == 0
	})
}

func (d *duo) bothHave(ids []jobs.ID) {
	d.t.Helper()
	for _, id := range ids {
		for _, s := range []*solo{d.a, d.b} {
			d.until("the result at both", func() bool { return d.here(s, id, jobs.Completed) })
		}
	}
}

func hasResult(list []jobs.Result, id jobs.ID) bool {
	for _, r := range list {
		if r.ID == id {
			return true
		}
	}
	return false
}

func sameResults(a, b []jobs.Result) bool {
	for _, r := range a {
		if !hasResult(b, r.ID) {
			return false
		}
	}
	return len(a) == len(b)
}

// http calls the API of a node.
func (d *duo) http(s *solo, method, target, key, body string) (map[string]any, int) {
	d.t.Helper()
	out, res := d.call(s, method, target, key, body)
	return out, res.StatusCode
}

func (d *duo) call(s *solo, method, target, key, body string) (map[string]any, *http.Response) {
	req, err := http.NewRequestWithContext(d.t.Context(), method, "http://"+s.Addr()+target, strings.NewReader(body))
	if err != nil {
		d.t.Error(err)
		return nil, &http.Response{}
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Error(err)
		return nil, &http.Response{}
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Error(err)
	}
	out := map[string]any{}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&out); err != nil {
		d.t.Errorf("%s %s: %s: %q is no JSON", method, target, res.Status, text)
	}
	return out, res
}

// TestPair_peer_away: what one node does without the other, and with it back.
func TestPair_peer_away(t *testing.T) {
	eachGossip(t, func(t *testing.T, mute bool) {
		d := newDuo(t, mute, nil)
		theirs := d.put(d.b, 30, 1<<40, jobs.AckDefault)
		keyed, _ := d.http(d.b, "PUT", "/enqueue?iterations=5000", "away", "data")
		d.put(d.b, 2, 1000, jobs.AckDefault)
		for _, id := range theirs {
			d.until("the peer's jobs here", func() bool { return d.here(d.a, id, jobs.Open) })
		}
		d.until("all of the peer's rows here", func() bool { return d.a.pair.Peer().Behind == 0 && d.b.pair.Peer().UnderReplicated == 0 })
		d.b.kill()
		killed := time.Now()
		d.until("the peer is down", func() bool { return strings.HasPrefix(d.a.pair.Unsynced(), "peer_down") }) // a slow machine may say before that it catches up

		before, err := d.a.store.Counts(), error(nil)
		_, err = d.a.queue.Enqueue(t.Context(), []jobs.Job{d.fresh(5)}, jobs.AckBoth)
		if jobs.CodeOf(err) != jobs.CodeUnavailable {
			t.Errorf("Enqueue(ack=both) without the peer: %v, want unavailable", err)
		}
		_, res := d.call(d.a, "PUT", "/enqueue?iterations=5&ack=both", "", "data")
		if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" || res.Header.Get("Workmanager-Durability") != "" {
			t.Errorf("PUT /enqueue?ack=both without the peer: %d, Retry-After %q, durability %q, want 503, some, none",
				res.StatusCode, res.Header.Get("Retry-After"), res.Header.Get("Workmanager-Durability"))
		}
		if _, err := d.a.queue.Cancel(t.Context(), theirs[:1], false, jobs.AckBoth); jobs.CodeOf(err) != jobs.CodeUnavailable {
			t.Errorf("Cancel(ack=both) without the peer: %v, want unavailable", err)
		}
		if after := d.a.store.Counts(); after != before {
			t.Errorf("something was written: %+v, before %+v", after, before)
		}
		_, res = d.call(d.a, "PUT", "/enqueue?iterations=1", "", "data")
		if res.StatusCode/100 != 2 || res.Header.Get("Workmanager-Durability") != "local" || !strings.HasPrefix(res.Header.Get("Workmanager-Durability-Reason"), "peer_down") {
			t.Errorf("PUT /enqueue without the peer: %d, %q, %q, want 2xx, local, peer_down", res.StatusCode,
				res.Header.Get("Workmanager-Durability"), res.Header.Get("Workmanager-Durability-Reason"))
		}
		again, res := d.call(d.a, "PUT", "/enqueue?iterations=5000", "away", "data")
		if res.StatusCode/100 != 2 || again["Work ID"] != keyed["Work ID"] || res.Header.Get("Workmanager-Durability") == "both" {
			t.Errorf("a key of the dead node: %d, %v, %q, want %v, local", res.StatusCode, again["Work ID"], res.Header.Get("Workmanager-Durability"), keyed["Work ID"])
		}

		d.until("the peer is gone", func() bool { return d.a.pair.MayTakeOver() == "b" })
		if took := time.Since(killed); took > 20*time.Second {
			t.Errorf("gone after %v", took)
		}
		// The node's loop takes some for those that have work, too, whenever it comes
		// round: not here. It reads this first for a worker that it knows: w is not yet.
		d.a.queue.shareAt = time.Now().Add(time.Hour)
		taken := d.lease(d.a, "w", 3)
		if len(taken) == 0 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if taken, err = d.a.queue.Lease(ctx, jobs.Worker{Name: "w", Cores: 1}, jobs.Capacity{Jobs: 3, Iterations: 1 << 60, Wait: 10 * time.Second}); err != nil || len(taken) == 0 {
				t.Fatalf("Lease of a dead peer's jobs = %d, %v", len(taken), err)
			}
		}
		moved := 0
		for _, id := range theirs {
			if d.view(d.a, id).Home == "a" {
				moved++
			}
		}
		if moved != len(taken) {
			t.Errorf("%d jobs moved for %d leases: take-over is one by one", moved, len(taken))
		}
		if _, err := d.a.queue.Job(t.Context(), d.fresh(5).ID, 0); jobs.CodeOf(err) != jobs.CodeNotFound {
			t.Errorf("an unknown job at a node that is whole: %v, want not found", err)
		}

		d.b.start()
		d.synced()
		d.until("the catch-up barrier lifted", d.b.pair.MayLease)
		for _, l := range taken {
			d.until("the job moved at its old home", func() bool { return d.view(d.b, l.ID).Home == "a" })
		}
		seen := map[jobs.ID]bool{}
		for _, l := range taken {
			seen[l.ID] = true
		}
		for _, l := range d.lease(d.b, "w", 1000) {
			if seen[l.ID] {
				t.Errorf("job %s is leased at both", l.ID)
			}
		}
	})
}

// TestPair_busy_node_and_a_dead_peer: a node that has work takes some of a dead
// peer's jobs all the same, and no more than wait for each core of its workers.
func TestPair_busy_node_and_a_dead_peer(t *testing.T) {
	d := newDuo(t, false, nil)
	theirs := d.put(d.b, 30, 1<<40, jobs.AckDefault)
	d.until("all of the peer's rows here", func() bool {
		for _, id := range theirs {
			if !d.here(d.a, id, jobs.Open) {
				return false
			}
		}
		return true
	})
	d.b.kill()
	d.until("the peer is gone", func() bool { return d.a.pair.MayTakeOver() == "b" })
	d.put(d.a, 50, 1<<40, jobs.AckLocal)
	if l := d.lease(d.a, "w", 1); len(l) != 1 {
		t.Fatalf("%d leases", len(l))
	}
	moved, leased := func() (n int) {
		for _, id := range theirs {
			if d.view(d.a, id).Home == "a" {
				n++
			}
		}
		return n
	}, 0
	d.until("some of the dead peer's jobs wait here", func() bool { return moved() == 4 })
	d.until("others come in their place", func() bool {
		for _, l := range d.lease(d.a, "w", 1) {
			if slices.Contains(theirs, l.ID) {
				leased++
			}
		}
		if n := moved(); n > leased+4 {
			t.Fatalf("%d jobs moved for one core, and %d of them are leased", n, leased)
		}
		return leased >= 6
	})
}

// TestPair_barrier: a node that starts gives no lease before it has read what
// its peer has, and asks nobody's patience for more than two seconds if the
// peer is not there.
func TestPair_barrier(t *testing.T) {
	eachGossip(t, func(t *testing.T, mute bool) {
		d := newDuo(t, mute, nil)
		ids := d.put(d.b, 5, 1000, jobs.AckDefault)
		for _, id := range ids {
			d.until("the job at the other node", func() bool { return d.here(d.a, id, jobs.Open) })
		}
		d.b.kill()
		d.until("the peer is gone", func() bool { return d.a.pair.MayTakeOver() == "b" })
		done := d.complete(d.a, 5)
		if len(done) != 5 {
			t.Fatalf("%d completed", len(done))
		}
		d.b.start()
		for !d.b.pair.MayLease() { // not one of them is given while its end is not known here
			if l := d.lease(d.b, "w", 10); len(l) != 0 && !d.b.pair.MayLease() {
				t.Fatalf("%d leases behind the barrier", len(l))
			}
		}
		if !d.b.pair.Whole() && d.b.pair.Peer().Session != peersync.SessionDown {
			t.Error("the barrier is lifted, the peer is there and not read")
		}
		if d.b.pair.Whole() {
			if l := d.lease(d.b, "w", 10); len(l) != 0 {
				t.Errorf("%d leases of jobs that the peer has completed", len(l))
			}
		}
		d.synced()

		d.a.stop()
		d.b.stop()
		began := time.Now()
		d.b.start()
		if d.b.pair.MayLease() && time.Since(began) < 2*time.Second {
			t.Error("leases at once, with a peer that may be there")
		}
		d.put(d.b, 1, 1<<40, jobs.AckLocal)
		if l := d.lease(d.b, "w", 1); len(l) != 0 && time.Since(began) < 2*time.Second {
			t.Error("a lease behind the barrier")
		}
		if _, err := d.b.queue.Job(t.Context(), d.fresh(5).ID, 0); jobs.CodeOf(err) != jobs.CodeUnavailable {
			t.Errorf("an unknown job at a node that has not read its peer's: %v, want unavailable", err)
		}
		out, res := d.call(d.b, "GET", "/v1/jobs/"+d.fresh(5).ID.String(), "", "")
		if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
			t.Errorf("GET of it: %d, %v, want 503 and Retry-After", res.StatusCode, out)
		}
		d.until("leases without the peer", func() bool { return len(d.lease(d.b, "w", 1)) == 1 })
		if took := time.Since(began); took < 1900*time.Millisecond {
			t.Errorf("a lease after %v, want none before 2 s", took)
		}
	})
}

// TestPair_computes: real workers at one node compute the jobs of both.
func TestPair_computes(t *testing.T) {
	eachGossip(t, func(t *testing.T, mute bool) {
		d := newDuo(t, mute, func(a, b *Config) { b.Workers = 1 })
		var ids []jobs.ID
		for range 10 {
			ids = append(ids, d.put(d.a, 5, 20_000, jobs.AckDefault)...)
			ids = append(ids, d.put(d.b, 5, 20_000, jobs.AckDefault)...)
		}
		d.bothHave(ids)
		for _, id := range ids {
			if x, y := d.view(d.a, id), d.view(d.b, id); !x.Job.Equal(y.Job) && x.Result != y.Result {
				t.Errorf("job %s differs: %+v and %+v", id, x.Job, y.Job)
			}
		}
		if d.b.pair.Peer().Counters.Stolen == 0 {
			t.Error("nothing was stolen from the node without workers")
		}
	})
}

// An idle node asks its peer for what nobody there begins soon.
func TestWorthAsking(t *testing.T) {
	day := jobs.Work{Lo: 86400e6}
	for name, c := range map[string]struct {
		peersync.Load
		first, later bool // two seconds later
	}{
		"nothing waits":                       {peersync.Load{Remaining: day, Workers: 2, Rate: 1e6, Leased: 8}, false, false},
		"nobody works there":                  {peersync.Load{Waiting: 1, Remaining: jobs.Work{Lo: 2}}, true, true},
		"many wait":                           {peersync.Load{Waiting: 5, Workers: 2, Rate: 1e6, Remaining: jobs.Work{Lo: 1e3}}, true, true},
		"a few, soon begun":                   {peersync.Load{Waiting: 4, Workers: 2, Rate: 1e6, Leased: 8, Remaining: jobs.Work{Lo: 9e6}}, false, false},
		"a few, and all are at work for long": {peersync.Load{Waiting: 1, Workers: 2, Rate: 1e6, Leased: 8, Remaining: day}, false, true},
		"a few, and none gets on":             {peersync.Load{Waiting: 1, Workers: 2, Leased: 8, Remaining: day}, false, true},
		"a few, and somebody is free":         {peersync.Load{Waiting: 1, Workers: 2, Rate: 1e6, Leased: 1, FreeLanes: 1, Remaining: day}, false, false},
	} {
		now := time.Now()
		q := &Queue{now: func() time.Time { return now }}
		if got := q.worthAsking(&c.Load); got != c.first {
			t.Errorf("%s: %v, want %v", name, got, c.first)
		}
		now = now.Add(stealWait)
		if got := q.worthAsking(&c.Load); got != c.later {
			t.Errorf("%s, %v later: %v, want %v", name, stealWait, got, c.later)
		}
		q.worthAsking(&peersync.Load{Workers: 2}) // none waits for a moment
		if got := q.worthAsking(&c.Load); got != c.first {
			t.Errorf("%s, and none in between: %v, want %v", name, got, c.first)
		}
	}
}
