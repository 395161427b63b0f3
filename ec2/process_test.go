package ec2_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"workmanager/ec2"
	"workmanager/jobs"
)

// script returns a command of sh, whose name is its last argument.
func script(text string) []string { return []string{"/bin/sh", "-c", text, "worker", "{name}"} }

func processes(t *testing.T, command []string) *ec2.Processes {
	t.Helper()
	p, err := ec2.NewProcesses(ec2.ProcessConfig{Command: command, Env: environment(t.TempDir()), StopTime: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// environment is that of this process, with a folder.
func environment(dir string) func(string) []string {
	return func(string) []string { return append(os.Environ(), "DIR="+dir) }
}

// TestProcesses_are_found_again kills nobody: the first Processes is forgotten as
// a node is that was killed.
func TestProcesses_are_found_again(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no process is found again on Windows")
	}
	var kept atomic.Pointer[[]byte] // they are told of ends by goroutines of their own
	keep := func(b []byte) error {
		b = slices.Clone(b)
		kept.Store(&b)
		return nil
	}
	_ = keep(nil) // never fails
	config := func() ec2.ProcessConfig {
		return ec2.ProcessConfig{
			Command: script("trap 'exit 0' TERM; while :; do sleep 0.05; done"), StopTime: 5 * time.Second, Kept: *kept.Load(), Keep: keep,
		}
	}
	cfg := fleetConfig()
	first, err := ec2.NewProcesses(config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = first.Close() })
	var all []ec2.Instance
	for slot := range 3 {
		i, err := first.Launch(t.Context(), slotRequest(cfg, slot, 7))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, i)
	}
	if err := syscall.Kill(-pid(t, all[0]), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, first, "one dead", func(is []ec2.Instance) bool { return is[0].State == ec2.Terminated })

	second, err := ec2.NewProcesses(config())
	if err != nil {
		t.Fatal(err)
	}
	got, err := second.Instances(t.Context())
	if err != nil || len(got) != 2 || got[0].ID != all[1].ID || got[0].State != ec2.Running || got[1].Slot != 2 || got[1].Gen != 7 || !got[0].LaunchedAt.Equal(all[1].LaunchedAt) {
		t.Fatalf("found %+v, %v, want %+v", got, err, all[1:])
	}
	if again, err := second.Launch(t.Context(), slotRequest(cfg, 1, 7)); err != nil || again.ID != all[1].ID {
		t.Errorf("Launch() with the token of one that was found = %+v, %v", again, err)
	}
	if err := second.Terminate(t.Context(), []string{all[1].ID}); err != nil {
		t.Error(err)
	}
	until(t, second, "one ended", func(is []ec2.Instance) bool { return is[0].State == ec2.Terminated && is[1].State == ec2.Running })
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	until(t, first, "all ended", func(is []ec2.Instance) bool {
		return !slices.ContainsFunc(is, func(i ec2.Instance) bool { return i.State != ec2.Terminated })
	})
	if text := *kept.Load(); string(text) != "[]" {
		t.Errorf("remembered of none that runs: %s", text)
	}

	_ = keep([]byte(`[{"ID":"p-1","PID":1},{"ID":"p-2","PID":` + strconv.Itoa(os.Getpid()) + `}]`)) // never fails
	third, err := ec2.NewProcesses(config())
	if got, _ := third.Instances(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("of numbers that others have: found %+v, %v", got, err)
	}
	_ = keep([]byte("no JSON"))
	if _, err := ec2.NewProcesses(config()); err == nil {
		t.Error("NewProcesses() with what is no memory = nil error")
	}
}

// until waits for what the processes look like.
func until(t *testing.T, p *ec2.Processes, what string, ok func([]ec2.Instance) bool) []ec2.Instance {
	t.Helper()
	for tick, end := time.NewTicker(5*time.Millisecond), time.Now().Add(30*time.Second); ; <-tick.C {
		all, err := p.Instances(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if ok(all) {
			return all
		}
		if time.Now().After(end) {
			t.Fatalf("not %s: %+v", what, all)
		}
	}
}

func pid(t *testing.T, i ec2.Instance) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimPrefix(i.Address, "pid "))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func runs(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestProcesses(t *testing.T) {
	cfg := fleetConfig()
	dir := t.TempDir()
	p := processes(t, script(`echo "$1" >>`+dir+`/names; trap 'exit 0' TERM; while :; do sleep 0.05; done`))
	one, err := p.Launch(t.Context(), slotRequest(cfg, 2, 5))
	if err != nil || one.Slot != 2 || one.Gen != 5 || one.State != ec2.Running || one.Offer != cfg.Offer(2) {
		t.Fatalf("Launch() = %+v, %v", one, err)
	}
	again, err := p.Launch(t.Context(), slotRequest(cfg, 2, 5))
	if err != nil || again.ID != one.ID {
		t.Errorf("the same launch again = %+v, %v, want %s", again, err, one.ID)
	}
	until(t, p, "named", func([]ec2.Instance) bool {
		b, err := os.ReadFile(filepath.Join(dir, "names"))
		return err == nil && string(b) == one.ID+"\n"
	})
	if err := p.Terminate(t.Context(), []string{"p-unknown", one.ID}); err == nil {
		t.Error("Terminate() of a stranger = nil")
	}
	all := until(t, p, "ended", func(all []ec2.Instance) bool { return all[0].State == ec2.Terminated })
	if all[0].Reason != "it was asked to end" || runs(pid(t, one)) {
		t.Errorf("%+v, still there: %v", all[0], runs(pid(t, one)))
	}
	if dead, err := p.Launch(t.Context(), slotRequest(cfg, 2, 5)); err != nil || !dead.State.Dead() {
		t.Errorf("the launch of a dead one again = %+v, %v", dead, err)
	}
}

func TestProcesses_deaf(t *testing.T) {
	dir := t.TempDir()
	p := processes(t, script(`trap '' TERM; : >`+dir+`/up; while :; do sleep 0.05; done`))
	i, err := p.Launch(t.Context(), slotRequest(fleetConfig(), 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	until(t, p, "up", func([]ec2.Instance) bool { _, err := os.Stat(filepath.Join(dir, "up")); return err == nil })
	closed := make(chan error, 1)
	go func() { closed <- p.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		_ = syscall.Kill(-pid(t, i), syscall.SIGKILL) // so that the cleanup ends
		t.Fatal("Close waits for a process that heeds no signal")
	}
	if runs(pid(t, i)) {
		t.Error("a process that heeds no signal outlives Close")
	}
	var no *ec2.Refusal
	if _, err := p.Launch(t.Context(), slotRequest(fleetConfig(), 1, 0)); !errors.As(err, &no) {
		t.Errorf("Launch() after Close = %v", err)
	}
}

func TestProcesses_fail(t *testing.T) {
	p := processes(t, script(`exit 3`))
	if _, err := p.Launch(t.Context(), slotRequest(fleetConfig(), 0, 0)); err != nil {
		t.Fatal(err)
	}
	all := until(t, p, "ended", func(all []ec2.Instance) bool { return all[0].State == ec2.Terminated })
	if all[0].Reason != "exit status 3" {
		t.Errorf("reason %q", all[0].Reason)
	}
	p = processes(t, []string{"/no/such/program"})
	var no *ec2.Refusal
	if _, err := p.Launch(t.Context(), slotRequest(fleetConfig(), 0, 0)); !errors.As(err, &no) || no.Kind != ec2.Wrong {
		t.Errorf("Launch() of no program = %v", err)
	}
	if _, err := ec2.NewProcesses(ec2.ProcessConfig{}); err == nil {
		t.Error("NewProcesses() without a command = nil")
	}
}

// processBacklog has work for some workers, and tells those that drain to end
// by a file, as a node tells a worker by its next answer.
type processBacklog struct {
	p      *ec2.Processes
	dir    string
	wanted int
	now    time.Time
}

func (b *processBacklog) Demand(ctx context.Context) (ec2.Demand, error) {
	d := ec2.Demand{Open: &jobs.Sizes{}, Queued: int64(16 * b.wanted)}
	for range 16 * b.wanted {
		d.Open.Add(1 << 40)
	}
	all, err := b.p.Instances(ctx)
	for _, i := range all {
		if i.State == ec2.Running {
			leases := int(min(d.Queued, 16))
			d.Queued -= int64(leases)
			d.Workers = append(d.Workers, ec2.Worker{Instance: i.ID, Lanes: 16, Rate: 16e6, Leases: leases, Leased: leases > 0, LeasedAt: b.now, SeenAt: b.now})
		}
	}
	return d, err
}

func (b *processBacklog) Order(_ context.Context, o ec2.Orders) error {
	for _, id := range o.Drain {
		if err := os.WriteFile(filepath.Join(b.dir, id), nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// TestProcesses_scheduler has the scheduler start processes for a backlog, and
// end them when it is done, on a clock that goes as fast as it likes.
func TestProcesses_scheduler(t *testing.T) {
	dir := t.TempDir()
	p := processes(t, script(`while [ ! -e "`+dir+`/$1" ]; do sleep 0.02; done`))
	b := &processBacklog{p: p, dir: dir, wanted: 3, now: time.Now()}
	cfg := fleetConfig()
	cfg.Kind = "process"
	s := ec2.New(cfg, ec2.Parts{Cloud: p, Backlog: b})
	step := func() {
		t.Helper()
		if err := s.Step(t.Context(), b.now); err != nil {
			t.Error(err)
		}
		b.now = b.now.Add(20 * time.Second)
	}
	running := func(all []ec2.Instance) int {
		return len(slices.DeleteFunc(all, func(i ec2.Instance) bool { return i.State != ec2.Running }))
	}
	step()
	all := until(t, p, "three", func(all []ec2.Instance) bool { return running(all) == 3 })
	b.wanted = 1
	for range 8 {
		step()
	}
	until(t, p, "one", func(all []ec2.Instance) bool { return running(all) == 1 })
	b.wanted = 0
	for range 8 {
		step()
	}
	until(t, p, "none", func(all []ec2.Instance) bool { return running(all) == 0 })
	for _, i := range all {
		if runs(pid(t, i)) {
			t.Errorf("%s is still there", i.ID)
		}
	}
}
