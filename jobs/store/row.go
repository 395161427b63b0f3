package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"workmanager/jobs"
)

// row is a job and its place in this store.
type row struct {
	job  jobs.Job
	n    int64
	lseq jobs.LSeq
	rseq jobs.RSeq // 0 if it is no result
}

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

// rowColumns are the columns that scanRow reads, in its order.
const rowColumns = `n, id, v1, iterations, priority, origin, created_at, gc_after, rank, result, err,
verified, done_at, pulled, purged, ck_done, ck_value, attempts, lost, own_epoch, home, lseq, rseq`

// scanRow reads the row that r stands on.
func scanRow(r interface{ Scan(...any) error }) (row, error) {
	var (
		w                        row
		j                        = &w.job
		id, v1, result, ck       []byte
		created, gcAfter         int64
		done, rseq               sql.NullInt64
		failure                  sql.NullString
		verified, pulled, purged bool
		rank, priority           uint8
	)
	err := r.Scan(&w.n, &id, &v1, &j.Iterations, &priority, &j.Origin, &created, &gcAfter, &rank, &result, &failure,
		&verified, &done, &pulled, &purged, &j.Checkpoint.Done, &ck, &j.Attempts, &j.Lost, &j.OwnEpoch, &j.Home, &w.lseq, &rseq)
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
	w.rseq = jobs.RSeq(rseq.Int64)
	return w, nil
}

// statements are the writer's prepared statements.
type statements struct {
	insertOpen, insertOpen8 *sql.Stmt
	insertDone, insertDone8 *sql.Stmt
	get, update, erase      *sql.Stmt
	saveCounts              *sql.Stmt
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
		{&w.stmts.get, getSQL}, {&w.stmts.update, updateSQL}, {&w.stmts.erase, eraseSQL},
		{&w.stmts.saveCounts, saveCountsSQL},
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
  ck_done = ?, ck_value = ?, attempts = ?, lost = ?, lseq = ?, rseq = ?, rhash = ?, via = NULL
WHERE n = ? AND lseq = ? -- nobody else writes: no row means that the cache is wrong`

const eraseSQL = `
UPDATE jobs SET v1 = NULL, result = NULL, purged = 1, ext = NULL WHERE n = ?1`

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
	r = row{job: now, n: old.n, rseq: old.rseq}
	w.lseq++
	r.lseq = w.lseq
	if now.Rank == jobs.Completed && old.job.Rank != jobs.Completed {
		w.rseq++
		r.rseq = w.rseq
	}
	ctx := context.Background()
	if now.Purged && !old.job.Purged {
		w.purging = true
		if err := w.erase(ctx, old, r); err != nil {
			return row{}, false, false, err
		}
	} else if err := w.update(ctx, old, r); err != nil {
		return row{}, false, false, err
	}
	w.count(old.job, now)
	w.remember(r)
	w.changed = append(w.changed, jobs.Changed{Job: now, LSeq: r.lseq})
	return r, true, true, nil
}

// update writes all that may change of a row, under the guard of its old lseq.
func (w *writer) update(ctx context.Context, old, r row) error {
	j := &r.job
	res, err := w.stmts.update.ExecContext(ctx, int64(j.Rank),
		blobIf(j.Rank == jobs.Completed && !j.Purged, j.Result[:]), textIf(j.Rank == jobs.Failed, j.Err), j.Verified,
		intIf(j.Rank != jobs.Open, micros(j.DoneAt)), micros(j.GCAfter), j.Pulled,
		int64(j.Checkpoint.Done), blobIf(j.Checkpoint.Done > 0, j.Checkpoint.Value[:]), int64(j.Attempts), int64(j.Lost),
		int64(r.lseq), intIf(r.rseq > 0, int64(r.rseq)), j.Hash(), r.n, int64(old.lseq))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return fmt.Errorf("job %s at lseq %d: %d rows changed, want 1 (%v)", j.ID, old.lseq, n, err)
	}
	return nil
}

// erase takes the bytes of a purged row and then writes the rest.
func (w *writer) erase(ctx context.Context, old, r row) error {
	if _, err := w.stmts.erase.ExecContext(ctx, r.n); err != nil {
		return err
	}
	return w.update(ctx, old, r)
}

// remember keeps a row that will change again, so that it need not be read.
func (w *writer) remember(r row) {
	if r.job.Ended() {
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
