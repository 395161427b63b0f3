package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"workmanager/ec2"
	"workmanager/jobs"
	"workmanager/node/keys"
	"workmanager/web"
)

const (
	// maxAdmitted bounds the instances of which it is remembered that they end when
	// they power off. It is more than a fleet has.
	maxAdmitted = 4 * ec2.MaxWorkers
	// admitTimeout bounds the question to EC2.
	admitTimeout = 5 * time.Second
	admitRetry   = 5 * time.Second
)

// admission lets the workers of a fleet of EC2 in, which have no secret.
type admission struct {
	// owns says why an instance is not let in. See ec2.Scheduler.Admit.
	owns func(id string, slot int, from netip.Addr) error
	// ends tells whether the instance ends when it powers itself off.
	ends func(ctx context.Context, id string) (bool, error)
	keys *keys.Keys
	log  *slog.Logger

	mu    sync.Mutex      // guards known
	known map[string]bool // instances that do
}

var _ web.Instances = (*admission)(nil)

// Admit returns a credential for the worker on an instance. See web.Instances.
func (a *admission) Admit(ctx context.Context, instance string, slot int, from netip.Addr) (string, time.Time, error) {
	if err := a.owns(instance, slot, from); err != nil {
		a.log.Debug("instance not let in", "instance", instance, "from", from, "err", err)
		return "", time.Time{}, err
	}
	if err := a.terminates(ctx, instance); err != nil {
		return "", time.Time{}, err
	}
	text, ends, ok := a.keys.EnrolInstance(instance)
	if !ok {
		return "", time.Time{}, fmt.Errorf("give instance %s a credential: there is no key to sign it with", instance)
	}
	a.log.Debug("instance let in", "instance", instance, "from", from)
	return text, ends, nil
}

// terminates refuses an instance that would be paid for after it has powered
// itself off, which is how workers end.
func (a *admission) terminates(ctx context.Context, id string) error {
	a.mu.Lock()
	known := a.known[id]
	a.mu.Unlock()
	if known {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, admitTimeout)
	defer cancel()
	yes, err := a.ends(ctx, id)
	switch {
	case err != nil:
		a.log.Warn("instance not let in, it will try again", "instance", id, "err", err)
		return jobs.Errorf(jobs.CodeUnavailable, "it is not known so far whether instance %s ends when it powers off: EC2 did not say", id).Retry(admitRetry)
	case !yes:
		a.log.Error("instance not let in: powering it off would only stop it, and a stopped instance is paid for; something has changed it", "instance", id)
		return jobs.Errorf(jobs.CodeForbidden, "instance %s would be stopped, not terminated, when it powers off: its shutdown behaviour must be terminate", id)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.known) >= maxAdmitted || a.known == nil {
		a.known = map[string]bool{}
	}
	a.known[id] = true
	return nil
}

// mayEnrol reports whether a worker may take the name with a token: no node's,
// and none of an instance, which has it by what it is.
func (g gate) mayEnrol(worker string) bool {
	for _, node := range []string{g.n.cfg.Name, g.n.pair.Peer().Node} {
		if strings.EqualFold(worker, node) {
			return false
		}
	}
	return g.n.admission == nil || !ec2.InstanceName(worker)
}
