package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"workmanager/web/api"
)

// shutdown is how long a node may take to end after SIGTERM.
const shutdown = 5 * time.Second

// TestSigterm stops a node that has its hands full. It ends in time with 0,
// answers those who wait, loses nothing it acknowledged and keeps the progress
// of the chain it was computing.
func TestSigterm(t *testing.T) {
	rng := random(t)
	dir := t.TempDir()
	n := start(t, dir, nil, "--workers", "1", "--checkpoint-interval", "1h") // only the hand-back saves progress
	long := n.enqueue("a chain without an end", 1_000_000_000_000)
	var before api.Job
	poll(t, 30*time.Second, "the chain makes progress", func() string {
		if before = n.job(long); before.Done <= 1 {
			return before.State
		}
		return ""
	})
	l := newLedger()
	end := l.writers(n, rng, 4)

	type answer struct {
		what string
		r    reply
		err  error
	}
	answers := make(chan answer, 16)
	var waiting sync.WaitGroup
	for _, path := range []string{"/v1/jobs/" + long + "?wait=60s", "/v1/results?wait=60s&after="} {
		for range 4 {
			if strings.Contains(path, "results") { // from the present end on
				_, cursor := n.results("")
				path = "/v1/results?wait=60s&after=" + cursor
			}
			waiting.Go(func() {
				r, err := n.ask("GET", path, nil)
				answers <- answer{path, r, err}
			})
		}
	}
	events, err := n.http.Get(n.url("/v1/events"))
	if err != nil {
		t.Fatal(err)
	}
	defer events.Body.Close()
	if _, err := bufio.NewReader(events.Body).ReadString('\n'); err != nil {
		t.Fatalf("first line of the events: %v", err)
	}
	streamed := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, events.Body)
		streamed <- err
	}()
	slow := dial(t, n.addr)
	slow.write("PUT /enqueue?iterations=1 HTTP/1.1\r\nHost: e2e\r\nContent-Length: 100000\r\n\r\nhalf of it")
	silent := dial(t, n.addr) // not even a request
	batch := dial(t, n.addr)
	batch.write("POST /v1/jobs/batch HTTP/1.1\r\nHost: e2e\r\nContent-Length: 100000\r\n\r\n" + line("in an open batch", 3))
	if got := batch.until(`"line":1,`); !strings.Contains(got, "200 OK") {
		t.Fatalf("open batch: %s", got)
	}
	poll(t, 20*time.Second, "jobs are acknowledged", func() string {
		if l.len() < 100 {
			return fmt.Sprint(l.len())
		}
		return ""
	})

	begin := time.Now()
	n.signal(syscall.SIGTERM)
	code := n.wait(downTimeout)
	took := time.Since(begin)
	if code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if took > shutdown {
		t.Errorf("took %v to end, want at most %v", took, shutdown)
	}
	end()
	waiting.Wait()
	close(answers)
	for a := range answers {
		if a.err != nil || a.r.status != http.StatusOK {
			t.Errorf("long poll of %s: got %v, %v, want an answer as things stand", a.what, a.r, a.err)
		}
	}
	if err := <-streamed; err != nil {
		t.Errorf("the event stream ended with %v, want a clean end", err)
	}
	if got := slow.rest(); !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, api.MediaProblem) {
		t.Errorf("body under way: got %q, want a 503 with a problem", got)
	}
	batch.rest()
	silent.rest()
	t.Logf("ended in %v with %d jobs acknowledged and %d refused", took, l.len(), l.refused)

	n = start(t, dir, nil, "--workers", "0")
	j := n.job(long)
	if j.Done < before.Done || j.Done <= 1 || j.State != "queued" {
		t.Errorf("the chain after the restart: got %s at %d, want queued at %d or more", j.State, j.Done, before.Done)
	}
	n.must(http.StatusOK, "DELETE", "/v1/jobs/"+long, nil)
	n.stop()
	n = start(t, dir, nil, "--workers", "1")
	n.idle(60 * time.Second)
	l.check(t, n)
	n.stop()
}

// TestSigtermIdle shows that a node without work ends at once, again and again.
func TestSigtermIdle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 3 {
		n := start(t, dir, nil)
		ctx, cancel := context.WithTimeout(context.Background(), shutdown)
		n.stop()
		if ctx.Err() != nil {
			t.Errorf("took more than %v to end", shutdown)
		}
		cancel()
	}
}

// raw is a connection whose bytes the test chooses.
type raw struct {
	t    testing.TB
	conn *net.TCPConn
	r    *bufio.Reader
}

// dial connects; every read and write on the connection ends within a minute.
func dial(t testing.TB, addr string) *raw {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &raw{t, conn.(*net.TCPConn), bufio.NewReader(conn)}
}

func (c *raw) write(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// until reads on until the text has come, and returns all that was read.
func (c *raw) until(text string) string {
	c.t.Helper()
	var got strings.Builder
	for !strings.Contains(got.String(), text) {
		b, err := c.r.ReadByte()
		if err != nil {
			c.t.Fatalf("wait for %q: %v after %q", text, err, got.String())
		}
		got.WriteByte(b)
	}
	return got.String()
}

// rest returns what comes until the other side ends the connection, and fails
// if it does not.
func (c *raw) rest() string {
	c.t.Helper()
	b, err := io.ReadAll(c.r)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		c.t.Errorf("the connection was not ended; read so far: %q", b)
	}
	return string(b)
}
