package store

import (
	"context"
	"database/sql"

	"workmanager/jobs"
)

const resultsSQL = `
SELECT id, result, iterations, done_at, rseq FROM jobs
WHERE rseq IS NOT NULL AND rseq > ?1 AND purged = 0 ORDER BY rseq LIMIT ?2`

// Results returns the results behind a cursor in rseq order. While this store
// serves, a client that follows the cursors sees every result exactly once; one
// that comes from the peer sees some again and misses none. A cursor whose boot
// the chain does not cover, because the disk was lost or put back, goes on at
// the oldest result and says so.
func (s *Store) Results(ctx context.Context, q jobs.ResultsQuery) (jobs.Results, error) {
	if err := s.Err(); err != nil {
		return jobs.Results{}, err
	}
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // one view: the rows and the head above them
	if err != nil {
		return jobs.Results{}, s.readError("read results", err)
	}
	defer tx.Rollback() //nolint:errcheck // it only reads
	var out jobs.Results
	var after jobs.RSeq
	if q.After != "" {
		places, err := parseResultsCursor(q.After)
		if err != nil {
			return jobs.Results{}, err
		}
		covered := false
		for _, p := range places { // given out here, or by the peer with a place for here
			if covered = s.chain.CoversResult(p.boot, p.n); covered {
				after = p.n
				break
			}
		}
		var gone int64
		if err := tx.QueryRowContext(ctx, "SELECT coalesce((SELECT v FROM meta WHERE k = 'rseq_gone'), 0)").Scan(&gone); err != nil {
			return jobs.Results{}, s.readError("place the cursor", err)
		}
		out.Restarted = !covered || jobs.RSeq(gone) > after
	}
	query, args := byOwner(q.Owner, resultsSQL, ownedResultsSQL, int64(after), q.Limit+1)
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return jobs.Results{}, s.readError("read results", err)
	}
	defer rows.Close()
	out.Results = []jobs.Result{}
	last := after
	var id, value sql.RawBytes
	for rows.Next() {
		if len(out.Results) == q.Limit {
			out.More = true
			break
		}
		var r jobs.Result
		var done int64
		if err := rows.Scan(&id, &value, &r.Iterations, &done, &last); err != nil {
			return jobs.Results{}, s.readError("read results", err)
		}
		copy(r.ID[:], id)
		copy(r.Value[:], value)
		r.DoneAt = instant(done)
		out.Results = append(out.Results, r)
	}
	if err := rows.Err(); err != nil {
		return jobs.Results{}, s.readError("read results", err)
	}
	if !out.More { // all there is was given out, and what retention dropped lies behind too
		var head, rhead int64
		if err := tx.QueryRowContext(ctx, headsSQL).Scan(&head, &rhead); err != nil {
			return jobs.Results{}, s.readError("read results", err)
		}
		last = max(last, jobs.RSeq(rhead))
	}
	boot, rcov, err := pairAt(ctx, tx, last)
	if err != nil {
		return jobs.Results{}, s.readError("read results", err)
	}
	out.Cursor = resultsCursor(place{s.boot, last}, place{boot, rcov})
	return out, nil
}

const recentSQL = `
SELECT v1, iterations, result, owner FROM jobs WHERE rseq IS NOT NULL AND rseq > ? AND purged = 0 ORDER BY rseq`

// Recent calls f with up to limit of the newest results, the oldest of them
// first: of each only the work, the value, the owner and the rank are set.
func (s *Store) Recent(ctx context.Context, limit int, f func(jobs.Job)) error {
	rows, err := s.query(ctx, recentSQL, int64(s.ResultsHead())-int64(limit))
	if err != nil {
		return s.readError("read recent results", err)
	}
	defer rows.Close()
	var v1, value, owner sql.RawBytes
	for rows.Next() {
		j := jobs.Job{Rank: jobs.Completed}
		if err := rows.Scan(&v1, &j.Iterations, &value, &owner); err != nil {
			return s.readError("read recent results", err)
		}
		copy(j.V1[:], v1)
		copy(j.Result[:], value)
		j.Owner = string(owner)
		f(j)
	}
	return s.readError("read recent results", rows.Err())
}
