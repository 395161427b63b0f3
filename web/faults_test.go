package web_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
	"workmanager/web"
	"workmanager/web/api"
)

func TestRoutes(t *testing.T) {
	t.Parallel()
	s := startNode(t)
	for _, c := range []struct {
		method, path string
		status       int
		header       string // Name: value
	}{
		{"GET", "/status", 200, "Content-Type: application/json"},
		{"HEAD", "/status", 200, ""},
		{"GET", "/healthz", 200, ""},
		{"GET", "/readyz", 200, ""},
		{"GET", "/v1/fleet", 200, ""},
		{"GET", "/status/", 307, "Location: /status"},
		{"PUT", "/enqueue/?iterations=5&x=%2F", 307, "Location: /enqueue?iterations=5&x=%2F"},
		{"POST", "/enqueue/", 307, "Location: /enqueue"},
		{"GET", "/v1/jobs/x//", 307, "Location: /v1/jobs/x/"},
		{"GET", "/nowhere/", 404, ""},
		{"GET", "/nowhere", 404, ""},
		{"POST", "/pullcompleted?top=1", 404, ""},
		{"GET", "/v1/jobs/a/b", 404, ""},
		{"GET", "/enqueue?iterations=1", 405, "Allow: PUT"},
		{"POST", "/enqueue?iterations=1", 405, "Allow: PUT"},
		{"GET", "/pullCompleted?top=1", 405, "Allow: POST"},
		{"POST", "/status", 405, "Allow: GET, HEAD"},
		{"PATCH", "/v1/jobs", 405, "Allow: GET, HEAD, POST"},
		{"PUT", "/v1/jobs/x", 405, "Allow: DELETE, GET, HEAD"},
		{"OPTIONS", "/v1/jobs/x", 405, "Allow: DELETE, GET, HEAD"},
		{"GET", "/v1/jobs/x", 404, ""},
	} {
		a := s.do(c.method, c.path, nil)
		if a.status != c.status {
			t.Errorf("%s %s: status %d, want %d", c.method, c.path, a.status, c.status)
		}
		if name, want, ok := strings.Cut(c.header, ": "); ok && a.header.Get(name) != want {
			t.Errorf("%s %s: %s %q, want %q", c.method, c.path, name, a.header.Get(name), want)
		}
		if c.method == "HEAD" && a.body != "" {
			t.Errorf("HEAD %s has a body", c.path)
		}
		switch c.status {
		case 404:
			a.refused(t, 404, api404(c.path))
		case 405:
			a.refused(t, 405, jobs.CodeMethod, a.header.Get("Allow"))
		}
	}
}

func api404(path string) jobs.Code {
	if path == "/v1/jobs/x" {
		return jobs.CodeNotFound
	}
	return jobs.CodeNoRoute
}

func TestErrors_each_code_has_its_status(t *testing.T) {
	t.Parallel()
	var give error
	f := &fake{enqueue: func(context.Context, []jobs.Job, jobs.Ack) ([]jobs.Outcome, error) { return nil, give }}
	var log bytes.Buffer
	f.log = slog.New(slog.NewTextHandler(&log, nil))
	s := serve(t, f.server(t))
	for code, want := range map[jobs.Code]struct {
		status int
		retry  bool
	}{
		jobs.CodeInvalid: {422, false}, jobs.CodeMalformed: {400, false}, jobs.CodeNotFound: {404, false}, jobs.CodeConflict: {409, false},
		jobs.CodeTooLarge: {413, false}, jobs.CodeUnsupported: {415, false}, jobs.CodeTimeout: {408, false}, jobs.CodeBusy: {503, true}, jobs.CodeLimited: {429, true},
		jobs.CodeStopping: {503, true}, jobs.CodeDiskFull: {507, true}, jobs.CodeUnavailable: {503, true}, jobs.CodeAuth: {401, false},
		jobs.CodeForbidden: {403, false}, jobs.CodeNoRoute: {404, false}, jobs.CodeMethod: {405, false},
	} {
		give = fmt.Errorf("wrapped: %w", jobs.Errorf(code, "what %s says", code))
		a, err := trySend(t.Context(), s, "PUT", "/enqueue?iterations=1", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		a.refused(t, want.status, code, "what ")
		if has := a.header.Get("Retry-After") != ""; has != want.retry {
			t.Errorf("%s: Retry-After %q, want one: %v", code, a.header.Get("Retry-After"), want.retry)
		}
	}
	give = jobs.Errorf(jobs.CodeBusy, "busy").Retry(2500 * time.Millisecond)
	if a := send(t, s, "PUT", "/enqueue?iterations=1", strings.NewReader("x")); a.header.Get("Retry-After") != "3" {
		t.Errorf("Retry-After %q of 2.5 s, want 3", a.header.Get("Retry-After"))
	}
	for _, give = range []error{errors.New("open /secret/path: denied"), jobs.Errorf(jobs.CodeInternal, "/secret/path"), jobs.Errorf("unheard", "/secret/path")} {
		log.Reset()
		a := send(t, s, "PUT", "/enqueue?iterations=1", strings.NewReader("x"))
		a.refused(t, 500, jobs.CodeInternal, "internal error")
		id := a.header.Get(api.HeaderRequestID)
		if strings.Contains(a.body, "secret") || id == "" || !strings.Contains(log.String(), id) || !strings.Contains(log.String(), "/secret/path") {
			t.Errorf("answer %q, log %q: want the cause in the log only, under %q", a.body, log.String(), id)
		}
	}
}

func TestPanic_costs_one_request(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	f := &fake{enqueue: func(_ context.Context, batch []jobs.Job, _ jobs.Ack) ([]jobs.Outcome, error) {
		if batch[0].Iterations == 13 {
			panic("secret of the store")
		}
		return accept(batch), nil
	}}
	f.status = func() (api.Status, error) { panic("of the status") }
	f.job = func(context.Context, jobs.ID, time.Duration) (jobs.View, error) { panic("secret of the store") }
	var mu sync.Mutex
	f.log = slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil))
	s := serve(t, validated(t, f.server(t)))
	for range 2 {
		a := send(t, s, "PUT", "/enqueue?iterations=13", strings.NewReader("x"))
		a.refused(t, 500, jobs.CodeInternal, "internal error")
		if strings.Contains(a.body, "secret") || strings.Contains(a.body, "goroutine") {
			t.Errorf("answer %q tells of the panic", a.body)
		}
		send(t, s, "PUT", "/enqueue?iterations=1", strings.NewReader("x")).id(t)
	}
	// In a batch the answer has begun: it is broken off, and does not look whole.
	line := `{"data":"QQ==","iterations":%d}` + "\n"
	_, err := trySend(t.Context(), s, "POST", "/v1/jobs/batch", strings.NewReader(fmt.Sprintf(line+line, 1, 13)[len(fmt.Sprintf(line, 1)):]))
	if err == nil {
		t.Error("a batch whose commit panics has an answer that looks whole")
	}
	if _, err = trySend(t.Context(), s, "GET", "/v1/events?job=0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801", nil); err == nil {
		t.Error("an event stream with a panic in it ends as if it were whole")
	}
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(log.String(), "secret of the store"); n != 4 || !strings.Contains(log.String(), "stack=") {
		t.Errorf("%d panics in the log, want 4, each with its stack: %s", n, log.String())
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// TestTooLarge checks that too much is refused before it is read whole.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	f := &fake{limits: func(l *jobs.Limits) { l.DataBytes = 10_000 }}
	s := serve(t, f.server(t))
	for _, c := range []struct{ name, headers, body string }{
		{"announced", "Content-Length: 10001\r\n", ""},
		{"announced_huge", "Content-Length: 99999999999\r\n", "abc"},
		{"announced_json", "Content-Type: application/json\r\nContent-Length: 9999999\r\n", "{"},
		{"chunked", "Transfer-Encoding: chunked\r\n", "2711\r\n" + strings.Repeat("x", 10_001) + "\r\n"},
		{"json_data", "Content-Type: application/json\r\nContent-Length: 20000\r\n", `{"data":"` + strings.Repeat("QUJD", 4000)},
		{"urlencoded_data", "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 30000\r\n", "data=" + strings.Repeat("%41", 5_500) + strings.Repeat("b", 5_000)},
		{"raw_as_urlencoded", "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 30000\r\n", strings.Repeat("b", 10_001)},
		{"multipart_data", "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 900000\r\n", "--b\r\nContent-Disposition: form-data; name=data\r\n\r\n" + strings.Repeat("b", 80_000)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn := raw(t, s, "PUT /enqueue?iterations=1 HTTP/1.1\r\nHost: x\r\n"+c.headers+"\r\n"+c.body)
			began := time.Now()
			r := bufio.NewReader(conn)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			answer{resp.StatusCode, resp.Header, string(body)}.refused(t, 413, jobs.CodeTooLarge, "data: ", "limit")
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("answered after %v, want at once", took)
			}
			if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("the connection goes on (%v), want it closed", err)
			}
		})
	}
	// Exactly the limit is taken, in every form.
	for _, form := range forms {
		ct, body := form.body(strings.Repeat("\xfe", 10_000))
		send(t, s, "PUT", "/enqueue?iterations=1", strings.NewReader(body), "Content-Type: "+ct).id(t)
	}
}

func TestTruncatedBody(t *testing.T) {
	t.Parallel()
	s := serve(t, (&fake{}).server(t))
	for _, c := range []struct{ name, text, words string }{
		{"length", "Content-Length: 100\r\n\r\nhello", "5 of its 100 bytes"},
		{"length_large", "Content-Length: 100000\r\n\r\nhello", "5 of its 100000 bytes"},
		{"chunk", "Transfer-Encoding: chunked\r\n\r\n100\r\nhello", "broke off"},
		{"chunk_nonsense", "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n", "broke off"},
		{"json", "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"data\":\"QQ==\"}", "15 of its 100 bytes"},
		{"urlencoded", "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\ndata=a", "6 of its 100 bytes"},
		{"multipart", "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100\r\n\r\n--b--\r\n", "7 of its 100 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := raw(t, s, "PUT /enqueue?iterations=1 HTTP/1.1\r\nHost: x\r\n"+c.text)
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			answer{resp.StatusCode, resp.Header, string(body)}.refused(t, 400, jobs.CodeMalformed, c.words)
		})
	}
}

// bubble serves h over pipes inside a synctest bubble, where time is virtual.
func bubble(t *testing.T, h http.Handler) (dial func() net.Conn) {
	l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	srv := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(testLog(t).Handler(), slog.LevelError)}
	web.Tune(srv)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(l) // ends with ErrServerClosed
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
		time.Sleep(time.Second) // virtual: net/http lingers before it closes a connection
	})
	return func() net.Conn {
		here, there := net.Pipe()
		l.conns <- there
		t.Cleanup(func() { _ = here.Close() })
		return here
	}
}

type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestSlowBody holds clients that stand still, or drip, to the deadlines.
func TestSlowBody(t *testing.T) {
	for _, c := range []struct {
		name   string
		length string
		pause  time.Duration // between bytes; 0: nothing comes at all
		within time.Duration
	}{
		{"small_silent", "Content-Length: 100", 0, web.BodyIdle},
		{"large_silent", "Content-Length: 50000000", 0, web.BodyIdle},
		{"chunked_silent", "Transfer-Encoding: chunked", 0, web.BodyIdle},
		{"dripping", "Content-Length: 100000", 20 * time.Second, web.BodyIdle},
		{"dripping_json", "Content-Type: application/json\r\nContent-Length: 100000", time.Second, web.BodyIdle + time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := bubble(t, (&fake{}).server(t))()
				began := time.Now()
				stop := make(chan struct{})
				go func() {
					if _, err := fmt.Fprintf(conn, "PUT /enqueue?iterations=1 HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", c.length); err != nil || c.pause == 0 {
						return
					}
					for {
						select {
						case <-stop:
							return
						case <-time.After(c.pause):
						}
						if _, err := conn.Write([]byte{' '}); err != nil {
							return
						}
					}
				}()
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				close(stop)
				answer{resp.StatusCode, resp.Header, string(body)}.refused(t, 408, jobs.CodeTimeout, "too slowly", "30s")
				if took := time.Since(began); took > c.within+2*time.Second {
					t.Errorf("answered after %v, want %v", took, c.within)
				}
				conn.Close() //nolint:errcheck // of a test
			})
		})
	}
}

// TestRefusal_waits_for_no_byte holds that what the head of a request tells is
// answered at once, be the client silent or sending.
func TestRefusal_waits_for_no_byte(t *testing.T) {
	for _, c := range []struct {
		name, query, headers string
		status               int
	}{
		{"too_large", "iterations=1", "Content-Length: 1001", 413},
		{"too_large_by_one", "iterations=1", "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1049577", 413},
		{"wrong_iterations", "iterations=0", "Content-Length: 60000000", 422},
		{"encoded", "iterations=1", "Content-Encoding: br\r\nContent-Length: 60000000", 415},
	} {
		for _, pause := range []time.Duration{0, 100 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s/%v", c.name, pause), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					conn := bubble(t, (&fake{limits: func(l *jobs.Limits) { l.DataBytes = 1000 }}).server(t))()
					go func() {
						fmt.Fprintf(conn, "PUT /enqueue?%s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", c.query, c.headers) //nolint:errcheck // of a test
						for pause > 0 {
							time.Sleep(pause)
							if _, err := conn.Write([]byte{'x'}); err != nil {
								return
							}
						}
					}()
					began := time.Now()
					resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
					if err != nil || resp.StatusCode != c.status || time.Since(began) > 0 {
						t.Errorf("%v, %v after %v: want %d at once", resp, err, time.Since(began), c.status)
					}
					conn.Close() //nolint:errcheck // of a test
					time.Sleep(time.Second)
				})
			})
		}
	}
}

// TestSlowBody_steady is a slow client that keeps the rate: it is served.
func TestSlowBody_steady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := bubble(t, (&fake{}).server(t))()
		go func() {
			fmt.Fprint(conn, "PUT /enqueue?iterations=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 409600\r\n\r\n") //nolint:errcheck // of a test
			for range 200 {
				time.Sleep(time.Second)
				conn.Write(make([]byte, 2048)) //nolint:errcheck // of a test
			}
		}()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v, %v: want 200 after 200 s at 2 KiB/s", resp, err)
		}
		conn.Close() //nolint:errcheck // of a test
	})
}

// TestSlowBody_deadline_does_not_cut_the_commit holds that a commit may last
// longer than a body may stand still.
func TestSlowBody_deadline_does_not_cut_the_commit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{enqueue: func(ctx context.Context, batch []jobs.Job, _ jobs.Ack) ([]jobs.Outcome, error) {
			select {
			case <-time.After(90 * time.Second):
				return accept(batch), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}}
		conn := bubble(t, f.server(t))()
		go fmt.Fprint(conn, "PUT /enqueue?iterations=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello") //nolint:errcheck // of a test
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		answer{resp.StatusCode, resp.Header, string(body)}.id(t)
		conn.Close() //nolint:errcheck // of a test
	})
}

func TestStop_refuses_submissions_and_ends_waits(t *testing.T) {
	t.Parallel()
	waiting := make(chan struct{}, 2)
	f := &fake{
		job: func(ctx context.Context, id jobs.ID, wait time.Duration) (jobs.View, error) {
			if wait > 0 {
				waiting <- struct{}{}
				<-ctx.Done()
				return jobs.View{}, ctx.Err()
			}
			return jobs.View{Job: jobs.Job{ID: id, Iterations: 7}}, nil
		},
		results: func(ctx context.Context, q jobs.ResultsQuery) (jobs.Results, error) {
			if q.Wait > 0 {
				waiting <- struct{}{}
				<-ctx.Done()
				return jobs.Results{}, ctx.Err()
			}
			return jobs.Results{Cursor: q.After}, nil
		},
		status: func() (api.Status, error) { return api.Status{}, nil },
	}
	srv := f.server(t)
	s := serve(t, srv)
	answers := make(chan answer, 4)
	begin := func(method, path string, body io.Reader) {
		go func() {
			a, err := trySend(t.Context(), s, method, path, body)
			if err != nil {
				t.Errorf("%s: %v", path, err)
			}
			answers <- a
		}()
	}
	begin("GET", "/v1/jobs/0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801?wait=60s", nil)
	begin("GET", "/v1/results?wait=60&after=here", nil)
	<-waiting
	<-waiting
	begin("GET", "/v1/events", nil)
	unsent, send1 := io.Pipe() // a body that comes to no end
	defer send1.Close()        //nolint:errcheck // of a test
	began := make(chan struct{})
	go func() {
		_, _ = send1.Write(make([]byte, 100_000))
		close(began)
	}()
	begin("PUT", "/enqueue?iterations=1", unsent)
	<-began
	srv.Stop()
	srv.Stop()
	after := time.After(10 * time.Second)
	seen := map[int]int{}
	for range 4 {
		select {
		case a := <-answers:
			seen[a.status]++
			if a.status == 503 && a.header.Get("Retry-After") == "" {
				t.Error("503 without Retry-After")
			}
		case <-after:
			t.Fatal("what waits does not end")
		}
	}
	if seen[200] < 2 || seen[200]+seen[503] != 4 {
		t.Errorf("statuses %v, want 200 for the two polls and 503 or 200 for the rest", seen)
	}
	for _, route := range []string{"PUT /enqueue?iterations=1", "POST /v1/jobs?iterations=1", "POST /v1/jobs/batch", "DELETE /v1/jobs/0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801", "POST /pullCompleted?top=1&consume=1", "GET /readyz", "GET /v1/events"} {
		method, path, _ := strings.Cut(route, " ")
		a := send(t, s, method, path, strings.NewReader("x"))
		a.refused(t, 503, jobs.CodeStopping)
		if a.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", route)
		}
	}
	for _, path := range []string{"/status", "/healthz", "/v1/jobs/0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801?wait=5s", "/v1/results?wait=5s"} {
		if a := send(t, s, "GET", path, nil); a.status != 200 {
			t.Errorf("GET %s while stopping: %d, want 200", path, a.status)
		}
	}
}

func TestWaiters_are_bounded(t *testing.T) {
	t.Parallel()
	waiting := make(chan struct{}, 2)
	f := &fake{
		limits: func(l *jobs.Limits) { l.Waiters = 2 },
		job: func(ctx context.Context, id jobs.ID, wait time.Duration) (jobs.View, error) {
			if wait > 0 {
				waiting <- struct{}{}
				<-ctx.Done()
			}
			return jobs.View{Job: jobs.Job{ID: id}}, nil
		},
		status: func() (api.Status, error) { return api.Status{}, nil },
	}
	s := serve(t, f.server(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const path = "/v1/jobs/0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801"
	for range 2 {
		go trySend(ctx, s, "GET", path+"?wait=60s", nil) //nolint:errcheck // ends with ctx
		<-waiting
	}
	for _, p := range []string{path + "?wait=1s", "/v1/events", "/v1/results?wait=1s"} {
		a := send(t, s, "GET", p, nil)
		a.refused(t, 503, jobs.CodeBusy, "2 places")
		if a.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", p)
		}
	}
	send(t, s, "POST", "/v1/jobs/batch", strings.NewReader("")).refused(t, 503, jobs.CodeBusy)
	if a := send(t, s, "GET", path, nil); a.status != 200 {
		t.Errorf("a look without a wait: %d, want 200", a.status)
	}
}

func TestCrossOrigin_is_refused(t *testing.T) {
	t.Parallel()
	s := serve(t, validated(t, (&fake{}).server(t)))
	send(t, s, "PUT", "/enqueue?iterations=1", strings.NewReader("x"), "Sec-Fetch-Site: cross-site").refused(t, 403, jobs.CodeForbidden)
	send(t, s, "PUT", "/enqueue?iterations=1", strings.NewReader("x"), "Origin: https://elsewhere.example").refused(t, 403, jobs.CodeForbidden)
	send(t, s, "PUT", "/enqueue?iterations=1", strings.NewReader("x"), "Sec-Fetch-Site: same-origin", "Origin: "+s.URL).id(t)
}

func TestLog_has_no_data(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	var mu sync.Mutex
	f := &fake{log: slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	s := serve(t, f.server(t))
	const secret = "correct-horse-battery"
	send(t, s, "PUT", "/enqueue?iterations=1", strings.NewReader(secret), "Idempotency-Key: "+secret).id(t)
	send(t, s, "PUT", "/enqueue?iterations="+secret, strings.NewReader(secret))
	send(t, s, "POST", "/v1/jobs", strings.NewReader(`{"data":"`+secret+`"}`), "Content-Type: application/json")
	send(t, s, "POST", "/v1/jobs/batch", strings.NewReader(`{"data":"`+secret+`"}`+"\n"+secret))
	mu.Lock()
	defer mu.Unlock()
	if text := log.String(); strings.Contains(text, secret) || strings.Contains(text, valueOf(secret)) || !strings.Contains(text, "path=/enqueue") {
		t.Errorf("the log has the data, or no line a request: %s", text)
	}
}
