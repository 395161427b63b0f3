package e2e

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"workmanager/web/api"
)

// batchTimeout bounds one batch, far above what it takes.
const batchTimeout = 5 * time.Minute

// line returns a line of a batch.
func line(data string, iterations int) string {
	return fmt.Sprintf(`{"data":"%s","iterations":%d}`+"\n", base64.StdEncoding.EncodeToString([]byte(data)), iterations)
}

// writeLines writes n lines to w, the data of each made from name.
func writeLines(w io.Writer, name string, n int) error {
	buf := bufio.NewWriterSize(w, 32<<10)
	for i := range n {
		if _, err := buf.WriteString(line(fmt.Sprintf("%s/%d", name, i), 2)); err != nil {
			return err
		}
	}
	return buf.Flush()
}

// checkReplies reads n replies: in order, each a job of its own.
func checkReplies(r io.Reader, n int) error {
	sc := bufio.NewScanner(r)
	seen := 0
	for sc.Scan() {
		seen++
		var l api.BatchLine
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			return fmt.Errorf("reply %d: %w: %s", seen, err, sc.Bytes())
		}
		if l.Line != int64(seen) || l.Error != nil || len(l.ID) != 36 || l.Existed {
			return fmt.Errorf("reply %d: %s", seen, sc.Bytes())
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("after %d of %d replies: %w", seen, n, err)
	}
	if seen != n {
		return fmt.Errorf("%d replies to %d lines", seen, n)
	}
	return nil
}

// streamed sends a batch as a program does that reads replies while it sends.
func streamed(n *node, name string, lines int) error {
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(writeLines(pw, name, lines)) }()
	req, err := http.NewRequest("POST", n.url("/v1/jobs/batch"), pr)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	res, err := n.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", res.Status)
	}
	return checkReplies(res.Body, lines)
}

// naive sends a batch as a simple program does: all of it before it reads a
// single reply.
func naive(n *node, name string, lines int) error {
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(batchTimeout)); err != nil {
		return err
	}
	var body bytes.Buffer
	if err := writeLines(&body, name, lines); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "POST /v1/jobs/batch HTTP/1.1\r\nHost: e2e\r\nContent-Length: %d\r\n\r\n", body.Len()); err != nil {
		return err
	}
	if _, err := body.WriteTo(conn); err != nil {
		return fmt.Errorf("send the lines: %w", err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return checkReplies(res.Body, lines)
}

// inStep sends a line only after the reply to the one before.
func inStep(n *node, name string, lines int) error {
	lines = min(lines, 50)
	pr, pw := io.Pipe()
	defer pw.Close()
	req, err := http.NewRequest("POST", n.url("/v1/jobs/batch"), pr)
	if err != nil {
		return err
	}
	first := make(chan error, 1)
	go func() {
		_, err := io.WriteString(pw, line(name+"/0", 2))
		first <- err
	}()
	res, err := n.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := <-first; err != nil {
		return err
	}
	r := bufio.NewReader(res.Body)
	for i := 1; ; i++ {
		text, err := r.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("reply %d: %w", i, err)
		}
		var l api.BatchLine
		if err := json.Unmarshal(text, &l); err != nil || l.Line != int64(i) || l.Error != nil {
			return fmt.Errorf("reply %d: %s", i, text)
		}
		if i == lines {
			break
		}
		if _, err := io.WriteString(pw, line(fmt.Sprintf("%s/%d", name, i), 2)); err != nil {
			return err
		}
	}
	if err := pw.Close(); err != nil {
		return err
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		return fmt.Errorf("after the last reply: %q, %w", rest, err)
	}
	return nil
}

// vanish sends some of a batch and goes away in the middle of a line.
func vanish(n *node, name string, lines int) error {
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(batchTimeout)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "POST /v1/jobs/batch HTTP/1.1\r\nHost: e2e\r\nContent-Length: 1000000000\r\n\r\n"); err != nil {
		return err
	}
	if err := writeLines(conn, name, lines); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, `{"data":"aGV`); err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 512)); err != nil { // the node is in the middle of it
		return err
	}
	return conn.(*net.TCPConn).SetLinger(0) // the end is a reset, as of a machine that died
}

// shapes are the ways of clients with a batch.
var shapes = []struct {
	name string
	send func(n *node, name string, lines int) error
}{{"streamed", streamed}, {"naive", naive}, {"in_step", inStep}, {"vanish", vanish}}

// within runs f, and dumps the node's goroutines if it hangs.
func (n *node) within(what string, f func() error) {
	n.t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	timer := time.NewTimer(batchTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		if err != nil {
			n.t.Errorf("%s: %v", what, err)
		}
	case <-timer.C:
		n.signal(syscall.SIGQUIT)
		<-n.exited
		name := filepath.Join(os.TempDir(), fmt.Sprintf("workmanager-e2e-hang-%d.txt", os.Getpid()))
		if err := os.WriteFile(name, []byte(n.log.String()), 0o600); err != nil {
			n.t.Error(err)
		}
		n.t.Fatalf("%s: hangs for %v; what the node was doing is in %s", what, batchTimeout, name)
	}
}

// TestBatch sends batches of every shape, alone and several at once, to nodes
// with and without workers: each line is answered, in order, and nothing hangs.
func TestBatch(t *testing.T) {
	t.Parallel()
	times := number(t, "WORKMANAGER_E2E_BATCHES", 4)
	for _, workers := range []string{"0", "1"} {
		t.Run("workers_"+workers, func(t *testing.T) {
			n := start(t, t.TempDir(), nil, "--workers", workers)
			for _, s := range shapes {
				for i := range times {
					name := fmt.Sprintf("%s/%d", s.name, i)
					n.within(name, func() error { return s.send(n, name, 2000) })
				}
			}
			n.within("all at once", func() error {
				var wg sync.WaitGroup
				errs := make(chan error, times*len(shapes))
				for i := range times {
					for _, s := range shapes {
						wg.Go(func() {
							name := fmt.Sprintf("at once/%s/%d", s.name, i)
							if err := s.send(n, name, 2000); err != nil {
								errs <- fmt.Errorf("%s: %w", name, err)
							}
						})
					}
				}
				wg.Wait()
				close(errs)
				return <-errs
			})
			n.forgotten()
			n.stop()
		})
	}
}

// forgotten waits until the node holds nothing of clients that went away: no
// connection but ours, no file without a name, nothing in the folder for them.
func (n *node) forgotten() {
	n.t.Helper()
	poll(n.t, 10*time.Second, "the node forgets clients that went away", func() string {
		n.must(http.StatusOK, "GET", "/readyz", nil) // what connected before has been accepted now
		n.http.CloseIdleConnections()
		var left []string
		sockets := 0
		for _, f := range n.files() {
			switch {
			case strings.Contains(f, "deleted"):
				left = append(left, f)
			case strings.HasPrefix(f, "socket:"):
				sockets++
			}
		}
		if sockets > 1 { // the listener
			left = append(left, fmt.Sprintf("%d connections", sockets-1))
		}
		tmp, err := os.ReadDir(filepath.Join(n.dir, "tmp"))
		if err != nil {
			return err.Error()
		}
		for _, e := range tmp {
			left = append(left, e.Name())
		}
		return strings.Join(left, ", ")
	})
}

// TestBatchVanished shows that a client that goes away in the middle of a batch
// leaves no goroutine and no file behind, and that what it was told is kept.
func TestBatchVanished(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), nil, "--workers", "0")
	goroutines := func() (k int) {
		for line := range strings.Lines(string(n.must(http.StatusOK, "GET", "/metrics", nil).body)) {
			if _, err := fmt.Sscanf(line, "go_goroutines %d", &k); err == nil {
				return k
			}
		}
		t.Fatal("the metrics have no go_goroutines")
		return 0
	}
	before := goroutines()
	for i := range 10 {
		name := fmt.Sprintf("gone/%d", i)
		n.within(name, func() error { return vanish(n, name, 2000) })
	}
	// One that never reads, so that replies pile up, and goes then.
	n.within("deaf", func() error { return vanish(n, "deaf", 60_000) })
	n.forgotten()
	// net/http closes a connection at the first write that fails; the handler ends
	// when what it had handed to the writer is committed.
	var last [2]int64
	same := time.Now()
	poll(t, time.Minute, "the last commits end", func() string {
		now := [2]int64{n.status().Queued, int64(goroutines())}
		if now != last {
			last, same = now, time.Now()
		}
		if now[1] > int64(before) && time.Since(same) < 5*time.Second { // what still runs then is named below
			return fmt.Sprintf("%d jobs, %d goroutines, %d before", now[0], now[1], before)
		}
		return ""
	})
	t.Logf("%d goroutines, %d before", last[1], before)
	n.signal(syscall.SIGQUIT) // Go prints every goroutine and exits with 2
	<-n.exited
	log := n.log.String()
	if !strings.Contains(log, "goroutine ") || n.code != 2 {
		t.Fatalf("no goroutine dump, exit code %d", n.code)
	}
	for _, left := range []string{"workmanager/web.(*batchRun)", "workmanager/web.(*Server)"} {
		if k := strings.Count(log, left); k > 0 {
			t.Errorf("%s is in %d goroutine frames after all clients have gone", left, k)
		}
	}
}
