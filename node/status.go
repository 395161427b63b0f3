package node

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"slices"
	"sync"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
	"workmanager/node/keys"
	"workmanager/web/api"
)

// oldestEvery is how long a look for the oldest waiting job counts: it is the
// one part of the status that is not kept at hand.
const oldestEvery = time.Second

// status makes the snapshot that the API, the page, the CLI and the metrics show.
type status struct {
	cfg       Config
	signing   ed25519.PrivateKey
	version   string
	startedAt time.Time
	queue     *Queue
	store     *store.Store
	now       func() time.Time
	keys      *keys.Keys // nil: no certificate
	fleet     *fleet     // nil: none
	history   *history

	mu         sync.Mutex // guards the rest
	oldest     *time.Time
	oldestAt   time.Time
	failures   api.Failures
	failuresOf int64     // how many jobs had failed then
	failuresAt time.Time // zero: never looked
}

// Status returns the snapshot. It costs the same at ten jobs and at ten million.
func (s *status) Status(ctx context.Context) (api.Status, error) {
	now := s.now()
	c, disk := s.store.Counts(), s.store.Disk()
	peer := s.peer()
	oldest, err := s.oldestQueued(ctx, now, c, peer)
	if err != nil {
		return api.Status{}, err
	}
	failures, err := s.failed(ctx, now, c.Failed)
	if err != nil {
		return api.Status{}, err
	}
	leased, unsaved, workers := s.queue.leases()
	rates := s.queue.meter.rates(now)
	// Both nodes have all rows, and each says how many of its own are leased: so
	// both give the same figures once they are in step.
	here := max(c.Open-s.store.CountsOf(peer.Node).Open, 0)
	mine := min(int64(leased), here)
	st := api.Status{
		Jobs: here - mine + peer.Waiting,
		Node: s.cfg.Name, Version: s.version, Boot: s.store.Boot().String(), StartedAt: s.startedAt.UTC(), Now: now.UTC(),
		ReceiptKey: hex.EncodeToString(s.signing.Public().(ed25519.PublicKey)), //nolint:forcetypeassert // as crypto/ed25519 says
		Leased:     mine + peer.Leased, Completed: c.Completed, Failed: c.Failed, Cancelled: c.Cancelled, Pulled: c.Pulled,
		RemainingIterations: max(c.Remaining.Float()-unsaved.Float(), 0), OldestQueuedAt: oldest,
		RateIterations: rates.iterations, RateCompleted: rates.completed, RateEnqueued: rates.enqueued,
		Retention: s.cfg.Retention.String(), RetentionSecs: s.cfg.Retention.Seconds(),
		StoreBytes: disk.StoreBytes, WALBytes: disk.WALBytes, DiskFreeBytes: disk.FreeBytes, Writable: disk.Full == nil,
		Alarms:     s.queue.alarms.Load() + s.store.Disagreements(),
		WorkerList: workers,
		Audit:      s.queue.audit.status(),
		Fleet:      s.fleet.status(statusDecisions),
		Clients:    s.clients(),
		Cache: api.CacheStatus{
			Enabled: s.cfg.CacheEntries > 0, Entries: s.queue.cache.len(), Max: s.cfg.CacheEntries,
			Resumed: s.queue.cache.resumed.Load(),
			Hits:    s.queue.cache.hits.Load(), Misses: s.queue.cache.misses.Load(),
		},
		Failures:   failures,
		Peer:       peer,
		SinceStart: s.sinceStart(),
	}
	if s.keys != nil {
		e := s.keys.Expiry()
		st.Certificate = &api.CertificateStatus{
			ExpiresAt: e.Node, DaysLeft: keys.DaysLeft(e.Node, now), CAExpiresAt: e.CA, CADaysLeft: keys.DaysLeft(e.CA, now),
		}
	}
	st.Queued, st.Workers, st.LaneRate = st.Jobs, peer.Workers, laneRate(workers)
	for _, w := range workers {
		st.Workers += w.Cores
	}
	if disk.Full != nil {
		st.WriteProblem = disk.Full.Error()
	}
	o := s.outlook(now, &st)
	st.Forecast = forecast(&st, o)
	told := st
	told.Fleet = plainly(st.Fleet)
	st.Plain = forecast(&told, o)
	return st, nil
}

// laneRate is how fast one job is computed, as the workers measured it.
func laneRate(workers []api.WorkerStatus) float64 {
	lanes, sum := 0, 0.0
	for _, w := range workers {
		if w.Rate > 0 {
			lanes, sum = lanes+max(w.Cores, 1)*max(w.Lanes, 1), sum+w.Rate
		}
	}
	return sum / float64(max(lanes, 1))
}

// sinceStart counts what this node has done. What was refused is web's to say.
func (s *status) sinceStart() api.SinceStart {
	c, m := s.store.Commits(), &s.queue.meter
	since := api.SinceStart{
		Enqueued: m.enqueued.Load(), Completed: m.completed.Load(), Iterations: float64(m.iterations.Load()),
		LeasesLost: s.queue.leasesLost.Load(), LeasesStalled: s.queue.leasesStalled.Load(),
		Commits: api.CommitStatus{Count: c.Count, Rows: c.Rows, Seconds: c.Sum.Seconds(), Buckets: make([]api.CommitBucket, len(c.Bounds))},
	}
	for i, d := range c.Bounds {
		since.Commits.Buckets[i] = api.CommitBucket{Seconds: d.Seconds(), Count: c.AtMost[i]}
	}
	return since
}

// clients tells what clients have open. What the one that asks has is web's to
// say, which knows who asks.
func (s *status) clients() api.ClientsStatus {
	c := api.ClientsStatus{MaxOpenJobs: s.cfg.Limits.ClientShare()}
	c.WithOpenJobs, c.MostOpenJobs, c.RefusedJobs = s.store.Shares()
	return c
}

// peer returns the other node as this one sees it.
func (s *status) peer() api.PeerStatus {
	if !s.queue.pair.Paired() {
		return api.PeerStatus{Session: api.SessionNone}
	}
	p := s.queue.pair.Peer()
	n := p.Counters
	st := api.PeerStatus{
		Node: p.Node, Session: p.Session.String(), Since: instant(p.Since), Reason: p.Reason, Refused: p.Refused,
		API: p.API, Gossip: p.Gossip, Alive: p.Alive, Gone: p.Gone, HeardAt: instant(p.HeardAt), Heard: p.LoadFresh,
		// A row stands in the feed once, however often it has changed.
		UnderReplicated: min(max(p.UnderReplicated, 0), s.store.Counts().Total()), LagSeconds: p.Lag.Seconds(), Behind: max(p.Behind, 0),
		Refilling: p.Refilling, Complete: p.Complete, PeerComplete: p.PeerComplete, SkewSeconds: p.Skew.Seconds(),
		Floor: instant(p.Floor),
		Compare: api.CompareStatus{
			At: instant(p.Compare.At), TookSeconds: p.Compare.Took.Seconds(), Rows: p.Compare.Rows, Running: p.Compare.Running, Error: p.Compare.Err,
			Ranges: n.Compared, Differed: n.Differed, Repaired: n.Repaired, Alarms: n.Alarms,
		},
		Counters: api.PeerCounters{
			RowsIn: n.RowsIn, RowsOut: n.RowsOut, CopiesIn: n.CopiesIn, CopiesOut: n.CopiesOut, CopiesDropped: n.CopiesDropped,
			AckTimeouts: n.AckTimeouts, Refusals: n.Refusals, BadFrames: n.BadFrames, Strangers: n.Strangers,
			Resets: n.Resets, FloorRounds: n.FloorRounds, Stolen: n.Stolen, TakenOver: s.queue.takenOver.Load(),
			Conflicts: s.store.Conflicts(),
		},
	}
	open := s.store.CountsOf(p.Node).Open
	if p.LoadFresh {
		if p.Refilling || !p.Complete { // it knows of more than is here
			open = p.Load.Waiting + p.Load.Leased
		}
		st.Leased, st.Workers = min(p.Load.Leased, open), int(p.Load.Workers)
	}
	st.Waiting = open - st.Leased
	return st
}

// outlook is what the forecast needs beside the status.
func (s *status) outlook(now time.Time, st *api.Status) outlook {
	o := outlook{here: s.queue.meter.pacing()}
	if p := s.queue.pair.Peer(); st.Peer.Heard {
		o.there = flow{
			Iterations: float64(p.Load.Rate), Completed: float64(p.Load.Done) / 1000,
			Arriving: float64(p.Load.Arriving) / 1000, Incoming: float64(p.Load.Incoming),
		}
	}
	if st.Peer.Since != nil {
		o.unreachable = now.Sub(*st.Peer.Since)
	}
	for _, w := range st.WorkerList {
		if w.Leases > 0 {
			o.reported += w.Rate
		}
	}
	s.queue.mu.Lock()
	left, rate := s.queue.table.Longest()
	s.queue.mu.Unlock()
	o.longest, o.rate = float64(left), rate
	return o
}

// tick takes the rates and the history; call it once a second.
func (s *status) tick(ctx context.Context, now time.Time) {
	s.queue.meter.tick(now, s.store.CountsOf(s.cfg.Name).Open > 0)
	if !s.history.due(now) {
		return
	}
	st, err := s.Status(ctx)
	if err != nil { // the store says so itself
		return
	}
	s.history.add(moment{
		at: now.Unix(), queued: st.Queued, leased: st.Leased, workers: int32(min(st.Workers, 1<<30)),
		done: float32(st.Forecast.RateCompleted), iterations: st.Forecast.RateIterations,
	})
}

// History returns how the queue was. See web.Insight.
func (s *status) History(day bool) api.History { return s.history.columns(day) }

const (
	// failuresOver bounds the failed jobs that are grouped, a few milliseconds,
	// and failuresEvery how often they are looked at: only if there are others.
	failuresOver  = 1000
	failuresEvery = 2 * time.Second
	failuresKept  = time.Minute
	failureGroups = 20
)

// failed returns the newest failures by their errors.
func (s *status) failed(ctx context.Context, now time.Time, count int64) (api.Failures, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if count == 0 {
		s.failures, s.failuresAt = api.Failures{Groups: []api.FailureGroup{}}, time.Time{}
		return s.failures, nil
	}
	age := now.Sub(s.failuresAt)
	if !s.failuresAt.IsZero() && age >= 0 && (age < failuresEvery || age < failuresKept && count == s.failuresOf) {
		return s.failures, nil
	}
	groups, looked, err := s.store.Failures(ctx, failuresOver)
	if err != nil {
		return api.Failures{}, err
	}
	f := api.Failures{Groups: []api.FailureGroup{}, Looked: looked}
	for _, g := range groups[:min(len(groups), failureGroups)] {
		f.Groups = append(f.Groups, api.FailureGroup{Error: g.Error, Jobs: g.Jobs, LastAt: g.LastAt, Example: g.Example.String()})
	}
	s.failures, s.failuresOf, s.failuresAt = f, count, now
	return f, nil
}

// instant is t for JSON, nil for the zero time.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// oldestQueued returns when the oldest waiting job came in, nil if none waits.
// Of the peer's jobs it knows that only while none of them is leased.
func (s *status) oldestQueued(ctx context.Context, now time.Time, c jobs.Counts, peer api.PeerStatus) (*time.Time, error) {
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
	if peer.Leased == 0 && peer.Waiting > 0 {
		there, err := s.store.Oldest(ctx, peer.Node)
		if err != nil {
			return nil, err
		}
		if at.IsZero() || !there.IsZero() && there.Before(at) {
			at = there
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
// are not yet durable, and the live workers by name and instance.
func (q *Queue) leases() (int, jobs.Work, []api.WorkerStatus) {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := make([]api.WorkerStatus, 0, len(q.workers))
	for key, s := range q.workers {
		w := &s.worker
		list = append(list, api.WorkerStatus{
			Name: w.Name, Instance: w.Instance, Cores: max(w.Cores, 1), Lanes: w.Lanes, Leases: q.table.LeasesOf(key),
			Rate: w.Rate, Kernel: w.Kernel, Version: w.Version, SeenAt: s.at.UTC(),
		})
	}
	slices.SortFunc(list, func(a, b api.WorkerStatus) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Instance, b.Instance))
	})
	return q.table.Leased(), q.table.Unsaved(), list
}
