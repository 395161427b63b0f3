package sim

import (
	"context"
	"testing"

	"workmanager/jobs"
	"workmanager/jobs/jobstest"
	"workmanager/jobs/store"
)

// TestMemStore holds the store in memory to what the one on a disk promises.
func TestMemStore(t *testing.T) {
	var boots uint32
	jobstest.Exercise(t, func(testing.TB) jobstest.Disk { return testDisk{newDisk(), &boots} })
}

type testDisk struct {
	*disk
	boots *uint32
}

func (d testDisk) Open(o jobstest.Options) jobstest.Store {
	*d.boots++
	s := d.disk.open(o.Node, jobs.ID{1, 13: byte(*d.boots >> 16), 14: byte(*d.boots >> 8), 15: byte(*d.boots)}, o.Now)
	s.OnStamp, s.OnCommit = o.OnStamp, o.OnCommit
	return exercised{s}
}

func (d testDisk) Copy() jobstest.Disk { return testDisk{d.disk.clone(), d.boots} }

type exercised struct{ *memStore }

func (s exercised) Enqueue(ctx context.Context, batch []jobstest.Submission) ([]jobs.Outcome, error) {
	subs := make([]store.Submission, len(batch))
	for i, b := range batch {
		subs[i] = store.Submission{Job: b.Job, Known: b.Known}
	}
	return s.memStore.Enqueue(ctx, subs)
}

func (s exercised) Record(ctx context.Context, facts []jobstest.Fact) ([]jobstest.Effect, error) {
	fs := make([]store.Fact, len(facts))
	for i, f := range facts {
		fs[i] = store.Fact{ID: f.ID, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return f.Apply(j, at) }}
	}
	got, err := s.memStore.Record(ctx, fs)
	effects := make([]jobstest.Effect, len(got))
	for i, e := range got {
		effects[i] = jobstest.Effect{Job: e.Job, LSeq: e.LSeq, Found: e.Found, Changed: e.Changed}
	}
	return effects, err
}

func (s exercised) Close() error { return nil }
