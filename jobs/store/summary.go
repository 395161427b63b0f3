package store

import (
	"context"
	"database/sql"
	"fmt"
	"hash/fnv"
	"math/bits"

	"workmanager/jobs"
)

// Two nodes compare what they hold by digests of ranges of rows. A digest is
// made from the columns, not from the hash that was stored with them: a disk
// that returned something else than was written, or a hand that edited the
// file, would have left the hash as it was. That hash is what tells which of
// two rows that differ is the damaged one.

const (
	// summarySlice bounds the rows of one view, about 3 ms: an open one keeps
	// the log from beginning anew.
	summarySlice = 512
	// repairSlice bounds the rows of one transaction of a repair.
	repairSlice = 250

	summarySQL = `
SELECT ` + rowColumns + `, rhash FROM jobs
WHERE created_at >= ?1 AND created_at < ?2 AND (created_at > ?1 OR n > ?3) ORDER BY created_at, n LIMIT ?4`

	sealedSQL = `SELECT ` + rowColumns + `, rhash FROM jobs WHERE id = ?`

	// cutSQL is the instant of a row some way up a range, cutPastSQL the first
	// behind an instant that many rows share.
	cutSQL     = `SELECT created_at FROM jobs WHERE created_at >= ?1 AND created_at < ?2 ORDER BY created_at LIMIT 1 OFFSET ?3`
	cutPastSQL = `SELECT created_at FROM jobs WHERE created_at > ?1 AND created_at < ?2 ORDER BY created_at LIMIT 1`
	inRangeSQL = `SELECT count(*) FROM jobs WHERE created_at >= ?1 AND created_at < ?2`

	recountSQL = `
SELECT home, rank, count(*), sum(pulled), sum((iterations - max(ck_done, 1)) & 0xffffffff), sum((iterations - max(ck_done, 1)) >> 32)
FROM jobs GROUP BY home, rank`
	countsSQL = `SELECT home, open, failed, cancelled, completed, pulled, hi, lo FROM counts`
)

// sealed is a row, and whether its columns are those its hash was written for.
type sealed struct {
	row
	hash    int64 // of the columns
	damaged bool
}

// scanSealed reads a row with its hash behind it.
func scanSealed(r interface{ Scan(...any) error }) (sealed, error) {
	var stored int64
	got, err := scanRow(scanMore{r, &stored})
	if err != nil {
		return sealed{}, err
	}
	s := sealed{row: got, hash: got.job.Hash()}
	s.damaged = s.hash != stored
	return s, nil
}

// scanMore scans one column more than it is asked for.
type scanMore struct {
	r    interface{ Scan(...any) error }
	more any
}

func (s scanMore) Scan(to ...any) error { return s.r.Scan(append(to, s.more)...) }

// sum is what a row adds to a digest.
func (s *Store) sum(r *sealed) uint64 {
	if !r.damaged {
		return uint64(r.hash)
	}
	h := fnv.New64a()
	h.Write([]byte(s.opt.Node)) // never fails
	return uint64(r.hash) + h.Sum64()
}

// summarize hands the compared rows of a range to visit. It returns false if it
// has read limit rows and there are more.
func (s *Store) summarize(ctx context.Context, in jobs.Range, of jobs.Settled, limit int, visit func(*sealed)) (bool, error) {
	from, n, read := in.From, int64(-1), 0
	for read < limit {
		size := min(summarySlice, limit-read)
		got, err := s.slice(ctx, from, in.To, n, size, func(r *sealed) {
			from, n = micros(r.job.CreatedAt), r.n
			if w := r.wire(); of.Has(&w) {
				visit(r)
			}
		})
		if err != nil {
			return false, s.readError("compare jobs", err)
		}
		if read += got; got < size {
			return true, nil
		}
	}
	return false, nil
}

// slice reads rows in one view and returns how many.
func (s *Store) slice(ctx context.Context, from, to, n int64, size int, visit func(*sealed)) (int, error) {
	rows, err := s.query(ctx, summarySQL, from, to, n, size)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	got := 0
	for ; rows.Next(); got++ {
		r, err := scanSealed(rows)
		if err != nil {
			return 0, err
		}
		visit(&r)
	}
	return got, rows.Err()
}

// Digest returns the digest of a range. It reads at most limit rows, and
// returns false if there are more.
func (s *Store) Digest(ctx context.Context, in jobs.Range, of jobs.Settled, limit int) (jobs.Digest, bool, error) {
	var d jobs.Digest
	whole, err := s.summarize(ctx, in, of, limit, func(r *sealed) {
		d.Rows++
		d.Sum += s.sum(r)
	})
	return d, whole, err
}

// Sums returns what each row of a range adds to its digest. It reads at most
// limit rows, and returns false if there are more.
func (s *Store) Sums(ctx context.Context, in jobs.Range, of jobs.Settled, limit int) ([]jobs.RowSum, bool, error) {
	var sums []jobs.RowSum
	whole, err := s.summarize(ctx, in, of, limit, func(r *sealed) {
		sums = append(sums, jobs.RowSum{ID: r.job.ID, Sum: s.sum(r)})
	})
	return sums, whole, err
}

// Cuts returns at most limit instants inside a range, ascending, with about
// every rows between two of them; with every 0 they cut it into equal parts. It
// reads an index only.
func (s *Store) Cuts(ctx context.Context, in jobs.Range, every, limit int) ([]int64, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	if every == 0 {
		var rows int
		if err := s.read.QueryRowContext(ctx, inRangeSQL, in.From, in.To).Scan(&rows); err != nil {
			return nil, s.readError("count jobs", err)
		}
		every = max((rows+limit)/(limit+1), 1)
	}
	var cuts []int64
	for at := in.From; len(cuts) < limit; {
		var next int64
		err := s.read.QueryRowContext(ctx, cutSQL, at, in.To, every).Scan(&next)
		if err == nil && next <= at {
			err = s.read.QueryRowContext(ctx, cutPastSQL, at, in.To).Scan(&next)
		}
		if err == sql.ErrNoRows {
			break
		}
		if err != nil {
			return nil, s.readError("cut a range", err)
		}
		cuts, at = append(cuts, next), next
	}
	return cuts, nil
}

// Standings returns how rows stand, in the order of their IDs. One that is
// damaged is settled wherever it says it belongs.
func (s *Store) Standings(ctx context.Context, ids []jobs.ID, of jobs.Settled) ([]jobs.Standing, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	stmt, err := s.read.PrepareContext(ctx, sealedSQL)
	if err != nil {
		return nil, s.readError("read jobs to compare", err)
	}
	defer stmt.Close()
	out := make([]jobs.Standing, len(ids))
	for i, id := range ids {
		r, err := scanSealed(stmt.QueryRowContext(ctx, id[:]))
		if err == sql.ErrNoRows {
			continue
		}
		if err != nil {
			return nil, s.readError("read jobs to compare", err)
		}
		w := r.wire()
		out[i] = jobs.Standing{Row: w, Found: true, Damaged: r.damaged, Settled: of.Has(&w) || r.damaged && w.LSeq <= of.Upto}
	}
	return out, nil
}

// sealed reads a row from the database, whatever the cache says.
func (w *writer) sealed(id jobs.ID) (sealed, bool, error) {
	r, err := scanSealed(w.conn.QueryRowContext(context.Background(), sealedSQL, id[:]))
	if err == sql.ErrNoRows {
		return sealed{}, false, nil
	}
	return r, err == nil, err
}

// Resend gives the rows that stand at or below upto their next numbers, so that
// the peer reads them once more, and returns how many those were.
func (s *Store) Resend(ctx context.Context, ids []jobs.ID, upto jobs.LSeq) (int, error) {
	n := 0
	for len(ids) > 0 {
		some := ids[:min(len(ids), repairSlice)]
		ids = ids[len(some):]
		sent := 0
		err := s.write(ctx, len(some), func(w *writer) error {
			sent = 0
			for _, id := range some {
				old, found, err := w.sealed(id)
				if err != nil {
					return err
				}
				if !found || old.lseq > upto {
					continue
				}
				r := row{job: old.job, n: old.n, ext: old.ext}
				if err := w.put(old.row, &r, false); err != nil {
					return err
				}
				sent++
			}
			return nil
		})
		if err != nil {
			return n, err
		}
		n += sent
	}
	return n, nil
}

// Adopt puts rows of the peer's boot, as they are there, in the place of those
// that are damaged here; to all others it does nothing. A purged row stays
// purged. It returns the rows that changed here.
func (s *Store) Adopt(ctx context.Context, boot jobs.ID, rows []jobs.Row) ([]jobs.Changed, error) {
	var changed []jobs.Changed
	for len(rows) > 0 {
		some := rows[:min(len(rows), repairSlice)]
		rows = rows[len(some):]
		var now []jobs.Changed
		err := s.write(ctx, len(some), func(w *writer) error {
			from := len(w.changed)
			for _, in := range some {
				if err := w.adopt(boot, in); err != nil {
					return err
				}
			}
			now = append(now[:0], w.changed[from:]...)
			return nil
		})
		if err != nil {
			return changed, err
		}
		changed = append(changed, now...)
	}
	for i := range changed {
		s.opt.Log.Error("a damaged row was replaced by the peer's: the columns on this disk did not match their hash", "job", changed[i].Job.ID)
		if changed[i].Job.Purged {
			s.tryScrub()
		}
	}
	return changed, nil
}

func (w *writer) adopt(boot jobs.ID, in jobs.Row) error {
	old, found, err := w.sealed(in.Job.ID)
	if err != nil || !found || !old.damaged {
		return err
	}
	floor, _ := w.s.Floor()
	if in.Job.Ended() && in.Job.Key().Before(floor) {
		return nil
	}
	r := row{job: in.Job, n: old.n, ext: in.Ext, via: boot}
	if old.job.Purged && !in.Job.Purged {
		r.job, r.ext, r.via = jobs.Merge(old.job, in.Job), nil, jobs.ID{}
	}
	if raised, was := r.job.Raised(floor); was {
		r.job, r.via = raised, jobs.ID{}
	}
	delete(w.cache, in.Job.ID)
	return w.put(old.row, &r, false)
}

// Recount corrects the counters by what is there. They are kept by the
// transactions that change rows; what changes behind their back they do not
// know. All rows are read beside the writer: by how much the counters are wrong
// stays the same whatever is committed meanwhile.
func (s *Store) Recount(ctx context.Context) error {
	wrong, shares, err := s.miscounted(ctx)
	if err != nil || len(wrong)+len(shares) == 0 {
		return s.readError("count jobs", err)
	}
	err = s.write(ctx, 1, func(w *writer) error {
		for home, by := range wrong {
			c := w.countsOf(home)
			c.Open += by.Open
			c.Failed += by.Failed
			c.Cancelled += by.Cancelled
			c.Completed += by.Completed
			c.Pulled += by.Pulled
			c.Remaining = c.Remaining.Plus(by.Remaining)
		}
		for owner, by := range shares {
			s.owned.moved[owner] += by
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("correct the counts: %w", err)
	}
	s.opt.Log.Warn("counts corrected: rows were changed behind this node's back", "homes", len(wrong), "owners", len(shares))
	if s.sizing.on.Load() {
		return s.Size(ctx)
	}
	return nil
}

// miscounted returns what the counters of each home, and of each owner, lack, as
// of one view of the rows.
func (s *Store) miscounted(ctx context.Context) (homes map[string]jobs.Counts, owners map[string]int64, err error) {
	if err := s.Err(); err != nil {
		return nil, nil, err
	}
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, nil, err
	}
	defer tx.Rollback() //nolint:errcheck // it only reads
	if homes, err = miscountedHomes(ctx, tx); err != nil {
		return nil, nil, err
	}
	owners, err = miscountedOwners(ctx, tx)
	return homes, owners, err
}

// miscountedHomes counts modulo 2^64 and 2^128.
func miscountedHomes(ctx context.Context, tx *sql.Tx) (map[string]jobs.Counts, error) {
	lack := map[string]jobs.Counts{}
	rows, err := tx.QueryContext(ctx, recountSQL)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var home string
		var rank uint8
		var n, pulled int64
		var lo, hi uint64
		if err := rows.Scan(&home, &rank, &n, &pulled, &lo, &hi); err != nil {
			return nil, err
		}
		c := counts{Counts: lack[home]}
		*c.of(jobs.Rank(rank)) += n
		c.Pulled += pulled
		if jobs.Rank(rank) == jobs.Open {
			c.Remaining = c.Remaining.Plus(jobs.Work{Hi: hi >> 32, Lo: hi << 32}).Add(lo)
		}
		lack[home] = c.Counts
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	kept, err := tx.QueryContext(ctx, countsSQL)
	if err != nil {
		return nil, err
	}
	defer kept.Close()
	for kept.Next() {
		var home string
		var k jobs.Counts
		var hi, lo int64
		if err := kept.Scan(&home, &k.Open, &k.Failed, &k.Cancelled, &k.Completed, &k.Pulled, &hi, &lo); err != nil {
			return nil, err
		}
		c := lack[home]
		c.Open -= k.Open
		c.Failed -= k.Failed
		c.Cancelled -= k.Cancelled
		c.Completed -= k.Completed
		c.Pulled -= k.Pulled
		var borrow uint64
		c.Remaining.Lo, borrow = bits.Sub64(c.Remaining.Lo, uint64(lo), 0)
		c.Remaining.Hi, _ = bits.Sub64(c.Remaining.Hi, uint64(hi), borrow)
		if c == (jobs.Counts{}) {
			delete(lack, home)
		} else {
			lack[home] = c
		}
	}
	return lack, kept.Err()
}
