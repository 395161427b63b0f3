package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
	"workmanager/web/wire"
)

// Bounds of the calls of a worker.
const (
	// maxLeaseWait is how long one Lease call waits at a node: one that froze in
	// the middle holds a worker up for that, and a little.
	maxLeaseWait = 5 * time.Second
	leaseSlack   = 2 * time.Second
	// reportTime is what a Report call has if its context has no end.
	reportTime = 5 * time.Second
	// shunned is for how long a node that failed is asked last.
	shunned = 1500 * time.Millisecond
	// awayFor is for how long a node that failed is not asked for work that it may
	// have besides the other's.
	awayFor = 30 * time.Second
	// orderTime is for how long what a node wants of the worker counts: longer than
	// a worker is silent towards a node that it talks to.
	orderTime = 30 * time.Second
	// maxLearned bounds the nodes that others told of, maxGranters the boots
	// whose node is known.
	maxLearned, maxGranters = 4, 16
)

// pairState is what Lease and Report know of the nodes beyond URLs: the
// addresses that nodes told of, who failed just now, and who gave which lease.
type pairState struct {
	mu      sync.Mutex // guards the rest
	learned []*url.URL
	last    string               // the base that gave leases last
	failed  map[string]time.Time // when, by base
	granter map[jobs.ID]string   // the base, by the boot in its fences
	orders  map[string]told      // what nodes want of the worker, by base
}

// told is what a node wants, and when it said so.
type told struct {
	jobs.Orders
	at time.Time
}

// Lease returns leases within capacity, from the node that answers. It tries
// every node once, and those that they told of. A node that has nothing, and does
// not reach the other, sends the next call there. See worker.Source.
func (c *Client) Lease(ctx context.Context, w jobs.Worker, capacity jobs.Capacity) ([]jobs.Lease, error) {
	wait := max(0, min(capacity.Wait, maxLeaseWait))
	body, err := json.Marshal(api.LeaseRequest{Worker: wire.Worker(w), Jobs: min(capacity.Jobs, api.MaxLeases), Iterations: capacity.Iterations, Wait: wait.Seconds()})
	if err != nil {
		return nil, fmt.Errorf("ask for leases: %w", err)
	}
	c.pair.mu.Lock()
	last := c.pair.last
	c.pair.mu.Unlock()
	var leases []jobs.Lease
	var orders api.Orders
	apart := false
	from, err := c.ask(ctx, "/worker/lease", body, last, wait+leaseSlack, func(text []byte) error {
		got, out, err := wire.ReadLeaseReply(text)
		if err != nil {
			return err
		}
		leases = got
		c.learn(out.Nodes)
		apart, orders = out.Apart, out.Orders
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.note(from, orders)
	if apart && len(leases) == 0 {
		from = c.beside(from)
	}
	p := &c.pair
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = from
	for i := range leases {
		if boot := leases[i].Fence.Boot; p.granter[boot] != from {
			if len(p.granter) >= maxGranters || p.granter == nil {
				p.granter = map[jobs.ID]string{}
			}
			p.granter[boot] = from
		}
	}
	return leases, nil
}

// beside returns another node than that one, if there is one that did not fail
// of late, else that one.
func (c *Client) beside(from string) string {
	now := time.Now()
	p := &c.pair
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range slices.Concat(c.bases, p.learned) {
		if at, failed := p.failed[u.String()]; u.String() != from && !(failed && now.Sub(at) < awayFor) {
			return u.String()
		}
	}
	return from
}

// Report reports each lease to the node that gave it, and where that does not
// answer to the other. See worker.Source.
func (c *Client) Report(ctx context.Context, w jobs.Worker, batch []jobs.Report) ([]jobs.Verdict, error) {
	verdicts := make([]jobs.Verdict, len(batch))
	groups := map[string][]int{}
	c.pair.mu.Lock()
	for i := range batch {
		at := c.pair.granter[batch[i].Fence.Boot]
		groups[at] = append(groups[at], i)
	}
	c.pair.mu.Unlock()
	left := len(groups)
	var failed error
	for at, of := range groups {
		part := ctx
		if end, ok := ctx.Deadline(); ok && left > 1 { // each has its share of the time
			var cancel context.CancelFunc
			part, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(left))
			defer cancel()
		}
		left--
		for len(of) > 0 {
			n := min(len(of), api.MaxReports)
			if err := c.report(part, w, batch, of[:n], at, verdicts); err != nil {
				failed = errors.Join(failed, err)
				break
			}
			of = of[n:]
		}
	}
	if failed != nil {
		return nil, failed
	}
	return verdicts, nil
}

// report sends the reports of one node and enters their verdicts.
func (c *Client) report(ctx context.Context, w jobs.Worker, batch []jobs.Report, of []int, at string, verdicts []jobs.Verdict) error {
	body := wire.AppendReportRequest(nil, w, batch, of)
	var orders api.Orders
	from, err := c.ask(ctx, "/worker/report", body, at, reportTime, func(text []byte) error {
		got, out, err := wire.ReadReportReply(text, len(of))
		if err != nil {
			return err
		}
		for n, i := range of {
			verdicts[i] = got[n]
		}
		c.learn(out.Nodes)
		orders = out.Orders
		return nil
	})
	if err == nil {
		c.note(from, orders)
	}
	return err
}

// note keeps what a node wants of the worker.
func (c *Client) note(base string, o api.Orders) {
	t := told{Orders: jobs.Orders{Drain: o.Drain, Idle: jobs.IdleForEver}, at: time.Now()}
	if o.Idle >= 0 {
		t.Idle = time.Duration(min(o.Idle, maxIdle.Seconds()) * float64(time.Second))
	}
	p := &c.pair
	p.mu.Lock()
	defer p.mu.Unlock()
	for other, was := range p.orders {
		if t.at.Sub(was.at) >= orderTime {
			delete(p.orders, other)
		}
	}
	if p.orders == nil {
		p.orders = map[string]told{}
	}
	p.orders[base] = t
}

// maxIdle bounds what a node may say in seconds.
const maxIdle = 1000 * time.Hour

// Orders returns whether a node wants the worker to hand back and end, and how
// long it may be idle, 0 being for ever, given how long that would be by itself:
// as long as the node that allows more, of those that it talks to. See
// worker.Director.
func (c *Client) Orders(idle time.Duration) (drain bool, most time.Duration) {
	now := time.Now()
	p := &c.pair
	p.mu.Lock()
	defer p.mu.Unlock()
	heard, forEver := false, false
	for _, t := range p.orders {
		if now.Sub(t.at) >= orderTime {
			continue
		}
		heard = true
		drain = drain || t.Drain
		this := t.Idle
		if this == 0 {
			this = idle
		}
		forEver = forEver || this <= 0
		most = max(most, this)
	}
	switch {
	case !heard:
		return false, idle
	case forEver:
		return drain, 0
	}
	return drain, most
}

// ask makes one call, to each node in turn until one has answered it: first
// first, if it is not "" and has not failed just now. The time, up to the end
// of ctx, is shared among those that are left, so that a node that is silent
// does not take all of it. It returns the base that answered.
func (c *Client) ask(ctx context.Context, path string, body []byte, first string, most time.Duration, read func(text []byte) error) (string, error) {
	c.init()
	if c.baseErr != nil {
		return "", c.baseErr
	}
	var refused *jobs.Error
	var last error
	bases := c.order(first)
	for i, base := range bases {
		one := most
		if end, ok := ctx.Deadline(); ok {
			one = min(one, time.Until(end)/time.Duration(len(bases)-i))
		}
		err := c.post(ctx, base, path, body, one, read)
		if ctx.Err() != nil && err != nil {
			return "", context.Cause(ctx)
		}
		c.answered(base, err == nil)
		if err == nil {
			return base.String(), nil
		}
		last = err
		if e, ok := errors.AsType[*jobs.Error](err); ok {
			if !elsewhere(e) {
				return "", e
			}
			refused = e
		}
	}
	if refused != nil {
		return "", refused
	}
	return "", fmt.Errorf("%w: %s: %w", ErrUnreachable, strings.Join(c.URLs, ", "), tidy(last))
}

// elsewhere reports whether the other node may answer what this one refused.
func elsewhere(e *jobs.Error) bool {
	switch e.Code {
	case jobs.CodeInvalid, jobs.CodeMalformed, jobs.CodeTooLarge, jobs.CodeUnsupported, jobs.CodeAuth, jobs.CodeForbidden:
		return false
	}
	return true
}

// post sends one request to one node.
func (c *Client) post(ctx context.Context, base *url.URL, path string, body []byte, most time.Duration, read func(text []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base.JoinPath(path).String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if token, err := c.shown(ctx, path); err != nil {
		return err
	} else if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.patient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized {
		c.forget() // the next try enrols anew
	}
	if resp.StatusCode/100 != 2 {
		return refusal(resp)
	}
	text, err := wire.ReadAll(io.LimitReader(resp.Body, maxBodyBytes), resp.ContentLength) // to the end, so that the connection can go on
	if err == nil {
		err = read(text)
	}
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", path, err)
	}
	return nil
}

// order returns the nodes in the order to ask them: the first, the given ones,
// those learned; and last the ones that failed just now.
func (c *Client) order(first string) []*url.URL {
	now := time.Now()
	p := &c.pair
	p.mu.Lock()
	defer p.mu.Unlock()
	all := slices.Concat(c.bases, p.learned)
	rank := func(u *url.URL) int {
		at, failed := p.failed[u.String()]
		switch {
		case failed && now.Sub(at) < shunned:
			return 2
		case u.String() == first:
			return 0
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b *url.URL) int { return rank(a) - rank(b) })
	return all
}

// answered notes whether a node did.
func (c *Client) answered(base *url.URL, did bool) {
	p := &c.pair
	p.mu.Lock()
	defer p.mu.Unlock()
	if did {
		delete(p.failed, base.String())
		return
	}
	if p.failed == nil {
		p.failed = map[string]time.Time{}
	}
	p.failed[base.String()] = time.Now()
}

// learn takes in where nodes say that they and their peer are. Those heard of
// last are kept.
func (c *Client) learn(nodes []string) {
	p := &c.pair
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range nodes {
		u, err := parseBase(s, c.CAFile != "")
		if err != nil || c.secret() && u.Scheme == "http" && !loopback(u.Hostname()) {
			continue // a node cannot know how we reach it; and no token is sent in the clear
		}
		same := func(other *url.URL) bool { return other.String() == u.String() }
		if slices.ContainsFunc(c.bases, same) {
			continue
		}
		p.learned = slices.DeleteFunc(p.learned, same)
		p.learned = append([]*url.URL{u}, p.learned...)
	}
	if len(p.learned) > maxLearned {
		for _, u := range p.learned[maxLearned:] {
			delete(p.failed, u.String())
		}
		p.learned = p.learned[:maxLearned]
	}
}
