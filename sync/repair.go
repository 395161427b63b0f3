package sync

import (
	"context"
	"fmt"
	"maps"
	"math"
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

// adopt replaces damaged rows by the peer's, tells the host, and returns how many
// there were.
func (e *Engine) adopt(ctx context.Context, rows Comparer, boot jobs.ID, theirs []jobs.Row) (int, error) {
	defer e.host.Arriving()()
	adopted, err := rows.Adopt(ctx, boot, theirs)
	if len(adopted) > 0 {
		e.host.Arrived(adopted)
	}
	return len(adopted), err
}

// mend does it, here and there.
func (w *comparison) mend(ctx context.Context, m *mending, of jobs.Settled) error {
	if m.recount[0] && !w.recounted[0] {
		if err := w.rows.Recount(ctx); err != nil {
			return err
		}
		w.recounted[0] = true
	}
	adopted, err := w.e.adopt(ctx, w.rows, w.boot, m.adoptHere)
	if err != nil {
		return err
	}
	sent, err := w.rows.Resend(ctx, m.resendHere, of.Upto)
	if err != nil {
		return err
	}
	w.status.Repaired += int64(adopted + sent)
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
