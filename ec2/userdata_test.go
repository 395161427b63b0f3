package ec2_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"workmanager/ec2"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	certificate = "-----BEGIN CERTIFICATE-----\nbm8gcmVhbCBvbmU=\n-----END CERTIFICATE-----"
	sumA        = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	sumB        = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func userData() ec2.UserData {
	return ec2.UserData{
		Nodes: []string{"https://10.0.0.1:5000", "https://10.0.1.1:5000"}, CA: certificate, BinaryPath: "/worker/binary/", HealthPath: "/healthz",
		SHA256: map[string]string{"amd64": sumA, "arm64": sumB}, Args: []string{"--idle-timeout", "90s", "--cutoff-timeout", "10m"},
	}
}

func TestUserData(t *testing.T) {
	got, err := userData().Render()
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "userdata.sh")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the script is not %s; see what differs after go test -update:\n%s", golden, got)
	}
	for _, secret := range []string{"PRIVATE", "password", "AKIA"} {
		if bytes.Contains(got, []byte(secret)) {
			t.Errorf("the script has %s in it", secret)
		}
	}
	path, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Skip("SKIPPED: shellcheck is not installed")
	}
	if out, err := exec.Command(path, golden).CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
}

func TestUserData_invalid(t *testing.T) {
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}))
	for name, set := range map[string]func(u *ec2.UserData){
		"no node":         func(u *ec2.UserData) { u.Nodes = nil },
		"node's scheme":   func(u *ec2.UserData) { u.Nodes[0] = "file:///etc" },
		"no TLS":          func(u *ec2.UserData) { u.Nodes[0] = "http://10.0.0.1:5000" },
		"node's quote":    func(u *ec2.UserData) { u.Nodes[0] = "https://a'b:5000" },
		"node's password": func(u *ec2.UserData) { u.Nodes[0] = "https://a:b@host:5000" },
		"argument":        func(u *ec2.UserData) { u.Args = []string{"--name", "a b"} },
		"specifier":       func(u *ec2.UserData) { u.Args = []string{"--name=%H"} },
		"variable":        func(u *ec2.UserData) { u.Args = []string{"$HOME"} },
		"path":            func(u *ec2.UserData) { u.BinaryPath = "/x;y" },
		"sum":             func(u *ec2.UserData) { u.SHA256["amd64"] = "abc" },
		"no sum":          func(u *ec2.UserData) { u.SHA256 = nil },
		"key":             func(u *ec2.UserData) { u.CA = key },
		"key behind":      func(u *ec2.UserData) { u.CA += "\n" + key },
		"text":            func(u *ec2.UserData) { u.CA = "CA\nrm -rf /\n" },
		"size":            func(u *ec2.UserData) { u.CA = strings.Repeat(certificate+"\n", 300) },
	} {
		u := userData()
		set(&u)
		if out, err := u.Render(); err == nil {
			t.Errorf("%s: rendered:\n%.300s", name, out)
		}
	}
}

// TestUserData_runs runs the script as it would run on an instance, with the
// commands of systemd replaced by ones that write down what is asked of them.
func TestUserData_runs(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("SKIPPED: python3 is not installed, which cloud images have")
	}
	arch := runtime.GOARCH
	if arch != "amd64" && arch != "arm64" {
		t.Skip("SKIPPED: no program for " + arch)
	}
	program := []byte("#!/bin/sh\necho \"$@\"\n")
	sum := sha256.Sum256(program)
	var asked atomic.Int32
	node := func(body []byte) *httptest.Server {
		s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/worker/binary/" + arch:
				asked.Add(1)
				_, _ = w.Write(body)
			case "/healthz":
			default:
				http.NotFound(w, r)
			}
		}))
		t.Cleanup(s.Close)
		return s
	}
	run := func(t *testing.T, u ec2.UserData) (dir string, calls string, err error) {
		t.Helper()
		script, err := u.Render()
		if err != nil {
			t.Fatal(err)
		}
		dir = t.TempDir()
		bin, log := filepath.Join(dir, "bin"), filepath.Join(dir, "calls")
		if err := os.MkdirAll(bin, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"systemctl", "systemd-run", "shutdown"} {
			stub := fmt.Sprintf("#!/bin/sh\necho %s \"$@\" >>%s\n", name, log)
			if err := os.WriteFile(filepath.Join(bin, name), []byte(stub), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("/bin/sh")
		cmd.Stdin = bytes.NewReader(script)
		cmd.Env = []string{
			"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + dir, "WORKMANAGER_PREFIX=" + dir, "WORKMANAGER_PAUSE=0.05",
			"https_proxy=http://127.0.0.1:1", "http_proxy=http://127.0.0.1:1",
		}
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		text, readErr := os.ReadFile(log)
		if readErr != nil {
			t.Fatal(readErr)
		}
		return dir, string(text), err
	}
	good, bad := node(program), node([]byte("something else"))
	u := userData()
	u.Nodes = []string{bad.URL, good.URL}
	u.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good.Certificate().Raw}))
	u.SHA256 = map[string]string{arch: hex.EncodeToString(sum[:])}
	u.FetchTime = time.Second

	t.Run("well", func(t *testing.T) {
		dir, calls, err := run(t, u)
		if err != nil {
			t.Fatal(err)
		}
		if want := "systemd-run --quiet --unit=workmanager-limit --on-active=10m systemctl poweroff\n"; !strings.HasPrefix(calls, want) {
			t.Errorf("the first call is not %q:\n%s", want, calls)
		}
		if want := "systemctl start workmanager-end.timer workmanager-renew.timer workmanager-worker.service\n"; !strings.HasSuffix(calls, want) {
			t.Errorf("the last call is not %q:\n%s", want, calls)
		}
		if strings.Count(calls, "poweroff") != 1 {
			t.Errorf("the instance ends:\n%s", calls)
		}
		unit, err := os.ReadFile(filepath.Join(dir, "etc/systemd/system/workmanager-worker.service"))
		if err != nil {
			t.Fatal(err)
		}
		exe := filepath.Join(dir, "opt/workmanager/workmanager")
		want := fmt.Sprintf("ExecStart=%s worker --ec2 --ca %s --node %s --node %s --idle-timeout 90s --cutoff-timeout 10m\n", exe, filepath.Join(dir, "opt/workmanager/ca.pem"), bad.URL, good.URL)
		if !strings.Contains(string(unit), want) {
			t.Errorf("the unit has no %q:\n%s", want, unit)
		}
		if out, err := exec.Command(exe, "well").CombinedOutput(); err != nil || string(out) != "well\n" {
			t.Errorf("the program says %q, %v", out, err)
		}
		if verify, err := exec.LookPath("systemd-analyze"); err == nil {
			out, err := exec.Command(verify, "verify", filepath.Join(dir, "etc/systemd/system/workmanager-worker.service")).CombinedOutput()
			t.Logf("systemd-analyze: %v %s", err, out)
		}
		renew := exec.Command(filepath.Join(dir, "opt/workmanager/renew"))
		renew.Env = []string{"PATH=" + filepath.Join(dir, "bin") + ":" + os.Getenv("PATH")}
		if out, err := renew.CombinedOutput(); err != nil {
			t.Errorf("renew: %v\n%s", err, out)
		}
		after, err := os.ReadFile(filepath.Join(dir, "calls"))
		if err != nil || !strings.HasSuffix(string(after), "systemctl restart workmanager-end.timer\nsystemctl stop workmanager-limit.timer\n") {
			t.Errorf("the end is not put off: %v\n%s", err, after)
		}
	})
	ends := func(t *testing.T, u ec2.UserData) {
		t.Helper()
		dir, calls, err := run(t, u)
		if err == nil || !strings.HasSuffix(calls, "systemctl poweroff\n") || strings.Count(calls, "\n") != 2 {
			t.Errorf("the instance does not end: %v\n%s", err, calls)
		}
		if _, err := os.Stat(filepath.Join(dir, "opt/workmanager/workmanager")); err == nil {
			t.Error("the program is installed")
		}
	}
	t.Run("wrong sum", func(t *testing.T) {
		u := u
		u.Nodes, u.FetchTime = []string{bad.URL, bad.URL}, time.Hour
		asked.Store(0)
		ends(t, u)
		if n := asked.Load(); n != 6 {
			t.Errorf("the nodes were asked %d times, want three times each", n)
		}
	})
	t.Run("node that nobody vouches for", func(t *testing.T) {
		u := u
		u.CA = certificateOf(t)
		asked.Store(0)
		ends(t, u)
		if n := asked.Load(); n > 0 {
			t.Errorf("%d requests to a node of another CA", n)
		}
	})
	t.Run("no program for this machine", func(t *testing.T) {
		u := u
		u.SHA256 = map[string]string{map[string]string{"amd64": "arm64", "arm64": "amd64"}[arch]: sumA}
		ends(t, u)
	})
}
