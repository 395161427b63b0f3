package web_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// TestAckBoth_not_reached: the one error after a commit says that there was one.
func TestAckBoth_not_reached(t *testing.T) {
	t.Parallel()
	written := jobs.Errorf(jobs.CodeUnavailable, "ack=both was not reached in time: it IS written").Retry(time.Second)
	written.Written = true
	refused := jobs.Errorf(jobs.CodeUnavailable, "ack=both cannot be kept").Retry(time.Second)
	const id = "0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801"
	for name, row := range map[string]struct {
		whole, one error // of the call, or of the outcome
		want       string
	}{
		"written":     {nil, written, "local"},
		"refused":     {refused, nil, ""},
		"not written": {nil, refused, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var acks []jobs.Ack
			outcome := func() ([]jobs.Outcome, error) {
				if row.whole != nil {
					return nil, row.whole
				}
				return []jobs.Outcome{{Err: row.one, Durability: jobs.Durability{Reason: "peer_timeout: it is slow"}}}, nil
			}
			s := serve(t, validated(t, (&fake{
				enqueue: func(_ context.Context, _ []jobs.Job, ack jobs.Ack) ([]jobs.Outcome, error) {
					acks = append(acks, ack)
					return outcome()
				},
				cancel: func([]jobs.ID) ([]jobs.Outcome, error) { return outcome() },
			}).server(t)))
			for _, call := range []struct{ method, path, body, mediaType string }{
				{"PUT", "/enqueue?iterations=5&ack=both", "data", "text/plain"},
				{"POST", "/v1/jobs?ack=both", `{"data":"eA==","iterations":5}`, "application/json"},
				{"DELETE", "/v1/jobs/" + id + "?ack=both", "", "text/plain"},
			} {
				a := send(t, s, call.method, call.path, strings.NewReader(call.body), "Content-Type: "+call.mediaType)
				a.refused(t, http.StatusServiceUnavailable, jobs.CodeUnavailable, "ack=both")
				if got := a.header.Get(api.HeaderDurability); got != row.want {
					t.Errorf("%s %s: %s is %q, want %q", call.method, call.path, api.HeaderDurability, got, row.want)
				}
				if got := a.header.Get("Retry-After"); got != "1" {
					t.Errorf("%s %s: Retry-After %q, want 1", call.method, call.path, got)
				}
			}
			a := send(t, s, "POST", "/v1/jobs/batch?ack=both", strings.NewReader(`{"data":"eA==","iterations":5}`), "Content-Type: application/x-ndjson")
			var line api.BatchLine
			if err := json.Unmarshal([]byte(a.body), &line); err != nil || line.Error == nil || line.Error.Code != string(jobs.CodeUnavailable) {
				t.Errorf("batch: got %q (%v), want a line refused as unavailable", a.body, err)
			}
			if line.Durability != row.want || (line.ID != "") != (row.want != "") {
				t.Errorf("batch: durability %q of id %q, want %q with an id only if it stands", line.Durability, line.ID, row.want)
			}
			for _, ack := range acks {
				if ack != jobs.AckBoth {
					t.Errorf("the queue was asked for ack %q, want both", ack)
				}
			}
		})
	}
}

// TestJob_wait_replicated: the copy is waited for, not the end.
func TestJob_wait_replicated(t *testing.T) {
	t.Parallel()
	const id = "0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801"
	both := false
	view := func(id jobs.ID) jobs.View {
		d := jobs.Durability{Both: both}
		if !both {
			d.Reason = "peer_down: the peer does not answer"
		}
		return jobs.View{Job: jobs.Job{ID: id, Iterations: 5, Home: "a", CreatedAt: time.UnixMicro(1)}, Done: 1, Durability: d}
	}
	var asked []time.Duration
	s := serve(t, validated(t, (&fake{
		job: func(_ context.Context, id jobs.ID, _ time.Duration) (jobs.View, error) { return view(id), nil },
		copied: func(_ context.Context, id jobs.ID, wait time.Duration) (jobs.View, error) {
			asked = append(asked, wait)
			both = true
			return view(id), nil
		},
	}).server(t)))
	for _, row := range []struct {
		query      string
		replicated bool
		asked      int
	}{{"", false, 0}, {"?wait=1ms", false, 0}, {"?wait=replicated", true, 1}, {"", true, 1}} {
		var j api.Job
		send(t, s, "GET", "/v1/jobs/"+id+row.query, nil).into(t, &j)
		if j.Replicated != row.replicated || (j.Durability == "both") != row.replicated || len(asked) != row.asked {
			t.Errorf("%q: replicated %v, durability %s, waits for a copy %v; want %v and %d", row.query, j.Replicated, j.Durability, asked, row.replicated, row.asked)
		}
	}
	if len(asked) == 1 && asked[0] != jobs.MaxWait {
		t.Errorf("waits %v, want %v", asked[0], jobs.MaxWait)
	}
	for _, path := range []string{"/v1/jobs/" + id + "?wait=copied", "/v1/results?wait=replicated"} {
		send(t, s, "GET", path, nil).refused(t, 422, jobs.CodeInvalid, "wait")
	}
}
