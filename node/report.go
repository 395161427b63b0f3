package node

import (
	"context"
	"fmt"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// Report takes what a worker says of its leases. See worker.Source. A right
// value is taken from anyone at any time; whether a lease stands decides only
// who may fail a job, renew a lease or hand it back.
func (q *Queue) Report(ctx context.Context, w jobs.Worker, batch []jobs.Report) ([]jobs.Verdict, error) {
	if err := q.admit(w); err != nil {
		return nil, err
	}
	verdicts := make([]jobs.Verdict, len(batch))
	if q.audit.isBarred(w) != nil { // not even a right value is taken from it: it would have to be computed again
		for i := range verdicts {
			verdicts[i] = jobs.Lost
		}
		return verdicts, nil
	}
	elsewhere, err := q.adopt(ctx, w, batch)
	if err != nil {
		return nil, err
	}
	from := map[int]*origin{} // where the lease of a reported value began, if not at v1
	facts, of := q.take(w, batch, verdicts, from)
	for i, v := range elsewhere {
		verdicts[i] = v
	}
	if len(facts) == 0 {
		return verdicts, nil
	}
	effects, err := q.store.Record(ctx, facts)
	if err != nil {
		q.mu.Lock()
		for _, i := range of {
			q.table.NotSaved(batch[i].LeaseRef)
		}
		q.mu.Unlock()
		return nil, fmt.Errorf("store what worker %s reported: %w", w.Key(), err)
	}
	if q.settle(w, batch, effects, of, verdicts, from) {
		if err := q.audit.save(ctx); err != nil { // it reports again: a dispute must not be forgotten
			return nil, fmt.Errorf("note that a value is disputed: %w", err)
		}
	}
	return verdicts, nil
}

// take enters the reports into the table and returns the facts that must be
// made durable, and which report each came from.
func (q *Queue) take(w jobs.Worker, batch []jobs.Report, verdicts []jobs.Verdict, from map[int]*origin) ([]store.Fact, []int) {
	var facts []store.Fact
	var of []int
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	q.saw(now, w)
	for i := range batch {
		r := &batch[i]
		holder, _, _ := q.table.Holder(r.ID)
		if r.Kind != jobs.ReportValue && holder != w.Key() && q.table.Holds(r.LeaseRef) {
			verdicts[i] = jobs.Lost // the number of a lease is easily guessed
			continue
		}
		before := q.table.Done(r.ID)
		attempts := q.table.Attempts(r.ID)
		restarts, here := q.table.Restarts(r.ID)
		// A row that was taken back since wants nothing that began before.
		stale := func(j jobs.Job) bool { return !r.Of(j) || here && j.Restarts > restarts }
		keep := func(j jobs.Job) jobs.Job { return j }
		if kept, rungs := q.table.Kept(r.ID); len(rungs) > 0 || len(r.Rungs) > 0 {
			keep = func(j jobs.Job) jobs.Job {
				j, _ = j.AddRungs(kept, rungs)
				j, _ = j.AddRungs(r.RungsFrom, r.Rungs.First(jobs.RungsBy(j.Iterations, int(j.Keep), r.Progress.Done)-r.RungsFrom))
				return j
			}
		}
		var apply func(jobs.Job, store.Clock) (jobs.Job, bool)
		switch r.Kind {
		case jobs.ReportValue:
			reached, stands := q.table.Reached(r.LeaseRef)
			if !stands && q.table.Anew(r.ID) { // computed from a checkpoint that is not trusted
				verdicts[i] = jobs.Lost
				continue
			}
			if holder == w.Key() { // its lease lasts while the value is written
				q.table.Renew(now, r.LeaseRef, reached, r.Rate)
			}
			if work := q.table.Work(r.ID); stands && work.V1 == r.V1 && work.Iterations == r.Iterations { // else it is no word on this job
				q.audit.segment(w.Key(), r, reached, work.Keep)
			}
			if o := q.origin(r.LeaseRef, w.Key()); o != nil {
				from[i] = o
			}
			apply = func(j jobs.Job, at store.Clock) (jobs.Job, bool) {
				if stale(j) {
					return j, false
				}
				j.Attempts = max(j.Attempts, attempts)
				done, changed := j.Complete(r.Progress.Value, at())
				if changed {
					done = keep(done)
				}
				return done, changed
			}
		case jobs.ReportFailure:
			if !q.table.Holds(r.LeaseRef) {
				verdicts[i] = jobs.Lost
				continue
			}
			if q.table.Failed(now, r.LeaseRef, jobs.MaxFailures) { // tried again, elsewhere where there is another worker
				q.available(1)
				q.log.Debug("a worker could not compute a job, it is tried again", "worker", w.Key(), "job", r.ID, "err", r.Err)
				continue
			}
			apply = func(j jobs.Job, at store.Clock) (jobs.Job, bool) {
				j.Attempts = max(j.Attempts, attempts)
				return j.Fail(r.Err, at())
			}
		default:
			reached, _ := q.table.Reached(r.LeaseRef)
			if !q.table.Renew(now, r.LeaseRef, r.Progress, r.Rate) {
				verdicts[i] = jobs.Lost
				continue
			}
			q.table.Keep(r.LeaseRef, r.RungsFrom, r.Rungs)
			if done := q.table.Done(r.ID); done > before {
				q.meter.iterations.Add(done - before)
				q.audit.segment(w.Key(), r, reached, q.table.Work(r.ID).Keep)
			}
			interval := q.checkpoint
			if r.Kind == jobs.ReportHandBack {
				interval = 0
			}
			p, due := q.table.Due(now, r.LeaseRef, interval)
			if !due {
				if r.Kind == jobs.ReportHandBack {
					q.handBack(r.LeaseRef)
				}
				continue
			}
			apply = func(j jobs.Job, _ store.Clock) (jobs.Job, bool) {
				if stale(j) {
					return j, false
				}
				j.Attempts = max(j.Attempts, attempts)
				ahead, changed := j.Advance(p)
				if changed {
					ahead = keep(ahead)
				}
				return ahead, changed
			}
		}
		facts = append(facts, store.Fact{ID: r.ID, Apply: apply})
		of = append(of, i)
	}
	return facts, of
}

// settle turns what the store made of the facts into verdicts. A job that has
// ended leaves the table. It reports whether a value is disputed.
func (q *Queue) settle(w jobs.Worker, batch []jobs.Report, effects []store.Effect, of []int, verdicts []jobs.Verdict, from map[int]*origin) (disputed bool) {
	done := 0
	q.mu.Lock()
	for n, e := range effects {
		r := &batch[of[n]]
		if q.table.Has(r.ID) { // else a purge may have come first
			q.cache.put(e.Job)
		}
		switch {
		case !e.Found:
			verdicts[of[n]] = jobs.Lost
			q.readAgain(r.ID) // if the table has it, it may have come since
		case !e.Job.Purged && !r.Of(e.Job): // it has become other work
			verdicts[of[n]] = jobs.Lost
			if !q.table.Knows(e.Job) {
				q.readAgain(r.ID)
			}
		case e.Job.Rank == jobs.Cancelled || e.Job.Purged:
			verdicts[of[n]] = jobs.Withdrawn
			q.ended(&e.Job)
		case e.Job.Ended():
			if e.Changed && e.Job.Rank == jobs.Completed {
				done++
				q.audit.completed(w.Key(), r.ID, r.Progress.Value, from[of[n]])
				q.meter.iterations.Add(e.Job.Iterations - max(q.table.Done(r.ID), 1))
			}
			q.ended(&e.Job)
		case q.outdated(e.Job):
			verdicts[of[n]] = jobs.Lost
		case r.Kind == jobs.ReportHandBack:
			q.handBack(r.LeaseRef)
		case r.Kind == jobs.ReportValue: // its lease ended while the row was being taken back
			verdicts[of[n]] = jobs.Lost
		}
	}
	q.mu.Unlock()
	q.meter.completed.Add(int64(done))
	for n, e := range effects {
		r := &batch[of[n]]
		if r.Kind == jobs.ReportValue && e.Found && !e.Changed && r.Of(e.Job) && e.Job.Rank == jobs.Completed && !e.Job.Purged && e.Job.Result != r.Progress.Value {
			q.audit.alarm(e.Job.ID, "worker "+w.Key()+" reported another value than the one that is kept")
			q.log.Error("two different values for one job: the first is kept until it is recomputed", "job", e.Job.ID, "worker", w.Key())
			q.audit.dispute(e.Job.ID, q.audit.value(w.Key(), r, from[of[n]])...)
			disputed = true
		}
	}
	return disputed
}

// outdated takes a job back whose row was taken back before the table has heard
// of it, and reports whether that is so. q.mu is held.
func (q *Queue) outdated(j jobs.Job) bool {
	if restarts, here := q.table.Restarts(j.ID); !here || j.Restarts <= restarts {
		return false
	}
	if q.table.Further(j) {
		q.available(1)
	}
	return true
}

// restarts returns how often a job of the table was taken back.
func (q *Queue) restarts(id jobs.ID) (uint32, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.table.Restarts(id)
}

// handBack ends a lease early: the job waits again. q.mu is held.
func (q *Queue) handBack(ref jobs.LeaseRef) {
	if q.table.HandBack(ref) {
		q.available(1)
	}
}
