package sync

import (
	"context"
	"time"

	"workmanager/jobs"
)

// Await returns what was reached, one durability a row, when all is confirmed,
// the session leaves sync, the patience for ack is over, or ctx ends. The rows
// are committed here whatever it returns.
func (e *Engine) Await(ctx context.Context, w *Wait, ack jobs.Ack) []jobs.Durability {
	if w.items != nil {
		patience := e.cfg.AckTimeout
		switch ack {
		case jobs.AckLocal:
			patience = 0
		case jobs.AckBoth:
			patience = e.cfg.StrictTimeout
		}
		e.await(ctx, w, patience)
	}
	return e.settle(w, ack)
}

func (e *Engine) await(ctx context.Context, w *Wait, patience time.Duration) {
	if patience == 0 {
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C:
		e.late(w)
	case <-ctx.Done():
	}
}
