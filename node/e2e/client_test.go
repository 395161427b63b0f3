package e2e

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"workmanager/web/api"
)

// chain is the reference: SHA-512 applied n times to data.
func chain(data string, n uint64) string {
	v := sha512.Sum512([]byte(data))
	for ; n > 1; n-- {
		v = sha512.Sum512(v[:])
	}
	return hex.EncodeToString(v[:])
}

// reply is an answer read to its end.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (r reply) String() string { return fmt.Sprintf("%d %s", r.status, tail(string(r.body), 600)) }

// ask sends one request. headers are names and values in turn.
func (n *node) ask(method, path string, body io.Reader, headers ...string) (reply, error) {
	return n.askAt(n.url(path), method, body, headers...)
}

// askAt is ask of a whole URL.
func (n *node) askAt(url, method string, body io.Reader, headers ...string) (reply, error) {
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return reply{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := n.http.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, b}, err
}

// must sends one request whose answer must have the status.
func (n *node) must(status int, method, path string, body io.Reader, headers ...string) reply {
	n.t.Helper()
	r, err := n.ask(method, path, body, headers...)
	if err != nil {
		n.t.Fatalf("%s %s: %v", method, path, err)
	}
	if r.status != status {
		n.t.Fatalf("%s %s: got %v, want %d", method, path, r, status)
	}
	return r
}

// decode reads an answer's JSON into out.
func decode(t testing.TB, r reply, out any) {
	t.Helper()
	if err := json.Unmarshal(r.body, out); err != nil {
		t.Fatalf("%v: %v", r, err)
	}
}

// enqueue submits data by the old route and returns its Work ID.
func (n *node) enqueue(data string, iterations uint64, headers ...string) string {
	n.t.Helper()
	headers = append([]string{"Content-Type", "application/octet-stream"}, headers...)
	r := n.must(http.StatusOK, "PUT", fmt.Sprintf("/enqueue?iterations=%d", iterations), strings.NewReader(data), headers...)
	var w api.WorkID
	decode(n.t, r, &w)
	return w.ID
}

// job returns a job as it stands.
func (n *node) job(id string) api.Job {
	n.t.Helper()
	var j api.Job
	decode(n.t, n.must(http.StatusOK, "GET", "/v1/jobs/"+id, nil), &j)
	return j
}

// completed waits for a job's end and checks its value.
func (n *node) completed(id, want string) api.Job {
	n.t.Helper()
	var j api.Job
	poll(n.t, 3*time.Minute, "job "+id+" ends", func() string {
		decode(n.t, n.must(http.StatusOK, "GET", "/v1/jobs/"+id+"?wait=20s", nil), &j)
		if j.State == "queued" || j.State == "leased" {
			return fmt.Sprintf("%s, %d of %d done", j.State, j.Done, j.Iterations)
		}
		return ""
	})
	if j.State != "completed" || j.Value != want || j.Done != j.Iterations {
		n.t.Errorf("job %s: got %+v, want completed with %s", id, j, want)
	}
	return j
}

// status returns the node's snapshot.
func (n *node) status() api.Status {
	n.t.Helper()
	var s api.Status
	decode(n.t, n.must(http.StatusOK, "GET", "/status", nil), &s)
	return s
}

// idle waits until no job is open.
func (n *node) idle(d time.Duration) {
	n.t.Helper()
	poll(n.t, d, "all jobs end", func() string {
		if s := n.status(); s.Queued+s.Leased > 0 {
			return fmt.Sprintf("%d queued, %d leased, %d completed", s.Queued, s.Leased, s.Completed)
		}
		return ""
	})
}

// results follows the cursor from after to its present end.
func (n *node) results(after string) (list []api.Result, cursor string) {
	n.t.Helper()
	for {
		var page api.ResultList
		decode(n.t, n.must(http.StatusOK, "GET", "/v1/results?limit=1000&after="+url.QueryEscape(after), nil), &page)
		list, after = append(list, page.Results...), page.Cursor
		if !page.More {
			return list, after
		}
	}
}

// problem checks that an error is what every error must be, and returns it.
func problem(t testing.TB, r reply) api.Problem {
	t.Helper()
	var p api.Problem
	if got := r.header.Get("Content-Type"); got != api.MediaProblem {
		t.Errorf("error of type %q, want %q: %v", got, api.MediaProblem, r)
		return p
	}
	decode(t, r, &p)
	if p.Status != r.status || p.Title == "" || p.Detail == "" || p.Code == "" {
		t.Errorf("problem lacks something: %v", r)
	}
	for _, leak := range []string{"goroutine ", ".go:", "runtime.", "SQL", "panic"} {
		if bytes.Contains(r.body, []byte(leak)) {
			t.Errorf("an error tells of our inside (%q): %v", leak, r)
		}
	}
	return p
}

// form is one way to send data.
type form struct {
	name        string
	contentType string
	encode      func(data string) string
}

const boundary = "e2e-boundary"

// part returns a multipart body with data in the field data.
func part(disposition, data string) string {
	return "--" + boundary + "\r\nContent-Disposition: form-data; name=\"data\"" + disposition + "\r\n\r\n" + data + "\r\n--" + boundary + "--\r\n"
}

var forms = []form{
	{"multipart_file", "multipart/form-data; boundary=" + boundary, func(d string) string { return part(`; filename="f"`, d) }},
	{"multipart_text", "multipart/form-data; boundary=" + boundary, func(d string) string { return part("", d) }},
	{"urlencoded", "application/x-www-form-urlencoded", func(d string) string { return "data=" + url.QueryEscape(d) }},
	{"json", "application/json", func(d string) string {
		return `{"data":"` + base64.StdEncoding.EncodeToString([]byte(d)) + `"}`
	}},
	{"raw", "application/octet-stream", func(d string) string { return d }},
}
