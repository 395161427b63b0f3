package web_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"workmanager/node/keys"
)

// revokedBound is how long after its revocation a token may be of use, on a
// machine that is busy: 2 s until the file is read, 1 s until who waits looks.
const revokedBound = 15 * time.Second

// browser is a client that follows no redirects and trusts the pair.
func (c *closed) browser(t testing.TB) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(c.dir, keys.CAFile))
	if err != nil || !pool.AppendCertsFromPEM(ca) {
		t.Fatal("no authority", err)
	}
	h := &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(h.CloseIdleConnections)
	return h
}

func (c *closed) request(ctx context.Context, t testing.TB, method, path string, body io.Reader, header ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, "https://"+c.addr+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

// TestRevoked: what is under way ends with the token that it began with.
func TestRevoked(t *testing.T) {
	c := startClosed(t)
	h := c.browser(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	issue := func(role string) (id string, bearer []string) {
		tok, text, err := keys.CreateToken(c.dir, role, "short", 0, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return tok.ID, []string{"Authorization", "Bearer " + text}
	}
	ask := func(method, path, body string, header ...string) (int, string, error) {
		resp, err := h.Do(c.request(ctx, t, method, path, strings.NewReader(body), header...))
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), err
	}
	until := func(want int, header []string) {
		t.Helper()
		for end := time.Now().Add(revokedBound); ; <-time.After(20 * time.Millisecond) {
			if status, _, err := ask("GET", "/v1/status", "", header...); err != nil || status == want {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if time.Now().After(end) {
				t.Fatalf("GET /v1/status is not answered with %d", want)
			}
		}
	}
	clientID, client := issue(keys.Client)
	workerID, enrolling := issue(keys.Worker)
	until(200, client)
	until(403, enrolling)
	_, credential, err := ask("POST", "/worker/enrol", `{"name":"w1"}`, enrolling...)
	if err != nil {
		t.Fatal(err)
	}
	_, credential, _ = strings.Cut(credential, `"credential":"`)
	credential, _, _ = strings.Cut(credential, `"`)
	worker := []string{"Authorization", "Bearer " + credential, "Content-Type", "application/json"}
	_, submitted, err := ask("PUT", "/enqueue?iterations=1000000", "data=x", append(client, "Content-Type", "application/x-www-form-urlencoded")...)
	if err != nil || !strings.Contains(submitted, "Work ID") {
		t.Fatalf("enqueue: %q, %v", submitted, err)
	}
	id := strings.Split(submitted, `"`)[3]

	// One of each that lasts. Its end tells how it ended, "" as it should.
	ended := map[string]chan string{}
	begin := func(what string, f func() string) {
		done := make(chan string, 1)
		ended[what] = done
		go func() { done <- f() }()
	}
	began := make(chan struct{}, 2)
	begin("event stream", func() string {
		resp, err := h.Do(c.request(ctx, t, "GET", "/v1/events", nil, client...))
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		events := bufio.NewScanner(resp.Body)
		events.Buffer(nil, 1<<20)
		for n := 0; events.Scan(); n++ {
			if n == 0 {
				began <- struct{}{}
			}
		}
		if events.Err() != nil {
			return events.Err().Error()
		}
		return ""
	})
	lines, feed := io.Pipe()
	begin("batch", func() string {
		resp, err := h.Do(c.request(ctx, t, "POST", "/v1/jobs/batch", lines, client...))
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		replies, last := bufio.NewScanner(resp.Body), ""
		for n := 0; replies.Scan(); n++ {
			if last = replies.Text(); n == 0 {
				began <- struct{}{}
			}
		}
		if !strings.Contains(last, "was revoked") {
			return fmt.Sprintf("its last line is %s, %v", last, replies.Err())
		}
		return ""
	})
	go func() { // a line now and then, for as long as anybody takes them; none is a job, or there would be no long poll
		for {
			if _, err := fmt.Fprintln(feed, `{"data":"QQ==","iterations":0}`); err != nil {
				return
			}
			select {
			case <-ctx.Done():
				feed.CloseWithError(ctx.Err())
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	polls := map[string][]string{"wait for a job": {"GET", "/v1/jobs/" + id + "?wait=50s", ""}, "wait for results": {"GET", "/v1/results?wait=50s", ""}}
	for what, row := range polls {
		begin(what, func() string {
			status, body, err := ask(row[0], row[1], row[2], client...)
			if err != nil || status != 401 {
				return fmt.Sprintf("%d %s, %v", status, body, err)
			}
			return ""
		})
	}
	begin("wait for a lease", func() string {
		for range 2 { // the job that waits is leased first
			status, body, err := ask("POST", "/worker/lease", `{"worker":{"name":"w1","instance":"i","cores":1},"jobs":1000,"iterations":9007199254740992,"wait":50}`, worker...)
			if err == nil && status == 401 {
				return ""
			}
			if err != nil || status != 200 {
				return fmt.Sprintf("%d %s, %v", status, body, err)
			}
		}
		return "it was given leases twice"
	})
	for range 2 {
		select {
		case <-began:
		case <-ctx.Done():
			t.Fatal("the streams did not begin")
		}
	}
	begun := time.Now()
	for _, id := range []string{clientID, workerID} {
		if err := keys.RevokeToken(c.dir, id); err != nil {
			t.Fatal(err)
		}
	}
	for what, done := range ended {
		select {
		case said := <-done:
			if said != "" {
				t.Errorf("%s: %s", what, said)
			}
		case <-time.After(time.Until(begun.Add(revokedBound))):
			t.Errorf("%s goes on %v after its token was revoked", what, revokedBound)
		}
	}
	t.Logf("all had ended %v after the revocation", time.Since(begun).Round(time.Millisecond))
}

// TestLogout: the node forgets a login that was ended, and with it what goes on
// under it. Another login of the same token stays.
func TestLogout(t *testing.T) {
	c := startClosed(t)
	h := c.browser(t)
	login := func() []string {
		r := c.request(t.Context(), t, "POST", "/login", strings.NewReader(url.Values{"token": {c.made.Tokens[keys.Operator]}}.Encode()), "Content-Type", "application/x-www-form-urlencoded")
		resp, err := h.Do(r)
		if err != nil || len(resp.Cookies()) != 1 {
			t.Fatalf("login: %v, %v", resp, err)
		}
		resp.Body.Close()
		return []string{"Cookie", resp.Cookies()[0].Name + "=" + resp.Cookies()[0].Value}
	}
	status := func(method, path string, header ...string) int {
		resp, err := h.Do(c.request(t.Context(), t, method, path, nil, header...))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	one, two := login(), login()
	resp, err := h.Do(c.request(t.Context(), t, "GET", "/v1/events", nil, one...))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := status("POST", "/logout", append(one, "Sec-Fetch-Site", "cross-site")...); got != 403 {
		t.Errorf("another origin's page logs out: %d, want 403", got)
	}
	if got := status("GET", "/v1/status", one...); got != 200 {
		t.Errorf("before the logout: %d", got)
	}
	if got := status("POST", "/logout", one...); got != 303 {
		t.Errorf("logout: %d", got)
	}
	if a, b := status("GET", "/v1/status", one...), status("GET", "/v1/status", two...); a != 401 || b != 200 {
		t.Errorf("after the logout: %d, another login %d; want 401, 200", a, b)
	}
	over := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, resp.Body); over <- err }()
	select {
	case err := <-over:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(revokedBound):
		t.Error("the stream outlives its login")
	}
}
