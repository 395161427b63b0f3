package ec2

import (
	"maps"
	"slices"
	"time"
)

// billMemory is how long it is remembered that an instance stands in the bill:
// longer than EC2 shows one that has ended.
const billMemory = 3 * time.Hour

// bill is what instances that are no more have cost on one UTC day. A scheduler
// forgets an instance two hours behind its end, and its node may start anew: the
// budget is for the day all the same.
type bill struct {
	day     time.Time
	dollars float64
	without bool                 // of some of them the price is not known
	in      map[string]time.Time // instances that stand in it, since when
}

// add enters an instance, once; without tells that its price is not known.
func (b *bill) add(now time.Time, id string, dollars float64, without bool) {
	b.turn(now)
	if _, twice := b.in[id]; twice {
		return
	}
	if b.in == nil {
		b.in = map[string]time.Time{}
	}
	b.in[id], b.dollars, b.without = now, b.dollars+dollars, b.without || without
}

// turn begins a new day if it is one, and forgets who need not be known.
func (b *bill) turn(now time.Time) {
	if day := dayOf(now); day.After(b.day) { // a clock that went back is not followed
		b.day, b.dollars, b.without = day, 0, false
	}
	for id, at := range b.in {
		switch {
		case at.IsZero(): // restored
			b.in[id] = now
		case now.Sub(at) > billMemory:
			delete(b.in, id)
		}
	}
}

func dayOf(now time.Time) time.Time { return now.UTC().Truncate(24 * time.Hour) }

// savedBill is a bill as it is kept over a restart.
type savedBill struct {
	Day       time.Time `json:"day"`
	Dollars   float64   `json:"dollars"`
	Without   bool      `json:"without,omitempty"`
	Instances []string  `json:"instances,omitempty"`
}

func (b *bill) save() *savedBill {
	if b.day.IsZero() {
		return nil
	}
	return &savedBill{Day: b.day, Dollars: b.dollars, Without: b.without, Instances: slices.Sorted(maps.Keys(b.in))}
}

func (b *bill) restore(s *savedBill) {
	if s == nil || !(s.Dollars >= 0) {
		return
	}
	b.day, b.dollars, b.without, b.in = dayOf(s.Day), s.Dollars, s.Without, map[string]time.Time{}
	for _, id := range s.Instances {
		b.in[id] = time.Time{}
	}
}

// cost returns what an instance has cost this UTC day, until so far, and whether
// that is not known, since its price is not.
func (s *Scheduler) cost(now time.Time, m *machine) (dollars float64, without bool) {
	end, midnight := now, dayOf(now)
	switch {
	case m.dead():
		end = m.endedAt
	case !now.Before(m.untilSeen):
		end = m.seenAt
	}
	if m.LaunchedAt.IsZero() || end.Before(midnight) {
		return 0, false
	}
	ran := end.Sub(m.LaunchedAt)
	if m.LaunchedAt.Before(midnight) {
		ran = end.Sub(midnight)
	} else {
		ran = max(ran, s.cfg.least())
	}
	return m.price * ran.Hours(), m.price <= 0
}

// enter takes an instance that is no more into the bill.
func (s *Scheduler) enter(now time.Time, m *machine) {
	dollars, without := s.cost(now, m)
	s.bill.add(now, m.ID, dollars, without)
}

// spent returns the dollars of this UTC day, of instances whose price is known,
// and whether there were others.
func (s *Scheduler) spent(now time.Time) (sum float64, without bool) {
	s.bill.turn(now)
	sum, without = s.bill.dollars, s.bill.without
	for id, m := range s.machines {
		if _, billed := s.bill.in[id]; !billed {
			dollars, unknown := s.cost(now, m)
			sum, without = sum+dollars, without || unknown
		}
	}
	return sum, without
}
