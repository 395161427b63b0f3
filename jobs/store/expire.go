package store

import (
	"context"
	"time"
)

// expireSlice bounds the rows that one transaction deletes.
const expireSlice = 1000

const (
	expiredSQL = `
SELECT n, rank, pulled, home, rseq FROM jobs
WHERE created_at < ?1 AND gc_after < ?1 AND rank > 0 ORDER BY created_at LIMIT ?2`
	dropSQL  = `DELETE FROM jobs WHERE n = ?`
	highsSQL = `
INSERT INTO meta (k, v) VALUES ('lseq_high', ?1), ('rseq_high', ?2), ('rseq_gone', ?3)
ON CONFLICT (k) DO UPDATE SET v = max(v, excluded.v)`
)

// Expire deletes ended jobs below the floor, at most expireSlice of them, and
// returns how many. An open job is never deleted. The numbers of what is
// deleted are noted with it, so that none is ever given out again.
func (s *Store) Expire(ctx context.Context) (int, error) {
	floor, _ := s.Floor()
	if floor.IsZero() {
		return 0, s.Err()
	}
	var dropped int
	err := s.write(ctx, expireSlice, func(w *writer) (err error) {
		dropped, err = w.expire(floor)
		return err
	})
	return dropped, err
}

func (w *writer) expire(before time.Time) (int, error) {
	ctx := context.Background()
	rows, err := w.conn.QueryContext(ctx, expiredSQL, micros(before), expireSlice)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var gone []int64
	var highest int64
	for rows.Next() {
		var r row
		var rseq *int64
		if err := rows.Scan(&r.n, &r.job.Rank, &r.job.Pulled, &r.job.Home, &rseq); err != nil {
			return 0, err
		}
		if rseq != nil {
			highest = max(highest, *rseq)
		}
		gone = append(gone, r.n)
		c := w.countsOf(r.job.Home)
		*c.of(r.job.Rank)--
		if r.job.Pulled {
			c.Pulled--
		}
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	if _, err := w.conn.ExecContext(ctx, "DELETE FROM pulls WHERE at < ?", micros(before)); err != nil || len(gone) == 0 {
		return 0, err
	}
	for _, n := range gone {
		if _, err := w.conn.ExecContext(ctx, dropSQL, n); err != nil {
			return 0, err
		}
	}
	_, err = w.conn.ExecContext(ctx, highsSQL, int64(w.lseq), int64(w.rseq), highest)
	return len(gone), err
}

// Tidy does what a quiet moment should: it erases what is left of purges that a
// reader or a full disk held up.
func (s *Store) Tidy(ctx context.Context) error {
	if err := s.scrub(); err != nil {
		return err
	}
	return s.write(ctx, 1, func(w *writer) error {
		w.emptyAt = time.Time{}
		return nil
	})
}
