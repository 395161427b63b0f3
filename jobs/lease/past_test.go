package lease_test

import (
	"slices"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/lease"
)

// chain is one long job that goes from worker to worker.
type chain struct {
	*lease.Table
	t *testing.T
	j jobs.Job
}

func newChain(t *testing.T, checkpoint uint64) *chain {
	c := &chain{lease.New(boot), t, job(1, 1, 0, 1000)}
	c.j.Checkpoint = jobs.Progress{Done: checkpoint}
	c.Add(c.j)
	return c
}

// lend gives the job to a worker, which reports progress, if any.
func (c *chain) lend(worker string, done uint64) jobs.Lease {
	c.t.Helper()
	l := grantAll(c.Table, worker, 0)
	if len(l) != 1 {
		c.t.Fatalf("%d leases for %s, want 1", len(l), worker)
	}
	if done > 0 && !c.Renew(epoch, l[0].LeaseRef, jobs.Progress{Done: done, Value: jobs.Value{byte(done)}}, 1) {
		c.t.Fatalf("the lease of %s does not stand", worker)
	}
	return l[0]
}

// pass is lend and a hand-back.
func (c *chain) pass(worker string, done uint64) {
	c.t.Helper()
	c.HandBack(c.lend(worker, done).LeaseRef)
}

func TestRevoke(t *testing.T) {
	for _, tc := range []struct {
		name string
		run  func(c *chain)
		want uint64 // where the job goes on
		anew bool
	}{
		{"its only lease, with progress", func(c *chain) { c.lend("bad", 500) }, 1, true},
		{"its only lease, nothing said", func(c *chain) { c.lend("bad", 0) }, 1, false},
		{"a lease behind another's progress", func(c *chain) { c.pass("good", 300); c.lend("bad", 500) }, 300, true},
		{"a job that it handed back", func(c *chain) { c.pass("good", 300); c.pass("bad", 500) }, 300, true},
		{"a job that another went on with", func(c *chain) { c.pass("good", 200); c.pass("bad", 300); c.pass("good", 600); c.lend("good", 700) }, 200, true},
		{"claims that are forgotten", func(c *chain) {
			c.pass("bad", 2)
			for n := range uint64(12) {
				c.pass("good", 10+n)
			}
		}, 1, true},
		{"nothing of it", func(c *chain) { c.pass("good", 200); c.lend("good", 300) }, 0, false},
	} {
		c := newChain(t, 0)
		tc.run(c)
		n, backs := c.Revoke("bad")
		if tc.want == 0 {
			if n != 0 || len(backs) != 0 || c.Leased() != 1 {
				t.Errorf("%s: Revoke() = %d, %v, %d leases, want none and 1", tc.name, n, backs, c.Leased())
			}
			continue
		}
		var told []lease.Back // the row has to know, if anything was said of it
		if tc.anew {
			told = []lease.Back{{ID: c.j.ID, V1: c.j.V1, Iterations: 1000, To: c.Work(c.j.ID).Start}}
		}
		if n != 1 || !slices.Equal(backs, told) || c.Waiting() != 1 || c.Leased() != 0 || c.LeasesOf("bad")+c.LeasesOf("good") != 0 {
			t.Errorf("%s: Revoke() = %d, %+v, %d wait, %d are leased; want the job to wait and %+v", tc.name, n, backs, c.Waiting(), c.Leased(), told)
		}
		if got := c.lend("next", 0); got.Start.Done != tc.want || c.Anew(c.j.ID) != tc.anew {
			t.Errorf("%s: the next lease begins at %d, anew %v; want %d, %v", tc.name, got.Start.Done, c.Anew(c.j.ID), tc.want, tc.anew)
		}
		if got, want := c.Remaining(), (jobs.Work{Lo: 1000 - tc.want}); got != want {
			t.Errorf("%s: %v iterations remain, want %v", tc.name, got, want)
		}
	}
}

func TestRestart(t *testing.T) {
	c := newChain(t, 400)
	l := c.lend("w", 600)
	b, ok := c.Restart(c.j.ID)
	if want := (lease.Back{ID: c.j.ID, V1: c.j.V1, Iterations: 1000, To: jobs.Progress{Done: 1, Value: c.j.V1}}); !ok || b != want {
		t.Errorf("Restart() = %+v, %v, want %+v", b, ok, want)
	}
	if _, ok := c.Restart(jobs.ID{9}); ok {
		t.Error("Restart() of an unknown job = true")
	}
	if c.Holds(l.LeaseRef) || !c.Anew(c.j.ID) {
		t.Error("the lease from before stands")
	}
	next := c.lend("w", 100)
	if next.Start != (jobs.Progress{Done: 1, Value: c.j.V1}) {
		t.Errorf("the next lease begins at %d, want at v1", next.Start.Done)
	}
	if got := c.Unsaved(); got != (jobs.Work{Lo: 99}) {
		t.Errorf("Unsaved() = %v, want 99: the row is taken back too", got)
	}
	if v := c.View(c.j); v.Done != 100 {
		t.Errorf("View() says %d done, want 100", v.Done)
	}
	c.HandBack(next.LeaseRef)
	if ids := c.Spare(1, 0); len(ids) != 0 || c.Waiting() != 1 {
		t.Error("a job whose row must not be gone on from was given away")
	}
}

// TestTable_keeps_to_the_restarts_of_the_row: what the row was taken back from no
// older copy of it, no worker from before and no start of the node brings back.
func TestTable_keeps_to_the_restarts_of_the_row(t *testing.T) {
	c := newChain(t, 400)
	l := c.lend("w", 600)
	b, _ := c.Restart(c.j.ID)
	older := c.j
	older.Checkpoint = jobs.Progress{Done: 700, Value: jobs.Value{7}}
	if c.Further(older) || c.Done(c.j.ID) != 1 {
		t.Errorf("a copy from before: the job is at %d", c.Done(c.j.ID))
	}
	row, ok := older.TakeBack(b.To, b.Seen)
	if !ok || c.Further(row) || c.Done(c.j.ID) != 1 {
		t.Errorf("its own word from the row: the job is at %d, %v", c.Done(c.j.ID), ok)
	}
	if c.Adopt(epoch, l.LeaseRef, "w", time.Second) {
		t.Error("a worker from before goes on")
	}
	now := c.lend("w", 50)
	row.Restarts, row.Checkpoint = 2, jobs.Progress{Done: 30, Value: jobs.Value{3}} // the peer knows of more
	if !c.Further(row) || c.Done(c.j.ID) != 30 || c.Holds(now.LeaseRef) || c.Waiting() != 1 {
		t.Errorf("a row taken back further: the job is at %d, leased %v", c.Done(c.j.ID), c.Holds(now.LeaseRef))
	}
	row.Checkpoint = jobs.Progress{Done: 40, Value: jobs.Value{4}}
	if c.Further(row); c.Done(c.j.ID) != 40 {
		t.Errorf("its next checkpoint: the job is at %d", c.Done(c.j.ID))
	}
	next := lease.New(jobs.ID{3})
	next.Add(row)
	if n, here := next.Restarts(c.j.ID); n != 2 || !here || !next.Anew(c.j.ID) || next.Adopt(epoch, now.LeaseRef, "w", time.Second) {
		t.Errorf("after a start: %d restarts, %v, a worker from before may go on", n, here)
	}
	if got := grantAll(next, "w", 0)[0].Start; got != row.Checkpoint {
		t.Errorf("after a start: the lease begins at %+v, want %+v", got, row.Checkpoint)
	}
}

// TestRestart_kept: kept checkpoints beyond the place where a job goes on are
// reported anew.
func TestRestart_kept(t *testing.T) {
	table := lease.New(boot)
	j := job(1, 1, 0, 6001)
	j.Keep = 5 // at 1001, 2001, ...
	table.Add(j)
	pass := func(worker string, done uint64, from int, values ...byte) {
		t.Helper()
		l := grantAll(table, worker, 0)[0]
		if !table.Renew(epoch, l.LeaseRef, jobs.Progress{Done: done, Value: jobs.Value{byte(done)}}, 0) {
			t.Fatal("no lease")
		}
		var r jobs.Rungs
		for _, v := range values {
			r = r.Add(jobs.Value{v})
		}
		table.Keep(l.LeaseRef, from, r)
		table.HandBack(l.LeaseRef)
	}
	pass("good", 2500, 0, 1, 2)
	pass("bad", 4500, 2, 33, 44)
	if from, r := table.Kept(j.ID); from != 0 || r.Len() != 4 {
		t.Fatalf("Kept() = %d from %d, want 4 from 0", r.Len(), from)
	}
	table.Revoke("bad")
	if from, r := table.Kept(j.ID); from != 0 || r.Len() != 2 || r.At(1) != (jobs.Value{2}) {
		t.Errorf("Kept() without the wrong worker's = %d from %d, want the other's 2", r.Len(), from)
	}
	pass("good", 4500, 2, 3, 4)
	if _, r := table.Kept(j.ID); r.Len() != 4 || r.At(2) != (jobs.Value{3}) {
		t.Errorf("Kept() after the second run = %d, want 4 of it", r.Len())
	}
	table.Restart(j.ID)
	if _, r := table.Kept(j.ID); r.Len() != 0 {
		t.Errorf("Kept() of a job that begins at v1 = %d, want none", r.Len())
	}
}

func TestTrail(t *testing.T) {
	c := newChain(t, 0)
	old := c.lend("a", 200)
	c.Expire(epoch.Add(time.Hour))
	c.HandBack(old.LeaseRef)
	now := c.lend("b", 300)
	trail, start := c.Trail(now.LeaseRef, "b")
	if want := (lease.Claim{Worker: "a", Start: jobs.Progress{Done: 1, Value: c.j.V1}, At: jobs.Progress{Done: 200, Value: jobs.Value{200}}}); len(trail) != 1 || trail[0] != want || start.Done != 200 {
		t.Errorf("Trail() = %v from %d, want %v from 200", trail, start.Done, want)
	}
	if trail, start := c.Trail(old.LeaseRef, "a"); len(trail) != 0 || start.Done != 1 {
		t.Errorf("Trail() of a lease that ended = %v from %d, want none from 1", trail, start.Done)
	}
	if _, start := c.Trail(old.LeaseRef, "c"); start.Done != 0 {
		t.Errorf("Trail() of a stranger is from %d, want unknown", start.Done)
	}
}

// A worker that says that it lives and does not bring a job on does not keep it,
// and another has it next. That is no loss, and no failure.
func TestStall(t *testing.T) {
	c := newChain(t, 0)
	c.Live("good")
	c.Live("bad")
	now := epoch
	lend := func(worker string) []jobs.Lease {
		return c.Grant(now, worker, jobs.Capacity{Jobs: 1}, 7*time.Second)
	}
	beat := func(l jobs.Lease, done uint64) bool {
		return c.Renew(now, l.LeaseRef, jobs.Progress{Done: done, Value: jobs.Value{byte(done)}}, 1)
	}
	l := lend("bad")[0]
	if by := c.Stall(now.Add(59 * time.Second)); len(by) > 0 {
		t.Fatalf("a new lease: %v", by)
	}
	for range 4 * 20 { // it gets on a little in each of four minutes
		now = now.Add(3 * time.Second)
		done := 2 + uint64(now.Sub(epoch)/(59*time.Second))
		if !beat(l, done) || len(c.Expire(now)) > 0 || len(c.Stall(now)) > 0 {
			t.Fatalf("after %v the lease of a slow worker has ended", now.Sub(epoch))
		}
	}
	reached := c.Done(c.j.ID)
	for from := now; now.Sub(from) < 62*time.Second; {
		now = now.Add(3 * time.Second)
		if !beat(l, reached) || len(c.Expire(now)) > 0 {
			t.Fatalf("a worker that says that it lives was taken for dead")
		}
		if by := c.Stall(now); now.Sub(from) < 57*time.Second && len(by) > 0 || len(by) > 0 && by["bad"].Jobs != 1 {
			t.Fatalf("after %v: %v", now.Sub(from), by)
		} else if len(by) > 0 {
			break
		}
	}
	if c.Holds(l.LeaseRef) || c.Waiting() != 1 || c.Done(c.j.ID) != reached {
		t.Fatalf("the lease stands: %v, %d wait, the job is at %d, want %d", c.Holds(l.LeaseRef), c.Waiting(), c.Done(c.j.ID), reached)
	}
	if got := lend("bad"); len(got) > 0 || c.Adopt(now, l.LeaseRef, "bad", 7*time.Second) {
		t.Error("it has the job again, although there is another worker")
	}
	if got := lend("good"); len(got) != 1 || got[0].Start.Done != reached {
		t.Errorf("the other worker got %v, want the job from %d", got, reached)
	}
}

// Where there is no other worker the same one tries again, and one that has no
// deadline, in the node's own process, is left alone. What slept is forgiven.
func TestStall_leaves_alone(t *testing.T) {
	c := newChain(t, 0)
	c.Live("bad")
	c.Grant(epoch, "bad", jobs.Capacity{Jobs: 1}, 7*time.Second)
	c.Pardon(epoch.Add(time.Hour))
	if by := c.Stall(epoch.Add(time.Hour + 59*time.Second)); len(by) > 0 {
		t.Errorf("after a sleep: %v", by)
	}
	if by := c.Stall(epoch.Add(time.Hour + time.Minute)); by["bad"].Jobs != 1 {
		t.Errorf("a minute after a sleep: %v", by)
	}
	old := jobs.LeaseRef{ID: c.j.ID, Fence: jobs.Fence{N: 1}}
	if !c.Adopt(epoch.Add(time.Hour+time.Minute), old, "bad", 7*time.Second) || !c.HandBack(old) {
		t.Fatal("the only worker may not go on with the job")
	}
	if got := c.Grant(epoch.Add(time.Hour+time.Minute), "bad", jobs.Capacity{Jobs: 1}, 0); len(got) != 1 {
		t.Fatal("the only worker does not get the job again")
	}
	if by := c.Stall(epoch.Add(100 * time.Hour)); len(by) > 0 {
		t.Errorf("a lease without a deadline: %v", by)
	}
}
