package lease_test

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/lease"
)

// million fills a table with n waiting jobs of mixed sizes: 2 iterations to
// some ten million, evenly over the magnitudes.
func million(n int) *lease.Table {
	table := lease.New(boot)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range n {
		table.Add(mixed(r, i))
	}
	return table
}

func mixed(r *rand.Rand, i int) jobs.Job {
	j := jobs.Job{Iterations: 2 + r.Uint64N(1<<(1+r.Uint64N(24))), CreatedAt: epoch.Add(time.Duration(i) * time.Microsecond)}
	binary.BigEndian.PutUint64(j.ID[:], uint64(i)+1)
	return j
}

// BenchmarkGrant is one job granted and one added, so that the table stays as
// full as it is.
func BenchmarkGrant(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		b.Run("waiting="+map[int]string{1000: "1k", 1_000_000: "1M"}[n], func(b *testing.B) {
			table := million(n)
			r := rand.New(rand.NewPCG(2, 2))
			next := n
			for b.Loop() {
				for _, l := range table.Grant(epoch, "w", jobs.Capacity{Jobs: 1}, 0) {
					table.Remove(l.ID)
				}
				table.Add(mixed(r, next))
				next++
			}
		})
	}
}

// BenchmarkWaiting tells the bytes of a waiting job.
func BenchmarkWaiting(b *testing.B) {
	const n = 1_000_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	table := million(n)
	runtime.GC()
	runtime.ReadMemStats(&after)
	for b.Loop() {
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/job")
	runtime.KeepAlive(table)
}
