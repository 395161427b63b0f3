package ec2

import (
	"net/netip"
	"regexp"
	"time"

	"workmanager/jobs"
)

// admitRetry is how long a worker is asked to wait whose instance is not shown
// so far. It is as long as the leader's look at the instances.
const admitRetry = 5 * time.Second

// instanceID is the name of an instance of EC2.
var instanceID = regexp.MustCompile(`^i-[0-9a-f]{8,17}$`)

// InstanceName reports whether a name has the form of an instance's. A worker
// has such a name only if it was let in for what it is.
func InstanceName(name string) bool { return instanceID.MatchString(name) }

// Admit says why a worker is not let in that says it runs on an instance, in
// that slot, -1 if it does not say, and sends from that address. It returns nil
// if the cloud shows this node that instance alive, which it does of none but
// those with our tags, and with that private address. What may be otherwise soon
// is of CodeUnavailable, everything else of CodeForbidden. No secret goes into
// it: the address is one that only the instance itself can answer at.
func (s *Scheduler) Admit(id string, slot int, from netip.Addr) error {
	if !InstanceName(id) {
		return jobs.Errorf(jobs.CodeForbidden, "%.64q is no instance of EC2", id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.machines[id]
	if m == nil { // it may be new: a node that does not lead then looks sooner than it would
		s.stranger = true
		s.nudge()
	}
	switch {
	case m == nil || !m.dead() && !m.untilSeen.After(s.lookedAt):
		return jobs.Errorf(jobs.CodeUnavailable, "EC2 does not show instance %s among those of fleet %s so far; this node looks again within a minute", id, s.cfg.Cluster).Retry(admitRetry)
	case m.dead():
		return jobs.Errorf(jobs.CodeForbidden, "instance %s has ended, by what EC2 shows", id)
	case m.ending:
		return jobs.Errorf(jobs.CodeForbidden, "instance %s is being terminated", id)
	case m.Address == "":
		return jobs.Errorf(jobs.CodeUnavailable, "EC2 does not tell the address of instance %s so far", id).Retry(admitRetry)
	case m.Address != from.Unmap().String():
		return jobs.Errorf(jobs.CodeForbidden, "the request comes from %s, and that is not the private address of instance %s", from.Unmap(), id)
	case slot >= 0 && slot != m.Slot:
		return jobs.Errorf(jobs.CodeForbidden, "instance %s is not in slot %d, by its tags", id, slot)
	}
	return nil
}
