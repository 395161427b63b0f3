package web_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
	"workmanager/node/keys"
	"workmanager/web/api"
	"workmanager/web/client"
)

// TestWorkers_forged_and_replayed calls as a worker that is up to no good, or
// that somebody has recorded: what it says counts for the jobs that it leased,
// under the lease that it has, and for its value whenever that comes.
func TestWorkers_forged_and_replayed(t *testing.T) {
	c := startClosed(t)
	h := c.browser(t)
	post := func(path, bearer string, in, out any) int {
		t.Helper()
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := h.Do(c.request(t.Context(), t, "POST", path, bytes.NewReader(b), "Authorization", "Bearer "+bearer, "Content-Type", "application/json"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
				t.Fatal(err)
			}
		}
		return resp.StatusCode
	}
	enrol := func(name string) string {
		t.Helper()
		var got api.EnrolResponse
		if status := post("/worker/enrol", c.made.Tokens[keys.Worker], api.EnrolRequest{Name: name}, &got); status != 200 {
			t.Fatalf("enrol %s: %d", name, status)
		}
		return got.Credential
	}
	self := func(name string) api.Worker { return api.Worker{Name: name, Instance: name + "1", Cores: 1} }
	lease := func(cred, name string, most int) []api.Lease {
		t.Helper()
		var got api.LeaseReply
		// A job that has just come in may be on the disk only, until the node's loop
		// has read it from there.
		if status := post("/worker/lease", cred, api.LeaseRequest{Worker: self(name), Jobs: most, Iterations: jobs.MaxIterations, Wait: 10}, &got); status != 200 {
			t.Fatalf("lease for %s: %d", name, status)
		}
		return got.Leases
	}
	user := &client.Client{URLs: []string{"https://" + c.addr}, CAFile: filepath.Join(c.dir, keys.CAFile), Token: c.made.Tokens[keys.Client], Rounds: 1}
	t.Cleanup(user.Close)
	const iterations = 1000
	submit := func(data string) jobs.ID {
		t.Helper()
		id, _, err := user.Enqueue(t.Context(), client.Bytes([]byte(data)), iterations, client.EnqueueOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	state := func(id jobs.ID) jobs.View {
		t.Helper()
		v, err := user.Job(t.Context(), id, 0)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	one, two := enrol("w1"), enrol("w2")
	a := submit("a")
	l1 := lease(one, "w1", 10)
	b := submit("b")
	l2 := lease(two, "w2", 10)
	if len(l1) != 1 || l1[0].ID != a.String() || len(l2) != 1 || l2[0].ID != b.String() {
		t.Fatalf("w1 has %v, w2 has %v: each should see what it computes, and no more", l1, l2)
	}
	la, lb := l1[0], l2[0]
	of := func(l api.Lease, kind string) api.Report {
		r := api.Report{ID: l.ID, Boot: l.Boot, Fence: l.Fence, V1: l.V1, Iterations: l.Iterations, Kind: kind, Ticket: l.Ticket}
		switch kind {
		case api.ReportFailure:
			r.Error = "no"
		case api.ReportValue:
			data := map[string]string{a.String(): "a", b.String(): "b"}[l.ID]
			r.Done, r.Value = l.Iterations, jobs.Value(hashchain.Value([]byte(data), iterations)).String()
		case api.ReportProgress, api.ReportHandBack:
			r.Done, r.Value = 10, strings.Repeat("00", 64)
		}
		return r
	}
	report := func(cred, name string, r api.Report) (int, string) {
		t.Helper()
		var got api.ReportReply
		status := post("/worker/report", cred, api.ReportRequest{Worker: self(name), Reports: []api.Report{r}}, &got)
		return status, strings.Join(got.Verdicts, " ")
	}
	// alive is what keeps a lease: on a slow machine all this takes longer than one lasts.
	alive := func(cred, name string, l api.Lease) {
		t.Helper()
		r := api.Report{ID: l.ID, Boot: l.Boot, Fence: l.Fence, V1: l.V1, Iterations: l.Iterations, Kind: api.ReportProgress, Ticket: l.Ticket, Done: 1, Value: l.V1}
		if status, verdict := report(cred, name, r); status != 200 || verdict != api.VerdictKept {
			t.Fatalf("%s keeps its lease of %s: %d %s", name, l.ID, status, verdict)
		}
	}
	kinds := []string{api.ReportFailure, api.ReportHandBack, api.ReportProgress, api.ReportValue}
	with := func(r api.Report, change func(*api.Report)) api.Report { change(&r); return r }
	untouched := func(what string) {
		t.Helper()
		if v := state(a); v.State() != jobs.StateLeased || v.Worker != "w1/w11" || v.Done > 1 {
			t.Errorf("%s: job a is %s at %q, %d done", what, v.State(), v.Worker, v.Done)
		}
	}

	foreign := func() string { // a ticket by another pair's key
		dir, _ := makeKeys(t, keys.NodeTTL, time.Now().Add(-time.Hour))
		k, err := keys.Open(keys.Files{Dir: filepath.Join(dir, "a")}, time.Now, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return k.Ticket("w2", a)
	}()
	for _, kind := range kinds {
		for what, r := range map[string]api.Report{
			"another's ticket":                of(la, kind),
			"the ticket of a job of its own":  with(of(la, kind), func(r *api.Report) { r.Ticket = lb.Ticket }),
			"no ticket":                       with(of(la, kind), func(r *api.Report) { r.Ticket = "" }),
			"a forged ticket":                 with(of(la, kind), func(r *api.Report) { r.Ticket = forge(lb.Ticket + "AAAAAAAAAAAA")[:len(lb.Ticket)] }),
			"another pair's ticket":           with(of(la, kind), func(r *api.Report) { r.Ticket = foreign }),
			"a credential for a ticket":       with(of(la, kind), func(r *api.Report) { r.Ticket = two[:60] }),
			"its own lease with another's ID": with(of(lb, kind), func(r *api.Report) { r.ID, r.V1 = la.ID, la.V1 }),
		} {
			alive(one, "w1", la)
			alive(two, "w2", lb)
			if status, verdict := report(two, "w2", r); status != 200 || verdict != api.VerdictLost {
				t.Errorf("w2 reports %s on w1's job with %s: %d %s, want lost", kind, what, status, verdict)
			}
			untouched(what)
		}
		alive(one, "w1", la)
		alive(two, "w2", lb)
		if status, _ := report(two, "w1", of(la, kind)); status != 403 {
			t.Errorf("w2 reports %s in w1's name: %d, want 403", kind, status)
		}
		for what, cred := range map[string]string{"its token": c.made.Tokens[keys.Worker], "a client's token": c.made.Tokens[keys.Client], "an operator's token": c.made.Tokens[keys.Operator]} {
			if status, _ := report(cred, "w1", of(la, kind)); status != 403 {
				t.Errorf("w1 reports %s with %s: %d, want 403", kind, what, status)
			}
		}
	}
	untouched("all that was forged")

	// w2 gives b back, and w1 gets it: w2 has its ticket still, and guesses the
	// number of the lease.
	if status, verdict := report(two, "w2", with(of(lb, api.ReportHandBack), func(r *api.Report) { r.Done, r.Value = 0, "" })); status != 200 || verdict != api.VerdictKept {
		t.Fatalf("w2 gives b back: %d %s", status, verdict)
	}
	again := lease(one, "w1", 10)
	if len(again) != 1 || again[0].ID != b.String() || again[0].Fence == lb.Fence {
		t.Fatalf("w1 leases b: %v", again)
	}
	for _, kind := range kinds[:3] {
		for what, r := range map[string]api.Report{
			"its old report, said again":      of(lb, kind),
			"the number of the lease guessed": with(of(again[0], kind), func(r *api.Report) { r.Ticket = lb.Ticket }),
		} {
			alive(one, "w1", la)
			alive(one, "w1", again[0])
			if status, verdict := report(two, "w2", r); status != 200 || verdict != api.VerdictLost {
				t.Errorf("w2 reports %s on what it had, %s: %d %s, want lost", kind, what, status, verdict)
			}
			if v := state(b); v.State() != jobs.StateLeased || v.Worker != "w1/w11" {
				t.Errorf("%s, %s: b is %s at %q", kind, what, v.State(), v.Worker)
			}
		}
	}
	// Its value is as right as any.
	if status, verdict := report(two, "w2", of(lb, api.ReportValue)); status != 200 || verdict != api.VerdictKept {
		t.Errorf("w2's late value: %d %s, want kept", status, verdict)
	}

	// The same report twice is one.
	for range 3 {
		if status, _ := report(one, "w1", of(la, api.ReportValue)); status != 200 {
			t.Errorf("w1's value: %d", status)
		}
	}
	if v := state(a); v.Rank != jobs.Completed || v.Attempts != 1 {
		t.Errorf("a is %s after %d attempts", v.State(), v.Attempts)
	}
	page, err := user.Results(t.Context(), jobs.ResultsQuery{Limit: 10})
	if err != nil || len(page.Results) != 2 {
		t.Errorf("%d results, %v, want two", len(page.Results), err)
	}
	for _, kind := range kinds[:3] { // on what has ended
		if _, verdict := report(one, "w1", of(la, kind)); verdict != api.VerdictLost {
			t.Errorf("w1 reports %s on what has ended: %s, want lost", kind, verdict)
		}
	}

	// Over: the credential does for nothing, and what was leased under it may
	// still be reported by whoever is that worker now.
	late := submit("late")
	ll := lease(one, "w1", 10)
	if len(ll) != 1 || ll[0].ID != late.String() {
		t.Fatalf("w1 leases %v", ll)
	}
	value := with(of(ll[0], api.ReportProgress), func(r *api.Report) {
		r.Kind, r.Done, r.Value = api.ReportValue, iterations, jobs.Value(hashchain.Value([]byte("late"), iterations)).String()
	})
	c.clock.turn(keys.WorkerTTL + time.Second)
	if status, _ := report(one, "w1", value); status != 401 {
		t.Errorf("a report under a credential whose time is over: %d, want 401", status)
	}
	if v := state(late); v.Ended() {
		t.Error("it counted")
	}
	if status, verdict := report(enrol("w1"), "w1", value); status != 200 || verdict != api.VerdictKept {
		t.Errorf("the same, enrolled anew: %d %s, want kept", status, verdict)
	}
	if v := state(late); v.Rank != jobs.Completed {
		t.Errorf("the job is %s", v.State())
	}
}
