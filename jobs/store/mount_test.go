//go:build linux

package store_test

import (
	"bufio"
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// The tests of this file use the real kernel: small file systems in a mount
// namespace of their own, which vanish with the process, however it ends.

func init() {
	roles["power"], roles["writer"], roles["full"] = losePower, writeOn, fillDisk
}

// inNamespace starts the test binary again as root of its own mounts and
// returns what it printed, or skips where that cannot be.
func inNamespace(t *testing.T, role string, tools []string, args ...string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for mounts of its own")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
	}
	dir := fastDir(t)
	cmd := self(t.Context(), role, append([]string{dir}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM):
		t.Skipf("needs mounts of its own: %v", err)
	case strings.Contains(string(out), errNoMount):
		t.Skipf("%s", out)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// self returns the command that is this test binary in a role.
func self(ctx context.Context, role string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	return cmd
}

const errNoMount = "cannot mount here"

func mount(args ...string) error {
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: mount %s: %w: %s", errNoMount, strings.Join(args, " "), err, out)
	}
	return nil
}

// TestPowerLossOnExt4 takes the disk away under a node that writes: what is on
// the device at that moment, without the page cache, is all that is left.
func TestPowerLossOnExt4(t *testing.T) {
	tools := []string{"mount", "umount", "mkfs.ext4", "cp"}
	got := inNamespace(t, "power", tools, "")
	t.Logf("synchronous=FULL: %s", got)
	if !strings.HasSuffix(got, " 0 lost") {
		t.Errorf("with synchronous=FULL: %s", got)
	}
	for _, sync := range []string{"OFF", "NORMAL"} {
		got = inNamespace(t, "power", tools, "&_pragma=synchronous("+sync+")")
		t.Logf("control, synchronous=%s: %s", sync, got)
		if strings.HasSuffix(got, " 0 lost") {
			t.Errorf("control with synchronous=%s: %s: the check finds too little", sync, got)
		}
	}
}

// TestKilled kills a node that writes, again and again: each acknowledged job is
// there after the next start. Unlike a power loss it needs no rights.
func TestKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for round := range 4 {
		cmd := self(t.Context(), "writer", dir, "")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		var acks []string
		for len(acks) < 50+100*round {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("the writer ended after %d acknowledgments: %v", len(acks), err)
			}
			acks = append(acks, line)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(lines)
		if err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		acks = append(acks, strings.SplitAfter(string(rest), "\n")...)
		if lost, err := missing(dir, acks); err != nil || lost > 0 {
			t.Errorf("round %d: %d of %d acknowledgments lost, %v", round, lost, len(acks), err)
		}
	}
}

// number returns the i-th job of the ledger; it is the same in every process.
func number(i int) store.Submission {
	v1 := sha512.Sum512([]byte(strconv.Itoa(i)))
	return store.Submission{Job: jobs.Job{ID: jobs.KeyID("ledger", "", strconv.Itoa(i)), V1: v1, Iterations: 3}}
}

// writeOn is the node that loses its disk: it enqueues and completes jobs, and
// prints each number when it was acknowledged, "e" and "c".
func writeOn() error {
	s, err := store.Open(context.Background(), os.Args[1], store.Options{Node: "a", DSN: os.Args[2]})
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		sub := number(i)
		if _, err := s.Enqueue(context.Background(), []store.Submission{sub}); err != nil {
			return err
		}
		fmt.Println("e", i)
		if i%2 == 0 {
			if _, err := s.Record(context.Background(), complete([]store.Submission{sub})); err != nil {
				return err
			}
			fmt.Println("c", i)
		}
	}
}

// losePower runs in the namespace: writer on a small ext4, stop, copy of the
// image, kill, and a look at the copy.
func losePower() error {
	dir, dsn := os.Args[1], os.Args[2]
	image, copied, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "copy"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		return err
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: mkfs.ext4: %w: %s", errNoMount, err, out)
	}
	if err := mount("-o", "loop", image, mnt); err != nil {
		return err
	}
	cmd := self(context.Background(), "writer", filepath.Join(mnt, "data"), dsn)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewReader(out)
	var acks []string
	for len(acks) < 700 {
		line, err := lines.ReadString('\n')
		if err != nil {
			return fmt.Errorf("the writer ended after %d acknowledgments: %w", len(acks), err)
		}
		acks = append(acks, line)
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		return fmt.Errorf("the writer did not stop: %v, %v", status, err)
	}
	if out, err := exec.Command("cp", "--sparse=always", image, copied).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	if err := cmd.Process.Kill(); err != nil {
		return err
	}
	rest, err := io.ReadAll(lines) // what was acknowledged before the stop
	if err != nil {
		return err
	}
	_ = cmd.Wait() // it was killed
	acks = append(acks, strings.SplitAfter(string(rest), "\n")...)
	if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
		return fmt.Errorf("umount: %w: %s", err, out)
	}
	if err := mount("-o", "loop", copied, mnt); err != nil {
		return err
	}
	lost, err := missing(filepath.Join(mnt, "data"), acks)
	if err != nil {
		return err
	}
	fmt.Printf("%d acknowledged, %d lost\n", len(acks), lost)
	return nil
}

// missing returns how many acknowledgments the store in dir does not keep.
func missing(dir string, acks []string) (lost int, err error) {
	if _, err := os.Stat(dir); err != nil {
		return len(acks), nil // not even the directory
	}
	s, err := store.Open(context.Background(), dir, store.Options{Node: "a"})
	if err != nil {
		return len(acks), nil // damaged
	}
	defer s.Close()
	for _, line := range acks {
		kind, text, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok {
			continue // the kill cut it short
		}
		i, err := strconv.Atoi(text)
		if err != nil {
			return 0, err
		}
		sub := number(i)
		j, found, err := s.Job(context.Background(), sub.Job.ID)
		if err != nil {
			return 0, err
		}
		want := sha512.Sum512(sub.Job.V1[:])
		want = sha512.Sum512(want[:])
		if !found || j.V1 != sub.Job.V1 || j.Iterations != 3 || kind == "c" && (j.Rank != jobs.Completed || j.Result != want) {
			lost++
		}
	}
	return lost, nil
}

// TestFullDisk fills a real small file system: new jobs are refused first, to
// leave room for results, then every write; reads go on; and the same store
// works again when there is room.
func TestFullDisk(t *testing.T) {
	if got := inNamespace(t, "full", []string{"mount"}); got != "" {
		t.Error(got)
	}
}

func fillDisk() error {
	mnt := filepath.Join(os.Args[1], "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		return err
	}
	if err := mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", mnt); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	dir := filepath.Join(mnt, "data")
	s, err := store.Open(ctx, dir, store.Options{Node: "a"})
	if err != nil {
		return err
	}
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()

	next := 0
	enqueue := func() error {
		batch := make([]store.Submission, 100)
		for i := range batch {
			batch[i] = number(next + i)
		}
		_, err := s.Enqueue(ctx, batch)
		if err == nil {
			next += len(batch)
		}
		return err
	}
	for err = enqueue(); err == nil; err = enqueue() {
	}
	if jobs.CodeOf(err) != jobs.CodeDiskFull {
		return fmt.Errorf("Enqueue() on a full disk = %w, want %s", err, jobs.CodeDiskFull)
	}
	full := make([]byte, 16<<20)
	if err := os.WriteFile(filepath.Join(mnt, "filler"), full, 0o600); !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("the file system is not full: %w", err)
	}
	done := 0
	finish := func() error {
		batch := make([]store.Submission, 50)
		for i := range batch {
			batch[i] = number(done + i)
		}
		_, err := s.Record(ctx, complete(batch))
		if err == nil {
			done += len(batch)
		}
		return err
	}
	for err = finish(); err == nil && done < next-50; err = finish() {
	}
	if jobs.CodeOf(err) != jobs.CodeDiskFull {
		return fmt.Errorf("Apply() on a full disk, after %d = %w, want %s", done, err, jobs.CodeDiskFull)
	}
	check := func() error {
		for i := 0; i < next; i += 5 {
			j, found, err := s.Job(ctx, number(i).Job.ID)
			if err != nil || !found || j.Ended() != (i < done) {
				return fmt.Errorf("Job() number %d of %d, %d done = %v, %v, %w", i, next, done, j, found, err)
			}
		}
		page, err := s.Results(ctx, jobs.ResultsQuery{Limit: next})
		if err != nil || len(page.Results) != done {
			return fmt.Errorf("Results() = %d, %w, want %d", len(page.Results), err, done)
		}
		return nil
	}
	if err := check(); err != nil {
		return fmt.Errorf("on a full disk: %w", err)
	}
	if s.Err() != nil {
		return fmt.Errorf("a full disk is taken for a broken one: %w", s.Err())
	}
	if err := mount("-o", "remount,size=64m", mnt); err != nil {
		return err
	}
	if err := finish(); err != nil {
		return fmt.Errorf("Apply() with room again = %w", err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for err = enqueue(); err != nil && time.Now().Before(deadline); err = enqueue() { // a look at the disk counts for 0.2 s
	}
	if err != nil {
		return fmt.Errorf("Enqueue() with room again = %w", err)
	}
	if err := check(); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	stop()
	if err := <-ran; err != nil {
		return fmt.Errorf("Run() = %w", err)
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("Close() = %w", err)
	}
	ctx = context.Background()
	if s, err = store.Open(ctx, dir, store.Options{Node: "a"}); err != nil {
		return err
	}
	defer s.Close()
	return check()
}
