package sync

import (
	"time"

	"workmanager/jobs"
)

// Session is how a node stands with its peer.
type Session int

// The sessions. In SessionSync a write waits for the peer; in the others it is
// answered as local at once.
const (
	SessionDown      Session = iota // neither hears the other
	SessionConnected                // one of the two directions works
	SessionCatchup                  // both work, and the peer has rows of ours to read
	SessionSync                     // both work, and the peer is up with us
)

// String returns the session's name as status shows it.
func (s Session) String() string {
	return [...]string{"down", "connected", "catchup", "sync"}[s]
}

// The times of the protocol, with the figures of the measurements behind them
// in doc.go.
const (
	// AckTimeout is how long a write waits for the peer before it is answered
	// as local.
	AckTimeout = 300 * time.Millisecond
	// StrictTimeout is how long a write with ack=both waits at most.
	StrictTimeout = 5 * time.Second

	heartbeatInterval = 100 * time.Millisecond
	silentSync        = 600 * time.Millisecond // without a frame: leave sync
	silentGone        = time.Second            // without a frame: dead, if gossip says so too
	goneAfterLoss     = 300 * time.Millisecond // of a lost connection and refused requests
	goneRefused       = 2
	pauseGap          = 300 * time.Millisecond // between two ticks: it was we who slept
	barrierTimeout    = 2 * time.Second        // without a session, until leases are given
	barrierMost       = 10 * time.Second       // whatever the session
	maxTimeouts       = 3                      // in a row: leave sync
	maxLagRows        = 50_000
	maxLagAge         = 10 * time.Second
	enterSyncRows     = 512
	holdMin, holdMax  = 300 * time.Millisecond, 10 * time.Second // out of sync after timeouts
	falseAlarmAge     = 10 * time.Minute
	maxPatience       = 8
)

// detector tells from three signals whether the peer is there: the connection
// (lost, refused), silence on it, and gossip. None is believed alone, but for a
// host that is alive and refuses. The zero detector has heard nothing.
type detector struct {
	started time.Time
	ticked  time.Time
	heard   time.Time // the last frame; what is silent is measured from here
	ever    bool      // a frame came since the start
	lost    time.Time // the connection ended, and no frame since; zero if not
	refused int       // requests refused since
	gossip  bool      // gossip says it is alive
	dead    bool      // gossip says it is dead, or has never said anything

	gone     bool // the last answer of Gone
	patience int  // times the silence that is borne: it doubles with each false alarm
	alarmAt  time.Time
}

func newDetector(now time.Time) detector {
	return detector{started: now, ticked: now, heard: now, dead: true, patience: 1}
}

// Heard notes a frame, or an answer, of the peer's boot.
func (d *detector) Heard(now time.Time, sameBoot bool) {
	if d.gone && sameBoot && d.ever { // it never was
		d.patience, d.alarmAt = min(2*d.patience, maxPatience), now
	}
	d.heard, d.ever, d.lost, d.refused, d.gone = now, true, time.Time{}, 0, false
}

// Lost notes that the connection ended before its time.
func (d *detector) Lost(now time.Time) {
	if d.lost.IsZero() {
		d.lost = now
	}
}

// Refused notes that a request was refused: nobody listens, or it is stopping.
func (d *detector) Refused(now time.Time) {
	d.Lost(now)
	d.refused++
}

// Gossip notes what gossip says.
func (d *detector) Gossip(alive bool) { d.gossip, d.dead = alive, !alive }

// Tick must be called often. A gap tells that this process slept: then silence
// proves nothing, and is measured anew.
func (d *detector) Tick(now time.Time) {
	if now.Sub(d.ticked) > pauseGap {
		d.heard = now
		if !d.lost.IsZero() {
			d.lost = now
		}
	}
	d.ticked = now
	if d.patience > 1 && now.Sub(d.alarmAt) > falseAlarmAge {
		d.patience, d.alarmAt = d.patience/2, now
	}
	d.gone = d.judge(now)
}

// Fresh reports whether the peer was heard just now.
func (d *detector) Fresh(now time.Time) bool {
	return d.ever && d.lost.IsZero() && now.Sub(d.heard) < silentSync*time.Duration(d.patience)
}

// Silent reports whether a request that is open should be given up.
func (d *detector) Silent(now time.Time) bool {
	return now.Sub(d.heard) >= silentGone*time.Duration(d.patience)
}

// Gone reports whether the peer's jobs may be taken over, as of the last tick.
// To be wrong costs at most one double run a worker.
func (d *detector) Gone() bool { return d.gone }

func (d *detector) judge(now time.Time) bool {
	refuses := !d.lost.IsZero() && d.refused >= goneRefused && now.Sub(d.lost) >= goneAfterLoss
	silent := d.Silent(now) || !d.lost.IsZero() && now.Sub(d.lost) >= silentGone
	return refuses || d.dead && (silent || d.refused > 0 && now.Sub(d.lost) >= goneAfterLoss)
}

// mark is where the head stood at an instant.
type mark struct {
	at   time.Time
	head jobs.LSeq
}

// marks remembers where the head stood, one mark a step, the newest last.
type marks struct {
	list []mark
	step time.Duration
	keep int
}

func (m *marks) note(now time.Time, head jobs.LSeq) {
	if n := len(m.list); n > 0 && now.Sub(m.list[n-1].at) < m.step && !now.Before(m.list[n-1].at) {
		return
	}
	if len(m.list) == m.keep {
		copy(m.list, m.list[1:])
		m.list = m.list[:len(m.list)-1]
	}
	m.list = append(m.list, mark{now, head})
}

// age returns how long ago the head stood above l at the least: 0 if it never
// did, as far as the marks go back.
func (m *marks) age(now time.Time, l jobs.LSeq) time.Duration {
	for _, k := range m.list {
		if k.head > l {
			return max(now.Sub(k.at), 0)
		}
	}
	return 0
}

// before returns the head as it stood at an instant or earlier, 0 if that is
// before the marks.
func (m *marks) before(t time.Time) jobs.LSeq {
	var head jobs.LSeq
	for _, k := range m.list {
		if k.at.After(t) {
			break
		}
		head = k.head
	}
	return head
}

// state is what a node knows of its session. It is pure: time is an argument.
// Engine.mu guards it.
type state struct {
	detector
	session Session
	since   time.Time

	theirs    jobs.Cursor // their cursor over our feed, good under our chain; zero if none
	theirsAt  time.Time   // when they last asked
	asking    int         // their requests that are open
	reads     bool        // they have asked in this session, from a good place
	complete  bool        // we have read their feed to its end since our boot
	theyDone  bool        // they have read ours to its end since their boot
	timeouts  int         // in a row
	hold      time.Duration
	holdUntil time.Time
	recent    marks // for the lag

	barrier   bool      // no lease yet
	downSince time.Time // for the barrier
	busy      bool      // applying what was read: silence is ours
}

func newState(now time.Time) state {
	return state{
		detector: newDetector(now), since: now, barrier: true, downSince: now, hold: holdMin,
		recent: marks{step: heartbeatInterval, keep: int(2 * maxLagAge / heartbeatInterval)},
	}
}

// following reports whether the peer reads our feed.
func (s *state) following(now time.Time) bool {
	return s.reads && (s.asking > 0 || now.Sub(s.theirsAt) < silentSync*time.Duration(s.patience))
}

// asked notes a request of the peer, with a cursor that is good or zero.
func (s *state) asked(now time.Time, c jobs.Cursor, head jobs.LSeq, complete bool) {
	s.theirs, s.theirsAt, s.reads, s.theyDone = c, now, true, complete
	s.update(now, head)
	if s.session == SessionCatchup && head-c.At <= enterSyncRows && c.Boot != (jobs.ID{}) && !now.Before(s.holdUntil) {
		s.enter(now, SessionSync)
		s.timeouts = 0
	}
}

// update moves the session to what now holds. It never enters sync: that takes
// a request of the peer. It reports whether it has left sync.
func (s *state) update(now time.Time, head jobs.LSeq) (left bool) {
	s.recent.note(now, head)
	fresh, following := s.Fresh(now) || s.busy && s.lost.IsZero() && s.ever, s.following(now)
	next := SessionCatchup
	switch {
	case !fresh && !following:
		next = SessionDown
	case !fresh || !following:
		next = SessionConnected
	case s.session == SessionSync && s.timeouts < maxTimeouts && head-s.theirs.At <= maxLagRows && s.recent.age(now, s.theirs.At) <= maxLagAge:
		next = SessionSync
	}
	left = s.session == SessionSync && next != SessionSync
	if left && next == SessionCatchup { // alive and slow: not again at once
		s.holdUntil = now.Add(s.hold)
		s.hold = min(2*s.hold, holdMax)
	}
	if s.session == SessionSync && !left && now.Sub(s.since) > 10*s.hold {
		s.hold = holdMin
	}
	s.enter(now, next)
	if s.session != SessionDown {
		s.downSince = time.Time{}
	} else if s.downSince.IsZero() {
		s.downSince = now
	}
	if s.barrier && (s.complete || now.Sub(s.started) >= barrierMost || !s.downSince.IsZero() && now.Sub(s.downSince) >= barrierTimeout) {
		s.barrier = false
	}
	return left
}

func (s *state) enter(now time.Time, next Session) {
	if s.session != next {
		s.session, s.since = next, now
	}
}

// reason says why a write is not waited for.
func (s *state) reason() string {
	switch s.session {
	case SessionSync:
		return ""
	case SessionCatchup:
		if s.timeouts >= maxTimeouts {
			return reasonSlow
		}
		return reasonCatchup
	}
	return reasonDown
}

// Why a write is local. They begin with a word for programs.
const (
	reasonNone    = "no peer configured"
	reasonDown    = "peer_down: the peer does not answer"
	reasonCatchup = "catchup: the peer is catching up"
	reasonSlow    = "peer_slow: the peer confirms too slowly"
	reasonTimeout = "peer_timeout: the peer did not confirm within 300ms"
	reasonAsked   = "ack=local: not waited for"
)
