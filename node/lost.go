package node

import (
	"context"
	"fmt"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// loss is a lease that ended because its worker fell silent.
type loss struct {
	jobs.Lease // Start is where the worker was when it reported last
	attempts   uint32
	restarts   uint32
}

// noteLost makes the losses durable. What the worker reported before it fell
// silent goes with them, so that only losses without progress between them
// count against the job. A loss that cannot be written is written later. Only
// the node's loop calls it; a hand-back, a drain and a restart of the node are
// no losses and never come here.
func (q *Queue) noteLost(ctx context.Context) error {
	if len(q.lost) == 0 {
		return nil
	}
	facts := make([]store.Fact, len(q.lost))
	for i, l := range q.lost {
		facts[i] = store.Fact{ID: l.ID, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) {
			if j.Home != q.node || j.V1 != l.V1 || j.Iterations != l.Iterations {
				return j, false
			}
			j.Attempts = max(j.Attempts, l.attempts)
			if j.Restarts <= l.restarts {
				j, _ = j.Advance(l.Start)
			}
			return j.Lose(at())
		}}
	}
	effects, err := q.store.Record(ctx, facts)
	if err != nil {
		return fmt.Errorf("note lost workers: %w", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range effects {
		if e.Job.Ended() {
			q.ended(&e.Job)
		}
	}
	q.lost = nil
	return nil
}
