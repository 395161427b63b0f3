package node

import (
	"testing"
	"time"

	"workmanager/jobs"
)

// TestDistrust: a checkpoint that proves wrong is taken back in the row, at both
// nodes: neither a start of its home nor the peer that takes the job over goes
// on from it, and a worker that does so is not listened to.
func TestDistrust(t *testing.T) {
	for _, at := range []string{"its home starts again", "the peer takes it over"} {
		t.Run(at, func(t *testing.T) {
			d := newDuo(t, false, func(a, b *Config) { a.AuditRate, b.AuditRate = 1e-9, 1e-9 }) // the first reports of each worker are checked
			var j jobs.Job
			d.patient(func() bool {
				j = d.fresh(1000)
				if _, err := d.a.queue.Enqueue(t.Context(), []jobs.Job{j}, jobs.AckDefault); err != nil {
					t.Fatal(err)
				}
				return d.here(d.b, j.ID, jobs.Open)
			})
			lend := func(s *solo, worker string) (l jobs.Lease) {
				d.until("a lease of "+worker, func() bool {
					got := d.lease(s, worker, 1)
					if len(got) > 0 {
						l = got[0]
					}
					return len(got) > 0
				})
				return l
			}
			trusted := jobs.Progress{Done: 300, Value: valueAt(j.V1, 300, true)}
			if v := d.report(d.a, "good", lend(d.a, "good"), jobs.Report{Kind: jobs.ReportHandBack, Progress: trusted}); v != jobs.Kept {
				t.Fatalf("hand-back: %v", v)
			}
			bad := lend(d.a, "bad")
			if bad.Start != trusted {
				t.Fatalf("the second lease begins at %d, want 300", bad.Start.Done)
			}
			d.report(d.a, "bad", bad, jobs.Report{Kind: jobs.ReportHandBack, Progress: jobs.Progress{Done: 500, Value: valueAt(j.V1, 500, false)}})
			for _, s := range []*solo{d.a, d.b} {
				d.until("the row is taken back at "+s.cfg.Name, func() bool {
					now, _, err := s.store.Job(t.Context(), j.ID)
					return err == nil && now.Restarts == 1 && now.Checkpoint == trusted
				})
			}
			s := d.a
			if at == "the peer takes it over" {
				s = d.b
				d.a.kill()
			} else {
				d.a.stop()
				d.a.start()
			}
			l := lend(s, "next")
			if l.ID != j.ID || l.Start != trusted {
				t.Fatalf("the next lease begins at %d, want 300, where the good worker stood", l.Start.Done)
			}
			// One that went on from there, and is heard of only now.
			if v := d.report(s, "late", bad, jobs.Report{Kind: jobs.ReportValue, Progress: jobs.Progress{Done: 1000, Value: valueAt(j.V1, 1000, false)}}); v != jobs.Lost {
				t.Errorf("a value from before is %v, want lost", v)
			}
			d.report(s, "next", l, jobs.Report{Kind: jobs.ReportValue, Progress: jobs.Progress{Done: 1000, Value: valueAt(j.V1, 1000, true)}})
			if now, _, err := s.store.Job(t.Context(), j.ID); err != nil || now.Rank != jobs.Completed || now.Result != valueAt(j.V1, 1000, true) {
				t.Errorf("the job is %v, %v, want completed with the true value", now.Rank, err)
			}
		})
	}
}

// TestDistrust_a_report_under_way: what a worker reports while its job is taken
// back does not become the checkpoint again, whichever comes to the disk first.
func TestDistrust_a_report_under_way(t *testing.T) {
	for _, kind := range []jobs.ReportKind{jobs.ReportHandBack, jobs.ReportValue} {
		for _, first := range []bool{false, true} {
			a := newAudited(t, 0)
			put(t, a.Queue, 1, 0)
			l := a.lend("bad")
			a.tell("bad", l, jobs.ReportProgress, jobs.Progress{Done: 400, Value: jobs.Value{4}})
			w := jobs.Worker{Name: "bad", Cores: 1}
			batch := []jobs.Report{{LeaseRef: l.LeaseRef, V1: l.V1, Iterations: l.Iterations, Kind: kind, Progress: jobs.Progress{Done: 600, Value: jobs.Value{6}}}}
			verdicts := make([]jobs.Verdict, 1)
			facts, of := a.take(w, batch, verdicts, map[int]*origin{})
			if len(facts) != 1 {
				t.Fatalf("%d facts, want 1", len(facts))
			}
			if !first {
				a.distrust(t.Context(), l.ID)
			}
			effects, err := a.store.Record(t.Context(), facts)
			if err != nil {
				t.Fatal(err)
			}
			a.settle(w, batch, effects, of, verdicts, map[int]*origin{})
			if first {
				a.distrust(t.Context(), l.ID)
			}
			j, _, err := a.store.Job(t.Context(), l.ID)
			if err != nil {
				t.Fatal(err)
			}
			if first && kind == jobs.ReportValue { // then it is a value, for the auditor to decide
				if j.Rank != jobs.Completed {
					t.Errorf("a value that came first: %v", j.Rank)
				}
				continue
			}
			if j.Rank != jobs.Open || j.Checkpoint.Done != 0 || j.Restarts != 1 {
				t.Errorf("kind %v, report first %v: the row is %v at %d with %d restarts, want open at v1 with 1", kind, first, j.Rank, j.Checkpoint.Done, j.Restarts)
			}
			if !first && kind == jobs.ReportValue && verdicts[0] != jobs.Lost {
				t.Errorf("the value is %v, want lost", verdicts[0])
			}
			if next := a.lend("good"); next.Start.Done != 1 {
				t.Errorf("kind %v, report first %v: the next lease begins at %d, want at v1", kind, first, next.Start.Done)
			}
		}
	}
}

// TestKept_before_it_is_due: kept checkpoints that come with progress which is
// not made durable wait in the table for the report that is.
func TestKept_before_it_is_due(t *testing.T) {
	a := newAudited(t, 0)
	a.checkpoint = time.Hour
	id := jobs.ID{7}
	j, err := jobs.New(id, value(id, 1), 6001, 0)
	if err == nil {
		j, err = j.Keeping(5)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Enqueue(t.Context(), []jobs.Job{j}, jobs.AckDefault); err != nil {
		t.Fatal(err)
	}
	l := a.lend("w")
	say := func(kind jobs.ReportKind, done uint64, from, to int) {
		t.Helper()
		v, err := a.Report(t.Context(), jobs.Worker{Name: "w", Cores: 1}, []jobs.Report{{
			LeaseRef: l.LeaseRef, V1: l.V1, Iterations: l.Iterations, Kind: kind,
			Progress: jobs.Progress{Done: done, Value: value(id, done)}, RungsFrom: from, Rungs: ladder(id, 6001, 5, from, to)}})
		if err != nil || v[0] != jobs.Kept {
			t.Fatalf("report at %d: %v, %v", done, v, err)
		}
	}
	say(jobs.ReportProgress, 1500, 0, 1)
	say(jobs.ReportProgress, 3100, 1, 3)
	if j, _, err := a.store.Job(t.Context(), id); err != nil || j.Checkpoint.Done != 0 || j.Rungs != "" {
		t.Fatalf("the row knows of %d iterations, %v: this test is of what is not durable yet", j.Checkpoint.Done, err)
	}
	say(jobs.ReportValue, 6001, 3, 5)
	if j, _, err := a.store.Job(t.Context(), id); err != nil || j.Rungs != ladder(id, 6001, 5, 0, 5) {
		t.Errorf("the job keeps %d checkpoints, %v, want all 5", j.Rungs.Len(), err)
	}
}
