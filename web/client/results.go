package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"workmanager/jobs"
	"workmanager/web/api"
)

// Pull returns the newest results, newest first, and changes nothing. They
// come with their ID and value only.
func (c *Client) Pull(ctx context.Context, top int) ([]jobs.Result, error) {
	return c.pull(ctx, top, false, "")
}

// Consume hands out the oldest results, each once. The same key gets the same
// results again; "" is a random one, so that a lost answer loses nothing.
func (c *Client) Consume(ctx context.Context, top int, key string) ([]jobs.Result, error) {
	if key == "" {
		k, err := c.newKey()
		if err != nil {
			return nil, err
		}
		key = k
	}
	return c.pull(ctx, top, true, key)
}

func (c *Client) pull(ctx context.Context, top int, consume bool, key string) ([]jobs.Result, error) {
	r := request{method: http.MethodPost, path: "/pullCompleted", query: url.Values{"top": {strconv.Itoa(top)}}}
	if consume {
		r.query.Set("consume", "true")
		r.header = http.Header{api.HeaderIdempotencyKey: {key}}
	}
	out, _, err := get[[]api.PulledResult](ctx, c, r)
	if err != nil {
		return nil, err
	}
	results := make([]jobs.Result, len(out))
	for i, p := range out {
		if results[i], err = toResult(api.Result{ID: p.ID, Value: p.Value}); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// Results returns the results behind a cursor, oldest first. With a wait it
// waits for the first if there is none.
func (c *Client) Results(ctx context.Context, q jobs.ResultsQuery) (jobs.Results, error) {
	r := request{method: http.MethodGet, path: "/v1/results", query: pageQuery(q.After, q.Limit), patient: q.Wait > 0}
	if q.Wait > 0 {
		r.query.Set("wait", min(q.Wait, jobs.MaxWait).String())
	}
	out, _, err := get[api.ResultList](ctx, c, r)
	if err != nil {
		return jobs.Results{}, err
	}
	l := jobs.Results{Cursor: out.Cursor, More: out.More, Restarted: out.Restarted, Results: make([]jobs.Result, len(out.Results))}
	for i, res := range out.Results {
		if l.Results[i], err = toResult(res); err != nil {
			return jobs.Results{}, err
		}
	}
	return l, nil
}

// toResult reads a result off the wire.
func toResult(r api.Result) (jobs.Result, error) {
	id, err := jobs.ParseID(r.ID)
	if err != nil {
		return jobs.Result{}, fmt.Errorf("read a result: %w", err)
	}
	v, err := jobs.ParseValue(r.Value)
	if err != nil {
		return jobs.Result{}, fmt.Errorf("read the result of job %s: %w", r.ID, err)
	}
	return jobs.Result{ID: id, Value: v, Iterations: r.Iterations, DoneAt: r.CompletedAt}, nil
}
