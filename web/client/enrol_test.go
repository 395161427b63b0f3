package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
	"workmanager/web/client"
)

// TestEnrol_by_instance has a worker let in for what it is, which goes on with
// what it has while it is not let in anew, and ends with that.
func TestEnrol_by_instance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		given, shown, refuse := 0, "", 0
		n := &nodes{}
		n.of = map[string]func(r *http.Request, body []byte) (int, any){"a:1": func(r *http.Request, body []byte) (int, any) {
			switch r.URL.Path {
			case "/worker/enrol/instance":
				var req api.EnrolInstanceRequest
				if err := json.Unmarshal(body, &req); err != nil || req.Instance != "i-0123456789abcdef0" || req.Slot == nil || *req.Slot != 3 || r.Header.Get("Authorization") != "" {
					t.Errorf("enrols with %s, %v", body, r.Header)
				}
				if refuse != 0 {
					return refuse, api.Problem{Status: refuse, Code: map[int]string{403: "forbidden", 503: "unavailable", 401: "unauthorized"}[refuse], Detail: "no"}
				}
				given++
				return 200, api.EnrolResponse{Name: req.Instance, Credential: fmt.Sprintf("wmc_%d", given), TTLSeconds: 900}
			case "/worker/lease":
				shown = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
				return 200, api.LeaseReply{Leases: []api.Lease{}, TTL: 7, Nodes: []string{"http://10.0.0.2:5000", "https://10.0.0.3:5000"}}
			}
			t.Errorf("asks for %s", r.URL.Path)
			return 404, api.Problem{}
		}}
		slot := 3
		c := &client.Client{
			URLs: []string{"https://a:1"}, HTTP: &http.Client{Transport: n}, Worker: "i-0123456789abcdef0",
			Instance: &api.EnrolInstanceRequest{Instance: "i-0123456789abcdef0", Slot: &slot},
		}
		lease := func() error {
			t.Helper()
			shown = ""
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := c.Lease(ctx, jobs.Worker{Name: c.Worker, Instance: "x", Cores: 1}, jobs.Capacity{Jobs: 1, Iterations: 1})
			return err
		}
		want := func(when, text string) {
			t.Helper()
			if err := lease(); err != nil || shown != text {
				t.Errorf("%s: shows %q, %v; want %q", when, shown, err, text)
			}
		}
		refuse = 503
		if err := lease(); err == nil || shown != "" {
			t.Errorf("not let in so far: %v, shows %q", err, shown)
		}
		refuse = 403
		if err := lease(); jobs.CodeOf(err) != jobs.CodeForbidden {
			t.Errorf("not let in: %v", err)
		}
		refuse = 0
		want("let in", "wmc_1")
		time.Sleep(449 * time.Second)
		want("before half of its time", "wmc_1")
		time.Sleep(2 * time.Second)
		want("behind it", "wmc_2")
		refuse = 403
		time.Sleep(460 * time.Second)
		want("not let in anew", "wmc_2")
		time.Sleep(435 * time.Second)
		want("just before its end", "wmc_2")
		time.Sleep(10 * time.Second)
		if err := lease(); jobs.CodeOf(err) != jobs.CodeForbidden || shown != "" {
			t.Errorf("at its end: %v, shows %q", err, shown)
		}
		refuse = 0
		want("let in again", "wmc_3")
		for _, host := range n.since() {
			if strings.HasPrefix(host, "10.0.0.2") {
				t.Error("a credential is sent in the clear")
			}
		}
	})
}

func TestEnrol_by_instance_not_in_the_clear(t *testing.T) {
	c := &client.Client{URLs: []string{"http://10.0.0.1:5000"}, Worker: "i-0123456789abcdef0", Instance: &api.EnrolInstanceRequest{Instance: "i-0123456789abcdef0"}}
	if _, err := c.Enrol(t.Context()); jobs.CodeOf(err) != jobs.CodeInvalid || !strings.Contains(err.Error(), "https") {
		t.Errorf("Enrol() without TLS = %v", err)
	}
}

// TestEnrol_unknown_token returns, rather than wait for itself.
func TestEnrol_unknown_token(t *testing.T) {
	n := &nodes{of: map[string]func(r *http.Request, body []byte) (int, any){"a:1": func(r *http.Request, body []byte) (int, any) {
		return 401, api.Problem{Status: 401, Code: "unauthorized", Detail: "not known"}
	}}}
	c := &client.Client{URLs: []string{"https://a:1"}, HTTP: &http.Client{Transport: n}, Worker: "w1", Token: "wm_worker_x_y"}
	done := make(chan error, 1)
	go func() {
		_, err := c.Lease(context.Background(), jobs.Worker{Name: "w1", Instance: "x", Cores: 1}, jobs.Capacity{Jobs: 1, Iterations: 1})
		done <- err
	}()
	select {
	case err := <-done:
		if jobs.CodeOf(err) != jobs.CodeAuth {
			t.Errorf("Lease() = %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Lease() does not return")
	}
}
