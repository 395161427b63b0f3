package e2e

import (
	"encoding/base64"
	wire "encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"workmanager/web/api"
)

// TestStrangers lets in among the gossip of a real pair who has no business
// there: real members with no key, another key, another label, and with the
// stolen key; and somebody who has recorded the wire and plays it again.
func TestStrangers(t *testing.T) {
	p := newClosedPair(t, "--workers", "0")
	secret := p.gossipKey()

	for _, row := range []struct {
		name, label, self string
		key               []byte
		sees              bool // it is told who is in the pair: it has the key and the label
	}{
		{name: "no_key", label: "wm/", self: "c"},
		{name: "another_key", label: "wm/", self: "c", key: slices.Repeat([]byte{7}, 32)},
		{name: "the_key_and_another_label", label: "wm/other", self: "c", key: secret},
		{name: "the_key_and_no_label", label: "", self: "c", key: secret},
		{name: "no_key_and_the_peer_s_name", label: "wm/", self: "b"},
		{name: "the_key_stolen", label: "wm/", self: "c", key: secret, sees: true},
		{name: "the_key_stolen_and_the_peer_s_name", label: "wm/", self: "b", key: secret, sees: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newStranger(t, row.self, row.label, row.key)
			// Who may not get in never does; who may, does at some try: on a busy
			// machine one may take too long, or a member be missed for a moment.
			joins, listed := map[string]bool{}, 0
			look := func() {
				for _, to := range p.gossip {
					joined, err := s.list.Join([]string{to})
					if joined > 0 && err == nil {
						joins[to] = true
					}
				}
				listed = max(listed, s.list.NumMembers()-1)
			}
			for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); {
				look()
				for _, m := range s.list.Members() { // the worst it can say
					_ = s.list.SendBestEffort(m, []byte("\x01garbage")) // it may be refused
					_ = s.list.SendReliable(m, []byte("\x02garbage"))
				}
				pause(50 * time.Millisecond)
			}
			for _, n := range []*node{p.a, p.b} {
				poll(t, syncTimeout, "jobs are on both disks meanwhile", func() string { return p.enqueue(n, row.name, "both") })
			}
			if row.sees {
				poll(t, syncTimeout, "it joins both and lists others", func() string {
					if len(joins) == 2 && listed > 0 {
						return ""
					}
					look()
					return fmt.Sprint(joins, listed)
				})
			} else if look(); len(joins) > 0 || listed > 0 {
				t.Errorf("it joins %v and lists %d others: %v", joins, listed, s.list.Members())
			}
			for _, n := range []*node{p.a, p.b} {
				st := p.status(n).Peer
				if want := map[*node]string{p.a: "b", p.b: "a"}[n]; st.Node != want || st.API != p.addr[want] || st.Gossip != p.gossip[want] {
					t.Errorf("%s is in session %s with %q at %s, gossip %s", n.name, st.Session, st.Node, st.API, st.Gossip)
				}
			}
		})
	}
	for _, n := range []*node{p.a, p.b} {
		n.sound()
		for line := range strings.Lines(n.log.String()) {
			if strings.Contains(line, "msg=session") && !strings.Contains(line, "peer=a") && !strings.Contains(line, "peer=b") {
				t.Errorf("%s has had a session with a stranger: %s", n.name, line)
			}
		}
	}
}

// stranger is a member of memberlist's own making, at 127.0.0.9.
type stranger struct{ list *memberlist.Memberlist }

// NodeMeta and the rest make it say what a node of ours says, as far as it can
// know: of another boot and store.
func (*stranger) NodeMeta(int) []byte {
	b := append([]byte{1}, slices.Repeat([]byte{9}, 16+8)...)
	b = append(b, 1, 9, 1)
	return append(append(b, 14), "127.0.0.9:5000"...)
}
func (*stranger) NotifyMsg([]byte)                {}
func (*stranger) GetBroadcasts(int, int) [][]byte { return nil }
func (*stranger) LocalState(bool) []byte          { return []byte("\x02nonsense") }
func (*stranger) MergeRemoteState([]byte, bool)   {}

func newStranger(t *testing.T, name, label string, key []byte) *stranger {
	t.Helper()
	_, port, _ := net.SplitHostPort(strings.Replace(freeAddr(t), "127.0.0.1", "127.0.0.9", 1))
	c := memberlist.DefaultLocalConfig()
	c.Name, c.Label, c.SecretKey = name, label, key
	c.BindAddr, c.AdvertiseAddr = "127.0.0.9", "127.0.0.9"
	if _, err := fmt.Sscan(port, &c.BindPort); err != nil {
		t.Fatal(err)
	}
	c.AdvertisePort = c.BindPort
	c.EnableCompression = false
	c.TCPTimeout = time.Second
	c.Logger = log.New(io.Discard, "", 0)
	s := &stranger{}
	c.Delegate = s
	var err error
	if s.list, err = memberlist.Create(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.list.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (p *closedPair) gossipKey() []byte {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.keys, "a", "gossip.key"))
	if err != nil {
		p.t.Fatal(err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		p.t.Fatal(err)
	}
	return key
}

// TestStrangers_replay: what gossip said once may be said again by anybody who
// heard it. The pair must not be moved by it: neither while both are there, nor
// into believing that a node that was killed still lives.
func TestStrangers_replay(t *testing.T) {
	need(t, true)
	p := newClosedPair(t, "--workers", "1")
	heard := record(t, p.gossip)
	// How many of n jobs are only on one disk is the machine's affair, as long as
	// it is not all of them: a busy one has a slow peer.
	enqueue := func(what string, n int) {
		t.Helper()
		local := 0
		for i := range n {
			if said := p.enqueue(p.a, fmt.Sprint(what, i), "both"); strings.HasPrefix(said, "durability local") {
				local++
			} else if said != "" {
				t.Errorf("%s, job %d: %s", what, i, said)
			}
			pause(20 * time.Millisecond)
		}
		t.Logf("%s: %d jobs, %d of them local for now", what, n, local)
		poll(t, syncTimeout, "jobs are on both disks: "+what, func() string { return p.enqueue(p.a, "once more", "both") })
	}
	enqueue("recorded", 60) // heads that move, so that there are hints and copies
	poll(t, syncTimeout, "both kinds were recorded, and an exchange of states", func() string {
		heard.mu.Lock()
		defer heard.mu.Unlock()
		if len(heard.packets) < 100 || len(heard.streams) == 0 {
			return fmt.Sprintf("%d packets, %d streams", len(heard.packets), len(heard.streams))
		}
		return ""
	})
	t.Run("while_both_are_there", func(t *testing.T) {
		again := heard.replay(t)
		enqueue("under replay", 100)
		poll(t, syncTimeout, "a stream that is played again is answered, and so taken for something", func() string {
			if again.answers.Load() == 0 {
				return "none is"
			}
			return ""
		})
		t.Log("played again:", again.stop())
	})
	t.Run("of_a_boot_that_is_over", func(t *testing.T) {
		p.b.kill()
		p.b = p.up("b")
		again := heard.replay(t)
		poll(t, syncTimeout, "jobs are on both disks again", func() string { return p.enqueue(p.a, "again", "both") })
		enqueue("under replay of the boot before", 100)
		t.Log("played again:", again.stop())
	})
	t.Run("of_a_node_that_is_dead", func(t *testing.T) {
		fresh := record(t, p.gossip)
		poll(t, syncTimeout, "the new boot was recorded too", func() string {
			fresh.mu.Lock()
			defer fresh.mu.Unlock()
			if len(fresh.packets) < 50 || len(fresh.streams) == 0 {
				return fmt.Sprintf("%d packets, %d streams", len(fresh.packets), len(fresh.streams))
			}
			return ""
		})
		r, err := p.b.tlsAsk("PUT", "/enqueue?iterations=300000000", "left behind", p.made.Tokens["client"]) // about a minute of work
		var left api.WorkID
		if err == nil {
			err = json.Unmarshal(r.body, &left)
		}
		if err != nil || r.header.Get(api.HeaderDurability) != "both" {
			t.Fatalf("enqueue at b: %v, %v", r, err)
		}
		p.b.kill()
		again := fresh.replay(t)
		begun := time.Now()
		poll(t, 20*time.Second, "the job of the dead node is leased at the other", func() string {
			r, err := p.a.tlsAsk("GET", "/v1/jobs/"+left.ID, "", p.made.Tokens["client"])
			var j api.Job
			if err == nil {
				err = json.Unmarshal(r.body, &j)
			}
			if err != nil || j.State != "leased" || !strings.HasPrefix(j.Worker, "a") {
				return fmt.Sprintf("%s at %q, %v; peer %+v", j.State, j.Worker, err, p.status(p.a).Peer)
			}
			return ""
		})
		t.Logf("taken over after %v, replay or not", time.Since(begun).Round(10*time.Millisecond))
		flickers := 0
		for end := begun.Add(13 * time.Second); time.Now().Before(end); pause(100 * time.Millisecond) { // beyond the time after which memberlist forgets the dead
			began := time.Now()
			if said := p.enqueue(p.a, fmt.Sprint(began), "local"); said != "" {
				t.Errorf("with a dead peer: %s", said)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("a write waited %v for a dead peer", took)
			}
			// What gossip itself believes may flicker: memberlist has forgotten the dead
			// by now, takes its old words for news, and finds out by asking. The session
			// is what decides, and no word of gossip makes one.
			// Only what the dead one asked for last counts for a while, as one direction:
			// for 600 ms, and eight times that after false alarms.
			st := p.status(p.a).Peer
			if st.Session != "down" && !(st.Session == "connected" && time.Since(begun) < 5*time.Second) {
				t.Errorf("session %s, gone: %v, alive: %v; a replay brings nobody back", st.Session, st.Gone, st.Alive)
			}
			if st.Alive {
				flickers++
			}
		}
		t.Logf("gossip thought it alive at %d looks", flickers)
		t.Log("played again:", again.stop())
		poll(t, syncTimeout, "the dead is known to be dead again, and its job is still here", func() string {
			r, err := p.a.tlsAsk("GET", "/v1/jobs/"+left.ID, "", p.made.Tokens["client"])
			var j api.Job
			if err == nil {
				err = json.Unmarshal(r.body, &j)
			}
			if st := p.status(p.a).Peer; err != nil || st.Alive || !st.Gone || !strings.HasPrefix(j.Worker, "a") {
				return fmt.Sprintf("gone: %v, alive: %v; %s at %q, %v", st.Gone, st.Alive, j.State, j.Worker, err)
			}
			return ""
		})
		p.a.sound()
	})
}

// recording is what went to the gossip of the pair: packets, and the client's
// half of streams.
type recording struct {
	mu      sync.Mutex // guards what follows
	packets []said
	streams map[string]*said
}

type said struct {
	to string
	b  []byte
}

// record listens on loopback for a while: until the test ends, or replay.
func record(t *testing.T, to map[string]string) *recording {
	t.Helper()
	all := int(wire.BigEndian.Uint16(wire.NativeEndian.AppendUint16(nil, syscall.ETH_P_ALL))) // in the order of the network
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, all)
	if err != nil {
		skip(t, "needs to hear the wire: %v", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrLinklayer{Protocol: uint16(all), Ifindex: lo.Index}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Usec: 100_000}); err != nil {
		t.Fatal(err)
	}
	r := &recording{streams: map[string]*said{}}
	known := map[string]bool{}
	for _, addr := range to {
		known[addr] = true
	}
	var over atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1<<17)
		for !over.Load() {
			n, from, err := syscall.Recvfrom(fd, b, 0)
			if err != nil {
				continue // the time is over, and over says whether ours is
			}
			if ll, ok := from.(*syscall.SockaddrLinklayer); ok && ll.Pkttype != syscall.PACKET_OUTGOING {
				r.hear(b[:n], known) // on loopback each comes twice
			}
		}
	}()
	t.Cleanup(func() {
		over.Store(true)
		<-done
		syscall.Close(fd)
	})
	return r
}

// hear takes one packet of IPv4 apart.
func (r *recording) hear(b []byte, known map[string]bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return
	}
	head := int(b[0]&15) * 4
	total := int(wire.BigEndian.Uint16(b[2:]))
	if total == 0 || total > len(b) || head+20 > total && b[9] == syscall.IPPROTO_TCP || head+8 > total {
		return
	}
	src, dst, proto, b := net.IP(b[12:16]).String(), net.IP(b[16:20]).String(), b[9], b[head:total]
	to := net.JoinHostPort(dst, fmt.Sprint(wire.BigEndian.Uint16(b[2:])))
	if !known[to] {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch proto {
	case syscall.IPPROTO_UDP:
		if len(r.packets) < 20_000 {
			r.packets = append(r.packets, said{to, slices.Clone(b[8:])})
		}
	case syscall.IPPROTO_TCP: // on loopback segments come in order
		off := int(b[12]>>4) * 4
		if off > len(b) || len(b) == off {
			return
		}
		from := net.JoinHostPort(src, fmt.Sprint(wire.BigEndian.Uint16(b)))
		s := r.streams[from+to]
		if s == nil {
			s = &said{to: to}
			r.streams[from+to] = s
		}
		s.b = append(s.b, b[off:]...)
	}
}

// player says again what was recorded, over and over.
type player struct {
	over             chan struct{}
	done             chan struct{}
	packets, streams atomic.Int64
	answers          atomic.Int64 // streams that a node could read, and took for its peer's; packets it answers to the peer
}

func (r *recording) replay(t *testing.T) *player {
	t.Helper()
	r.mu.Lock()
	packets, streams := slices.Clone(r.packets), []said{}
	for _, s := range r.streams {
		streams = append(streams, said{s.to, slices.Clone(s.b)})
	}
	r.mu.Unlock()
	c, err := net.ListenPacket("udp", "127.0.0.9:0")
	if err != nil {
		t.Fatal(err)
	}
	x := &player{over: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(x.done)
		defer c.Close()
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-x.over:
				return
			case <-tick.C:
			}
			for range 4 {
				s := packets[int(x.packets.Add(1))%len(packets)]
				if to, err := net.ResolveUDPAddr("udp", s.to); err == nil {
					_, _ = c.WriteTo(s.b, to) // the node may be dead
				}
			}
			if i%50 != 0 {
				continue
			}
			s := streams[int(x.streams.Add(1))%len(streams)]
			if conn, err := net.DialTimeout("tcp", s.to, time.Second); err == nil {
				_ = conn.SetDeadline(time.Now().Add(200 * time.Millisecond)) // a connection
				_, _ = conn.Write(s.b)                                       // it may be refused, which is well
				if n, _ := io.Copy(io.Discard, conn); n > 0 {
					x.answers.Add(1)
				}
				_ = conn.Close()
			}
		}
	}()
	t.Cleanup(func() { x.stop() })
	return x
}

func (x *player) stop() string {
	select {
	case <-x.done:
	default:
		close(x.over)
		<-x.done
	}
	return fmt.Sprintf("%d packets and %d streams, of which %d were answered", x.packets.Load(), x.streams.Load(), x.answers.Load())
}
