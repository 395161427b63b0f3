package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"workmanager/jobs"
)

// idleCursor is how often a cursor is committed that moved without rows. All
// that it passed came from here, so losing the move costs a second look.
const idleCursor = time.Second

// receiveSQL returns the INSERT of rows that came from the peer.
func receiveSQL(rows int) string {
	return `INSERT OR ROLLBACK INTO jobs (id, v1, iterations, priority, origin, created_at, gc_after, rank, result, err, verified, done_at,
  pulled, purged, ck_done, ck_value, attempts, lost, own_epoch, home, lseq, rseq, via, rhash, ext, kept, owner, restarts) VALUES ` +
		repeat(rows, "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)") + onKnownID
}

// receivePlainSQL is receiveSQL for rows to which nothing has happened yet: most
// of a refill, and of what a peer in step sends. It costs a third less.
func receivePlainSQL(rows int) string {
	return `INSERT OR ROLLBACK INTO jobs (id, v1, iterations, priority, origin, created_at, home, lseq, via, rhash, owner) VALUES ` +
		repeat(rows, "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)") + onKnownID
}

// Reading returns what this node knows of its peer and of the peer's feed.
func (s *Store) Reading() jobs.Reading { return *s.reading.Load() }

// SetPeer notes the peer's name and, where they are not empty, its addresses.
// The cursor stays.
func (s *Store) SetPeer(ctx context.Context, node, api, gossip string) error {
	return s.write(ctx, 1, func(w *writer) error {
		r := w.reading
		if r.Peer != node {
			r = jobs.Reading{Peer: node, Amnesia: true}
			if _, err := w.conn.ExecContext(context.Background(), "DELETE FROM peers"); err != nil { // one is known, or the next start reads the other
				return err
			}
		}
		if api != "" {
			r.API = api
		}
		if gossip != "" {
			r.Gossip = gossip
		}
		if r == w.reading {
			return nil
		}
		return w.saveReading(r)
	})
}

const saveReadingSQL = `
INSERT INTO peers (node, boot, at, seen_head, back_at, back_to, amnesia, api, gossip) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
ON CONFLICT (node) DO UPDATE SET boot = ?2, at = ?3, seen_head = ?4, back_at = ?5, back_to = ?6, amnesia = ?7, api = ?8, gossip = ?9`

func (w *writer) saveReading(r jobs.Reading) error {
	c := r.Cursor
	_, err := w.stmts.saveReading.ExecContext(context.Background(), r.Peer, blobIf(c.Boot != jobs.ID{}, c.Boot[:]), int64(c.At),
		int64(c.SeenHead), int64(c.BackAt), int64(c.BackTo), r.Amnesia, r.API, r.Gossip)
	w.reading, w.readingSaved = r, w.s.opt.Now()
	return err
}

// loadReading reads the peer that the last start left.
func (w *writer) loadReading(ctx context.Context) error {
	r := &w.reading
	var boot []byte
	err := w.conn.QueryRowContext(ctx, "SELECT node, boot, at, seen_head, back_at, back_to, amnesia, api, gossip FROM peers").Scan(
		&r.Peer, &boot, &r.Cursor.At, &r.Cursor.SeenHead, &r.Cursor.BackAt, &r.Cursor.BackTo, &r.Amnesia, &r.API, &r.Gossip)
	if err == sql.ErrNoRows {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the peer: %w", err)
	}
	copy(r.Cursor.Boot[:], boot)
	return nil
}

// Receive commits a chunk of the peer's feed: the floor, the rows and the
// cursor in one transaction. It returns the rows that changed here. A chunk of
// another peer than the known one changes nothing.
func (s *Store) Receive(ctx context.Context, c jobs.Chunk) ([]jobs.Changed, error) {
	if d := s.disk.look(); d.Full != nil && d.Short && len(c.Rows) > 0 { // a limit on size binds clients: the peer has no other place to put its rows
		return nil, d.Full
	}
	var changed []jobs.Changed
	err := s.write(ctx, len(c.Rows)+1, func(w *writer) error {
		changed = nil
		if c.Peer != w.reading.Peer {
			return fmt.Errorf("a chunk of node %q, the peer is %q", c.Peer, w.reading.Peer)
		}
		if err := w.raise(c.Floor); err != nil {
			return err
		}
		from := len(w.changed)
		if err := w.receive(c.Rows, c.Boot); err != nil {
			return err
		}
		changed = append(changed, w.changed[from:]...)
		return w.advance(c)
	})
	if err != nil {
		return nil, err
	}
	for i := range c.Rows {
		if c.Rows[i].Job.Purged { // or it came by gossip before, and now its sender is told that it is erased
			s.tryScrub()
			break
		}
	}
	return changed, nil
}

// advance moves the cursor over the peer's feed, and notes how far its results
// are here.
func (w *writer) advance(c jobs.Chunk) error {
	r, moved := w.reading.Take(c)
	if !moved {
		return nil
	}
	if len(c.Rows) == 0 && r.Amnesia == w.reading.Amnesia && w.s.opt.Now().Sub(w.readingSaved).Abs() < idleCursor {
		w.reading = r
		return nil
	}
	if err := w.saveReading(r); err != nil || !c.HasRCov {
		return err
	}
	return w.pair(c.Boot, c.RCov)
}

// receive joins rows from the peer's boot with those that are here. Those that
// are not go in by eights.
func (w *writer) receive(rows []jobs.Row, boot jobs.ID) error {
	floor, _ := w.s.Floor()
	fresh := make([]row, 0, insertRows)
	for i := range rows {
		in := &rows[i]
		if slices.ContainsFunc(fresh, func(r row) bool { return r.job.ID == in.Job.ID }) { // no peer of this release sends a job twice
			if err := w.insertReceived(fresh, rows[:i], boot, floor); err != nil {
				return err
			}
			fresh = fresh[:0]
		}
		old, known := w.cache[in.Job.ID]
		if known {
			if err := w.join(old, *in, boot, floor); err != nil {
				return err
			}
			continue
		}
		a := jobs.Receive(nil, *in, floor)
		if a.Ignored {
			// It may be here all the same, ended and not yet dropped, or open.
			old, found, err := w.get(in.Job.ID)
			if err != nil {
				return err
			}
			if found {
				err = w.join(old, *in, boot, floor)
			}
			if err != nil {
				return err
			}
			continue
		}
		r := row{job: a.Row.Job, ext: a.Row.Ext}
		if a.Echo {
			r.via = boot
		}
		fresh = append(fresh, r)
		if len(fresh) == insertRows || i == len(rows)-1 {
			if err := w.insertReceived(fresh, rows[:i+1], boot, floor); err != nil {
				return err
			}
			fresh = fresh[:0]
		}
	}
	return w.insertReceived(fresh, rows, boot, floor)
}

// insertReceived inserts rows that are probably not here, and joins those that
// are. came holds them as they came, among others.
func (w *writer) insertReceived(fresh []row, came []jobs.Row, boot jobs.ID, floor time.Time) error {
	for len(fresh) > 0 {
		n := 1
		if len(fresh) >= insertRows {
			n = insertRows
		}
		some := fresh[:n]
		fresh = fresh[n:]
		plain := !slices.ContainsFunc(some, func(r row) bool { return !r.plain() })
		stmt := w.stmts.receive
		switch {
		case plain && n > 1:
			stmt = w.stmts.receivePlain8
		case plain:
			stmt = w.stmts.receivePlain
		case n > 1:
			stmt = w.stmts.receive8
		}
		first, firstR := w.lseq, w.rseq
		var space [insertRows * 28]any
		args := space[:0]
		for i := range some {
			r := &some[i]
			j := &r.job
			w.lseq++
			r.lseq = w.lseq
			if j.Rank == jobs.Completed {
				w.rseq++
				r.rseq = w.rseq
			}
			if plain {
				args = append(args, j.ID[:], j.V1[:], int64(j.Iterations), int64(j.Priority), j.Origin, micros(j.CreatedAt), j.Home,
					int64(r.lseq), blobIf(r.via != jobs.ID{}, r.via[:]), j.Hash(), textIf(j.Owner != "", j.Owner))
				continue
			}
			args = receiveArgs(args, r)
		}
		res, err := stmt.ExecContext(context.Background(), args...)
		if err != nil {
			return err
		}
		inserted, err := res.RowsAffected()
		if err != nil {
			return err
		}
		last, err := res.LastInsertId()
		if err != nil {
			return err
		}
		if int(inserted) == len(some) { // one statement's rows take consecutive numbers
			for i, r := range some {
				r.n = last - int64(len(some)-1-i)
				w.inserted(r)
			}
			continue
		}
		w.lseq, w.rseq = first, firstR // of the numbers taken, those behind the last new row are given back
		var known []row
		for _, r := range some {
			there, err := scanRow(w.stmts.get.QueryRowContext(context.Background(), r.job.ID[:]))
			if err != nil {
				return err
			}
			if there.lseq != r.lseq {
				known = append(known, there)
				continue
			}
			r.n = there.n
			w.lseq, w.rseq = r.lseq, max(w.rseq, r.rseq)
			w.inserted(r)
		}
		for _, there := range known {
			for k := len(came) - 1; k >= 0; k-- {
				if came[k].Job.ID == there.job.ID {
					if err := w.join(there, came[k], boot, floor); err != nil {
						return err
					}
					break
				}
			}
		}
	}
	return nil
}

// receiveArgs appends the arguments of receiveSQL for one row.
func receiveArgs(args []any, r *row) []any {
	j := &r.job
	return append(args, j.ID[:], blobIf(!j.Purged, j.V1[:]), int64(j.Iterations), int64(j.Priority), j.Origin, micros(j.CreatedAt),
		micros(j.GCAfter), int64(j.Rank), blobIf(j.Rank == jobs.Completed && !j.Purged, j.Result[:]), textIf(j.Rank == jobs.Failed, j.Err),
		j.Verified, intIf(j.Rank != jobs.Open, micros(j.DoneAt)), j.Pulled, j.Purged, int64(j.Checkpoint.Done),
		blobIf(j.Checkpoint.Done > 0, j.Checkpoint.Value[:]), int64(j.Attempts), int64(j.Lost), int64(j.OwnEpoch), j.Home,
		int64(r.lseq), intIf(r.rseq > 0, int64(r.rseq)), blobIf(r.via != jobs.ID{}, r.via[:]), j.Hash(), blobIf(len(r.ext) > 0, r.ext), keptOf(j),
		textIf(j.Owner != "", j.Owner), int64(j.Restarts))
}

// join merges a row from the peer into the one that is here.
func (w *writer) join(old row, in jobs.Row, boot jobs.ID, floor time.Time) error {
	here := old.wire()
	a := jobs.Receive(&here, in, floor)
	return w.arrive(old, in, a, boot, false)
}

func (w *writer) arrive(old row, in jobs.Row, a jobs.Arrival, boot jobs.ID, copied bool) error {
	if jobs.Conflict(old.job, in.Job) {
		if err := w.conflict(old.job, in.Job, a.Row.Job); err != nil {
			return err
		}
	}
	if jobs.Disagree(old.job, in.Job) || jobs.Diverge(old.job, in.Job) {
		w.s.disagreements.Add(1)
		w.s.opt.Log.Error("two different values for one job: one worker of the pair is broken", "job", in.Job.ID, "ended", in.Job.Ended())
		if w.s.opt.OnDisagree != nil {
			w.s.opt.OnDisagree(old.job, in.Job, a.Row.Job)
		}
		if a.Row.Job.Ended() { // with the row, or a crash would leave one value and nobody who doubts it
			if err := w.doubt(Doubt{ID: in.Job.ID, Disputed: true}); err != nil {
				return err
			}
		}
	}
	if !a.Changed {
		return nil
	}
	r := row{job: a.Row.Job, n: old.n, ext: a.Row.Ext}
	if a.Echo {
		r.via = boot
	}
	return w.put(old, &r, copied)
}

// conflict keeps what the merge of two different works did not.
func (w *writer) conflict(a, b, kept jobs.Job) error {
	loser := a
	if a.V1 == kept.V1 && a.Iterations == kept.Iterations {
		loser = b
	}
	text, err := json.Marshal(loser)
	if err != nil {
		return fmt.Errorf("keep the row that lost a conflict: %w", err)
	}
	res, err := w.conn.ExecContext(context.Background(), "INSERT INTO conflicts (id, v1, iterations, seen_at, row) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
		loser.ID[:], loser.V1[:], int64(loser.Iterations), micros(w.s.opt.Now()), string(text))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err == nil && n > 0 {
		w.s.conflicts.Add(1)
		w.s.opt.Log.Warn("one Idempotency-Key came with different work at the two nodes: the smaller is kept", "job", loser.ID)
	}
	return nil
}

// ReceiveCopies joins rows that came by gossip. They move no cursor, and those
// that may have been dropped since they were sent are ignored; so is all that
// does not come from the boot whose feed is being read. It returns the rows
// that changed here and how many were ignored.
func (s *Store) ReceiveCopies(ctx context.Context, boot jobs.ID, rows []jobs.Row) (changed []jobs.Changed, ignored int, err error) {
	if s.disk.look().Full != nil {
		return nil, len(rows), nil
	}
	err = s.write(ctx, len(rows), func(w *writer) error {
		changed, ignored = nil, 0
		if boot != w.reading.Cursor.Boot {
			ignored = len(rows)
			return nil
		}
		floor, promise := w.s.Floor()
		from := len(w.changed)
		for _, in := range rows {
			old, found, err := w.get(in.Job.ID)
			if err != nil {
				return err
			}
			var here *jobs.Row
			if found {
				r := old.wire()
				here = &r
			}
			a := jobs.ReceiveCopy(here, in, floor, promise)
			switch {
			case a.Ignored:
				ignored++
			case found:
				err = w.arrive(old, in, a, boot, true)
			default:
				r := row{job: a.Row.Job, ext: a.Row.Ext}
				if a.Echo {
					r.via = boot
				}
				if err = w.insertReceived([]row{r}, rows, boot, floor); err == nil {
					w.changed[len(w.changed)-1].Copy = true
				}
			}
			if err != nil {
				return err
			}
		}
		changed = append(changed, w.changed[from:]...)
		return nil
	})
	return changed, ignored, err
}

// Conflicts returns how many keys came with different work at the two nodes,
// and Disagreements how many jobs with two values, since the start.
func (s *Store) Conflicts() int64 { return s.conflicts.Load() }

// Disagreements returns how many rows came with another value than the one
// here, at their end or at the same checkpoint.
func (s *Store) Disagreements() int64 { return s.disagreements.Load() }
