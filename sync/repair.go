package sync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"time"

	"workmanager/jobs"
)

// Two nodes in step hold the same rows, or one of them has a damaged disk, was
// edited by hand, or has met an error of ours. Every CompareInterval, and after
// each reset, the node whose name is the smaller walks through all rows by the
// instant they came in, range by range, and asks the peer for its digest of
// each. Where two differ the range is cut until few rows are left, and those
// are compared one by one:
//
//   - a row whose columns do not match its hash is damaged: the peer's takes
//     its place as it is, if the peer's is whole;
//   - else whoever has a row that the other lacks, or has otherwise, gives it
//     its next number, and the feed and the merge do the rest.
//
// Only rows that stood still for a while are compared, and of those only what
// the other has confirmed; what differs is looked up by its ID before anything
// is done, so a row that moved meanwhile costs a look and no more. The walk is
// cut into slices of compareSlice, one each roundsInterval.

const (
	// rangeRows is about how many rows a range has, rangesAtOnce how many ranges
	// are asked for in one call, and maxSummaryRows how many rows one call may
	// make the peer read.
	rangeRows      = 1024
	rangesAtOnce   = 8
	maxSummaryRows = 32 * rangeRows
	// leafRows is how few rows are compared one by one, splitParts into how many
	// parts a larger range is cut.
	leafRows   = 64
	splitParts = 16
	// maxListed bounds the rows of one list: so many would have to come in within
	// one microsecond.
	maxListed = 4096
	// lookRows and lookBytes bound the rows of one answer or repair.
	lookRows  = 256
	lookBytes = 400 << 10
	// maxRepairs bounds the rows of one round. A round that it ends is taken up
	// again once what it has repaired has settled.
	maxRepairs = 1000
	// maxSuspects bounds the rows remembered, to tell one that differs again.
	maxSuspects = 16 * maxRepairs

	compareSlice   = 100 * time.Millisecond
	compareRetry   = time.Minute // after an error
	summaryTimeout = 10 * time.Second
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

// SummaryCall is POST /peer/summary. One of its questions is set.
type SummaryCall struct {
	caller
	Schema int   `json:"schema"`
	Floor  int64 `json:"floor"` // microseconds; rows below it are not compared
	Age    int64 `json:"age"`   // microseconds that a row has to have stood still

	Bounds  []int64        `json:"bounds,omitempty"` // the digest of each range between two
	Cut     *jobs.Range    `json:"cut,omitempty"`    // where to cut it
	List    *jobs.Range    `json:"list,omitempty"`   // its rows
	IDs     []jobs.ID      `json:"ids,omitempty"`    // how these stand
	Recount bool           `json:"recount,omitempty"`
	Adopt   [][]byte       `json:"adopt,omitempty"`  // payloads of rows, for those that are damaged
	Resend  []jobs.ID      `json:"resend,omitempty"` // rows to be sent once more
	Ended   *CompareStatus `json:"ended,omitempty"`
}

// SummaryReply is its answer.
type SummaryReply struct {
	Floor    int64        `json:"floor"`             // in force for this answer
	Digests  []wireDigest `json:"digests,omitempty"` // of the first ranges
	Cuts     []int64      `json:"cuts,omitempty"`    // of the range asked for, or of the first if that is too large
	Sums     []wireSum    `json:"sums,omitempty"`
	Standing []wireStand  `json:"standing,omitempty"` // of the first IDs
	Repaired int          `json:"repaired,omitempty"`
}

// wireDigest has the sum in two halves, which every reader of JSON holds.
type wireDigest struct {
	Rows int64  `json:"rows"`
	Lo   uint32 `json:"lo"`
	Hi   uint32 `json:"hi"`
}

type wireSum struct {
	ID  jobs.ID `json:"id"`
	Sum uint64  `json:"sum,string"`
}

type wireStand struct {
	Found   bool   `json:"found,omitempty"`
	Settled bool   `json:"settled,omitempty"`
	Damaged bool   `json:"damaged,omitempty"`
	Row     []byte `json:"row,omitempty"` // its payload, if it is not damaged
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

// comparison is one walk through all rows. Its fields are for one caller at a
// time.
type comparison struct {
	e    *Engine
	rows Comparer
	send func(context.Context, SummaryCall) (SummaryReply, error)
	age  time.Duration
	boot jobs.ID // the peer's

	began     time.Time // of this round
	bounds    []int64   // what is still to be walked begins at the first; what is behind the last is not cut yet
	floor     int64     // the highest met
	status    CompareStatus
	counted   CompareStatus // what of it the engine's counters have
	repairs   int           // rows, of this round
	differs   map[jobs.ID]bool
	suspects  []suspect
	recounted [2]bool // here, there
}

// suspect is a row that seems to differ, and the number of its range.
type suspect struct {
	id    jobs.ID
	place int64
}

// pause ends a round, not the walk.
func (w *comparison) pause(now time.Time) {
	w.status.Took, w.began = w.status.Took+now.Sub(w.began), time.Time{}
}

func (w *comparison) full() bool { return w.repairs >= maxRepairs }

// ask puts a call to the peer.
func (w *comparison) ask(ctx context.Context, call SummaryCall) (SummaryReply, error) {
	call.caller, call.Schema, call.Age = w.e.caller(), w.e.me.Schema, w.age.Microseconds()
	mine, _ := w.e.store.Floor()
	w.floor = max(w.floor, instantMicros(mine))
	call.Floor = w.floor
	reply, err := w.send(ctx, call)
	if err == nil && reply.Floor < w.floor {
		err = fmt.Errorf("%w: its floor is %d, below %d", errGarbage, reply.Floor, w.floor)
	}
	w.floor = max(w.floor, reply.Floor)
	return reply, err
}

// here returns which rows are compared here.
func (w *comparison) here() (jobs.Settled, error) {
	of, ok := w.e.settled(w.e.now(), w.age, w.floor)
	if !ok {
		return of, &Refusal{RefusedRound, "the clock was put back"}
	}
	return of, nil
}

// slice walks on for compareSlice. It returns true at the end of the walk.
func (w *comparison) slice(ctx context.Context) (bool, error) {
	for began := w.e.now(); ; {
		if err := w.cut(ctx); err != nil {
			return false, err
		}
		if err := w.step(ctx, &w.bounds, true); err != nil {
			return false, err
		}
		if err := w.repair(ctx); err != nil {
			return false, err
		}
		if w.bounds[0] == math.MaxInt64 {
			return true, nil
		}
		if spent := w.e.now().Sub(began); spent >= compareSlice || spent < 0 || w.full() {
			return false, nil
		}
	}
}

// cut sees to it that the next ranges are known.
func (w *comparison) cut(ctx context.Context) error {
	last := len(w.bounds) - 1
	if last > 0 {
		return nil
	}
	cuts, err := w.rows.Cuts(ctx, jobs.Range{From: w.bounds[last], To: math.MaxInt64}, rangeRows, rangesAtOnce)
	if err != nil {
		return err
	}
	w.bounds = append(w.bounds, cuts...)
	if len(cuts) < rangesAtOnce {
		w.bounds = append(w.bounds, math.MaxInt64)
	}
	return nil
}

// step compares the first ranges of bounds and takes them off, or cuts the
// first if it is too large.
func (w *comparison) step(ctx context.Context, bounds *[]int64, top bool) error {
	asked := (*bounds)[:min(len(*bounds), rangesAtOnce+1)]
	reply, err := w.ask(ctx, SummaryCall{Bounds: asked})
	if err != nil {
		return err
	}
	if len(reply.Cuts) > 0 {
		if err := inside(reply.Cuts, jobs.Range{From: asked[0], To: asked[1]}, splitParts); err != nil {
			return err
		}
		*bounds = slices.Insert(slices.Clone(*bounds), 1, reply.Cuts...)
		return nil
	}
	if n := len(reply.Digests); n == 0 || n > len(asked)-1 {
		return fmt.Errorf("%w: %d digests of %d ranges", errGarbage, n, len(asked)-1)
	}
	for i, theirs := range reply.Digests {
		in := jobs.Range{From: asked[i], To: asked[i+1]}
		of, err := w.here()
		if err != nil {
			return err
		}
		mine, _, err := w.rows.Digest(ctx, in, of, math.MaxInt)
		if err != nil {
			return err
		}
		if top {
			w.status.Ranges++
			w.status.Rows += mine.Rows
		}
		if mine != (jobs.Digest{Rows: theirs.Rows, Sum: uint64(theirs.Hi)<<32 | uint64(theirs.Lo)}) {
			if err := w.differ(ctx, in, mine.Rows, theirs.Rows); err != nil {
				return err
			}
		}
		*bounds = (*bounds)[1:]
		if w.full() {
			return nil
		}
	}
	return nil
}

// inside checks cuts that the peer gave.
func inside(cuts []int64, in jobs.Range, limit int) error {
	at := in.From
	for _, c := range cuts {
		if c <= at || c >= in.To {
			return fmt.Errorf("%w: a cut at %d of %d to %d", errGarbage, c, in.From, in.To)
		}
		at = c
	}
	if len(cuts) > limit {
		return fmt.Errorf("%w: %d cuts", errGarbage, len(cuts))
	}
	return nil
}

// differ looks closer at a range: in parts, or row by row.
func (w *comparison) differ(ctx context.Context, in jobs.Range, mine, theirs int64) error {
	if max(mine, theirs) > leafRows {
		cuts, err := w.split(ctx, in, mine >= theirs)
		if err != nil {
			return err
		}
		if len(cuts) > 0 {
			bounds := append(append([]int64{in.From}, cuts...), in.To)
			for len(bounds) > 1 && !w.full() {
				if err := w.step(ctx, &bounds, false); err != nil {
					return err
				}
			}
			return nil
		}
	}
	reply, err := w.ask(ctx, SummaryCall{List: &in})
	if err != nil {
		return err
	}
	if len(reply.Sums) > maxListed {
		return fmt.Errorf("%w: %d rows of one range", errGarbage, len(reply.Sums))
	}
	of, err := w.here()
	if err != nil {
		return err
	}
	own, _, err := w.rows.Sums(ctx, in, of, maxListed)
	if err != nil {
		return err
	}
	sums := make(map[jobs.ID]uint64, len(own))
	for _, s := range own {
		sums[s.ID] = s.Sum
	}
	for _, s := range reply.Sums {
		if sum, ok := sums[s.ID]; ok && sum == s.Sum {
			delete(sums, s.ID)
		} else {
			sums[s.ID] = s.Sum
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(sums), func(a, b jobs.ID) int { return slices.Compare(a[:], b[:]) }) {
		w.suspects = append(w.suspects, suspect{id, in.From})
	}
	if len(w.suspects) >= lookRows {
		return w.repair(ctx)
	}
	return nil
}

// split returns where to cut a range, by the rows of the node that has more.
func (w *comparison) split(ctx context.Context, in jobs.Range, here bool) ([]int64, error) {
	if here {
		return w.rows.Cuts(ctx, in, 0, splitParts-1)
	}
	reply, err := w.ask(ctx, SummaryCall{Cut: &in})
	if err != nil {
		return nil, err
	}
	return reply.Cuts, inside(reply.Cuts, in, splitParts)
}

// repair looks at each suspect at both nodes and mends what really differs.
func (w *comparison) repair(ctx context.Context) error {
	differed := map[int64]bool{}
	for len(w.suspects) > 0 && !w.full() {
		some := w.suspects[:min(len(w.suspects), lookRows, maxRepairs-w.repairs)]
		ids := make([]jobs.ID, len(some))
		for i := range some {
			ids[i] = some[i].id
		}
		reply, err := w.ask(ctx, SummaryCall{IDs: ids})
		if err != nil {
			return err
		}
		n := len(reply.Standing)
		if n == 0 || n > len(ids) {
			return fmt.Errorf("%w: %d rows of %d asked for", errGarbage, n, len(ids))
		}
		of, err := w.here()
		if err != nil {
			return err
		}
		mine, err := w.rows.Standings(ctx, ids[:n], of)
		if err != nil {
			return err
		}
		var m mending
		for i, there := range reply.Standing {
			theirs, err := there.standing(ids[i])
			if err != nil {
				return err
			}
			if w.judge(&m, ids[i], &mine[i], &theirs, of) {
				differed[some[i].place] = true
			}
		}
		if err := w.mend(ctx, &m, of); err != nil {
			return err
		}
		w.suspects = w.suspects[n:]
	}
	w.suspects = nil // a full round leaves them to the next comparison
	w.status.Differed += int64(len(differed))
	return nil
}

// mending is what is to be done of some rows.
type mending struct {
	adoptHere, adoptThere   []jobs.Row
	resendHere, resendThere []jobs.ID
	recount                 [2]bool // rows were changed or lost here, there
}

// judge decides what becomes of a row. It returns whether it differs.
func (w *comparison) judge(m *mending, id jobs.ID, mine, theirs *jobs.Standing, of jobs.Settled) bool {
	for _, s := range []*jobs.Standing{mine, theirs} {
		if s.Found && (!s.Settled || !s.Damaged && s.Row.Job.Key().Before(of.Floor)) {
			return false // it moves, or is about to go: no silent difference
		}
	}
	whole := mine.Found && theirs.Found && !mine.Damaged && !theirs.Damaged
	if !mine.Found && !theirs.Found || whole && mine.Row.Job.Equal(theirs.Row.Job) {
		return false
	}
	e := w.e
	w.repairs++
	damage := 0
	for i, s := range []*jobs.Standing{mine, theirs} {
		if s.Damaged || !s.Found {
			m.recount[i] = true
		}
		if s.Damaged {
			damage++
			e.log.Error("row damaged on the disk of a node", "job", id, "node", []string{e.cfg.Node, e.store.Reading().Peer}[i])
		}
	}
	again := w.differs[id] || e.differedBefore(id)
	if again && damage == 0 {
		e.log.Error("row differs between the nodes again, after it was repaired", "job", id)
	}
	if again || damage > 0 {
		w.status.Alarms++
	}
	if len(w.differs) < maxSuspects {
		w.differs[id] = true
	}
	switch {
	case mine.Damaged && theirs.Found && !theirs.Damaged:
		m.adoptHere = append(m.adoptHere, theirs.Row)
		return true
	case theirs.Damaged && mine.Found && !mine.Damaged:
		m.adoptThere = append(m.adoptThere, mine.Row)
		return true
	}
	if mine.Found {
		m.resendHere = append(m.resendHere, id)
	}
	if theirs.Found {
		m.resendThere = append(m.resendThere, id)
	}
	return true
}

func (e *Engine) differedBefore(id jobs.ID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.compare.differs[id]
}

// mend does it, here and there.
func (w *comparison) mend(ctx context.Context, m *mending, of jobs.Settled) error {
	if m.recount[0] && !w.recounted[0] {
		if err := w.rows.Recount(ctx); err != nil {
			return err
		}
		w.recounted[0] = true
	}
	adopted, err := w.rows.Adopt(ctx, w.boot, m.adoptHere)
	if len(adopted) > 0 {
		w.e.host.Arrived(adopted)
	}
	if err != nil {
		return err
	}
	sent, err := w.rows.Resend(ctx, m.resendHere, of.Upto)
	if err != nil {
		return err
	}
	w.status.Repaired += int64(len(adopted) + sent)
	for rest := m.adoptThere; ; {
		call := SummaryCall{Recount: m.recount[1] && !w.recounted[1]}
		for size := 0; len(rest) > 0 && size < lookBytes; rest = rest[1:] {
			call.Adopt = append(call.Adopt, appendRowFields(nil, &rest[0]))
			size += len(call.Adopt[len(call.Adopt)-1])
		}
		if len(rest) == 0 {
			call.Resend = m.resendThere
		}
		if !call.Recount && len(call.Adopt) == 0 && len(call.Resend) == 0 {
			return nil
		}
		reply, err := w.ask(ctx, call)
		if err != nil {
			return err
		}
		w.recounted[1] = w.recounted[1] || call.Recount
		if reply.Repaired < 0 || reply.Repaired > len(call.Adopt)+len(call.Resend) {
			return fmt.Errorf("%w: %d rows repaired of %d", errGarbage, reply.Repaired, len(call.Adopt)+len(call.Resend))
		}
		w.status.Repaired += int64(reply.Repaired)
		if len(rest) == 0 {
			return nil
		}
	}
}

// standing reads how a row stands at the peer.
func (s wireStand) standing(id jobs.ID) (jobs.Standing, error) {
	out := jobs.Standing{Found: s.Found, Settled: s.Settled, Damaged: s.Damaged}
	if !s.Found || s.Damaged {
		return out, nil
	}
	var err error
	if out.Row, err = decodeRow(s.Row); err != nil {
		return out, fmt.Errorf("%w: job %s: %w", errGarbage, id, err)
	}
	if out.Row.Job.ID != id {
		return out, fmt.Errorf("%w: job %s asked for, %s answered", errGarbage, id, out.Row.Job.ID)
	}
	return out, nil
}

func (e *Engine) serveSummary(w http.ResponseWriter, r *http.Request) {
	serveCall(e, w, r, func(c *SummaryCall) caller { return c.caller }, func(ctx context.Context, c *SummaryCall) (any, error) {
		return e.Summary(ctx, c)
	})
}

// Summary answers a call of the peer that compares. The error is a *Refusal if
// this node cannot be compared now, or the call makes no sense.
func (e *Engine) Summary(ctx context.Context, call *SummaryCall) (SummaryReply, error) {
	rows, ok := e.store.(Comparer)
	r := e.store.Reading()
	e.mu.Lock()
	why := e.incomparable(r)
	e.mu.Unlock()
	switch {
	case !ok:
		why = "this node's store cannot be compared"
	case call.Schema != e.me.Schema:
		why = "the nodes are of different releases"
	case call.Age < 0 || call.Age > settledAge.Microseconds() || call.Floor < 0:
		return SummaryReply{}, e.refuse(&Refusal{RefusedMalformed, fmt.Sprintf("an age of %d or a floor of %d", call.Age, call.Floor)})
	}
	of, old := e.settled(e.now(), time.Duration(call.Age)*time.Microsecond, call.Floor)
	if why == "" && !old {
		why = "this node has just started"
	}
	if why != "" {
		return SummaryReply{}, &Refusal{RefusedRound, why}
	}
	reply := SummaryReply{Floor: instantMicros(of.Floor)}
	err := e.summarize(ctx, rows, call, of, &reply)
	return reply, err
}

func (e *Engine) summarize(ctx context.Context, rows Comparer, call *SummaryCall, of jobs.Settled, reply *SummaryReply) error {
	switch {
	case len(call.Bounds) > 0:
		if n := len(call.Bounds); n < 2 || n > rangesAtOnce+1 || !slices.IsSorted(call.Bounds) {
			return e.refuse(&Refusal{RefusedMalformed, fmt.Sprintf("%d bounds", n)})
		}
		return digests(ctx, rows, call.Bounds, of, reply)
	case call.Cut != nil:
		cuts, err := rows.Cuts(ctx, *call.Cut, 0, splitParts-1)
		reply.Cuts = cuts
		return err
	case call.List != nil:
		sums, _, err := rows.Sums(ctx, *call.List, of, maxListed)
		for _, s := range sums {
			reply.Sums = append(reply.Sums, wireSum(s))
		}
		return err
	case len(call.IDs) > 0:
		return stand(ctx, rows, call.IDs[:min(len(call.IDs), lookRows)], of, reply)
	case call.Ended != nil:
		e.mu.Lock()
		defer e.mu.Unlock()
		call.Ended.At = e.now() // by this node's clock
		e.compare.last = *call.Ended
		e.countCompared(*call.Ended, CompareStatus{})
		return nil
	}
	if len(call.Resend)+len(call.Adopt) > maxRepairs {
		return e.refuse(&Refusal{RefusedMalformed, fmt.Sprintf("%d rows to repair", len(call.Resend)+len(call.Adopt))})
	}
	if call.Recount {
		if err := rows.Recount(ctx); err != nil {
			return err
		}
	}
	adopt := make([]jobs.Row, len(call.Adopt))
	for i, payload := range call.Adopt {
		var err error
		if adopt[i], err = decodeRow(payload); err != nil {
			return e.refuse(&Refusal{RefusedMalformed, err.Error()})
		}
	}
	adopted, err := rows.Adopt(ctx, call.Boot, adopt)
	if len(adopted) > 0 {
		e.host.Arrived(adopted)
	}
	if err != nil {
		return err
	}
	sent, err := rows.Resend(ctx, call.Resend, of.Upto)
	reply.Repaired = len(adopted) + sent
	return err
}

// digests answers for as many ranges as maxSummaryRows allows. One that has
// more alone is cut; if it cannot be, it is read whole.
func digests(ctx context.Context, rows Comparer, bounds []int64, of jobs.Settled, reply *SummaryReply) error {
	left := maxSummaryRows
	for i := range len(bounds) - 1 {
		in := jobs.Range{From: bounds[i], To: bounds[i+1]}
		d, whole, err := rows.Digest(ctx, in, of, left)
		if err == nil && !whole && i == 0 {
			if reply.Cuts, err = rows.Cuts(ctx, in, 0, splitParts-1); err != nil || len(reply.Cuts) > 0 {
				return err
			}
			d, whole, err = rows.Digest(ctx, in, of, math.MaxInt)
		}
		if err != nil {
			return err
		}
		if !whole {
			return nil
		}
		reply.Digests = append(reply.Digests, wireDigest{d.Rows, uint32(d.Sum), uint32(d.Sum >> 32)})
		if left -= int(d.Rows); left <= 0 {
			return nil
		}
	}
	return nil
}

// stand answers for as many rows as lookBytes allows.
func stand(ctx context.Context, rows Comparer, ids []jobs.ID, of jobs.Settled, reply *SummaryReply) error {
	found, err := rows.Standings(ctx, ids, of)
	if err != nil {
		return err
	}
	size := 0
	for i := range found {
		s := &found[i]
		out := wireStand{Found: s.Found, Settled: s.Settled, Damaged: s.Damaged}
		if s.Found && !s.Damaged {
			// Both are of one release: what one had kept for this release while it
			// was of an older one is what it lacks, and must not look like its own.
			s.Row.Ext = nil
			out.Row = appendRowFields(nil, &s.Row)
		}
		if size += cmp.Or(len(out.Row), 64); size > lookBytes && i > 0 {
			return nil
		}
		reply.Standing = append(reply.Standing, out)
	}
	return nil
}
