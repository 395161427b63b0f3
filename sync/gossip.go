package sync

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"workmanager/jobs"
)

// Gossip tells who is alive, wakes whoever follows the feed, and carries copies
// of rows. All of it may be lost, repeated or late: nothing rests on it.

// labelPrefix begins the label of every packet and stream. Behind it stands the
// cluster, so that nodes of two clusters never meet.
const labelPrefix = "wm/"

const (
	joinInterval    = time.Second            // while no peer is alive, or it does not list us
	refreshInterval = 10 * time.Second       // while it is
	eagerTime       = 10 * time.Second       // longer than a peer takes to give our old address up
	joinSpacing     = 250 * time.Millisecond // between two joins, whoever asks
	resolveTimeout  = 2 * time.Second
	leaveTimeout    = 500 * time.Millisecond
	hintInterval    = 10 * time.Millisecond

	// conflictPatience is how long two addresses must claim one name before it
	// is told. A node that was killed and is back at another address is such a
	// case until the old one is found dead, 1 to 2 s, and given up, 1 s.
	conflictPatience = 5 * time.Second
)

// gossipConfig is what the gossip of a node is made of.
type gossipConfig struct {
	Node, Cluster string
	Boot, Store   jobs.ID // the first 8 bytes must tell it from any other
	Schema        int
	Bind          string               // host:port to listen on; port 0 takes a free one
	Advertise     string               // host, or host:port, that peers reach Bind at; "" finds it out
	API           string               // host:port that peers reach the API at; without a host, or an unspecified one, it is where they see our gossip
	Join          []string             // where the peer's gossip may be, host:port
	Keys          [][]byte             // of 32 bytes, the pair's own, the first one sends; none does not encrypt, for loopback only
	Head          func() jobs.LSeq     // our head, for the exchange of states; it must not block. nil leaves that out
	Transport     memberlist.Transport // nil: UDP and TCP at Bind
	Log           *slog.Logger
}

// gossipEvents is told what gossip hears. Its methods are called by memberlist's
// goroutines, all but Hinted and Copies under memberlist's lock, and must not
// block: they stop everything else it does. Alive and Dead come one at a time.
// The methods may call any of gossip's but Run and Mute. The first calls may come
// before newGossip returns.
type gossipEvents interface {
	// Alive says that a node is there, or that its meta changed: a new boot.
	Alive(m member)
	// Dead says that a node has left or does not answer.
	Dead(node string)
	// Hinted says that a node's head has moved, and no more than that.
	Hinted(node string, boot8 [8]byte, head jobs.LSeq)
	// Copies hands over a packet of copies, whole and of the node's boot by what
	// it says, which the callee may keep. The rows in it are not looked at.
	Copies(node string, packet []byte)
	// Stranger says that a node was refused, at most once a minute per name.
	// The name is "" where it cannot be told.
	Stranger(node, addr, why string)
	// Allowed reports whether a node may be our peer, and why not.
	Allowed(node string) (ok bool, why string)
}

// member is a node as gossip sees it.
type member struct {
	Node     string
	Boot     jobs.ID
	Store8   [8]byte // the first bytes of its store's ID
	API      string  // host:port
	Gossip   string  // host:port
	ProtoMin int
	ProtoMax int
	Schema   int
}

// gossipCounts counts since the start.
type gossipCounts struct {
	HintsIn, HintsOut   int64
	CopiesIn, CopiesOut int64
	Dropped             int64 // packets of a node that is not our peer, or that cannot be read
	Refused             int64 // times a node was refused
}

// gossip is a node's membership: memberlist, set up for two nodes, and the loop
// that joins the peer again, for ever, which memberlist does not do. All methods
// are safe for concurrent use.
type gossip struct {
	cfg    gossipConfig
	ev     gossipEvents
	list   *memberlist.Memberlist
	ring   *memberlist.Keyring // nil: in the clear
	bound  string              // where we listen
	self   string              // where peers reach us
	meta   []byte
	join   chan struct{} // join now; bound 1, full means that it will
	hints  chan struct{} // hint is new; bound 1
	chance *rand.Rand    // of the join loop only

	rekey sync.Mutex // held over SetKeys

	warnings, refusals notices

	hintsIn, hintsOut, copiesIn, copiesOut, dropped, refused atomic.Int64

	telling sync.Mutex // held over Alive and Dead, so that they keep their order; guards told
	told    *member    // what the engine knows: nil, or a peer that is alive

	mu       sync.Mutex // guards what follows
	peer     *peer      // nil while none is alive; never changed, only replaced
	last     string     // the peer's address when it was alive last
	unlisted time.Time  // until then the peer may not list us, or not at our address
	hint     hint       // the latest
	muted    bool
	met      bool // a peer has been told of
}

// peer is a node that is alive, and where to send to.
type peer struct {
	member
	to memberlist.Node
}

// newGossip binds, and listens: a peer may join us from now on. It joins nobody.
// Whoever made it must Run it, if only with a context that is done: that
// closes it.
func newGossip(cfg gossipConfig, ev gossipEvents) (*gossip, error) {
	g := &gossip{
		cfg:    cfg,
		ev:     ev,
		join:   make(chan struct{}, 1),
		hints:  make(chan struct{}, 1),
		chance: rand.New(rand.NewPCG(binary.LittleEndian.Uint64(cfg.Boot[:8]), binary.LittleEndian.Uint64(cfg.Boot[8:]))),
	}
	var err error
	if g.meta, err = appendMeta(nil, cfg); err != nil {
		return nil, err
	}
	if len(cfg.Keys) > 0 {
		if g.ring, err = memberlist.NewKeyring(cfg.Keys, cfg.Keys[0]); err != nil {
			return nil, fmt.Errorf("keys of gossip: %w", err)
		}
	}
	c := g.memberlistConfig()
	if cfg.Transport == nil {
		if err := g.bind(c); err != nil {
			return nil, err
		}
	}
	if g.list, err = memberlist.Create(c); err != nil {
		return nil, fmt.Errorf("gossip on %s: %w", cfg.Bind, err)
	}
	g.self = g.list.LocalNode().Address()
	g.bound = g.self
	if cfg.Transport == nil {
		g.bound = net.JoinHostPort(c.BindAddr, fmt.Sprint(c.BindPort))
	}
	return g, nil
}

// memberlistConfig returns the settings for a pair, all but the addresses.
// replication.md, section 16, says what each is good for.
func (g *gossip) memberlistConfig() *memberlist.Config {
	d := &delegate{g}
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label = g.cfg.Node, labelPrefix+g.cfg.Cluster
	c.Transport, c.Keyring = g.cfg.Transport, g.ring
	c.Delegate, c.Events, c.Alive, c.Conflict = d, d, d, d
	c.ProbeInterval, c.ProbeTimeout, c.SuspicionMult = 200*time.Millisecond, 100*time.Millisecond, 3
	c.AwarenessMaxMultiplier = 2
	c.IndirectChecks = 1
	c.DisableTcpPings = false
	c.GossipInterval, c.GossipNodes, c.RetransmitMult = 50*time.Millisecond, 3, 3
	c.PushPullInterval = 5 * time.Second
	c.GossipToTheDeadTime, c.DeadNodeReclaimTime = 10*time.Second, time.Second
	c.TCPTimeout = time.Second // a join of a black hole takes as long, and so may the end of Run
	c.UDPBufferSize = 1400
	c.EnableCompression = false
	c.GossipVerifyIncoming, c.GossipVerifyOutgoing = true, true // nothing without a key
	c.HandoffQueueDepth = 1024
	c.LogOutput = nil
	c.Logger = log.New(&logWriter{g}, "", 0)
	return c
}

// bind fills in where to listen and what to advertise. Names are looked up once.
func (g *gossip) bind(c *memberlist.Config) error {
	at, err := net.ResolveTCPAddr("tcp", g.cfg.Bind)
	if err != nil {
		return fmt.Errorf("gossip on %s: %w", g.cfg.Bind, err)
	}
	c.BindPort, c.BindAddr = at.Port, "" // all addresses, of both families
	if at.IP != nil {
		c.BindAddr = at.IP.String()
	}
	out := *at
	switch {
	case g.cfg.Advertise != "":
		addr := g.cfg.Advertise
		if _, _, err := net.SplitHostPort(addr); err != nil {
			addr = net.JoinHostPort(addr, fmt.Sprint(at.Port))
		}
		to, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			return fmt.Errorf("advertise gossip at %s: %w", g.cfg.Advertise, err)
		}
		if to.IP == nil || to.IP.IsUnspecified() {
			return fmt.Errorf("advertise gossip at %s: nobody can reach that", g.cfg.Advertise)
		}
		out = *to
	case at.IP == nil || at.IP.IsUnspecified():
		if out.IP, err = g.source(); err != nil {
			return err
		}
	}
	c.AdvertiseAddr, c.AdvertisePort = out.IP.String(), out.Port
	return nil
}

// source returns the address that packets to the peer leave from, or, where none
// is configured, those to the world. Nothing is sent.
func (g *gossip) source() (net.IP, error) {
	var errs []error
	for _, to := range append(slices.Clone(g.cfg.Join), "192.0.2.1:9") { // the last is nobody's, RFC 5737
		c, err := net.DialTimeout("udp", to, resolveTimeout)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ip := c.LocalAddr().(*net.UDPAddr).IP
		c.Close()
		return ip, nil
	}
	return nil, fmt.Errorf("gossip on %s: no address to advertise was given, and none is found: %s", g.cfg.Bind, oneLine(errors.Join(errs...)))
}

// Addr returns the address that gossip listens on.
func (g *gossip) Addr() string { return g.bound }

// Run joins the peer whenever it is not there, and sends hints, until ctx is
// done. Then it says good-bye to the peer, for 500 ms at most, closes and waits
// for what it started: 1 s more if a join is under way. memberlist's own
// goroutines end by themselves within its TCPTimeout.
func (g *gossip) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	loops.Go(func() { g.joinLoop(ctx) })
	loops.Go(func() { g.hintLoop(ctx) })
	<-ctx.Done()
	if err := g.list.Leave(leaveTimeout); err != nil {
		g.cfg.Log.Debug("gossip ends without a good-bye", "err", err)
	}
	err := g.list.Shutdown()
	loops.Wait()
	return err
}

// Hint tells the peer, if there is one, that our head has moved and how busy we
// are. At most one packet leaves per 10 ms, with the latest; it may be lost. It
// never blocks.
func (g *gossip) Hint(head jobs.LSeq, waiting, free int64) {
	g.mu.Lock()
	g.hint = hint{Boot: g.cfg.Boot, Head: head, Waiting: waiting, FreeWorkers: free}
	g.mu.Unlock()
	select {
	case g.hints <- struct{}{}:
	default: // the one that waits will be this one
	}
}

// SetKeys exchanges the keys while gossip runs.
func (g *gossip) SetKeys(keys [][]byte) error {
	if g.ring == nil || len(keys) == 0 {
		return nil
	}
	g.rekey.Lock()
	defer g.rekey.Unlock()
	for _, k := range keys {
		if err := g.ring.AddKey(k); err != nil {
			return fmt.Errorf("keys of gossip: %w", err)
		}
	}
	// Each key that is used moves to the front, so those that go end up last. Only
	// the last one may be removed while packets are read: removing another moves
	// keys under the reader's eyes.
	for _, k := range slices.Backward(keys) {
		if err := g.ring.UseKey(k); err != nil {
			return fmt.Errorf("keys of gossip: %w", err)
		}
	}
	for _, k := range slices.Backward(g.ring.GetKeys()) {
		if slices.ContainsFunc(keys, func(keep []byte) bool { return bytes.Equal(keep, k) }) {
			break
		}
		if err := g.ring.RemoveKey(k); err != nil {
			return fmt.Errorf("keys of gossip: %w", err)
		}
	}
	return nil
}

func (g *gossip) hintLoop(ctx context.Context) {
	pause := time.NewTimer(hintInterval)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.hints:
		}
		g.mu.Lock()
		h := g.hint
		g.mu.Unlock()
		if g.send(appendHint(nil, h.Boot, h.Head, h.Waiting, h.FreeWorkers)) {
			g.hintsOut.Add(1)
		}
		pause.Reset(hintInterval)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}

// SendCopies sends the peer one packet of copies, of at most 1300 bytes: with
// label, checksum and encryption it is a datagram of 1400, if the cluster's name
// has no more than 60. It reports whether the packet left: not if it is too
// large, if no peer is alive, or if the network refused it. That it left does
// not mean that it arrives.
func (g *gossip) SendCopies(packet []byte) bool {
	if len(packet) > maxPacket || !g.send(packet) {
		return false
	}
	g.copiesOut.Add(1)
	return true
}

func (g *gossip) send(packet []byte) bool {
	g.mu.Lock()
	p, muted := g.peer, g.muted
	g.mu.Unlock()
	if p == nil || muted {
		return false
	}
	if err := g.list.SendBestEffort(&p.to, packet); err != nil {
		g.cfg.Log.Debug("gossip packet not sent", "peer", p.Node, "err", err)
		return false
	}
	return true
}

// Mute shuts out what gossip brings, for tests and for whoever wants to see that
// nothing rests on it: once a peer was told of, nothing is told any more, and no
// hint, no copy and no head is sent. The nodes go on to list each other. Unmuted,
// it tells what has changed meanwhile. It must not be called from gossipEvents.
func (g *gossip) Mute(on bool) {
	g.mu.Lock()
	g.muted = on
	g.mu.Unlock()
	g.tell()
}

// silent reports whether the engine is to hear nothing.
func (g *gossip) silent() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.muted && g.met
}

// Counts returns what was counted since the start.
func (g *gossip) Counts() gossipCounts {
	return gossipCounts{
		HintsIn: g.hintsIn.Load(), HintsOut: g.hintsOut.Load(),
		CopiesIn: g.copiesIn.Load(), CopiesOut: g.copiesOut.Load(),
		Dropped: g.dropped.Load(), Refused: g.refused.Load(),
	}
}

// found takes note of a node that is alive, and tells it.
func (g *gossip) found(p *peer) {
	g.mu.Lock()
	g.peer, g.last = p, p.Gossip
	g.mu.Unlock()
	g.tell()
}

// lost takes note of a node that is not, and joins it from now on every second.
func (g *gossip) lost(node string) {
	g.mu.Lock()
	ours := g.peer != nil && g.peer.Node == node
	if ours {
		g.peer = nil
	}
	g.mu.Unlock()
	if ours {
		g.tell()
		g.joinSoon()
	}
}

// tell brings what the engine knows of the peer up to date.
func (g *gossip) tell() {
	g.telling.Lock()
	defer g.telling.Unlock()
	g.mu.Lock()
	var now *member
	if g.peer != nil {
		now = &g.peer.member
	}
	silent := g.muted && g.met
	if !silent && now != nil {
		g.met = true
	}
	g.mu.Unlock()
	if silent {
		return
	}
	was := g.told
	g.told = now
	if was != nil && (now == nil || now.Node != was.Node) {
		g.ev.Dead(was.Node)
	}
	if now != nil && (was == nil || *now != *was) {
		g.ev.Alive(*now)
	}
}

// refuse counts a node that may not be our peer, and tells it once a minute if
// it has been so for the time given.
func (g *gossip) refuse(node, addr, why string, patience time.Duration) error {
	g.refused.Add(1)
	if _, ok := g.refusals.due(node, patience); ok && !g.silent() {
		g.ev.Stranger(node, addr, why)
	}
	return errors.New(why)
}

// notices keeps what comes up again and again from being said each time. The
// zero notices is ready to use.
type notices struct {
	mu   sync.Mutex // guards seen
	seen map[string]*notice
}

type notice struct {
	first, last, said time.Time
	missed            int
}

const (
	noticeInterval = time.Minute
	noticeGap      = 20 * time.Second // after it patience begins anew
	maxNotices     = 64               // what is seen is sent by others
)

// due reports whether to say what key stands for, and how often it was not said
// since: it has come up for as long as patience, and was not said for a minute.
func (n *notices) due(key string, patience time.Duration) (missed int, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if len(n.seen) >= maxNotices && n.seen[key] == nil {
		maps.DeleteFunc(n.seen, func(_ string, x *notice) bool { return now.Sub(x.last) > noticeInterval })
		if len(n.seen) >= maxNotices {
			return 0, false
		}
	}
	if n.seen == nil {
		n.seen = make(map[string]*notice)
	}
	x := n.seen[key]
	if x == nil {
		x = new(notice)
		n.seen[key] = x
	}
	if now.Sub(x.last) > noticeGap {
		x.first = now
	}
	x.last = now
	if now.Sub(x.first) < patience || !x.said.IsZero() && now.Sub(x.said) < noticeInterval {
		x.missed++
		return 0, false
	}
	missed, x.missed, x.said = x.missed, 0, now
	return missed, true
}
