package sync

import (
	"context"
	"fmt"
	"time"

	"workmanager/jobs"
)

// Ended rows are deleted below one instant that both nodes have agreed on, the
// floor, and only while both are connected and up with each other. A node that
// deleted by its own clock would get back, from a peer that was away, what it
// has dropped, or refuse what it never had.

const (
	floorInterval = time.Minute
	// floorPatience is how long a proposer waits to have read what the peer had
	// when it promised.
	floorPatience = 5 * time.Second
)

// round is the floor's rounds as the proposer counts them; Engine.mu guards it.
type round struct {
	last time.Time
	boot jobs.ID   // of the peer, in the round under way
	most time.Time // what was proposed in it
}

// ProposeFloor begins a round, if this node is the one to begin, one is due and
// both nodes are in step. It returns false if not.
func (e *Engine) ProposeFloor(ctx context.Context) (FloorRequest, bool, error) {
	r := e.store.Reading()
	now := e.now()
	every := min(floorInterval, max(e.cfg.Retention/8, time.Second/4))
	e.mu.Lock()
	ok := r.Peer > e.cfg.Node && e.state.session >= SessionCatchup && e.state.complete && e.state.theyDone &&
		!r.Amnesia && !r.Cursor.Refilling() && e.peer.skew.Abs() < e.cfg.Retention/4 &&
		(e.round.last.IsZero() || now.Sub(e.round.last) >= every)
	boot := e.peer.hello.Boot
	if ok {
		e.round = round{last: now, boot: boot}
	}
	e.mu.Unlock()
	if !ok {
		return FloorRequest{}, false, nil
	}
	floor, _ := e.store.Floor()
	t, head, err := e.store.Promise(ctx, now.Add(-e.cfg.Retention))
	if err != nil {
		return FloorRequest{}, false, fmt.Errorf("promise a floor: %w", err)
	}
	e.mu.Lock()
	e.round.most = t
	e.mu.Unlock()
	return FloorRequest{Identity: e.me, Floor: t, Head: head}, t.After(floor), nil
}

// AcceptFloor answers the peer's proposal: a promise of this node, at or below
// what was asked. The error is a *Refusal if no floor can be agreed now.
func (e *Engine) AcceptFloor(ctx context.Context, req FloorRequest) (FloorReply, error) {
	if r := e.admit(req.Identity); r != nil {
		return FloorReply{}, e.refuse(r)
	}
	r := e.store.Reading()
	e.mu.Lock()
	complete := e.state.complete
	e.mu.Unlock()
	if !complete || r.Amnesia || r.Cursor.Refilling() {
		return FloorReply{}, &Refusal{RefusedRound, "not all of your jobs are here yet"}
	}
	if r.Cursor.Boot != req.Boot || r.Cursor.At < req.Head {
		return FloorReply{}, &Refusal{RefusedRound, "your newest jobs are not here yet"}
	}
	floor, _ := e.store.Floor()
	upTo := req.Floor
	if most := e.now().Add(e.cfg.Retention/4 - e.cfg.Retention); upTo.After(most) {
		upTo = most // the longer retention holds for both, and so does the clock that is behind
	}
	t, head, err := e.store.Promise(ctx, upTo)
	if err != nil {
		return FloorReply{}, fmt.Errorf("promise a floor: %w", err)
	}
	if !t.After(floor) {
		return FloorReply{}, &Refusal{RefusedRound, "an open job here is as old as the floor"}
	}
	return FloorReply{Identity: e.me, Floor: t, Head: head}, nil
}

// FinishFloor ends a round: once this node has read what the peer had when it
// promised, the floor is raised. It returns false while that is not so, and an
// error if the round is void.
func (e *Engine) FinishFloor(ctx context.Context, reply FloorReply) (bool, error) {
	e.mu.Lock()
	boot, most := e.round.boot, e.round.most
	e.mu.Unlock()
	r := e.store.Reading()
	switch {
	case reply.Floor.After(most):
		return false, &Refusal{RefusedRound, "the peer answers with a floor above the one proposed"}
	case reply.Boot != boot || r.Cursor.Boot != boot || r.Cursor.Refilling() || r.Amnesia:
		return false, &Refusal{RefusedRound, "the peer has started anew"}
	case r.Cursor.At < reply.Head:
		return false, nil
	}
	if err := e.store.Raise(ctx, reply.Floor); err != nil {
		return false, fmt.Errorf("raise the floor: %w", err)
	}
	e.mu.Lock()
	e.count.floorRounds++
	e.mu.Unlock()
	return true, nil
}

// RaiseAlone raises the floor of a node that has no peer. With one, the floor
// stands still while the two are not in step.
func (e *Engine) RaiseAlone(ctx context.Context) error {
	if e.paired() && !jobs.Broken("M7") && !jobs.Broken("M8") {
		return nil
	}
	t, _, err := e.store.Promise(ctx, e.now().Add(-e.cfg.Retention))
	if jobs.Broken("M7") || jobs.Broken("M8") {
		t = e.now().Add(-e.cfg.Retention)
	}
	if err == nil {
		err = e.store.Raise(ctx, t)
	}
	if err != nil {
		return fmt.Errorf("raise the floor: %w", err)
	}
	return nil
}
