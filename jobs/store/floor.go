package store

import (
	"context"
	"maps"
	"slices"
	"time"

	"workmanager/jobs"
)

// The floor is the instant below which no ended row is kept. It only rises,
// and both nodes agree on it: one that was away too long could not tell a row
// that the other has dropped from one that it never had. A promise comes first:
// no row is made below it any more. See section 10 of the replication rules in
// sync/doc.go.

// Floor returns the floor and the promise. A row's key is never below either
// when it is made here.
func (s *Store) Floor() (floor, promise time.Time) {
	return instant(s.floor.Load()), instant(s.promise.Load())
}

const (
	setMetaSQL = `INSERT INTO meta (k, v) VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = max(v, ?2)`

	// oldestFreshSQL and oldestRaisedSQL find the oldest key of open rows: of
	// those whose retention was never counted anew, and of the others.
	oldestFreshSQL  = `SELECT created_at FROM jobs WHERE rank = 0 AND home = ?1 AND priority = ?2 AND gc_after = 0 ORDER BY created_at LIMIT 1`
	oldestRaisedSQL = `SELECT max(gc_after, created_at) FROM jobs WHERE rank = 0 AND gc_after > 0 ORDER BY gc_after LIMIT 1`

	belowSQL = `
SELECT ` + rowColumns + ` FROM jobs
WHERE rank = 0 AND home = ?1 AND priority = ?2 AND created_at < ?3 AND gc_after < ?3 ORDER BY created_at LIMIT ?4`
)

// Promise commits that no row is made below the instant that it returns, which
// is upTo or, if that is older, the key of the oldest open row. It returns the
// head after it. An answer at or below the floor means that there is nothing to
// gain, and promises nothing.
func (s *Store) Promise(ctx context.Context, upTo time.Time) (time.Time, jobs.LSeq, error) {
	var t int64
	var head jobs.LSeq
	err := s.write(ctx, 1, func(w *writer) error {
		t, head = micros(upTo), w.lseq
		oldest, err := w.oldestOpen()
		if err != nil {
			return err
		}
		if oldest > 0 {
			t = min(t, oldest)
		}
		if t <= s.floor.Load() || t <= s.promise.Load() {
			return nil
		}
		if _, err := w.conn.ExecContext(context.Background(), setMetaSQL, "gc_promise", t); err != nil {
			return err
		}
		s.promise.Store(t) // before the commit: until it is known to have failed, a promise that is not kept costs nothing
		w.last = max(w.last, t)
		return nil
	})
	return instant(t), head, err
}

// oldestOpen returns the key of the oldest open row, 0 if none is open.
func (w *writer) oldestOpen() (int64, error) {
	ctx := context.Background()
	var oldest int64
	note := func(query string, args ...any) error {
		rows, err := w.conn.QueryContext(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var at int64
			if err := rows.Scan(&at); err != nil {
				return err
			}
			if oldest == 0 || at < oldest {
				oldest = at
			}
		}
		return rows.Err()
	}
	for home, c := range w.counts {
		if c.Open == 0 {
			continue
		}
		for p := range jobs.MaxPriority + 1 {
			if err := note(oldestFreshSQL, home, p); err != nil {
				return 0, err
			}
		}
	}
	return oldest, note(oldestRaisedSQL)
}

// Raise commits the floor if it is above the present one, and takes the open
// rows below it along: an open row is never dropped.
func (s *Store) Raise(ctx context.Context, floor time.Time) error {
	return s.write(ctx, 1, func(w *writer) error { return w.raise(floor) })
}

func (w *writer) raise(floor time.Time) error {
	t := micros(floor)
	if t <= w.s.floor.Load() {
		return nil
	}
	if _, err := w.conn.ExecContext(context.Background(), setMetaSQL, "gc_floor", t); err != nil {
		return err
	}
	for {
		n, err := w.restamp(t, t, expireSlice)
		if err != nil {
			return err
		}
		if n < expireSlice {
			break
		}
	}
	w.s.floor.Store(t)
	w.last = max(w.last, t)
	return nil
}

// restamp counts the retention of open rows below an instant from another one
// on, at most limit of them, and returns how many.
func (w *writer) restamp(below, to int64, limit int) (int, error) {
	n := 0
	for _, home := range slices.Sorted(maps.Keys(w.counts)) { // one seed is one order
		if w.counts[home].Open == 0 {
			continue
		}
		for p := range jobs.MaxPriority + 1 {
			found, err := w.below(home, p, below, limit-n)
			if err != nil {
				return n, err
			}
			for _, old := range found {
				r := row{job: old.job, n: old.n, ext: old.ext}
				r.job.GCAfter = instant(to)
				if err := w.put(old, &r, false); err != nil {
					return n, err
				}
				n++
			}
		}
	}
	return n, nil
}

func (w *writer) below(home string, priority int, below int64, limit int) ([]row, error) {
	if limit <= 0 {
		return nil, nil
	}
	rows, err := w.conn.QueryContext(context.Background(), belowSQL, home, priority, below, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []row
	for rows.Next() {
		r, err := scanRow(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, r)
	}
	return found, rows.Err()
}

// Refresh counts the retention of this home's open jobs that came in before an
// instant from now on, at most limit of them, and returns how many: one old job
// must not hold the floor for ever.
func (s *Store) Refresh(ctx context.Context, before time.Time, limit int) (int, error) {
	var n int
	err := s.write(ctx, limit, func(w *writer) error {
		n = 0
		for p := range jobs.MaxPriority + 1 {
			found, err := w.below(s.opt.Node, p, micros(before), limit-n)
			if err != nil {
				return err
			}
			for _, old := range found {
				r := row{job: old.job, n: old.n, ext: old.ext}
				r.job.GCAfter = w.stamp()
				if err := w.put(old, &r, false); err != nil {
					return err
				}
				n++
			}
		}
		return nil
	})
	return n, err
}
