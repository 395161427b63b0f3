package cli

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
	"workmanager/web/api"
)

// TestUnreachable runs every command that talks to a node, with nobody there.
func TestUnreachable(t *testing.T) {
	dead, free, err := ownAddr()
	if err != nil {
		t.Fatal(err)
	}
	defer free()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	const id = "0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801"
	lines := map[string]string{
		"enqueue":     file + " -n 5 --wait",
		"pull":        "--top 1",
		"results":     "--follow",
		"job get":     id,
		"job wait":    id,
		"job cancel":  id,
		"job receipt": id,
		"job explain": id,
		"job ls":      "",
		"status":      "--watch",
		"fleet ls":    "", "fleet explain": "", "fleet drain": "i-1", "fleet terminate": "i-1", "fleet pause": "", "fleet resume": "",
		"quarantine ls": "", "quarantine add": "w1", "quarantine lift": "w1",
		"worker": "--cutoff-timeout 1s --cores 1",
		"verify": id + " " + file,
	}
	var started []func()
	walk(testApp().Commands, "", func(name string, c *cli.Command) {
		if !asksNode(c) {
			return
		}
		if name == "doctor" { // that there is nobody is what it finds
			return
		}
		line, ok := lines[name]
		if !ok {
			t.Errorf("%s takes --node and is not tried here", name)
		}
		// All at once: each takes as long as the client tries.
		cmd := exec.CommandContext(t.Context(), "workmanager", strings.Fields(name+" "+line+" --node "+dead)...)
		stderr := new(bytes.Buffer)
		cmd.Stderr = stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		started = append(started, func() {
			err := cmd.Wait()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.ExitCode() != exitUnreachable || !strings.Contains(stderr.String(), "no node reachable") {
				t.Errorf("%v: %v, %s, want exit code %d", cmd.Args, err, stderr, exitUnreachable)
			}
		})
	})
	for _, wait := range started {
		wait()
	}
}

func TestSignals(t *testing.T) {
	t.Run("an_interrupt_is_130", func(t *testing.T) {
		asked := make(chan struct{}, 100)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked <- struct{}{}
			if r.URL.Query().Get("wait") == "" {
				io.WriteString(w, `{"results":[],"cursor":"c","more":false}`)
				return
			}
			<-r.Context().Done()
		}))
		defer s.Close()
		cmd := exec.CommandContext(t.Context(), "workmanager", "results", "--follow", "--node", s.URL)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-asked
		<-asked
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != exitInterrupted {
			t.Errorf("%v, %s, want exit code %d", err, &stderr, exitInterrupted)
		}
	})
	t.Run("SIGTERM_ends_a_node_with_0", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), "workmanager", "node", "--listen", "127.0.0.1:0", "--gossip", "", "--data-dir", t.TempDir()) // others may have the usual gossip
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		n, err := stderr.Read(buf) // the first line of its log: it runs
		if err != nil || !bytes.Contains(buf[:n], []byte("node runs")) {
			t.Errorf("first line = %q, %v", buf[:n], err)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(stderr) // ends with the process
		if err := cmd.Wait(); err != nil {
			t.Errorf("the node ended with %v: %s", err, rest)
		}
	})
}

func TestSpool(t *testing.T) {
	for _, n := range []int{0, 1, memoryBytes, memoryBytes + 1, 2*memoryBytes + 7} {
		want := bytes.Repeat([]byte("workmanager"), n/11+1)[:n]
		data, free, err := spool(bytes.NewReader(want))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // it can be read again
			body, size, err := data()
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(body)
			if err != nil || size != int64(n) || !bytes.Equal(got, want) {
				t.Errorf("spool of %d bytes: size %d, read %d, %v", n, size, len(got), err)
			}
			body.Close()
		}
		free()
	}
}

func TestRecompute(t *testing.T) {
	var chains []hashchain.Chain[int]
	for i := range 50 {
		data := []byte{byte(i)}
		chains = append(chains, hashchain.Chain[int]{Done: 1, Iterations: uint64(1 + i*i*7), Value: hashchain.Value(data, 1)})
	}
	values, err := recompute(t.Context(), chains, func(int, uint64) {})
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range values {
		if want := jobs.Value(hashchain.Value([]byte{byte(i)}, chains[i].Iterations)); got != want {
			t.Errorf("chain %d = %s, want %s", i, got, want)
		}
	}
}

func TestForecast(t *testing.T) {
	now := time.Date(2026, 11, 25, 14, 0, 0, 0, time.Local)
	at := func(d time.Duration) *time.Time { x := now.Add(d).UTC(); return &x }
	for want, s := range map[string]api.Status{
		"Nothing queued.": {Writable: true, Forecast: api.Forecast{Text: "Nothing queued"}},
		"b unreachable for 9 s. 5 jobs clear in about 35 min.":                               {Writable: true, Forecast: api.Forecast{State: "split", Text: "b unreachable for 9 s", Reason: "5 jobs clear in about 35 min.", LeftSeconds: 2100, DoneAt: at(35 * time.Minute)}},
		"3 jobs queued, measuring. No rate is known yet.":                                    {Writable: true, Forecast: api.Forecast{Text: "3 jobs queued, measuring", Reason: "No rate is known yet."}},
		"12,480 jobs clear in about 35 min (14:35). 6.3/s done.":                             {Writable: true, Forecast: api.Forecast{State: "draining", Text: "12,480 jobs clear in about 35 min", Reason: "6.3/s done.", LeftSeconds: 2100, DoneAt: at(35 * time.Minute)}},
		"2 jobs clear in about 5 s. 1/s done.":                                               {Writable: true, Forecast: api.Forecast{State: "draining", Text: "2 jobs clear in about 5 s", Reason: "1/s done.", LeftSeconds: 5, DoneAt: at(5 * time.Second)}},
		"1 job clears in about 30 days (2026-12-25).":                                        {Writable: true, Forecast: api.Forecast{State: "draining", Text: "1 job clears in about 30 days", LeftSeconds: 2592000, DoneAt: at(720 * time.Hour)}},
		"Submits are refused: 1 MiB left on the disk, 64 MiB are kept free. Nothing queued.": {WriteProblem: "1 MiB left on the disk, 64 MiB are kept free", Forecast: api.Forecast{Text: "Nothing queued"}},
	} {
		if got := forecast(s, now); got != want {
			t.Errorf("forecast = %q, want %q", got, want)
		}
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-1: "0s", 1234 * time.Microsecond: "1.2ms", 4567 * time.Millisecond: "4.6s", 42 * time.Second: "42s", 90 * time.Second: "1m30s",
		26 * time.Hour: "26h00m", 72 * time.Hour: "3 days", 70 * 365 * 24 * time.Hour: "70 years",
	} {
		if got := roughly(d); got != want {
			t.Errorf("roughly(%d) = %s, want %s", d, got, want)
		}
	}
	for f, want := range map[float64]string{0: "0", 6.34: "6.3", 999: "999", 12.9e6: "12.9M", 1e12: "1T", 1500: "1.5K"} {
		if got := number(f); got != want {
			t.Errorf("number(%g) = %s, want %s", f, got, want)
		}
	}
	for _, tc := range []struct {
		done, all uint64
		want      string
	}{{0, 0, "0%"}, {0, 5, "0%"}, {4999, 5000, "99%"}, {5, 5, "100%"}} {
		if got := share(tc.done, tc.all); got != tc.want {
			t.Errorf("share(%d, %d) = %s, want %s", tc.done, tc.all, got, tc.want)
		}
	}
}
