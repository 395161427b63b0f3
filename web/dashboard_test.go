package web_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/web"
	"workmanager/web/api"
)

// fixedStatus reports one Status, or an error.
type fixedStatus struct {
	status api.Status
	err    error
}

func (f fixedStatus) Status(context.Context) (api.Status, error) { return f.status, f.err }

// busyStatus is a node in the middle of its work.
func busyStatus() api.Status {
	now := time.Date(2026, 11, 25, 14, 22, 1, 0, time.UTC)
	oldest := now.Add(-134 * time.Second)
	return api.Status{
		Jobs: 12480, Workers: 2, Node: "a", Version: "1.2.3", Boot: "b1", StartedAt: now.Add(-time.Hour), Now: now,
		Queued: 12480, Leased: 7, Completed: 90210, Failed: 3, Cancelled: 2, Pulled: 11,
		RemainingIterations: 1.25e10, OldestQueuedAt: &oldest,
		RateIterations: 6.4e6, RateCompleted: 6.3, RateEnqueued: 0.4,
		Retention: "720h0m0s", RetentionSecs: 2592000, StoreBytes: 41 << 20, WALBytes: 2 << 20, DiskFreeBytes: 88 << 30,
		Writable: true, Cache: api.CacheStatus{Enabled: true, Entries: 5, Max: 1000, Hits: 21, Misses: 34},
		WorkerList:  []api.WorkerStatus{{Name: "a/0", Cores: 1, Leases: 4, Rate: 3.2e6, SeenAt: now}, {Name: "a/1", Cores: 1, Leases: 3, Rate: 3.2e6, SeenAt: now}},
		Audit:       api.AuditStatus{Rate: 0.001, Checked: 31, Wrong: 2, Quarantined: []api.Quarantine{}, Alarms: []api.Alarm{}},
		Fleet:       api.FleetStatus{Kind: "none", Instances: []api.Instance{}},
		Certificate: &api.CertificateStatus{ExpiresAt: now, CAExpiresAt: now.Add(10 * 365 * 24 * time.Hour)},
		Peer: api.PeerStatus{
			Node: "b", Session: "catchup", Since: &oldest, Reason: "catchup: the peer is catching up", API: "127.0.0.1:5001", Gossip: "127.0.0.1:7947",
			Alive: true, HeardAt: &now, Heard: true, Waiting: 80, Leased: 1, Workers: 1,
			UnderReplicated: 34, LagSeconds: 1.5, Behind: 9, Complete: true, PeerComplete: true, SkewSeconds: -0.25,
			Compare: api.CompareStatus{Ranges: 114, Differed: 115, Repaired: 116, Alarms: 117},
			Counters: api.PeerCounters{
				RowsIn: 101, RowsOut: 102, Resets: 103, AckTimeouts: 104, Refusals: 105, BadFrames: 106, CopiesIn: 107, CopiesOut: 108,
				CopiesDropped: 109, Strangers: 110, FloorRounds: 111, Stolen: 112, TakenOver: 113, Conflicts: 118,
			},
		},
		Clients: api.ClientsStatus{MaxOpenJobs: 5_000_000, MostOpenJobs: 12_000, WithOpenJobs: 3, RefusedJobs: 126},
		SinceStart: api.SinceStart{
			Enqueued: 119, Completed: 120, Iterations: 121, LeasesLost: 122, LeasesStalled: 127,
			Commits: api.CommitStatus{Count: 10, Rows: 123, Seconds: 0.5, Buckets: []api.CommitBucket{{Seconds: 0.001, Count: 4}, {Seconds: 0.1, Count: 9}}},
		},
	}
}

// pageServer serves what needs no queue: pages, documents, metrics.
func pageServer(t *testing.T, s web.StatusReporter) http.Handler {
	t.Helper()
	return validated(t, web.New(web.Config{Status: s, Limits: jobs.DefaultLimits(), Version: "1.2.3"}))
}

func get(h http.Handler, method, target string, header ...string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func assetNames(t *testing.T) []string {
	t.Helper()
	var names []string
	err := fs.WalkDir(os.DirFS("assets"), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// documents are the routes that serve a file of the binary, and their types.
func documents(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{
		"/":                "text/html; charset=utf-8",
		"/docs":            "text/html; charset=utf-8",
		"/v1/openapi.yaml": "application/yaml",
		"/openapi.json":    "application/json",
	}
	for _, name := range assetNames(t) {
		switch _, ext, _ := strings.Cut(path.Base(name), "."); ext {
		case "js":
			found["/assets/"+name] = "text/javascript; charset=utf-8"
		case "css":
			found["/assets/"+name] = "text/css; charset=utf-8"
		case "svg":
			found["/assets/"+name] = "image/svg+xml"
		case "txt", "":
			found["/assets/"+name] = "text/plain; charset=utf-8"
		}
	}
	return found
}

func TestDocuments(t *testing.T) {
	h := pageServer(t, fixedStatus{})
	tags := map[string]string{}
	for target, mediaType := range documents(t) {
		full := get(h, "GET", target)
		text := body(t, full)
		if full.StatusCode != 200 || len(text) < 100 {
			t.Errorf("GET %s = %d with %d bytes", target, full.StatusCode, len(text))
		}
		for name, want := range map[string]string{
			"Content-Type":               mediaType,
			"Cache-Control":              "no-cache",
			"X-Content-Type-Options":     "nosniff",
			"Referrer-Policy":            "no-referrer",
			"Cross-Origin-Opener-Policy": "same-origin",
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; " +
				"form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types workmanager",
		} {
			if got := full.Header.Get(name); got != want {
				t.Errorf("GET %s: %s: got %q, want %q", target, name, got, want)
			}
		}
		etag := full.Header.Get("ETag")
		if !regexp.MustCompile(`^"[0-9a-f]{32}"$`).MatchString(etag) {
			t.Errorf("GET %s: ETag %s is not a strong one of 32 digits", target, etag)
		}
		if other, ok := tags[etag]; ok {
			t.Errorf("%s and %s have one ETag, %s", target, other, etag)
		}
		tags[etag] = target

		head := get(h, "HEAD", target)
		if text := body(t, head); head.StatusCode != 200 || text != "" || head.Header.Get("ETag") != etag || head.Header.Get("Content-Length") != full.Header.Get("Content-Length") {
			t.Errorf("HEAD %s = %d with %d bytes and %v, want the headers of GET", target, head.StatusCode, len(text), head.Header)
		}
		for _, row := range []struct {
			ifNoneMatch string
			want        int
		}{
			{etag, 304}, {"W/" + etag, 304}, {`"x", ` + etag, 304}, {"*", 304}, {`"x"`, 200}, {"", 200}, {strings.Trim(etag, `"`), 200},
		} {
			got := get(h, "GET", target, "If-None-Match", row.ifNoneMatch)
			if got.StatusCode != row.want || got.Header.Get("ETag") != etag || (row.want == 304) != (body(t, got) == "") {
				t.Errorf("GET %s, If-None-Match %s: got %d %v, want %d", target, row.ifNoneMatch, got.StatusCode, got.Header, row.want)
			}
		}
	}
}

func TestDocuments_are_the_files(t *testing.T) {
	h := pageServer(t, fixedStatus{})
	for target, file := range map[string]string{"/": "assets/index.html", "/docs": "assets/docs.html", "/v1/openapi.yaml": "openapi.yaml", "/openapi.json": "openapi.json", "/assets/app.js": "assets/app.js"} {
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := body(t, get(h, "GET", target)); got != string(want) {
			t.Errorf("GET %s is not %s", target, file)
		}
	}
	var doc struct{ OpenAPI string }
	if err := json.Unmarshal([]byte(body(t, get(h, "GET", "/openapi.json"))), &doc); err != nil || doc.OpenAPI != "3.1.0" {
		t.Errorf("/openapi.json: version %q, error %v", doc.OpenAPI, err)
	}
}

func TestRedoc_goes_to_docs(t *testing.T) {
	got := get(pageServer(t, fixedStatus{}), "GET", "/redoc")
	if got.StatusCode != 307 || got.Header.Get("Location") != "/docs" {
		t.Errorf("GET /redoc = %d to %q, want 307 to /docs", got.StatusCode, got.Header.Get("Location"))
	}
}

func TestAssets_refuses(t *testing.T) {
	h := pageServer(t, fixedStatus{})
	for _, target := range []string{"/assets/nothing.js", "/assets/index.html", "/assets/", "/assets/lib/x.js", "/assets/lib", "/assets/lib/lib/uplot.js", "/assets/..%2fopenapi.yaml", "/assets/%00"} {
		if got := get(h, "GET", target); got.StatusCode != 404 {
			t.Errorf("GET %s = %d, want 404", target, got.StatusCode)
		}
	}
	if got := get(h, "POST", "/assets/app.js"); got.StatusCode != 405 || got.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST /assets/app.js = %d, Allow %q", got.StatusCode, got.Header.Get("Allow"))
	}
}

// TestAssets_keep_to_the_policy finds what the Content-Security-Policy would
// stop only in a browser: foreign origins, inline script and style, markup made
// from strings, files that are not there.
func TestAssets_keep_to_the_policy(t *testing.T) {
	names := assetNames(t)
	foreign := regexp.MustCompile("(?i)\\b[a-z]+://|[\"'`(=]//[a-z]|\\burl\\(|@import")
	inline := regexp.MustCompile(`(?i)<style|\sstyle=|<script(>|\s[^>]*>[^<])|\son[a-z]+=|javascript:`)
	markup := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|createContextualFragment|srcdoc`)
	refers := regexp.MustCompile(`(?:/assets/|from "\./)([A-Za-z0-9_./-]+)`)
	for _, name := range names {
		if strings.HasPrefix(name, "lib/") { // whose bytes TestLibraries pins; a browser test has them under the policy
			continue
		}
		raw, err := os.ReadFile("assets/" + name)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(raw), ` xmlns="http://www.w3.org/2000/svg"`, "")
		for what, bad := range map[string]*regexp.Regexp{"a foreign origin": foreign, "inline script or style": inline, "markup made from a string": markup} {
			if what == "inline script or style" && !strings.HasSuffix(name, ".html") {
				continue
			}
			if hit := bad.FindString(text); hit != "" {
				t.Errorf("assets/%s has %s: %q", name, what, hit)
			}
		}
		for _, m := range refers.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(names, m[1]) {
				t.Errorf("assets/%s refers to %s, which is not there", name, m[1])
			}
		}
	}
}

// TestLibraries holds the libraries to the sums that web/lib-build wrote with
// them, and to their licences: nobody edits them here.
func TestLibraries(t *testing.T) {
	sums, err := os.ReadFile("assets/lib/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{"lib/SHA256SUMS": ""}
	for line := range strings.Lines(string(sums)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		listed["lib/"+name] = sum
	}
	for _, name := range assetNames(t) {
		if !strings.HasPrefix(name, "lib/") {
			continue
		}
		text, err := os.ReadFile("assets/" + name)
		if err != nil {
			t.Fatal(err)
		}
		want, ok := listed[name]
		if got := fmt.Sprintf("%x", sha256.Sum256(text)); !ok || want != "" && got != want {
			t.Errorf("assets/%s has the sum %s, SHA256SUMS says %q: run npm ci && npm run build in web/lib-build", name, got, want)
		}
		delete(listed, name)
	}
	for name := range listed {
		t.Errorf("assets/%s is in SHA256SUMS and not there", name)
	}
	licences, err := os.ReadFile("assets/lib/LICENSES.txt")
	if err != nil {
		t.Fatal(err)
	}
	versions, err := os.ReadFile("lib-build/package.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`"(htm|preact|uplot)": "([^"]+)"`).FindAllStringSubmatch(string(versions), -1) {
		if !strings.Contains(string(licences), m[1]+" "+m[2]+"\n") {
			t.Errorf("LICENSES.txt does not have %s %s", m[1], m[2])
		}
	}
}

// TestDashboard_is_small bounds what a browser loads for the page: 60 kB in
// all, as a proxy or a client would compress it.
func TestDashboard_is_small(t *testing.T) {
	const most = 60_000
	sum := 0
	for _, name := range assetNames(t) {
		switch path.Base(name) {
		case "docs.html", "docs.js", "docs.css", "login.html", "login.js", "LICENSES.txt", "SHA256SUMS":
			continue // other pages
		}
		text, err := os.ReadFile("assets/" + name)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		sum += b.Len()
	}
	if sum > most {
		t.Errorf("the dashboard has %d bytes gzip, at most %d", sum, most)
	}
	t.Logf("the dashboard has %d bytes gzip", sum)
}

// TestDashboard_hangs_together holds what the scripts of the page draw to what a
// screen reader needs. How it then is, a browser test asks axe.
func TestDashboard_hangs_together(t *testing.T) {
	var all strings.Builder
	for _, name := range assetNames(t) {
		if path.Ext(name) != ".js" || strings.HasPrefix(name, "lib/") || name == "docs.js" || name == "login.js" {
			continue
		}
		text, err := os.ReadFile("assets/" + name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	page := all.String()
	ids := map[string]int{}
	for _, m := range regexp.MustCompile(`\sid="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		ids[m[1]]++
	}
	for _, m := range regexp.MustCompile(`\s(?:for|aria-labelledby|aria-describedby)="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if ids[m[1]] == 0 {
			t.Errorf("something refers to id %q, which nothing has", m[1])
		}
	}
	count := func(what string) int { return len(regexp.MustCompile(what).FindAllString(page, -1)) }
	if tables, captions := count(`<table`), count(`<caption`); tables == 0 || tables != captions {
		t.Errorf("the page has %d tables and %d captions", tables, captions)
	}
	if heads, scoped := count(`<th[ >]`), count(`<th scope=`); heads == 0 || heads != scoped {
		t.Errorf("the page has %d header cells, %d with a scope", heads, scoped)
	}
	if inputs, labels := count(`<input`), count(`<label for=`)+count(`<input type="search" id="search" aria-label=`); inputs == 0 || inputs != labels {
		t.Errorf("the page has %d inputs and %d labels", inputs, labels)
	}
	if live := count(`aria-live=`); live != 1 {
		t.Errorf("the page has %d live regions, want one, for the forecast", live)
	}
}
