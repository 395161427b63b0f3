package node

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
	"workmanager/jobs/store"
)

// audited is a queue, its auditor without a goroutine, and what was logged.
type audited struct {
	*Queue
	t    *testing.T
	dir  string
	logs strings.Builder
}

func newAudited(t *testing.T, rate float64) *audited {
	a := &audited{t: t, dir: t.TempDir()}
	a.open(rate)
	t.Cleanup(func() { _ = a.store.Close() })
	return a
}

func (a *audited) open(rate float64) {
	a.t.Helper()
	var audit *auditor
	s, err := store.Open(a.t.Context(), a.dir, store.Options{Node: "a", DSN: "&_pragma=synchronous(OFF)", OnDisagree: func(here, came, merged jobs.Job) { audit.disagree(here, came, merged) }})
	if err != nil {
		a.t.Fatal(err)
	}
	cfg := Default()
	cfg.AuditRate = rate
	a.Queue = newQueue(cfg, s, time.Now, slog.New(slog.NewTextHandler(&a.logs, nil)), newCache(100), nil)
	audit = a.audit
	if err := a.audit.restore(a.t.Context()); err != nil {
		a.t.Fatal(err)
	}
	take(a.t, a.Queue, 1) // the first look at the disk
}

// restart is what a kill of the node leaves, and its next start.
func (a *audited) restart() {
	a.t.Helper()
	if err := a.store.Close(); err != nil {
		a.t.Fatal(err)
	}
	a.open(0)
}

// lend gives one job to a worker.
func (a *audited) lend(worker string) jobs.Lease {
	a.t.Helper()
	l, _ := a.grant(jobs.Worker{Name: worker, Cores: 1}, jobs.Capacity{Jobs: 1})
	if len(l) != 1 {
		a.t.Fatalf("%d leases for worker %s, want 1", len(l), worker)
	}
	return l[0]
}

// say reports the true value at a place of the chain, or a wrong one.
func (a *audited) say(worker string, l jobs.Lease, kind jobs.ReportKind, done uint64, right bool) jobs.Verdict {
	a.t.Helper()
	return a.tell(worker, l, kind, jobs.Progress{Done: done, Value: valueAt(l.V1, done, right)})
}

func (a *audited) tell(worker string, l jobs.Lease, kind jobs.ReportKind, p jobs.Progress) jobs.Verdict {
	a.t.Helper()
	v, err := a.Report(a.t.Context(), jobs.Worker{Name: worker, Cores: 1}, []jobs.Report{{
		LeaseRef: l.LeaseRef, V1: l.V1, Iterations: l.Iterations, Kind: kind, Progress: p}})
	if err != nil {
		a.t.Fatal(err)
	}
	return v[0]
}

// valueAt returns the value of a chain after so many iterations, or a wrong one.
func valueAt(v1 jobs.Value, done uint64, right bool) jobs.Value {
	v := onFrom(v1, 1, done)
	if !right {
		v[7] ^= 1
	}
	return v
}

// onFrom computes a chain on.
func onFrom(v jobs.Value, from, to uint64) jobs.Value {
	e := hashchain.NewExecutor[int](1)
	e.Add(hashchain.Chain[int]{Done: from, Iterations: to, Value: v})
	for {
		if ended := e.Done(); len(ended) > 0 {
			return ended[0].Value
		}
		e.Advance(hashchain.Chunk)
	}
}

// check runs the auditor until nothing is left to check.
func (a *audited) check() {
	a.t.Helper()
	exec := hashchain.NewExecutor[*check](0)
	var again []*check
	for {
		busy, err := a.audit.slice(a.t.Context(), exec, &again)
		if err != nil {
			a.t.Fatal(err)
		}
		a.audit.mu.Lock()
		waits := len(a.audit.disputes) + len(a.audit.suspects) + len(a.audit.samples) // what was found last may want more
		a.audit.mu.Unlock()
		if !busy && waits == 0 {
			break
		}
	}
	if n := a.audit.running.Load(); n != 0 || len(a.audit.known) != 0 {
		a.t.Errorf("%d checks run and %d jobs are known, want none", n, len(a.audit.known))
	}
}

// want checks a job's value, and whether it was verified.
func (a *audited) want(l jobs.Lease, verified bool) {
	a.t.Helper()
	j, found, err := a.store.Job(a.t.Context(), l.ID)
	if err != nil || !found {
		a.t.Fatal(found, err)
	}
	if j.Rank != jobs.Completed || j.Result != valueAt(l.V1, l.Iterations, true) || j.Verified != verified {
		a.t.Errorf("job %s is %v, its value right: %v, verified: %v; want completed, right, %v", j.ID, j.Rank, j.Result == valueAt(l.V1, l.Iterations, true), j.Verified, verified)
	}
	if v := a.cache.get(j); v == nil || *v != j.Result {
		a.t.Errorf("job %s: the cache has not the value of the row", j.ID)
	}
}

// barred returns the quarantined workers.
func (a *audited) barred() []string {
	var names []string
	for _, b := range a.audit.status().Quarantined {
		names = append(names, b.Worker)
	}
	slices.Sort(names)
	return names
}

// TestAudit_two_values: the true one is settled by recomputing, the worker at
// fault gets nothing more, and what else it did is recomputed.
func TestAudit_two_values(t *testing.T) {
	a := newAudited(t, 0)
	put(t, a.Queue, 5, 0)
	other := a.lend("liar")
	a.say("liar", other, jobs.ReportValue, 1000, false)
	fine := a.lend("liar")
	a.say("liar", fine, jobs.ReportValue, 1000, true)
	job := a.lend("liar")
	late := job
	a.say("liar", job, jobs.ReportValue, 1000, false)
	held := a.lend("liar")
	if a.alarms.Load() != 0 {
		t.Fatal("an alarm before anybody said otherwise")
	}
	a.say("honest", late, jobs.ReportValue, 1000, true)
	if n := a.alarms.Load(); n != 1 {
		t.Errorf("%d alarms, want 1", n)
	}
	a.check()
	a.want(job, true)
	a.want(other, true)
	a.want(fine, true)
	if got := a.barred(); !slices.Equal(got, []string{"liar"}) {
		t.Errorf("quarantined: %v, want the liar", got)
	}
	if n := a.alarms.Load(); n != 2 {
		t.Errorf("%d alarms, want 2: another value of it was wrong", n)
	}
	if l, err := a.Lease(t.Context(), jobs.Worker{Name: "liar"}, jobs.Capacity{Jobs: 1, Wait: time.Millisecond}); err != nil || len(l) != 0 {
		t.Errorf("a quarantined worker got %d leases, %v", len(l), err)
	}
	if v := a.say("liar", held, jobs.ReportValue, 1000, true); v != jobs.Lost {
		t.Errorf("a quarantined worker's report was %v, want lost", v)
	}
	if a.table.Waiting() != 2 || a.hungry() {
		t.Errorf("%d jobs wait, want both that nobody computed", a.table.Waiting())
	}
	st := a.audit.status()
	if st.Settled != 2 || st.Wrong != 2 || st.Quarantined[0].Reason == "" || st.Quarantined[0].ID != job.ID.String() || len(st.Alarms) != 2 {
		t.Errorf("status: %+v", st)
	}
	if logs := a.logs.String(); strings.Count(logs, "quarantined") != 1 || strings.Contains(logs, valueAt(job.V1, 1000, true).String()) {
		t.Errorf("logged:\n%s", logs)
	}
	// A second dispute of a settled job changes nothing.
	head := a.store.Head()
	a.say("liar2", late, jobs.ReportValue, 1000, false)
	a.check()
	if a.store.Head() != head {
		t.Error("a verified value was written again")
	}
	if len(a.barred()) != 1 {
		t.Errorf("quarantined: %v; nobody knows from where the other computed", a.barred())
	}
	for range 2 {
		a.say("liar2", late, jobs.ReportValue, 1000, false)
		a.check()
	}
	if got := a.barred(); !slices.Equal(got, []string{"liar", "liar2"}) {
		t.Errorf("quarantined: %v, want the second too after three wrong values", got)
	}
}

// TestAudit_blames_who_was_wrong and not who went on from a wrong checkpoint.
func TestAudit_blames_who_was_wrong(t *testing.T) {
	a := newAudited(t, 0)
	put(t, a.Queue, 1, 0)
	l := a.lend("bad")
	wrong := jobs.Progress{Done: 500, Value: valueAt(l.V1, 500, false)}
	a.tell("bad", l, jobs.ReportHandBack, wrong)
	l = a.lend("good")
	if l.Start != wrong {
		t.Fatalf("the lease begins at %d, want at the wrong checkpoint", l.Start.Done)
	}
	a.tell("good", l, jobs.ReportValue, jobs.Progress{Done: 1000, Value: onFrom(wrong.Value, 500, 1000)})
	a.say("third", l, jobs.ReportValue, 1000, true)
	a.check()
	a.want(l, true)
	if got := a.barred(); !slices.Equal(got, []string{"bad"}) {
		t.Errorf("quarantined: %v, want who made the wrong checkpoint", got)
	}
}

// TestAudit_samples: the first reports of a worker are all checked, progress
// too, and a wrong one takes the job back to where another vouches for.
func TestAudit_samples(t *testing.T) {
	a := newAudited(t, 1e-9)
	put(t, a.Queue, 2, 0)
	l := a.lend("good")
	a.say("good", l, jobs.ReportProgress, 200, true)
	a.say("good", l, jobs.ReportHandBack, 300, true)
	a.check()
	if a.audit.checked.Load() != 2 || a.alarms.Load() != 0 {
		t.Fatalf("%d checked, %d alarms, want 2 and 0", a.audit.checked.Load(), a.alarms.Load())
	}
	l = a.lend("bad") // the shortest is first
	if l.Start.Done != 300 {
		t.Fatalf("the lease begins at %d", l.Start.Done)
	}
	a.say("bad", l, jobs.ReportProgress, 400, true)
	a.say("bad", l, jobs.ReportProgress, 500, false)
	a.check()
	if got := a.barred(); !slices.Equal(got, []string{"bad"}) || a.alarms.Load() != 1 {
		t.Fatalf("quarantined: %v with %d alarms, want bad and 1", got, a.alarms.Load())
	}
	if v := a.say("bad", l, jobs.ReportValue, 1000, false); v != jobs.Lost {
		t.Errorf("its value was %v, want lost", v)
	}
	// Its lease's value is not taken from another either: who knows from where.
	if v := a.say("bad's friend", l, jobs.ReportValue, 1000, false); v != jobs.Lost {
		t.Errorf("a value under the lease of before was %v, want lost", v)
	}
	l = a.lend("good")
	if l.Start != (jobs.Progress{Done: 300, Value: valueAt(l.V1, 300, true)}) {
		t.Errorf("the next lease begins at %d, want 300", l.Start.Done)
	}
	a.say("good", l, jobs.ReportValue, 1000, true)
	a.check()
	a.want(l, false)

	// A wrong value of one that is new is found at once.
	l = a.lend("worse")
	a.say("worse", l, jobs.ReportValue, 1000, false)
	a.check()
	a.want(l, true)
	if got := a.barred(); !slices.Equal(got, []string{"bad", "worse"}) {
		t.Errorf("quarantined: %v, want bad and worse", got)
	}
}

// TestAudit_costs_its_rate: what is drawn is that share of what is computed,
// for jobs of all lengths, and never more than it and the bound.
func TestAudit_costs_its_rate(t *testing.T) {
	for name, n := range map[string]uint64{"short jobs": 1000, "long ones": 5e6, "beyond the bound": 1 << 40} {
		a := newAudited(t, 0.01)
		a.audit.record("w").checks = firstChecks
		drawn, all := 0.0, 0.0
		for range 20_000 {
			a.audit.segment("w", &jobs.Report{Iterations: 1 << 50, Progress: jobs.Progress{Done: 1 + n}}, jobs.Progress{Done: 1}, 0)
			all += float64(n)
			for c := a.audit.take(); c != nil; c = a.audit.take() {
				drawn += float64(c.said[0].at - c.from.Done)
			}
		}
		share := drawn / all
		t.Logf("%s: %.5f, %d passed over", name, share, a.audit.skipped.Load())
		if drawn > 0.01*all+maxCredit || n < maxCredit && (share < 0.007 || share > 0.013) {
			t.Errorf("%s: %v of %v iterations were drawn, want a hundredth", name, drawn, all)
		}
		if n > maxCredit && (drawn != 0 || a.audit.skipped.Load() == 0) {
			t.Errorf("%s: drawn %v, passed over %d", name, drawn, a.audit.skipped.Load())
		}
	}
}

// TestAudit_own_worker: a node does not quarantine its own worker for one wrong
// value, unless its kernels are wrong still.
func TestAudit_own_worker(t *testing.T) {
	for _, well := range []bool{true, false} {
		a := newAudited(t, 1e-9)
		a.audit.well = func() bool { return well }
		put(t, a.Queue, 3, 0)
		done := a.lend("a")
		a.audit.record("a").checks = firstChecks
		a.say("a", done, jobs.ReportValue, 1000, false) // not drawn
		a.audit.record("a").checks = 0
		l, other := a.lend("a"), a.lend("a")
		a.say("a", l, jobs.ReportProgress, 600, false)
		a.check()
		a.want(done, true)
		if a.alarms.Load() != 2 || !strings.Contains(a.logs.String(), "level=ERROR") {
			t.Errorf("well %v: %d alarms, want 2; logged:\n%s", well, a.alarms.Load(), a.logs.String())
		}
		if well != (len(a.barred()) == 0) || well != a.table.Holds(other.LeaseRef) || a.table.Holds(l.LeaseRef) {
			t.Errorf("well %v: quarantined %v, leases stand: %v and %v", well, a.barred(), a.table.Holds(other.LeaseRef), a.table.Holds(l.LeaseRef))
		}
		if got := a.table.Work(l.ID).Start.Done; got != 1 {
			t.Errorf("well %v: the job goes on from %d, want from v1", well, got)
		}
	}
}

// TestAudit_that_is_wrong_itself blames nobody and settles nothing.
func TestAudit_that_is_wrong_itself(t *testing.T) {
	a := newAudited(t, 0)
	put(t, a.Queue, 1, 0)
	l := a.lend("w")
	a.say("w", l, jobs.ReportValue, 1000, true)
	c := &check{why: disputed, id: l.ID, v1: l.V1, iterations: 1000, from: jobs.Progress{Done: 1, Value: l.V1}, stops: []uint64{1000},
		said:   []said{a.audit.value("w", &jobs.Report{Iterations: 1000, Progress: jobs.Progress{Value: valueAt(l.V1, 1000, true)}}, nil)[0]},
		values: []jobs.Value{{1}}, second: []jobs.Value{{2}}}
	if err := a.audit.finish(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	a.want(l, false)
	if len(a.barred()) != 0 || a.alarms.Load() != 1 || !strings.Contains(a.logs.String(), "computed two different values") {
		t.Errorf("quarantined %v, %d alarms, logged:\n%s", a.barred(), a.alarms.Load(), a.logs.String())
	}
	if !kernelsRight() {
		t.Error("the kernels of this machine are wrong")
	}
}

// TestAudit_bounds what it keeps.
func TestAudit_bounds(t *testing.T) {
	a := newAudited(t, 1e-9)
	for n := range 3 * maxSuspects {
		id := jobs.ID{0: byte(n), 1: byte(n >> 8), 2: byte(n >> 16)}
		a.audit.mu.Lock()
		a.audit.doubt(id, n%2 == 0)
		a.audit.mu.Unlock()
		a.audit.dispute(id, make([]said, 2*maxSaid)...)
		a.audit.dispute(id, make([]said, 2*maxSaid)...)
		a.audit.noteAlarm(id, "x")
		a.audit.completed(string(rune('a'+n%1000)), id, jobs.Value{}, nil)
		a.audit.completed("one", id, jobs.Value{}, nil)
		a.audit.quarantine(string(rune('a'+n%3000))+"/1", jobs.Quarantine{ID: id, Reason: "x"})
	}
	st := a.audit.status()
	if len(a.audit.suspects) > maxSuspects || st.Disputed > maxDisputes || len(a.audit.known) > maxSuspects+maxDisputes || len(st.Alarms) > maxAlarms ||
		len(st.Quarantined) > maxShown || len(a.audit.rows) > jobs.MaxQuarantines || len(a.audit.noted) > maxNoted || len(a.audit.workers) > maxRecords || len(a.audit.workers["one"].results) > maxReports {
		t.Errorf("suspects %d, disputes %d, known %d, workers %d", len(a.audit.suspects), st.Disputed, len(a.audit.known), len(a.audit.workers))
	}
	if st.Skipped == 0 {
		t.Error("nothing was counted as left out")
	}
}

// TestAudit_runs: a node that checks all that its workers compute finds nothing.
func TestAudit_runs(t *testing.T) {
	d := newDuo(t, false, func(a, b *Config) { a.AuditRate, a.Workers = 1, 1 })
	ids := d.put(d.a, 60, 20_000, jobs.AckDefault)
	d.until("all are completed and checked", func() bool {
		for _, id := range ids {
			if !d.here(d.a, id, jobs.Completed) {
				return false
			}
		}
		return d.a.queue.audit.checked.Load() >= 60
	})
	st, err := (&status{cfg: d.a.cfg, signing: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), queue: d.a.queue, store: d.a.store, now: time.Now}).Status(context.Background())
	if err != nil || st.Alarms != 0 || len(st.Audit.Quarantined) != 0 || st.Audit.Wrong != 0 {
		t.Errorf("status says %+v, %v", st.Audit, err)
	}
}

// TestAudit_over_the_pair: each node has completed the job with another value
// while they were apart. Both come to hold the true one, and then keep still.
func TestAudit_over_the_pair(t *testing.T) {
	for _, wrongAt := range []string{"a", "b"} {
		for _, larger := range []bool{false, true} { // the merge takes the smaller
			d := newDuo(t, false, nil)
			var j jobs.Job
			d.patient(func() bool {
				j = d.fresh(3000)
				_, err := d.a.queue.Enqueue(t.Context(), []jobs.Job{j}, jobs.AckDefault)
				if err != nil {
					t.Fatal(err)
				}
				return d.here(d.b, j.ID, jobs.Open)
			})
			right := valueAt(j.V1, j.Iterations, true)
			wrong := right
			wrong[0]--
			if larger {
				wrong[0] += 2
			}
			end := func(s, other *solo, name string) {
				other.stop()
				v := right
				if name == wrongAt {
					v = wrong
				}
				if _, err := s.store.Record(t.Context(), []store.Fact{{ID: j.ID, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Complete(v, at()) }}}); err != nil {
					t.Fatal(err)
				}
				s.stop()
				other.start()
			}
			end(d.a, d.b, "a")
			end(d.b, d.a, "b")
			d.b.start()
			d.until("both hold the true value, verified", func() bool {
				for _, s := range []*solo{d.a, d.b} {
					if now, _, err := s.store.Job(t.Context(), j.ID); err != nil || now.Result != right || !now.Verified {
						return false
					}
				}
				return true
			})
			d.until("both are done", func() bool {
				return d.a.queue.audit.running.Load()+d.b.queue.audit.running.Load() == 0 && len(d.a.queue.audit.status().Alarms)+len(d.b.queue.audit.status().Alarms) > 0
			})
			heads := [2]jobs.LSeq{d.a.store.Head(), d.b.store.Head()}
			from := time.Now()
			d.until("half a second is over", func() bool { return time.Since(from) > 500*time.Millisecond })
			if now := [2]jobs.LSeq{d.a.store.Head(), d.b.store.Head()}; now != heads {
				t.Errorf("wrong at %s: the heads went on from %v to %v", wrongAt, heads, now)
			}
			d.a.stop()
			d.b.stop()
		}
	}
}

// TestAudit_two_checkpoints: the nodes come to one place with two values. The
// job begins again from v1, whatever the rows say, and ends right.
func TestAudit_two_checkpoints(t *testing.T) {
	d := newDuo(t, false, nil)
	var j jobs.Job
	d.patient(func() bool {
		j = d.fresh(1000)
		if _, err := d.a.queue.Enqueue(t.Context(), []jobs.Job{j}, jobs.AckDefault); err != nil {
			t.Fatal(err)
		}
		return d.here(d.b, j.ID, jobs.Open)
	})
	advance := func(s *solo, v jobs.Value) {
		if _, err := s.store.Record(t.Context(), []store.Fact{{ID: j.ID, Apply: func(j jobs.Job, _ store.Clock) (jobs.Job, bool) {
			return j.Advance(jobs.Progress{Done: 400, Value: v})
		}}}); err != nil {
			t.Fatal(err)
		}
	}
	d.b.stop()
	advance(d.a, jobs.Value{9})
	d.a.stop()
	d.b.start()
	advance(d.b, jobs.Value{2})
	d.a.start()
	d.until("the job begins again", func() bool {
		d.a.queue.mu.Lock()
		defer d.a.queue.mu.Unlock()
		return d.a.queue.table.Work(j.ID).Start.Done == 1
	})
	var l []jobs.Lease
	d.until("it is given", func() bool { // not before all of the peer's jobs are here
		l = d.lease(d.a, "w", 1)
		return len(l) == 1
	})
	if l[0].Start.Done != 1 {
		t.Fatalf("the lease begins at %d, want at v1", l[0].Start.Done)
	}
	d.report(d.a, "w", l[0], jobs.Report{Kind: jobs.ReportValue, Progress: jobs.Progress{Done: 1000, Value: valueAt(j.V1, 1000, true)}})
	// Whoever saw it first has taken the row back, and the other may see no more than that.
	if alarms := d.a.store.Disagreements() + d.b.store.Disagreements(); !d.here(d.a, j.ID, jobs.Completed) || alarms == 0 {
		t.Errorf("completed: %v, alarms of both %d", d.here(d.a, j.ID, jobs.Completed), alarms)
	}
}
