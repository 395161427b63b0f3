package node

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

func openNode(t *testing.T, parts Parts, change func(*Config)) *Node {
	t.Helper()
	cfg := Default()
	cfg.Listen, cfg.Gossip, cfg.DataDir, cfg.Workers = "127.0.0.1:0", "", t.TempDir(), 0
	if change != nil {
		change(&cfg)
	}
	n, err := New(cfg, parts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.listener.Close()
		n.debug.close()
		n.store.Close()
	})
	return n
}

// TestHealthz: a loop that stands still is told, with the part that does.
func TestHealthz(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	n := openNode(t, Parts{Now: func() time.Time { return now }}, nil)
	ask := func() (int, string) {
		w := httptest.NewRecorder()
		n.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
		return w.Code, w.Body.String()
	}
	if code, text := ask(); code != http.StatusOK {
		t.Errorf("before its first step: %d %s", code, text)
	}
	n.stepped.Store(now.UnixMicro())
	now = now.Add(standstill)
	if code, text := ask(); code != http.StatusOK {
		t.Errorf("%s after a step: %d %s", standstill, code, text)
	}
	now = now.Add(time.Second)
	if code, text := ask(); code != http.StatusServiceUnavailable || !strings.Contains(text, "its loop has stood still for 46s") {
		t.Errorf("%s after a step: %d %s, want 503 and why", standstill+time.Second, code, text)
	}
}

// TestNotify tells the service manager READY once, how the node is when that has
// changed, and that it works only while it does.
func TestNotify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var sent []string // guarded by mu
		n := openNode(t, Parts{Watchdog: 6 * time.Second, Notify: func(s string) error {
			mu.Lock()
			defer mu.Unlock()
			sent = append(sent, s)
			return errors.New("it does not listen") // which does not matter
		}}, nil)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.notify(ctx) }()
		look := func(wait time.Duration) string {
			time.Sleep(wait)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			all := strings.Join(sent, "|")
			sent = nil
			return all
		}
		n.stepped.Store(time.Now().UnixMicro())
		if got, want := look(0), "READY=1\nWATCHDOG=1\nSTATUS=Nothing queued"; !strings.HasPrefix(got, want) {
			t.Errorf("at first: %q, want %q", got, want)
		}
		if got, want := look(4*time.Second), "WATCHDOG=1\n|WATCHDOG=1\n"; got != want {
			t.Errorf("in 4 s: %q, want %q", got, want)
		}
		id, err := n.newID(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.store.Enqueue(t.Context(), []store.Submission{{Job: jobs.Job{ID: id, V1: jobs.Value{1}, Iterations: 5}}}); err != nil {
			t.Fatal(err)
		}
		if got := look(2 * time.Second); !strings.Contains(got, "STATUS=") || !strings.Contains(got, "1 job") {
			t.Errorf("with a job: %q", got)
		}
		look(standstill) // the loop stands still
		if got := look(10 * time.Second); strings.Contains(got, "WATCHDOG") || !strings.Contains(got, "STATUS=its loop has stood still") {
			t.Errorf("with a loop that stands still: %q, want that the watchdog hears nothing", got)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		n.stopping()
		if got := look(0); !strings.HasPrefix(got, "STOPPING=1\n") {
			t.Errorf("at the end: %q", got)
		}
	})
}

func TestDebugListen(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:6060", ":6060", "10.0.0.1:6060", "localhost:6060", "6060", "[::]:6060", "example.org:1"} {
		cfg := Default()
		cfg.DebugListen = addr
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "--debug-listen") {
			t.Errorf("--debug-listen %s: %v, want a refusal", addr, err)
		}
	}
	n := openNode(t, Parts{}, func(c *Config) { c.DebugListen = "127.0.0.1:0" })
	ended := make(chan error, 1)
	go func() { ended <- n.debug.run() }()
	url := "http://" + n.debug.listener.Addr().String()
	ask := func(path, host string) int {
		r, err := http.NewRequestWithContext(t.Context(), "GET", url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			r.Host = host
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if got := ask("/debug/pprof/goroutine?debug=1", ""); got != http.StatusOK {
		t.Errorf("goroutines: %d", got)
	}
	if got := ask("/debug/pprof/heap", "rebound.example.org"); got != http.StatusForbidden {
		t.Errorf("from a page of another name: %d, want 403", got)
	}
	if got := ask("/status", ""); got != http.StatusNotFound {
		t.Errorf("the API there: %d, want 404", got)
	}
	w := httptest.NewRecorder()
	n.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/debug/pprof/", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("profiles at the API: %d, want 404", w.Code)
	}
	n.debug.close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
