package store_test

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

var update = flag.Bool("update", false, "write the golden files anew")

// copyStore copies the files of a store that is open, as a kill leaves them.
func copyStore(tb testing.TB, from, to string) {
	tb.Helper()
	for _, name := range []string{"workmanager.db", "workmanager.db-wal"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
}

// filled returns the directory of a closed store with some of everything in it.
func filled(tb testing.TB) string {
	tb.Helper()
	dir := fastDir(tb)
	d := newDriver(tb, dir, "", 5)
	if err := d.open(); err != nil {
		tb.Fatal(err)
	}
	for range 60 {
		if err := d.step(); err != nil {
			tb.Fatal(err)
		}
	}
	if err := met(d.s); err != nil {
		tb.Fatal(err)
	}
	if err := d.s.Close(); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// met gives a store a peer that it is reading: rows of it, a pair of results, a
// conflict, a floor, and a second cursor.
func met(s *store.Store) error {
	ctx := context.Background()
	if err := s.SetPeer(ctx, "b", "127.0.0.1:1", "127.0.0.1:2"); err != nil {
		return err
	}
	boot, at := jobs.ID{9}, time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
	open := jobs.Job{ID: jobs.ID{1}, V1: jobs.Value{1}, Iterations: 7}.Born("b", at, nil)
	done := jobs.Job{ID: jobs.ID{2}, V1: jobs.Value{2}, Iterations: 7}.Born("b", at.Add(time.Hour), &jobs.Value{3})
	other := open
	other.V1 = jobs.Value{2}
	for _, c := range []jobs.Chunk{
		{Next: jobs.Cursor{Boot: boot, At: 7, SeenHead: 7, BackTo: 7}, Reset: true,
			Rows: []jobs.Row{{Job: done, LSeq: 1, Ext: []byte("newer")}, {Job: other, LSeq: 2}}},
		{From: jobs.Cursor{Boot: boot, At: 7, SeenHead: 7, BackTo: 7}, Next: jobs.Cursor{Boot: boot, At: 9, SeenHead: 9, BackAt: 3, BackTo: 7},
			Rows: []jobs.Row{{Job: open, LSeq: 3}}, RCov: 4, HasRCov: true, Floor: at.Add(time.Minute)},
	} {
		c.Peer, c.Boot = "b", boot
		if _, err := s.Receive(ctx, c); err != nil {
			return err
		}
	}
	return s.Distrust(ctx, distrusted)
}

// distrusted is what met has the store note.
var distrusted = store.Distrust{
	Quarantines: []jobs.Quarantine{{Subject: jobs.Subject{Worker: "w"}, Turn: 3, Barred: true, Since: time.UnixMicro(1e15).UTC(), Node: "b", By: "ops",
		Reason: "it's wrong", ID: jobs.ID{2}, Done: 5, Said: jobs.Print{1}, Right: jobs.Print{2}}},
	Doubts: []store.Doubt{{ID: jobs.ID{2}, Disputed: true}},
}

func openNode(dir, node string) error {
	s, err := store.Open(context.Background(), dir, store.Options{Node: node})
	if err != nil {
		return err
	}
	return s.Close()
}

// TestOpenRefuses: what cannot be opened is said, with the way out, and left as
// it was.
func TestOpenRefuses(t *testing.T) {
	const node = "it's a"
	pragma := func(q string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if _, err := poke(t, dir).Exec(q); err != nil {
				t.Fatal(err)
			}
		}
	}
	garble := func(from, n int) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, "workmanager.db")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			rng := rand.New(rand.NewPCG(1, 1))
			for i := from; i < min(from+n, len(b)); i++ {
				b[i] = byte(rng.Uint32())
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		harm func(t *testing.T, dir string)
		node string
		want []string
	}{
		"newer_schema": {pragma("PRAGMA user_version = 99"), node, []string{"schema 99", "newer release", "backup"}},
		"other_node":   {func(*testing.T, string) {}, "b", []string{`node "it's a"`, `node "b"`, "--name", "--data-dir"}},
		"no_node":      {func(*testing.T, string) {}, "", []string{"name"}},
		"header":       {garble(0, 100), node, []string{"damaged", "backup", "workmanager.db"}},
		"schema":       {garble(100, 3996), node, []string{"damaged", "backup", "workmanager.db"}},
		"no_database": {func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "workmanager.db"), []byte(strings.Repeat("not a database\n", 1000)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, node, []string{"damaged", "backup"}},
		"truncated": {func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "workmanager.db"), 3*4096+100); err != nil {
				t.Fatal(err)
			}
		}, node, []string{"damaged", "backup"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filled(t)
			c.harm(t, dir)
			path := filepath.Join(dir, "workmanager.db")
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			err = openNode(dir, c.node)
			if err == nil {
				t.Fatal("Open() = nil")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("Open() = %q, want a word of %q", err, w)
				}
			}
			after, err := os.ReadFile(path)
			if err != nil || string(after) != string(before) {
				t.Errorf("Open() changed what it refused (%v)", err)
			}
			if err := os.Remove(filepath.Join(dir, "lock")); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOpenTwice: one directory, one store.
func TestOpenTwice(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), dir, store.Options{Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	err = openNode(dir, "a")
	if !errors.Is(err, store.ErrInUse) {
		t.Errorf("second Open() = %v, want %v", err, store.ErrInUse)
	}
	for _, w := range []string{dir, fmt.Sprint(os.Getpid()), "--data-dir"} {
		if !strings.Contains(fmt.Sprint(err), w) {
			t.Errorf("second Open() = %v, want %q in it", err, w)
		}
	}
	if _, err := s.Enqueue(t.Context(), work(t, 1, 2)); err != nil {
		t.Errorf("Enqueue() after another tried to open = %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := openNode(dir, "a"); err != nil {
		t.Errorf("Open() after Close = %v", err)
	}
}

// TestUncleanStopIsChecked garbles each page of a store that was not closed:
// the next start finds the damage. A store that was closed starts unchecked,
// since the check reads the whole file.
func TestUncleanStopIsChecked(t *testing.T) {
	live := t.TempDir()
	s := openIn(t, live, store.Options{})
	churn(t, s, 300)
	if err := s.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := poke(t, live).Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	killed := t.TempDir()
	copyStore(t, live, killed)
	if err := openNode(killed, "a"); err != nil {
		t.Fatalf("Open() of an unharmed copy = %v", err)
	}
	copyStore(t, live, killed)
	b, err := os.ReadFile(filepath.Join(killed, "workmanager.db"))
	if err != nil {
		t.Fatal(err)
	}
	found, pages := 0, len(b)/4096
	for page := range pages {
		dir := t.TempDir()
		harmed := append([]byte(nil), b...)
		for i := range 64 { // over the header of the page and its first cell pointers
			harmed[page*4096+i] ^= 0x5a
		}
		if err := os.WriteFile(filepath.Join(dir, "workmanager.db"), harmed, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := openNode(dir, "a"); err != nil {
			found++
			if !strings.Contains(err.Error(), "damaged") {
				t.Errorf("page %d: Open() = %v, want the word damaged", page+1, err)
			}
		}
	}
	if found < pages-1 { // a free page is nobody's loss
		t.Errorf("damage to %d of %d pages was found", found, pages)
	}
}

// TestFirstStartKilled: a start that was killed between making the tables and
// its first boot does not stand in the way of the next.
func TestFirstStartKilled(t *testing.T) {
	dir := t.TempDir()
	if err := openNode(dir, "a"); err != nil {
		t.Fatal(err)
	}
	db := poke(t, dir)
	if _, err := db.Exec("DELETE FROM meta; DELETE FROM boots"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := openNode(dir, "a"); err != nil {
		t.Errorf("Open() = %v", err)
	}
}

// TestBoots: each start has its own boot, in a chain that tells where its
// numbers begin.
func TestBoots(t *testing.T) {
	dir := t.TempDir()
	boots := map[jobs.ID]bool{}
	for range 3 {
		s, err := store.Open(t.Context(), dir, store.Options{Node: "a"})
		if err != nil {
			t.Fatal(err)
		}
		boots[s.Boot()] = true
		var lseq, rseq int64
		boot := s.Boot()
		if err := peek(t, dir).QueryRow("SELECT start_lseq, start_rseq FROM boots WHERE boot = ?", boot[:]).Scan(&lseq, &rseq); err != nil {
			t.Fatal(err)
		}
		if lseq != int64(s.Head())+1 || rseq != int64(s.ResultsHead())+1 {
			t.Errorf("boot starts at %d and %d, heads are %d and %d", lseq, rseq, s.Head(), s.ResultsHead())
		}
		if _, err := s.Enqueue(t.Context(), work(t, 5, 1)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(boots) != 3 {
		t.Errorf("%d boots in 3 starts", len(boots))
	}
}

// TestTableRefuses: the table itself refuses rows that break an invariant.
func TestTableRefuses(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir, store.Options{})
	batch := work(t, 3, 9)
	if _, err := s.Enqueue(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Record(t.Context(), complete(batch[:1])); err != nil {
		t.Fatal(err)
	}
	db := poke(t, dir)
	if _, err := db.Exec("UPDATE jobs SET attempts = 1 WHERE n = 1"); err != nil {
		t.Fatalf("a good row is refused: %v", err)
	}
	const open, done = " WHERE n = 2", " WHERE n = 1"
	for _, q := range []string{
		"iterations = 0" + open, "iterations = 9007199254740993" + open, "iterations = 'many'" + open, "iterations = 1.5" + open,
		"priority = 10" + open, "priority = -1" + open, "rank = 4" + open, "rank = NULL" + open,
		"id = x'00'" + open, "v1 = x'00'" + open, "v1 = NULL" + open, "v1 = 'text'" + open, "origin = NULL" + open,
		"result = zeroblob(64)" + open, "result = NULL" + done, "result = zeroblob(63)" + done, "rank = 0" + done, "rank = 3" + open,
		"err = 'why'" + open, "rank = 1, done_at = 1" + open, "err = 'why'" + done, "done_at = 1" + open, "done_at = NULL" + done,
		"rseq = 7" + open, "rseq = NULL" + done, "ck_done = 3" + open, "ck_value = zeroblob(64)" + open,
		"ck_done = 9, ck_value = zeroblob(64)" + open, "ck_done = -1" + open, "ck_done = 3, ck_value = zeroblob(64)" + done, "lost = 1" + done,
		"purged = 1" + open, "purged = 2" + done, "purged = 1" + done, "pulled = 2" + done, "verified = 'yes'" + done,
		"kept = x''" + open, "kept = zeroblob(9)" + open, "kept = zeroblob(73)" + open, "kept = 'text'" + open,
		"lseq = (SELECT lseq FROM jobs WHERE n = 1)" + open, "id = (SELECT id FROM jobs WHERE n = 1)" + open,
	} {
		if _, err := db.Exec("UPDATE jobs SET " + q); err == nil {
			t.Errorf("UPDATE jobs SET %s was taken", q)
		}
	}
	for _, q := range []string{
		"UPDATE counts SET open = -1", "UPDATE counts SET hi = 'x'",
		"INSERT INTO owners VALUES ('alice', 0)", "INSERT INTO owners VALUES ('', 1)", "INSERT INTO owners VALUES ('alice', 'x')",
		"INSERT INTO boots (boot, start_lseq, start_rseq, started_at) VALUES (x'00', 1, 1, 1)",
		"INSERT INTO pulls (key, at, whole, ids) VALUES (x'00', 1, 1, x'')",
	} {
		if _, err := db.Exec(q); err == nil {
			t.Errorf("%s was taken", q)
		}
	}
}

// TestMigrations opens a store of every version that was ever released, and
// finds in it all that was there.
func TestMigrations(t *testing.T) {
	var newest int
	if err := peek(t, filled(t)).QueryRow("PRAGMA user_version").Scan(&newest); err != nil {
		t.Fatal(err)
	}
	for version := 1; version <= newest; version++ {
		golden := filepath.Join("testdata", fmt.Sprintf("v%d.sql", version))
		if *update && version == newest {
			if err := os.WriteFile(golden, []byte(dump(t, filled(t))), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(golden)
		if err != nil {
			t.Fatalf("%v: write it with -update before the version is released", err)
		}
		dir := t.TempDir()
		db := poke(t, dir)
		if _, err := db.Exec(string(text)); err != nil {
			t.Fatalf("%s: %v", golden, err)
		}
		var rows, hashes int64
		if err := db.QueryRow("SELECT count(*), sum(rhash % 1000003) FROM jobs").Scan(&rows, &hashes); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		s := openIn(t, dir, store.Options{Node: "it's a"})
		got := all(t, s)
		var sum int64
		for _, j := range got {
			sum += j.Hash() % 1000003
		}
		if int64(len(got)) != rows || sum != hashes || rows == 0 {
			t.Errorf("%s: %d rows of hash %d, want %d of %d", golden, len(got), sum, rows, hashes)
		}
		checkCounts(t, s, peek(t, dir))
		if version >= 2 {
			want := jobs.Reading{Peer: "b", API: "127.0.0.1:1", Gossip: "127.0.0.1:2", Amnesia: true,
				Cursor: jobs.Cursor{Boot: jobs.ID{9}, At: 9, SeenHead: 9, BackAt: 3, BackTo: 7}}
			if version < 4 { // it has a row of a newer release, whose owner it learns by reading once more
				want.Cursor = jobs.Cursor{}
			}
			if got := s.Reading(); got != want {
				t.Errorf("%s: Reading() = %+v, want %+v", golden, got, want)
			}
			if floor, _ := s.Floor(); !floor.Equal(time.Date(2026, 2, 1, 0, 1, 0, 0, time.UTC)) {
				t.Errorf("%s: the floor is %v", golden, floor)
			}
			if r, found, err := s.Row(t.Context(), jobs.ID{2}); err != nil || !found || string(r.Ext) != "newer" {
				t.Errorf("%s: Row() = %v, %v, %v, want what the newer release wrote", golden, r, found, err)
			}
			for _, table := range []string{"rcovs", "conflicts"} {
				var n int
				if err := peek(t, dir).QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil || n != 1 {
					t.Errorf("%s: %d rows of %s, %v, want 1", golden, n, table, err)
				}
			}
		} else if got := s.Reading(); got != (jobs.Reading{}) {
			t.Errorf("%s: Reading() = %+v, want none", golden, got)
		}
		if version < 5 {
			if err := s.Distrust(t.Context(), distrusted); err != nil {
				t.Errorf("%s: Distrust() = %v", golden, err)
			}
		}
		if q, err := s.Quarantines(t.Context()); err != nil || !slices.Equal(q, distrusted.Quarantines) {
			t.Errorf("%s: Quarantines() = %+v, %v", golden, q, err)
		}
		if d, err := s.Doubts(t.Context(), 9); err != nil || !slices.Equal(d, distrusted.Doubts) {
			t.Errorf("%s: Doubts() = %+v, %v", golden, d, err)
		}
		if _, err := s.Enqueue(t.Context(), work(t, 9, 2)); err != nil {
			t.Errorf("%s: Enqueue() = %v", golden, err)
		}
	}
}

// dump returns the SQL that makes a database again.
func dump(tb testing.TB, dir string) string {
	tb.Helper()
	db := peek(tb, dir)
	var b strings.Builder
	b.WriteString("BEGIN;\n")
	each := func(query string, f func(scan func(...any) error) error) {
		tb.Helper()
		rows, err := db.Query(query)
		if err != nil {
			tb.Fatalf("%s: %v", query, err)
		}
		defer rows.Close()
		for rows.Next() {
			if err := f(rows.Scan); err != nil {
				tb.Fatalf("%s: %v", query, err)
			}
		}
		if err := rows.Err(); err != nil {
			tb.Fatalf("%s: %v", query, err)
		}
	}
	var tables []string
	each("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid", func(scan func(...any) error) error {
		var kind, name, def string
		err := scan(&kind, &name, &def)
		if kind == "table" {
			tables = append(tables, name)
		}
		fmt.Fprintf(&b, "%s;\n", def)
		return err
	})
	for _, table := range tables {
		var quoted []string
		each("SELECT name FROM pragma_table_info('"+table+"')", func(scan func(...any) error) error {
			var col string
			err := scan(&col)
			// quote() ends at a zero byte, which a reason may contain.
			quoted = append(quoted, fmt.Sprintf(`CASE WHEN typeof(%[1]s) = 'text' AND length(CAST(%[1]s AS BLOB)) <> length(%[1]s)
				THEN 'CAST(x''' || hex(CAST(%[1]s AS BLOB)) || ''' AS TEXT)' ELSE quote(%[1]s) END`, col))
			return err
		})
		each("SELECT "+strings.Join(quoted, " || ', ' || ")+" FROM "+table, func(scan func(...any) error) error {
			var values string
			err := scan(&values)
			fmt.Fprintf(&b, "INSERT INTO %s VALUES (%s);\n", table, values)
			return err
		})
	}
	var version int
	if err := db.QueryRow("PRAGMA user_version").Scan(&version); err != nil && err != sql.ErrNoRows {
		tb.Fatal(err)
	}
	fmt.Fprintf(&b, "PRAGMA user_version = %d;\nCOMMIT;\n", version)
	return b.String()
}
