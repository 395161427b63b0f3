package node

import (
	"fmt"
	"slices"
	"strings"

	"workmanager/ec2"
	"workmanager/web/api"
)

// ---- what a forecast says of the fleet ---------------------------------------

// booting is how many instances are on their way.
func booting(s *api.Status) (n int) {
	for _, i := range s.Fleet.Instances {
		if i.State == "pending" || i.State == "booting" {
			n++
		}
	}
	return n
}

func readyIn(s *api.Status) string {
	if s.Fleet.BootSeconds <= 0 {
		return ""
	}
	return ", ready in about " + about(s.Fleet.BootSeconds)
}

// fleetless reports whether nothing is launched here.
func fleetless(f *api.FleetStatus) bool { return f.Kind == FleetNone || f.Kind == "" }

// undecided reports whether the scheduler has not looked since the work came in.
func undecided(s *api.Status) bool {
	f := &s.Fleet
	if fleetless(f) || f.Paused != "" || s.OldestQueuedAt == nil || s.Now.Sub(*s.OldestQueuedAt) > stalledAfter {
		return false
	}
	return len(f.Decisions) == 0 || f.Decisions[0].LastAt.Before(*s.OldestQueuedAt)
}

// noWorker says why none comes, and what to do.
func noWorker(s *api.Status) string {
	f := &s.Fleet
	switch {
	case fleetless(f):
		return "Start one: workmanager worker --node URL on any machine, or this node with --workers 1."
	case f.Paused != "":
		return pausedReason(f)
	case f.Max == 0:
		return "The fleet may have no instance: raise its maximum."
	case len(f.Decisions) == 0:
		return "The scheduler has not decided so far."
	}
	d := f.Decisions[0]
	if d.Why == "" { // it is not told
		return heldReason(f)
	}
	reason := fmt.Sprintf("The scheduler, %s ago: %s.", age(s.Now.Sub(d.LastAt)), d.Why)
	if n := len(d.Outcome); n > 0 {
		reason += " " + d.Outcome[n-1] + "."
	}
	if advice := advice(ec2.Limit(d.Held)); advice != "" {
		reason += " " + advice
	}
	return reason
}

// pausedReason says why nothing is launched, and what to do.
func pausedReason(f *api.FleetStatus) string {
	if f.PauseAsked {
		return "The fleet launches nothing: " + f.Paused + ". " + advice(ec2.HeldPause)
	}
	return "The fleet launches nothing: " + f.Paused + "."
}

// limits says of each limit what holds the fleet, and what to do.
var limits = map[ec2.Limit]struct{ is, do string }{
	ec2.HeldMax:     {"its maximum", "Raise --max-workers at both nodes, or see under Fleet why those that are there do nothing."},
	ec2.HeldQuota:   {"the quota of the account", "It tries again by itself; ask AWS for a higher quota to have more."},
	ec2.HeldHour:    {"its launches of the last hour", "Wait, or raise --max-launches-per-hour at both nodes."},
	ec2.HeldBudget:  {"the day's budget", "It goes on at 00:00 UTC; raise --budget-per-day at both nodes to go on now."},
	ec2.HeldPrice:   {"a price that is not known", "Give both nodes --prices TYPE=DOLLARS, or no --budget-per-day."},
	ec2.HeldPause:   {"an operator", "Resume launches under Fleet, or by: workmanager fleet resume."},
	ec2.HeldRefused: {"launches that were refused", "It tries again by itself; 'workmanager doctor' checks what the nodes may do."},
	ec2.HeldLost:    {"launches that never registered", "Look at the console output of such an instance: it must reach a node's port and get this program from it."},
	ec2.HeldSpoilt:  {"workers that were quarantined", "'workmanager quarantine ls' says why; one at a time is tried. Look at its instance type, or at the version of the nodes and workers."},
	ec2.HeldSlots:   {"what has run out", "It tries again by itself; another of --types or --subnets gives it more to choose from."},
}

// advice is what to do about a limit, "" if nothing holds.
func advice(held ec2.Limit) string { return limits[held].do }

// plainly is the fleet for what one is told of it who is no operator: how many
// there are and what holds it, and nothing that its scheduler or cloud has said.
func plainly(f api.FleetStatus) api.FleetStatus {
	t := f.Totals()
	t.Instances, t.Decisions = f.Instances, slices.Clone(f.Decisions) // they are counted
	for i := range t.Decisions {
		d := &t.Decisions[i]
		d.Why, d.Actions, d.Outcome = "", nil, nil
	}
	return t
}

// heldReason says without the scheduler's words why no worker comes.
func heldReason(f *api.FleetStatus) string {
	if why := held(f); why != "" {
		return strings.TrimSpace(why)
	}
	return "The scheduler has launched none so far."
}

// held says what keeps the fleet from growing, and what to do, "" if nothing does.
func held(f *api.FleetStatus) string {
	if len(f.Decisions) == 0 {
		return ""
	}
	l, known := limits[ec2.Limit(f.Decisions[0].Held)]
	if !known {
		return ""
	}
	return "The fleet is held at " + plural(int64(f.Have), "worker") + " by " + l.is + ". " + l.do + " "
}

func growingReason(s *api.Status) string {
	f := &s.Fleet
	switch n := booting(s); {
	case fleetless(f):
		return "More workers are needed. "
	case n > 0:
		return plural(int64(n), "instance") + " starting" + readyIn(s) + ". "
	case f.Paused != "":
		return pausedReason(f) + " "
	case f.Max > 0 && f.Have >= f.Max:
		return fmt.Sprintf("The fleet is at its maximum of %d: raise it or wait. ", f.Max)
	}
	return held(f)
}

func drainReason(s *api.Status, left float64) string {
	f := &s.Fleet
	switch n := booting(s); {
	case fleetless(f):
		return ""
	case n > 0:
		return " " + plural(int64(n), "instance") + " starting" + readyIn(s) + "."
	case f.Paused != "":
		return " " + pausedReason(f)
	case f.DrainSeconds > 0 && left <= f.DrainSeconds:
		return " The target is under " + about(f.DrainSeconds) + ", so no more workers."
	case f.Max > 0 && f.Have >= f.Max:
		return fmt.Sprintf(" The fleet is at its maximum of %d.", f.Max)
	}
	return ""
}
