package node

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/lease"
	"workmanager/jobs/store"
	"workmanager/node/keys"
	peersync "workmanager/sync"
)

const (
	// workerGone is how long a worker that says nothing counts as alive.
	workerGone = 15 * time.Second
	// leaseTTL is how long a worker elsewhere may say nothing before its leases
	// end: a few of its heartbeats. A worker in this process has no such bound.
	leaseTTL = 7 * time.Second
	// maxWorkers bounds the workers known at once, about 300 bytes each.
	maxWorkers = 10_000
	// slept is the time between two steps from which on this process was not
	// there to hear of its workers.
	slept = 2 * time.Second
)

// Queue is the store and the leases as one: what clients enqueue, workers
// lease, and both ask. It is safe for concurrent use.
type Queue struct {
	node       string
	advertise  string // where the API is, host:port; "" or without a host if that is not known
	scheme     string // of both nodes: http:// or https://
	store      *store.Store
	now        func() time.Time
	log        *slog.Logger
	cache      *cache
	watch      watch
	meter      meter
	checkpoint time.Duration
	pair       *peersync.Engine
	audit      *auditor
	fleet      *fleet        // nil: there is none
	taking     chan struct{} // capacity 1: one take-over at a time
	stealAt    time.Time     // not before; the loop's
	shareAt    time.Time     // the same
	fewSince   time.Time     // since when the peer has a few jobs that wait, zero if it has not; the loop's
	shared     []jobs.ID     // taken over though there was work; the loop's
	takenOver  atomic.Int64
	lost       []loss     // not yet in the rows; the loop's
	backing    sync.Mutex // one look at backs at a time

	crossing *crossing
	between  func() // of tests: called between the store and the table

	stopping chan struct{} // closed by stop: waits end
	stopOnce sync.Once
	refill   chan struct{} // capacity 1: the window wants a page

	mu        sync.Mutex // guards the rest; never held over a call of the store
	table     *lease.Table
	workers   map[string]*seen // by their keys
	told      map[string]told  // what workers of the fleet are told, by their names
	wake      chan struct{}    // closed when a job becomes available, nil if nobody waits
	waiters   int              // calls that wait for it
	stepped   time.Time        // the last step
	stalledAt time.Time        // when leases that do not get on were last looked for
	window    window
	barred    bool       // no lease yet: the peer's jobs are not here
	backs     []takeBack // jobs that were taken back, of which their rows do not know yet

	alarms        atomic.Int64
	leasesLost    atomic.Int64
	leasesStalled atomic.Int64
}

// seen is when a worker last called, and what it said of itself.
type seen struct {
	worker   jobs.Worker
	at       time.Time
	leasedAt time.Time // when it got its first lease here
}

// newQueue returns a queue over s. The window is filled by the first steps.
func newQueue(cfg Config, s *store.Store, now func() time.Time, log *slog.Logger, c *cache, k *keys.Keys) *Queue {
	q := &Queue{
		node: cfg.Name, advertise: cfg.Advertise, store: s, now: now, log: log, cache: c, checkpoint: cfg.CheckpointInterval,
		stopping: make(chan struct{}), refill: make(chan struct{}, 1), taking: make(chan struct{}, 1),
		table: lease.New(s.Boot()), workers: map[string]*seen{},
		window: newWindow(maxWindow, windowPage), crossing: newCrossing(cfg.Name),
	}
	q.pair = peersync.New(peersync.Config{
		Node: cfg.Name, Cluster: cfg.Cluster, Join: cfg.Join, API: cfg.Advertise, Muted: cfg.GossipMuted,
		Retention: cfg.Retention, CompareInterval: cfg.CompareInterval, Now: now, Log: log,
		GossipKeys: k.Gossip(), Dial: k.Dialer(),
	}, s, q)
	c.apart = cfg.Clients == ClientsOwn
	q.scheme = "http://"
	if k != nil {
		q.scheme = "https://"
	}
	q.barred = !q.pair.MayLease()
	boot := s.Boot()
	q.audit = newAuditor(q, cfg.AuditRate, binary.BigEndian.Uint64(boot[8:]))
	return q
}

// Enqueue makes the jobs durable. See web.Queue.
func (q *Queue) Enqueue(ctx context.Context, batch []jobs.Job, ack jobs.Ack) ([]jobs.Outcome, error) {
	if err := q.refuseBoth(ack); err != nil {
		return nil, err
	}
	subs, ids := make([]store.Submission, len(batch)), make([]jobs.ID, len(batch))
	for i, j := range batch {
		subs[i], ids[i] = q.remembered(j), j.ID
	}
	w := q.pair.Expect(ids) // before the commit: the peer may confirm before that returns
	out, err := q.bring(ctx, subs)
	if err != nil {
		q.pair.Cancel(w)
		return nil, err
	}
	q.confirm(ctx, w, out, ack)
	return out, nil
}

// bring commits new jobs and enters them into the table.
func (q *Queue) bring(ctx context.Context, subs []store.Submission) ([]jobs.Outcome, error) {
	way := q.crossing.beginOf(len(subs))
	defer way.end() // after a panic too, which costs its own request only
	out, err := q.store.Enqueue(ctx, subs)
	if err == nil {
		q.add(out)
	}
	return out, err
}

// remembered is the submission of a job, with what is known of its chain. One
// that is to keep checkpoints is computed from its data on, or they would not be.
func (q *Queue) remembered(j jobs.Job) store.Submission {
	if j.Keep > 0 {
		return store.Submission{Job: j}
	}
	known := q.cache.get(j)
	if known == nil {
		if p, ok := q.cache.prefix(j); ok {
			j.Checkpoint, j.ResumedFrom = p, p.Done
		}
	}
	return store.Submission{Job: j, Known: known}
}

// add takes new jobs into the window, or leaves them to the disk if it is full.
func (q *Queue) add(out []jobs.Outcome) {
	q.lockToEnter()
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
		if !q.mayEnter(&o.Job) {
			continue
		}
		if !q.window.takes(int(o.Job.Priority), q.table.Waiting()) && !q.table.Decides(o.Job) {
			q.window.leave(int(o.Job.Priority))
		} else if q.table.Add(o.Job) {
			added++
		}
	}
	q.meter.came(fresh, incoming(out))
	q.meter.completed.Add(int64(done))
	q.available(added)
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
	var by time.Time
	if c.Wait > 0 {
		wait := min(c.Wait, jobs.MaxWait)
		t := time.NewTimer(wait)
		defer t.Stop()
		timeout, by = t.C, time.Now().Add(wait)
	}
	for {
		if err := q.admit(w); err != nil {
			return nil, err
		}
		if q.rest(ctx, w, timeout) {
			return nil, nil
		}
		leases, more := q.grant(w, c)
		if len(leases) > 0 {
			return q.received(ctx, w, leases), nil
		}
		if more == nil { // it is quarantined, or was until just now
			if lifted := q.audit.isBarred(w); lifted == nil || q.sit(ctx, timeout, lifted) {
				continue
			}
			return nil, nil
		}
		if taken, err := q.takeOver(ctx, c, by); err != nil {
			return nil, err
		} else if len(taken) > 0 {
			continue
		}
		if c.Wait <= 0 {
			return nil, nil
		}
		q.waits(1)
		over := false
		select {
		case <-more:
		case <-timeout:
			over = true
		case <-ctx.Done():
			over = true
		case <-q.stopping:
			over = true
		}
		q.waits(-1)
		if over {
			return nil, nil
		}
	}
}

// waits counts the calls that wait for a job.
func (q *Queue) waits(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiters += n
}

// sit lets a worker wait that gets nothing, so that it does not ask all the time.
// It reports whether some quarantine was lifted meanwhile.
func (q *Queue) sit(ctx context.Context, timeout <-chan time.Time, lifted <-chan struct{}) bool {
	if timeout == nil {
		return false
	}
	select {
	case <-lifted:
		return true
	case <-timeout:
	case <-ctx.Done():
	case <-q.stopping:
	}
	return false
}

// grant gives what there is, and the channel that tells of more: nil for a worker
// that is quarantined.
func (q *Queue) grant(w jobs.Worker, c jobs.Capacity) ([]jobs.Lease, <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	if q.audit.isBarred(w) != nil {
		return nil, nil
	}
	q.saw(now, w)
	if drains, _ := q.drains(&w); q.barred || drains {
		c.Jobs = 0
	}
	leases := q.table.Grant(now, w.Key(), c, ttlOf(w))
	if q.window.behind && q.table.Waiting() < q.window.size/2 {
		q.wantPage()
	}
	if len(leases) > 0 {
		if s := q.workers[w.Key()]; s.leasedAt.IsZero() {
			s.leasedAt = now
		}
		return leases, nil
	}
	if q.table.Searches(w.Key()) { // others may have the lock before it goes on
		return nil, atOnce
	}
	if q.wake == nil {
		q.wake = make(chan struct{})
	}
	return nil, q.wake
}

// atOnce tells of more without a wait.
var atOnce = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func (q *Queue) saw(now time.Time, w jobs.Worker) {
	if s := q.workers[w.Key()]; s != nil {
		s.worker, s.at = w, now
		return
	}
	q.table.Live(w.Key())
	q.workers[w.Key()] = &seen{worker: w, at: now}
}

// wantPage asks the loop to fill the window.
func (q *Queue) wantPage() {
	select {
	case q.refill <- struct{}{}:
	default: // asked for already
	}
}

// step expires leases: each has lost a worker that said nothing. It returns
// what the store says of that.
func (q *Queue) step(ctx context.Context, now time.Time) error {
	open := q.store.CountsOf(q.node)
	q.mu.Lock()
	if !q.stepped.IsZero() && now.Sub(q.stepped) > slept {
		q.table.Pardon(now)
	}
	q.stepped = now
	lost := q.table.Expire(now)
	q.leasesLost.Add(int64(len(lost)))
	for _, id := range lost {
		if !q.table.Has(id) { // the peer's: it leases it
			continue
		}
		restarts, _ := q.table.Restarts(id)
		q.lost = append(q.lost, loss{q.table.Work(id), q.table.Attempts(id), restarts})
	}
	stalled := q.stall(now)
	q.outlook(open.Remaining)
	q.lookForMissed(now)
	for key, s := range q.workers {
		if now.Sub(s.at) > workerGone && q.table.LeasesOf(key) == 0 {
			delete(q.workers, key)
			q.table.Gone(key)
		}
	}
	q.available(len(lost) + stalled)
	if q.window.behind && q.table.Waiting() < q.window.size/2 { // also where no worker asks: the peer's may
		q.wantPage()
	}
	q.mu.Unlock()
	return errors.Join(q.noteLost(ctx), q.noteBacks(ctx), q.audit.save(ctx))
}

// stallInterval is how often leases are looked for that do not get on.
const stallInterval = 5 * time.Second

// stall ends such leases, and returns how many. q.mu is held.
func (q *Queue) stall(now time.Time) int {
	if now.Sub(q.stalledAt).Abs() < stallInterval {
		return 0
	}
	q.stalledAt = now
	n := 0
	for worker, s := range q.table.Stall(now) {
		n += s.Jobs
		if s.News > 0 { // where there is no other worker the same jobs come back each minute
			q.log.Warn("a worker renews leases of jobs that it does not bring on: they wait again, for others", "worker", worker, "jobs", s.News)
		}
	}
	q.leasesStalled.Add(int64(n))
	return n
}

// Cancel withdraws jobs, and erases them with purge. See web.Queue.
func (q *Queue) Cancel(ctx context.Context, ids []jobs.ID, purge bool, ack jobs.Ack) ([]jobs.Outcome, error) {
	if err := q.refuseBoth(ack); err != nil {
		return nil, err
	}
	before := make([]jobs.Job, len(ids))
	facts := make([]store.Fact, len(ids))
	foreign := make([]bool, len(ids)) // there, and not to be told of
	q.mu.Lock()
	for i, id := range ids {
		attempts := q.table.Attempts(id)
		facts[i] = store.Fact{ID: id, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) {
			if foreign[i] = !jobs.Sees(ctx, j); foreign[i] {
				return j, false
			}
			before[i] = j
			j.Attempts = max(j.Attempts, attempts)
			if purge {
				return j.Purge(at())
			}
			return j.Cancel(at())
		}}
	}
	q.mu.Unlock()
	w := q.pair.Expect(ids)
	effects, err := q.store.Record(ctx, facts)
	if err != nil {
		q.pair.Cancel(w)
		return nil, err
	}
	out := make([]jobs.Outcome, len(ids))
	q.mu.Lock()
	for i, e := range effects {
		if e.Found = e.Found && !foreign[i]; !e.Found {
			effects[i] = store.Effect{}
			continue
		}
		out[i] = jobs.Outcome{Job: e.Job, Existed: true, LSeq: e.LSeq}
		q.ended(&e.Job)
	}
	q.mu.Unlock()
	for i := range out {
		if !effects[i].Found {
			out[i].Err = q.notHere(ctx, ids[i])
		}
	}
	if purge {
		for _, j := range before {
			q.cache.drop(j)
		}
	}
	q.confirm(ctx, w, out, ack)
	return out, nil
}

// notHere says why a job that is not here cannot be withdrawn here: it may be
// on its way.
func (q *Queue) notHere(ctx context.Context, id jobs.ID) error {
	if !q.pair.Paired() {
		return notFound(id)
	}
	v, there, err := q.pair.Find(ctx, id)
	switch {
	case there && jobs.Sees(ctx, v.Job):
		return jobs.Errorf(jobs.CodeUnavailable, "job %s is on the peer and not here yet: try again, or there", id).Retry(time.Second)
	case err != nil && !q.pair.Whole():
		return jobs.Errorf(jobs.CodeUnavailable, "no job %s here, but not all of the peer's jobs are here yet and it does not answer; try again", id).Retry(time.Second)
	}
	return notFound(id)
}

func notFound(id jobs.ID) error {
	return jobs.Errorf(jobs.CodeNotFound, "no job %s: it was never here, or retention has dropped it", id)
}

// stop ends every wait; what comes in is still served.
func (q *Queue) stop() { q.stopOnce.Do(func() { close(q.stopping) }) }
