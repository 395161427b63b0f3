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

// tickets is a keeper that gives tickets out.
type tickets struct{ Keeper }

func (tickets) Ticket(worker string, id jobs.ID) string { return worker + id.String() }
func (k tickets) Leased(worker string, id jobs.ID, ticket string) bool {
	return ticket == k.Ticket(worker, id)
}

func as(role Role, name string) context.Context {
	return context.WithValue(context.Background(), callerKey{}, Caller{role, name})
}

// TestMayReport: a worker reports on what it has leased, now or before.
func TestMayReport(t *testing.T) {
	one, two := jobs.ID{1}, jobs.ID{2}
	ticket := tickets{}.Ticket("w1", one)
	s := &Server{cfg: Config{Keeper: tickets{}}}
	if got := s.ticket(as(Worker, "w1"), one); got != ticket {
		t.Errorf("the ticket of a lease is %q, want %q", got, ticket)
	}
	for _, row := range []struct {
		what   string
		ctx    context.Context
		id     jobs.ID
		ticket string
		want   bool
	}{
		{"its own lease", as(Worker, "w1"), one, ticket, true},
		{"another job", as(Worker, "w1"), two, ticket, false},
		{"another worker's lease", as(Worker, "w2"), one, ticket, false},
		{"no ticket", as(Worker, "w1"), one, "", false},
		{"a client of that name", as(Client, "w1"), one, ticket, false},
		{"the peer", as(Peer, "w1"), one, ticket, false},
		{"on loopback nobody is asked", context.Background(), two, "", true},
	} {
		if got := s.mayReport(row.ctx, &jobs.Report{LeaseRef: jobs.LeaseRef{ID: row.id}, Ticket: row.ticket}); got != row.want {
			t.Errorf("%s: %v, want %v", row.what, got, row.want)
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
func (keeper) Logout(string)                                  {}
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
