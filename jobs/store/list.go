package store

import (
	"context"

	"workmanager/jobs"
)

// One statement a kind of list; each reads along an index and no further than
// its page.
const (
	listCreatedSQL = `SELECT ` + rowColumns + ` FROM jobs
WHERE created_at >= ?1 AND (created_at > ?1 OR n > ?2) ORDER BY created_at, n LIMIT ?3`

	listEndedSQL = `SELECT ` + rowColumns + ` FROM jobs
WHERE rank IN (1, 2) AND rank = ?4 AND created_at >= ?1 AND (created_at > ?1 OR n > ?2) ORDER BY created_at, n LIMIT ?3`

	listCompletedSQL = `SELECT ` + rowColumns + ` FROM jobs
WHERE rseq IS NOT NULL AND rseq > ?1 ORDER BY rseq LIMIT ?2`
)

// List returns a page of jobs: those of a state, or all for the state "".
// Completed jobs come in the order of the results, open ones in the order in
// which they are leased, the others by age. Which of the open jobs are leased
// the store cannot know: for StateQueued it lists every open job.
func (s *Store) List(ctx context.Context, home string, q jobs.ListQuery) (page []jobs.Job, next string, more bool, err error) {
	switch q.State {
	case jobs.StateQueued:
		return s.listOpen(ctx, home, q)
	case jobs.StateCompleted:
		return s.list(ctx, q, cursorResults, func(r row) []int64 { return []int64{int64(r.rseq)} },
			listCompletedSQL, 1)
	case jobs.StateFailed:
		return s.list(ctx, q, cursorEnded, age, listEndedSQL, 2, int64(jobs.Failed))
	case jobs.StateCancelled:
		return s.list(ctx, q, cursorEnded, age, listEndedSQL, 2, int64(jobs.Cancelled))
	}
	return s.list(ctx, q, cursorCreated, age, listCreatedSQL, 2)
}

// age is the place of a row in a list by age.
func age(r row) []int64 { return []int64{micros(r.job.CreatedAt), r.n} }

// list runs one of the statements above: first the fields of the cursor, then
// the limit, then more. place tells a row's cursor.
func (s *Store) list(ctx context.Context, q jobs.ListQuery, kind byte, place func(row) []int64, query string, fields int, more ...any) ([]jobs.Job, string, bool, error) {
	at := make([]int64, fields)
	if q.After != "" {
		to := make([]*int64, fields)
		for i := range at {
			to[i] = &at[i]
		}
		if err := parseCursor(q.After, kind, to...); err != nil {
			return nil, "", false, err
		}
	}
	var args []any
	for _, f := range at {
		args = append(args, f)
	}
	rows, err := s.query(ctx, query, append(append(args, q.Limit+1), more...)...)
	if err != nil {
		return nil, "", false, s.readError("list jobs", err)
	}
	defer rows.Close()
	var page []jobs.Job
	for rows.Next() {
		if len(page) == q.Limit {
			return page, cursor(kind, at...), true, nil
		}
		r, err := scanRow(rows)
		if err != nil {
			return nil, "", false, s.readError("list jobs", err)
		}
		page, at = append(page, r.job), place(r)
	}
	return page, cursor(kind, at...), false, s.readError("list jobs", rows.Err())
}

func (s *Store) listOpen(ctx context.Context, home string, q jobs.ListQuery) ([]jobs.Job, string, bool, error) {
	var at Place
	if q.After != "" {
		var priority int64
		if err := parseCursor(q.After, cursorOpen, &priority, &at.created, &at.n); err != nil {
			return nil, "", false, err
		}
		if priority < 0 || priority > jobs.MaxPriority {
			return nil, "", false, jobs.Invalid("query", "after", "value_error.cursor", "is no cursor of this list")
		}
		at.started, at.priority = true, uint8(priority)
	}
	page, end, err := s.Open(ctx, home, at, q.Limit)
	if err != nil {
		return nil, "", false, err
	}
	return page, cursor(cursorOpen, int64(end.priority), end.created, end.n), len(page) == q.Limit, nil
}
