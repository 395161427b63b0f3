package store_test

import (
	"context"
	"encoding/base64"
	"slices"
	"sync"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// follow reads all results behind a cursor, page by page.
func follow(tb testing.TB, s *store.Store, after string, limit int) (got []jobs.ID, cursor string, restarted bool) {
	tb.Helper()
	for {
		page, err := s.Results(context.Background(), jobs.ResultsQuery{After: after, Limit: limit})
		if err != nil {
			tb.Fatal(err)
		}
		got = append(got, idsOf(page.Results)...)
		after, restarted = page.Cursor, restarted || page.Restarted
		if !page.More {
			return got, after, restarted
		}
	}
}

// TestResults: who follows the cursors gets each result once and in order, over
// restarts, beside writers, and without what was purged.
func TestResults(t *testing.T) {
	dir := t.TempDir()
	var want, got []jobs.ID
	cursor := ""
	for start := range 3 {
		s, err := store.Open(t.Context(), dir, store.Options{Node: "a"})
		if err != nil {
			t.Fatal(err)
		}
		for size := range 20 {
			batch := work(t, 1+size, 1)
			if _, err := s.Enqueue(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			if size%5 == 4 { // gone before it was read
				if _, err := s.Record(t.Context(), []store.Fact{{ID: batch[1].Job.ID, Apply: purge}}); err != nil {
					t.Fatal(err)
				}
				batch = slices.Delete(batch, 1, 2)
			}
			for _, sub := range batch {
				want = append(want, sub.Job.ID)
			}
			if size%3 == 0 {
				more, next, restarted := follow(t, s, cursor, 1+size)
				if restarted {
					t.Errorf("start %d: the cursor was not known", start)
				}
				got, cursor = append(got, more...), next
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := openIn(t, dir, store.Options{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				if _, err := s.Enqueue(t.Context(), work(t, 3, 1)); err != nil {
					t.Errorf("Enqueue() = %v", err)
				}
			}
		})
	}
	for len(got) < len(want)+240 && !t.Failed() {
		more, next, restarted := follow(t, s, cursor, 7)
		if restarted {
			t.Error("the cursor was not known")
		}
		got, cursor = append(got, more...), next
	}
	wg.Wait()
	if !slices.Equal(got[:len(want)], want) {
		t.Errorf("%d results, not those expected in their order", len(got))
	}
	once := map[jobs.ID]bool{}
	for _, id := range got {
		if once[id] {
			t.Errorf("result %v twice", id)
		}
		once[id] = true
	}
	if again, _, _ := follow(t, s, "", 1000); !slices.Equal(again, got) {
		t.Errorf("%d results from the beginning, want the %d that were followed", len(again), len(got))
	}
	n := 0
	if err := s.Recent(t.Context(), 10, func(j jobs.Job) {
		if j.Rank != jobs.Completed || j.Result == (jobs.Value{}) || j.V1 == (jobs.Value{}) {
			t.Errorf("Recent() gives %v", j)
		}
		n++
	}); err != nil || n != 10 {
		t.Errorf("Recent(10) = %d results, %v", n, err)
	}
}

// TestResultsOfAnOlderCopy: after a backup was put back, a cursor given out since
// cannot be placed, and the answer says so; one given out before it can. The
// copy is of the boot that gave out the cursor, or from before that boot.
func TestResultsOfAnOlderCopy(t *testing.T) {
	for name, restart := range map[string]bool{"same_boot": false, "boot_before": true} {
		t.Run(name, func(t *testing.T) {
			dir, copied, back := t.TempDir(), t.TempDir(), t.TempDir()
			put := func(s *store.Store, n int) {
				t.Helper()
				if _, err := s.Enqueue(t.Context(), work(t, n, 1)); err != nil {
					t.Fatal(err)
				}
			}
			s, err := store.Open(t.Context(), dir, store.Options{Node: "a"})
			if err != nil {
				t.Fatal(err)
			}
			put(s, 10)
			kept, early, _ := follow(t, s, "", 100)
			copyStore(t, dir, copied)
			if restart {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if s, err = store.Open(t.Context(), dir, store.Options{Node: "a"}); err != nil {
					t.Fatal(err)
				}
			}
			put(s, 5)
			_, late, _ := follow(t, s, early, 100)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}

			copyStore(t, copied, back)
			s = openIn(t, back, store.Options{})
			put(s, 8)
			if got, _, restarted := follow(t, s, late, 100); !restarted || len(got) != 18 || !slices.Equal(got[:10], kept) {
				t.Errorf("after a cursor of the lost time: %d results, restarted %v, want all 18 again", len(got), restarted)
			}
			if got, _, restarted := follow(t, s, early, 100); restarted || len(got) != 8 {
				t.Errorf("after a cursor of the time before: %d results, restarted %v, want the 8 new ones", len(got), restarted)
			}
			b, err := base64.RawURLEncoding.DecodeString(early)
			if err != nil {
				t.Fatal(err)
			}
			b[5]++ // another boot
			if got, _, restarted := follow(t, s, base64.RawURLEncoding.EncodeToString(b), 100); !restarted || len(got) != 18 {
				t.Errorf("after a cursor of an unknown boot: %d results, restarted %v, want all 18 again", len(got), restarted)
			}
		})
	}
}

// TestExpire drops what ended before an instant, and nothing that is open. It
// says so to cursors that stand before what was dropped, and no number is given
// out twice, though nothing is left and the node starts anew.
func TestExpire(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	opt := store.Options{Node: "a", Now: func() time.Time { return now }}
	s, err := store.Open(t.Context(), dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	batch := work(t, 1500, 3)
	if _, err := s.Enqueue(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	facts := complete(batch)
	for i := range facts {
		switch {
		case i%5 == 1:
			facts[i].Apply = func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Fail("no", at()) }
		case i%5 == 2:
			facts[i].Apply = func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Cancel(at()) }
		}
	}
	if _, err := s.Record(t.Context(), facts[:1400]); err != nil {
		t.Fatal(err)
	}
	_, cursor, _ := follow(t, s, "", 10)
	now = now.Add(time.Hour)
	if _, err := s.Record(t.Context(), facts[1400:1450]); err != nil { // ended later
		t.Fatal(err)
	}
	before := now.Add(-time.Minute)
	for _, want := range []int{1000, 400, 0} {
		if n := expire(t, s, before); n != want {
			t.Errorf("Expire() = %d, want %d", n, want)
		}
	}
	checkCounts(t, s, peek(t, dir))
	if c := s.Counts(); c.Open != 50 || c.Total() != 100 {
		t.Errorf("Counts() = %+v, want 50 open and 50 ended later", c)
	}
	if got, _, restarted := follow(t, s, "", 1000); restarted || len(got) != 30 {
		t.Errorf("from the beginning: %d results, restarted %v, want 30", len(got), restarted)
	}
	if got, _, restarted := follow(t, s, cursor, 1000); restarted || len(got) != 30 {
		t.Errorf("behind what was dropped: %d results, restarted %v, want 30", len(got), restarted)
	}
	first, err := s.Results(t.Context(), jobs.ResultsQuery{Limit: 5})
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	if _, err := s.Record(t.Context(), facts[1450:]); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	if n := expire(t, s, now); n != 100 {
		t.Errorf("Expire() = %d, want 100", n)
	}
	if got, _, restarted := follow(t, s, first.Cursor, 1000); !restarted || len(got) != 0 {
		t.Errorf("before what was dropped: %d results, restarted %v, want none and a word", len(got), restarted)
	}

	lseq, rseq := s.Head(), s.ResultsHead()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = store.Open(t.Context(), dir, opt); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if s.Head() != lseq || s.ResultsHead() != rseq || s.Counts() != (jobs.Counts{}) {
		t.Errorf("after the restart of an empty store: heads %d and %d, %+v, want %d and %d", s.Head(), s.ResultsHead(), s.Counts(), lseq, rseq)
	}
	if _, err := s.Enqueue(t.Context(), work(t, 2, 1)); err != nil {
		t.Fatal(err)
	}
	if got, _, restarted := follow(t, s, cursor, 1000); !restarted || len(got) != 2 {
		t.Errorf("after the restart: %d results, restarted %v, want the 2 new ones and a word", len(got), restarted)
	}
	if s.Head() != lseq+2 || s.ResultsHead() != rseq+2 {
		t.Errorf("heads %d and %d, want %d and %d", s.Head(), s.ResultsHead(), lseq+2, rseq+2)
	}
}
