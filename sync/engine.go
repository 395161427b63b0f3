package sync

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"workmanager/jobs"
)

// Config says who a node is and whom it looks for. Node, Now and Log are
// required.
type Config struct {
	Node    string
	Cluster string // nodes of another cluster are refused
	// Join are the peer's gossip addresses, any of which will do.
	Join []string
	// API is where the peer reaches this node's API, host:port. An unspecified
	// host means the address it sees this node at.
	API string
	// GossipKeys encrypt gossip, 32 bytes each, the first one sends; none: it is
	// in the clear. Dial connects to the API of the node of that name, over TLS,
	// and only to it; nil: the peer is asked over plain HTTP. Both for a network
	// that others are in.
	GossipKeys [][]byte
	Dial       func(ctx context.Context, addr, node string) (net.Conn, error)
	// Muted lets gossip find the peer and tells nothing of it from then on: for
	// tests, which must all hold so.
	Muted bool
	// Retention is how long an ended job is kept.
	Retention time.Duration
	// CompareInterval is how often rows are compared for silent divergence.
	CompareInterval time.Duration
	// AckTimeout and StrictTimeout bound how long a write waits for the peer;
	// zero is the package's default.
	AckTimeout, StrictTimeout time.Duration
	Now                       func() time.Time
	Log                       *slog.Logger
}

// Host is the node, as its peer asks it. It is safe for concurrent use.
type Host interface {
	// Load returns how busy the node is. It must not block.
	Load() Load
	// Arriving is told before rows of the peer are committed; what it returns is
	// called when they were told, or none came.
	Arriving() (over func())
	// Arrived is told of rows that came from the peer, after their commit.
	Arrived(changed []jobs.Changed)
	// Find returns a job as this node sees it, without asking its peer.
	Find(ctx context.Context, id jobs.ID) (jobs.View, bool, error)
	// ConsumeHere hands out results of this home. With a key that only asks, it
	// hands out nothing new.
	ConsumeHere(ctx context.Context, top int, key string, again bool) ([]jobs.Result, error)
	// GiveAway moves up to max jobs that wait here to another home, if it is
	// worth it, and returns them.
	GiveAway(ctx context.Context, to string, max int) ([]jobs.ID, error)
}

// Engine keeps two nodes in step. Its core is synchronous: Ask, Answer, Take,
// Step and the rounds do one thing each and return, and that is what the
// simulator drives; Run and Handler drive the same over HTTP. It is safe for
// concurrent use, but that only one caller may follow (Ask and Take).
type Engine struct {
	cfg   Config
	store Store
	host  Host
	now   func() time.Time
	log   *slog.Logger
	me    Identity

	gossip *gossip // nil without one
	wire   wires

	mu      sync.Mutex // guards the rest; never held over a call of the store
	state   state
	waiters waiters
	peer    peerView
	tail    tail
	news    jobs.LSeq // newest committed that did not come from newsFor
	newsFor jobs.ID   // the peer's boot as it last asked
	word    uint64    // the newest given out: a write waits until the peer says it
	heardOf uint64    // the newest that the peer has said
	wake    chan struct{}
	minute  marks // where the head stood, for what is settled
	round   round
	count   counters
	compare compareState
	shared  shared // of quarantines

	fleetLast []byte    // of the scheduler, as told last
	fleetTold time.Time // when

	said map[string]time.Time // when a warning was last given, by what it is about
}

// peerView is what the peer says of itself.
type peerView struct {
	hello   Hello
	load    Load
	loadAt  time.Time
	fleetAt time.Time // when it last said what its scheduler shares
	head    jobs.LSeq
	word    uint64        // the newest it gave us
	wordOf  jobs.ID       // and its boot then
	skew    time.Duration // its clock less ours, the last one seen
	api     string        // where to ask, host:port
	gossip  string        // where it gossips
	name    string        // who says so
	noted   bool          // that is on the disk
	refused string        // why it does not talk to us, "" if it does
}

// counters count since the start.
type counters struct {
	rowsIn, rowsOut, chunksIn, chunksOut    int64
	timeouts, refusals, badFrames, strays   int64
	copiesIn, copiesOut, copiesDropped      int64
	floorRounds, stolen, resets             int64
	compared, differed, repaired, pairAlarm int64
}

// New returns an engine over a store. It starts nothing.
func New(cfg Config, store Store, host Host) *Engine {
	if cfg.AckTimeout == 0 {
		cfg.AckTimeout = AckTimeout
	}
	if cfg.StrictTimeout == 0 {
		cfg.StrictTimeout = StrictTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		cfg: cfg, store: store, host: host, now: cfg.Now, log: cfg.Log,
		me: Identity{Node: cfg.Node, Cluster: cfg.Cluster, Store: store.ID(), Boot: store.Boot(),
			ProtoMin: protoMin, ProtoMax: protoMax, Schema: store.Schema()},
		state:   newState(cfg.Now()),
		waiters: waiters{byID: map[jobs.ID]*waiter{}},
		minute:  marks{step: time.Second, keep: 2 * int(settledAge/time.Second)},
		said:    map[string]time.Time{},
		news:    store.Head(),
	}
	e.tail.from, e.tail.last = e.news, e.news
	e.wire.init(e)
	e.state.barrier = e.paired()
	e.peer.api = store.Reading().API
	return e
}

// paired reports whether there is a peer, or is to be one.
func (e *Engine) paired() bool {
	return len(e.cfg.Join) > 0 || e.store.Reading().Peer != ""
}

// head returns the newest lseq committed; mu is held.
func (e *Engine) head() jobs.LSeq { return e.tail.last }

// Committed is told of the rows of a transaction after its commit. It wakes the
// peer if there is something for it.
func (e *Engine) Committed(changed []jobs.Changed) {
	if len(changed) == 0 {
		return
	}
	paired := e.paired()
	e.mu.Lock()
	if paired {
		e.tail.add(changed)
	} else {
		e.tail.skip(changed)
	}
	news := false
	for i := len(changed) - 1; i >= 0; i-- {
		if c := &changed[i]; c.Via == (jobs.ID{}) || c.Via != e.newsFor {
			e.news, news = c.LSeq, true
			break
		}
	}
	if news {
		e.awake()
	}
	synced := e.state.session == SessionSync
	e.mu.Unlock()
	if news && !synced {
		e.offer(changed)
	}
}

// nudge gives out a new word, and ends the request that the peer has parked, so
// that it says it; mu is held.
func (e *Engine) nudge() uint64 {
	e.word++
	e.awake()
	return e.word
}

// awake wakes the answers that wait for news; mu is held.
func (e *Engine) awake() {
	if e.wake != nil {
		close(e.wake)
		e.wake = nil
	}
}

// refuse counts a refusal and says so, once a minute for the same.
func (e *Engine) refuse(r *Refusal) *Refusal {
	e.mu.Lock()
	e.count.refusals++
	e.mu.Unlock()
	e.warn(r.Code, "node refused", "reason", r.Error())
	return r
}

// warn logs, once a minute for the same subject.
func (e *Engine) warn(about, msg string, args ...any) {
	now := e.now()
	e.mu.Lock()
	at, ok := e.said[about]
	quiet := ok && now.Sub(at) < time.Minute
	if !quiet {
		e.said[about] = now
	}
	e.mu.Unlock()
	if !quiet {
		e.log.Warn(msg, args...)
	}
}

// fleetInterval is how often what the scheduler shares is told though it is the
// same: the answer that it was in may have been lost.
const fleetInterval = time.Second

// loadOf says how busy this node is.
func (e *Engine) loadOf() Load {
	l := e.host.Load()
	if l.Fleet == nil {
		return l
	}
	now := e.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if age := now.Sub(e.fleetTold); bytes.Equal(l.Fleet, e.fleetLast) && age >= 0 && age < fleetInterval {
		l.Fleet = nil
		return l
	}
	e.fleetLast, e.fleetTold = l.Fleet, now
	return l
}

// Lost notes that the connection to the peer ended before its time, Refused
// that it refused a request.
func (e *Engine) Lost() { e.note(func(now time.Time) { e.state.Lost(now) }) }

// Refused notes that nobody answers where the peer was.
func (e *Engine) Refused() { e.note(func(now time.Time) { e.state.Refused(now) }) }

// Step looks at the clock: sessions end, patience is over. Call it every 50 ms.
func (e *Engine) Step() { e.note(func(now time.Time) { e.state.Tick(now) }) }

func (e *Engine) note(f func(now time.Time)) {
	now := e.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	was, gone := e.state.session, e.state.gone
	f(now)
	e.minute.note(now, e.tail.last)
	if e.state.update(now, e.tail.last) {
		e.leave()
	}
	e.told(was)
	if peer := e.store.Reading().Peer; e.state.gone && !gone && peer != "" {
		e.log.Warn("peer is gone: its jobs are taken over as they are needed", "peer", peer)
	}
}

// MayLease reports whether leases may be given: not before the peer's feed was
// read once since the start, or could not be for two seconds. It spares the
// node what the peer has finished meanwhile.
func (e *Engine) MayLease() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.state.barrier
}

// MayTakeOver returns the node whose jobs may be taken over now, "" if none.
func (e *Engine) MayTakeOver() string {
	peer := e.store.Reading().Peer
	e.mu.Lock()
	defer e.mu.Unlock()
	if peer == "" || !e.state.gone || e.state.barrier {
		return ""
	}
	return peer
}
