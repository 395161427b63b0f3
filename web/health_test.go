package web_test

import (
	"errors"
	"strings"
	"testing"

	"workmanager/jobs"
	"workmanager/web"
	"workmanager/web/api"
)

func TestReadyz_says_what_is_not_as_it_should_be(t *testing.T) {
	for _, row := range []struct {
		status api.Status
		want   string
	}{
		{api.Status{Writable: true, Peer: api.PeerStatus{Session: "none"}}, `{"status":"ok"}`},
		{api.Status{Writable: true, Peer: api.PeerStatus{Session: "sync", Complete: true}}, `{"status":"ok"}`},
		{api.Status{Writable: true, Peer: api.PeerStatus{Session: "sync"}}, `{"status":"ok","reasons":["catching_up"]}`},
		{api.Status{Writable: true, Peer: api.PeerStatus{Session: "connected", Complete: true}}, `{"status":"ok","reasons":["peer_down"]}`},
		{api.Status{Peer: api.PeerStatus{Session: "down"}, WriteProblem: "secret"}, `{"status":"ok","reasons":["read_only","peer_down","catching_up"]}`},
	} {
		got := get(pageServer(t, fixedStatus{status: row.status}), "GET", "/readyz")
		if text := strings.TrimSpace(body(t, got)); got.StatusCode != 200 || text != row.want {
			t.Errorf("/readyz of %+v: %d %s, want %s", row.status, got.StatusCode, text, row.want)
		}
	}
}

func TestHealthz_says_what_stands_still(t *testing.T) {
	var problem error
	h := validated(t, web.New(web.Config{Status: fixedStatus{}, Limits: jobs.DefaultLimits(), Alive: func() error { return problem }}))
	if got := get(h, "GET", "/healthz"); got.StatusCode != 200 {
		t.Errorf("/healthz of a node that works: %d", got.StatusCode)
	}
	problem = errors.New("its loop has stood still for 1m0s")
	got := get(h, "GET", "/healthz")
	if text := body(t, got); got.StatusCode != 503 || !strings.Contains(text, problem.Error()) {
		t.Errorf("/healthz of a node that stands still: %d %s", got.StatusCode, text)
	}
}
