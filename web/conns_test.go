package web_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
	"workmanager/node/keys"
	"workmanager/web"
)

// openDoor knows every token, as a client's of that name.
type openDoor struct{ web.Keeper }

func (openDoor) Tokens() bool                                   { return true }
func (openDoor) Identify(text string) (string, string, bool)    { return "client", text, true }
func (openDoor) Session(string) (role, name string, known bool) { return "", "", false }

// bounded serves f's API on a socket, at most most connections at once. keeper
// is nil where nobody is asked for a token.
func bounded(t *testing.T, f *fake, keeper web.Keeper, most int) (addr string) {
	t.Helper()
	limits := jobs.DefaultLimits()
	limits.Conns = most
	s := web.New(web.Config{Queue: f, Reader: f, Leaser: f, Status: f, Limits: limits, Keeper: keeper, Log: slog.New(slog.DiscardHandler)})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: s}
	web.Tune(srv)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(s.Listener(l, false)) // ends with ErrServerClosed
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	return l.Addr().String()
}

// dial connects from an address of this machine.
func dial(t *testing.T, from, to string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
	c, err := d.DialContext(t.Context(), "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ask sends one request on c and returns the answer.
func ask(t *testing.T, c net.Conn, head string) answer {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ci\r\n\r\n", head); err != nil {
		return answer{body: err.Error()}
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return answer{body: err.Error()}
	}
	defer resp.Body.Close() //nolint:errcheck // of a test
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{body: err.Error()}
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// waiter is a fake whose long polls last until the test ends, each told of.
func waiter(t *testing.T) (f *fake, begun chan struct{}, end func()) {
	begun = make(chan struct{}, 100)
	release := make(chan struct{})
	var once sync.Once
	end = func() { once.Do(func() { close(release) }) }
	t.Cleanup(end)
	return &fake{job: func(ctx context.Context, id jobs.ID, _ time.Duration) (jobs.View, error) {
		begun <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return jobs.View{Job: jobs.Job{ID: id, Iterations: 5}}, nil
	}}, begun, end
}

const longPoll = "GET /v1/jobs/0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801?wait=60s"

// TestConns_idle_ones_give_way: connections on which nothing is asked, or only
// half a header has come, keep nobody out; those that are answered stay.
func TestConns_idle_ones_give_way(t *testing.T) {
	t.Parallel()
	f, begun, end := waiter(t)
	addr := bounded(t, f, nil, 20)
	polls := make(chan answer, 3)
	for range 3 {
		c := dial(t, "127.0.0.1", addr)
		go func() { polls <- ask(t, c, longPoll) }()
		<-begun
	}
	for i := range 100 {
		c := dial(t, "127.0.0.1", addr)
		if i%2 == 0 {
			fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost") //nolint:errcheck // of a test
		}
		if i%10 == 0 {
			if a := ask(t, dial(t, "127.0.0.1", addr), "GET /healthz"); a.status != 200 {
				t.Fatalf("with %d idle connections: %d %s", i, a.status, a.body)
			}
		}
	}
	end()
	for range 3 {
		if a := <-polls; a.status != 200 {
			t.Errorf("a long poll under way: %d %q, want 200", a.status, a.body)
		}
	}
}

// TestConns_all_busy: when all are answered a new one is refused, and told so.
func TestConns_all_busy(t *testing.T) {
	t.Parallel()
	f, begun, end := waiter(t)
	addr := bounded(t, f, nil, 4)
	polls := make(chan answer, 4)
	for range 4 {
		c := dial(t, "127.0.0.1", addr)
		go func() { polls <- ask(t, c, longPoll) }()
		<-begun
	}
	a := ask(t, dial(t, "127.0.0.1", addr), "GET /healthz")
	a.refused(t, 503, jobs.CodeBusy, "4 connections", "--max-connections")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	end()
	for range 4 {
		if a := <-polls; a.status != 200 {
			t.Errorf("a long poll under way: %d %q, want 200", a.status, a.body)
		}
	}
	if a := ask(t, dial(t, "127.0.0.1", addr), "GET /healthz"); a.status != 200 {
		t.Errorf("afterwards: %d %s", a.status, a.body)
	}
}

// TestConns_of_one_address: one address has a quarter of the connections.
func TestConns_of_one_address(t *testing.T) {
	t.Parallel()
	f, begun, _ := waiter(t)
	addr := bounded(t, f, openDoor{}, 8)
	for range 2 {
		c := dial(t, "127.0.0.1", addr)
		go ask(t, c, longPoll)
		<-begun
	}
	ask(t, dial(t, "127.0.0.1", addr), "GET /healthz").refused(t, 503, jobs.CodeLimited, "address 127.0.0.1", "more than 2 connections")
	other := dial(t, "127.0.0.2", addr)
	if a := ask(t, other, "GET /healthz"); a.status != 200 {
		t.Errorf("from another address: %d %s", a.status, a.body)
	}
	// What is closed is given back, also by the client.
	_ = other.Close()
	deadline := time.Now().Add(20 * time.Second)
	for range 6 {
		c := dial(t, "127.0.0.2", addr)
		for a := ask(t, c, "GET /healthz"); a.status != 200; a = ask(t, c, "GET /healthz") {
			if time.Now().After(deadline) {
				t.Fatalf("a place is not given back: %d %s", a.status, a.body)
			}
			c = dial(t, "127.0.0.2", addr)
		}
		_ = c.Close()
	}
}

// TestSlowHeaders holds that the head of a request must come in its time, and
// that others are served while very many of them drip.
func TestSlowHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := bubble(t, (&fake{}).server(t))
		conn := dial()
		began := time.Now()
		go func() {
			if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n"); err != nil {
				return
			}
			for {
				time.Sleep(time.Second)
				if _, err := io.WriteString(conn, "X"); err != nil {
					return
				}
			}
		}()
		if b, err := io.ReadAll(conn); err != nil || time.Since(began) > 11*time.Second || strings.Contains(string(b), "200 OK") {
			t.Errorf("%q, %v after %v: want the end after 10 s", b, err, time.Since(began))
		}
		_ = conn.Close()
		time.Sleep(2 * time.Second)

		silent := dial()
		began = time.Now()
		if _, err := io.ReadAll(silent); err != nil || time.Since(began) > 11*time.Second {
			t.Errorf("who says nothing: %v after %v, want the end after 10 s", err, time.Since(began))
		}
		_ = silent.Close()
		time.Sleep(2 * time.Second)

		// Between two requests it may take longer.
		kept := dial()
		go io.WriteString(kept, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") //nolint:errcheck // of a test
		r := bufio.NewReader(kept)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		began = time.Now()
		if _, err := r.ReadByte(); !errors.Is(err, io.EOF) || time.Since(began) < time.Minute || time.Since(began) > 3*time.Minute {
			t.Errorf("an idle connection: %v after %v, want its end after two minutes", err, time.Since(began))
		}
		_ = kept.Close()
	})
}

// TestSlowHandshake: TLS must be agreed on in its time, too.
func TestSlowHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, _ := makeKeys(t, keys.NodeTTL, time.Now())
		k, err := keys.Open(keys.Files{Dir: filepath.Join(dir, "a")}, time.Now, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		s := (&fake{}).server(t)
		l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		srv := &http.Server{Handler: s, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
		web.Tune(srv)
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = srv.Serve(tls.NewListener(s.Listener(l, true), k.Server())) // ends with ErrServerClosed
		}()
		for _, begin := range []string{"", "\x16\x03\x01\x02"} {
			here, there := net.Pipe()
			l.conns <- there
			began := time.Now()
			go io.WriteString(here, begin) //nolint:errcheck // of a test
			if _, err := io.ReadAll(here); err != nil || time.Since(began) > 11*time.Second {
				t.Errorf("a handshake that begins with %q: %v after %v, want the end after 10 s", begin, err, time.Since(began))
			}
			_ = here.Close()
		}
		_ = srv.Close()
		<-served
		time.Sleep(2 * time.Second)
	})
}

// TestSlowHeaders_keep_nobody_out drips headers on twice as many sockets as there
// may be connections, each opened again when it is cut.
func TestSlowHeaders_keep_nobody_out(t *testing.T) {
	t.Parallel()
	addr := bounded(t, &fake{}, nil, 50)
	ctx, cancel := context.WithCancel(t.Context())
	var drip sync.WaitGroup
	var opened atomic.Int64
	full := make(chan struct{}) // all of them have been open once
	const dripping = 100
	for range dripping {
		drip.Go(func() {
			for ctx.Err() == nil {
				c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
				if err != nil {
					continue
				}
				if opened.Add(1) == dripping {
					close(full)
				}
				stop := context.AfterFunc(ctx, func() { _ = c.Close() })
				for _, piece := range []string{"GET /healthz HT", "TP/1.1\r\n", "Host: x\r\n", "X-A: b\r\n"} {
					if _, err := io.WriteString(c, piece); err != nil {
						break
					}
				}
				_, _ = io.Copy(io.Discard, c) // until it is cut
				stop()
				_ = c.Close()
			}
		})
	}
	slowest := time.Duration(0)
	<-full
	const requests = 30
	for range requests {
		began := time.Now()
		// The connection may give way before its request has come in; whoever
		// opens another is served.
		for ask(t, dial(t, "127.0.0.1", addr), "GET /healthz").status != 200 {
			if time.Since(began) > 10*time.Second {
				t.Fatal("an honest client is kept out for 10 s")
			}
		}
		slowest = max(slowest, time.Since(began))
	}
	cancel()
	drip.Wait()
	t.Logf("%d requests among %d connections that drip, the slowest in %v", requests, opened.Load(), slowest)
}

// TestSlowBatch holds a batch to whole lines: it may stand still for long, and
// it may last for hours, but no line of it may.
func TestSlowBatch(t *testing.T) {
	const line = `{"data":"QQ==","iterations":3}` + "\n"
	run := func(t *testing.T, pause time.Duration, pieces string) (replies string, took time.Duration) {
		conn := bubble(t, (&fake{}).server(t))()
		began := time.Now()
		go func() {
			if _, err := io.WriteString(conn, "POST /v1/jobs/batch HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"+line); err != nil {
				return
			}
			for i := 0; ; i++ {
				time.Sleep(pause)
				if _, err := io.WriteString(conn, pieces); err != nil || time.Since(began) > 3*time.Hour {
					_ = conn.Close()
					return
				}
			}
		}()
		b, _ := io.ReadAll(conn) // until it is cut
		took = time.Since(began)
		_ = conn.Close()
		time.Sleep(time.Minute)
		return string(b), took
	}
	t.Run("a_line_that_drips_is_cut", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			replies, took := run(t, time.Minute, " ")
			if !strings.Contains(replies, `"timeout"`) || !strings.Contains(replies, "no line has ended for 5m0s") || took > 7*time.Minute {
				t.Errorf("after %v: %q, want it cut within 7 minutes, and why", took, replies)
			}
		})
	})
	t.Run("a_line_too_long_that_drips_is_cut", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			if replies, took := run(t, 10*time.Second, strings.Repeat("x", 100<<10)); took > 7*time.Minute {
				t.Errorf("after %v: %.300q, want it cut", took, replies)
			}
		})
	})
	t.Run("commits_that_last_do_not_count", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{enqueue: func(_ context.Context, batch []jobs.Job, _ jobs.Ack) ([]jobs.Outcome, error) {
				time.Sleep(4 * time.Minute)
				return accept(batch), nil
			}}
			conn := bubble(t, f.server(t))()
			const lines = 10_000
			go fmt.Fprintf(conn, "POST /v1/jobs/batch HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", lines*len(line), strings.Repeat(line, lines)) //nolint:errcheck // of a test
			b, err := io.ReadAll(conn)
			if n := strings.Count(string(b), `"line":`); n != lines || strings.Contains(string(b), `"error"`) {
				t.Errorf("%d replies, %v, %.300q at the end: want all %d, and none an error", n, err, b[max(0, len(b)-300):], lines)
			}
			_ = conn.Close()
		})
	})
	t.Run("a_line_every_four_minutes_goes_on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			replies, took := run(t, 4*time.Minute, line)
			if took < 3*time.Hour || strings.Count(replies, `"line":`) < 40 || strings.Contains(replies, "timeout") {
				t.Errorf("after %v: %d replies, want all of 3 h", took, strings.Count(replies, `"line":`))
			}
		})
	})
}

// TestLargeHeaders: a head over 64 KiB is refused.
func TestLargeHeaders(t *testing.T) {
	t.Parallel()
	s := serve(t, (&fake{}).server(t))
	conn := raw(t, s, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: "+strings.Repeat("a", 80<<10)+"\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%v, %v, want 431", resp, err)
	}
}

// TestEncoded: nothing that is packed is unpacked, on any route that takes a body.
func TestEncoded(t *testing.T) {
	t.Parallel()
	s := serve(t, (&fake{}).server(t))
	for _, route := range []string{"PUT /enqueue?iterations=1", "POST /v1/jobs?iterations=1", "POST /v1/jobs/batch", "POST /worker/lease", "POST /worker/report"} {
		method, path, _ := strings.Cut(route, " ")
		for _, encoding := range []string{"gzip", "deflate", "br", "zstd", "gzip, identity"} {
			send(t, s, method, path, strings.NewReader("\x1f\x8b"), "Content-Encoding: "+encoding, "Content-Type: application/json").refused(t, 415, jobs.CodeUnsupported, encoding)
		}
	}
}
