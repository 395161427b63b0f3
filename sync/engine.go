package sync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// admit says why a node that gives this identity is not our peer, nil if it is
// or may become it.
func (e *Engine) admit(id Identity) *Refusal {
	known := e.store.Reading().Peer
	switch {
	case id.Cluster != e.cfg.Cluster:
		return &Refusal{RefusedCluster, fmt.Sprintf("node %s is of cluster %q, this one of %q: give both the same --cluster", id.Node, id.Cluster, e.cfg.Cluster)}
	case id.ProtoMin > protoMax || id.ProtoMax < protoMin:
		return &Refusal{RefusedProto, fmt.Sprintf("node %s speaks versions %d to %d of the protocol, this one %d to %d: upgrade the older", id.Node, id.ProtoMin, id.ProtoMax, protoMin, protoMax)}
	case id.Store == e.me.Store:
		return &Refusal{RefusedSameStore, fmt.Sprintf("node %s has a copy of the data directory of %s: two nodes must not begin from one; empty one of the two", id.Node, e.cfg.Node)}
	case id.Node == e.cfg.Node:
		return &Refusal{RefusedSameNode, fmt.Sprintf("two nodes are named %s: give one another --name", id.Node)}
	case known != "" && id.Node != known:
		return &Refusal{RefusedStranger, fmt.Sprintf("node %s has node %s as its peer; %s is a third", e.cfg.Node, known, id.Node)}
	}
	return nil
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

// meet makes a node that was admitted the peer, if there was none.
func (e *Engine) meet(ctx context.Context, node string) error {
	if e.store.Reading().Peer == node {
		return nil
	}
	if err := e.store.SetPeer(ctx, node, "", ""); err != nil {
		return fmt.Errorf("note the peer: %w", err)
	}
	e.log.Info("peer found", "peer", node)
	return nil
}

// Ask returns what to ask the peer next: everything that its cursor covers is
// on this disk.
func (e *Engine) Ask() Request {
	r := e.store.Reading()
	e.mu.Lock()
	defer e.mu.Unlock()
	return Request{Identity: e.me, Cursor: r.Cursor, Complete: e.state.complete, Now: e.now(),
		WordOf: e.peer.wordOf, Word: e.peer.word, Unlisted: e.gossip != nil && e.state.dead, Wait: maxPark, Rows: maxChunkRows, Bytes: maxChunkBytes}
}

// Answer is one whole answer to the peer, without waiting for news. The error
// is a *Refusal if the asker is not our peer.
func (e *Engine) Answer(ctx context.Context, req Request) (Reply, error) {
	if err := e.asked(ctx, req); err != nil {
		return Reply{}, err
	}
	return e.read(ctx, req)
}

// asked notes a request: who asks, and what that confirms.
func (e *Engine) asked(ctx context.Context, req Request) error {
	if r := e.admit(req.Identity); r != nil {
		return e.refuse(r)
	}
	if e.stranger(req.Node) {
		return &Refusal{RefusedStranger, fmt.Sprintf("node %s is not in the gossip of %s yet", req.Node, e.cfg.Node)}
	}
	if err := e.meet(ctx, req.Node); err != nil {
		return err
	}
	good, reset := e.store.Chain().Resume(req.Confirmed(), e.store.Head())
	if reset {
		good = jobs.Cursor{}
	}
	now := e.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	was := e.state.session
	e.peer.skew = req.Now.Sub(now)
	if e.newsFor != req.Boot { // what came from its last start it may not have
		e.newsFor, e.news = req.Boot, e.tail.last
	}
	if req.WordOf == e.me.Boot {
		e.heardOf = req.Word
	}
	e.state.asked(now, good, e.tail.last, req.Complete)
	e.release(good)
	if was == SessionSync && e.state.session != SessionSync {
		e.leave()
	}
	e.told(was)
	if req.Unlisted && e.gossip != nil {
		e.gossip.Rejoin()
	}
	return nil
}

// stranger reports whether a node that would become the peer is one that gossip
// does not know: anybody can send a request.
func (e *Engine) stranger(node string) bool {
	if e.gossip == nil || e.store.Reading().Peer != "" {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.peer.name != node
}

// told logs a change of the session; mu is held.
func (e *Engine) told(was Session) {
	if e.state.session == SessionCatchup && was < SessionCatchup {
		e.nudge() // its next request may find both in step, and it would come only when there is news
	}
	if e.state.session != was {
		e.log.Info("session", "peer", e.store.Reading().Peer, "is", e.state.session.String(), "was", was.String())
	}
}

// read makes the answer to a request from one view of the store.
func (e *Engine) read(ctx context.Context, req Request) (Reply, error) {
	q := jobs.FeedQuery{Cursor: req.Cursor, Me: suppress(req.Identity), Rows: req.Rows, Bytes: req.Bytes}
	c, ok := e.recent(q)
	if !ok {
		var err error
		if c, err = e.store.Feed(ctx, q); err != nil {
			return Reply{}, fmt.Errorf("read the feed for node %s: %w", req.Node, err)
		}
	}
	r := Reply{Hello: e.hello(), Rows: c.Rows, End: End{At: c.Next.At, SeenHead: c.Next.SeenHead, BackAt: c.Next.BackAt,
		More: c.More, RCov: c.RCov, HasRCov: c.HasRCov}}
	r.Hello.Reset = c.Reset
	if c.Reset {
		r.Hello.LiveFrom = c.Next.SeenHead
		if c.Next.BackTo == 0 { // read to its end already
			r.End.BackAt = r.Hello.LiveFrom
		}
	} else if req.Cursor.Refilling() && !c.Next.Refilling() {
		r.End.BackAt = req.Cursor.BackTo
	}
	e.mu.Lock()
	e.count.chunksOut++
	e.count.rowsOut += int64(len(c.Rows))
	if c.Reset {
		e.count.resets++
	}
	r.End.Word = e.word
	if jobs.Broken("M12") {
		e.release(c.Next)
	}
	e.mu.Unlock()
	return r, nil
}

// recent answers a reader in step from memory.
func (e *Engine) recent(q jobs.FeedQuery) (jobs.Chunk, bool) {
	if !e.store.Chain().Covers(q.Cursor) {
		return jobs.Chunk{}, false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tail.chunk(q, e.me.Boot)
}

// suppress returns what marks the rows that came from a node, which are left
// out of the answers to it: its boot, since one that has started anew may not
// have them.
func suppress(id Identity) jobs.ID {
	if jobs.Broken("M6") {
		return jobs.KeyID("", "", id.Node)
	}
	return id.Boot
}

// hello says who answers.
func (e *Engine) hello() Hello {
	floor, promise := e.store.Floor()
	h := Hello{Identity: e.me, Head: e.store.Head(), Floor: floor, Promise: promise, Now: e.now(), Load: e.loadOf()}
	e.mu.Lock()
	defer e.mu.Unlock()
	h.Complete = e.state.complete
	return h
}

// errGarbage says that an answer cannot be one of our peer's protocol.
var errGarbage = errors.New("the answer makes no sense")

// chunkOf returns an answer as what it changes here. It returns an error if the
// cursor would go where it cannot.
func chunkOf(req Request, reply *Reply) (jobs.Chunk, error) {
	h, end := &reply.Hello, reply.End
	c := jobs.Chunk{Peer: h.Node, From: req.Cursor, Boot: suppress(h.Identity), Reset: h.Reset, Rows: reply.Rows, More: end.More,
		RCov: end.RCov, HasRCov: end.HasRCov, Floor: h.Floor}
	base := req.Cursor
	if c.Reset {
		base = jobs.Begin(h.Boot, h.LiveFrom, req.Cursor)
	}
	if end.At < base.At || end.At > end.SeenHead || end.BackAt < base.BackAt || base.Refilling() && end.BackAt > base.BackTo {
		return jobs.Chunk{}, fmt.Errorf("%w: its cursor goes from %+v to %+v", errGarbage, base, end)
	}
	if !base.Refilling() {
		end.BackAt = 0
	}
	c.Next = base.Advance(h.Boot, end.SeenHead, end.At, end.BackAt)
	return c, nil
}

// Take commits what the peer answered to a request. The rows and the cursor
// are one transaction; the next request is what confirms it.
func (e *Engine) Take(ctx context.Context, req Request, reply Reply) error {
	h := &reply.Hello
	if err := e.greeted(ctx, h); err != nil {
		return err
	}
	c, err := chunkOf(req, &reply)
	if err != nil {
		e.mu.Lock()
		e.count.badFrames++
		e.mu.Unlock()
		return err
	}
	e.mu.Lock()
	e.state.busy = true
	e.mu.Unlock()
	if jobs.Broken("M11") && len(c.Rows) > 1 {
		first := c
		first.Rows, c.Rows = c.Rows[:1], c.Rows[1:]
		if _, err := e.store.Receive(ctx, first); err != nil {
			return err
		}
	}
	defer e.host.Arriving()()
	changed, err := e.store.Receive(ctx, c)
	now := e.now()
	e.mu.Lock()
	e.state.busy = false
	if err == nil {
		e.state.heard = now
		if reply.End.Word > 0 {
			e.peer.word, e.peer.wordOf = reply.End.Word, h.Boot
		}
		e.count.chunksIn++
		e.count.rowsIn += int64(len(c.Rows))
		if !c.More && !c.Next.Refilling() && !e.state.complete {
			e.state.complete = true
			e.log.Info("peer's jobs are here", "peer", h.Node)
		}
		was := e.state.session
		if e.state.update(now, e.tail.last) {
			e.leave()
		}
		e.told(was)
	}
	e.mu.Unlock()
	if err != nil {
		return fmt.Errorf("store what node %s sent: %w", h.Node, err)
	}
	if len(changed) > 0 {
		e.host.Arrived(changed)
	}
	return nil
}

// TakeCopies commits rows that the peer sent by gossip. They confirm nothing
// and move no cursor.
func (e *Engine) TakeCopies(ctx context.Context, boot jobs.ID, rows []jobs.Row) error {
	defer e.host.Arriving()()
	changed, ignored, err := e.store.ReceiveCopies(ctx, boot, rows)
	e.mu.Lock()
	e.count.copiesIn += int64(len(rows) - ignored)
	e.count.copiesDropped += int64(ignored)
	if jobs.Broken("M20") {
		for i := range rows {
			for it := e.waiters.byID[rows[i].Job.ID]; it != nil; it = e.waiters.byID[rows[i].Job.ID] {
				e.waiters.end(it, true)
			}
		}
	}
	e.mu.Unlock()
	if err != nil {
		return fmt.Errorf("store copies: %w", err)
	}
	if r := e.store.Reading(); jobs.Broken("M19") && ignored == 0 {
		c := jobs.Chunk{Peer: r.Peer, From: r.Cursor, Boot: boot, Next: r.Cursor, Rows: rows[:1]}
		c.Next.At = max(c.Next.At, rows[len(rows)-1].LSeq)
		c.Next.SeenHead = max(c.Next.SeenHead, c.Next.At)
		if _, err := e.store.Receive(ctx, c); err != nil {
			return err
		}
	}
	if len(changed) > 0 {
		e.host.Arrived(changed)
	}
	return nil
}

// greeted notes who answered.
func (e *Engine) greeted(ctx context.Context, h *Hello) error {
	if r := e.admit(h.Identity); r != nil {
		e.mu.Lock()
		e.peer.refused = r.Error()
		e.mu.Unlock()
		return e.refuse(r)
	}
	if err := e.meet(ctx, h.Node); err != nil {
		return err
	}
	now := e.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	was := e.state.session
	e.state.Heard(now, e.peer.hello.Boot == h.Boot)
	same := e.peer.hello.Boot == h.Boot
	e.peer.hello, e.peer.head, e.peer.refused = *h, h.Head, ""
	e.heardLoad(now, h.Load, same)
	e.state.theyDone = h.Complete
	e.state.update(now, e.tail.last)
	e.told(was)
	return nil
}

// beat notes a heartbeat of the peer.
func (e *Engine) beat(h Heartbeat) {
	now := e.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.state.Heard(now, true)
	e.peer.head, e.peer.skew = h.Head, h.Now.Sub(now)
	e.heardLoad(now, h.Load, true)
}

// heardLoad notes how busy the peer is. What its scheduler shares stays until it
// says something else, or starts anew.
func (e *Engine) heardLoad(now time.Time, l Load, same bool) {
	switch {
	case l.Fleet != nil:
		e.peer.fleetAt = now
	case same:
		l.Fleet = e.peer.load.Fleet
	default:
		e.peer.fleetAt = time.Time{}
	}
	e.peer.load, e.peer.loadAt = l, now
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
