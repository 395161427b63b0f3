package web_test

import (
	"net/http"
	"testing"

	"workmanager/jobs"
)

// TestEscapedSlash: a slash that is spelt %2F is a letter of its path and does
// not redirect, for the target would be the same path, and so on for ever. A
// redirect for a plain slash beside it ends.
func TestEscapedSlash(t *testing.T) {
	t.Parallel()
	s := serve(t, (&fake{}).server(t))
	for _, c := range []struct{ method, path string }{
		{"GET", "/status%2f"},
		{"GET", "/status%2F"},
		{"GET", "/status%2F%2f"},
		{"GET", "/v1/jobs%2f?limit=5"},
		{"PUT", "/enqueue%2f?iterations=5"},
		{"POST", "/pullCompleted%2F?top=1"},
		{"GET", "/status%2f/"},
		{"GET", "/status/%2f"},
	} {
		path := c.path
		a := send(t, s, c.method, path, nil)
		for range 3 {
			if a.status != http.StatusTemporaryRedirect {
				break
			}
			path = a.header.Get("Location")
			a = send(t, s, c.method, path, nil)
		}
		if a.status == http.StatusTemporaryRedirect {
			t.Errorf("%s %s: still a redirect at %s, to %s", c.method, c.path, path, a.header.Get("Location"))
			continue
		}
		a.refused(t, http.StatusNotFound, jobs.CodeNoRoute)
	}
}
