package store

import (
	"context"

	"workmanager/jobs"
)

// TakeOver makes this node the home of open jobs of another home, the most
// urgent first and of one priority the oldest: at most c.Jobs of them, and
// after the first no more than c.Iterations in all. Nothing is given back.
func (s *Store) TakeOver(ctx context.Context, from string, c jobs.Capacity) ([]jobs.Job, error) {
	var taken []jobs.Job
	err := s.write(ctx, min(max(c.Jobs, 1), maxBatchRows), func(w *writer) error {
		taken = nil
		found, err := w.openOf(from, min(c.Jobs, maxBatchRows))
		if err != nil {
			return err
		}
		var sum uint64
		for _, old := range found {
			need := old.job.Remaining()
			if len(taken) > 0 && sum+need > c.Iterations {
				break
			}
			sum += need
			now, _ := old.job.Rehome(w.s.opt.Node)
			r := row{job: now, n: old.n, ext: old.ext}
			if err := w.put(old, &r, false); err != nil {
				return err
			}
			taken = append(taken, now)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return taken, nil
}

// TakeOverJobs makes this node the home of those of the jobs that are open and
// at home there, and returns them as they stand.
func (s *Store) TakeOverJobs(ctx context.Context, ids []jobs.ID, from string) ([]jobs.Job, error) {
	var taken []jobs.Job
	err := s.write(ctx, len(ids), func(w *writer) error {
		taken = nil
		for _, id := range ids {
			r, _, changed, err := w.change(id, func(j jobs.Job) (jobs.Job, bool) {
				if j.Ended() || j.Home != from {
					return j, false
				}
				return j.Rehome(w.s.opt.Node)
			})
			if err != nil {
				return err
			}
			if changed {
				taken = append(taken, r.job)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return taken, nil
}

// openOf returns up to limit open rows of a home in the order of their lease.
func (w *writer) openOf(home string, limit int) ([]row, error) {
	var found []row
	for p := jobs.MaxPriority; p >= 0 && len(found) < limit; p-- {
		rows, err := w.conn.QueryContext(context.Background(), openSQL, home, p, 0, 0, limit-len(found))
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			r, err := scanRow(rows)
			if err != nil {
				_ = rows.Close() // the error that matters is err
				return nil, err
			}
			found = append(found, r)
		}
		if err := rows.Close(); err != nil {
			return nil, err
		}
		if err := rows.Err(); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// GiveAway moves open jobs of this home to another and returns those it moved.
func (s *Store) GiveAway(ctx context.Context, ids []jobs.ID, to string) ([]jobs.ID, error) {
	var moved []jobs.ID
	err := s.write(ctx, len(ids), func(w *writer) error {
		moved = nil
		for _, id := range ids {
			_, _, changed, err := w.change(id, func(j jobs.Job) (jobs.Job, bool) {
				if j.Ended() || j.Home != w.s.opt.Node {
					return j, false
				}
				return j.Rehome(to)
			})
			if err != nil {
				return err
			}
			if changed {
				moved = append(moved, id)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return moved, nil
}
