package store

import (
	"context"
	"testing"

	"workmanager/jobs"
)

// TestRunEndsThoughWritesGoOn: a Run whose context has ended commits what waited
// then, not what comes in for ever.
func TestRunEndsThoughWritesGoOn(t *testing.T) {
	const forever = 2000
	var s *Store
	id := jobs.ID{1}
	next := func() {
		s.ops <- &op{rows: 1, done: make(chan error, 1), apply: func(w *writer) error {
			_, _, _, err := w.change(id, func(j jobs.Job) (jobs.Job, bool) { j.Attempts++; return j, true })
			return err
		}}
	}
	commits := 0
	s, err := Open(t.Context(), t.TempDir(), Options{Node: "a", DSN: "&_pragma=synchronous(OFF)", OnCommit: func([]jobs.Changed) {
		if commits++; commits < forever {
			next()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Enqueue(t.Context(), []Submission{{Job: jobs.Job{ID: id, Iterations: 5}}}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := s.Run(ctx); err != nil {
		t.Errorf("Run() = %v", err)
	}
	if commits >= forever {
		t.Errorf("Run() went on for %d commits after its context had ended", commits)
	}
}
