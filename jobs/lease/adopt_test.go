package lease

import (
	"testing"
	"time"

	"workmanager/jobs"
)

func TestTable_adopts_a_waiting_job_under_the_fence_it_had(t *testing.T) {
	now := time.Now()
	old := jobs.Fence{Boot: jobs.ID{9}, N: 77}
	tab := New(jobs.ID{1})
	j := jobs.Job{ID: jobs.ID{2}, V1: jobs.Value{1}, Iterations: 1000, CreatedAt: now}
	ref := jobs.LeaseRef{ID: j.ID, Fence: old}
	if tab.Adopt(now, ref, "w/1", time.Second) {
		t.Error("Adopt() of an unknown job = true")
	}
	tab.Add(j)
	if !tab.Adopt(now, ref, "w/1", time.Second) || tab.Waiting() != 0 || tab.LeasesOf("w/1") != 1 {
		t.Errorf("after Adopt() %d jobs wait and the worker has %d leases, want 0 and 1", tab.Waiting(), tab.LeasesOf("w/1"))
	}
	if tab.Adopt(now, ref, "w/2", time.Second) {
		t.Error("Adopt() of a leased job = true")
	}
	if !tab.Renew(now, ref, jobs.Progress{Done: 50}, 0) {
		t.Error("Renew() under the old fence = false")
	}
	if tab.Renew(now, jobs.LeaseRef{ID: j.ID, Fence: jobs.Fence{Boot: jobs.ID{1}, N: 77}}, jobs.Progress{Done: 60}, 0) {
		t.Error("Renew() under the same number of another boot = true")
	}
	if lost := tab.Expire(now.Add(time.Second)); len(lost) != 0 {
		t.Errorf("Expire() at the deadline = %v, want none", lost)
	}
	tab.Pardon(now.Add(time.Hour))
	tab.Pardon(now.Add(time.Hour + time.Second)) // it was not renewed since
	if lost := tab.Expire(now.Add(time.Hour + time.Second)); len(lost) != 0 {
		t.Errorf("Expire() after Pardon() = %v, want none", lost)
	}
	if lost := tab.Expire(now.Add(time.Hour + time.Second + 1)); len(lost) != 1 || tab.Done(j.ID) != 50 {
		t.Errorf("Expire() = %v with %d iterations done, want the job with 50", lost, tab.Done(j.ID))
	}
	if tab.Holds(ref) {
		t.Error("the lease stands after its end")
	}
}

func TestTable_forgets_a_job_that_was_let_go_with_its_lease(t *testing.T) {
	now := time.Now()
	j := jobs.Job{ID: jobs.ID{2}, V1: jobs.Value{1}, Iterations: 1000, CreatedAt: now}
	// A worker that has reported nothing loses its lease to a quarantine as well.
	tab := New(jobs.ID{1})
	tab.Add(j)
	tab.Grant(now, "w", jobs.Capacity{Jobs: 1}, time.Second)
	tab.LetGo(j.ID)
	if tab.Revoke("w"); tab.Has(j.ID) {
		t.Error("the job is in the table after Revoke()")
	}
	for _, ends := range []func(*Table, jobs.LeaseRef){
		func(tab *Table, ref jobs.LeaseRef) { tab.HandBack(ref) },
		func(tab *Table, ref jobs.LeaseRef) { tab.Failed(now, ref, 3) },
		func(tab *Table, _ jobs.LeaseRef) { tab.Expire(now.Add(time.Hour)) },
		func(tab *Table, _ jobs.LeaseRef) { tab.Stall(now.Add(time.Hour)) },
		func(tab *Table, _ jobs.LeaseRef) { tab.Revoke("w") },
		func(tab *Table, ref jobs.LeaseRef) { tab.Restart(ref.ID) },
	} {
		for _, back := range []bool{false, true} {
			tab := New(jobs.ID{1})
			tab.Add(j)
			tab.LetGo(j.ID) // it waits, and that changes nothing
			ref := tab.Grant(now, "w", jobs.Capacity{Jobs: 1, Iterations: 1}, time.Second)[0].LeaseRef
			ends(tab, ref)
			if !tab.Waits(j.ID) {
				t.Fatal("a job that waited was let go")
			}
			tab.Remove(j.ID)
			tab.Add(j)
			ref = tab.Grant(now, "w", jobs.Capacity{Jobs: 1, Iterations: 1}, time.Second)[0].LeaseRef
			tab.LetGo(j.ID)
			if !tab.Renew(now, ref, jobs.Progress{Done: 50}, 0) {
				t.Fatal("the lease of a job that was let go does not stand")
			}
			if back && tab.Add(j) {
				t.Error("Add() of a job that is in the table = true")
			}
			ends(tab, ref)
			if tab.Has(j.ID) != back || tab.Waits(j.ID) != back || tab.Leased() != 0 || tab.LeasesOf("w") != 0 || !back && tab.Remaining() != (jobs.Work{}) {
				t.Errorf("back %v: the table has the job: %v, it waits: %v, %v iterations are left", back, tab.Has(j.ID), tab.Waits(j.ID), tab.Remaining())
			}
		}
	}
}

func TestTable_takes_a_further_checkpoint_of_the_row(t *testing.T) {
	now := time.Now()
	at := func(done uint64) jobs.Job {
		return jobs.Job{ID: jobs.ID{2}, V1: jobs.Value{1}, Iterations: 1000, Checkpoint: jobs.Progress{Done: done, Value: jobs.Value{byte(done)}}}
	}
	tab := New(jobs.ID{1})
	tab.Add(at(10))
	other := at(99)
	other.V1 = jobs.Value{2}
	beyond, ended := at(1000), at(80)
	ended.Rank = jobs.Cancelled
	unknown := at(80)
	unknown.ID = jobs.ID{3}
	for _, j := range []jobs.Job{at(20), at(15), other, beyond, ended, unknown} {
		tab.Further(j)
	}
	if got := tab.Done(jobs.ID{2}); got != 20 {
		t.Fatalf("the job waits at %d iterations, want 20", got)
	}
	l := tab.Grant(now, "w", jobs.Capacity{Jobs: 1, Iterations: 1}, time.Second)
	if l[0].Start.Done != 20 || l[0].Start.Value != (jobs.Value{20}) {
		t.Errorf("the lease starts at %+v, want 20", l[0].Start)
	}
	tab.Renew(now, l[0].LeaseRef, jobs.Progress{Done: 30}, 0)
	tab.Further(at(25))
	if got := tab.Done(jobs.ID{2}); got != 30 {
		t.Errorf("the leased job is at %d iterations, want 30", got)
	}
	tab.Further(at(40))
	if got := tab.Unsaved(); tab.Done(jobs.ID{2}) != 30 || got != (jobs.Work{}) {
		t.Errorf("the leased job is at %d iterations, %v of them unsaved, want 30, which is what its holder says, and none", tab.Done(jobs.ID{2}), got)
	}
}
