package ec2

import (
	"fmt"
	"time"
)

// newsTime is how old what a node says of a worker's leases may be, of one that is
// quarantined: neither node hears those any more, so what is older is of before.
const newsTime = 5 * time.Second

// distrust takes in whose workers are quarantined. Of many in a row it concludes
// what it concludes of launches that never register: that more of the same will
// not do better. So launches pause, and then one at a time is tried.
func (s *Scheduler) distrust(now time.Time, d Demand) {
	for id, m := range s.machines {
		why, quarantined := d.Quarantined[id]
		m.quarantine = ""
		switch {
		case quarantined:
			m.quarantine = why
			if why == "" {
				m.quarantine = "no reason was given"
			}
			if m.worker != nil && m.worker.Leases > 0 && now.Sub(m.worker.SeenAt) > newsTime {
				w := *m.worker
				w.Leases, w.Remaining = 0, 0
				m.worker = &w
			}
			s.spoil(now, m)
		case m.bad: // an operator has lifted it
			m.bad, s.spoilt = false, max(s.spoilt-1, 0)
		case s.spoilt > 0 && s.proven(now, m):
			s.spoilt = 0
		}
	}
	if now.Sub(s.spoiltAt) > maxAge {
		s.spoilt = 0
	}
}

// spoil counts an instance whose worker is quarantined, once.
func (s *Scheduler) spoil(now time.Time, m *machine) {
	if m.bad {
		return
	}
	m.bad = true
	s.spoilt, s.spoiltAt = s.spoilt+1, now
	if s.spoilt >= failLimit {
		s.pause(now.Add(wrongTime), fmt.Sprintf("%d workers in a row were quarantined, the last for: %s", s.spoilt, m.quarantine))
	}
}

// proven reports whether an instance that came after the last bad one has worked
// for so long that a bad one would have been found out.
func (s *Scheduler) proven(now time.Time, m *machine) bool {
	return s.unproven(m) && m.worker != nil && m.worker.Leased && now.Sub(m.worker.LeasedAt) >= s.cfg.hasten(registerLimit)
}

// unproven reports whether an instance may be as bad as the last ones were.
func (s *Scheduler) unproven(m *machine) bool {
	return s.spoilt > 0 && !m.dead() && m.quarantine == "" && m.bornAt.After(s.spoiltAt)
}
