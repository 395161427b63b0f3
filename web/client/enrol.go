package client

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"workmanager/web/api"
)

const enrolPath = "/worker/enrol"

// enrolment is a worker's credential. Either node takes it.
type enrolment struct {
	mu    sync.Mutex // guards the rest; held over the exchange, so that there is one
	text  string
	again time.Time // when to exchange it anew: half-way to its end
}

// shown returns what a call shows in its header.
func (c *Client) shown(ctx context.Context, path string) (string, error) {
	if c.Worker == "" || c.Token == "" || path == enrolPath {
		return c.Token, nil
	}
	e := &c.enrolled
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.text != "" && time.Now().Before(e.again) {
		return e.text, nil
	}
	got, err := c.Enrol(ctx)
	if err != nil {
		return "", err
	}
	e.text, e.again = got.Credential, time.Now().Add(time.Duration(got.TTLSeconds/2*float64(time.Second)))
	return e.text, nil
}

// forget makes the next call enrol anew: a node did not take the credential.
func (c *Client) forget() {
	c.enrolled.mu.Lock()
	defer c.enrolled.mu.Unlock()
	c.enrolled.text = ""
}

// Enrol exchanges Token for a credential of Worker. Calls do it by themselves.
func (c *Client) Enrol(ctx context.Context) (api.EnrolResponse, error) {
	body, err := json.Marshal(api.EnrolRequest{Name: c.Worker})
	if err != nil {
		return api.EnrolResponse{}, err
	}
	got, _, err := get[api.EnrolResponse](ctx, c, request{
		method: http.MethodPost, path: enrolPath, header: http.Header{"Content-Type": {"application/json"}}, data: Bytes(bytes.Clone(body)),
	})
	return got, err
}
