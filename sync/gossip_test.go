package sync

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"

	"workmanager/jobs"
	"workmanager/sync/memnet"
)

func TestGossip(t *testing.T) {
	bubble := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// Once all is stopped, memberlist has this time to end what it
				// does. A goroutine that is left over then fails the test.
				t.Cleanup(func() { time.Sleep(5 * time.Second) })
				f(t)
			})
		})
	}

	bubble("nodes_meet_and_say_who_they_are", func(t *testing.T) {
		a, b := gossipPair(t, &memnet.Network{})
		want := member{
			Node: "b", Boot: b.cfg.Boot, Store8: [8]byte(b.cfg.Store[:8]), API: "10.0.0.2:5000",
			Gossip: "10.0.0.2:7946", ProtoMin: protoMin, ProtoMax: protoMax, Schema: 2,
		}
		if got := a.said().members; len(got) != 1 || got[0] != want {
			t.Errorf("a is told of %+v, want %+v alone", got, want)
		}
		time.Sleep(10 * time.Minute)
		for _, x := range []*gossiper{a, b} {
			if alive, dead, _, _, strangers := x.counts(); alive != 1 || dead+strangers != 0 {
				t.Errorf("%s, after 10 minutes of peace: Alive %d times, Dead %d, Stranger %d; want 1, 0, 0", x.cfg.Node, alive, dead, strangers)
			}
		}
	})

	bubble("the_end_is_told_at_once", func(t *testing.T) {
		a, b := gossipPair(t, &memnet.Network{})
		b.stop()
		t.Log("left after", pass(t, "a sees b leave", time.Second, func() bool { return a.alive() == "" }))
		if !slices.Equal(a.said().deaths, []string{"b"}) {
			t.Errorf("a is told of the death of %v, want b", a.said().deaths)
		}
	})

	bubble("a_restart_after_the_end_is_seen_at_once", func(t *testing.T) {
		a, b := gossipPair(t, &memnet.Network{})
		time.Sleep(time.Minute)
		b.stop()
		time.Sleep(300 * time.Millisecond)
		tb, err := b.cfg.Transport.(*memnet.Transport).Again()
		if err != nil {
			t.Fatal(err)
		}
		again := gossiping(t, gossipTestConfig("b", over(tb), joins(a.Addr())))
		t.Log("seen after", pass(t, "both see each other", time.Second, func() bool { return a.alive() == "b" && again.alive() == "a" && a.boot() == again.cfg.Boot }))
	})

	bubble("a_crash_is_found_within_1.5_s", func(t *testing.T) {
		var worst time.Duration
		for range 20 {
			a, b := gossipPair(t, &memnet.Network{})
			time.Sleep(3 * time.Second)
			b.crash()
			worst = max(worst, pass(t, "a misses b", 1500*time.Millisecond, func() bool { return a.alive() == "" }))
			a.stop()
		}
		t.Log("found after", worst, "at the longest")
	})

	bubble("a_restart_at_once_is_a_new_boot", func(t *testing.T) {
		a, b := gossipPair(t, &memnet.Network{})
		time.Sleep(time.Minute)
		b.crash()
		tb, err := b.cfg.Transport.(*memnet.Transport).Again()
		if err != nil {
			t.Fatal(err)
		}
		again := gossiping(t, gossipTestConfig("b", over(tb), joins(a.Addr())))
		took := pass(t, "a sees the new boot", time.Second, func() bool { return a.boot() == again.cfg.Boot })
		t.Log("seen after", took)
		if alive, dead, _, _, _ := a.counts(); alive != 2 || dead != 0 {
			t.Errorf("a is told Alive %d times and Dead %d times, want 2 and 0: an update", alive, dead)
		}
	})

	bubble("a_restart_at_another_address_is_found", func(t *testing.T) {
		nw := &memnet.Network{}
		a, b := gossipPair(t, nw)
		time.Sleep(time.Minute)
		b.crash()
		again := gossiping(t, gossipTestConfig("b", over(nw.Host()), joins(a.Addr())))
		took := pass(t, "a sees b at its new address", 4*time.Second, func() bool { return a.boot() == again.cfg.Boot })
		t.Log("seen after", took)
		time.Sleep(time.Minute)
		if a.alive() != "b" || again.alive() != "a" {
			t.Errorf("a minute later a sees %q and b sees %q", a.alive(), again.alive())
		}
		for _, x := range []*gossiper{a, again} {
			if len(x.said().strangers) != 0 {
				t.Errorf("%s is told of strangers: %q", x.cfg.Node, x.said().strangers)
			}
		}
	})

	for _, cut := range []time.Duration{1200 * time.Millisecond, 3 * time.Second, 10 * time.Second, 2 * time.Minute} {
		bubble(fmt.Sprintf("a_cut_of_%v_heals", cut), func(t *testing.T) {
			var away atomic.Bool
			a, b := gossipPair(t, &memnet.Network{Drop: func(_, _ string) bool { return away.Load() }})
			time.Sleep(time.Minute)
			away.Store(true)
			found := pass(t, "both miss each other", 2*time.Second, meet(a, b, false))
			time.Sleep(cut - found)
			away.Store(false)
			healed := pass(t, "both see each other", 3500*time.Millisecond, meet(a, b, true))
			t.Logf("found after %v, healed after %v", found, healed)
			time.Sleep(time.Minute)
			if !meet(a, b, true)() {
				t.Error("a minute later they do not see each other")
			}
		})
	}

	for _, deaf := range []string{"10.0.0.1:7946", "10.0.0.2:7946"} {
		bubble("one_way_cut_to_"+deaf+"_heals", func(t *testing.T) {
			var away atomic.Bool
			a, b := gossipPair(t, &memnet.Network{Drop: func(_, to string) bool { return away.Load() && to == deaf }})
			time.Sleep(time.Minute)
			away.Store(true)
			found := pass(t, "both miss each other", 20*time.Second, meet(a, b, false))
			time.Sleep(2 * time.Minute)
			for _, x := range []*gossiper{a, b} {
				if alive, dead, _, _, _ := x.counts(); alive != 1 || dead != 1 {
					t.Errorf("%s, cut off for 2 minutes, is told Alive %d times and Dead %d times, want 1 and 1", x.cfg.Node, alive, dead)
				}
			}
			away.Store(false)
			healed := pass(t, "both see each other", 3500*time.Millisecond, meet(a, b, true))
			t.Logf("found after %v, healed after %v", found, healed)
		})
	}

	bubble("hints_are_few_and_the_last_arrives", func(t *testing.T) {
		a, b := gossipPair(t, &memnet.Network{})
		time.Sleep(time.Second)
		begin := a.Counts().HintsOut
		for i := range 1000 {
			a.Hint(jobs.LSeq(i+1), 0, 0)
			time.Sleep(10 * time.Microsecond)
		}
		time.Sleep(20 * time.Millisecond)
		if n := a.Counts().HintsOut - begin; n < 1 || n > 3 {
			t.Errorf("1000 hints in 10 ms were %d packets, want 1 to 3", n)
		}
		if heads := b.said().heads; len(heads) == 0 || heads[len(heads)-1] != 1000 {
			t.Errorf("b was told of heads %v, the last is not 1000", heads)
		}
	})

	bubble("heads_go_along_when_states_are_compared", func(t *testing.T) {
		nw := &memnet.Network{}
		var head atomic.Int64
		ta := nw.Host()
		a := gossiping(t, gossipTestConfig("a", over(ta), func(c *gossipConfig) { c.Head = func() jobs.LSeq { return jobs.LSeq(head.Load()) } }))
		b := gossiping(t, gossipTestConfig("b", over(nw.Host()), joins(ta.Addr())))
		pass(t, "they meet", time.Second, meet(a, b, true))
		head.Store(77)
		t.Log("told after", pass(t, "b is told of the head", 11*time.Second, func() bool { return slices.Contains(b.said().heads, 77) }))
		if n := len(appendHint(nil, a.cfg.Boot, 1<<62, 1<<62, 1<<62)); n > 64 {
			t.Errorf("a hint has %d bytes, want 64 at most", n)
		}
	})

	bubble("copies_arrive_and_are_bounded", func(t *testing.T) {
		nw := &memnet.Network{}
		lone := gossiping(t, gossipTestConfig("c", over(nw.Host()), func(c *gossipConfig) { c.Cluster = "lone" }))
		if lone.SendCopies(lone.copies(100)) {
			t.Error("copies were sent with no peer alive")
		}
		a, b := gossipPair(t, nw)
		packet := a.copies(maxPacket)
		if !a.SendCopies(packet) {
			t.Error("a packet of the largest size was not sent")
		}
		if a.SendCopies(a.copies(maxPacket + 1)) {
			t.Error("a packet above the largest size was sent")
		}
		clear(packet) // the sender's again
		synctest.Wait()
		if len(b.said().packets) != 1 || !bytes.Equal(b.said().packets[0], a.copies(maxPacket)) {
			t.Errorf("%d packets arrived, want the one", len(b.said().packets))
		}
		b.stop()
		time.Sleep(time.Second)
		if a.SendCopies(a.copies(100)) {
			t.Error("copies were sent when the peer had left")
		}
	})

	bubble("packets_of_others_are_dropped", func(t *testing.T) {
		a, b := gossipPair(t, &memnet.Network{})
		d := &delegate{a.gossip}
		before := a.Counts().Dropped
		flipped := b.copies(100)
		flipped[50] ^= 1
		bad := [][]byte{nil, {0xFF}, {packetHint}, {packetCopies}, appendHint(nil, jobs.ID{1}, 5, 0, 0), a.copies(100), b.copies(maxPacket + 1), flipped}
		for _, p := range bad {
			d.NotifyMsg(p)
		}
		if got := a.Counts().Dropped - before; got != int64(len(bad)) || len(a.said().heads)+len(a.said().packets) != 0 {
			t.Errorf("%d of %d bad packets were dropped, %d heads and %d packets told", got, len(bad), len(a.said().heads), len(a.said().packets))
		}
		good := b.copies(100)
		d.NotifyMsg(good)
		clear(good) // memberlist's again
		if got := a.said().packets; len(got) != 1 || !bytes.Equal(got[0], b.copies(100)) {
			t.Errorf("a good packet was told as %x", got)
		}
		d.NotifyMsg(appendHint(nil, b.cfg.Boot, 5, 0, 0))
		if !slices.Equal(a.said().heads, []jobs.LSeq{5}) {
			t.Errorf("a good hint was told as %v", a.said().heads)
		}
	})

	bubble("a_third_node_is_refused_and_told", func(t *testing.T) {
		a, b := gossipPair(t, &memnet.Network{})
		c := gossiping(t, gossipTestConfig("c", over(a.cfg.Transport.(*memnet.Transport).Network().Host()), joins(a.Addr(), b.Addr())))
		time.Sleep(30 * time.Second)
		for _, x := range []*gossiper{a, b} {
			if _, _, _, _, n := x.counts(); n != 1 || !strings.HasPrefix(x.said().strangers[0], "c at 10.0.0.3:7946: ") {
				t.Errorf("%s is told of strangers %q, want c once", x.cfg.Node, x.said().strangers)
			}
			if alive, dead, _, _, _ := x.counts(); alive != 1 || dead != 0 {
				t.Errorf("%s is told Alive %d times and Dead %d times, want 1 and 0", x.cfg.Node, alive, dead)
			}
			if x.list.NumMembers() != 2 || x.Counts().Refused == 0 {
				t.Errorf("%s lists %d members and has refused %d times", x.cfg.Node, x.list.NumMembers(), x.Counts().Refused)
			}
		}
		if c.list.NumMembers() > 2 {
			t.Errorf("c lists %d members: more than one peer", c.list.NumMembers())
		}
		time.Sleep(10 * time.Minute)
		if n := len(a.said().strangers); n < 9 || n > 12 {
			t.Errorf("a was told of c %d times in 10 minutes, want once a minute", n)
		}
	})

	bubble("a_node_takes_one_peer_even_if_both_are_allowed", func(t *testing.T) {
		nw := &memnet.Network{}
		ta := nw.Host()
		var forgotten atomic.Bool
		a := gossiping(t, gossipTestConfig("a", over(ta)), func(node string) bool { return node != "b" || !forgotten.Load() })
		b := gossiping(t, gossipTestConfig("b", over(nw.Host()), joins(ta.Addr())))
		pass(t, "they meet", time.Second, meet(a, b, true))
		c := gossiping(t, gossipTestConfig("c", over(nw.Host()), joins(ta.Addr())), func(node string) bool { return node == "a" })
		time.Sleep(10 * time.Second)
		if a.alive() != "b" || len(a.said().strangers) != 1 {
			t.Errorf("a has peer %q and knows of strangers %q", a.alive(), a.said().strangers)
		}
		forgotten.Store(true)
		pass(t, "a takes c", 20*time.Second, func() bool { return a.alive() == "c" })
		if !slices.Equal(a.said().deaths, []string{"b"}) {
			t.Errorf("a is told of the death of %v, want b", a.said().deaths)
		}
		b.stop()
		time.Sleep(30 * time.Second)
		if a.alive() != "c" || c.alive() != "a" {
			t.Errorf("a has peer %q, c has %q", a.alive(), c.alive())
		}
	})

	bubble("a_second_node_of_one_name_is_told", func(t *testing.T) {
		nw := &memnet.Network{}
		a, b := gossipPair(t, nw)
		clone := gossiping(t, gossipTestConfig("b", over(nw.Host()), joins(a.Addr())))
		pass(t, "a and the clone are told", 20*time.Second, func() bool { return len(a.said().strangers) > 0 && len(clone.said().strangers) > 0 })
		if got, want := a.said().strangers[0], "b at 10.0.0.3:7946: it has the name of the node at 10.0.0.2:7946"; got != want {
			t.Errorf("a is told %q, want %q", got, want)
		}
		if got, want := clone.said().strangers[0], "b at 10.0.0.2:7946: it has our name"; got != want {
			t.Errorf("the clone is told %q, want %q", got, want)
		}
		if !meet(a, b, true)() || len(a.said().members) != 1 {
			t.Errorf("a sees %q, told %d times; b sees %q", a.alive(), len(a.said().members), b.alive())
		}
	})

	bubble("two_nodes_of_one_name_are_told", func(t *testing.T) {
		nw := &memnet.Network{}
		ta := nw.Host()
		x := gossiping(t, gossipTestConfig("a", over(ta)))
		y := gossiping(t, gossipTestConfig("a", over(nw.Host()), joins(ta.Addr())))
		took := pass(t, "both are told", 10*time.Second, func() bool { return len(x.said().strangers) > 0 && len(y.said().strangers) > 0 })
		t.Log("told after", took)
		if len(x.said().members)+len(y.said().members) != 0 {
			t.Errorf("they are told of %v and %v", x.said().members, y.said().members)
		}
	})

	bubble("another_cluster_does_not_get_in", func(t *testing.T) {
		nw := &memnet.Network{}
		a, _ := gossipPair(t, nw)
		c := gossiping(t, gossipTestConfig("c", over(nw.Host()), joins(a.Addr()), func(c *gossipConfig) { c.Cluster = "other" }))
		time.Sleep(30 * time.Second)
		if len(c.said().members) != 0 || c.list.NumMembers() != 1 || a.list.NumMembers() != 2 {
			t.Errorf("c is told of %v and lists %d, a lists %d", c.said().members, c.list.NumMembers(), a.list.NumMembers())
		}
		if want := []string{" at 10.0.0.3:7946: it belongs to cluster other"}; !slices.Equal(a.said().strangers, want) {
			t.Errorf("a is told of strangers %q, want %q", a.said().strangers, want)
		}
	})

	bubble("what_cannot_be_read_is_refused", func(t *testing.T) {
		a, _ := gossipPair(t, &memnet.Network{})
		err := (&delegate{a.gossip}).NotifyAlive(&memberlist.Node{Name: "d", Addr: net.IPv4(10, 0, 0, 9), Port: 1, Meta: []byte{metaVersion, 0}})
		if err == nil || len(a.said().strangers) != 1 {
			t.Errorf("NotifyAlive = %v, strangers %q", err, a.said().strangers)
		}
	})

	bubble("a_node_does_not_join_itself", func(t *testing.T) {
		var own atomic.Int64
		nw := &memnet.Network{Drop: func(from, to string) bool {
			if from == to {
				own.Add(1)
			}
			return false
		}}
		ta, tb := nw.Host(), nw.Host()
		list := joins(ta.Addr(), tb.Addr()) // one list for both nodes
		a, b := gossiping(t, gossipTestConfig("a", over(ta), list)), gossiping(t, gossipTestConfig("b", over(tb), list))
		pass(t, "they meet", time.Second, meet(a, b, true))
		time.Sleep(time.Minute)
		if n := own.Load(); n != 0 || len(a.said().strangers)+len(b.said().strangers) != 0 {
			t.Errorf("%d times a node called itself; strangers: %q, %q", n, a.said().strangers, b.said().strangers)
		}
	})

	bubble("another_key_does_not_get_in", func(t *testing.T) {
		nw := &memnet.Network{}
		ta := nw.Host()
		key := func(x byte) func(*gossipConfig) {
			return func(c *gossipConfig) { c.Keys = [][]byte{bytes.Repeat([]byte{x}, 32)} }
		}
		a := gossiping(t, gossipTestConfig("a", over(ta), key(1)))
		c := gossiping(t, gossipTestConfig("c", over(nw.Host()), joins(ta.Addr()), key(2)))
		d := gossiping(t, gossipTestConfig("d", over(nw.Host()), joins(ta.Addr())))
		time.Sleep(30 * time.Second)
		if got := a.said().members; len(got)+len(c.said().members)+len(d.said().members) != 0 {
			t.Errorf("a is told of %v, c of %v, d of %v", got, c.said().members, d.said().members)
		}
		b := gossiping(t, gossipTestConfig("b", over(nw.Host()), joins(ta.Addr()), key(1)))
		pass(t, "the one with the key gets in", time.Second, meet(a, b, true))
	})

	bubble("keys_are_exchanged_without_a_word_lost", func(t *testing.T) {
		nw := &memnet.Network{}
		ta, tb := nw.Host(), nw.Host()
		one, two, three := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32), bytes.Repeat([]byte{3}, 32)
		with := func(keys ...[]byte) func(*gossipConfig) { return func(c *gossipConfig) { c.Keys = keys } }
		a := gossiping(t, gossipTestConfig("a", over(ta), with(one, three)))
		b := gossiping(t, gossipTestConfig("b", over(tb), joins(ta.Addr()), with(one)))
		pass(t, "they meet", time.Second, meet(a, b, true))
		head := jobs.LSeq(0)
		for _, keys := range [][][]byte{{one, two}, {two, one}, {two}} { // on both, one after the other
			for _, x := range []*gossiper{a, b} {
				if err := x.SetKeys(keys); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
				head++
				a.Hint(head, 0, 0)
				pass(t, "a hint arrives", time.Second, func() bool { return slices.Contains(b.said().heads, head) })
			}
			if got := a.ring.GetKeys(); !slices.EqualFunc(got, keys, bytes.Equal) {
				t.Errorf("the ring is %v, want %v", got, keys)
			}
		}
		if alive, dead, _, _, _ := a.counts(); alive != 1 || dead != 0 {
			t.Errorf("a lost sight of b: alive %d times, dead %d", alive, dead)
		}
		c := gossiping(t, gossipTestConfig("c", over(nw.Host()), joins(ta.Addr()), with(one)))
		time.Sleep(30 * time.Second)
		if got := c.said().members; len(got) != 0 {
			t.Errorf("the key that is gone lets in: %v", got)
		}
		if err := a.SetKeys([][]byte{{1, 2}}); err == nil {
			t.Error("a key of 2 bytes was taken")
		}
	})

	bubble("the_address_of_last_time_is_joined", func(t *testing.T) {
		nw := &memnet.Network{}
		ta := nw.Host()
		a, b := gossiping(t, gossipTestConfig("a", over(ta))), gossiping(t, gossipTestConfig("b", over(nw.Host())))
		time.Sleep(5 * time.Second)
		if a.alive() != "" {
			t.Fatal("they met by themselves")
		}
		b.SetPeerAddr(ta.Addr())
		t.Log("met after", pass(t, "they meet", 2*time.Second, meet(a, b, true)))
	})

	bubble("rejoin_joins_at_once", func(t *testing.T) {
		a, b := gossipPair(t, &memnet.Network{})
		time.Sleep(15 * time.Second)
		a.crash()
		ta, err := a.cfg.Transport.(*memnet.Transport).Again()
		if err != nil {
			t.Fatal(err)
		}
		again := gossiping(t, gossipTestConfig("a", over(ta))) // it has nobody to join
		b.Rejoin()
		took := pass(t, "both see each other's boot", 500*time.Millisecond, func() bool {
			return again.alive() == "b" && b.boot() == again.cfg.Boot
		})
		t.Log("seen after", took)
	})

	bubble("muted_it_tells_nothing_after_the_first_contact", func(t *testing.T) {
		nw := &memnet.Network{}
		var away atomic.Bool
		nw.Drop = func(_, _ string) bool { return away.Load() }
		ta, tb := nw.Host(), nw.Host()
		a := gossiping(t, gossipTestConfig("a", over(ta)))
		a.Mute(true)
		b := gossiping(t, gossipTestConfig("b", over(tb), joins(ta.Addr())))
		pass(t, "they meet", time.Second, meet(a, b, true))
		b.Hint(5, 0, 0)
		if !b.SendCopies(b.copies(100)) {
			t.Error("b, not muted, does not send copies")
		}
		a.Hint(5, 0, 0)
		if a.SendCopies(a.copies(100)) {
			t.Error("a, muted, sends copies")
		}
		time.Sleep(10 * time.Second)
		away.Store(true)
		time.Sleep(10 * time.Second)
		if alive, dead, heads, packets, strangers := a.counts(); alive != 1 || dead+heads+packets+strangers != 0 {
			t.Errorf("a, muted, is told Alive %d times, %d deaths, %d heads, %d packets, %d strangers; want 1, 0, 0, 0, 0", alive, dead, heads, packets, strangers)
		}
		if _, _, heads, packets, _ := b.counts(); heads+packets != 0 {
			t.Errorf("b is told of %d heads and %d packets of a, which is muted", heads, packets)
		}
		a.Mute(false)
		if a.alive() != "" {
			t.Error("a, not muted any more, is not told that b is away")
		}
		away.Store(false)
		pass(t, "they meet again", 5*time.Second, meet(a, b, true))
		b.Hint(6, 0, 0)
		synctest.Wait()
		if !slices.Equal(a.said().heads, []jobs.LSeq{6}) {
			t.Errorf("a is told of heads %v, want 6", a.said().heads)
		}
	})

	bubble("its_methods_may_be_called_from_its_events", func(t *testing.T) {
		nw := &memnet.Network{}
		ta := nw.Host()
		var b *gossiper
		b = gossiping(t, gossipTestConfig("b", over(nw.Host())), func(string) bool {
			if b != nil { // nil while it is made
				b.Hint(1, 0, 0)
				b.SendCopies(b.copies(100))
				b.SetPeerAddr(ta.Addr())
				b.Rejoin()
				b.Counts()
			}
			return true
		})
		a := gossiping(t, gossipTestConfig("a", over(ta), joins(b.Addr())))
		pass(t, "they meet", time.Second, meet(a, b, true))
	})

	bubble("an_end_in_a_black_hole_takes_3_s_at_most", func(t *testing.T) {
		var worst time.Duration
		for i := range 20 {
			var away atomic.Bool
			a, b := gossipPair(t, &memnet.Network{Drop: func(_, _ string) bool { return away.Load() }})
			away.Store(true)
			time.Sleep(time.Duration(i) * 170 * time.Millisecond)
			for _, x := range []*gossiper{a, b} {
				begin := time.Now()
				x.stop()
				worst = max(worst, time.Since(begin))
			}
		}
		if worst > 3*time.Second {
			t.Errorf("one took %v to end", worst)
		}
		t.Log("ended after", worst, "at the longest")
	})

	bubble("run_with_a_context_that_is_done_closes", func(t *testing.T) {
		nw := &memnet.Network{}
		tr := nw.Host()
		g, err := newGossip(gossipTestConfig("a", over(tr), func(c *gossipConfig) { c.Log = slog.New(slog.DiscardHandler) }), &heard{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := g.Run(ctx); err != nil {
			t.Error(err)
		}
		if _, err := tr.Again(); err != nil {
			t.Error(err)
		}
	})
}

// The same over real sockets, where time is real.
func TestGossip_sockets(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	local := func(c *gossipConfig) { c.Bind, c.Keys = "127.0.0.1:0", [][]byte{bytes.Repeat([]byte{7}, 32)} }
	until := func(x *gossiper, what string, ok func() bool) {
		t.Helper()
		begin, limit := time.Now(), time.After(20*time.Second)
		for !ok() {
			select {
			case <-x.news:
			case <-limit:
				t.Fatalf("%s: not within 20 s", what)
			}
		}
		t.Logf("%s: %v", what, time.Since(begin).Round(time.Millisecond/10))
	}

	a := gossiping(t, gossipTestConfig("a", local))
	defer a.stop()
	b := crashing(t, gossipTestConfig("b", local, joins(strings.Replace(a.Addr(), "127.0.0.1", "localhost", 1))))
	until(a, "a sees b", func() bool { return a.alive() == "b" })
	until(b, "b sees a", func() bool { return b.alive() == "a" })
	if host, _, _ := net.SplitHostPort(a.said().members[0].API); host != "127.0.0.1" || a.said().members[0].Gossip != b.Addr() {
		t.Errorf("a sees b as %+v, want it at %s", a.said().members[0], b.Addr())
	}
	packet := a.copies(maxPacket)
	until(b, "copies arrive", func() bool { // a datagram may be lost
		if len(b.said().packets) == 0 {
			a.SendCopies(packet)
			return false
		}
		return bytes.Equal(b.said().packets[0], packet)
	})
	a.Hint(9, 1, 2)
	until(b, "a hint arrives", func() bool { return slices.Contains(b.said().heads, 9) })

	b.stop()
	until(a, "a misses b", func() bool { return a.alive() == "" })
	again := gossiping(t, gossipTestConfig("b", local, func(c *gossipConfig) { c.Bind = b.Addr() }, joins(a.Addr())))
	defer again.stop()
	until(a, "a sees b's new boot", func() bool { return a.boot() == again.cfg.Boot })
	again.stop()
	until(a, "a sees b leave", func() bool { return a.alive() == "" })
	a.stop()
}

func TestGossip_addresses(t *testing.T) {
	for _, tc := range []struct {
		bind, advertise, join string
		want                  string // advertised host
		fails                 string
	}{
		{bind: "127.0.0.1:0", want: "127.0.0.1"},
		{bind: "localhost:0", want: "127.0.0.1"},
		{bind: "[::1]:0", want: "::1"},
		{bind: "0.0.0.0:0", join: "127.0.0.1:7946", want: "127.0.0.1"},
		{bind: ":0", join: "127.0.0.1:7946", want: "127.0.0.1"},
		{bind: "127.0.0.1:0", advertise: "192.0.2.7", want: "192.0.2.7"},
		{bind: "127.0.0.1:0", advertise: "0.0.0.0", fails: "nobody can reach that"},
		{bind: "127.0.0.1", fails: "missing port"},
	} {
		t.Run(tc.bind+" "+tc.advertise, func(t *testing.T) {
			if tc.bind == "[::1]:0" {
				l, err := net.Listen("tcp", tc.bind)
				if err != nil {
					t.Skip("no IPv6 here: ", err)
				}
				l.Close()
			}
			cfg := gossipTestConfig("a", func(c *gossipConfig) {
				c.Bind, c.Advertise, c.Log = tc.bind, tc.advertise, slog.New(slog.DiscardHandler)
				if tc.join != "" {
					c.Join = []string{tc.join}
				}
			})
			g, err := newGossip(cfg, &heard{})
			if tc.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fails) {
					t.Errorf("newGossip = %v, want an error with %q", err, tc.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			defer g.Run(ctx)
			host, port, err := net.SplitHostPort(g.self)
			if err != nil || host != tc.want {
				t.Errorf("advertises %s, want %s", g.self, tc.want)
			}
			if _, bound, _ := net.SplitHostPort(g.Addr()); bound != port || bound == "0" {
				t.Errorf("listens at %s, advertises %s", g.Addr(), g.self)
			}
		})
	}
}

func TestMeta(t *testing.T) {
	cfg := gossipTestConfig("a", func(c *gossipConfig) { c.API = "api.example:5000" })
	b, err := appendMeta(nil, cfg)
	if err != nil {
		t.Fatal(err)
	}
	at := func(meta []byte) *memberlist.Node {
		return &memberlist.Node{Name: "a", Addr: net.IPv4(10, 0, 0, 1), Port: 7946, Meta: meta}
	}
	want := member{Node: "a", Boot: cfg.Boot, Store8: [8]byte(cfg.Store[:8]), API: "api.example:5000", Gossip: "10.0.0.1:7946", ProtoMin: protoMin, ProtoMax: protoMax, Schema: 2}
	for _, meta := range [][]byte{b, append(slices.Clone(b), "of a later release"...)} {
		if got, err := decodeMeta(at(meta)); err != nil || got != want {
			t.Errorf("decodeMeta(%x) = %+v, %v, want %+v", meta, got, err, want)
		}
	}
	for i := range b {
		if got, err := decodeMeta(at(b[:i])); err == nil {
			t.Errorf("decodeMeta of %d of %d bytes = %+v, want an error", i, len(b), got)
		}
	}
	for api, ok := range map[string]bool{"0.0.0.0:1": true, "[::]:1": true, "": false, "host": false, strings.Repeat("x", 255) + ":65535": true, strings.Repeat("x", 500) + ":1": false} {
		cfg.API = api
		if b, err := appendMeta(nil, cfg); (err == nil) != ok || len(b) > memberlist.MetaMaxSize && ok {
			t.Errorf("appendMeta with an API of %d bytes, %.20q: %d bytes, %v", len(api), api, len(b), err)
		}
	}
}

func FuzzMeta(f *testing.F) {
	b, err := appendMeta(nil, gossipTestConfig("a"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		n := &memberlist.Node{Name: "a", Addr: net.IPv4(10, 0, 0, 1), Port: 7946, Meta: b}
		m, err := decodeMeta(n)
		if err == nil && (m.ProtoMin > m.ProtoMax || m.API == "" || m.Schema < 0) {
			t.Errorf("decodeMeta(%x) = %+v", b, m)
		}
	})
}

func TestNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n notices
		said := func(patience time.Duration) string {
			missed, ok := n.due("x", patience)
			return fmt.Sprint(missed, ok)
		}
		for i, step := range []struct {
			after, patience time.Duration
			want            string
		}{
			{0, 0, "0 true"},
			{time.Second, 0, "0 false"},
			{time.Second, 0, "0 false"},
			{time.Minute, 0, "2 true"},
			{time.Hour, 5 * time.Second, "0 false"}, // not yet
			{4 * time.Second, 5 * time.Second, "0 false"},
			{time.Second, 5 * time.Second, "2 true"},
			{noticeGap + 2*time.Minute, 5 * time.Second, "0 false"}, // begins anew
		} {
			time.Sleep(step.after)
			if got := said(step.patience); got != step.want {
				t.Errorf("step %d: due = %s, want %s", i, got, step.want)
			}
		}
		for i := range 10 * maxNotices {
			n.due(fmt.Sprint("name ", i), 0)
		}
		if len(n.seen) > maxNotices {
			t.Errorf("%d notices are kept, want %d at most", len(n.seen), maxNotices)
		}
		time.Sleep(time.Hour)
		if _, ok := n.due("new", 0); !ok || len(n.seen) != 1 {
			t.Errorf("an hour later a new one is due: %v, %d are kept; want true, 1", ok, len(n.seen))
		}
	})
}
