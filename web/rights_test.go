package web_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
	"workmanager/node"
	"workmanager/node/keys"
	peersync "workmanager/sync"
	"workmanager/web"
	"workmanager/web/client"
)

// rights says once more, by hand, who may call which route: c a client, o an
// operator, e a worker's enrolment token, w a worker's credential, p the peer,
// n nobody at all. A route that is not here fails the test.
var rights = map[string]string{
	"PUT /enqueue":                  "co",
	"POST /pullCompleted":           "co",
	"GET /status":                   "co",
	"POST /v1/jobs":                 "co",
	"POST /v1/jobs/batch":           "co",
	"GET /v1/jobs":                  "co",
	"GET /v1/jobs/{id}":             "co",
	"DELETE /v1/jobs/{id}":          "co",
	"GET /v1/results":               "co",
	"GET /v1/jobs/{id}/checkpoints": "co",
	"GET /v1/jobs/{id}/receipt":     "co",
	"GET /v1/jobs/{id}/explain":     "co",
	"GET /v1/history":               "co",
	"POST /worker/lease":            "w",
	"POST /worker/report":           "w",
	"GET /v1/status":                "co",
	"GET /v1/fleet":                 "o",
	"POST /v1/fleet":                "o",
	"GET /v1/quarantine":            "o",
	"POST /v1/quarantine":           "o",
	"GET /v1/audit":                 "o",
	"GET /v1/events":                "co",
	"GET /healthz":                  "ncoewp",
	"GET /readyz":                   "ncoewp",
	"GET /metrics":                  "co",
	"GET /v1/openapi.yaml":          "ncoewp",
	"GET /openapi.json":             "ncoewp",
	"GET /docs":                     "ncoewp",
	"GET /redoc":                    "ncoewp",
	"GET /{$}":                      "ncoewp", // the page; nobody is sent to the login
	"GET /assets/{name}":            "ncoewp",
	"GET /assets/lib/{name}":        "ncoewp",
	"GET /login":                    "ncoewp",
	"POST /login":                   "ncoewp",
	"POST /logout":                  "ncoewp",
	"POST /worker/enrol":            "e",
	"GET /worker/binary/{arch}":     "ncoewp",
	"POST /worker/enrol/instance":   "n", // the instance itself is looked at
	"GET /peer/changes":             "p",
	"POST /peer/gc":                 "p",
	"POST /peer/steal":              "p",
	"POST /peer/consume":            "p",
	"POST /peer/summary":            "p",
	"POST /peer/quarantine":         "p",
	"GET /peer/jobs/{id}":           "p",
	"POST /peer/nosuch":             "p",
}

// closed is a node that asks for keys, and those keys.
type closed struct {
	addr  string
	dir   string // of the keys
	made  keys.Made
	log   *logBuffer
	clock *clock
}

// clock is the node's, and may be turned.
type clock struct {
	mu  sync.Mutex // guards off
	off time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.off)
}

func (c *clock) turn(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = d
}

type logBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// makeKeys makes the keys of nodes a and b.
func makeKeys(t testing.TB, ttl time.Duration, now time.Time) (string, keys.Made) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	made, err := keys.Init(dir, []keys.Host{{Node: "a"}, {Node: "b"}}, ttl, now, func(keys.Made) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	return dir, made
}

// startClosed runs node a with keys.
func startClosed(t testing.TB, change ...func(*node.Config)) *closed {
	t.Helper()
	c := &closed{log: &logBuffer{}, clock: &clock{}}
	c.dir, c.made = makeKeys(t, keys.NodeTTL, time.Now().Add(-24*time.Hour))
	cfg := node.Default()
	cfg.DataDir, cfg.Listen, cfg.Workers = t.TempDir(), "127.0.0.1:0", 0
	cfg.Keys = keys.Files{Dir: filepath.Join(c.dir, "a")}
	cfg.Limits.Tries = 0 // tests show very many tokens that are not known
	for _, f := range change {
		f(&cfg)
	}
	n, err := node.New(cfg, node.Parts{Now: c.clock.now, Log: slog.New(slog.NewTextHandler(c.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	c.addr = n.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("node: %v", err)
		}
	})
	return c
}

// as returns a client that shows a token and the certificate of a node's folder,
// either of which may be "", and perhaps the cookie of a login.
func (c *closed) as(t testing.TB, token, folder string, cookie ...string) func(method, path string) (*http.Response, error) {
	t.Helper()
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(c.dir, keys.CAFile))
	if err != nil || !pool.AppendCertsFromPEM(ca) {
		t.Fatal("no authority", err)
	}
	cfg := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if folder != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(folder, keys.CertFile), filepath.Join(folder, keys.KeyFile))
		if err != nil {
			t.Fatal(err)
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil } // whatever is asked for
	}
	h := &http.Client{
		Transport: &http.Transport{TLSClientConfig: cfg}, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(h.CloseIdleConnections)
	return func(method, path string) (*http.Response, error) {
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		r, err := http.NewRequestWithContext(ctx, method, "https://"+c.addr+path, nil)
		if err != nil {
			return nil, err
		}
		switch {
		case strings.Contains(token, " "): // another scheme
			r.Header.Set("Authorization", token)
		case token != "":
			r.Header.Set("Authorization", "Bearer "+token)
		}
		for _, session := range cookie {
			r.AddCookie(&http.Cookie{Name: "__Host-workmanager", Value: session})
		}
		resp, err := h.Do(r)
		if err == nil {
			resp.Body.Close() // the header says all; of a stream there is no end
		}
		return resp, err
	}
}

// until waits until the node answers a token with a status.
func (c *closed) until(t testing.TB, token string, status int) {
	t.Helper()
	call := c.as(t, token, "")
	for end := time.Now().Add(revokedBound); ; <-time.After(20 * time.Millisecond) {
		resp, err := call("GET", "/v1/status")
		if err == nil && resp.StatusCode == status {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("GET /v1/status: %v, %v, want %d", resp, err, status)
		}
	}
}

// forge changes a credential in the middle of its signature.
func forge(credential string) string {
	b := []byte(credential)
	if i := len(b) - 10; b[i] == 'A' {
		b[i] = 'B'
	} else {
		b[i] = 'A'
	}
	return string(b)
}

// TestRights calls every route as everybody.
func TestRights(t *testing.T) {
	c := startClosed(t)
	foreignDir, foreign := makeKeys(t, keys.NodeTTL, time.Now().Add(-24*time.Hour))
	// A certificate of the right authority whose time is over.
	expired := filepath.Join(t.TempDir(), "keys")
	if err := os.CopyFS(expired, os.DirFS(c.dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Renew(expired, []keys.Host{{Node: "b"}}, 30*time.Minute, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	open := func(dir string, at time.Time) *keys.Keys {
		k, err := keys.Open(keys.Files{Dir: filepath.Join(dir, "b")}, func() time.Time { return at }, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	credential := func(made keys.Made, dir string, at time.Time) string {
		cred, _, ok := open(dir, at).Enrol(made.Tokens[keys.Worker], "w1")
		if !ok {
			t.Fatal("not enrolled")
		}
		return cred
	}
	login := func(made keys.Made, dir, role string, at time.Time) string { // at the other node
		session, _, ok := open(dir, at).Login(made.Tokens[role])
		if !ok {
			t.Fatal("not logged in")
		}
		return session
	}
	good := credential(c.made, c.dir, time.Now())
	// Tokens whose time is over, and one that was revoked; the node has read them
	// when it knows the latter no more.
	over := map[string]string{}
	for _, role := range keys.Roles {
		_, text, err := keys.CreateToken(c.dir, role, "over", time.Hour, time.Now().Add(-2*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		over[role] = text
	}
	revoked, revokedText, err := keys.CreateToken(c.dir, keys.Operator, "revoked", 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c.until(t, revokedText, http.StatusOK)
	revokedLogin, _, ok := open(c.dir, time.Now()).Login(revokedText)
	if !ok {
		t.Fatal("not logged in")
	}
	if err := keys.RevokeToken(c.dir, revoked.ID); err != nil {
		t.Fatal(err)
	}
	c.until(t, revokedText, http.StatusUnauthorized)
	const cut, unknown = "cut", "unknown"
	type caller struct {
		name, letter, token, folder string
		is                          string // cut: no connection; unknown: 401 where nobody may not
		cookie                      string
	}
	callers := []caller{
		{name: "nobody", letter: "n", is: unknown},
		{name: "client", letter: "c", token: c.made.Tokens[keys.Client]},
		{name: "operator", letter: "o", token: c.made.Tokens[keys.Operator]},
		{name: "enrolment token", letter: "e", token: c.made.Tokens[keys.Worker]},
		{name: "worker", letter: "w", token: good},
		{name: "peer", letter: "p", folder: filepath.Join(c.dir, "b")},
		{name: "client's token and the peer's certificate", letter: "c", token: c.made.Tokens[keys.Client], folder: filepath.Join(c.dir, "b")},
		{name: "unknown token and the peer's certificate", letter: "n", token: "wm_client_0_0", folder: filepath.Join(c.dir, "b"), is: unknown},
		{name: "another cluster's client", letter: "n", token: foreign.Tokens[keys.Client], is: unknown},
		{name: "another cluster's operator", letter: "n", token: foreign.Tokens[keys.Operator], is: unknown},
		{name: "another cluster's worker", letter: "n", token: credential(foreign, foreignDir, time.Now()), is: unknown},
		{name: "expired worker", letter: "n", token: credential(c.made, c.dir, time.Now().Add(-keys.WorkerTTL-30*time.Second)), is: unknown},
		{name: "forged worker", letter: "n", token: forge(good), is: unknown},
		{name: "expired certificate", letter: "n", folder: filepath.Join(expired, "b"), is: cut},
		{name: "foreign CA", letter: "n", folder: filepath.Join(foreignDir, "b"), is: cut},
		{name: "foreign CA with an operator's token", letter: "n", token: c.made.Tokens[keys.Operator], folder: filepath.Join(foreignDir, "b"), is: cut},
		{name: "client whose time is over", letter: "n", token: over[keys.Client], is: unknown},
		{name: "operator whose time is over", letter: "n", token: over[keys.Operator], is: unknown},
		{name: "enrolment token whose time is over", letter: "n", token: over[keys.Worker], is: unknown},
		{name: "operator that was revoked", letter: "n", token: revokedText, is: unknown},
		{name: "another scheme", letter: "n", token: "Basic " + c.made.Tokens[keys.Operator], is: unknown},
		{name: "client's login", letter: "c", cookie: login(c.made, c.dir, keys.Client, time.Now())},
		{name: "operator's login", letter: "o", cookie: login(c.made, c.dir, keys.Operator, time.Now())},
		{name: "login whose time is over", letter: "n", cookie: login(c.made, c.dir, keys.Operator, time.Now().Add(-keys.SessionTTL-30*time.Second)), is: unknown},
		{name: "login of a token that was revoked", letter: "n", cookie: revokedLogin, is: unknown},
		{name: "another cluster's login", letter: "n", cookie: login(foreign, foreignDir, keys.Operator, time.Now()), is: unknown},
		{name: "forged login", letter: "n", cookie: forge(login(c.made, c.dir, keys.Operator, time.Now())), is: unknown},
		{name: "login in the header", letter: "n", token: login(c.made, c.dir, keys.Operator, time.Now()), is: unknown},
		{name: "operator's token as a login", letter: "n", cookie: c.made.Tokens[keys.Operator], is: unknown},
		{name: "worker's credential as a login", letter: "n", cookie: good, is: unknown},
		{name: "unknown token and an operator's login", letter: "n", token: "wm_client_0_0", cookie: login(c.made, c.dir, keys.Operator, time.Now()), is: unknown},
	}

	var routes []string
	for _, pattern := range web.New(web.Config{Limits: jobs.DefaultLimits()}).Patterns() {
		if pattern != "/peer/" {
			routes = append(routes, pattern)
		}
	}
	routes = append(append(routes, peersync.Patterns()...), "POST /peer/nosuch")
	slices.SortStableFunc(routes, func(a, b string) int { // what ends a login comes last
		return cmp.Compare(strings.Count(a, "/logout"), strings.Count(b, "/logout"))
	})
	tried := 0
	for _, who := range callers {
		var cookies []string
		if who.cookie != "" {
			cookies = []string{who.cookie}
		}
		call := c.as(t, who.token, who.folder, cookies...)
		for _, pattern := range routes {
			allowed, listed := rights[pattern]
			if !listed {
				t.Errorf("%s: who may call it is not in the table of this test", pattern)
				continue
			}
			method, path, _ := strings.Cut(pattern, " ")
			path = strings.NewReplacer("{$}", "", "{id}", "0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801", "{name}", "style.css", "{arch}", "mips").Replace(path)
			for _, path := range []string{path, path + "?x=1"} {
				tried++
				resp, err := call(method, path)
				if who.is == cut {
					if err == nil {
						t.Errorf("%s, %s %s: answered %s, want no connection", who.name, method, path, resp.Status)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s, %s %s: %v", who.name, method, path, err)
					continue
				}
				want := 0 // anything that is not about rights
				switch {
				case strings.Contains(allowed, who.letter):
				case who.is == unknown:
					want = http.StatusUnauthorized
				default:
					want = http.StatusForbidden
				}
				denied := resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden
				if want != 0 && resp.StatusCode != want || want == 0 && denied {
					t.Errorf("%s, %s %s: answered %s, want %d (0: allowed)", who.name, method, path, resp.Status, want)
				}
				if (resp.StatusCode == http.StatusUnauthorized) != (resp.Header.Get("WWW-Authenticate") != "") {
					t.Errorf("%s, %s %s: %s with WWW-Authenticate %q", who.name, method, path, resp.Status, resp.Header.Get("WWW-Authenticate"))
				}
			}
		}
	}
	for pattern := range rights {
		if !slices.Contains(routes, pattern) {
			t.Errorf("%s is in the table of this test and is no route", pattern)
		}
	}
	nobody := c.as(t, "", "")
	for _, path := range []string{"//v1/fleet", "/peer/../v1/fleet", "/peer/../v1/status?x=1", "/V1/status", "/v1//status", "/v1/./status", "/v1/status/", "/assets/../metrics", "/assets/..%2fmetrics", "/login/../v1/jobs", "/peer/%2e%2e/v1/status"} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "get"} {
			resp, err := nobody(method, path)
			if err == nil && resp.StatusCode < 300 {
				t.Errorf("nobody, %s %s: answered %s", method, path, resp.Status)
			}
		}
	}
	t.Logf("%d routes x %d callers, %d calls", len(routes), len(callers), tried)
	for _, secret := range []string{c.made.Tokens[keys.Client], c.made.Tokens[keys.Operator], c.made.Tokens[keys.Worker], good} {
		if strings.Contains(c.log.String(), secret[len(secret)-20:]) {
			t.Error("a token is in the log")
		}
	}
}

func TestRights_plain_HTTP_to_the_TLS_port(t *testing.T) {
	c := startClosed(t)
	resp, err := http.Get("http://" + c.addr + "/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(b), "HTTPS") {
		t.Errorf("%s %q, want a 400 that says it is HTTPS", resp.Status, b)
	}
	cl := &client.Client{URLs: []string{"http://" + c.addr}}
	defer cl.Close()
	if _, err := cl.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "https://") {
		t.Errorf("the client says %v, want to use https://", err)
	}
}

// TestLogin goes the way of a browser.
func TestLogin(t *testing.T) {
	c := startClosed(t)
	pool := x509.NewCertPool()
	ca, _ := os.ReadFile(filepath.Join(c.dir, keys.CAFile))
	pool.AppendCertsFromPEM(ca)
	h := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer h.CloseIdleConnections()
	do := func(method, path, body string, header ...string) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "https://"+c.addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if body != "" {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		resp, err := h.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	if resp := do("GET", "/", ""); resp.StatusCode != 303 || resp.Header.Get("Location") != "/login" {
		t.Errorf("the page without a login: %s to %q", resp.Status, resp.Header.Get("Location"))
	}
	if p := do("GET", "/login", "").Header.Get("Content-Security-Policy"); !strings.Contains(p, "default-src 'none'") || strings.Contains(p, "unsafe") {
		t.Errorf("policy of the login page: %q", p)
	}
	form := func(token string) string { return url.Values{"token": {token}}.Encode() }
	for what, token := range map[string]string{"wrong": "wm_client_1_x", "a worker's": c.made.Tokens[keys.Worker], "none": ""} {
		if resp := do("POST", "/login", form(token)); resp.Header.Get("Location") != "/login?refused" || resp.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s token: %s to %q, cookie %q", what, resp.Status, resp.Header.Get("Location"), resp.Header.Get("Set-Cookie"))
		}
	}
	if resp := do("POST", "/login", form(c.made.Tokens[keys.Client]), "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"); resp.StatusCode != 403 {
		t.Errorf("a login from another origin: %s", resp.Status)
	}
	resp := do("POST", "/login", form(c.made.Tokens[keys.Client]), "Origin", "https://"+c.addr, "Sec-Fetch-Site", "same-origin")
	cookies := resp.Cookies()
	if resp.Header.Get("Location") != "/" || len(cookies) != 1 {
		t.Fatalf("login: %s to %q, cookies %v", resp.Status, resp.Header.Get("Location"), cookies)
	}
	ck := cookies[0]
	if !ck.HttpOnly || !ck.Secure || ck.SameSite != http.SameSiteStrictMode || ck.Path != "/" || ck.Domain != "" || !strings.HasPrefix(ck.Name, "__Host-") {
		t.Errorf("cookie %v", ck)
	}
	if strings.Contains(ck.Value, c.made.Tokens[keys.Client][len(c.made.Tokens[keys.Client])-30:]) {
		t.Error("the cookie has the token in it")
	}
	with := ck.Name + "=" + ck.Value
	for _, row := range []struct {
		method, path string
		status       int
	}{{"GET", "/", 200}, {"GET", "/v1/status", 200}, {"GET", "/v1/events", 200}, {"GET", "/v1/fleet", 403}, {"GET", "/peer/changes", 403}, {"POST", "/worker/enrol", 403}, {"PUT", "/enqueue?iterations=5", 200}} {
		body := ""
		if row.method == "PUT" {
			body = "data=x"
		}
		if resp := do(row.method, row.path, body, "Cookie", with); resp.StatusCode != row.status {
			t.Errorf("logged in, %s %s: %s, want %d", row.method, row.path, resp.Status, row.status)
		}
	}
	if resp := do("PUT", "/enqueue?iterations=5", "data=x", "Cookie", with, "Sec-Fetch-Site", "cross-site"); resp.StatusCode != 403 {
		t.Errorf("another origin's page with the cookie: %s, want 403", resp.Status)
	}
	if resp := do("POST", "/logout", "", "Cookie", with); len(resp.Cookies()) != 1 || resp.Cookies()[0].MaxAge >= 0 {
		t.Errorf("logout: cookies %v", resp.Cookies())
	}
	c.clock.turn(keys.SessionTTL + time.Second)
	if resp := do("GET", "/v1/status", "", "Cookie", with); resp.StatusCode != 401 {
		t.Errorf("12 hours later: %s, want 401", resp.Status)
	}
	c.clock.turn(0)
	if err := keys.RevokeToken(c.dir, strings.Split(c.made.Tokens[keys.Client], "_")[2]); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for do("GET", "/v1/status", "", "Cookie", with).StatusCode != 401 {
		if time.Now().After(deadline) {
			t.Fatal("the login outlives its token")
		}
		<-time.After(50 * time.Millisecond)
	}
}

// TestEnrol lets a worker in the way it comes: through the client.
func TestEnrol(t *testing.T) {
	c := startClosed(t)
	enrol := func(token, worker string) (string, error) {
		cl := &client.Client{URLs: []string{"https://" + c.addr}, CAFile: filepath.Join(c.dir, keys.CAFile), Token: token, Worker: worker, Rounds: 1}
		defer cl.Close()
		got, err := cl.Enrol(t.Context())
		if err == nil && (got.Name != worker || got.TTLSeconds < 3500 || got.TTLSeconds > 3600) {
			err = fmt.Errorf("enrolled as %+v", got)
		}
		return got.Credential, err
	}
	cred, err := enrol(c.made.Tokens[keys.Worker], "w1")
	if err != nil || !strings.HasPrefix(cred, "wmc_") {
		t.Fatalf("Enrol = %q, %v", cred, err)
	}
	for _, row := range []struct {
		token, worker string
		code          jobs.Code
	}{
		{"", "w1", jobs.CodeAuth}, {c.made.Tokens[keys.Client], "w1", jobs.CodeForbidden}, {cred, "w2", jobs.CodeForbidden},
		{c.made.Tokens[keys.Worker], "", jobs.CodeInvalid}, {c.made.Tokens[keys.Worker], "a", jobs.CodeInvalid}, {c.made.Tokens[keys.Worker], "A", jobs.CodeInvalid},
		{c.made.Tokens[keys.Worker], "a b", jobs.CodeInvalid},
	} {
		if _, err := enrol(row.token, row.worker); jobs.CodeOf(err) != row.code {
			t.Errorf("worker %q with %.12q: %v, want %s", row.worker, row.token, err, row.code)
		}
	}
}

// TestWorkers_report_on_their_own: what one worker leased another cannot end,
// whatever it says.
func TestWorkers_report_on_their_own(t *testing.T) {
	c := startClosed(t)
	as := func(token, worker string) *client.Client {
		cl := &client.Client{URLs: []string{"https://" + c.addr}, CAFile: filepath.Join(c.dir, keys.CAFile), Token: token, Worker: worker, Rounds: 1}
		t.Cleanup(cl.Close)
		return cl
	}
	user := as(c.made.Tokens[keys.Client], "")
	const iterations = 1000
	id, _, err := user.Enqueue(t.Context(), client.Bytes([]byte("x")), iterations, client.EnqueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w1, w2 := as(c.made.Tokens[keys.Worker], "w1"), as(c.made.Tokens[keys.Worker], "w2")
	one, two := jobs.Worker{Name: "w1", Instance: "i", Cores: 1}, jobs.Worker{Name: "w2", Instance: "i", Cores: 1}
	leases, err := w1.Lease(t.Context(), one, jobs.Capacity{Jobs: 1, Iterations: iterations, Wait: 5 * time.Second})
	if err != nil || len(leases) != 1 || leases[0].ID != id {
		t.Fatalf("Lease = %v, %v", leases, err)
	}
	l := leases[0]
	report := func(kind jobs.ReportKind) []jobs.Report {
		r := jobs.Report{LeaseRef: l.LeaseRef, V1: l.V1, Iterations: l.Iterations, Kind: kind, Err: "no", Ticket: l.Ticket}
		if kind == jobs.ReportValue {
			r.Err, r.Progress = "", jobs.Progress{Done: iterations, Value: jobs.Value(hashchain.Value([]byte("x"), iterations))}
		}
		return []jobs.Report{r}
	}
	for _, kind := range []jobs.ReportKind{jobs.ReportFailure, jobs.ReportHandBack, jobs.ReportValue} {
		got, err := w2.Report(t.Context(), two, report(kind))
		if err != nil || got[0] != jobs.Lost {
			t.Errorf("another worker's report, kind %v: %v, %v, want lost", kind, got, err)
		}
	}
	if _, err := w2.Report(t.Context(), one, report(jobs.ReportFailure)); jobs.CodeOf(err) != jobs.CodeForbidden {
		t.Errorf("a worker that calls itself by the other's name: %v, want forbidden", err)
	}
	if _, err := w2.Lease(t.Context(), one, jobs.Capacity{Jobs: 1, Iterations: 1}); jobs.CodeOf(err) != jobs.CodeForbidden {
		t.Errorf("a lease by the other's name: %v, want forbidden", err)
	}
	if v, err := user.Job(t.Context(), id, 0); err != nil || v.Ended() {
		t.Errorf("the job has ended: %+v, %v", v, err)
	}
	if got, err := w1.Report(t.Context(), one, report(jobs.ReportValue)); err != nil || got[0] != jobs.Kept {
		t.Errorf("the worker's own report: %v, %v, want kept", got, err)
	}
	if v, err := user.Job(t.Context(), id, 0); err != nil || v.Rank != jobs.Completed {
		t.Errorf("the job: %+v, %v, want completed", v, err)
	}
}
