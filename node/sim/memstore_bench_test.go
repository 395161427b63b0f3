package sim

import (
	"context"
	"fmt"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// BenchmarkMemStore is the cost of a call at some hundred rows: most of a
// simulated run.
func BenchmarkMemStore(b *testing.B) {
	ctx := context.Background()
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	fill := func(name string, boot byte, peer string) *memStore {
		s := newDisk().open(name, jobs.ID{boot}, func() time.Time { return now })
		if err := s.SetPeer(ctx, peer, "", ""); err != nil {
			b.Fatal(err)
		}
		return s
	}
	x, y := fill("a", 1, "b"), fill("b", 2, "a")
	var subs []store.Submission
	for i := range 400 {
		subs = append(subs, store.Submission{Job: jobs.Job{ID: jobs.KeyID("", "", fmt.Sprint(i)), V1: jobs.Value{1}, Iterations: 1 << 40}})
	}
	if _, err := x.Enqueue(ctx, subs); err != nil {
		b.Fatal(err)
	}
	pull := func(from, to *memStore, limit int) {
		c, err := from.Feed(ctx, jobs.FeedQuery{Cursor: to.Reading().Cursor, Me: to.Boot(), Rows: limit, Bytes: 1 << 20})
		if err == nil {
			_, err = to.Receive(ctx, c)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	pull(x, y, 1000)
	i := 0
	fact := []store.Fact{{Apply: func(j jobs.Job, _ store.Clock) (jobs.Job, bool) { j.Attempts++; return j, true }}}
	record := func() {
		i++
		fact[0].ID = subs[i%len(subs)].Job.ID
		if _, err := x.Record(ctx, fact); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("record", func(b *testing.B) {
		for b.Loop() {
			record()
		}
	})
	pull(x, y, 1000)
	b.Run("record_and_pull", func(b *testing.B) {
		for b.Loop() {
			record()
			pull(x, y, 12)
		}
	})
	b.Run("pull_nothing", func(b *testing.B) {
		for b.Loop() {
			pull(x, y, 12)
		}
	})
	b.Run("clone", func(b *testing.B) {
		for b.Loop() {
			x.d.clone()
		}
	})
	b.Run("walk_400", func(b *testing.B) {
		for b.Loop() {
			if _, err := x.Feed(ctx, jobs.FeedQuery{Rows: 1000, Bytes: 1 << 20}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
