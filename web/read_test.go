package web_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/node"
	"workmanager/web/api"
)

// noWorker leaves what is enqueued waiting, but for jobs of one iteration.
func noWorker(c *node.Config) { c.Workers = 0 }

func TestPull(t *testing.T) {
	t.Parallel()
	s := startNode(t, func(c *node.Config) { c.Limits.Top = 4; c.Workers = 0 })
	var ids []string
	for i := range 6 {
		ids = append(ids, s.do("PUT", "/enqueue?iterations=1", strings.NewReader(fmt.Sprint(i))).id(t))
	}
	s.do("PUT", "/enqueue?iterations=2", strings.NewReader("waits")).id(t)
	line := func(i int) string {
		return fmt.Sprintf(`{"Work ID":"%s","Value":"%s"}`, ids[i], valueOf(fmt.Sprint(i)))
	}
	for query, want := range map[string]string{
		"top=1": "[" + line(5) + "]", "top=2": "[" + line(5) + "," + line(4) + "]", "top=+3&top=%2B1": "[" + line(5) + "]",
		"top=0": "[]", "top=-5": "[]", "top=-99999999999999999999": "[]", "top=2&consume=false": "[" + line(5) + "," + line(4) + "]",
	} {
		for _, body := range []string{"", `{"broken`} {
			a := s.do("POST", "/pullCompleted?"+query, strings.NewReader(body), "Content-Type: application/json")
			if a.status != 200 || a.body != want || a.header.Get("Content-Type") != "application/json" {
				t.Errorf("?%s: %d %q, want %q", query, a.status, a.body, want)
			}
			if h := a.header.Get(api.HeaderTopLimit); h != "" {
				t.Errorf("?%s: %s is %q, want none", query, api.HeaderTopLimit, h)
			}
		}
	}
	for _, top := range []string{"5", "99999999999999999999"} {
		a := s.do("POST", "/pullCompleted?top="+top, nil)
		var got []map[string]string
		a.into(t, &got)
		if len(got) != 4 || a.header.Get(api.HeaderTopLimit) != "4" || got[3]["Work ID"] != ids[2] || len(got[0]) != 2 {
			t.Errorf("top=%s: %v, limit %q: want the newest 4 of two keys, and the header", top, got, a.header.Get(api.HeaderTopLimit))
		}
	}
	if h := s.do("POST", "/pullCompleted?top=4", nil).header.Get(api.HeaderTopLimit); h != "" {
		t.Errorf("top at the limit: %s is %q, want none, as nothing was cut", api.HeaderTopLimit, h)
	}
	for query, word := range map[string]string{"": "field required", "TOP=1": "field required", "top=abc": `"abc"`, "top=1.5": `"1.5"`, "top=": `""`, "top=1&consume=yes": "true, false, 1 or 0", "top=1&consume=True": `"True"`} {
		s.do("POST", "/pullCompleted?"+query, nil).refused(t, 422, jobs.CodeInvalid, word)
	}

	// Consuming gives the oldest, each once, and the same to the same key.
	consume := func(top string, key ...string) string {
		return s.do("POST", "/pullCompleted?consume=1&top="+top, nil, key...).body
	}
	if got, want := consume("2", "Idempotency-Key: k"), "["+line(0)+","+line(1)+"]"; got != want {
		t.Errorf("consumed %s, want %s", got, want)
	}
	if got, want := consume("2", "Idempotency-Key: k"), "["+line(0)+","+line(1)+"]"; got != want {
		t.Errorf("consumed again %s, want %s", got, want)
	}
	if got, want := consume("3"), "["+line(2)+","+line(3)+","+line(4)+"]"; got != want {
		t.Errorf("consumed %s, want %s", got, want)
	}
	if got, want := s.do("POST", "/pullCompleted?top=4", nil).body, "["+line(5)+"]"; got != want {
		t.Errorf("left to pull %s, want %s", got, want)
	}
	if got := consume("3") + consume("3") + consume("0"); got != "["+line(5)+"][][]" {
		t.Errorf("consumed the rest as %s", got)
	}
}

func TestPull_is_streamed(t *testing.T) {
	t.Parallel()
	const n = 50_000
	found := make([]jobs.Result, n)
	s := serve(t, (&fake{pull: func(top int) ([]jobs.Result, error) { return found[:top], nil }}).server(t))
	a := send(t, s, "POST", "/pullCompleted?top=50000", nil)
	var got []api.PulledResult
	a.into(t, &got)
	if len(got) != n {
		t.Errorf("%d results, want %d", len(got), n)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	s := startNode(t)
	for _, path := range []string{"/status", "/v1/status"} {
		var st map[string]any
		s.do("GET", path, nil).into(t, &st)
		for _, key := range []string{"Jobs", "Workers", "queued", "retention", "workers_list", "fleet"} {
			if _, ok := st[key]; !ok || st[key] == nil {
				t.Errorf("GET %s has no %s: %v", path, key, st)
			}
		}
	}
}

func TestJobs(t *testing.T) {
	t.Parallel()
	s := startNode(t, noWorker)
	post := func(body string, more ...string) answer {
		return s.do("POST", "/v1/jobs", strings.NewReader(body), append(more, "Content-Type: application/json")...)
	}
	a := post(`{"iterations": 5, "priority": 3, "data": "aGVsbG8=", "key": "k"}`)
	var j api.Job
	a.into(t, &j)
	if a.status != 201 || a.header.Get("Location") != "/v1/jobs/"+j.ID || a.header.Get(api.HeaderDurability) != "local" || a.header.Get(api.HeaderDurabilityReason) == "" {
		t.Errorf("%d, headers %v: want 201, Location and durability", a.status, a.header)
	}
	if j.State != "queued" || j.Iterations != 5 || j.Priority != 3 || j.Done != 1 || j.Durability != "local" || j.CreatedAt.IsZero() || j.FinishedAt != nil {
		t.Errorf("job %+v", j)
	}
	var again, got api.Job
	a = post(`{"data":"aGVsbG8=","iterations":5,"key":"k"}`)
	a.into(t, &again)
	if a.status != 200 || again.ID != j.ID {
		t.Errorf("the key again: %d, %s, want 200 and %s", a.status, again.ID, j.ID)
	}
	// The same key in the header is the same job.
	a = s.do("POST", "/v1/jobs?iterations=5", strings.NewReader("hello"), "Idempotency-Key: k")
	a.into(t, &again)
	if a.status != 200 || again.ID != j.ID {
		t.Errorf("the key in the header: %d, %s, want 200 and %s", a.status, again.ID, j.ID)
	}
	post(`{"data":"aGVsbG8=","iterations":6,"key":"k"}`).refused(t, 409, jobs.CodeConflict, j.ID)
	s.do("GET", "/v1/jobs/"+j.ID, nil).into(t, &got)
	if fmt.Sprint(got) != fmt.Sprint(j) {
		t.Errorf("job %+v, submitted %+v", got, j)
	}
	a = post(`{"data":"aGVsbG8=","iterations":1}`)
	a.into(t, &got)
	if a.status != 201 || got.State != "completed" || got.Done != 1 || got.Value != valueOf("hello") || got.FinishedAt == nil {
		t.Errorf("one iteration: %d %+v, want it completed", a.status, got)
	}
	if a = s.do("POST", "/v1/jobs?iterations=7&priority=2", strings.NewReader(`{"data":"aGVsbG8="}`), "Content-Type: application/json"); a.status != 201 {
		t.Errorf("iterations in the query: %d %s", a.status, a.body)
	}

	for body, want := range map[string][]string{
		`{"data":"QQ=="}`:                                                         {"iterations: field required"},
		`{"iterations":5}`:                                                        {"data: field required"},
		`{}`:                                                                      {"data: field required", "iterations: field required"},
		`{"data":"QQ==","iterations":0}`:                                          {"iterations: 0 is not from 1 to 9007199254740992"},
		`{"data":"QQ==","iterations":-1}`:                                         {"iterations: -1 is not from 1 to"},
		`{"data":"QQ==","iterations":1.5}`:                                        {"iterations: 1.5 is not a whole number"},
		`{"data":"QQ==","iterations":1e3}`:                                        {"iterations: 1e3 is not a whole number"},
		`{"data":"QQ==","iterations":"5"}`:                                        {"iterations: a JSON string is not a whole number from 1 to"},
		`{"data":"QQ==","iterations":[5]}`:                                        {"iterations: a JSON array is not"},
		`{"data":"QQ==","iterations":null}`:                                       {"iterations: field required"},
		`{"data":"QQ==","iterations":9007199254740993}`:                           {"iterations: 9007199254740993 is not from"},
		`{"data":"QQ==","iterations":99999999999999999999999}`:                    {"iterations: 99999999999999999999999 is not from"},
		`{"data":"QQ==","iterations":5,"x":1,"Key":"k"}`:                          {"x: no such field", "Key: no such field"},
		`{"data":"QQ==","iterations":5,"priority":10}`:                            {"priority: 10 is more than 9"},
		`{"data":"QQ==","iterations":5,"priority":-1}`:                            {"priority: -1 is less than 0"},
		`{"data":"QQ==","iterations":5,"priority":"1"}`:                           {"priority: a JSON string is not a whole number"},
		`{"data":"QQ==","iterations":5,"checkpoints":1001}`:                       {"checkpoints: 1001 is more than 1000"},
		`{"data":"QQ==","iterations":5,"checkpoints":-1,"priority":-1}`:           {"checkpoints: -1 is less than 0", "priority: -1"},
		`{"data":"QQ==","iterations":5,"checkpoints":"all"}`:                      {"checkpoints: a JSON string is not a whole number"},
		`{"data":"QQ==","iterations":5,"key":"a b"}`:                              {"key: character 2"},
		`{"data":"QQ==","iterations":5,"key":7}`:                                  {"key: a JSON number is not a string"},
		`{"data":"QQ==","iterations":5,"key":"` + strings.Repeat("k", 256) + `"}`: {"key: has 256 characters"},
		`{"data":"","iterations":0}`:                                              {"data: is empty", "filename", "iterations: 0"},
	} {
		p := post(body).refused(t, 422, jobs.CodeInvalid, want...)
		for _, word := range []string{"uint64", "int", "Go ", "json:"} {
			if strings.Contains(strings.NewReplacer("iterations", "", "checkpoints", "").Replace(p.Detail), word) {
				t.Errorf("%s: detail %q names a Go type", body, p.Detail)
			}
		}
		if p.Errors[0].Loc[0] != "body" && p.Errors[0].Loc[0] != "query" {
			t.Errorf("%s: errors %+v", body, p.Errors)
		}
	}
	for _, body := range []string{``, `[]`, `{"data":"QQ=="`, `{"data":"QQ==","iterations":5}}`, `{"data":"QQ==","iterations":05}`} {
		post(body).refused(t, 400, jobs.CodeMalformed, "no JSON object")
	}
	post(`{"data":"QQ==","iterations":5,"key":"a"}`, "Idempotency-Key: b").refused(t, 422, jobs.CodeInvalid, "key: differs")
	s.do("POST", "/v1/jobs", strings.NewReader(`{"data":"QQ==","iterations":5}`), "Content-Type: application/x-www-form-urlencoded").refused(t, 422, jobs.CodeInvalid, "iterations: field required", "application/json")
}

func TestJobs_wait_returns_at_the_end(t *testing.T) {
	t.Parallel()
	s := startNode(t)
	var slow, quick api.Job
	s.do("POST", "/v1/jobs?iterations=9007199254740992", strings.NewReader("x")).into(t, &slow)
	began := time.Now()
	s.do("GET", "/v1/jobs/"+slow.ID+"?wait=50ms", nil).into(t, &slow)
	if took := time.Since(began); slow.State == "completed" || took < 50*time.Millisecond {
		t.Errorf("after %v the job is %s", took, slow.State)
	}
	s.do("DELETE", "/v1/jobs/"+slow.ID, nil)
	s.do("POST", "/v1/jobs?iterations=100000", strings.NewReader("x")).into(t, &quick)
	s.do("GET", "/v1/jobs/"+quick.ID+"?wait=1h", nil).into(t, &quick)
	if quick.State != "completed" || quick.Done != quick.Iterations || quick.Value == "" {
		t.Errorf("after the wait the job is %+v", quick)
	}
	for query, word := range map[string]string{"wait=abc": `"abc"`, "wait=-1": "negative", "wait=-5s": "negative", "wait=NaN": `"NaN"`, "wait=": `""`} {
		s.do("GET", "/v1/jobs/"+quick.ID+"?"+query, nil).refused(t, 422, jobs.CodeInvalid, "wait: ", word)
	}
	for _, query := range []string{"wait=0.01", "wait=10ms", "wait=1e-2", "wait=0"} {
		if a := s.do("GET", "/v1/jobs/"+quick.ID+"?"+query, nil); a.status != 200 {
			t.Errorf("?%s: %d %s", query, a.status, a.body)
		}
	}
	for _, id := range []string{"x", "0193a2c4-7e21-7c3e-9b1a-5d2f60c4e80", "0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801"} {
		s.do("GET", "/v1/jobs/"+id, nil).refused(t, 404, jobs.CodeNotFound, id)
		s.do("DELETE", "/v1/jobs/"+id, nil).refused(t, 404, jobs.CodeNotFound, id)
	}
}

func TestJobs_list(t *testing.T) {
	t.Parallel()
	s := startNode(t, noWorker)
	if a := s.do("GET", "/v1/jobs", nil); !strings.HasPrefix(a.body, `{"jobs":[],`) {
		t.Errorf("no jobs: %s, want an empty list", a.body)
	}
	want := map[string]bool{}
	for i := range 25 {
		want[s.do("PUT", "/enqueue?iterations=2", strings.NewReader(fmt.Sprint(i))).id(t)] = true
	}
	s.do("PUT", "/enqueue?iterations=1", strings.NewReader("x")).id(t)
	got := map[string]bool{}
	cursor := ""
	for more := true; more; {
		var page api.JobList
		s.do("GET", "/v1/jobs?state=queued&limit=10&after="+cursor, nil).into(t, &page)
		for _, j := range page.Jobs {
			if got[j.ID] || !want[j.ID] || j.State != "queued" {
				t.Errorf("job %s, %s, is listed wrongly or twice", j.ID, j.State)
			}
			got[j.ID] = true
		}
		cursor, more = page.Cursor, page.More
	}
	if len(got) != len(want) {
		t.Errorf("%d jobs listed, want %d", len(got), len(want))
	}
	for query, word := range map[string]string{"state=done": "queued, leased, completed, failed, cancelled", "limit=0": "0 is not from 1 to 1000", "limit=1001": "1001", "limit=x": `"x"`, "after=%21": "after"} {
		s.do("GET", "/v1/jobs?"+query, nil).refused(t, 422, jobs.CodeInvalid, word)
	}
}

func TestJobs_cancel(t *testing.T) {
	t.Parallel()
	s := startNode(t, noWorker)
	id := s.do("PUT", "/enqueue?iterations=5", strings.NewReader("x")).id(t)
	for range 2 { // safe to repeat
		a := s.do("DELETE", "/v1/jobs/"+id, nil)
		var j api.Job
		a.into(t, &j)
		if a.status != 200 || j.State != "cancelled" || j.FinishedAt == nil || a.header.Get(api.HeaderDurability) != "local" {
			t.Errorf("cancelled: %d %+v", a.status, j)
		}
	}
	done := s.do("PUT", "/enqueue?iterations=1", strings.NewReader("x")).id(t)
	var j api.Job
	s.do("DELETE", "/v1/jobs/"+done, nil).into(t, &j)
	if j.State != "completed" || j.Value == "" {
		t.Errorf("a completed job, cancelled: %+v, want it as it was", j)
	}
	s.do("DELETE", "/v1/jobs/"+done+"?purge=true", nil).into(t, &j)
	if a := s.do("GET", "/v1/jobs/"+done, nil); strings.Contains(a.body, valueOf("x")) || !strings.Contains(a.body, `"purged":true`) {
		t.Errorf("a purged job: %s, want it without its value", a.body)
	}
	s.do("DELETE", "/v1/jobs/"+id+"?purge=maybe", nil).refused(t, 422, jobs.CodeInvalid, "purge: ")
	s.do("DELETE", "/v1/jobs/"+id+"?ack=x", nil).refused(t, 422, jobs.CodeInvalid, "ack: ")
}

func TestResults(t *testing.T) {
	t.Parallel()
	s := startNode(t)
	if a := s.do("GET", "/v1/results", nil); !strings.HasPrefix(a.body, `{"results":[],`) {
		t.Errorf("no results: %s, want an empty list", a.body)
	}
	var ids []string
	for i := range 7 {
		ids = append(ids, s.do("PUT", "/enqueue?iterations=1", strings.NewReader(fmt.Sprint(i))).id(t))
	}
	cursor, n := "", 0
	for more := true; more; {
		var page api.ResultList
		s.do("GET", "/v1/results?limit=3&after="+cursor, nil).into(t, &page)
		for _, r := range page.Results {
			if r.ID != ids[n] || r.Value != valueOf(fmt.Sprint(n)) || r.Iterations != 1 || r.CompletedAt.IsZero() {
				t.Errorf("result %d is %+v, want job %s", n, r, ids[n])
			}
			n++
		}
		cursor, more = page.Cursor, page.More
	}
	if n != len(ids) {
		t.Errorf("%d results, want %d", n, len(ids))
	}
	// A poll returns with the next result.
	late := make(chan answer)
	go func() { late <- s.do("GET", "/v1/results?wait=30s&after="+cursor, nil) }()
	id := s.do("PUT", "/enqueue?iterations=1000", strings.NewReader("late")).id(t)
	var page api.ResultList
	(<-late).into(t, &page)
	if len(page.Results) != 1 || page.Results[0].ID != id {
		t.Errorf("the poll returned %+v, want job %s", page, id)
	}
	s.do("GET", "/v1/results?wait=10ms&after="+page.Cursor, nil).into(t, &page)
	if len(page.Results) != 0 || page.More {
		t.Errorf("a poll without news returned %+v", page)
	}
	for query, word := range map[string]string{"limit=0": "0 is not from 1 to 10000", "limit=10001": "10001", "wait=x": "wait: "} {
		s.do("GET", "/v1/results?"+query, nil).refused(t, 422, jobs.CodeInvalid, word)
	}
	if a := s.do(http.MethodHead, "/v1/results", nil); a.status != 200 || a.body != "" {
		t.Errorf("HEAD: %d %q", a.status, a.body)
	}
}
