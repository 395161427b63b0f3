package store_test

import (
	"context"
	"crypto/sha512"
	"database/sql"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// driver writes at random to a store and knows what must then be in it. It is
// for one goroutine, and has no Run below it: each call commits before it
// returns, so one seed is one sequence of disk operations.
type driver struct {
	tb  testing.TB
	rng *rand.Rand
	dir string
	dsn string
	s   *store.Store

	now     time.Time // of the store's clock
	newest  time.Time // the latest stamp seen
	rows    map[jobs.ID]jobs.Job
	ids     []jobs.ID // ever enqueued
	results []jobs.ID // by rseq
	lseq    jobs.LSeq // of the last change
	changed int       // changes since the start, for a look at OnCommit
	touched []jobs.ID // by the call under way
	expires bool      // whether step may expire

	completes bool // whether most facts complete
}

func newDriver(tb testing.TB, dir, dsn string, seed uint64) *driver {
	return &driver{
		tb: tb, rng: rand.New(rand.NewPCG(seed, 0)), dir: dir, dsn: dsn,
		now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), rows: map[jobs.ID]jobs.Job{},
	}
}

// open opens the store again.
func (d *driver) open() error {
	s, err := store.Open(context.Background(), d.dir, store.Options{
		Node: "it's a", DSN: d.dsn,
		Now: func() time.Time { return d.now },
		OnCommit: func(changed []jobs.Changed) {
			for _, c := range changed {
				if c.LSeq <= d.lseq {
					d.tb.Errorf("OnCommit: lseq %d after %d", c.LSeq, d.lseq)
				}
				d.lseq = c.LSeq
			}
			d.changed += len(changed)
		},
	})
	if err != nil {
		return err
	}
	d.s, d.newest = s, time.Time{}
	for _, j := range d.rows {
		if d.newest.Before(j.CreatedAt) {
			d.newest = j.CreatedAt
		}
		if j.Rank == jobs.Completed && d.newest.Before(j.DoneAt) {
			d.newest = j.DoneAt
		}
	}
	return nil
}

func (d *driver) id() jobs.ID {
	var id jobs.ID
	if d.rng.IntN(2) == 0 { // as from the clock
		var chance [16]byte
		binary.LittleEndian.PutUint64(chance[:], d.rng.Uint64())
		copy(id[8:], chance[:8])
		binary.BigEndian.PutUint64(id[:8], uint64(d.now.UnixMilli())<<16)
		return id
	}
	return jobs.KeyID("c", "", fmt.Sprint(d.rng.Uint64())) // as from a key
}

func (d *driver) value() jobs.Value {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], d.rng.Uint64())
	return sha512.Sum512(b[:])
}

func (d *driver) known() jobs.ID {
	if len(d.ids) == 0 || d.rng.IntN(40) == 0 {
		return d.id()
	}
	return d.ids[d.rng.IntN(len(d.ids))]
}

// waiting returns a job that is open, if there is one, and now and then any.
func (d *driver) waiting() jobs.ID {
	if d.rng.IntN(12) > 0 {
		for range 8 {
			if id := d.known(); d.rows[id].Iterations > 0 && !d.rows[id].Ended() {
				return id
			}
		}
	}
	return d.known()
}

// step makes one random call and returns its error; without one, what the call
// answered is checked and becomes what must be in the store.
func (d *driver) step() error {
	switch d.rng.IntN(8) {
	case 0: // the clock stands, jumps on, or is set back
		d.now = d.now.Add(time.Duration(d.rng.IntN(4_000_000)-1_000_000) * time.Microsecond)
	default:
		d.now = d.now.Add(time.Duration(d.rng.IntN(300)) * time.Microsecond)
	}
	switch n := d.rng.IntN(20); {
	case n < 8:
		return d.enqueue(1 + d.rng.IntN(20))
	case n < 14:
		return d.apply(1+d.rng.IntN(12), d.known)
	case n < 17: // what a worker reports at once: more than one statement carries
		d.completes = true
		defer func() { d.completes = false }()
		return d.apply(12+d.rng.IntN(40), d.waiting)
	case n < 18 && d.expires && d.rng.IntN(3) == 0:
		return d.refresh()
	case n < 18 && d.expires:
		return d.expire()
	}
	return d.consume(d.rng.IntN(6))
}

// enqueue enqueues n jobs: open and done, new and known, some twice in it.
func (d *driver) enqueue(n int) error {
	batch := make([]store.Submission, n)
	mixed, done := d.rng.IntN(3) == 0, d.rng.IntN(3) == 0
	for i := range batch {
		if mixed {
			done = d.rng.IntN(3) == 0
		}
		sub := &batch[i]
		sub.Job = jobs.Job{ID: d.id(), V1: d.value(), Iterations: 2 + d.rng.Uint64N(1000), Priority: uint8(d.rng.IntN(10))}
		if d.rng.IntN(50) == 0 {
			sub.Job.Iterations = jobs.MaxIterations
		}
		if done && d.rng.IntN(2) == 0 {
			sub.Job.Iterations = 1
		} else if done {
			v := d.value()
			sub.Known = &v
		}
		switch j := &sub.Job; d.rng.IntN(16) {
		case 0:
			j.Keep = uint16(1 + d.rng.IntN(4))
		case 1:
			if j.Iterations > 9 && sub.Known == nil {
				j.ResumedFrom = 5
				j.Checkpoint = jobs.Progress{Done: 5, Value: d.value()}
			}
		}
		switch {
		case len(d.ids) > 0 && d.rng.IntN(12) == 0: // a key that came before, with the same work or with other
			old := d.rows[d.ids[d.rng.IntN(len(d.ids))]]
			if old.Iterations > 0 && d.rng.IntN(3) > 0 {
				sub.Job = jobs.Job{ID: old.ID, V1: old.V1, Iterations: old.Iterations}
			} else if old.Iterations > 0 {
				sub.Job.ID = old.ID
			}
		case i > 0 && d.rng.IntN(12) == 0:
			*sub = batch[d.rng.IntN(i)]
		}
		sub.Job.Owner = ownerOf(sub.Job.ID)
	}
	d.touched = d.touched[:0]
	for _, sub := range batch {
		d.touched = append(d.touched, sub.Job.ID)
	}
	out, err := d.s.Enqueue(context.Background(), batch)
	if err != nil {
		return err
	}
	for i, o := range out {
		sub := batch[i]
		old, known := d.rows[sub.Job.ID]
		switch {
		case !known:
			if want := sub.Job.Born("it's a", o.Job.CreatedAt, sub.Known); o.Job != want || o.Existed || o.Err != nil {
				d.tb.Errorf("Enqueue(%v) = %+v, want fresh %v", sub, o, want)
			}
			d.stamped(o.Job.CreatedAt)
			d.ids = append(d.ids, o.Job.ID)
			d.set(o.Job)
		case old.Iterations != sub.Job.Iterations || !old.Purged && old.V1 != sub.Job.V1:
			if jobs.CodeOf(o.Err) != jobs.CodeConflict || o.Existed {
				d.tb.Errorf("Enqueue(%v) over %v = %+v, want a conflict", sub, old, o)
			}
		default:
			if o.Job != old || !o.Existed || o.Err != nil {
				d.tb.Errorf("Enqueue(%v) = %+v, want existed %v", sub, o, old)
			}
		}
	}
	return nil
}

// owners are whose jobs the driver makes, and ownerOf whose an ID is: one ID has
// one owner.
var owners = []string{"", "alice", "bob"}

func ownerOf(id jobs.ID) string { return owners[id[15]%3] }

// stamped checks that an instant is later than all before.
func (d *driver) stamped(at time.Time) {
	if !at.After(d.newest) {
		d.tb.Errorf("stamp %v is not after %v", at, d.newest)
	}
	d.newest = at
}

// set makes j what must be in the store.
func (d *driver) set(j jobs.Job) {
	if old := d.rows[j.ID]; j.Rank == jobs.Completed && old.Rank != jobs.Completed {
		d.results = append(d.results, j.ID)
	}
	d.rows[j.ID] = j
}

// fact returns a random fact, for the store and for the model alike.
func (d *driver) fact() func(jobs.Job, store.Clock) (jobs.Job, bool) {
	v, n, reason := d.value(), d.rng.Uint64N(30), []string{"out of memory", "", "größer", "a\x00b", "bad \xff byte"}[d.rng.IntN(5)]
	kind := d.rng.IntN(20)
	if d.completes && d.rng.IntN(8) > 0 {
		kind = 4
	}
	switch kind {
	case 18, 19:
		return func(j jobs.Job, _ store.Clock) (jobs.Job, bool) { return j.Distrust() }
	case 16, 17:
		from, add := d.rng.IntN(3), jobs.Rungs("").Add(v).Add(v)
		return func(j jobs.Job, _ store.Clock) (jobs.Job, bool) { return j.AddRungs(from, add) }
	case 0, 1, 2, 3:
		return func(j jobs.Job, _ store.Clock) (jobs.Job, bool) {
			return j.Advance(jobs.Progress{Done: j.Start().Done + n, Value: v})
		}
	case 4, 5, 6, 7, 8:
		return func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Complete(v, at()) }
	case 9:
		return func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Fail(reason, at()) }
	case 10:
		return func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Cancel(at()) }
	case 11, 12:
		return func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Lose(at()) }
	case 13:
		return func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Purge(at()) }
	case 14:
		return func(j jobs.Job, _ store.Clock) (jobs.Job, bool) { return j.Pull() }
	}
	return func(j jobs.Job, _ store.Clock) (jobs.Job, bool) {
		if j.Ended() {
			return j, false
		}
		j.Attempts++
		return j, true
	}
}

// apply records n facts, each of a job that pick chooses.
func (d *driver) apply(n int, pick func() jobs.ID) error {
	facts := make([]store.Fact, n)
	d.touched = d.touched[:0]
	for i := range facts {
		facts[i] = store.Fact{ID: pick(), Apply: d.fact()}
		d.touched = append(d.touched, facts[i].ID)
	}
	out, err := d.s.Record(context.Background(), facts)
	if err != nil {
		return err
	}
	for i, e := range out {
		old, known := d.rows[facts[i].ID]
		if !known {
			if e.Found || e.Changed {
				d.tb.Errorf("Record(unknown %v) = %+v", facts[i].ID, e)
			}
			continue
		}
		want, changed := facts[i].Apply(old, func() time.Time { return e.Job.DoneAt })
		if !e.Found || e.Changed != changed || e.Job != want {
			d.tb.Errorf("Record to %v = %+v, want %v %v", old, e, want, changed)
		}
		if want.Rank != old.Rank {
			d.stamped(e.Job.DoneAt)
		}
		d.set(want)
	}
	return nil
}

func (d *driver) consume(top int) error {
	var open []jobs.Job
	owner := owners[d.rng.IntN(3)]
	for _, j := range d.rows {
		if (owner == "" || owner == j.Owner) && j.Rank == jobs.Completed && !j.Pulled && !j.Purged {
			open = append(open, j)
		}
	}
	slices.SortFunc(open, func(a, b jobs.Job) int { return a.DoneAt.Compare(b.DoneAt) })
	open = open[:min(top, len(open))]
	d.touched = d.touched[:0]
	for _, j := range open {
		d.touched = append(d.touched, j.ID)
	}
	key := ""
	if d.rng.IntN(2) == 0 {
		key = fmt.Sprint(d.rng.Uint64())
	}
	got, err := d.s.Consume(context.Background(), owner, top, key)
	if err != nil {
		return err
	}
	var want []jobs.Result
	for _, j := range open {
		want = append(want, jobs.Result{ID: j.ID, Value: j.Result, Iterations: j.Iterations, DoneAt: j.DoneAt})
		j.Pulled = true
		d.set(j)
	}
	if !slices.Equal(got, want) {
		d.tb.Errorf("Consume(%d) = %v, want %v", top, got, want)
	}
	return nil
}

// promise promises up to an instant and returns the floor that can be raised to.
func (d *driver) promise(upTo time.Time) (time.Time, error) {
	want := upTo
	for _, j := range d.rows {
		if !j.Ended() && j.Key().Before(want) {
			want = j.Key()
		}
	}
	floor, was := d.s.Floor()
	got, head, err := d.s.Promise(context.Background(), upTo)
	if err != nil {
		return got, err
	}
	if !got.Equal(want) || head != d.s.Head() {
		d.tb.Errorf("Promise(%v) = %v, %d, want %v, %d", upTo, got, head, want, d.s.Head())
	}
	if _, is := d.s.Floor(); want.After(floor) && is.Before(want) || is.Before(was) {
		d.tb.Errorf("Promise(%v): the promise is %v, was %v, the floor %v", upTo, is, was, floor)
	}
	if got.Before(floor) {
		return floor, nil
	}
	return got, nil
}

// refresh counts the retention of old open jobs anew.
func (d *driver) refresh() error {
	before := d.now.Add(-time.Duration(d.rng.IntN(1_000_000)) * time.Microsecond)
	d.touched = d.touched[:0]
	for _, j := range d.rows {
		if !j.Ended() && j.Key().Before(before) {
			d.touched = append(d.touched, j.ID)
		}
	}
	n, err := d.s.Refresh(context.Background(), before, 1000)
	if err != nil {
		return err
	}
	if n != len(d.touched) {
		d.tb.Errorf("Refresh(%v) = %d, want %d", before, n, len(d.touched))
	}
	for _, id := range d.touched {
		want := d.rows[id]
		got, _, err := d.s.Job(context.Background(), id)
		if err != nil {
			return err
		}
		if want.GCAfter = got.GCAfter; got != want || !got.GCAfter.After(before) {
			d.tb.Errorf("Refresh(%v): %v, want %v, later", before, got, want)
		}
		if got.GCAfter.After(d.newest) {
			d.newest = got.GCAfter
		}
		d.set(got)
	}
	return nil
}

func (d *driver) expire() error {
	d.touched = d.touched[:0]
	before, err := d.promise(d.now.Add(-time.Duration(d.rng.IntN(2_000_000)) * time.Microsecond))
	if err != nil {
		return err
	}
	for _, j := range d.rows {
		if j.Ended() && j.CreatedAt.Before(before) && j.GCAfter.Before(before) {
			d.touched = append(d.touched, j.ID)
		}
	}
	if err := d.s.Raise(context.Background(), before); err != nil {
		return err
	}
	n, err := d.s.Expire(context.Background())
	if err != nil {
		return err
	}
	if n != len(d.touched) {
		d.tb.Errorf("Expire() below %v = %d, want %d", before, n, len(d.touched))
	}
	for _, id := range d.touched {
		delete(d.rows, id)
		d.results = slices.DeleteFunc(d.results, func(r jobs.ID) bool { return r == id })
		d.ids = slices.DeleteFunc(d.ids, func(r jobs.ID) bool { return r == id })
	}
	return nil
}

// peek opens the database of a directory for reading, beside the store.
func peek(tb testing.TB, dir string) *sql.DB {
	tb.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "workmanager.db")+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() }) // it only reads
	return db
}

// all returns every row of a store by its pages.
func all(tb testing.TB, s *store.Store) map[jobs.ID]jobs.Job {
	tb.Helper()
	rows := map[jobs.ID]jobs.Job{}
	for q := (jobs.ListQuery{Limit: 100}); ; {
		page, next, more, err := s.List(context.Background(), "", q)
		if err != nil {
			tb.Fatalf("List(%+v) = %v", q, err)
		}
		for _, r := range page {
			j := r.Job
			if _, twice := rows[j.ID]; twice {
				tb.Errorf("List(%+v): job %v twice", q, j.ID)
			}
			if j.Rungs != "" {
				tb.Errorf("List(%+v): job %v brought %d kept checkpoints, a page leaves them on the disk", q, j.ID, j.Rungs.Len())
			}
			if j.Keep > 0 {
				whole, found, err := s.Job(context.Background(), j.ID)
				if err != nil || !found {
					tb.Fatalf("Job(%v) = %v, %v", j.ID, found, err)
				}
				j.Rungs = whole.Rungs
				if j != whole {
					tb.Errorf("List(%+v): %+v, the row is %+v", q, j, whole)
				}
			}
			rows[j.ID] = j
		}
		if !more {
			return rows
		}
		q.After = next
	}
}

// check compares the store with what must be in it, and its numbers with a
// recount by SQL.
func (d *driver) check() {
	d.tb.Helper()
	if got := all(d.tb, d.s); !maps.Equal(got, d.rows) {
		d.tb.Fatalf("%d rows in the store, want %d; different: %v", len(got), len(d.rows), differing(got, d.rows))
	}
	db := peek(d.tb, d.dir)
	defer db.Close()
	rows, err := db.Query("SELECT id, rhash, lseq, rseq FROM jobs ORDER BY lseq")
	if err != nil {
		d.tb.Fatal(err)
	}
	defer rows.Close()
	byRSeq := map[int64]jobs.ID{}
	for rows.Next() {
		var id []byte
		var hash, lseq int64
		var rseq sql.NullInt64
		if err := rows.Scan(&id, &hash, &lseq, &rseq); err != nil {
			d.tb.Fatal(err)
		}
		j := d.rows[jobs.ID(id)]
		if hash != j.Hash() {
			d.tb.Errorf("job %v: rhash %d, want %d", j, hash, j.Hash())
		}
		if lseq > int64(d.s.Head()) {
			d.tb.Errorf("job %v: lseq %d is over the head %d", j.ID, lseq, d.s.Head())
		}
		if rseq.Valid {
			byRSeq[rseq.Int64] = j.ID
		}
	}
	if err := rows.Err(); err != nil {
		d.tb.Fatal(err)
	}
	var order []jobs.ID
	for _, n := range slices.Sorted(maps.Keys(byRSeq)) {
		order = append(order, byRSeq[n])
	}
	if !slices.Equal(order, d.results) {
		d.tb.Errorf("results by rseq %v, want %v", order, d.results)
	}
	checkCounts(d.tb, d.s, db)
}

// checkCounts compares the counters with a recount.
func checkCounts(tb testing.TB, s *store.Store, db *sql.DB) {
	tb.Helper()
	var want jobs.Counts
	var hi, lo int64
	if err := db.QueryRow(`SELECT count(*) FILTER (WHERE rank = 0), count(*) FILTER (WHERE rank = 1), count(*) FILTER (WHERE rank = 2),
	    count(*) FILTER (WHERE rank = 3), coalesce(sum(pulled), 0), coalesce(sum(iterations - max(ck_done, 1)) FILTER (WHERE rank = 0), 0) FROM jobs`).
		Scan(&want.Open, &want.Failed, &want.Cancelled, &want.Completed, &want.Pulled, &lo); err != nil {
		tb.Fatal(err)
	}
	want.Remaining = jobs.Work{Lo: uint64(lo)}
	if got := s.Counts(); got != want {
		tb.Errorf("Counts() = %+v, recounted %+v", got, want)
	}
	var kept jobs.Counts
	if err := db.QueryRow(`SELECT coalesce(sum(open), 0), coalesce(sum(failed), 0), coalesce(sum(cancelled), 0), coalesce(sum(completed), 0),
	    coalesce(sum(pulled), 0), coalesce(sum(hi), 0), coalesce(sum(lo), 0) FROM counts`).
		Scan(&kept.Open, &kept.Failed, &kept.Cancelled, &kept.Completed, &kept.Pulled, &hi, &lo); err != nil {
		tb.Fatal(err)
	}
	kept.Remaining = jobs.Work{Hi: uint64(hi), Lo: uint64(lo)}
	if kept != want {
		tb.Errorf("table counts = %+v, recounted %+v", kept, want)
	}
	open := func(query string) map[string]int64 {
		tb.Helper()
		rows, err := db.Query(query)
		if err != nil {
			tb.Fatal(err)
		}
		defer rows.Close()
		of := map[string]int64{}
		for rows.Next() {
			var owner string
			var n int64
			if err := rows.Scan(&owner, &n); err != nil {
				tb.Fatal(err)
			}
			of[owner] = n
		}
		return of
	}
	rows := open("SELECT owner, count(*) FROM jobs WHERE rank = 0 AND owner <> '' GROUP BY owner")
	if table := open("SELECT owner, open FROM owners"); !maps.Equal(table, rows) {
		tb.Errorf("table owners = %v, recounted %v", table, rows)
	}
	most := int64(0)
	for owner, n := range rows {
		most = max(most, n)
		if got := s.OpenOf(owner); got != n {
			tb.Errorf("OpenOf(%s) = %d, recounted %d", owner, got, n)
		}
	}
	if owners, of, _ := s.Shares(); owners != len(rows) || of != most {
		tb.Errorf("Shares() = %d owners, most %d, recounted %d and %d", owners, of, len(rows), most)
	}
}

// differing returns the IDs whose rows are not the same.
func differing(a, b map[jobs.ID]jobs.Job) []jobs.ID {
	var ids []jobs.ID
	for id, j := range a {
		if b[id] != j {
			ids = append(ids, id)
		}
	}
	for id := range b {
		if _, ok := a[id]; !ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// poke opens the database of a directory for writing, as only a test may.
func poke(tb testing.TB, dir string) *sql.DB {
	tb.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "workmanager.db")+"?_pragma=busy_timeout(5000)&_pragma=wal_autocheckpoint(0)")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() }) // the store closes the file
	return db
}

// fastDirRoot is where test directories go: in memory where there is a place,
// since faults come from the file system "fault", and nothing waits for a disk.
func fastDirRoot() string {
	if dir, err := os.MkdirTemp("/dev/shm", "store-probe-"); err == nil && os.Remove(dir) == nil {
		return "/dev/shm"
	}
	return os.TempDir()
}

// fastDir returns a new directory there.
func fastDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp(fastDirRoot(), "store-test-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return dir
}
