package web_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/node"
	"workmanager/node/keys"
	"workmanager/web"
	"workmanager/web/api"
)

// TestProgram fetches the program that runs from a real node: it is this test.
func TestProgram(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skipf("SKIPPED: a node on %s/%s has no program for instances", runtime.GOOS, runtime.GOARCH)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(self)
	tag := `"` + hex.EncodeToString(sum[:]) + `"`
	s := startBare(t, func(h http.Handler) http.Handler { return h }) // its answers are too long to be checked by the document
	path := "/worker/binary/" + runtime.GOARCH
	last := len(self) - 1
	for _, row := range []struct {
		method, headers string
		status          int
		body            []byte
		lengths         string
	}{
		{"GET", "", 200, self, fmt.Sprint(len(self))},
		{"HEAD", "", 200, nil, fmt.Sprint(len(self))},
		{"GET", "Range: bytes=0-3", 206, self[:4], "4"},
		{"GET", fmt.Sprintf("Range: bytes=%d-", last), 206, self[last:], "1"},
		{"GET", "Range: bytes=-2", 206, self[last-1:], "2"},
		{"GET", fmt.Sprintf("Range: bytes=%d-", last+1), 200, self, ""},
		{"GET", "Range: bytes=0-0,5-9", 200, self, ""},
		{"GET", "Range: lines=1-2", 200, self, ""},
		{"GET", "Range: bytes=9-1", 200, self, ""},
		{"GET", "If-None-Match: " + tag, 304, nil, ""},
		{"GET", "If-None-Match: \"x\", W/" + tag, 304, nil, ""},
		{"GET", "Range: bytes=1-1|If-Range: " + tag, 206, self[1:2], "1"},
		{"GET", "Range: bytes=1-1|If-Range: \"x\"", 200, self, ""},
	} {
		var headers []string
		if row.headers != "" {
			headers = strings.Split(row.headers, "|")
		}
		a := s.do(row.method, path, nil, headers...)
		if a.status != row.status || a.body != string(row.body) || a.header.Get("ETag") != tag {
			t.Errorf("%s with %q: status %d, ETag %s, %d bytes; want %d, %s, %d", row.method, row.headers, a.status, a.header.Get("ETag"), len(a.body), row.status, tag, len(row.body))
		}
		if row.lengths != "" && a.header.Get("Content-Length") != row.lengths {
			t.Errorf("%s with %q: Content-Length %s, want %s", row.method, row.headers, a.header.Get("Content-Length"), row.lengths)
		}
	}
	a := s.do("GET", "/metrics", nil)
	for _, want := range []string{
		`workmanager_worker_binary_requests_total{arch="` + runtime.GOARCH + `",code="206"} 4`,
		`workmanager_worker_binary_bytes_total{arch="` + runtime.GOARCH + `"} ` + fmt.Sprint(float64(6*len(self)+8)),
	} {
		if !strings.Contains(a.body, want+"\n") {
			t.Errorf("/metrics has no %q:\n%s", want, grep(a.body, "worker_binary"))
		}
	}
}

func grep(text, word string) string {
	var out []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

// TestProgram_refusals has each answer checked against openapi.yaml.
func TestProgram_refusals(t *testing.T) {
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	s := startNode(t)
	s.do("GET", "/worker/binary/"+other, nil).refused(t, 404, jobs.CodeNoRoute, "--binaries", "workmanager-linux-"+other)
	s.do("GET", "/worker/binary/mips", nil).refused(t, 404, jobs.CodeNoRoute)
	s.do("POST", "/worker/binary/amd64", nil).refused(t, 405, jobs.CodeMethod)
	none := serve(t, validated(t, web.New(web.Config{Limits: jobs.DefaultLimits()})))
	send(t, none, "GET", "/worker/binary/amd64", nil).refused(t, 404, jobs.CodeNoRoute)
	failing := serve(t, validated(t, web.New(web.Config{Limits: jobs.DefaultLimits(), Programs: programs(func(string) (web.Program, error) { return web.Program{}, io.ErrUnexpectedEOF })})))
	if a := send(t, failing, "GET", "/worker/binary/amd64", nil); a.status != 500 || strings.Contains(a.body, "EOF") {
		t.Errorf("a program that cannot be read: %d %s", a.status, a.body)
	}
}

type programs func(arch string) (web.Program, error)

func (p programs) Program(arch string) (web.Program, error) { return p(arch) }

// held reads nothing until it is told.
type held struct{ go_ chan struct{} }

func (h held) ReadAt(p []byte, _ int64) (int, error) {
	<-h.go_
	return len(p), nil
}

// TestProgram_bounded has more ask at once than are served.
func TestProgram_bounded(t *testing.T) {
	h := held{make(chan struct{})}
	one := web.Program{ReaderAt: h, Size: 1 << 10, SHA256: strings.Repeat("ab", 32)}
	api := web.New(web.Config{Limits: jobs.DefaultLimits(), Programs: programs(func(string) (web.Program, error) { return one, nil })})
	s := serve(t, api)
	var done sync.WaitGroup
	for range web.MaxPrograms {
		done.Go(func() {
			if a, err := trySend(t.Context(), s, "GET", "/worker/binary/arm64", nil); err != nil || a.status != 200 || len(a.body) != 1<<10 {
				t.Errorf("one of those that fit: %v, %d", err, a.status)
			}
		})
	}
	defer done.Wait()
	for api.Sending() < web.MaxPrograms {
		runtime.Gosched()
	}
	a := send(t, s, "GET", "/worker/binary/arm64", nil)
	a.refused(t, 503, jobs.CodeBusy, "limit")
	if a.header.Get("Retry-After") == "" {
		t.Error("it does not say when to try again")
	}
	if a := send(t, s, "HEAD", "/worker/binary/arm64", nil); a.status != 200 {
		t.Errorf("HEAD meanwhile: %d", a.status)
	}
	close(h.go_)
	done.Wait()
	if a := send(t, s, "GET", "/worker/binary/arm64", nil); a.status != 200 {
		t.Errorf("afterwards: %d", a.status)
	}
}

// instances lets in by a function.
type instances func(instance string, slot int, from netip.Addr) error

func (f instances) Admit(_ context.Context, instance string, slot int, from netip.Addr) (string, time.Time, error) {
	return "wmc_good", time.Now().Add(time.Minute), f(instance, slot, from)
}

// TestEnrolInstance shows what a request is taken for, and each refusal.
func TestEnrolInstance(t *testing.T) {
	dir, _ := makeKeys(t, keys.NodeTTL, time.Now().Add(-time.Hour))
	k, err := keys.Open(keys.Files{Dir: filepath.Join(dir, "a")}, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var said error
	var got []string
	api_ := web.New(web.Config{Limits: jobs.DefaultLimits(), Keeper: k, Instances: instances(func(instance string, slot int, from netip.Addr) error {
		got = append(got, fmt.Sprintf("%s %d %s", instance, slot, from))
		return said
	})})
	s := httptest.NewUnstartedServer(validated(t, api_))
	web.Tune(s.Config)
	s.TLS = &tls.Config{}
	s.StartTLS()
	t.Cleanup(s.Close)
	ask := func(body string, headers ...string) answer {
		t.Helper()
		return send(t, s, "POST", "/worker/enrol/instance", strings.NewReader(body), append(headers, "Content-Type: application/json")...)
	}
	a := ask(`{"instance":"i-0123456789abcdef0","slot":0}`, "X-Forwarded-For: 10.0.0.9", "Forwarded: for=10.0.0.9", "X-Real-IP: 10.0.0.9")
	var out api.EnrolResponse
	if err := json.Unmarshal([]byte(a.body), &out); err != nil || a.status != 200 || out.Credential != "wmc_good" || out.Name != "i-0123456789abcdef0" || out.TTLSeconds < 50 {
		t.Errorf("let in: %d %s, %v", a.status, a.body, err)
	}
	ask(`{"instance":"i-1"}`)
	if want := []string{"i-0123456789abcdef0 0 127.0.0.1", "i-1 -1 127.0.0.1"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("looked at %v, want %v", got, want)
	}
	said = jobs.Errorf(jobs.CodeForbidden, "no instance of ours")
	ask(`{"instance":"i-1"}`).refused(t, 403, jobs.CodeForbidden, "no instance of ours")
	said = jobs.Errorf(jobs.CodeUnavailable, "not so far").Retry(5 * time.Second)
	if a := ask(`{"instance":"i-1"}`); a.status != 503 || a.header.Get("Retry-After") != "5" {
		t.Errorf("not so far: %d, Retry-After %q", a.status, a.header.Get("Retry-After"))
	}
	got = nil
	ask(`{}`).refused(t, 422, jobs.CodeInvalid, "instance")
	ask(`{"instance":"i-1","slot":-1}`).refused(t, 422, jobs.CodeInvalid, "slot")
	ask(`{"instance":"`+strings.Repeat("i", 64)+`"}`).refused(t, 422, jobs.CodeInvalid, "instance")
	ask(`{"instance":"i-1","name":"w1"}`).refused(t, 422, jobs.CodeInvalid, "name")
	ask(`x`).refused(t, 400, jobs.CodeMalformed)
	ask(`{"instance":"i-1"}`+strings.Repeat(" ", 5<<10)).refused(t, 413, jobs.CodeTooLarge)
	if len(got) > 0 {
		t.Errorf("requests that are wrong were looked at: %v", got)
	}
	open := startNode(t)
	open.do("POST", "/worker/enrol/instance", strings.NewReader(`{"instance":"i-1"}`), "Content-Type: application/json").refused(t, 404, jobs.CodeNoRoute, "no fleet")
}

// TestProgram_other_architecture has a folder with the other program, one that
// is none, and one that is written over while the node runs.
func TestProgram_other_architecture(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skipf("SKIPPED: %s/%s is not one of the two", runtime.GOOS, runtime.GOARCH)
	}
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	dir := t.TempDir()
	file := filepath.Join(dir, "workmanager-linux-"+other)
	body := elfFile(other)
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte("#!/bin/sh\n"))
	cfg := node.Default()
	cfg.DataDir, cfg.Listen, cfg.Workers, cfg.Binaries = t.TempDir(), "127.0.0.1:0", 0, dir
	if _, err := node.New(cfg, node.Parts{}); err == nil || !strings.Contains(err.Error(), "no program for linux/"+other) {
		t.Errorf("New() with a script for a program = %v", err)
	}
	cfg.Binaries = file
	if _, err := node.New(cfg, node.Parts{}); err == nil || !strings.Contains(err.Error(), "no folder") {
		t.Errorf("New() with a file for a folder = %v", err)
	}
	write(body)
	s := startBare(t, func(h http.Handler) http.Handler { return h }, func(cfg *node.Config) { cfg.Binaries = dir })
	get := func() answer { t.Helper(); return s.do("GET", "/worker/binary/"+other, nil) }
	if a := get(); a.status != 200 || a.body != string(body) {
		t.Errorf("%d, %d bytes, want %d", a.status, len(a.body), len(body))
	}
	if err := os.Rename(file, file+".old"); err != nil {
		t.Fatal(err)
	}
	write([]byte("another"))
	if a := get(); a.status != 200 || a.body != string(body) {
		t.Errorf("replaced meanwhile: %d, %d bytes, want the %d that were there", a.status, len(a.body), len(body))
	}
	if err := os.WriteFile(file+".old", bytes.Repeat([]byte("x"), len(body)+1), 0o755); err != nil {
		t.Fatal(err)
	}
	get().refused(t, 503, jobs.CodeUnavailable, "restart the node")
}

// elfFile is the head of a program for the architecture, and something behind it.
func elfFile(arch string) []byte {
	b := make([]byte, 64, 4096)
	copy(b, "\x7fELF\x02\x01\x01")
	b[16], b[20] = 2, 1 // a program, version 1
	b[18] = map[string]byte{"amd64": 62, "arm64": 183}[arch]
	b[52], b[54], b[58] = 64, 56, 64 // sizes of the headers
	return append(b, bytes.Repeat([]byte("program"), 500)...)
}
