package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
	"workmanager/web/client"
)

// nodes are hosts that answer a worker, each in its own way; a host without one
// refuses connections. Hosts that are asked are noted.
type nodes struct {
	mu    sync.Mutex // guards the rest
	of    map[string]func(r *http.Request, body []byte) (int, any)
	asked []string
}

func (n *nodes) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.asked = append(n.asked, r.URL.Host)
	f := n.of[r.URL.Host]
	n.mu.Unlock()
	if f == nil {
		return nil, errors.New("connection refused")
	}
	status, out := f(r, body)
	if r.Context().Err() != nil {
		return nil, r.Context().Err()
	}
	text, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	h := http.Header{"Content-Type": {"application/json"}}
	if status/100 != 2 {
		h.Set("Content-Type", api.MediaProblem)
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(string(text))), Request: r}, nil
}

// since returns who was asked since the last call of it.
func (n *nodes) since() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	asked := n.asked
	n.asked = nil
	return asked
}

func (n *nodes) set(host string, f func(r *http.Request, body []byte) (int, any)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.of[host] = f
}

// leaser answers as a node of this boot that has many jobs, keeps every report
// and tells of others.
func leaser(boot byte, tells ...string) func(*http.Request, []byte) (int, any) {
	fence := uint64(0)
	return func(r *http.Request, body []byte) (int, any) {
		if strings.HasSuffix(r.URL.Path, "/report") {
			var in api.ReportRequest
			if err := json.Unmarshal(body, &in); err != nil {
				return 400, api.Problem{Detail: err.Error(), Code: "malformed"}
			}
			out := api.ReportReply{Nodes: tells}
			for range in.Reports {
				out.Verdicts = append(out.Verdicts, api.VerdictKept)
			}
			return 200, out
		}
		fence++
		return 200, api.LeaseReply{TTL: 7, Nodes: tells, Leases: []api.Lease{{
			ID: testID, Boot: jobs.ID{15: boot}.String(), Fence: fence, V1: testValue, Iterations: 100, Done: 1,
		}}}
	}
}

// silent answers when its caller has given up.
func silent(r *http.Request, _ []byte) (int, any) {
	<-r.Context().Done()
	return 0, nil
}

func refuses(status int, code jobs.Code) func(*http.Request, []byte) (int, any) {
	return func(*http.Request, []byte) (int, any) {
		return status, api.Problem{Title: "no", Status: status, Detail: "not now", Code: string(code)}
	}
}

var someWorker = jobs.Worker{Name: "w1", Instance: "0a", Cores: 1}

func newWorkerClient(urls ...string) (*client.Client, *nodes) {
	n := &nodes{of: map[string]func(*http.Request, []byte) (int, any){}}
	return &client.Client{URLs: urls, HTTP: &http.Client{Transport: n}}, n
}

func mustLease(t *testing.T, c *client.Client) jobs.Lease {
	t.Helper()
	got, err := c.Lease(t.Context(), someWorker, jobs.Capacity{Jobs: 10, Iterations: 1000, Wait: time.Second})
	if err != nil || len(got) != 1 {
		t.Fatalf("Lease = %v, %v, want one", got, err)
	}
	return got[0]
}

func reportOn(l jobs.Lease) []jobs.Report {
	return []jobs.Report{{LeaseRef: l.LeaseRef, V1: l.V1, Iterations: l.Iterations, Progress: jobs.Progress{Done: 5, Value: l.V1}}}
}

func TestWorker_round_trip(t *testing.T) {
	c, n := newWorkerClient("a")
	var asked api.LeaseRequest
	var said api.ReportRequest
	v, err := jobs.ParseValue(testValue)
	if err != nil {
		t.Fatal(err)
	}
	n.set("a", func(r *http.Request, body []byte) (int, any) {
		if strings.HasSuffix(r.URL.Path, "/report") {
			if err := json.Unmarshal(body, &said); err != nil {
				t.Error(err)
			}
			return 200, api.ReportReply{Verdicts: []string{"kept", "lost", "withdrawn", "kept"}}
		}
		if err := json.Unmarshal(body, &asked); err != nil {
			t.Error(err)
		}
		return 200, api.LeaseReply{TTL: 7, Leases: []api.Lease{
			{ID: testID, Boot: testID, Fence: 1<<64 - 1, V1: testValue, Iterations: jobs.MaxIterations, Done: 7, Value: testValue},
			{ID: testID, Boot: testID, Fence: 2, V1: testValue, Iterations: 5, Done: 1},
		}}
	})
	w := jobs.Worker{Name: "w1", Instance: "0a", Cores: 3, Lanes: 8, Rate: 5, Kernel: "generic", Version: "devel"}
	got, err := c.Lease(t.Context(), w, jobs.Capacity{Jobs: 1 << 20, Iterations: 1<<64 - 1, Wait: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if want := (api.Worker{Name: "w1", Instance: "0a", Cores: 3, Lanes: 8, Rate: 5, Kernel: "generic", Version: "devel"}); asked.Worker != want ||
		asked.Jobs != api.MaxLeases || asked.Iterations != 1<<64-1 || asked.Wait != 5 {
		t.Errorf("asked for %+v", asked)
	}
	id, err := jobs.ParseID(testID)
	if err != nil {
		t.Fatal(err)
	}
	ref := jobs.LeaseRef{ID: id, Fence: jobs.Fence{Boot: id, N: 1<<64 - 1}}
	want := []jobs.Lease{
		{LeaseRef: ref, V1: v, Iterations: jobs.MaxIterations, Start: jobs.Progress{Done: 7, Value: v}, TTL: 7 * time.Second},
		{LeaseRef: jobs.LeaseRef{ID: id, Fence: jobs.Fence{Boot: id, N: 2}}, V1: v, Iterations: 5, Start: jobs.Progress{Done: 1, Value: v}, TTL: 7 * time.Second},
	}
	if !slices.Equal(got, want) {
		t.Errorf("Lease = %+v, want %+v", got, want)
	}
	long := strings.Repeat("ä", jobs.MaxErrBytes)
	verdicts, err := c.Report(t.Context(), w, []jobs.Report{
		{LeaseRef: ref, V1: v, Iterations: 9, Kind: jobs.ReportProgress, Progress: jobs.Progress{Done: 3, Value: v}, Rate: 12},
		{LeaseRef: ref, V1: v, Iterations: 9, Kind: jobs.ReportValue, Progress: jobs.Progress{Done: 9, Value: v}},
		{LeaseRef: ref, V1: v, Iterations: 9, Kind: jobs.ReportHandBack},
		{LeaseRef: ref, V1: v, Iterations: 9, Kind: jobs.ReportFailure, Err: "x\xff" + long},
	})
	if err != nil || !slices.Equal(verdicts, []jobs.Verdict{jobs.Kept, jobs.Lost, jobs.Withdrawn, jobs.Kept}) {
		t.Errorf("Report = %v, %v", verdicts, err)
	}
	base := api.Report{ID: testID, Boot: testID, Fence: 1<<64 - 1, V1: testValue, Iterations: 9}
	for i, change := range []func(r *api.Report){
		func(r *api.Report) { r.Kind, r.Done, r.Value, r.Rate = "progress", 3, testValue, 12 },
		func(r *api.Report) { r.Kind, r.Done, r.Value = "value", 9, testValue },
		func(r *api.Report) { r.Kind = "hand_back" },
		func(r *api.Report) { r.Kind, r.Error = "failure", "x?"+long[:jobs.MaxErrBytes-2] },
	} {
		want := base
		change(&want)
		if i < len(said.Reports) && said.Reports[i] != want {
			t.Errorf("report %d said %+v, want %+v", i, said.Reports[i], want)
		}
	}
}

func TestWorker_goes_to_the_other_node(t *testing.T) {
	for name, broken := range map[string]func(*http.Request, []byte) (int, any){
		"refused":     nil,
		"stopping":    refuses(503, jobs.CodeStopping),
		"busy":        refuses(503, jobs.CodeBusy),
		"an old node": refuses(404, jobs.CodeNoRoute),
		"disk full":   refuses(507, jobs.CodeDiskFull),
		"internal":    refuses(500, jobs.CodeInternal),
		"silent":      silent,
		"garbage":     func(*http.Request, []byte) (int, any) { return 200, "hello" },
		"few words": func(*http.Request, []byte) (int, any) {
			return 200, map[string]any{"verdicts": []string{}, "leases": []int{1}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, n := newWorkerClient("a", "b")
				n.set("a", leaser(1))
				n.set("b", leaser(2))
				l := mustLease(t, c)
				if got := n.since(); !slices.Equal(got, []string{"a"}) {
					t.Errorf("asked %v for a lease, want a", got)
				}
				n.set("a", broken)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				if v, err := c.Report(ctx, someWorker, reportOn(l)); err != nil || v[0] != jobs.Kept {
					t.Errorf("Report = %v, %v, want kept", v, err)
				}
				if got := n.since(); !slices.Equal(got, []string{"a", "b"}) {
					t.Errorf("asked %v to take a report, want a and b", got)
				}
				// For a while it is asked last.
				if l := mustLease(t, c); l.Fence.Boot != (jobs.ID{15: 2}) {
					t.Errorf("lease of boot %s, want b's", l.Fence.Boot)
				}
				if got := n.since(); !slices.Equal(got, []string{"b"}) {
					t.Errorf("asked %v for a lease, want b", got)
				}
				// Then its own leases are reported to it again.
				n.set("a", leaser(1))
				time.Sleep(2 * time.Second)
				if _, err := c.Report(t.Context(), someWorker, reportOn(l)); err != nil {
					t.Error(err)
				}
				if got := n.since(); !slices.Equal(got, []string{"a"}) {
					t.Errorf("asked %v to take a report, want a", got)
				}
			})
		})
	}
}

func TestWorker_reports_to_who_gave_the_lease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newWorkerClient("a", "b")
		n.set("b", leaser(2))
		ofB := mustLease(t, c)
		time.Sleep(2 * time.Second)
		n.set("a", leaser(1))
		n.set("b", nil)
		ofA := mustLease(t, c)
		n.set("b", leaser(2))
		time.Sleep(2 * time.Second)
		n.since()
		v, err := c.Report(t.Context(), someWorker, append(reportOn(ofA), reportOn(ofB)...))
		if err != nil || len(v) != 2 {
			t.Errorf("Report = %v, %v", v, err)
		}
		if got := slices.Sorted(slices.Values(n.since())); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("asked %v, want each of its own", got)
		}
	})
}

func TestWorker_learns_of_the_other_node(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newWorkerClient("a")
		n.set("a", leaser(1, "http://a", "http://b", "http://c:5", "ftp://x", "::"))
		n.set("b", leaser(2, "http://b"))
		l := mustLease(t, c)
		n.set("a", nil)
		n.since()
		if l := mustLease(t, c); l.Fence.Boot != (jobs.ID{15: 2}) {
			t.Errorf("lease of boot %s, want b's", l.Fence.Boot)
		}
		if v, err := c.Report(t.Context(), someWorker, reportOn(l)); err != nil || v[0] != jobs.Kept {
			t.Errorf("Report = %v, %v, want kept", v, err)
		}
		if got := n.since(); !slices.Contains(got, "b") || slices.Contains(got, "x") {
			t.Errorf("asked %v", got)
		}
		// However many are told of, few are kept.
		var many []string
		for i := range 100 {
			many = append(many, fmt.Sprintf("http://host%d", i))
		}
		n.set("b", leaser(2, many...))
		mustLease(t, c)
		n.set("b", nil)
		n.since()
		if _, err := c.Lease(t.Context(), someWorker, jobs.Capacity{Jobs: 1, Iterations: 1}); !errors.Is(err, client.ErrUnreachable) {
			t.Errorf("Lease = %v, want ErrUnreachable", err)
		}
		if got := n.since(); len(got) > 6 {
			t.Errorf("asked %d nodes, want few", len(got))
		}
	})
}

// While the two nodes do not reach each other each may have work.
func TestWorker_asks_both_of_a_broken_pair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newWorkerClient("a", "b")
		apart := true
		none := func(*http.Request, []byte) (int, any) { return 200, api.LeaseReply{Apart: apart} }
		ask := func() []string {
			t.Helper()
			if got, err := c.Lease(t.Context(), someWorker, jobs.Capacity{Jobs: 1, Iterations: 1, Wait: time.Second}); err != nil || len(got) != 0 {
				t.Fatalf("Lease = %v, %v, want none", got, err)
			}
			time.Sleep(2 * time.Second)
			return n.since()
		}
		n.set("a", none)
		n.set("b", none)
		if got := slices.Concat(ask(), ask(), ask(), ask()); !slices.Equal(got, []string{"a", "b", "a", "b"}) {
			t.Errorf("asked %v, want both in turn", got)
		}
		apart = false
		if got := slices.Concat(ask(), ask(), ask()); !slices.Equal(got, []string{"a", "a", "a"}) {
			t.Errorf("asked %v, want one: it gets the other's work", got)
		}
		apart = true
		n.set("b", nil) // it is dead: that is seen once, and not each time
		if got := slices.Concat(ask(), ask(), ask(), ask()); !slices.Equal(got, []string{"a", "b", "a", "a", "a"}) {
			t.Errorf("asked %v, want the dead node once", got)
		}
	})
}

func TestWorker_errors_come_back(t *testing.T) {
	c, n := newWorkerClient("a", "b")
	n.set("a", func(*http.Request, []byte) (int, any) {
		return 422, api.Problem{Title: "no", Status: 422, Detail: "jobs: 0 is less than 1", Code: "invalid", Errors: []api.FieldError{{Loc: []string{"body", "jobs"}, Msg: "0 is less than 1", Type: "value_error.number"}}}
	})
	n.set("b", leaser(2))
	_, err := c.Lease(t.Context(), someWorker, jobs.Capacity{})
	e, ok := errors.AsType[*jobs.Error](err)
	if !ok || e.Code != jobs.CodeInvalid || e.Msg != "jobs: 0 is less than 1" || len(e.Problems) != 1 {
		t.Errorf("Lease = %#v, want the error that was sent", err)
	}
	if got := n.since(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("asked %v: the other would say the same", got)
	}
	n.set("a", refuses(503, jobs.CodeStopping))
	n.set("b", nil)
	if _, err := c.Report(t.Context(), someWorker, reportOn(jobs.Lease{})); jobs.CodeOf(err) != jobs.CodeStopping {
		t.Errorf("Report = %v, want what the one node said", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Lease(ctx, someWorker, jobs.Capacity{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Lease with a context that is done = %v", err)
	}
}

// What nodes want of the worker comes with their answers: it drains if either
// says so, and stays idle for as long as the one that allows more.
func TestWorker_orders(t *testing.T) {
	type said struct {
		drain bool
		idle  float64
	}
	const own = time.Minute
	for name, c := range map[string]struct {
		a, b  said
		drain bool
		idle  time.Duration
	}{
		"none":                {said{}, said{}, false, own},
		"the larger":          {said{false, 15}, said{false, 90}, false, 90 * time.Second},
		"less than its own":   {said{false, 15}, said{false, 20}, false, 20 * time.Second},
		"one says nothing":    {said{false, 15}, said{}, false, own},
		"for ever":            {said{false, -1}, said{false, 15}, false, 0},
		"either may drain it": {said{}, said{drain: true}, true, own},
		"absurd":              {said{false, 1e300}, said{}, false, 1000 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cl, n := newWorkerClient("a", "b")
				if drain, idle := cl.Orders(own); drain || idle != own {
					t.Errorf("before a node was asked: Orders() = %t, %v", drain, idle)
				}
				answer := func(s said) func(*http.Request, []byte) (int, any) {
					return func(r *http.Request, _ []byte) (int, any) {
						return 200, api.LeaseReply{Apart: true, Orders: api.Orders{Drain: s.drain, Idle: s.idle}}
					}
				}
				n.set("a", answer(c.a))
				n.set("b", answer(c.b))
				ask := func() {
					t.Helper()
					if _, err := cl.Lease(t.Context(), someWorker, jobs.Capacity{Jobs: 1, Iterations: 1}); err != nil {
						t.Fatal(err)
					}
				}
				ask()
				ask()
				if drain, idle := cl.Orders(own); drain != c.drain || idle != c.idle {
					t.Errorf("Orders() = %t, %v, want %t, %v", drain, idle, c.drain, c.idle)
				}
				// What one said that is not heard any more counts no more.
				n.set("a", nil)
				time.Sleep(31 * time.Second)
				n.set("b", answer(said{idle: 15}))
				ask()
				if drain, idle := cl.Orders(own); drain || idle != 15*time.Second {
					t.Errorf("of the one node that is heard: Orders() = %t, %v, want 15 s", drain, idle)
				}
			})
		})
	}
}

func TestWorker_orders_with_reports(t *testing.T) {
	c, n := newWorkerClient("a")
	n.set("a", leaser(1))
	l := mustLease(t, c)
	n.set("a", func(*http.Request, []byte) (int, any) {
		return 200, api.ReportReply{Verdicts: []string{api.VerdictKept}, Orders: api.Orders{Drain: true}}
	})
	if _, err := c.Report(t.Context(), someWorker, reportOn(l)); err != nil {
		t.Fatal(err)
	}
	if drain, _ := c.Orders(0); !drain {
		t.Error("the order that came with a report was not heard")
	}
}
