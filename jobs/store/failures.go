package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"workmanager/jobs"
)

// FailureGroup is the failed jobs that have one error.
type FailureGroup struct {
	Error   string
	Jobs    int64
	LastAt  time.Time
	Example jobs.ID // the one that failed last
}

const failuresSQL = `SELECT err, done_at, id FROM jobs WHERE rank IN (1, 2) AND rank = 1 ORDER BY created_at DESC LIMIT ?1`

// Failures groups the newest failed jobs, as many as newest, by their errors:
// the most frequent first. It returns how many jobs it looked at.
func (s *Store) Failures(ctx context.Context, newest int) ([]FailureGroup, int64, error) {
	if err := s.Err(); err != nil {
		return nil, 0, err
	}
	rows, err := s.query(ctx, failuresSQL, newest)
	if err != nil {
		return nil, 0, s.readError("group failed jobs", err)
	}
	defer rows.Close()
	by, looked := map[string]*FailureGroup{}, int64(0)
	for rows.Next() {
		var text string
		var at int64
		var id []byte
		if err := rows.Scan(&text, &at, &id); err != nil {
			return nil, 0, s.readError("group failed jobs", err)
		}
		looked++
		g := by[text]
		if g == nil {
			g = &FailureGroup{Error: text}
			by[text] = g
		}
		g.Jobs++
		if last := instant(at); last.After(g.LastAt) {
			g.LastAt = last
			copy(g.Example[:], id)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, 0, s.readError("group failed jobs", err)
	}
	groups := make([]FailureGroup, 0, len(by))
	for _, g := range by {
		groups = append(groups, *g)
	}
	slices.SortFunc(groups, func(a, b FailureGroup) int {
		return cmp.Or(cmp.Compare(b.Jobs, a.Jobs), b.LastAt.Compare(a.LastAt), cmp.Compare(a.Error, b.Error))
	})
	return groups, looked, nil
}

const aheadSQL = `SELECT count(*) FROM (SELECT 1 FROM jobs WHERE rank = 0 AND home = ?1 AND priority = ?2 AND created_at < ?3 LIMIT ?4)`

// Ahead returns how many open jobs of its home are more urgent than j or as
// urgent and older, and counts no further than most.
func (s *Store) Ahead(ctx context.Context, j jobs.Job, most int) (int, error) {
	sum := 0
	for p := jobs.MaxPriority; p >= int(j.Priority) && sum < most; p-- {
		before := j.CreatedAt
		if p > int(j.Priority) {
			before = time.UnixMicro(1<<62 - 1)
		}
		var n int
		if err := s.read.QueryRowContext(ctx, aheadSQL, j.Home, p, micros(before), most-sum).Scan(&n); err != nil {
			return 0, s.readError("count what is ahead of a job", err)
		}
		sum += n
	}
	return sum, nil
}
