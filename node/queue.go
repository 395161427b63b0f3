package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/lease"
	"workmanager/jobs/store"
)

const (
	// maxWindow bounds the jobs that wait in memory, about 300 bytes each; the
	// others wait on the disk and follow in pages. Urgent ones may double it.
	maxWindow  = 32768
	windowPage = 4096
	// workerGone is how long a worker that says nothing counts as alive.
	workerGone = 15 * time.Second
)

// Queue is the store and the leases as one: what clients enqueue, workers
// lease, and both ask. It is safe for concurrent use.
type Queue struct {
	node       string
	store      *store.Store
	now        func() time.Time
	log        *slog.Logger
	cache      *cache
	watch      watch
	meter      meter
	checkpoint time.Duration

	stopping chan struct{} // closed by stop: waits end
	stopOnce sync.Once
	refill   chan struct{} // capacity 1: the window wants a page

	mu      sync.Mutex // guards the rest; never held over a call of the store
	table   *lease.Table
	workers map[string]*seen
	wake    chan struct{} // closed when a job becomes available, nil if nobody waits
	place   store.Place   // the end of the window
	behind  bool          // open jobs may wait on the disk behind place
	missed  uint64        // counts jobs left to the disk
	rescan  bool          // one of them is more urgent than place

	alarms atomic.Int64
}

// seen is when a worker last called, and what it said of itself.
type seen struct {
	worker jobs.Worker
	at     time.Time
}

// newQueue returns a queue over s. The window is filled by the first steps.
func newQueue(cfg Config, s *store.Store, now func() time.Time, log *slog.Logger, c *cache) *Queue {
	return &Queue{
		node: cfg.Name, store: s, now: now, log: log, cache: c, checkpoint: cfg.CheckpointInterval,
		stopping: make(chan struct{}), refill: make(chan struct{}, 1),
		table: lease.New(s.Boot()), workers: map[string]*seen{}, behind: true,
	}
}

// alone is what a node without a peer can promise.
var alone = jobs.Durability{Reason: "no peer configured"}

// refuseBoth answers ack=both before anything is written.
func refuseBoth(ack jobs.Ack) error {
	if ack != jobs.AckBoth {
		return nil
	}
	return jobs.Errorf(jobs.CodeUnavailable, "ack=both cannot be kept: %s; nothing was written, leave ack out to accept one disk", alone.Reason).Retry(10 * time.Second)
}

// Enqueue makes the jobs durable. See web.Queue.
func (q *Queue) Enqueue(ctx context.Context, batch []jobs.Job, ack jobs.Ack) ([]jobs.Outcome, error) {
	if err := refuseBoth(ack); err != nil {
		return nil, err
	}
	subs := make([]store.Submission, len(batch))
	for i, j := range batch {
		subs[i] = store.Submission{Job: j, Known: q.cache.get(j.V1, j.Iterations)}
	}
	out, err := q.store.Enqueue(ctx, subs)
	if err != nil {
		return nil, err
	}
	for i := range out {
		out[i].Durability = alone
	}
	q.add(out)
	return out, nil
}

// add takes new jobs into the window, or leaves them to the disk if it is full.
func (q *Queue) add(out []jobs.Outcome) {
	q.mu.Lock()
	defer q.mu.Unlock()
	added, fresh, done := 0, 0, 0
	for i := range out {
		o := &out[i]
		if o.Err != nil || o.Existed {
			continue
		}
		fresh++
		if o.Job.Ended() {
			done++
			continue
		}
		room := maxWindow
		if o.Job.Priority > 0 {
			room *= 2
		}
		if q.table.Waiting() >= room || q.behind && o.Job.Priority == 0 {
			q.leave(o.Job)
		} else if q.table.Add(o.Job) {
			added++
		}
	}
	q.meter.enqueued.Add(int64(fresh))
	q.meter.completed.Add(int64(done))
	q.available(added)
}

// leave notes that an open job waits on the disk. If the window has gone past
// its priority it is read again from the top.
func (q *Queue) leave(j jobs.Job) {
	q.behind = true
	q.missed++
	q.rescan = q.rescan || j.Priority > 0
}

// available wakes the workers that wait, if n jobs came in.
func (q *Queue) available(n int) {
	if n > 0 && q.wake != nil {
		close(q.wake)
		q.wake = nil
	}
}

// Lease gives a worker jobs. See worker.Source.
func (q *Queue) Lease(ctx context.Context, w jobs.Worker, c jobs.Capacity) ([]jobs.Lease, error) {
	var timeout <-chan time.Time
	if c.Wait > 0 {
		t := time.NewTimer(min(c.Wait, jobs.MaxWait))
		defer t.Stop()
		timeout = t.C
	}
	for {
		leases, more := q.grant(w, c)
		if len(leases) > 0 || c.Wait <= 0 {
			return leases, nil
		}
		select {
		case <-more:
		case <-timeout:
			return nil, nil
		case <-ctx.Done():
			return nil, nil
		case <-q.stopping:
			return nil, nil
		}
	}
}

// grant gives what there is, and the channel that tells of more.
func (q *Queue) grant(w jobs.Worker, c jobs.Capacity) ([]jobs.Lease, <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	q.saw(now, w)
	leases := q.table.Grant(now, w.Name, c, 0) // in this process: the lease lives as long as the worker
	if q.behind && q.table.Waiting() < maxWindow/2 {
		q.wantPage()
	}
	if len(leases) > 0 {
		return leases, nil
	}
	if q.wake == nil {
		q.wake = make(chan struct{})
	}
	return nil, q.wake
}

func (q *Queue) saw(now time.Time, w jobs.Worker) {
	if s := q.workers[w.Name]; s != nil {
		s.worker, s.at = w, now
		return
	}
	q.workers[w.Name] = &seen{worker: w, at: now}
}

func (q *Queue) wantPage() {
	select {
	case q.refill <- struct{}{}:
	default: // asked for already
	}
}

// fillWindow reads pages of waiting jobs until the window is full or nothing
// is left on the disk. While jobs come in faster than the end can be told from
// the middle, it lets new ones into the window first and then reads the rest:
// some are met twice, none is missed.
func (q *Queue) fillWindow(ctx context.Context) error {
	closing := false
	for {
		q.mu.Lock()
		if q.rescan {
			q.place, q.rescan = store.Place{}, false
		}
		place, missed, want := q.place, q.missed, q.behind && q.table.Waiting() < maxWindow
		if closing {
			q.behind = false
		}
		q.mu.Unlock()
		if !want {
			return nil
		}
		page, end, err := q.store.Open(ctx, q.node, place, windowPage)
		q.mu.Lock()
		if err != nil {
			q.behind = true
			q.mu.Unlock()
			return fmt.Errorf("read waiting jobs: %w", err)
		}
		added := 0
		for _, j := range page {
			if q.table.Add(j) {
				added++
			}
		}
		q.place = end
		switch whole := len(page) < windowPage; {
		case !whole:
			q.behind, closing = true, false
		case missed == q.missed:
			q.behind = false
		default:
			closing = true // a job was left to the disk while the page was read
		}
		q.available(added)
		q.mu.Unlock()
	}
}

// step expires leases: each has lost a worker that said nothing. It returns
// what the store says of that.
func (q *Queue) step(ctx context.Context, now time.Time) error {
	q.mu.Lock()
	lost := q.table.Expire(now)
	for name, s := range q.workers {
		if now.Sub(s.at) > workerGone && q.table.LeasesOf(name) == 0 {
			delete(q.workers, name)
		}
	}
	q.available(len(lost))
	q.mu.Unlock()
	if len(lost) == 0 {
		return nil
	}
	facts := make([]store.Fact, len(lost))
	for i, id := range lost {
		facts[i] = store.Fact{ID: id, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Lose(at()) }}
	}
	effects, err := q.store.Apply(ctx, facts)
	if err != nil {
		return fmt.Errorf("note lost workers: %w", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, e := range effects {
		if e.Job.Ended() {
			q.table.Remove(lost[i])
		}
	}
	return nil
}

// Cancel withdraws jobs, and erases them with purge. See web.Queue.
func (q *Queue) Cancel(ctx context.Context, ids []jobs.ID, purge bool, ack jobs.Ack) ([]jobs.Outcome, error) {
	if err := refuseBoth(ack); err != nil {
		return nil, err
	}
	before := make([]jobs.Job, len(ids))
	facts := make([]store.Fact, len(ids))
	for i, id := range ids {
		facts[i] = store.Fact{ID: id, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) {
			before[i] = j
			if purge {
				return j.Purge(at())
			}
			return j.Cancel(at())
		}}
	}
	effects, err := q.store.Apply(ctx, facts)
	if err != nil {
		return nil, err
	}
	out := make([]jobs.Outcome, len(ids))
	q.mu.Lock()
	for i, e := range effects {
		out[i] = jobs.Outcome{Job: e.Job, Existed: e.Found, Durability: alone}
		if !e.Found {
			out[i].Err = notFound(ids[i])
			continue
		}
		q.table.Remove(ids[i])
	}
	q.mu.Unlock()
	if purge {
		for _, j := range before {
			q.cache.drop(j.V1, j.Iterations)
		}
	}
	return out, nil
}

func notFound(id jobs.ID) error {
	return jobs.Errorf(jobs.CodeNotFound, "no job %s: it was never here, or retention has dropped it", id)
}

// Consume hands out results, each once. See web.Queue.
func (q *Queue) Consume(ctx context.Context, top int, key string) ([]jobs.Result, error) {
	return q.store.Consume(ctx, top, key)
}

// stop ends every wait; what comes in is still served.
func (q *Queue) stop() { q.stopOnce.Do(func() { close(q.stopping) }) }
