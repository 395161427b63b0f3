package web

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// machines is a node with a fleet that is held, whose words and names are secret.
type machines struct{ mind }

func (*machines) Status(context.Context) (api.Status, error) {
	at, dollars := time.Now(), 0.1234
	return api.Status{
		Workers: 5, WorkerList: []api.WorkerStatus{{Name: "i-secret", Cores: 2}}, Peer: api.PeerStatus{Workers: 3},
		Audit:    api.AuditStatus{Quarantined: []api.Quarantine{{Worker: "i-secret", Reason: "secret"}}},
		Forecast: api.Forecast{Text: "growing", Reason: "The scheduler: launch 1: secret."}, Plain: api.Forecast{Text: "growing", Reason: "Held by the quota."},
		Fleet: api.FleetStatus{
			Kind: "ec2", Max: 10, Want: 9, Have: 3, Running: 2, Booting: 1, Held: "the quota of the account", Paused: "UnauthorizedOperation: secret", SpentToday: 7,
			Instances: []api.Instance{{ID: "i-secret", Address: "10.9.9.9", State: "working", PricePerHour: &dollars}},
			Decisions: []api.FleetDecision{{At: at, LastAt: at, Times: 1, Why: "launch 1: secret", Actions: []api.FleetAction{{Do: "drain", Instance: "i-secret"}}, Outcome: []string{"secret"}}},
		},
	}, nil
}

// TestStatus_totals: a client is told how many workers and instances there are
// and what holds the fleet, and what it has open itself, in the status as in the
// events; which they are, and what was decided, an operator's token sees, and
// everybody at a node that asks for none.
func TestStatus_totals(t *testing.T) {
	secrets := []string{"secret", "10.9.9.9", "0.1234"}
	totals := []string{`"Workers":5`, `"running":2`, `"booting":1`, `"held":"the quota of the account"`, `"spent_today":7`, `"want":9`}
	for name, c := range map[string]struct {
		token        string
		open, shared bool
		told         bool
		own          string
	}{
		"operator":     {token: "operator/ops", told: true},
		"client":       {token: "client/ci", own: `"own_open_jobs":2`},
		"other client": {token: "client/anyone", own: `"own_open_jobs":6`},
		"shared":       {token: "client/ci", shared: true, own: `"own_open_jobs":2`},
		"open node":    {open: true, told: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := Config{Limits: jobs.DefaultLimits(), Keeper: doorman{}, Status: &machines{}, Reader: idle{}, Shared: c.shared, OpenOf: func(owner string) int64 { return int64(len(owner)) }}
				if c.open {
					cfg.Keeper = nil
				}
				s := New(cfg)
				ask := func(path string) string {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					r := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
					if !c.open {
						r.Header.Set("Authorization", "Bearer "+c.token)
					}
					w, done := httptest.NewRecorder(), make(chan struct{})
					go func() {
						defer close(done)
						s.ServeHTTP(w, r)
					}()
					time.Sleep(1500 * time.Millisecond)
					cancel()
					<-done
					return w.Body.String()
				}
				var statuses []string
				for _, path := range []string{"/status", "/v1/status"} {
					statuses = append(statuses, ask(path))
				}
				for block := range strings.SplitSeq(ask("/v1/events"), "\n\n") {
					if data, ok := strings.CutPrefix(block, "event: status\ndata: "); ok {
						statuses = append(statuses, data)
					}
				}
				if len(statuses) < 4 {
					t.Fatalf("%d statuses, want two and at least two of the stream", len(statuses))
				}
				for i, status := range statuses {
					if !json.Valid([]byte(status)) {
						t.Errorf("status %d is no JSON: %s", i, status)
					}
					for _, word := range append([]string{c.own}, totals...) {
						if !strings.Contains(status, word) {
							t.Errorf("status %d has no %s: %s", i, word, status)
						}
					}
					for _, word := range secrets {
						if strings.Contains(status, word) != c.told {
							t.Errorf("status %d: %q told %t, want %t: %s", i, word, !c.told, c.told, status)
						}
					}
					if c.own == "" && strings.Contains(status, "own_open_jobs") {
						t.Errorf("status %d has open jobs of nobody: %s", i, status)
					}
				}
				time.Sleep(5 * time.Second) // the snapshots end
			})
		})
	}
}
