package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // the database is changed behind a node's back
)

const database = "workmanager.db"

// refused runs a node that must not start. It returns what stderr says.
func refused(t testing.TB, code int, flags ...string) string {
	t.Helper()
	p := command(t, append([]string{"node"}, flags...)...)
	if p.code != code {
		t.Errorf("node %v: exit code %d, want %d: %s", flags, p.code, code, p.log.String())
	}
	return p.log.String()
}

// says fails the test unless the text has all of the words.
func says(t testing.TB, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("it does not say %q: %s", w, text)
		}
	}
}

// made returns a folder with the data of a node that was killed or stopped.
func made(t testing.TB, clean bool, count int) (dir string, l *ledger) {
	t.Helper()
	dir = t.TempDir()
	n := start(t, dir, nil, "--workers", "1")
	l = newLedger()
	for i := range count {
		o := order{name: fmt.Sprintf("made/%d", i), iterations: 2}
		l.answered(o, n.enqueue(o.name, o.iterations))
	}
	n.idle(upTimeout)
	if clean {
		n.stop()
	} else {
		n.kill()
	}
	return dir, l
}

func TestRefusesStart(t *testing.T) {
	t.Parallel()
	t.Run("data_in_use", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		n := start(t, dir, nil)
		id := n.enqueue("hello", 5)
		says(t, refused(t, 1, "--data-dir", dir, "--listen", freeAddr(t)),
			dir, fmt.Sprintf("process %d", n.cmd.Process.Pid), "stop that node, or give another --data-dir")
		n.completed(id, golden[2].value) // the first node does not suffer
		n.kill()
		start(t, dir, nil).stop() // a lock dies with its holder
	})
	t.Run("port_in_use", func(t *testing.T) {
		t.Parallel()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		dir := t.TempDir()
		says(t, refused(t, 1, "--data-dir", dir, "--listen", l.Addr().String()), l.Addr().String(), "address already in use")
		start(t, dir, nil).stop() // and has left the folder usable
	})
	t.Run("newer_schema", func(t *testing.T) {
		t.Parallel()
		dir, l := made(t, true, 3)
		var known int
		db := open(t, dir)
		if err := db.QueryRow("PRAGMA user_version").Scan(&known); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		execute(t, dir, "PRAGMA user_version = 1000")
		says(t, refused(t, 1, "--data-dir", dir, "--listen", freeAddr(t)), dir, "schema 1000", "newer release", "backup")
		var version int
		db = open(t, dir)
		if err := db.QueryRow("PRAGMA user_version").Scan(&version); err != nil || version != 1000 {
			t.Errorf("user_version after the refusal: got %d, %v, want 1000", version, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		execute(t, dir, fmt.Sprintf("PRAGMA user_version = %d", known))
		n := start(t, dir, nil)
		l.check(t, n)
		n.stop()
	})
	t.Run("other_name", func(t *testing.T) {
		t.Parallel()
		dir, _ := made(t, true, 1)
		says(t, refused(t, 1, "--name", "b", "--data-dir", dir, "--listen", freeAddr(t)), dir, `"a"`, "--name")
	})
	for _, clean := range []bool{true, false} {
		for _, where := range []string{"header", "inside"} {
			t.Run(fmt.Sprintf("damaged_%s_clean_%v", where, clean), func(t *testing.T) {
				t.Parallel()
				dir, _ := made(t, clean, 150)
				if !clean { // the log would mend what is damaged
					execute(t, dir, "PRAGMA wal_checkpoint(TRUNCATE)")
				}
				name := filepath.Join(dir, database)
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				from, to := 0, 100
				if where == "inside" { // every page but the first
					from, to = 4096, len(b)
				}
				for i := from; i < to; i++ {
					b[i] ^= byte(i*31 + 7)
				}
				if err := os.WriteFile(name, b, 0o600); err != nil {
					t.Fatal(err)
				}
				says(t, refused(t, 1, "--data-dir", dir, "--listen", freeAddr(t)), name, "damaged", "backup", "move it away")
				after, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(after, b) {
					t.Error("a refused start has changed the database")
				}
			})
		}
	}
	t.Run("damaged_page_clean_false", func(t *testing.T) { // which nothing needs at the start
		t.Parallel()
		dir, l := made(t, false, 150)
		execute(t, dir, "PRAGMA wal_checkpoint(TRUNCATE)")
		name := filepath.Join(dir, database)
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range l.acked { // the page of a row in the middle
			if o.name != "made/75" {
				continue
			}
			value, err := hex.DecodeString(o.value())
			if err != nil {
				t.Fatal(err)
			}
			at := bytes.Index(b, value) / 4096 * 4096
			if at <= 0 {
				t.Fatalf("the value of %v is not in the database", o)
			}
			clear(b[at+8 : at+2048]) // where its rows are
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		says(t, refused(t, 1, "--data-dir", dir, "--listen", freeAddr(t)), name, "damaged", "backup")
	})
	t.Run("truncated", func(t *testing.T) {
		t.Parallel()
		dir, _ := made(t, true, 150)
		name := filepath.Join(dir, database)
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(name, st.Size()/2); err != nil {
			t.Fatal(err)
		}
		says(t, refused(t, 1, "--data-dir", dir, "--listen", freeAddr(t)), name, "damaged")
	})
	t.Run("folder_is_a_file", func(t *testing.T) {
		t.Parallel()
		name := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		says(t, refused(t, 1, "--data-dir", name, "--listen", freeAddr(t)), name)
	})
	t.Run("flags", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "never made")
		for _, c := range []struct{ flag, value string }{
			{"--listen", "nonsense"}, {"--workers", "-7"}, {"--workers", "many"}, {"--retention", "1ms"}, {"--retention", "soon"},
			{"--cache", "-1"}, {"--checkpoint-interval", "0"}, {"--max-data-bytes", "huge"}, {"--max-top", "0"},
			{"--name", "No Such Name"}, {"--data-dir", ""}, {"--no-such-flag", "1"},
		} {
			says(t, refused(t, 2, "--data-dir", dir, "--listen", freeAddr(t), c.flag, c.value), strings.TrimLeft(c.flag, "-"), "hint")
		}
		says(t, refused(t, 2, "--data-dir", dir, "--workers", "-7", "--retention", "1ms"), "--workers", "--retention") // all at once
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a refused start has made its folder: %v", err)
		}
	})
}

// TestGarbageLog shows that a log of garbage, which SQLite does not take for
// its own, costs nothing that the database holds.
func TestGarbageLog(t *testing.T) {
	t.Parallel()
	dir, l := made(t, true, 20)
	if err := os.WriteFile(filepath.Join(dir, database+"-wal"), bytes.Repeat([]byte("garbage "), 10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	n := start(t, dir, nil)
	l.check(t, n)
	n.stop()
}

func open(t testing.TB, dir string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, database))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	return db
}

// execute runs SQL on the database of a node that does not run.
func execute(t testing.TB, dir, query string) {
	t.Helper()
	db := open(t, dir)
	defer db.Close()
	rows, err := db.QueryContext(context.Background(), query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	for rows.Next() {
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}
