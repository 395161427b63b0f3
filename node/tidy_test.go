package node

import (
	"bytes"
	"context"
	"database/sql"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// TestRetention_erases_what_a_purge_left: another process holds the database
// when a purge erases, until the purge gives up. The next look of the retention
// makes up for it, with nothing to drop and without another purge.
func TestRetention_erases_what_a_purge_left(t *testing.T) {
	t.Parallel() // it waits 5 s, SQLite's busy_timeout
	dir := t.TempDir()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "workmanager.db")+"?_pragma=wal_autocheckpoint(0)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // the store closes the file
	db.SetMaxOpenConns(1)                // one transaction over several calls
	hold := func(query string) {
		if _, err := db.ExecContext(t.Context(), query); err != nil {
			t.Errorf("%s: %v", query, err)
		}
	}
	s, err := store.Open(t.Context(), dir, store.Options{Node: "a", DSN: "&_pragma=synchronous(OFF)", OnCommit: func(changed []jobs.Changed) {
		if changed[0].Job.Purged {
			hold("BEGIN IMMEDIATE")
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	log := slog.New(slog.DiscardHandler)
	cfg := Default()
	cfg.Retention = time.Second // looks four times a second
	longAgo := func() time.Time { return time.Unix(0, 0) }
	n := &Node{cfg: cfg, log: log, now: longAgo, store: s, queue: newQueue(cfg, s, time.Now, log, newCache(100), nil)}
	ids := put(t, n.queue, 3, 0)
	j, _, err := s.Job(t.Context(), ids[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.queue.Cancel(t.Context(), ids[1:2], true, jobs.AckDefault); err != nil {
		t.Fatal(err)
	}
	hold("ROLLBACK")
	if !onDisk(t, dir, j.V1) {
		t.Error("the purged bytes are gone before the retention looks: the test proves nothing")
	}

	ctx, stop := context.WithCancel(t.Context())
	retained := make(chan error, 1)
	go func() { retained <- n.retain(ctx) }()
	defer func() {
		stop()
		if err := <-retained; err != nil {
			t.Error(err)
		}
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); onDisk(t, dir, j.V1); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the purged bytes are still in the files")
		}
	}
	if _, found, err := s.Job(t.Context(), ids[1]); err != nil || !found {
		t.Errorf("Job() = %v, %v: retention dropped the job, which is another way to lose its bytes", found, err)
	}
}

// onDisk reports whether a value is in a file of dir. A store may have them
// open: its locks are of the kind that a stray close does not drop.
func onDisk(t *testing.T, dir string, v jobs.Value) bool {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, v[:32]) { // half of it is too much already
			return true
		}
	}
	return false
}
