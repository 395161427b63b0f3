package store

import (
	"context"
	"sync"
	"testing"
	"time"

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

// TestPromiseOfAFailedBatch: a promise whose transaction fails is tried again
// with the others one by one, and then is on the disk.
func TestPromiseOfAFailedBatch(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), dir, Options{Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Enqueue(t.Context(), []Submission{{Job: jobs.Job{ID: jobs.ID{1}, Iterations: 5}}}); err != nil {
		t.Fatal(err)
	}
	upTo := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s.running.Store(true) // what is written from here on waits for Run, and meets in one transaction
	var wg sync.WaitGroup
	wg.Go(func() {
		if got, _, err := s.Promise(context.Background(), upTo); err != nil || !got.Equal(upTo) {
			t.Errorf("Promise() = %v, %v", got, err)
		}
	})
	wg.Go(func() {
		_, err := s.Record(context.Background(), []Fact{{ID: jobs.ID{1}, Apply: func(j jobs.Job, _ Clock) (jobs.Job, bool) {
			j.Iterations = 0 // the table refuses it
			return j, true
		}}})
		if err == nil {
			t.Error("the broken fact was taken")
		}
	})
	for len(s.ops) < 2 {
		time.Sleep(time.Millisecond)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	wg.Wait()
	stop()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(t.Context(), dir, Options{Node: "a"}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, promise := s.Floor(); !promise.Equal(upTo) {
		t.Errorf("the promise on the disk is %v, %v was given", promise, upTo)
	}
}
