package node

import (
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// TestExplain_wait holds what is said of a job that waits to what is in its way.
func TestExplain_wait(t *testing.T) {
	v := jobs.View{Job: jobs.Job{Iterations: 5_000_000, Home: "a", Priority: 3}}
	alive := api.Status{Workers: 4, Forecast: api.Forecast{RateIterations: 1e6}, Fleet: api.FleetStatus{Kind: "none"}}
	for name, c := range map[string]struct {
		st   api.Status
		w    waiting
		v    jobs.View
		want []string
		wait float64
	}{
		"next":        {alive, waiting{here: true}, v, []string{"It is next: it waits for a worker to come free.", "4 workers connected. Higher priorities go first; within one (this job's is 3)"}, 0},
		"one ahead":   {alive, waiting{here: true, ahead: 1, work: 2e6}, v, []string{"It waits its turn: 1 job is ahead of it.", "Those ahead have 2.00 M iterations to go, about 2 s at 1.00 M/s."}, 2},
		"on the disk": {alive, waiting{here: true, ahead: 10_000, atLeast: true}, v, []string{"It waits its turn: at least 10,000 jobs are ahead of it."}, 0},
		"no worker":   {api.Status{Fleet: api.FleetStatus{Kind: "none"}}, waiting{here: true, ahead: 7}, v, []string{"It waits because no worker is connected.", "Start one: workmanager worker"}, 0},
		"the fleet refuses": {api.Status{Fleet: api.FleetStatus{Kind: "ec2", Paused: "the budget of today is spent"}}, waiting{here: true}, v,
			[]string{"no worker is connected", "The fleet launches nothing: the budget of today is spent."}, 0},
		"instances boot": {api.Status{Fleet: api.FleetStatus{Kind: "ec2", BootSeconds: 80, Instances: []api.Instance{{State: "booting"}}}}, waiting{here: true}, v,
			[]string{"It waits for a worker: 1 instance starting, ready in about 80 s."}, 0},
		"at the maximum": {api.Status{Workers: 1, Fleet: api.FleetStatus{Kind: "ec2", Max: 2, Have: 2, Want: 9}}, waiting{here: true, ahead: 2}, v,
			[]string{"2 jobs are ahead", "The fleet is at its maximum of 2 and wants 9."}, 0},
		"quarantine": {api.Status{Workers: 1, Audit: api.AuditStatus{Quarantined: []api.Quarantine{{Worker: "w9", Reason: "a wrong value"}}}}, waiting{here: true}, v,
			[]string{"Worker w9 is quarantined and gets nothing: a wrong value."}, 0},
		"barred":      {alive, waiting{here: true, barred: true}, v, []string{"It waits because this node leases nothing yet"}, 0},
		"dead home":   {alive, waiting{gone: true}, v, []string{"It waits at node a, which does not answer: this node takes it over"}, 0},
		"silent home": {api.Status{Workers: 1, Peer: api.PeerStatus{Session: "down"}}, waiting{}, v, []string{"It waits at node a, which does not answer."}, 0},
		"lost before": {alive, waiting{here: true}, jobs.View{Job: jobs.Job{Iterations: 9, Home: "a", Attempts: 2, Lost: 2, Checkpoint: jobs.Progress{Done: 4}}},
			[]string{"2 attempts before", "2 workers lost at it without progress between; at 5 it fails.", "Its next worker goes on behind iteration 4."}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			e := api.Explanation{}
			explainWait(&e, c.v, &c.st, c.w)
			got := strings.Join(append([]string{e.Text}, e.Reasons...), "\n")
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
			if e.Position == nil || *e.Position != int64(c.w.ahead) || e.AtLeast != c.w.atLeast || e.WaitSeconds != c.wait {
				t.Errorf("position %v, at least %v, %v s; want %+v and %v s", e.Position, e.AtLeast, e.WaitSeconds, c.w, c.wait)
			}
		})
	}
}

func TestExplain_others(t *testing.T) {
	born := time.Date(2026, 11, 25, 14, 0, 0, 0, time.UTC)
	job := func(change func(*jobs.View)) jobs.View {
		v := jobs.View{Job: jobs.Job{Iterations: 1000, CreatedAt: born, DoneAt: born.Add(90 * time.Second), Attempts: 1}}
		change(&v)
		return v
	}
	for name, c := range map[string]struct {
		explain func(*api.Explanation, jobs.View)
		v       jobs.View
		want    string
	}{
		"completed":   {explainEnd, job(func(v *jobs.View) { v.Rank = jobs.Completed }), "It was completed 1 min 30 s after it came in."},
		"known":       {explainEnd, job(func(v *jobs.View) { v.Rank, v.Attempts = jobs.Completed, 0 }), "the node knew the value of the same work"},
		"at once":     {explainEnd, job(func(v *jobs.View) { v.Rank, v.Iterations = jobs.Completed, 1 }), "One iteration is computed as the data comes in"},
		"failed":      {explainEnd, job(func(v *jobs.View) { v.Rank, v.Err, v.Attempts = jobs.Failed, "5 workers lost", 5 }), "It failed: 5 workers lost.\nIt had 5 attempts."},
		"cancelled":   {explainEnd, job(func(v *jobs.View) { v.Rank = jobs.Cancelled }), "Its owner withdrew it 1 min 30 s after it came in."},
		"leased":      {explainLease, job(func(v *jobs.View) { v.Leased, v.Worker, v.Done, v.Rate = true, "w1", 500, 50 }), "Worker w1 computes it, 50 % done.\nAbout 10 s to go at 50 iterations/s."},
		"just leased": {explainLease, job(func(v *jobs.View) { v.Leased, v.Worker = true, "w1" }), "Worker w1 computes it, 0 % done.\nThe worker has not reported yet"},
		"long":        {explainLease, job(func(v *jobs.View) { v.Leased, v.Worker, v.Iterations, v.Done = true, "w1", 1<<53, 1<<52 }), "50 % done."},
	} {
		t.Run(name, func(t *testing.T) {
			e := api.Explanation{}
			c.explain(&e, c.v)
			if got := strings.Join(append([]string{e.Text}, e.Reasons...), "\n"); !strings.Contains(got, c.want) {
				t.Errorf("no %q in\n%s", c.want, got)
			}
		})
	}
}
