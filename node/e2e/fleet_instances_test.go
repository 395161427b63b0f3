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

	"workmanager/web/api"
)

// instanceHurry divides the times of the fleet's policy and of its guests: the ten
// minutes that an instance has for its first word are 40 s, the three that it may
// be silent for 12 s: a busy machine may need half of that.
const instanceHurry = 15

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

// newInstances starts a pair at an EC2, whose instances are told of the nodes. Node
// b runs another build than a, which leads and says which they are to run.
func newInstances(t *testing.T, endpoint string, nodes []string, deaf func(n int) bool, flags ...string) *ec2Pair {
	t.Helper()
	p := newClosedPairBy(t, func(p *closedPair) {
		p.builds = map[string]string{"b": otherBuild(t)}
		p.flags = append([]string{
			"--cluster", "test", "--fleet", "ec2", "--fleet-hurry", fmt.Sprint(instanceHurry), "--max-launches-per-hour", "100", "--audit-rate", "0",
			"--types", hereType(t), "--drain-seconds", "1",
		}, flags...)
		for _, name := range nodes {
			p.flags = append(p.flags, "--worker-node", "https://"+p.addr[name])
		}
	})
	return &ec2Pair{closedPair: p, guests: startGuests(t, endpoint, instanceHurry, deaf)}
}

// pulled waits until a node hands out all values, and compares those that are
// known.
func (p *ec2Pair) pulled(n *node, want map[string]string) {
	p.t.Helper()
	poll(p.t, 3*time.Minute, "every value is pulled from "+n.name, func() string {
		r, err := n.tlsAsk("POST", "/pullCompleted?top=1000", "", p.made.Tokens["client"])
		if err != nil {
			return err.Error()
		}
		var list []api.PulledResult
		if err := json.Unmarshal(r.body, &list); err != nil {
			return r.String()
		}
		got := map[string]string{}
		for _, x := range list {
			got[x.ID] = x.Value
		}
		left := 0
		for id, value := range want {
			switch {
			case len(got[id]) != 128:
				left++
			case value != "" && got[id] != value:
				p.t.Fatalf("job %s has value %s, want %s", id, got[id], value)
			}
		}
		if left > 0 {
			return fmt.Sprintf("%d jobs are left", left)
		}
		return ""
	})
}

// busy waits until a guest that is none of those computes.
func (p *ec2Pair) busy(not ...*guest) *guest {
	p.t.Helper()
	var found *guest
	poll(p.t, 3*time.Minute, "an instance computes", func() string {
		st := p.fleet(p.a)
		for _, i := range st.Instances {
			if x := p.guests.of(i.ID); i.State == "working" && x != nil && !slices.Contains(not, x) {
				found = x
				return ""
			}
		}
		return fmt.Sprintf("%+v", st)
	})
	return found
}

// said tells whether a decision has ended an instance for a reason.
func (p *ec2Pair) said(x *guest, why string) bool {
	p.t.Helper()
	for _, d := range p.fleet(p.a).Decisions {
		for _, a := range d.Actions {
			if a.Instance == x.id && strings.Contains(a.Why, why) {
				return true
			}
		}
	}
	return false
}

// TestFleetEC2_to_the_end has a backlog that instances come for: their user data boots
// workers, which are let in for what they are, compute, and go. One never says a
// word, one dies, one is taken back. Then both nodes die, and those that are left
// end by themselves.
func TestFleetEC2_to_the_end(t *testing.T) {
	fleetAtLength(t)
	_, endpoint := fakeEC2(t)
	p := newInstances(t, endpoint, []string{"b", "a"}, func(n int) bool { return n == 1 }, "--spot", "--ami", "ami-1", "--subnets", "subnet-a=zone-1,subnet-b=zone-2", "--worker-sg", "sg-1", "--max-workers", "4")
	const long, short, first = 4_000_000, 200_000, "&priority=5"
	want := map[string]string{} // by ID; "" is not computed here
	for i := range 60 {
		data := fmt.Sprintf("job %d", i)
		switch {
		case i < 8:
			want[p.submit(p.a, data, short, first)] = chain(data, short)
		case i < 10:
			want[p.submit(p.a, data, long, first)] = chain(data, long)
		default:
			want[p.submit(p.a, data, long, first)] = ""
		}
	}
	var rest []string // so much that no instance is one too many until all has been seen
	for i := range 80 {
		rest = append(rest, p.submit(p.a, fmt.Sprintf("a chain without an end %d", i), endless))
	}
	killed := p.busy()
	t.Logf("killed: %s", killed.id)
	killed.deaf.Store(true) // its machine goes on, with nothing in it
	killed.kill()
	taken := p.busy(killed)
	noticed := time.Now()
	taken.interrupt()
	poll(t, time.Minute, "the instance that is taken back has ended", func() string { return strings.Join(taken.processes(), ", ") })
	t.Logf("taken back: %s, %v from the notice to its end", taken.id, time.Since(noticed).Round(time.Millisecond))
	if log := taken.read("log"); !strings.Contains(log, "Spot notice") || !strings.Contains(log, "worker stopped") {
		t.Errorf("the instance that was taken back says:\n%s", tail(log, 4000))
	}

	p.pulled(p.b, want)
	all := p.guests.all()
	for x, why := range map[*guest]string{killed: "it has said nothing for", all[1]: "it has not registered in"} {
		poll(t, 3*time.Minute, x.id+" is terminated because "+why, func() string {
			if !p.said(x, why) {
				return fmt.Sprintf("%+v", p.fleet(p.a))
			}
			return ""
		})
	}
	p.cancel(rest)
	p.left()
	all = p.guests.all()
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
		for _, secret := range []string{p.made.Tokens["worker"], p.made.Tokens["client"], "wmc_"} {
			if text := x.read("user-data") + log; secret == "" || strings.Contains(text, secret) {
				t.Errorf("%s has a secret in its user data or its log", x.id)
			}
		}
	}

	t.Run("both_nodes_die", func(t *testing.T) {
		p.submit(p.a, "no end", endless)
		p.busy(all...)
		p.a.kill()
		p.b.kill()
		died := time.Now()
		poll(t, 3*time.Minute, "instances without a node end", p.guests.gone)
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

// TestFleetEC2_wrong_binary has no node that gives the binary that the user data
// asks for: instances must not run it, and end.
func TestFleetEC2_wrong_binary(t *testing.T) {
	fleetAtLength(t)
	_, endpoint := fakeEC2(t)
	p := newInstances(t, endpoint, []string{"b"}, nil, "--ami", "ami-1", "--subnets", "subnet-a=zone-1", "--worker-sg", "sg-1", "--max-workers", "1")
	p.submit(p.a, "x", endless)
	poll(t, 3*time.Minute, "an instance has ended", func() string {
		for _, x := range p.guests.all() {
			if strings.Contains(x.read("calls"), "poweroff") && len(x.processes()) == 0 {
				return ""
			}
		}
		return "none has"
	})
	x := p.guests.all()[0]
	if log := x.read("log"); strings.Count(log, "another sum") != 3 || !strings.Contains(log, "all nodes have another binary") {
		t.Errorf("it says:\n%s", log)
	}
	if _, err := os.Stat(filepath.Join(x.dir, "root/opt/workmanager/workmanager")); err == nil {
		t.Error("the binary is installed")
	}
	poll(t, 3*time.Minute, "launches that never register are counted", func() string {
		if st := p.fleet(p.a); !strings.Contains(fmt.Sprintf("%+v", st), "never registered") {
			return fmt.Sprintf("%+v", st)
		}
		return ""
	})
	p.left()
}

// TestFleetEC2_moto is the plain part of it on moto, which others have made.
func TestFleetEC2_moto(t *testing.T) {
	fleetAtLength(t)
	need(t, false, "moto_server")
	at := freeAddr(t)
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	server := launch(t, "moto", "moto_server", "-H", "127.0.0.1", "-p", port)
	target := &url.URL{Scheme: "http", Host: at}
	poll(t, 3*time.Minute, "moto serves", func() string {
		if !server.running() {
			t.Skipf("SKIPPED: moto_server is there and does not run: %s", tail(server.log.String(), 500))
		}
		res, err := http.Get("http://" + at + "/moto-api/")
		if err == nil {
			_ = res.Body.Close() // only that it answers counts
		}
		if err != nil {
			return err.Error()
		}
		return ""
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
		"TagSpecification.1.Tag.1.Key": {"workmanager:cluster"}, "TagSpecification.1.Tag.1.Value": {"test"},
		"TagSpecification.1.Tag.2.Key": {"workmanager:role"}, "TagSpecification.1.Tag.2.Value": {"worker"},
	}, &group); err != nil || group.ID == "" {
		t.Fatalf("no group: %v", err)
	}
	asClientOf(t, front.URL)
	p := newInstances(t, front.URL, []string{"b", "a"}, nil, "--ami", images.IDs[0], "--max-workers", "2")
	want := map[string]string{}
	for i := range 40 {
		data := fmt.Sprintf("moto %d", i)
		want[p.submit(p.a, data, 500_000)] = ""
		if i < 4 {
			want[p.submit(p.a, data+" again", 500_000)] = chain(data+" again", 500_000)
		}
	}
	p.pulled(p.b, want)
	p.left()
	t.Logf("%d instances came and went", len(p.guests.all()))
}
