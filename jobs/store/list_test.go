package store_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// prioritised returns new jobs of random priorities.
func prioritised(tb testing.TB, n int) []store.Submission {
	batch := work(tb, n, 7)
	for i := range batch {
		batch[i].Job.Priority = uint8(rand.IntN(10))
	}
	return batch
}

// TestOpenPages: the open jobs come by priority, then age, and a walk of pages
// neither misses nor doubles one while others come in and end.
func TestOpenPages(t *testing.T) {
	s := open(t, store.Options{})
	before := prioritised(t, 200)
	if _, err := s.Enqueue(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{1, 7, 100, 200, 201} {
		seen := map[jobs.ID]bool{}
		var last jobs.Job
		var at store.Place
		for {
			page, next, err := s.Open(t.Context(), "a", at, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, j := range page {
				if seen[j.ID] {
					t.Errorf("limit %d: job %v twice", limit, j.ID)
				}
				if len(seen) > 0 && (j.Priority > last.Priority || j.Priority == last.Priority && !j.CreatedAt.After(last.CreatedAt)) {
					t.Errorf("limit %d: %v after %v", limit, j, last)
				}
				seen[j.ID], last = true, j
			}
			at = next
			if len(page) < limit {
				break
			}
			if limit > 1 { // meanwhile, others come in
				if _, err := s.Enqueue(t.Context(), prioritised(t, 2)); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, sub := range before {
			if !seen[sub.Job.ID] {
				t.Errorf("limit %d: job %v was not seen", limit, sub.Job.ID)
			}
		}
		if _, err := s.Record(t.Context(), complete(before[:20])); err != nil {
			t.Fatal(err)
		}
		before = before[20:]
	}
	if page, _, err := s.Open(t.Context(), "b", store.Place{}, 10); err != nil || len(page) != 0 {
		t.Errorf("Open() of another home = %v, %v, want none", page, err)
	}
	oldest, err := s.Oldest(t.Context(), "a")
	first := all(t, s)[before[0].Job.ID].CreatedAt
	if err != nil || !oldest.Equal(first) {
		t.Errorf("Oldest() = %v, %v, want %v", oldest, err, first)
	}
}

// TestOpenPagesOfOneInstant: pages part rows that came in at one instant, as the
// rows of two nodes may.
func TestOpenPagesOfOneInstant(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir, store.Options{})
	if _, err := s.Enqueue(t.Context(), work(t, 30, 7)); err != nil {
		t.Fatal(err)
	}
	db := poke(t, dir)
	if _, err := db.Exec("UPDATE jobs SET created_at = 1000000"); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{1, 4, 15, 30} {
		seen := 0
		for at := (store.Place{}); ; {
			page, next, err := s.Open(t.Context(), "a", at, limit)
			if err != nil {
				t.Fatal(err)
			}
			seen += len(page)
			if at = next; len(page) < limit {
				break
			}
		}
		if seen != 30 {
			t.Errorf("limit %d: %d jobs seen, want 30", limit, seen)
		}
	}
}

// TestList lists every state in pages of every size.
func TestList(t *testing.T) {
	s := open(t, store.Options{})
	batch := prioritised(t, 90)
	if _, err := s.Enqueue(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	facts := complete(batch[:60])
	for i := 20; i < 40; i++ {
		facts[i].Apply = func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Fail("no", at()) }
	}
	for i := 40; i < 60; i++ {
		facts[i].Apply = func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Cancel(at()) }
	}
	rand.Shuffle(len(facts), func(i, k int) { facts[i], facts[k] = facts[k], facts[i] })
	if _, err := s.Record(t.Context(), facts); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Record(t.Context(), []store.Fact{{ID: batch[3].Job.ID, Apply: purge}, {ID: batch[45].Job.ID, Apply: purge}}); err != nil {
		t.Fatal(err)
	}
	byAge := func(a, b jobs.Job) int { return a.CreatedAt.Compare(b.CreatedAt) }
	for state, want := range map[jobs.State]struct {
		n     int
		rank  jobs.Rank
		order func(a, b jobs.Job) int
	}{
		"":                  {n: 90, order: byAge},
		jobs.StateCompleted: {20, jobs.Completed, func(a, b jobs.Job) int { return a.DoneAt.Compare(b.DoneAt) }},
		jobs.StateFailed:    {20, jobs.Failed, byAge},
		jobs.StateCancelled: {20, jobs.Cancelled, byAge},
		jobs.StateQueued: {30, jobs.Open, func(a, b jobs.Job) int {
			if a.Priority != b.Priority {
				return int(b.Priority) - int(a.Priority)
			}
			return byAge(a, b)
		}},
	} {
		for _, limit := range []int{1, 3, 10, 1000} {
			var got []jobs.Job
			q := jobs.ListQuery{State: state, Limit: limit}
			for {
				page, next, more, err := s.List(t.Context(), "a", q)
				if err != nil {
					t.Fatal(err)
				}
				if len(page) > limit {
					t.Errorf("List(%+v) = %d jobs", q, len(page))
				}
				for _, r := range page {
					got = append(got, r.Job)
				}
				if q.After = next; !more {
					break
				}
			}
			if len(got) != want.n || !slices.IsSortedFunc(got, want.order) {
				t.Errorf("List(%q, limit %d) = %d jobs, sorted %v, want %d", state, limit, len(got), slices.IsSortedFunc(got, want.order), want.n)
			}
			for _, j := range got {
				if state != "" && j.Rank != want.rank {
					t.Errorf("List(%q) has %v", state, j)
				}
			}
			// The last cursor goes on behind what comes in later.
			if _, _, _, err := s.List(t.Context(), "a", q); err != nil {
				t.Errorf("List(%+v) = %v", q, err)
			}
		}
	}
}

// TestForeignCursors: a cursor of another list, or none at all, is refused.
func TestForeignCursors(t *testing.T) {
	s := open(t, store.Options{})
	batch := work(t, 5, 3)
	if _, err := s.Enqueue(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Record(t.Context(), complete(batch[:3])); err != nil {
		t.Fatal(err)
	}
	cursors := map[string]string{"garbage": "no cursor", "empty base64": "AA", "long": string(make([]byte, 5000)), "unicode": "ü≈ç"}
	for _, st := range append([]jobs.State{""}, jobs.States...) {
		if st != jobs.StateLeased && st != jobs.StateCancelled {
			_, c, _, err := s.List(t.Context(), "a", jobs.ListQuery{State: st, Limit: 1})
			if err != nil {
				t.Fatal(err)
			}
			cursors["list of "+string(st)] = c
		}
	}
	page, err := s.Results(t.Context(), jobs.ResultsQuery{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	cursors["results"] = page.Cursor
	for name, c := range cursors {
		for _, st := range []jobs.State{"", jobs.StateQueued, jobs.StateCompleted, jobs.StateFailed} {
			if name == "list of "+string(st) {
				continue
			}
			if _, _, _, err := s.List(t.Context(), "a", jobs.ListQuery{State: st, Limit: 1, After: c}); jobs.CodeOf(err) != jobs.CodeInvalid {
				t.Errorf("List(%q) after a cursor of %s = %v, want %s", st, name, err, jobs.CodeInvalid)
			}
		}
		if name != "results" {
			if _, err := s.Results(t.Context(), jobs.ResultsQuery{Limit: 1, After: c}); jobs.CodeOf(err) != jobs.CodeInvalid {
				t.Errorf("Results() after a cursor of %s = %v, want %s", name, err, jobs.CodeInvalid)
			}
		}
	}
}

// TestNewest: the newest first, without what was consumed or purged.
func TestNewest(t *testing.T) {
	s := open(t, store.Options{})
	batch := work(t, 30, 3)
	if _, err := s.Enqueue(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	order := rand.Perm(30)
	for _, i := range order {
		if _, err := s.Record(t.Context(), complete(batch[i:i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Consume(t.Context(), "", 4, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Record(t.Context(), []store.Fact{{ID: batch[order[29]].Job.ID, Apply: purge}}); err != nil {
		t.Fatal(err)
	}
	var want []jobs.ID
	for _, i := range order[4:29] {
		want = append(want, batch[i].Job.ID)
	}
	slices.Reverse(want)
	for _, top := range []int{0, 1, 24, 25, 100} {
		got, err := s.Newest(t.Context(), "", top)
		if err != nil {
			t.Fatal(err)
		}
		if ids := idsOf(got); !slices.Equal(ids, want[:min(top, 25)]) {
			t.Errorf("Newest(%d) = %v, want %v", top, ids, want[:min(top, 25)])
		}
	}
}

func idsOf(results []jobs.Result) []jobs.ID {
	var ids []jobs.ID
	for _, r := range results {
		ids = append(ids, r.ID)
	}
	return ids
}

// TestConsume: each result is handed out once, however many ask at a time.
func TestConsume(t *testing.T) {
	s := open(t, store.Options{})
	batch := work(t, 2500, 1)
	if _, err := s.Enqueue(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	times := map[jobs.ID]int{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				got, err := s.Consume(t.Context(), "", 130, "")
				if err != nil {
					t.Errorf("Consume() = %v", err)
					return
				}
				mu.Lock()
				for _, r := range got {
					times[r.ID]++
				}
				mu.Unlock()
				if len(got) == 0 {
					return
				}
			}
		})
	}
	wg.Wait()
	for _, sub := range batch {
		if times[sub.Job.ID] != 1 {
			t.Errorf("job %v was handed out %d times", sub.Job.ID, times[sub.Job.ID])
		}
	}
}

// TestConsumeKey: one key is one batch: for a retry, for one that overlaps with
// the first call, and for one after a crash between the slices.
func TestConsumeKey(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir, store.Options{})
	batch := work(t, 3500, 1)
	if _, err := s.Enqueue(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	answers := make(chan []jobs.Result, 4)
	for range cap(answers) {
		go func() {
			got, err := s.Consume(t.Context(), "", 1500, "key")
			if err != nil {
				t.Errorf("Consume() = %v", err)
			}
			answers <- got
		}()
	}
	first := <-answers
	if len(first) != 1500 {
		t.Errorf("Consume(1500) = %d results", len(first))
	}
	for range cap(answers) - 1 {
		if got := <-answers; !slices.Equal(got, first) {
			t.Errorf("Consume() with one key at one time = %d results, not those of the first call", len(got))
		}
	}
	if c := s.Counts(); c.Pulled != 1500 {
		t.Errorf("Counts().Pulled = %d, want 1500", c.Pulled)
	}

	// As a crash after the first slice leaves it.
	half, err := s.Consume(t.Context(), "", 1000, "crashed")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := poke(t, dir).Exec("UPDATE pulls SET whole = 0 WHERE length(ids) = 16000"); err != nil {
		t.Fatal(err)
	}
	got, err := s.Consume(t.Context(), "", 1500, "crashed")
	if err != nil || len(got) != 1500 || !slices.Equal(got[:1000], half) {
		t.Errorf("Consume(1500) after a crash = %d results, %v, want 1500 that begin with the first 1000", len(got), err)
	}
	if _, err := s.Record(t.Context(), []store.Fact{{ID: got[0].ID, Apply: purge}}); err != nil {
		t.Fatal(err)
	}
	if again, err := s.Consume(t.Context(), "", 1500, "crashed"); err != nil || !slices.Equal(again, got[1:]) {
		t.Errorf("Consume() after a purge = %d results, %v, want the %d others", len(again), err, len(got)-1)
	}
	rest, err := s.Consume(t.Context(), "", 10000, "")
	if err != nil || len(rest) != 500 {
		t.Errorf("Consume(10000) = %d results, %v, want 500", len(rest), err)
	}
	// A key is forgotten with retention, also where no row is dropped.
	if none, err := s.Consume(t.Context(), "", 5, "empty"); err != nil || len(none) != 0 {
		t.Errorf("Consume() = %v, %v, want none", none, err)
	}
	for {
		if expire(t, s, time.Now().Add(time.Hour)) == 0 {
			break
		}
	}
	var left int
	if err := peek(t, dir).QueryRow("SELECT count(*) FROM pulls").Scan(&left); err != nil || left != 0 {
		t.Errorf("%d keys are left after retention, %v", left, err)
	}
}
