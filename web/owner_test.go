package web_test

import (
	"bufio"
	"context"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
	"workmanager/node"
	"workmanager/node/keys"
	"workmanager/web"
	"workmanager/web/api"
)

// owners is a closed node with the tokens of two clients, alice and bob, and
// what calls it as each of them, or as the operator.
type owners struct {
	*closed
	t      testing.TB
	tokens map[string]string
	client *http.Client
}

func startOwners(t testing.TB, clients string, change ...func(*node.Config)) *owners {
	t.Helper()
	o := &owners{t: t, tokens: map[string]string{}}
	o.closed = startClosed(t, func(cfg *node.Config) {
		cfg.Workers, cfg.Clients = 1, clients
		for _, name := range []string{"alice", "bob"} {
			var err error
			if _, o.tokens[name], err = keys.CreateToken(filepath.Dir(cfg.Keys.Dir), keys.Client, name, 0, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range change {
			f(cfg)
		}
	})
	o.tokens["operator"] = o.made.Tokens[keys.Operator]
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(o.dir, keys.CAFile))
	if err != nil || !pool.AppendCertsFromPEM(ca) {
		t.Fatal("no authority", err)
	}
	o.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}, Timeout: 30 * time.Second}
	t.Cleanup(o.client.CloseIdleConnections)
	return o
}

// do calls as somebody. Of a stream it reads the first events, until one of
// progress was among them and another of the status behind it.
func (o *owners) do(who, method, path, body string, header ...string) (int, string) {
	o.t.Helper()
	ctx, cancel := context.WithCancel(o.t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "https://"+o.addr+path, strings.NewReader(body))
	if err != nil {
		o.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+o.tokens[who])
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := o.client.Do(r)
	if err != nil {
		o.t.Fatalf("%s, %s %s: %v", who, method, path, err)
	}
	defer resp.Body.Close()
	if resp.Header.Get("Content-Type") != "text/event-stream" {
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			o.t.Fatalf("%s, %s %s: %v", who, method, path, err)
		}
		return resp.StatusCode, string(b)
	}
	var seen strings.Builder
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		fmt.Fprintln(&seen, lines.Text())
		if strings.HasPrefix(lines.Text(), "event: status") && strings.Contains(seen.String(), "event: progress") {
			break
		}
	}
	return resp.StatusCode, seen.String()
}

// id returns the ID in an answer.
func (o *owners) id(status int, body string) string {
	o.t.Helper()
	var j api.Job
	if err := json.Unmarshal([]byte(body), &j); err != nil || status > 201 || j.ID == "" {
		o.t.Fatalf("no job in %d %s", status, body)
	}
	return j.ID
}

const endless = 1 << 50

// submit makes a job and returns its ID.
func (o *owners) submit(who, data string, iterations uint64, header ...string) string {
	o.t.Helper()
	header = append(header, "Content-Type", "application/octet-stream")
	return o.id(o.do(who, "POST", fmt.Sprintf("/v1/jobs?iterations=%d", iterations), data, header...))
}

// until waits for a job's state.
func (o *owners) until(who, id, state string) {
	o.t.Helper()
	eventually(o.t, func() string {
		_, body := o.do(who, "GET", "/v1/jobs/"+id, "")
		return body
	}, func(body string) bool { return strings.Contains(body, `"state":"`+state+`"`) })
}

// TestOwners: every route that a client may call, with jobs of another there. It
// answers as if they were not. A route that is not in this test fails it.
func TestOwners(t *testing.T) {
	t.Parallel()
	o := startOwners(t, node.ClientsOwn)
	// Alice's: one computed, one under way, one that waits; and one of nobody's.
	done := o.submit("alice", "alice's data", 5000)
	leased := o.submit("alice", "alice's chain", endless)
	o.until("alice", done, "completed")
	o.until("alice", leased, "leased")
	queued := o.submit("alice", "alice's other chain", endless+1, "Idempotency-Key", "key")
	ops := o.submit("operator", "the operator's", 3000)
	var value string
	{
		_, body := o.do("alice", "GET", "/v1/jobs/"+done, "")
		var j api.Job
		if err := json.Unmarshal([]byte(body), &j); err != nil || j.Owner != "alice" || j.Value != jobs.Value(hashchain.Value([]byte("alice's data"), 5000)).String() {
			t.Fatalf("alice's own job: %s, %v", body, err)
		}
		value = j.Value
	}
	var secrets []string // nothing that bob is told may have one of these
	for _, data := range []string{"alice's data", "alice's chain", "alice's other chain", "the operator's"} {
		v1 := sha512.Sum512([]byte(data))
		secrets = append(secrets, hex.EncodeToString(v1[:]))
	}
	secrets = append(secrets, done, leased, queued, ops, value, "alice")
	mine := o.submit("bob", "bob's data", 7000)
	o.until("bob", mine, "completed")
	long := o.submit("bob", "bob's chain", endless+2)

	const unknown = "0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801"
	// same tells that an ID of another's job answers as one that is none.
	same := func(t *testing.T, method, path string) {
		for _, id := range []string{done, leased, queued, ops} {
			for _, query := range []string{"", "?wait=1ms", "?wait=replicated", "?purge=true"} {
				began := time.Now()
				status, body := o.do("bob", method, strings.Replace(path, "{id}", id, 1)+query, "")
				none, nothing := o.do("bob", method, strings.Replace(path, "{id}", unknown, 1)+query, "")
				if status != http.StatusNotFound || none != status || strings.ReplaceAll(body, id, "ID") != strings.ReplaceAll(nothing, unknown, "ID") {
					t.Errorf("%s of another's job%s: %d %s, of none %d %s", method, query, status, body, none, nothing)
				}
				if took := time.Since(began); took > 20*time.Second {
					t.Errorf("%s of another's job%s waits for it: %v", method, query, took)
				}
			}
		}
	}
	clean := func(t *testing.T, status int, body string) string {
		t.Helper()
		if status != http.StatusOK {
			t.Errorf("answered %d %s", status, body)
		}
		for _, s := range secrets {
			if strings.Contains(body, s) {
				t.Errorf("bob is told %q: %s", s, body)
			}
		}
		return body
	}
	has := func(t *testing.T, body string, ids ...string) {
		t.Helper()
		for _, id := range ids {
			if !strings.Contains(body, id) {
				t.Errorf("bob is not told of his own job %s: %s", id, body)
			}
		}
	}
	rules := map[string]func(t *testing.T, method, path string){
		"PUT /enqueue": func(t *testing.T, method, path string) { // the same work: not known from another's, and no conflict with another's key
			status, body := o.do("bob", method, path+fmt.Sprintf("?iterations=%d", endless+9), "alice's other chain", "Idempotency-Key", "key")
			has(t, clean(t, status, body))
		},
		"POST /v1/jobs": func(t *testing.T, method, path string) {
			status, body := o.do("bob", method, path+"?iterations=5000", "alice's data", "Content-Type", "application/octet-stream", "Idempotency-Key", "other")
			if status != http.StatusCreated || strings.Contains(body, `"completed"`) || strings.Contains(body, "resumed_from") {
				t.Errorf("work that alice has had done: %d %s, want a job that begins at its data", status, body)
			}
			o.do("bob", "DELETE", "/v1/jobs/"+o.id(status, body)+"?purge=true", "") // or its value, which is alice's, were bob's as well
			status, body = o.do("bob", method, path+"?iterations=20000", "alice's data", "Content-Type", "application/octet-stream")
			if status != http.StatusCreated || strings.Contains(body, "resumed_from") {
				t.Errorf("a longer chain over alice's data: %d %s, want a job that begins at its data", status, body)
			}
			again := o.submit("bob", "bob's data", 7000) // his own is known
			if _, body := o.do("bob", "GET", "/v1/jobs/"+again, ""); !strings.Contains(body, `"attempts":0`) {
				t.Errorf("bob's own work was computed again: %s", body)
			}
		},
		"POST /v1/jobs/batch": func(t *testing.T, method, path string) {
			_, body := o.do("bob", method, path, `{"data":"eA==","iterations":1125899906842624,"key":"one-more"}`+"\n", "Content-Type", "application/x-ndjson")
			has(t, clean(t, 200, body))
			var line struct {
				ID string `json:"id"`
			}
			if err := json.Unmarshal([]byte(body), &line); err != nil || line.ID == "" {
				t.Fatalf("no job in %s", body)
			}
			if _, body := o.do("bob", "GET", "/v1/jobs/"+line.ID, ""); !strings.Contains(body, `"owner":"bob"`) {
				t.Errorf("a job of a batch: %s, want bob's", body)
			}
		},
		"GET /v1/jobs": func(t *testing.T, method, path string) {
			for _, state := range append([]jobs.State{""}, jobs.States...) {
				all := ""
				for after := ""; ; {
					status, body := o.do("bob", method, path+"?limit=2&state="+string(state)+"&after="+after, "")
					var page api.JobList
					if err := json.Unmarshal([]byte(clean(t, status, body)), &page); err != nil {
						t.Fatal(err)
					}
					all += body
					if after = page.Cursor; !page.More {
						break
					}
				}
				switch state {
				case "":
					has(t, all, mine, long)
				case jobs.StateCompleted:
					has(t, all, mine)
				}
			}
		},
		"GET /v1/jobs/{id}":             same,
		"DELETE /v1/jobs/{id}":          same,
		"GET /v1/jobs/{id}/checkpoints": same,
		"GET /v1/jobs/{id}/receipt":     same,
		"GET /v1/jobs/{id}/explain":     same,
		"POST /pullCompleted": func(t *testing.T, method, path string) {
			has(t, clean2(clean, t, o, method, path+"?top=100"), mine)
			has(t, clean2(clean, t, o, method, path+"?top=1&consume=true"))
			clean2(clean, t, o, method, path+"?top=100&consume=true")
			if _, body := o.do("alice", "POST", "/pullCompleted?top=100", ""); !strings.Contains(body, done) {
				t.Errorf("alice's result was handed out to bob: %s", body)
			}
		},
		"GET /v1/results": func(t *testing.T, method, path string) {
			_, body := o.do("operator", "GET", path, "")
			var page api.ResultList
			if err := json.Unmarshal([]byte(body), &page); err != nil || !strings.Contains(body, done) || !strings.Contains(body, mine) {
				t.Errorf("the operator's results: %s, %v, want everybody's", body, err)
			}
			has(t, clean2(clean, t, o, method, path+"?limit=1"), mine)
			clean2(clean, t, o, method, path+"?after="+page.Cursor+"&wait=1ms")
		},
		"GET /status":     func(t *testing.T, method, path string) { clean2(clean, t, o, method, path) },
		"GET /v1/status":  func(t *testing.T, method, path string) { clean2(clean, t, o, method, path) },
		"GET /metrics":    func(t *testing.T, method, path string) { clean2(clean, t, o, method, path) },
		"GET /v1/history": func(t *testing.T, method, path string) { clean2(clean, t, o, method, path) },
		"GET /v1/events": func(t *testing.T, method, path string) {
			_, seen := o.do("alice", method, path, "")
			if !strings.Contains(seen, leased) {
				t.Errorf("alice's stream does not tell of her job: %s", seen)
			}
			clean2(clean, t, o, method, path)
			_, body := o.do("bob", method, path+"?job="+leased+"&job="+mine, "")
			has(t, body, mine)
			if !strings.Contains(body, "event: gone\ndata: {\"id\":\""+leased) {
				t.Errorf("a stream of another's job: %s, want that it is gone", body)
			}
			clean(t, 200, strings.ReplaceAll(body, leased, ""))
		},
	}
	var routes []string
	for _, pattern := range web.New(web.Config{Limits: jobs.DefaultLimits()}).Patterns() {
		if letters := rights[pattern]; strings.Contains(letters, "c") && !strings.Contains(letters, "n") {
			routes = append(routes, pattern)
		}
	}
	slices.Sort(routes) // the results are handed out last but one, behind those that look for them
	slices.SortStableFunc(routes, func(a, b string) int {
		return strings.Count(a, "pullCompleted") - strings.Count(b, "pullCompleted")
	})
	for _, pattern := range routes {
		rule := rules[pattern]
		if rule == nil {
			t.Errorf("%s: what one client sees there of another's jobs is not in the table of this test", pattern)
			continue
		}
		method, path, _ := strings.Cut(pattern, " ")
		t.Run(strings.NewReplacer("/", "_", " ", "").Replace(pattern), func(t *testing.T) { rule(t, method, path) })
	}
	// Nothing of it has touched alice's jobs, and the operator sees all.
	for id, state := range map[string]string{done: "completed", leased: "leased", queued: "queued"} {
		for _, who := range []string{"alice", "operator"} {
			if status, body := o.do(who, "GET", "/v1/jobs/"+id, ""); status != 200 || !strings.Contains(body, `"owner":"alice"`) || state == "completed" && !strings.Contains(body, value) || strings.Contains(body, "cancelled") {
				t.Errorf("%s, job %s: %d %s", who, id, status, body)
			}
		}
	}
	if status, body := o.do("operator", "DELETE", "/v1/jobs/"+long, ""); status != 200 || !strings.Contains(body, "cancelled") {
		t.Errorf("the operator cancels bob's job: %d %s", status, body)
	}
	if status, body := o.do("alice", "DELETE", "/v1/jobs/"+queued+"?purge=true", ""); status != 200 || !strings.Contains(body, "cancelled") {
		t.Errorf("alice purges her own: %d %s", status, body)
	}
}

func clean2(clean func(*testing.T, int, string) string, t *testing.T, o *owners, method, path string) string {
	t.Helper()
	status, body := o.do("bob", method, path, "")
	return clean(t, status, body)
}

// TestOwners_of_one_name: a token that takes the place of another shows the jobs
// of the name, and keys are the name's.
func TestOwners_of_one_name(t *testing.T) {
	t.Parallel()
	o := startOwners(t, node.ClientsOwn)
	first := o.submit("alice", "x", endless, "Idempotency-Key", "k")
	if again := o.submit("alice", "x", endless, "Idempotency-Key", "k"); again != first {
		t.Errorf("alice's key again: job %s, want %s", again, first)
	}
	other := o.submit("bob", "y", endless, "Idempotency-Key", "k")
	if other == first {
		t.Errorf("one key of two clients is one job, %s", other)
	}
	_, token, err := keys.CreateToken(o.dir, keys.Client, "alice", 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	o.tokens["alice"] = token
	eventually(t, func() int { status, _ := o.do("alice", "GET", "/v1/jobs/"+first, ""); return status }, func(status int) bool { return status == 200 })
	if again := o.submit("alice", "x", endless, "Idempotency-Key", "k"); again != first {
		t.Errorf("alice's key with her new token: job %s, want %s", again, first)
	}
}

// TestOwners_shared: with --clients all every client sees and cancels all jobs,
// and is told whose they are.
func TestOwners_shared(t *testing.T) {
	t.Parallel()
	o := startOwners(t, node.ClientsAll)
	id := o.submit("alice", "x", endless)
	if status, body := o.do("bob", "GET", "/v1/jobs/"+id, ""); status != 200 || !strings.Contains(body, `"owner":"alice"`) {
		t.Errorf("another's job: %d %s, want it", status, body)
	}
	if _, body := o.do("bob", "GET", "/v1/jobs", ""); !strings.Contains(body, id) {
		t.Errorf("the list has not another's job: %s", body)
	}
	if status, body := o.do("bob", "DELETE", "/v1/jobs/"+id, ""); status != 200 || !strings.Contains(body, "cancelled") {
		t.Errorf("cancel another's job: %d %s", status, body)
	}
}
