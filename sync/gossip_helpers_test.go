package sync

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"workmanager/jobs"
	"workmanager/sync/memnet"
)

// heard is an engine that only listens.
type heard struct {
	mu sync.Mutex // guards what
	what

	allow func(node string) bool // nil: only the first one told of
	news  chan struct{}          // bound 1
}

// what was told.
type what struct {
	members   []member
	deaths    []string
	heads     []jobs.LSeq
	packets   [][]byte
	strangers []string
}

// said returns a copy.
func (h *heard) said() what {
	h.mu.Lock()
	defer h.mu.Unlock()
	return what{slices.Clone(h.members), slices.Clone(h.deaths), slices.Clone(h.heads), slices.Clone(h.packets), slices.Clone(h.strangers)}
}

func (h *heard) note(f func()) {
	h.mu.Lock()
	f()
	h.mu.Unlock()
	select {
	case h.news <- struct{}{}:
	default:
	}
}

func (h *heard) Alive(m member) { h.note(func() { h.members = append(h.members, m) }) }

func (h *heard) Dead(node string) { h.note(func() { h.deaths = append(h.deaths, node) }) }

func (h *heard) Hinted(_ string, _ [8]byte, head jobs.LSeq) {
	h.note(func() { h.heads = append(h.heads, head) })
}

func (h *heard) Copies(_ string, packet []byte) {
	h.note(func() { h.packets = append(h.packets, packet) })
}

func (h *heard) Stranger(node, addr, why string) {
	h.note(func() { h.strangers = append(h.strangers, node+" at "+addr+": "+why) })
}

func (h *heard) Allowed(node string) (bool, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.allow != nil {
		return h.allow(node), "it is not allowed"
	}
	if len(h.members) == 0 || h.members[0].Node == node {
		return true, ""
	}
	return false, "our peer is " + h.members[0].Node
}

// alive is the peer that is alive, by what was told.
func (h *heard) alive() string {
	w := h.said()
	if len(w.members) <= len(w.deaths) {
		return ""
	}
	return w.members[len(w.members)-1].Node
}

// boot is the one told of last.
func (h *heard) boot() jobs.ID {
	w := h.said()
	return w.members[len(w.members)-1].Boot
}

func (h *heard) counts() (alive, dead, heads, packets, strangers int) {
	w := h.said()
	return len(w.members), len(w.deaths), len(w.heads), len(w.packets), len(w.strangers)
}

// gossiper is a node of which only gossip runs.
type gossiper struct {
	*gossip
	*heard
	cfg  gossipConfig
	stop func()
}

var gossipBoots atomic.Uint32

func gossipTestConfig(name string, change ...func(*gossipConfig)) gossipConfig {
	n := byte(gossipBoots.Add(1))
	cfg := gossipConfig{
		Node: name, Cluster: "test", Schema: 2, API: ":5000",
		Boot:  jobs.ID{0xB0, n, 8: n, 15: n},
		Store: jobs.ID{0x50, name[0], 15: n},
	}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

func joins(addrs ...string) func(*gossipConfig) { return func(c *gossipConfig) { c.Join = addrs } }

func over(tr memberlist.Transport) func(*gossipConfig) {
	return func(c *gossipConfig) { c.Transport = tr }
}

// gossiping starts a node. It is stopped at the end of the test, or before.
func gossiping(t *testing.T, cfg gossipConfig, allow ...func(string) bool) *gossiper {
	t.Helper()
	log := &lockedBuffer{}
	cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	h := &heard{news: make(chan struct{}, 1)}
	for _, f := range allow {
		h.allow = f
	}
	g, err := newGossip(cfg, h)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := g.Run(ctx); err != nil {
			t.Errorf("%s: Run: %v", cfg.Node, err)
		}
	}()
	x := &gossiper{gossip: g, heard: h, cfg: cfg, stop: func() { cancel(); <-done }}
	t.Cleanup(func() {
		x.stop()
		if t.Failed() {
			log.mu.Lock()
			defer log.mu.Unlock()
			t.Logf("log of %s at %s:\n%s", cfg.Node, g.Addr(), log.b.String())
		}
	})
	return x
}

// crashing is gossiping of a node that ends without a good-bye.
func crashing(t *testing.T, cfg gossipConfig) *gossiper {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	h := &heard{news: make(chan struct{}, 1)}
	g, err := newGossip(cfg, h)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.joinLoop(ctx)
	}()
	return &gossiper{gossip: g, heard: h, cfg: cfg, stop: func() { cancel(); g.list.Shutdown(); <-done }}
}

type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// crash takes a node off the network without a good-bye.
func (x *gossiper) crash() { x.cfg.Transport.Shutdown() }

// copies is a packet of a node, of the size given. There are no rows in it.
func (x *gossiper) copies(size int) []byte {
	b, start := beginPacket(nil, packetCopies, x.cfg.Boot)
	return endPacket(append(b, make([]byte, size-packetBytes)...), start)
}

// gossipPair starts a and b in a network whose losses cut says.
func gossipPair(t *testing.T, nw *memnet.Network) (a, b *gossiper) {
	t.Helper()
	ta, tb := nw.Host(), nw.Host()
	a = gossiping(t, gossipTestConfig("a", over(ta)))
	b = gossiping(t, gossipTestConfig("b", over(tb), joins(ta.Addr())))
	synctest.Wait()
	for _, x := range []*gossiper{a, b} {
		if x.alive() == "" {
			t.Fatalf("%s sees no peer when both have started", x.cfg.Node)
		}
	}
	return a, b
}

// pass lets time pass until ok, and returns how much of it.
func pass(t *testing.T, what string, limit time.Duration, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > limit {
			t.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
	}
	return time.Since(begin)
}

func meet(a, b *gossiper, alive bool) func() bool {
	return func() bool { return (a.alive() == "b") == alive && (b.alive() == "a") == alive }
}
