package lease

import (
	"math"
	"time"

	"workmanager/jobs"
)

// The order in which waiting jobs are given.
//
// The most urgent priority goes first. Within one priority:
//
//   - The shortest goes first, as far as its age allows: a job's turn is the
//     instant it came in plus its allowance, which is patience times the time
//     that its remaining iterations take on one lane, at most maxAllowance, and
//     the earliest turn goes first. So a job waits for no job that came in
//     later than its allowance after it: of jobs that come together the
//     shortest are first, and none is passed for ever.
//   - A chain that decides when all is done goes before them, but no two such
//     in a row: one whose remaining iterations, on one lane, last as long as
//     all that is left lasts on all lanes together. Begun later, it would end
//     alone.
//
// Lower priorities get a share of the work, so that no stream of urgent jobs
// stops them: of share+1 iterations that are given while a lower priority
// waits, one may go to the lower ones, to the job of the earliest turn among
// them. It goes when as much has come together as it needs, so a job waits at
// most until the higher priorities were given share times what it needs and
// what the lower ones before it need.
//
// All of that costs O(log n) for n waiting jobs. No figure depends on a
// measured rate, so the turn of a job stands for as long as it waits.
//
// Measured by TestOrder_simulated, against first come, first served, on 16
// lanes (mean time from coming in to done, and time until all is done):
//
//	1,000 short, 4 long ones last      63.7 s → 37.2 s    247 s → 167 s
//	4 long ones first, 1,000 short     83.4 s → 45.8 s    161 s → 164 s
//	1,000 short, 24 long ones last     67.9 s → 36.8 s    247 s → 247 s
//	500 of a heavy tail at once        34.3 s → 20.3 s    253 s → 201 s
//	1,500 of a heavy tail, 90 % busy    3.3 s →  2.6 s    244 s → 243 s
//
// The table sees no further than its owner keeps it filled: what waits on the
// disk comes into it in the order in which it came in.
const (
	// laneRate is the rate taken for one lane, iterations a second.
	laneRate = 500_000
	// patience is how many times its own cost a job lets shorter ones pass.
	patience     = 10
	perIteration = patience * 1_000_000 / laneRate // microseconds of allowance
	// maxAllowance bounds it, for chains of days.
	maxAllowance = 24 * time.Hour

	// long is the least that may decide: two seconds on a lane. Jobs below cost
	// no place in the second heap.
	long = 2 * laneRate
	// share is how many iterations higher priorities are given for one of the
	// lower, while they wait.
	share = 16
)

// line is the waiting jobs of one priority.
type line struct {
	turns  []slot    // a heap: the earliest turn first
	longs  []*entry  // a heap of the long ones: the most to do first
	work   jobs.Work // their remaining iterations
	jumped bool      // the last one given went before its turn
}

// slot is an entry with its turn at hand.
type slot struct {
	turn int64 // microseconds
	e    *entry
}

// order is the waiting jobs of a table.
type order struct {
	lines [jobs.MaxPriority + 1]line
	n     int
	lanes float64   // that compute for this table
	more  jobs.Work // remaining iterations that wait elsewhere, behind these
	owed  float64   // iterations that the lower priorities have a right to
}

func (e *entry) need() uint64 { return e.iterations - e.start.Done }

func (e *entry) turn() int64 {
	allowance := maxAllowance.Microseconds()
	if n := e.need(); n < uint64(allowance)/perIteration {
		allowance = int64(n) * perIteration
	}
	return e.createdAt + allowance
}

func (o *order) line(e *entry) *line { return &o.lines[min(e.priority, jobs.MaxPriority)] }

// push enters a job that waits.
func (o *order) push(e *entry) {
	l := o.line(e)
	o.n++
	l.work = l.work.Add(e.need())
	l.turns = append(l.turns, slot{})
	l.up(len(l.turns)-1, slot{e.turn(), e})
	e.far = -1
	if e.need() >= long {
		l.longs = append(l.longs, nil)
		l.upLong(len(l.longs)-1, e)
	}
}

// remove takes a job out.
func (o *order) remove(e *entry) {
	l := o.line(e)
	o.n--
	l.work = l.work.Sub(e.need())
	last := len(l.turns) - 1
	moved := l.turns[last]
	l.turns[last] = slot{}
	l.turns = l.turns[:last]
	if at := int(e.at); at < last {
		l.down(at, moved)
		if int(moved.e.at) == at {
			l.up(at, moved)
		}
	}
	if e.far < 0 {
		return
	}
	last = len(l.longs) - 1
	far := l.longs[last]
	l.longs[last] = nil
	l.longs = l.longs[:last]
	if at := int(e.far); at < last {
		l.downLong(at, far)
		if int(far.far) == at {
			l.upLong(at, far)
		}
	}
}

// first returns whose turn it is, nil if nobody waits. busy is the iterations
// left to do under leases.
func (o *order) first(busy jobs.Work) *entry {
	top, low := o.top()
	if top == nil {
		return nil
	}
	if low != nil && o.owed >= float64(low.need()) {
		return low
	}
	if len(top.longs) > 0 && !(top.jumped && len(top.turns) > 1) {
		e := top.longs[0]
		if float64(e.need())*o.lanes >= top.work.Plus(busy).Plus(o.more).Float() {
			return e
		}
	}
	return top.turns[0].e
}

// top returns the line of the highest priority in which jobs wait, nil if
// none do, and the job of the earliest turn in the lines below, nil if none.
func (o *order) top() (top *line, low *entry) {
	best := int64(math.MaxInt64)
	for p := len(o.lines) - 1; p >= 0; p-- {
		l := &o.lines[p]
		switch {
		case len(l.turns) == 0:
		case top == nil:
			top = l
		case l.turns[0].turn < best:
			best, low = l.turns[0].turn, l.turns[0].e
		}
	}
	return top, low
}

// give takes out the job that first returned and keeps the account.
func (o *order) give(e *entry) {
	top, low := o.top()
	l := o.line(e)
	switch {
	case l != top:
		o.owed -= float64(e.need())
	case low == nil:
		o.owed = 0
	default:
		o.owed += float64(e.need()) / share
	}
	l.jumped = e != l.turns[0].e
	o.remove(e)
}

// The two heaps, written out: they are the whole cost of a grant.

func before(a, b slot) bool {
	return a.turn < b.turn || a.turn == b.turn && a.e.createdAt < b.e.createdAt
}

// arity makes the children of a place one cache line of slots.
const arity = 4

func (l *line) up(i int, s slot) {
	for i > 0 {
		parent := (i - 1) / arity
		if !before(s, l.turns[parent]) {
			break
		}
		l.turns[i] = l.turns[parent]
		l.turns[i].e.at = int32(i)
		i = parent
	}
	l.turns[i], s.e.at = s, int32(i)
}

func (l *line) down(i int, s slot) {
	for {
		child := arity*i + 1
		if child >= len(l.turns) {
			break
		}
		for c := child + 1; c < min(arity*i+1+arity, len(l.turns)); c++ {
			if before(l.turns[c], l.turns[child]) {
				child = c
			}
		}
		if !before(l.turns[child], s) {
			break
		}
		l.turns[i] = l.turns[child]
		l.turns[i].e.at = int32(i)
		i = child
	}
	l.turns[i], s.e.at = s, int32(i)
}

// longer orders the long ones; of equal ones the older is first.
func longer(a, b *entry) bool {
	return a.need() > b.need() || a.need() == b.need() && a.createdAt < b.createdAt
}

func (l *line) upLong(i int, e *entry) {
	for i > 0 {
		parent := (i - 1) / 2
		if !longer(e, l.longs[parent]) {
			break
		}
		l.longs[i] = l.longs[parent]
		l.longs[i].far = int32(i)
		i = parent
	}
	l.longs[i], e.far = e, int32(i)
}

func (l *line) downLong(i int, e *entry) {
	for {
		child := 2*i + 1
		if child >= len(l.longs) {
			break
		}
		if child+1 < len(l.longs) && longer(l.longs[child+1], l.longs[child]) {
			child++
		}
		if !longer(l.longs[child], e) {
			break
		}
		l.longs[i] = l.longs[child]
		l.longs[i].far = int32(i)
		i = child
	}
	l.longs[i], e.far = e, int32(i)
}
