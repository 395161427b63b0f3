package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"workmanager/web/api"
)

// netPair is a pair whose nodes are hosts of a network of their own.
type netPair struct {
	*pair
	net  *Net
	book *book
	rng  *rand.Rand
}

// newNetPair starts one, in step, or skips the test.
func newNetPair(t *testing.T, flags ...string) *netPair {
	t.Helper()
	rng := random(t)
	n, a, b := twoHosts(t, rng.Uint64())
	p := newPairOn(t, a, b, append([]string{"--workers", "1", "--checkpoint-interval", "200ms"}, flags...)...)
	p.a.up()
	p.b.up()
	p.inStep()
	return &netPair{pair: p, net: n, book: newBook(), rng: rng}
}

// gossipOnly matches what gossip sends, udp and tcp; httpOnly all the rest.
func gossipOnly(p []byte) bool { return udpOnly(p) || tcpPort(7946)(p) }
func httpOnly(p []byte) bool   { return p[9] == syscall.IPPROTO_TCP && !tcpPort(7946)(p) }

// under runs clients at both nodes for d with the rules set, heals, and returns
// the longest call before and meanwhile, and how long it took until both nodes say
// both.
func (p *netPair) under(d time.Duration, set func()) (before, stall, again time.Duration) {
	p.t.Helper()
	var loads []*load
	for _, s := range p.halves() {
		loads = append(loads, p.book.paced(s, p.rng, 3, true, 20*time.Millisecond))
	}
	p.book.more(p.t, 100)
	for _, l := range loads {
		longest, _ := l.longest(time.Time{}, time.Now())
		before = max(before, longest)
	}
	begin := time.Now()
	set()
	pause(d)
	p.net.Heal()
	healed := time.Now()
	for _, s := range p.halves() {
		s.both(syncTimeout)
	}
	again = time.Since(healed)
	for _, l := range loads {
		longest, _ := l.longest(begin, healed)
		stall = max(stall, longest)
		l.stop()
	}
	p.book.faultless(p.t)
	return before, stall, again
}

// TestPairPartition cuts a pair apart in every way that a cable has. Both nodes
// go on without an error or a stall, and by themselves they converge after it.
func TestPairPartition(t *testing.T) {
	atLength(t)
	for _, c := range []struct {
		name string
		cut  time.Duration
		long bool
		set  func(p *netPair)
	}{
		{name: "full_2s", cut: 2 * time.Second, set: func(p *netPair) { p.net.Both(p.a.host, p.b.host, Rule{Cut: true}) }},
		{name: "full_10s", cut: 10 * time.Second, set: func(p *netPair) { p.net.Both(p.a.host, p.b.host, Rule{Cut: true}) }},
		{name: "full_60s", cut: 60 * time.Second, long: true, set: func(p *netPair) { p.net.Both(p.a.host, p.b.host, Rule{Cut: true}) }},
		{name: "one_way", cut: 5 * time.Second, set: func(p *netPair) { p.net.Set(p.a.host, p.b.host, Rule{Cut: true}) }},
		{name: "other_way", cut: 5 * time.Second, set: func(p *netPair) { p.net.Set(p.b.host, p.a.host, Rule{Cut: true}) }},
		{name: "udp", cut: 5 * time.Second, set: func(p *netPair) { p.net.Both(p.a.host, p.b.host, Rule{Cut: true, Match: udpOnly}) }},
		{name: "large_packets", cut: 5 * time.Second, set: func(p *netPair) {
			p.net.Both(p.a.host, p.b.host, Rule{Cut: true, Match: func(b []byte) bool { return len(b) > 600 }})
		}},
		{name: "flapping", cut: 5 * time.Second, set: func(p *netPair) {
			for range 12 {
				p.net.Both(p.a.host, p.b.host, Rule{Cut: true})
				pause(time.Duration(p.rng.IntN(700)) * time.Millisecond)
				p.net.Heal()
				pause(time.Duration(p.rng.IntN(700)) * time.Millisecond)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.long && os.Getenv("WORKMANAGER_E2E_LONG") == "" {
				skip(t, "takes a minute: set WORKMANAGER_E2E_LONG")
			}
			p := newNetPair(t)
			before, stall, again := p.under(c.cut, func() { c.set(p) })
			t.Logf("longest call %v, %v before; both at both nodes %v after the network was whole; %v", stall, before, again, p.book)
			if stall > promisedStall*slack()+before {
				t.Errorf("longest call: %v, promised are %v; before it took %v", stall, promisedStall, before)
			}
			p.audit(p.book)
		})
	}
}

// TestPairBadNetwork runs a pair over a line that loses and delays. It is slow,
// and right.
func TestPairBadNetwork(t *testing.T) {
	atLength(t)
	for _, c := range []struct {
		name string
		rule Rule
	}{
		{"loss_20_delay_50ms", Rule{Loss: .2, Delay: 50 * time.Millisecond}},
		{"reordered_and_doubled", Rule{Delay: 5 * time.Millisecond, Jitter: 20 * time.Millisecond, Dup: .1, Reorder: .1, Loss: .01}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newNetPair(t)
			before, stall, again := p.under(8*time.Second, func() { p.net.Both(p.a.host, p.b.host, c.rule) })
			t.Logf("longest call %v, %v before; both at both nodes %v after the network was well; %v; %+v", stall, before, again, p.book, p.net.Stats())
			if stall > 2*promisedStall*slack()+before { // a new job is behind no other one's patience, but a row may be
				t.Errorf("longest call: %v, promised are %v; before it took %v", stall, promisedStall, before)
			}
			p.audit(p.book)
		})
	}
}

// TestPairHTTPCut cuts what must arrive and leaves gossip: the peer shows the
// job by a copy, and that counts for nothing: the answer is local.
func TestPairHTTPCut(t *testing.T) {
	atLength(t)
	p := newNetPair(t, "--workers", "0")
	p.net.Both(p.a.host, p.b.host, Rule{Cut: true, Match: httpOnly})
	p.a.local(syncTimeout)
	p.b.local(syncTimeout)
	shown := 0
	for i := range 100 {
		s := p.halves()[i%2]
		r := s.must(http.StatusOK, "PUT", "/enqueue?iterations=50", strings.NewReader(fmt.Sprint("copied ", i)), "Content-Type", "application/octet-stream")
		if got := r.header.Get(api.HeaderDurability); got != "local" {
			t.Errorf("HTTP cut: node %s answers %q, want local", s.label, got)
		}
		var w api.WorkID
		decode(t, r, &w)
		end := time.Now().Add(time.Second)
		for time.Now().Before(end) {
			if r, err := s.other().ask("GET", "/v1/jobs/"+w.ID, nil); err == nil && r.status == http.StatusOK {
				shown++
				break
			}
			pause(5 * time.Millisecond)
		}
		var j api.Job
		decode(t, s.must(http.StatusOK, "GET", "/v1/jobs/"+w.ID, nil), &j)
		if j.Durability != "local" {
			t.Errorf("a job of which the peer has a copy: durability %q, want local", j.Durability)
		}
	}
	t.Logf("%d of 100 jobs came to the peer as copies", shown)
	if shown < 50 {
		t.Errorf("%d of 100 jobs came to the peer as copies", shown)
	}
	p.net.Heal()
	for _, s := range p.halves() {
		s.both(syncTimeout)
	}
	p.equal()
	p.a.sound()
	p.b.sound()
}

// TestPairGossipCut cuts gossip and leaves what must arrive: writes are on both
// nodes, and idle workers find work, as if nothing were (I10).
func TestPairGossipCut(t *testing.T) {
	atLength(t)
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart_%v", restart), func(t *testing.T) {
			p := newNetPair(t)
			p.equal()
			// How many writes are local for nothing but that this machine is busy.
			n := 0
			writes := func(d time.Duration) (late map[string]int, share float64) {
				late = map[string]int{}
				local, all := 0, 0
				for begin := time.Now(); time.Since(begin) < d; {
					s := p.halves()[n%2]
					r := s.must(http.StatusOK, "PUT", "/enqueue?iterations=50", strings.NewReader(fmt.Sprint("without gossip ", n)), "Content-Type", "application/octet-stream")
					if got := r.header.Get(api.HeaderDurability); got != "both" {
						late[r.header.Get(api.HeaderDurabilityReason)]++
						local++
					}
					n++
					all++
					pause(5 * time.Millisecond)
				}
				return late, float64(local) / float64(all)
			}
			_, before := writes(3 * time.Second) // the peer's address is noted meanwhile
			p.net.Both(p.a.host, p.b.host, Rule{Cut: true, Match: gossipOnly})
			pause(3 * time.Second) // long enough for gossip to give the peer up
			if restart {
				p.b.kill()
				p.b.up()
				p.inStep()
			}
			stalls, bad := writes(6 * time.Second)
			t.Logf("%d writes, local: %.1f %% before, then %.1f %%: %v", n, 100*before, 100*bad, stalls)
			if bad > .02+2*before {
				t.Errorf("gossip cut: %.1f %% of writes were local, %.1f %% before: %v", 100*bad, 100*before, stalls)
			}
			var lines strings.Builder
			iterations := int(lasting(50 * time.Millisecond))
			for i := range 60 {
				lines.WriteString(line(fmt.Sprintf("stolen %d", i), iterations))
			}
			p.a.must(http.StatusOK, "POST", "/v1/jobs/batch", strings.NewReader(lines.String()))
			p.settled()
			homes := p.homes()
			t.Logf("computed by %v", homes)
			p.net.Heal()
			p.equal()
		})
	}
}

// TestPairSplitKeys writes the same keys at both nodes while they cannot talk.
func TestPairSplitKeys(t *testing.T) {
	atLength(t)
	p := newNetPair(t)
	p.net.Both(p.a.host, p.b.host, Rule{Cut: true})
	p.a.local(syncTimeout)
	p.b.local(syncTimeout)
	ids := map[string]string{}
	for i := range 60 {
		key := fmt.Sprint("key-", i)
		data := []string{key, key + " at b"}
		if i%3 > 0 {
			data[1] = key
		}
		for k, s := range p.halves() {
			id := s.enqueue(data[k], 40, api.HeaderIdempotencyKey, key)
			if ids[key] != "" && ids[key] != id {
				t.Errorf("%s: job %s at a, %s at b", key, ids[key], id)
			}
			ids[key] = id
		}
	}
	pause(2 * time.Second) // both have computed their own
	p.net.Heal()
	h := p.settled()
	for i := range 60 {
		key := fmt.Sprint("key-", i)
		want := chain(key, 40)
		if i%3 == 0 && chain(key+" at b", 1) < chain(key, 1) {
			want = chain(key+" at b", 40)
		}
		if got := h.results[ids[key]]; got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
	if a := p.a.status().Alarms + p.b.status().Alarms; a != 0 {
		t.Errorf("%d alarms: a client's keys are none", a)
	}
	p.a.sound()
	p.b.sound()
}
