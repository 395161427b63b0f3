package store

import (
	"testing"
	"time"

	"workmanager/jobs"
)

// TestCommits counts every transaction with its rows, in the bucket of its time.
func TestCommits(t *testing.T) {
	s, err := Open(t.Context(), t.TempDir(), Options{Node: "a", DSN: "&_pragma=synchronous(OFF)"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if c := s.Commits(); c.Count != 0 || c.Running != 0 || len(c.AtMost) != len(c.Bounds) {
		t.Errorf("of a fresh store: %+v", c)
	}
	var during Commits
	s.opt.OnStamp = func([]jobs.Changed) { time.Sleep(time.Millisecond); during = s.Commits() }
	begin := time.Now()
	for i := range 3 {
		batch := make([]Submission, 4)
		for k := range batch {
			batch[k].Job = jobs.Job{ID: jobs.ID{byte(i), byte(k), 1}, Iterations: 5}
		}
		if _, err := s.Enqueue(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	took, c := time.Since(begin), s.Commits()
	if c.Count != 3 || c.Rows != 12 || c.Sum < 3*time.Millisecond || c.Sum > took || c.Running != 0 {
		t.Errorf("of 3 commits of 4 rows: %+v, in %v", c, took)
	}
	if during.Running < time.Millisecond || during.Count != 2 {
		t.Errorf("in the middle of the third: %+v", during)
	}
	for i, n := range c.AtMost {
		if i > 0 && n < c.AtMost[i-1] || n > c.Count || c.Bounds[i] <= time.Millisecond && n != 0 {
			t.Errorf("bucket %v has %d: %v", c.Bounds[i], n, c.AtMost)
		}
	}
	if last := c.AtMost[len(c.AtMost)-1]; took < 10*time.Second && last != 3 {
		t.Errorf("the last bucket has %d of 3", last)
	}
}
