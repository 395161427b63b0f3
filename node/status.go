package node

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
	"workmanager/web/api"
)

// oldestEvery is how long a look for the oldest waiting job counts: it is the
// one part of the status that is not kept at hand.
const oldestEvery = time.Second

// status makes the snapshot that the API, the page, the CLI and the metrics show.
type status struct {
	cfg       Config
	version   string
	startedAt time.Time
	queue     *Queue
	store     *store.Store
	now       func() time.Time

	mu       sync.Mutex // guards the rest
	oldest   *time.Time
	oldestAt time.Time
}

// Status returns the snapshot. It costs the same at ten jobs and at ten million.
func (s *status) Status(ctx context.Context) (api.Status, error) {
	now := s.now()
	c, disk := s.store.Counts(), s.store.Disk()
	oldest, err := s.oldestQueued(ctx, now, c)
	if err != nil {
		return api.Status{}, err
	}
	leased, unsaved, workers := s.queue.leases()
	rates := s.queue.meter.rates(now)
	st := api.Status{
		Jobs: max(c.Open-int64(leased), 0),
		Node: s.cfg.Name, Version: s.version, Boot: s.store.Boot().String(), StartedAt: s.startedAt.UTC(), Now: now.UTC(),
		Leased: min(int64(leased), c.Open), Completed: c.Completed, Failed: c.Failed, Cancelled: c.Cancelled, Pulled: c.Pulled,
		RemainingIterations: max(c.Remaining.Float()-unsaved.Float(), 0), OldestQueuedAt: oldest,
		RateIterations: rates.iterations, RateCompleted: rates.completed, RateEnqueued: rates.enqueued,
		Retention: s.cfg.Retention.String(), RetentionSecs: s.cfg.Retention.Seconds(),
		StoreBytes: disk.StoreBytes, WALBytes: disk.WALBytes, DiskFreeBytes: disk.FreeBytes, Writable: disk.Full == nil,
		Alarms:     s.queue.alarms.Load(),
		WorkerList: workers,
		Fleet:      api.FleetStatus{Kind: "none", Instances: []api.Instance{}},
		Cache: api.CacheStatus{
			Enabled: s.cfg.CacheEntries > 0, Entries: s.queue.cache.len(), Max: s.cfg.CacheEntries,
			Hits: s.queue.cache.hits.Load(), Misses: s.queue.cache.misses.Load(),
		},
	}
	st.Queued = st.Jobs
	for _, w := range workers {
		st.Workers += w.Cores
	}
	if disk.Full != nil {
		st.WriteProblem = disk.Full.Error()
	}
	return st, nil
}

// oldestQueued returns when the oldest waiting job came in, nil if none waits.
func (s *status) oldestQueued(ctx context.Context, now time.Time, c jobs.Counts) (*time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Open == 0 {
		s.oldest, s.oldestAt = nil, time.Time{}
		return nil, nil
	}
	if age := now.Sub(s.oldestAt); age >= 0 && age < oldestEvery {
		return s.oldest, nil
	}
	at, waits := s.queue.oldestWaiting()
	if !waits {
		var err error
		if at, err = s.store.Oldest(ctx, s.cfg.Name); err != nil {
			return nil, err
		}
	}
	s.oldest, s.oldestAt = nil, now
	if !at.IsZero() {
		s.oldest = &at
	}
	return s.oldest, nil
}

// oldestWaiting returns when the oldest job of the window came in. The second
// result is false if older ones may wait on the disk.
func (q *Queue) oldestWaiting() (time.Time, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.table.OldestWaiting(), !q.window.behind
}

// leases returns how many leases there are, the iterations done under them that
// are not yet durable, and the live workers by name.
func (q *Queue) leases() (int, jobs.Work, []api.WorkerStatus) {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := make([]api.WorkerStatus, 0, len(q.workers))
	for name, s := range q.workers {
		list = append(list, api.WorkerStatus{
			Name: name, Cores: max(s.worker.Cores, 1), Leases: q.table.LeasesOf(name), Rate: s.worker.Rate, SeenAt: s.at.UTC(),
		})
	}
	slices.SortFunc(list, func(a, b api.WorkerStatus) int { return cmp.Compare(a.Name, b.Name) })
	return q.table.Leased(), q.table.Unsaved(), list
}
