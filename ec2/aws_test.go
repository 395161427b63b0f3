package ec2_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"workmanager/ec2"
	"workmanager/ec2/ec2test"
)

// aws returns the real client, which asks whoever is at the URL.
func awsAt(t *testing.T, endpoint string, cfg ec2.AWSConfig) *ec2.AWS {
	t.Helper()
	for k, v := range map[string]string{
		"AWS_ENDPOINT_URL_EC2": endpoint, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
		"AWS_SESSION_TOKEN": "", "AWS_CA_BUNDLE": "", "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		t.Setenv(k, v)
	}
	a, err := ec2.NewAWS(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func awsConfig() ec2.AWSConfig {
	return ec2.AWSConfig{Cluster: "test", Image: "ami-1", SecurityGroup: "sg-1", UserData: []byte("#!/bin/sh\n"), RootDevice: "/dev/xvda", RootGiB: 8}
}

// recorder keeps the forms of the calls that go through it.
type recorder struct {
	next http.Handler
	mu   sync.Mutex // guards forms
	list []url.Values
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if err := req.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	r.list = append(r.list, req.PostForm)
	r.mu.Unlock()
	r.next.ServeHTTP(w, req)
}

func (r *recorder) forms(action string) []url.Values {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.list), func(f url.Values) bool { return f.Get("Action") != action })
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func slotRequest(cfg ec2.Config, k, gen int) ec2.Request {
	return ec2.Request{Slot: ec2.Slot{Slot: k, Gen: gen, Offer: cfg.Offer(k)}, Token: cfg.Token(k, gen)}
}

func TestAWS_launch(t *testing.T) {
	fake := ec2test.New(ec2test.Options{Zones: map[string]string{"subnet-a": "zone-a", "subnet-b": "zone-b"}})
	rec := &recorder{next: fake}
	a := awsAt(t, serve(t, rec), awsConfig())
	cfg := fleetConfig()
	cfg.Spot = true
	first, err := a.Launch(t.Context(), slotRequest(cfg, 1, 7))
	if err != nil {
		t.Fatal(err)
	}
	if first.Slot != 1 || first.Gen != 7 || first.Offer != cfg.Offer(1) || first.State != ec2.Running || first.Address == "" || first.LaunchedAt.IsZero() {
		t.Errorf("Launch() = %+v", first)
	}
	again, err := a.Launch(t.Context(), slotRequest(cfg, 1, 7))
	if err != nil || again.ID != first.ID {
		t.Errorf("the same launch again = %s, %v, want %s", again.ID, err, first.ID)
	}
	form := rec.forms("RunInstances")[0]
	for k, want := range map[string]string{
		"ClientToken": "wm-test-1-7", "MinCount": "1", "MaxCount": "1", "ImageId": "ami-1", "InstanceType": "c7a.large",
		"MetadataOptions.HttpTokens": "required", "MetadataOptions.HttpPutResponseHopLimit": "1", "MetadataOptions.InstanceMetadataTags": "enabled",
		"InstanceInitiatedShutdownBehavior": "terminate", "UserData": base64.StdEncoding.EncodeToString([]byte("#!/bin/sh\n")),
		"NetworkInterface.1.SubnetId": "subnet-b", "NetworkInterface.1.SecurityGroupId.1": "sg-1", "NetworkInterface.1.AssociatePublicIpAddress": "false",
		"BlockDeviceMapping.1.Ebs.Encrypted": "true", "BlockDeviceMapping.1.Ebs.DeleteOnTermination": "true", "BlockDeviceMapping.1.Ebs.VolumeType": "gp3",
		"InstanceMarketOptions.MarketType": "spot", "InstanceMarketOptions.SpotOptions.SpotInstanceType": "one-time",
		"InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior": "terminate",
		"TagSpecification.1.ResourceType":                                "instance", "TagSpecification.2.ResourceType": "volume",
		"IamInstanceProfile.Name": "", "KeyName": "",
	} {
		if got := form.Get(k); got != want {
			t.Errorf("RunInstances has %s = %q, want %q", k, got, want)
		}
	}
	all, err := a.Instances(t.Context())
	if err != nil || len(all) != 1 || all[0] != first {
		t.Errorf("Instances() = %+v, %v, want %+v", all, err, first)
	}
	if ok, err := a.ShutdownTerminates(t.Context(), first.ID); !ok || err != nil {
		t.Errorf("ShutdownTerminates() = %v, %v", ok, err)
	}
	strangers := awsConfig()
	strangers.Cluster = "other"
	if all, err := awsAt(t, serve(t, fake), strangers).Instances(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("another cluster sees %+v, %v", all, err)
	}
}

func TestAWS_refusals(t *testing.T) {
	for _, c := range []struct {
		fault ec2test.Fault
		kind  ec2.Kind
	}{
		{ec2test.Fault{Code: "InsufficientInstanceCapacity", Status: 500}, ec2.Capacity},
		{ec2test.Fault{Code: "UnfulfillableCapacity"}, ec2.Capacity},
		{ec2test.Fault{Code: "InsufficientFreeAddressesInSubnet"}, ec2.Capacity},
		{ec2test.Fault{Code: "VcpuLimitExceeded"}, ec2.Quota},
		{ec2test.Fault{Code: "MaxSpotInstanceCountExceeded"}, ec2.Quota},
		{ec2test.Fault{Code: "RequestLimitExceeded", Status: 503}, ec2.Throttled},
		{ec2test.Fault{Code: "UnauthorizedOperation", Status: 403, Text: "You may not"}, ec2.Wrong},
		{ec2test.Fault{Code: "InvalidAMIID.NotFound"}, ec2.Wrong},
		{ec2test.Fault{Code: "InvalidParameterValue"}, ec2.Wrong},
		{ec2test.Fault{Code: "AuthFailure.ServiceLinkedRoleCreationNotPermitted"}, ec2.NoSpot},
		{ec2test.Fault{Code: "InternalError", Status: 500}, -1},
		{ec2test.Fault{Code: "Unavailable", Status: 503}, -1},
		{ec2test.Fault{LoseReply: true}, -1},
	} {
		fake := ec2test.New(ec2test.Options{Fault: func(ec2test.Call) *ec2test.Fault { return &c.fault }})
		a := awsAt(t, serve(t, fake), awsConfig())
		_, err := a.Launch(t.Context(), slotRequest(fleetConfig(), 0, 0))
		var no *ec2.Refusal
		switch refused := errors.As(err, &no); {
		case err == nil:
			t.Errorf("%+v: launched", c.fault)
		case refused != (c.kind >= 0):
			t.Errorf("%+v: Launch() = %v, a refusal: %v", c.fault, err, refused)
		case refused && (no.Kind != c.kind || no.Code != c.fault.Code || c.fault.Text != "" && no.Text != c.fault.Text):
			t.Errorf("%+v: Launch() = %+v, want kind %d", c.fault, no, c.kind)
		}
		if n := fake.Calls("RunInstances"); n != 1 {
			t.Errorf("%+v: asked %d times in one launch, want 1", c.fault, n)
		}
	}
}

// TestAWS_dead_token has both forms in which EC2 says that a token's instance has ended.
func TestAWS_dead_token(t *testing.T) {
	for _, dead := range []bool{false, true} {
		fake := ec2test.New(ec2test.Options{DeadInstance: dead})
		a := awsAt(t, serve(t, fake), awsConfig())
		i, err := a.Launch(t.Context(), slotRequest(fleetConfig(), 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		fake.Shutdown(i.ID)
		i, err = a.Launch(t.Context(), slotRequest(fleetConfig(), 0, 0))
		var no *ec2.Refusal
		if said := errors.As(err, &no) && no.Kind == ec2.Dead || err == nil && i.State.Dead(); !said {
			t.Errorf("dead instance %v: Launch() = %+v, %v", dead, i, err)
		}
	}
	fake := ec2test.New(ec2test.Options{})
	endpoint := serve(t, fake)
	if _, err := awsAt(t, endpoint, awsConfig()).Launch(t.Context(), slotRequest(fleetConfig(), 0, 0)); err != nil {
		t.Fatal(err)
	}
	other := awsConfig()
	other.Image = "ami-2"
	_, err := awsAt(t, endpoint, other).Launch(t.Context(), slotRequest(fleetConfig(), 0, 0))
	if no := new(ec2.Refusal); !errors.As(err, &no) || no.Kind != ec2.Mismatch {
		t.Errorf("with another image Launch() = %v, want a mismatch", err)
	}
}

func TestAWS_pages_and_terminate(t *testing.T) {
	broken := false
	fake := ec2test.New(ec2test.Options{PageSize: 2, Fault: func(c ec2test.Call) *ec2test.Fault {
		if broken && c.Page == 2 {
			return &ec2test.Fault{Code: "InternalError", Status: 500}
		}
		return nil
	}})
	a := awsAt(t, serve(t, fake), awsConfig())
	var ids []string
	for k := range 5 {
		i, err := a.Launch(t.Context(), slotRequest(fleetConfig(), k, 0))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, i.ID)
	}
	all, err := a.Instances(t.Context())
	if err != nil || len(all) != 5 || fake.Calls("DescribeInstances") != 3 {
		t.Errorf("Instances() = %d of 5 in %d pages of 3, %v", len(all), fake.Calls("DescribeInstances"), err)
	}
	broken = true
	if all, err := a.Instances(t.Context()); err == nil {
		t.Errorf("with a page missing Instances() = %d instances and no error", len(all))
	}
	broken = false
	if err := a.Terminate(t.Context(), ids[:2]); err != nil {
		t.Error(err)
	}
	if err := a.Terminate(t.Context(), []string{ids[2], "i-unknown", ids[3]}); err == nil {
		t.Error("Terminate() of an unknown instance = nil")
	}
	if n := len(fake.Alive()); n != 1 {
		t.Errorf("%d instances live, want 1: an unknown one kept the others from ending", n)
	}
	if err := a.Terminate(t.Context(), ids[:2]); err != nil {
		t.Errorf("Terminate() again = %v", err)
	}
}

// TestAWS_bodies makes a thousand calls of a fast server on this machine: the
// SDK closes bodies that are still being sent.
func TestAWS_bodies(t *testing.T) {
	fake := ec2test.New(ec2test.Options{})
	a := awsAt(t, serve(t, fake), awsConfig())
	failed := 0
	var first error
	for range 1000 {
		if _, err := a.Instances(t.Context()); err != nil {
			failed++
			first = errors.Join(first, err)
		}
	}
	if failed > 0 {
		t.Errorf("%d of 1000 calls failed: %.300v", failed, first)
	}
}

// TestAWS_two_leaders is TestScheduler_two_leaders through the SDK and HTTP.
func TestAWS_two_leaders(t *testing.T) {
	if testing.Short() {
		t.Skip("short: thousands of calls over HTTP")
	}
	chance := rand.New(rand.NewPCG(1, 1))
	w := newWorld(t, 1, ec2test.Options{
		Boot: 30 * time.Second, Lag: 45 * time.Second, Fault: chaos(chance, 0.1), PageSize: 20,
		OnLaunch: func(i ec2test.Instance, alive []ec2test.Instance) {
			slots := map[string]string{}
			for _, other := range alive {
				slot := other.Tags["workmanager:slot"]
				if slots[slot] != "" {
					t.Errorf("slot %s is live twice: %s and %s", slot, slots[slot], other.ID)
				}
				slots[slot] = other.ID
			}
		},
	})
	w.die, w.mute, w.deaf = 0.03, 0.05, 0.05
	a := awsAt(t, serve(t, w.cloud), awsConfig())
	one, two := w.scheduler("a", fleetConfig(), ec2.Parts{Cloud: a}), w.scheduler("b", fleetConfig(), ec2.Parts{Cloud: a})
	for tick := range 120 {
		if tick%20 == 0 {
			w.wanted = 1 + w.rng.IntN(6)
		}
		w.step(one, two)
	}
	w.wanted, w.die = 0, 0
	for tick := 0; len(w.cloud.Alive()) > 0 && tick < 200; tick++ {
		w.step(one, two)
	}
	if left := w.cloud.Alive(); len(left) > 0 {
		t.Errorf("%d instances are left", len(left))
	}
	t.Logf("%d launches, %d looks", len(w.cloud.All()), w.cloud.Calls("DescribeInstances"))
}

func TestAWS_nowhere(t *testing.T) {
	a := awsAt(t, "http://127.0.0.1:1", awsConfig())
	if _, err := a.Instances(t.Context()); err == nil {
		t.Error("Instances() of nobody = nil")
	}
	_, err := a.Launch(t.Context(), slotRequest(fleetConfig(), 0, 0))
	if no := new(ec2.Refusal); err == nil || errors.As(err, &no) {
		t.Errorf("Launch() of nobody = %v, which is no refusal", err)
	}
	t.Setenv("AWS_REGION", "")
	if _, err := ec2.NewAWS(t.Context(), awsConfig()); err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("NewAWS() without a region = %v", err)
	}
}

// TestAWS_moto runs a backlog against moto, where it is installed. moto launches
// twice for one token, so that is held on the calls.
func TestAWS_moto(t *testing.T) {
	endpoint := moto(t)
	target, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	rec := &recorder{next: proxy{target}}
	image, subnets, group := motoNetwork(t, endpoint)
	cfg := fleetConfig()
	cfg.Cluster, cfg.Max, cfg.Subnets, cfg.Types = "moto", 4, subnets, []string{"c5.large", "m5.large"}
	ac := awsConfig()
	ac.Cluster, ac.Image, ac.SecurityGroup = "moto", image, group
	a := awsAt(t, serve(t, rec), ac)
	b := &motoBacklog{t: t, wanted: 3, a: a}
	s := ec2.New(cfg, ec2.Parts{Cloud: a, Backlog: b})
	now := time.Now()
	step := func() {
		t.Helper()
		b.now = now
		if err := s.Step(t.Context(), now); err != nil {
			t.Error(err)
		}
		now = now.Add(30 * time.Second)
	}
	live := func(want int, when string) []ec2.Instance {
		t.Helper()
		all, err := a.Instances(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all = slices.DeleteFunc(all, func(i ec2.Instance) bool { return i.State.Dead() })
		if len(all) != want {
			t.Errorf("%s %d instances live, want %d", when, len(all), want)
		}
		return all
	}
	step()
	for k, i := range live(3, "with work for three") {
		if i.Slot != k || i.Gen != 0 || i.Subnet != subnets[k%2].ID || i.Zone != subnets[k%2].Zone || i.Type != cfg.Offer(k).Type {
			t.Errorf("instance %d is %+v", k, i)
		}
		if ok, err := a.ShutdownTerminates(t.Context(), i.ID); !ok || err != nil {
			t.Errorf("ShutdownTerminates() = %v, %v", ok, err)
		}
	}
	step()
	step()
	live(3, "a minute later")
	b.wanted = 0
	for range 8 {
		step()
	}
	live(0, "with the work done")
	if err := a.Terminate(t.Context(), []string{"i-00000000000000000"}); err == nil {
		t.Error("Terminate() of an unknown instance = nil")
	}
	if _, err := a.SpotPrices(t.Context(), cfg.Types, subnets); err != nil {
		t.Error(err)
	}
	forms := rec.forms("RunInstances")
	tokens := map[string]bool{}
	for _, f := range forms {
		tokens[f.Get("ClientToken")] = true
	}
	if len(forms) != 3 || len(tokens) != 3 || !tokens["wm-moto-2-0"] {
		t.Errorf("%d launches with tokens %v", len(forms), tokens)
	}
}

// motoBacklog has every instance registered, and ends those that are told to drain.
type motoBacklog struct {
	t      *testing.T
	wanted int
	now    time.Time
	a      *ec2.AWS
}

func (b *motoBacklog) Demand(ctx context.Context) (ec2.Demand, error) {
	w := world{wanted: b.wanted, cloud: ec2test.New(ec2test.Options{})}
	d, _ := (&backlog{w: &w}).Demand(ctx)
	all, err := b.a.Instances(ctx)
	for k, i := range all {
		leases := 0
		if k < b.wanted {
			leases = 16
			d.Queued -= 16
		}
		d.Workers = append(d.Workers, ec2.Worker{Instance: i.ID, Lanes: 16, Rate: 16e6, Leases: leases, Leased: leases > 0, LeasedAt: b.now, SeenAt: b.now})
	}
	return d, err
}

func (b *motoBacklog) Order(ctx context.Context, o ec2.Orders) error {
	if len(o.Drain) == 0 {
		return nil
	}
	return b.a.Terminate(ctx, o.Drain)
}

// proxy passes a form on. It is not httputil's, which a recorder that has read
// the form leaves without a body.
type proxy struct{ to *url.URL }

func (p proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out, err := http.NewRequestWithContext(r.Context(), http.MethodPost, p.to.String(), strings.NewReader(r.PostForm.Encode()))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	for _, k := range []string{"Authorization", "Content-Type", "X-Amz-Date"} {
		out.Header.Set(k, r.Header.Get(k))
	}
	res, err := http.DefaultClient.Do(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
	w.WriteHeader(res.StatusCode)
	buf := make([]byte, 1<<20)
	for {
		n, err := res.Body.Read(buf)
		_, _ = w.Write(buf[:n]) // the client has gone
		if err != nil {
			return
		}
	}
}

// moto starts moto_server and returns its URL.
func moto(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("moto_server")
	if err != nil {
		t.Skip("SKIPPED: moto_server is not installed (pip install 'moto[ec2,server]')")
	}
	if testing.Short() {
		t.Skip("short: moto takes seconds to start")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	cmd := exec.Command(path, "-H", "127.0.0.1", "-p", fmt.Sprint(port))
	cmd.Env = append(cmd.Environ(), "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION=true", "MOTO_ENABLE_KEYPAIR_VALIDATION=true", "MOTO_ENABLE_AMI_VALIDATION=true")
	group(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		killGroup(cmd)
		_ = cmd.Wait() // it was killed
	})
	endpoint := fmt.Sprintf("http://127.0.0.1:%d", port)
	for tick, end := time.NewTicker(100*time.Millisecond), time.Now().Add(90*time.Second); ; <-tick.C {
		res, err := http.Get(endpoint + "/moto-api/")
		if err == nil {
			res.Body.Close()
			return endpoint
		}
		if time.Now().After(end) {
			t.Fatalf("moto_server does not answer: %v", err)
		}
	}
}

// motoNetwork asks moto for an image, two subnets of the default VPC and its group.
func motoNetwork(t *testing.T, endpoint string) (image string, subnets []ec2.Subnet, group string) {
	t.Helper()
	ask := func(action, pattern string) [][]string {
		t.Helper()
		form := url.Values{"Action": {action}, "Version": {"2016-11-15"}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20261126/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=x")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := readAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		found := find(pattern, text)
		if len(found) == 0 {
			t.Fatalf("%s has no %s: %.500s", action, pattern, text)
		}
		return found
	}
	image = ask("DescribeImages", `<imageId>(ami-[0-9a-f]+)</imageId>`)[0][1]
	for _, m := range ask("DescribeSubnets", `(?s)<subnetId>(subnet-[0-9a-f]+)</subnetId>.*?<availabilityZone>([a-z0-9-]+)</availabilityZone>`)[:2] {
		subnets = append(subnets, ec2.Subnet{ID: m[1], Zone: m[2]})
	}
	return image, subnets, ask("DescribeSecurityGroups", `<groupId>(sg-[0-9a-f]+)</groupId>`)[0][1]
}
