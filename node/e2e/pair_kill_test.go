package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"workmanager/web/api"
)

// TestPairDiskLoss kills a random node again and again under load and takes its
// disk away. What was answered as both is at the other node, and after the
// refill at both; all ends, with the right value (I1).
func TestPairDiskLoss(t *testing.T) {
	atLength(t)
	t.Parallel()
	rng := random(t)
	p := newPair(t, "--workers", "1", "--checkpoint-interval", "200ms")
	b := newBook()
	forgiven, wiped := 0, 0
	rounds := number(t, "WORKMANAGER_E2E_PAIR_ROUNDS", 3)
	for round := range rounds {
		p.inStep()
		victim := p.halves()[rng.IntN(2)]
		survivor := victim.other()
		lives, dies := b.paced(survivor, rng, 3, true, 20*time.Millisecond), b.paced(victim, rng, 3, false, 20*time.Millisecond)
		b.more(t, 300)
		pause(time.Duration(rng.IntN(300)) * time.Millisecond)
		victim.kill()
		dies.stop()
		b.keeps(t, survivor)
		disk := rng.IntN(3) > 0
		if disk {
			wiped++
			victim.wipe()
			forgiven += b.forgive(t, victim)
		}
		pause(time.Duration(rng.IntN(1000)) * time.Millisecond) // some rounds with a take-over, some without
		victim.up()
		took := survivor.node.both(syncTimeout)
		b.keeps(t, survivor)
		lives.stop()
		p.equal() // the next loss is covered from here on
		b.keeps(t, victim)
		b.faultless(t)
		t.Logf("round %d: %s killed, disk lost %v; both again %v after its start; %v", round, victim.label, disk, took.Round(time.Millisecond), b)
		if t.Failed() {
			t.FailNow()
		}
	}
	p.audit(b)
	t.Logf("%d rounds, %d disks lost, %d local promises went with them", rounds, wiped, forgiven)
}

// TestPairPeerKilled kills the peer under load. Clients of the node that lives
// see no error and no stall, are told that writes are local and why, and that
// they are on both when the peer is back.
func TestPairPeerKilled(t *testing.T) {
	atLength(t)
	rng := random(t)
	p := newPair(t, "--workers", "1", "--checkpoint-interval", "200ms")
	b := newBook()
	for round := range 4 {
		victim := p.halves()[round%2]
		survivor := victim.other()
		l := b.clients(survivor, rng, 16, true)
		b.more(t, 500)
		before, n := l.longest(time.Time{}, time.Now())
		killed := time.Now()
		victim.kill()
		reason := survivor.local(syncTimeout)
		turned := time.Since(killed)
		if !strings.HasPrefix(reason, "peer_") {
			t.Errorf("reason: got %q, want one that begins with peer_", reason)
		}
		b.more(t, 500)
		stall, _ := l.longest(killed, time.Now())
		begin := time.Now()
		victim.up()
		again := survivor.node.both(syncTimeout)
		b.more(t, 200)
		back, _ := l.longest(begin, time.Now())
		l.stop()
		b.faultless(t)
		t.Logf("round %d: %d calls before, longest %v; local after %v (%s); longest call around the kill %v, around the return %v; both %v after it serves",
			round, n, before, turned, reason, stall, back, again)
		for what, got := range map[string]time.Duration{"kill": stall, "return": back} {
			if got > promisedStall*slack()+before {
				t.Errorf("longest call around the %s of the peer: %v, promised are %v; before it took %v", what, got, promisedStall, before)
			}
		}
		p.inStep()
	}
	p.audit(b)
}

// underWay submits a job and waits until it is leased by the half's own worker.
// One at a time: of several that wait an idle peer would steal some. On a busy
// machine it may be quicker than a worker here with one, too: then another is sent.
func (s *half) underWay(data string, iterations uint64) string {
	s.t.Helper()
	id := s.enqueue(data, iterations)
	poll(s.t, syncTimeout, "a job is under way at node "+s.label, func() string {
		j := s.job(id)
		if j.Node != s.label {
			s.must(http.StatusOK, "DELETE", "/v1/jobs/"+id, nil)
			data += " again"
			id = s.enqueue(data, iterations)
		} else if j.State == "leased" && j.Durability == "both" {
			return ""
		}
		return fmt.Sprintf("%+v", j)
	})
	return id
}

// TestPairTakeOver kills the node whose jobs are under way: they are leased at
// the other one within the time promised (I12).
func TestPairTakeOver(t *testing.T) {
	p := newPair(t, "--workers", "1", "--checkpoint-interval", "100ms")
	const width = 4
	var first, last []time.Duration
	for round := range number(t, "WORKMANAGER_E2E_TAKEOVERS", 4) {
		p.inStep()
		victim := p.halves()[round%2]
		survivor := victim.other()
		var ids []string
		for i := range width {
			ids = append(ids, victim.underWay(fmt.Sprintf("long %d %d", round, i), 1_000_000_000_000))
		}
		begin := time.Now()
		victim.kill()
		took := map[string]time.Duration{}
		poll(t, 20*time.Second, "the jobs are under way at node "+survivor.label, func() string {
			for _, id := range ids {
				if _, ok := took[id]; ok {
					continue
				}
				if j := survivor.job(id); j.State == "leased" && j.Node == survivor.label {
					took[id] = time.Since(begin)
				}
			}
			if len(took) < width {
				return fmt.Sprintf("%d of %d", len(took), width)
			}
			return ""
		})
		lo, hi := time.Hour, time.Duration(0)
		for _, d := range took {
			lo, hi = min(lo, d), max(hi, d)
		}
		first, last = append(first, lo), append(last, hi)
		victim.up()
		p.inStep()
		for _, id := range ids {
			if j := survivor.job(id); j.State != "leased" || j.Node != survivor.label {
				t.Errorf("round %d: job %s after the return of the dead: got %+v, want leased at %s", round, id, j, survivor.label)
			}
			survivor.must(http.StatusOK, "DELETE", "/v1/jobs/"+id, nil)
		}
		p.equal()
	}
	t.Logf("from the kill to the first lease at the survivor: p50 %v, p99 %v; to the last of %d: p50 %v, p99 %v; promised %v",
		percentile(first, .5), percentile(first, .99), width, percentile(last, .5), percentile(last, .99), promisedTakeover)
	if got := percentile(first, .99); got > promisedTakeover*slack() {
		t.Errorf("the dead node's jobs were leased after %v, promised are %v", first, promisedTakeover)
	}
}

// TestPairPaused stops the peer's process in its tracks and lets it go on, as a
// frozen machine does. It is as if it were dead, and then it is not: both go
// on, nothing is lost, and few jobs are computed twice (I13).
func TestPairPaused(t *testing.T) {
	rng := random(t)
	p := newPair(t, "--workers", "1", "--checkpoint-interval", "100ms")
	b := newBook()
	iterations := lasting(20 * time.Second)
	for round, d := range []time.Duration{300 * time.Millisecond, 900 * time.Millisecond, 4 * time.Second, 4 * time.Second} {
		p.inStep()
		sleeper := p.halves()[round%2]
		awake := sleeper.other()
		l := b.paced(awake, rng, 4, true, 150*time.Millisecond) // a worker with jobs of its own takes over no other
		var ids []string
		for i := range 3 {
			ids = append(ids, sleeper.underWay(fmt.Sprintf("long %d %d", round, i), iterations))
		}
		b.more(t, 200)
		before, _ := l.longest(time.Time{}, time.Now())
		begin := time.Now()
		sleeper.pauseProcess()
		var reason string
		if d > time.Second {
			reason = awake.local(10 * time.Second)
		}
		turned := time.Since(begin)
		var moved time.Duration
		if d > 2*time.Second {
			poll(t, 20*time.Second, "a long job is taken over", func() string {
				for _, id := range ids {
					if j := awake.job(id); j.State == "leased" && j.Node == awake.label {
						moved = time.Since(begin)
						return ""
					}
				}
				return "none"
			})
			if moved > 2*promisedTakeover*slack() {
				t.Errorf("the first job of the node that hangs was taken over after %v", moved)
			}
		}
		pause(time.Until(begin.Add(d)))
		stall, n := l.longest(begin, time.Now())
		sleeper.resume()
		again := awake.node.both(syncTimeout)
		b.more(t, 200)
		l.stop()
		b.faultless(t)
		p.equal()
		t.Logf("round %d: %s stopped for %v: local after %v (%s), %d calls meanwhile, longest %v; first job taken over after %v; both %v after it went on",
			round, sleeper.label, d, turned, reason, n, stall, moved, again)
		if stall > promisedStall*slack()+before {
			t.Errorf("longest call while the peer was stopped: %v, promised are %v; before it took %v", stall, promisedStall, before)
		}
		twice := 0
		for _, id := range ids {
			if j := awake.job(id); j.Attempts > 1 {
				twice++
			}
			awake.must(http.StatusOK, "DELETE", "/v1/jobs/"+id, nil)
		}
		t.Logf("%d of 3 long jobs were leased again", twice)
	}
	h := p.settled()
	again := 0
	for id := range b.acked {
		if j := p.a.job(id); j.Attempts > 1 {
			again++
		}
	}
	t.Logf("%d of %d jobs were leased more than once", again, len(h.jobs))
	if again > len(h.jobs)/10 {
		t.Errorf("%d of %d jobs were leased more than once", again, len(h.jobs))
	}
	p.audit(b)
}

// TestPairAmnesia shows what a node says that has lost its disk: not that there
// is no such job while it cannot know, and both as soon as the peer is back.
func TestPairAmnesia(t *testing.T) {
	atLength(t)
	t.Parallel()
	p := newPair(t, "--workers", "1")
	id := p.a.enqueue("kept", 1)
	var lines strings.Builder
	const many = 30_000
	for i := range many {
		lines.WriteString(line(fmt.Sprintf("many %d", i), 1))
	}
	r := p.a.must(http.StatusOK, "POST", "/v1/jobs/batch", strings.NewReader(lines.String()))
	if n := strings.Count(string(r.body), "\n"); n != many {
		t.Fatalf("batch: %d lines answered of %d", n, many)
	}
	p.equal()
	unknown := "01890a5d-ac96-774b-bcce-b302099a8057"
	look := func(id string) reply {
		t.Helper()
		r, err := p.b.ask("GET", "/v1/jobs/"+id, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := look(unknown); r.status != http.StatusNotFound {
		t.Errorf("an unknown id in step: got %v, want 404", r)
	}

	p.b.kill()
	p.b.wipe()
	p.a.kill()
	p.b.up()
	for _, id := range []string{id, unknown} {
		if r := look(id); r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
			t.Errorf("job %s at an empty node whose peer is down: got %v, want 503 with Retry-After", id, r)
		}
	}
	if reason := p.b.local(syncTimeout); !strings.HasPrefix(reason, "peer_down") {
		t.Errorf("reason: got %q, want peer_down", reason)
	}
	p.a.up()
	again := p.b.both(syncTimeout)
	if r := look(id); r.status != http.StatusOK {
		t.Errorf("a job of the peer, during the refill: got %v, want 200", r)
	}
	begin := time.Now()
	h := p.equal()
	t.Logf("both %v after the peer serves; the same %d jobs %v later", again, len(h.jobs), time.Since(begin))

	// The other way round: the disk goes under a running pair, the peer stays.
	p.b.kill()
	p.b.wipe()
	p.b.up()
	again = p.b.both(syncTimeout)
	if r := look(id); r.status != http.StatusOK {
		t.Errorf("a job of the peer, during the refill: got %v, want 200", r)
	}
	if r := look(unknown); r.status != http.StatusNotFound {
		t.Errorf("an unknown id, with the peer there: got %v, want 404", r)
	}
	t.Logf("both %v after the empty node serves", again)
	p.equal()
	p.a.sound()
	p.b.sound()
}

// hopper follows the results at both nodes in turn.
type hopper struct {
	cursor    string
	seen      map[string]string
	restarted int
	repeats   int
	faults    []string
	steady    bool // a cursor made from now on is good at either node
	made      bool // the cursor was made while steady
}

// follow reads pages of one node until stop says so or the node is gone.
func (f *hopper) follow(n *node, stop func() bool) {
	here := map[string]bool{}
	for !stop() && n.running() {
		var page api.ResultList
		if err := n.page("/v1/results?limit=200&wait=100ms&after="+f.cursor, &page); err != nil {
			pause(5 * time.Millisecond)
			continue
		}
		if page.Restarted {
			f.restarted++
			if f.made {
				f.faults = append(f.faults, fmt.Sprintf("cursor %s was not known at %s", f.cursor, n.name))
			}
			clear(here)
		}
		for _, r := range page.Results {
			if here[r.ID] {
				f.faults = append(f.faults, "result "+r.ID+" came twice from one process")
			}
			here[r.ID] = true
			if v, ok := f.seen[r.ID]; ok {
				f.repeats++
				if v != r.Value {
					f.faults = append(f.faults, "result "+r.ID+" had another value before")
				}
			}
			f.seen[r.ID] = r.Value
		}
		f.cursor, f.made = page.Cursor, f.steady
	}
}

// TestPairResults follows the results through a kill loop, at a random node each
// time. The set is complete, and a cursor made in step is known everywhere (I15).
func TestPairResults(t *testing.T) {
	t.Parallel()
	rng := random(t)
	p := newPair(t, "--workers", "1", "--checkpoint-interval", "200ms")
	b := newBook()
	f := &hopper{seen: map[string]string{}}
	upto := func(d time.Duration) func() bool {
		end := time.Now().Add(d)
		return func() bool { return time.Now().After(end) }
	}
	for round := range number(t, "WORKMANAGER_E2E_PAIR_ROUNDS", 3) {
		p.settled()
		f.steady = round > 0 // both have read results of the other: from here on a cursor is good at either
		victim := p.halves()[rng.IntN(2)]
		survivor := victim.other()
		lives, dies := b.paced(survivor, rng, 2, true, 20*time.Millisecond), b.paced(victim, rng, 2, false, 20*time.Millisecond)
		b.more(t, 200)
		for range 6 {
			f.follow(p.halves()[rng.IntN(2)].node, upto(time.Duration(rng.IntN(200))*time.Millisecond))
		}
		var following sync.WaitGroup
		if rng.IntN(2) == 0 { // it is at the victim when that dies
			n := victim.node
			following.Go(func() { f.follow(n, upto(10*time.Second)) })
		}
		pause(time.Duration(rng.IntN(200)) * time.Millisecond)
		victim.kill()
		following.Wait()
		dies.stop()
		f.follow(survivor.node, upto(time.Duration(rng.IntN(500))*time.Millisecond))
		victim.up()
		for range 4 {
			f.follow(p.halves()[rng.IntN(2)].node, upto(time.Duration(rng.IntN(200))*time.Millisecond))
		}
		lives.stop()
		b.faultless(t)
		if len(f.faults) > 0 {
			t.Fatalf("round %d: %v", round, f.faults[:min(len(f.faults), 5)])
		}
	}
	p.audit(b)
	for range 2 { // to the end at both
		for _, s := range p.halves() {
			f.follow(s.node, upto(2*time.Second))
		}
	}
	missed := 0
	for id, o := range b.acked {
		if v, ok := f.seen[id]; !ok || v != o.value() {
			if missed++; missed <= 5 {
				t.Errorf("the cursor gave %q for job %s (%v)", v, id, o)
			}
		}
	}
	if missed > 0 {
		t.Errorf("the cursor missed %d of %d results", missed, len(b.acked))
	}
	for i, fault := range f.faults {
		if i < 10 {
			t.Error(fault)
		}
	}
	t.Logf("%d results followed, %d of them again, restarted %d times", len(f.seen), f.repeats, f.restarted)
}
