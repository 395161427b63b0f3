//go:build linux

package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	lib "modernc.org/sqlite/lib"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// nth returns a hook that fails the n-th operation of a kind, and a flag that
// tells whether it did.
func nth(kind opKind, n int, rc int32, half bool) (diskHook, *atomic.Bool) {
	var seen atomic.Int64
	var hit atomic.Bool
	return func(op diskOp) (int32, int) {
		if op.kind != kind || seen.Add(1) != int64(n) {
			return 0, 0
		}
		hit.Store(true)
		if half {
			return rc, len(op.data) / 2
		}
		return rc, 0
	}, &hit
}

// TestNthFailure lets each n-th write or sync fail once in a random run. After
// an error of the disk the store refuses everything; after "disk full" it goes
// on, and nothing of the refused call was done. Either way all that was
// acknowledged is there after the next start, unaltered.
func TestNthFailure(t *testing.T) {
	for _, f := range []struct {
		name string
		kind opKind
		rc   int32
		half bool
		full bool
		step int
	}{
		{name: "write_full", kind: opWrite, rc: lib.SQLITE_FULL, full: true, step: 31},
		{name: "half_write", kind: opWrite, rc: lib.SQLITE_IOERR_WRITE, half: true, step: 31},
		{name: "sync", kind: opSync, rc: lib.SQLITE_IOERR_FSYNC, step: 4},
	} {
		t.Run(f.name, func(t *testing.T) {
			runs := 0
			for n, hit := 1, true; hit; n += f.step {
				hit = nthFailure(t, n, f.kind, f.rc, f.half, f.full)
				if t.Failed() {
					t.Fatalf("with failure of %s %d", f.kind, n)
				}
				runs++
			}
			if runs < 10 {
				t.Errorf("%d runs: the failures were not reached", runs)
			}
		})
	}
}

func nthFailure(t *testing.T, n int, kind opKind, rc int32, half, full bool) bool {
	dir := fastDir(t)
	hook, hit := nth(kind, n, rc, half)
	onDisk(t, dir, hook)
	d := newDriver(t, dir, onFault+"&_pragma=wal_autocheckpoint(20)", 7)
	var doubt []jobs.ID // of the call that failed
	if err := d.open(); err != nil {
		if !hit.Load() {
			t.Fatalf("Open() = %v", err)
		}
	} else {
		for range 32 {
			err := d.step()
			switch {
			case err == nil:
				if hit.Load() && !full && d.s.Err() == nil {
					t.Errorf("the disk failed and the store goes on")
				}
			case !hit.Load():
				t.Fatalf("step() = %v", err)
			case full:
				if jobs.CodeOf(err) != jobs.CodeDiskFull || d.s.Err() != nil {
					t.Errorf("a full disk gives %v, and the store %v", err, d.s.Err())
				}
			default:
				doubt = slices.Clone(d.touched)
			}
			if d.s.Err() != nil || t.Failed() {
				break
			}
		}
		if err := d.s.Err(); err != nil {
			refusesAll(t, d.s)
		} else if hit.Load() && !full {
			t.Error("the disk failed and nobody was told")
		}
		if err := d.s.Close(); err != nil && !hit.Load() {
			t.Errorf("Close() = %v", err)
		}
	}
	d.dsn = ""
	if err := d.open(); err != nil {
		t.Fatalf("Open() after the fault = %v", err)
	}
	defer d.s.Close()
	got := all(t, d.s)
	for _, id := range differing(got, d.rows) {
		if !slices.Contains(doubt, id) {
			t.Errorf("job %v is %v, acknowledged was %v", id, got[id], d.rows[id])
		}
	}
	if len(doubt) == 0 {
		d.check()
	}
	checkCounts(t, d.s, peek(t, dir))
	return hit.Load()
}

// refusesAll checks that a failed store answers nothing any more.
func refusesAll(t *testing.T, s *store.Store) {
	t.Helper()
	ctx := context.Background()
	for name, call := range map[string]func() error{
		"Enqueue": func() error { _, err := s.Enqueue(ctx, work(t, 1, 2)); return err },
		"Record":  func() error { _, err := s.Record(ctx, complete(work(t, 1, 2))); return err },
		"Consume": func() error { _, err := s.Consume(ctx, "", 1, "key"); return err },
		"Expire":  func() error { _, err := s.Expire(ctx); return err },
		"Feed":    func() error { _, err := s.Feed(ctx, jobs.FeedQuery{Rows: 1, Bytes: 1000}); return err },
		"Receive": func() error { _, err := s.Receive(ctx, jobs.Chunk{}); return err },
		"Copies":  func() error { _, _, err := s.ReceiveCopies(ctx, jobs.ID{1}, nil); return err },
		"SetPeer": func() error { return s.SetPeer(ctx, "b", "", "") },
		"Promise": func() error { _, _, err := s.Promise(ctx, time.Now()); return err },
		"Raise":   func() error { return s.Raise(ctx, time.Now()) },
		"Refresh": func() error { _, err := s.Refresh(ctx, time.Now(), 1); return err },
		"Take":    func() error { _, err := s.TakeOver(ctx, "b", jobs.Capacity{Jobs: 1}); return err },
		"Give":    func() error { _, err := s.GiveAway(ctx, []jobs.ID{{1}}, "b"); return err },
		"Tidy":    func() error { return s.Tidy(ctx) },
		"Job":     func() error { _, _, err := s.Job(ctx, jobs.ID{1}); return err },
		"Open":    func() error { _, _, err := s.Open(ctx, "a", store.Place{}, 1); return err },
		"Oldest":  func() error { _, err := s.Oldest(ctx, "a"); return err },
		"List":    func() error { _, _, _, err := s.List(ctx, "a", jobs.ListQuery{Limit: 1}); return err },
		"Newest":  func() error { _, err := s.Newest(ctx, "", 1); return err },
		"Results": func() error { _, err := s.Results(ctx, jobs.ResultsQuery{Limit: 1}); return err },
		"Recent":  func() error { return s.Recent(ctx, 1, func(jobs.Job) {}) },
	} {
		if err := call(); !errors.Is(err, s.Err()) {
			t.Errorf("%s() of a failed store = %v, want %v", name, err, s.Err())
		}
	}
}

// TestFailedSyncStopsRun: after a failed fsync Run returns the error, and a
// caller that waits gets it too.
func TestFailedSyncStopsRun(t *testing.T) {
	dir := fastDir(t)
	var broken atomic.Bool
	onDisk(t, dir, func(op diskOp) (int32, int) {
		if op.kind == opSync && broken.Load() {
			return lib.SQLITE_IOERR_FSYNC, 0
		}
		return 0, 0
	})
	s, err := store.Open(t.Context(), dir, store.Options{Node: "a", DSN: onFault})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ran := make(chan error, 1)
	go func() { ran <- s.Run(t.Context()) }()
	if _, err := s.Enqueue(t.Context(), work(t, 3, 2)); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	if _, err := s.Enqueue(t.Context(), work(t, 3, 2)); jobs.CodeOf(err) != jobs.CodeUnavailable {
		t.Errorf("Enqueue() with a failing fsync = %v, want CodeUnavailable", err)
	}
	if err := <-ran; err == nil || !strings.Contains(err.Error(), "disk") {
		t.Errorf("Run() = %v, want an error that names the disk", err)
	}
	broken.Store(false) // the disk being well again changes nothing
	refusesAll(t, s)
}

// TestDiskFullRecovers fills the disk for good: every write is refused, reads
// go on, and writes work again with the same store when there is room.
func TestDiskFullRecovers(t *testing.T) {
	dir := fastDir(t)
	var full atomic.Bool
	onDisk(t, dir, func(op diskOp) (int32, int) {
		if op.kind == opWrite && full.Load() {
			return lib.SQLITE_FULL, 100
		}
		return 0, 0
	})
	s := openIn(t, dir, store.Options{DSN: onFault})
	ctx := t.Context()
	kept := work(t, 20, 2)
	if _, err := s.Enqueue(ctx, kept); err != nil {
		t.Fatal(err)
	}
	before, counts, head, rhead := all(t, s), s.Counts(), s.Head(), s.ResultsHead()
	full.Store(true)
	for name, call := range map[string]func() error{
		"Enqueue": func() error { _, err := s.Enqueue(ctx, work(t, 9, 2)); return err },
		"Record":  func() error { _, err := s.Record(ctx, complete(kept)); return err },
		"Consume": func() error { _, err := s.Consume(ctx, "", 1, "key"); return err },
	} {
		for range 3 {
			if err := call(); jobs.CodeOf(err) != jobs.CodeDiskFull {
				t.Errorf("%s() on a full disk = %v, want %s", name, err, jobs.CodeDiskFull)
			}
		}
	}
	if got := all(t, s); !maps.Equal(got, before) || s.Counts() != counts {
		t.Errorf("rows and counts %v changed on a full disk, were %v", s.Counts(), counts)
	}
	full.Store(false)
	if _, err := s.Enqueue(ctx, work(t, 9, 2)); err != nil {
		t.Errorf("Enqueue() with room again = %v", err)
	}
	if out, err := s.Record(ctx, complete(kept)); err != nil || !out[19].Changed {
		t.Errorf("Record() with room again = %v", err)
	}
	if s.Head() != head+9+20 || s.ResultsHead() != rhead+20 { // refused writes take no numbers
		t.Errorf("heads %d and %d, want %d and %d", s.Head(), s.ResultsHead(), head+9+20, rhead+20)
	}
	checkCounts(t, s, peek(t, dir))
}

// TestOpenOnAFullDisk: a node that is started on a full disk says what is wrong
// and what to do, and starts with all that it had when there is room.
func TestOpenOnAFullDisk(t *testing.T) {
	dir := fastDir(t)
	var full atomic.Bool
	onDisk(t, dir, func(op diskOp) (int32, int) {
		if op.kind == opWrite && full.Load() {
			return lib.SQLITE_FULL, 0
		}
		return 0, 0
	})
	opt := store.Options{Node: "a", DSN: onFault}
	s, err := store.Open(t.Context(), dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Enqueue(t.Context(), work(t, 20, 2)); err != nil {
		t.Fatal(err)
	}
	before := all(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	if s, err := store.Open(t.Context(), dir, opt); err == nil || !strings.Contains(err.Error(), "the disk is full") || !strings.Contains(err.Error(), "free some space") {
		t.Errorf("Open() on a full disk = %v, %v", s, err)
	}
	full.Store(false)
	if s, err = store.Open(t.Context(), dir, opt); err != nil {
		t.Fatalf("Open() with room again = %v", err)
	}
	defer s.Close()
	if got := all(t, s); !maps.Equal(got, before) {
		t.Errorf("%d rows after the start, %d before", len(got), len(before))
	}
}

// TestPoisonedFact: a fact that breaks a CHECK fails alone, though it shares a
// commit with others.
func TestPoisonedFact(t *testing.T) {
	s := open(t, store.Options{})
	batch := work(t, 40, 2)
	if _, err := s.Enqueue(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	facts := complete(batch)
	facts[13].Apply = func(j jobs.Job, _ store.Clock) (jobs.Job, bool) {
		j.Checkpoint = jobs.Progress{Done: j.Iterations + 1}
		return j, true
	}
	errs := make(chan error, len(facts))
	for i, f := range facts {
		go func() {
			out, err := s.Record(t.Context(), []store.Fact{f})
			switch {
			case i == 13 && err == nil:
				err = errors.New("the broken fact was taken")
			case i == 13:
				err = nil
			case err == nil && !out[0].Changed:
				err = fmt.Errorf("fact %d changed nothing", i)
			}
			errs <- err
		}()
	}
	for range facts {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if c := s.Counts(); c.Completed != 39 || c.Open != 1 || s.Err() != nil {
		t.Errorf("Counts() = %+v, store %v, want 39 completed and 1 open", c, s.Err())
	}
}

// TestNothingAfterAFailedSync: calls that share a batch with one that breaks a
// CHECK are tried one by one; when the disk fails under one of them, the rest
// are refused, and nothing more is written.
func TestNothingAfterAFailedSync(t *testing.T) {
	dir := fastDir(t)
	var armed, failed, after atomic.Bool
	onDisk(t, dir, func(op diskOp) (int32, int) {
		switch {
		case op.kind == opSync && armed.Load() && !failed.Swap(true):
			return lib.SQLITE_IOERR_FSYNC, 0
		case op.kind == opWrite && failed.Load():
			after.Store(true)
		}
		return 0, 0
	})
	hold, held := make(chan struct{}), make(chan struct{}, 1)
	s := openIn(t, dir, store.Options{DSN: onFault, OnCommit: func([]jobs.Changed) {
		select {
		case held <- struct{}{}:
			<-hold
		default:
		}
	}})
	batch := work(t, 1, 1000)
	first := make(chan error, 1)
	go func() {
		_, err := s.Enqueue(t.Context(), batch)
		first <- err
	}()
	<-held // the writer is busy, so all of these share the next batch
	const calls = 20
	errs, sent := make(chan error, calls), make(chan struct{}, calls)
	for i := range calls {
		go func() {
			fact := func(j jobs.Job, _ store.Clock) (jobs.Job, bool) { j.Attempts++; return j, true }
			if i == 0 {
				fact = func(j jobs.Job, _ store.Clock) (jobs.Job, bool) {
					j.Checkpoint.Done = j.Iterations + 1
					return j, true
				}
			}
			sent <- struct{}{}
			_, err := s.Record(t.Context(), []store.Fact{{ID: batch[0].Job.ID, Apply: fact}})
			errs <- err
		}()
	}
	for range calls {
		<-sent
	}
	armed.Store(true)
	close(hold)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	good := 0
	for range calls {
		if err := <-errs; err == nil {
			good++
		}
	}
	if good > 0 || after.Load() {
		t.Errorf("%d of %d calls were acknowledged at a disk that failed under the first, more was written: %v", good, calls, after.Load())
	}
	if s.Err() == nil {
		t.Error("the store goes on")
	}
}

// TestPurgeKilledAtTheEnd: a kill when only the log is left to be emptied leaves
// that to the next start.
func TestPurgeKilledAtTheEnd(t *testing.T) {
	dir, copied := fastDir(t), fastDir(t)
	var armed atomic.Bool
	onDisk(t, dir, func(op diskOp) (int32, int) {
		if op.kind == opTruncate && strings.HasSuffix(op.file, "-wal") && armed.Swap(false) {
			copyStore(t, dir, copied)
		}
		return 0, 0
	})
	s := openIn(t, dir, store.Options{DSN: onFault})
	batch := work(t, 50, 9)
	if _, err := s.Enqueue(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	gone := secrets{}
	gone.add(batch[7].Job.V1)
	armed.Store(true)
	if _, err := s.Record(t.Context(), []store.Fact{{ID: batch[7].Job.ID, Apply: purge}}); err != nil {
		t.Fatal(err)
	}
	if found := gone.find(t, copied); len(found) == 0 {
		t.Error("nothing was left at the moment of the kill: the test proves nothing")
	}
	openIn(t, copied, store.Options{})
	if found := gone.find(t, copied); len(found) > 0 {
		t.Error("the purged value is still in the files after the next start")
	}
}
