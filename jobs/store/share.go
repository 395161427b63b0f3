package store

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"workmanager/jobs"
)

// What one owner may have open: its share. Nobody's jobs, those of operators and
// of a node without tokens, have none.

// owned counts the open jobs of each owner, of both homes: what came from the
// peer counts as what came in here. It has an entry for an owner with open jobs
// and for no other, some 100 bytes; owners are the names of tokens.
type owned struct {
	mu   sync.Mutex       // guards open against readers; the writer alone changes it
	open map[string]int64 // as of the last commit

	moved map[string]int64 // by the open transaction; the writer's
	fresh map[string]int64 // gathered in it, not yet inserted; the writer's
	told  struct {         // what was refused last, so that a batch needs it once; the writer's
		owner string
		open  int64
		why   error
	}

	refused atomic.Int64 // jobs over a share, since the start
}

const (
	ownersSQL    = `SELECT owner, open FROM owners`
	saveOwnerSQL = `INSERT INTO owners (owner, open) VALUES (?1, ?2) ON CONFLICT (owner) DO UPDATE SET open = ?2`
	dropOwnerSQL = `DELETE FROM owners WHERE owner = ?`

	recountOwnersSQL = `SELECT owner, count(*) FROM jobs WHERE owner IS NOT NULL AND rank = 0 GROUP BY owner`
)

// load reads the counts that the last start left.
func (o *owned) load(ctx context.Context, conn *sql.Conn) error {
	o.moved, o.fresh = map[string]int64{}, map[string]int64{}
	rows, err := conn.QueryContext(ctx, ownersSQL)
	if err == nil {
		o.open, err = scanOwners(rows)
	}
	if err != nil {
		return fmt.Errorf("read the open jobs of owners: %w", err)
	}
	return nil
}

func scanOwners(rows *sql.Rows) (map[string]int64, error) {
	defer rows.Close()
	open := map[string]int64{}
	for rows.Next() {
		var owner string
		var n int64
		if err := rows.Scan(&owner, &n); err != nil {
			return nil, err
		}
		open[owner] = n
	}
	return open, rows.Err()
}

// count moves the counts from a row's old self to its new one.
func (o *owned) count(old, now *jobs.Job) {
	was, is := openOwner(old), openOwner(now)
	if was == is {
		return
	}
	if was != "" {
		o.moved[was]--
	}
	if is != "" {
		o.moved[is]++
	}
}

// openOwner returns whose a row is while it is open, else "". An empty job
// stands for a row that is not there, and is nobody's.
func openOwner(j *jobs.Job) string {
	if j.Rank != jobs.Open {
		return ""
	}
	return j.Owner
}

// now returns how many jobs an owner has open, with those of the open
// transaction. The writer asks.
func (o *owned) now(owner string) int64 {
	return o.open[owner] + o.moved[owner] + o.fresh[owner]
}

// save writes what the open transaction has changed.
func (o *owned) save(ctx context.Context, s *statements) error {
	for owner, by := range o.moved {
		if by == 0 {
			continue
		}
		var err error
		if n := o.open[owner] + by; n != 0 {
			_, err = s.saveOwner.ExecContext(ctx, owner, n)
		} else {
			_, err = s.dropOwner.ExecContext(ctx, owner)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// commit makes what a transaction has changed visible.
func (o *owned) commit() {
	if len(o.moved) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for owner, by := range o.moved {
		if n := o.open[owner] + by; n != 0 {
			o.open[owner] = n
		} else {
			delete(o.open, owner)
		}
	}
	clear(o.moved)
}

// OpenOf returns how many open jobs an owner has, of both homes, as of the last
// commit.
func (s *Store) OpenOf(owner string) int64 {
	s.owned.mu.Lock()
	defer s.owned.mu.Unlock()
	return max(s.owned.open[owner], 0)
}

// Shares returns how many owners have open jobs, how many the one has that has
// most, and how many jobs were refused since the start because their owner had
// as many as it may have.
func (s *Store) Shares() (owners int, most, refused int64) {
	s.owned.mu.Lock()
	defer s.owned.mu.Unlock()
	for _, n := range s.owned.open {
		most = max(most, n)
	}
	return len(s.owned.open), most, s.owned.refused.Load()
}

// overShare returns why a new job is over its owner's share, nil if it is not:
// it then counts there until it is inserted. One that is completed at once is
// not open.
func (w *writer) overShare(sub *Submission, share int64) error {
	owner, o := sub.Job.Owner, &w.s.owned
	if share <= 0 || owner == "" || sub.Known != nil || sub.Job.Iterations == 1 {
		return nil
	}
	n := o.now(owner)
	if n < share {
		o.fresh[owner]++
		return nil
	}
	if o.told.why == nil || o.told.owner != owner || o.told.open != n {
		o.told.owner, o.told.open = owner, n
		o.told.why = jobs.Errorf(jobs.CodeLimited, "client %q has %d open jobs, and %d is the limit of one client (--max-client-jobs): try again when some have ended, or cancel some",
			owner, n, share).Retry(retryFull)
	}
	return o.told.why
}

// settleOver settles the jobs of a batch, those at the places over, that were
// not taken because of their owner's share. One that is there already, under its
// Idempotency-Key, is answered as ever. Where others that were taken prove to be
// so, they have left room, and what is left is tried again. A job that cannot be
// looked for stays refused: others of its batch are committed.
func (s *Store) settleOver(ctx context.Context, batch []Submission, out []jobs.Outcome, over []int) {
	room := false
	for i, next := 0, over; i < len(out); i++ {
		if len(next) > 0 && next[0] == i {
			next = next[1:]
		} else if out[i].Existed || out[i].Err != nil {
			room = true
		}
	}
	var left []Submission
	at := over[:0]
	for _, i := range over {
		if sub := &batch[i].Job; sub.ID.Keyed() {
			if r, found, err := s.row(ctx, sub.ID); err == nil && found {
				out[i] = repeated(r, sub)
				continue
			}
		}
		at, left = append(at, i), append(left, batch[i])
	}
	if !room || len(left) == 0 {
		s.owned.refused.Add(int64(len(left)))
		return
	}
	again, err := s.Enqueue(ctx, left) // fewer than before
	for k, i := range at {
		if err != nil {
			out[i] = jobs.Outcome{Job: left[k].Job, Err: err}
		} else {
			out[i] = again[k]
		}
	}
}

// miscountedOwners returns what the counts of owners lack, as of one view of the rows.
func miscountedOwners(ctx context.Context, tx *sql.Tx) (map[string]int64, error) {
	var have [2]map[string]int64
	for i, query := range []string{recountOwnersSQL, ownersSQL} {
		rows, err := tx.QueryContext(ctx, query)
		if err != nil {
			return nil, err
		}
		if have[i], err = scanOwners(rows); err != nil {
			return nil, err
		}
	}
	lack, kept := have[0], have[1]
	for owner, n := range kept {
		lack[owner] -= n
	}
	maps.DeleteFunc(lack, func(_ string, n int64) bool { return n == 0 })
	return lack, nil
}
