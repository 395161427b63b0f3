package store_test

import (
	"database/sql"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"workmanager/jobs/store"
)

// TestLogBeginsAnewBesideReaders: one reader always begins before the last has
// ended, so there is no moment at which the whole log can be moved. The writer
// waits for them once the log is long, and the log is used from its start again.
func TestLogBeginsAnewBesideReaders(t *testing.T) {
	dir := t.TempDir()
	const pages = 5 // from which on the log is moved; at 16 times that readers are waited for
	s := openIn(t, dir, store.Options{DSN: "&_pragma=synchronous(OFF)&_pragma=wal_autocheckpoint(5)"})
	db := peek(t, dir)
	begin := func() *sql.Tx {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if err := tx.QueryRow("SELECT count(*) FROM meta").Scan(&n); err != nil { // its view begins here
			t.Fatal(err)
		}
		return tx
	}
	reader := begin()
	defer func() { _ = reader.Rollback() }() // it only reads
	patience := time.NewTicker(time.Hour)
	defer patience.Stop()
	var first uint32
	for deadline := time.Now().Add(10 * time.Second); ; {
		patience.Reset(50 * time.Millisecond) // far more than a write takes that waits for nobody
		wrote := make(chan error, 1)
		go func() {
			_, err := s.Enqueue(t.Context(), work(t, 1, 9))
			wrote <- err
		}()
		for waits := true; waits; {
			select {
			case err := <-wrote:
				if waits = false; err != nil {
					t.Fatal(err)
				}
			case <-patience.C: // the writer waits for the reader
				patience.Reset(5 * time.Millisecond)
			}
			next := begin()
			if err := reader.Rollback(); err != nil {
				t.Fatal(err)
			}
			reader = next
		}
		switch round, length := logOf(t, dir); {
		case time.Now().After(deadline):
			t.Fatalf("the log has %d pages and does not begin anew", length)
		case length < 16*pages:
			first = round
		case round != first:
			return
		}
	}
}

// logOf returns which round of the log this is, 0 if it is empty, and how many
// pages long its file is. See "The WAL File Format" of SQLite.
func logOf(tb testing.TB, dir string) (round uint32, pages int) {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "workmanager.db-wal"))
	if err != nil {
		tb.Fatal(err)
	}
	if len(b) < 32 {
		return 0, 0
	}
	return binary.BigEndian.Uint32(b[16:]), (len(b) - 32) / (4096 + 24)
}
