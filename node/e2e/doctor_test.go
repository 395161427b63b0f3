package e2e

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"workmanager/node/keys"
)

// finding is what doctor says of one thing.
type finding struct{ Check, State, What, Next string }

// doctor runs it, by a command that runs the binary, and returns what it found.
func doctor(t *testing.T, prefix []string, args ...string) (found []finding, code int) {
	t.Helper()
	argv := append(append([]string{}, prefix...), append([]string{binary, "doctor", "-o", "json"}, args...)...)
	p := launch(t, "doctor", argv...)
	code = p.wait(downTimeout)
	return findings(t, p.out.String(), code), code
}

func findings(t *testing.T, text string, code int) []finding {
	t.Helper()
	var d struct {
		OK       bool
		Findings []finding
	}
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatalf("doctor said %q: %v", text, err)
	}
	bad := 0
	for _, f := range d.Findings {
		if f.State == "fail" {
			bad++
		}
		if (f.State == "fail" || f.State == "warn") && f.Next == "" {
			t.Errorf("%+v does not say what to do", f)
		}
	}
	if d.OK != (bad == 0) || (code == 0) != d.OK {
		t.Errorf("ok is %t and the exit code %d with %d failed", d.OK, code, bad)
	}
	return d.Findings
}

// told holds that something is found with those words.
func told(t *testing.T, found []finding, check, state, what, next string) {
	t.Helper()
	for _, f := range found {
		if f.Check == check && f.State == state && strings.Contains(f.What, what) && strings.Contains(f.Next, next) {
			return
		}
	}
	t.Errorf("no %s of %s with %q and the way on %q in\n%v", state, check, what, next, found)
}

// TestDoctorPair runs it on one machine of a pair: in step, with UDP between the
// two shut, and with the other one dead.
func TestDoctorPair(t *testing.T) {
	t.Parallel()
	p := newNetPair(t)
	look := func() []finding {
		t.Helper()
		out, err := p.a.host.Run(binary, "doctor", "-o", "json", "--node", p.a.addr, "--node", p.b.addr, "--data-dir", p.a.dir, "--timeout", "1s")
		code := 0
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			code = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		return findings(t, string(out), code)
	}
	var found []finding
	poll(t, syncTimeout, "nothing is found of a pair that is well", func() string { // a busy machine may be late with an answer
		found = look()
		for _, f := range found {
			if f.State == "fail" || f.State == "warn" {
				return fmt.Sprintf("%+v", f)
			}
		}
		return ""
	})
	told(t, found, "port", "ok", "gossip at "+p.b.gossip+" answers by UDP", "")
	told(t, found, "port", "ok", "gossip at "+p.b.gossip+" answers by TCP", "")
	told(t, found, "peer", "ok", "node a and node b are in step", "")
	told(t, found, "disk", "ok", p.a.dir, "")

	p.net.Both(p.a.host, p.b.host, Rule{Cut: true, Match: udpOnly})
	poll(t, syncTimeout, "TCP is found to be open all the same", func() string { // as above
		found = look()
		for _, f := range found {
			if f.Check == "port" && f.State == "fail" && strings.Contains(f.What, "TCP") {
				return fmt.Sprintf("%+v", f)
			}
		}
		return ""
	})
	told(t, found, "port", "fail", "gossip at "+p.b.gossip+", UDP: no answer in 1s", "let UDP to "+p.b.gossip)
	told(t, found, "port", "ok", "gossip at "+p.b.gossip+" answers by TCP", "")
	p.net.Heal()

	p.b.kill()
	poll(t, syncTimeout, "node a misses node b", func() string {
		if s := p.a.session(); s != "down" {
			return s
		}
		return ""
	})
	found = look()
	told(t, found, "peer", "fail", "node a: b does not answer since", "is the other node running?")
	told(t, found, "port", "fail", "the API at "+p.b.addr+", TCP: ", "")
}

// TestDoctorKeys meets what can be wrong with the keys of a node and with what a
// node shows.
func TestDoctorKeys(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "keys")
	made := initKeys(t, dir)
	a := filepath.Join(dir, "a")
	n := startClosed(t, dir, "a")
	token := []string{"env", "WORKMANAGER_TOKEN=" + made.Tokens["client"]}
	url := "https://" + n.addr

	found, _ := doctor(t, token, "--keys", a, "--node", url)
	told(t, found, "keys", "ok", a, "")
	told(t, found, "certificate", "ok", "the certificate in "+a, "")
	told(t, found, "certificate", "ok", "that of "+url, "")
	told(t, found, "peer", "warn", "has no peer", "--join")
	told(t, found, "database", "ok", "node a keeps 0 jobs", "")

	found, _ = doctor(t, nil, "--keys", a, "--node", url)
	told(t, found, "status", "fail", url, "WORKMANAGER_TOKEN")
	found, _ = doctor(t, token, "--node", url) // without --ca
	told(t, found, "certificate", "fail", "unknown authority", "--ca")
	found, _ = doctor(t, token, "--node", strings.Replace(url, "127.0.0.1", "localhost", 1), "--keys", a)
	told(t, found, "certificate", "ok", "localhost", "")

	key := filepath.Join(a, "node.key")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	found, code := doctor(t, token, "--keys", a, "--node", url)
	told(t, found, "keys", "fail", "its mode is 0644", "chmod 600 "+key)
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	found, _ = doctor(t, token, "--keys", dir, "--node", url)
	told(t, found, "keys", "fail", "the folder of the whole pair", "one node's folder")

	// Made two years ago, for one: in the folder, and shown by a server.
	old := filepath.Join(t.TempDir(), "old")
	if _, err := keys.Init(old, []keys.Host{{Node: "a", Hosts: []string{"127.0.0.1"}}, {Node: "b"}}, keys.NodeTTL, time.Now().AddDate(-2, 0, 0), func(keys.Made) string { return "" }); err != nil {
		t.Fatal(err)
	}
	oldA := filepath.Join(old, "a")
	pair, err := tls.LoadX509KeyPair(filepath.Join(oldA, "node.crt"), filepath.Join(oldA, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.StartTLS()
	defer s.Close()
	found, _ = doctor(t, nil, "--keys", oldA, "--node", s.URL)
	told(t, found, "certificate", "fail", "certificate has expired", "init --out DIR --renew")
	told(t, found, "certificate", "fail", "that of "+s.URL, "copy node.crt")
	if err := os.Remove(filepath.Join(oldA, "gossip.key")); err != nil {
		t.Fatal(err)
	}
	found, _ = doctor(t, nil, "--keys", oldA, "--node", s.URL)
	told(t, found, "keys", "fail", "gossip.key", "copy the node's folder")
}

// startClosed runs a node of dir over TLS.
func startClosed(t *testing.T, dir, name string) *node {
	t.Helper()
	addr := freeAddr(t)
	p := launch(t, "node "+name, binary, "node", "--keys", filepath.Join(dir, name), "--listen", addr, "--gossip", "", "--data-dir", filepath.Join(t.TempDir(), "data"), "--workers", "0", "--log-format", "text")
	n := &node{process: p, addr: addr, http: secure(t, dir)}
	poll(t, upTimeout, p.name+" serves", func() string {
		if !n.running() {
			t.Fatalf("%s ended at its start: %s", p.name, n.log.String())
		}
		return n.answers("", "GET", "/readyz", 200)
	})
	return n
}

// TestDoctorAlone meets a machine without a node, a disk that is full, a folder
// that others may read, a setting that is misspelt, and a fleet without rights.
func TestDoctorAlone(t *testing.T) {
	t.Parallel()
	dead := freeAddr(t)
	found, code := doctor(t, []string{"env", "WORKMANAGER_NODES=x"}, "--node", dead)
	told(t, found, "port", "fail", "connection refused", "is the node running?")
	told(t, found, "environment", "warn", "WORKMANAGER_NODES (did you mean WORKMANAGER_NODE?)", "")
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	found, _ = doctor(t, nil, "--node", dead, "--data-dir", open)
	told(t, found, "data folder", "fail", "its mode is 0755", "chmod 700 "+open)

	l, err := net.Listen("tcp", "127.0.0.1:0") // TCP is open there, and UDP is not
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	found, _ = doctor(t, nil, "--node", dead, "--join", l.Addr().String(), "--timeout", "2s")
	told(t, found, "port", "ok", "gossip at "+l.Addr().String()+" answers by TCP", "")
	told(t, found, "port", "fail", "UDP: no answer in 2s", "let UDP to")

	denied := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You are not authorized to perform this operation.</Message></Error></Errors><RequestID>x</RequestID></Response>`))
	}))
	defer denied.Close()
	found, _ = doctor(t, []string{"env", "AWS_ENDPOINT_URL_EC2=" + denied.URL, "AWS_REGION=eu-west-1", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x"},
		"--node", dead, "--fleet", "ec2", "--cluster", "x", "--ami", "ami-1", "--subnets", "subnet-1", "--types", "c7a.large")
	told(t, found, "AWS", "fail", "may not ec2:RunInstances", "let the role of the nodes do ec2:RunInstances")
	told(t, found, "AWS", "fail", "may not ec2:DescribeInstances", "")
}

// TestDoctorDiskFull looks at a real disk that is full.
func TestDoctorDiskFull(t *testing.T) {
	t.Parallel()
	canMount(t, "mkfs.ext4")
	ns := newNamespace(t)
	dir := t.TempDir()
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", "-m", "0", image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := ns.run("mount", "-o", "loop", image, mnt); err != nil {
		skip(t, "%v", err)
	}
	data := filepath.Join(mnt, "data")
	if err := ns.run("mkdir", "-m", "0700", data); err != nil {
		t.Fatal(err)
	}
	dead := freeAddr(t)
	found, _ := doctor(t, ns.enter(), "--node", dead, "--data-dir", data)
	told(t, found, "disk", "ok", data+" has", "")
	fill(t, ns.path(filepath.Join(mnt, "ballast")))
	found, _ = doctor(t, ns.enter(), "--node", dead, "--data-dir", data)
	told(t, found, "disk", "fail", "new jobs are refused", "make room")
}
