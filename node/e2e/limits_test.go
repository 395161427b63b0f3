package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"workmanager/web/api"
)

// maxIdleConn is what an idle connection may cost the node in memory.
const maxIdleConn = 40 << 10

// TestIdleConnections holds very many connections open on which nothing is
// asked: they cost little, and others are served as if they were not there.
func TestIdleConnections(t *testing.T) {
	conns := number(t, "WORKMANAGER_E2E_CONNS", 10_000)
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur < uint64(conns+1000) { // Go has raised it as far as it may
		skip(t, "needs %d open files, may have %d (%v)", conns+1000, files.Cur, err)
	}
	n := start(t, t.TempDir(), nil, "--workers", "0", "--max-connections", strconv.Itoa(conns+500))
	n.enqueue("before", 1)
	sockets := len(n.files())
	open := make([]net.Conn, conns)
	closeAll := func() {
		for _, c := range open {
			if c != nil {
				_ = c.Close()
			}
		}
	}
	defer closeAll()
	grown := n.growth(func() {
		var wg sync.WaitGroup
		const hands = 20
		for hand := range hands {
			wg.Go(func() {
				for i := hand; i < conns; i += hands {
					c, err := net.Dial("tcp", n.addr)
					if err != nil {
						t.Error(err)
						return
					}
					open[i] = c
					if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: e2e\r\n\r\n"); err != nil {
						t.Error(err)
						return
					}
					res, err := http.ReadResponse(bufio.NewReader(c), nil)
					if err != nil || res.StatusCode != http.StatusOK {
						t.Errorf("connection %d: %v, %v", i, res, err)
						return
					}
					drain(res.Body)
				}
			})
		}
		wg.Wait()
	})
	if t.Failed() {
		return
	}
	t.Logf("%d idle connections: memory grew by %d MiB, %d bytes each", conns, grown>>20, grown/int64(conns))
	if !raced && grown > int64(conns)*maxIdleConn {
		t.Errorf("memory grew by %d bytes a connection, want at most %d", grown/int64(conns), maxIdleConn)
	}
	if got := len(n.files()) - sockets; got < conns {
		t.Fatalf("%d connections are open, want %d", got, conns)
	}
	var took []time.Duration
	for i := range 100 {
		began := time.Now()
		n.enqueue(fmt.Sprint(i), 1)
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("others meanwhile: a job is taken in %v, the slowest of 100 in %v", took[50], took[99])
	if !raced && took[50] > time.Second {
		t.Errorf("a job is taken in %v while others do nothing", took[50])
	}
	closeAll()
	poll(t, 30*time.Second, "the connections are given back", func() string {
		if left := len(n.files()) - sockets; left > 100 {
			return fmt.Sprintf("%d are open", left)
		}
		return ""
	})
	n.stop()
}

// TestOverload offers very many times what the node can compute, with few open
// jobs allowed: who is refused is told to wait, every job that was taken ends
// completed with its value, and the memory stays as it is.
func TestOverload(t *testing.T) {
	t.Parallel()
	const iterations, openJobs, clients = 40_000, 500, 64
	n := start(t, t.TempDir(), nil, "--workers", "1", "--max-open-jobs", strconv.Itoa(openJobs))
	for i := range 200 { // what is made once is made
		n.enqueue(fmt.Sprint("warm", i), 2)
	}
	n.idle(time.Minute)
	done := n.status().Completed

	var taken sync.Map // Work ID: data
	var accepted, refused atomic.Int64
	load := 4 * time.Second
	grown := n.growth(func() {
		end := time.Now().Add(load)
		var wg sync.WaitGroup
		for c := range clients {
			wg.Go(func() {
				for i := 0; time.Now().Before(end); i++ {
					data := fmt.Sprintf("%d/%d", c, i)
					r, err := n.ask("PUT", fmt.Sprintf("/enqueue?iterations=%d", iterations), strings.NewReader(data), "Content-Type", "application/octet-stream")
					switch {
					case err != nil:
						t.Errorf("a client under overload: %v", err)
						return
					case r.status == http.StatusOK:
						var w api.WorkID
						decode(t, r, &w)
						taken.Store(w.ID, data)
						accepted.Add(1)
					case r.status == http.StatusServiceUnavailable && r.header.Get("Retry-After") != "":
						refused.Add(1)
						if refused.Load() == 1 && problem(t, r).Code != "busy" {
							t.Errorf("refused as %v, want busy", r)
						}
					default:
						t.Errorf("a client under overload: %v, %v", r, r.header)
						return
					}
				}
			})
		}
		wg.Wait()
	})
	computed := n.status().Completed - done
	began := time.Now()
	n.idle(2 * time.Minute)
	alone := float64(n.status().Completed-done-computed) / time.Since(began).Seconds()
	t.Logf("offered %d jobs in %v: %d taken, %d refused; %.0f computed a second meanwhile, %.0f with nobody asking; memory grew by %d KiB",
		accepted.Load()+refused.Load(), load, accepted.Load(), refused.Load(), float64(computed)/load.Seconds(), alone, grown>>10)
	if offered, can := accepted.Load()+refused.Load(), computed; !raced && offered < 10*can {
		t.Logf("this machine offers only %d times what it computes", offered/max(can, 1))
	}
	if refused.Load() == 0 {
		t.Fatal("nobody was refused: this was no overload")
	}
	if !raced && grown > maxBatchGrowth {
		t.Errorf("memory grew by %d MiB, want at most %d", grown>>20, maxBatchGrowth>>20)
	}
	if got := n.status(); got.Completed-done != accepted.Load() || got.Failed+got.Cancelled+got.Queued+got.Leased != 0 {
		t.Errorf("%d jobs were taken: %d completed, %d failed, %d cancelled, %d open", accepted.Load(), got.Completed-done, got.Failed, got.Cancelled, got.Queued+got.Leased)
	}
	checked := 0
	taken.Range(func(id, data any) bool {
		j := n.job(id.(string))
		if checked++; j.State != "completed" || checked <= 50 && j.Value != chain(data.(string), iterations) {
			t.Errorf("job %s of %q: %+v, want it completed with its value", id, data, j)
		}
		return true
	})
	n.stop()
}
