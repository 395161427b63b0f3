package node

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
	"workmanager/web/api"
)

// elsewhere is a worker in another process.
func elsewhere(name string) jobs.Worker { return jobs.Worker{Name: name, Instance: "1", Cores: 1} }

// liedTo has a worker elsewhere say a wrong value of a job, and another the right
// one, without looking into it.
func (a *audited) liedTo(liar string) jobs.Lease {
	a.t.Helper()
	put(a.t, a.Queue, 1, 0)
	l, _ := a.grant(elsewhere(liar), jobs.Capacity{Jobs: 1})
	if len(l) != 1 {
		a.t.Fatalf("%d leases, want 1", len(l))
	}
	a.value(liar, l[0], false)
	return l[0]
}

func (a *audited) value(worker string, l jobs.Lease, right bool) jobs.Verdict {
	a.t.Helper()
	v, err := a.Report(a.t.Context(), elsewhere(worker), []jobs.Report{{LeaseRef: l.LeaseRef, V1: l.V1, Iterations: l.Iterations, Kind: jobs.ReportValue,
		Progress: jobs.Progress{Done: l.Iterations, Value: valueAt(l.V1, l.Iterations, right)}}})
	if err != nil {
		a.t.Fatal(err)
	}
	return v[0]
}

// TestQuarantine_outlives_a_restart, says why, and only an operator lifts it.
func TestQuarantine_outlives_a_restart(t *testing.T) {
	a := newAudited(t, 0)
	l := a.liedTo("liar")
	a.value("honest", l, true)
	a.check()
	a.restart()
	if got := a.barred(); !slices.Equal(got, []string{"liar"}) {
		t.Fatalf("quarantined after a restart: %v, want the liar", got)
	}
	q := a.audit.status().Quarantined[0]
	if q.ID != l.ID.String() || q.Done != l.Iterations || q.Said != jobs.PrintOf(valueAt(l.V1, l.Iterations, false)).String() ||
		q.Right != jobs.PrintOf(valueAt(l.V1, l.Iterations, true)).String() || q.Node != "a" || q.By != "" || q.State != api.StateQuarantined || q.Inside || time.Since(q.At) > time.Minute {
		t.Errorf("shown as %+v", q)
	}
	put(t, a.Queue, 2, 0)
	for _, w := range []jobs.Worker{elsewhere("liar"), {Name: "liar", Instance: "2", Cores: 1}} {
		if got, err := a.Lease(t.Context(), w, jobs.Capacity{Jobs: 1, Wait: time.Millisecond}); err != nil || len(got) != 0 {
			t.Errorf("%s got %d leases, %v", w.Key(), len(got), err)
		}
	}
	if got, _ := a.grant(jobs.Worker{Name: "liar", Cores: 1}, jobs.Capacity{Jobs: 1}); len(got) != 1 {
		t.Error("the worker inside a node of that name is taken for it")
	}

	if err := a.OrderQuarantine(t.Context(), api.QuarantineLift, "nobody", "ops", ""); jobs.CodeOf(err) != jobs.CodeNotFound {
		t.Errorf("lifting what is not: %v", err)
	}
	if err := a.OrderQuarantine(t.Context(), api.QuarantineLift, "liar", "ops", "new memory"); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Lease(t.Context(), elsewhere("liar"), jobs.Capacity{Jobs: 1, Wait: time.Millisecond}); err != nil || len(got) != 1 {
		t.Errorf("%d leases after it was lifted, %v, want 1", len(got), err)
	}
	a.restart()
	if got := a.barred(); len(got) != 0 {
		t.Errorf("quarantined after it was lifted and a restart: %v", got)
	}
	list, err := a.QuarantineList(t.Context())
	if err != nil || len(list.Quarantines) != 1 || !list.Replicated || list.Quarantines[0].State != api.StateLifted || list.Quarantines[0].By != "ops" || list.Quarantines[0].Reason != "new memory" {
		t.Errorf("the list: %+v, %v", list, err)
	}
	// Wrong again, quarantined again.
	l = a.liedTo("liar")
	a.value("honest", l, true)
	a.check()
	if got := a.barred(); !slices.Equal(got, []string{"liar"}) || a.audit.rows[jobs.Subject{Worker: "liar"}].Turn != 3 {
		t.Errorf("quarantined %v: %+v", got, a.audit.rows)
	}
}

// TestQuarantine_lifted_at_once: a worker that waits gets its jobs when it is let
// in again, and not when its wait is over.
func TestQuarantine_lifted_at_once(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAudited(t, 0)
		put(t, a.Queue, 1, 0)
		if err := a.OrderQuarantine(t.Context(), api.QuarantineAdd, "w1", "ops", ""); err != nil {
			t.Fatal(err)
		}
		got := make(chan int, 1)
		go func() {
			l, err := a.Lease(t.Context(), elsewhere("w1"), jobs.Capacity{Jobs: 1, Wait: time.Minute})
			if err != nil {
				t.Error(err)
			}
			got <- len(l)
		}()
		synctest.Wait()
		begin := time.Now()
		for _, other := range []string{"w2", "w1"} { // one that is not its own changes nothing
			if len(got) != 0 {
				t.Error("it got something before")
			}
			if err := a.OrderQuarantine(t.Context(), api.QuarantineAdd, "w2", "ops", ""); err != nil {
				t.Fatal(err)
			}
			if err := a.OrderQuarantine(t.Context(), api.QuarantineLift, other, "ops", ""); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if n := <-got; n != 1 || time.Since(begin) != 0 {
			t.Errorf("%d leases after %v, want 1 at once", n, time.Since(begin))
		}
	})
}

// TestQuarantine_by_an_operator takes a worker's leases, and has recomputed what
// it reported.
func TestQuarantine_by_an_operator(t *testing.T) {
	a := newAudited(t, 0)
	done := a.liedTo("w")
	put(t, a.Queue, 1, 0)
	held, _ := a.grant(elsewhere("w"), jobs.Capacity{Jobs: 1})
	for range 2 { // safe to repeat
		if err := a.OrderQuarantine(t.Context(), api.QuarantineAdd, "w", "ops", "smells of smoke"); err != nil {
			t.Fatal(err)
		}
	}
	if a.table.Holds(held[0].LeaseRef) || a.value("w", held[0], true) != jobs.Lost {
		t.Error("it has its lease still")
	}
	a.check()
	a.want(done, true)
	if q := a.audit.status().Quarantined; len(q) != 1 || q[0].By != "ops" || q[0].Reason != "smells of smoke" || q[0].ID != "" {
		t.Errorf("shown as %+v", q)
	}
	// A node's name means the worker inside it too.
	if err := a.OrderQuarantine(t.Context(), api.QuarantineAdd, "a", "", ""); err != nil {
		t.Fatal(err)
	}
	if got, _ := a.grant(jobs.Worker{Name: "a", Cores: 1}, jobs.Capacity{Jobs: 1}); len(got) != 0 || len(a.barred()) != 3 {
		t.Errorf("the node's own worker got %d leases; quarantined: %v", len(got), a.barred())
	}
	if err := a.OrderQuarantine(t.Context(), api.QuarantineLift, "a", "", ""); err != nil || len(a.barred()) != 1 {
		t.Errorf("%v; quarantined: %v", err, a.barred())
	}
	for _, bad := range []string{"", "a/b", "a\nb", strings.Repeat("w", 253)} {
		if err := a.OrderQuarantine(t.Context(), api.QuarantineAdd, bad, "", ""); jobs.CodeOf(err) != jobs.CodeInvalid {
			t.Errorf("worker %q: %v", bad, err)
		}
	}
}

// TestDisputes_outlive_a_restart: a value of which there is another is recomputed
// after a kill too, be it said by a worker or by the peer; and so is what a
// worker that was wrong had reported.
func TestDisputes_outlive_a_restart(t *testing.T) {
	a := newAudited(t, 0)
	said := a.liedTo("liar")
	a.value("honest", said, true) // two values; the report is answered
	came := a.liedTo("liar2")
	row, found, err := a.store.Row(t.Context(), came.ID)
	if err != nil || !found {
		t.Fatal(found, err)
	}
	row.Job.Result, row.LSeq = valueAt(came.V1, came.Iterations, true), 1
	if err := a.store.SetPeer(t.Context(), "b", "", ""); err != nil {
		t.Fatal(err)
	}
	boot := jobs.ID{7}
	if _, err := a.store.Receive(t.Context(), jobs.Chunk{Peer: "b", Boot: boot, Reset: true, Rows: []jobs.Row{row}, Next: jobs.Cursor{Boot: boot, At: 1, SeenHead: 1}}); err != nil {
		t.Fatal(err)
	}
	a.audit.noted = map[jobs.ID]noted{} // what memory would still have noted is lost
	a.restart()
	if d, err := a.store.Doubts(t.Context(), 10); err != nil || len(d) != 2 || !d[0].Disputed || !d[1].Disputed {
		t.Fatalf("the store doubts %v, %v", d, err)
	}
	a.check()
	a.want(said, true)
	a.want(came, true)
	if got := a.barred(); len(got) != 0 {
		t.Errorf("quarantined: %v, and nobody knows who said it", got)
	}
	if err := a.audit.save(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := a.store.Doubts(t.Context(), 10); err != nil || len(d) != 0 {
		t.Errorf("doubted when all is settled: %v, %v", d, err)
	}

	// Of a worker that is quarantined all that it reported is to be recomputed.
	a = newAudited(t, 0)
	var others []jobs.Lease
	for range 3 {
		others = append(others, a.liedTo("liar3"))
	}
	if err := a.OrderQuarantine(t.Context(), api.QuarantineAdd, "liar3", "", ""); err != nil {
		t.Fatal(err)
	}
	if err := a.audit.save(t.Context()); err != nil { // a step later
		t.Fatal(err)
	}
	a.restart()
	a.check()
	for _, l := range others {
		a.want(l, true)
	}
}

// TestDisputes_more_than_fit: those for which memory has no room are taken from
// the store, none is left as it is.
func TestDisputes_more_than_fit(t *testing.T) {
	a := newAudited(t, 0)
	n := maxDisputes + maxDisputes/2
	put(t, a.Queue, n, 0)
	var all []jobs.Lease
	for len(all) < n {
		l, _ := a.grant(elsewhere("w"), jobs.Capacity{Jobs: n, Iterations: 1 << 60})
		for i := range l {
			a.value("w", l[i], false)
			a.audit.mu.Lock()
			a.audit.note(store.Doubt{ID: l[i].ID, Disputed: true})
			a.audit.mu.Unlock()
		}
		all = append(all, l...)
		if len(l) == 0 {
			t.Fatal("no leases")
		}
	}
	if err := a.audit.save(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.restart()
	a.check()
	for _, l := range all {
		if j, _, err := a.store.Job(t.Context(), l.ID); err != nil || !j.Verified || j.Result != valueAt(l.V1, l.Iterations, true) {
			t.Errorf("job %s: verified %v, %v", l.ID, j.Verified, err)
		}
	}
	if st := a.audit.status(); st.Settled != int64(n) || st.Skipped != 0 {
		t.Errorf("%d settled of %d, %d skipped", st.Settled, n, st.Skipped)
	}
}

// TestQuarantine_over_the_pair: a worker that lies at one node gets nothing at
// the other either, also after both were started again and after they were apart;
// lifted at one, it works at both.
func TestQuarantine_over_the_pair(t *testing.T) {
	eachGossip(t, func(t *testing.T, mute bool) {
		d := newDuo(t, mute, nil)
		w := elsewhere("liar")
		lease := func(s *solo, w jobs.Worker) []jobs.Lease {
			t.Helper()
			l, err := s.queue.Lease(t.Context(), w, jobs.Capacity{Jobs: 1, Iterations: 1 << 60, Wait: time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		refused := func(s *solo) bool { return s.queue.audit.isBarred(w) != nil && len(lease(s, w)) == 0 }
		ids := d.put(d.a, 1, 1000, jobs.AckDefault)
		var l jobs.Lease
		d.until("a lease", func() bool {
			got := lease(d.a, w)
			if len(got) == 1 {
				l = got[0]
			}
			return len(got) == 1
		})
		say := func(worker string, right bool) {
			t.Helper()
			if _, err := d.a.queue.Report(t.Context(), elsewhere(worker), []jobs.Report{{LeaseRef: l.LeaseRef, V1: l.V1, Iterations: l.Iterations, Kind: jobs.ReportValue,
				Progress: jobs.Progress{Done: l.Iterations, Value: valueAt(l.V1, l.Iterations, right)}}}); err != nil {
				t.Fatal(err)
			}
		}
		say("liar", false)
		say("honest", true)
		d.until("the true value at both", func() bool {
			return d.view(d.a, ids[0]).Verified && d.view(d.b, ids[0]).Verified && d.view(d.b, ids[0]).Result == valueAt(l.V1, 1000, true)
		})
		d.put(d.a, 4, 1<<40, jobs.AckDefault)
		d.put(d.b, 4, 1<<40, jobs.AckDefault)
		both := func(what string) {
			t.Helper()
			d.until(what, func() bool { return refused(d.a) && refused(d.b) })
			for _, s := range []*solo{d.a, d.b} {
				out, status := d.http(s, "GET", "/v1/quarantine", "", "")
				if text := fmt.Sprint(out); status != 200 || !strings.Contains(text, "worker:liar") || !strings.Contains(text, "node:a") {
					t.Errorf("%s: at %s the list is %d %s", what, s.cfg.Name, status, text)
				}
			}
		}
		both("refused at both")
		d.a.stop()
		d.b.stop()
		d.b.start()
		d.until("refused at the other node, which is alone", func() bool { return refused(d.b) })
		d.a.start()
		d.synced()
		both("refused at both after both were started again")

		// Lifted where it was not found out, while the other is away.
		d.a.stop()
		out, status := d.http(d.b, "POST", "/v1/quarantine?do=lift&worker=liar&reason=mended", "", "")
		var list api.QuarantineList
		if b, err := json.Marshal(out); err != nil || json.Unmarshal(b, &list) != nil || status != 200 || list.Replicated || list.Quarantines[0].State != api.StateLifted {
			t.Errorf("lifted: %d %+v", status, list)
		}
		d.until("it works there", func() bool { return len(lease(d.b, w)) == 1 })
		d.a.start()
		d.until("it works at the other", func() bool { return len(lease(d.a, w)) == 1 })
		d.synced()
		if out, _ := d.http(d.a, "GET", "/v1/quarantine", "", ""); out["replicated"] != true {
			t.Errorf("both hold the same: %v", out)
		}
		if out, status := d.http(d.a, "POST", "/v1/quarantine?do=lift&worker=liar", "", ""); status != 404 {
			t.Errorf("lifted twice: %d %v", status, out)
		}

		// Both change it while they are apart: the later change holds, or the safe one.
		d.b.stop()
		for _, do := range []string{"add", "lift", "add"} {
			if out, status := d.http(d.a, "POST", "/v1/quarantine?worker=liar&do="+do, "", ""); status != 200 {
				t.Fatalf("%s: %d %v", do, status, out)
			}
		}
		d.a.stop()
		d.b.start()
		for _, do := range []string{"add", "lift"} {
			if out, status := d.http(d.b, "POST", "/v1/quarantine?worker=liar&do="+do, "", ""); status != 200 {
				t.Fatalf("%s: %d %v", do, status, out)
			}
		}
		d.a.start()
		d.until("quarantined at both", func() bool { return refused(d.a) && refused(d.b) })
	})
}
