package lease_test

import (
	"testing"

	"workmanager/jobs"
	"workmanager/jobs/lease"
)

// TestPlace holds the place of each waiting job to the order in which they are
// then granted.
func TestPlace(t *testing.T) {
	table := lease.New(boot)
	all := []jobs.Job{job(1, 5, 0, 10), job(2, 9, 0, 20), job(3, 1, 2, 30), job(4, 2, 2, 40), job(5, 7, 0, 50)}
	for _, j := range all {
		table.Add(j)
	}
	place := map[jobs.ID]int{}
	for _, j := range all {
		ahead, _, waits := table.Place(j.ID)
		if !waits {
			t.Errorf("job %d does not wait", j.ID[0])
		}
		place[j.ID] = ahead
	}
	if _, work, _ := table.Place(all[4].ID); work != (jobs.Work{Lo: 29 + 39 + 19}) {
		t.Errorf("ahead of job 5 are %v iterations, want 87: those of jobs 3, 4 and 2", work)
	}
	for i, l := range grantAll(table, "w", 0) {
		if place[l.ID] != i {
			t.Errorf("job %d was granted as number %d, its place was %d", l.ID[0], i, place[l.ID])
		}
		if _, _, waits := table.Place(l.ID); waits {
			t.Errorf("job %d waits though it is leased", l.ID[0])
		}
	}
	if _, _, waits := table.Place(jobs.ID{9}); waits {
		t.Error("an unknown job waits")
	}
}

func TestLongest(t *testing.T) {
	table := lease.New(boot)
	if left, rate := table.Longest(); left != 0 || rate != 0 {
		t.Errorf("an empty table has %d to go at %v", left, rate)
	}
	table.Add(job(1, 1, 0, 100))
	table.Add(job(2, 1, 0, 5_000_000))
	if left, _ := table.Longest(); left != 4_999_999 {
		t.Errorf("the longest has %d to go, want the waiting one's 4,999,999", left)
	}
	for _, l := range grantAll(table, "w", 0) {
		if l.ID[0] == 2 {
			table.Renew(epoch, l.LeaseRef, jobs.Progress{Done: 4_000_000}, 1000)
		}
	}
	if left, rate := table.Longest(); left != 1_000_000 || rate != 1000 {
		t.Errorf("the longest has %d to go at %v, want 1,000,000 at 1,000", left, rate)
	}
}
