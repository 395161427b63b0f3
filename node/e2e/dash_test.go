package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/heapprofiler"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/cdproto/systeminfo"
	"github.com/chromedp/chromedp"
)

const (
	dashPace   = 1000    // jobs a second that come in and are done
	dashSize   = 200_000 // iterations of those that wait: long beside them, and an end to each
	dashBeat   = 10      // batches of them a second
	dashWindow = 20 * time.Second
	dashPairs  = 6         // windows without the page, and as many with it
	dashCore   = 0.05      // of a core is what one page may cost its node, and its browser to draw
	dashGrowth = 512 << 10 // bytes of JavaScript that may be alive at the end and not at the beginning
)

// TestDashboardCost measures what one open page costs where the queue is long and
// busy: the processor time of its node, against that of the same minutes without
// the page; processor time and memory of the tab; the first paint. It prints all
// of it, and holds the page to 5 % of a core and to no growth. It takes a quarter
// of an hour and wants a machine with nothing else to do:
//
//	WORKMANAGER_E2E_DASH=1 go test -count=1 -timeout 40m -run DashboardCost -v ./node/e2e
//
// On two cores of a busy machine, 970 jobs a second done beside a million that
// wait: the node takes 15.0 % of a core without a page and 15.5 % with one, the
// tab 2.2 %, and 2.0 MiB of JavaScript that rise by 70 KiB in six minutes; the
// first paint comes after 192 ms, and after 88 ms where nothing else runs.
func TestDashboardCost(t *testing.T) {
	if os.Getenv("WORKMANAGER_E2E_DASH") == "" {
		t.Skip("measures for a quarter of an hour only where WORKMANAGER_E2E_DASH=1 is set")
	}
	need(t, false, "nice")
	waiting := number(t, "WORKMANAGER_E2E_DASH_JOBS", 1_000_000)
	watch := time.Duration(number(t, "WORKMANAGER_E2E_DASH_SECONDS", 360)) * time.Second
	n := start(t, t.TempDir(), nil, "--workers", "0")
	b := browseFor(t, time.Hour, n.url("/"))
	b.until(20*time.Second, "#age-text", "live")
	t.Logf("first paint, nothing queued: %s", b.firstPaints(11))

	n.backlog(waiting + waiting/20) // some are done meanwhile
	if got := n.status().Queued; got < int64(waiting) {
		t.Fatalf("%d jobs wait, want %d", got, waiting)
	}
	launch(t, "worker", "nice", "-n", "19", binary, "worker", "--name", "w", "--cores", "1", "--log-format", "text", "--node", n.url(""))
	stop := n.busy()
	defer stop()
	// Jobs of this browser, behind all others: each is asked for its place.
	var mine []string
	for i := range 5 {
		mine = append(mine, n.enqueue(fmt.Sprint("mine", i), 2*dashSize))
	}
	kept, err := json.Marshal(mine)
	if err != nil {
		t.Fatal(err)
	}
	b.do(chromedp.Evaluate[chromedp.Void](`localStorage.setItem("workmanager.jobs", `+quoted(string(kept))+`)`), chromedp.Reload())
	b.until(30*time.Second, "#mine", "ahead")
	poll(t, time.Minute, "the queue is busy", func() string {
		if f := n.status().Forecast; f.RateCompleted < dashPace*0.8 {
			return fmt.Sprintf("%.0f jobs/s done", f.RateCompleted)
		}
		return ""
	})

	// The node with and without the page, in turns.
	var without, with []float64
	for range dashPairs {
		b.do(chromedp.Navigate("about:blank"))
		pause(3 * time.Second)
		without = append(without, n.cores(dashWindow))
		b.do(chromedp.Navigate(n.url("/")))
		b.until(20*time.Second, "#mine", "ahead")
		pause(3 * time.Second)
		with = append(with, n.cores(dashWindow))
	}
	cost := mean(with) - mean(without)
	t.Logf("node, of a core: %s without the page, %s with it: the page costs %.2f %%, one window differs from the next by %.2f %%",
		percents(without), percents(with), 100*cost, 100*spread(without))
	if cost > dashCore {
		t.Errorf("an open page costs its node %.1f %% of a core, want at most %.0f", 100*cost, 100*dashCore)
	}

	// The tab, open without a break.
	if _, err := chromedp.Call(b.ctx, performance.Enable, performance.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	pause(30 * time.Second)
	var heap, nodes []float64
	before, at := b.processor(), time.Now()
	status := n.status()
	for time.Since(at) < watch {
		pause(15 * time.Second)
		m := b.metrics()
		heap, nodes = append(heap, m["JSHeapUsedSize"]), append(nodes, m["Nodes"])
		if age := b.text("#age-text"); !strings.HasPrefix(age, "live") {
			t.Errorf("after %.0f s the page says %q", time.Since(at).Seconds(), age)
		}
	}
	took := time.Since(at)
	for kind, sum := range b.processor() {
		t.Logf("browser, of a core: %s %.2f %%", kind, 100*(sum-before[kind])/took.Seconds())
	}
	after := n.status()
	t.Logf("in %.0f s: %d jobs waited at the end, %.0f/s came in, %.0f/s were done", took.Seconds(), after.Queued,
		float64(after.SinceStart.Enqueued-status.SinceStart.Enqueued)/took.Seconds(), float64(after.SinceStart.Completed-status.SinceStart.Completed)/took.Seconds())
	third := max(len(heap)/3, 1)
	first, last := median(heap[:third]), median(heap[len(heap)-third:])
	t.Logf("JavaScript heap behind a collection, KiB: %s; %.0f nodes of the page, then %.0f", kibis(heap), nodes[0], nodes[len(nodes)-1])
	if last-first > dashGrowth {
		t.Errorf("the heap grew by %.0f KiB in %.0f s", (last-first)/1024, took.Seconds())
	}
	if tab := (b.processor()["renderer"] - before["renderer"]) / took.Seconds(); tab > dashCore {
		t.Errorf("the page takes %.1f %% of a core to draw, want at most %.0f", 100*tab, 100*dashCore)
	}
	t.Logf("first paint, busy: %s", b.firstPaints(11))
}

// backlog enqueues so many jobs of some size.
func (n *node) backlog(jobs int) {
	n.t.Helper()
	const each = 50_000
	var lines strings.Builder
	for done := 0; done < jobs; done += each {
		lines.Reset()
		for i := done; i < min(done+each, jobs); i++ {
			lines.WriteString(line(fmt.Sprintf("backlog/%d", i), dashSize))
		}
		n.must(http.StatusOK, "POST", "/v1/jobs/batch", strings.NewReader(lines.String()), "Content-Type", "application/x-ndjson")
	}
}

// busy sends small jobs, before all others, at a steady pace until it is told to stop.
func (n *node) busy() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var sent atomic.Int64
	wg.Go(func() {
		tick := time.NewTicker(time.Second / dashBeat)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			var lines strings.Builder
			for range dashPace / dashBeat {
				fmt.Fprintf(&lines, `{"data":"%s","iterations":1000,"priority":9}`+"\n", base64.StdEncoding.EncodeToString(fmt.Append(nil, "busy/", sent.Add(1))))
			}
			if r, err := n.send(ctx, "POST", "/v1/jobs/batch", lines.String(), "Content-Type", "application/x-ndjson"); ctx.Err() == nil && (err != nil || r.status != http.StatusOK) {
				n.t.Errorf("send jobs: %v %v", r, err)
				return
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// processor returns the seconds that a process has computed.
func (p *process) processor() float64 {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ") // behind the name
	fields := strings.Fields(rest)
	var ticks float64
	for _, f := range fields[11:13] { // utime and stime, of a hundredth of a second
		v, err := strconv.ParseFloat(f, 64)
		if err != nil {
			p.t.Fatal(err)
		}
		ticks += v
	}
	return ticks / 100
}

// cores returns how many cores a process takes for a while.
func (p *process) cores(d time.Duration) float64 {
	p.t.Helper()
	before, at := p.processor(), time.Now()
	pause(d)
	return (p.processor() - before) / time.Since(at).Seconds()
}

// processor returns the seconds that the processes of the browser have computed,
// by their kind: the tab is a renderer.
func (b *tab) processor() map[string]float64 {
	b.t.Helper()
	r, err := chromedp.CallBrowser(b.ctx, systeminfo.GetProcessInfo, cdp.Empty{})
	if err != nil {
		b.t.Fatalf("ask the browser for its processes: %v", err)
	}
	sum := map[string]float64{}
	for _, p := range r.ProcessInfo {
		sum[p.Type] += p.CPUTime
	}
	return sum
}

// metrics returns what the browser counts of the page, behind a collection of
// its garbage.
func (b *tab) metrics() map[string]float64 {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, heapprofiler.CollectGarbage, cdp.Empty{})
	if err != nil {
		b.t.Fatalf("have the browser collect garbage: %v", err)
	}
	r, err := chromedp.Call(b.ctx, performance.GetMetrics, cdp.Empty{})
	if err != nil {
		b.t.Fatalf("ask the browser for its metrics: %v", err)
	}
	m := map[string]float64{}
	for _, x := range r.Metrics {
		m[x.Name] = x.Value
	}
	return m
}

// firstPaints loads the page so often and says when it was painted first.
func (b *tab) firstPaints(n int) string {
	b.t.Helper()
	var all []float64
	for range n {
		b.do(chromedp.Reload())
		b.until(20*time.Second, "#age-text", "live")
		b.holds(20*time.Second, `performance.getEntriesByName("first-contentful-paint").length`)
		all = append(all, ask[float64](b, `performance.getEntriesByName("first-contentful-paint")[0].startTime`))
	}
	slices.Sort(all)
	return fmt.Sprintf("%.0f ms is the median of %d, from %.0f to %.0f", median(all), n, all[0], all[n-1])
}

func mean(all []float64) float64 {
	sum := 0.0
	for _, x := range all {
		sum += x
	}
	return sum / float64(len(all))
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// spread is how far one window is from the next, at the median.
func spread(all []float64) float64 {
	var steps []float64
	for i := range len(all) - 1 {
		steps = append(steps, math.Abs(all[i+1]-all[i]))
	}
	return median(steps)
}

func percents(all []float64) string {
	var out []string
	for _, x := range all {
		out = append(out, fmt.Sprintf("%.1f", 100*x))
	}
	return strings.Join(out, " ") + fmt.Sprintf(" (mean %.2f) %%", 100*mean(all))
}

func kibis(all []float64) string {
	var out []string
	for _, x := range all {
		out = append(out, fmt.Sprintf("%.0f", x/1024))
	}
	return strings.Join(out, " ")
}
