package store

import (
	"context"
	"strings"

	"workmanager/jobs"
)

// Submission is a job to enqueue. Known, if not nil, is its value, found by
// whoever remembers results: the job is then born completed.
type Submission struct {
	Job   jobs.Job
	Known *jobs.Value
}

// insertRows is how many rows one INSERT carries: 8 cost a fifth less than
// eight of one, and more gain nothing.
const insertRows = 8

// insertOpenSQL and insertDoneSQL return the INSERT of a number of new rows of
// a node, open or completed. Three things make them fast: the parameters have
// no names, which the driver would look up one by one; the node's name, which
// is a constant of the store, is none of them; and OR ROLLBACK spares a copy of
// each page, since any error but a known ID ends the transaction anyway.
func insertOpenSQL(node string, rows int) string {
	return `INSERT OR ROLLBACK INTO jobs (origin, home, id, v1, iterations, priority, created_at, owner, lseq, rhash) VALUES ` +
		repeat(rows, "("+quote(node)+", "+quote(node)+", ?, ?, ?, ?, ?, ?, ?, ?)") + onKnownID
}

func insertDoneSQL(node string, rows int) string {
	return `INSERT OR ROLLBACK INTO jobs (rank, origin, home, id, v1, iterations, priority, created_at, owner, lseq, rhash, result, rseq, done_at, gc_after) VALUES ` +
		repeat(rows, "(3, "+quote(node)+", "+quote(node)+", ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)") + onKnownID
}

// onKnownID leaves alone an ID that is there already: it came from an
// Idempotency-Key.
const onKnownID = " ON CONFLICT (id) DO NOTHING"

func repeat(rows int, row string) string { return row + strings.Repeat(", "+row, rows-1) }

// quote returns s as a literal of SQL.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// Enqueue commits the jobs and returns one outcome each, in their order. A job
// whose ID is there already is answered as it stands, if it is the same work,
// and refused with CodeConflict if it is not; one over its owner's share of open
// jobs with CodeLimited, and those before it are taken. The error is for the
// whole batch: the node has too many open jobs, no room, or no disk.
func (s *Store) Enqueue(ctx context.Context, batch []Submission) ([]jobs.Outcome, error) {
	if full := s.disk.look().Full; full != nil {
		return s.repeats(ctx, batch, full)
	}
	out := make([]jobs.Outcome, len(batch))
	var refused error
	var over []int // places of the jobs that are over their owner's share
	share := s.opt.Limits.ClientShare()
	err := s.do(ctx, &op{rows: len(batch), enqueues: true, apply: func(w *writer) error {
		refused, over = nil, over[:0]
		if open := s.opt.Limits.OpenJobs; w.open()+int64(len(batch)) > open {
			refused = jobs.Errorf(jobs.CodeBusy, "%d jobs are open and %d more are over the limit of %d: try again when some have ended, or raise --max-open-jobs",
				w.open(), len(batch), open).Retry(retryFull)
			return nil
		}
		for i := range batch {
			if why := w.overShare(&batch[i], share); why != nil {
				out[i], over = jobs.Outcome{Job: batch[i].Job, Err: why}, append(over, i)
				continue
			}
			w.fresh = append(w.fresh, fresh{sub: &batch[i], out: &out[i]})
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	if refused != nil {
		return s.repeats(ctx, batch, refused)
	}
	if len(over) > 0 {
		s.settleOver(ctx, batch, out, over)
	}
	return out, nil
}

// repeats answers a batch for which there is no room: a job that is there
// already, under its Idempotency-Key, is answered as ever, since that writes
// nothing; the others have why they are refused as their error. If all are
// refused it is the error of the batch.
func (s *Store) repeats(ctx context.Context, batch []Submission, refused error) ([]jobs.Outcome, error) {
	out := make([]jobs.Outcome, len(batch))
	known := false
	for i := range batch {
		sub := &batch[i].Job
		out[i] = jobs.Outcome{Job: *sub, Err: refused}
		if !sub.ID.Keyed() {
			continue
		}
		r, found, err := s.row(ctx, sub.ID)
		if err != nil {
			return nil, err
		}
		if found {
			out[i], known = repeated(r, sub), true
		}
	}
	if !known {
		return nil, refused
	}
	return out, nil
}

// repeated is what becomes of a job whose ID is there already.
func repeated(r row, sub *jobs.Job) jobs.Outcome {
	there := r.job
	if there.Owner != sub.Owner { // keys carry their owner, so this is no word on what another has submitted
		return jobs.Outcome{Job: *sub, Err: jobs.Errorf(jobs.CodeConflict, "job %s cannot be made: its ID is taken; use a new Idempotency-Key", sub.ID)}
	}
	if there.Iterations != sub.Iterations || !there.Purged && there.V1 != sub.V1 {
		return jobs.Outcome{Job: there, LSeq: r.lseq, Err: jobs.Errorf(jobs.CodeConflict,
			"this Idempotency-Key came before, for job %s, with other data or iterations; use a new key for new work", there.ID)}
	}
	return jobs.Outcome{Job: there, Existed: true, LSeq: r.lseq}
}

// fresh is a job to insert and where its outcome goes.
type fresh struct {
	sub *Submission
	out *jobs.Outcome
}

// open returns how many jobs are open, those of the open transaction included.
func (w *writer) open() int64 {
	n := int64(len(w.fresh))
	for _, c := range w.counts {
		n += c.Open
	}
	return n
}

// insertFresh inserts the jobs gathered from the ops so far: those of many
// requests share a statement, as those of one batch do.
func (w *writer) insertFresh() error {
	todo := w.fresh
	defer func() {
		clear(w.fresh)
		w.fresh = w.fresh[:0]
		clear(w.s.owned.fresh)
	}()
	for len(todo) > 0 {
		n := min(len(todo), insertRows)
		if n < insertRows {
			n = 1
		}
		kind := kindOf(todo[0].sub)
		for i := 1; i < n; i++ {
			if kindOf(todo[i].sub) != kind { // an INSERT carries rows of one kind
				n = 1
			}
		}
		if kind == birthOther {
			n = 1
		}
		if err := w.insert(todo[:n], kind); err != nil {
			return err
		}
		todo = todo[n:]
	}
	return nil
}

// birth is how a new job begins.
type birth uint8

const (
	birthOpen  birth = iota
	birthDone        // its value is known
	birthOther       // it keeps checkpoints or is resumed: few are so, and go in one by one
)

func kindOf(s *Submission) birth {
	switch j := &s.Job; {
	case j.Keep > 0 || j.ResumedFrom > 0:
		return birthOther
	case s.Known != nil || j.Iterations == 1:
		return birthDone
	}
	return birthOpen
}

// insert inserts 1 or insertRows jobs of one kind by one statement, of birthOther
// one.
func (w *writer) insert(batch []fresh, kind birth) error {
	done := kind == birthDone
	var space [28 + insertRows*12]any
	args := space[:0]
	first, firstR := w.lseq, w.rseq
	for i := range batch {
		j := batch[i].sub.Job.Born(w.s.opt.Node, w.stamp(), batch[i].sub.Known)
		w.lseq++
		args = append(args, j.ID[:], j.V1[:], int64(j.Iterations), int64(j.Priority), micros(j.CreatedAt), textIf(j.Owner != "", j.Owner), int64(w.lseq), j.Hash())
		if done {
			w.rseq++
			args = append(args, j.Result[:], int64(w.rseq), micros(j.DoneAt), micros(j.GCAfter))
		}
		*batch[i].out = jobs.Outcome{Job: j, LSeq: w.lseq}
		if kind == birthOther {
			r := row{job: j, lseq: w.lseq}
			if done = j.Rank == jobs.Completed; done {
				w.rseq++
				r.rseq = w.rseq
			}
			args = receiveArgs(args[:0], &r)
		}
	}
	stmt := w.stmts.insertOpen
	switch {
	case kind == birthOther:
		stmt = w.stmts.receive
	case done && len(batch) == 1:
		stmt = w.stmts.insertDone
	case done:
		stmt = w.stmts.insertDone8
	case len(batch) > 1:
		stmt = w.stmts.insertOpen8
	}
	res, err := stmt.ExecContext(context.Background(), args...)
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err != nil {
		return err
	}
	last, err := res.LastInsertId()
	if err != nil {
		return err
	}
	if int(n) < len(batch) {
		return w.settle(batch, first, firstR)
	}
	for i := range batch { // one statement's rows take consecutive numbers
		w.inserted(row{job: batch[i].out.Job, n: last - int64(len(batch)-1-i), lseq: first + 1 + jobs.LSeq(i), rseq: rseqIf(done, firstR+1+jobs.RSeq(i))})
	}
	return nil
}

func rseqIf(done bool, n jobs.RSeq) jobs.RSeq {
	if !done {
		return 0
	}
	return n
}

func (w *writer) inserted(r row) {
	w.count(jobs.Job{}, r.job)
	w.remember(r)
	w.changed = append(w.changed, jobs.Changed{Row: r.wire(), RSeq: r.rseq, Via: r.via})
}

// settle tells, after an INSERT that found IDs which were there already, which
// rows are new and what the others are.
func (w *writer) settle(batch []fresh, first jobs.LSeq, firstR jobs.RSeq) error {
	w.lseq, w.rseq = first, firstR // of the numbers taken, those behind the last new row are given back
	for i := range batch {
		r, err := scanRow(w.stmts.get.QueryRowContext(context.Background(), batch[i].sub.Job.ID[:]))
		if err != nil {
			return err
		}
		mine := r.lseq == first+1+jobs.LSeq(i) && (r.rseq == 0 || r.rseq == firstR+1+jobs.RSeq(i))
		if mine {
			w.lseq, w.rseq = r.lseq, max(w.rseq, r.rseq)
			w.inserted(r)
			*batch[i].out = jobs.Outcome{Job: r.job, LSeq: r.lseq}
		} else {
			*batch[i].out = repeated(r, &batch[i].sub.Job)
		}
	}
	return nil
}
