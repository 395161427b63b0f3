package ec2

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// act does what was decided: ends first, so that the money is there, then
// orders, then launches one by one. It returns what came of it.
func (s *Scheduler) act(ctx context.Context, now time.Time, d Decision) []string {
	var outcome []string
	var end []string
	var fill []Slot
	s.mu.Lock()
	for _, a := range d.Actions {
		switch a.Do {
		case Launch:
			fill = append(fill, a.Slot)
		case Drain:
			s.machines[a.Instance].drainAt = now
		case Terminate:
			m := s.machines[a.Instance]
			m.spared = m.spared || !m.ending && m.suspect.IsZero()
			m.ending = true
			end = append(end, a.Instance)
		}
		if a.Do != Launch {
			s.p.Log.Info("fleet "+string(a.Do), "instance", a.Instance, "why", a.Why)
		}
	}
	orders := Orders{Idle: map[string]time.Duration{}}
	for id, ttl := range d.Idle {
		if least := s.cfg.least(); ttl > 0 && ttl < least && now.Sub(s.machines[id].LaunchedAt) < least {
			ttl = least // one that is idle for so long is as old
		}
		orders.Idle[id] = ttl
	}
	for id, m := range s.machines {
		if !m.dead() && (!m.drainAt.IsZero() || m.ending) {
			orders.Drain = append(orders.Drain, id)
		}
	}
	slices.Sort(orders.Drain)
	s.orders = orders
	s.mu.Unlock()

	if len(end) > 0 {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		err := s.p.Cloud.Terminate(call, end)
		cancel()
		if err != nil {
			outcome = append(outcome, fmt.Sprintf("terminate %s: %v; it will be asked again", strings.Join(end, " "), err))
		}
	}
	if err := s.p.Backlog.Order(ctx, orders); err != nil {
		outcome = append(outcome, fmt.Sprintf("order workers: %v", err))
	}
	return append(outcome, s.fill(ctx, now, d, fill)...)
}

// fill launches into the slots, and into others where one has run out.
func (s *Scheduler) fill(ctx context.Context, now time.Time, d Decision, slots []Slot) []string {
	var outcome []string
	full := map[int]bool{}
	s.mu.Lock()
	for _, m := range s.machines {
		if !m.dead() {
			full[m.Slot] = true
		}
	}
	s.mu.Unlock()
	for _, x := range slots {
		full[x.Slot] = true
	}
	for len(slots) > 0 && ctx.Err() == nil {
		x := slots[0]
		slots = slots[1:]
		s.mu.Lock()
		gone := s.ledger.isAside(now, x.Offer) // since it was picked
		s.mu.Unlock()
		if gone {
			continue
		}
		call, cancel := context.WithTimeout(ctx, callTimeout)
		i, err := s.p.Cloud.Launch(call, Request{Slot: x, Token: s.cfg.Token(x.Slot, x.Gen)})
		cancel()
		s.mu.Lock()
		said, more := s.launched(now, x, i, err, d)
		if more {
			for _, other := range Pick(s.ledger.free(now), full, 1) {
				full[other.Slot] = true
				slots = append(slots, other)
			}
		} else if stop := errors.As(err, new(*Refusal)) && s.stops(err); stop {
			slots = nil
		}
		s.mu.Unlock()
		outcome = append(outcome, said)
	}
	return outcome
}

// stops reports whether after such a refusal there is no sense in the next launch.
func (s *Scheduler) stops(err error) bool {
	var r *Refusal
	return errors.As(err, &r) && (r.Kind == Wrong || r.Kind == Quota || r.Kind == Throttled)
}

// launched takes in what came of a launch, and says it. With more another slot
// is to be tried for it.
func (s *Scheduler) launched(now time.Time, x Slot, i Instance, err error, d Decision) (said string, more bool) {
	at := fmt.Sprintf("launch into slot %d (%s): ", x.Slot, x.Offer)
	var no *Refusal
	switch {
	case err == nil && i.State.Dead():
		s.ledger.raise(x.Slot, markOf(x.Gen, true))
		s.throttle = 0
		return at + fmt.Sprintf("%s of generation %d has ended; the next one is asked for", i.ID, x.Gen), false
	case err == nil:
		s.throttle = 0
		s.ledger.raise(x.Slot, markOf(x.Gen, false))
		if m := s.machines[i.ID]; m != nil && m.dead() {
			s.ledger.raise(x.Slot, markOf(x.Gen, true))
			return at + i.ID + " was seen to end; the next generation is asked for", false
		} else if m != nil {
			m.untilSeen = now.Add(s.cfg.hasten(unseenTime))
			return at + i.ID + " is there already", false
		}
		s.launches = append(s.launches, now)
		s.launchCount++
		i.Slot, i.Gen, i.Offer = x.Slot, x.Gen, x.Offer
		i.LaunchedAt = now
		s.machines[i.ID] = &machine{Instance: i, bornAt: now, seenAt: now, untilSeen: now.Add(s.cfg.hasten(unseenTime)), price: s.price(x.Offer)}
		s.p.Log.Info("fleet launch", "instance", i.ID, "slot", x.Slot, "gen", x.Gen, "type", x.Type, "zone", x.Zone, "spot", x.Spot)
		return at + i.ID, false
	case !errors.As(err, &no):
		s.launches = append(s.launches, now)
		return at + fmt.Sprintf("no answer (%v); the same is asked for next time", err), false
	}
	at += no.Error()
	s.refusalCount++
	switch no.Kind {
	case Dead:
		s.ledger.raise(x.Slot, markOf(x.Gen, true))
		return at + fmt.Sprintf("; generation %d has ended, the next one is asked for", x.Gen), false
	case Capacity:
		pause := s.ledger.setAside(now, x.Offer, no.Code)
		return at + "; set aside for " + pause.String(), true
	case NoSpot:
		s.ledger.noSpot(now, no.Code)
		return at + "; on demand it is, for a day", true
	case Mismatch:
		pause := s.ledger.mismatch(now, x.Slot)
		return at + "; the slot is set aside for " + pause.String(), false
	case Quota:
		s.mostNow, s.mostUntil = s.alive(now), now.Add(quotaTime)
		return at + fmt.Sprintf("; at most %d workers for %s", max(s.mostNow, 1), quotaTime), false
	case Throttled:
		s.throttle = min(max(2*s.throttle, throttleLeast), throttleMost)
		wait := time.Duration(s.p.Rand.Int64N(int64(s.throttle))) + time.Second
		s.pause(now.Add(wait), no.Code)
		return at + "; next try in " + rough(wait), false
	}
	s.pause(now.Add(wrongTime), no.Error())
	s.p.Log.Error("launch refused", "code", no.Code, "text", no.Text)
	return at + "; launches pause for " + wrongTime.String(), false
}
