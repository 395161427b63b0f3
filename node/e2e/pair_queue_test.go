package e2e

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
	"workmanager/web/api"
)

// apart makes a partition without a network: a and b run one after the other,
// each without its peer, and then together. Both run when it begins.
func (p *pair) apart(atA, atB func()) {
	p.t.Helper()
	p.b.kill()
	p.a.local(5 * time.Second)
	atA()
	p.a.kill()
	p.b.up()
	p.b.local(5 * time.Second)
	atB()
	p.a.up()
	p.inStep()
}

// TestPairKeys sends one Idempotency-Key to both nodes while they are apart. It
// is one job afterwards; of two works the same one wins at both.
func TestPairKeys(t *testing.T) {
	t.Parallel()
	p := newPair(t, "--workers", "1")
	put := func(s *half, key, data string, iterations uint64) string {
		return s.enqueue(data, iterations, api.HeaderIdempotencyKey, key)
	}
	ids := map[string][2]string{}
	p.apart(func() {
		for i := range 20 {
			key := fmt.Sprint("same-", i)
			ids[key] = [2]string{put(p.a, key, key, 20), ""}
		}
		ids["other"] = [2]string{put(p.a, "other", "one", 20), ""}
		ids["longer"] = [2]string{put(p.a, "longer", "equal", 30), ""}
	}, func() {
		for key := range ids {
			id := ids[key][0]
			var there string
			switch key {
			case "other":
				there = put(p.b, key, "two", 20)
			case "longer":
				there = put(p.b, key, "equal", 20)
			default:
				there = put(p.b, key, key, 20)
			}
			if there != id {
				t.Errorf("key %s: job %s at a, %s at b", key, id, there)
			}
		}
	})
	h := p.settled()
	for key, id := range ids {
		want := chain(key, 20)
		switch key {
		case "other":
			want = min(chain("one", 1), chain("two", 1)) // the smaller work
			if want == chain("one", 1) {
				want = chain("one", 20)
			} else {
				want = chain("two", 20)
			}
		case "longer":
			want = chain("equal", 20)
		}
		for _, s := range p.halves() {
			if j := s.job(id[0]); j.State != "completed" || j.Value != want {
				t.Errorf("key %s at %s: got %+v, want completed with %s", key, s.label, j, want)
			}
		}
	}
	list := slices.Collect(maps.Values(h.results))
	if n := len(slices.Compact(slices.Sorted(slices.Values(list)))); n < len(ids) {
		t.Errorf("%d different results of %d keys", n, len(ids))
	}
	// What is remembered is right, too.
	for _, data := range []string{"one", "two"} {
		for _, s := range p.halves() {
			s.completed(s.enqueue(data, 20), chain(data, 20))
		}
	}
	// It is settled: the key is the job of the work that won, and no other.
	r, err := p.a.ask("PUT", "/enqueue?iterations=30", strings.NewReader("equal"), "Content-Type", "application/octet-stream", api.HeaderIdempotencyKey, "longer")
	if err != nil || r.status != http.StatusConflict {
		t.Errorf("the work that lost, sent again: got %v %v, want 409", r, err)
	}
	counted := int64(0)
	for _, s := range p.halves() {
		s.sound()
		counted += s.status().Peer.Counters.Conflicts
	}
	if counted == 0 {
		t.Error("no node counts the keys that came with different work")
	}
}

// TestPairKeysUnderWay is the same for a job that is being computed when the
// two meet: its work changes below the worker's hands. What that worker computes
// is the value of another work, and must not become this one's.
func TestPairKeysUnderWay(t *testing.T) {
	t.Parallel()
	p := idlePair(t, "--checkpoint-interval", "100ms")
	p.a.flags, p.b.flags = []string{"--workers", "0"}, []string{"--workers", "1"}
	p.a.up()
	p.b.up()
	p.inStep()
	small, large := "one", "two"
	if chain(small, 1) > chain(large, 1) {
		small, large = large, small
	}
	iterations := lasting(3 * time.Second)
	var id string
	p.apart(func() {
		id = p.a.enqueue(small, iterations, api.HeaderIdempotencyKey, "key")
	}, func() {
		if got := p.b.enqueue(large, iterations, api.HeaderIdempotencyKey, "key"); got != id {
			t.Fatalf("one key, two jobs: %s and %s", id, got)
		}
		poll(t, 20*time.Second, "node b computes", func() string {
			if j := p.b.job(id); j.State != "leased" {
				return fmt.Sprintf("%+v", j)
			}
			return ""
		})
	})
	want := chain(small, iterations)
	for _, s := range p.halves() {
		s.completed(id, want)
	}
	p.settled()
	for _, s := range p.halves() {
		if j := s.job(id); j.Value != want {
			t.Errorf("node %s, after all: got value %s, want %s", s.label, j.Value, want)
		}
		again := s.enqueue(small, iterations) // what is remembered is right, too
		s.completed(again, want)
	}
}

// TestPairConsume hands results out at both nodes in turn: each once, and for a
// key again at the other node the same ones.
func TestPairConsume(t *testing.T) {
	t.Parallel()
	p := newPair(t, "--workers", "1")
	want := map[string]string{}
	fill := func(n int) {
		for i := range n {
			s := p.halves()[i%2]
			data := fmt.Sprintf("consume %d %d", len(want), i)
			want[s.enqueue(data, 10)] = chain(data, 10)
		}
		p.settled()
	}
	got := map[string]int{}
	took := func(s *half, top int, headers ...string) (ids []string) {
		t.Helper()
		r := s.must(http.StatusOK, "POST", fmt.Sprintf("/pullCompleted?consume=true&top=%d", top), nil, headers...)
		var list []api.PulledResult
		decode(t, r, &list)
		for _, x := range list {
			ids = append(ids, x.ID)
			if want[x.ID] != x.Value {
				t.Errorf("consume at %s: job %s has value %q, want %q", s.label, x.ID, x.Value, want[x.ID])
			}
		}
		return ids
	}
	once := func(what string) {
		t.Helper()
		for id, n := range got {
			if n != 1 {
				t.Errorf("%s: result %s came %d times", what, id, n)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d results of %d", what, len(got), len(want))
		}
	}

	fill(300)
	var slowest time.Duration
	for i, empty := 0, 0; empty < 4; i++ {
		begin := time.Now()
		ids := took(p.halves()[i%2], 7)
		slowest = max(slowest, time.Since(begin))
		for _, id := range ids {
			got[id]++
		}
		empty++
		if len(ids) > 0 {
			empty = 0
		}
	}
	once("in turn")

	fill(300)
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			for empty := 0; empty < 3; {
				ids := took(p.halves()[i%2], 5)
				mu.Lock()
				for _, id := range ids {
					got[id]++
				}
				mu.Unlock()
				empty++
				if len(ids) > 0 {
					empty = 0
				}
			}
		})
	}
	all.Wait()
	once("at once")

	fill(120)
	for i := 0; ; i++ {
		s, key := p.halves()[i%2], fmt.Sprint("pull-", i)
		first := took(s, 25, api.HeaderIdempotencyKey, key)
		for range 2 {
			again := took(s.other(), 25, api.HeaderIdempotencyKey, key)
			if !slices.Equal(slices.Sorted(slices.Values(first)), slices.Sorted(slices.Values(again))) {
				t.Errorf("key %s: %d results at %s, then %d others at %s", key, len(first), s.label, len(again), s.other().label)
			}
			again = took(s, 25, api.HeaderIdempotencyKey, key)
			if !slices.Equal(first, again) {
				t.Errorf("key %s: %d results at %s, then %d others there", key, len(first), s.label, len(again))
			}
		}
		for _, id := range first {
			got[id]++
		}
		if len(first) == 0 || i > 50 {
			break
		}
	}
	once("with keys")
	p.equal()
	t.Logf("%d results, each once; the slowest call took %v", len(got), slowest)
}

// TestPairPurge shows that no file of either node holds the bytes of a job that
// was purged with both (I16).
func TestPairPurge(t *testing.T) {
	t.Parallel()
	p := newPair(t, "--workers", "1", "--checkpoint-interval", "100ms")
	type purged struct{ id, data, v1, value string }
	var all []purged
	for i := range 300 {
		data := fmt.Sprintf("secret %d", i)
		all = append(all, purged{p.halves()[i%2].enqueue(data, 50), data, chain(data, 1), chain(data, 50)})
	}
	p.settled()
	places := func(x purged) (in []string) {
		for _, s := range p.halves() {
			in = append(in, grep(t, s.dir, x.v1, x.data)...)
			in = append(in, grep(t, s.dir, x.value, "")...)
		}
		return in
	}
	victims := []purged{all[0], all[1], all[150], all[151], all[298], all[299]}
	for _, x := range victims {
		if in := places(x); len(in) < 4 {
			t.Fatalf("v1 and value of a job that is kept are only in %v: this test would find nothing", in)
		}
	}
	for i, x := range victims {
		s := p.halves()[i/2%2]
		poll(t, syncTimeout, "purge is answered as both", func() string { // a busy machine may say local first
			r := s.must(http.StatusOK, "DELETE", "/v1/jobs/"+x.id+"?purge=true", nil)
			if got := r.header.Get(api.HeaderDurability); got != "both" {
				return got + ", " + r.header.Get(api.HeaderDurabilityReason)
			}
			return ""
		})
		if in := places(x); len(in) > 0 {
			t.Errorf("purge answered as both, at %s: bytes of job %s are in %v", s.label, x.id, in)
		}
	}
	gone := func(when string) {
		t.Helper()
		for _, x := range victims {
			if in := places(x); len(in) > 0 {
				t.Errorf("%s: bytes of the purged job %s are in %v", when, x.id, in)
			}
		}
		if in := places(all[2]); len(in) < 4 {
			t.Errorf("%s: another job is only in %v", when, in)
		}
	}
	gone("after the answers")
	p.equal()
	p.a.kill()
	p.b.kill()
	gone("after kill -9")
	p.a.up()
	p.b.up()
	p.equal()
	gone("after the next start")
	for _, s := range p.halves() {
		if j := s.job(victims[0].id); !j.Purged || j.Value != "" {
			t.Errorf("a purged job at %s: got %+v, want purged without value", s.label, j)
		}
	}
}

// TestPairRefusals sends to a pair who does not belong to it. Each is refused
// with a reason that its own log and the pair's tell, and the pair goes on.
func TestPairRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		setup func(t *testing.T, p *pair, odd *half)
		flags []string
		own   []string // one of these stands in the log of the odd one
		pair  []string // and one of these in that of node a
	}{
		{name: "another_cluster", flags: []string{"--cluster", "elsewhere"}, own: []string{"cluster", "reaches no peer"}, pair: []string{"cluster"}}, // it is not told why
		{name: "a_third_node", own: []string{"third", "has its peer", "peer is"}, pair: []string{"third", "has its peer", "peer is"}},
		{name: "a_namesake", setup: func(t *testing.T, p *pair, odd *half) { odd.label = "b" },
			own: []string{"name"}, pair: []string{"name"}},
		{name: "a_cloned_disk", setup: func(t *testing.T, p *pair, odd *half) {
			p.b.stop()
			if err := os.CopyFS(odd.dir, os.DirFS(p.b.dir)); err != nil {
				t.Fatal(err)
			}
			p.b.up()
			p.inStep()
			odd.label = "b"
		}, own: []string{"copy", "name"}, pair: []string{"copy", "name"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, "--workers", "1")
			p.a.completed(p.a.enqueue("before", 20), chain("before", 20))
			odd := p.half("c")
			if c.setup != nil {
				c.setup(t, p, odd)
			}
			o := &half{node: odd.node, label: odd.label, gossip: odd.gossip, p: &pair{t: t, flags: p.flags}}
			o.p.a, o.p.b = o, p.a // it takes node a for its peer
			o.up(append(c.flags, "--join", p.b.gossip)...)
			said := func(n *node, words []string) string {
				for text := range strings.Lines(n.log.String()) {
					for _, w := range words {
						if strings.Contains(strings.ToLower(text), w) && strings.Contains(text, "level=WARN") {
							return strings.TrimSpace(text)
						}
					}
				}
				return ""
			}
			poll(t, 30*time.Second, "the odd node says why", func() string {
				if said(o.node, c.own) == "" {
					return tail(o.log.String(), 600)
				}
				return ""
			})
			poll(t, 30*time.Second, "the pair says why", func() string {
				if said(p.a.node, c.pair) == "" && said(p.b.node, c.pair) == "" {
					return tail(p.a.log.String(), 600)
				}
				return ""
			})
			t.Logf("the odd node: %s", said(o.node, c.own))
			t.Logf("node a: %s", said(p.a.node, c.pair))
			t.Logf("node b: %s", said(p.b.node, c.pair))
			// It serves by itself, and answers local with a reason.
			if reason := o.local(5 * time.Second); reason == "" {
				t.Error("the odd node gives no reason")
			}
			strange := o.enqueue("strange", 20)
			begin := time.Now()
			n := 0
			for time.Since(begin) < 4*time.Second { // longer than any of gossip's rounds
				s := p.halves()[n%2]
				r := s.must(http.StatusOK, "PUT", "/enqueue?iterations=1", strings.NewReader(fmt.Sprint("unharmed ", n)), "Content-Type", "application/octet-stream")
				if got := r.header.Get(api.HeaderDurability); got != "both" {
					t.Fatalf("node %s answers %s (%s) beside %s", s.label, got, r.header.Get(api.HeaderDurabilityReason), c.name)
				}
				n++
				pause(20 * time.Millisecond)
			}
			for _, s := range p.halves() {
				if r, err := s.ask("GET", "/v1/jobs/"+strange, nil); err != nil || r.status != http.StatusNotFound {
					t.Errorf("a job of the odd node at %s: got %v %v, want 404", s.label, r, err)
				}
				s.sound()
			}
			o.stop()
			p.settled()
		})
	}
}

// TestPairRetention shows that ended jobs go at both nodes and do not come back
// with one that was away for longer than they are kept.
func TestPairRetention(t *testing.T) {
	t.Parallel()
	p := newPair(t, "--workers", "1", "--retention", "2s")
	open := p.a.enqueue("without an end", 1_000_000_000_000)
	var ids []string
	for i := range 40 {
		ids = append(ids, p.halves()[i%2].enqueue(fmt.Sprint("short ", i), 10))
	}
	gone := func(when string, ids ...string) {
		t.Helper()
		for _, s := range p.halves() {
			poll(t, 40*time.Second, when+": ended jobs go at node "+s.label, func() string {
				h, err := s.holds()
				if err != nil {
					return err.Error()
				}
				for _, id := range ids {
					if x, ok := h.jobs[id]; ok {
						return fmt.Sprintf("job %s is there: %s", id, x)
					}
				}
				return ""
			})
		}
	}
	begin := time.Now()
	gone("in step", ids...)
	t.Logf("40 ended jobs went at both nodes within %v, retention is 2s", time.Since(begin))

	// b goes with jobs that have ended; they end and go only when it is back.
	var later []string
	for i := range 40 {
		later = append(later, p.halves()[i%2].enqueue(fmt.Sprint("later ", i), 10))
	}
	for _, id := range later {
		poll(t, 20*time.Second, "job "+id+" ends", func() string {
			r, err := p.a.ask("GET", "/v1/jobs/"+id, nil)
			if err != nil {
				return err.Error()
			}
			if strings.Contains(string(r.body), `"queued"`) || strings.Contains(string(r.body), `"leased"`) {
				return r.String()
			}
			return ""
		})
	}
	p.b.kill()
	pause(6 * time.Second) // three times what they are kept
	p.b.up()
	p.inStep()
	gone("after one was away", later...)
	for range 20 { // and stay so
		for _, s := range p.halves() {
			h, err := s.holds()
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range append(ids, later...) {
				if x, ok := h.jobs[id]; ok {
					t.Fatalf("job %s is back at %s: %s", id, s.label, x)
				}
			}
			if _, ok := h.jobs[open]; !ok {
				t.Fatalf("the open job is not at %s", s.label)
			}
		}
		pause(100 * time.Millisecond)
	}
	p.equal()
}

// TestPairCompare alters rows behind a node's back. The two compare what they
// hold, find it, and both hold the same again, with the right values.
func TestPairCompare(t *testing.T) {
	t.Parallel()
	p := newPair(t, "--workers", "1", "--compare-interval", "1s")
	want := map[string]string{}
	var ids []string
	for i := range 60 {
		data := fmt.Sprint("compared ", i)
		ids = append(ids, p.a.enqueue(data, 50))
		want[ids[i]] = chain(data, 50)
	}
	p.settled()
	p.b.stop()
	row := func(id string) string { return "id = x'" + strings.ReplaceAll(id, "-", "") + "'" }
	home := p.a.job(ids[0]).Node
	execute(t, p.b.dir, "UPDATE jobs SET rank = 0, result = NULL, done_at = NULL, rseq = NULL, rhash = rhash + 1 WHERE "+row(ids[0]))
	execute(t, p.b.dir, "UPDATE counts SET open = open + 1, completed = completed - 1 WHERE home = '"+home+"'")
	execute(t, p.b.dir, "DELETE FROM jobs WHERE "+row(ids[1]))
	execute(t, p.b.dir, "UPDATE counts SET completed = completed - 1 WHERE home = '"+p.a.job(ids[1]).Node+"'")
	// Looked at in the file: a node that runs may have been mended before it is asked.
	db := open(t, p.b.dir)
	var opened, kept int
	err := db.QueryRow("SELECT count(*) FILTER (WHERE rank = 0 AND "+row(ids[0])+"), count(*) FROM jobs").Scan(&opened, &kept)
	if err = errors.Join(err, db.Close()); err != nil || opened != 1 || kept != len(ids)-1 {
		t.Fatalf("the alteration does not show: %d rows opened of %d, %v", opened, kept, err)
	}
	p.b.up("--workers", "0")
	p.inStep()
	begin := time.Now()
	poll(t, 3*time.Minute, "both nodes hold the same again", func() string {
		pause(200 * time.Millisecond)
		a, err := p.a.holds()
		if err != nil {
			return err.Error()
		}
		b, err := p.b.holds()
		if err != nil {
			return err.Error()
		}
		return difference(a, b)
	})
	for id, v := range want {
		for _, s := range p.halves() {
			if j := s.job(id); j.State != "completed" || j.Value != v {
				t.Errorf("job %s at %s: got %+v, want completed with %s", id, s.label, j, v)
			}
		}
	}
	repaired := int64(0)
	for _, s := range p.halves() {
		c := s.status().Peer.Compare
		repaired += c.Repaired
		t.Logf("node %s, %v after the start: %+v", s.label, time.Since(begin), c)
	}
	if repaired == 0 {
		t.Error("no node counts a row that it repaired")
	}
}

// TestPairSteal shows that an idle node computes what waits at the other.
func TestPairSteal(t *testing.T) {
	t.Parallel()
	t.Run("entry_node_without_workers", func(t *testing.T) {
		p := idlePair(t)
		p.a.flags, p.b.flags = []string{"--workers", "0"}, []string{"--workers", "1"}
		p.a.up()
		p.b.up()
		p.inStep()
		b := newBook()
		l := b.paced(p.a, random(t), 2, true, 50*time.Millisecond)
		b.more(t, 1000)
		l.stop()
		begin := time.Now()
		p.audit(b)
		homes := p.homes()
		if homes["a"] > 0 && homes["b"] == 0 {
			t.Errorf("homes: %v, want b", homes)
		}
		t.Logf("computed by %v; the rest took %v", homes, time.Since(begin))
	})
	t.Run("both_compute", func(t *testing.T) {
		p := newPair(t, "--workers", "1")
		iterations := lasting(500 * time.Millisecond) // of one chain alone: a worker leases some seconds of work ahead, which cannot be taken from it
		var lines strings.Builder
		const many = 60
		for i := range many {
			lines.WriteString(line(fmt.Sprintf("stolen %d", i), int(iterations)))
		}
		p.a.must(http.StatusOK, "POST", "/v1/jobs/batch", strings.NewReader(lines.String()))
		p.settled()
		homes := p.homes()
		if homes["a"] < many/10 || homes["b"] < many/10 {
			t.Errorf("homes: %v, want a fair part at each", homes)
		}
		t.Logf("computed by %v", homes)
	})
	t.Run("few_but_long", func(t *testing.T) { // two more than the lanes there, and the first lane is free in a century
		p := newPair(t, "--workers", "1")
		many := hashchain.Lanes() + 2
		var lines strings.Builder
		for i := range many {
			lines.WriteString(line(fmt.Sprintf("long %d", i), jobs.MaxIterations))
		}
		p.a.must(http.StatusOK, "POST", "/v1/jobs/batch", strings.NewReader(lines.String()))
		begin := time.Now()
		poll(t, 30*time.Second, "every job runs", func() string {
			if a, b := p.a.status(), p.b.status(); a.Queued > 0 || a.Leased != int64(many) {
				return fmt.Sprintf("%d jobs wait and %d run as node a says, %d and %d as node b does", a.Queued, a.Leased, b.Queued, b.Leased)
			}
			return ""
		})
		t.Logf("all run after %v", time.Since(begin))
	})
}

// homes counts completed jobs by the node that is their home.
func (p *pair) homes() map[string]int {
	p.t.Helper()
	n := map[string]int{}
	for after, more := "", true; more; {
		var page api.JobList
		if err := p.a.page("/v1/jobs?limit=1000&state=completed&after="+after, &page); err != nil {
			p.t.Fatal(err)
		}
		for _, j := range page.Jobs {
			n[j.Node]++
		}
		after, more = page.Cursor, page.More
	}
	return n
}
