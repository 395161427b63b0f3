package web_test

import (
	"net/http"
	"strings"
	"testing"

	"workmanager/jobs"
	"workmanager/web"
)

// TestHeaders: every page and script, with and without a login, lets a browser
// load nothing but what is ours and be framed by nobody; every other answer,
// errors among them, is at least not guessed to be a page.
func TestHeaders(t *testing.T) {
	c := startClosed(t)
	operator := c.as(t, c.made.Tokens["operator"], "")
	nobody := c.as(t, "", "")
	pages := 0
	for _, pattern := range append(web.New(web.Config{Limits: jobs.DefaultLimits()}).Patterns(), "GET /nosuch", "POST /peer/nosuch") {
		method, path, ok := strings.Cut(pattern, " ")
		if !ok {
			continue
		}
		path = strings.NewReplacer("{$}", "", "{id}", "0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801", "{name}", "app.js").Replace(path)
		for who, call := range map[string]func(string, string) (*http.Response, error){"an operator": operator, "nobody": nobody} {
			resp, err := call(method, path)
			if err != nil {
				t.Errorf("%s, %s: %v", who, pattern, err)
				continue
			}
			h := resp.Header
			if h.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s, %s: %s without nosniff", who, pattern, resp.Status)
			}
			kind := h.Get("Content-Type")
			if resp.StatusCode/100 == 3 { // a browser goes on, and shows nothing
				continue
			}
			if !strings.Contains(kind, "html") && !strings.Contains(kind, "javascript") && !strings.Contains(kind, "css") && !strings.Contains(kind, "svg") {
				continue
			}
			pages++
			policy := h.Get("Content-Security-Policy")
			for _, must := range []string{"default-src 'none'", "script-src 'self'", "connect-src 'self'", "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
				if !strings.Contains(policy, must) {
					t.Errorf("%s, %s: the policy has no %s: %q", who, pattern, must, policy)
				}
			}
			if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || strings.Contains(policy, "http") || strings.Contains(policy, "data:") {
				t.Errorf("%s, %s: the policy lets others in: %q", who, pattern, policy)
			}
			if h.Get("Referrer-Policy") != "no-referrer" || h.Get("Cross-Origin-Opener-Policy") != "same-origin" {
				t.Errorf("%s, %s: Referrer-Policy %q, Cross-Origin-Opener-Policy %q", who, pattern, h.Get("Referrer-Policy"), h.Get("Cross-Origin-Opener-Policy"))
			}
		}
	}
	if pages < 7 {
		t.Errorf("%d pages and files were looked at", pages)
	}
}
