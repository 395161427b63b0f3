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

func (q *Queue) job(ctx context.Context, id jobs.ID) (jobs.View, error) {
	j, found, err := q.store.Job(ctx, id)
	if err != nil {
		return jobs.View{}, err
	}
	if !found {
		return jobs.View{}, notFound(id)
	}
	return q.views([]jobs.Job{j})[0], nil
}

// views adds to the rows what the lease table knows of them.
func (q *Queue) views(page []jobs.Job) []jobs.View {
	out := make([]jobs.View, len(page))
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, j := range page {
		out[i] = q.table.View(j)
		out[i].Durability = alone
	}
	return out
}

// Jobs returns a page of jobs. See web.Reader.
func (q *Queue) Jobs(ctx context.Context, query jobs.ListQuery) (jobs.List, error) {
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
	more := len(ids) > query.Limit
	if more {
		ids = ids[:query.Limit]
	}
	var page []jobs.Job
	last := query.After
	for _, id := range ids {
		last = base64.RawURLEncoding.EncodeToString(id[:])
		j, found, err := q.store.Job(ctx, id)
		if err != nil {
			return jobs.List{}, err
		}
		if found {
			page = append(page, j)
		}
	}
	views := slices.DeleteFunc(q.views(page), func(v jobs.View) bool { return !v.Leased })
	return jobs.List{Jobs: views, Cursor: last, More: more}, nil
}

// Pull returns the newest results. See web.Reader.
func (q *Queue) Pull(ctx context.Context, top int) ([]jobs.Result, error) {
	return q.store.Newest(ctx, top)
}

// Results returns the results behind a cursor. See web.Reader.
func (q *Queue) Results(ctx context.Context, query jobs.ResultsQuery) (jobs.Results, error) {
	var timeout <-chan time.Time
	if query.Wait > 0 {
		t := time.NewTimer(min(query.Wait, jobs.MaxWait))
		defer t.Stop()
		timeout = t.C
	}
	for {
		more := q.watch.result() // before the look, so that no result is missed
		page, err := q.store.Results(ctx, query)
		if err != nil || len(page.Results) > 0 || query.Wait <= 0 {
			return page, err
		}
		select {
		case <-more:
		case <-timeout:
			return page, nil
		case <-ctx.Done():
			return jobs.Results{}, ctx.Err()
		case <-q.stopping:
			return page, nil
		}
	}
}
