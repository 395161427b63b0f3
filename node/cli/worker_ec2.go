package cli

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"workmanager/ec2"
	"workmanager/jobs"
	"workmanager/jobs/worker"
	"workmanager/web/api"
	"workmanager/web/client"
)

const (
	// identityTimeout is how long an instance is given to tell which it is.
	identityTimeout = time.Minute
	// refusedTimeout is how long a worker that is not let in tries on: long enough
	// for both nodes to have looked at EC2 again.
	refusedTimeout = 90 * time.Second
)

// onInstance makes cfg and cl those of the instance that this is: its name is the
// worker's, and nothing else is shown to the nodes.
func onInstance(c *cli.Context, log *slog.Logger, cfg *worker.Config, cl *client.Client) error {
	if cl.Token != "" || c.IsSet("name") {
		return usagef("--ec2 goes with neither --name nor --token: the worker is let in for the instance that it runs on")
	}
	ctx, cancel := context.WithTimeout(c.Context, identityTimeout)
	defer cancel()
	id, slot, err := ec2.NewNotices(0).Identity(ctx)
	if err != nil {
		return err
	}
	cfg.Name, cl.Worker, cl.Instance = id, id, &api.EnrolInstanceRequest{Instance: id}
	if slot >= 0 {
		cl.Instance.Slot = &slot
	}
	log.Info("this is an instance", "instance", id, "slot", slot)
	return nil
}

// directed is a Source that also tells what the scheduler wants of the worker.
// All of it passes through a refusable, or no instance would ever be drained.
type directed interface {
	worker.Source
	worker.Director
}

var _ directed = (*refusable)(nil)

// refusable is a Source that ends the worker once the nodes have refused it for
// so long that they will not do otherwise: an instance must not wait for that.
type refusable struct {
	directed
	now func() time.Time
	end func(error)

	mu    sync.Mutex // guards since
	since time.Time  // of the first refusal in a row
}

// Lease passes on, and counts refusals. See worker.Source.
func (r *refusable) Lease(ctx context.Context, w jobs.Worker, c jobs.Capacity) ([]jobs.Lease, error) {
	leases, err := r.directed.Lease(ctx, w, c)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch refused := jobs.CodeOf(err) == jobs.CodeForbidden || jobs.CodeOf(err) == jobs.CodeAuth; {
	case !refused:
		if err == nil {
			r.since = time.Time{}
		}
	case r.since.IsZero():
		r.since = r.now()
	case r.now().Sub(r.since) >= refusedTimeout:
		r.end(fmt.Errorf("the nodes do not let this worker in: %w", err))
	}
	return leases, err
}
