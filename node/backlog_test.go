package node

import (
	"errors"
	"testing"
	"time"

	"workmanager/ec2"
	"workmanager/jobs"
)

// fleetWorker is the worker of an instance.
func fleetWorker(instance, process string) jobs.Worker {
	return jobs.Worker{Name: instance, Instance: process, Cores: 2, Lanes: 8, Rate: 1e6}
}

func demand(t *testing.T, q *Queue) ec2.Demand {
	t.Helper()
	d, err := q.Demand(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestBacklog_tells_the_work_there_is(t *testing.T) {
	a := newAlone(t)
	put(t, a.Queue, 3, 0) // of 1000 iterations each
	if _, err := a.Demand(t.Context()); !errors.Is(err, errSizing) {
		t.Errorf("Demand() before the jobs were counted = %v, want %v", err, errSizing)
	}
	if err := a.store.Size(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := demand(t, a.Queue)
	if d.Open.Jobs() != 3 || d.Open.Capped(1e9) != 3*999 || d.Queued != 3 || d.Arrived != (jobs.Work{}) || len(d.Workers) != 0 {
		t.Errorf("Demand() = %d jobs of %g, %d queued, %v arrived, workers %+v", d.Open.Jobs(), d.Open.Capped(1e9), d.Queued, d.Arrived, d.Workers)
	}
	put(t, a.Queue, 2, 0)
	w := fleetWorker("i-1", "x")
	began := a.at
	l, ok := leaseTo(t, a.Queue, w)
	if !ok {
		t.Fatal("no lease")
	}
	for _, other := range []jobs.Worker{{Name: "a", Cores: 2}, far("1"), {Name: "i-" + string(make([]byte, maxInstanceName)), Instance: "y"}} {
		leaseTo(t, a.Queue, other) // none of the fleet
	}
	a.step(2 * time.Second)
	says(t, a.Queue, w, l, jobs.ReportProgress, 400, jobs.Value{4})
	a.step(time.Second)
	if next, ok := leaseTo(t, a.Queue, w); !ok || next.ID == l.ID {
		t.Fatalf("second lease %+v, %t", next, ok)
	}
	d = demand(t, a.Queue)
	want := ec2.Worker{Instance: "i-1", Lanes: 16, Rate: 1e6, Leases: 2, Remaining: 600 + 999, Leased: true, LeasedAt: began, SeenAt: a.at}
	if len(d.Workers) != 1 || d.Workers[0] != want {
		t.Errorf("workers %+v, want %+v", d.Workers, want)
	}
	if d.Queued != 0 || d.Open.Jobs() != 5 || d.Arrived != (jobs.Work{Lo: 2 * 999}) {
		t.Errorf("%d of %d jobs queued, %v arrived, want none of 5, and 1998", d.Queued, d.Open.Jobs(), d.Arrived)
	}

	// Its worker is started again: it is one instance all the same.
	a.step(time.Second)
	again := fleetWorker("i-1", "z")
	again.Rate = 2e6
	leaseTo(t, a.Queue, again)
	want.Rate, want.SeenAt = 2e6, a.at
	if d := demand(t, a.Queue); len(d.Workers) != 1 || d.Workers[0] != want {
		t.Errorf("workers %+v, want %+v", d.Workers, want)
	}

	// What ends is no work any more.
	says(t, a.Queue, w, l, jobs.ReportValue, 1000, value(l.ID, 1000))
	if d := demand(t, a.Queue); d.Open.Jobs() != 4 || d.Workers[0].Leases != 1 || d.Workers[0].Remaining != 999 {
		t.Errorf("%d jobs, worker %+v, want 4 and one lease", d.Open.Jobs(), d.Workers[0])
	}
}

func TestBacklog_a_worker_that_is_to_drain_gets_no_lease(t *testing.T) {
	a := newAlone(t)
	put(t, a.Queue, 4, 0)
	one, two := fleetWorker("i-1", "x"), fleetWorker("i-2", "y")
	l, _ := leaseTo(t, a.Queue, one)
	order := func(o ec2.Orders) {
		t.Helper()
		if err := a.Order(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	order(ec2.Orders{Drain: []string{"i-1"}, Idle: map[string]time.Duration{"i-2": 15 * time.Second, "i-3": 0}})
	if _, ok := leaseTo(t, a.Queue, one); ok {
		t.Error("a worker that is to drain got a lease")
	}
	if _, ok := leaseTo(t, a.Queue, two); !ok {
		t.Error("another worker got none")
	}
	for w, want := range map[jobs.Worker]jobs.Orders{
		one: {Drain: true}, two: {Idle: 15 * time.Second}, fleetWorker("i-3", "z"): {Idle: jobs.IdleForEver}, fleetWorker("i-4", "z"): {}, {Name: "i-1"}: {},
	} {
		if got := a.Orders(w); got != want {
			t.Errorf("Orders(%s) = %+v, want %+v", w.Key(), got, want)
		}
	}
	if v := says(t, a.Queue, one, l, jobs.ReportHandBack, 500, jobs.Value{5}); v != jobs.Kept {
		t.Errorf("verdict %d on a hand-back, want kept", v)
	}
	// The next one goes on from there, when the job's turn comes.
	found := false
	for range 4 {
		next, _ := leaseTo(t, a.Queue, two)
		found = found || next.ID == l.ID && next.Start.Done == 500
	}
	if !found {
		t.Error("nobody went on where the drained worker was")
	}
	order(ec2.Orders{}) // they replace the last
	put(t, a.Queue, 1, 0)
	if _, ok := leaseTo(t, a.Queue, one); !ok || a.Orders(two) != (jobs.Orders{}) {
		t.Errorf("after other orders: a lease %t, orders %+v, want one and none", ok, a.Orders(two))
	}
}

// One that waits for a job is told at once, and then no sooner than it waits:
// it may be an old one, which does not understand.
func TestBacklog_a_waiting_worker_is_told_at_once(t *testing.T) {
	a := newAlone(t)
	w := fleetWorker("i-1", "x")
	lease := func(wait time.Duration) time.Duration {
		begin := time.Now()
		if got, err := a.Lease(t.Context(), w, jobs.Capacity{Jobs: 1, Iterations: 1, Wait: wait}); err != nil || len(got) != 0 {
			t.Errorf("Lease() = %v, %v, want none", got, err)
		}
		return time.Since(begin)
	}
	took := make(chan time.Duration, 1)
	go func() { took <- lease(30 * time.Second) }()
	until(t, "the worker waits", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.waiters == 1
	})
	if err := a.Order(t.Context(), ec2.Orders{Drain: []string{"i-1"}}); err != nil {
		t.Fatal(err)
	}
	if d := <-took; d > 10*time.Second {
		t.Errorf("it was told after %v", d)
	}
	if d := lease(30 * time.Second); d > 10*time.Second { // the answer may have been lost before the orders were in it
		t.Errorf("it waited %v before it was told", d)
	}
	if o := a.Orders(w); !o.Drain {
		t.Fatal("it was not told")
	}
	if err := a.Order(t.Context(), ec2.Orders{Drain: []string{"i-1"}}); err != nil { // the next decision says the same
		t.Fatal(err)
	}
	if d := lease(200 * time.Millisecond); d < 200*time.Millisecond {
		t.Errorf("one that does not understand asks again after %v, want no sooner than it waits", d)
	}
}

// until polls, and fails the test if it does not come to be.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not so in time: %s", what)
		}
	}
}
