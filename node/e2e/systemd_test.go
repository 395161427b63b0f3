package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSystemd is what systemd hears of a node: READY when it serves, then that it
// works and how it is, and at the end that it stops.
func TestSystemd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	sock := filepath.Join(dir, "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: sock, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	next := func() string {
		t.Helper()
		b := make([]byte, 4096)
		if err := l.SetReadDeadline(time.Now().Add(upTimeout)); err != nil {
			t.Fatal(err)
		}
		n, err := l.Read(b)
		if err != nil {
			t.Fatalf("nothing was said: %v", err)
		}
		return string(b[:n])
	}
	n := start(t, filepath.Join(dir, "data"), []string{"env", "NOTIFY_SOCKET=" + sock, "WATCHDOG_USEC=600000"})
	first := next()
	for _, want := range []string{"READY=1", "WATCHDOG=1", "STATUS="} {
		if !strings.Contains("\n"+first, "\n"+want) {
			t.Errorf("first %q, want %s in it", first, want)
		}
	}
	for range 3 {
		if got := next(); !strings.Contains(got, "WATCHDOG=1") || strings.Contains(got, "READY") {
			t.Errorf("then %q, want that it works", got)
		}
	}
	n.stop()
	for got := next(); ; got = next() {
		if strings.HasPrefix(got, "STOPPING=1") {
			break
		}
	}
}

// TestUnit: the unit files, by hand and as deployed, are ones that systemd takes,
// hear from the watchdog, and close what can be closed.
func TestUnit(t *testing.T) {
	t.Parallel()
	need(t, false, "systemd-analyze")
	for _, name := range []string{"../../scripts/workmanager.service", "../../scripts/deploy/workmanager.service"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		for _, line := range []string{"Type=notify", "WatchdogSec=60s", "Restart=on-failure"} {
			if !strings.Contains(text, "\n"+line+"\n") {
				t.Errorf("%s has no %s", name, line)
			}
		}
		unit := filepath.Join(t.TempDir(), "workmanager.service")
		for _, installed := range []string{"/usr/local/bin/workmanager", "/opt/workmanager/workmanager"} {
			text = strings.ReplaceAll(text, installed, binary)
		}
		if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", unit).CombinedOutput(); err != nil || strings.Contains(string(out), unit) {
			t.Errorf("%s: systemd-analyze verify: %v\n%s", name, err, out)
		}
		if out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=yes", "--threshold=20", unit).CombinedOutput(); err != nil {
			t.Errorf("%s is more open than 2.0 of 10: %v\n%s", name, err, out)
		}
	}
}
