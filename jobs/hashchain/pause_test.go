package hashchain

import (
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestPauses: no kernel can be preempted, so a chunk is short enough that the
// collector need not wait long for the cores. 65,536 steps would hold it up for
// 50 ms and more.
func TestPauses(t *testing.T) {
	stop := make(chan struct{})
	var cores sync.WaitGroup
	for core := range runtime.GOMAXPROCS(0) {
		cores.Go(func() {
			e := NewExecutor[int](0)
			for i := range e.Lanes() {
				e.Add(Chain[int]{Tag: i, Iterations: 1 << 40, Value: Value([]byte{byte(core), byte(i)}, 1)})
			}
			for {
				select {
				case <-stop:
					return
				default:
					e.Advance(Chunk)
				}
			}
		})
	}
	const name = "/sched/pauses/stopping/gc:seconds"
	before := pauses(t, name)
	var took []time.Duration
	for range 40 {
		from := time.Now()
		runtime.GC()
		took = append(took, time.Since(from))
	}
	after := pauses(t, name)
	close(stop)
	cores.Wait()

	slices.Sort(took)
	var n, slow uint64
	for i, c := range after.Counts {
		c -= before.Counts[i]
		n += c
		if after.Buckets[i] >= 0.02 {
			slow += c
		}
	}
	t.Logf("%d stops, %d of them longer than 20 ms; a collection takes %v in the median", n, slow, took[len(took)/2])
	if n == 0 || slow > n/2 {
		t.Errorf("%d of %d stops took longer than 20 ms: a chunk holds the collector up", slow, n)
	}
}

func pauses(t *testing.T, name string) *metrics.Float64Histogram {
	t.Helper()
	s := []metrics.Sample{{Name: name}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindFloat64Histogram {
		t.Fatalf("no metric %s in this Go", name)
	}
	h := *s[0].Value.Float64Histogram()
	h.Counts = slices.Clone(h.Counts)
	return &h
}
