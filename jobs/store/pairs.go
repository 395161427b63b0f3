package store

import (
	"context"
	"database/sql"

	"workmanager/jobs"
)

// A results cursor names a place in the results of the node that gave it out.
// For the other node it carries a second place, from the newest pair that the
// first had: all that the other numbers up to there was among what the first
// had given out. A place in the feed would not do, since rows move in it.

const (
	// maxPairs bounds the pairs kept; newestPairs of them are never thinned.
	maxPairs    = 4096
	newestPairs = 256
)

const (
	lastPairSQL = `SELECT own_rseq, boot, rcov FROM rcovs ORDER BY own_rseq DESC LIMIT 1`
	savePairSQL = `INSERT INTO rcovs (own_rseq, boot, rcov) VALUES (?1, ?2, ?3) ON CONFLICT (own_rseq) DO UPDATE SET boot = ?2, rcov = ?3`
)

// pair notes that every result which the peer numbers up to rcov under boot is
// among the results that this node has numbered so far.
func (w *writer) pair(boot jobs.ID, rcov jobs.RSeq) error {
	ctx := context.Background()
	var own, was int64
	var lastBoot []byte
	switch err := w.stmts.lastPair.QueryRowContext(ctx).Scan(&own, &lastBoot, &was); {
	case err == sql.ErrNoRows:
	case err != nil:
		return err
	case string(lastBoot) == string(boot[:]) && was >= int64(rcov):
		return nil
	}
	if _, err := w.stmts.savePair.ExecContext(ctx, int64(w.rseq), boot[:], int64(rcov)); err != nil {
		return err
	}
	if w.pairs++; w.pairs%newestPairs != 0 {
		return nil
	}
	n, err := w.int(ctx, "SELECT count(*) FROM rcovs")
	if err != nil || n <= maxPairs {
		return err
	}
	// Every second one goes but for the newest, so they get ever thinner.
	_, err = w.conn.ExecContext(ctx, `
DELETE FROM rcovs WHERE own_rseq IN (
  SELECT own_rseq FROM (SELECT own_rseq, row_number() OVER (ORDER BY own_rseq DESC) AS age FROM rcovs) WHERE age > ?1 AND age % 2 = 0)`, newestPairs)
	return err
}

const pairAtSQL = `SELECT boot, rcov FROM rcovs WHERE own_rseq <= ? ORDER BY own_rseq DESC LIMIT 1`

// pairAt returns the newest pair at or below a place in the results here, zero
// values if there is none.
func pairAt(ctx context.Context, tx *sql.Tx, at jobs.RSeq) (jobs.ID, jobs.RSeq, error) {
	var boot []byte
	var id jobs.ID
	var rcov jobs.RSeq
	err := tx.QueryRowContext(ctx, pairAtSQL, int64(at)).Scan(&boot, &rcov)
	if err == sql.ErrNoRows {
		return jobs.ID{}, 0, nil
	}
	copy(id[:], boot)
	return id, rcov, err
}
