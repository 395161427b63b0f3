package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"workmanager/web/api"
)

const (
	// endless is a chain that no test sees the end of.
	endless = 1_000_000_000_000
	// workerGone is how long the jobs of a dead worker may stand still.
	workerGone = 10 * time.Second
	// heartbeat is how often a worker says how far it is.
	heartbeat = 2 * time.Second
)

// workerProcess is a run of workmanager worker.
type workerProcess struct{ *process }

// work starts a worker on one core for the nodes, and waits until one of them
// has heard of it.
func work(t testing.TB, name string, nodes []*half, flags ...string) *workerProcess {
	t.Helper()
	argv := []string{binary, "worker", "--name", name, "--cores", "1", "--log-format", "text"}
	for _, n := range nodes {
		argv = append(argv, "--node", n.url(""))
	}
	before := instances(nodes, name)
	w := &workerProcess{launch(t, "worker "+name, append(argv, flags...)...)}
	poll(t, upTimeout, "worker "+name+" is seen", func() string {
		if !w.running() {
			t.Fatalf("worker %s ended at its start, exit code %d: %s", name, w.code, tail(w.log.String(), 2000))
		}
		for i := range instances(nodes, name) {
			if !before[i] {
				return ""
			}
		}
		return fmt.Sprint(before)
	})
	return w
}

// instances returns which of that name the nodes see: one that calls at both is
// one.
func instances(nodes []*half, name string) map[string]bool {
	found := map[string]bool{}
	for _, w := range workersOf(nodes, name) {
		found[w.Instance] = true
	}
	return found
}

// workersOf returns the workers of that name that the nodes see.
func workersOf(nodes []*half, name string) (found []api.WorkerStatus) {
	for _, n := range nodes {
		if !n.running() {
			continue
		}
		for _, w := range n.status().WorkerList {
			if w.Name == name {
				found = append(found, w)
			}
		}
	}
	return found
}

// progress waits until a job is at a worker of that name and further than done.
func (n *node) progress(d time.Duration, id, worker string, done uint64) (j api.Job) {
	n.t.Helper()
	poll(n.t, d, fmt.Sprintf("job %s is at %s and beyond %d iterations", id, worker, done), func() string {
		if j = n.job(id); j.State != "leased" || !strings.HasPrefix(j.Worker, worker+"/") || j.Done <= done {
			return fmt.Sprintf("%s at %q, %d done", j.State, j.Worker, j.Done)
		}
		return ""
	})
	return j
}

// once waits until the jobs, by ID, have ended and then holds that both nodes
// have the right value of each, and have each result once.
func (p *pair) once(want map[string]order) {
	p.t.Helper()
	for _, n := range p.halves() {
		n.idle(convergeTimeout)
		list, _ := n.results("")
		times := map[string]int{}
		for _, r := range list {
			times[r.ID]++
			if o, ok := want[r.ID]; ok && r.Value != o.value() {
				p.t.Errorf("node %s: job %s: got value %s, want %s", n.label, r.ID, r.Value, o.value())
			}
		}
		for id := range want {
			if times[id] != 1 {
				p.t.Errorf("node %s: job %s stands %d times in the results, want once: %+v", n.label, id, times[id], n.job(id))
			}
		}
		if st := n.status(); st.Alarms != 0 || st.Failed != 0 {
			p.t.Errorf("node %s: %d alarms, %d failed jobs, want none", n.label, st.Alarms, st.Failed)
		}
	}
}

// orders submits k jobs in turn to the nodes.
func (p *pair) orders(k int, iterations uint64) map[string]order {
	p.t.Helper()
	want := map[string]order{}
	for i := range k {
		o := order{name: fmt.Sprintf("%s/%d", p.t.Name(), i), iterations: iterations}
		want[p.halves()[i%2].enqueue(o.name, o.iterations)] = o
	}
	return want
}

func TestWorker_killed(t *testing.T) {
	p := newPair(t, "--workers", "0")
	w1 := work(t, "w1", p.halves())
	id := p.a.enqueue("a chain without an end", endless)
	p.a.progress(10*time.Second, id, "w1", 1)
	w2 := work(t, "w2", p.halves())
	before := p.a.progress(2*heartbeat, id, "w1", p.a.job(id).Done) // a heartbeat has just come
	w1.signal(syscall.SIGKILL)
	killed := time.Now()
	var after api.Job
	poll(t, workerGone*slack(), "the job is at w2", func() string {
		if after = p.b.job(id); !strings.HasPrefix(after.Worker, "w2/") { // the other node says so too
			return fmt.Sprintf("%s at %q", after.State, after.Worker)
		}
		return ""
	})
	if took := time.Since(killed); took > workerGone {
		t.Errorf("the job was at another worker %v after the last heartbeat, want within %v", took, workerGone)
	} else {
		t.Logf("the job was at another worker %v after the last heartbeat", took)
	}
	if after.Done < before.Done {
		t.Errorf("the job goes on from %d iterations, %d were reported: more than a heartbeat's worth is done again", after.Done, before.Done)
	}
	p.a.progress(2*heartbeat, id, "w2", before.Done)
	w2.signal(syscall.SIGTERM)
	w2.wait(2 * time.Second * slack())
}

func TestWorker_frozen(t *testing.T) {
	p := newPair(t, "--workers", "0")
	w1 := work(t, "w1", p.halves())
	want := p.orders(20, 300_000)
	id := p.a.enqueue("a chain without an end", endless)
	poll(t, 20*time.Second, "w1 has jobs", func() string {
		if p.a.status().Leased+p.b.status().Leased == 0 {
			return "none"
		}
		return ""
	})
	p.a.progress(20*time.Second, id, "w1", 1)
	w1.signal(syscall.SIGSTOP)
	w2 := work(t, "w2", p.halves())
	before := p.a.progress(workerGone*slack(), id, "w2", 1)
	w1.signal(syscall.SIGCONT)
	p.a.progress(3*heartbeat, id, "w2", before.Done) // and stays there
	p.a.cancel(id)
	p.once(want)
	for _, w := range []*workerProcess{w1, w2} {
		w.signal(syscall.SIGTERM)
		if code := w.wait(2 * time.Second * slack()); code != 0 {
			t.Errorf("%s: exit code %d, want 0", w.name, code)
		}
	}
}

// A worker that was frozen while nobody took its jobs goes on with them, and
// what it had reached counts.
func TestWorker_frozen_alone(t *testing.T) {
	p := newPair(t, "--workers", "0")
	w := work(t, "w1", p.halves())
	id := p.a.enqueue("a chain without an end", endless)
	before := p.a.progress(10*time.Second, id, "w1", 1)
	w.signal(syscall.SIGSTOP)
	poll(t, workerGone*slack(), "the lease is over", func() string { return strings.TrimPrefix(p.a.job(id).State, "queued") })
	w.signal(syscall.SIGCONT)
	after := p.a.progress(2*heartbeat*slack(), id, "w1", before.Done)
	t.Logf("%d iterations reported before, %d after", before.Done, after.Done)
	p.a.cancel(id)
	poll(t, 2*heartbeat*slack(), "the worker is told that the job was cancelled", func() string {
		for _, w := range workersOf(p.halves(), "w1") { // it may have called at both
			if w.Leases != 0 {
				return fmt.Sprintf("%+v", w)
			}
		}
		return ""
	})
}

func TestWorker_one_node_killed(t *testing.T) {
	p := newPair(t, "--workers", "0")
	work(t, "w1", []*half{p.a}) // it learns of b
	id := p.a.enqueue("a chain without an end", endless)
	want := p.orders(4, 100_000)
	before := p.a.progress(10*time.Second, id, "w1", 1)
	p.a.kill()
	after := p.b.progress(5*heartbeat, id, "w1", before.Done)
	if j := p.b.job(id); j.Node != "b" {
		t.Errorf("the job is at home at %s, want b", j.Node)
	}
	p.b.progress(3*heartbeat, id, "w1", after.Done)
	p.a.up()
	p.inStep()
	p.a.progress(3*heartbeat, id, "w1", after.Done) // a asks b
	p.b.cancel(id)
	p.once(want)
}

func TestWorker_both_nodes_killed(t *testing.T) {
	p := newPair(t, "--workers", "0")
	w := work(t, "w1", p.halves())
	id := p.a.enqueue("a chain without an end", endless)
	before := p.a.progress(10*time.Second, id, "w1", 1)
	want := p.orders(6, 300_000)
	before = p.a.progress(2*heartbeat*slack(), id, "w1", before.Done)
	poll(t, 10*time.Second, "w1 has all jobs", func() string {
		if st := p.a.status(); st.Jobs != 0 {
			return fmt.Sprint(st.Jobs, " wait")
		}
		return ""
	})
	p.a.kill()
	p.b.kill()
	pause(3 * time.Second) // it goes on with what it has
	if !w.running() {
		t.Fatalf("the worker has ended, exit code %d", w.code)
	}
	p.a.up()
	p.b.up()
	// The first that a node hears has all that was done meanwhile.
	after := p.a.progress(15*time.Second, id, "w1", 1)
	if float64(after.Done) < float64(before.Done)+before.Rate/2 {
		t.Errorf("%d iterations reported before, %d after three seconds without a node, want work done meanwhile at %.0f a second", before.Done, after.Done, before.Rate)
	}
	p.a.cancel(id)
	p.once(want)
}

func TestWorker_drain(t *testing.T) {
	p := newPair(t, "--workers", "0")
	w := work(t, "w1", p.halves())
	id := p.a.enqueue("a chain without an end", endless)
	before := p.b.progress(10*time.Second, id, "w1", 1)
	w.signal(syscall.SIGTERM)
	begin := time.Now()
	if code := w.wait(downTimeout); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("ended %v after SIGTERM, want within 2 s", took)
	} else {
		t.Logf("ended %v after SIGTERM", took)
	}
	if j := p.a.job(id); j.State != "queued" || j.Done <= before.Done {
		t.Errorf("the job is %s at %d iterations, want queued beyond %d", j.State, j.Done, before.Done)
	}
	// What was handed back is on the disks.
	done := p.a.job(id).Done
	p.a.kill()
	p.a.up()
	if j := p.a.job(id); j.Done != done {
		t.Errorf("the job is at %d iterations after a crash of its home, want %d", j.Done, done)
	}

	lost := launch(t, "a worker without a node", binary, "worker", "--node", "127.0.0.1:1", "--cutoff-timeout", "500ms", "--cores", "1")
	if code := lost.wait(downTimeout); code != 5 || !strings.Contains(lost.log.String(), "no node reachable") {
		t.Errorf("a worker without a node: exit code %d, %s, want 5", code, lost.log.String())
	}
	p.a.cancel(id)
	idle := launch(t, "an idle worker", binary, "worker", "--node", p.b.url(""), "--idle-timeout", "300ms", "--cores", "1")
	if code := idle.wait(downTimeout); code != 0 {
		t.Errorf("an idle worker: exit code %d, want 0", code)
	}
}

// The notice that a Spot instance is taken away ends its worker as SIGTERM does.
func TestWorker_spot_notice(t *testing.T) {
	n := start(t, t.TempDir(), nil, "--workers", "0")
	var notice atomic.Bool
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut:
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
			fmt.Fprint(w, "a token")
		case r.URL.Path == "/latest/meta-data/instance-id":
			fmt.Fprint(w, "i-0123456789abcdef0")
		case r.URL.Path == "/latest/meta-data/spot/instance-action" && notice.Load():
			fmt.Fprint(w, `{"action":"terminate","time":"2026-11-26T08:22:00Z"}`)
		default:
			http.NotFound(w, r)
		}
	}))
	defer metadata.Close()
	w := launchBy(t, func(c *exec.Cmd) error {
		c.Env = append(c.Env, "AWS_EC2_METADATA_SERVICE_ENDPOINT="+metadata.URL)
		return c.Start()
	}, "worker", binary, "worker", "--name", "w1", "--cores", "1", "--node", n.url(""), "--log-format", "text")
	id := n.enqueue("a chain without an end", endless)
	before := n.progress(15*time.Second, id, "w1", 1)
	notice.Store(true)
	if code := w.wait(10 * time.Second); code != 0 {
		t.Errorf("exit code %d after a notice, want 0", code)
	}
	if !strings.Contains(w.log.String(), "Spot notice") {
		t.Errorf("its log does not say why: %s", w.log.String())
	}
	if j := n.job(id); j.State != "queued" || j.Done <= before.Done {
		t.Errorf("the job is %s at %d iterations, want queued beyond %d", j.State, j.Done, before.Done)
	}
}

func TestWorker_two_of_one_name(t *testing.T) {
	p := newPair(t, "--workers", "0")
	w1 := work(t, "twin", p.halves())
	work(t, "twin", p.halves())
	want := p.orders(40, 100_000)
	first, second := p.a.enqueue("one chain without an end", endless), p.b.enqueue("another chain without an end", endless)
	at := map[string]bool{p.a.progress(10*time.Second, first, "twin", 1).Worker: true, p.b.progress(10*time.Second, second, "twin", 1).Worker: true}
	poll(t, upTimeout, "status shows two instances, and what they compute with", func() string {
		seen := map[string]bool{}
		for _, w := range workersOf(p.halves(), "twin") {
			if w.Kernel == "" || w.Version == "" || w.Lanes < 1 || w.Cores != 1 {
				t.Fatalf("status shows %+v, want what it computes with", w)
			}
			if w.Rate > 0 { // it has computed
				seen[w.Instance] = true
			}
		}
		if len(seen) != 2 {
			return fmt.Sprint(seen)
		}
		return ""
	})
	w1.signal(syscall.SIGTERM)
	w1.wait(downTimeout)
	for _, id := range []string{first, second} { // the other has both then
		j := p.a.progress(workerGone, id, "twin", 1)
		at[j.Worker] = true
	}
	if len(at) > 2 {
		t.Errorf("jobs were at %v, want two workers", at)
	}
	p.a.cancel(first)
	p.a.cancel(second)
	p.once(want)
}

// A worker that lies is not believed where that can be told, and what it keeps
// from others it does not keep for long.
func TestWorker_lies(t *testing.T) {
	p := newPair(t, "--workers", "0")
	liar := `"worker":{"name":"liar","instance":"0","cores":1}`
	o := order{name: "wanted", iterations: 50_000}
	id := p.a.enqueue(o.name, o.iterations)
	r := p.a.must(http.StatusOK, "POST", "/worker/lease", strings.NewReader(`{`+liar+`,"jobs":10,"iterations":1000000,"wait":5}`), "Content-Type", "application/json")
	var got api.LeaseReply
	if err := json.Unmarshal(r.body, &got); err != nil || len(got.Leases) != 1 || got.Leases[0].ID != id || got.TTL > 8 || got.TTL < 5 {
		t.Fatalf("%v, %+v, want a lease of job %s", err, got, id)
	}
	l := got.Leases[0]
	say := func(status int, kind string, done uint64, value string) reply {
		t.Helper()
		return p.a.must(status, "POST", "/worker/report", strings.NewReader(fmt.Sprintf(
			`{%s,"reports":[{"id":"%s","boot":"%s","fence":%d,"v1":"%s","iterations":%d,"kind":"%s","done":%d,"value":"%s"}]}`,
			liar, l.ID, l.Boot, l.Fence, l.V1, l.Iterations, kind, done, value)), "Content-Type", "application/json")
	}
	say(http.StatusUnprocessableEntity, "progress", o.iterations+1, l.V1)
	say(http.StatusUnprocessableEntity, "value", o.iterations-1, l.V1)
	say(http.StatusUnprocessableEntity, "progress", 100, l.V1[:126])
	say(http.StatusOK, "progress", o.iterations, l.V1) // an end that is no value
	if j := p.a.job(id); j.Done != 1 {
		t.Errorf("%d iterations are believed, want 1", j.Done)
	}
	say(http.StatusOK, "progress", 20, chain(o.name, 20))
	say(http.StatusOK, "progress", 10, l.V1)
	if j := p.a.job(id); j.Done != 20 || !strings.HasPrefix(j.Worker, "liar/") {
		t.Errorf("the job is at %d iterations at %q, want 20 at the liar", j.Done, j.Worker)
	}
	begin := time.Now()
	work(t, "w1", p.halves())
	p.once(map[string]order{id: o})
	if took := time.Since(begin); took > workerGone {
		t.Errorf("the job had its value %v after the last word of the worker that lied, want within %v", took, workerGone)
	}
}

// cancel withdraws a job.
func (n *node) cancel(id string) {
	n.t.Helper()
	n.must(http.StatusOK, "DELETE", "/v1/jobs/"+id, nil)
}
