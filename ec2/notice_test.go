package ec2

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// metadata is a fake instance metadata service, of the version that wants a
// token. Its notice is "" while there is none.
type metadata struct {
	*httptest.Server
	notice atomic.Pointer[string]
	tag    atomic.Pointer[string] // of the slot; nil: none
	asked  atomic.Int64
	broken atomic.Bool
}

func newMetadata(t *testing.T) *metadata {
	m := &metadata{}
	m.say("")
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case m.broken.Load():
			http.Error(w, "broken", http.StatusInternalServerError)
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
			_, _ = w.Write([]byte("a token"))
		case r.Header.Get("X-Aws-Ec2-Metadata-Token") != "a token":
			http.Error(w, "no token", http.StatusUnauthorized)
		case r.URL.Path == "/latest/meta-data/instance-id":
			_, _ = w.Write([]byte("i-0123456789abcdef0"))
		case r.URL.Path == "/latest/meta-data/tags/instance/workmanager:slot" && m.tag.Load() != nil:
			_, _ = w.Write([]byte(*m.tag.Load()))
		case r.URL.Path == "/latest/meta-data/spot/instance-action" && *m.notice.Load() != "":
			m.asked.Add(1)
			_, _ = w.Write([]byte(*m.notice.Load()))
		default:
			m.asked.Add(1)
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(m.Close)
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", m.URL)
	return m
}

func (m *metadata) say(notice string) { m.notice.Store(&notice) }

func TestNotices(t *testing.T) {
	m := newMetadata(t)
	n := NewNotices(5 * time.Millisecond)
	if !n.Available(t.Context()) {
		t.Error("Available() = false with the service there")
	}
	if i, err := n.Notice(t.Context()); err != nil || i.Action != "" {
		t.Errorf("Notice() = %+v, %v, want none", i, err)
	}
	waited := make(chan Interruption, 1)
	go func() {
		i, err := n.Wait(t.Context())
		if err != nil {
			t.Errorf("Wait() = %v", err)
		}
		waited <- i
	}()
	until := func(asked int64) {
		t.Helper()
		for tick, end := time.NewTicker(time.Millisecond), time.Now().Add(10*time.Second); m.asked.Load() < asked; <-tick.C {
			if time.Now().After(end) {
				t.Fatalf("asked %d times, want %d", m.asked.Load(), asked)
			}
		}
	}
	until(4)
	m.broken.Store(true) // no notice
	select {
	case i := <-waited:
		t.Errorf("Wait() = %+v without a notice", i)
	default:
	}
	m.broken.Store(false)
	m.say("no JSON")
	until(m.asked.Load() + 3)
	m.say(`{"action":"terminate","time":"2026-11-26T08:22:00Z"}`)
	if i := <-waited; i.Action != "terminate" || !i.Time.Equal(time.Date(2026, 11, 26, 8, 22, 0, 0, time.UTC)) {
		t.Errorf("Wait() = %+v", i)
	}
}

func TestNotices_without_a_service(t *testing.T) {
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer silent.Close()
	for name, url := range map[string]string{"nobody": "http://127.0.0.1:1", "silence": silent.URL} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
			n := NewNotices(5 * time.Millisecond)
			begin := time.Now()
			if n.Available(t.Context()) {
				t.Error("Available() = true")
			}
			if took := time.Since(begin); took > 3*answerTime {
				t.Errorf("Available() took %v", took)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if _, err := n.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Wait() = %v, want the end of its context", err)
			}
		})
	}
}

func TestNotices_identity(t *testing.T) {
	m := newMetadata(t)
	n := NewNotices(0)
	if id, slot, err := n.Identity(t.Context()); id != "i-0123456789abcdef0" || slot != -1 || err != nil {
		t.Errorf("Identity() without tags = %s, %d, %v", id, slot, err)
	}
	for text, want := range map[string]int{"3": 3, "0\n": 0, "17": 17} {
		m.tag.Store(&text)
		if id, slot, err := n.Identity(t.Context()); id != "i-0123456789abcdef0" || slot != want || err != nil {
			t.Errorf("Identity() with tag %q = %s, %d, %v", text, id, slot, err)
		}
	}
	for _, text := range []string{"x", "-1", ""} {
		m.tag.Store(&text)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if id, slot, err := n.Identity(ctx); err == nil {
			t.Errorf("Identity() with tag %q = %s, %d", text, id, slot)
		}
		cancel()
	}
	m.tag.Store(nil)
	m.broken.Store(true)
	time.AfterFunc(100*time.Millisecond, func() { m.broken.Store(false) })
	if id, _, err := n.Identity(t.Context()); id == "" || err != nil {
		t.Errorf("Identity() of a service that comes late = %s, %v", id, err)
	}
}
