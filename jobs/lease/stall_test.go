package lease_test

import (
	"slices"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/lease"
)

// TestStall_tells_less_and_less: the only worker gets a job that it does not
// bring on again and again. Each time is counted, and fewer and fewer are news; a
// job that stalls for the first time is.
func TestStall_tells_less_and_less(t *testing.T) {
	c := newChain(t, 0)
	c.Live("only")
	now, want := epoch, map[int]lease.Stalls{1: {1, 1}, 2: {1, 1}, 3: {1, 0}, 4: {1, 1}, 8: {1, 1}, 10: {2, 1}}
	for n := 1; n <= 16; n++ {
		if n == 10 {
			c.Add(job(2, 1, 0, 1000))
		}
		if got := c.Grant(now, "only", jobs.Capacity{Jobs: 2, Iterations: 1 << 60}, time.Hour); len(got) != 1+min(n/10, 1) {
			t.Fatalf("round %d: %d leases", n, len(got))
		}
		now = now.Add(time.Minute)
		by := c.Stall(now)
		w, told := want[n]
		if told && by["only"] != w {
			t.Errorf("round %d: %+v, want %+v", n, by["only"], w)
		}
		if !told && n < 10 && by["only"] != (lease.Stalls{Jobs: 1}) {
			t.Errorf("round %d: %+v, want one and no news", n, by["only"])
		}
	}
	if ids := c.LeasedIDs(); slices.Contains(ids, c.j.ID) {
		t.Error("a lease stands")
	}
}
