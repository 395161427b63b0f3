package worker

import (
	"context"
	"time"

	"workmanager/jobs"
)

// Source is where a worker's leases come from and its reports go: the queue of
// the node it runs in, or a client of a node elsewhere.
type Source interface {
	// Lease returns leases within capacity. It waits up to capacity.Wait for
	// the first one and returns none, and no error, if there is none by then.
	Lease(ctx context.Context, w jobs.Worker, capacity jobs.Capacity) ([]jobs.Lease, error)
	// Report returns one verdict a report, in their order. After an error
	// nothing is known of any of them, and all may be reported again.
	Report(ctx context.Context, w jobs.Worker, batch []jobs.Report) ([]jobs.Verdict, error)
}

// Director is a Source that also passes on what the nodes want of the worker:
// it is asked after every call that went well. Without it a worker does as it
// was started.
type Director interface {
	// Orders returns whether the worker is to hand back and end, and how long it
	// may be idle, 0 being for ever, given how long that would be by itself.
	Orders(idle time.Duration) (drain bool, most time.Duration)
}
