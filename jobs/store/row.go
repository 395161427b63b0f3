package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"workmanager/jobs"
)

// row is a job and its place in this store.
type row struct {
	job  jobs.Job
	n    int64
	lseq jobs.LSeq
	rseq jobs.RSeq // 0 if it is no result
	ext  []byte    // fields of a newer release
	via  jobs.ID   // only of a row to be written
}

// wire is the row as it travels.
func (r row) wire() jobs.Row { return jobs.Row{Job: r.job, LSeq: r.lseq, Ext: r.ext} }

// micros turns an instant into a column, the zero one into 0.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// instant turns a column into an instant; it is what truncates to microseconds.
func instant(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// rowColumns are the columns that scanRow reads, in its order. leanColumns are
// those of a row that is only shown: its kept checkpoints, which may be many,
// stay on the disk.
const (
	rowColumns  = firstColumns + `kept`
	leanColumns = firstColumns + `substr(kept, 1, 10)`
)

const firstColumns = `n, id, v1, iterations, priority, origin, created_at, gc_after, rank, result, err,
verified, done_at, pulled, purged, ck_done, ck_value, attempts, lost, own_epoch, home, lseq, rseq, ext, owner, restarts, `

// scanRow reads the row that r stands on.
func scanRow(r interface{ Scan(...any) error }) (row, error) {
	var (
		w                        row
		j                        = &w.job
		id, v1, result, ck, kept []byte
		created, gcAfter         int64
		done, rseq               sql.NullInt64
		failure, owner           sql.NullString
		verified, pulled, purged bool
		rank, priority           uint8
	)
	err := r.Scan(&w.n, &id, &v1, &j.Iterations, &priority, &j.Origin, &created, &gcAfter, &rank, &result, &failure,
		&verified, &done, &pulled, &purged, &j.Checkpoint.Done, &ck, &j.Attempts, &j.Lost, &j.OwnEpoch, &j.Home, &w.lseq, &rseq, &w.ext,
		&owner, &j.Restarts, &kept)
	if err != nil {
		return row{}, err
	}
	copy(j.ID[:], id)
	copy(j.V1[:], v1)
	copy(j.Result[:], result)
	copy(j.Checkpoint.Value[:], ck)
	j.Priority, j.Rank, j.Err = priority, jobs.Rank(rank), failure.String
	j.CreatedAt, j.GCAfter, j.DoneAt = instant(created), instant(gcAfter), instant(done.Int64)
	j.Verified, j.Pulled, j.Purged = verified, pulled, purged
	j.Owner = owner.String
	w.rseq = jobs.RSeq(rseq.Int64)
	readKept(j, kept)
	return w, nil
}

// keptHead is the bytes of the column kept before the values.
const keptHead = 2 + 8

// keptOf returns the column kept, nil for a job that needs none.
func keptOf(j *jobs.Job) any {
	if j.Keep == 0 && j.ResumedFrom == 0 {
		return nil
	}
	b := make([]byte, 0, keptHead+len(j.Rungs))
	b = binary.LittleEndian.AppendUint16(b, j.Keep)
	b = binary.LittleEndian.AppendUint64(b, j.ResumedFrom)
	return append(b, j.Rungs...)
}

func readKept(j *jobs.Job, b []byte) {
	if len(b) < keptHead {
		return
	}
	j.Keep = binary.LittleEndian.Uint16(b)
	j.ResumedFrom = binary.LittleEndian.Uint64(b[2:])
	j.Rungs = jobs.Rungs(b[keptHead:])
}

// sameKept reports whether two states of a job agree in the column kept.
func sameKept(a, b *jobs.Job) bool {
	return a.Keep == b.Keep && a.ResumedFrom == b.ResumedFrom && a.Rungs == b.Rungs
}

// statements are the writer's prepared statements.
type statements struct {
	insertOpen, insertOpen8 *sql.Stmt
	insertDone, insertDone8 *sql.Stmt
	get, near               *sql.Stmt
	update, replace, end    *sql.Stmt
	saveCounts              *sql.Stmt
	saveOwner, dropOwner    *sql.Stmt
	receive, receive8       *sql.Stmt
	receivePlain            *sql.Stmt
	receivePlain8           *sql.Stmt
	saveReading             *sql.Stmt
	lastPair, savePair      *sql.Stmt
}

// prepare prepares every statement once.
func (w *writer) prepare(ctx context.Context) error {
	node := w.s.opt.Node
	for _, p := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&w.begin, "BEGIN IMMEDIATE"}, {&w.commit, "COMMIT"}, {&w.rollback, "ROLLBACK"},
		{&w.logSize, "PRAGMA wal_checkpoint(NOOP)"}, {&w.moveLog, "PRAGMA wal_checkpoint(PASSIVE)"},
		{&w.stmts.insertOpen, insertOpenSQL(node, 1)}, {&w.stmts.insertOpen8, insertOpenSQL(node, insertRows)},
		{&w.stmts.insertDone, insertDoneSQL(node, 1)}, {&w.stmts.insertDone8, insertDoneSQL(node, insertRows)},
		{&w.stmts.get, getSQL}, {&w.stmts.near, nearSQL}, {&w.stmts.update, updateSQL}, {&w.stmts.replace, replaceSQL}, {&w.stmts.end, endSQL},
		{&w.stmts.saveCounts, saveCountsSQL}, {&w.stmts.saveOwner, saveOwnerSQL}, {&w.stmts.dropOwner, dropOwnerSQL},
		{&w.stmts.receive, receiveSQL(1)}, {&w.stmts.receive8, receiveSQL(insertRows)},
		{&w.stmts.receivePlain, receivePlainSQL(1)}, {&w.stmts.receivePlain8, receivePlainSQL(insertRows)},
		{&w.stmts.saveReading, saveReadingSQL}, {&w.stmts.lastPair, lastPairSQL}, {&w.stmts.savePair, savePairSQL},
	} {
		stmt, err := w.conn.PrepareContext(ctx, p.sql)
		if err != nil {
			return fmt.Errorf("%s: %w", p.sql, err)
		}
		*p.to = stmt
		w.prepared = append(w.prepared, stmt)
	}
	return nil
}

const getSQL = `SELECT ` + rowColumns + ` FROM jobs WHERE id = ?`

// get returns the row of id as the open transaction sees it. The second result
// is false if there is none.
func (w *writer) get(id jobs.ID) (row, bool, error) {
	if r, ok := w.cache[id]; ok {
		return r, true, nil
	}
	if r, ok := w.near[id]; ok {
		return r, true, nil
	}
	if slices.ContainsFunc(w.ending, func(e end) bool { return e.r.job.ID == id }) {
		if err := w.flush(); err != nil {
			return row{}, false, err
		}
	}
	r, err := scanRow(w.stmts.get.QueryRowContext(context.Background(), id[:]))
	if err == sql.ErrNoRows {
		return row{}, false, nil
	}
	if err != nil {
		return row{}, false, err
	}
	return r, true, nil
}

const updateSQL = `
UPDATE OR ROLLBACK jobs SET rank = ?, result = ?, err = ?, verified = ?, done_at = ?, gc_after = ?, pulled = ?,
  ck_done = ?, ck_value = ?, attempts = ?, lost = ?, lseq = ?, rseq = ?, rhash = ?, via = ?
WHERE n = ? AND lseq = ? -- nobody else writes: no row means that the cache is wrong`

const replaceSQL = `
UPDATE OR ROLLBACK jobs SET rank = ?, result = ?, err = ?, verified = ?, done_at = ?, gc_after = ?, pulled = ?,
  ck_done = ?, ck_value = ?, attempts = ?, lost = ?, lseq = ?, rseq = ?, rhash = ?, via = ?,
  v1 = ?, iterations = ?, priority = ?, origin = ?, created_at = ?, purged = ?, own_epoch = ?, home = ?, ext = ?, kept = ?,
  owner = ?, restarts = ?
WHERE n = ? AND lseq = ?`

// change applies a fact to the row of id. It returns the row after it, whether
// there is one, and whether the fact changed it.
func (w *writer) change(id jobs.ID, fact func(jobs.Job) (jobs.Job, bool)) (r row, found, changed bool, err error) {
	old, found, err := w.get(id)
	if err != nil || !found {
		return row{}, false, false, err
	}
	now, changed := fact(old.job)
	if !changed {
		return old, true, false, nil
	}
	r = row{job: now, n: old.n, ext: old.ext}
	err = w.put(old, &r, false)
	return r, true, err == nil, err
}

// put writes r in the place of old, under the next numbers.
func (w *writer) put(old row, r *row, copied bool) error {
	w.lseq++
	r.lseq, r.rseq = w.lseq, old.rseq
	now, was := &r.job, &old.job
	switch {
	case now.Rank != jobs.Completed:
		r.rseq = 0
	case was.Rank != jobs.Completed || !now.Purged && now.Result != was.Result:
		w.rseq++
		r.rseq = w.rseq
	}
	if now.Purged {
		r.ext = nil
	}
	ctx := context.Background()
	if old.rseq > 0 && r.rseq != old.rseq { // its number is never given again
		if _, err := w.conn.ExecContext(ctx, highsSQL, int64(w.lseq), int64(w.rseq), 0); err != nil {
			return err
		}
	}
	if now.Purged && !was.Purged {
		w.purging = true
		if _, err := w.conn.ExecContext(ctx, "DELETE FROM conflicts WHERE id = ?", now.ID[:]); err != nil {
			return err
		}
	}
	var err error
	switch {
	case !ends(&old, r):
		err = w.update(old.lseq, *r, sameBirth(&old, r))
	case w.gathers:
		if w.ending = append(w.ending, end{*r, old.lseq}); len(w.ending) == endRows {
			err = w.flush()
		}
	default:
		err = w.update(old.lseq, *r, true)
	}
	if err != nil {
		return err
	}
	w.count(*was, *now)
	w.remember(*r)
	w.changed = append(w.changed, jobs.Changed{Row: r.wire(), RSeq: r.rseq, Via: r.via, Copy: copied})
	return nil
}

// update writes all that may change of a row, under the guard of its old lseq.
// Most changes leave alone what the row began with: it was born the same.
func (w *writer) update(was jobs.LSeq, r row, born bool) error {
	j := &r.job
	var space [29]any
	args := append(space[:0], int64(j.Rank),
		blobIf(j.Rank == jobs.Completed && !j.Purged, j.Result[:]), textIf(j.Rank == jobs.Failed, j.Err), j.Verified,
		intIf(j.Rank != jobs.Open, micros(j.DoneAt)), micros(j.GCAfter), j.Pulled,
		int64(j.Checkpoint.Done), blobIf(j.Checkpoint.Done > 0, j.Checkpoint.Value[:]), int64(j.Attempts), int64(j.Lost),
		int64(r.lseq), intIf(r.rseq > 0, int64(r.rseq)), j.Hash(), blobIf(r.via != jobs.ID{}, r.via[:]))
	stmt := w.stmts.update
	if !born {
		stmt = w.stmts.replace
		args = append(args, blobIf(!j.Purged, j.V1[:]), int64(j.Iterations), int64(j.Priority), j.Origin, micros(j.CreatedAt),
			j.Purged, int64(j.OwnEpoch), j.Home, blobIf(len(r.ext) > 0, r.ext), keptOf(j), textIf(j.Owner != "", j.Owner), int64(j.Restarts))
	}
	if err := w.exec(stmt, 1, append(args, r.n, int64(was))...); err != nil {
		return fmt.Errorf("job %s at lseq %d: %w", j.ID, was, err)
	}
	return nil
}

// exec runs an UPDATE that is to change so many rows. Nobody else writes, so
// another number means that what the writer remembers is wrong.
func (w *writer) exec(stmt *sql.Stmt, want int64, args ...any) error {
	res, err := stmt.ExecContext(context.Background(), args...)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != want {
		return fmt.Errorf("%d rows changed, want %d (%v)", n, want, err)
	}
	return nil
}

// sameBirth reports whether two states of a row agree in what updateSQL leaves
// alone.
func sameBirth(a, b *row) bool {
	x, y := &a.job, &b.job
	return x.Purged == y.Purged && x.V1 == y.V1 && x.Iterations == y.Iterations && x.Priority == y.Priority && x.Origin == y.Origin &&
		x.CreatedAt.Equal(y.CreatedAt) && x.Owner == y.Owner && x.Restarts == y.Restarts && x.OwnEpoch == y.OwnEpoch && x.Home == y.Home && bytes.Equal(a.ext, b.ext) && sameKept(x, y)
}

// remember keeps a row that will change again, so that it need not be read.
func (w *writer) remember(r row) {
	delete(w.near, r.job.ID)
	if r.job.Ended() || len(r.job.Rungs) > maxCachedRungs {
		delete(w.cache, r.job.ID)
		return
	}
	if _, ok := w.cache[r.job.ID]; ok || len(w.cache) < maxCached {
		w.cache[r.job.ID] = r
	}
}

func blobIf(ok bool, b []byte) any {
	if !ok {
		return nil
	}
	return b
}

func textIf(ok bool, s string) any {
	if !ok {
		return nil
	}
	return s
}

func intIf(ok bool, n int64) any {
	if !ok {
		return nil
	}
	return n
}
