package node

import (
	"log/slog"
	"strings"
	"testing"
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
