package node

import (
	"slices"
	"testing"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// fromPeer has a job's row come from the peer with a checkpoint that a liar
// reported there.
func (a *audited) fromPeer(id jobs.ID, p jobs.Progress) {
	a.t.Helper()
	e, err := a.store.Record(a.t.Context(), []store.Fact{{ID: id, Apply: func(j jobs.Job, _ store.Clock) (jobs.Job, bool) { return j.Advance(p) }}})
	if err != nil || !e[0].Changed {
		a.t.Fatalf("the row did not take the checkpoint: %v", err)
	}
	a.Arrived([]jobs.Changed{{Row: jobs.Row{Job: e[0].Job, LSeq: e[0].LSeq}}})
}

// TestAudit_a_lie_from_the_peer_is_not_the_holders: a wrong checkpoint that was
// reported to the other node comes with the row while an honest worker has the
// job. Whatever becomes of it, that worker is not blamed.
func TestAudit_a_lie_from_the_peer_is_not_the_holders(t *testing.T) {
	none := func(t *testing.T, a *audited) {
		t.Helper()
		a.check()
		if got := a.barred(); len(got) != 0 {
			t.Errorf("quarantined: %v, and none of them lied", got)
		}
	}
	t.Run("a sample of what it computes next", func(t *testing.T) {
		a := newAudited(t, 1)
		put(t, a.Queue, 1, 0)
		l := a.lend("honest")
		a.say("honest", l, jobs.ReportProgress, 300, true)
		a.fromPeer(l.ID, jobs.Progress{Done: 500, Value: valueAt(l.V1, 500, false)})
		a.say("honest", l, jobs.ReportProgress, 600, true)
		if n := len(a.audit.samples); n != 2 {
			t.Fatalf("%d samples, want 2", n)
		}
		a.say("honest", l, jobs.ReportValue, 1000, true)
		none(t, a)
		a.want(l, false)
		if n := a.audit.wrong.Load(); n != 0 {
			t.Errorf("%d wrong, want none", n)
		}
	})
	t.Run("its value", func(t *testing.T) {
		a := newAudited(t, 1)
		put(t, a.Queue, 1, 0)
		l := a.lend("honest")
		a.fromPeer(l.ID, jobs.Progress{Done: 500, Value: valueAt(l.V1, 500, false)})
		a.say("honest", l, jobs.ReportValue, 1000, true)
		none(t, a)
		a.want(l, false)
	})
	t.Run("a job that it handed back", func(t *testing.T) {
		a := newAudited(t, 0)
		put(t, a.Queue, 1, 0)
		l := a.lend("honest")
		a.say("honest", l, jobs.ReportProgress, 300, true)
		lie := jobs.Progress{Done: 500, Value: valueAt(l.V1, 500, false)}
		a.fromPeer(l.ID, lie)
		a.say("honest", l, jobs.ReportHandBack, 400, true)
		next := a.lend("next")
		if next.Start != lie {
			t.Fatalf("the next lease begins at %d, want at what the row says", next.Start.Done)
		}
		a.tell("next", next, jobs.ReportValue, jobs.Progress{Done: 1000, Value: onFrom(lie.Value, 500, 1000)})
		a.say("late", l, jobs.ReportValue, 1000, true) // there are two values
		none(t, a)
		a.want(l, true)
	})
	t.Run("a job that it went on with when its node had died", func(t *testing.T) {
		a := newAudited(t, 1)
		put(t, a.Queue, 1, 0)
		l, _ := a.grant(elsewhere("honest"), jobs.Capacity{Jobs: 1})
		a.fromPeer(l[0].ID, jobs.Progress{Done: 500, Value: valueAt(l[0].V1, 500, false)})
		if err := a.store.Close(); err != nil {
			t.Fatal(err)
		}
		a.open(1)
		a.table.Remove(l[0].ID) // open has leased it to another
		say := func(done uint64, right bool) {
			t.Helper()
			if v := says(t, a.Queue, elsewhere("honest"), l[0], jobs.ReportProgress, done, valueAt(l[0].V1, done, right)); v != jobs.Kept {
				t.Fatalf("at %d it is told %v", done, v)
			}
		}
		say(600, true)
		say(700, true)
		none(t, a)
		say(800, false) // its own word counts
		a.check()
		if got := a.barred(); !slices.Equal(got, []string{"honest"}) {
			t.Errorf("quarantined: %v, want the one that lies now", got)
		}
	})
}
