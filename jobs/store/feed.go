package store

import (
	"context"
	"database/sql"
	"fmt"

	"workmanager/jobs"
)

const (
	// headsSQL is the newest lseq and rseq of a view of the database, rows that
	// retention dropped included.
	headsSQL = `
SELECT max(coalesce((SELECT max(lseq) FROM jobs), 0), coalesce((SELECT v FROM meta WHERE k = 'lseq_high'), 0)),
       max(coalesce((SELECT max(rseq) FROM jobs WHERE rseq IS NOT NULL), 0), coalesce((SELECT v FROM meta WHERE k = 'rseq_high'), 0))`

	feedSQL = `
SELECT ` + rowColumns + ` FROM jobs
WHERE lseq > ?1 AND lseq <= ?2 AND via IS NOT ?3 ORDER BY lseq LIMIT ?4`
)

// rowBytes is about what a row costs on its way.
const rowBytes = 250

// Feed returns the rows behind a cursor, what is new before what is old, and
// where the cursor stands after them. It is read whole, in one view of the
// database that is closed before Feed returns.
func (s *Store) Feed(ctx context.Context, q jobs.FeedQuery) (jobs.Chunk, error) {
	if err := s.Err(); err != nil {
		return jobs.Chunk{}, err
	}
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return jobs.Chunk{}, s.readError("read the feed", err)
	}
	defer tx.Rollback() //nolint:errcheck // it only reads
	c, err := s.feed(ctx, tx, q)
	return c, s.readError("read the feed", err)
}

func (s *Store) feed(ctx context.Context, tx *sql.Tx, q jobs.FeedQuery) (jobs.Chunk, error) {
	var head jobs.LSeq
	var rhead jobs.RSeq
	if err := tx.QueryRowContext(ctx, headsSQL).Scan(&head, &rhead); err != nil {
		return jobs.Chunk{}, err
	}
	c := jobs.Chunk{Peer: s.opt.Node, From: q.Cursor, Boot: s.boot}
	c.Floor, _ = s.Floor()
	at, reset := s.chain.Resume(q.Cursor, head)
	c.Reset = reset
	limit := max(min(q.Rows, q.Bytes/rowBytes), 1)
	to := at.At
	bytes := max(q.Bytes, 1)
	live, err := s.stretch(ctx, tx, &c, to, head, q.Me, limit, &bytes)
	if err != nil {
		return jobs.Chunk{}, err
	}
	to, c.More = live, live < head
	back := at.BackAt
	if at.Refilling() && len(c.Rows) < limit && bytes > 0 {
		if back, err = s.stretch(ctx, tx, &c, at.BackAt, at.BackTo, q.Me, limit-len(c.Rows), &bytes); err != nil {
			return jobs.Chunk{}, err
		}
	}
	c.More = c.More || back < at.BackTo
	c.Next = at.Advance(s.boot, head, to, back)
	c.RCov, c.HasRCov = rhead, !c.More || jobs.Broken("M22")
	return c, nil
}

// stretch appends the rows of (from, to] and returns up to where it got: to,
// or the last row if the limit ended it, or what the rows carry beyond the usual
// used up the bytes.
func (s *Store) stretch(ctx context.Context, tx *sql.Tx, c *jobs.Chunk, from, to jobs.LSeq, me jobs.ID, limit int, bytes *int) (jobs.LSeq, error) {
	if from >= to {
		return to, nil
	}
	rows, err := tx.QueryContext(ctx, feedSQL, int64(from), int64(to), me[:], limit)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	n := 0
	for ; *bytes > 0 && rows.Next(); n++ {
		r, err := scanRow(rows)
		if err != nil {
			return 0, err
		}
		c.Rows = append(c.Rows, r.wire())
		*bytes -= rowBytes + len(r.job.Rungs)
	}
	if n > 0 && (n == limit || *bytes <= 0) {
		to = c.Rows[len(c.Rows)-1].LSeq
	}
	return to, rows.Err()
}

// Chain returns the boots of this store, oldest first. It does not change while
// the store is open.
func (s *Store) Chain() jobs.BootChain { return s.chain }

// ID returns the random ID of this database file.
func (s *Store) ID() jobs.ID { return s.id }

// Schema returns the version of the database's schema.
func (s *Store) Schema() int { return len(migrations) }

// readChain reads the boots.
func (w *writer) readChain(ctx context.Context) (jobs.BootChain, error) {
	rows, err := w.conn.QueryContext(ctx, "SELECT boot, start_lseq, start_rseq FROM boots ORDER BY n")
	if err != nil {
		return nil, fmt.Errorf("read the boot chain: %w", err)
	}
	defer rows.Close()
	var chain jobs.BootChain
	for rows.Next() {
		var b jobs.Boot
		var id []byte
		if err := rows.Scan(&id, &b.StartLSeq, &b.StartRSeq); err != nil {
			return nil, fmt.Errorf("read the boot chain: %w", err)
		}
		copy(b.ID[:], id)
		chain = append(chain, b)
	}
	return chain, rows.Err()
}
