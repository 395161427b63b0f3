package client

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"workmanager/web/api"
)

const (
	enrolPath         = "/worker/enrol"
	enrolInstancePath = "/worker/enrol/instance"
	// enrolRetry is how long a credential that is good is used before it is
	// exchanged again, if that failed.
	enrolRetry = 5 * time.Second
)

// enrolment is a worker's credential. Either node takes it.
type enrolment struct {
	mu    sync.Mutex // guards the rest; held over the exchange, so that there is one
	text  string
	again time.Time // when to exchange it anew: half-way to its end
	ends  time.Time
}

// enrols reports whether the client is a worker that shows credentials.
func (c *Client) enrols() bool { return c.Worker != "" && (c.Token != "" || c.Instance != nil) }

// secret reports whether there is something that must not be sent in the clear.
func (c *Client) secret() bool { return c.Token != "" || c.enrols() }

// shown returns what a call shows in its header.
func (c *Client) shown(ctx context.Context, path string) (string, error) {
	if !c.enrols() || path == enrolPath || path == enrolInstancePath {
		return c.Token, nil
	}
	e := &c.enrolled
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.text != "" && time.Now().Before(e.again) {
		return e.text, nil
	}
	got, err := c.Enrol(ctx)
	now := time.Now()
	if err != nil {
		if e.text != "" && now.Before(e.ends) { // the nodes may be busy, or EC2 not answer them
			e.again = now.Add(enrolRetry)
			return e.text, nil
		}
		return "", err
	}
	ttl := time.Duration(got.TTLSeconds * float64(time.Second))
	e.text, e.again, e.ends = got.Credential, now.Add(ttl/2), now.Add(ttl)
	return e.text, nil
}

// forget makes the next call enrol anew: a node did not take the credential.
func (c *Client) forget() {
	c.enrolled.mu.Lock()
	defer c.enrolled.mu.Unlock()
	c.enrolled.text = ""
}

// Enrol gets a credential of Worker, for Token or for what Instance is. Calls do
// it by themselves.
func (c *Client) Enrol(ctx context.Context) (api.EnrolResponse, error) {
	path, req := enrolPath, any(api.EnrolRequest{Name: c.Worker})
	if c.Instance != nil {
		path, req = enrolInstancePath, *c.Instance
	}
	body, err := json.Marshal(req)
	if err != nil {
		return api.EnrolResponse{}, err
	}
	got, _, err := get[api.EnrolResponse](ctx, c, request{
		method: http.MethodPost, path: path, header: http.Header{"Content-Type": {"application/json"}}, data: Bytes(body),
	})
	return got, err
}
