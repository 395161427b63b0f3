package store

import (
	"cmp"
	"context"
	"slices"

	"workmanager/jobs"
)

// What one owner is shown. Each statement reads along an index of the owner's
// jobs and no further than its page, however many jobs others have.
const (
	listOwnedSQL = `SELECT ` + leanColumns + ` FROM jobs
WHERE owner = ?4 AND rank = ?5 AND created_at >= ?1 AND (created_at > ?1 OR n > ?2) ORDER BY created_at, n LIMIT ?3`

	listOwnedCompletedSQL = `SELECT ` + leanColumns + ` FROM jobs
WHERE owner = ?3 AND rseq IS NOT NULL AND rseq > ?1 ORDER BY rseq LIMIT ?2`

	ownedResultsSQL = `
SELECT id, result, iterations, done_at, rseq FROM jobs
WHERE owner = ?3 AND rseq IS NOT NULL AND rseq > ?1 AND purged = 0 ORDER BY rseq LIMIT ?2`

	ownedNewestSQL = `
SELECT id, result, iterations, done_at FROM jobs
WHERE owner = ?3 AND rank = 3 AND pulled = 0 AND purged = 0 AND home = ?1 ORDER BY done_at DESC, id DESC LIMIT ?2`

	ownedOldestSQL = `
SELECT id, result, iterations, done_at FROM jobs
WHERE owner = ?3 AND rank = 3 AND pulled = 0 AND purged = 0 AND home = ?1 ORDER BY done_at, id LIMIT ?2`
)

// byOwner returns the statement and its arguments for everybody's jobs, or for
// those of one owner, who is the last argument.
func byOwner(owner, all, owned string, args ...any) (string, []any) {
	if owner == "" {
		return all, args
	}
	return owned, append(args, owner)
}

// cursorOwned is the kind of a cursor of one owner's jobs: created_at and n. It
// holds no owner; whose jobs are listed the caller says each time.
const cursorOwned = 'W'

// listOwned returns a page of one owner's jobs.
func (s *Store) listOwned(ctx context.Context, q jobs.ListQuery) ([]jobs.Row, string, bool, error) {
	switch q.State {
	case jobs.StateCompleted:
		return s.list(ctx, q, cursorResults, func(r row) []int64 { return []int64{int64(r.rseq)} }, listOwnedCompletedSQL, 1, q.Owner)
	case jobs.StateQueued:
		return s.list(ctx, q, cursorOwned, age, listOwnedSQL, 2, q.Owner, int64(jobs.Open))
	case jobs.StateFailed:
		return s.list(ctx, q, cursorOwned, age, listOwnedSQL, 2, q.Owner, int64(jobs.Failed))
	case jobs.StateCancelled:
		return s.list(ctx, q, cursorOwned, age, listOwnedSQL, 2, q.Owner, int64(jobs.Cancelled))
	}
	var all []row
	more := false
	for rank := jobs.Open; rank <= jobs.Completed; rank++ { // each a page along the index, and the first of them all
		page, some, err := s.rows(ctx, q, cursorOwned, listOwnedSQL, 2, q.Owner, int64(rank))
		if err != nil {
			return nil, "", false, err
		}
		all, more = append(all, page...), more || some
	}
	slices.SortFunc(all, func(a, b row) int { return cmp.Or(a.job.CreatedAt.Compare(b.job.CreatedAt), cmp.Compare(a.n, b.n)) })
	if len(all) > q.Limit {
		all, more = all[:q.Limit], true
	}
	next := q.After
	if len(all) > 0 {
		next = cursor(cursorOwned, age(all[len(all)-1])...)
	} else if next == "" {
		next = cursor(cursorOwned, 0, 0)
	}
	page := make([]jobs.Row, len(all))
	for i := range all {
		page[i] = all[i].wire()
	}
	return page, next, more, nil
}
