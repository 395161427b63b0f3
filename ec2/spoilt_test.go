package ec2_test

import (
	"fmt"
	"testing"
	"time"

	"workmanager/ec2"
	"workmanager/ec2/ec2test"
)

// TestScheduler_quarantined: the instance of a quarantined worker is ended by the
// next decision, which says why, and another takes its place.
func TestScheduler_quarantined(t *testing.T) {
	w := newWorld(t, 1, ec2test.Options{Boot: 20 * time.Second})
	s := w.scheduler("a", fleetConfig(), ec2.Parts{})
	w.wanted = 2
	w.steps(30, s)
	w.live(2, "with work for two")
	bad := w.cloud.Alive()[0].ID
	w.quarantined[bad] = "a wrong value"
	w.step(s)
	if w.alive(bad) {
		t.Error("it lives after the next decision")
	}
	said(t, s, "its worker is quarantined: a wrong value")
	w.steps(30, s)
	w.live(2, "with another in its place")
	// One that an operator lets in again before the next decision stays.
	spared := w.cloud.Alive()[0].ID
	w.quarantined[spared] = "by mistake"
	w.turn()
	delete(w.quarantined, spared)
	w.steps(10, s)
	if !w.alive(spared) {
		t.Errorf("%s was ended though its quarantine was lifted before", spared)
	}
}

// TestScheduler_all_are_quarantined: where every worker turns out bad, launches
// pause after three, and then one at a time is tried; when one has worked for
// long all come again.
func TestScheduler_all_are_quarantined(t *testing.T) {
	w := newWorld(t, 1, ec2test.Options{Boot: 20 * time.Second})
	cfg := fleetConfig()
	s := w.scheduler("a", cfg, ec2.Parts{})
	w.wanted = 4
	most := 0
	bad := func(ticks int) {
		for range ticks {
			w.step(s)
			most = max(most, len(w.cloud.Alive()))
			for _, i := range w.cloud.Alive() {
				if g := w.guests[i.ID]; g != nil && !g.leased.IsZero() && w.now.Sub(g.leased) >= 30*time.Second {
					w.quarantined[i.ID] = "a wrong value"
				}
			}
		}
	}
	bad(6 * 10)
	first := len(w.cloud.All())
	if first > 8 || w.held(s) != ec2.HeldSpoilt {
		t.Errorf("%d were launched in ten minutes, and it is held by %q; want no more than four and those that took their place, and %q", first, w.held(s), ec2.HeldSpoilt)
	}
	said(t, s, "workers in a row were quarantined, the last for: a wrong value")
	bad(6 * 60)
	if n := len(w.cloud.All()) - first; n < 3 || n > 5 {
		t.Errorf("%d were launched in the next hour, want one each quarter of an hour", n)
	}
	w.steps(6*40, s) // from now on they are good
	w.live(4, "when a worker has worked for ten minutes")
	if h := w.held(s); h != "" {
		t.Errorf("it is held by %q still", h)
	}
}

// TestScheduler_one_good_worker: that one worked well before says nothing of those
// that come after a bad one.
func TestScheduler_one_good_worker(t *testing.T) {
	w := newWorld(t, 1, ec2test.Options{Boot: 20 * time.Second})
	s := w.scheduler("a", fleetConfig(), ec2.Parts{})
	w.wanted = 1
	w.steps(6*15, s)
	w.live(1, "with work for one")
	good := w.cloud.Alive()[0].ID
	w.wanted = 2
	for range 6 * 60 {
		w.step(s)
		for _, i := range w.cloud.Alive() {
			if g := w.guests[i.ID]; g != nil && !g.leased.IsZero() && i.ID != good {
				w.quarantined[i.ID] = "a wrong value"
			}
		}
	}
	if n := len(w.cloud.All()); n < 5 || n > 8 {
		t.Errorf("%d were launched in an hour beside one that is good, want three and then one each quarter of an hour", n)
	}
	if !w.alive(good) {
		t.Error("the good one was ended")
	}
}

// TestScheduler_lifted_again: what an operator lifts was no bad worker.
func TestScheduler_lifted_again(t *testing.T) {
	w := newWorld(t, 1, ec2test.Options{Boot: 20 * time.Second})
	away := true
	members := func() ec2.Members {
		m := ec2.Members{Self: "a", Alive: []string{"a"}, Pair: true}
		if !away {
			m.Alive = append(m.Alive, "b")
		}
		return m
	}
	s := w.scheduler("a", fleetConfig(), ec2.Parts{Members: members})
	w.wanted = 3
	w.steps(30, s)
	w.live(3, "with work for three")
	for i, x := range w.cloud.Alive() {
		w.quarantined[x.ID] = fmt.Sprint("a mistake ", i)
	}
	w.steps(3, s)
	w.live(3, "while the other node is away")
	if h := w.held(s); h != ec2.HeldSpoilt {
		t.Errorf("with three quarantined it is held by %q", h)
	}
	clear(w.quarantined)
	away = false
	w.wanted = 6
	w.steps(6*20, s) // the pause is over
	w.live(6, "when all are let in again")
}

func (w *world) alive(id string) bool {
	for _, i := range w.cloud.Alive() {
		if i.ID == id {
			return true
		}
	}
	return false
}

// held is what holds the fleet by the last decision.
func (w *world) held(s *ec2.Scheduler) ec2.Limit { return s.Decisions(1)[0].Held }
