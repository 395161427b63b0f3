package node

import (
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
)

// ttl is that of a remote worker's lease.
const ttl = 7 * time.Second

// remote is a queue on a clock of the test, and its one job.
type remote struct {
	refusal
	t   *testing.T
	now time.Time
	id  jobs.ID
}

func newRemote(t *testing.T) *remote {
	r := &remote{t: t, now: time.Now()}
	r.refusal = newRefusal(t, func() time.Time { return r.now })
	take(t, r.Queue, 1)
	r.id = put(t, r.Queue, 1, 0)[0]
	return r
}

// lend gives the job to a worker elsewhere.
func (r *remote) lend(worker string) jobs.Lease {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.saw(r.now, jobs.Worker{Name: worker, Cores: 1})
	l := r.table.Grant(r.now, worker, jobs.Capacity{Jobs: 1}, ttl)
	if len(l) != 1 || l[0].ID != r.id {
		r.t.Fatalf("worker %s got %v, want the job", worker, l)
	}
	return l[0]
}

func (r *remote) tell(worker string, l jobs.Lease, kind jobs.ReportKind, done uint64, why string) jobs.Verdict {
	r.t.Helper()
	v, err := r.Report(r.t.Context(), jobs.Worker{Name: worker, Cores: 1}, []jobs.Report{{
		LeaseRef: l.LeaseRef, V1: l.V1, Iterations: l.Iterations, Kind: kind, Err: why,
		Progress: jobs.Progress{Done: done, Value: jobs.Value{byte(done)}},
	}})
	if err != nil {
		r.t.Fatal(err)
	}
	return v[0]
}

// wait lets time pass as the node's loop does, a step a second.
func (r *remote) wait(d time.Duration) {
	r.t.Helper()
	for end := r.now.Add(d); r.now.Before(end); {
		r.now = r.now.Add(time.Second)
		if err := r.step(r.t.Context(), r.now); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *remote) job() jobs.Job {
	r.t.Helper()
	j, _, err := r.store.Job(r.t.Context(), r.id)
	if err != nil {
		r.t.Fatal(err)
	}
	return j
}

// TestLost_job_is_leasable_within_ten_seconds of the last heartbeat, from what
// that said.
func TestLost_job_is_leasable_within_ten_seconds(t *testing.T) {
	r := newRemote(t)
	l := r.lend("w")
	r.wait(3 * time.Second)
	r.tell("w", l, jobs.ReportProgress, 400, "")
	for s := range 10 {
		r.wait(time.Second)
		if r.table.Waits(r.id) {
			t.Logf("after %d s", s+1)
			break
		}
	}
	next := r.lend("x")
	if next.Start.Done != 400 {
		t.Errorf("the next worker begins at %d, want 400", next.Start.Done)
	}
	if j := r.job(); j.Checkpoint.Done != 400 || j.Lost != 1 || j.Attempts != 1 {
		t.Errorf("the row is at %d with %d lost and %d attempts, want 400, 1 and 1", j.Checkpoint.Done, j.Lost, j.Attempts)
	}
	if n := r.leasesLost.Load(); n != 1 {
		t.Errorf("%d leases lost are counted, want 1", n)
	}
}

func TestLost_five_workers_without_progress_fail_the_job(t *testing.T) {
	r := newRemote(t)
	for n := range jobs.MaxLost - 1 {
		r.lend("w")
		r.wait(9 * time.Second)
		if j := r.job(); j.Ended() || int(j.Lost) != n+1 {
			t.Fatalf("after %d losses the job is %v with %d lost", n+1, j.Rank, j.Lost)
		}
	}
	// None of these is a loss.
	for range 3 {
		r.tell("w", r.lend("w"), jobs.ReportHandBack, 0, "")
	}
	if j := r.job(); int(j.Lost) != jobs.MaxLost-1 {
		t.Fatalf("after hand-backs %d are lost, want %d", j.Lost, jobs.MaxLost-1)
	}
	// Progress begins the count anew, also if no row knew of it yet.
	l := r.lend("w")
	r.tell("w", l, jobs.ReportProgress, 300, "")
	r.wait(9 * time.Second)
	if j := r.job(); j.Ended() || j.Lost != 1 {
		t.Fatalf("after a loss with progress the job is %v with %d lost, want open with 1", j.Rank, j.Lost)
	}
	for range jobs.MaxLost - 1 {
		r.lend("w")
		r.wait(9 * time.Second)
	}
	j := r.job()
	if j.Rank != jobs.Failed || !strings.Contains(j.Err, "5 workers lost") || r.table.Has(r.id) {
		t.Errorf("after 5 losses the job is %v, %q, in the table: %v; want failed", j.Rank, j.Err, r.table.Has(r.id))
	}
}

// TestLost_is_counted_when_the_disk_takes_it: a loss that could not be written
// is written at a later step.
func TestLost_is_counted_when_the_disk_takes_it(t *testing.T) {
	r := newRemote(t)
	r.lend("w")
	r.now = r.now.Add(9 * time.Second)
	r.refuse()
	if err := r.step(t.Context(), r.now); err == nil {
		t.Fatal("step() with a disk that refuses = nil")
	}
	if !r.table.Waits(r.id) {
		t.Error("the job does not wait, though its lease has expired")
	}
	r.accept()
	r.wait(time.Second)
	if j := r.job(); j.Lost != 1 {
		t.Errorf("%d lost, want 1", j.Lost)
	}
}

// TestLost_counts_over_take_over: losses at both nodes are losses of one job.
func TestLost_counts_over_take_over(t *testing.T) {
	d := newDuo(t, false, nil)
	var id jobs.ID
	d.patient(func() bool {
		id = d.put(d.a, 1, 1000, jobs.AckDefault)[0]
		return d.view(d.b, id).Iterations > 0
	})
	lose := func(s *solo, lost uint32) {
		q := s.queue
		if s == d.b {
			d.until("b takes the job over", func() bool {
				l := d.lease(d.b, "w", 1)
				if len(l) == 0 {
					return false
				}
				q.mu.Lock() // and gives it a deadline
				defer q.mu.Unlock()
				return q.table.HandBack(l[0].LeaseRef)
			})
		}
		q.mu.Lock()
		l := q.table.Grant(q.now(), "w", jobs.Capacity{Jobs: 1}, time.Millisecond)
		q.mu.Unlock()
		if len(l) != 1 {
			t.Fatalf("%d leases, want 1", len(l))
		}
		d.until("the loss is counted", func() bool {
			j, _, err := s.store.Job(t.Context(), id)
			return err == nil && (j.Lost == lost || j.Ended())
		})
	}
	for n := range uint32(jobs.MaxLost - 1) {
		lose(d.a, n+1)
	}
	d.until("b knows", func() bool {
		j, _, err := d.b.store.Job(t.Context(), id)
		return err == nil && j.Lost == jobs.MaxLost-1
	})
	d.a.stop()
	lose(d.b, jobs.MaxLost)
	if j, _, err := d.b.store.Job(t.Context(), id); err != nil || j.Rank != jobs.Failed {
		t.Errorf("the job is %v after 4 losses at a and one at b, %v; want failed", j.Rank, err)
	}
}

// TestFailure_is_tried_again_where_all_others_are_busy: one that could try has
// enough to do for days.
func TestFailure_is_tried_again_where_all_others_are_busy(t *testing.T) {
	a := newAlone(t)
	put(t, a.Queue, 2, 0)
	busy, _ := leaseTo(t, a.Queue, far("busy"))
	l, _ := leaseTo(t, a.Queue, far("w"))
	if v := says(t, a.Queue, far("w"), l, jobs.ReportFailure, 0, jobs.Value{}); v != jobs.Kept {
		t.Fatalf("verdict %d on a failure", v)
	}
	for at := time.Duration(0); at < time.Minute; at += 5 * time.Second {
		if next, ok := leaseTo(t, a.Queue, far("w")); ok {
			t.Fatalf("after %v, with another worker there: %+v", at, next)
		}
		a.step(5 * time.Second)
		if v := says(t, a.Queue, far("busy"), busy, jobs.ReportProgress, 50, jobs.Value{5}); v != jobs.Kept {
			t.Fatalf("verdict %d on progress", v)
		}
	}
	if next, ok := leaseTo(t, a.Queue, far("w")); !ok || next.ID != l.ID {
		t.Errorf("after a minute in which nobody took it the job is not to be had: %+v, %t", next, ok)
	}
}

// TestFailure_is_tried_elsewhere and fails the job with its reason when as many
// workers as may have said so.
func TestFailure_is_tried_elsewhere(t *testing.T) {
	r := newRemote(t)
	l := r.lend("w")
	r.mu.Lock()
	r.saw(r.now, jobs.Worker{Name: "x"})
	r.mu.Unlock()
	if v := r.tell("w", l, jobs.ReportFailure, 0, "no"); v != jobs.Kept {
		t.Errorf("verdict %v, want kept", v)
	}
	if v := r.tell("w", l, jobs.ReportFailure, 0, "no"); v != jobs.Lost {
		t.Errorf("verdict on the same again %v, want lost", v)
	}
	if got := r.table.Grant(r.now, "w", jobs.Capacity{Jobs: 9}, ttl); len(got) != 0 {
		t.Errorf("the worker that failed got the job again, and another is there")
	}
	if n := r.table.Waiting(); n != 1 {
		t.Fatalf("%d jobs wait, want 1", n)
	}
	r.tell("x", r.lend("x"), jobs.ReportFailure, 0, "nor I")
	if j := r.job(); j.Ended() {
		t.Fatalf("the job is %v after 2 failures", j.Rank)
	}
	l = r.lend("w") // all have tried
	r.refuse()
	if _, err := r.Report(t.Context(), jobs.Worker{Name: "w"}, []jobs.Report{{LeaseRef: l.LeaseRef, Kind: jobs.ReportFailure, Err: "lost"}}); err == nil {
		t.Error("Report() to a disk that refuses = nil")
	}
	r.accept()
	r.tell("w", l, jobs.ReportFailure, 0, "still no")
	if j := r.job(); j.Rank != jobs.Failed || j.Err != "still no" || j.Attempts != 3 || r.table.Has(r.id) {
		t.Errorf("the job is %v, %q after %d attempts, want failed for the last reason after 3", j.Rank, j.Err, j.Attempts)
	}
}

// A remote worker that keeps a job and does not bring it on loses it, within a
// little more than a minute, and the job has lost no worker by that.
func TestStalled_job_goes_to_another_worker(t *testing.T) {
	r := newRemote(t)
	l := r.lend("bad")
	r.mu.Lock()
	r.saw(r.now, jobs.Worker{Name: "good", Cores: 1})
	r.mu.Unlock()
	begin := r.now
	for r.tell("bad", l, jobs.ReportProgress, 1, "") == jobs.Kept {
		if r.wait(3 * time.Second); r.now.Sub(begin) > 2*time.Minute {
			t.Fatal("after two minutes it still has the job")
		}
		r.mu.Lock()
		r.saw(r.now, jobs.Worker{Name: "good", Cores: 1})
		r.mu.Unlock()
	}
	if took := r.now.Sub(begin); took < time.Minute || took > 70*time.Second {
		t.Errorf("it lost the job after %v", took)
	}
	l = r.lend("good")
	if j := r.job(); j.Lost != 0 {
		t.Errorf("the job has lost %d workers, want none", j.Lost)
	}
	if v := r.tell("good", l, jobs.ReportProgress, 3, ""); v != jobs.Kept {
		t.Errorf("the other worker is told %v", v)
	}
}

// A worker in another process, which may go on under a lease that has ended where
// nobody else has the job, does not get the job back in that way: the others are
// busy for long, and come for it when it is theirs.
func TestStalled_job_is_not_adopted_again(t *testing.T) {
	a := newAlone(t)
	put(t, a.Queue, 1, 0)
	l, _ := leaseTo(t, a.Queue, far("bad"))
	begin := a.at
	for a.at.Sub(begin) < 2*time.Minute {
		a.mu.Lock()
		a.saw(a.at, far("busy"))
		a.mu.Unlock()
		if says(t, a.Queue, far("bad"), l, jobs.ReportProgress, 1, jobs.Value{}) != jobs.Kept {
			break
		}
		a.step(3 * time.Second)
	}
	if took := a.at.Sub(begin); took < time.Minute || took > 70*time.Second {
		t.Errorf("it lost the job after %v", took)
	}
	if _, ok := leaseTo(t, a.Queue, far("busy")); !ok {
		t.Error("the job is not there for the other worker")
	}
}
