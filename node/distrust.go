package node

import (
	"context"
	"fmt"

	"workmanager/jobs"
	"workmanager/jobs/lease"
	"workmanager/jobs/store"
)

// What proves wrong is taken back: by the table at once, and by the row, so that
// neither a restart nor the peer goes on from it.

// takeBack is a job whose row is to be told. Anyhow is of a job that this node
// does not lease: whatever its row knows goes.
type takeBack struct {
	lease.Back
	anyhow bool
}

// fact is what the row is told.
func (b takeBack) fact(j jobs.Job, _ store.Clock) (jobs.Job, bool) {
	switch {
	case b.anyhow:
		return j.Distrust()
	case j.V1 != b.V1 || j.Iterations != b.Iterations:
		return j, false
	}
	return j.TakeBack(b.To, b.Seen)
}

// distrust takes a job back to v1: here, if this node leases it, and in its row
// in any case, later if that cannot be written now.
func (q *Queue) distrust(ctx context.Context, id jobs.ID) {
	q.mu.Lock()
	b, here := q.table.Restart(id)
	if here {
		q.available(1)
	}
	b.ID = id
	q.backs = append(q.backs, takeBack{b, !here})
	q.mu.Unlock()
	if err := q.noteBacks(ctx); err != nil && ctx.Err() == nil {
		q.log.Warn("a job is taken back in memory only, will be written", "job", id, "err", err)
	}
}

// noteBacks makes durable what the table has taken back. What cannot be written
// is written later.
func (q *Queue) noteBacks(ctx context.Context) error {
	q.backing.Lock()
	defer q.backing.Unlock()
	q.mu.Lock()
	backs := q.backs
	q.mu.Unlock()
	if len(backs) == 0 {
		return nil
	}
	facts := make([]store.Fact, len(backs))
	for i, b := range backs {
		facts[i] = store.Fact{ID: b.ID, Apply: b.fact}
	}
	if _, err := q.store.Record(ctx, facts); err != nil {
		return fmt.Errorf("take back %d jobs: %w", len(backs), err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.backs = q.backs[len(backs):]
	return nil
}
