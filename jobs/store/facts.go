package store

import (
	"context"
	"time"

	"workmanager/jobs"
)

// Clock gives instants at which no other job of this node came in or completed,
// each later than the one before.
type Clock func() time.Time

// Fact is one thing that happened to a job.
type Fact struct {
	ID jobs.ID
	// Apply returns the job after the fact, and whether it changed. It must be
	// pure: it may run twice. at may be called for the instant
	// of the fact.
	Apply func(j jobs.Job, at Clock) (jobs.Job, bool)
}

// Effect is what a fact came to: the row as it now stands, whether there is
// one, and whether this fact changed it.
type Effect struct {
	Job            jobs.Job
	LSeq           jobs.LSeq // where the row stands
	Found, Changed bool
}

// Record commits the facts and returns one effect each, in their order. It
// waits for the writer rather than refuse: a result must not be lost because
// many clients submit.
func (s *Store) Record(ctx context.Context, facts []Fact) ([]Effect, error) {
	out := make([]Effect, len(facts))
	err := s.write(ctx, len(facts), func(w *writer) error {
		w.gathers = true
		defer func() { w.gathers, w.ending = false, w.ending[:0]; clear(w.near) }()
		if err := w.lookAhead(facts); err != nil {
			return err
		}
		for i, f := range facts {
			r, found, changed, err := w.change(f.ID, func(j jobs.Job) (jobs.Job, bool) { return f.Apply(j, w.stamp) })
			if err != nil {
				return err
			}
			out[i] = Effect{Job: r.job, LSeq: r.lseq, Found: found, Changed: changed}
		}
		return w.flush()
	})
	if err != nil {
		return nil, err
	}
	if purgedAny(out) {
		s.tryScrub()
	}
	return out, nil
}
