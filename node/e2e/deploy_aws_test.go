package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// What the tests of scripts/setup.sh and teardown.sh stand on: moto for AWS,
// behind a proxy of ours that hears each call; the AWS CLI itself; and folders
// for hosts, with stand-ins for ssh, scp and systemctl that start the real binary.

var update = flag.Bool("update", false, "write the golden files anew")

// goldenFile compares got with a file.
func goldenFile(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil || string(want) != got {
		t.Errorf("%s: %v\ngot:\n%s\nwant:\n%s", name, err, got, want)
	}
}

// deployer is an account, and the machine of its operator.
type deployer struct {
	proxy  *awsProxy
	folder string // of the hosts
	path   string
	env    []string
}

// scriptLimit is how long a run of a script may take.
const scriptLimit = 5 * time.Minute

func newDeployer(t *testing.T, region string) *deployer {
	t.Helper()
	need(t, false, "moto_server", "aws", "awk", "ssh-keygen", "setsid", "sha256sum")
	stands, err := filepath.Abs("testdata/deploy")
	if err != nil {
		t.Fatal(err)
	}
	d := &deployer{folder: t.TempDir()}
	images := filepath.Join(stands, "images.json")
	if region != "us-east-1" {
		images = "" // moto has those of a file in one region
	}
	moto := startMoto(t, images)
	d.proxy = newAWSProxy(t, moto)
	d.env = []string{
		"AWS_ACCESS_KEY_ID=AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret", "AWS_ENDPOINT_URL=" + d.proxy.server.URL, "AWS_PAGER=", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_DEFAULT_REGION=" + region, "AWS_MAX_ATTEMPTS=1", "AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent",
		"WORKMANAGER_HOSTS=" + d.folder, "WORKMANAGER_PAUSE=0.2", "WORKMANAGER_SETTLE=0.5", "WORKMANAGER_PATIENCE=50",
	}
	bin := t.TempDir()
	d.path = bin + ":" + stands
	if sock := startAWSCLI(t, filepath.Join(stands, "awsd.py"), d.env); sock != "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(self, filepath.Join(bin, "aws")); err != nil {
			t.Fatal(err)
		}
		d.env = append(d.env, "WORKMANAGER_E2E_AWS="+sock)
	}
	programs := filepath.Join(bin, "programs")
	if err := os.Mkdir(programs, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"workmanager", "workmanager-linux-amd64", "workmanager-linux-arm64"} { // the last one is never started
		if err := os.Symlink(binary, filepath.Join(programs, name)); err != nil {
			t.Fatal(err)
		}
	}
	d.env = append(d.env, "PROGRAMS="+programs)
	t.Cleanup(func() {
		for _, pid := range d.running(t) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
		for _, host := range d.hosts(t) {
			if t.Failed() {
				log, _ := os.ReadFile(filepath.Join(d.folder, host, "log")) // for the reader of a failure only
				t.Logf("host %s:\n%s", host, string(log[:min(len(log), 6000)]))
			}
		}
	})
	return d
}

// startMoto returns the address of a moto of its own.
func startMoto(t *testing.T, images string) string {
	t.Helper()
	addr := freeAddr(t)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"env"}
	if images != "" {
		env = append(env, "MOTO_AMIS_PATH="+images)
	}
	p := launch(t, "moto", append(env, "MOTO_ENABLE_AMI_VALIDATION=true", "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION=true",
		"MOTO_ENABLE_KEYPAIR_VALIDATION=true", "moto_server", "-H", host, "-p", port)...)
	poll(t, 2*time.Minute, "moto answers", func() string {
		if !p.running() {
			t.Fatalf("moto ended: %s", p.log.String())
		}
		res, err := http.Get("http://" + addr + "/moto-api/data.json")
		if err != nil {
			return err.Error()
		}
		drain(res.Body)
		_ = res.Body.Close() // it was read to its end
		return ""
	})
	return addr
}

// startAWSCLI loads the AWS CLI once, to be forked for each call, and returns the
// socket where it is called; "" if it is none that can be loaded.
func startAWSCLI(t *testing.T, script string, env []string) string {
	t.Helper()
	if err := exec.Command("python3", "-c", "import awscli.clidriver").Run(); err != nil {
		t.Log("the AWS CLI cannot be loaded into Python: each call loads it anew, and the test takes minutes more")
		return ""
	}
	sock := filepath.Join(t.TempDir(), "aws")
	p := launch(t, "aws", append(append([]string{"env"}, env...), "python3", script, sock)...)
	poll(t, 2*time.Minute, "the AWS CLI is loaded", func() string {
		if !p.running() {
			t.Fatalf("the AWS CLI ended: %s", p.log.String())
		}
		if !strings.Contains(p.out.String(), "ready") {
			return "it is not ready"
		}
		return ""
	})
	return sock
}

// awsCLI is what the binary of the tests does under the name of aws: it hands its
// arguments to the AWS CLI that is loaded.
func awsCLI() int {
	conn, err := net.Dial("unix", os.Getenv("WORKMANAGER_E2E_AWS"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 255
	}
	defer conn.Close()
	var reply struct {
		Code     int
		Out, Err string
	}
	err = json.NewEncoder(conn).Encode(os.Args[1:])
	if err == nil {
		err = json.NewDecoder(conn).Decode(&reply)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 255
	}
	fmt.Fprint(os.Stderr, reply.Err)
	fmt.Print(reply.Out)
	return reply.Code
}

// place is a deployment, by the folder of its state.
type place struct{ state string }

func (d *deployer) place(name string) place {
	return place{filepath.Join(d.folder, ".state", name)}
}

func (p place) setting(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.state, "settings"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name+"="); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("the settings have no %s: %s", name, b)
	return ""
}

// scriptRun is one run of a script.
type scriptRun struct {
	code  int // -1: killed
	out   string
	calls []awsCall // of the script itself
	took  time.Duration
}

func (r scriptRun) String() string { return tail(r.out, 6000) }

// run runs a script with nodes of a type that this machine can stand for.
func (d *deployer) run(t *testing.T, p place, script string, args ...string) scriptRun {
	t.Helper()
	if script == "setup.sh" {
		args = append([]string{"--node-type", "t3.small", "--binaries", d.programs()}, args...)
	}
	return d.runBare(t, p, script, args...)
}

func (d *deployer) programs() string {
	for _, v := range d.env {
		if s, ok := strings.CutPrefix(v, "PROGRAMS="); ok {
			return s
		}
	}
	return ""
}

func (d *deployer) runBare(t *testing.T, p place, script string, args ...string) scriptRun {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), scriptLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "../../scripts/"+script, append([]string{"--state", p.state}, args...)...)
	var out buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	for _, v := range environment() {
		if !strings.HasPrefix(v, "AWS_") && !strings.HasPrefix(v, "PATH=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(append(cmd.Env, d.env...), "PATH="+d.path+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	from := d.proxy.heard()
	begin := time.Now()
	if err := startHere(cmd); err != nil {
		t.Fatal(err)
	}
	d.proxy.aim(cmd.Process.Pid)
	_ = cmd.Wait() // the code tells
	d.proxy.aim(0)
	if ctx.Err() != nil {
		t.Fatalf("%s does not end: %s", script, out.String())
	}
	return scriptRun{code: cmd.ProcessState.ExitCode(), out: out.String(), calls: d.proxy.since(from), took: time.Since(begin).Round(time.Millisecond)}
}

// hosts are the folders of those that were delivered to.
func (d *deployer) hosts(t *testing.T) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(d.folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			out = append(out, e.Name())
		}
	}
	return out
}

// running are the nodes that run, by host.
func (d *deployer) running(t *testing.T) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, host := range d.hosts(t) {
		b, err := os.ReadFile(filepath.Join(d.folder, host, "pid"))
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && strings.HasPrefix(exe, d.folder) {
			out[host] = pid
		}
	}
	return out
}

func (d *deployer) pids(t *testing.T) (out []int) {
	t.Helper()
	for _, pid := range d.running(t) {
		out = append(out, pid)
	}
	slices.Sort(out)
	return out
}

// ask asks moto, as one who knows the account.
func (d *deployer) ask(t *testing.T, form url.Values) (reply awsReply) {
	t.Helper()
	service := "ec2"
	form.Set("Version", "2016-11-15")
	if strings.HasPrefix(form.Get("Action"), "List") {
		service = "iam"
		form.Set("Version", "2010-05-08")
	}
	req, err := http.NewRequest("POST", "http://"+d.proxy.moto+"/", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/us-east-1/"+service+"/aws4_request, SignedHeaders=host, Signature=0")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%v: %v %s %s", form, err, res.Status, b)
	}
	if err := xml.Unmarshal(b, &reply); err != nil {
		t.Fatalf("%v: %v in %s", form, err, b)
	}
	return reply
}

// everything is all that is in the account that costs something or that a script
// made: kind and name.
func (d *deployer) everything(t *testing.T) (out []string) { return d.list(t, "") }

// inventory is that of one cluster.
func (d *deployer) inventory(t *testing.T, cluster string) []string { return d.list(t, cluster) }

// awsReply is what is read of the answers of EC2 and IAM.
type awsReply struct {
	Instances []struct {
		ID      string `xml:"instanceId"`
		State   string `xml:"instanceState>name"`
		Address string `xml:"privateIpAddress"`
	} `xml:"reservationSet>item>instancesSet>item"`
	Volumes []string `xml:"volumeSet>item>volumeId"`
	Groups  []struct {
		ID   string `xml:"groupId"`
		Name string `xml:"groupName"`
	} `xml:"securityGroupInfo>item"`
	Rules []struct {
		Group    string `xml:"groupId"`
		Egress   bool   `xml:"isEgress"`
		Protocol string `xml:"ipProtocol"`
		Port     string `xml:"fromPort"`
		CIDR     string `xml:"cidrIpv4"`
		With     string `xml:"referencedGroupInfo>groupId"`
	} `xml:"securityGroupRuleSet>item"`
	Pairs    []string `xml:"keySet>item>keyName"`
	Roles    []string `xml:"ListRolesResult>Roles>member>RoleName"`
	Profiles []string `xml:"ListInstanceProfilesResult>InstanceProfiles>member>InstanceProfileName"`
}

func (d *deployer) list(t *testing.T, cluster string) (out []string) {
	t.Helper()
	add := func(kind, name string) { out = append(out, kind+" "+name) }
	for _, id := range d.living(t, cluster) {
		add("instance", id)
	}
	for _, id := range d.ask(t, of("DescribeVolumes", cluster)).Volumes {
		add("volume", id)
	}
	for _, g := range d.ask(t, of("DescribeSecurityGroups", cluster)).Groups {
		add("security-group", g.Name)
	}
	for _, name := range d.ask(t, of("DescribeKeyPairs", cluster)).Pairs {
		add("key-pair", name)
	}
	for _, name := range d.ask(t, url.Values{"Action": {"ListRoles"}}).Roles {
		if strings.HasPrefix(name, "wm-"+cluster) {
			add("role", name)
		}
	}
	for _, name := range d.ask(t, url.Values{"Action": {"ListInstanceProfiles"}}).Profiles {
		if strings.HasPrefix(name, "wm-"+cluster) {
			add("instance-profile", name)
		}
	}
	slices.Sort(out)
	return out
}

// of asks for what has the tag of a cluster, "" for that of any.
func of(action, cluster string) url.Values {
	if cluster == "" {
		return url.Values{"Action": {action}, "Filter.1.Name": {"tag-key"}, "Filter.1.Value.1": {"workmanager:cluster"}}
	}
	return url.Values{"Action": {action}, "Filter.1.Name": {"tag:workmanager:cluster"}, "Filter.1.Value.1": {cluster}}
}

// living are the instances that are not gone; role narrows them.
func (d *deployer) living(t *testing.T, cluster string, role ...string) (out []string) {
	t.Helper()
	v := of("DescribeInstances", cluster)
	if len(role) > 0 {
		v.Set("Filter.2.Name", "tag:workmanager:role")
		v.Set("Filter.2.Value.1", role[0])
	}
	for _, i := range d.ask(t, v).Instances {
		if i.State != "terminated" {
			out = append(out, i.ID)
		}
	}
	return out
}

// rules are those of a cluster's groups, one a line: group, way, protocol, port,
// with whom; groups by their role.
func (d *deployer) rules(t *testing.T, cluster string) (out []string) {
	t.Helper()
	role := map[string]string{}
	v := url.Values{"Action": {"DescribeSecurityGroupRules"}, "Filter.1.Name": {"group-id"}}
	for i, g := range d.ask(t, of("DescribeSecurityGroups", cluster)).Groups {
		role[g.ID] = strings.TrimPrefix(g.Name, "wm-"+cluster+"-")
		v.Set(fmt.Sprintf("Filter.1.Value.%d", i+1), g.ID)
	}
	for _, r := range d.ask(t, v).Rules {
		way := "in"
		if r.Egress {
			way = "out"
		}
		out = append(out, strings.Join([]string{role[r.Group], way, r.Protocol, r.Port, r.CIDR + role[r.With]}, " "))
	}
	slices.Sort(out)
	return out
}

// wanted are the rules of the file, with clients let in and nobody on port 22.
func (d *deployer) wanted(t *testing.T, clients string) (out []string) {
	t.Helper()
	b, err := os.ReadFile("../../scripts/deploy/rules")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 || f[0] == "#" || f[4] == "operator" || f[4] == "clients" && clients == "" {
			continue
		}
		out = append(out, strings.Join([]string{f[0], f[1], f[2], f[3], strings.Replace(f[4], "clients", clients, 1)}, " "))
	}
	slices.Sort(out)
	return out
}

// awsCall is one call of AWS.
type awsCall struct {
	action        string
	form          url.Values
	body          string
	authorization string
	script        bool // of the AWS CLI, not of a node
}

// tags are those that a launch gives to one kind of thing.
func (c awsCall) tags(kind string) map[string]string {
	out := map[string]string{}
	for i := 1; c.form.Has(fmt.Sprintf("TagSpecification.%d.ResourceType", i)); i++ {
		at := fmt.Sprintf("TagSpecification.%d.", i)
		if c.form.Get(at+"ResourceType") != kind {
			continue
		}
		for n := 1; c.form.Has(fmt.Sprintf("%sTag.%d.Key", at, n)); n++ {
			out[c.form.Get(fmt.Sprintf("%sTag.%d.Key", at, n))] = c.form.Get(fmt.Sprintf("%sTag.%d.Value", at, n))
		}
	}
	return out
}

// changes reports whether the call changes anything.
func (c awsCall) changes() bool {
	return c.form.Get("DryRun") != "true" && !strings.HasPrefix(c.action, "Describe") && !strings.HasPrefix(c.action, "Get") && !strings.HasPrefix(c.action, "List")
}

func writes(calls []awsCall) (out []string) {
	for _, c := range calls {
		if c.changes() {
			out = append(out, c.action)
		}
	}
	return out
}

func actions(calls []awsCall) (out []string) {
	for _, c := range calls {
		out = append(out, c.action)
	}
	return out
}

func callsOf(calls []awsCall, action string) (out []awsCall) {
	for _, c := range calls {
		if c.action == action && c.form.Get("DryRun") != "true" {
			out = append(out, c)
		}
	}
	return out
}

// awsProxy stands before moto. It hears each call, can refuse one, can kill the
// script that made one before it hears the answer, and adds what moto lacks: that
// a token launches once. Addresses of instances become ones of loopback, inside and
// outside the same, so that nodes can listen and be reached there.
type awsProxy struct {
	moto    string
	server  *httptest.Server
	network string // of the addresses of instances

	mu       sync.Mutex // guards the rest
	calls    []awsCall
	launched map[string][]byte // by token: the answer
	refused  map[string]string // action: code
	group    int               // of the script that runs
	countTo  int               // calls that change something, until the cut; 0: none
	cut      string
	cuts     map[string]int
	passOver func(cuts map[string]int, c awsCall) bool // not to be cut at
}

// publicAddress is that of an instance, behind its private one.
var publicAddress = regexp.MustCompile(`(?s)(<privateIpAddress>)([0-9.]+)(</privateIpAddress>.*?<ipAddress>)[0-9.]+`)

// networks counts those that were given out.
var networks atomic.Int64

func newAWSProxy(t *testing.T, moto string) *awsProxy {
	network := 1 + (int64(os.Getpid())*7+networks.Add(1))%250 // other tests have other ones
	p := &awsProxy{moto: moto, network: fmt.Sprintf(">127.%d.", network), launched: map[string][]byte{}, cuts: map[string]int{}}
	p.server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.server.Close)
	return p
}

func (p *awsProxy) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the script was killed
	}
	form, _ := url.ParseQuery(string(body)) // moto tells what is wrong
	c := awsCall{action: form.Get("Action"), form: form, body: string(body), authorization: r.Header.Get("Authorization"), script: strings.Contains(r.UserAgent(), "aws-cli")}
	p.mu.Lock()
	p.calls = append(p.calls, c)
	code := p.refused[c.action]
	if code == "" && c.changes() {
		code = p.refused[c.action+"/real"]
	}
	token := form.Get("ClientToken")
	answer, again := p.launched[token]
	p.mu.Unlock()

	status := http.StatusOK
	switch {
	case code != "":
		status = http.StatusForbidden
		answer = fmt.Appendf(nil, `<?xml version="1.0"?><ErrorResponse><Error><Code>%s</Code><Message>refused by the test</Message></Error></ErrorResponse>`, code)
		if strings.Contains(c.authorization, "/ec2/") {
			answer = fmt.Appendf(nil, `<?xml version="1.0"?><Response><Errors><Error><Code>%s</Code><Message>refused by the test</Message></Error></Errors></Response>`, code)
		}
	case c.action == "RunInstances" && c.changes() && token != "" && again:
	default:
		req, err := http.NewRequest(r.Method, "http://"+p.moto+r.URL.RequestURI(), bytes.NewReader(body))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		req.Header = r.Header.Clone()
		req.Header.Del("Accept-Encoding")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		answer, err = io.ReadAll(res.Body)
		_ = res.Body.Close() // it was read to its end
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		status = res.StatusCode
		answer = bytes.ReplaceAll(answer, []byte(">172.31."), []byte(p.network))
		instances := bytes.SplitAfter(answer, []byte("<instanceId>")) // one that has ended has no public address
		for i := range instances {
			instances[i] = publicAddress.ReplaceAll(instances[i], []byte("$1$2$3$2"))
		}
		answer = bytes.Join(instances, nil)
		w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
	}
	p.mu.Lock()
	if c.action == "RunInstances" && c.changes() && status == http.StatusOK && token != "" {
		p.launched[token] = answer
	}
	killed := false
	if p.countTo > 0 && c.script && c.changes() && status == http.StatusOK && p.group > 0 && (p.passOver == nil || !p.passOver(p.cuts, c)) {
		if p.countTo--; p.countTo == 0 {
			killed, p.cut = true, c.action
			p.cuts[c.action]++
			_ = syscall.Kill(-p.group, syscall.SIGKILL) // it has not heard the answer
		}
	}
	p.mu.Unlock()
	if killed {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(status)
	_, _ = w.Write(answer) // a client that has gone does not want it
}

// aim tells which group of processes a cut kills.
func (p *awsProxy) aim(group int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.group = group
}

// cutAt kills the script at its n-th call that changes something.
func (p *awsProxy) cutAt(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.countTo, p.cut = n, ""
}

// wasCut returns the call that the script was killed at, "" if it was not.
func (p *awsProxy) wasCut() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.countTo = 0
	return p.cut
}

func (p *awsProxy) refuse(codes map[string]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused = codes
}

func (p *awsProxy) heard() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.calls)
}

// since returns the calls of scripts since so many were heard.
func (p *awsProxy) since(n int) (out []awsCall) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.calls[n:] {
		if c.script {
			out = append(out, c)
		}
	}
	return out
}
