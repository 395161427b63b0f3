//go:build linux

package store_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// recording is a run as the disk saw it: every operation, and after how many
// of them each call was acknowledged, with all rows as they then stood.
type recording struct {
	ops   []diskOp
	acks  []int
	rows  []map[jobs.ID]jobs.Job // rows[i] after i acknowledged calls
	seeds uint64
}

// record runs a store on an empty directory, ends without closing it, and
// returns what reached the disk.
func record(t *testing.T, dsn string, seed uint64, steps int) *recording {
	t.Helper()
	dir := fastDir(t)
	rec := &recording{rows: []map[jobs.ID]jobs.Job{{}}, seeds: seed}
	onDisk(t, dir, func(op diskOp) (int32, int) {
		if op.kind != opOpen {
			op.data = append([]byte(nil), op.data...)
			rec.ops = append(rec.ops, op)
		}
		return 0, 0
	})
	d := newDriver(t, dir, onFault+"&_pragma=wal_autocheckpoint(25)"+dsn, seed)
	d.expires = true
	if err := d.open(); err != nil {
		t.Fatal(err)
	}
	for range steps {
		if err := d.step(); err != nil {
			t.Fatal(err)
		}
		rec.acks = append(rec.acks, len(rec.ops))
		rec.rows = append(rec.rows, maps.Clone(d.rows))
	}
	crashed := *rec // Close goes on writing, to rec
	if err := d.s.Close(); err != nil {
		t.Fatal(err)
	}
	return &crashed
}

// crash writes the files as a power loss after the first n operations may leave
// them: what was synced is there; of the rest nothing (lose), or each write at
// random whole, torn at a sector, or not at all, the files apart.
func (r *recording) crash(dir string, n int, lose bool, rng *rand.Rand) error {
	const sector = 512
	type file struct{ safe, now []byte }
	files := map[string]*file{"workmanager.db": {}} // made by the store itself, before SQLite
	pending := map[string][]diskOp{}
	put := func(b []byte, op diskOp, upto int) []byte {
		if op.kind == opTruncate {
			return append(b[:min(len(b), int(op.size))], make([]byte, max(0, int(op.size)-len(b)))...)
		}
		if need := int(op.off) + upto; need > len(b) {
			b = append(b, make([]byte, need-len(b))...)
		}
		copy(b[op.off:], op.data[:upto])
		return b
	}
	for _, op := range r.ops[:n] {
		f := files[op.file]
		if f == nil {
			f = &file{}
			files[op.file] = f
		}
		switch op.kind {
		case opWrite, opTruncate:
			f.now = put(f.now, op, len(op.data))
			pending[op.file] = append(pending[op.file], op)
		case opSync:
			f.safe = append(f.safe[:0], f.now...)
			pending[op.file] = nil
		case opDelete:
			delete(files, op.file)
			pending[op.file] = nil
		}
	}
	for name, f := range files {
		if !lose {
			for _, op := range pending[name] {
				switch rng.IntN(3) {
				case 0:
					f.safe = put(f.safe, op, len(op.data))
				case 1:
					if op.kind == opWrite {
						f.safe = put(f.safe, op, rng.IntN(len(op.data)/sector+1)*sector)
					}
				}
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), f.safe, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// verdict opens the store that a crash left and says what is wrong with it, ""
// if nothing is: it must hold what was acknowledged after n operations, and
// besides at most all of the one call that was under way.
func (r *recording) verdict(dir string, n int) string {
	acked := 0
	for acked < len(r.acks) && r.acks[acked] <= n {
		acked++
	}
	s, err := store.Open(context.Background(), dir, store.Options{Node: "it's a"})
	if err != nil {
		return fmt.Sprintf("does not open: %v", err)
	}
	defer s.Close()
	got := map[jobs.ID]jobs.Job{}
	for q := (jobs.ListQuery{Limit: 1000}); ; {
		page, next, more, err := s.List(context.Background(), "", q)
		if err != nil {
			return fmt.Sprintf("cannot be read: %v", err)
		}
		for _, j := range page {
			got[j.Job.ID] = j.Job
		}
		if q.After = next; !more {
			break
		}
	}
	if maps.Equal(got, r.rows[acked]) || acked+1 < len(r.rows) && maps.Equal(got, r.rows[acked+1]) {
		return ""
	}
	for c, rows := range r.rows {
		if maps.Equal(got, rows) {
			return fmt.Sprintf("holds the rows after call %d, acknowledged were %d", c, acked)
		}
	}
	return fmt.Sprintf("holds %d rows that were never together; %d calls were acknowledged", len(got), acked)
}

// crashes tries every stride-th place of the recording and returns what went
// wrong, and how many states were tried.
func (r *recording) crashes(t *testing.T, stride int) (wrong []string, states int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(r.seeds, 1))
	for n := 0; n <= len(r.ops); n += 1 + rng.IntN(2*stride-1) {
		for _, lose := range []bool{true, false} {
			dir, err := os.MkdirTemp(fastDirRoot(), "store-crash-")
			if err != nil {
				t.Fatal(err)
			}
			if err := r.crash(dir, n, lose, rng); err != nil {
				t.Fatal(err)
			}
			if v := r.verdict(dir, n); v != "" {
				wrong = append(wrong, fmt.Sprintf("power lost after operation %d of %d, unsynced writes all lost: %v: the store %s", n, len(r.ops), lose, v))
			}
			states++
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		}
	}
	return wrong, states
}

// TestPowerLoss enumerates the states that a power loss can leave. Nothing
// acknowledged is lost with synchronous=FULL; with less the same check must
// find losses, or it would prove nothing.
func TestPowerLoss(t *testing.T) {
	t.Run("full", func(t *testing.T) {
		wrong, states := record(t, "", 3, 60).crashes(t, 10)
		t.Logf("%d states", states)
		for i, w := range wrong {
			if i < 5 {
				t.Error(w)
			}
		}
		if states < 150 {
			t.Errorf("%d states tried, want at least 150", states)
		}
	})
	for name, dsn := range map[string]string{"control_normal": "&_pragma=synchronous(NORMAL)", "control_off": "&_pragma=synchronous(OFF)"} {
		t.Run(name, func(t *testing.T) {
			wrong, states := record(t, dsn, 3, 60).crashes(t, 40)
			t.Logf("%d of %d states have losses", len(wrong), states)
			if len(wrong) < states/10 {
				t.Errorf("%d of %d states have losses: the check finds too little", len(wrong), states)
			}
		})
	}
}
