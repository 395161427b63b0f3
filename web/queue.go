package web

import (
	"context"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// Queue is what clients change. Every method commits before it returns, is
// safe for concurrent use and safe to repeat.
type Queue interface {
	// Enqueue makes the jobs durable, all that it can in one commit, and
	// returns one outcome a job, in their order. The error is for the whole
	// batch: nothing of it was written.
	Enqueue(ctx context.Context, batch []jobs.Job, ack jobs.Ack) ([]jobs.Outcome, error)
	// Cancel withdraws jobs; with purge it erases v1, checkpoint and value too.
	Cancel(ctx context.Context, ids []jobs.ID, purge bool, ack jobs.Ack) ([]jobs.Outcome, error)
	// Consume hands out the oldest results, each once, and says how durable that
	// is. The same key, if not empty, gets the same results again.
	Consume(ctx context.Context, top int, key string) ([]jobs.Result, jobs.Durability, error)
}

// Reader is what clients read.
type Reader interface {
	// Job returns one job. With a wait it returns when the job has ended or the
	// wait is over, whichever is first.
	Job(ctx context.Context, id jobs.ID, wait time.Duration) (jobs.View, error)
	// JobReplicated is Job, but that the wait is for both nodes to have the job on
	// their disks.
	JobReplicated(ctx context.Context, id jobs.ID, wait time.Duration) (jobs.View, error)
	// Jobs returns a page of jobs.
	Jobs(ctx context.Context, q jobs.ListQuery) (jobs.List, error)
	// Pull returns the newest results, newest first, and changes nothing.
	Pull(ctx context.Context, top int) ([]jobs.Result, error)
	// Results returns the results behind a cursor, oldest first.
	Results(ctx context.Context, q jobs.ResultsQuery) (jobs.Results, error)
}

// Leaser is what workers in other processes need. The first two methods are
// those of worker.Source; all are safe for concurrent use.
type Leaser interface {
	Lease(ctx context.Context, w jobs.Worker, c jobs.Capacity) ([]jobs.Lease, error)
	Report(ctx context.Context, w jobs.Worker, batch []jobs.Report) ([]jobs.Verdict, error)
	// Orders returns what the worker is to be told with the answer to its call.
	Orders(w jobs.Worker) jobs.Orders
	// Nodes returns the URLs of both nodes, as far as they are known, and whether
	// the two do not reach each other: each may have work that the other knows
	// nothing of.
	Nodes() (urls []string, apart bool)
}

// Fleet is the scheduler's side of the API.
type Fleet interface {
	// Fleet returns what the scheduler owns, with its last decisions.
	Fleet(ctx context.Context) (api.FleetStatus, error)
	// Order takes an operator's order: to drain or terminate an instance, or to
	// pause or resume launches. It is safe to repeat.
	Order(ctx context.Context, do, instance string) error
	// Decided returns a channel that is closed with the next decision of the
	// scheduler, also with one to do nothing.
	Decided() <-chan struct{}
}

// Quarantiner keeps the workers that the pair does not trust.
type Quarantiner interface {
	// QuarantineList returns them, and whether both nodes hold the same.
	QuarantineList(ctx context.Context) (api.QuarantineList, error)
	// OrderQuarantine takes an operator's order: to quarantine a worker or to lift
	// that. by is the operator's name, "" where nobody is asked. It is safe to
	// repeat, but that a quarantine which is not there cannot be lifted.
	OrderQuarantine(ctx context.Context, do, worker, by, reason string) error
}

// StatusReporter tells how the node is. It answers in well under a
// millisecond, however many jobs there are.
type StatusReporter interface {
	Status(ctx context.Context) (api.Status, error)
}
