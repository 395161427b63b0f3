package lease

import (
	"container/heap"
	"fmt"
	"time"

	"workmanager/jobs"
)

// Table is the leases and the waiting jobs of one node. It is not safe for
// concurrent use; its owner holds a mutex, never over a call of the store.
type Table struct {
	boot    jobs.ID
	fence   uint64
	entries map[jobs.ID]*entry
	waiting queue
	holders map[string]map[jobs.ID]*entry // leases by worker
}

// entry is one job of the table: waiting if holder is "", else leased.
type entry struct {
	id         jobs.ID
	v1         jobs.Value
	iterations uint64
	start      jobs.Progress // where the next lease begins
	priority   uint8
	keep       uint16
	createdAt  time.Time
	attempts   uint32

	at int // index in the queue, while waiting

	holder   string
	fence    uint64
	ttl      time.Duration // 0: no deadline
	deadline time.Time
	progress jobs.Progress // as last reported under this lease
	rate     float64
	saved    time.Time // when progress was last made durable, or the grant
	durable  uint64    // the iterations that the row knows of
	before   uint64    // what it knew before the last Due

	rungs     jobs.Rungs // kept checkpoints reported to this table
	rungsFrom int        // the place of the first of them
}

// New returns an empty table whose fences carry boot.
func New(boot jobs.ID) *Table {
	return &Table{boot: boot, entries: map[jobs.ID]*entry{}, holders: map[string]map[jobs.ID]*entry{}}
}

// Add makes an open job available. It returns false, and changes nothing, if
// the table has the job already or the job has ended.
func (t *Table) Add(j jobs.Job) bool {
	if _, ok := t.entries[j.ID]; ok || j.Ended() {
		return false
	}
	e := &entry{id: j.ID, v1: j.V1, iterations: j.Iterations, start: j.Start(), durable: j.Start().Done,
		priority: j.Priority, keep: j.Keep, createdAt: j.CreatedAt, attempts: j.Attempts}
	t.entries[j.ID] = e
	heap.Push(&t.waiting, e)
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
func (t *Table) Waiting() int { return len(t.waiting) }

// Leased returns how many leases there are.
func (t *Table) Leased() int { return len(t.entries) - len(t.waiting) }

// LeasesOf returns how many leases a worker has.
func (t *Table) LeasesOf(worker string) int { return len(t.holders[worker]) }

// Grant gives the worker leases within its capacity: one if there is any, and
// more while neither the jobs nor the iterations of the capacity are used up.
// A ttl of 0 gives leases without a deadline, to workers that live and die
// with this process.
func (t *Table) Grant(now time.Time, worker string, c jobs.Capacity, ttl time.Duration) []jobs.Lease {
	if c.Jobs <= 0 || len(t.waiting) == 0 {
		return nil
	}
	leases := make([]jobs.Lease, 0, min(c.Jobs, len(t.waiting)))
	var sum uint64
	for len(leases) < c.Jobs && len(t.waiting) > 0 {
		e := t.waiting[0]
		need := e.iterations - e.start.Done
		if len(leases) > 0 && sum+need > c.Iterations {
			break
		}
		sum += need
		heap.Pop(&t.waiting)
		t.hold(now, e, worker, ttl)
		leases = append(leases, jobs.Lease{
			LeaseRef: jobs.LeaseRef{ID: e.id, Fence: jobs.Fence{Boot: t.boot, N: e.fence}},
			V1:       e.v1, Iterations: e.iterations, Start: e.start, Keep: e.keep, TTL: ttl,
		})
	}
	return leases
}

func (t *Table) hold(now time.Time, e *entry, worker string, ttl time.Duration) {
	if e.holder != "" {
		panic(fmt.Sprintf("lease: J4: job %s has two holders, %s and %s", e.id, e.holder, worker))
	}
	t.fence++
	e.holder, e.fence, e.ttl = worker, t.fence, ttl
	e.deadline, e.progress, e.rate, e.saved = now.Add(ttl), e.start, 0, now
	e.attempts++
	if t.holders[worker] == nil {
		t.holders[worker] = map[jobs.ID]*entry{}
	}
	t.holders[worker][e.id] = e
}

// held returns the entry of a lease that stands: same job, same fence.
func (t *Table) held(ref jobs.LeaseRef) *entry {
	e := t.entries[ref.ID]
	if e == nil || e.holder == "" || ref.Fence.Boot != t.boot || ref.Fence.N != e.fence {
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
	e.deadline = now.Add(e.ttl)
	if p.Done > e.progress.Done && p.Done < e.iterations {
		e.progress = p
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
// moved, and was not for the interval. It then counts as made at now.
func (t *Table) Due(now time.Time, ref jobs.LeaseRef, interval time.Duration) (jobs.Progress, bool) {
	e := t.held(ref)
	if e == nil || e.progress.Done <= e.start.Done || now.Sub(e.saved) < interval {
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

// release puts a leased job back among the waiting, from its progress.
func (t *Table) release(e *entry) {
	delete(t.holders[e.holder], e.id)
	if len(t.holders[e.holder]) == 0 {
		delete(t.holders, e.holder)
	}
	e.start, e.holder = e.progress, ""
	heap.Push(&t.waiting, e)
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
// go, in the order of their leases, and forgets them.
func (t *Table) Spare(n int, least uint64) []jobs.ID {
	var ids []jobs.ID
	var kept []*entry
	for len(ids) < n && len(t.waiting) > 0 && len(kept) < maxKept {
		e := heap.Pop(&t.waiting).(*entry) //nolint:forcetypeassert // only entries are pushed
		if e.iterations-e.start.Done < least {
			kept = append(kept, e)
			continue
		}
		ids = append(ids, e.id)
		delete(t.entries, e.id)
	}
	for _, e := range kept {
		heap.Push(&t.waiting, e)
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
		heap.Remove(&t.waiting, e.at)
	} else {
		delete(t.holders[e.holder], id)
		if len(t.holders[e.holder]) == 0 {
			delete(t.holders, e.holder)
		}
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
			sum = sum.Add(e.progress.Done - e.durable)
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
	if e.holder != "" {
		v.Leased, v.Worker, v.Rate = true, e.holder, e.rate
	}
	return v
}

// OldestWaiting returns when the oldest waiting job came in, the zero time if
// none waits. It looks at each of them.
func (t *Table) OldestWaiting() time.Time {
	var oldest time.Time
	for _, e := range t.waiting {
		if oldest.IsZero() || e.createdAt.Before(oldest) {
			oldest = e.createdAt
		}
	}
	return oldest
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

// queue is a heap of waiting entries: the most urgent first, then the oldest.
type queue []*entry

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if q[i].priority != q[j].priority {
		return q[i].priority > q[j].priority
	}
	return q[i].createdAt.Before(q[j].createdAt)
}
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}

func (q *queue) Push(x any) {
	e := x.(*entry) //nolint:forcetypeassert // only release and Add push
	e.at = len(*q)
	*q = append(*q, e)
}

func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return e
}
