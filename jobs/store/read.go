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

const openSQL = `
SELECT ` + rowColumns + ` FROM jobs
WHERE rank = 0 AND home = ?1 AND priority = ?2 AND created_at >= ?3 AND (created_at > ?3 OR n > ?4) ORDER BY created_at, n LIMIT ?5`

// Open returns up to limit open jobs of a home behind a place, the most urgent
// first and of one priority the oldest first, and the place they end at. Fewer
// than limit means that there was no more when it was read.
func (s *Store) Open(ctx context.Context, home string, after Place, limit int) ([]jobs.Job, Place, error) {
	rows, end, err := s.openRows(ctx, home, after, limit)
	page := make([]jobs.Job, len(rows))
	for i := range rows {
		page[i] = rows[i].Job
	}
	return page, end, err
}

func (s *Store) openRows(ctx context.Context, home string, after Place, limit int) ([]jobs.Row, Place, error) {
	at := after
	if !at.started {
		at = Place{started: true, priority: jobs.MaxPriority}
	}
	var out []jobs.Row
	for {
		rows, err := s.query(ctx, openSQL, home, at.priority, at.created, at.n, limit-len(out))
		if err != nil {
			return nil, after, s.readError("read open jobs", err)
		}
		for rows.Next() {
			r, err := scanRow(rows)
			if err != nil {
				_ = rows.Close() // the error that matters is err
				return nil, after, s.readError("read open jobs", err)
			}
			at.created, at.n = micros(r.job.CreatedAt), r.n
			out = append(out, r.wire())
		}
		if err := rows.Close(); err != nil {
			return nil, after, s.readError("read open jobs", err)
		}
		if err := rows.Err(); err != nil {
			return nil, after, s.readError("read open jobs", err)
		}
		if len(out) == limit || at.priority == 0 {
			return out, at, nil
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
