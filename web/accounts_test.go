package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// doorman knows tokens that say their role and name: client/ci.
type doorman struct{ keeper }

func (doorman) Identify(text string) (string, string, bool) { return strings.Cut(text, "/") }
func (doorman) Login(text string) (string, time.Time, bool) {
	role, _, ok := strings.Cut(text, "/")
	return "session", time.Now().Add(time.Hour), ok && role != "worker"
}
func (doorman) Enrol(_, worker string) (string, time.Time, bool) {
	return "credential", time.Now().Add(time.Hour), worker == "w1"
}

// queue takes all and keeps nothing.
type queue struct{ Queue }

func (queue) Enqueue(_ context.Context, batch []jobs.Job, _ jobs.Ack) ([]jobs.Outcome, error) {
	out := make([]jobs.Outcome, len(batch))
	for i, j := range batch {
		out[i] = jobs.Outcome{Job: j, Durability: jobs.Durability{Both: true}}
	}
	return out, nil
}

func (queue) Cancel(_ context.Context, ids []jobs.ID, _ bool, _ jobs.Ack) ([]jobs.Outcome, error) {
	if ids[0][0] != 1 {
		return nil, jobs.Errorf(jobs.CodeNotFound, "no such job")
	}
	return []jobs.Outcome{{Job: jobs.Job{ID: ids[0], Iterations: 5}}}, nil
}

// reader waits as long as it is asked to.
type reader struct{ Reader }

func (reader) Job(ctx context.Context, id jobs.ID, wait time.Duration) (jobs.View, error) {
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	}
	return jobs.View{Job: jobs.Job{ID: id, Iterations: 5}}, nil
}

// orders is a fleet that takes all orders but those to i-9.
type orders struct{}

func (orders) Order(_ context.Context, _, instance string) error {
	if instance == "i-9" {
		return jobs.Errorf(jobs.CodeNotFound, "instance i-9 is not in the fleet")
	}
	return nil
}
func (orders) Fleet(context.Context) (api.FleetStatus, error) { return api.FleetStatus{}, nil }
func (orders) Decided() <-chan struct{}                       { return nil }

// distrust takes all orders, and notes whose they are.
type distrust struct{ by *string }

func (d distrust) OrderQuarantine(_ context.Context, do, worker, by, _ string) error {
	*d.by += by + " " + do + " " + worker + ";"
	if worker == "w9" {
		return jobs.Errorf(jobs.CodeNotFound, "worker w9 is not quarantined")
	}
	return nil
}

func (distrust) QuarantineList(context.Context) (api.QuarantineList, error) {
	return api.QuarantineList{Quarantines: []api.Quarantine{}}, nil
}

// guarded returns a server that asks for tokens, with what change makes of the
// limits.
func guarded(change func(*jobs.Limits), log io.Writer) *Server {
	l := jobs.DefaultLimits()
	if change != nil {
		change(&l)
	}
	n := byte(0)
	return New(Config{
		Limits: l, Keeper: doorman{}, Queue: queue{}, Reader: reader{}, Fleet: orders{}, Quarantine: distrust{new(string)}, Log: slog.New(slog.NewTextHandler(log, nil)),
		NewID: func(context.Context, string) (jobs.ID, error) { n++; return jobs.ID{1, n}, nil },
	})
}

// call sends one request from an address.
func callAs(s *Server, addr, token, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = addr
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// limited checks that w is a 429 that says what and when.
func limited(t *testing.T, w *httptest.ResponseRecorder, retry string, words ...string) {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 429 || p.Code != string(jobs.CodeLimited) || p.Status != 429 {
		t.Fatalf("%d %s, want a 429", w.Code, w.Body)
	}
	if got := w.Header().Get("Retry-After"); got != retry {
		t.Errorf("Retry-After %q of %q, want %q", got, p.Detail, retry)
	}
	for _, word := range words {
		if !strings.Contains(p.Detail, word) {
			t.Errorf("detail %q does not have %q", p.Detail, word)
		}
	}
}

const (
	here, there = "10.0.0.1:1000", "10.0.0.2:1000"
	healthz     = "/healthz"
)

func put(s *Server, addr, token string) *httptest.ResponseRecorder {
	return callAs(s, addr, token, "PUT", "/enqueue?iterations=1", "x")
}

func TestRate_of_a_token(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := guarded(func(l *jobs.Limits) { l.Rate = 10 }, io.Discard)
		addr := func(i int) string { return fmt.Sprintf("10.0.%d.1:5", i) } // another each time
		for i := range 20 {
			if w := put(s, addr(i), "client/ci"); w.Code != 200 {
				t.Fatalf("request %d: %d %s, want two seconds' worth to pass", i, w.Code, w.Body)
			}
		}
		limited(t, put(s, addr(30), "client/ci"), "1", `client "ci"`, "10 requests a second", "--rate")
		if w := put(s, addr(31), "client/other"); w.Code != 200 {
			t.Errorf("another token: %d, want 200", w.Code)
		}
		if w := put(s, addr(32), "operator/ci"); w.Code != 200 {
			t.Errorf("an operator of that name: %d, want 200", w.Code)
		}
		time.Sleep(time.Second)
		passed := 0
		for i := range 20 {
			if put(s, addr(40+i), "client/ci").Code == 200 {
				passed++
			}
		}
		if passed != 10 {
			t.Errorf("%d requests pass a second later, want 10", passed)
		}
		if n := s.refused.n[refusedRate].Load(); n != 11 {
			t.Errorf("%d refusals counted, want 11", n)
		}
	})
}

func TestRate_of_an_address(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := guarded(func(l *jobs.Limits) { l.Rate = 10 }, io.Discard)
		for i := range 20 { // pages and documents count too
			path, token := healthz, ""
			if i%2 == 0 {
				path, token = "/nowhere", "client/"+strconv.Itoa(i)
			}
			if w := callAs(s, here, token, "GET", path, ""); w.Code == 429 {
				t.Fatalf("request %d: %d %s", i, w.Code, w.Body)
			}
		}
		limited(t, callAs(s, "10.0.0.1:2000", "client/new", "GET", "/v1/jobs", ""), "1", "address 10.0.0.1", "10 requests a second")
		limited(t, callAs(s, here, "", "GET", healthz, ""), "1", "address 10.0.0.1")
		if w := callAs(s, there, "", "GET", healthz, ""); w.Code != 200 {
			t.Errorf("from another address: %d, want 200", w.Code)
		}
		// A network of IPv6 is one address.
		for i := range 20 {
			callAs(s, fmt.Sprintf("[2001:db8::%x]:9", i), "", "GET", healthz, "")
		}
		limited(t, callAs(s, "[2001:db8::ffff:0:1]:9", "", "GET", healthz, ""), "1", "address 2001:db8::")
		if w := callAs(s, "[2001:db8:0:1::1]:9", "", "GET", healthz, ""); w.Code != 200 {
			t.Errorf("from another network: %d, want 200", w.Code)
		}
	})
}

// TestRate_not_on_loopback: where nobody is asked for a token nobody is held to
// a rate, but whoever comes from elsewhere is.
func TestRate_not_on_loopback(t *testing.T) {
	l := jobs.DefaultLimits()
	l.Rate = 1
	s := New(Config{Limits: l, Queue: queue{}, NewID: func(context.Context, string) (jobs.ID, error) { return jobs.ID{1}, nil }})
	for _, addr := range []string{"127.0.0.1:9", "[::1]:9", "[::ffff:127.0.0.9]:9"} {
		for range 10 {
			if w := put(s, addr, ""); w.Code != 200 {
				t.Fatalf("from %s: %d %s", addr, w.Code, w.Body)
			}
		}
	}
	if put(s, here, ""); put(s, here, "").Code != 200 {
		t.Error("less than two seconds' worth from elsewhere is refused")
	}
	limited(t, put(s, here, ""), "1", "address 10.0.0.1")
	// With tokens the same address counts.
	s = guarded(func(l *jobs.Limits) { l.Rate = 1 }, io.Discard)
	put(s, "127.0.0.1:9", "client/ci")
	put(s, "127.0.0.1:9", "client/ci")
	limited(t, put(s, "127.0.0.1:9", "client/ci"), "1", "127.0.0.1")
}

func TestRate_of_bytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := guarded(func(l *jobs.Limits) { l.RateBytes = 1 << 20 }, io.Discard)
		send := func(addr string, mib int) (took time.Duration) {
			t.Helper()
			began := time.Now()
			if w := callAs(s, addr, "client/ci", "PUT", "/enqueue?iterations=1", strings.Repeat("x", mib<<20)); w.Code != 200 {
				t.Fatalf("%d MiB: %d %s", mib, w.Code, w.Body)
			}
			return time.Since(began)
		}
		if took := send(here, 2); took != 0 {
			t.Errorf("two seconds' worth took %v, want none", took)
		}
		// A large body is read at the rate, for minutes if it must be; it is not cut.
		if took := send(here, 60); took < 59*time.Second || took > 61*time.Second {
			t.Errorf("60 MiB took %v, want 60 s at 1 MiB a second", took)
		}
		// Who owes more than a second's worth is not begun with: here another
		// body of the token stands in for many at once.
		s.accounts.get(accountKey{role: Client, name: "ci"}, time.Now()).bytes.ReserveN(time.Now(), 2<<20)
		limited(t, callAs(s, there, "client/ci", "PUT", "/enqueue?iterations=1", "x"), "1", `client "ci"`, "1048576 bytes a second", "--rate-bytes")
		if w := callAs(s, there, "client/other", "PUT", "/enqueue?iterations=1", "x"); w.Code != 200 {
			t.Errorf("another token: %d, want 200", w.Code)
		}
		time.Sleep(2 * time.Second)
		if w := callAs(s, there, "client/ci", "PUT", "/enqueue?iterations=1", "x"); w.Code != 200 {
			t.Errorf("when its time has come: %d %s, want 200", w.Code, w.Body)
		}
	})
}

// TestTries holds that an address may show few tokens that are not known, and
// that this keeps out nobody who shows one that is.
func TestTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := guarded(func(l *jobs.Limits) { l.Tries = 6 }, &log)
		for i := range 6 {
			var w *httptest.ResponseRecorder
			if i%2 == 0 {
				w = put(s, here, "guess-"+strconv.Itoa(i))
			} else {
				w = callAs(s, here, "", "GET", "/v1/status", "", "Cookie", secureCookie+"=guess; "+plainCookie+"=guess")
			}
			if w.Code != 401 {
				t.Fatalf("token %d: %d %s, want 401", i, w.Code, w.Body)
			}
		}
		limited(t, put(s, here, "guess-7"), "10", "address 10.0.0.1", "6 unknown tokens a minute", "--max-tries")
		limited(t, callAs(s, here, "", "POST", "/login", "token=guess", "Content-Type", "application/x-www-form-urlencoded"), "10", "10.0.0.1")
		if w := put(s, here, "client/ci"); w.Code != 200 {
			t.Errorf("a known token from the same address: %d, want 200", w.Code)
		}
		if callAs(s, here, "client/ci", "GET", "/v1/fleet", ""); !strings.Contains(log.String(), `audit.target="GET /v1/fleet" audit.outcome=forbidden`) {
			t.Error("what a known caller may not do is not noted when others have shown too many tokens")
		}
		if w := put(s, here, ""); w.Code != 401 {
			t.Errorf("no token: %d, want 401", w.Code)
		}
		if w := put(s, there, "guess"); w.Code != 401 {
			t.Errorf("from another address: %d, want 401", w.Code)
		}
		time.Sleep(10 * time.Second)
		if w := put(s, here, "guess"); w.Code != 401 {
			t.Errorf("10 s later: %d, want 401", w.Code)
		}
		limited(t, put(s, here, "guess"), "10")
		if n := strings.Count(log.String(), "audit.outcome=unauthorized"); n != 8 {
			t.Errorf("%d refusals in the log, want 8: what is over the limit is not told", n)
		}
		if strings.Contains(log.String(), "guess") {
			t.Errorf("a token is in the log: %s", log.String())
		}
	})
}

// TestPlaces holds that one caller gets a quarter of the long polls and streams,
// and that all are given back.
func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := guarded(func(l *jobs.Limits) { l.Waiters = 8 }, io.Discard)
		const path = "/v1/jobs/0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801?wait=30s"
		open := func(addr, token string) { go callAs(s, addr, token, "GET", path, "") }
		open(here, "client/ci")
		open(here, "client/ci")
		synctest.Wait()
		limited(t, callAs(s, there, "client/ci", "GET", path, ""), "1", `client "ci"`, "2 long polls and streams")
		limited(t, callAs(s, here, "client/new", "GET", path, ""), "1", "address 10.0.0.1")
		limited(t, callAs(s, there, "client/ci", "GET", "/v1/events", ""), "1", `client "ci"`)
		limited(t, callAs(s, there, "client/new", "GET", "/v1/events?job=0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801&job=0193a2c4-7e21-7c3e-9b1a-5d2f60c4e802", ""), "1", `client "new"`)
		limited(t, callAs(s, there, "client/ci", "POST", "/v1/jobs/batch", ""), "1", `client "ci"`)
		if w := put(s, here, "client/ci"); w.Code != 200 {
			t.Errorf("what waits for nothing: %d, want 200", w.Code)
		}
		for i := range 3 {
			for range 2 {
				open(fmt.Sprintf("10.1.0.%d:1", i), fmt.Sprintf("client/c%d", i))
			}
		}
		synctest.Wait()
		w := callAs(s, there, "client/new", "GET", path, "")
		if w.Code != 503 || !strings.Contains(w.Body.String(), "all 8 places") || w.Header().Get("Retry-After") == "" {
			t.Errorf("when all are taken: %d %s", w.Code, w.Body)
		}
		time.Sleep(31 * time.Second)
		if n := s.taken[placeWait].Load(); n != 0 {
			t.Errorf("%d places are not given back", n)
		}
		for k, a := range s.accounts.of {
			if n := a.taken[placeWait].Load(); n != 0 {
				t.Errorf("%v has %d places", k, n)
			}
		}
		if w := callAs(s, here, "client/ci", "GET", strings.Replace(path, "30s", "1s", 1), ""); w.Code != 200 {
			t.Errorf("afterwards: %d %s, want 200", w.Code, w.Body)
		}
	})
}

// TestAccounts_are_bounded holds that very many addresses cost bounded memory,
// and that what has debts or places is not forgotten for want of use.
func TestAccounts_are_bounded(t *testing.T) {
	l := jobs.DefaultLimits()
	l.RateBytes = 1 << 20
	table := newAccounts(l)
	now := time.Now()
	addr := func(i int) accountKey {
		return accountKey{addr: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
	}
	for i := range 3 * maxAccounts {
		table.get(addr(i), now.Add(time.Duration(i)*time.Microsecond))
	}
	if n := table.len(); n > maxAccounts {
		t.Errorf("%d accounts, want at most %d", n, maxAccounts)
	}
	young := 0
	for i := 2 * maxAccounts; i < 3*maxAccounts; i++ {
		if table.of[addr(i)] != nil {
			young++
		}
	}
	if young < maxAccounts*3/4 {
		t.Errorf("%d of the newest %d are there: the oldest should give way", young, maxAccounts)
	}

	table = newAccounts(l)
	table.get(addr(1), now)
	table.get(addr(2), now).taken[placeWait].Add(1)
	owes := table.get(addr(3), now)
	for range 100 {
		owes.bytes.ReserveN(now, 2<<20)
	}
	tried := table.get(addr(4), now)
	for range 60 {
		tried.tries.AllowN(now.Add(30*time.Second), 1)
	}
	table.get(addr(5), now.Add(accountAge+time.Second))
	if table.len() != 4 || table.of[addr(1)] != nil {
		t.Errorf("after %v without use: %d accounts, want those with a place, a debt and tries, and the new one", accountAge, table.len())
	}
	table.of[addr(2)].taken[placeWait].Add(-1)
	table.get(addr(6), now.Add(time.Hour))
	if table.len() != 1 {
		t.Errorf("an hour later %d accounts, want 1", table.len())
	}
}

// TestAudit holds what is noted, of whom, and what is not.
func TestAudit(t *testing.T) {
	var log bytes.Buffer
	s := guarded(nil, &log)
	ordered := s.cfg.Quarantine.(distrust).by
	const known, unknown = "01000000-0000-7000-8000-000000000001", "02000000-0000-7000-8000-000000000001"
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	for _, c := range []struct {
		token, method, path, body string
		code                      int
		headers                   []string
	}{
		{"client/ci", "PUT", "/enqueue?iterations=1", "payload", 200, nil},
		{"client/ci", "DELETE", "/v1/jobs/" + known, "", 200, nil},
		{"operator/ops", "DELETE", "/v1/jobs/" + known, "", 200, nil},
		{"operator/ops", "DELETE", "/v1/jobs/" + known + "?purge=true", "", 200, nil},
		{"operator/ops", "DELETE", "/v1/jobs/" + unknown, "", 404, nil},
		{"operator/ops", "POST", "/v1/fleet?do=drain&instance=i-1", "", 200, nil},
		{"operator/ops", "POST", "/v1/fleet?do=terminate&instance=i-9", "", 404, nil},
		{"operator/ops", "POST", "/v1/fleet?do=pause", "", 200, nil},
		{"operator/ops", "POST", "/v1/quarantine?do=add&worker=w1&reason=smoke", "", 200, nil},
		{"operator/ops", "POST", "/v1/quarantine?do=lift&worker=w9", "", 404, nil},
		{"client/ci", "POST", "/v1/quarantine?do=lift&worker=w1", "", 403, nil},
		{"client/ci", "POST", "/v1/fleet?do=pause", "", 403, nil},
		{"client/ci", "GET", "/v1/audit", "", 403, nil},
		{"stolen-secret", "GET", "/v1/jobs/" + known, "", 401, nil},
		{"", "GET", "/v1/jobs/" + known, "", 401, nil},
		{"", "POST", "/login", "token=operator/ops", 303, form},
		{"", "POST", "/login", "token=stolen-secret", 303, form},
		{"worker/fleet", "POST", "/worker/enrol", `{"name":"w1"}`, 200, nil},
		{"worker/fleet", "POST", "/worker/enrol", `{"name":"payload of a kind"}`, 422, nil},
	} {
		if w := callAs(s, here, c.token, c.method, c.path, c.body, c.headers...); w.Code != c.code {
			t.Errorf("%s %s as %q: %d %s, want %d", c.method, c.path, c.token, w.Code, w.Body, c.code)
		}
	}
	var got api.AuditLog
	w := callAs(s, there, "operator/ops", "GET", "/v1/audit", "")
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	var lines []string
	for _, e := range got.Entries {
		if e.Address != "10.0.0.1" || time.Since(e.At) > time.Minute {
			t.Errorf("entry %+v, want its address and its time", e)
		}
		lines = append(lines, strings.TrimSpace(fmt.Sprint(e.Role, " ", e.Who, " ", e.Action, " ", e.Target, " ", e.Outcome, " ", e.Reason)))
	}
	want := []string{ // the newest first
		"worker's token fleet enrol  invalid",
		"worker's token fleet enrol w1 done",
		"nobody  call login unauthorized the token does not log in",
		"operator ops login dashboard done",
		"nobody  call GET /v1/jobs/{id} unauthorized the token is not known here, or its time is over",
		"client ci call GET /v1/audit forbidden",
		"client ci call POST /v1/fleet forbidden",
		"client ci call POST /v1/quarantine forbidden",
		"operator ops lift w9 not_found",
		"operator ops quarantine w1 done",
		"operator ops pause  done",
		"operator ops terminate i-9 not_found",
		"operator ops drain i-1 done",
		"operator ops cancel " + unknown + " not_found",
		"operator ops purge " + known + " done",
		"operator ops cancel " + known + " done",
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("audit log:\n%s\nwant:\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if *ordered != "ops add w1;ops lift w9;" {
		t.Errorf("quarantines ordered: %q", *ordered)
	}
	if n := strings.Count(log.String(), "msg=audit audit.who="); n != len(want) {
		t.Errorf("%d lines of it in the log, want %d: %s", n, len(want), log.String())
	}
	for _, secret := range []string{"secret", "payload", "session", "credential"} {
		if strings.Contains(log.String(), secret) || strings.Contains(w.Body.String(), secret) {
			t.Errorf("%q is in the log or in the answer", secret)
		}
	}
	if err := json.Unmarshal(callAs(s, there, "operator/ops", "GET", "/v1/audit?limit=2", "").Body.Bytes(), &got); err != nil || len(got.Entries) != 2 {
		t.Errorf("limit=2: %d entries, %v", len(got.Entries), err)
	}
}

// TestAudit_is_bounded: whoever is refused without end fills neither the log nor
// the memory, and drives no operator's action out.
func TestAudit_is_bounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := guarded(nil, &log)
		callAs(s, here, "operator/ops", "POST", "/v1/fleet?do=pause", "")
		time.Sleep(time.Second)
		for i := range 50 {
			for k := range 500 {
				put(s, fmt.Sprintf("10.%d.%d.%d:1", i, k/256, k%256), "guess")
			}
			time.Sleep(time.Second)
		}
		for range maxActions {
			callAs(s, there, "client/ci", "GET", "/v1/fleet", "")
		}
		var got api.AuditLog
		if err := json.Unmarshal(callAs(s, here, "operator/ops", "GET", "/v1/audit?limit=2000", "").Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		lines := strings.Count(log.String(), "\n")
		if lines > 50*trailRate+trailBurst+10 || got.LeftOut < 24_000 {
			t.Errorf("%d lines in the log and %d left out, of 26000 refusals in 50 s", lines, got.LeftOut)
		}
		if last := got.Entries[len(got.Entries)-1]; last.Action != "pause" {
			t.Errorf("the oldest entry is %+v, want the operator's", last)
		}
		for range 3 * maxEvents {
			s.trail.event(nil, "login", "dashboard", nil)
			s.trail.action(context.Background(), "pause", "", nil)
		}
		if n := len(s.trail.read(10 * maxEvents).Entries); n != maxActions+maxEvents {
			t.Errorf("%d entries are kept, want %d", n, maxActions+maxEvents)
		}
	})
}

// BenchmarkAdmit is what every request pays where tokens are
// asked for.
func BenchmarkAdmit(b *testing.B) {
	s := guarded(nil, io.Discard)
	h := s.guard(users, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := httptest.NewRequest("GET", "/v1/status", nil)
	r.RemoteAddr = here
	r.Header.Set("Authorization", "Bearer client/ci")
	s.accounts.limits.Rate = 1 << 30
	w := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}
