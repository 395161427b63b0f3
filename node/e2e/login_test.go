package e2e

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestDashboard_login holds the page of a closed node to its tokens: nothing is
// shown without one, and each sees what it may do.
func TestDashboard_login(t *testing.T) {
	chromium(t)
	dir := filepath.Join(t.TempDir(), "keys")
	made := initKeys(t, dir)
	addr := freeAddr(t)
	p := launch(t, "closed node", binary, "node", "--name", "a", "--listen", addr, "--gossip", "", "--data-dir", t.TempDir(), "--log-format", "text", "--keys", filepath.Join(dir, "a"), "--workers", "1")
	n := &node{process: p, addr: addr, http: secure(t, dir)}
	poll(t, upTimeout, "the closed node serves", func() string { return n.answers("", "GET", "/readyz", 200) })
	page := "https://" + addr + "/"
	b := browse(t, page, chromedp.IgnoreCertErrors)
	login := func(token string) {
		t.Helper()
		b.until(20*time.Second, "#main", "Log in")
		b.leave(chromedp.SendKeys("#token", token), chromedp.KeyEvent(kb.Enter))
	}
	login("wm_nothing")
	b.until(20*time.Second, "#login-error", "not known here")
	login(made.Tokens["worker"])
	b.until(20*time.Second, "#login-error", "is a worker's")

	login(made.Tokens["client"])
	b.until(20*time.Second, "#forecast-text", "Nothing queued")
	b.until(10*time.Second, ".top", "Log out")
	if secret := ask[string](b, `document.cookie + JSON.stringify(localStorage) + location.href`); len(secret) > 200 || ask[bool](b, `document.cookie !== ""`) {
		t.Errorf("the page can read its session: %s", secret)
	}
	id := b.submit(inputFile(t, "closed.bin", "closed"), "20000")
	b.until(30*time.Second, row(id), "completed", chain("closed", 20000)[:20])
	b.press("Verify job " + id)
	b.press("Verify here the value of job " + id)
	b.until(time.Minute, row(id), "Right: 20,000 iterations")
	b.until(10*time.Second, ".same", "workmanager enqueue closed.bin -n 20000 --wait --node https://"+addr)

	b.leave(chromedp.Click("#logout"))
	b.until(20*time.Second, "#main", "Log in")
	b.do(chromedp.Navigate(page))
	login(made.Tokens["operator"])
	b.until(20*time.Second, "#forecast-text", "Nothing queued")
	b.until(10*time.Second, ".top", "Log out")
	if role := ask[string](b, `document.querySelector("#logout").title`); role != "init, operator" {
		t.Errorf("the page says that it was opened by %q, want the operator's token and role", role)
	}
}
