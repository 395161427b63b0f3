package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"workmanager/ec2/ec2test"
	"workmanager/web/api"
)

// instanceHurry divides the times of the fleet's policy and of its guests: ten
// minutes are 20 s.
const instanceHurry = 30

// instanceFleet is a closed pair with a fleet of EC2, whose instances are guests.
type instanceFleet struct {
	t      *testing.T
	dir    string // of the keys
	tokens map[string]string
	a, b   *node
	guests *guests
}

// awsEnv is what a node needs to ask whoever is at the endpoint.
func awsEnv(t *testing.T, endpoint string) {
	t.Helper()
	for k, v := range map[string]string{
		"AWS_ENDPOINT_URL_EC2": endpoint, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
		"AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		t.Setenv(k, v)
	}
}

// fakeEC2 serves a fake whose instances are on loopback, as their guests are: so
// nodes look at their addresses as they always do.
func fakeEC2(t *testing.T) (*ec2test.EC2, string) {
	t.Helper()
	fake := ec2test.New(ec2test.Options{Shutdown: time.Second, Address: func(int) string { return "127.0.0.1" }, Zones: map[string]string{"subnet-a": "zone-a", "subnet-b": "zone-b"}})
	s := httptest.NewServer(fake)
	t.Cleanup(s.Close)
	return fake, s.URL
}

// otherBuild is a program that does the same and has another sum.
func otherBuild(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "workmanager")
	if err := os.WriteFile(name, append(b, 'x'), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// start runs a node of the pair.
func (f *instanceFleet) start(program, name, addr string, flags ...string) *node {
	f.t.Helper()
	argv := append([]string{
		program, "node", "--keys", filepath.Join(f.dir, name), "--listen", addr, "--data-dir", filepath.Join(f.t.TempDir(), name),
		"--workers", "0", "--audit-rate", "0", "--log-format", "text",
	}, flags...)
	n := &node{process: launch(f.t, "node "+name, argv...), addr: addr, http: secure(f.t, f.dir)}
	poll(f.t, upTimeout, n.name+" serves", func() string {
		if !n.running() {
			f.t.Fatalf("%s ended at its start: %s", n.name, n.log.String())
		}
		return n.answers("", "GET", "/readyz", 200)
	})
	return n
}

// newInstanceFleet starts a pair. The first node that instances are told of is b,
// which runs another build: they must go on to a.
func newInstanceFleet(t *testing.T, endpoint string, flags ...string) *instanceFleet {
	t.Helper()
	awsEnv(t, endpoint)
	f := &instanceFleet{t: t, dir: filepath.Join(t.TempDir(), "keys")}
	p := command(t, "init", "--out", f.dir, "--node", "a=127.0.0.1", "--node", "b=127.0.0.1", "-o", "json")
	var made keysMade
	if err := json.Unmarshal([]byte(p.out.String()), &made); p.code != 0 || err != nil {
		t.Fatalf("init: exit code %d, %v: %s", p.code, err, p.log.String())
	}
	f.tokens = made.Tokens
	at, gossip := []string{freeAddr(t), freeAddr(t)}, []string{freeAddr(t), freeAddr(t)}
	flags = append([]string{
		"--cluster", "e2e", "--fleet", "ec2", "--fleet-hurry", fmt.Sprint(instanceHurry), "--max-launches-per-hour", "100",
		"--worker-node", "https://" + at[1], "--worker-node", "https://" + at[0],
	}, flags...)
	f.a = f.start(binary, "a", at[0], append(flags, "--gossip", gossip[0], "--join", gossip[1])...)
	f.b = f.start(otherBuild(t), "b", at[1], append(flags, "--gossip", gossip[1], "--join", gossip[0])...)
	poll(t, syncTimeout, "the pair is in step", func() string {
		r, err := f.a.tlsAsk("PUT", "/enqueue?iterations=1&ack=both", "first", f.tokens["client"])
		if err == nil && r.status != http.StatusOK {
			return r.String()
		}
		return problemOf(err)
	})
	return f
}

func problemOf(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

// enqueue submits a job to node a.
func (f *instanceFleet) enqueue(data string, iterations uint64) (id string) {
	f.t.Helper()
	r, err := f.a.tlsAsk("PUT", fmt.Sprintf("/enqueue?iterations=%d", iterations), data, f.tokens["client"])
	var w api.WorkID
	if err == nil && r.status == http.StatusOK {
		err = json.Unmarshal(r.body, &w)
	}
	if err != nil || w.ID == "" {
		f.t.Fatalf("enqueue: %v, %v", r, err)
	}
	return w.ID
}

// pulled returns the values that node b hands out.
func (f *instanceFleet) pulled() (map[string]string, error) {
	r, err := f.b.tlsAsk("POST", "/pullCompleted?top=1000", "", f.tokens["client"])
	if err != nil {
		return nil, err
	}
	var list []api.PulledResult
	if err := json.Unmarshal(r.body, &list); err != nil {
		return nil, fmt.Errorf("%v: %w", r, err)
	}
	out := map[string]string{}
	for _, x := range list {
		out[x.ID] = x.Value
	}
	return out, nil
}

// fleet returns the instances as node a shows them, by ID, and all that it says.
func (f *instanceFleet) fleet() (map[string]api.Instance, string) {
	f.t.Helper()
	r, err := f.a.tlsAsk("GET", "/v1/fleet", "", f.tokens["operator"])
	var st api.FleetStatus
	if err == nil {
		err = json.Unmarshal(r.body, &st)
	}
	if err != nil {
		f.t.Fatalf("the fleet: %v, %v", r, err)
	}
	out := map[string]api.Instance{}
	for _, i := range st.Instances {
		out[i.ID] = i
	}
	return out, string(r.body)
}

// working waits until a guest computes.
func (f *instanceFleet) working(not ...*guest) *guest {
	f.t.Helper()
	var found *guest
	poll(f.t, 60*time.Second, "an instance computes", func() string {
		shown, said := f.fleet()
		for _, x := range f.guests.all() {
			if shown[x.id].State == "working" && !slices.Contains(not, x) {
				found = x
				return ""
			}
		}
		return said
	})
	return found
}

// TestInstances has a backlog that instances come for: their user data boots
// workers, which are let in for what they are, compute, and go. One never says a
// word, one dies, one is taken back. Then both nodes die, and those that are left
// end by themselves.
func TestInstances(t *testing.T) {
	_, endpoint := fakeEC2(t)
	f := newInstanceFleet(t, endpoint, "--spot", "--ami", "ami-1", "--subnets", "subnet-a=zone-a", "--subnets", "subnet-b=zone-b", "--worker-sg", "sg-1",
		"--types", hereType(t), "--max-workers", "4", "--drain-seconds", "1")
	f.guests = startGuests(t, endpoint, instanceHurry, func(n int) bool { return n == 1 })
	const long, short = 4_000_000, 200_000
	want := map[string]string{} // by ID; "" is not computed here
	for i := range 60 {
		data := fmt.Sprintf("job %d", i)
		switch {
		case i < 8:
			want[f.enqueue(data, short)] = chain(data, short)
		case i < 10:
			want[f.enqueue(data, long)] = chain(data, long)
		default:
			want[f.enqueue(data, long)] = ""
		}
	}
	killed := f.working()
	t.Logf("killed: %s", killed.id)
	killed.deaf.Store(true) // its machine goes on, with nothing in it
	killed.kill()
	taken := f.working(killed)
	noticed := time.Now()
	taken.interrupt()
	poll(t, 15*time.Second, "the instance that is taken back has ended", func() string { return strings.Join(taken.processes(), ", ") })
	t.Logf("taken back: %s, %v from the notice to its end", taken.id, time.Since(noticed).Round(time.Millisecond))
	if log := taken.read("log"); !strings.Contains(log, "Spot notice") || !strings.Contains(log, "worker stopped") {
		t.Errorf("the instance that was taken back says:\n%s", tail(log, 4000))
	}

	poll(t, 120*time.Second, "every value is pulled from the other node", func() string {
		got, err := f.pulled()
		if err != nil {
			return err.Error()
		}
		left := 0
		for id, value := range want {
			switch {
			case len(got[id]) != 128:
				left++
			case value != "" && got[id] != value:
				t.Fatalf("job %s has value %s, want %s", id, got[id], value)
			}
		}
		if left > 0 {
			return fmt.Sprintf("%d jobs are left", left)
		}
		return ""
	})
	ended := func(x *guest, why string) {
		t.Helper()
		poll(t, 60*time.Second, x.id+" is terminated", func() string {
			if shown, said := f.fleet(); shown[x.id].ID != "" {
				return said
			}
			return ""
		})
		if _, said := f.fleet(); !regexp.MustCompile(why).MatchString(said) {
			t.Errorf("%s ended, and nothing says %q:\n%s", x.id, why, said)
		}
	}
	ended(killed, `"instance":"`+killed.id+`"[^}]*it has said nothing for`)
	poll(t, 60*time.Second, "all instances are gone", f.guests.gone)
	all := f.guests.all()
	ended(all[1], `"instance":"`+all[1].id+`"[^}]*(it has not registered in|more than needed)`)
	t.Logf("%d instances came and went", len(all))
	for _, x := range all {
		calls, log := x.read("calls"), x.read("log")
		if x.deaf.Load() && x != killed {
			continue
		}
		if !strings.HasPrefix(calls, "systemd-run --quiet --unit=workmanager-limit --on-active=10m systemctl poweroff\n") {
			t.Errorf("%s does not begin with its end:\n%s", x.id, calls)
		}
		if strings.Contains(log, "worker runs") && !strings.Contains(log, "gave a binary of another sum") {
			t.Errorf("%s took the binary of the node that has another one:\n%s", x.id, tail(log, 2000))
		}
		for _, secret := range []string{f.tokens["worker"], f.tokens["client"], "wmc_"} {
			if text := x.read("user-data") + log; secret == "" || strings.Contains(text, secret) {
				t.Errorf("%s has a secret in its user data or its log", x.id)
			}
		}
	}

	t.Run("both_nodes_die", func(t *testing.T) {
		f.enqueue("no end", 1_000_000_000_000)
		f.working(all...)
		f.a.kill()
		f.b.kill()
		died := time.Now()
		poll(t, 60*time.Second, "instances without a node end", f.guests.gone)
		t.Logf("%v from the death of the nodes to the end of their instances", time.Since(died).Round(100*time.Millisecond))
	})
}

// hereType is an instance type of the architecture that guests have.
func hereType(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("uname", "-m").Output()
	switch arch := strings.TrimSpace(string(out)); {
	case arch == "x86_64":
		return "c7a.large"
	case arch == "aarch64":
		return "c7g.large"
	default:
		skip(t, "no instance has the architecture %q (%v)", arch, err)
	}
	return ""
}

// TestInstances_wrong_binary has no node that gives the binary that the user data
// asks for: instances must not run it, and end.
func TestInstances_wrong_binary(t *testing.T) {
	_, endpoint := fakeEC2(t)
	awsEnv(t, endpoint)
	f := &instanceFleet{t: t, dir: filepath.Join(t.TempDir(), "keys")}
	p := command(t, "init", "--out", f.dir, "--node", "a=127.0.0.1", "--node", "b=127.0.0.1", "-o", "json")
	var made keysMade
	if err := json.Unmarshal([]byte(p.out.String()), &made); err != nil {
		t.Fatal(err)
	}
	f.tokens = made.Tokens
	other := freeAddr(t)
	f.b = f.start(otherBuild(t), "b", other, "--gossip", "")
	f.a = f.start(binary, "a", freeAddr(t), "--gossip", "", "--cluster", "e2e", "--fleet", "ec2", "--fleet-hurry", fmt.Sprint(instanceHurry), "--max-workers", "1",
		"--ami", "ami-1", "--subnets", "subnet-a=zone-a", "--worker-sg", "sg-1", "--types", hereType(t), "--worker-node", "https://"+other)
	f.guests = startGuests(t, endpoint, instanceHurry, nil)
	r, err := f.a.tlsAsk("PUT", "/enqueue?iterations=1000000000", "x", f.tokens["client"])
	if err != nil || r.status != http.StatusOK {
		t.Fatalf("%v, %v", r, err)
	}
	poll(t, 30*time.Second, "an instance has ended", func() string {
		for _, x := range f.guests.all() {
			if strings.Contains(x.read("calls"), "poweroff") && len(x.processes()) == 0 {
				return ""
			}
		}
		return "none has"
	})
	x := f.guests.all()[0]
	if log := x.read("log"); strings.Count(log, "another sum") != 3 || !strings.Contains(log, "all nodes have another binary") {
		t.Errorf("it says:\n%s", log)
	}
	if _, err := os.Stat(filepath.Join(x.dir, "root/opt/workmanager/workmanager")); err == nil {
		t.Error("the binary is installed")
	}
	poll(t, 30*time.Second, "launches that never register are counted", func() string {
		if _, said := f.fleet(); !strings.Contains(said, "never registered") {
			return said
		}
		return ""
	})
	poll(t, 30*time.Second, "all are gone", f.guests.gone)
}

// TestInstances_moto is the plain part of it on moto, which others have made.
func TestInstances_moto(t *testing.T) {
	need(t, false, "moto_server")
	at := freeAddr(t)
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	server := launch(t, "moto", "moto_server", "-H", "127.0.0.1", "-p", port)
	target := &url.URL{Scheme: "http", Host: at}
	poll(t, 60*time.Second, "moto serves", func() string {
		if !server.running() {
			t.Skipf("SKIPPED: moto_server is there and does not run: %s", tail(server.log.String(), 500))
		}
		res, err := http.Get("http://" + at + "/moto-api/")
		if err == nil {
			_ = res.Body.Close() // only that it answers counts
		}
		return problemOf(err)
	})
	// Its instances have addresses of a network that is not here; their guests are
	// on loopback.
	address := regexp.MustCompile(`<privateIpAddress>[^<]*</privateIpAddress>`)
	front := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Header.Set("Accept-Encoding", "identity") },
		ModifyResponse: func(r *http.Response) error {
			b, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			_ = r.Body.Close() // read to its end
			b = address.ReplaceAll(b, []byte("<privateIpAddress>127.0.0.1</privateIpAddress>"))
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(string(b))), int64(len(b))
			r.Header.Set("Content-Length", fmt.Sprint(len(b)))
			return nil
		},
	})
	t.Cleanup(front.Close)
	ec2 := ec2API{front.URL}
	var images struct {
		IDs []string `xml:"imagesSet>item>imageId"`
	}
	if err := ec2.call("DescribeImages", url.Values{"Filter.1.Name": {"architecture"}, "Filter.1.Value.1": {"x86_64"}, "Owner.1": {"amazon"}}, &images); err != nil || len(images.IDs) == 0 {
		t.Fatalf("no image: %v", err)
	}
	var group struct {
		ID string `xml:"groupId"`
	}
	if err := ec2.call("CreateSecurityGroup", url.Values{
		"GroupName": {"workers"}, "GroupDescription": {"workers"}, "TagSpecification.1.ResourceType": {"security-group"},
		"TagSpecification.1.Tag.1.Key": {"workmanager:cluster"}, "TagSpecification.1.Tag.1.Value": {"e2e"},
		"TagSpecification.1.Tag.2.Key": {"workmanager:role"}, "TagSpecification.1.Tag.2.Value": {"worker"},
	}, &group); err != nil || group.ID == "" {
		t.Fatalf("no group: %v", err)
	}
	f := newInstanceFleet(t, front.URL, "--ami", images.IDs[0], "--types", hereType(t), "--max-workers", "2", "--drain-seconds", "1")
	f.guests = startGuests(t, front.URL, instanceHurry, nil)
	want := map[string]string{}
	for i := range 40 {
		data := fmt.Sprintf("moto %d", i)
		want[f.enqueue(data, 500_000)] = ""
		if i < 4 {
			want[f.enqueue(data+" again", 500_000)] = chain(data+" again", 500_000)
		}
	}
	poll(t, 90*time.Second, "every value is pulled from the other node", func() string {
		got, err := f.pulled()
		for id, value := range want {
			if len(got[id]) != 128 || value != "" && got[id] != value {
				return fmt.Sprintf("%d of %d, %v; job %s has value %q", len(got), len(want), err, id, got[id])
			}
		}
		return ""
	})
	poll(t, 60*time.Second, "all instances are gone", f.guests.gone)
	t.Logf("%d instances came and went", len(f.guests.all()))
}
