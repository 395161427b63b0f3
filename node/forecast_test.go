package node

import (
	"strings"
	"testing"
	"time"

	"workmanager/ec2"
	"workmanager/web/api"
)

func TestForecast(t *testing.T) {
	now := time.Date(2026, 11, 25, 14, 22, 0, 0, time.UTC)
	oldest := now.Add(-4 * time.Minute)
	work := func(change func(*api.Status)) *api.Status {
		s := &api.Status{
			Now: now, Queued: 12470, Leased: 10, Workers: 5, Completed: 7, RemainingIterations: 12480e6, OldestQueuedAt: &oldest,
			Fleet: api.FleetStatus{Kind: "none"}, Peer: api.PeerStatus{Session: api.SessionNone},
		}
		if change != nil {
			change(s)
		}
		return s
	}
	fleet := func(f api.FleetStatus) func(*api.Status) {
		return func(s *api.Status) { f.Kind = "ec2"; s.Fleet = f }
	}
	booting := []api.Instance{{State: "booting"}, {State: "pending"}, {State: "working"}}
	refused := []api.FleetDecision{{LastAt: now.Add(-7 * time.Second), Why: "hold at 0: no slot is usable", Outcome: []string{"launch into slot 0: InsufficientInstanceCapacity"}, Held: "slots"}}
	steady := outlook{here: flow{Iterations: 6.3e6, Completed: 6.3, Arriving: 0.4, Incoming: 0.4e6, Over: time.Minute}}
	for name, c := range map[string]struct {
		s      *api.Status
		o      outlook
		state  string
		text   string
		reason string // begins so
		left   float64
	}{
		"idle": {&api.Status{Now: now, Workers: 2, Completed: 3}, outlook{}, "idle", "Nothing queued", "", 0},
		"new":  {&api.Status{Now: now, Workers: 2}, outlook{}, "idle", "Nothing queued", "Submit a file to see it work.", 0},
		"idle, instances there": {&api.Status{Now: now, Completed: 1, Fleet: api.FleetStatus{Kind: "ec2", Instances: booting}}, outlook{}, "idle", "Nothing queued",
			"3 instances still there; the scheduler ends those that stay idle.", 0},
		"no worker": {work(func(s *api.Status) { s.Workers = 0 }), outlook{}, "stalled", "12,470 jobs queued, and no worker is connected",
			"The oldest has waited 4 min 0 s. Start one: workmanager worker --node URL", 0},
		"no worker, fleet paused": {work(func(s *api.Status) { fleet(api.FleetStatus{Paused: "an operator paused it"})(s); s.Workers = 0 }), outlook{}, "stalled",
			"12,470 jobs queued, and no worker is connected", "The oldest has waited 4 min 0 s. The fleet launches nothing: an operator paused it.", 0},
		"no worker, an operator paused": {work(func(s *api.Status) { fleet(api.FleetStatus{Paused: ec2.Asked, PauseAsked: true})(s); s.Workers = 0 }), outlook{}, "stalled",
			"12,470 jobs queued, and no worker is connected",
			"The oldest has waited 4 min 0 s. The fleet launches nothing: an operator asked for it. Resume launches under Fleet, or by: workmanager fleet resume.", 0},
		"no worker, launches fail": {work(func(s *api.Status) { fleet(api.FleetStatus{Max: 8, Decisions: refused})(s); s.Workers = 0 }), outlook{}, "stalled",
			"12,470 jobs queued, and no worker is connected",
			"The oldest has waited 4 min 0 s. The scheduler, 7 s ago: hold at 0: no slot is usable. launch into slot 0: InsufficientInstanceCapacity. It tries again by itself; another of --types", 0},
		"no worker, budget spent": {work(func(s *api.Status) {
			fleet(api.FleetStatus{Max: 8, Decisions: []api.FleetDecision{{LastAt: now, Why: "hold at 0: $5.00 of the day's $5.00 are spent", Held: "budget"}}})(s)
			s.Workers = 0
		}), outlook{}, "stalled", "12,470 jobs queued, and no worker is connected",
			"The oldest has waited 4 min 0 s. The scheduler, 0 s ago: hold at 0: $5.00 of the day's $5.00 are spent. It goes on at 00:00 UTC; raise --budget-per-day", 0},
		"work has just come in": {work(func(s *api.Status) {
			at := now.Add(-2 * time.Second)
			fleet(api.FleetStatus{Max: 8, Decisions: refused})(s)
			s.Workers, s.OldestQueuedAt = 0, &at
		}), outlook{}, "starting", "12,470 jobs queued, the scheduler is about to decide", "No worker is connected yet.", 0},
		"new, no worker":        {&api.Status{Now: now}, outlook{}, "idle", "Nothing queued", "No worker is connected: a new job would wait. Start one: workmanager worker --node URL", 0},
		"new, a fleet":          {&api.Status{Now: now, Fleet: api.FleetStatus{Kind: "ec2"}}, outlook{}, "idle", "Nothing queued", "Submit a file to see it work.", 0},
		"idle, a fleet of none": {&api.Status{Now: now, Completed: 1, Fleet: api.FleetStatus{Kind: "ec2"}}, outlook{}, "idle", "Nothing queued", "No instance runs: they come with the work.", 0},
		"growing, budget spent": {work(fleet(api.FleetStatus{Max: 8, Have: 2, Decisions: []api.FleetDecision{{LastAt: now, Held: "budget"}}})), outlook{here: flow{Iterations: 6e6, Completed: 6, Arriving: 18, Incoming: 18e6, Over: time.Minute}}, "growing",
			"12,470 jobs queued and growing by 12/s", "The fleet is held at 2 workers by the day's budget. It goes on at 00:00 UTC; raise --budget-per-day at both nodes to go on now. 6/s done", 0},
		"starting": {work(func(s *api.Status) { fleet(api.FleetStatus{Instances: booting, BootSeconds: 90})(s); s.Workers = 0 }), outlook{}, "starting",
			"12,470 jobs queued, 2 instances starting, ready in about 90 s", "No worker is connected yet.", 0},
		"stalled": {work(nil), outlook{here: flow{Idle: 4 * time.Minute, Over: time.Minute}}, "stalled", "12,470 jobs queued, and nothing got on for 4 min 0 s",
			"The oldest has waited 4 min 0 s. 5 workers connected.", 0},
		"this node stands, the peer works": {work(nil), outlook{here: flow{Idle: 4 * time.Minute}, there: flow{Iterations: 1e6, Over: time.Minute}}, "draining",
			"12,480 jobs clear in about 3.5 h", "", 12480},
		"measuring": {work(nil), outlook{}, "measuring", "12,470 jobs queued, measuring", "No rate is known yet.", 0},
		"measured too short, workers say": {work(nil), outlook{here: flow{Iterations: 1e6, Over: 2 * time.Second}, reported: 12.48e6}, "draining",
			"12,480 jobs clear in about 17 min", "", 1000},
		"draining": {work(nil), steady, "draining", "12,480 jobs clear in about 35 min", "6.3/s done, 0.4/s arriving, 5 workers. 12.5 G iterations to go at 6.30 M/s.", 12480e6 / 5.9e6},
		"draining, target met": {work(fleet(api.FleetStatus{DrainSeconds: 2400, Max: 8, Have: 5})), steady, "draining", "12,480 jobs clear in about 35 min",
			"6.3/s done, 0.4/s arriving, 5 workers. 12.5 G iterations to go at 6.30 M/s. The target is under 40 min, so no more workers.", 12480e6 / 5.9e6},
		"the pair": {work(nil), outlook{here: steady.here, there: steady.here}, "draining", "12,480 jobs clear in about 18 min", "12.6/s done, 0.8/s arriving", 12480e6 / 11.8e6},
		"one long chain": {work(func(s *api.Status) { s.Queued, s.Leased, s.RemainingIterations = 0, 3, 6e8 }),
			outlook{here: flow{Iterations: 3e6, Completed: 0.1, Over: time.Minute}, longest: 5e8, rate: 1e6}, "draining", "3 jobs clear in about 8.3 min",
			"0.1/s done, 0/s arriving, 5 workers. 600 M iterations to go at 3.00 M/s. The longest job alone takes 8.3 min: a chain is serial", 500},
		"holding": {work(nil), outlook{here: flow{Iterations: 6e6, Completed: 6, Arriving: 6, Incoming: 6e6, Over: time.Minute}}, "holding",
			"12,470 jobs queued, not shrinking: as much comes in as is done", "More workers are needed. 6/s done, 6/s arriving", 0},
		"growing": {work(nil), outlook{here: flow{Iterations: 6e6, Completed: 6, Arriving: 18, Incoming: 18e6, Over: time.Minute}}, "growing",
			"12,470 jobs queued and growing by 12/s", "More workers are needed. 6/s done, 18/s arriving, 5 workers.", 0},
		"growing at the maximum": {work(fleet(api.FleetStatus{Max: 8, Have: 8})), outlook{here: flow{Iterations: 6e6, Completed: 6, Arriving: 18, Incoming: 18e6, Over: time.Minute}}, "growing",
			"12,470 jobs queued and growing by 12/s", "The fleet is at its maximum of 8: raise it or wait. ", 0},
		"growing, more on their way": {work(fleet(api.FleetStatus{Max: 8, Have: 5, Instances: booting, BootSeconds: 90})), outlook{here: flow{Iterations: 6e6, Completed: 6, Arriving: 18, Incoming: 18e6, Over: time.Minute}},
			"growing", "12,470 jobs queued and growing by 12/s", "2 instances starting, ready in about 90 s. ", 0},
		"few jobs but larger ones arrive": {work(nil), outlook{here: flow{Iterations: 6e6, Completed: 6, Arriving: 1, Incoming: 18e6, Over: time.Minute}}, "growing",
			"12,470 jobs queued and growing by 12.0 M iterations/s", "", 0},
		"split": {work(func(s *api.Status) { s.Peer = api.PeerStatus{Node: "b", Session: "down", UnderReplicated: 118} }), with(steady, 20*time.Minute), "split",
			"b unreachable for 20 min 0 s: submits are still accepted here, 118 jobs may be on this disk only", "12,480 jobs clear in about 35 min. 6.3/s done", 12480e6 / 5.9e6},
		"split, idle": {&api.Status{Now: now, Workers: 1, Completed: 1, Peer: api.PeerStatus{Node: "b", Session: "down"}}, with(outlook{}, time.Minute), "split",
			"b unreachable for 1 min 0 s: submits are still accepted here, all jobs of this node are on both disks", "Nothing queued.", 0},
		"not split before five seconds":   {work(func(s *api.Status) { s.Peer = api.PeerStatus{Node: "b", Session: "down"} }), with(steady, 4*time.Second), "draining", "12,480 jobs clear in about 35 min", "", 12480e6 / 5.9e6},
		"not split before a peer was met": {work(func(s *api.Status) { s.Peer = api.PeerStatus{Session: "down"} }), with(steady, time.Hour), "draining", "12,480 jobs clear in about 35 min", "", 12480e6 / 5.9e6},
		"almost done":                     {work(func(s *api.Status) { s.Queued, s.Leased, s.RemainingIterations = 0, 1, 100 }), steady, "draining", "1 job clears within a second", "", 100 / 6.3e6},
		"for ever":                        {work(func(s *api.Status) { s.RemainingIterations = 1e26 }), steady, "draining", "12,480 jobs clear in about 540,000,000,000 years", "", 1e26 / 5.9e6},
	} {
		t.Run(name, func(t *testing.T) {
			f := forecast(c.s, c.o)
			if f.State != c.state || f.Text != c.text || !strings.HasPrefix(f.Reason, c.reason) {
				t.Errorf("got  %s: %q, %q\nwant %s: %q, %q…", f.State, f.Text, f.Reason, c.state, c.text, c.reason)
			}
			if f.LeftSeconds < c.left*0.99-1e-9 || f.LeftSeconds > c.left*1.01+1e-9 {
				t.Errorf("left %v s, want %v", f.LeftSeconds, c.left)
			}
			if (f.DoneAt != nil) != (c.left > 0 && c.left < 1e10) {
				t.Errorf("done at %v with %v s left", f.DoneAt, c.left)
			}
		})
	}
}

func with(o outlook, unreachable time.Duration) outlook {
	o.unreachable = unreachable
	return o
}

func TestForecast_words(t *testing.T) {
	for s, want := range map[float64]string{0.2: "1 s", 1.04: "1 s", 12.3: "12 s", 99.4: "99 s", 99.6: "1.7 min", 2100: "35 min", 5960: "99 min", 5980: "1.7 h",
		86400: "24 h", 172801: "2 days", 20 * 86400: "20 days", 729 * 86400: "730 days", 3 * 365 * 86400: "3 years"} {
		if got := about(s); got != want {
			t.Errorf("about(%v) = %q, want %q", s, got, want)
		}
	}
	for x, want := range map[float64]string{0: "0", 7: "7", 999: "999", 9999: "9,999", 12345: "12.3 k", 999999: "1000 k", 3.214e6: "3.21 M", 12e9: "12.0 G", 5.5: "5.5"} {
		if got := short(x); got != want {
			t.Errorf("short(%v) = %q, want %q", x, got, want)
		}
	}
	for d, want := range map[time.Duration]string{-1: "0 s", 61 * time.Second: "1 min 1 s", time.Hour: "1 h 0 min", 49 * time.Hour: "2 days 1 h", 25 * time.Hour: "1 day 1 h"} {
		if got := age(d); got != want {
			t.Errorf("age(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestHistory(t *testing.T) {
	h := newHistory()
	begin := time.Date(2026, 11, 25, 14, 0, 0, 0, time.UTC)
	if c := h.columns(false); len(c.At) != 0 || c.At == nil || c.StepSeconds != 5 {
		t.Errorf("a new history is %+v, want empty columns", c)
	}
	const seconds = 2 * 86400
	for i := range seconds {
		if now := begin.Add(time.Duration(i) * time.Second); h.due(now) {
			h.add(moment{at: now.Unix(), queued: int64(i), workers: 3, done: 1.23456, iterations: 6.3e6})
		}
	}
	for day, want := range map[bool]struct{ n, step int }{false: {720, 5}, true: {1440, 60}} {
		c := h.columns(day)
		if len(c.At) != want.n || c.StepSeconds != want.step || len(c.Queued) != want.n || len(c.RateIterations) != want.n {
			t.Fatalf("day %v: %d points %d s apart, want %d and %d", day, len(c.At), c.StepSeconds, want.n, want.step)
		}
		for i := range c.At {
			if i > 0 && c.At[i] != c.At[i-1]+int64(want.step) {
				t.Fatalf("day %v: points %d and %d are %d s apart", day, i-1, i, c.At[i]-c.At[i-1])
			}
		}
		if last := c.Queued[want.n-1]; last != int64(seconds-want.step) || c.RateCompleted[0] != 1.235 || c.Workers[5] != 3 {
			t.Errorf("day %v: the last point has %d queued, want %d; rate %v", day, last, seconds-want.step, c.RateCompleted[0])
		}
	}
	h.add(moment{at: begin.Add(-time.Hour).Unix(), queued: 1}) // the clock was set back
	if c := h.columns(false); len(c.At) != 1 {
		t.Errorf("%d points after the clock was set back, want 1: a chart needs them in order", len(c.At))
	}
}

// TestForecast_limits: whatever can hold a scheduler, there is something to do.
func TestForecast_limits(t *testing.T) {
	for _, l := range ec2.Limits {
		if x := limits[l]; x.is == "" || x.do == "" {
			t.Errorf("nothing is said of a fleet that is held by %s", l)
		}
	}
	if len(limits) != len(ec2.Limits) {
		t.Errorf("%d limits are known, %d are said", len(ec2.Limits), len(limits))
	}
}
