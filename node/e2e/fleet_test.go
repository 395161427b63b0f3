package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"workmanager/web/api"
)

// fleetNode is a node whose fleet is processes, which outlive it when it is
// killed: those that were seen end with the test.
type fleetNode struct {
	*node
	flags []string

	mu   sync.Mutex // guards seen
	seen map[string]int
}

func newFleetNode(t *testing.T, flags ...string) *fleetNode {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("which processes run is read from /proc")
	}
	f := &fleetNode{node: &node{dir: t.TempDir(), addr: freeAddr(t), http: &http.Client{}}, flags: flags, seen: map[string]int{}}
	t.Cleanup(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for id, pid := range f.seen {
			if computes(id, pid) {
				_ = syscall.Kill(-pid, syscall.SIGKILL) // it may have ended
			}
		}
	})
	f.up(t)
	return f
}

// up starts the node, again where it was.
func (f *fleetNode) up(t *testing.T) {
	t.Helper()
	argv := append([]string{binary, "node", "--listen", f.addr, "--gossip", "", "--data-dir", f.dir, "--log-format", "text", "--fleet", "process"}, f.flags...)
	f.process = launch(t, fmt.Sprintf("node %d", starts.Add(1)), argv...)
	if f.serves() {
		t.Fatalf("%s is taken", f.addr)
	}
}

// computes reports whether the process of an instance runs.
func computes(id string, pid int) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && bytes.Contains(line, []byte(id))
}

// fleet asks the command line what there is, as an operator does.
func (f *fleetNode) fleet() (out api.FleetStatus) {
	f.t.Helper()
	if err := json.Unmarshal([]byte(f.cli("fleet", "ls", "-o", "json")), &out); err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range out.Instances {
		if pid, err := strconv.Atoi(strings.TrimPrefix(i.Address, "pid ")); err == nil {
			f.seen[i.ID] = pid
		}
	}
	return out
}

// cli runs a command of the program at the node and returns what it prints.
func (f *fleetNode) cli(args ...string) string {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append(args, "--node", f.url(""))...)
	cmd.Env = environment()
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		f.t.Fatalf("workmanager %s: %v: %s", strings.Join(args, " "), err, problem.String())
	}
	return string(out)
}

// state waits until the instances are so.
func (f *fleetNode) state(d time.Duration, what string, ok func(is []api.Instance) bool) (is []api.Instance) {
	f.t.Helper()
	poll(f.t, d, what, func() string {
		if is = f.fleet().Instances; ok(is) {
			return ""
		}
		return fmt.Sprintf("%+v", is)
	})
	return is
}

// working returns the IDs of those that hold a lease.
func working(is []api.Instance) (ids []string) {
	for _, i := range is {
		if i.State == "working" {
			ids = append(ids, i.ID)
		}
	}
	return ids
}

// alive returns those of the processes ever seen that run.
func (f *fleetNode) alive() (ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, pid := range f.seen {
		if computes(id, pid) {
			ids = append(ids, id)
		}
	}
	return ids
}

// TestFleet_processes is the demonstration of the README: workers come with a
// backlog, are drained, outlive a node that is killed and are found again, and
// go when there is no work. Those of a node that stays dead end by themselves.
func TestFleet_processes(t *testing.T) {
	fleetAtLength(t)
	left := newFleetNode(t, "--max-workers", "1", "--min-workers", "1")
	left.state(30*time.Second, "a worker of --min-workers is there", func(is []api.Instance) bool { return len(is) == 1 && is[0].State == "idle" })
	left.kill()
	deadAt := time.Now()

	f := newFleetNode(t, "--max-workers", "3", "--drain-seconds", "2", "--checkpoint-interval", "1s")
	if is := f.fleet().Instances; len(is) != 0 {
		t.Errorf("with no work there are %+v", is)
	}
	want := map[string]order{}
	for i := range 24 {
		o := order{name: fmt.Sprintf("%s/%d", t.Name(), i), iterations: 200_000}
		want[f.enqueue(o.name, o.iterations)] = o
	}
	var long []string
	for i := range 24 { // more than the lanes of two workers
		long = append(long, f.enqueue(fmt.Sprintf("a chain without an end %d", i), endless))
	}
	is := f.state(40*time.Second, "three workers are at work", func(is []api.Instance) bool { return len(working(is)) == 3 })
	for id, o := range want {
		f.completed(id, o.value())
	}

	// One is drained: it hands back and is gone, and its work goes on elsewhere.
	first := is[0]
	f.cli("fleet", "drain", first.ID)
	f.state(20*time.Second, "the drained worker is gone", func(is []api.Instance) bool {
		return len(is) == 0 || is[0].ID != first.ID
	})
	if said := f.cli("fleet", "explain", "-o", "table"); !strings.Contains(said, "drain "+first.ID+": an operator asked for it") || !strings.Contains(said, "launch") {
		t.Errorf("fleet explain says nothing of it:\n%s", said)
	}
	if computes(first.ID, f.seen[first.ID]) {
		t.Error("its process runs")
	}
	if n := f.status().Fleet; n.Kind != "process" || n.PricePerHour != nil || len(n.Decisions) == 0 {
		t.Errorf("the status has a fleet of %+v", n)
	}
	before := f.state(20*time.Second, "another has come in its place", func(is []api.Instance) bool { return len(working(is)) == 3 })
	done := map[string]uint64{}
	for _, id := range long {
		done[id] = f.job(id).Done
	}

	// The node is killed: its workers go on, and it finds them again.
	f.kill()
	if n := len(f.alive()); n != 3 {
		t.Errorf("%d processes are left of a killed node, want 3", n)
	}
	f.up(t)
	after := f.state(30*time.Second, "the same three are at work", func(is []api.Instance) bool { return len(working(is)) == 3 })
	for i := range after {
		if after[i].ID != before[i].ID || after[i].Address != before[i].Address {
			t.Errorf("found %+v, want %+v", after[i], before[i])
		}
	}
	for _, id := range long {
		if now := f.job(id); now.State == "leased" && now.Done+1 < done[id]/2 {
			t.Errorf("job %s is at %d iterations, was at %d", id, now.Done, done[id])
		}
	}

	// No work, no workers.
	for _, id := range long {
		f.must(http.StatusOK, "DELETE", "/v1/jobs/"+id, nil)
	}
	poll(t, 60*time.Second, "all workers are gone", func() string {
		return strings.Join(append(f.alive(), working(f.fleet().Instances)...), " ")
	})
	f.fleet()
	f.stop()
	poll(t, time.Until(deadAt.Add(70*time.Second)), "the worker of the node that stayed dead is gone", func() string { return strings.Join(left.alive(), " ") })
}

// TestFleet_processes_of_a_closed_node: a worker is let in by what its node gives
// it, which no other user can see, and ends when the node stops.
func TestFleet_processes_of_a_closed_node(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	made := initKeys(t, dir)
	f := newFleetNode(t)
	f.stop()
	f.flags, f.http = []string{"--keys", filepath.Join(dir, "a"), "--max-workers", "1", "--min-workers", "1"}, secure(t, dir)
	f.dir = t.TempDir()
	f.process = launch(t, "closed node", append([]string{binary, "node", "--listen", f.addr, "--gossip", "", "--data-dir", f.dir, "--log-format", "text", "--fleet", "process"}, f.flags...)...)
	poll(t, upTimeout, "it serves", func() string { return f.answers("", "GET", "/readyz", 200) })

	r, err := f.tlsAsk("PUT", "/enqueue?iterations=1000", "some data", made.Tokens["client"])
	if err != nil || r.status != http.StatusOK {
		t.Fatalf("enqueue: %v, %v", r, err)
	}
	var w api.WorkID
	decode(t, r, &w)
	poll(t, 30*time.Second, "the job is computed", func() string {
		r, err := f.tlsAsk("GET", "/v1/jobs/"+w.ID, "", made.Tokens["client"])
		var j api.Job
		if err != nil || json.Unmarshal(r.body, &j) != nil || j.State != "completed" {
			return fmt.Sprint(r, err)
		}
		if want := chain("some data", 1000); j.Value != want {
			t.Errorf("value %s, want %s", j.Value, want)
		}
		return ""
	})
	var fleet api.FleetStatus
	r, err = f.tlsAsk("GET", "/v1/fleet", "", made.Tokens["operator"])
	if err != nil || json.Unmarshal(r.body, &fleet) != nil || len(fleet.Instances) != 1 {
		t.Fatalf("fleet: %v, %v", r, err)
	}
	pid, err := strconv.Atoi(strings.TrimPrefix(fleet.Instances[0].Address, "pid "))
	if err != nil {
		t.Fatal(err)
	}
	f.seen[fleet.Instances[0].ID] = pid
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		t.Fatal(err)
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, pass, _ := strings.Cut(string(env), "WORKMANAGER_TOKEN=")
	pass, _, _ = strings.Cut(pass, "\x00")
	if pass == "" || strings.Contains(string(line), pass) || strings.Contains(f.log.String(), pass) {
		t.Errorf("its pass has %d characters, and is in its arguments or in the log", len(pass))
	}
	f.signal(syscall.SIGTERM)
	if code := f.wait(10 * time.Second); code != 0 {
		t.Errorf("the node ended with exit code %d", code)
	}
	if left := f.alive(); len(left) > 0 {
		t.Errorf("workers %v outlive a node that was stopped", left)
	}
}

// fleetAtLength skips a test that waits for workers to come and go: all of them stay
// within the ten minutes that a package has, and scripts/check runs them.
func fleetAtLength(t *testing.T) {
	t.Helper()
	if os.Getenv("WORKMANAGER_E2E_FLEET") == "" {
		t.Skip("SKIPPED: takes a minute, WORKMANAGER_E2E_FLEET=1 runs it, as scripts/check does")
	}
}
