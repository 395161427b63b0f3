package lease_test

import (
	"slices"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/lease"
)

var (
	boot  = jobs.ID{15: 9}
	epoch = time.UnixMicro(1_000_000).UTC()
)

// job returns an open job; age and priority decide its turn.
func job(n, age byte, priority uint8, iterations uint64) jobs.Job {
	return jobs.Job{ID: jobs.ID{0: n, 1: 1}, V1: jobs.Value{n}, Iterations: iterations, Priority: priority,
		CreatedAt: epoch.Add(-time.Duration(age) * time.Second)}
}

func grantAll(t *lease.Table, worker string, ttl time.Duration) []jobs.Lease {
	return t.Grant(epoch, worker, jobs.Capacity{Jobs: 100, Iterations: 1 << 60}, ttl)
}

func TestGrantOrder(t *testing.T) {
	table := lease.New(boot)
	for _, j := range []jobs.Job{job(1, 5, 0, 10), job(2, 9, 0, 10), job(3, 1, 2, 10), job(4, 2, 2, 10), job(5, 7, 0, 10)} {
		if !table.Add(j) {
			t.Fatalf("Add(%s) = false", j.ID)
		}
	}
	if table.Add(job(3, 1, 2, 10)) {
		t.Error("Add of a known job = true")
	}
	var got []byte
	for _, l := range grantAll(table, "w", 0) {
		got = append(got, l.ID[0])
	}
	if want := []byte{4, 3, 2, 5, 1}; !slices.Equal(got, want) {
		t.Errorf("granted %v, want %v: the most urgent first, then the oldest", got, want)
	}
}

func TestGrantCapacity(t *testing.T) {
	for _, tc := range []struct {
		name     string
		capacity jobs.Capacity
		want     int
	}{
		{"no lanes", jobs.Capacity{Jobs: 0, Iterations: 1 << 60}, 0},
		{"by jobs", jobs.Capacity{Jobs: 2, Iterations: 1 << 60}, 2},
		{"by iterations", jobs.Capacity{Jobs: 9, Iterations: 2 * 99}, 2},
		{"one is always within it", jobs.Capacity{Jobs: 9, Iterations: 1}, 1},
	} {
		table := lease.New(boot)
		for n := range byte(5) {
			table.Add(job(n, n, 0, 100)) // v1 is done: 99 each
		}
		if got := len(table.Grant(epoch, "w", tc.capacity, 0)); got != tc.want {
			t.Errorf("%s: granted %d, want %d", tc.name, got, tc.want)
		}
		if table.Waiting() != 5-tc.want || table.Leased() != tc.want || table.LeasesOf("w") != tc.want {
			t.Errorf("%s: waiting %d, leased %d, of w %d", tc.name, table.Waiting(), table.Leased(), table.LeasesOf("w"))
		}
	}
}

func TestLeaseEnds(t *testing.T) {
	table := lease.New(boot)
	table.Add(job(1, 1, 0, 100))
	first := grantAll(table, "w", time.Second)[0]
	at := jobs.Progress{Done: 40, Value: jobs.Value{40}}
	if !table.Renew(epoch.Add(900*time.Millisecond), first.LeaseRef, at, 5) {
		t.Fatal("Renew of a lease that stands = false")
	}
	if lost := table.Expire(epoch.Add(1800 * time.Millisecond)); len(lost) != 0 {
		t.Errorf("Expire after a renewal = %v, want none", lost)
	}
	if lost := table.Expire(epoch.Add(1901 * time.Millisecond)); !slices.Equal(lost, []jobs.ID{first.ID}) {
		t.Errorf("Expire past the deadline = %v, want the job", lost)
	}
	if table.Renew(epoch, first.LeaseRef, at, 5) || table.HandBack(first.LeaseRef) || table.Holds(first.LeaseRef) {
		t.Error("an expired lease still stands")
	}
	second := grantAll(table, "x", 0)[0]
	if second.Start != at {
		t.Errorf("the next lease starts at %d, want at the progress, %d", second.Start.Done, at.Done)
	}
	if table.Renew(epoch, first.LeaseRef, jobs.Progress{Done: 90}, 5) {
		t.Error("J4: the old fence renewed the new lease")
	}
	if got := table.Attempts(first.ID); got != 2 {
		t.Errorf("Attempts = %d, want 2", got)
	}
	if lost := table.Expire(epoch.Add(1000 * time.Hour)); len(lost) != 0 {
		t.Errorf("a lease without a deadline expired: %v", lost)
	}
	if !table.HandBack(second.LeaseRef) || table.Waiting() != 1 {
		t.Error("HandBack did not queue the job again")
	}
	stranger := second.LeaseRef
	stranger.Fence.Boot = jobs.ID{1}
	grantAll(table, "y", 0)
	if table.Holds(stranger) {
		t.Error("a fence of another boot stands")
	}
	table.Remove(first.ID)
	if table.Has(first.ID) || table.Leased() != 0 || table.LeasesOf("y") != 0 {
		t.Error("Remove left something behind")
	}
}

func TestProgressIsNotBelievedPastTheEnd(t *testing.T) {
	table := lease.New(boot)
	table.Add(job(1, 1, 0, 100))
	l := grantAll(table, "w", 0)[0]
	for _, done := range []uint64{50, 20, 100, 1 << 60} {
		table.Renew(epoch, l.LeaseRef, jobs.Progress{Done: done}, 1)
	}
	if got := table.Done(l.ID); got != 50 {
		t.Errorf("Done = %d, want 50: not back, not past the end", got)
	}
	if _, due := table.Due(epoch.Add(time.Second), l.LeaseRef, 2*time.Second); due {
		t.Error("Due before the interval")
	}
	if p, due := table.Due(epoch.Add(2*time.Second), l.LeaseRef, 2*time.Second); !due || p.Done != 50 {
		t.Errorf("Due = %v, %v, want the progress", p, due)
	}
	if _, due := table.Due(epoch.Add(3*time.Second), l.LeaseRef, 2*time.Second); due {
		t.Error("Due twice within the interval")
	}
	v := table.View(job(1, 1, 0, 100))
	if !v.Leased || v.Done != 50 || v.Worker != "w" || v.State() != jobs.StateLeased {
		t.Errorf("View = %+v", v)
	}
}

// FuzzTable runs random calls against a model: a map of jobs to their holder.
// J4: no job is given to two, none is lost, none appears from nowhere.
func FuzzTable(f *testing.F) {
	f.Add([]byte("\x00\x01\x00\x02\x01\x00\x02\x01\x03\x00\x04\x01\x05\x02"))
	f.Add([]byte("\x00\x01\x00\x02\x00\x03\x01\x01\x04\x09\x01\x02\x03\x01\x01\x03\x05\x01\x05\x02"))
	f.Fuzz(func(t *testing.T, calls []byte) {
		table := lease.New(boot)
		type held struct {
			worker   string
			ref      jobs.LeaseRef
			deadline time.Time
		}
		model := map[jobs.ID]*held{} // nil: waiting
		now := epoch
		const ttl = 10 * time.Second
		for len(calls) >= 2 {
			op, arg := calls[0]%6, calls[1]
			calls = calls[2:]
			id := jobs.ID{0: arg % 8, 1: 1}
			switch op {
			case 0:
				_, known := model[id]
				if added := table.Add(job(arg%8, arg, arg%3, 50)); added == known {
					t.Fatalf("Add(%d) = %v, known %v", arg%8, added, known)
				}
				if !known {
					model[id] = nil
				}
			case 1:
				worker := string(rune('a' + arg%2))
				for _, l := range table.Grant(now, worker, jobs.Capacity{Jobs: 1 + int(arg%3), Iterations: 1 << 40}, ttl) {
					if h, known := model[l.ID]; !known || h != nil {
						t.Fatalf("granted %v: known %v, held by %+v", l.ID, known, h)
					}
					model[l.ID] = &held{worker, l.LeaseRef, now.Add(ttl)}
				}
			case 2:
				if h := model[id]; h != nil {
					if !table.Renew(now, h.ref, jobs.Progress{Done: uint64(arg % 50)}, 1) {
						t.Fatalf("a lease that stands was lost")
					}
					h.deadline = now.Add(ttl)
				}
			case 3:
				if h := model[id]; h != nil {
					if !table.HandBack(h.ref) {
						t.Fatalf("a lease that stands could not be handed back")
					}
					model[id] = nil
				}
			case 4:
				now = now.Add(time.Duration(arg) * time.Second / 8)
				lost := table.Expire(now)
				for _, id := range lost {
					if h := model[id]; h == nil || !h.deadline.Before(now) {
						t.Fatalf("expired %v, held %+v at %v", id, h, now)
					}
					model[id] = nil
				}
				for id, h := range model {
					if h != nil && h.deadline.Before(now) {
						t.Fatalf("%v should have expired", id)
					}
				}
			case 5:
				table.Remove(id)
				delete(model, id)
			}
			leased := 0
			for id, h := range model {
				if h != nil {
					leased++
					if !table.Holds(h.ref) {
						t.Fatalf("%v: the lease of %s does not stand", id, h.worker)
					}
				}
			}
			if table.Leased() != leased || table.Waiting() != len(model)-leased {
				t.Fatalf("leased %d waiting %d, want %d and %d", table.Leased(), table.Waiting(), leased, len(model)-leased)
			}
		}
	})
}

// TestKeep: kept checkpoints grow as far as the progress that was believed, over
// leases, and what another says of them is not taken.
func TestKeep(t *testing.T) {
	table := lease.New(boot)
	j := job(1, 1, 0, 6001)
	j.Keep = 5
	table.Add(j)
	rungs := func(vs ...byte) (r jobs.Rungs) {
		for _, v := range vs {
			r = r.Add(jobs.Value{v})
		}
		return r
	}
	l := grantAll(table, "w", time.Second)[0]
	if l.Keep != 5 {
		t.Errorf("the lease keeps %d, want 5", l.Keep)
	}
	other := l.LeaseRef
	other.Fence.N++
	var from int
	for _, step := range []struct {
		ref  jobs.LeaseRef
		done uint64
		from int
		r    jobs.Rungs
		want jobs.Rungs
	}{
		{l.LeaseRef, 900, 7, rungs(9), ""}, // none has been passed
		{l.LeaseRef, 2100, 0, rungs(1), rungs(1)},
		{l.LeaseRef, 3100, 2, rungs(3), rungs(1)},          // behind a gap
		{other, 3100, 1, rungs(2), rungs(1)},               // of no lease that stands
		{l.LeaseRef, 3100, 0, rungs(8, 2), rungs(1, 2)},    // what is there stays
		{l.LeaseRef, 1100, 2, rungs(3, 4), rungs(1, 2, 3)}, // as far as the progress
		{l.LeaseRef, 5100, -1, rungs(4), rungs(1, 2, 3)},
	} {
		table.Renew(epoch, step.ref, jobs.Progress{Done: step.done}, 0)
		table.Keep(step.ref, step.from, step.r)
		var got jobs.Rungs
		if from, got = table.Kept(j.ID); from != 0 && got != "" || got != step.want {
			t.Errorf("%+v: kept %x from %d, want %x", step, got, from, step.want)
		}
	}
	table.HandBack(l.LeaseRef)
	next := grantAll(table, "v", time.Second)[0]
	table.Renew(epoch, next.LeaseRef, jobs.Progress{Done: 5500}, 0)
	table.Keep(next.LeaseRef, 3, rungs(4, 5))
	if from, got := table.Kept(j.ID); from != 0 || got != rungs(1, 2, 3, 4, 5) {
		t.Errorf("kept %x from %d after a second lease", got, from)
	}
	table.Remove(j.ID)
	if _, got := table.Kept(j.ID); got != "" {
		t.Errorf("kept %x of a job that has left", got)
	}
}
