package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"workmanager/web/api"
)

const mib = 1 << 20

// answer reads one answer off the connection.
func (c *raw) answer() reply {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatalf("half an answer: %v: %s", err, b)
	}
	return reply{res.StatusCode, res.Header, b}
}

// TestBadInput sends what clients get wrong, as bytes. Each has a clear answer,
// the node logs no stack, and no connection is stuck.
func TestBadInput(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), nil, "--workers", "1", "--max-data-bytes", "1MiB")

	const octets = "Content-Type: application/octet-stream\r\n"
	bad := func(path string) string {
		return "PUT " + path + " HTTP/1.1\r\nHost: e2e\r\n" + octets + "Content-Length: 5\r\n\r\nhello"
	}
	body := func(method, path, kind, text string) string {
		return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: e2e\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", method, path, kind, len(text), text)
	}
	for _, c := range []struct {
		name, request string
		status        int
		code          string
		says          []string
	}{
		{"iterations_missing", bad("/enqueue"), 422, "invalid", []string{"iterations", "required"}},
		{"iterations_0", bad("/enqueue?iterations=0"), 422, "invalid", []string{"iterations", "1 to 9007199254740992"}},
		{"iterations_negative", bad("/enqueue?iterations=-3"), 422, "invalid", []string{"iterations", "-3", "1 to 9007199254740992"}},
		{"iterations_1.5", bad("/enqueue?iterations=1.5"), 422, "invalid", []string{"iterations", "1.5", "1 to 9007199254740992"}},
		{"iterations_1e3", bad("/enqueue?iterations=1e3"), 422, "invalid", []string{"iterations", "1e3"}},
		{"iterations_abc", bad("/enqueue?iterations=abc"), 422, "invalid", []string{"iterations", "abc", "1 to 9007199254740992"}},
		{"iterations_empty", bad("/enqueue?iterations="), 422, "invalid", []string{"iterations", "1 to 9007199254740992"}},
		{"iterations_2^53+1", bad("/enqueue?iterations=9007199254740993"), 422, "invalid", []string{"iterations", "9007199254740993", "1 to 9007199254740992"}},
		{"iterations_huge", bad("/enqueue?iterations=" + strings.Repeat("9", 400)), 422, "invalid", []string{"iterations", "1 to 9007199254740992"}},
		{"iterations_bad_escape", bad("/enqueue?iterations=%zz"), 422, "invalid", []string{"iterations"}},
		{"iterations_name_in_capitals", bad("/enqueue?ITERATIONS=5"), 422, "invalid", []string{"iterations", "required"}},
		{"json_iterations_1.5", body("POST", "/v1/jobs", "application/json", `{"data":"aGVsbG8=","iterations":1.5}`), 422, "invalid", []string{"iterations"}},
		{"json_iterations_text", body("POST", "/v1/jobs", "application/json", `{"data":"aGVsbG8=","iterations":"5"}`), 422, "invalid", []string{"iterations"}},
		{"json_iterations_missing", body("POST", "/v1/jobs", "application/json", `{"data":"aGVsbG8="}`), 422, "invalid", []string{"iterations"}},
		{"json_unknown_field", body("POST", "/v1/jobs", "application/json", `{"data":"aGVsbG8=","iterations":5,"itrations":6}`), 422, "invalid", []string{"itrations"}},
		{"json_no_base64", body("POST", "/v1/jobs", "application/json", `{"data":"hello!","iterations":5}`), 422, "invalid", []string{"data", "base64"}},
		{"json_broken", body("POST", "/v1/jobs", "application/json", `{"data":"aGVs`), 400, "malformed", nil},
		{"data_missing", "PUT /enqueue?iterations=5 HTTP/1.1\r\nHost: e2e\r\n\r\n", 422, "invalid", []string{"data"}},
		{"data_and_iterations_missing", "PUT /enqueue HTTP/1.1\r\nHost: e2e\r\n\r\n", 422, "invalid", []string{"data", "iterations"}},
		{"multipart_without_data", body("PUT", "/enqueue?iterations=5", forms[0].contentType, strings.Replace(forms[0].encode("x"), `"data"`, `"date"`, 1)), 422, "invalid", []string{"data"}},
		{"multipart_without_boundary", body("PUT", "/enqueue?iterations=5", "multipart/form-data", "hello"), 400, "malformed", []string{"boundary"}},
		{"multipart_other_boundary", body("PUT", "/enqueue?iterations=5", "multipart/form-data; boundary=other", forms[0].encode("x")), 400, "malformed", nil},
		{"multipart_without_end", body("PUT", "/enqueue?iterations=5", forms[0].contentType, strings.TrimSuffix(forms[0].encode("x"), "--\r\n")), 400, "malformed", nil},
		{"multipart_garbage", body("PUT", "/enqueue?iterations=5", forms[0].contentType, "--"+boundary+"\r\n\x00\xff no header\r\n"), 400, "malformed", nil},
		{"urlencoded_bad_escape", body("PUT", "/enqueue?iterations=5", "application/x-www-form-urlencoded", "data=%zz"), 422, "invalid", []string{"data"}},
		{"content_encoding", "PUT /enqueue?iterations=5 HTTP/1.1\r\nHost: e2e\r\nContent-Encoding: gzip\r\n" + octets + "Content-Length: 5\r\n\r\nhello", 415, "unsupported", nil},
		{"top_missing", "POST /pullCompleted HTTP/1.1\r\nHost: e2e\r\n\r\n", 422, "invalid", []string{"top", "required"}},
		{"top_abc", "POST /pullCompleted?top=abc HTTP/1.1\r\nHost: e2e\r\n\r\n", 422, "invalid", []string{"top", "abc"}},
		{"top_in_capitals", "POST /pullCompleted?TOP=1 HTTP/1.1\r\nHost: e2e\r\n\r\n", 422, "invalid", []string{"top"}},
		{"consume_maybe", "POST /pullCompleted?top=1&consume=maybe HTTP/1.1\r\nHost: e2e\r\n\r\n", 422, "invalid", []string{"consume"}},
		{"unknown_route", "GET /pullcompleted HTTP/1.1\r\nHost: e2e\r\n\r\n", 404, "", []string{"/pullcompleted"}},
		{"unknown_job", "GET /v1/jobs/0190a5c0-0000-7000-8000-000000000000 HTTP/1.1\r\nHost: e2e\r\n\r\n", 404, "not_found", nil},
		{"job_id_nonsense", "GET /v1/jobs/nonsense HTTP/1.1\r\nHost: e2e\r\n\r\n", 404, "not_found", []string{"nonsense"}},
		{"wrong_method", "GET /enqueue HTTP/1.1\r\nHost: e2e\r\n\r\n", 405, "", []string{"PUT"}},
		{"wrong_method_with_body", "POST /enqueue?iterations=5 HTTP/1.1\r\nHost: e2e\r\nContent-Length: 5\r\n\r\nhello", 405, "", []string{"PUT"}},
		{"key_too_long", "PUT /enqueue?iterations=5 HTTP/1.1\r\nHost: e2e\r\nIdempotency-Key: " + strings.Repeat("k", 300) + "\r\n" + octets + "Content-Length: 5\r\n\r\nhello", 422, "invalid", []string{"255"}},
		{"results_limit_0", "GET /v1/results?limit=0 HTTP/1.1\r\nHost: e2e\r\n\r\n", 422, "invalid", []string{"limit"}},
		{"state_unknown", "GET /v1/jobs?state=lost HTTP/1.1\r\nHost: e2e\r\n\r\n", 422, "invalid", []string{"state"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := dial(t, n.addr)
			conn.write(c.request)
			r := conn.answer()
			if r.status != c.status {
				t.Fatalf("got %v, want %d", r, c.status)
			}
			p := problem(t, r)
			if c.code != "" && p.Code != c.code {
				t.Errorf("code %q, want %q: %v", p.Code, c.code, r)
			}
			says(t, string(r.body), c.says...)
			if c.status == http.StatusUnprocessableEntity && len(p.Errors) == 0 {
				t.Errorf("422 without its list of errors: %v", r)
			}
			if c.status == http.StatusMethodNotAllowed && r.header.Get("Allow") != "PUT" {
				t.Errorf("Allow: got %q, want PUT", r.header.Get("Allow"))
			}
			if r.header.Get("Connection") == "close" {
				if got := conn.rest(); got != "" {
					t.Errorf("after the answer came %q", got)
				}
				return
			}
			conn.write("GET /healthz HTTP/1.1\r\nHost: e2e\r\n\r\n") // it can be used on
			if r := conn.answer(); r.status != http.StatusOK {
				t.Errorf("the next request on the connection: got %v", r)
			}
		})
	}

	t.Run("not_http", func(t *testing.T) {
		for _, text := range []string{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello", "nonsense\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /status HTTP/1.1\r\n\r\n",
			"PUT /enqueue?iterations=1 HTTP/1.1\r\nHost: e2e\r\nContent-Length: minus one\r\n\r\n",
			"PUT /enqueue?iterations=1 HTTP/1.1\r\nHost: e2e\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
			"GET /status HTTP/1.1\r\nHost: e2e\r\nX: " + strings.Repeat("x", 200<<10) + "\r\n\r\n"} {
			conn := dial(t, n.addr)
			if _, err := io.WriteString(conn.conn, text); err == nil { // the node may have ended it already
				_ = conn.conn.CloseWrite() // as above
			}
			if got := conn.rest(); got != "" && !strings.HasPrefix(got, "HTTP/1.1 4") && !strings.HasPrefix(got, "HTTP/1.1 505") {
				t.Errorf("%.40q: got %q", text, got)
			}
		}
	})
	t.Run("truncated_body", func(t *testing.T) {
		for _, request := range []string{
			"PUT /enqueue?iterations=5 HTTP/1.1\r\nHost: e2e\r\n" + octets + "Content-Length: 100\r\n\r\nhello",
			"PUT /enqueue?iterations=5 HTTP/1.1\r\nHost: e2e\r\n" + octets + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
			"PUT /enqueue?iterations=5 HTTP/1.1\r\nHost: e2e\r\n" + octets + "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
			"POST /v1/jobs HTTP/1.1\r\nHost: e2e\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"data\":\"aGVsbG8=\"",
			"PUT /enqueue?iterations=5 HTTP/1.1\r\nHost: e2e\r\nContent-Type: " + forms[0].contentType + "\r\nContent-Length: 1000\r\n\r\n" + forms[0].encode("hello"),
		} {
			before := n.status()
			conn := dial(t, n.addr)
			conn.write(request)
			if err := conn.conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			r := conn.answer()
			if p := problem(t, r); r.status != http.StatusBadRequest || p.Code != "malformed" {
				t.Errorf("%q: got %v, want 400", request, r)
			}
			conn.rest()
			if s := n.status(); s.Completed+s.Jobs+s.Leased != before.Completed+before.Jobs+before.Leased {
				t.Errorf("%q: half a body became a job", request)
			}
		}
	})
	t.Run("batch", func(t *testing.T) {
		r := n.must(http.StatusOK, "POST", "/v1/jobs/batch", strings.NewReader(
			line("good", 1)+"nonsense\n"+`{"iterations":1}`+"\n"+line("bad", 0)+"\n"+`{"data":"`+strings.Repeat("A", 2*mib)+`","iterations":1}`+"\n"+line("good too", 1)))
		var got []string
		sc := bufio.NewScanner(strings.NewReader(string(r.body)))
		for sc.Scan() {
			var l api.BatchLine
			decode(t, reply{body: sc.Bytes()}, &l)
			status := 201
			if l.Error != nil {
				status = l.Error.Status
			}
			got = append(got, fmt.Sprintf("%d:%d", l.Line, status))
		}
		if want := "1:201 2:400 3:422 4:422 6:413 7:201"; strings.Join(got, " ") != want {
			t.Errorf("line:status: got %v, want %s: %s", got, want, r.body)
		}
	})
	n.forgotten()
	n.stop()
}

// TestTooLarge shows that a body over the limit is answered before it has been
// read whole, and a Content-Length over the limit before a byte of it.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), nil, "--workers", "0", "--max-data-bytes", "1MiB")
	check := func(t *testing.T, conn *raw) {
		t.Helper()
		if err := conn.conn.SetDeadline(time.Now().Add(15 * time.Second)); err != nil { // less than the node waits for a body
			t.Fatal(err)
		}
		r := conn.answer()
		if p := problem(t, r); r.status != http.StatusRequestEntityTooLarge || p.Code != "too_large" || !strings.Contains(p.Detail, "1048576") {
			t.Errorf("got %v, want 413 that names the limit", r)
		}
	}
	for _, f := range forms {
		head := "PUT /enqueue?iterations=5 HTTP/1.1\r\nHost: e2e\r\nContent-Type: " + f.contentType + "\r\n"
		// All a client sends before it waits: the limit, what the form adds to it, and some.
		whole := f.encode(strings.Repeat("x", mib+64<<10))
		t.Run(f.name+"/chunked", func(t *testing.T) {
			conn := dial(t, n.addr)
			conn.write(head + "Transfer-Encoding: chunked\r\n\r\n")
			for sent := 0; sent < len(whole); {
				piece := whole[sent:min(len(whole), sent+32<<10)]
				sent += len(piece)
				if _, err := fmt.Fprintf(conn.conn, "%x\r\n%s\r\n", len(piece), piece); err != nil {
					break // answered and closed already
				}
			}
			check(t, conn) // the body has not ended
			// A client that goes on sending is cut off, and soon.
			if err := conn.conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			more := 0
			for piece := strings.Repeat("x", 32<<10); ; more += len(piece) {
				if _, err := fmt.Fprintf(conn.conn, "%x\r\n%s\r\n", len(piece), piece); err != nil {
					if strings.Contains(err.Error(), "timeout") {
						t.Errorf("not cut off: %v after %d bytes more", err, more)
					}
					break
				}
				if more > 64*mib {
					t.Fatalf("the node took %d bytes after its answer", more)
				}
			}
		})
		t.Run(f.name+"/length", func(t *testing.T) {
			conn := dial(t, n.addr)
			conn.write(fmt.Sprintf("%sContent-Length: %d\r\n\r\n", head, 100*mib))
			check(t, conn) // no byte of it was sent
			conn.rest()
		})
		t.Run(f.name+"/expect", func(t *testing.T) {
			conn := dial(t, n.addr)
			conn.write(fmt.Sprintf("%sContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", head, 100*mib))
			check(t, conn) // and not asked for
			conn.rest()
		})
		t.Run(f.name+"/at_the_limit", func(t *testing.T) {
			r := n.must(http.StatusOK, "PUT", "/enqueue?iterations=1", strings.NewReader(f.encode(strings.Repeat("y", mib))), "Content-Type", f.contentType)
			var w api.WorkID
			decode(t, r, &w)
			n.completed(w.ID, chain(strings.Repeat("y", mib), 1))
		})
	}
	n.stop()
}

// TestSlowClients holds many connections with clients that say little. Others
// do not suffer, and the node ends what never becomes a request.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), nil, "--workers", "1")
	const most = 10*time.Second + 10*time.Second // the node's bound for a header, and room for a busy machine
	var loris, bodies []*raw
	for range 50 {
		c := dial(t, n.addr)
		c.write("GET /status HTTP/1.1\r\nHost: e2e\r\nX-Slow: ")
		loris = append(loris, c)
		c = dial(t, n.addr)
		c.write("PUT /enqueue?iterations=1 HTTP/1.1\r\nHost: e2e\r\nContent-Length: 1000000\r\n\r\nslowly")
		bodies = append(bodies, c)
	}
	begin := time.Now()
	var ends sync.WaitGroup
	for _, c := range loris {
		ends.Go(func() {
			stop := make(chan struct{})
			var drip sync.WaitGroup
			drip.Go(func() { // a byte now and then does not buy time
				for {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := io.WriteString(c.conn, "x"); err != nil {
						return
					}
					pause(200 * time.Millisecond)
				}
			})
			drain(c.r)
			close(stop)
			drip.Wait()
		})
	}
	closed := make(chan struct{})
	go func() { ends.Wait(); close(closed) }()
	served := 0
	for done := false; !done; {
		select {
		case <-closed:
			done = true
		default:
		}
		if time.Since(begin) > most {
			t.Fatalf("connections without a request are open after %v", most)
		}
		asked := time.Now()
		id := n.enqueue(fmt.Sprint("beside slow clients ", served), 2)
		n.completed(id, chain(fmt.Sprint("beside slow clients ", served), 2))
		if took := time.Since(asked); took > 5*time.Second {
			t.Errorf("another client waited for %v", took)
		}
		served++
		pause(20 * time.Millisecond)
	}
	for _, c := range bodies { // within their bound they still can
		c.write(strings.Repeat("y", 1_000_000-len("slowly")))
		r := c.answer()
		if r.status != http.StatusOK {
			t.Errorf("a slow body that ended in time: got %v", r)
		}
		_ = c.conn.Close() // the answer is read
	}
	t.Logf("%d jobs for other clients in %v", served, time.Since(begin).Round(time.Second))
	n.forgotten()
	n.stop()
}
