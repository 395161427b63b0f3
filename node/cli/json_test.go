package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

// TestEveryCommandAsJSON runs every command there is with -o json and reads what
// it prints: one document, also where it is an error.
func TestEveryCommandAsJSON(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	env := append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, twinPrefix) }), "WORKMANAGER_NODE="+addr)

	// The two that go on print what they are, and then go on.
	long := func(args ...string) (first map[string]any) {
		t.Helper()
		cmd := exec.Command("workmanager", append(args, "-o", "json")...)
		cmd.Env = env
		cmd.Stderr = io.Discard
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
			_, _ = io.Copy(io.Discard, out)
			_ = cmd.Wait()
		})
		if err := json.NewDecoder(out).Decode(&first); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return first
	}
	if got := long("node", "--listen", addr, "--gossip", "127.0.0.1:0", "--data-dir", filepath.Join(dir, "data")); got["url"] != "http://"+addr || got["node"] != "a" || got["gossip"] == nil {
		t.Errorf("node: %v", got)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		res, err := http.Get("http://" + addr + "/readyz")
		if err == nil {
			res.Body.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if got := long("worker", "--name", "w", "--cores", "1"); got["worker"] != "w" || got["nodes"] == nil {
		t.Errorf("worker: %v", got)
	}

	run := func(line string) (out, errs string, code int) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "workmanager", append(strings.Fields(line), "-o", "json")...)
		cmd.Env, cmd.Dir = env, dir
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run() // the code tells
		return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
	}
	document := func(text string) (v any, ok bool) {
		d := json.NewDecoder(strings.NewReader(text))
		err := d.Decode(&v)
		return v, err == nil && !d.More()
	}
	out, _, _ := run("enqueue file -n 5 --wait")
	v, ok := document(out)
	if !ok {
		t.Fatalf("enqueue: %q", out)
	}
	id := v.(map[string]any)["jobs"].([]any)[0].(map[string]any)["id"].(string)
	receipt, _, _ := run("job receipt " + id)
	if err := os.WriteFile(filepath.Join(dir, "receipt"), []byte(receipt), 0o600); err != nil {
		t.Fatal(err)
	}

	// By name: the rest of the line, and the exit code. A command that is not here
	// fails the test.
	lines := map[string]struct {
		rest string
		code int
	}{
		"node": {"--listen nowhere", exitUsage}, "worker": {"--cores -1", exitUsage}, // and above
		"init":    {"--out keys --node a=127.0.0.1 --node b=127.0.0.2", 0},
		"enqueue": {"file file -n 5", 0}, "pull": {"--top 1", 0}, "results": {"", 0},
		"job": {"nothing", exitUsage}, "job get": {id, 0}, "job wait": {id, 0}, "job cancel": {id, 0}, "job receipt": {id, 0}, "job ls": {"", 0}, "job explain": {id, 0},
		"status": {"", 0}, "verify": {id + " file", 0},
		"fleet": {"nothing", exitUsage}, "fleet ls": {"", 0}, "fleet explain": {"", 0}, "fleet drain": {"i-1", exitNotFound}, "fleet terminate": {"i-1", exitNotFound},
		"fleet pause": {"", exitNotFound}, "fleet resume": {"", exitNotFound},
		"quarantine": {"nothing", exitUsage}, "quarantine ls": {"", 0}, "quarantine add": {"w9 --reason test", 0}, "quarantine lift": {"w9", 0},
		"token": {"nothing", exitUsage}, "token create": {"--keys keys --name x", 0}, "token ls": {"--keys keys", 0}, "token revoke": {"--keys keys nosuch", exitNotFound},
		"bench": {"nothing", exitUsage}, "bench hash": {"--repetitions 1", 0}, "bench queue": {"--only idle --jobs 100 --waiting 0 --lasting 100ms", 0},
		"demo": {"--jobs 19", exitUsage}, "simulate": {"--runs 2 --steps 50", 0}, "simulate fleet": {"--drain-time 0s", exitUsage},
		"backup": {"--data-dir data --out copy", 0}, "backup verify": {"copy", 0}, "restore": {"copy --data-dir restored", 0},
		"doctor": {"", 0}, "help": {"examples", 0}, "version": {"", 0},
		"completion": {"nothing", exitUsage}, "completion bash": {"", 0}, "completion zsh": {"", 0}, "completion fish": {"", 0}, "completion powershell": {"", 0},
	}
	order := []string{"init"} // makes what others need
	walk(testApp().Commands, "", func(name string, c *cli.Command) {
		if c.Hidden || name == "init" {
			return
		}
		if _, known := lines[name]; !known {
			t.Errorf("%s is not tried here with -o json", name)
			return
		}
		order = append(order, name)
	})
	for _, name := range order {
		line := lines[name]
		out, errs, code := run(name + " " + line.rest)
		if code != line.code {
			t.Errorf("%s %s: exit code %d, want %d: %s", name, line.rest, code, line.code, errs)
		}
		if code == 0 {
			if _, ok := document(out); !ok {
				t.Errorf("%s %s printed %q, want one JSON document", name, line.rest, out)
			}
			continue
		}
		v, ok := document(errs)
		body, _ := v.(map[string]any)
		e, _ := body["error"].(map[string]any)
		if !ok || e["code"] == nil || e["message"] == nil {
			t.Errorf("%s %s said %q, want an error in JSON", name, line.rest, errs)
		}
	}
	if out, _, code := run("init --out keys --renew"); code != 0 || !strings.Contains(out, `"renewed"`) {
		t.Errorf("init --renew: %d, %q", code, out)
	}
	if err := os.Mkdir(filepath.Join(dir, "backups"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := run("backup --data-dir data --out backups --keep 1"); code != 0 || !strings.Contains(out, "backups/workmanager-a-") {
		t.Errorf("backup into a folder: %d, %q %q", code, out, errs)
	}
	if out, _, code := run("verify --receipt receipt"); code != 0 {
		t.Errorf("verify --receipt: %d, %q", code, out)
	} else if _, ok := document(out); !ok {
		t.Errorf("verify --receipt printed %q", out)
	}
}
