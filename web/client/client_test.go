package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
	"workmanager/web/client"
)

const (
	testID    = "0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801"
	testValue = "5ab743e5b9704b2ae1584c7b768aba17d98388c1cb56b7c7240a0636157e21251ecb636baff93da58db7ea849c1f8717649a6963162ee8fe66fc9b391a2aa94c"
)

// inProcess answers requests by calling a handler for each host, so that a
// test in a synctest bubble has its own time.
type inProcess map[string]http.Handler

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	h, ok := p[r.URL.Host]
	if !ok {
		return nil, errors.New("connection refused")
	}
	if r.Body == nil {
		r.Body = http.NoBody
	}
	defer r.Body.Close()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), nil
}

// record keeps what it is asked and answers with f.
type record struct {
	mu   sync.Mutex // guards the rest
	keys []string
	at   []time.Time
	body []string
	f    func(n int, w http.ResponseWriter, r *http.Request)
}

func (c *record) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	c.mu.Lock()
	c.keys = append(c.keys, r.Header.Get(api.HeaderIdempotencyKey))
	c.at = append(c.at, time.Now())
	c.body = append(c.body, string(body))
	n := len(c.keys)
	c.mu.Unlock()
	c.f(n, w, r)
}

func accept(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set(api.HeaderDurability, "local")
	w.Header().Set(api.HeaderDurabilityReason, "this node has no peer")
	io.WriteString(w, `{"Work ID":"`+testID+`"}`)
}

func refuse(w http.ResponseWriter, status int, code jobs.Code, retryAfter string) {
	w.Header().Set("Content-Type", api.MediaProblem)
	if retryAfter != "" {
		w.Header().Set("Retry-After", retryAfter)
	}
	w.WriteHeader(status)
	p := api.Problem{Title: http.StatusText(status), Status: status, Detail: "as the test wants", Code: string(code),
		Errors: []api.FieldError{{Loc: []string{"query", "x"}, Msg: "m", Type: "t"}}}
	if err := json.NewEncoder(w).Encode(p); err != nil {
		panic(err)
	}
}

func enqueue(t *testing.T, c *client.Client, data string) (jobs.ID, error) {
	t.Helper()
	id, _, err := c.Enqueue(t.Context(), client.Bytes([]byte(data)), 5, client.EnqueueOptions{})
	return id, err
}

// dead is an address where nobody listens.
func dead(t *testing.T) string {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	return s.URL
}

func TestFailover(t *testing.T) {
	t.Run("to_the_second_node_when_the_first_is_away", func(t *testing.T) {
		live := &record{f: func(_ int, w http.ResponseWriter, _ *http.Request) { accept(w) }}
		s := httptest.NewServer(live)
		defer s.Close()
		c := &client.Client{URLs: []string{dead(t), s.URL}}
		defer c.Close()
		id, err := enqueue(t, c, "hello")
		if err != nil || id.String() != testID {
			t.Fatalf("Enqueue = %v, %v, want %s", id, err, testID)
		}
		if got, want := live.body, []string{"hello"}; !slices.Equal(got, want) {
			t.Errorf("the second node got %q, want %q", got, want)
		}
	})

	for _, code := range []jobs.Code{jobs.CodeStopping, jobs.CodeBusy} {
		t.Run("at_once_when_the_first_is_"+string(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first := &record{f: func(_ int, w http.ResponseWriter, _ *http.Request) { refuse(w, 503, code, "30") }}
				second := &record{f: func(_ int, w http.ResponseWriter, _ *http.Request) { accept(w) }}
				c := &client.Client{URLs: []string{"http://a", "http://b"}, HTTP: &http.Client{Transport: inProcess{"a": first, "b": second}}}
				from := time.Now()
				for range 2 {
					if _, err := enqueue(t, c, "hello"); err != nil {
						t.Fatal(err)
					}
				}
				if d := time.Since(from); d != 0 {
					t.Errorf("waited %s although the second node was free", d)
				}
				if len(first.keys) != 1 {
					t.Errorf("the first node was asked %d times, want once: later calls begin where it went well", len(first.keys))
				}
			})
		})
	}

	t.Run("to_the_second_node_when_the_disk_of_the_first_is_full_or_it_is_broken", func(t *testing.T) {
		for _, status := range []int{500, 507} {
			first := &record{f: func(_ int, w http.ResponseWriter, _ *http.Request) { refuse(w, status, jobs.CodeDiskFull, "") }}
			second := &record{f: func(_ int, w http.ResponseWriter, _ *http.Request) { accept(w) }}
			c := &client.Client{URLs: []string{"http://a", "http://b"}, HTTP: &http.Client{Transport: inProcess{"a": first, "b": second}}}
			if _, err := enqueue(t, c, "hello"); err != nil {
				t.Errorf("status %d at the first node: %v", status, err)
			}
		}
	})

	t.Run("keeps_the_path_below_which_a_node_is_served", func(t *testing.T) {
		second := &record{f: func(_ int, w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/under/enqueue" || r.URL.Query().Get("iterations") != "5" || r.Host != "b" {
				t.Errorf("the second node was asked for %s of %s", r.URL, r.Host)
			}
			accept(w)
		}}
		c := &client.Client{URLs: []string{"http://a/other/", "http://b/under"}, HTTP: &http.Client{Transport: inProcess{"b": second}}}
		if _, err := enqueue(t, c, "hello"); err != nil {
			t.Fatal(err)
		}
	})
}

func TestKey(t *testing.T) {
	t.Run("is_the_same_for_every_try_and_the_data_is_whole", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var all record
			all.f = func(n int, w http.ResponseWriter, _ *http.Request) {
				if n < 6 {
					refuse(w, 503, jobs.CodeBusy, "")
					return
				}
				accept(w)
			}
			c := &client.Client{URLs: []string{"http://a", "http://b"}, HTTP: &http.Client{Transport: inProcess{"a": &all, "b": &all}}}
			if _, err := enqueue(t, c, "hello"); err != nil {
				t.Fatal(err)
			}
			if len(all.keys) != 6 || all.keys[0] == "" || len(slices.Compact(slices.Clone(all.keys))) != 1 {
				t.Errorf("keys of the tries = %q, want the same one six times", all.keys)
			}
			if got := slices.Compact(slices.Clone(all.body)); !slices.Equal(got, []string{"hello"}) {
				t.Errorf("data of the tries = %q, want hello each time", got)
			}
		})
	})

	t.Run("differs_from_submit_to_submit_and_is_the_callers_if_given", func(t *testing.T) {
		all := &record{f: func(_ int, w http.ResponseWriter, _ *http.Request) { accept(w) }}
		c := &client.Client{URLs: []string{"a"}, HTTP: &http.Client{Transport: inProcess{"a": all}}}
		for _, key := range []string{"", "", "mine"} {
			if _, _, err := c.Enqueue(t.Context(), client.Bytes([]byte("x")), 5, client.EnqueueOptions{Key: key}); err != nil {
				t.Fatal(err)
			}
		}
		if all.keys[0] == all.keys[1] || all.keys[2] != "mine" {
			t.Errorf("keys = %q", all.keys)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := &record{f: func(n int, w http.ResponseWriter, _ *http.Request) {
			switch n {
			case 1:
				refuse(w, 503, jobs.CodeBusy, "7")
			case 2:
				refuse(w, 429, jobs.CodeBusy, "3")
			default:
				accept(w)
			}
		}}
		c := &client.Client{URLs: []string{"a"}, HTTP: &http.Client{Transport: inProcess{"a": node}}}
		from := time.Now()
		if _, err := enqueue(t, c, "hello"); err != nil {
			t.Fatal(err)
		}
		if got, want := time.Since(from), 10*time.Second; got != want {
			t.Errorf("three tries took %s, want %s", got, want)
		}
	})

	t.Run("longer_than_we_wait", func(t *testing.T) {
		node := &record{f: func(_ int, w http.ResponseWriter, _ *http.Request) { refuse(w, 503, jobs.CodeBusy, "3600") }}
		c := &client.Client{URLs: []string{"a"}, HTTP: &http.Client{Transport: inProcess{"a": node}}}
		_, err := enqueue(t, c, "hello")
		e, ok := errors.AsType[*jobs.Error](err)
		if !ok || e.Code != jobs.CodeBusy || e.RetryAfter != time.Hour {
			t.Errorf("err = %#v, want busy with a Retry-After of 1 h", err)
		}
		if len(node.keys) != 1 {
			t.Errorf("asked %d times, want once", len(node.keys))
		}
	})
}

func TestBounds(t *testing.T) {
	t.Run("unreachable", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := &client.Client{URLs: []string{"a", "b"}, HTTP: &http.Client{Transport: inProcess{}}}
			from := time.Now()
			_, err := c.Status(t.Context())
			if !errors.Is(err, client.ErrUnreachable) || !strings.Contains(err.Error(), "connection refused") {
				t.Errorf("err = %v, want ErrUnreachable and its cause", err)
			}
			if got, want := time.Since(from), 1500*time.Millisecond; got != want {
				t.Errorf("gave up after %s, want %s", got, want)
			}
		})
	})
	t.Run("busy_for_ever", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			node := &record{f: func(_ int, w http.ResponseWriter, _ *http.Request) { refuse(w, 503, jobs.CodeStopping, "") }}
			c := &client.Client{URLs: []string{"a"}, HTTP: &http.Client{Transport: inProcess{"a": node}}, Rounds: 3}
			_, err := c.Status(t.Context())
			if jobs.CodeOf(err) != jobs.CodeStopping || len(node.keys) != 3 {
				t.Errorf("after %d tries err = %v, want stopping after 3", len(node.keys), err)
			}
		})
	})
	t.Run("end_of_the_context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			node := &record{f: func(_ int, w http.ResponseWriter, _ *http.Request) { refuse(w, 503, jobs.CodeBusy, "50") }}
			c := &client.Client{URLs: []string{"a"}, HTTP: &http.Client{Transport: inProcess{"a": node}}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := c.Status(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("err = %v, want the deadline", err)
			}
		})
	})
	t.Run("no_or_bad_url", func(t *testing.T) {
		for _, urls := range [][]string{nil, {"ftp://x"}, {"http://"}, {"http://a b"}} {
			if _, err := (&client.Client{URLs: urls}).Status(t.Context()); err == nil || errors.Is(err, client.ErrUnreachable) {
				t.Errorf("URLs %q: err = %v", urls, err)
			}
		}
	})
}

func TestErrors(t *testing.T) {
	for status, code := range map[int]jobs.Code{404: jobs.CodeNotFound, 409: jobs.CodeConflict, 413: jobs.CodeTooLarge, 422: jobs.CodeInvalid, 401: jobs.CodeAuth} {
		node := &record{f: func(_ int, w http.ResponseWriter, _ *http.Request) { refuse(w, status, code, "") }}
		c := &client.Client{URLs: []string{"a"}, HTTP: &http.Client{Transport: inProcess{"a": node}}}
		_, err := enqueue(t, c, "hello")
		e, ok := errors.AsType[*jobs.Error](err)
		if !ok || e.Code != code || e.Msg != "as the test wants" || len(e.Problems) != 1 || e.Problems[0].Loc[1] != "x" {
			t.Errorf("status %d: err = %#v", status, err)
		}
		if len(node.keys) != 1 {
			t.Errorf("status %d: asked %d times, want once", status, len(node.keys))
		}
	}
	t.Run("of_what_is_written", func(t *testing.T) {
		for _, durability := range []string{"", "local"} {
			node := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if durability != "" {
					w.Header().Set(api.HeaderDurability, durability)
				}
				refuse(w, http.StatusConflict, jobs.CodeConflict, "") // one that is not tried again
			})
			c := &client.Client{URLs: []string{"a"}, HTTP: &http.Client{Transport: inProcess{"a": node}}}
			_, err := enqueue(t, c, "hello")
			if e, ok := errors.AsType[*jobs.Error](err); !ok || e.Written != (durability != "") {
				t.Errorf("durability %q: err = %#v", durability, err)
			}
		}
	})
	t.Run("of_something_between", func(t *testing.T) {
		proxy := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusForbidden) })
		c := &client.Client{URLs: []string{"a"}, HTTP: &http.Client{Transport: inProcess{"a": proxy}}}
		if _, err := c.Status(t.Context()); jobs.CodeOf(err) != jobs.CodeForbidden {
			t.Errorf("err = %v, want forbidden", err)
		}
	})
	t.Run("of_our_own_file_are_not_the_networks", func(t *testing.T) {
		node := &record{f: func(_ int, w http.ResponseWriter, _ *http.Request) { accept(w) }}
		s := httptest.NewServer(node)
		defer s.Close()
		c := &client.Client{URLs: []string{s.URL}}
		defer c.Close()
		_, _, err := c.Enqueue(t.Context(), client.File(filepath.Join(t.TempDir(), "none")), 5, client.EnqueueOptions{})
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("err = %v, want that the file does not exist", err)
		}
		broken := func() (io.ReadCloser, int64, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader("abc"), errReader{})), 10, nil
		}
		_, _, err = c.Enqueue(t.Context(), broken, 5, client.EnqueueOptions{})
		if !errors.Is(err, errRead) || errors.Is(err, client.ErrUnreachable) {
			t.Errorf("err = %v, want the read error", err)
		}
	})
}

var errRead = errors.New("bad sector")

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errRead }

// TestBrokenAnswer breaks the connection within the body of an answer.
func TestBrokenAnswer(t *testing.T) {
	node := &record{f: func(n int, w http.ResponseWriter, _ *http.Request) {
		if n > 2 {
			io.WriteString(w, `[{"Work ID":"`+testID+`","Value":"`+testValue+`"}]`)
			return
		}
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, `[{"Work ID":"`+testID)
		panic(http.ErrAbortHandler)
	}}
	s := httptest.NewServer(node)
	defer s.Close()
	c := &client.Client{URLs: []string{s.URL}, WaitMin: time.Millisecond}
	defer c.Close()
	got, err := c.Consume(t.Context(), 10, "")
	if err != nil || len(got) != 1 || got[0].Value.String() != testValue {
		t.Fatalf("Consume = %v, %v, want one result", got, err)
	}
	if len(node.keys) != 3 || node.keys[0] == "" || len(slices.Compact(slices.Clone(node.keys))) != 1 {
		t.Errorf("keys = %q, want the same one three times: each try must get the same results", node.keys)
	}
}

func TestEnqueueForms(t *testing.T) {
	var got []byte
	var priority int
	node := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, priority = nil, 0
		switch ct := r.Header.Get("Content-Type"); {
		case r.URL.Path == "/v1/jobs":
			var s api.SubmitJob
			var data struct{ Data []byte }
			body, err := io.ReadAll(r.Body)
			if err != nil || int64(len(body)) != r.ContentLength || json.Unmarshal(body, &s) != nil || json.Unmarshal(body, &data) != nil || s.Iterations != 5 {
				t.Errorf("POST /v1/jobs got %q of %d bytes, %v", body, r.ContentLength, err)
			}
			got, priority = data.Data, s.Priority
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, `{"id":"`+testID+`","state":"queued"}`)
			return
		case strings.HasPrefix(ct, "multipart/form-data; boundary="):
			_, boundary, _ := strings.Cut(ct, "boundary=")
			p, err := multipart.NewReader(r.Body, boundary).NextRawPart()
			if err != nil || p.FormName() != "data" || p.FileName() == "" {
				t.Fatalf("part = %v, %v", p, err)
			}
			got, _ = io.ReadAll(p)
		default:
			got, _ = io.ReadAll(r.Body)
			if len(got) == 0 {
				t.Error("an empty raw body was sent")
			}
		}
		accept(w)
	})
	s := httptest.NewServer(node)
	defer s.Close()
	c := &client.Client{URLs: []string{s.URL}}
	defer c.Close()
	big := strings.Repeat("\x00\xff\r\n", 700_000)
	file := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(file, []byte(big), 0o600); err != nil {
		t.Fatal(err)
	}
	unknown := func(s string) client.Data {
		return func() (io.ReadCloser, int64, error) { return io.NopCloser(strings.NewReader(s)), -1, nil }
	}
	for name, tc := range map[string]struct {
		data client.Data
		want string
	}{
		"empty":         {client.Bytes(nil), ""},
		"small":         {client.Bytes([]byte("\xff\xfe\x80\xe9")), "\xff\xfe\x80\xe9"},
		"file":          {client.File(file), big},
		"unknown_size":  {unknown(big), big},
		"unknown_empty": {unknown(""), ""},
	} {
		for _, prio := range []int{0, 4} {
			if name[0] == 'u' && prio > 0 {
				continue // the test wants a length
			}
			id, d, err := c.Enqueue(t.Context(), tc.data, 5, client.EnqueueOptions{Priority: prio})
			if err != nil || id.String() != testID || d.Both {
				t.Errorf("%s: Enqueue = %v, %v, %v", name, id, d, err)
			}
			if string(got) != tc.want || priority != prio {
				t.Errorf("%s: %d bytes arrived at priority %d, want %d at %d, the same", name, len(got), priority, len(tc.want), prio)
			}
		}
	}
}

func TestTypes(t *testing.T) {
	mux := http.NewServeMux()
	reply := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, s) }
	}
	job := `{"id":"` + testID + `","state":"completed","iterations":5,"done":5,"priority":3,"value":"` + testValue +
		`","durability":"local","durability_reason":"why","attempts":2,"node":"a","created_at":"2026-11-25T14:22:01.123456Z","finished_at":"2026-11-25T14:22:02Z","pulled":true}`
	mux.HandleFunc("GET /v1/jobs/{id}", func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("wait"); got != "1m0s" {
			t.Errorf("wait = %q, want it cut to 1m0s", got)
		}
		io.WriteString(w, job)
	})
	mux.HandleFunc("GET /v1/jobs", func(w http.ResponseWriter, r *http.Request) {
		if got, want := r.URL.RawQuery, "after=c1&limit=7&state=completed"; got != want {
			t.Errorf("query = %q, want %q", got, want)
		}
		io.WriteString(w, `{"jobs":[`+job+`],"cursor":"c2","more":true}`)
	})
	mux.HandleFunc("DELETE /v1/jobs/{id}", reply(`{"id":"`+testID+`","state":"cancelled","iterations":5,"purged":true}`))
	mux.HandleFunc("GET /v1/results", reply(`{"results":[{"id":"`+testID+`","value":"`+testValue+`","iterations":5,"completed_at":"2026-11-25T14:22:02Z"}],"cursor":"r2","more":false,"restarted":true}`))
	mux.HandleFunc("GET /v1/status", reply(`{"Jobs":3,"node":"a"}`))
	c := &client.Client{URLs: []string{"a"}, HTTP: &http.Client{Transport: inProcess{"a": mux}}}
	id, err := jobs.ParseID(testID)
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Job(t.Context(), id, time.Hour)
	if err != nil || v.State() != jobs.StateCompleted || v.Result.String() != testValue || v.Done != 5 || v.Priority != 3 || v.Durability.Reason != "why" ||
		v.Attempts != 2 || v.Home != "a" || !v.Pulled || v.DoneAt.Sub(v.CreatedAt) != 876544*time.Microsecond {
		t.Errorf("Job = %+v, %v", v, err)
	}
	l, err := c.Jobs(t.Context(), jobs.ListQuery{State: jobs.StateCompleted, Limit: 7, After: "c1"})
	if err != nil || len(l.Jobs) != 1 || l.Jobs[0].ID != id || l.Cursor != "c2" || !l.More {
		t.Errorf("Jobs = %+v, %v", l, err)
	}
	if v, err := c.Cancel(t.Context(), id, true, jobs.AckDefault); err != nil || v.State() != jobs.StateCancelled || !v.Purged {
		t.Errorf("Cancel = %+v, %v", v, err)
	}
	r, err := c.Results(t.Context(), jobs.ResultsQuery{After: "r1", Limit: 1})
	if err != nil || len(r.Results) != 1 || r.Results[0].Value != v.Result || r.Results[0].Iterations != 5 || r.Cursor != "r2" || !r.Restarted {
		t.Errorf("Results = %+v, %v", r, err)
	}
	if s, err := c.Status(t.Context()); err != nil || s.Jobs != 3 {
		t.Errorf("Status = %+v, %v", s, err)
	}
}
