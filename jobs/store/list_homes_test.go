package store_test

import (
	"slices"
	"testing"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// TestList_of_open_jobs_has_every_home: home by home in the order of their
// names, each most urgent first, whatever the pages are.
func TestList_of_open_jobs_has_every_home(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir, store.Options{})
	batch := prioritised(t, 60)
	if _, err := s.Enqueue(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	give := func(to string, part []store.Submission) {
		t.Helper()
		ids := make([]jobs.ID, len(part))
		for i := range part {
			ids[i] = part[i].Job.ID
		}
		if moved, err := s.GiveAway(t.Context(), ids, to); err != nil || len(moved) != len(part) {
			t.Fatalf("GiveAway(%d jobs, %q) = %d, %v", len(part), to, len(moved), err)
		}
	}
	give("b", batch[20:40])
	give("Z", batch[40:50]) // before a
	list := func(limit int, between func(page int)) []jobs.Job {
		t.Helper()
		var got []jobs.Job
		q := jobs.ListQuery{State: jobs.StateQueued, Limit: limit}
		for n := 0; ; n++ {
			page, next, more, err := s.List(t.Context(), "a", q)
			if err != nil || len(page) > limit || n > 100 {
				t.Fatalf("List(%+v), page %d = %d jobs, %v", q, n, len(page), err)
			}
			for _, r := range page {
				got = append(got, r.Job)
			}
			if q.After = next; !more {
				return got
			}
			if between != nil {
				between(n)
			}
		}
	}
	want := list(1000, nil)
	inOrder := slices.IsSortedFunc(want, func(a, b jobs.Job) int {
		switch {
		case a.Home != b.Home:
			return map[string]int{"Z": 0, "a": 1, "b": 2}[a.Home] - map[string]int{"Z": 0, "a": 1, "b": 2}[b.Home]
		case a.Priority != b.Priority:
			return int(b.Priority) - int(a.Priority)
		}
		return a.CreatedAt.Compare(b.CreatedAt)
	})
	if len(want) != 60 || !inOrder {
		t.Fatalf("List() = %d jobs, in order %v, want 60: %v", len(want), inOrder, want)
	}
	for _, limit := range []int{1, 3, 10, 20, 30, 60} {
		got := list(limit, nil)
		if !slices.EqualFunc(got, want, func(a, b jobs.Job) bool { return a.ID == b.ID }) {
			t.Errorf("limit %d: %d jobs in another order or number than %d", limit, len(got), len(want))
		}
	}

	// A home that comes in before the place of the cursor moves nothing: the
	// job that goes there was on the first page.
	got := list(35, func(page int) {
		if page == 0 {
			give("M", []store.Submission{{Job: want[10]}})
		}
	})
	seen := map[jobs.ID]int{}
	for _, j := range got {
		seen[j.ID]++
	}
	for _, j := range want {
		if seen[j.ID] != 1 {
			t.Errorf("job %v of home %s came %d times", j.ID, j.Home, seen[j.ID])
		}
	}
}
