package lease

import (
	"fmt"
	"math"
	"time"

	"workmanager/jobs"
)

// Table is the leases and the waiting jobs of one node. It is not safe for
// concurrent use; its owner holds a mutex, never over a call of the store.
type Table struct {
	boot    jobs.ID
	fence   uint64
	entries map[jobs.ID]*entry
	waiting order
	busy    jobs.Work                     // iterations left to do under leases, as last reported
	holders map[string]map[jobs.ID]*entry // leases by worker
	left    map[string]jobs.Work          // busy by worker, of those that have leases
	live    map[string]struct{}           // the workers that may take leases
	sweeps  map[string]sweep              // where searches go on, by worker
}

// entry is one job of the table: waiting if holder is "", else leased.
type entry struct {
	id         jobs.ID
	v1         jobs.Value
	iterations uint64
	start      jobs.Progress // where the next lease begins
	priority   uint8
	pardoned   bool // since the lease was last renewed
	adopted    bool // the holder began elsewhere, and perhaps not at start
	away       bool // the job is another node's, and goes with its lease
	keep       uint16
	createdAt  int64 // microseconds
	attempts   uint32
	restarts   uint32 // of the row, and those that it is still to be told of
	past       *past  // nil if there is nothing to remember

	at, far int32 // places in the two heaps of its line, while waiting; far is -1 if it is not long

	holder   string
	fence    jobs.Fence
	ttl      time.Duration // 0: no deadline
	deadline time.Time
	progress jobs.Progress // as last reported under this lease
	moved    time.Time     // when that last went on, or the grant
	rate     float64
	saved    time.Time // when progress was last made durable, or the grant
	durable  uint64    // the iterations that the row knows of
	before   uint64    // what it knew before the last Due

	rungs     jobs.Rungs // kept checkpoints reported to this table
	rungsFrom int        // the place of the first of them
}

// New returns an empty table whose fences carry boot.
func New(boot jobs.ID) *Table {
	return &Table{boot: boot, entries: map[jobs.ID]*entry{}, holders: map[string]map[jobs.ID]*entry{}, left: map[string]jobs.Work{},
		live: map[string]struct{}{}, sweeps: map[string]sweep{}, waiting: order{lanes: 1}}
}

// Expect tells how many lanes compute for this table, and how many iterations
// wait elsewhere for their place in it: with them it knows which chain decides
// when all is done.
func (t *Table) Expect(lanes int, more jobs.Work) {
	t.waiting.lanes, t.waiting.more = float64(max(lanes, 1)), more
}

// Decides reports whether a job, if it were added, might come to decide when
// all is done: it has a quarter of what that takes now.
func (t *Table) Decides(j jobs.Job) bool {
	o := &t.waiting
	n := j.Remaining()
	return n >= long && 4*float64(n)*o.lanes >= t.Remaining().Plus(o.more).Float()
}

// Remaining returns the iterations left to do of the jobs in the table.
func (t *Table) Remaining() jobs.Work {
	sum := t.busy
	for i := range t.waiting.lines {
		sum = sum.Plus(t.waiting.lines[i].work)
	}
	return sum
}

// WaitingBy returns the highest priority at which a job waits, -1 if none does,
// and for each priority how many wait.
func (t *Table) WaitingBy() (top int, by [jobs.MaxPriority + 1]int) {
	top = -1
	for p := range by {
		if by[p] = len(t.waiting.lines[p].turns); by[p] > 0 {
			top = p
		}
	}
	return top, by
}

// Add makes an open job available. It returns false if the table has the job
// already, which then stays even if it was let go, or if the job has ended.
func (t *Table) Add(j jobs.Job) bool {
	if j.Ended() {
		return false
	}
	if e := t.entries[j.ID]; e != nil {
		e.away = false
		return false
	}
	e := &entry{id: j.ID, v1: j.V1, iterations: j.Iterations, start: j.Start(), durable: j.Start().Done,
		priority: j.Priority, keep: j.Keep, createdAt: j.CreatedAt.UnixMicro(), attempts: j.Attempts, restarts: j.Restarts}
	if j.Restarts > 0 { // who computes it since before that is not known here
		e.past = &past{anew: true}
	}
	t.entries[j.ID] = e
	t.waiting.push(e)
	return true
}

// Has reports whether the table knows the job.
func (t *Table) Has(id jobs.ID) bool {
	_, ok := t.entries[id]
	return ok
}

// Knows reports whether the table has the job as the work that it is in j.
func (t *Table) Knows(j jobs.Job) bool {
	e := t.entries[j.ID]
	return e != nil && e.v1 == j.V1 && e.iterations == j.Iterations
}

// Waits reports whether the table has the job and nobody holds it.
func (t *Table) Waits(id jobs.ID) bool {
	e := t.entries[id]
	return e != nil && e.holder == ""
}

// Waiting returns how many jobs may be given, Leased how many are.
func (t *Table) Waiting() int { return t.waiting.n }

// Leased returns how many leases there are.
func (t *Table) Leased() int { return len(t.entries) - t.waiting.n }

// LeasesOf returns how many leases a worker has.
func (t *Table) LeasesOf(worker string) int { return len(t.holders[worker]) }

// LeftOf returns the iterations left to do under a worker's leases, as last reported.
func (t *Table) LeftOf(worker string) jobs.Work { return t.left[worker] }

// advanced takes n iterations off what is left to do under e's lease.
func (t *Table) advanced(e *entry, n uint64) {
	t.busy = t.busy.Sub(n)
	t.left[e.holder] = t.left[e.holder].Sub(n)
}

// Grant gives the worker leases within its capacity: one if there is any, and
// more while neither the jobs nor the iterations of the capacity are used up.
// A ttl of 0 gives leases without a deadline, to workers that live and die
// with this process.
func (t *Table) Grant(now time.Time, worker string, c jobs.Capacity, ttl time.Duration) []jobs.Lease {
	if c.Jobs <= 0 || t.waiting.n == 0 {
		t.searched(worker, nil)
		return nil
	}
	leases := make([]jobs.Lease, 0, min(c.Jobs, t.waiting.n))
	var sum uint64
	var aside []*entry // what this worker leaves to others
	var search *search // once there are too many of them
	for len(leases) < c.Jobs && t.waiting.n > 0 {
		var e *entry
		if len(aside) < maxAside {
			if e = t.waiting.first(t.busy); t.shuns(now, e, worker) {
				t.waiting.remove(e)
				aside = append(aside, e)
				continue
			}
		} else {
			if search == nil {
				search = t.search(worker)
			}
			if e = search.next(now); e == nil {
				break
			}
		}
		need := e.need()
		if len(leases) > 0 && sum+need > c.Iterations {
			break
		}
		sum += need
		t.waiting.give(e)
		t.fence++
		t.hold(now, e, worker, ttl, jobs.Fence{Boot: t.boot, N: t.fence})
		leases = append(leases, jobs.Lease{
			LeaseRef: jobs.LeaseRef{ID: e.id, Fence: e.fence},
			V1:       e.v1, Iterations: e.iterations, Start: e.start, Keep: e.keep, TTL: ttl,
		})
	}
	for _, e := range aside {
		t.waiting.push(e)
	}
	if len(leases) > 0 {
		search = nil
	}
	t.searched(worker, search)
	return leases
}

// maxAside bounds the jobs that one Grant takes out of their order and puts back,
// since the worker leaves them to others. After those it searches.
const maxAside = 64

// Adopt gives a waiting job to the worker under the fence that it has already,
// of a boot whose leases are void: so its work goes on. It returns false, and
// changes nothing, if the job does not wait, or was taken back: the worker may
// have begun at what is not trusted. Nor does a worker get back by this what it
// is to leave to others: one that stalls would have it again with its next word.
// From where it computes is not known: not from where the job begins here, if
// that is of the row.
func (t *Table) Adopt(now time.Time, ref jobs.LeaseRef, worker string, ttl time.Duration) bool {
	e := t.entries[ref.ID]
	if e == nil || e.holder != "" || e.past != nil && e.past.anew || t.shuns(now, e, worker) {
		return false
	}
	t.waiting.remove(e)
	t.hold(now, e, worker, ttl, ref.Fence)
	e.adopted = true
	return true
}

// Further takes in the checkpoint of a job's row, if it is further than what
// the table knows: it was reported to the other node. A lease that stands goes
// on from its holder's own word, and the next begins at the row's. If the row
// was taken back since, so is the job here, and its lease ends. It returns true
// if the job began to wait.
func (t *Table) Further(j jobs.Job) bool {
	e := t.entries[j.ID]
	if e == nil || j.Ended() || j.V1 != e.v1 || j.Checkpoint.Done >= e.iterations || j.Restarts < e.restarts {
		return false // what was taken back stays there
	}
	if j.Restarts > e.restarts {
		e.restarts = j.Restarts
		t.takeBack(e, 0, j.Start())
		return true
	}
	if e.holder == "" && j.Checkpoint.Done > e.start.Done {
		t.waiting.remove(e)
		e.start, e.durable = j.Checkpoint, j.Checkpoint.Done
		t.waiting.push(e)
	} else if e.holder != "" && j.Checkpoint.Done > max(e.progress.Done, e.beside()) {
		e.noted().beside, e.durable = j.Checkpoint, j.Checkpoint.Done
	}
	return false
}

// Pardon pushes the deadlines of all leases out, as if each had been renewed
// at now: for when nobody could have renewed one, since this process slept. A
// lease is pardoned once between two renewals: if this process is slow, and seems
// to sleep all the time, those of dead workers end all the same.
func (t *Table) Pardon(now time.Time) {
	for _, held := range t.holders {
		for _, e := range held {
			if !e.pardoned {
				e.deadline, e.pardoned, e.moved = now.Add(e.ttl), true, now
			}
		}
	}
}

func (t *Table) hold(now time.Time, e *entry, worker string, ttl time.Duration, fence jobs.Fence) {
	if e.holder != "" {
		panic(fmt.Sprintf("lease: J4: job %s has two holders, %s and %s", e.id, e.holder, worker))
	}
	t.busy = t.busy.Add(e.need())
	t.left[worker] = t.left[worker].Add(e.need())
	e.holder, e.fence, e.ttl = worker, fence, ttl
	e.deadline, e.pardoned, e.progress, e.rate, e.saved = now.Add(ttl), false, e.start, 0, now
	e.moved, e.adopted = now, false
	e.attempts++
	if t.holders[worker] == nil {
		t.holders[worker] = map[jobs.ID]*entry{}
	}
	t.holders[worker][e.id] = e
}

// held returns the entry of a lease that stands: same job, same fence.
func (t *Table) held(ref jobs.LeaseRef) *entry {
	e := t.entries[ref.ID]
	if e == nil || e.holder == "" || ref.Fence != e.fence {
		return nil
	}
	return e
}

// Renew takes a worker's progress under a lease and pushes its deadline out.
// It returns false if the lease is lost: given to another, ended, or of
// another boot. Progress that goes back, or past the job's end, renews the
// lease and is not believed.
func (t *Table) Renew(now time.Time, ref jobs.LeaseRef, p jobs.Progress, rate float64) bool {
	e := t.held(ref)
	if e == nil {
		return false
	}
	e.deadline, e.pardoned = now.Add(e.ttl), false
	if p.Done > e.progress.Done && p.Done < e.iterations {
		t.advanced(e, p.Done-e.progress.Done)
		e.progress, e.moved = p, now
	}
	e.rate = rate
	return true
}

// Keep takes kept checkpoints reported under a lease, of which the first is the
// from-th: those that follow what the table has, and that its progress has
// passed. They stay until the job leaves the table.
func (t *Table) Keep(ref jobs.LeaseRef, from int, r jobs.Rungs) {
	e := t.held(ref)
	if e == nil || e.keep == 0 || len(r) == 0 || from < 0 {
		return
	}
	if len(e.rungs) == 0 {
		e.rungsFrom = from
	}
	end := e.rungsFrom + e.rungs.Len()
	if from <= end {
		most := jobs.RungsBy(e.iterations, int(e.keep), e.progress.Done)
		e.rungs += r.From(end - from).First(most - end)
	}
}

// Kept returns the kept checkpoints reported to this table, and the place of
// the first of them.
func (t *Table) Kept(id jobs.ID) (from int, r jobs.Rungs) {
	if e := t.entries[id]; e != nil {
		return e.rungsFrom, e.rungs
	}
	return 0, ""
}

// Holds reports whether a lease stands.
func (t *Table) Holds(ref jobs.LeaseRef) bool { return t.held(ref) != nil }

// Due reports whether the progress of a lease should be made durable: it has
// moved, beyond what the row knows, and was not for the interval. It then counts
// as made at now.
func (t *Table) Due(now time.Time, ref jobs.LeaseRef, interval time.Duration) (jobs.Progress, bool) {
	e := t.held(ref)
	if e == nil || e.progress.Done <= max(e.start.Done, e.beside()) || now.Sub(e.saved) < interval {
		return jobs.Progress{}, false
	}
	e.saved, e.durable, e.before = now, e.progress.Done, e.durable
	return e.progress, true
}

// NotSaved takes back what Due said: the progress could not be made durable.
func (t *Table) NotSaved(ref jobs.LeaseRef) {
	if e := t.held(ref); e != nil {
		e.saved, e.durable = time.Time{}, e.before
	}
}

// HandBack ends a lease early; the job waits again, from its progress.
// It returns false if the lease is lost.
func (t *Table) HandBack(ref jobs.LeaseRef) bool {
	e := t.held(ref)
	if e == nil {
		return false
	}
	t.release(e)
	return true
}

// LetGo says that a leased job is another node's now, and that its worker may go
// on with it: when the lease ends the table forgets the job.
func (t *Table) LetGo(id jobs.ID) {
	if e := t.entries[id]; e != nil {
		e.away = e.holder != ""
	}
}

// release puts a leased job back among the waiting, from its progress, or from
// what the row says beyond that.
func (t *Table) release(e *entry) {
	e.claim()
	holder := e.holder
	t.letGo(e)
	e.start = e.progress
	e.takeBeside(holder)
	t.waits(e)
}

// waits puts a job that nobody holds any more among the waiting, or forgets it
// with its lease, if it was let go.
func (t *Table) waits(e *entry) {
	if e.away {
		delete(t.entries, e.id)
		return
	}
	t.waiting.push(e)
}

// letGo takes a job from its holder.
func (t *Table) letGo(e *entry) {
	t.advanced(e, e.iterations-e.progress.Done)
	delete(t.holders[e.holder], e.id)
	if len(t.holders[e.holder]) == 0 {
		delete(t.holders, e.holder)
		delete(t.left, e.holder)
	}
	e.holder = ""
}

// Expire ends the leases whose deadline has passed; their jobs wait again. It
// returns the jobs, each of which has lost a worker that said nothing.
func (t *Table) Expire(now time.Time) []jobs.ID {
	var lost []jobs.ID
	for _, held := range t.holders {
		for _, e := range held {
			if e.ttl > 0 && e.deadline.Before(now) {
				lost = append(lost, e.id)
			}
		}
	}
	for _, id := range lost {
		t.release(t.entries[id])
	}
	return lost
}

// Spare returns up to n waiting jobs that have at least so many iterations to
// go, and forgets them: those whose turn is next, and where too many before
// them are smaller, the longest.
func (t *Table) Spare(n int, least uint64) []jobs.ID {
	var ids []jobs.ID
	var kept []*entry
	spare := func(e *entry) {
		t.waiting.remove(e)
		ids = append(ids, e.id)
		delete(t.entries, e.id)
	}
	for p := len(t.waiting.lines) - 1; p >= 0; p-- {
		l := &t.waiting.lines[p]
		for len(ids) < n && len(l.turns) > 0 && len(kept) < maxKept {
			if e := l.turns[0].e; e.need() < least || e.past != nil && e.past.anew { // its row must not be gone on from
				t.waiting.remove(e)
				kept = append(kept, e)
			} else {
				spare(e)
			}
		}
		for len(ids) < n && len(l.longs) > 0 && len(kept) < 2*maxKept {
			if e := l.longs[0]; e.past != nil && e.past.anew {
				t.waiting.remove(e)
				kept = append(kept, e)
			} else {
				spare(e)
			}
		}
	}
	for _, e := range kept {
		t.waiting.push(e)
	}
	return ids
}

// maxKept bounds the jobs that Spare passes over.
const maxKept = 4096

// Holder returns who has the job and how far it is, "" if nobody has.
func (t *Table) Holder(id jobs.ID) (worker string, done, iterations uint64) {
	if e := t.entries[id]; e != nil && e.holder != "" {
		return e.holder, e.progress.Done, e.iterations
	}
	return "", 0, 0
}

// Remove forgets a job that has ended or has gone to another home.
func (t *Table) Remove(id jobs.ID) {
	e := t.entries[id]
	if e == nil {
		return
	}
	if e.holder == "" {
		t.waiting.remove(e)
	} else {
		t.letGo(e)
	}
	delete(t.entries, id)
}

// Attempts returns the leases that a job has had, 0 if it is not known.
func (t *Table) Attempts(id jobs.ID) uint32 {
	if e := t.entries[id]; e != nil {
		return e.attempts
	}
	return 0
}

// Done returns the iterations done of a job as last reported, 0 if it is not known.
func (t *Table) Done(id jobs.ID) uint64 {
	if e := t.entries[id]; e != nil {
		if e.holder != "" {
			return e.progress.Done
		}
		return e.start.Done
	}
	return 0
}

// Unsaved returns the iterations that are done, as last reported, and that no
// row knows of yet. It looks at each lease.
func (t *Table) Unsaved() jobs.Work {
	var sum jobs.Work
	for _, held := range t.holders {
		for _, e := range held {
			if e.progress.Done > e.durable { // else it began anew below its checkpoint
				sum = sum.Add(e.progress.Done - e.durable)
			}
		}
	}
	return sum
}

// View adds to a job's row what the table knows of it.
func (t *Table) View(j jobs.Job) jobs.View {
	v := jobs.View{Job: j, Done: j.Start().Done}
	if j.Rank == jobs.Completed {
		v.Done = j.Iterations
	}
	e := t.entries[j.ID]
	if e == nil || j.Ended() {
		return v
	}
	v.Done, v.Attempts = max(v.Done, t.Done(j.ID)), max(v.Attempts, e.attempts)
	if e.past != nil && e.past.anew {
		v.Done = t.Done(j.ID)
	}
	if e.holder != "" {
		v.Leased, v.Worker, v.Rate = true, e.holder, e.rate
	}
	return v
}

// OldestWaiting returns when the oldest waiting job came in, the zero time if
// none waits. It looks at each of them.
func (t *Table) OldestWaiting() time.Time {
	if t.waiting.n == 0 {
		return time.Time{}
	}
	oldest := int64(math.MaxInt64)
	for i := range t.waiting.lines {
		for _, s := range t.waiting.lines[i].turns {
			oldest = min(oldest, s.e.createdAt)
		}
	}
	return time.UnixMicro(oldest).UTC()
}

// LeasedIDs returns the IDs of every leased job, in no order.
func (t *Table) LeasedIDs() []jobs.ID {
	ids := make([]jobs.ID, 0, t.Leased())
	for _, held := range t.holders {
		for id := range held {
			ids = append(ids, id)
		}
	}
	return ids
}
