package node

import (
	"context"
	"fmt"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// Workers in other processes: they may die without a word, lose one node or
// both and come back late, and they report to whichever node answers.

// maxAsked bounds the jobs of one report that the living peer is asked about.
const maxAsked = 64

// ttlOf returns how long a lease of the worker lasts; 0 is as long as the process.
func ttlOf(w jobs.Worker) time.Duration {
	if w.Instance == "" {
		return 0
	}
	return leaseTTL
}

// admit refuses a worker that is one too many.
func (q *Queue) admit(w jobs.Worker) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, known := q.workers[w.Key()]; !known && len(q.workers) >= maxWorkers {
		return jobs.Errorf(jobs.CodeBusy, "%d workers are at work here, which is the limit", maxWorkers).Retry(time.Second)
	}
	return nil
}

// received returns the leases, or hands them back at once if the worker that
// asked has gone meanwhile: nobody would compute them until they end.
func (q *Queue) received(ctx context.Context, w jobs.Worker, leases []jobs.Lease) []jobs.Lease {
	if w.Instance == "" || ctx.Err() == nil {
		return leases
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range leases {
		q.handBack(l.LeaseRef)
	}
	return nil
}

// adopt finds out what became of jobs that the worker has under leases that do
// not stand here: their home has died or started anew, they have lasted too
// long, or they are the peer's. A job that is free here, or that a dead peer
// leaves, is leased to the worker under the fence it has, so that its work goes
// on. What is returned are verdicts, by place in the batch, on jobs that this
// node has no say in.
func (q *Queue) adopt(ctx context.Context, w jobs.Worker, batch []jobs.Report) (map[int]jobs.Verdict, error) {
	if w.Instance == "" {
		return nil, nil
	}
	var strays []int
	q.mu.Lock()
	for i := range batch {
		r := &batch[i]
		if (r.Kind == jobs.ReportProgress || r.Kind == jobs.ReportHandBack) && !q.table.Holds(r.LeaseRef) {
			strays = append(strays, i)
		}
	}
	q.mu.Unlock()

	if len(strays) == 0 {
		return nil, nil
	}

	verdicts := map[int]jobs.Verdict{}
	theirs, err := q.adoptHere(ctx, w, batch, strays, verdicts)
	if err != nil {
		return nil, err
	}
	var saved []store.Fact
	asked := 0
	for i, j := range theirs {
		r := &batch[i]
		v := jobs.Kept // the peer is silent, and not dead so far: that is soon known
		if asked < maxAsked && q.pair.Connected() {
			asked++
			if v, err = q.verdictThere(ctx, w, j); err != nil {
				asked = maxAsked
			}
		}
		verdicts[i] = v
		if v == jobs.Kept && r.Progress.Done > j.Start().Done { // of a lease that is lost nothing is believed, here as where it was
			saved = append(saved, store.Fact{ID: r.ID, Apply: func(j jobs.Job, _ store.Clock) (jobs.Job, bool) {
				if !r.Of(j) || j.Restarts > 0 {
					return j, false
				}
				return j.Advance(r.Progress)
			}})
		}
	}
	if len(saved) > 0 {
		if _, err := q.store.Record(ctx, saved); err != nil {
			return nil, fmt.Errorf("store progress of the peer's jobs that worker %s reported: %w", w.Key(), err)
		}
	}
	return verdicts, nil
}

// adoptHere is adopt for the jobs that are ours, or a dead peer's. It returns
// those of the living peer, by their places in the batch.
func (q *Queue) adoptHere(ctx context.Context, w jobs.Worker, batch []jobs.Report, strays []int, verdicts map[int]jobs.Verdict) (map[int]jobs.Job, error) {
	way := q.crossing.beginOf(len(strays))
	defer way.end()
	at := map[jobs.ID]int{}
	theirs := map[int]jobs.Job{}
	var free []jobs.Job
	var left []jobs.ID
	dead := q.pair.MayTakeOver()
	for _, i := range strays {
		r := &batch[i]
		j, found, err := q.store.Job(ctx, r.ID)
		switch {
		case err != nil:
			return nil, fmt.Errorf("look for job %s that worker %s has: %w", r.ID, w.Key(), err)
		case !found:
			if q.pair.Paired() && !q.pair.Whole() { // it may be on its way
				verdicts[i] = jobs.Kept
			}
		case j.Purged || j.Rank == jobs.Cancelled:
			verdicts[i] = jobs.Withdrawn
		case j.Ended() || !r.Of(j):
		case j.Restarts > 0 && (j.Home == q.node || j.Home == dead): // whether it began before that is not known
			verdicts[i] = jobs.Lost
		case j.Home == q.node:
			at[r.ID], free = i, append(free, j)
		case j.Home == dead:
			at[r.ID], left = i, append(left, r.ID)
		default:
			theirs[i] = j
		}
	}
	if len(left) > 0 {
		taken, err := q.store.TakeOverJobs(ctx, left, dead)
		if err != nil {
			return nil, fmt.Errorf("take over jobs that worker %s has: %w", w.Key(), err)
		}
		q.takenOver.Add(int64(len(taken)))
		free = append(free, taken...)
	}
	q.lockToEnter()
	defer q.mu.Unlock()
	for i := range free {
		j := &free[i]
		if q.mayEnter(j) {
			q.enter(*j) // it may wait on the disk
			q.table.Adopt(q.now(), batch[at[j.ID]].LeaseRef, w.Key(), ttlOf(w))
		} else if q.crossing.of(j.ID) != wordGone { // whose it is is soon known
			verdicts[at[j.ID]] = jobs.Kept
		}
	}
	return theirs, nil
}

// verdictThere asks the living peer, whose job it is, whether the worker may go
// on with it. A peer that does not answer will be asked again.
func (q *Queue) verdictThere(ctx context.Context, w jobs.Worker, j jobs.Job) (jobs.Verdict, error) {
	there, found, err := q.pair.Find(ctx, j.ID)
	switch {
	case err != nil || !found:
		return jobs.Kept, err
	case there.Purged || there.Rank == jobs.Cancelled:
		return jobs.Withdrawn, nil
	case there.Ended() || there.Leased && there.Worker != w.Key():
		return jobs.Lost, nil
	}
	return jobs.Kept, nil
}

// Nodes returns the addresses of the APIs of both nodes, as far as they are
// known, and whether the two do not reach each other. See web.Leaser.
func (q *Queue) Nodes() (urls []string, apart bool) {
	for _, addr := range []string{q.advertise, q.pair.Peer().API} {
		if addr != "" && addr[0] != ':' {
			urls = append(urls, q.scheme+addr)
		}
	}
	return urls, q.pair.Paired() && !q.pair.Connected()
}
