package sync

import (
	"time"

	"workmanager/jobs"
)

// Peer is how this node sees its peer.
type Peer struct {
	Node    string // "" while none is known
	Session Session
	Since   time.Time // of the session
	Reason  string    // why writes are local, "" if they are not
	Refused string    // why the peer does not talk to us, "" if it does
	Boot    jobs.ID
	API     string
	Gossip  string
	Alive   bool // gossip says so
	Gone    bool // its jobs may be taken over

	Load      Load
	LoadFresh bool
	FleetAt   time.Time // when Load.Fleet was told last, zero if the peer has no fleet
	HeardAt   time.Time

	// UnderReplicated is a bound on the rows here that the peer may not have,
	// Lag how old the oldest of them is at most. Behind is the same of the
	// peer's rows that are not here.
	UnderReplicated int64
	Lag             time.Duration
	Behind          int64
	Refilling       bool // its feed is being read from the bottom
	Complete        bool // its feed was read to the end since our start
	PeerComplete    bool
	Skew            time.Duration // its clock less ours

	Floor, Promise time.Time
	Compare        CompareStatus
	Counters       Counters
}

// Counters count since the start.
type Counters struct {
	RowsIn, RowsOut                      int64 // by the feed
	AckTimeouts, Refusals, BadFrames     int64
	Strangers                            int64 // kept out of gossip
	CopiesIn, CopiesOut, CopiesDropped   int64 // rows by gossip
	FloorRounds, Stolen, Resets          int64
	Compared, Differed, Repaired, Alarms int64 // ranges, ranges, rows, ranges that differ again
}

// Peer returns the snapshot. It costs the same however many jobs there are.
func (e *Engine) Peer() Peer {
	r := e.store.Reading()
	floor, promise := e.store.Floor()
	now := e.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	s, c := &e.state, &e.count
	p := Peer{
		Node: r.Peer, Session: s.session, Since: s.since, Reason: e.reason(), Refused: e.peer.refused,
		Boot: e.peer.hello.Boot, API: e.peer.api, Gossip: e.peer.gossip, Alive: s.gossip, Gone: s.gone,
		Load: e.peer.load, LoadFresh: s.Fresh(now) && now.Sub(e.peer.loadAt) < 5*silentGone, HeardAt: s.heard, FleetAt: e.peer.fleetAt,
		UnderReplicated: int64(e.tail.last - s.theirs.At), Lag: s.recent.age(now, s.theirs.At),
		Behind: int64(max(e.peer.head-r.Cursor.At, 0)), Refilling: r.Cursor.Refilling(), Complete: s.complete, PeerComplete: s.theyDone,
		Skew: e.peer.skew, Floor: floor, Promise: promise, Compare: e.compare.status(),
		Counters: Counters{RowsIn: c.rowsIn, RowsOut: c.rowsOut, AckTimeouts: c.timeouts, Refusals: c.refusals, BadFrames: c.badFrames,
			Strangers: c.strays, CopiesIn: c.copiesIn, CopiesOut: c.copiesOut, CopiesDropped: c.copiesDropped,
			FloorRounds: c.floorRounds, Stolen: c.stolen, Resets: c.resets,
			Compared: c.compared, Differed: c.differed, Repaired: c.repaired, Alarms: c.pairAlarm},
	}
	if s.theirs.Refilling() {
		p.UnderReplicated += int64(s.theirs.BackTo - s.theirs.BackAt)
	}
	if r.Cursor.Refilling() {
		p.Behind += int64(r.Cursor.BackTo - r.Cursor.BackAt)
	}
	if !e.paired() {
		p.UnderReplicated, p.Lag = 0, 0
	}
	return p
}

// Paired reports whether there is a peer, or is to be one.
func (e *Engine) Paired() bool { return e.paired() }

// Connected reports whether the peer can be asked.
func (e *Engine) Connected() bool {
	now := e.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.peer.api != "" && (e.state.Fresh(now) || e.state.busy)
}

// Whole reports whether all that the peer had is here: only then can this node
// say, without asking, that there is no such job.
func (e *Engine) Whole() bool {
	r := e.store.Reading()
	e.mu.Lock()
	defer e.mu.Unlock()
	return !r.Amnesia && e.state.complete
}

// Unsynced says why a write would not wait for the peer, "" if it would.
func (e *Engine) Unsynced() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reason()
}

// Replicated says whether the peer has a row that stands at l.
func (e *Engine) Replicated(l jobs.LSeq) jobs.Durability {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case !e.paired():
		return jobs.Durability{Reason: reasonNone}
	case e.state.theirs.Boot != (jobs.ID{}) && e.state.theirs.Covers(l):
		return jobs.Durability{Both: true}
	}
	d := jobs.Durability{Reason: e.state.reason()}
	if d.Reason == "" {
		d.Reason = reasonTimeout
	}
	return d
}
