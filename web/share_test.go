package web_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"workmanager/jobs"
	"workmanager/node"
	"workmanager/web/api"
)

// TestShare: a client that has as many open jobs as one may have gets a 429 by
// every way in, which says how many and what the limit is; others submit as ever.
// What is known already is answered, and what ends makes room.
func TestShare(t *testing.T) {
	t.Parallel()
	const share = 5
	o := startOwners(t, node.ClientsOwn, func(cfg *node.Config) { cfg.Workers, cfg.Limits.ClientJobs = 0, share })
	put := func(who, data string, header ...string) (int, http.Header, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "PUT", "https://"+o.addr+"/enqueue?iterations=1000", strings.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+o.tokens[who])
		r.Header.Set("Content-Type", "application/octet-stream")
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		resp, err := o.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header, string(b)
	}
	batch := func(who string, lines int) (taken int, refused []api.Problem) {
		t.Helper()
		var body strings.Builder
		for i := range lines {
			fmt.Fprintf(&body, `{"data":"aGVsbG8=","iterations":%d}`+"\n", 2000+i)
		}
		status, text := o.do(who, "POST", "/v1/jobs/batch", body.String())
		if status != 200 {
			t.Fatalf("batch: %d %s", status, text)
		}
		for line := range strings.Lines(text) {
			var l api.BatchLine
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatal(err)
			}
			if l.Error != nil {
				refused = append(refused, *l.Error)
			} else if l.ID != "" {
				taken++
			}
		}
		if taken+len(refused) != lines {
			t.Errorf("%d lines answered of %d: %s", taken+len(refused), lines, text)
		}
		return taken, refused
	}
	tells := func(way string, p api.Problem) {
		t.Helper()
		if p.Status != 429 || p.Code != string(jobs.CodeLimited) {
			t.Errorf("%s: %+v, want 429 and %s", way, p, jobs.CodeLimited)
		}
		for _, word := range []string{`client "alice"`, "5 open jobs", "5 is the limit", "--max-client-jobs"} {
			if !strings.Contains(p.Detail, word) {
				t.Errorf("%s: %q does not say %q", way, p.Detail, word)
			}
		}
	}
	asProblem := func(way, text string) {
		t.Helper()
		var p api.Problem
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			t.Fatalf("%s: %s: %v", way, text, err)
		}
		tells(way, p)
	}

	status, _, text := put("alice", "one", "Idempotency-Key", "k")
	if status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	taken, refused := batch("alice", 7)
	if taken != share-1 || len(refused) != 3 {
		t.Errorf("a batch of 7 beside 1 open job: %d taken, %d refused, want 4 and 3", taken, len(refused))
	}
	for _, p := range refused {
		tells("batch", p)
	}
	status, header, text := put("alice", "more")
	if status != 429 || header.Get("Retry-After") != "10" {
		t.Errorf("PUT /enqueue over the share: %d, Retry-After %q", status, header.Get("Retry-After"))
	}
	asProblem("enqueue", text)
	if status, text := o.do("alice", "POST", "/v1/jobs?iterations=9", "more", "Content-Type", "application/octet-stream"); status != 429 {
		t.Errorf("POST /v1/jobs over the share: %d %s", status, text)
	} else {
		asProblem("v1/jobs", text)
	}
	if status, _, text := put("alice", "one", "Idempotency-Key", "k"); status != 200 {
		t.Errorf("a repeat with its key over the share: %d %s, want its job", status, text)
	}
	if status, _, text := put("alice", "other", "Idempotency-Key", "k"); status != 409 {
		t.Errorf("a key with other data over the share: %d %s, want 409", status, text)
	}
	for _, who := range []string{"bob", "operator"} {
		if status, _, text := put(who, "mine"); status != 200 {
			t.Errorf("%s beside a client with a full share: %d %s", who, status, text)
		}
	}
	if taken, refused := batch("operator", 3*share); taken != 3*share {
		t.Errorf("an operator's batch: %d taken, %+v; operators have no share", taken, refused)
	}

	clients := func(who, path string) api.ClientsStatus {
		t.Helper()
		var st api.Status
		if _, text := o.do(who, "GET", path, ""); json.Unmarshal([]byte(text), &st) != nil {
			t.Fatalf("%s of %s: %s", path, who, text)
		}
		return st.Clients
	}
	for _, path := range []string{"/status", "/v1/status"} {
		for who, own := range map[string]int64{"alice": share, "bob": 1} {
			if c := clients(who, path); c.MaxOpenJobs != share || c.OwnOpenJobs == nil || *c.OwnOpenJobs != own || c.MostOpenJobs != share || c.WithOpenJobs != 2 {
				t.Errorf("GET %s of %s: %+v, want %d of %d, of 2 clients", path, who, c, own, share)
			}
		}
		if c := clients("operator", path); c.OwnOpenJobs != nil || c.RefusedJobs != 5 {
			t.Errorf("GET %s of the operator: %+v, want 5 refused and nothing of its own", path, c)
		}
	}
	_, metrics := o.do("operator", "GET", "/metrics", "")
	for _, line := range []string{"workmanager_client_open_jobs_limit 5", "workmanager_client_open_jobs_most 5", "workmanager_clients_with_open_jobs 2", "workmanager_client_jobs_refused_total 5"} {
		if !strings.Contains(metrics, "\n"+line+"\n") {
			t.Errorf("/metrics has no line %q", line)
		}
	}
	if strings.Contains(metrics, "alice") || strings.Contains(metrics, "bob") {
		t.Error("/metrics names a client")
	}

	_, text = o.do("alice", "GET", "/v1/jobs?state=queued&limit=1", "")
	var page api.JobList
	if err := json.Unmarshal([]byte(text), &page); err != nil || len(page.Jobs) != 1 {
		t.Fatalf("%s: %v", text, err)
	}
	if status, text := o.do("alice", "DELETE", "/v1/jobs/"+page.Jobs[0].ID, ""); status != 200 {
		t.Fatalf("cancel: %d %s", status, text)
	}
	if taken, _ := batch("alice", 3); taken != 1 {
		t.Errorf("%d of 3 lines taken after a cancel, want 1", taken)
	}
}
