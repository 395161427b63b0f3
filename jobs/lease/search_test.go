package lease_test

import (
	"encoding/binary"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/lease"
)

// shunning is a table in which a worker has stalled n jobs, whose turn is before
// that of more others. A second worker lives.
func shunning(tb testing.TB, n, others int) *lease.Table {
	tb.Helper()
	table := lease.New(boot)
	table.Live("bad")
	table.Live("good")
	for i := range n {
		table.Add(sized(i, 1000, time.Duration(i)*time.Microsecond, uint8(i%2)))
	}
	if got := len(table.Grant(epoch, "bad", jobs.Capacity{Jobs: n, Iterations: 1 << 60}, time.Hour)); got != n {
		tb.Fatalf("%d leases, want %d", got, n)
	}
	at := epoch.Add(time.Minute)
	if by := table.Stall(at); by["bad"].Jobs != n {
		tb.Fatalf("%+v have stalled, want %d", by, n)
	}
	for i := range others {
		table.Add(sized(n+i, 1000, time.Hour+time.Duration(i)*time.Microsecond, 0))
	}
	return table
}

// TestGrant_behind_many_that_are_left_to_others: a worker at which many jobs have
// stalled gets those behind them, however many there are, and no job that it is to
// leave to others.
func TestGrant_behind_many_that_are_left_to_others(t *testing.T) {
	at := epoch.Add(time.Minute)
	for _, n := range []int{10, 63, 64, 65, 1000, 20_000} {
		const others = 10
		table := shunning(t, n, others)
		grants := 0
		for got := 0; got < others; {
			leases := table.Grant(at, "bad", jobs.Capacity{Jobs: 4, Iterations: 1 << 60}, time.Hour)
			for _, l := range leases {
				if i := int(binary.BigEndian.Uint64(l.ID[:])) - 1; i < n {
					t.Fatalf("%d stalled: it has job %d of them again", n, i)
				}
			}
			got += len(leases)
			if grants++; len(leases) == 0 && !table.Searches("bad") || grants > others+n {
				t.Fatalf("%d stalled: it got %d of %d other jobs, and no more in %d calls", n, got, others, grants)
			}
		}
		if most := 4 * (n/256 + 2); grants > most {
			t.Errorf("%d stalled: %d calls for %d jobs, want at most %d", n, grants, others, most)
		}
		for grants = 0; ; grants++ { // nothing is left for it, and it comes to know that
			if l := table.Grant(at, "bad", jobs.Capacity{Jobs: 1}, time.Hour); len(l) != 0 {
				t.Fatalf("%d stalled: it has one of them again", n)
			}
			if !table.Searches("bad") {
				break
			}
		}
		if grants > n/256+1 {
			t.Errorf("%d stalled: %d calls more", n, grants)
		}
		if table.Waiting() != n || table.Leased() != others {
			t.Errorf("%d stalled: %d wait and %d are leased, want all and %d", n, table.Waiting(), table.Leased(), others)
		}
		for i := range n { // the other worker has them in their order
			l := table.Grant(at, "good", jobs.Capacity{Jobs: 1}, time.Hour)
			if len(l) != 1 {
				t.Fatalf("%d stalled: the other worker got %d of them", n, i)
			}
		}
	}
}

// TestGrant_search_ends_where_little_is_left: a search that has not looked at all is
// over once there is nothing, or no more than a Grant passes over: else the worker
// would be told for ever that there may be more.
func TestGrant_search_ends_where_little_is_left(t *testing.T) {
	at := epoch.Add(time.Minute)
	for _, left := range []int{0, 1, 10} {
		table := shunning(t, 3000, 0)
		if l := table.Grant(at, "bad", jobs.Capacity{Jobs: 1}, time.Hour); len(l) != 0 || !table.Searches("bad") {
			t.Fatalf("one call got %d jobs, or has looked at all", len(l))
		}
		for table.Waiting() > left {
			if len(table.Grant(at, "good", jobs.Capacity{Jobs: 1}, time.Hour)) != 1 {
				t.Fatal("the other worker gets none")
			}
		}
		if l := table.Grant(at, "bad", jobs.Capacity{Jobs: 1}, time.Hour); len(l) != 0 || table.Searches("bad") {
			t.Errorf("%d wait: one call got %d jobs, and it is searched on: %t", left, len(l), table.Searches("bad"))
		}
	}
}

// What a search stopped at is forgotten with the worker.
func TestGrant_search_of_a_worker_that_is_gone(t *testing.T) {
	table := shunning(t, 3000, 1)
	table.Grant(epoch.Add(time.Minute), "bad", jobs.Capacity{Jobs: 1}, time.Hour)
	if !table.Searches("bad") || table.Searches("good") {
		t.Error("one call has looked at all")
	}
	if table.Gone("bad"); table.Searches("bad") {
		t.Error("it is searched for a worker that is gone")
	}
}

// BenchmarkGrant_shunned is BenchmarkGrant for a worker that is to leave so many
// jobs to others, whose turn is before.
func BenchmarkGrant_shunned(b *testing.B) {
	at := epoch.Add(time.Minute)
	for _, n := range []int{60, 1000, 20_000} {
		b.Run("before="+map[int]string{60: "60", 1000: "1k", 20_000: "20k"}[n], func(b *testing.B) {
			table := shunning(b, n, 100_000)
			next, got, calls := n+100_000, 0, 0
			for b.Loop() {
				for _, l := range table.Grant(at, "bad", jobs.Capacity{Jobs: 1}, time.Hour) {
					table.Remove(l.ID)
					table.Add(sized(next, 1000, time.Hour+time.Duration(next)*time.Microsecond, 0))
					next++
					got++
				}
				calls++
			}
			b.ReportMetric(float64(got)/float64(calls), "leases/call")
		})
	}
}
