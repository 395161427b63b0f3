package node

import (
	"crypto/rand"
	"crypto/sha512"
	"slices"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// ladder enqueues a job that keeps checkpoints and leases it to a worker elsewhere.
func (a *audited) ladder(worker string, keep int) jobs.Lease {
	a.t.Helper()
	id, err := jobs.NewID(time.Now(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	j, err := jobs.New(id, sha512.Sum512(id[:]), 20_001, 0)
	if err == nil {
		j, err = j.Keeping(keep)
	}
	if err != nil || int(j.Keep) != keep {
		a.t.Fatal(j.Keep, err)
	}
	if _, err := a.Enqueue(a.t.Context(), []jobs.Job{j}, jobs.AckDefault); err != nil {
		a.t.Fatal(err)
	}
	l, _ := a.grant(elsewhere(worker), jobs.Capacity{Jobs: 1})
	if len(l) != 1 || l[0].ID != id {
		a.t.Fatalf("leases %v, want of job %s", l, id)
	}
	return l[0]
}

// rungs are the kept checkpoints of a job, of which one is wrong, if there is one.
func rungs(l jobs.Lease, wrong int) (r jobs.Rungs) {
	for i := range int(l.Keep) {
		r = r.Add(valueAt(l.V1, jobs.RungAt(l.Iterations, int(l.Keep), i), i != wrong))
	}
	return r
}

// ends reports the right value with kept checkpoints.
func (a *audited) ends(worker string, l jobs.Lease, r jobs.Rungs) {
	a.t.Helper()
	v, err := a.Report(a.t.Context(), elsewhere(worker), []jobs.Report{{LeaseRef: l.LeaseRef, V1: l.V1, Iterations: l.Iterations, Kind: jobs.ReportValue,
		Progress: jobs.Progress{Done: l.Iterations, Value: valueAt(l.V1, l.Iterations, true)}, Rungs: r}})
	if err != nil || v[0] != jobs.Kept {
		a.t.Fatal(v, err)
	}
}

// wantRungs checks the kept checkpoints of a job.
func (a *audited) wantRungs(l jobs.Lease) {
	a.t.Helper()
	j, _, err := a.store.Job(a.t.Context(), l.ID)
	if err != nil || j.Rungs != rungs(l, -1) || j.Result != valueAt(l.V1, l.Iterations, true) {
		a.t.Errorf("job %s: its kept checkpoints are right: %v, its value: %v, %v", l.ID, j.Rungs == rungs(l, -1), j.Result == valueAt(l.V1, l.Iterations, true), err)
	}
}

// TestAudit_kept_checkpoints: a wrong one is found although the value is right, put
// right, and who reported it gets nothing more.
func TestAudit_kept_checkpoints(t *testing.T) {
	a := newAudited(t, 1e-9) // the first reports of a worker are all checked
	good := a.ladder("good", 4)
	a.ends("good", good, rungs(good, -1))
	a.check()
	if a.alarms.Load() != 0 || len(a.barred()) != 0 {
		t.Fatalf("%d alarms, quarantined %v", a.alarms.Load(), a.barred())
	}
	head := a.store.Head()
	bad := a.ladder("bad", 4)
	a.ends("bad", bad, rungs(bad, 2))
	a.check()
	a.wantRungs(good)
	a.wantRungs(bad)
	if got := a.barred(); !slices.Equal(got, []string{"bad"}) || a.alarms.Load() == 0 || a.store.Head() == head {
		t.Errorf("quarantined %v, %d alarms", got, a.alarms.Load())
	}
	if q := a.audit.status().Quarantined[0]; q.Done != jobs.RungAt(bad.Iterations, 4, 2) {
		t.Errorf("shown as %+v, want the place of the wrong checkpoint", q)
	}

	// Of a worker that is quarantined, those that were not drawn.
	a.audit.record("worse/1").checks = firstChecks
	first := a.ladder("worse", 3)
	a.ends("worse", first, rungs(first, 0))
	a.audit.record("worse/1").checks = 0
	second := a.ladder("worse", 3)
	a.ends("worse", second, rungs(second, 1))
	a.check()
	a.wantRungs(first)
	a.wantRungs(second)
}

// TestAudit_two_kept_checkpoints: the peer's row has another one at the same
// place. Both rows come to the right ones, whichever the merge had taken, also
// where the value was verified before, and no row from before brings a wrong one
// back.
func TestAudit_two_kept_checkpoints(t *testing.T) {
	for _, wrongHere := range []bool{false, true} {
		for _, verified := range []bool{false, true} {
			a := newAudited(t, 0)
			l := a.ladder("w", 5)
			here, there := -1, 3
			if wrongHere {
				here, there = there, here
			}
			a.ends("w", l, rungs(l, here))
			a.audit.workers = map[string]*record{} // nobody here is known to have said anything
			if verified {
				if _, err := a.store.Record(t.Context(), []store.Fact{{ID: l.ID, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Settle(j.Result, at()) }}}); err != nil {
					t.Fatal(err)
				}
			}
			row, _, err := a.store.Row(t.Context(), l.ID)
			if err != nil {
				t.Fatal(err)
			}
			row.Job.Rungs, row.LSeq = rungs(l, there), 1
			if err := a.store.SetPeer(t.Context(), "b", "", ""); err != nil {
				t.Fatal(err)
			}
			boot := jobs.ID{7}
			for at := jobs.LSeq(1); at < 3; at++ {
				c := jobs.Chunk{Peer: "b", Boot: boot, Rows: []jobs.Row{row}, Next: jobs.Cursor{Boot: boot, At: at, SeenHead: at}}
				if c.Reset = at == 1; !c.Reset {
					c.From = jobs.Cursor{Boot: boot, At: 1, SeenHead: 1}
				}
				if _, err := a.store.Receive(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				a.check()
				a.wantRungs(l)
			}
			if len(a.barred()) != 0 {
				t.Errorf("quarantined: %v", a.barred())
			}
			want := int64(1) // the row from before is none
			if !wrongHere && rungs(l, -1) < rungs(l, 3) {
				want = 2 // nothing had to be corrected, so that nothing tells the two apart but their values
			}
			if n := a.store.Disagreements(); n != want {
				t.Errorf("%d disagreements, want %d", n, want)
			}
		}
	}
}
