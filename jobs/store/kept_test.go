package store_test

import (
	"fmt"
	"testing"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// ladder returns n values.
func ladder(n int) (r jobs.Rungs) {
	for i := range n {
		r = r.Add(jobs.Value{byte(i), byte(i >> 8), 1})
	}
	return r
}

// TestFeedOfLongRows: an answer of the feed is as large as it was asked to be,
// however much its rows carry, and the cursor ends with the last of them.
func TestFeedOfLongRows(t *testing.T) {
	s := openIn(t, fastDir(t), store.Options{})
	batch := work(t, 60, 2_000_000)
	facts := make([]store.Fact, len(batch))
	for i := range batch {
		if i%2 == 0 {
			batch[i].Job.Keep = jobs.MaxKeep
		}
		facts[i] = store.Fact{ID: batch[i].Job.ID, Apply: func(j jobs.Job, _ store.Clock) (jobs.Job, bool) { return j.AddRungs(0, ladder(jobs.MaxKeep)) }}
	}
	if _, err := s.Enqueue(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Record(t.Context(), facts); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 1 << 16, 1 << 20, 1 << 30} {
		q := jobs.FeedQuery{Rows: 1000, Bytes: size}
		read, chunks := map[jobs.ID]int{}, 0
		for more := true; more; chunks++ {
			c, err := s.Feed(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			carried := 0
			for i, r := range c.Rows {
				if carried > size {
					t.Errorf("%d bytes asked for: row %d of a chunk follows %d bytes", size, i, carried)
				}
				read[r.Job.ID]++
				carried += len(r.Job.Rungs)
				if want := int(r.Job.Keep); r.Job.Rungs.Len() != want {
					t.Errorf("row %d of %d kept checkpoints has %d", i, want, r.Job.Rungs.Len())
				}
			}
			q.Cursor, more = c.Next, c.More
		}
		if len(read) != len(batch) {
			t.Errorf("%d bytes asked for: %d jobs of %d in %d chunks", size, len(read), len(batch), chunks)
		}
		for id, n := range read {
			if n != 1 {
				t.Errorf("%d bytes asked for: job %v came %d times", size, id, n)
			}
		}
	}
}

// TestKeptAfterRestart: a ladder grows over restarts, whether the writer still
// remembers the row or reads it again, and moves with the row to another home.
func TestKeptAfterRestart(t *testing.T) {
	dir := fastDir(t)
	all := ladder(30)
	var id jobs.ID
	for have := 0; have < 30; have += 5 {
		s := openIn(t, dir, store.Options{})
		if have == 0 {
			batch := work(t, 1, 1_000_000)
			batch[0].Job.Keep = 30
			id = batch[0].Job.ID
			if _, err := s.Enqueue(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range []int{have + 2, have + 5} {
			apply := func(j jobs.Job, _ store.Clock) (jobs.Job, bool) { return j.AddRungs(have, all.First(n).From(have)) }
			if out, err := s.Record(t.Context(), []store.Fact{{ID: id, Apply: apply}}); err != nil || !out[0].Changed {
				t.Fatalf("Record() = %+v, %v", out, err)
			}
		}
		if have == 15 {
			if moved, err := s.GiveAway(t.Context(), []jobs.ID{id}, "b"); err != nil || len(moved) != 1 {
				t.Fatalf("GiveAway() = %v, %v", moved, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := openIn(t, dir, store.Options{})
	j, found, err := s.Job(t.Context(), id)
	if err != nil || !found || j.Rungs != all || j.Keep != 30 {
		t.Errorf("Job() = %d of %d kept checkpoints, %v, %v", j.Rungs.Len(), j.Keep, found, err)
	}
}

// BenchmarkCompleteKept is what a completion costs, without and with
// checkpoints that are kept.
func BenchmarkCompleteKept(b *testing.B) {
	for _, keep := range []int{0, 10, 100, 1000} {
		b.Run(fmt.Sprint(keep), func(b *testing.B) {
			s := openIn(b, fastDir(b), store.Options{})
			r := ladder(keep)
			for range b.N {
				b.StopTimer()
				batch := work(b, 1, 2_000_000)
				batch[0].Job.Keep = uint16(keep)
				if _, err := s.Enqueue(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				apply := func(j jobs.Job, at store.Clock) (jobs.Job, bool) {
					j, _ = j.Complete(jobs.Value{1}, at())
					j, _ = j.AddRungs(0, r)
					return j, true
				}
				if _, err := s.Record(b.Context(), []store.Fact{{ID: batch[0].Job.ID, Apply: apply}}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
