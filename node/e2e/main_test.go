package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// binary is the path of the binary under test.
var binary string

// raced tells that the binary has the race detector in it: it is slow, and its
// memory says nothing.
var raced = os.Getenv("WORKMANAGER_E2E_RACE") == "1"

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "aws" { // see deploy_aws_test.go
		os.Exit(awsCLI())
	}
	os.Exit(run(m))
}

// run builds the binary and runs the tests; it is a function of its own so that
// its folder is removed before the exit.
func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "workmanager-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make folder for the binary:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "workmanager")
	args := []string{"build", "-o", binary}
	if raced {
		// SQLite itself is not ours to check, and 37 times slower when it is.
		args = append(args, "-race", "-gcflags=modernc.org/sqlite/lib=-race=false",
			"-gcflags=modernc.org/libc=-race=false", "-gcflags=modernc.org/memory=-race=false")
	}
	build := exec.Command("go", append(args, "workmanager")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %v\n%s", build.Args, err, out)
		return 1
	}
	return m.Run()
}

// number returns an environment variable, or def if it is not set.
func number(t *testing.T, name string, def int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return def
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s: want a whole number from 1", name, s)
	}
	return n
}

// random returns a seeded source and says its seed.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := number(t, "WORKMANAGER_E2E_SEED", int(time.Now().UnixNano()&0x7fffffff)+1)
	t.Logf("seed: WORKMANAGER_E2E_SEED=%d", seed)
	return rand.New(rand.NewPCG(uint64(seed), 0))
}

// skip leaves a test out for want of something, aloud.
func skip(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("WORKMANAGER_E2E_SKIP") == "fail" {
		t.Fatalf("would be skipped: "+format, args...)
	}
	t.Skipf(format, args...)
}

// need skips the test unless all tools are there and, with root, the user is.
func need(t *testing.T, root bool, tools ...string) {
	t.Helper()
	if root && os.Geteuid() != 0 {
		skip(t, "needs root, for mounts of its own")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			skip(t, "needs %s, which is not installed", tool)
		}
	}
}

// poll calls done until it returns "", and fails with what it said last if that
// has not come after d.
func poll(t testing.TB, d time.Duration, what string, done func() string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(d)
	for {
		left := done()
		if left == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v: %s", what, d, left)
		}
		<-tick.C
	}
}

// pause waits for d. It is for the moment of a fault, never for an outcome.
func pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}
