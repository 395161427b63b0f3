package node

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/lease"
	"workmanager/jobs/store"
)

// far is a worker in another process.
func far(instance string) jobs.Worker {
	return jobs.Worker{Name: "far", Instance: instance, Cores: 1}
}

// alone is a queue on a disk, with a clock of the test's.
type alone struct {
	*Queue
	t   *testing.T
	dir string
	at  time.Time
}

func newAlone(t *testing.T) *alone {
	a := &alone{t: t, dir: t.TempDir(), at: time.Now()}
	a.start()
	return a
}

// start opens the disk, as a node does at its start: leases of before are void.
func (a *alone) start() {
	a.t.Helper()
	s, err := store.Open(a.t.Context(), a.dir, store.Options{Node: "a", DSN: "&_pragma=synchronous(OFF)"})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = s.Close() }) // perhaps again
	a.Queue = newQueue(Default(), s, func() time.Time { return a.at }, slog.New(slog.DiscardHandler), newCache(100), nil)
	a.step(0)
	if err := a.fillWindow(a.t.Context()); err != nil { // the first look at the disk
		a.t.Fatal(err)
	}
}

// step lets time pass as the node's loop sees it, in steps of its own.
func (a *alone) step(d time.Duration) {
	a.t.Helper()
	for end := a.at.Add(d); ; a.at = a.at.Add(stepInterval) {
		if err := a.Queue.step(a.t.Context(), a.at); err != nil {
			a.t.Fatal(err)
		}
		if !a.at.Before(end) {
			return
		}
	}
}

func leaseTo(t *testing.T, q *Queue, w jobs.Worker) (jobs.Lease, bool) {
	t.Helper()
	got, err := q.Lease(t.Context(), w, jobs.Capacity{Jobs: 1, Iterations: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) == 0 {
		return jobs.Lease{}, false
	}
	return got[0], true
}

// says reports one thing and returns the verdict.
func says(t *testing.T, q *Queue, w jobs.Worker, l jobs.Lease, kind jobs.ReportKind, done uint64, v jobs.Value) jobs.Verdict {
	t.Helper()
	got, err := q.Report(t.Context(), w, []jobs.Report{{
		LeaseRef: l.LeaseRef, V1: l.V1, Iterations: l.Iterations, Kind: kind, Progress: jobs.Progress{Done: done, Value: v}, Err: "no reason",
	}})
	if err != nil {
		t.Fatal(err)
	}
	return got[0]
}

func TestRemote_a_silent_workers_lease_ends(t *testing.T) {
	a := newAlone(t)
	id := put(t, a.Queue, 1, 0)[0]
	l, _ := leaseTo(t, a.Queue, far("1"))
	if l.ID != id || l.TTL != leaseTTL {
		t.Fatalf("lease %+v, want one of %s for %v", l, id, leaseTTL)
	}
	for range 5 { // run time has no part in it
		a.step(leaseTTL - time.Second)
		if v := says(t, a.Queue, far("1"), l, jobs.ReportProgress, 50, jobs.Value{5}); v != jobs.Kept {
			t.Fatalf("verdict %d on a lease that was renewed in time", v)
		}
	}
	a.step(leaseTTL - stepInterval)
	if _, ok := leaseTo(t, a.Queue, far("2")); ok {
		t.Fatal("the job was leased again within the TTL")
	}
	a.step(3 * stepInterval)
	next, ok := leaseTo(t, a.Queue, far("2"))
	if !ok || next.ID != id || next.Start != (jobs.Progress{Done: 50, Value: jobs.Value{5}}) {
		t.Fatalf("the next lease is %+v, %t, want one from 50 iterations", next, ok)
	}
	if j, _, err := a.store.Job(t.Context(), id); err != nil || j.Lost != 1 {
		t.Errorf("the job has lost %d workers, %v, want 1", j.Lost, err)
	}
	// The first one comes back: it has lost the lease, and is right all the same.
	if v := says(t, a.Queue, far("1"), l, jobs.ReportProgress, 90, jobs.Value{9}); v != jobs.Lost {
		t.Errorf("verdict %d on progress of a job that another has, want lost", v)
	}
	if v := says(t, a.Queue, far("1"), l, jobs.ReportFailure, 0, jobs.Value{}); v != jobs.Lost {
		t.Errorf("verdict %d on a failure of a job that another has, want lost", v)
	}
	right := value(id, l.Iterations)
	if v := says(t, a.Queue, far("1"), l, jobs.ReportValue, l.Iterations, right); v != jobs.Kept {
		t.Errorf("verdict %d on a right value that comes late, want kept", v)
	}
	if v := says(t, a.Queue, far("2"), next, jobs.ReportProgress, 60, jobs.Value{6}); v != jobs.Lost {
		t.Errorf("verdict %d on progress of a job that is completed, want lost", v)
	}
	if v := says(t, a.Queue, far("2"), next, jobs.ReportValue, l.Iterations, right); v != jobs.Kept {
		t.Errorf("verdict %d on the value again, want kept", v)
	}
	if got, err := a.Pull(t.Context(), 10); err != nil || len(got) != 1 || got[0].Value != right {
		t.Errorf("results %v, %v, want the value once", got, err)
	}
	if a.alarms.Load() != 0 {
		t.Error("there is an alarm")
	}
}

// TestRemote_a_silent_workers_lease_ends_where_the_loop_is_slow: the loop comes
// so late, each time, that this process might have slept.
func TestRemote_a_silent_workers_lease_ends_where_the_loop_is_slow(t *testing.T) {
	a := newAlone(t)
	put(t, a.Queue, 2, 0)
	silent, _ := leaseTo(t, a.Queue, far("1"))
	l, _ := leaseTo(t, a.Queue, far("2"))
	for range 8 {
		a.at = a.at.Add(slept + time.Second)
		if err := a.Queue.step(t.Context(), a.at); err != nil {
			t.Fatal(err)
		}
		if v := says(t, a.Queue, far("2"), l, jobs.ReportProgress, 50, jobs.Value{5}); v != jobs.Kept {
			t.Fatalf("verdict %d on a lease that was renewed in time", v)
		}
	}
	if next, ok := leaseTo(t, a.Queue, far("2")); !ok || next.ID != silent.ID {
		t.Errorf("24 s after its worker fell silent a job is not to be had: %+v, %t", next, ok)
	}
}

func TestRemote_the_nodes_own_worker_has_no_deadline(t *testing.T) {
	a := newAlone(t)
	put(t, a.Queue, 1, 0)
	if l, _ := leaseTo(t, a.Queue, jobs.Worker{Name: "a"}); l.TTL != 0 {
		t.Errorf("TTL %v, want none", l.TTL)
	}
	a.step(time.Minute)
	if a.table.Leased() != 1 {
		t.Error("its lease has ended")
	}
}

func TestRemote_free_jobs_are_leased_to_who_has_them(t *testing.T) {
	a := newAlone(t)
	id := put(t, a.Queue, 1, 0)[0]
	l, _ := leaseTo(t, a.Queue, far("1"))
	a.step(2 * leaseTTL)
	if a.table.Leased() != 0 {
		t.Fatal("the lease stands after its time")
	}
	if v := says(t, a.Queue, far("1"), l, jobs.ReportProgress, 70, jobs.Value{7}); v != jobs.Kept {
		t.Errorf("verdict %d on progress of a job that is free, want kept", v)
	}
	if _, ok := leaseTo(t, a.Queue, far("2")); ok {
		t.Error("the job was given to another")
	}
	if v, err := a.Job(t.Context(), id, 0); err != nil || v.Done != 70 || v.Worker != "far/1" {
		t.Errorf("the job is %+v, %v, want 70 iterations at far/1", v, err)
	}
	a.step(2 * leaseTTL) // it has a deadline as any other
	if a.table.Leased() != 0 {
		t.Error("the lease stands after its time")
	}
	// In the node's own process there is no such thing.
	if v := says(t, a.Queue, jobs.Worker{Name: "a"}, l, jobs.ReportProgress, 80, jobs.Value{8}); v != jobs.Lost {
		t.Errorf("verdict %d on progress of the node's own worker, want lost", v)
	}
	// A hand-back that comes late is progress too.
	if v := says(t, a.Queue, far("1"), l, jobs.ReportHandBack, 90, jobs.Value{9}); v != jobs.Kept {
		t.Errorf("verdict %d on a late hand-back, want kept", v)
	}
	if next, ok := leaseTo(t, a.Queue, far("2")); !ok || next.Start.Done != 90 {
		t.Errorf("the next lease is %+v, %t, want one from 90 iterations", next, ok)
	}
	a.Cancel(t.Context(), []jobs.ID{id}, false, jobs.AckDefault) //nolint:errcheck // the verdict tells
	if v := says(t, a.Queue, far("2"), l, jobs.ReportProgress, 95, jobs.Value{9}); v != jobs.Withdrawn {
		t.Errorf("verdict %d on a cancelled job, want withdrawn", v)
	}
}

func TestRemote_leases_outlive_a_restart(t *testing.T) {
	a := newAlone(t)
	var leases []jobs.Lease
	ids := put(t, a.Queue, 20, 0)
	for range ids {
		l, _ := leaseTo(t, a.Queue, far("1"))
		leases = append(leases, l)
	}
	if err := a.store.Close(); err != nil {
		t.Fatal(err)
	}
	a.start()
	a.table, a.window = lease.New(a.store.Boot()), newWindow(2, 2) // so most of them wait on the disk
	for _, l := range leases {
		if v := says(t, a.Queue, far("1"), l, jobs.ReportProgress, 70, jobs.Value{7}); v != jobs.Kept {
			t.Errorf("verdict %d after a restart, want kept", v)
		}
	}
	if got := take(t, a.Queue, 100); len(got) != 0 {
		t.Errorf("%d jobs were given to another as well", len(got))
	}
	if v := says(t, a.Queue, far("1"), leases[3], jobs.ReportValue, 1000, value(ids[3], 1000)); v != jobs.Kept {
		t.Errorf("verdict %d on a value, want kept", v)
	}
	other := leases[4]
	other.V1, other.Fence.N = jobs.Value{1}, 999
	if v := says(t, a.Queue, far("2"), other, jobs.ReportProgress, 70, jobs.Value{7}); v != jobs.Lost {
		t.Errorf("verdict %d on other work of one ID, want lost", v)
	}
}

// A node that was stopped itself has heard of nobody: no worker is at fault.
func TestRemote_a_node_that_slept_waits_for_its_workers(t *testing.T) {
	a := newAlone(t)
	put(t, a.Queue, 1, 0)
	l, _ := leaseTo(t, a.Queue, far("1"))
	a.step(time.Second)
	a.at = a.at.Add(time.Minute) // no step meanwhile
	a.step(time.Second)
	if v := says(t, a.Queue, far("1"), l, jobs.ReportProgress, 5, jobs.Value{5}); v != jobs.Kept {
		t.Errorf("verdict %d, want kept", v)
	}
	if j, _, err := a.store.Job(t.Context(), l.ID); err != nil || j.Lost != 0 {
		t.Errorf("the job has lost %d workers, %v", j.Lost, err)
	}
}

func TestRemote_workers_are_bounded(t *testing.T) {
	a := newAlone(t)
	for i := range maxWorkers {
		if _, ok := leaseTo(t, a.Queue, far(fmt.Sprint(i))); ok {
			t.Fatal("a lease of nothing")
		}
	}
	if _, err := a.Lease(t.Context(), far("one too many"), jobs.Capacity{Jobs: 1}); jobs.CodeOf(err) != jobs.CodeBusy {
		t.Errorf("Lease = %v, want busy", err)
	}
	if _, err := a.Report(t.Context(), far("one too many"), nil); jobs.CodeOf(err) != jobs.CodeBusy {
		t.Errorf("Report = %v, want busy", err)
	}
	if _, err := a.Lease(t.Context(), far("7"), jobs.Capacity{Jobs: 1}); err != nil {
		t.Errorf("Lease of a known worker = %v", err)
	}
	a.step(workerGone + time.Second)
	if _, err := a.Lease(t.Context(), far("one too many"), jobs.Capacity{Jobs: 1}); err != nil {
		t.Errorf("Lease when the others have gone = %v", err)
	}
}

// Leases for a worker that hung up meanwhile go to the next at once.
func TestRemote_a_worker_that_hung_up_gets_nothing(t *testing.T) {
	a := newAlone(t)
	put(t, a.Queue, 1, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := a.Lease(ctx, far("1"), jobs.Capacity{Jobs: 1, Iterations: 1}); err != nil || len(got) != 0 {
		t.Errorf("Lease = %v, %v, want none", got, err)
	}
	if _, ok := leaseTo(t, a.Queue, far("2")); !ok {
		t.Error("the job is kept from the next worker")
	}
}

// reached returns from where the next lease of a job would begin at a node.
func (s *solo) reached(id jobs.ID) uint64 {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.queue.table.Done(id)
}

func TestRemote_either_node_takes_reports(t *testing.T) {
	d := newDuo(t, false, nil)
	w := far("1")
	ids := d.put(d.a, 6, 1000, jobs.AckBoth)
	var leases []jobs.Lease
	for range ids {
		l, ok := leaseTo(t, d.a.queue, w)
		if !ok {
			t.Fatal("no lease")
		}
		leases = append(leases, l)
	}
	d.until("both know both nodes", func() bool {
		n, apart := d.a.queue.Nodes()
		m, there := d.b.queue.Nodes()
		return !apart && len(n) == 2 && n[0] == "http://"+d.a.Addr() && n[1] == "http://"+d.b.Addr() && !there && len(m) == 2
	})
	// lost waits for a verdict that takes the other node's word, or that of a commit
	// that is on its way: a node that does not hear it in time keeps what it is told.
	lost := func(what string, s *solo, w jobs.Worker, l jobs.Lease, done uint64) {
		t.Helper()
		d.until("lost is "+what, func() bool { return says(t, s.queue, w, l, jobs.ReportProgress, done, jobs.Value{8}) == jobs.Lost })
	}

	// While its home lives the other asks it, and keeps what it is told.
	if v := says(t, d.b.queue, w, leases[0], jobs.ReportProgress, 500, jobs.Value{5}); v != jobs.Kept {
		t.Errorf("verdict %d at the other node, want kept", v)
	}
	if j, _, err := d.b.store.Job(t.Context(), ids[0]); err != nil || j.Checkpoint.Done != 500 || j.Home != "a" {
		t.Errorf("the other node has %d iterations of a job of %s, %v, want 500 of a", j.Checkpoint.Done, j.Home, err)
	}
	d.until("the home goes on from there", func() bool { return d.a.reached(ids[0]) == 500 })
	d.until("the other node shows the job at far/1", func() bool {
		// Its worker tells the home too: on a slow machine the lease has ended by now.
		if v := says(t, d.a.queue, w, leases[0], jobs.ReportProgress, 500, jobs.Value{5}); v != jobs.Kept {
			t.Fatalf("verdict %d at home, want kept", v)
		}
		v := d.view(d.b, ids[0])
		return v.Worker == "far/1" && v.Leased
	})
	lost("a job that the home's worker has", d.b, far("2"), leases[0], 400)
	if v := says(t, d.b.queue, far("2"), leases[0], jobs.ReportProgress, 600, jobs.Value{8}); v == jobs.Lost { // else the home was slow to say so
		if j, _, err := d.b.store.Job(t.Context(), ids[0]); err != nil || j.Checkpoint.Done != 500 {
			t.Errorf("who has lost a job brings it to %d iterations, %v, want the 500 that its holder said", j.Checkpoint.Done, err)
		}
	}
	if v := says(t, d.b.queue, w, leases[1], jobs.ReportValue, 1000, value(ids[1], 1000)); v != jobs.Kept {
		t.Errorf("verdict %d on a value at the other node, want kept", v)
	}
	d.until("the home has the value", func() bool { return d.here(d.a, ids[1], jobs.Completed) })
	lost("a completed job, at home", d.a, w, leases[1], 500)
	if v := says(t, d.b.queue, w, leases[2], jobs.ReportHandBack, 300, jobs.Value{3}); v != jobs.Kept {
		t.Errorf("verdict %d on a hand-back at the other node, want kept", v)
	}
	d.until("the home goes on from what was handed back", func() bool { return d.a.reached(ids[2]) == 300 })
	if _, err := d.b.queue.Cancel(t.Context(), ids[3:4], false, jobs.AckDefault); err != nil {
		t.Fatal(err)
	}
	if v := says(t, d.b.queue, w, leases[3], jobs.ReportProgress, 300, jobs.Value{3}); v != jobs.Withdrawn {
		t.Errorf("verdict %d on a cancelled job at the other node, want withdrawn", v)
	}

	// When it has died the other gives the lease, and the job is at home there.
	d.a.kill()
	d.until("b counts a as dead", func() bool { return d.b.pair.MayTakeOver() == "a" })
	if _, apart := d.b.queue.Nodes(); !apart {
		t.Error("Nodes() says that the two reach each other")
	}
	if v := says(t, d.b.queue, w, leases[0], jobs.ReportProgress, 700, jobs.Value{7}); v != jobs.Kept {
		t.Errorf("verdict %d on a dead node's job, want kept", v)
	}
	if v := d.view(d.b, ids[0]); v.Home != "b" || v.Worker != "far/1" || v.Done != 700 {
		t.Errorf("the job is %+v, want it at home at b, with 700 iterations", v)
	}
	if v := says(t, d.b.queue, w, leases[4], jobs.ReportHandBack, 400, jobs.Value{4}); v != jobs.Kept {
		t.Errorf("verdict %d on a dead node's job that is handed back, want kept", v)
	}
	if v := says(t, d.b.queue, w, leases[5], jobs.ReportValue, 1000, value(ids[5], 1000)); v != jobs.Kept {
		t.Errorf("verdict %d on a dead node's job's value, want kept", v)
	}
	got := map[jobs.ID]uint64{}
	d.until("another worker gets what was handed back", func() bool {
		for {
			l, ok := leaseTo(t, d.b.queue, far("3"))
			if !ok {
				return len(got) >= 2
			}
			got[l.ID] = l.Start.Done
		}
	})
	if len(got) != 2 || got[ids[2]] != 300 || got[ids[4]] != 400 {
		t.Errorf("another worker gets %v, want the two that were handed back, from where they were", got)
	}

	// It comes back, and knows.
	d.a.start()
	d.synced()
	if v := says(t, d.a.queue, w, leases[0], jobs.ReportProgress, 800, jobs.Value{8}); v != jobs.Kept {
		t.Errorf("verdict %d at the old home, want kept", v)
	}
	lost("a job that another has, at the old home", d.a, w, leases[4], 300)
	if v := says(t, d.b.queue, w, leases[0], jobs.ReportProgress, 900, jobs.Value{9}); v != jobs.Kept {
		t.Errorf("verdict %d at the new home, want kept", v)
	}
}
