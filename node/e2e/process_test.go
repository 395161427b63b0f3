package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// upTimeout is how long a node may take to serve, and downTimeout how long it
// may take to end, on a machine that has ten times as much to do; the product
// promises 5 s for the latter, which the test of SIGTERM holds it to.
const (
	upTimeout   = 90 * time.Second
	downTimeout = 90 * time.Second
)

// process is a run of the binary under test.
type process struct {
	t      testing.TB
	name   string
	cmd    *exec.Cmd
	log    buffer // stderr
	out    buffer // stdout
	exited chan struct{}
	code   int // valid once exited; -1 after a signal
}

// buffer is a bytes.Buffer safe for concurrent use.
type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// launch starts a command that dies with the test.
func launch(t testing.TB, name string, argv ...string) *process {
	t.Helper()
	return launchBy(t, startHere, name, argv...)
}

// startHere starts a command on a thread that never ends. What kills the command
// when its parent dies looks at the thread that started it: a test that gives a
// thread a network of its own lets it end, and a command that had been started
// there by chance would be killed in the middle of another test.
func startHere(cmd *exec.Cmd) error {
	starter.Do(func() {
		go func() {
			runtime.LockOSThread()
			for f := range startCalls {
				f()
			}
		}()
	})
	failed := make(chan error)
	startCalls <- func() { failed <- cmd.Start() }
	return <-failed
}

var (
	starter    sync.Once
	startCalls = make(chan func())
)

// launchBy is launch with another way to start the command.
func launchBy(t testing.TB, start func(*exec.Cmd) error, name string, argv ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: exec.Command(argv[0], argv[1:]...), exited: make(chan struct{})}
	p.cmd.Stderr, p.cmd.Stdout = &p.log, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.cmd.Env = environment()
	if err := start(p.cmd); err != nil {
		t.Fatalf("start %v: %v", argv, err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // the code tells
		p.code = p.cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.exited
		if t.Failed() {
			t.Logf("%s: %v, exit code %d, stderr:\n%s", name, argv, p.code, tail(p.log.String(), 16<<10))
		}
	})
	return p
}

// environment returns ours without the settings of the product.
func environment() []string {
	env := []string{"GORACE=halt_on_error=1"}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "WORKMANAGER_") {
			env = append(env, v)
		}
	}
	return env
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatalf("%s: send %v: %v", p.name, s, err)
	}
}

// wait returns the exit code, and fails the test if there is none in time, or
// if the process has said what none may ever say.
func (p *process) wait(d time.Duration) int {
	p.t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		p.t.Fatalf("%s: still runs after %v", p.name, d)
	}
	p.sound()
	return p.code
}

// sound fails the test if the log has a stack trace or a race.
func (p *process) sound() {
	p.t.Helper()
	log := p.log.String()
	for _, bad := range []string{"DATA RACE", "panic", "goroutine 1 [", "fatal error"} {
		if strings.Contains(log, bad) {
			p.t.Errorf("%s: its log says %q", p.name, bad)
		}
	}
}

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// node is a running node.
type node struct {
	*process
	dir  string
	addr string
	http *http.Client
}

// starts counts nodes, for their names in logs.
var starts atomic.Int64

// start runs a node on dir and waits until it serves. prefix is a command that
// runs the binary, nil for none.
func start(t testing.TB, dir string, prefix []string, flags ...string) *node {
	t.Helper()
	for try := 0; ; try++ {
		addr := freeAddr(t)
		argv := append(append([]string{}, prefix...), binary, "node", "--listen", addr, "--data-dir", dir, "--log-format", "text", "--gossip", "")
		p := launch(t, fmt.Sprintf("node %d", starts.Add(1)), append(argv, flags...)...)
		n := &node{process: p, dir: dir, addr: addr, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
		t.Cleanup(n.http.CloseIdleConnections)
		if !n.serves() {
			return n
		}
		if try == 5 {
			t.Fatalf("no free port in %d tries", try)
		}
	}
}

// serves waits until the node serves, or reports that its address is taken.
func (n *node) serves() (busy bool) {
	n.t.Helper()
	poll(n.t, upTimeout, n.name+" serves", func() string {
		if !n.running() {
			if busy = strings.Contains(n.log.String(), "address already in use"); busy {
				return ""
			}
			n.t.Fatalf("%s ended at its start, exit code %d: %s", n.name, n.code, tail(n.log.String(), 2000))
		}
		res, err := n.http.Get(n.url("/readyz"))
		if err != nil {
			return err.Error()
		}
		_ = res.Body.Close() // only the status counts
		if res.StatusCode != http.StatusOK {
			return res.Status
		}
		return ""
	})
	return busy
}

// ports are tried in turn below the range that outgoing connections take.
var ports atomic.Int64

func freeAddr(t testing.TB) string {
	t.Helper()
	for range 1000 {
		addr := "127.0.0.1:" + strconv.FormatInt(12000+(int64(os.Getpid())*61+ports.Add(1))%18000, 10)
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return addr
	}
	t.Fatal("no free port")
	return ""
}

func (n *node) url(path string) string { return "http://" + n.addr + path }

// kill ends the node as a crash does.
func (n *node) kill() {
	n.t.Helper()
	n.signal(syscall.SIGKILL)
	n.wait(downTimeout)
	n.http.CloseIdleConnections()
}

// stop ends the node as an operator does.
func (n *node) stop() {
	n.t.Helper()
	n.signal(syscall.SIGTERM)
	if code := n.wait(downTimeout); code != 0 {
		n.t.Errorf("%s: exit code %d after SIGTERM, want 0", n.name, code)
	}
	n.http.CloseIdleConnections()
}

// memory returns a figure of /proc/PID/status in bytes: VmRSS, VmHWM.
func (n *node) memory(name string) int64 {
	n.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	if err != nil {
		n.t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), name+":")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 2 || fields[1] != "kB" {
		n.t.Fatalf("/proc/%d/status has no %s", n.cmd.Process.Pid, name)
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		n.t.Fatal(err)
	}
	return kib << 10
}

// growth runs f and returns how far the resident memory rose above where it
// stood before, at its highest.
func (n *node) growth(f func()) int64 {
	n.t.Helper()
	before := n.memory("VmRSS")
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", n.cmd.Process.Pid), []byte("5"), 0); err != nil { // VmHWM begins anew
		n.t.Fatal(err)
	}
	f()
	return n.memory("VmHWM") - before
}

// files returns what the node has open, sockets by kind.
func (n *node) files() []string {
	n.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", n.cmd.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		n.t.Fatal(err)
	}
	var open []string
	for _, e := range entries {
		if name, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			open = append(open, name)
		}
	}
	return open
}

// command runs the binary to its end.
func command(t testing.TB, flags ...string) *process {
	t.Helper()
	p := launch(t, strings.Join(flags[:1], " "), append([]string{binary}, flags...)...)
	p.wait(downTimeout)
	return p
}

// drain reads r to its end and forgets it.
func drain(r io.Reader) { _, _ = io.Copy(io.Discard, r) }
