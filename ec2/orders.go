package ec2

import (
	"slices"
	"time"

	"workmanager/jobs"
)

// Order gives an operator's order for one instance: Drain or Terminate. It is
// carried out by the node that leads, with its next decision: the other one
// hears of it.
func (s *Scheduler) Order(id string, do Verb) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.machines[id]
	if m != nil && m.dead() || m == nil && !s.hears(id) {
		return jobs.Errorf(jobs.CodeNotFound, "instance %s is not in the fleet", id)
	}
	s.ask(id, do)
	return nil
}

// hears reports whether a worker of that instance is heard, at either node: the
// machine may be one that only the other node sees.
func (s *Scheduler) hears(id string) bool {
	_, there := s.workers[id]
	return there || slices.ContainsFunc(s.direct, func(w Worker) bool { return w.Instance == id })
}

// ask keeps an order. One to terminate is not taken back.
func (s *Scheduler) ask(id string, do Verb) {
	if was := s.asked[id].do; was == do || was == Terminate || was == "" && len(s.asked) >= maxAsked {
		return
	}
	s.asked[id] = asked{do: do}
	s.nudge()
}

// asked is an operator's order, and since when it is of no machine that is seen
// or heard.
type asked struct {
	do    Verb
	since time.Time
}

// maxAsked bounds the orders that are kept: each is of an instance that lives,
// or that only the other node sees.
const maxAsked = MaxWorkers

// forget drops the orders that have nobody to be for.
func (s *Scheduler) forget(now time.Time) {
	for id, a := range s.asked {
		switch m := s.machines[id]; {
		case m != nil && m.dead():
			delete(s.asked, id)
		case m != nil || s.hears(id):
			s.asked[id] = asked{do: a.do}
		case a.since.IsZero():
			s.asked[id] = asked{a.do, now}
		case now.Sub(a.since) > registerLimit:
			delete(s.asked, id)
		}
	}
}

// Pause keeps the schedulers of both nodes from launching, or lets them again.
// What is there still ends when it is not needed.
func (s *Scheduler) Pause(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if on != s.paused() {
		s.pauses++
		s.nudge()
	}
}

func (s *Scheduler) paused() bool { return s.pauses%2 == 1 }
