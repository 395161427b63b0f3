package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/receipt"
	"workmanager/web/api"
)

// Job returns one job. With a wait it returns when the job has ended or the
// wait, cut to jobs.MaxWait, is over.
func (c *Client) Job(ctx context.Context, id jobs.ID, wait time.Duration) (jobs.View, error) {
	r := request{method: http.MethodGet, path: "/v1/jobs/" + id.String(), query: waitQuery(wait), patient: wait > 0}
	out, _, err := get[api.Job](ctx, c, r)
	if err != nil {
		return jobs.View{}, err
	}
	return toView(out)
}

// Checkpoints returns what is kept of a job's chain, in its order: v1, the kept
// checkpoints so far, and the value if the job is completed. The places rise; of
// a purged job there are none.
func (c *Client) Checkpoints(ctx context.Context, id jobs.ID) ([]jobs.Progress, error) {
	out, _, err := get[api.Checkpoints](ctx, c, request{method: http.MethodGet, path: "/v1/jobs/" + id.String() + "/checkpoints"})
	if err != nil {
		return nil, err
	}
	list := make([]jobs.Progress, len(out.Checkpoints))
	for i, p := range out.Checkpoints {
		list[i].Done = p.Done
		if list[i].Value, err = jobs.ParseValue(p.Value); err != nil {
			return nil, fmt.Errorf("read the checkpoints of job %s: %w", id, err)
		}
		if p.Done < 1 || i > 0 && p.Done <= list[i-1].Done {
			return nil, fmt.Errorf("read the checkpoints of job %s: the %d-th is at %d", id, i+1, p.Done)
		}
	}
	return list, nil
}

// Receipt returns what the node that answers states of a completed job, signed
// with its key. The signature is not checked here.
func (c *Client) Receipt(ctx context.Context, id jobs.ID) (receipt.Signed, error) {
	out, _, err := get[receipt.Signed](ctx, c, request{method: http.MethodGet, path: "/v1/jobs/" + id.String() + "/receipt"})
	return out, err
}

// Explain says why a job is where it is, and what it waits for.
func (c *Client) Explain(ctx context.Context, id jobs.ID) (api.Explanation, error) {
	out, _, err := get[api.Explanation](ctx, c, request{method: http.MethodGet, path: "/v1/jobs/" + id.String() + "/explain"})
	return out, err
}

// Jobs returns a page of jobs.
func (c *Client) Jobs(ctx context.Context, q jobs.ListQuery) (jobs.List, error) {
	r := request{method: http.MethodGet, path: "/v1/jobs", query: pageQuery(q.After, q.Limit)}
	if q.State != "" {
		r.query.Set("state", string(q.State))
	}
	out, _, err := get[api.JobList](ctx, c, r)
	if err != nil {
		return jobs.List{}, err
	}
	l := jobs.List{Cursor: out.Cursor, More: out.More, Jobs: make([]jobs.View, len(out.Jobs))}
	for i, j := range out.Jobs {
		if l.Jobs[i], err = toView(j); err != nil {
			return jobs.List{}, err
		}
	}
	return l, nil
}

// Cancel withdraws one job; with purge it erases v1, checkpoints and value
// too. A job that had ended stays as it was. It is safe to repeat.
func (c *Client) Cancel(ctx context.Context, id jobs.ID, purge bool, ack jobs.Ack) (jobs.View, error) {
	r := request{method: http.MethodDelete, path: "/v1/jobs/" + id.String(), query: url.Values{}}
	if purge {
		r.query.Set("purge", "true")
	}
	if ack != jobs.AckDefault {
		r.query.Set("ack", string(ack))
	}
	out, _, err := get[api.Job](ctx, c, r)
	if err != nil {
		return jobs.View{}, err
	}
	return toView(out)
}

// Status returns the snapshot of the node that answers.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	out, _, err := get[api.Status](ctx, c, request{method: http.MethodGet, path: "/v1/status"})
	return out, err
}

// Fleet returns what the scheduler owns, as the node that answers sees it.
func (c *Client) Fleet(ctx context.Context) (api.FleetStatus, error) {
	out, _, err := get[api.FleetStatus](ctx, c, request{method: http.MethodGet, path: "/v1/fleet"})
	return out, err
}

// OrderFleet gives an operator's order: to drain or terminate an instance, or,
// without one, to pause or resume launches. It is safe to repeat.
func (c *Client) OrderFleet(ctx context.Context, do, instance string) (api.FleetStatus, error) {
	r := request{method: http.MethodPost, path: "/v1/fleet", query: url.Values{"do": {do}}}
	if instance != "" {
		r.query.Set("instance", instance)
	}
	out, _, err := get[api.FleetStatus](ctx, c, r)
	return out, err
}

// Quarantines returns the workers that the pair does not trust.
func (c *Client) Quarantines(ctx context.Context) (api.QuarantineList, error) {
	out, _, err := get[api.QuarantineList](ctx, c, request{method: http.MethodGet, path: "/v1/quarantine"})
	return out, err
}

// OrderQuarantine gives an operator's order: to quarantine a worker, or to lift
// that. It is safe to repeat; what is not quarantined cannot be lifted.
func (c *Client) OrderQuarantine(ctx context.Context, do, worker, reason string) (api.QuarantineList, error) {
	r := request{method: http.MethodPost, path: "/v1/quarantine", query: url.Values{"do": {do}, "worker": {worker}}}
	if reason != "" {
		r.query.Set("reason", reason)
	}
	out, _, err := get[api.QuarantineList](ctx, c, r)
	return out, err
}

func waitQuery(wait time.Duration) url.Values {
	q := url.Values{}
	if wait > 0 {
		q.Set("wait", min(wait, jobs.MaxWait).String())
	}
	return q
}

func pageQuery(after string, limit int) url.Values {
	q := url.Values{}
	if after != "" {
		q.Set("after", after)
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return q
}

// toView reads a job off the wire.
func toView(j api.Job) (v jobs.View, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("read job %s: %w", j.ID, err)
		}
	}()
	if v.ID, err = jobs.ParseID(j.ID); err != nil {
		return v, err
	}
	if j.Value != "" {
		if v.Result, err = jobs.ParseValue(j.Value); err != nil {
			return v, err
		}
	}
	switch jobs.State(j.State) {
	case jobs.StateQueued:
		v.Rank = jobs.Open
	case jobs.StateLeased:
		v.Rank, v.Leased = jobs.Open, true
	case jobs.StateCompleted:
		v.Rank = jobs.Completed
	case jobs.StateFailed:
		v.Rank = jobs.Failed
	case jobs.StateCancelled:
		v.Rank = jobs.Cancelled
	default:
		return v, fmt.Errorf("unknown state %q", j.State)
	}
	v.Iterations, v.Done, v.Rate = j.Iterations, j.Done, j.Rate
	if j.Priority >= 0 && j.Priority <= jobs.MaxPriority {
		v.Priority = uint8(j.Priority)
	}
	if j.Checkpoints > 0 && j.Checkpoints <= jobs.MaxKeep {
		v.Keep = uint16(j.Checkpoints)
	}
	v.ResumedFrom, v.Owner = j.ResumedFrom, j.Owner
	v.Err, v.Attempts, v.Worker, v.Home = j.Error, j.Attempts, j.Worker, j.Node
	v.Pulled, v.Purged, v.CreatedAt = j.Pulled, j.Purged, j.CreatedAt
	if j.FinishedAt != nil {
		v.DoneAt = *j.FinishedAt
	}
	v.Durability = durability(j.Durability, j.DurabilityReason)
	return v, nil
}
