package store

import (
	"context"
	"fmt"
	"testing"
	"time"

	"workmanager/jobs"
)

func TestFailures_group_the_newest_by_error(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	s, err := Open(t.Context(), t.TempDir(), Options{Node: "a", Now: func() time.Time { now = now.Add(time.Second); return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fail := func(key, why string) jobs.ID {
		t.Helper()
		id := jobs.KeyID("c", "", key)
		j, err := jobs.New(id, jobs.Value{1}, 10, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Enqueue(t.Context(), []Submission{{Job: j}}); err != nil {
			t.Fatal(err)
		}
		_, err = s.Record(t.Context(), []Fact{{ID: id, Apply: func(j jobs.Job, at Clock) (jobs.Job, bool) {
			if why == "" {
				return j.Cancel(at())
			}
			return j.Fail(why, at())
		}}})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	fail("old", "kernel")
	fail("withdrawn", "")
	for i := range 3 {
		fail(fmt.Sprint("lost", i), "5 workers lost")
	}
	last := fail("k1", "kernel")

	groups, looked, err := s.Failures(context.Background(), 4)
	if err != nil || looked != 4 || len(groups) != 2 {
		t.Fatalf("groups %v of %d jobs, error %v; want 2 groups of 4 jobs", groups, looked, err)
	}
	if g := groups[0]; g.Error != "5 workers lost" || g.Jobs != 3 {
		t.Errorf("the first group is %+v, want the 3 lost ones", g)
	}
	if g := groups[1]; g.Error != "kernel" || g.Jobs != 1 || g.Example != last || g.LastAt.IsZero() {
		t.Errorf("the second group is %+v, want 1 job, %s: the old one is beyond the newest 4", g, last)
	}
}

func TestAhead_counts_the_more_urgent_and_the_older(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	s, err := Open(t.Context(), t.TempDir(), Options{Node: "a", Now: func() time.Time { now = now.Add(time.Second); return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var list []jobs.Job
	for i, priority := range []int{0, 5, 0, 0, 9} {
		j, err := jobs.New(jobs.KeyID("c", "", fmt.Sprint(i)), jobs.Value{byte(i)}, 10, priority)
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Enqueue(t.Context(), []Submission{{Job: j}})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, out[0].Job)
	}
	for i, want := range []int{2, 1, 3, 4, 0} {
		if got, err := s.Ahead(t.Context(), list[i], 100); err != nil || got != want {
			t.Errorf("ahead of job %d: %d, %v, want %d", i, got, err, want)
		}
	}
	if got, _ := s.Ahead(t.Context(), list[3], 2); got != 2 {
		t.Errorf("ahead counted to %d, want no further than 2", got)
	}
}
