package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"slices"

	"workmanager/jobs"
)

// consumeSlice bounds the results that one transaction hands out.
const consumeSlice = 1000

const newestSQL = `
SELECT id, result, iterations, done_at FROM jobs
WHERE rank = 3 AND pulled = 0 AND purged = 0 AND home = ? ORDER BY done_at DESC, id DESC LIMIT ?`

// Newest returns up to top results of every home, the newest first, without
// those that were consumed or purged. With an owner it returns those of its jobs.
func (s *Store) Newest(ctx context.Context, owner string, top int) ([]jobs.Result, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	out := []jobs.Result{}
	for _, home := range *s.homes.Load() { // one or two: each is read along its index
		query, args := byOwner(owner, newestSQL, ownedNewestSQL, home, top)
		rows, err := s.query(ctx, query, args...)
		if err != nil {
			return nil, s.readError("read newest results", err)
		}
		newest, err := scanResults(s, rows)
		if err != nil {
			return nil, err
		}
		out = append(out, newest...)
	}
	if len(*s.homes.Load()) > 1 {
		slices.SortFunc(out, func(a, b jobs.Result) int {
			return cmp.Or(b.DoneAt.Compare(a.DoneAt), bytes.Compare(b.ID[:], a.ID[:]))
		})
	}
	return out[:min(len(out), top)], nil
}

func scanResults(s *Store, rows *sql.Rows) ([]jobs.Result, error) {
	defer rows.Close()
	out := []jobs.Result{}
	var id, value sql.RawBytes
	var done int64
	for rows.Next() {
		var r jobs.Result
		if err := rows.Scan(&id, &value, &r.Iterations, &done); err != nil {
			return nil, s.readError("read results", err)
		}
		copy(r.ID[:], id)
		copy(r.Value[:], value)
		r.DoneAt = instant(done)
		out = append(out, r)
	}
	return out, s.readError("read results", rows.Err())
}

const oldestSQL = `
SELECT id, result, iterations, done_at FROM jobs
WHERE rank = 3 AND pulled = 0 AND purged = 0 AND home = ? ORDER BY done_at, id LIMIT ?`

// Consume hands out up to top results of this home, the oldest first, each
// once, and where they are not enough those of the other homes given, which are
// taken over. A key that is not empty gets the same results again, but for
// those that were purged or dropped since; two calls with one key at one time
// get the same, too. With an owner only results of its jobs are handed out, and
// a key is the owner's.
func (s *Store) Consume(ctx context.Context, owner string, top int, key string, others ...string) ([]jobs.Result, error) {
	homes := append([]string{s.opt.Node}, others...)
	out := []jobs.Result{}
	hash := pullHash(owner, key)
	for whole := false; !whole; {
		var got []jobs.Result
		left := top - len(out)
		err := s.write(ctx, max(min(left, consumeSlice), 1), func(w *writer) (err error) {
			got, whole, err = w.consume(owner, left, hash, homes)
			return err
		})
		if err != nil {
			if len(out) > 0 { // these are marked: who asked must have them
				return out, nil
			}
			return nil, err
		}
		if hash == nil { // else all of it is read in the end, with what was handed out before
			out = append(out, got...)
		}
	}
	if hash != nil {
		return s.pulled(ctx, hash)
	}
	return out, nil
}

// pull marks a row as handed out by this node.
func (w *writer) pull(j jobs.Job) (jobs.Job, bool) {
	j, changed := j.Pull()
	if changed {
		j, _ = j.Rehome(w.s.opt.Node)
	}
	return j, changed
}

// pullHash is how a key of a consuming pull is kept, nil for none.
func pullHash(owner, key string) []byte {
	if key == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(key))
	if owner != "" {
		sum = sha256.Sum256(append(append([]byte{byte(len(owner))}, owner...), sum[:]...)) // no key as it stands: those are visible ASCII
	}
	return sum[:16]
}

// PullKnown reports whether a consuming pull with this key has come before.
func (s *Store) PullKnown(ctx context.Context, owner, key string) (bool, error) {
	if err := s.Err(); err != nil {
		return false, err
	}
	var n int
	err := s.read.QueryRowContext(ctx, "SELECT count(*) FROM pulls WHERE key = ?", pullHash(owner, key)).Scan(&n)
	return n > 0, s.readError("look for a pull", err)
}

const (
	pullSQL = `SELECT whole, length(ids) / 16 FROM pulls WHERE key = ?`
	noteSQL = `
INSERT INTO pulls (key, at, whole, ids) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (key) DO UPDATE SET whole = ?3, ids = CAST(ids || ?4 AS BLOB)`
)

// consume marks a slice of results as pulled, at most left of them, and
// reports whether that was the last. What was handed out under hash before
// counts, whoever asked for it.
func (w *writer) consume(owner string, left int, hash []byte, homes []string) (got []jobs.Result, whole bool, err error) {
	ctx := context.Background()
	if hash != nil {
		var before int
		switch err := w.conn.QueryRowContext(ctx, pullSQL, hash).Scan(&whole, &before); {
		case err != nil && err != sql.ErrNoRows:
			return nil, false, err
		case whole:
			return nil, true, nil
		}
		left -= before
	}
	want := min(left, consumeSlice)
	for _, home := range homes {
		if len(got) >= want {
			break
		}
		query, args := byOwner(owner, oldestSQL, ownedOldestSQL, home, want-len(got))
		rows, err := w.conn.QueryContext(ctx, query, args...)
		if err != nil {
			return nil, false, err
		}
		more, err := scanResults(w.s, rows)
		if err != nil {
			return nil, false, err
		}
		got = append(got, more...)
	}
	ids := make([]byte, 0, 16*len(got))
	for _, r := range got {
		if _, _, _, err := w.change(r.ID, w.pull); err != nil {
			return nil, false, err
		}
		ids = append(ids, r.ID[:]...)
	}
	whole = len(got) < want || want == left
	if hash != nil {
		if _, err := w.conn.ExecContext(ctx, noteSQL, hash, micros(w.s.opt.Now()), whole, ids); err != nil {
			return nil, false, err
		}
	}
	return got, whole, nil
}

// pulled returns what keyed consumes have handed out.
func (s *Store) pulled(ctx context.Context, hash []byte) ([]jobs.Result, error) {
	var ids []byte
	err := s.read.QueryRowContext(ctx, "SELECT ids FROM pulls WHERE key = ?", hash).Scan(&ids)
	if err != nil && err != sql.ErrNoRows { // none: retention took it in between
		return nil, s.readError("read a pull", err)
	}
	out := []jobs.Result{}
	for ; len(ids) >= 16; ids = ids[16:] {
		r, err := scanRow(s.get.QueryRowContext(ctx, ids[:16]))
		if err == sql.ErrNoRows || err == nil && r.job.Purged {
			continue
		}
		if err != nil {
			return nil, s.readError("read a pull", err)
		}
		out = append(out, result(r.job))
	}
	return out, nil
}

func result(j jobs.Job) jobs.Result {
	return jobs.Result{ID: j.ID, Value: j.Result, Iterations: j.Iterations, DoneAt: j.DoneAt}
}

// query runs a read on the pool.
func (s *Store) query(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	return s.read.QueryContext(ctx, q, args...) //nolint:sqlclosecheck // the callers close it
}

// readError explains an error of a read, and stops the store if the file is bad.
func (s *Store) readError(doing string, err error) error {
	if err == nil || err == sql.ErrNoRows {
		return err
	}
	if fatal(err) {
		s.fail(explain(doing, err))
	}
	return explain(doing, err)
}
