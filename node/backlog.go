package node

import (
	"context"
	"errors"
	"strings"
	"time"

	"workmanager/ec2"
	"workmanager/jobs"
)

// The queue as the scheduler of the fleet sees it: what work there is, in the
// pair, and what workers are told besides their leases.
var _ ec2.Backlog = (*Queue)(nil)

// told is what a worker of the fleet is told with the answer to its next call.
type told struct {
	jobs.Orders
	passed bool // it was told to drain, in an answer that may have been lost
}

// maxInstanceName bounds the names of workers that may be of the fleet: they
// travel in the heartbeats of the pair.
const maxInstanceName = 32

// ofFleet reports whether a worker may be one of a fleet's instances, whose
// names these are. Others that an operator started are none of the scheduler's
// business, whatever they are called.
func ofFleet(w *jobs.Worker) bool {
	return w.Instance != "" && fleetName(w.Name)
}

// fleetName reports whether that is what a fleet's instances are called.
func fleetName(name string) bool {
	return len(name) <= maxInstanceName && (strings.HasPrefix(name, "i-") || strings.HasPrefix(name, ec2.ProcessPrefix))
}

// errSizing says that the jobs that were there at the start are being read.
var errSizing = errors.New("the jobs of the database are being counted")

// Demand tells the work there is. It looks at each worker and at no job. See
// ec2.Backlog.
func (q *Queue) Demand(context.Context) (ec2.Demand, error) {
	open, arrived, known := q.store.Sizes()
	if !known {
		return ec2.Demand{}, errSizing
	}
	d := ec2.Demand{Open: open, Arrived: arrived, Quarantined: q.quarantined()}
	var leased int64
	if p := q.pair.Peer(); p.LoadFresh {
		leased = p.Load.Leased
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	d.Queued = max(open.Jobs()-leased-int64(q.table.Leased()), 0)
	at := map[string]int{} // place in d.Workers, by instance
	for key, s := range q.workers {
		if !ofFleet(&s.worker) {
			continue
		}
		w := ec2.Worker{
			Instance: s.worker.Name, Lanes: max(s.worker.Cores, 1) * max(s.worker.Lanes, 1), Rate: s.worker.Rate,
			Leases: q.table.LeasesOf(key), Remaining: q.table.LeftOf(key).Float(), LeasedAt: s.leasedAt, SeenAt: s.at,
		}
		w.Leased = w.Leases > 0 || !w.LeasedAt.IsZero()
		i, twice := at[w.Instance]
		if !twice {
			at[w.Instance] = len(d.Workers)
			d.Workers = append(d.Workers, w)
			continue
		}
		d.Workers[i] = both(d.Workers[i], w) // it was started again
	}
	return d, nil
}

// quarantined are the fleet's instances whose worker is quarantined, and why.
func (q *Queue) quarantined() map[string]string {
	out := map[string]string{}
	rows, _ := q.Quarantines()
	for _, r := range rows {
		if r.Barred && !r.Inside && fleetName(r.Worker) {
			out[r.Worker] = r.Reason
		}
	}
	return out
}

// both is one instance whose worker was started again: it is what it said last.
func both(a, b ec2.Worker) ec2.Worker {
	if b.SeenAt.After(a.SeenAt) {
		a, b = b, a
	}
	a.Leases, a.Remaining, a.Leased = a.Leases+b.Leases, a.Remaining+b.Remaining, a.Leased || b.Leased
	if a.LeasedAt.IsZero() || !b.LeasedAt.IsZero() && b.LeasedAt.Before(a.LeasedAt) {
		a.LeasedAt = b.LeasedAt
	}
	return a
}

// Order takes what workers are to be told; it replaces what they were to be told
// before. Those that wait for a job are told at once. See ec2.Backlog.
func (q *Queue) Order(_ context.Context, o ec2.Orders) error {
	fresh := make(map[string]told, len(o.Drain)+len(o.Idle))
	for id, ttl := range o.Idle {
		if ttl <= 0 {
			ttl = jobs.IdleForEver
		}
		fresh[id] = told{Orders: jobs.Orders{Idle: ttl}}
	}
	for _, id := range o.Drain {
		fresh[id] = told{Orders: jobs.Orders{Drain: true}}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	news := 0
	for id, t := range fresh {
		switch was := q.told[id]; {
		case !t.Drain:
		case was.Drain:
			fresh[id] = was
		default:
			news++
		}
	}
	q.told = fresh
	q.available(news)
	return nil
}

// Orders returns what a worker is told with the answer that it now gets. See
// web.Leaser.
func (q *Queue) Orders(w jobs.Worker) jobs.Orders {
	q.mu.Lock()
	defer q.mu.Unlock()
	t, ok := q.told[w.Name]
	if !ok || w.Instance == "" {
		return jobs.Orders{}
	}
	if t.Drain && !t.passed {
		t.passed = true
		q.told[w.Name] = t
	}
	return t.Orders
}

// drains reports whether the worker gets no more leases, and whether it knows.
// q.mu is held.
func (q *Queue) drains(w *jobs.Worker) (yes, knows bool) {
	if w.Instance == "" {
		return false, false
	}
	t := q.told[w.Name]
	return t.Drain, t.passed
}

// rest answers a worker that is to drain: at once, so that it is told, and then
// no sooner than it waits, since it may be one that does not understand. It
// reports whether the worker was one.
func (q *Queue) rest(ctx context.Context, w jobs.Worker, timeout <-chan time.Time) bool {
	q.mu.Lock()
	yes, knows := q.drains(&w)
	if yes {
		q.saw(q.now(), w)
	}
	q.mu.Unlock()
	if knows {
		q.sit(ctx, timeout, nil)
	}
	return yes
}
