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
		ids := c.Revoke("bad")
		if tc.want == 0 {
			if len(ids) != 0 || c.Leased() != 1 {
				t.Errorf("%s: Revoke() = %v, %d leases, want none and 1", tc.name, ids, c.Leased())
			}
			continue
		}
		if !slices.Equal(ids, []jobs.ID{c.j.ID}) || c.Waiting() != 1 || c.Leased() != 0 || c.LeasesOf("bad")+c.LeasesOf("good") != 0 {
			t.Errorf("%s: Revoke() = %v, %d wait, %d are leased; want the job to wait", tc.name, ids, c.Waiting(), c.Leased())
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
	if !c.Restart(c.j.ID, 400) || c.Restart(c.j.ID, 400) {
		t.Error("Restart() is not true once")
	}
	if c.Holds(l.LeaseRef) || !c.Anew(c.j.ID) {
		t.Error("the lease from before stands")
	}
	next := c.lend("w", 100)
	if next.Start != (jobs.Progress{Done: 1, Value: c.j.V1}) {
		t.Errorf("the next lease begins at %d, want at v1", next.Start.Done)
	}
	if got := c.Unsaved(); got != (jobs.Work{}) {
		t.Errorf("Unsaved() = %v, want none: the row has more", got)
	}
	if v := c.View(c.j); v.Done != 100 {
		t.Errorf("View() says %d done, want 100", v.Done)
	}
	c.HandBack(next.LeaseRef)
	if ids := c.Spare(1, 0); len(ids) != 0 || c.Waiting() != 1 {
		t.Error("a job whose row must not be gone on from was given away")
	}
}

// TestRestart_of_a_job_not_here_yet: it begins at v1 when it comes, unless it
// has passed the place by then.
func TestRestart_of_a_job_not_here_yet(t *testing.T) {
	for checkpoint, want := range map[uint64]uint64{0: 1, 300: 1, 400: 1, 401: 401} {
		table := lease.New(boot)
		j := job(1, 1, 0, 1000)
		j.Checkpoint = jobs.Progress{Done: checkpoint, Value: jobs.Value{1}}
		if table.Restart(j.ID, 400) {
			t.Error("Restart() of an unknown job = true")
		}
		table.Add(j)
		if got := grantAll(table, "w", 0)[0].Start.Done; got != want || table.Anew(j.ID) != (want == 1 && checkpoint > 0) {
			t.Errorf("checkpoint %d: begins at %d, anew %v, want %d", checkpoint, got, table.Anew(j.ID), want)
		}
	}
	table := lease.New(boot)
	for n := range 10_000 {
		table.Restart(jobs.ID{0: byte(n), 1: byte(n >> 8)}, 1)
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
