package store

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"workmanager/jobs"
)

const (
	// maxQueuedOps bounds the writes that wait for the writer; above it a new
	// job is refused as busy, and reports wait.
	maxQueuedOps = 4096
	// maxBatchOps and maxBatchRows bound one transaction, and with it the time
	// that the next write waits: 2,048 rows are about 20 ms.
	maxBatchOps  = 512
	maxBatchRows = 2048
	// maxCached bounds the rows that the writer remembers, about 500 bytes each.
	maxCached = 32768
	// maxCachedRungs bounds the kept checkpoints of such a row: one with more is
	// read again where it changes, which then costs little beside its writing.
	maxCachedRungs = 512
	// retryBusy is when a client that met a full queue should try again.
	retryBusy = time.Second
	// emptyEvery is how often a log that a reader holds is tried to be emptied:
	// each time all writes wait 0.1 s.
	emptyEvery = time.Second
)

// op is one write. apply runs in the writer's transaction, and once more if
// that has to be tried again. An error of its caller's making it keeps for the
// caller; one that it returns ends the transaction for all.
type op struct {
	rows     int
	enqueues bool // apply only gathers fresh jobs; refused rather than made to wait
	apply    func(*writer) error
	done     chan error // capacity 1
}

// writer is the state of the one connection that writes. Store.mu guards it.
type writer struct {
	s    *Store
	db   *sql.DB
	conn *sql.Conn

	lseq         jobs.LSeq
	rseq         jobs.RSeq
	last         int64 // microseconds of the newest stamp given out
	counts       map[string]*counts
	cache        map[jobs.ID]row // rows not ended, coherent with the database
	near         map[jobs.ID]row // rows of the open transaction, read in one go
	gathers      bool            // completions may be put off until flush
	ending       []end           // those that are
	reading      jobs.Reading    // the peer's feed, as the open transaction leaves it
	readingSaved time.Time       // when that was last written
	pairs        int             // written since the start
	changed      []jobs.Changed  // of the open transaction
	fresh        []fresh         // gathered in it, not yet inserted
	purging      bool            // a purge is in the open transaction
	truncate     bool            // purged bytes may still be in the log
	emptyAt      time.Time       // not to be emptied before: a reader holds it
	countsOld    map[string]counts
	moves        []move // of the open transaction

	checkpointAt int // pages in the log from which on it is moved
	restartNext  time.Time
	stuck        bool // the last try to move it failed

	begin, commit, rollback *sql.Stmt
	logSize, moveLog        *sql.Stmt
	stmts                   statements
	prepared                []*sql.Stmt // all of them
}

// counts is one row of the counts table.
type counts struct {
	jobs.Counts
	dirty bool
}

// Run commits what is written until ctx is done, then what still waits, and
// returns nil. It returns an error if the store can no longer be trusted.
// Without Run a write commits on its caller's goroutine.
func (s *Store) Run(ctx context.Context) error {
	s.running.Store(true)
	defer close(s.stop)
	batch := make([]*op, 0, maxBatchOps)
	for {
		select {
		case o := <-s.ops:
			runtime.Gosched() // those who are about to write get to it first: fewer, larger commits, and no wait where there are none
			batch = s.fill(append(batch[:0], o))
			s.commitBatch(batch)
			clear(batch)
		case <-s.failed:
			s.refuse()
			return s.failure
		case <-ctx.Done():
			for n := len(s.ops); n > 0; n -= len(batch) { // what comes later is refused, or this would not end
				batch = s.fill(append(batch[:0], <-s.ops))
				s.commitBatch(batch)
			}
			return s.Err()
		}
	}
}

// fill adds what already waits to batch, within the bounds of a transaction.
// It adds no delay: while one commit is on its way the next batch gathers.
func (s *Store) fill(batch []*op) []*op {
	rows := batch[0].rows
	for len(batch) < maxBatchOps && rows < maxBatchRows {
		select {
		case o := <-s.ops:
			batch = append(batch, o)
			rows += o.rows
		default:
			return batch
		}
	}
	return batch
}

// refuse answers what waits after a fatal error.
func (s *Store) refuse() {
	for {
		select {
		case o := <-s.ops:
			o.done <- s.failure
		default:
			return
		}
	}
}

// write commits what apply does, which changes about so many rows. It waits for
// the writer for as long as ctx allows.
func (s *Store) write(ctx context.Context, rows int, apply func(*writer) error) error {
	return s.do(ctx, &op{rows: rows, apply: apply})
}

// do hands an op to the writer and returns when it is committed or refused. A
// write that was taken is not abandoned when ctx ends: its outcome is awaited,
// which takes one commit. New jobs are refused as busy if the queue is full;
// everything else waits.
func (s *Store) do(ctx context.Context, o *op) error {
	if err := s.Err(); err != nil {
		return err
	}
	o.done = make(chan error, 1)
	select {
	case <-s.stop:
		return s.ended()
	default:
	}
	if !s.running.Load() {
		s.commitBatch([]*op{o})
		return <-o.done
	}
	if !o.enqueues {
		select {
		case s.ops <- o:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.failed:
			return s.failure
		case <-s.stop:
			return s.ended()
		}
	} else {
		select {
		case s.ops <- o:
		default:
			return jobs.Errorf(jobs.CodeBusy, "%d writes are waiting for the disk: try again", maxQueuedOps).Retry(retryBusy)
		}
	}
	select {
	case err := <-o.done:
		return err
	case <-s.stop: // Run has returned: what it left is refused, what it did is answered
		select {
		case err := <-o.done:
			return err
		default:
			return s.ended()
		}
	}
}

// ended says why no write is taken after Run has returned.
func (s *Store) ended() error {
	if err := s.Err(); err != nil {
		return err
	}
	return errStopping
}

var errStopping = jobs.Errorf(jobs.CodeStopping, "this node is stopping: use the other one").Retry(retryBusy)

// commitBatch commits the ops in one transaction and answers them. An op that
// fails ends the transaction: its batch is then tried one by one, so that the
// others do not fail with it.
func (s *Store) commitBatch(batch []*op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.Err()
	if err == nil {
		err = s.w.transact(batch)
	}
	if err != nil && len(batch) > 1 && s.Err() == nil && jobs.CodeOf(err) != jobs.CodeDiskFull {
		defer s.w.checkpoint(context.Background())
		for _, o := range batch {
			if err = s.Err(); err == nil { // one of them may meet the failing disk
				err = s.w.transact([]*op{o})
			}
			o.done <- err
		}
		return
	}
	for _, o := range batch {
		o.done <- err
	}
	if err == nil {
		s.w.checkpoint(context.Background())
	}
}

// transact runs the ops in one transaction. The context is the store's own: a
// request that goes away must not interrupt the commit of the others.
func (w *writer) transact(batch []*op) error {
	ctx := context.Background()
	w.s.timing.begin()
	defer func() { w.s.timing.end(len(w.changed)) }()
	lseq, rseq, last, reading := w.lseq, w.rseq, w.last, w.reading
	floor, promise := w.s.floor.Load(), w.s.promise.Load()
	w.changed, w.purging, w.moves = w.changed[:0], false, w.moves[:0]
	err := w.run(ctx, batch)
	if err != nil {
		if _, rerr := w.rollback.ExecContext(ctx); rerr != nil && fatal(rerr) {
			err = rerr
		}
		w.lseq, w.rseq, w.last, w.reading, w.readingSaved = lseq, rseq, last, reading, time.Time{}
		w.s.floor.Store(floor)
		w.s.promise.Store(promise)
		clear(w.cache)
		for home, c := range w.countsOld {
			*w.counts[home] = c
		}
		clear(w.countsOld)
		clear(w.s.owned.moved)
		if fatal(err) {
			err = explain("commit", err)
			w.s.fail(err)
			return err
		}
		return explain("commit", err)
	}
	clear(w.countsOld)
	w.s.owned.commit()
	w.s.sizing.commit(w.moves)
	if w.purging {
		w.s.purged.Store(int64(w.lseq))
	}
	if w.truncate && !time.Now().Before(w.emptyAt) {
		w.emptyLog(ctx)
	}
	w.s.publish()
	if f := w.s.opt.OnCommit; f != nil && len(w.changed) > 0 {
		f(w.changed)
	}
	return nil
}

func (w *writer) run(ctx context.Context, batch []*op) error {
	if _, err := w.begin.ExecContext(ctx); err != nil {
		return err
	}
	w.fresh = w.fresh[:0]
	clear(w.s.owned.fresh)
	for _, o := range batch {
		if !o.enqueues {
			if err := w.insertFresh(); err != nil {
				return err
			}
		}
		if err := o.apply(w); err != nil {
			return err
		}
	}
	if err := w.insertFresh(); err != nil {
		return err
	}
	if err := w.saveCounts(ctx); err != nil {
		return err
	}
	if err := w.s.owned.save(ctx, &w.stmts); err != nil {
		return err
	}
	if w.purging {
		if _, err := w.conn.ExecContext(ctx, markPurgeSQL); err != nil {
			return err
		}
	}
	if f := w.s.opt.OnStamp; f != nil && len(w.changed) > 0 {
		f(w.changed)
	}
	_, err := w.commit.ExecContext(ctx)
	return err
}

// checkpoint moves the log into the database when it has grown, after the
// writers were answered. SQLite would do it by itself, inside COMMIT, but
// without a word when a write or fsync of it fails.
func (w *writer) checkpoint(ctx context.Context) {
	var busy, pages, moved int
	if w.s.Err() != nil {
		return
	}
	err := w.logSize.QueryRowContext(ctx).Scan(&busy, &pages, &moved)
	if err == nil && pages >= w.checkpointAt && pages > moved {
		err = w.moveLog.QueryRowContext(ctx).Scan(&busy, &pages, &moved)
	}
	if err == nil && pages >= restartAt*w.checkpointAt {
		err = w.restartLog(ctx)
	}
	switch {
	case err != nil && fatal(err):
		w.s.fail(explain("move the log into the database", err))
	case err != nil && !w.stuck:
		w.s.opt.Log.Warn("log not moved into the database, will be tried again", "err", err)
	}
	w.stuck = err != nil
}

// restartAt times checkpointAt is the log from which on readers are waited for:
// where one always begins before the last has ended, the log would only grow.
const restartAt = 16

func (w *writer) restartLog(ctx context.Context) error {
	if time.Now().Before(w.restartNext) {
		return nil
	}
	w.restartNext = time.Now().Add(emptyEvery)
	var busy, pages, moved int
	_, err := w.conn.ExecContext(ctx, "PRAGMA busy_timeout = 100") // all writes wait meanwhile
	if err == nil {
		err = w.conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(RESTART)").Scan(&busy, &pages, &moved)
	}
	if _, berr := w.conn.ExecContext(ctx, "PRAGMA busy_timeout = 5000"); err == nil {
		err = berr
	}
	return err
}

// emptyLog moves the log into the database and cuts it to nothing, so that
// what a purge overwrote is in neither. A reader may hold it up: it is then
// tried again with a commit a second later, or by Tidy.
func (w *writer) emptyLog(ctx context.Context) {
	var busy, pages, moved int
	_, err := w.conn.ExecContext(ctx, "PRAGMA busy_timeout = 100") // all writes wait meanwhile
	if err == nil {
		err = w.conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved)
	}
	if _, berr := w.conn.ExecContext(ctx, "PRAGMA busy_timeout = 5000"); err == nil {
		err = berr
	}
	switch {
	case err != nil && fatal(err):
		w.s.fail(explain("empty the log", err))
	case err != nil || busy != 0:
		w.emptyAt = time.Now().Add(emptyEvery)
		w.s.opt.Log.Warn("log not emptied after a purge, will be tried again", "busy", busy, "err", err)
	default:
		w.truncate = false
	}
}

// publish makes the committed heads and counts visible to readers.
func (s *Store) publish() {
	var sum jobs.Counts
	if homes := s.homes.Load(); homes == nil || len(*homes) != len(s.w.counts) {
		fresh := slices.Sorted(maps.Keys(s.w.counts))
		s.homes.Store(&fresh)
	}
	each := make(map[string]jobs.Counts, len(s.w.counts))
	for home, c := range s.w.counts {
		each[home] = c.Counts
		sum.Open += c.Open
		sum.Failed += c.Failed
		sum.Cancelled += c.Cancelled
		sum.Completed += c.Completed
		sum.Pulled += c.Pulled
		sum.Remaining = sum.Remaining.Plus(c.Remaining)
	}
	s.counts.Store(&sum)
	s.byHome.Store(&each)
	s.committed.Store(int64(s.w.lseq))
	s.results.Store(int64(s.w.rseq))
	if r := s.reading.Load(); r == nil || *r != s.w.reading {
		fresh := s.w.reading
		s.reading.Store(&fresh)
	}
}

// Counts returns how many jobs there are as of the last commit. It costs the
// same however many there are; OldestOpen is left to Oldest.
func (s *Store) Counts() jobs.Counts { return *s.counts.Load() }

// CountsOf is Counts for the jobs of one home.
func (s *Store) CountsOf(home string) jobs.Counts { return (*s.byHome.Load())[home] }

// Head returns the newest lseq committed.
func (s *Store) Head() jobs.LSeq { return jobs.LSeq(s.committed.Load()) }

// ResultsHead returns the newest rseq committed.
func (s *Store) ResultsHead() jobs.RSeq { return jobs.RSeq(s.results.Load()) }

// stamp returns an instant at which no job of this node came in or completed:
// the clock's, or the next microsecond where the clock has not moved on or has
// gone back.
func (w *writer) stamp() time.Time {
	w.last = max(w.last+1, micros(w.s.opt.Now()))
	return instant(w.last)
}

// count moves the counters from a row's old self to its new one. An empty job
// stands for a row that is not there.
func (w *writer) count(old, now jobs.Job) {
	w.moved(&old, &now)
	w.s.owned.count(&old, &now)
	if old.Home != "" {
		c := w.countsOf(old.Home)
		*c.of(old.Rank)--
		c.Remaining = c.Remaining.Sub(old.Remaining())
		if old.Pulled {
			c.Pulled--
		}
	}
	if now.Home != "" {
		c := w.countsOf(now.Home)
		*c.of(now.Rank)++
		c.Remaining = c.Remaining.Add(now.Remaining())
		if now.Pulled {
			c.Pulled++
		}
	}
}

// countsOf returns the counters of home for a change, and keeps what they were.
func (w *writer) countsOf(home string) *counts {
	c, ok := w.counts[home]
	if !ok {
		c = &counts{}
		w.counts[home] = c
	}
	if !c.dirty {
		w.countsOld[home] = *c
		c.dirty = true
	}
	return c
}

func (c *counts) of(r jobs.Rank) *int64 {
	switch r {
	case jobs.Failed:
		return &c.Failed
	case jobs.Cancelled:
		return &c.Cancelled
	case jobs.Completed:
		return &c.Completed
	}
	return &c.Open
}

const saveCountsSQL = `
INSERT INTO counts (home, open, failed, cancelled, completed, pulled, hi, lo) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
ON CONFLICT (home) DO UPDATE SET open = ?2, failed = ?3, cancelled = ?4, completed = ?5, pulled = ?6, hi = ?7, lo = ?8`

func (w *writer) saveCounts(ctx context.Context) error {
	for home, c := range w.counts {
		if !c.dirty {
			continue
		}
		c.dirty = false
		if _, err := w.stmts.saveCounts.ExecContext(ctx, home, c.Open, c.Failed, c.Cancelled, c.Completed, c.Pulled,
			int64(c.Remaining.Hi), int64(c.Remaining.Lo)); err != nil {
			return err
		}
	}
	return nil
}

// load reads the heads and the counters that the last start left.
func (w *writer) load(ctx context.Context) error {
	var lseq, rseq, newest int64
	err := w.conn.QueryRowContext(ctx, `
SELECT max(coalesce((SELECT max(lseq) FROM jobs), 0), coalesce((SELECT v FROM meta WHERE k = 'lseq_high'), 0), coalesce((SELECT max(start_lseq) - 1 FROM boots), 0)),
       max(coalesce((SELECT max(rseq) FROM jobs WHERE rseq IS NOT NULL), 0), coalesce((SELECT v FROM meta WHERE k = 'rseq_high'), 0), coalesce((SELECT max(start_rseq) - 1 FROM boots), 0)),
       max(coalesce((SELECT max(created_at) FROM jobs), 0), coalesce((SELECT done_at FROM jobs WHERE rseq IS NOT NULL ORDER BY rseq DESC LIMIT 1), 0))`).Scan(&lseq, &rseq, &newest)
	if err != nil {
		return fmt.Errorf("read heads: %w", err)
	}
	w.lseq, w.rseq, w.last = jobs.LSeq(lseq), jobs.RSeq(rseq), newest
	w.counts, w.countsOld = map[string]*counts{}, map[string]counts{}
	rows, err := w.conn.QueryContext(ctx, "SELECT home, open, failed, cancelled, completed, pulled, hi, lo FROM counts")
	if err != nil {
		return fmt.Errorf("read counts: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var home string
		var c counts
		var hi, lo int64
		if err := rows.Scan(&home, &c.Open, &c.Failed, &c.Cancelled, &c.Completed, &c.Pulled, &hi, &lo); err != nil {
			return fmt.Errorf("read counts: %w", err)
		}
		c.Remaining = jobs.Work{Hi: uint64(hi), Lo: uint64(lo)}
		w.counts[home] = &c
	}
	if err := rows.Err(); err != nil {
		return err
	}
	var floor, promise int64
	if err := w.conn.QueryRowContext(ctx, "SELECT coalesce((SELECT v FROM meta WHERE k = 'gc_floor'), 0), coalesce((SELECT v FROM meta WHERE k = 'gc_promise'), 0)").Scan(&floor, &promise); err != nil {
		return fmt.Errorf("read the floor: %w", err)
	}
	w.s.floor.Store(floor)
	w.s.promise.Store(promise)
	w.last = max(w.last, floor, promise)
	if err := w.s.owned.load(ctx, w.conn); err != nil {
		return err
	}
	return w.loadReading(ctx)
}

// int returns the one integer that a query answers.
func (w *writer) int(ctx context.Context, query string) (int, error) {
	var n int
	err := w.conn.QueryRowContext(ctx, query).Scan(&n)
	return n, err
}
