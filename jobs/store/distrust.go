package store

import (
	"context"
	"database/sql"

	"workmanager/jobs"
)

// What a node does not trust, so that a restart forgets nothing of it: workers,
// of which the pair holds one row each, and values that are still to be
// recomputed.

// Doubt is a job whose value is to be recomputed: there are two of it or, where
// it is not disputed, the one there is came from a worker that was wrong elsewhere.
type Doubt struct {
	ID       jobs.ID
	Disputed bool
}

// Distrust is what one commit changes of that.
type Distrust struct {
	Quarantines []jobs.Quarantine // merged with those that are there
	Doubts      []Doubt
	Cleared     []jobs.ID // doubted no longer
}

// Empty reports whether there is nothing to change.
func (d Distrust) Empty() bool { return len(d.Quarantines)+len(d.Doubts)+len(d.Cleared) == 0 }

const (
	quarantinesSQL = `SELECT worker, inside, turn, barred, since, node, by, reason, id, done, said, right FROM quarantines ORDER BY worker, inside`

	saveQuarantineSQL = `
INSERT INTO quarantines (worker, inside, turn, barred, since, node, by, reason, id, done, said, right)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
ON CONFLICT (worker, inside) DO UPDATE SET turn = ?3, barred = ?4, since = ?5, node = ?6, by = ?7, reason = ?8, id = ?9, done = ?10, said = ?11, right = ?12`

	dropQuarantineSQL = `DELETE FROM quarantines WHERE worker = ?1 AND inside = ?2`

	// A dispute is never taken for less.
	saveDoubtSQL = `INSERT INTO doubts (id, disputed, at) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET disputed = max(disputed, ?2)`
	dropDoubtSQL = `DELETE FROM doubts WHERE id = ?1`
	doubtsSQL    = `SELECT id, disputed FROM doubts ORDER BY disputed DESC, at LIMIT ?1`
)

// Distrust commits the changes. Of more than jobs.MaxQuarantines rows those that
// jobs.BoundQuarantines names are dropped.
func (s *Store) Distrust(ctx context.Context, d Distrust) error {
	if d.Empty() {
		return nil
	}
	return s.write(ctx, len(d.Quarantines)+len(d.Doubts)+len(d.Cleared), func(w *writer) error {
		if err := w.quarantine(d.Quarantines); err != nil {
			return err
		}
		for _, id := range d.Cleared {
			if _, err := w.conn.ExecContext(context.Background(), dropDoubtSQL, id[:]); err != nil {
				return err
			}
		}
		for _, doubt := range d.Doubts {
			if err := w.doubt(doubt); err != nil {
				return err
			}
		}
		return nil
	})
}

// doubt notes a job whose value is to be recomputed.
func (w *writer) doubt(d Doubt) error {
	_, err := w.conn.ExecContext(context.Background(), saveDoubtSQL, d.ID[:], d.Disputed, micros(w.s.opt.Now()))
	return err
}

// quarantine merges rows with those that are there.
func (w *writer) quarantine(rows []jobs.Quarantine) error {
	if len(rows) == 0 {
		return nil
	}
	ctx := context.Background()
	was, err := readQuarantines(ctx, w.conn.QueryContext)
	if err != nil {
		return err
	}
	held := make(map[jobs.Subject]jobs.Quarantine, len(was)+len(rows))
	for _, q := range was {
		held[q.Subject] = q
	}
	changed := map[jobs.Subject]bool{}
	for _, q := range rows {
		if m := jobs.MergeQuarantines(held[q.Subject], q); m != held[q.Subject] {
			held[q.Subject], changed[q.Subject] = m, true
		}
	}
	all := make([]jobs.Quarantine, 0, len(held))
	for _, q := range held {
		all = append(all, q)
	}
	kept, dropped := jobs.BoundQuarantines(all)
	for _, s := range dropped {
		if _, err := w.conn.ExecContext(ctx, dropQuarantineSQL, s.Worker, s.Inside); err != nil {
			return err
		}
	}
	for _, q := range kept {
		if !changed[q.Subject] {
			continue
		}
		if _, err := w.conn.ExecContext(ctx, saveQuarantineSQL, q.Worker, q.Inside, int64(q.Turn), q.Barred, micros(q.Since), q.Node, q.By, q.Reason,
			blobIf(q.ID != jobs.ID{}, q.ID[:]), int64(q.Done), blobIf(q.Said != jobs.Print{}, q.Said[:]), blobIf(q.Right != jobs.Print{}, q.Right[:])); err != nil {
			return err
		}
	}
	return nil
}

// Quarantines returns all rows, of workers that were let in again too.
func (s *Store) Quarantines(ctx context.Context) ([]jobs.Quarantine, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	rows, err := readQuarantines(ctx, s.read.QueryContext)
	return rows, s.readError("read quarantines", err)
}

// Doubts returns the jobs whose values are to be recomputed, at most limit: those
// that are disputed, and then the others, each the longest doubted first.
func (s *Store) Doubts(ctx context.Context, limit int) ([]Doubt, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	rows, err := s.read.QueryContext(ctx, doubtsSQL, limit)
	if err != nil {
		return nil, s.readError("read doubts", err)
	}
	defer rows.Close()
	var out []Doubt
	for rows.Next() {
		var d Doubt
		var id []byte
		if err := rows.Scan(&id, &d.Disputed); err != nil {
			return nil, s.readError("read doubts", err)
		}
		copy(d.ID[:], id)
		out = append(out, d)
	}
	return out, s.readError("read doubts", rows.Err())
}

func readQuarantines(ctx context.Context, query func(context.Context, string, ...any) (*sql.Rows, error)) ([]jobs.Quarantine, error) {
	rows, err := query(ctx, quarantinesSQL)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []jobs.Quarantine
	for rows.Next() {
		var q jobs.Quarantine
		var turn, since, done int64
		var id, said, right []byte
		if err := rows.Scan(&q.Worker, &q.Inside, &turn, &q.Barred, &since, &q.Node, &q.By, &q.Reason, &id, &done, &said, &right); err != nil {
			return nil, err
		}
		q.Turn, q.Since, q.Done = uint64(turn), instant(since), uint64(done)
		copy(q.ID[:], id)
		copy(q.Said[:], said)
		copy(q.Right[:], right)
		out = append(out, q)
	}
	return out, rows.Err()
}
