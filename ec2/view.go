package ec2

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// note keeps a decision.
func (s *Scheduler) note(e Entry) {
	s.mu.Lock()
	if n := len(s.entries); n > 0 && e.same(&s.entries[n-1]) {
		last := &s.entries[n-1]
		e.At, e.Times = last.At, last.Times+1
		*last = e
	} else {
		s.entries = append(s.entries, e)
		if len(s.entries) > entryCount {
			s.entries = slices.Delete(s.entries, 0, len(s.entries)-entryCount)
		}
	}
	s.mu.Unlock()
	if s.p.OnDecision != nil {
		s.p.OnDecision(e)
	}
}

func (e *Entry) same(last *Entry) bool {
	quiet := len(e.Actions)+len(e.Outcome)+len(last.Actions)+len(last.Outcome) == 0
	undecided := strings.HasPrefix(e.Why, "no decision") == strings.HasPrefix(last.Why, "no decision")
	return quiet && undecided && e.Leader == last.Leader && e.Have == last.Have && e.Held == last.Held
}

// Decisions returns the last decisions, the newest first, at most so many.
func (s *Scheduler) Decisions(most int) []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Clone(s.entries[max(0, len(s.entries)-most):])
	slices.Reverse(out)
	return out
}

// Fleet is a snapshot of what the scheduler owns and why.
type Fleet struct {
	Kind      string
	Leader    bool
	Min, Max  int
	Want      int
	Have      int
	Paused    string // why nothing is launched, "" if it may be
	Asked     bool   // an operator has paused it
	Boot      time.Duration
	DrainTime time.Duration
	Spent     float64 // dollars today, as far as prices are known
	Unpriced  bool    // of some instance of today it is not
	Launched  int64   // since the start
	Refused   int64   // launches that the cloud said no to, since the start
	SeenAt    time.Time
	Machines  []FleetMachine
}

// FleetMachine is one machine of the snapshot.
type FleetMachine struct {
	Instance
	Phase string  // pending, booting, working, idle, silent, draining, ending or stopped
	Price float64 // dollars an hour, 0 unknown
	Worker
}

// Fleet returns the snapshot. It asks nobody.
func (s *Scheduler) Fleet(now time.Time) Fleet {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := Fleet{
		Kind: s.cfg.Kind, Leader: s.leading, Min: s.cfg.Min, Max: s.cfg.Max, Want: s.last.Want, Have: s.last.Have, Boot: s.boot,
		DrainTime: s.cfg.DrainTime(s.boot), SeenAt: s.lookedAt,
		Launched: s.launchCount, Refused: s.refusalCount,
	}
	f.Spent, f.Unpriced = s.spent(now)
	switch {
	case s.paused():
		f.Paused, f.Asked = Asked, true
	case now.Before(s.pauseUntil):
		f.Paused = fmt.Sprintf("until %s: %s", s.pauseUntil.UTC().Format(time.TimeOnly), s.pauseWhy)
	}
	for _, m := range s.machines {
		if m.dead() || !now.Before(m.untilSeen) {
			continue
		}
		x := FleetMachine{Instance: m.Instance, Phase: m.phase(now), Price: m.price}
		if m.worker != nil {
			x.Worker = *m.worker
		}
		f.Machines = append(f.Machines, x)
	}
	for _, w := range s.strange(now) {
		f.Machines = append(f.Machines, FleetMachine{
			Instance: Instance{ID: w.Instance, State: Running, Slot: -1, Gen: -1}, Worker: w, Phase: (&machine{worker: &w}).phase(now),
		})
	}
	slices.SortFunc(f.Machines, func(a, b FleetMachine) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), a.LaunchedAt.Compare(b.LaunchedAt), cmp.Compare(a.ID, b.ID))
	})
	return f
}

// strange returns the workers that are heard, at either node, of machines that
// this one does not see: processes of the other node, or instances that are new.
func (s *Scheduler) strange(now time.Time) []Worker {
	var out []Worker
	add := func(w Worker) {
		if s.machines[w.Instance] == nil && now.Sub(w.SeenAt) < aliveTime && !slices.ContainsFunc(out, func(x Worker) bool { return x.Instance == w.Instance }) {
			out = append(out, w)
		}
	}
	for _, w := range s.direct {
		add(w)
	}
	for _, w := range s.workers {
		add(w)
	}
	return out
}

func (m *machine) phase(now time.Time) string {
	switch {
	case m.ending:
		return "ending"
	case !m.drainAt.IsZero():
		return "draining"
	case m.State == Stopped:
		return "stopped"
	case m.worker == nil && m.State == Pending:
		return "pending"
	case m.worker == nil:
		return "booting"
	case now.Sub(m.worker.SeenAt) > time.Minute:
		return "silent"
	case m.worker.Leases > 0:
		return "working"
	}
	return "idle"
}
