package sync

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"workmanager/jobs"
)

// Comparer is what comparing needs of a store, besides. A Store that is none is
// not compared. Its methods are safe for concurrent use.
type Comparer interface {
	// Cuts returns instants that cut a range, Digest what is compared of it and
	// Sums its rows one by one. The latter two read at most limit rows and return
	// false if there are more.
	Cuts(ctx context.Context, in jobs.Range, every, limit int) ([]int64, error)
	Digest(ctx context.Context, in jobs.Range, of jobs.Settled, limit int) (jobs.Digest, bool, error)
	Sums(ctx context.Context, in jobs.Range, of jobs.Settled, limit int) ([]jobs.RowSum, bool, error)
	// Standings returns how rows stand, in the order of their IDs.
	Standings(ctx context.Context, ids []jobs.ID, of jobs.Settled) ([]jobs.Standing, error)
	// Recount corrects the counters, Adopt replaces rows that are damaged, and
	// Resend gives rows at or below a number their next ones.
	Recount(ctx context.Context) error
	Adopt(ctx context.Context, boot jobs.ID, rows []jobs.Row) ([]jobs.Changed, error)
	Resend(ctx context.Context, ids []jobs.ID, upto jobs.LSeq) (int, error)
}

// CompareStatus is how the last comparison went, or goes: the node that begins
// tells its peer when it has ended.
type CompareStatus struct {
	At       time.Time     `json:"at"` // when it ended, zero before the first
	Took     time.Duration `json:"took"`
	Rows     int64         `json:"rows"`
	Ranges   int64         `json:"ranges"`
	Differed int64         `json:"differed"` // ranges
	Repaired int64         `json:"repaired"` // rows, of both nodes
	Alarms   int64         `json:"alarms"`   // rows that were damaged, or differ again
	Running  bool          `json:"-"`
	Err      string        `json:"-"` // why it did not end well
}

// compareState is the comparisons of a node; Engine.mu guards it.
type compareState struct {
	last    CompareStatus
	key     compareKey
	due     time.Time
	busy    bool        // a slice is under way: walk is its alone
	walk    *comparison // nil between two
	differs map[jobs.ID]bool
}

// compareKey changes with each reset.
type compareKey struct {
	boot   jobs.ID // the peer's
	resets int64
}

func (c *compareState) status() CompareStatus {
	s := c.last
	s.Running = c.walk != nil
	return s
}

// incomparable returns why the two nodes cannot be compared now, "" if they can;
// mu is held.
func (e *Engine) incomparable(r jobs.Reading) string {
	s := &e.state
	switch {
	case s.session < SessionCatchup:
		return apart
	case !s.complete || !s.theyDone || r.Amnesia || r.Cursor.Refilling() || s.theirs.Refilling() || s.theirs.Boot == (jobs.ID{}):
		return "not all jobs are at both nodes yet"
	}
	return ""
}

// apart is why two nodes are not compared that cannot talk: it may last no
// longer than a moment.
const apart = "the nodes are not connected"

// settled returns which rows are compared: the peer has them, and they have
// stood still for age. It returns false if this node has not run for that long.
func (e *Engine) settled(now time.Time, age time.Duration, floor int64) (jobs.Settled, bool) {
	mine, _ := e.store.Floor()
	e.mu.Lock()
	defer e.mu.Unlock()
	old := now.Add(-age)
	if len(e.minute.list) == 0 || e.minute.list[0].at.After(old) {
		return jobs.Settled{}, false
	}
	of := jobs.Settled{Upto: min(e.minute.before(old), e.state.theirs.At), Floor: mine}
	if asked := time.UnixMicro(floor).UTC(); floor > 0 && asked.After(mine) {
		of.Floor = asked
	}
	return of, true
}

// compareRound does a slice of a comparison over HTTP, if one is due.
func (e *Engine) compareRound(ctx context.Context) error {
	return e.Compare(ctx, func(ctx context.Context, call SummaryCall) (SummaryReply, error) {
		var reply SummaryReply
		err := e.call(ctx, summaryTimeout, http.MethodPost, "/peer/summary", call, &reply)
		return reply, err
	})
}

// Compare does a slice of a comparison, if this node is the one to begin and
// one is due or under way. ask hands a call to the peer. An error ends the
// comparison; the next is due after a while.
func (e *Engine) Compare(ctx context.Context, ask func(context.Context, SummaryCall) (SummaryReply, error)) error {
	rows, ok := e.store.(Comparer)
	r := e.store.Reading()
	if !ok || e.cfg.CompareInterval <= 0 || r.Peer <= e.cfg.Node {
		return nil
	}
	now := e.now()
	age := min(settledAge, e.cfg.CompareInterval)
	walk := e.compareDue(now, age, r)
	if walk == nil {
		return nil
	}
	walk.rows, walk.send = rows, ask
	ended, err := walk.slice(ctx)
	return e.compared(ctx, walk, ended, err)
}

// compareDue returns the comparison to go on with, nil if there is none. Who
// gets one must call compared.
func (e *Engine) compareDue(now time.Time, age time.Duration, r jobs.Reading) *comparison {
	_, old := e.settled(now, age, 0)
	e.mu.Lock()
	defer e.mu.Unlock()
	c := &e.compare
	if c.busy {
		return nil
	}
	why := e.incomparable(r)
	if why == "" && e.peer.hello.Schema != e.me.Schema {
		why = "the nodes are of different releases"
	}
	switch {
	case why == apart:
		return nil
	case why != "":
		c.abandon(why)
		c.key = compareKey{} // a reset may be why
		return nil
	}
	if key := (compareKey{e.peer.hello.Boot, e.count.resets}); key != c.key {
		c.abandon("the peer has started anew")
		c.key, c.due = key, now.Add(age) // what came with the reset has to settle
	}
	if c.due.Sub(now) > max(e.cfg.CompareInterval, age, compareRetry) { // the clock was put back
		c.due = now
	}
	if (c.walk == nil || c.walk.began.IsZero()) && (now.Before(c.due) || !old) { // none, or one that waits
		return nil
	}
	if c.walk == nil {
		c.walk = &comparison{e: e, age: age, boot: e.peer.hello.Boot, bounds: []int64{math.MinInt64}, differs: map[jobs.ID]bool{}}
	}
	if c.walk.began.IsZero() {
		c.walk.began = now
	}
	c.busy = true
	return c.walk
}

// abandon ends a comparison that cannot go on.
func (c *compareState) abandon(why string) {
	if c.walk != nil {
		c.walk, c.last.Err = nil, why
	}
}

// compared notes what a slice came to.
func (e *Engine) compared(ctx context.Context, w *comparison, ended bool, err error) error {
	now := e.now()
	if err == nil && ended {
		w.status.At, w.status.Took = now, w.status.Took+now.Sub(w.began)
		// It changes nothing there but what is shown.
		if _, err := w.ask(ctx, SummaryCall{Ended: &w.status}); err != nil {
			e.log.Debug("the peer was not told of a comparison", "err", err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c := &e.compare
	c.busy = false
	e.countCompared(w.status, w.counted)
	w.counted = w.status
	refused, isRefusal := errors.AsType[*Refusal](err)
	switch {
	case errors.Is(err, ErrNoPeer), isRefusal && refused.Code != RefusedMalformed: // it goes on from there
		w.pause(now)
		c.last.Err, c.due = err.Error(), now.Add(min(e.cfg.CompareInterval, compareRetry))
	case err != nil:
		c.abandon(err.Error())
		c.due = now.Add(min(e.cfg.CompareInterval, compareRetry))
		return fmt.Errorf("compare rows: %w", err)
	case ended:
		c.last, c.walk, c.differs = w.status, nil, w.differs
		c.due = now.Add(e.cfg.CompareInterval)
		if s := w.status; s.Differed > 0 {
			e.log.Warn("the two nodes held different rows", "ranges", s.Differed, "rows", s.Repaired, "alarms", s.Alarms)
		}
	case w.full():
		w.pause(now)
		w.repairs, c.due = 0, now.Add(w.age)
	}
	return nil
}

// countCompared adds what is new in s; mu is held.
func (e *Engine) countCompared(s, was CompareStatus) {
	e.count.compared += s.Ranges - was.Ranges
	e.count.differed += s.Differed - was.Differed
	e.count.repaired += s.Repaired - was.Repaired
	e.count.pairAlarm += s.Alarms - was.Alarms
}
