package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"workmanager/web/api"
)

// TestFleet_page_of_a_client: a client's page tells how many workers there are
// and names none; the operator's names them, and has what was decided. Each is as
// its status is.
func TestFleet_page_of_a_client(t *testing.T) {
	fleetAtLength(t)
	chromium(t)
	dir := filepath.Join(t.TempDir(), "keys")
	made := initKeys(t, dir)
	f := newFleetNode(t)
	f.stop()
	f.flags, f.http = []string{"--keys", filepath.Join(dir, "a"), "--max-workers", "2", "--min-workers", "1"}, secure(t, dir)
	f.dir = t.TempDir()
	f.process = launch(t, "closed node", append([]string{binary, "node", "--listen", f.addr, "--gossip", "", "--data-dir", f.dir, "--log-format", "text", "--fleet", "process"}, f.flags...)...)
	poll(t, upTimeout, "it serves", func() string { return f.answers("", "GET", "/readyz", 200) })

	var there api.FleetStatus
	poll(t, 30*time.Second, "its worker is connected", func() string {
		r, err := f.tlsAsk("GET", "/v1/fleet", "", made.Tokens["operator"])
		if err != nil || json.Unmarshal(r.body, &there) != nil {
			t.Fatalf("fleet: %v, %v", r, err)
		}
		if there.Running == 1 {
			return ""
		}
		return string(r.body)
	})
	id := there.Instances[0].ID

	r, err := f.tlsAsk("GET", "/v1/status", "", made.Tokens["client"])
	if err != nil || strings.Contains(string(r.body), id) || !strings.Contains(string(r.body), `"running":1`) {
		t.Errorf("a client's status: %s, %v: want that one instance runs, and not %s", r.body, err, id)
	}
	b := browse(t, "https://"+f.addr+"/", chromedp.IgnoreCertErrors)
	login := func(token string) {
		t.Helper()
		b.until(20*time.Second, "#main", "Log in")
		b.leave(chromedp.SendKeys("#token", token), chromedp.KeyEvent(kb.Enter))
	}
	login(made.Tokens["client"])
	b.until(20*time.Second, "#fleet", "1 running, of at most 2")
	b.until(20*time.Second, "#workers", "connected here")
	b.until(30*time.Second, "#submit", "of computing: one chain") // by what workers of the node have measured
	if text := b.all(); strings.Contains(text, id) || strings.Contains(text, "What the scheduler did") || strings.Contains(text, "Pause launches") {
		t.Errorf("a client's page names %s, or has what is an operator's:\n%s", id, text)
	}
	b.leave(chromedp.Click("#logout"))
	login(made.Tokens["operator"])
	b.until(20*time.Second, "#fleet", "1 running, of at most 2", id, "Pause launches")
	b.until(20*time.Second, "#workers", id)
	b.until(20*time.Second, "#decisions", "What the scheduler did", "launch")
}
