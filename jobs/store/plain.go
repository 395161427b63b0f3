package store

import (
	"context"
	"database/sql"

	"workmanager/jobs"
)

// What a long backlog costs is mostly the reading of its rows, and that is a call
// of SQLite for each column. Nearly all open rows are plain: as they were born,
// so that a few columns say everything. They are read by these; the others, by
// all.

// plainColumns are the columns that scanPlain reads, in its order.
const plainColumns = `n, id, v1, iterations, priority, created_at, lseq, home, owner,
rank = 0 AND origin = home AND gc_after = 0 AND ck_done = 0 AND attempts = 0 AND lost = 0 AND own_epoch = 0 AND restarts = 0 AND verified = 0
  AND pulled = 0 AND purged = 0 AND kept IS NULL AND ext IS NULL`

// scanPlain reads the row that r stands on, and reports whether it is plain: of
// any other it reads but the place.
func scanPlain(r *sql.Rows) (w row, plain bool, err error) {
	j := &w.job
	var id, v1 sql.RawBytes
	var created int64
	var owner sql.NullString
	if err := r.Scan(&w.n, &id, &v1, &j.Iterations, &j.Priority, &created, &w.lseq, &j.Home, &owner, &plain); err != nil {
		return row{}, false, err
	}
	copy(j.ID[:], id)
	copy(j.V1[:], v1)
	j.CreatedAt, j.Origin, j.Owner = instant(created), j.Home, owner.String
	return w, plain, nil
}

// plain reports whether a row is as it was born, open.
func (r *row) plain() bool {
	j := &r.job
	return j.Rank == jobs.Open && j.GCAfter.IsZero() && j.Attempts == 0 && j.Lost == 0 && j.Checkpoint.Done == 0 &&
		j.OwnEpoch == 0 && !j.Pulled && !j.Purged && j.Keep == 0 && j.ResumedFrom == 0 && j.Restarts == 0 && len(r.ext) == 0
}

// nearRows is how many rows one look ahead reads.
const nearRows = 16

const nearSQL = `SELECT ` + plainColumns + ` FROM jobs WHERE id IN (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

// lookAhead reads the plain ones among the rows that the open transaction is
// about to change and does not remember. They are good until they change, or
// until forget.
func (w *writer) lookAhead(facts []Fact) error {
	var args [nearRows]any
	n := 0
	for i := range facts {
		id := &facts[i].ID
		if _, ok := w.cache[*id]; !ok {
			args[n] = id[:]
			n++
		}
		if n == nearRows || n > 1 && i == len(facts)-1 { // of a single one, get reads all at once
			clear(args[n:])
			if err := w.readNear(args[:]); err != nil {
				return err
			}
			n = 0
		}
	}
	return nil
}

func (w *writer) readNear(ids []any) error {
	rows, err := w.stmts.near.QueryContext(context.Background(), ids...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		r, plain, err := scanPlain(rows)
		if err != nil {
			return err
		}
		if plain {
			w.near[r.job.ID] = r
		}
	}
	return rows.Err()
}

// endRows is how many completions one UPDATE carries: they cost a fifth less than
// so many of one.
const endRows = 16

// endSQL completes rows that were open. The + keeps SQLite from finding them by
// lseq.
var endSQL = `
UPDATE OR ROLLBACK jobs SET rank = 3, result = e.column1, done_at = e.column2, gc_after = e.column3, attempts = e.column4, lseq = e.column5,
  rseq = e.column6, rhash = e.column7, ck_done = 0, ck_value = NULL, lost = 0, via = NULL
FROM (VALUES ` + repeat(endRows, "(?, ?, ?, ?, ?, ?, ?, ?, ?)") + `) AS e WHERE jobs.n = e.column8 AND +jobs.lseq = e.column9`

// end is a row that completes, and its lseq before.
type end struct {
	r   row
	was jobs.LSeq
}

// ends reports whether a change does no more than complete a row that was open,
// as most do.
func ends(old, r *row) bool {
	was, now := &old.job, &r.job
	return was.Rank == jobs.Open && now.Rank == jobs.Completed && !now.Purged && !now.Verified && !now.Pulled && r.via == jobs.ID{} && sameBirth(old, r)
}

// flush writes the completions that were put off.
func (w *writer) flush() error {
	put := w.ending
	w.ending = w.ending[:0]
	for len(put) >= endRows {
		args := make([]any, 0, 9*endRows)
		for i := range put[:endRows] {
			r := &put[i].r
			j := &r.job
			args = append(args, j.Result[:], micros(j.DoneAt), micros(j.GCAfter), int64(j.Attempts), int64(r.lseq), int64(r.rseq), j.Hash(), r.n, int64(put[i].was))
		}
		if err := w.exec(w.stmts.end, endRows, args...); err != nil {
			return err
		}
		put = put[endRows:]
	}
	for i := range put {
		if err := w.update(put[i].was, put[i].r, true); err != nil {
			return err
		}
	}
	return nil
}
