package store

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"

	"workmanager/jobs"
)

// sizing keeps the open jobs of both homes by what is left of them, and what
// ever came in, for whoever has to know how much work there is. It is kept only
// once Size was called.
type sizing struct {
	on atomic.Bool // moves are kept; set with Store.mu held

	reading sync.Mutex // one reading at a time

	mu      sync.Mutex  // guards the rest; never held over I/O
	open    *jobs.Sizes // nil: not known so far
	next    *jobs.Sizes // what has changed since a reading began, nil if none is under way
	arrived jobs.Work
}

// move is what one change of a row does to the sizes.
type move struct {
	from, to uint64 // iterations left; 0 where the row was not, or is not, open
	fresh    bool   // the row is new
}

// moved notes what a change of the open transaction does to the sizes.
func (w *writer) moved(old, now *jobs.Job) {
	if !w.s.sizing.on.Load() {
		return
	}
	m := move{from: old.Remaining(), to: now.Remaining(), fresh: old.Home == ""}
	if old.Home == "" {
		m.from = 0
	}
	if now.Home == "" {
		m.to = 0
	}
	if m.from != m.to {
		w.moves = append(w.moves, m)
	}
}

// commit enters what a transaction has changed.
func (z *sizing) commit(moves []move) {
	if len(moves) == 0 {
		return
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, m := range moves {
		for _, s := range []*jobs.Sizes{z.open, z.next} {
			if s == nil {
				continue
			}
			if m.from > 0 {
				s.Sub(m.from)
			}
			if m.to > 0 {
				s.Add(m.to)
			}
		}
		if m.fresh {
			z.arrived = z.arrived.Add(m.to)
		}
	}
}

const sizesSQL = "SELECT iterations - max(ck_done, 1) FROM jobs WHERE rank = 0"

// Size reads what is left of every open job, of both homes, and keeps it from
// then on with each commit: Sizes then costs the same however many there are.
// Nothing waits for it but its caller.
func (s *Store) Size(ctx context.Context) error {
	z := &s.sizing
	z.reading.Lock()
	defer z.reading.Unlock()
	fail := func(err error) error {
		z.mu.Lock()
		z.next = nil
		z.mu.Unlock()
		return s.readError("read the sizes of open jobs", err)
	}
	conn, err := s.read.Conn(ctx) // before commits have to wait
	if err != nil {
		return fail(err)
	}
	defer conn.Close() //nolint:errcheck // back to the pool
	tx, err := s.snapshot(ctx, conn)
	if err != nil {
		return fail(err)
	}
	defer tx.Rollback() //nolint:errcheck // it only reads
	rows, err := tx.QueryContext(ctx, sizesSQL)
	if err != nil {
		return fail(err)
	}
	defer rows.Close()
	var read jobs.Sizes
	for rows.Next() {
		var left uint64
		if err := rows.Scan(&left); err != nil {
			return fail(err)
		}
		if left > 0 {
			read.Add(left)
		}
	}
	if err := rows.Err(); err != nil {
		return fail(err)
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.next.Plus(&read)
	z.open, z.next = z.next, nil
	return nil
}

// snapshot begins a reading that sees all that was committed, and notes from
// then on what is committed besides.
func (s *Store) snapshot(ctx context.Context, conn *sql.Conn) (*sql.Tx, error) {
	s.mu.Lock() // no commit meanwhile
	defer s.mu.Unlock()
	tx, err := conn.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	var one int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM meta").Scan(&one); err != nil { // the view begins here
		_ = tx.Rollback() // it only reads
		return nil, err
	}
	s.sizing.mu.Lock()
	defer s.sizing.mu.Unlock()
	s.sizing.next = &jobs.Sizes{}
	s.sizing.on.Store(true)
	return tx, nil
}

// Sizes returns the open jobs of both homes by the iterations that are left of
// them, as far as that is durable, and the iterations of all that came in since
// the first Size, of which only the growth counts. known is false before Size
// has come to its end.
func (s *Store) Sizes() (open *jobs.Sizes, arrived jobs.Work, known bool) {
	z := &s.sizing
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.open == nil {
		return nil, jobs.Work{}, false
	}
	clone := *z.open
	return &clone, z.arrived, true
}
