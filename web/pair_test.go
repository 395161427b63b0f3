package web_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"workmanager/node"
	"workmanager/web/api"
)

// pair returns what starts two nodes that know each other.
func pair(t testing.TB, change func(*node.Config)) (startA, startB func() *service) {
	t.Helper()
	at := map[string]string{"a": freeAddr(t), "b": freeAddr(t)}
	start := func(name, other string) func() *service {
		return func() *service {
			return startNode(t, func(c *node.Config) {
				c.Name, c.Gossip, c.Join = name, at[name], []string{at[other]}
				change(c)
			})
		}
	}
	return start("a", "b"), start("b", "a")
}

func (s *service) snapshot() (st api.Status) {
	s.t.Helper()
	s.do("GET", "/v1/status", nil).into(s.t, &st)
	return st
}

// eventually looks until ok, for at most 20 s, and returns what it saw last.
func eventually[T any](t testing.TB, look func() T, ok func(T) bool) T {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(20 * time.Second)
	for {
		got := look()
		if ok(got) {
			return got
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not within 20 s; last seen: %+v", got)
		}
	}
}

// TestPair_status: both nodes give the same totals once they are in step, and
// the survivor goes on to count the jobs of the one that is gone.
func TestPair_status(t *testing.T) {
	t.Parallel()
	startA, startB := pair(t, func(c *node.Config) { c.Workers = 1 })
	a, b := startA(), startB()
	for _, s := range []*service{a, b} {
		eventually(t, s.snapshot, func(st api.Status) bool {
			return st.Peer.Session == "sync" && st.Peer.Heard && st.Peer.Complete && st.Workers == 2
		})
	}
	const endless = 1 << 50
	var last string
	for i := range 12 {
		last = a.do("PUT", fmt.Sprintf("/enqueue?iterations=%d", endless+i), strings.NewReader("a")).id(t)
	}
	for i := range 5 {
		b.do("PUT", fmt.Sprintf("/enqueue?iterations=%d", endless+i), strings.NewReader("b")).id(t)
	}
	type totals struct{ jobs, queued, leased, workers, open int64 }
	of := func(st api.Status) totals {
		return totals{st.Jobs, st.Queued, st.Leased, int64(st.Workers), st.Queued + st.Leased}
	}
	same := eventually(t, func() [2]api.Status { return [2]api.Status{a.snapshot(), b.snapshot()} }, func(p [2]api.Status) bool {
		x, y := of(p[0]), of(p[1])
		return x == y && x.open == 17 && x.jobs == x.queued && x.workers == 2 && x.leased >= 2 &&
			p[0].Peer.UnderReplicated == 0 && p[1].Peer.UnderReplicated == 0
	})
	for i, other := range []string{"b", "a"} {
		st := same[i]
		if p := st.Peer; p.Node != other || p.Reason != "" || p.Workers != 1 || p.API == "" || p.Gone || p.HeardAt == nil || p.Since == nil {
			t.Errorf("node %s says of its peer %+v", st.Node, p)
		}
		mine, theirs := st.Queued+st.Leased-st.Peer.Waiting-st.Peer.Leased, same[1-i].Peer.Waiting+same[1-i].Peer.Leased
		if mine != theirs {
			t.Errorf("node %s has %d open jobs of its own, its peer says %d", st.Node, mine, theirs)
		}
	}

	var j api.Job
	b.do("GET", "/v1/jobs/"+last+"?wait=replicated", nil).into(t, &j)
	if !j.Replicated || j.Durability != "both" {
		t.Errorf("job %s at node b after the wait: replicated %v, durability %s (%s)", last, j.Replicated, j.Durability, j.DurabilityReason)
	}
	homes := func(s *service) map[string]int {
		found := map[string]int{}
		for after := ""; ; {
			var page api.JobList
			s.do("GET", "/v1/jobs?state=queued&limit=3&after="+after, nil).into(t, &page)
			for _, j := range page.Jobs {
				found[j.Node]++
			}
			if after = page.Cursor; !page.More {
				return found
			}
		}
	}
	for _, s := range []*service{a, b} {
		if got := homes(s); got["a"] == 0 || got["b"] == 0 {
			t.Errorf("queued jobs by home: %v, want some of both", got)
		}
	}

	b.stop()
	st := eventually(t, a.snapshot, func(st api.Status) bool { return st.Peer.Session == "down" && !st.Peer.Heard })
	if got := of(st); got.open != 17 || got.workers != 1 || got.jobs != got.queued || st.Peer.Leased != 0 || !strings.HasPrefix(st.Peer.Reason, "peer_down") {
		t.Errorf("without the peer: %+v, peer %+v", got, st.Peer)
	}
	last = a.do("PUT", fmt.Sprintf("/enqueue?iterations=%d", uint64(endless)), strings.NewReader("late")).id(t)
	if a.do("GET", "/v1/jobs/"+last, nil).into(t, &j); j.Replicated || !strings.HasPrefix(j.DurabilityReason, "peer_down") {
		t.Errorf("job %s: replicated %v (%s), and there is no peer", last, j.Replicated, j.DurabilityReason)
	}
	if n := a.snapshot().Peer.UnderReplicated; n < 1 || n > 18 {
		t.Errorf("%d rows are on this disk only, want 1 or more, and no more than there are: 18", n)
	}
}

// TestPair_wait_replicated: what was taken on one disk is waited for until it is
// on the other, which comes later.
func TestPair_wait_replicated(t *testing.T) {
	t.Parallel()
	startA, startB := pair(t, noWorker)
	a := startA()
	put := a.do("PUT", "/enqueue?iterations=5", strings.NewReader("x"))
	id := put.id(t)
	if d := put.header.Get(api.HeaderDurability); d != "local" {
		t.Fatalf("durability %q with no peer there, want local", d)
	}
	got := make(chan answer)
	go func() {
		defer close(got)
		if reply, err := trySend(t.Context(), a.Server, "GET", "/v1/jobs/"+id+"?wait=replicated", nil); err == nil {
			got <- reply
		}
	}()
	startB()
	reply, ok := <-got
	if !ok {
		t.Fatal("no answer")
	}
	var j api.Job
	if reply.into(t, &j); !j.Replicated || j.State != "queued" {
		t.Errorf("job %s: replicated %v (%s), %s", id, j.Replicated, j.DurabilityReason, j.State)
	}
}

// TestAlone_status: a node without a peer has one that says nothing, and a wait
// for the copy is no wait.
func TestAlone_status(t *testing.T) {
	t.Parallel()
	s := startNode(t, noWorker)
	if p := s.snapshot().Peer; p != (api.PeerStatus{Session: api.SessionNone}) {
		t.Errorf("peer %+v, want none", p)
	}
	id := s.do("PUT", "/enqueue?iterations=5", strings.NewReader("x")).id(t)
	began := time.Now()
	var j api.Job
	s.do("GET", "/v1/jobs/"+id+"?wait=replicated", nil).into(t, &j)
	if took := time.Since(began); j.Replicated || j.DurabilityReason != "no peer configured" || took > 10*time.Second {
		t.Errorf("replicated %v (%s) after %v", j.Replicated, j.DurabilityReason, took)
	}
}
