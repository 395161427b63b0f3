package store_test

import (
	"context"
	"testing"

	"workmanager/jobs"
	"workmanager/jobs/jobstest"
	"workmanager/jobs/store"
)

// TestExercise holds the store to what replication asks of any store.
func TestExercise(t *testing.T) {
	jobstest.Exercise(t, newDisk)
}

func newDisk(t testing.TB) jobstest.Disk { return &disk{t, fastDir(t)} }

// disk is a directory.
type disk struct {
	t   testing.TB
	dir string
}

func (d *disk) Open(o jobstest.Options) jobstest.Store {
	d.t.Helper()
	s, err := store.Open(context.Background(), d.dir, store.Options{
		Node: o.Node, Now: o.Now, OnStamp: o.OnStamp, OnCommit: o.OnCommit, DSN: "&_pragma=synchronous(OFF)",
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return exercised{s}
}

func (d *disk) Copy() jobstest.Disk {
	d.t.Helper()
	dir := fastDir(d.t)
	copyStore(d.t, d.dir, dir)
	return &disk{d.t, dir}
}

// exercised adapts the two calls whose types are the store's own.
type exercised struct{ *store.Store }

func (s exercised) Enqueue(ctx context.Context, batch []jobstest.Submission) ([]jobs.Outcome, error) {
	subs := make([]store.Submission, len(batch))
	for i, b := range batch {
		subs[i] = store.Submission{Job: b.Job, Known: b.Known}
	}
	return s.Store.Enqueue(ctx, subs)
}

func (s exercised) Record(ctx context.Context, facts []jobstest.Fact) ([]jobstest.Effect, error) {
	fs := make([]store.Fact, len(facts))
	for i, f := range facts {
		fs[i] = store.Fact{ID: f.ID, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return f.Apply(j, at) }}
	}
	got, err := s.Store.Record(ctx, fs)
	effects := make([]jobstest.Effect, len(got))
	for i, e := range got {
		effects[i] = jobstest.Effect{Job: e.Job, LSeq: e.LSeq, Found: e.Found, Changed: e.Changed}
	}
	return effects, err
}
