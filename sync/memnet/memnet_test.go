package memnet_test

import (
	"errors"
	"io"
	"log"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"workmanager/sync/memnet"
)

type delegate struct {
	queue memberlist.TransmitLimitedQueue
	got   chan string
}

func (d *delegate) NodeMeta(int) []byte             { return nil }
func (d *delegate) NotifyMsg(b []byte)              { d.got <- string(b) }
func (d *delegate) GetBroadcasts(o, l int) [][]byte { return d.queue.GetBroadcasts(o, l) }
func (d *delegate) LocalState(bool) []byte          { return nil }
func (d *delegate) MergeRemoteState([]byte, bool)   {}

type message []byte

func (m message) Invalidates(memberlist.Broadcast) bool { return false }
func (m message) Message() []byte                       { return m }
func (m message) Finished()                             {}

func start(t *testing.T, host *memnet.Transport, name string) (*memberlist.Memberlist, *delegate) {
	t.Helper()
	d := &delegate{got: make(chan string, 1000)}
	d.queue.NumNodes = func() int { return 2 }
	d.queue.RetransmitMult = 3
	cfg := memberlist.DefaultLANConfig()
	cfg.Name, cfg.Label = name, "memnet"
	cfg.Transport = host
	cfg.Delegate = d
	cfg.Logger = log.New(io.Discard, "", 0)
	ml, err := memberlist.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return ml, d
}

func TestMemberlist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cut atomic.Bool
		nw := &memnet.Network{Drop: func(_, _ string) bool { return cut.Load() }}
		hb := nw.Host()
		a, da := start(t, nw.Host(), "a")
		b, db := start(t, hb, "b")
		if _, err := a.Join([]string{hb.Addr()}); err != nil {
			t.Fatal(err)
		}
		da.queue.QueueBroadcast(message("hello"))
		begin := time.Now()
		if got := <-db.got; got != "hello" {
			t.Fatalf("got %q", got)
		}
		t.Log("gossiped after", time.Since(begin))

		cut.Store(true)
		time.Sleep(time.Minute)
		if n := a.NumMembers(); n != 1 {
			t.Errorf("partitioned: a sees %d members, want 1", n)
		}
		cut.Store(false)
		if _, err := a.Join([]string{hb.Addr()}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := a.NumMembers(); n != 2 {
			t.Errorf("healed: a sees %d members, want 2", n)
		}
		a.Shutdown()
		b.Shutdown()
		time.Sleep(time.Hour) // every memberlist goroutine ends by itself
	})
}

func TestNetwork(t *testing.T) {
	var lost atomic.Value // the address that nothing reaches
	lost.Store("")
	nw := &memnet.Network{Drop: func(_, to string) bool { return lost.Load() == to }}
	a, b := nw.Host(), nw.Host()
	arrives := func(from, to *memnet.Transport) bool {
		t.Helper()
		if _, err := from.WriteTo([]byte("x"), to.Addr()); err != nil {
			t.Errorf("packet from %s to %s: %v", from.Addr(), to.Addr(), err)
		}
		select {
		case p := <-to.PacketCh():
			return p.From.String() == from.Addr()
		default:
			return false
		}
	}

	t.Run("a_packet_says_where_it_is_from", func(t *testing.T) {
		if !arrives(a, b) || !arrives(b, a) {
			t.Error("a packet did not arrive")
		}
	})
	t.Run("packets_that_nobody_takes_are_lost", func(t *testing.T) {
		for range 1000 {
			if _, err := a.WriteTo([]byte("x"), b.Addr()); err != nil {
				t.Fatal(err)
			}
		}
		n := 0
		for arrives := true; arrives; {
			select {
			case <-b.PacketCh():
				n++
			default:
				arrives = false
			}
		}
		if n == 0 || n == 1000 {
			t.Errorf("%d of 1000 packets wait", n)
		}
	})
	t.Run("a_cut_may_be_one_way", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			nw := &memnet.Network{Drop: nw.Drop}
			a, b := nw.Host(), nw.Host()
			ours, err := a.DialTimeout(b.Addr(), time.Second)
			if err != nil {
				t.Fatal(err)
			}
			theirs := <-b.StreamCh()
			if ours.RemoteAddr().String() != b.Addr() || theirs.RemoteAddr().String() != a.Addr() {
				t.Errorf("a stream from %v to %v", theirs.RemoteAddr(), ours.RemoteAddr())
			}
			lost.Store(b.Addr())
			defer lost.Store("")
			for _, way := range [][2]*memnet.Transport{{a, b}, {b, a}} {
				begin := time.Now()
				if c, err := way[0].DialTimeout(way[1].Addr(), time.Second); err == nil || time.Since(begin) != time.Second {
					t.Errorf("a dial to %s took %v: %v, %v; want an error after 1 s", way[1].Addr(), time.Since(begin), c, err)
				}
			}
			if _, err := a.WriteTo([]byte("x"), b.Addr()); err != nil || len(b.PacketCh()) != 0 {
				t.Errorf("%d packets arrived, %v", len(b.PacketCh()), err)
			}
			if _, err := b.WriteTo([]byte("x"), a.Addr()); err != nil || len(a.PacketCh()) != 1 {
				t.Errorf("%d packets arrived the other way, %v", len(a.PacketCh()), err)
			}
			theirs.SetDeadline(time.Now().Add(time.Second))
			if n, err := ours.Write([]byte("x")); n != 1 || err != nil {
				t.Errorf("write into the cut: %d, %v", n, err)
			}
			var timeout net.Error
			if _, err := theirs.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("read from the cut: %v", err)
			}
			ours.Close()
			theirs.Close()
		})
	})
	t.Run("an_address_has_one_host_at_a_time", func(t *testing.T) {
		if _, err := nw.Listen(a.Addr()); err == nil {
			t.Error("a second host listens at an address")
		}
		if c, err := b.DialTimeout(a.Addr(), time.Second); err != nil {
			t.Error(err)
		} else if err := errors.Join(a.Shutdown(), a.Shutdown()); err != nil {
			t.Error(err)
		} else if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a stream that nobody accepted outlives its host")
		}
		if _, err := b.DialTimeout(a.Addr(), time.Second); err == nil {
			t.Error("a dial to a host that is gone succeeded")
		}
		if _, err := a.DialTimeout(b.Addr(), time.Second); err == nil {
			t.Error("a host that is gone dials")
		}
		if _, err := a.WriteTo([]byte("x"), b.Addr()); err == nil || len(b.PacketCh()) != 0 {
			t.Error("a host that is gone sends")
		}
		if arrives(b, a) {
			t.Error("a packet reached a host that is gone")
		}
		again, err := a.Again()
		if err != nil {
			t.Fatal(err)
		}
		if !arrives(b, again) || !arrives(again, b) {
			t.Error("a packet did not arrive after the restart")
		}
	})
	t.Run("hosts_have_addresses_of_their_own", func(t *testing.T) {
		addrs := []string{a.Addr(), b.Addr(), nw.Host().Addr()}
		if slices.Sort(addrs); len(slices.Compact(addrs)) != 3 {
			t.Errorf("three hosts have the addresses %v", addrs)
		}
	})
}
