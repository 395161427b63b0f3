package store_test

import (
	"math/rand/v2"
	"sync"
	"testing"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// sizesNow reads the sizes anew, from the rows.
func sizesNow(t *testing.T, s *store.Store) jobs.Sizes {
	t.Helper()
	if err := s.Size(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, _, known := s.Sizes()
	if !known {
		t.Fatal("sizes are not known after they were read")
	}
	return *got
}

// TestSizes changes jobs in every way while their sizes are read and after, and
// compares what was kept with what the rows say.
func TestSizes(t *testing.T) {
	s := open(t, store.Options{})
	if _, _, known := s.Sizes(); known {
		t.Error("sizes are known before they were read")
	}
	r := rand.New(rand.NewPCG(1, 2))
	var ids []jobs.ID
	var all jobs.Work
	enqueue := func(n int) {
		batch := work(t, n, 5)
		for i := range batch {
			batch[i].Job.Iterations = 1 + r.Uint64N(1<<(1+r.Uint64N(40)))
			if batch[i].Job.Iterations > 1 {
				all = all.Add(batch[i].Job.Iterations - 1)
			}
			if r.IntN(4) == 0 {
				batch[i].Job.Keep = 3
			}
		}
		out, err := s.Enqueue(t.Context(), batch)
		if err != nil {
			t.Error(err)
		}
		for _, o := range out {
			ids = append(ids, o.Job.ID)
		}
	}
	change := func() {
		id := ids[r.IntN(len(ids))]
		how := r.IntN(5)
		_, err := s.Record(t.Context(), []store.Fact{{ID: id, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) {
			switch how {
			case 0:
				return j.Complete(jobs.Value{1}, at())
			case 1:
				return j.Fail("no", at())
			case 2:
				return j.Purge(at())
			default:
				return j.Advance(jobs.Progress{Done: j.Start().Done + j.Remaining()/2, Value: jobs.Value{2}})
			}
		}}})
		if err != nil {
			t.Error(err)
		}
	}
	enqueue(200)
	before := all
	sizesNow(t, s)
	var reading sync.WaitGroup
	for range 20 { // of which one at least is read while jobs change
		reading.Go(func() { sizesNow(t, s) })
		for range 20 {
			change()
		}
		enqueue(20)
	}
	reading.Wait()
	kept, arrived, _ := s.Sizes()
	if want := all.Float() - before.Float(); arrived.Float() != want {
		t.Errorf("%g iterations came in, want %g", arrived.Float(), want)
	}
	if want := s.Counts(); kept.Jobs() != want.Open || kept.Capped(1e300) != want.Remaining.Float() {
		t.Errorf("%d jobs of %g iterations are open, the counters say %d of %g", kept.Jobs(), kept.Capped(1e300), want.Open, want.Remaining.Float())
	}
	if got := sizesNow(t, s); got != *kept {
		t.Error("the sizes that were kept are not those of the rows")
	}
}
