package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"workmanager/node"
	"workmanager/web/api"
)

func (p *program) benchQueueCommand() *cli.Command {
	return &cli.Command{
		Name:  "queue",
		Usage: "measure a node of this machine, on real sockets and the real disk",
		Description: "Starts nodes as processes of their own in a temporary folder and loads them from\n" +
			"this one, on the same cores. Each figure stands beside a bare baseline of the same\n" +
			"run: a handler that does nothing, SQLite alone, SHA-512 alone, taken\nbefore and after each load; values are medians of three. Takes about three minutes.",
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "lasting", Usage: "`DURATION` of each load", Value: 4 * time.Second},
			&cli.IntFlag{Name: "connections", Usage: "`N` connections of the load", Value: 64},
			&cli.IntFlag{Name: "jobs", Usage: "`N` jobs of each batch", Value: 200_000},
			&cli.IntFlag{Name: "waiting", Usage: "`N` waiting jobs of the memory figures; 0 leaves them out", Value: 1_000_000},
			&cli.GenericFlag{Name: "generator", Usage: "`NAME`: auto, wrk, go; auto is wrk where it is", Value: &choice{"auto", []string{"auto", "wrk", "go"}}},
			&cli.StringSliceFlag{Name: "only", Usage: "measure only `PART`: enqueue, batch, tiny, remote, large, idle, waiting; repeatable"},
			&cli.StringFlag{Name: "dir", Usage: "`FOLDER` for the databases: the disk to measure", Value: os.TempDir()},
			reportFlag(),
		},
		Action: p.benchQueue,
	}
}

// benchBareCommand serves a handler that does nothing: the baseline of bench
// queue, in a process of its own as a node is.
func (p *program) benchBareCommand() *cli.Command {
	return &cli.Command{
		Name:   "bare",
		Hidden: true,
		Flags:  []cli.Flag{&cli.StringFlag{Name: "listen", Required: true}},
		Action: func(c *cli.Context) error {
			l, err := net.Listen("tcp", c.String("listen"))
			if err != nil {
				return err
			}
			s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })}
			stop := context.AfterFunc(c.Context, func() { _ = s.Close() })
			defer stop()
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		},
	}
}

// figure is one line of the bench.
type figure struct {
	Name     string  `json:"name"`
	Value    float64 `json:"value"`
	Unit     string  `json:"unit"`
	Note     string  `json:"note,omitempty"`
	Baseline string  `json:"baseline,omitempty"`
	Ratio    float64 `json:"ratio,omitempty"` // of the baseline
}

// queueBench collects the figures of one run.
type queueBench struct {
	p         *program
	dir       string
	lasting   time.Duration
	generator string
	conns     int
	jobs      int
	waiting   int
	figures   []figure
}

func (p *program) benchQueue(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(c.String("dir"), "workmanager-bench-")
	if err != nil {
		return fmt.Errorf("make a folder for the databases: %w", err)
	}
	defer os.RemoveAll(dir)
	b := &queueBench{p: p, dir: dir, lasting: c.Duration("lasting"), generator: c.Generic("generator").(*choice).value,
		conns: c.Int("connections"), jobs: c.Int("jobs"), waiting: c.Int("waiting")}
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"enqueue", b.enqueue}, {"batch", b.batches}, {"tiny", b.tiny}, {"remote", b.remote}, {"large", b.large}, {"idle", b.idle}, {"waiting", b.backlog},
	} {
		if only := c.StringSlice("only"); len(only) > 0 && !slices.Contains(only, part.name) {
			continue
		}
		if isTerminal(p.stderr) {
			p.say("measuring %s", part.name)
		}
		if err := part.run(c.Context); err != nil {
			return fmt.Errorf("measure %s: %w", part.name, err)
		}
	}
	out := struct {
		Machine machine  `json:"machine"`
		Figures []figure `json:"figures"`
	}{thisMachine(), b.figures}
	if f := format(c); f != formatTable {
		return p.printJSON(f, out)
	}
	m := out.Machine
	fmt.Fprintf(p.stdout, "%s/%s, %d CPUs, %s; node and load on the same cores, synchronous=FULL\n", m.OS, m.Arch, m.CPUs, m.Go)
	rows := make([][]any, len(b.figures))
	for i, f := range b.figures {
		ratio := ""
		if f.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f of %s", f.Ratio, f.Baseline)
		}
		rows[i] = []any{f.Name, fmt.Sprintf("%.4g", f.Value), f.Unit, f.Note, ratio}
	}
	return p.printTable([]string{"WHAT", "VALUE", "UNIT", "HOW", "RATIO"}, rows)
}

func (b *queueBench) add(f figure) { b.figures = append(b.figures, f) }

// node starts a node in a new folder of its own.
func (b *queueBench) node(ctx context.Context, name string, args ...string) (*child, error) {
	dir, err := os.MkdirTemp(b.dir, name+"-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for a node: %w", err)
	}
	c, _, err := spawn(ctx, append([]string{"node", "--data-dir", dir}, args...)...)
	return c, err
}

func (b *queueBench) enqueue(ctx context.Context) error {
	body := bytes.Repeat([]byte{'x'}, 64)
	var how string
	base, got, err := b.beside(ctx,
		func() (float64, error) {
			bare, _, err := spawn(ctx, "bench", "bare")
			if err != nil {
				return 0, err
			}
			l, err := put(ctx, b.generator, bare.url+"/", body, b.conns, b.lasting)
			how = fmt.Sprintf("%s, %d connections, 64 B bodies", l.Generator, b.conns)
			return l.Rate, errors.Join(err, bare.stop())
		},
		func() (load, error) { return b.putTo(ctx, "enqueue", body) })
	if err != nil {
		return err
	}
	b.add(figure{Name: "bare net/http handler", Value: base, Unit: "requests/s", Note: how})
	b.add(figure{Name: "PUT /enqueue, one node", Value: got.Rate, Unit: "jobs/s", Baseline: "bare handler", Ratio: got.Rate / base,
		Note: fmt.Sprintf("%s, p50 %s, p99 %s", how, got.P50.Round(time.Microsecond), got.P99.Round(time.Microsecond))})
	return nil
}

// beside takes a baseline before and after each of three loads, since the
// machine may change its pace meanwhile, and returns the medians.
func (b *queueBench) beside(ctx context.Context, baseline func() (float64, error), measure func() (load, error)) (float64, load, error) {
	var bases []float64
	var loads []load
	for i := range 4 {
		base, err := baseline()
		if err != nil {
			return 0, load{}, err
		}
		bases = append(bases, base)
		if i == 3 || ctx.Err() != nil {
			break
		}
		l, err := measure()
		if err != nil {
			return 0, load{}, err
		}
		loads = append(loads, l)
	}
	slices.Sort(bases)
	slices.SortFunc(loads, func(x, y load) int { return cmp.Compare(x.Rate, y.Rate) })
	return (bases[(len(bases)-1)/2] + bases[len(bases)/2]) / 2, loads[len(loads)/2], ctx.Err()
}

// putTo loads a new node that computes nothing.
func (b *queueBench) putTo(ctx context.Context, name string, body []byte) (load, error) {
	n, err := b.node(ctx, name, "--workers", "0")
	if err != nil {
		return load{}, err
	}
	l, err := put(ctx, b.generator, n.url+"/enqueue?iterations=1000", body, b.conns, b.lasting)
	if err := errors.Join(err, n.stop()); err != nil {
		return load{}, err
	}
	if l.Errors > 0 {
		return load{}, fmt.Errorf("%d requests were refused", l.Errors)
	}
	return l, nil
}

func (b *queueBench) batches(ctx context.Context) error {
	base, got, err := b.beside(ctx,
		func() (float64, error) {
			dir, err := os.MkdirTemp(b.dir, "bare-")
			if err != nil {
				return 0, err
			}
			return node.BareInsert(ctx, dir, 1024, b.lasting/2)
		},
		func() (load, error) {
			n, err := b.node(ctx, "batch", "--workers", "0")
			if err != nil {
				return load{}, err
			}
			took, err := submit(ctx, n.url, b.jobs, 1000)
			return load{Rate: float64(b.jobs) / took.Seconds()}, errors.Join(err, n.stop())
		})
	if err != nil {
		return err
	}
	b.add(figure{Name: "bare SQLite insert", Value: base, Unit: "rows/s", Note: "transactions of 1,024 rows, no index"})
	b.add(figure{Name: "POST /v1/jobs/batch, one node", Value: got.Rate, Unit: "jobs/s", Baseline: "bare SQLite", Ratio: got.Rate / base,
		Note: fmt.Sprintf("%d jobs, one connection, replies read", b.jobs)})
	return nil
}

// submit sends jobs of distinct data as one batch and reads every reply.
func submit(ctx context.Context, url string, n int, iterations uint64) (time.Duration, error) {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails
	r, w := io.Pipe()
	go func() {
		out := bufio.NewWriterSize(w, 64<<10)
		var data [16]byte
		copy(data[8:], seed[:])
		line := make([]byte, 0, 128)
		for i := range n {
			binary.BigEndian.PutUint64(data[:], uint64(i))
			line = append(line[:0], `{"data":"`...)
			line = base64.StdEncoding.AppendEncode(line, data[:])
			line = fmt.Appendf(line, `","iterations":%d}`+"\n", iterations)
			if _, err := out.Write(line); err != nil {
				return // the reader has ended and says why
			}
		}
		w.CloseWithError(out.Flush()) //nolint:errcheck // it returns nil
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/jobs/batch", r)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", api.MediaNDJSON)
	begin := time.Now()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	lines, failed := 0, 0
	in := bufio.NewReaderSize(res.Body, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("read replies: %w", err)
		}
		lines++
		if bytes.Contains(line, []byte(`"error"`)) {
			failed++
		}
	}
	if lines != n || failed > 0 {
		return 0, fmt.Errorf("%d of %d jobs were answered, %d refused", lines, n, failed)
	}
	return time.Since(begin), nil
}

func (b *queueBench) tiny(ctx context.Context) error {
	var rates []float64
	for range 3 {
		rate, err := b.tinyOnce(ctx)
		if err != nil {
			return err
		}
		rates = append(rates, rate)
	}
	slices.Sort(rates)
	b.add(figure{Name: "tiny jobs, end to end", Value: rates[1], Unit: "jobs/s",
		Note: fmt.Sprintf("%d jobs of 2 iterations by batch, leased, computed, every result read", b.jobs)})
	return nil
}

func (b *queueBench) tinyOnce(ctx context.Context) (float64, error) {
	n, err := b.node(ctx, "tiny")
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	sent := make(chan error, 1)
	go func() {
		_, err := submit(ctx, n.url, b.jobs, 2)
		sent <- err
	}()
	err = followResults(ctx, n.url, b.jobs)
	took := time.Since(begin)
	return float64(b.jobs) / took.Seconds(), errors.Join(err, <-sent, n.stop())
}

// followResults reads results by cursor until it has n.
func followResults(ctx context.Context, url string, n int) error {
	cursor := ""
	for got := 0; got < n; {
		var page api.ResultList
		if err := getJSON(ctx, fmt.Sprintf("%s/v1/results?limit=10000&wait=10s&after=%s", url, cursor), &page); err != nil {
			return err
		}
		if len(page.Results) == 0 {
			return fmt.Errorf("only %d of %d results within 10 s of the last", got, n)
		}
		got += len(page.Results)
		cursor = page.Cursor
	}
	return nil
}

func getJSON(ctx context.Context, url string, to any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, res.Status)
	}
	return json.NewDecoder(res.Body).Decode(to)
}

func (b *queueBench) large(ctx context.Context) error {
	const size = 256 << 10
	body := bytes.Repeat([]byte{'x'}, size)
	base, got, err := b.beside(ctx,
		func() (float64, error) { return hashRate(body, b.lasting/2), nil },
		func() (load, error) { return b.putTo(ctx, "large", body) })
	if err != nil {
		return err
	}
	b.add(figure{Name: "bare SHA-512", Value: base * size / 1e6, Unit: "MB/s", Note: fmt.Sprintf("256 KiB bodies, %d cores", runtime.NumCPU())})
	b.add(figure{Name: "PUT /enqueue of 256 KiB", Value: got.Rate * size / 1e6, Unit: "MB/s", Baseline: "bare SHA-512", Ratio: got.Rate / base,
		Note: fmt.Sprintf("%s, %d connections", got.Generator, b.conns)})
	return nil
}

// hashRate returns the hashes a second of body on all cores.
func hashRate(body []byte, lasting time.Duration) float64 {
	var mu sync.Mutex // guards sum
	var sum float64
	var wg sync.WaitGroup
	for range runtime.NumCPU() {
		wg.Go(func() {
			n, begin := 0, time.Now()
			for time.Since(begin) < lasting {
				v := sha512.Sum512(body)
				n++
				runtime.KeepAlive(v)
			}
			mu.Lock()
			defer mu.Unlock()
			sum += float64(n) / time.Since(begin).Seconds()
		})
	}
	wg.Wait()
	return sum
}

func (b *queueBench) idle(ctx context.Context) error {
	n, err := b.node(ctx, "idle")
	if err != nil {
		return err
	}
	var took []time.Duration
	for i := range 300 {
		begin := time.Now()
		if err := oneJob(ctx, n.url, fmt.Sprintf("job %d of %s", i, b.dir)); err != nil {
			return errors.Join(err, n.stop())
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	b.add(figure{Name: "idle: enqueue to result, p50", Value: float64(took[len(took)/2].Microseconds()) / 1e3, Unit: "ms",
		Note: fmt.Sprintf("%d jobs of 2 iterations one by one, p99 %s", len(took), took[len(took)*99/100].Round(time.Microsecond))})
	return n.stop()
}

func oneJob(ctx context.Context, url, data string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url+"/enqueue?iterations=2", bytes.NewReader([]byte(data)))
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var id api.WorkID
	if err := json.NewDecoder(res.Body).Decode(&id); err != nil {
		return err
	}
	var j api.Job
	if err := getJSON(ctx, url+"/v1/jobs/"+id.ID+"?wait=10s", &j); err != nil {
		return err
	}
	if j.Value == "" {
		return fmt.Errorf("job %s is %s after 10 s", j.ID, j.State)
	}
	return nil
}

func (b *queueBench) backlog(ctx context.Context) error {
	if b.waiting == 0 {
		return nil
	}
	dir := filepath.Join(b.dir, "backlog")
	n, _, err := spawn(ctx, "node", "--data-dir", dir)
	if err != nil {
		return err
	}
	if _, err := submit(ctx, n.url, b.waiting, 1<<40); err != nil {
		return errors.Join(err, n.stop())
	}
	how := fmt.Sprintf("%d waiting jobs", b.waiting)
	loaded := n.resident()
	if err := n.stop(); err != nil {
		return err
	}
	n, up, err := spawn(ctx, "node", "--data-dir", dir)
	if err != nil {
		return err
	}
	var took []time.Duration
	for range 200 {
		begin := time.Now()
		var s api.Status
		if err := getJSON(ctx, n.url+"/status", &s); err != nil {
			return errors.Join(err, n.stop())
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	b.add(figure{Name: "resident memory", Value: float64(loaded) / 1e6, Unit: "MB", Note: how + " just taken in"})
	b.add(figure{Name: "resident memory, restarted", Value: float64(n.resident()) / 1e6, Unit: "MB", Note: how})
	b.add(figure{Name: "start-up", Value: up.Seconds(), Unit: "s", Note: how + ", until /readyz answers"})
	b.add(figure{Name: "GET /status, p50", Value: float64(took[len(took)/2].Microseconds()) / 1e3, Unit: "ms",
		Note: fmt.Sprintf("%s, workers busy, p99 %s", how, took[len(took)*99/100].Round(time.Microsecond))})
	return n.stop()
}
