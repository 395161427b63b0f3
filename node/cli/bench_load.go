package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// load is what a generator measured.
type load struct {
	Generator string        `json:"generator"`
	Rate      float64       `json:"per_second"`
	P50       time.Duration `json:"p50_ns"`
	P99       time.Duration `json:"p99_ns"`
	Errors    int           `json:"errors"`
}

// put loads one URL with PUTs of a body over a number of connections: by wrk
// where it is, since it takes less of the cores it shares with the node, else
// by connections of our own.
func put(ctx context.Context, generator, url string, body []byte, connections int, lasting time.Duration) (load, error) {
	if _, err := exec.LookPath("wrk"); err == nil && generator != "go" {
		return putWrk(ctx, url, body, connections, lasting)
	}
	if generator == "wrk" {
		return load{}, errors.New("wrk is not on this machine: install it, or use --generator go")
	}
	return putGo(ctx, url, body, connections, lasting)
}

var (
	wrkRate   = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	wrkP50    = regexp.MustCompile(`50%\s+([0-9.]+(?:us|ms|s))`)
	wrkP99    = regexp.MustCompile(`99%\s+([0-9.]+(?:us|ms|s))`)
	wrkErrors = regexp.MustCompile(`Non-2xx or 3xx responses: ([0-9]+)`)
)

func putWrk(ctx context.Context, url string, body []byte, connections int, lasting time.Duration) (load, error) {
	script, err := os.CreateTemp("", "workmanager-bench-*.lua")
	if err != nil {
		return load{}, fmt.Errorf("write the script of wrk: %w", err)
	}
	defer os.Remove(script.Name())
	_, err = fmt.Fprintf(script, "wrk.method = 'PUT'\nwrk.body = string.rep('x', %d)\nwrk.headers['Content-Type'] = 'application/octet-stream'\n", len(body))
	if err := errors.Join(err, script.Close()); err != nil {
		return load{}, fmt.Errorf("write the script of wrk: %w", err)
	}
	out, err := exec.CommandContext(ctx, "wrk", "-t1", fmt.Sprint("-c", connections), fmt.Sprintf("-d%ds", max(int(lasting.Seconds()), 1)), "--latency", "-s", script.Name(), url).CombinedOutput()
	if err != nil {
		return load{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	l := load{Generator: "wrk"}
	if m := wrkRate.FindSubmatch(out); m != nil {
		l.Rate, _ = strconv.ParseFloat(string(m[1]), 64) // the pattern is a number
	} else {
		return load{}, fmt.Errorf("wrk said nothing of a rate: %s", out)
	}
	for _, q := range []struct {
		re *regexp.Regexp
		to *time.Duration
	}{{wrkP50, &l.P50}, {wrkP99, &l.P99}} {
		if m := q.re.FindSubmatch(out); m != nil {
			*q.to, _ = time.ParseDuration(string(m[1])) // the pattern is a duration
		}
	}
	if m := wrkErrors.FindSubmatch(out); m != nil {
		l.Errors, _ = strconv.Atoi(string(m[1])) // the pattern is a number
	}
	return l, nil
}

// putGo is a closed loop a connection: one request, its answer, the next.
func putGo(ctx context.Context, url string, body []byte, connections int, lasting time.Duration) (load, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, bytes.NewReader(body))
	if err != nil {
		return load{}, err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	var raw bytes.Buffer
	if err := req.Write(&raw); err != nil {
		return load{}, err
	}
	end := time.Now().Add(lasting)
	var mu sync.Mutex // guards the sums
	var all []time.Duration
	var failed int
	var first error
	var wg sync.WaitGroup
	begin := time.Now()
	for range connections {
		wg.Go(func() {
			took, bad, err := putLoop(ctx, req.URL.Host, raw.Bytes(), end)
			mu.Lock()
			defer mu.Unlock()
			all, failed = append(all, took...), failed+bad
			if first == nil {
				first = err
			}
		})
	}
	wg.Wait()
	if first != nil || len(all) == 0 {
		return load{}, fmt.Errorf("load %s: %w", url, first)
	}
	slices.Sort(all)
	return load{Generator: "go", Rate: float64(len(all)) / time.Since(begin).Seconds(), P50: all[len(all)/2], P99: all[len(all)*99/100], Errors: failed}, nil
}

func putLoop(ctx context.Context, host string, raw []byte, end time.Time) (took []time.Duration, failed int, err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, 0, err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for ctx.Err() == nil {
		sent := time.Now()
		if sent.After(end) {
			break
		}
		if _, err := conn.Write(raw); err != nil {
			return took, failed, err
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return took, failed, err
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return took, failed, err
		}
		if res.StatusCode/100 != 2 {
			failed++
		}
		took = append(took, time.Since(sent))
	}
	return took, failed, nil
}

// child is a process of this binary under measurement.
type child struct {
	cmd *exec.Cmd
	url string
}

// spawn starts this binary with args and --listen on a free port, and waits
// until it answers. It returns how long that took.
func spawn(ctx context.Context, args ...string) (*child, time.Duration, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, 0, fmt.Errorf("find this binary: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, 0, fmt.Errorf("find a free port: %w", err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, 0, fmt.Errorf("find a free port: %w", err)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, self, append(args, "--listen", addr)...)
	cmd.Stderr = &stderr
	cmd.Env = ownEnvironment()
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, 0, fmt.Errorf("start %s: %w", strings.Join(args, " "), err)
	}
	c := &child{cmd: cmd, url: "http://" + addr}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for time.Since(begin) < time.Minute {
		res, err := http.Get(c.url + "/readyz")
		if err == nil {
			_ = res.Body.Close() // only the answer counts
			return c, time.Since(begin), nil
		}
		select {
		case <-ctx.Done():
			return nil, 0, errors.Join(ctx.Err(), c.stop())
		case <-tick.C:
		}
	}
	return nil, 0, errors.Join(fmt.Errorf("%s did not answer within a minute: %s", strings.Join(args, " "), stderr.Bytes()), c.stop())
}

// ownEnvironment is that of a process under measurement: no setting of this one
// reaches it.
func ownEnvironment() []string {
	others := slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "WORKMANAGER_") })
	return append(others, "WORKMANAGER_LOG_LEVEL=warn")
}

// stop ends the process as its operator would.
func (c *child) stop() error {
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		return fmt.Errorf("stop the process under measurement: %w", err)
	}
	return c.cmd.Wait()
}

// resident returns the process's resident memory in bytes, 0 where the system
// does not tell.
func (c *child) resident() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kb, _ := strconv.ParseInt(f[1], 10, 64) // the kernel writes a number
			return kb << 10
		}
	}
	return 0
}
