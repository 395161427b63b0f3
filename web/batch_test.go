package web_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
	"workmanager/web"
	"workmanager/web/api"
)

// replies decodes the answer of a batch.
func replies(t testing.TB, body string) (list []api.BatchLine) {
	t.Helper()
	for line := range strings.Lines(body) {
		var l api.BatchLine
		dec := json.NewDecoder(strings.NewReader(line))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&l); err != nil {
			t.Fatalf("reply %q: %v", line, err)
		}
		list = append(list, l)
	}
	return list
}

func TestBatch(t *testing.T) {
	t.Parallel()
	s := startNode(t)
	long := `{"data":"` + strings.Repeat("QUJD", 300_000) + `","iterations":1}`
	body := strings.Join([]string{
		`{"data":"aGVsbG8=","iterations":1}`, // 1
		``,                                   // 2
		" \t\r",                              // 3
		`{"iterations":0,"data":""}`,         // 4
		`nonsense`,                           // 5
		`{ "key":"k", "iterations":5,"data":"aGVsbG8=" }`, // 6
		long, // 7
		`{"data":"aGVsbG8=","iterations":5,"key":"k"}`,    // 8
		`{"data":"aGVsbG8=","iterations":6,"key":"k"}`,    // 9
		`{"data":"aGVsbG8=","iterations":1,"unknown":[]}`, // 10
		`{"data":"aGVsbG8=","iterations":1}`,              // 11, without an end
	}, "\n")
	for _, chunked := range []bool{false, true} {
		var r io.Reader = strings.NewReader(body)
		if chunked {
			r = slowly{r}
		}
		a := s.do("POST", "/v1/jobs/batch", r, "Content-Type: application/x-ndjson")
		if a.status != 200 || a.header.Get("Content-Type") != "application/x-ndjson" {
			t.Fatalf("answer %d %v", a.status, a.header)
		}
		got := replies(t, a.body)
		var lines []int64
		for _, l := range got {
			lines = append(lines, l.Line)
		}
		if fmt.Sprint(lines) != "[1 4 5 6 7 8 9 10 11]" {
			t.Fatalf("chunked %v: replies to lines %v", chunked, lines)
		}
		for i, status := range []int{0, 422, 400, 0, 413, 0, 409, 422, 0} {
			l := got[i]
			if status == 0 && (l.Error != nil || l.ID == "" || l.Durability != "local") || status != 0 && (l.Error == nil || l.Error.Status != status || l.ID != "") {
				t.Errorf("chunked %v: reply %+v, error %+v, want status %d", chunked, l, l.Error, status)
			}
		}
		if n := len(got[1].Error.Errors); n != 2 {
			t.Errorf("line 4 has %d errors, want both", n)
		}
		if !got[5].Existed || got[5].ID != got[3].ID || got[3].Existed != chunked {
			t.Errorf("chunked %v: the key's jobs are %+v and %+v", chunked, got[3], got[5])
		}
		if got[0].State != "completed" || s.value(got[8].ID) != valueOf("hello") || got[0].ID == got[8].ID {
			t.Errorf("replies %+v and %+v", got[0], got[8])
		}
	}
	if a := s.do("POST", "/v1/jobs/batch", strings.NewReader("")); a.status != 200 || a.body != "" {
		t.Errorf("an empty batch: %d %q", a.status, a.body)
	}
	s.do("POST", "/v1/jobs/batch?ack=x", strings.NewReader("")).refused(t, 422, jobs.CodeInvalid, "ack: ")
	for _, l := range replies(t, s.do("POST", "/v1/jobs/batch?ack=both", strings.NewReader(body)).body) {
		if l.Error == nil {
			t.Errorf("with ack=both and no peer, line %d is taken", l.Line)
		}
	}
}

// TestBatch_key holds that a batch sent again under its key is the same jobs.
func TestBatch_key(t *testing.T) {
	t.Parallel()
	s := startNode(t)
	const body = `{"data":"aGVsbG8=","iterations":5}` + "\n" + `{"data":"aGVsbG8=","iterations":5}` + "\n\n" + `{"data":"aGVsbG8=","iterations":5,"key":"own"}` + "\n"
	first := replies(t, s.do("POST", "/v1/jobs/batch", strings.NewReader(body), "Idempotency-Key: b").body)
	again := replies(t, s.do("POST", "/v1/jobs/batch", strings.NewReader(body), "Idempotency-Key: b").body)
	if len(first) != 3 || len(again) != 3 || first[0].ID == first[1].ID {
		t.Fatalf("replies %+v, %+v", first, again)
	}
	for i := range first {
		if first[i].ID != again[i].ID || first[i].Existed || !again[i].Existed {
			t.Errorf("line %d: %+v, again %+v", first[i].Line, first[i], again[i])
		}
	}
	if want := jobs.KeyID("", "", "b/2").String(); first[1].ID != want {
		t.Errorf("line 2 is %s, want the job of key b/2, %s", first[1].ID, want)
	}
	if want := jobs.KeyID("", "", "own").String(); first[2].ID != want {
		t.Errorf("line 4 is %s, want the job of its own key, %s", first[2].ID, want)
	}
}

// TestBatch_interactive sends each line only after the reply to the one before.
func TestBatch_interactive(t *testing.T) {
	t.Parallel()
	s := startNode(t)
	body, w := io.Pipe()
	first := make(chan struct{})
	go func() {
		defer close(first)
		fmt.Fprintln(w, `{"data":"QQ==","iterations":3}`) //nolint:errcheck // of a test
	}()
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/v1/jobs/batch", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // of a test
	<-first
	in := bufio.NewScanner(resp.Body)
	for i := range 50 {
		if !in.Scan() || !strings.HasPrefix(in.Text(), fmt.Sprintf(`{"line":%d,"id"`, i+1)) {
			t.Fatalf("reply %d is %q, %v", i+1, in.Text(), in.Err())
		}
		fmt.Fprintln(w, `{"data":"QQ==","iterations":3}`) //nolint:errcheck // of a test
	}
	w.Close() //nolint:errcheck // never fails
	if n := 0; true {
		for in.Scan() {
			n++
		}
		if n != 1 || in.Err() != nil {
			t.Errorf("%d replies more, %v, want 1", n, in.Err())
		}
	}
}

// TestBatch_simple_client sends everything before it reads anything.
func TestBatch_simple_client(t *testing.T) {
	t.Parallel()
	const n = 200_000
	f := &fake{spill: t.TempDir()}
	s := serve(t, f.server(t))
	c := raw(t, s, "POST /v1/jobs/batch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
	if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil { // slow under the race detector
		t.Fatal(err)
	}
	chunk := strings.Repeat(`{"data":"aGVsbG8=","iterations":5}`+"\n", 1000)
	for range n / 1000 {
		if _, err := fmt.Fprintf(c, "%x\r\n%s\r\n", len(chunk), chunk); err != nil {
			t.Fatalf("the client is stuck while it sends: %v", err)
		}
	}
	fmt.Fprint(c, "0\r\n\r\n") //nolint:errcheck // the answer tells
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	for in := bufio.NewScanner(resp.Body); in.Scan(); {
		next++
		if !strings.HasPrefix(in.Text(), fmt.Sprintf(`{"line":%d,"id":"`, next)) || !strings.HasSuffix(in.Text(), `"both"}`) {
			t.Fatalf("reply %d is %q", next, in.Text())
		}
	}
	if next != n {
		t.Errorf("%d replies, want %d", next, n)
	}
	if left, err := os.ReadDir(f.spill); err != nil || len(left) > 0 {
		t.Errorf("files left in the spill folder: %v, %v", left, err)
	}
}

// TestBatch_memory_is_flat sends a million lines and looks at the heap.
func TestBatch_memory_is_flat(t *testing.T) {
	if testing.Short() {
		t.Skip("sends a million lines")
	}
	const n = 1_000_000
	var most atomic.Uint64
	groups := atomic.Int64{}
	f := &fake{enqueue: func(_ context.Context, batch []jobs.Job, _ jobs.Ack) ([]jobs.Outcome, error) {
		if groups.Add(1)%200 == 0 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most.Store(max(most.Load(), m.HeapInuse))
		}
		if len(batch) > 1000 {
			t.Errorf("a group of %d jobs", len(batch))
		}
		return accept(batch), nil
	}}
	s := serve(t, f.server(t))
	line := []byte(`{"data":"aGVsbG8=","iterations":5}` + "\n")
	a, err := http.Post(s.URL+"/v1/jobs/batch", "application/x-ndjson", &repeated{line: line, n: n})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close() //nolint:errcheck // of a test
	var got lineCount
	if _, err := io.Copy(&got, a.Body); err != nil || int(got) != n {
		t.Fatalf("%d replies, %v", got, err)
	}
	if m := most.Load(); m > 64<<20 {
		t.Errorf("%d MiB of heap for a million lines, want less than 64", m>>20)
	}
}

// repeated reads one line n times.
type repeated struct {
	line []byte
	n    int
	at   int
}

func (r *repeated) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if r.n == 0 {
			return n, io.EOF
		}
		m := copy(p[n:], r.line[r.at:])
		n += m
		if r.at += m; r.at == len(r.line) {
			r.at = 0
			r.n--
		}
	}
	return n, nil
}

// TestBatch_order holds that replies keep the order of the lines although
// groups are committed at once and end in any order.
func TestBatch_order(t *testing.T) {
	t.Parallel()
	var busy, most atomic.Int64
	var n atomic.Int64
	f := &fake{enqueue: func(_ context.Context, batch []jobs.Job, _ jobs.Ack) ([]jobs.Outcome, error) {
		most.Store(max(most.Load(), busy.Add(1)))
		defer busy.Add(-1)
		if n.Add(1)%3 == 1 {
			for range 50 {
				runtime.Gosched()
			}
			select {
			case <-time.After(2 * time.Millisecond):
			case <-t.Context().Done():
			}
		}
		return accept(batch), nil
	}}
	s := serve(t, f.server(t))
	var b strings.Builder
	for i := range 30_000 {
		fmt.Fprintf(&b, `{"data":"aGVsbG8=","iterations":%d}`+"\n", i%7) // each seventh is wrong
	}
	got := replies(t, send(t, s, "POST", "/v1/jobs/batch", strings.NewReader(b.String())).body)
	if len(got) != 30_000 {
		t.Fatalf("%d replies", len(got))
	}
	for i, l := range got {
		if l.Line != int64(i+1) || (l.Error != nil) != (i%7 == 0) {
			t.Fatalf("reply %d is %+v", i+1, l)
		}
	}
	if m := most.Load(); m < 2 {
		t.Errorf("at most %d groups were committed at once, want at least 2", m)
	}
}

func TestBatch_failed_commit_is_told_on_every_line(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	f := &fake{enqueue: func(_ context.Context, batch []jobs.Job, _ jobs.Ack) ([]jobs.Outcome, error) {
		switch calls.Add(1) {
		case 1:
			return nil, jobs.Errorf(jobs.CodeDiskFull, "no room")
		case 2:
			return nil, errors.New("secret")
		}
		return accept(batch), nil
	}}
	s := serve(t, validated(t, f.server(t)))
	const line = `{"data":"aGVsbG8=","iterations":5}` + "\n"
	for _, want := range []int{507, 500, 0} {
		for _, l := range replies(t, send(t, s, "POST", "/v1/jobs/batch", strings.NewReader(line+line)).body) {
			if want == 0 && l.Error != nil || want != 0 && (l.Error == nil || l.Error.Status != want || strings.Contains(l.Error.Detail, "secret")) {
				t.Errorf("line %d: error %+v, want status %d", l.Line, l.Error, want)
			}
		}
	}
}

func TestBatch_limits(t *testing.T) {
	t.Parallel()
	f := &fake{limits: func(l *jobs.Limits) { l.BatchJobs = 3; l.BatchLineBytes = 100 }}
	s := serve(t, validated(t, f.server(t)))
	const line = `{"data":"aGVsbG8=","iterations":5}` + "\n"
	if got := replies(t, send(t, s, "POST", "/v1/jobs/batch", strings.NewReader(strings.Repeat(line, 3))).body); len(got) != 3 || got[2].Error != nil {
		t.Errorf("a batch of exactly the limit: %+v", got)
	}
	for _, body := range []string{strings.Repeat(line, 4), strings.Repeat(line, 3) + "x", strings.Repeat(line, 5000)} {
		got := replies(t, send(t, s, "POST", "/v1/jobs/batch", strings.NewReader(body)).body)
		if len(got) != 4 || got[2].Error != nil || got[3].Error == nil || got[3].Error.Status != 413 || got[3].Line != 4 || !strings.Contains(got[3].Error.Detail, "3 lines") {
			t.Errorf("a batch over the limit: %+v", got)
		}
	}
	pad := func(n int) string { return `{"data":"aGVsbG8=","iterations":5` + strings.Repeat(" ", n-34) + "}\n" }
	for _, body := range []string{pad(101) + line, strings.Repeat("x", 1<<20) + "\n" + line, pad(100) + strings.Repeat("y", 300<<10)} {
		for _, r := range []io.Reader{strings.NewReader(body), slowly{strings.NewReader(body)}} {
			got := replies(t, send(t, s, "POST", "/v1/jobs/batch", r).body)
			if len(got) != 2 {
				t.Fatalf("%d replies to %s…", len(got), body[:100])
			}
			tooLong := 0
			for i, l := range got {
				if l.Line != int64(i+1) {
					t.Errorf("reply %d is to line %d", i+1, l.Line)
				}
				if l.Error != nil && l.Error.Status == 413 && strings.Contains(l.Error.Detail, "100 bytes") {
					tooLong++
				}
			}
			if tooLong != 1 {
				t.Errorf("%d lines are too long, want 1: %+v", tooLong, got)
			}
		}
	}
}

func TestBatch_truncated(t *testing.T) {
	t.Parallel()
	s := serve(t, (&fake{}).server(t))
	const line = `{"data":"aGVsbG8=","iterations":5}`
	c := raw(t, s, fmt.Sprintf("POST /v1/jobs/batch HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n%s\n%s", line, line))
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	// The second line may be cut, so it is not taken, whole as it looks.
	got := replies(t, string(body))
	if len(got) != 2 || got[0].Error != nil || got[1].Error == nil || got[1].Error.Status != 400 || got[1].Line != 2 {
		t.Errorf("replies %s", body)
	}
}

// TestBatch_client_gone holds that a broken batch leaves nothing behind.
func TestBatch_client_gone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{spill: os.TempDir()}
		dial := bubble(t, f.server(t))
		chunk := strings.Repeat(`{"data":"aGVsbG8=","iterations":5}`+"\n", 1000)
		for _, lines := range []int{0, 1, 20} {
			c := dial()
			fmt.Fprint(c, "POST /v1/jobs/batch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n") //nolint:errcheck // of a test
			for range lines {
				fmt.Fprintf(c, "%x\r\n%s\r\n", len(chunk), chunk) //nolint:errcheck // of a test
			}
			synctest.Wait()
			c.Close() //nolint:errcheck // of a test
			time.Sleep(time.Second)
		} // goroutines left over fail the bubble
	})
}

// TestBatch_silent_client bounds how long a batch may stand still, in both
// directions.
func TestBatch_silent_client(t *testing.T) {
	t.Run("sends_nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := bubble(t, (&fake{}).server(t))()
			go fmt.Fprint(c, "POST /v1/jobs/batch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n") //nolint:errcheck // of a test
			began := time.Now()
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			if got := replies(t, string(body)); len(got) != 1 || got[0].Error.Status != 408 || time.Since(began) > web.BatchIdle+2*time.Second {
				t.Errorf("after %v: %s", time.Since(began), body)
			}
			c.Close() //nolint:errcheck // of a test
		})
	})
	t.Run("takes_nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := bubble(t, (&fake{}).server(t))()
			const line = `{"data":"aGVsbG8=","iterations":5}` + "\n"
			fmt.Fprintf(c, "POST /v1/jobs/batch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(line), line) //nolint:errcheck // of a test
			time.Sleep(web.ReplyTimeout + 3*time.Second)
			if _, err := c.Write([]byte("x")); err == nil {
				t.Errorf("the connection is held for more than %v", web.ReplyTimeout)
			}
			c.Close() //nolint:errcheck // of a test
		})
	})
	t.Run("sends_all_and_takes_nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := bubble(t, (&fake{}).server(t))()
			chunk := strings.Repeat(`{"data":"aGVsbG8=","iterations":5}`+"\n", 1000)
			fmt.Fprint(c, "POST /v1/jobs/batch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n") //nolint:errcheck // of a test
			for range 5 {                                                                                  // slower than a reply may wait otherwise
				if _, err := fmt.Fprintf(c, "%x\r\n%s\r\n", len(chunk), chunk); err != nil {
					t.Fatalf("a client that is still sending is let go: %v", err)
				}
				time.Sleep(2 * web.ReplyTimeout)
			}
			fmt.Fprint(c, "0\r\n\r\n") //nolint:errcheck // of a test
			time.Sleep(web.ReplyTimeout + 3*time.Second)
			if _, err := c.Write([]byte("x")); err == nil {
				t.Errorf("the connection is held for more than %v after the last line", web.ReplyTimeout)
			}
			c.Close() //nolint:errcheck // of a test
		})
	})
	t.Run("keeps_talking", func(t *testing.T) { // far longer than the server's timeouts
		synctest.Test(t, func(t *testing.T) {
			c := bubble(t, (&fake{}).server(t))()
			const line = `{"data":"aGVsbG8=","iterations":5}` + "\n"
			go func() {
				fmt.Fprint(c, "POST /v1/jobs/batch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n") //nolint:errcheck // of a test
				for range 20 {
					fmt.Fprintf(c, "%x\r\n%s\r\n", len(line), line) //nolint:errcheck // of a test
					time.Sleep(time.Minute)
				}
				fmt.Fprint(c, "0\r\n\r\n") //nolint:errcheck // of a test
			}()
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if got := replies(t, string(body)); err != nil || len(got) != 20 {
				t.Errorf("%d replies, %v, want 20", len(got), err)
			}
			c.Close() //nolint:errcheck // of a test
		})
	})
}

func TestBatch_stop(t *testing.T) {
	t.Parallel()
	srv := (&fake{}).server(t)
	s := serve(t, srv)
	body, w := io.Pipe()
	defer w.Close()                                      //nolint:errcheck // never fails
	go fmt.Fprintln(w, `{"data":"QQ==","iterations":3}`) //nolint:errcheck // of a test
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/v1/jobs/batch", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // of a test
	in := bufio.NewReader(resp.Body)
	first, err := in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	srv.Stop()
	rest, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	got := replies(t, first+string(rest))
	if len(got) != 2 || got[0].Error != nil || got[1].Line != 2 || got[1].Error == nil || got[1].Error.Code != string(jobs.CodeStopping) {
		t.Errorf("replies %s%s: want that line 2 and the rest are not taken", first, rest)
	}
}

// TestSpool_without_a_file holds that replies wait, in order and none lost,
// where no file can be had.
func TestSpool_without_a_file(t *testing.T) {
	t.Parallel()
	f := &fake{spill: "/nowhere/at/all"}
	s := serve(t, f.server(t))
	const n = 100_000
	var lines int64
	body := &repeated{line: []byte(`{"data":"aGVsbG8=","iterations":5}` + "\n"), n: n}
	resp, err := http.Post(s.URL+"/v1/jobs/batch", "application/x-ndjson", body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // of a test
	for in := bufio.NewScanner(resp.Body); in.Scan(); {
		lines++
		if !bytes.HasPrefix(in.Bytes(), fmt.Appendf(nil, `{"line":%d,`, lines)) {
			t.Fatalf("reply %d is %s", lines, in.Bytes())
		}
	}
	if lines != n {
		t.Errorf("%d replies, want %d", lines, n)
	}
}
