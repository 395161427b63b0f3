package node

import (
	"context"
	"crypto/sha512"
	"sync/atomic"
	"testing"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// cached reports whether the value of a job that put made is in the cache.
func cached(q *Queue, id jobs.ID) bool {
	return q.cache.get(jobs.Job{V1: sha512.Sum512(id[:]), Iterations: 1000}) != nil
}

// TestPurge_beside_a_report: a purge comes between the commit of a value and
// the moment at which the queue remembers it.
func TestPurge_beside_a_report(t *testing.T) {
	q := smallQueue(t)
	take(t, q, 1) // the first look at the disk
	ids := put(t, q, 2, 0)
	w := jobs.Worker{Name: "w"}
	leases, _ := q.grant(w, jobs.Capacity{Jobs: 2, Iterations: 1 << 60})
	var batch []jobs.Report
	for _, l := range leases {
		batch = append(batch, jobs.Report{LeaseRef: l.LeaseRef, V1: l.V1, Iterations: l.Iterations, Kind: jobs.ReportValue, Progress: jobs.Progress{Done: 1000, Value: jobs.Value{1}}})
	}
	verdicts := make([]jobs.Verdict, len(batch))
	facts, of := q.take(w, batch, verdicts, nil)
	effects, err := q.store.Record(t.Context(), facts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Cancel(t.Context(), ids[:1], true, jobs.AckDefault); err != nil {
		t.Fatal(err)
	}
	q.settle(w, batch, effects, of, verdicts, nil)
	if cached(q, ids[0]) || !cached(q, ids[1]) {
		t.Errorf("in the cache: the purged value %v, the other %v, want only the other", cached(q, ids[0]), cached(q, ids[1]))
	}
}

// TestPurge_while_the_cache_is_warmed: a result is purged after the read that
// warms the cache has begun, and before that read comes to it.
func TestPurge_while_the_cache_is_warmed(t *testing.T) {
	q := smallQueue(t)
	ids := put(t, q, 40, 0)
	facts := make([]store.Fact, len(ids))
	for i, id := range ids {
		facts[i] = store.Fact{ID: id, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Complete(j.V1, at()) }}
	}
	if _, err := q.store.Record(t.Context(), facts); err != nil {
		t.Fatal(err)
	}
	// purgeIn runs a read of the results and purges the last of them in its middle.
	purgeIn := func(read func(context.Context) error) jobs.ID {
		last := ids[len(ids)-1]
		ids = ids[:len(ids)-1]
		var calls atomic.Int64
		if err := read(asked{t.Context(), func() { // for each row, and a few times before the first
			if calls.Add(1) == 20 {
				if _, err := q.Cancel(t.Context(), []jobs.ID{last}, true, jobs.AckDefault); err != nil {
					t.Error(err)
				}
			}
		}}); err != nil {
			t.Fatal(err)
		}
		return last
	}

	seen := map[jobs.Value]bool{}
	if id := purgeIn(func(ctx context.Context) error {
		return q.store.Recent(ctx, 100, func(j jobs.Job) { seen[j.V1] = true })
	}); !seen[sha512.Sum512(id[:])] {
		t.Error("the read did not come to the result that was purged meanwhile: the test proves nothing")
	}
	n := &Node{cfg: Default(), store: q.store, queue: q}
	if id := purgeIn(n.warm); cached(q, id) {
		t.Error("the purged value is in the cache")
	}
	if got := q.cache.len(); got != len(ids) {
		t.Errorf("%d values are in the cache, want those of the %d jobs that were not purged", got, len(ids))
	}
}
