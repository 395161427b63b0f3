package store

import (
	"context"
	"encoding/base64"
	"encoding/binary"

	"workmanager/jobs"
)

// One statement a kind of list; each reads along an index and no further than
// its page.
const (
	listCreatedSQL = `SELECT ` + leanColumns + ` FROM jobs
WHERE created_at >= ?1 AND (created_at > ?1 OR n > ?2) ORDER BY created_at, n LIMIT ?3`

	listEndedSQL = `SELECT ` + leanColumns + ` FROM jobs
WHERE rank IN (1, 2) AND rank = ?4 AND created_at >= ?1 AND (created_at > ?1 OR n > ?2) ORDER BY created_at, n LIMIT ?3`

	listCompletedSQL = `SELECT ` + leanColumns + ` FROM jobs
WHERE rseq IS NOT NULL AND rseq > ?1 ORDER BY rseq LIMIT ?2`
)

// List returns a page of jobs: those of a state, or all for the state "".
// Completed jobs come in the order of the results, open ones home by home, each
// in the order in which they are leased, the others by age. Which of the open
// jobs are leased the store cannot know: for StateQueued it lists every open job.
//
// With an owner it lists the jobs of one, those that have not completed by age:
// see owner.go.
func (s *Store) List(ctx context.Context, home string, q jobs.ListQuery) (page []jobs.Row, next string, more bool, err error) {
	if q.Owner != "" {
		return s.listOwned(ctx, q)
	}
	switch q.State {
	case jobs.StateQueued:
		return s.listOpen(ctx, q)
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

// list runs one of the statements above. place tells a row's cursor.
func (s *Store) list(ctx context.Context, q jobs.ListQuery, kind byte, place func(row) []int64, query string, fields int, more ...any) ([]jobs.Row, string, bool, error) {
	rows, some, err := s.rows(ctx, q, kind, query, fields, more...)
	if err != nil {
		return nil, "", false, err
	}
	next := q.After
	if len(rows) > 0 {
		next = cursor(kind, place(rows[len(rows)-1])...)
	} else if next == "" {
		next = cursor(kind, make([]int64, fields)...)
	}
	var page []jobs.Row
	for i := range rows {
		page = append(page, rows[i].wire())
	}
	return page, next, some, nil
}

// rows returns a page of rows: the arguments of the statement are first the
// fields of the cursor, then the limit, then more. It reports whether there was
// anything behind them.
func (s *Store) rows(ctx context.Context, q jobs.ListQuery, kind byte, query string, fields int, more ...any) ([]row, bool, error) {
	at := make([]int64, fields)
	if q.After != "" {
		to := make([]*int64, fields)
		for i := range at {
			to[i] = &at[i]
		}
		if err := parseCursor(q.After, kind, to...); err != nil {
			return nil, false, err
		}
	}
	var args []any
	for _, f := range at {
		args = append(args, f)
	}
	rows, err := s.query(ctx, query, append(append(args, q.Limit+1), more...)...)
	if err != nil {
		return nil, false, s.readError("list jobs", err)
	}
	defer rows.Close()
	var page []row
	for rows.Next() {
		if len(page) == q.Limit {
			return page, true, nil
		}
		r, err := scanRow(rows)
		if err != nil {
			return nil, false, s.readError("list jobs", err)
		}
		page = append(page, r)
	}
	return page, false, s.readError("list jobs", rows.Err())
}

// cursorHomes is the kind of a cursor of open jobs of all homes: priority,
// created_at, n, and then the home's name. A name keeps its place when another
// home comes in.
const cursorHomes = 'H'

func (s *Store) listOpen(ctx context.Context, q jobs.ListQuery) ([]jobs.Row, string, bool, error) {
	home, at, err := parseHomesCursor(q.After)
	if err != nil {
		return nil, "", false, err
	}
	var page []jobs.Row
	for _, h := range s.openHomes(home) {
		if h != home {
			home, at = h, Place{}
		}
		rows, end, err := s.openRows(ctx, home, at, q.Limit-len(page))
		if err != nil {
			return nil, "", false, err
		}
		page, at = append(page, rows...), end
		if len(page) == q.Limit {
			return page, homesCursor(home, at), true, nil
		}
	}
	return page, homesCursor(home, at), false, nil
}

// openHomes returns the homes from a name on that may have open jobs, in order.
func (s *Store) openHomes(from string) []string {
	var homes []string
	for _, home := range *s.homes.Load() {
		if home >= from && s.CountsOf(home).Open > 0 {
			homes = append(homes, home)
		}
	}
	return homes
}

func homesCursor(home string, at Place) string {
	if !at.started {
		at.priority = jobs.MaxPriority
	}
	b := []byte{cursorHomes}
	for _, f := range []int64{int64(at.priority), at.created, at.n} {
		b = binary.BigEndian.AppendUint64(b, uint64(f))
	}
	return base64.RawURLEncoding.EncodeToString(append(b, home...))
}

func parseHomesCursor(s string) (home string, at Place, err error) {
	if s == "" {
		return "", Place{}, nil
	}
	b, err := cursorBytes(s)
	if err != nil || len(b) < 1+3*8 || b[0] != cursorHomes || binary.BigEndian.Uint64(b[1:]) > jobs.MaxPriority {
		return "", Place{}, jobs.Invalid("query", "after", "value_error.cursor", "is no cursor of this list; leave it out to begin at the start")
	}
	return string(b[25:]), Place{
		started: true, priority: uint8(binary.BigEndian.Uint64(b[1:])),
		created: int64(binary.BigEndian.Uint64(b[9:])), n: int64(binary.BigEndian.Uint64(b[17:])),
	}, nil
}
