package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"workmanager/ec2/ec2test"
	"workmanager/web/api"
)

// ec2Hurry is by how much the times of a fleet and of its instances are shorter
// than in earnest.
const ec2Hurry = 10

// ec2Pair is a closed pair with a fleet of instances, which run here.
type ec2Pair struct {
	*closedPair
	guests *guests
}

// asClientOf lets all processes of the test ask that EC2, with keys that are
// worth nothing.
func asClientOf(t *testing.T, endpoint string) {
	for k, v := range map[string]string{
		"AWS_ENDPOINT_URL": endpoint, "AWS_ENDPOINT_URL_EC2": "", "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
		"AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		t.Setenv(k, v)
	}
}

// fakeEC2 serves a fake whose instances have the address that their processes here
// send from, so that nodes look at it as they always do.
func fakeEC2(t *testing.T) (*ec2test.EC2, string) {
	t.Helper()
	fake := ec2test.New(ec2test.Options{
		Zones: map[string]string{"subnet-a": "zone-1", "subnet-b": "zone-2"}, Shutdown: time.Second,
		Address: func(int) string { return "127.0.0.1" },
	})
	s := httptest.NewServer(fake)
	t.Cleanup(s.Close)
	asClientOf(t, s.URL)
	return fake, s.URL
}

// newEC2Pair starts the pair at a fake EC2.
func newEC2Pair(t *testing.T, deaf func(n int) bool, flags ...string) (*ec2Pair, *ec2test.EC2) {
	t.Helper()
	fake, endpoint := fakeEC2(t)
	p := newClosedPair(t, slices.Concat([]string{"--fleet", "ec2", "--cluster", "test", "--ami", "ami-1", "--subnets", "subnet-a=zone-1,subnet-b=zone-2",
		"--types", "c7a.large", "--worker-sg", "sg-1", "--drain-seconds", "5", "--checkpoint-interval", "1s", "--fleet-hurry", fmt.Sprint(ec2Hurry)}, flags)...)
	return &ec2Pair{closedPair: p, guests: startGuests(t, endpoint, ec2Hurry, deaf)}, fake
}

// fleet asks a node as an operator.
func (p *ec2Pair) fleet(n *node) (st api.FleetStatus) {
	p.t.Helper()
	r, err := n.tlsAsk("GET", "/v1/fleet", "", p.made.Tokens["operator"])
	if err == nil {
		err = json.Unmarshal(r.body, &st)
	}
	if err != nil {
		p.t.Fatalf("fleet of %s: %v", n.name, err)
	}
	return st
}

// working waits until so many instances hold leases, and returns them. Those
// that another node launched have no slot here until this one has looked.
func (p *ec2Pair) working(n int) (is []api.Instance) {
	p.t.Helper()
	poll(p.t, 3*time.Minute, fmt.Sprintf("%d instances are at work", n), func() string {
		is = slices.DeleteFunc(p.fleet(p.a).Instances, func(i api.Instance) bool { return i.State != "working" || i.Slot < 0 })
		if len(is) == n {
			return ""
		}
		return fmt.Sprintf("%+v", p.fleet(p.a))
	})
	return is
}

// submit enqueues a job at a node, perhaps with more parameters, and returns its ID.
func (p *ec2Pair) submit(n *node, data string, iterations uint64, more ...string) string {
	p.t.Helper()
	r, err := n.tlsAsk("PUT", fmt.Sprintf("/enqueue?iterations=%d%s", iterations, strings.Join(more, "")), data, p.made.Tokens["client"])
	if err != nil || r.status != http.StatusOK {
		p.t.Fatalf("enqueue: %v, %v", r, err)
	}
	var w api.WorkID
	decode(p.t, r, &w)
	return w.ID
}

// submitAll enqueues the lines of a batch, so many, and returns their IDs.
func (p *ec2Pair) submitAll(n *node, lines string, count int) (ids []string) {
	p.t.Helper()
	r, err := n.tlsAsk("POST", "/v1/jobs/batch", lines, p.made.Tokens["client"])
	if err != nil || r.status != http.StatusOK {
		p.t.Fatalf("batch: %v, %v", r, err)
	}
	for text := range strings.Lines(string(r.body)) {
		var l api.BatchLine
		if err := json.Unmarshal([]byte(text), &l); err != nil || l.Error != nil {
			p.t.Fatalf("batch: %v: %s", err, text)
		}
		ids = append(ids, l.ID)
	}
	if len(ids) != count {
		p.t.Fatalf("batch: %d lines answered, want %d", len(ids), count)
	}
	return ids
}

func (p *ec2Pair) job(n *node, id string) (j api.Job) {
	p.t.Helper()
	r, err := n.tlsAsk("GET", "/v1/jobs/"+id, "", p.made.Tokens["client"])
	if err == nil {
		err = json.Unmarshal(r.body, &j)
	}
	if err != nil {
		p.t.Fatalf("job %s at %s: %v", id, n.name, err)
	}
	return j
}

// completed waits until a node has the right value of a job.
func (p *ec2Pair) completed(n *node, id, value string) {
	p.t.Helper()
	poll(p.t, 3*time.Minute, "job "+id+" is computed", func() string {
		j := p.job(n, id)
		if j.State != "completed" {
			return fmt.Sprintf("%+v", j)
		}
		if j.Value != value {
			p.t.Fatalf("%s: job %s has the value %s, want %s", n.name, id, j.Value, value)
		}
		return ""
	})
}

func (p *ec2Pair) cancel(ids []string) {
	p.t.Helper()
	for _, id := range ids {
		if r, err := p.a.tlsAsk("DELETE", "/v1/jobs/"+id, "", p.made.Tokens["client"]); err != nil || r.status != http.StatusOK {
			p.t.Fatalf("cancel %s: %v, %v", id, r, err)
		}
	}
}

// left waits until no instance is left, and no process of one.
func (p *ec2Pair) left() {
	p.t.Helper()
	poll(p.t, 3*time.Minute, "all instances are gone", p.guests.gone)
}

// TestFleetEC2: with a backlog instances are launched and boot from what the
// nodes give them, with nothing but what they are to be let in by; what they
// compute is right at either node; without work they power themselves off.
func TestFleetEC2(t *testing.T) {
	fleetAtLength(t)
	p, fake := newEC2Pair(t, nil, "--max-workers", "2")
	// All at once: an instance that has done the short ones before the others are
	// there is one too many.
	var batch strings.Builder
	const short, endlessly = 24, 48 // more than the lanes of one
	for i := range short {
		batch.WriteString(line(fmt.Sprintf("%s/%d", t.Name(), i), 200_000))
	}
	for i := range endlessly {
		batch.WriteString(line(fmt.Sprintf("a chain without an end %d", i), endless))
	}
	ids := p.submitAll(p.a, batch.String(), short+endlessly)
	want, long := map[string]string{}, ids[short:]
	for i, id := range ids[:short] {
		want[id] = chain(fmt.Sprintf("%s/%d", t.Name(), i), 200_000)
	}
	for _, i := range p.working(2) {
		if i.Type != "c7a.large" || !strings.HasPrefix(i.Zone, "zone-") || i.Address != "127.0.0.1" || i.Lanes == 0 {
			t.Errorf("the fleet shows %+v", i)
		}
	}
	for id, value := range want {
		p.completed(p.b, id, value)
	}
	p.cancel(long)
	p.left()
	for _, i := range fake.All() {
		if i.UserData == "" || !i.ShutdownTerminates || i.Tags["workmanager:cluster"] != "test" || i.Alive() {
			t.Errorf("instance %+v", i)
		}
	}
	if n := len(fake.All()); n != 2 {
		t.Errorf("%d instances were launched, want 2", n)
	}
	for _, x := range p.guests.all() {
		if calls := x.read("calls"); !strings.Contains(calls, "workmanager-worker.service ended with 0") || !strings.Contains(calls, "poweroff") {
			t.Errorf("guest %s did:\n%s", x.id, calls)
		}
	}
	for _, n := range []*node{p.a, p.b} {
		n.stop()
	}
}

// TestFleetEC2_loses_instances: one that fails and one that Spot takes back are
// replaced, and what they computed goes on elsewhere.
func TestFleetEC2_loses_instances(t *testing.T) {
	fleetAtLength(t)
	p, fake := newEC2Pair(t, nil, "--max-workers", "2")
	var long []string
	for i := range 48 {
		long = append(long, p.submit(p.a, fmt.Sprintf("a chain without an end %d", i), endless))
	}
	before := p.working(2)

	failed := before[0].ID
	p.guests.of(failed).kill()
	after := p.replaced(failed)

	taken := after[0].ID
	x := p.guests.of(taken)
	x.interrupt()
	p.replaced(taken)
	poll(t, time.Minute, "the interrupted worker has ended by itself", func() string {
		if log := x.read("calls") + x.read("log"); !strings.Contains(log, "workmanager-worker.service ended with 0") || !strings.Contains(log, "Spot notice") {
			return log
		}
		return ""
	})
	p.cancel(long)
	p.left()
	if n := len(fake.All()); n < 4 {
		t.Errorf("%d instances were launched, want 4", n)
	}
}

// replaced waits until two instances are at work, and that one is none of them.
func (p *ec2Pair) replaced(id string) (is []api.Instance) {
	p.t.Helper()
	poll(p.t, 3*time.Minute, id+" is replaced", func() string {
		is = p.working(2)
		if slices.ContainsFunc(is, func(i api.Instance) bool { return i.ID == id }) {
			return id + " is at work"
		}
		return ""
	})
	return is
}
