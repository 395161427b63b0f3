package node

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
)

// TestStalled_jobs_of_the_only_worker: it gets them again each minute, which is
// counted, and not said each time.
func TestStalled_jobs_of_the_only_worker(t *testing.T) {
	a := newAlone(t)
	var logs strings.Builder
	a.log = slog.New(slog.NewTextHandler(&logs, nil))
	put(t, a.Queue, 1, 0)
	l, _ := leaseTo(t, a.Queue, far("only"))
	for range 3600 / 3 {
		if says(t, a.Queue, far("only"), l, jobs.ReportProgress, 1, jobs.Value{}) != jobs.Kept {
			t.Fatal("nobody else is there, and it may not go on")
		}
		a.step(3 * time.Second)
	}
	if n := a.leasesStalled.Load(); n < 50 || n > 60 {
		t.Errorf("%d counted in an hour, want one a minute or a little less", n)
	}
	if n := strings.Count(logs.String(), "does not bring on"); n != 6 { // the 1st, 2nd, 4th, 8th, 16th, 32nd
		t.Errorf("said %d times in an hour, want 6", n)
	}
}

// TestLease_behind_jobs_that_stalled: a call of a worker at which very many jobs
// have stalled gets what comes behind them without a wait, and takes no more than
// its wait where there is nothing.
func TestLease_behind_jobs_that_stalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAlone(t)
		const n = 3000
		put(t, a.Queue, n, 0)
		stalled, err := a.Lease(t.Context(), far("bad"), jobs.Capacity{Jobs: n, Iterations: 1 << 60})
		if err != nil || len(stalled) != n {
			t.Fatal(len(stalled), err)
		}
		a.at = a.at.Add(2 * time.Minute)
		a.mu.Lock()
		a.saw(a.at, far("good"))
		a.stall(a.at)
		a.mu.Unlock()
		ask := func() (int, time.Duration) {
			begin := time.Now()
			l, err := a.Lease(t.Context(), far("bad"), jobs.Capacity{Jobs: 1, Iterations: 1, Wait: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			return len(l), time.Since(begin)
		}
		if got, took := ask(); got != 0 || took != time.Second {
			t.Errorf("where all jobs are left to others it got %d after %v, want none after its wait", got, took)
		}
		put(t, a.Queue, 1, 0)
		if got, took := ask(); got != 1 || took != 0 {
			t.Errorf("it got %d after %v, want the one that is not left to others at once", got, took)
		}
	})
}
