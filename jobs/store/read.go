package store

import (
	"context"
	"database/sql"
	"time"

	"workmanager/jobs"
)

// Job returns one job. The second result is false if there is none.
func (s *Store) Job(ctx context.Context, id jobs.ID) (jobs.Job, bool, error) {
	r, found, err := s.row(ctx, id)
	return r.job, found, err
}

// Row returns one job's row. The second result is false if there is none.
func (s *Store) Row(ctx context.Context, id jobs.ID) (jobs.Row, bool, error) {
	r, found, err := s.row(ctx, id)
	return r.wire(), found, err
}

func (s *Store) row(ctx context.Context, id jobs.ID) (row, bool, error) {
	if err := s.Err(); err != nil {
		return row{}, false, err
	}
	r, err := scanRow(s.get.QueryRowContext(ctx, id[:]))
	if err == sql.ErrNoRows {
		return row{}, false, nil
	}
	return r, err == nil, s.readError("read a job", err)
}

// Place is where a page of open jobs ends: the next begins behind it. The zero
// Place is before the first.
type Place struct {
	started  bool
	priority uint8
	created  int64
	n        int64
}

// PlaceOf returns the place before the first job of a priority.
func PlaceOf(priority int) Place { return Place{started: true, priority: uint8(priority)} }

// Priority returns the priority of the jobs that the next page begins with.
func (p Place) Priority() int {
	if !p.started {
		return jobs.MaxPriority
	}
	return int(p.priority)
}

const (
	openSQL      = `SELECT ` + rowColumns + openFrom
	openPlainSQL = `SELECT ` + plainColumns + openFrom
	openFrom     = ` FROM jobs
WHERE rank = 0 AND home = ?1 AND priority = ?2 AND created_at >= ?3 AND (created_at > ?3 OR n > ?4) ORDER BY created_at, n LIMIT ?5`
)

// Open returns up to limit open jobs of a home behind a place, the most urgent
// first and of one priority the oldest first, and the place they end at. Fewer
// than limit means that there was no more when it was read.
func (s *Store) Open(ctx context.Context, home string, after Place, limit int) ([]jobs.Job, Place, error) {
	page := make([]jobs.Job, 0, min(limit, maxOpenPage))
	plain := true
	end, err := s.walkOpen(ctx, openPlainSQL, home, after, limit, func(rows *sql.Rows) (row, bool, error) {
		r, ok, err := scanPlain(rows)
		page, plain = append(page, r.job), plain && ok
		return r, plain, err
	})
	if err != nil || plain {
		return page, end, err
	}
	rows, end, err := s.openRows(ctx, home, after, limit)
	page = page[:0]
	for i := range rows {
		page = append(page, rows[i].Job)
	}
	return page, end, err
}

// maxOpenPage bounds the room that is made for a page beforehand.
const maxOpenPage = 4096

// openRows is Open with the whole rows.
func (s *Store) openRows(ctx context.Context, home string, after Place, limit int) ([]jobs.Row, Place, error) {
	var out []jobs.Row
	end, err := s.walkOpen(ctx, openSQL, home, after, limit, func(rows *sql.Rows) (row, bool, error) {
		r, err := scanRow(rows)
		out = append(out, r.wire())
		return r, true, err
	})
	if err != nil {
		return nil, after, err
	}
	return out, end, nil
}

// walkOpen reads up to limit open rows with scan, until that says that it has
// enough, and returns the place they end at.
func (s *Store) walkOpen(ctx context.Context, query, home string, after Place, limit int, scan func(*sql.Rows) (r row, more bool, err error)) (Place, error) {
	at := after
	if !at.started {
		at = Place{started: true, priority: jobs.MaxPriority}
	}
	for n := 0; ; {
		rows, err := s.query(ctx, query, home, at.priority, at.created, at.n, limit-n)
		if err != nil {
			return after, s.readError("read open jobs", err)
		}
		more := true
		for more && rows.Next() {
			var r row
			if r, more, err = scan(rows); err != nil {
				break
			}
			at.created, at.n = micros(r.job.CreatedAt), r.n
			n++
		}
		if cerr := rows.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			err = rows.Err()
		}
		if err != nil {
			return after, s.readError("read open jobs", err)
		}
		if n == limit || at.priority == 0 || !more {
			return at, nil
		}
		at = Place{started: true, priority: at.priority - 1}
	}
}

const oldestOpenSQL = `SELECT created_at FROM jobs WHERE rank = 0 AND home = ?1 AND priority = ?2 ORDER BY created_at LIMIT 1`

// Oldest returns when the oldest open job of a home came in, the zero time if
// none is open. It costs one look a priority, however many jobs there are.
func (s *Store) Oldest(ctx context.Context, home string) (time.Time, error) {
	if err := s.Err(); err != nil {
		return time.Time{}, err
	}
	var oldest time.Time
	for p := range jobs.MaxPriority + 1 {
		var us int64
		err := s.read.QueryRowContext(ctx, oldestOpenSQL, home, p).Scan(&us)
		if err == sql.ErrNoRows {
			continue
		}
		if err != nil {
			return time.Time{}, s.readError("read the oldest open job", err)
		}
		if at := instant(us); oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
	}
	return oldest, nil
}
