package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"workmanager/jobs"
	"workmanager/web"
	"workmanager/web/api"
)

// quiet is a fake of everything that takes what comes in and says little. Where
// it panics the server answers 500, which is what the fuzzers look for.
func quiet(f *testing.F) *fake {
	x := &fake{log: slog.New(slog.DiscardHandler), spill: f.TempDir()}
	x.cancel = func([]jobs.ID) ([]jobs.Outcome, error) { return make([]jobs.Outcome, 1), nil }
	x.consume = func(int, string) ([]jobs.Result, error) { return nil, nil }
	x.pull = func(int) ([]jobs.Result, error) { return nil, nil }
	x.job = func(_ context.Context, id jobs.ID, _ time.Duration) (jobs.View, error) {
		return jobs.View{Job: jobs.Job{ID: id, Iterations: 5}}, nil
	}
	x.copied = x.job
	x.results = func(context.Context, jobs.ResultsQuery) (jobs.Results, error) { return jobs.Results{}, nil }
	x.status = func() (api.Status, error) { return busyStatus(), nil }
	return x
}

// FuzzBatch holds a whole batch, cut anywhere, to its lines read one by one:
// each that is not blank is answered in its place, and taken if it is a job.
func FuzzBatch(f *testing.F) {
	good := `{"data":"aGVsbG8=","iterations":5}`
	for _, s := range []string{
		"", "\n", good, good + "\n", good + "\n\n \t\r\n" + good, good + "\r\n" + `{"data":"QQ==","iterations":0}` + "\n" + good, "{}\n[]\nnull\n1\n\"\"", good[:20], good + good, "\x00\n" + good + "\n\xff",
		strings.Repeat(good+"\n", 50), `{"key":"k","data":"QQ==","iterations":5}` + "\n" + `{"key":"k","data":"QUI=","iterations":5}`, strings.Repeat("x", 3000) + "\n" + good,
	} {
		f.Add([]byte(s), []byte{1, 1, 200})
		f.Add([]byte(s), []byte{})
	}
	const longest = 2048
	x := quiet(f)
	x.limits = func(l *jobs.Limits) { l.BatchLineBytes, l.DataBytes = longest, fuzzMax }
	s := x.server(f)
	f.Fuzz(func(t *testing.T, body, cuts []byte) {
		if deep(body) || len(body) > 1<<16 {
			t.Skip()
		}
		r := httptest.NewRequest("POST", "/v1/jobs/batch", &cutReader{pieces: web.Cut(body, cuts)})
		r.ContentLength = -1
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, r)
		if rec.Code != http.StatusOK {
			t.Fatalf("%q: %d %s", body, rec.Code, rec.Body)
		}
		replies := strings.Split(strings.TrimSuffix(rec.Body.String(), "\n"), "\n")
		n := 0
		lines := bytes.Split(body, []byte("\n"))
		for i, line := range lines {
			if len(bytes.Trim(line, " \t\r")) == 0 {
				continue
			}
			if n == len(replies) {
				t.Fatalf("%q: %d replies: %q", body, n, replies)
			}
			var got struct {
				Line  int    `json:"line"`
				ID    string `json:"id"`
				Error *struct {
					Code string `json:"code"`
				} `json:"error"`
				Code string `json:"code"`
			}
			if err := json.Unmarshal([]byte(replies[n]), &got); err != nil {
				t.Fatalf("%q: line %d is answered with %q: %v", body, i+1, replies[n], err)
			}
			_, want := wantLine(line)
			want = want && len(line) <= longest
			if got.Line != i+1 || (got.ID != "") != want {
				t.Fatalf("%q: line %d is %q, a job: %v; answered with %q", body, i+1, line, want, replies[n])
			}
			n++
		}
		if n != len(replies) && (n > 0 || replies[0] != "") {
			t.Fatalf("%q: %d lines are answered by %q", body, n, replies)
		}
	})
}

type cutReader struct{ pieces [][]byte }

func (c *cutReader) Read(b []byte) (int, error) {
	for len(c.pieces) > 0 && len(c.pieces[0]) == 0 {
		c.pieces = c.pieces[1:]
	}
	if len(c.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.pieces[0])
	c.pieces[0] = c.pieces[0][n:]
	return n, nil
}

// FuzzWorker: what a worker sends is refused, or reaches the node in the bounds
// that there are.
func FuzzWorker(f *testing.F) {
	v := strings.Repeat("ab", 64)
	id := "0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801"
	who := `"worker":{"name":"w1","instance":"i","cores":1,"lanes":8,"rate":1e6,"kernel":"avx2","version":"1"}`
	f.Add(false, []byte(`{`+who+`,"jobs":5,"iterations":1000,"wait":0}`))
	f.Add(false, []byte(`{"worker":{"name":"w\n","instance":"","cores":-1},"jobs":99999999,"iterations":0,"wait":1e300}`))
	for _, kind := range []string{api.ReportProgress, api.ReportValue, api.ReportFailure, api.ReportHandBack, "other"} {
		f.Add(true, fmt.Appendf(nil, `{%s,"reports":[{"kind":"%s","id":"%s","boot":"%s","fence":7,"v1":"%s","iterations":5,"done":5,"value":"%s","rate":1,"ticket":"t","rungs_from":0,"rungs":"","error":"no"}]}`, who, kind, id, id, v, v))
	}
	f.Add(true, []byte(`{`+who+`,"reports":[{}]}`))
	f.Add(true, []byte(`{`+who+`,"reports":[{"kind":"value","done":18446744073709551615,"iterations":9007199254740993,"rate":-1,"rungs":"AAAA"}]}`))
	x := quiet(f)
	x.lease = func(_ context.Context, w jobs.Worker, c jobs.Capacity) ([]jobs.Lease, error) {
		if !plainWorker(w) || c.Jobs < 1 || c.Iterations < 1 || c.Wait < 0 || c.Wait > jobs.MaxWait {
			panic(fmt.Sprintf("a lease of %+v for %+v", c, w))
		}
		return nil, nil
	}
	x.report = func(w jobs.Worker, batch []jobs.Report) ([]jobs.Verdict, error) {
		for _, r := range batch {
			if !plainWorker(w) || jobs.CheckIterations(r.Iterations) != nil || r.Progress.Done > r.Iterations || r.Kind == jobs.ReportValue && r.Progress.Done != r.Iterations ||
				len(r.Err) > jobs.MaxErrBytes || len(r.Ticket) > 64 || r.RungsFrom < 0 || r.RungsFrom > jobs.MaxKeep || !(r.Rate >= 0 && r.Rate <= 1e15) || len(r.Rungs)%len(jobs.Value{}) != 0 || !utf8.ValidString(r.Err) {
				panic(fmt.Sprintf("a report of %+v: %+v", w, r))
			}
		}
		return make([]jobs.Verdict, len(batch)), nil
	}
	s := x.server(f)
	f.Fuzz(func(t *testing.T, report bool, body []byte) {
		path := "/worker/lease"
		if report {
			path = "/worker/report"
		}
		r := httptest.NewRequest("POST", path, bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, r)
		if rec.Code >= 500 || !json.Valid(rec.Body.Bytes()) {
			t.Fatalf("%s %q: %d %s", path, body, rec.Code, rec.Body)
		}
	})
}

func plainWorker(w jobs.Worker) bool {
	return w.Name != "" && len(w.Name) <= 100 && strings.Trim(w.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") == "" && w.Cores >= 0 && w.Rate >= 0
}

// FuzzRequests: no line and no header of a request makes a panic, or an error
// of ours, or an answer that is not what its type says.
func FuzzRequests(f *testing.F) {
	id := "0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801"
	for _, line := range []string{
		"PUT /enqueue?iterations=5&priority=3&ack=local", "POST /pullCompleted?top=10&consume=true", "GET /status", "POST /v1/jobs?iterations=5", "GET /v1/jobs?state=leased&limit=3&after=abc",
		"GET /v1/jobs/" + id + "?wait=1ms", "GET /v1/jobs/" + id + "?wait=replicated", "DELETE /v1/jobs/" + id + "?purge=true", "GET /v1/jobs/" + id + "/checkpoints", "GET /v1/jobs/" + id + "/receipt", "GET /v1/results?after=x&limit=1&wait=0",
		"GET /v1/fleet", "POST /v1/fleet?do=drain&instance=i-1", "GET /metrics", "GET /assets/%2e%2e%2fx", "GET /v1/jobs/", "POST /login", "GET //v1/status", "OPTIONS /peer/x", "get /status", "GET /v1/results?limit=1_0&limit=%zz&%61fter=1",
	} {
		method, target, _ := strings.Cut(line, " ")
		f.Add(method, target, "Content-Type", "application/json", []byte(`{"data":"QQ==","iterations":5}`))
		f.Add(method, target, "Idempotency-Key", "a b", []byte("data=x"))
	}
	f.Add("PUT", "/enqueue?iterations=5", "Content-Type", "multipart/form-data; boundary=\"", []byte("--\r\n"))
	f.Add("PUT", "/enqueue?iterations=5", "Content-Encoding", "gzip", []byte("\x1f\x8b"))
	f.Add("GET", "/", "Cookie", "workmanager=x; =;", []byte(nil))
	x := quiet(f)
	x.lease = func(context.Context, jobs.Worker, jobs.Capacity) ([]jobs.Lease, error) { return nil, nil }
	x.report = func(_ jobs.Worker, b []jobs.Report) ([]jobs.Verdict, error) { return make([]jobs.Verdict, len(b)), nil }
	x.list = func(q jobs.ListQuery) (jobs.List, error) {
		if q.Limit < 1 || q.Limit > jobs.DefaultLimits().ListJobs {
			panic(fmt.Sprintf("a page of %d jobs", q.Limit))
		}
		return jobs.List{}, nil
	}
	s := x.server(f)
	f.Fuzz(func(t *testing.T, method, target, name, value string, body []byte) {
		if !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "/v1/events") || strings.Contains(target, "wait=") && !strings.Contains(target, "wait=1ms") {
			t.Skip() // what lasts
		}
		r, err := http.NewRequest(method, "http://x"+target, bytes.NewReader(body))
		if err != nil {
			t.Skip()
		}
		r.RequestURI, r.RemoteAddr = target, "192.0.2.1:1"
		r.Header.Set(name, value)
		rec := httptest.NewRecorder()
		func() {
			defer func() {
				if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
					panic(p)
				}
			}()
			s.ServeHTTP(rec, r)
		}()
		if strings.Contains(r.URL.Path, "/receipt") { // nobody signs here
			return
		}
		if rec.Code == http.StatusInternalServerError {
			t.Fatalf("%s %q, %q: %q, %q: %d %s", method, target, name, value, body, rec.Code, rec.Body)
		}
		if ct := rec.Header().Get("Content-Type"); strings.HasPrefix(ct, "application/json") && method != "HEAD" && !json.Valid(rec.Body.Bytes()) {
			t.Fatalf("%s %q: %d says %s and is %q", method, target, rec.Code, ct, rec.Body)
		}
	})
}
