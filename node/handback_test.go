package node

import (
	"database/sql"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// refusal is a queue over a database that can be made to refuse changes of jobs.
type refusal struct {
	*Queue
	refuse, accept func()
}

func newRefusal(t *testing.T, now func() time.Time) refusal {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), dir, store.Options{Node: "a", DSN: "&_pragma=synchronous(OFF)"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "workmanager.db")+"?_pragma=busy_timeout(5000)&_pragma=wal_autocheckpoint(0)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // the store closes the file
	exec := func(query string) func() {
		return func() {
			t.Helper()
			if _, err := db.ExecContext(t.Context(), query); err != nil {
				t.Fatal(err)
			}
		}
	}
	return refusal{
		Queue:  newQueue(Default(), s, now, slog.New(slog.DiscardHandler), newCache(100), nil),
		refuse: exec("CREATE TRIGGER refuse BEFORE UPDATE ON jobs BEGIN SELECT raise(ABORT, 'refused'); END"),
		accept: exec("DROP TRIGGER refuse"),
	}
}

// lease gives the worker the one job there is.
func (r refusal) lease(t *testing.T, w jobs.Worker) jobs.Lease {
	t.Helper()
	leases, _ := r.grant(w, jobs.Capacity{Jobs: 1, Iterations: 1 << 60})
	if len(leases) != 1 {
		t.Fatalf("%d leases, want 1", len(leases))
	}
	return leases[0]
}

// row returns the progress that a restart would go on from.
func (r refusal) row(t *testing.T, id jobs.ID) jobs.Progress {
	t.Helper()
	j, found, err := r.store.Job(t.Context(), id)
	if err != nil || !found {
		t.Fatalf("Job(%s) = %v, %v", id, found, err)
	}
	return j.Start()
}

// TestHandBack_can_be_repeated: a hand-back whose progress could not be stored
// leaves the lease as it was, so that the worker can make it again.
func TestHandBack_can_be_repeated(t *testing.T) {
	r := newRefusal(t, time.Now)
	take(t, r.Queue, 1) // the first look at the disk
	put(t, r.Queue, 1, 0)
	w := jobs.Worker{Name: "w"}
	l := r.lease(t, w)
	ref := l.LeaseRef
	reached := jobs.Progress{Done: 500, Value: jobs.Value{5}}
	back := []jobs.Report{{LeaseRef: ref, V1: l.V1, Iterations: l.Iterations, Kind: jobs.ReportHandBack, Progress: reached}}

	r.refuse()
	if _, err := r.Report(t.Context(), w, back); err == nil {
		t.Fatal("Report() of a hand-back that was not stored = nil")
	}
	if !r.table.Holds(ref) || r.table.Waiting() != 0 {
		t.Errorf("after a hand-back that was not stored the lease stands: %v, jobs that wait: %d", r.table.Holds(ref), r.table.Waiting())
	}
	r.accept()
	if v, err := r.Report(t.Context(), w, back); err != nil || v[0] != jobs.Kept {
		t.Fatalf("Report() of the hand-back again = %v, %v, want kept", v, err)
	}
	if got := r.row(t, ref.ID); got != reached {
		t.Errorf("the row is at %d iterations, want %d", got.Done, reached.Done)
	}
	if next := r.lease(t, jobs.Worker{Name: "next"}); next.ID != ref.ID || next.Start != reached {
		t.Errorf("the next worker gets %s from %d iterations, want %s from %d", next.ID, next.Start.Done, ref.ID, reached.Done)
	}
}

// TestCheckpoint_not_stored_is_made_soon: progress that could not be stored is
// not taken for stored: it is due with the next report, not an interval later.
func TestCheckpoint_not_stored_is_made_soon(t *testing.T) {
	now := time.Now()
	r := newRefusal(t, func() time.Time { return now })
	take(t, r.Queue, 1)
	put(t, r.Queue, 1, 0)
	w := jobs.Worker{Name: "w"}
	l := r.lease(t, w)
	ref := l.LeaseRef
	report := func(done uint64) error {
		_, err := r.Report(t.Context(), w, []jobs.Report{{LeaseRef: ref, V1: l.V1, Iterations: l.Iterations, Kind: jobs.ReportProgress, Progress: jobs.Progress{Done: done, Value: jobs.Value{byte(done)}}}})
		return err
	}

	now = now.Add(r.checkpoint)
	r.refuse()
	if err := report(101); err == nil {
		t.Fatal("Report() of a checkpoint that was not stored = nil")
	}
	if got := r.table.Unsaved(); got != (jobs.Work{Lo: 100}) {
		t.Errorf("Unsaved() = %v iterations, want the 100 that no row knows of", got)
	}
	r.accept()
	now = now.Add(time.Second) // much less than the interval
	if err := report(102); err != nil {
		t.Fatal(err)
	}
	if got := r.row(t, ref.ID); got.Done != 102 || r.table.Unsaved() != (jobs.Work{}) {
		t.Errorf("the row is at %d iterations, %v are unsaved, want 102 and none", got.Done, r.table.Unsaved())
	}
}
