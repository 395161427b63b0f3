package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"workmanager/web/api"
)

// namespace is a mount namespace of its own, held by a process: what is mounted
// in it is seen by nobody else and vanishes with it, however the test ends.
type namespace struct {
	t   testing.TB
	pid string
}

// newNamespace returns one, or skips the test where there can be none.
func newNamespace(t testing.TB) *namespace {
	t.Helper()
	p := launch(t, "namespace", "unshare", "-m", "--propagation", "private", "sh", "-c", "echo ready; exec sleep 1000000")
	poll(t, upTimeout, "a mount namespace", func() string {
		if !p.running() {
			return "unshare: " + p.log.String()
		}
		if p.out.String() == "" {
			return "no word of it"
		}
		return ""
	})
	return &namespace{t, strconv.Itoa(p.cmd.Process.Pid)}
}

// enter is the command that runs another one inside.
func (ns *namespace) enter() []string { return []string{"nsenter", "-t", ns.pid, "-m", "--"} }

// run runs a command inside and returns what is wrong.
func (ns *namespace) run(argv ...string) error {
	argv = append(ns.enter(), argv...)
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", argv, err, out)
	}
	return nil
}

// path returns where a file inside is seen from here.
func (ns *namespace) path(name string) string { return "/proc/" + ns.pid + "/root" + name }

// canMount skips the test unless mounts of its own work here.
func canMount(t *testing.T, tools ...string) {
	t.Helper()
	need(t, true, append(tools, "unshare", "nsenter", "mount", "umount")...)
	if out, err := exec.Command("unshare", "-m", "--propagation", "private", "true").CombinedOutput(); err != nil {
		skip(t, "no mount namespace can be had: %v: %s", err, out)
	}
}

// TestDiskFull fills the disk under a node at work. New jobs are refused with
// 507 and the reason, reads go on, and when there is room again the node goes
// on by itself; nothing acknowledged is lost.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	canMount(t)
	rng := random(t)
	ns := newNamespace(t)
	mnt := t.TempDir()
	if err := ns.run("mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", mnt); err != nil {
		skip(t, "%v", err)
	}
	dir := filepath.Join(mnt, "data")
	n := start(t, dir, ns.enter(), "--workers", "1")
	l := newLedger()
	end := l.writers(n, rng, 2)
	poll(t, 20*time.Second, "jobs are acknowledged", func() string {
		if l.len() < 200 {
			return fmt.Sprint(l.len())
		}
		return ""
	})
	// Some of these end while the disk is full.
	iterations := lasting(300 * time.Millisecond)
	under := map[string]string{}
	for i := range 6 {
		data := fmt.Sprintf("under way %d", i)
		under[n.enqueue(data, iterations)] = chain(data, iterations)
	}
	done := n.enqueue("done before", 1)

	ballast := ns.path(filepath.Join(mnt, "ballast"))
	fill(t, ballast)
	full := func(method, path string, f form) {
		t.Helper()
		var p api.Problem
		try := 0
		poll(t, 10*time.Second, method+" "+path+" is refused", func() string {
			try++
			body := f.encode(fmt.Sprintf("no room for %s %d", path, try))
			r, err := n.ask(method, path, strings.NewReader(body), "Content-Type", f.contentType)
			if err != nil {
				t.Fatalf("%s %s: %v", method, path, err)
			}
			if r.status/100 == 2 { // the disk is looked at five times a second
				return r.String()
			}
			if r.status != http.StatusInsufficientStorage {
				t.Fatalf("%s %s: got %v, want 507", method, path, r)
			}
			if p = problem(t, r); r.header.Get("Retry-After") == "" {
				t.Errorf("%s %s: 507 without Retry-After", method, path)
			}
			return ""
		})
		if !strings.Contains(p.Detail, "disk is full") || !strings.Contains(p.Detail, "free") {
			t.Errorf("%s %s: detail %q, want why and what to do", method, path, p.Detail)
		}
	}
	for _, f := range forms {
		full("PUT", "/enqueue?iterations=5", f)
	}
	full("POST", "/v1/jobs?iterations=5", forms[3])
	r := n.must(http.StatusOK, "POST", "/v1/jobs/batch", strings.NewReader(line("no room", 5)))
	var reply api.BatchLine
	decode(t, r, &reply)
	if reply.Error == nil || reply.Error.Status != http.StatusInsufficientStorage {
		t.Errorf("batch on a full disk: got %v, want a line with 507", r)
	}
	refused := time.Now()
	for time.Since(refused) < 2*time.Second { // long enough for values to find no room
		if j := n.job(done); j.Value != chain("done before", 1) {
			t.Fatalf("read on a full disk: got %+v", j)
		}
		n.must(http.StatusOK, "POST", "/pullCompleted?top=10", nil)
		n.must(http.StatusOK, "GET", "/v1/results?limit=10", nil)
		n.must(http.StatusOK, "GET", "/v1/jobs?limit=10", nil)
		if s := n.status(); time.Since(refused) > time.Second && (s.Writable || s.WriteProblem == "") {
			t.Errorf("status on a full disk: writable %v, %q", s.Writable, s.WriteProblem)
		}
		n.must(http.StatusOK, "GET", "/healthz", nil)
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	before := l.len()
	poll(t, 30*time.Second, "jobs are acknowledged again", func() string {
		if l.len() <= before {
			return "none"
		}
		return ""
	})
	end()
	n.idle(60 * time.Second)
	for id, value := range under {
		n.completed(id, value)
	}
	under[done] = chain("done before", 1)
	n.check(l, under)
	if l.refused == 0 {
		t.Error("no writer was refused while the disk was full")
	}
	n.kill()
	n = start(t, dir, ns.enter(), "--workers", "1")
	n.check(l, under)
	n.stop()
}

// check checks the ledger and the jobs beside it.
func (n *node) check(l *ledger, others map[string]string) {
	n.t.Helper()
	l.check(n.t, n)
	for id, value := range others {
		if j := n.job(id); j.State != "completed" || j.Value != value {
			n.t.Errorf("job %s: got %+v, want completed with %s", id, j, value)
		}
	}
}

// fill writes zeros to a file until the disk takes no more.
func fill(t testing.TB, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4 << 10} { // and what the node frees meanwhile
		block := make([]byte, size)
		for err = nil; err == nil; {
			_, err = f.Write(block)
		}
		if !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
			t.Fatal(err)
		}
	}
}

// TestDiskError lets the disk fail under a node: no more is acknowledged, the
// node ends by itself and says why, and after a restart all is there that was
// acknowledged.
func TestDiskError(t *testing.T) {
	t.Parallel()
	need(t, false, "strace")
	for _, call := range []string{"fsync,fdatasync", "pwrite64"} {
		t.Run(strings.ReplaceAll(call, ",", "_"), func(t *testing.T) {
			t.Parallel()
			rng := random(t)
			dir := t.TempDir()
			n := start(t, dir, nil, "--workers", "1")
			l := newLedger()
			l.failing = true
			end := l.writers(n, rng, 3)
			defer end()
			poll(t, 20*time.Second, "jobs are acknowledged", func() string {
				if l.len() < 100 {
					return fmt.Sprint(l.len())
				}
				return ""
			})
			tracer := launch(t, "strace", "strace", "-f", "-o", "/dev/null", "-p", strconv.Itoa(n.cmd.Process.Pid),
				"-e", "trace="+call, "-e", "inject="+call+":error=EIO")
			poll(t, 60*time.Second, "the node ends", func() string {
				if strings.Contains(tracer.log.String(), "not permitted") {
					skip(t, "this machine does not let strace attach: %s", tracer.log.String())
				}
				if n.running() {
					return "it runs with a disk that fails; strace says " + tracer.log.String()
				}
				return ""
			})
			if code := n.wait(downTimeout); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			log := n.log.String()
			if !strings.Contains(log, "workmanager: ") || !strings.Contains(log, "the disk failed") {
				t.Errorf("stderr does not say that the disk failed: %q", tail(log, 2000))
			}
			end()
			n = start(t, dir, nil, "--workers", "1")
			n.idle(60 * time.Second)
			l.check(t, n)
			t.Logf("%d jobs acknowledged, %d refused; the last words: %s", l.len(), l.refused, last(log))
			n.stop()
		})
	}
}

func last(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return lines[len(lines)-1]
}

// TestPowerLoss takes the disk as it is at one instant, without what the kernel
// still held in memory, and starts a node on it: all is there that was
// acknowledged before. That the recipe finds a store that does not sync is
// shown in jobs/store.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	canMount(t, "mkfs.ext4", "truncate", "cp")
	for i := range 2 {
		t.Run(strconv.Itoa(i), func(t *testing.T) { powerLoss(t) })
	}
}

func powerLoss(t *testing.T) {
	rng := random(t)
	dir := t.TempDir()
	img, after := filepath.Join(dir, "img"), filepath.Join(dir, "after")
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	ns := newNamespace(t)
	for _, argv := range [][]string{{"truncate", "-s", "200M", img}, {"mkfs.ext4", "-q", "-F", img}} {
		if err := ns.run(argv...); err != nil {
			t.Fatal(err)
		}
	}
	if err := ns.run("mount", "-o", "loop", img, mnt); err != nil {
		skip(t, "no loop device can be had: %v", err)
	}
	n := start(t, filepath.Join(mnt, "data"), ns.enter(), "--workers", "1")
	l := newLedger()
	end := l.writers(n, rng, 4)
	poll(t, 30*time.Second, "jobs are acknowledged", func() string {
		if l.len() < 500 {
			return fmt.Sprint(l.len())
		}
		return ""
	})
	pause(time.Duration(rng.IntN(200)) * time.Millisecond)
	n.signal(syscall.SIGSTOP)
	if out, err := exec.Command("cp", "--sparse=always", img, after).CombinedOutput(); err != nil {
		t.Fatalf("copy the disk: %v: %s", err, out)
	}
	n.kill()
	end()
	if err := ns.run("umount", mnt); err != nil {
		t.Fatal(err)
	}
	if err := ns.run("mount", "-o", "loop", after, mnt); err != nil {
		t.Fatalf("the disk after the outage: %v", err)
	}
	acked := l.len()
	n = start(t, filepath.Join(mnt, "data"), ns.enter(), "--workers", "1")
	l.settle(t, n)
	n.idle(60 * time.Second)
	l.check(t, n)
	t.Logf("%d jobs acknowledged before the outage", acked)
	n.stop()
	if err := ns.run("umount", mnt); err != nil {
		t.Error(err)
	}
}
