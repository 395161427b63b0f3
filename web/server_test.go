package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/node"
	"workmanager/web"
	"workmanager/web/api"
)

// service is a server under test.
type service struct {
	*httptest.Server
	t    testing.TB
	node *node.Node
	stop func() // ends the node; waits
}

// startNode runs a real node on a fresh store and serves its API, with every
// answer checked against openapi.yaml.
func startNode(t testing.TB, change ...func(*node.Config)) *service {
	t.Helper()
	return startBare(t, func(h http.Handler) http.Handler { return validated(t, h) }, change...)
}

// startBare is startNode with another wrapper around the API.
func startBare(t testing.TB, wrap func(http.Handler) http.Handler, change ...func(*node.Config)) *service {
	t.Helper()
	cfg := node.Default()
	cfg.DataDir, cfg.Listen, cfg.Workers = t.TempDir(), freeAddr(t), 1
	for _, f := range change {
		f(&cfg)
	}
	n, err := node.New(cfg, node.Parts{Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	var once sync.Once
	s := &service{t: t, node: n, Server: serve(t, wrap(n.Handler()))}
	s.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("node: %v", err)
			}
		})
	}
	t.Cleanup(s.stop)
	return s
}

// freeAddr returns an address that nobody listens on.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // of a test
	return l.Addr().String()
}

// serve serves h with the timeouts of a real node.
func serve(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	web.Tune(s.Config)
	s.Config.ErrorLog = slog.NewLogLogger(testLog(t).Handler(), slog.LevelError)
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

// testLog logs into the test's output.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// answer is a response, read.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends one request. Each header is "Name: value".
func (s *service) do(method, path string, body io.Reader, headers ...string) answer {
	s.t.Helper()
	return send(s.t, s.Server, method, path, body, headers...)
}

func send(t testing.TB, s *httptest.Server, method, path string, body io.Reader, headers ...string) answer {
	t.Helper()
	a, err := trySend(t.Context(), s, method, path, body, headers...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func trySend(ctx context.Context, s *httptest.Server, method, path string, body io.Reader, headers ...string) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, s.URL+path, body)
	if err != nil {
		return answer{}, err
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	client := *s.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end below
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b)}, err
}

// into decodes the body.
func (a answer) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("answer %d %q: %v", a.status, a.body, err)
	}
}

// refused checks that the answer is a problem document of this status and code
// whose detail has all the words.
func (a answer) refused(t testing.TB, status int, code jobs.Code, words ...string) api.Problem {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d %q, want %d", a.status, a.body, status)
	}
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("Content-Type %q, want application/problem+json", ct)
	}
	var p api.Problem
	a.into(t, &p)
	if p.Code != string(code) || p.Status != status || p.Title == "" {
		t.Errorf("problem %+v, want code %q and status %d", p, code, status)
	}
	for _, w := range words {
		if !strings.Contains(p.Detail, w) {
			t.Errorf("detail %q does not have %q", p.Detail, w)
		}
	}
	return p
}

// id returns the Work ID of an answer of PUT /enqueue, which has exactly one key.
func (a answer) id(t testing.TB) string {
	t.Helper()
	if a.status != http.StatusOK || len(a.body) != 50 || !strings.HasPrefix(a.body, `{"Work ID":"`) {
		t.Fatalf(`answer %d %q, want 200 {"Work ID":"<uuid>"}`, a.status, a.body)
	}
	return a.body[12:48]
}

// value waits for a job to end and returns its value.
func (s *service) value(id string) string {
	s.t.Helper()
	var j api.Job
	s.do("GET", "/v1/jobs/"+id+"?wait=30s", nil).into(s.t, &j)
	if j.State != "completed" || j.Done != j.Iterations {
		s.t.Fatalf("job %s is %s after %d of %d iterations: %s", id, j.State, j.Done, j.Iterations, j.Error)
	}
	return j.Value
}

// fake answers as the node's parts, with faults. What is not set is not called.
type fake struct {
	enqueue func(ctx context.Context, batch []jobs.Job, ack jobs.Ack) ([]jobs.Outcome, error)
	cancel  func(ids []jobs.ID) ([]jobs.Outcome, error)
	consume func(top int, key string) ([]jobs.Result, error)
	job     func(ctx context.Context, id jobs.ID, wait time.Duration) (jobs.View, error)
	copied  func(ctx context.Context, id jobs.ID, wait time.Duration) (jobs.View, error)
	pull    func(top int) ([]jobs.Result, error)
	results func(ctx context.Context, q jobs.ResultsQuery) (jobs.Results, error)
	status  func() (api.Status, error)
	lease   func(ctx context.Context, w jobs.Worker, c jobs.Capacity) ([]jobs.Lease, error)
	report  func(w jobs.Worker, batch []jobs.Report) ([]jobs.Verdict, error)
	list    func(q jobs.ListQuery) (jobs.List, error)
	orders  jobs.Orders
	log     *slog.Logger
	limits  func(*jobs.Limits)
	spill   string
}

func (f *fake) Enqueue(ctx context.Context, batch []jobs.Job, ack jobs.Ack) ([]jobs.Outcome, error) {
	if f.enqueue == nil {
		return accept(batch), nil
	}
	return f.enqueue(ctx, batch, ack)
}

// accept is what a queue answers that takes everything and keeps nothing.
func accept(batch []jobs.Job) []jobs.Outcome {
	out := make([]jobs.Outcome, len(batch))
	for i, j := range batch {
		out[i] = jobs.Outcome{Job: j, Durability: jobs.Durability{Both: true}}
	}
	return out
}

func (f *fake) Cancel(_ context.Context, ids []jobs.ID, _ bool, _ jobs.Ack) ([]jobs.Outcome, error) {
	return f.cancel(ids)
}
func (f *fake) Consume(_ context.Context, top int, key string) ([]jobs.Result, jobs.Durability, error) {
	found, err := f.consume(top, key)
	return found, jobs.Durability{Reason: "no peer"}, err
}
func (f *fake) Job(ctx context.Context, id jobs.ID, wait time.Duration) (jobs.View, error) {
	return f.job(ctx, id, wait)
}
func (f *fake) JobReplicated(ctx context.Context, id jobs.ID, wait time.Duration) (jobs.View, error) {
	return f.copied(ctx, id, wait)
}
func (f *fake) Jobs(_ context.Context, q jobs.ListQuery) (jobs.List, error) {
	if f.list == nil {
		return jobs.List{}, nil
	}
	return f.list(q)
}
func (f *fake) Pull(_ context.Context, top int) ([]jobs.Result, error) { return f.pull(top) }
func (f *fake) Status(context.Context) (api.Status, error)             { return f.status() }
func (f *fake) Results(ctx context.Context, q jobs.ResultsQuery) (jobs.Results, error) {
	return f.results(ctx, q)
}

func (f *fake) Lease(ctx context.Context, w jobs.Worker, c jobs.Capacity) ([]jobs.Lease, error) {
	return f.lease(ctx, w, c)
}
func (f *fake) Report(_ context.Context, w jobs.Worker, batch []jobs.Report) ([]jobs.Verdict, error) {
	return f.report(w, batch)
}
func (f *fake) Nodes() ([]string, bool) { return nil, false }

func (f *fake) Orders(jobs.Worker) jobs.Orders { return f.orders }

// server returns a Server over f.
func (f *fake) server(t testing.TB) *web.Server {
	limits := jobs.DefaultLimits()
	if f.limits != nil {
		f.limits(&limits)
	}
	log := f.log
	if log == nil {
		log = testLog(t)
	}
	if f.spill == "" {
		f.spill = t.TempDir()
	}
	var mu sync.Mutex
	n := uint64(0)
	return web.New(web.Config{
		Queue: f, Reader: f, Leaser: f, Status: f, Limits: limits, SpillDir: f.spill, Log: log,
		NewID: func(_ context.Context, key string) (jobs.ID, error) {
			if key != "" {
				return jobs.KeyID("", "", key), nil
			}
			mu.Lock()
			defer mu.Unlock()
			n++
			return jobs.NewID(time.UnixMicro(int64(n)), bytes.NewReader(make([]byte, 8)))
		},
	})
}

// raw opens a connection to s and sends text.
func raw(t testing.TB, s *httptest.Server, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() }) //nolint:errcheck // of a test
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprint(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}
