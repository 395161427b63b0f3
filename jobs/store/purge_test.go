package store_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// secrets finds values in the files of a directory, wherever they may lie.
type secrets map[[8]byte]jobs.Value

func (s secrets) add(v jobs.Value) { s[[8]byte(v[:8])] = v }

// find returns how often each value is in the files of dir. The store may have
// them open: its locks are of the kind that a stray close does not drop.
func (s secrets) find(tb testing.TB, dir string) map[jobs.Value]int {
	tb.Helper()
	found := map[jobs.Value]int{}
	var begins [1 << 16]bool // by two bytes: a quick look, for a map is slow
	for b := range s {
		begins[int(b[0])<<8|int(b[1])] = true
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			tb.Fatal(err)
		}
		for i := 0; i+8 <= len(b); i++ {
			if !begins[int(b[i])<<8|int(b[i+1])] {
				continue
			}
			v, ok := s[[8]byte(b[i:])]
			// Half of a value is too much already.
			if ok && i+32 <= len(b) && string(b[i:i+32]) == string(v[:32]) {
				found[v]++
			}
		}
	}
	return found
}

// churn enqueues n jobs and gives them checkpoints and values in mixed order,
// so that rows grow, shrink, move, and pages split and join. It returns the
// jobs in order and all the values that each has ever had.
func churn(tb testing.TB, s *store.Store, n int) ([]jobs.ID, map[jobs.ID][]jobs.Value) {
	tb.Helper()
	rng := rand.New(rand.NewPCG(11, 0))
	value := func() jobs.Value {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], rng.Uint64())
		return sha512.Sum512(b[:])
	}
	had := map[jobs.ID][]jobs.Value{}
	var ids []jobs.ID
	for len(ids) < n {
		batch := work(tb, 1+rng.IntN(60), 1000)
		for i := range batch {
			sub := &batch[i]
			if rng.IntN(20) == 0 {
				sub.Job.Keep = 300 // of which the row's pages hold a few, and pages of their own the rest
			}
			ids = append(ids, sub.Job.ID)
			had[sub.Job.ID] = []jobs.Value{sub.Job.V1}
		}
		if _, err := s.Enqueue(tb.Context(), batch); err != nil {
			tb.Fatal(err)
		}
		facts := make([]store.Fact, 1+rng.IntN(100))
		for i := range facts {
			v, kind := value(), rng.IntN(10)
			more := jobs.Rungs("")
			for range rng.IntN(120) {
				more = more.Add(value())
			}
			facts[i] = store.Fact{ID: ids[rng.IntN(len(ids))], Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) {
				switch {
				case j.Keep > 0 && kind < 6:
					return j.AddRungs(j.Rungs.Len(), more)
				case kind < 5:
					return j.Advance(jobs.Progress{Done: j.Start().Done + 1, Value: v})
				case kind < 8:
					return j.Complete(v, at())
				case kind < 9:
					return j.Fail("a reason that makes the row longer than the one beside it, as long as it was open", at())
				}
				return j.Cancel(at())
			}}
		}
		out, err := s.Record(tb.Context(), facts)
		if err != nil {
			tb.Fatal(err)
		}
		for _, e := range out {
			for _, v := range []jobs.Value{e.Job.Checkpoint.Value, e.Job.Result} {
				if e.Changed && v != (jobs.Value{}) {
					had[e.Job.ID] = append(had[e.Job.ID], v)
				}
			}
			for i := range e.Job.Rungs.Len() {
				had[e.Job.ID] = append(had[e.Job.ID], e.Job.Rungs.At(i))
			}
		}
	}
	return ids, had
}

// littered returns how many leaf pages of tables hold something between their
// cell pointers and their cells, where SQLite leaves copies of moved rows.
func littered(tb testing.TB, dir string) int {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "workmanager.db"))
	if err != nil {
		tb.Fatal(err)
	}
	n := 0
	for page := range slices.Chunk(b, 4096) {
		if page[0] != 0x0d {
			continue
		}
		from, to := 8+2*int(binary.BigEndian.Uint16(page[3:])), int(binary.BigEndian.Uint16(page[5:]))
		if len(bytes.Trim(page[from:to], "\x00")) > 0 {
			n++
		}
	}
	return n
}

func purge(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Purge(at()) }

// TestPurgeErases: when a purge has returned, no file holds a value that the
// job has ever had, and the values of the others are all there.
func TestPurgeErases(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir, store.Options{})
	ids, had := churn(t, s, 5000)
	// Retention joins pages, and leaves copies by that too.
	expire(t, s, time.Now().Add(time.Hour))
	if _, err := poke(t, dir).Exec("PRAGMA wal_checkpoint"); err != nil {
		t.Fatal(err)
	}
	if littered(t, dir) == 0 {
		t.Error("no page holds anything in unused room before the first purge: the test proves nothing")
	}
	for round := range 3 {
		gone, kept := secrets{}, secrets{}
		var facts []store.Fact
		for i, id := range ids {
			j, found, err := s.Job(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case !found:
			case i%7 == round || i%1000 < 40:
				facts = append(facts, store.Fact{ID: id, Apply: purge})
				fallthrough
			case j.Purged:
				for _, v := range had[id] {
					gone.add(v)
				}
			default:
				kept.add(j.V1)
				if j.Rank == jobs.Completed {
					kept.add(j.Result)
				}
			}
		}
		if _, err := s.Record(t.Context(), facts); err != nil {
			t.Fatal(err)
		}
		if n := littered(t, dir); n > 0 {
			t.Errorf("round %d: %d pages hold something in unused room", round, n)
		}
		if found := gone.find(t, dir); len(found) > 0 {
			t.Errorf("round %d: of the %d values of %d purged jobs %d are still in the files", round, len(gone), len(facts), len(found))
		}
		if found := kept.find(t, dir); len(found) != len(kept) {
			t.Errorf("round %d: of %d values of other jobs %d are in the files", round, len(kept), len(found))
		}
	}
}

// TestPurgeKilled: a kill right after the commit of a purge, before the unused
// room is erased, leaves that to the next start.
func TestPurgeKilled(t *testing.T) {
	dir, copied := t.TempDir(), t.TempDir()
	var purged bool
	s := openIn(t, dir, store.Options{OnCommit: func(changed []jobs.Changed) {
		if len(changed) > 0 && changed[0].Job.Purged && !purged {
			purged = true
			copyStore(t, dir, copied)
		}
	}})
	ids, had := churn(t, s, 3000)
	gone := secrets{}
	var facts []store.Fact
	for i, id := range ids {
		if i%3 == 0 {
			facts = append(facts, store.Fact{ID: id, Apply: purge})
			for _, v := range had[id] {
				gone.add(v)
			}
		}
	}
	if _, err := s.Record(t.Context(), facts); err != nil {
		t.Fatal(err)
	}
	if found := gone.find(t, copied); len(found) == 0 {
		t.Error("nothing was left at the moment of the kill: the test proves nothing")
	}
	openIn(t, copied, store.Options{})
	if found := gone.find(t, copied); len(found) > 0 {
		t.Errorf("after the next start %d of %d values are still in the files", len(found), len(gone))
	}
}

// TestPurgeBesideReader: a reader that keeps an old view holds the log, and with
// it the purged bytes, but not the writer; Tidy erases them when it has gone.
func TestPurgeBesideReader(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir, store.Options{})
	batch := work(t, 50, 9)
	if _, err := s.Enqueue(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	tx, err := peek(t, dir).Begin()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := tx.QueryRow("SELECT count(*) FROM jobs").Scan(&n); err != nil || n != 50 {
		t.Fatal(n, err)
	}
	if _, err := s.Record(t.Context(), []store.Fact{{ID: batch[7].Job.ID, Apply: purge}}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 5 {
		if _, err := s.Enqueue(t.Context(), work(t, 1, 9)); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("5 writes beside the reader took %v", took)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := s.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone := secrets{}
	gone.add(batch[7].Job.V1)
	if found := gone.find(t, dir); len(found) > 0 {
		t.Error("the purged value is still in the files")
	}
}
