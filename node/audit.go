package node

import (
	"context"
	"crypto/sha512"
	"hash/maphash"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
	"workmanager/jobs/lease"
	"workmanager/jobs/store"
	"workmanager/jobs/worker"
)

// Bounds of the auditor.
const (
	// firstChecks is how many reports of a worker that is new here are checked,
	// each of at most firstMost iterations: some ten seconds.
	firstChecks = 10
	firstMost   = 1 << 25
	// maxCredit bounds the iterations that may be recomputed at once, of those
	// that the rate allows: what a core computes in some minutes.
	maxCredit = 1 << 30

	maxSamples, maxSuspects, maxDisputes = 256, 4096, 1024 // that wait
	maxAlarms                            = 16              // that status lists
	auditRetry                           = time.Second
)

// why a job is recomputed.
type why uint8

const (
	sampled   why = iota // a report that was drawn
	suspected            // a result of a worker that was wrong elsewhere
	disputed             // there are two values
)

// auditor recomputes values on this node: where there are two for one job,
// those of a worker that was wrong, and a sample of what workers report.
//
// A sample is a segment: from where a lease began, or what was reported of it
// last, to what is reported now. Each is drawn with the rate, whatever its
// length, so what is recomputed is that share of all iterations however long
// jobs are, and it is bounded by it: what the rate does not pay for is passed
// over and counted. A wrong segment shows who is at fault, whatever came before.
//
// Everything is computed at the priority of a computing thread, in slices, by
// the kernels; what shows somebody to be wrong is computed once more, by the
// standard library. Only if both agree anybody is blamed and a value settled.
//
// A restart forgets the samples, which the next draws make up for, and what each
// worker has said. It forgets neither who is quarantined nor which jobs are to be
// recomputed: a dispute is on the disk before the report that raised it is
// answered, or in the commit of the row that did, and what else a quarantined
// worker had reported here is in the commit of its quarantine. So no value of
// which there ever was another stays without being recomputed. But who said the
// wrong one is not known any more if that was before the restart: the value is
// settled, and only the next wrong one shows the worker. The same holds of more
// disputes than memory has room for.
//
// mu may be taken under Queue.mu, never the other way.
type auditor struct {
	q    *Queue
	rate float64
	seed maphash.Seed
	wake chan struct{} // capacity 1: there is something to check
	well func() bool   // whether this machine's kernels are right

	saving sync.Mutex // one commit of what is distrusted at a time

	mu       sync.Mutex // guards the rest
	rand     *rand.Rand
	disputes []*check           // oldest first
	suspects []*check           // newest last, and taken first
	samples  []*check           // oldest first
	known    map[jobs.ID]*check // disputes and suspects that wait or are computed
	credit   float64            // iterations that samples may cost
	workers  map[string]*record // what is known of workers
	alarms   []alarm            // the last ones
	more     bool               // the store has jobs to recompute that are not here
	distrusted

	checked, wrong, settled, skipped atomic.Int64
	running                          atomic.Int64
}

// alarm is one thing that was found wrong.
type alarm struct {
	job  jobs.ID
	at   time.Time
	what string
}

// said is what a worker says of a chain: from its lease's start, it reached
// this. Values are known by a keyed fingerprint, so that many fit. start is 1
// for v1 and 0 if it is not known.
type said struct {
	worker             string
	start, at          uint64
	startPrint, result uint64
	shown              jobs.Print
	unsure             bool // wrong, and perhaps not by the worker's own fault
}

// check is one chain to recompute. The auditor's goroutine owns it, but for
// said, which auditor.mu guards.
type check struct {
	why        why
	id         jobs.ID
	from       jobs.Progress // where it begins, taken as right
	v1         jobs.Value
	iterations uint64
	said       []said
	gathered   bool // what workers reported is in said

	stops  []uint64     // where values are compared, ascending; the last is the end
	values []jobs.Value // what the kernels gave there
	second []jobs.Value // and the standard library
	place  jobs.Progress
}

func newAuditor(q *Queue, rate float64, seed uint64) *auditor {
	a := &auditor{
		q: q, rate: rate, seed: maphash.MakeSeed(), wake: make(chan struct{}, 1), well: kernelsRight, rand: rand.New(rand.NewPCG(seed, 0)),
		known: map[jobs.ID]*check{}, workers: map[string]*record{}, credit: maxCredit / 64,
	}
	a.distrusted.init()
	return a
}

func (a *auditor) print(v jobs.Value) uint64 { return maphash.Bytes(a.seed, v[:]) }

func (a *auditor) says(c lease.Claim) said {
	if c.Adopted {
		c.Start = jobs.Progress{} // it is not known from where
	}
	return said{worker: c.Worker, start: c.Start.Done, at: c.At.Done, startPrint: a.print(c.Start.Value), result: a.print(c.At.Value), shown: jobs.PrintOf(c.At.Value)}
}

// segment draws lots for a report under a lease that stands: is what the
// worker computed since its last report recomputed, with the checkpoints of it
// that the job is to keep?
func (a *auditor) segment(worker string, r *jobs.Report, from jobs.Progress, keep uint16) {
	to := r.Progress
	if r.Kind == jobs.ReportValue {
		to.Done = r.Iterations
	}
	if a.rate <= 0 || to.Done <= from.Done || to.Done > r.Iterations || from.Done < 1 {
		return
	}
	n := to.Done - from.Done
	a.mu.Lock()
	defer a.mu.Unlock()
	a.credit = min(a.credit+a.rate*float64(n), maxCredit)
	rec := a.record(worker)
	switch {
	case rec.checks < firstChecks && n <= firstMost:
		rec.checks++
	case a.rand.Float64() >= a.rate:
		return
	case float64(n) > a.credit:
		a.skipped.Add(1)
		return
	default:
		a.credit -= float64(n)
	}
	if len(a.samples) >= maxSamples {
		a.skipped.Add(1)
		return
	}
	c := &check{why: sampled, id: r.ID, v1: r.V1, iterations: r.Iterations, from: from, said: []said{a.says(lease.Claim{Worker: worker, Start: from, At: to})}}
	for i := range min(r.Rungs.Len(), int(keep)-r.RungsFrom) {
		at := jobs.Progress{Done: jobs.RungAt(r.Iterations, int(keep), r.RungsFrom+i), Value: r.Rungs.At(i)}
		c.said = append(c.said, a.says(lease.Claim{Worker: worker, Start: from, At: at}))
	}
	a.samples = append(a.samples, c)
	a.tell()
}

func (a *auditor) tell() {
	select {
	case a.wake <- struct{}{}:
	default: // told already
	}
}

// alarm counts what was found wrong and shows it. It is logged by who found it.
func (a *auditor) alarm(id jobs.ID, what string) {
	a.q.alarms.Add(1)
	a.noteAlarm(id, what)
}

// noteAlarm is alarm for one that the store has counted.
func (a *auditor) noteAlarm(id jobs.ID, what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.alarms) == maxAlarms {
		a.alarms = slices.Delete(a.alarms, 0, 1)
	}
	a.alarms = append(a.alarms, alarm{id, a.q.now(), what})
}

// dispute has a job recomputed from v1 of which there are two values, and notes
// who says what.
func (a *auditor) dispute(id jobs.ID, who ...said) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.known[id]; c != nil && (c.why == disputed || len(c.stops) > 0) {
		c.said = append(c.said, who[:min(len(who), max(maxSaid-len(c.said), 0))]...)
		return
	}
	a.note(store.Doubt{ID: id, Disputed: true})
	if len(a.disputes) >= maxDisputes {
		a.more = true // it is taken from the store when there is room
		return
	}
	c := &check{why: disputed, id: id, said: who}
	a.disputes, a.known[id] = append(a.disputes, c), c
	a.tell()
}

// maxSaid bounds what is noted of one dispute.
const maxSaid = 64

// disagree is told by the store's writer of a row that came with another value
// than the one here. It does not block.
func (a *auditor) disagree(here, came, merged jobs.Job) {
	id := merged.ID
	if !merged.Ended() { // its row is taken back, and the table is told when that is committed
		a.noteAlarm(id, "two values at one checkpoint: it begins again from v1")
		return
	}
	a.noteAlarm(id, "the two nodes had different values")
	if here.Verified != came.Verified && here.Rungs == came.Rungs && !a.reportedHere(id) { // decided, and by nobody's fault here
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.known[id] == nil {
			a.clear(id)
		}
		return
	}
	a.dispute(id)
}

// next takes what is to be checked next: what the store has comes before samples.
func (a *auditor) next(ctx context.Context) (*check, error) {
	a.mu.Lock()
	load := a.more && len(a.disputes)+len(a.suspects) == 0 && len(a.known) < maxDisputes/2 // so that it finds some that are not known
	a.mu.Unlock()
	if load {
		if err := a.load(ctx); err != nil {
			return nil, err
		}
	}
	return a.take(), nil
}

// take takes it from what is in memory.
func (a *auditor) take() *check {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		switch {
		case len(a.disputes) > 0:
			c := a.disputes[0]
			a.disputes = a.disputes[1:]
			return c
		case len(a.suspects) > 0:
			n := len(a.suspects) - 1
			c := a.suspects[n]
			a.suspects = a.suspects[:n]
			if a.known[c.id] == c { // else it is disputed since
				return c
			}
		case len(a.samples) > 0:
			c := a.samples[0]
			a.samples = a.samples[1:]
			return c
		default:
			return nil
		}
	}
}

// run checks what there is to check until ctx is done.
func (a *auditor) run(ctx context.Context) error {
	runtime.LockOSThread() // never unlocked: the thread ends with its priority
	if err := worker.LowerPriority(); err != nil {
		a.q.log.Debug("cannot lower the priority of the auditor", "err", err)
	}
	exec := hashchain.NewExecutor[*check](0)
	var again []*check // to be computed once more, the first is
	for {
		if busy, err := a.slice(ctx, exec, &again); busy && err == nil {
			if ctx.Err() != nil {
				return nil
			}
			continue
		} else if err != nil && ctx.Err() == nil && a.q.store.Err() == nil {
			a.q.log.Warn("a value could not be checked, will be tried again", "err", err)
			t := time.NewTimer(auditRetry)
			select {
			case <-t.C:
			case <-ctx.Done():
			}
			t.Stop()
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		}
	}
}

// slice takes every chain under way a chunk on. It returns false if there is
// none.
func (a *auditor) slice(ctx context.Context, exec *hashchain.Executor[*check], again *[]*check) (bool, error) {
	for exec.Free() > 0 {
		c, err := a.next(ctx)
		if err != nil {
			return true, err
		}
		if c == nil {
			break
		}
		ok, err := a.prepare(ctx, c)
		if err != nil {
			a.mu.Lock()
			a.disputes = append(a.disputes, c)
			a.mu.Unlock()
			return true, err
		}
		if ok {
			exec.Add(hashchain.Chain[*check]{Tag: c, Done: c.from.Done, Iterations: c.stops[0], Value: c.from.Value})
			a.running.Add(1)
		}
	}
	exec.Advance(hashchain.Chunk)
	ended := slices.Clone(exec.Done())
	for _, ch := range ended {
		c := ch.Tag
		c.values = append(c.values, ch.Value)
		switch n := len(c.values); {
		case n < len(c.stops):
			exec.Add(hashchain.Chain[*check]{Tag: c, Done: c.stops[n-1], Iterations: c.stops[n], Value: ch.Value})
		case c.why == sampled && len(a.liars(c, c.values)) == 0:
			a.checked.Add(1)
			a.running.Add(-1)
		default:
			c.place = c.from
			*again = append(*again, c)
		}
	}
	if len(*again) > 0 {
		if c := (*again)[0]; c.onceMore() {
			*again = (*again)[1:]
			a.running.Add(-1)
			if err := a.finish(ctx, c); err != nil {
				a.mu.Lock()
				c.stops, c.values, c.second = nil, nil, nil
				a.disputes = append(a.disputes, c)
				a.mu.Unlock()
				return true, err
			}
		}
	}
	return exec.Active() > 0 || len(ended) > 0 || len(*again) > 0, nil
}

// onceMore takes the second computation a chunk on, and reports whether it is done.
func (c *check) onceMore() bool {
	for range hashchain.Chunk {
		if c.place.Done == c.stops[len(c.second)] {
			c.second = append(c.second, c.place.Value)
			if len(c.second) == len(c.stops) {
				return true
			}
			continue
		}
		c.place.Value = sha512.Sum512(c.place.Value[:])
		c.place.Done++
	}
	return false
}

// prepare finds out what is to be computed. It returns false if nothing is:
// the job is gone, or decided.
func (a *auditor) prepare(ctx context.Context, c *check) (bool, error) {
	var end uint64
	var stops []uint64
	if c.why == sampled {
		end = c.said[0].at
	} else {
		j, found, err := a.q.store.Job(ctx, c.id)
		if err != nil {
			return false, err
		}
		a.mu.Lock()
		if !c.gathered {
			c.gathered, c.said = true, append(c.said, a.reports(c.id, j.Iterations)...)
		}
		silent := len(c.said) == 0
		a.mu.Unlock()
		if !found || j.Purged || j.Rank == jobs.Cancelled || j.Verified && silent && j.Rungs == "" {
			a.drop(c)
			a.cleared(c)
			return false, nil
		}
		end = j.Iterations
		c.v1, c.iterations, c.from = j.V1, end, jobs.Progress{Done: 1, Value: j.V1}
		for _, p := range j.Ladder() {
			if p.Done > 1 && p.Done < end {
				stops = append(stops, p.Done)
			}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	c.stops = append(stops, end)
	for _, s := range c.said {
		for _, at := range []uint64{s.start, s.at} {
			if at > c.from.Done && at < end {
				c.stops = append(c.stops, at)
			}
		}
	}
	slices.Sort(c.stops)
	c.stops = slices.Compact(c.stops)
	return true, nil
}

// drop forgets a check of a job, so that it can be disputed again.
func (a *auditor) drop(c *check) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known[c.id] == c {
		delete(a.known, c.id)
	}
}

// cleared notes that a check of a job is over and acted on, so that a restart
// does not repeat it.
func (a *auditor) cleared(c *check) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.why != sampled && a.known[c.id] == nil { // else it is disputed again
		a.clear(c.id)
	}
}

// at returns the print of the recomputed value at a place.
func (a *auditor) at(c *check, values []jobs.Value, done uint64) (uint64, bool) {
	if done == c.from.Done {
		return a.print(c.from.Value), true
	}
	if i, ok := slices.BinarySearch(c.stops, done); ok {
		return a.print(values[i]), true
	}
	return 0, false
}

// liars returns what was said and is wrong, and not because what it was built
// on was wrong, or may have been.
func (a *auditor) liars(c *check, values []jobs.Value) []said {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []said
	for _, s := range c.said {
		if is, ok := a.at(c, values, s.at); !ok || is == s.result {
			continue
		}
		is, ok := a.at(c, values, s.start)
		s.unsure = s.start == 0
		if s.unsure || s.start == 1 || ok && is == s.startPrint {
			out = append(out, s)
		}
	}
	return out
}

// finish acts on a chain that was computed twice.
func (a *auditor) finish(ctx context.Context, c *check) error {
	a.checked.Add(1)
	if !slices.Equal(c.values, c.second) {
		a.alarm(c.id, "this machine computed two different values")
		a.q.log.Error("this machine computed two different values for one job: its processor or memory is broken", "job", c.id)
		a.drop(c)
		a.selfCheck(c.id)
		return nil
	}
	if c.why == sampled {
		a.wrong.Add(1)
		s := c.said[0]
		a.alarm(c.id, "what worker "+s.worker+" reported is not what recomputing gives")
		a.q.log.Error("what a worker reported is not what recomputing gives", "job", c.id, "worker", s.worker, "done", s.at)
		if s.at == c.iterations {
			a.dispute(c.id, s)
		} else if _, here := a.q.restarts(c.id); s.worker == a.q.node || !here { // it keeps its leases, or the job has gone to the peer: this job alone begins again
			a.q.distrust(ctx, c.id)
		}
	} else if err := a.settle(ctx, c); err != nil {
		return err
	}
	a.drop(c)
	for _, s := range a.liars(c, c.values) { // all that was said until now
		a.blame(c, s)
	}
	a.cleared(c)
	if err := a.save(ctx); err != nil && ctx.Err() == nil && a.q.store.Err() == nil {
		a.q.log.Warn("what is distrusted is noted in memory only, will be written", "err", err)
	}
	return nil
}

// rungs returns the kept checkpoints of a job as they were recomputed, "" if one
// of them was not.
func (c *check) rungs(j jobs.Job) (r jobs.Rungs) {
	for i := range j.Rungs.Len() {
		at, ok := slices.BinarySearch(c.stops, jobs.RungAt(j.Iterations, int(j.Keep), i))
		if !ok {
			return ""
		}
		r = r.Add(c.values[at])
	}
	return r
}

// settle makes the recomputed value the job's, and the kept checkpoints with it.
func (a *auditor) settle(ctx context.Context, c *check) error {
	right := c.values[len(c.values)-1]
	var before jobs.Job
	effects, err := a.q.store.Record(ctx, []store.Fact{{ID: c.id, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) {
		before = j
		if j.V1 != c.v1 || j.Iterations != c.iterations {
			return j, false
		}
		j, settled := j.Settle(right, at())
		j, corrected := j.Correct(c.rungs(j))
		return j, settled || corrected
	}}})
	if err != nil {
		return err
	}
	e := effects[0]
	switch {
	case !e.Found || e.Job.Purged || e.Job.Rank != jobs.Completed || e.Job.V1 != c.v1 || e.Job.Iterations != c.iterations:
		return nil
	case e.Job.Result != right:
		a.alarm(c.id, "the two nodes recomputed it to different values")
		a.q.log.Error("the two nodes recomputed one job to different values: one of the machines is broken", "job", c.id)
		return nil
	case before.Rank == jobs.Completed && before.Result != right:
		a.settled.Add(1)
		a.wrong.Add(1)
		if c.why == suspected {
			a.alarm(c.id, "its value was wrong")
		}
		a.q.log.Error("a job's value was wrong and is replaced by the recomputed one", "job", c.id)
	case c.why == disputed:
		a.settled.Add(1)
	}
	if before.Rungs != e.Job.Rungs {
		a.wrong.Add(1)
		a.alarm(c.id, "its kept checkpoints were wrong")
		a.q.log.Error("kept checkpoints of a job were wrong and are replaced by the recomputed ones", "job", c.id)
	}
	a.q.cache.drop(e.Job)
	a.q.cache.put(e.Job)
	a.q.mu.Lock()
	a.q.ended(&e.Job)
	a.q.mu.Unlock()
	return nil
}
