package node

import (
	"bytes"
	"context"
	"encoding/base64"
	"slices"
	"time"

	"workmanager/jobs"
)

// Job returns one job, after its end if the wait allows. See web.Reader.
func (q *Queue) Job(ctx context.Context, id jobs.ID, wait time.Duration) (jobs.View, error) {
	if wait <= 0 {
		return q.job(ctx, id)
	}
	ended, forget := q.watch.end(id) // before the look, so that no end is missed
	defer forget()
	v, err := q.job(ctx, id)
	if err != nil || v.Ended() {
		return v, err
	}
	t := time.NewTimer(min(wait, jobs.MaxWait))
	defer t.Stop()
	select {
	case <-ended:
	case <-t.C:
	case <-ctx.Done():
		return jobs.View{}, ctx.Err()
	case <-q.stopping:
	}
	return q.job(ctx, id)
}

// replicatedEvery is how often a row is looked at whose copy is waited for.
const replicatedEvery = 20 * time.Millisecond

// JobReplicated returns one job as soon as it is on both disks, or when the wait
// is over, as it stands then. Without a peer there is nothing to wait for. See
// web.Reader.
func (q *Queue) JobReplicated(ctx context.Context, id jobs.ID, wait time.Duration) (jobs.View, error) {
	v, err := q.job(ctx, id)
	if err != nil || v.Durability.Both || wait <= 0 || !q.pair.Paired() {
		return v, err
	}
	t, tick := time.NewTimer(min(wait, jobs.MaxWait)), time.NewTicker(replicatedEvery)
	defer t.Stop()
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			row, found, err := q.store.Row(ctx, id)
			if err != nil {
				return jobs.View{}, err
			}
			if !found || !q.pair.Replicated(row.LSeq).Both {
				continue
			}
			if v, err := q.job(ctx, id); err != nil || v.Durability.Both { // else it has changed since
				return v, err
			}
		case <-t.C:
			return q.job(ctx, id)
		case <-q.stopping:
			return q.job(ctx, id)
		case <-ctx.Done():
			return jobs.View{}, ctx.Err()
		}
	}
}

// job returns the job as either node would show it: while it is open its home
// knows more than its row says, and a node whose copy of the peer's jobs is not
// whole asks before it says that there is none.
func (q *Queue) job(ctx context.Context, id jobs.ID) (jobs.View, error) {
	row, found, err := q.store.Row(ctx, id)
	if err != nil {
		return jobs.View{}, err
	}
	if found && jobs.Sees(ctx, row.Job) { // else all goes on as if there were none
		v := q.views([]jobs.Row{row})[0]
		if !v.Ended() && v.Home != q.node && q.pair.Connected() {
			if there, ok, err := q.pair.Find(ctx, id); err == nil && ok {
				return merged(v, there), nil
			}
		}
		return v, nil
	}
	if !q.pair.Paired() {
		return jobs.View{}, notFound(id)
	}
	v, ok, err := q.pair.Find(ctx, id)
	ok = ok && jobs.Sees(ctx, v.Job)
	switch {
	case ok:
		v.Durability = jobs.Durability{Reason: "on the peer only, so far"}
		return v, nil
	case err == nil:
		return jobs.View{}, notFound(id)
	case !q.pair.Whole():
		return jobs.View{}, jobs.Errorf(jobs.CodeUnavailable,
			"no job %s here, but not all of the peer's jobs are here yet and it does not answer; try again", id).Retry(time.Second)
	}
	return jobs.View{}, jobs.Errorf(jobs.CodeNotFound, "no job %s: it was never here, or retention has dropped it (the peer could not be asked)", id)
}

// merged adds to what is here what the job's home knows.
func merged(here, there jobs.View) jobs.View {
	d, done := here.Durability, here.Done
	here.Job = jobs.Merge(here.Job, there.Job)
	here.Durability = d
	if here.Ended() {
		here.Done = done
		if here.Rank == jobs.Completed {
			here.Done = here.Iterations
		}
		return here
	}
	here.Done = max(done, there.Done)
	here.Leased, here.Rate, here.Worker = here.Leased || there.Leased, max(here.Rate, there.Rate), there.Worker
	return here
}

// views adds to the rows what the lease table and the session know of them.
func (q *Queue) views(page []jobs.Row) []jobs.View {
	out := make([]jobs.View, len(page))
	q.mu.Lock()
	for i := range page {
		out[i] = q.table.View(page[i].Job)
	}
	q.mu.Unlock()
	for i := range page {
		out[i].Durability = q.pair.Replicated(page[i].LSeq)
	}
	return out
}

// Jobs returns a page of jobs. See web.Reader.
func (q *Queue) Jobs(ctx context.Context, query jobs.ListQuery) (jobs.List, error) {
	query.Owner = jobs.ViewOf(ctx)
	if query.State == jobs.StateLeased {
		return q.leased(ctx, query)
	}
	page, next, more, err := q.store.List(ctx, q.node, query)
	if err != nil {
		return jobs.List{}, err
	}
	views := q.views(page)
	if query.State == jobs.StateQueued {
		views = slices.DeleteFunc(views, func(v jobs.View) bool { return v.Leased })
	}
	return jobs.List{Jobs: views, Cursor: next, More: more}, nil
}

// leased pages through the leases by job ID; the cursor is the last one.
func (q *Queue) leased(ctx context.Context, query jobs.ListQuery) (jobs.List, error) {
	q.mu.Lock()
	ids := q.table.LeasedIDs()
	q.mu.Unlock()
	slices.SortFunc(ids, func(a, b jobs.ID) int { return bytes.Compare(a[:], b[:]) })
	if query.After != "" {
		after, err := base64.RawURLEncoding.DecodeString(query.After)
		if err != nil || len(after) != len(jobs.ID{}) {
			return jobs.List{}, jobs.Invalid("query", "after", "value_error.cursor", "is no cursor of this list; leave it out to begin at the start")
		}
		i, _ := slices.BinarySearchFunc(ids, after, func(id jobs.ID, at []byte) int {
			if c := bytes.Compare(id[:], at); c != 0 {
				return c
			}
			return -1 // behind the cursor, not on it
		})
		ids = ids[i:]
	}
	look := query.Limit
	if query.Owner != "" { // others' leases are passed over
		look = max(look, maxLooked)
	}
	more := len(ids) > look
	if more {
		ids = ids[:look]
	}
	var page []jobs.Row
	last := query.After
	for i, id := range ids {
		last = base64.RawURLEncoding.EncodeToString(id[:])
		row, found, err := q.store.Row(ctx, id)
		if err != nil {
			return jobs.List{}, err
		}
		if found && jobs.Sees(ctx, row.Job) {
			page = append(page, row)
		}
		if len(page) == query.Limit {
			more = more || i < len(ids)-1
			break
		}
	}
	views := slices.DeleteFunc(q.views(page), func(v jobs.View) bool { return !v.Leased })
	return jobs.List{Jobs: views, Cursor: last, More: more}, nil
}

// maxLooked bounds the leases that one page looks at for those of one owner.
const maxLooked = 1024

// Pull returns the newest results. See web.Reader.
func (q *Queue) Pull(ctx context.Context, top int) ([]jobs.Result, error) {
	return q.store.Newest(ctx, jobs.ViewOf(ctx), top)
}

// Results returns the results behind a cursor. See web.Reader.
func (q *Queue) Results(ctx context.Context, query jobs.ResultsQuery) (jobs.Results, error) {
	query.Owner = jobs.ViewOf(ctx)
	var timeout <-chan time.Time
	if query.Wait > 0 {
		t := time.NewTimer(min(query.Wait, jobs.MaxWait))
		defer t.Stop()
		timeout = t.C
	}
	for {
		more, forget := q.watch.result(query.Owner) // before the look, so that no result is missed
		page, err := q.store.Results(ctx, query)
		if err != nil || len(page.Results) > 0 || query.Wait <= 0 {
			forget()
			return page, err
		}
		over := false
		select {
		case <-more:
		case <-timeout:
			over = true
		case <-ctx.Done():
			err = ctx.Err()
		case <-q.stopping:
			over = true
		}
		forget()
		if err != nil {
			return jobs.Results{}, err
		}
		if over {
			return page, nil
		}
	}
}
