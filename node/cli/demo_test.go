package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// demoBinary builds the program: the demo starts itself, which a test binary
// must not.
func demoBinary(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "workmanager")
	if out, err := exec.Command("go", "build", "-o", name, "workmanager").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return name
}

// startDemo starts the demo with a folder for temporary files of its own.
func startDemo(t *testing.T, binary string) (cmd *exec.Cmd, stdout, stderr *lockedBuffer, dir string) {
	t.Helper()
	dir = t.TempDir()
	cmd = exec.Command(binary, "demo", "--jobs", "60")
	stdout, stderr = &lockedBuffer{}, &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "WORKMANAGER_NODE=http://127.0.0.1:1", "WORKMANAGER_WORKERS=0")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended
	return cmd, stdout, stderr, dir
}

// running returns the processes that have word among their arguments.
func running(t *testing.T, word string) (pids []string) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && bytes.Contains(b, []byte(word)) { // err: it has ended
			pids = append(pids, strings.Split(name, "/")[2])
		}
	}
	return pids
}

// TestDemo runs the demo to its end: nothing is lost or wrong, and nothing is
// left behind.
func TestDemo(t *testing.T) {
	t.Parallel()
	cmd, stdout, stderr, dir := startDemo(t, demoBinary(t))
	begin := time.Now()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("demo: %v\n%s%s", err, stdout, stderr)
	}
	t.Logf("%v\n%s\n%s", time.Since(begin), stderr, stdout)
	for _, want := range []string{"on both disks", "taken over", "values checked", "longest stall"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("stdout does not tell of %q", want)
		}
	}
	for line := range strings.Lines(stdout.String()) {
		for _, what := range []string{"wrong", "lost", "client errors"} {
			if rest, ok := strings.CutPrefix(line, what); ok && strings.TrimSpace(rest) != "0" {
				t.Errorf("the table says %q", strings.TrimSpace(line))
			}
		}
	}
	demoIsGone(t, dir)
}

// demoIsGone checks that neither a process nor a file of a demo is left.
func demoIsGone(t *testing.T, dir string) {
	t.Helper()
	if pids := running(t, dir); len(pids) > 0 {
		t.Errorf("processes %v are left", pids)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestDemoInterrupted interrupts the demo in the middle.
func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	binary := demoBinary(t)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			cmd, stdout, stderr, dir := startDemo(t, binary)
			within(t, 2*time.Minute, func() bool { return strings.Contains(stderr.String(), "in step") })
			if len(running(t, dir)) < 2 {
				t.Fatalf("processes of the demo: %v, want both nodes", running(t, dir))
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			err := cmd.Wait()
			if sig == syscall.SIGKILL {
				within(t, time.Minute, func() bool { return len(running(t, dir)) == 0 }) // by the system
				return
			}
			if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
				t.Errorf("exit code %d (%v), want %d\n%s%s", code, err, exitInterrupted, stdout, stderr)
			}
			demoIsGone(t, dir)
		})
	}
}

// within waits until done.
func within(t *testing.T, d time.Duration, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); !done(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within %v", d)
		}
	}
}

// lockedBuffer is a bytes.Buffer safe for concurrent use.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
