package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"workmanager/jobs"
)

// tickets knows one lease.
type tickets struct{}

func (tickets) Ticket(worker string, id jobs.ID) string { return worker + id.String() }
func (k tickets) Leased(worker string, id jobs.ID, ticket string) bool {
	return ticket == k.Ticket(worker, id)
}

func as(role Role, name string) context.Context {
	return context.WithValue(context.Background(), callerKey{}, Caller{role, name})
}

func TestMayReport(t *testing.T) {
	one, two := jobs.ID{1}, jobs.ID{2}
	ticket := tickets{}.Ticket("w1", one)
	for _, row := range []struct {
		what   string
		ctx    context.Context
		id     jobs.ID
		ticket string
		want   jobs.Code
	}{
		{"its own lease", as(Worker, "w1"), one, ticket, ""},
		{"another job", as(Worker, "w1"), two, ticket, jobs.CodeForbidden},
		{"another worker's lease", as(Worker, "w2"), one, ticket, jobs.CodeForbidden},
		{"no ticket", as(Worker, "w1"), one, "", jobs.CodeForbidden},
		{"a client of that name", as(Client, "w1"), one, ticket, jobs.CodeForbidden},
		{"the peer", as(Peer, "w1"), one, ticket, jobs.CodeForbidden},
		{"on loopback nobody is asked", context.Background(), two, "", ""},
	} {
		if got := jobs.CodeOf(MayReport(row.ctx, tickets{}, row.id, row.ticket)); got != row.want {
			t.Errorf("%s: %q, want %q", row.what, got, row.want)
		}
	}
}

func TestWorkerOf(t *testing.T) {
	for _, row := range []struct {
		ctx           context.Context
		claimed, name string
		want          jobs.Code
	}{
		{as(Worker, "w1"), "", "w1", ""}, {as(Worker, "w1"), "w1", "w1", ""}, {as(Worker, "w1"), "w2", "", jobs.CodeForbidden},
		{as(Operator, "w1"), "w1", "", jobs.CodeForbidden}, {context.Background(), "w9", "w9", ""},
	} {
		if name, err := WorkerOf(row.ctx, row.claimed); name != row.name || jobs.CodeOf(err) != row.want {
			t.Errorf("WorkerOf(%q) = %q, %v, want %q, %q", row.claimed, name, err, row.name, row.want)
		}
	}
}

// TestRules: a route without a rule lets nobody in, and there is none.
func TestRules(t *testing.T) {
	for _, r := range New(Config{Limits: jobs.DefaultLimits()}).routes {
		if r.may == 0 {
			t.Errorf("%s: nobody is said to call it", r.pattern)
		}
	}
}

// keeper knows nobody.
type keeper struct{}

func (keeper) Tokens() bool                                   { return true }
func (keeper) Identify(string) (string, string, bool)         { return "", "", false }
func (keeper) Session(string) (string, string, bool)          { return "", "", false }
func (keeper) Login(string) (string, time.Time, bool)         { return "", time.Time{}, false }
func (keeper) Enrol(string, string) (string, time.Time, bool) { return "", time.Time{}, false }

// TestPeer_certificate_ends: a connection that was good does not stay so for
// ever, and the peer is told to begin a new one.
func TestPeer_certificate_ends(t *testing.T) {
	asked := ""
	s := New(Config{Limits: jobs.DefaultLimits(), Keeper: keeper{}, Peer: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		c, _ := CallerOf(r.Context())
		asked = c.Name
	})})
	call := func(ends time.Time) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "/peer/changes", nil)
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: "b"}, NotAfter: ends}}}}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w
	}
	if w := call(time.Now().Add(time.Minute)); w.Code != 200 || asked != "b" {
		t.Errorf("a good certificate: %d, the caller is %q", w.Code, asked)
	}
	if w := call(time.Now().Add(-time.Minute)); w.Code != 401 || w.Header().Get("Connection") != "close" {
		t.Errorf("one whose time is over: %d, Connection %q, want 401 and close", w.Code, w.Header().Get("Connection"))
	}
}
