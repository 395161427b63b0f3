package worker

import (
	"context"
	"slices"
	"testing"
	"time"

	"workmanager/jobs"
)

// nothing is a Source that does nothing: it gives tiny jobs as fast as they are
// asked for, until n are given, and takes every report.
type nothing struct {
	n, given, taken int // given is touched by Lease alone, taken by Report alone
	v1              jobs.Value
	done            chan struct{}
	calls           int
}

func (s *nothing) Lease(ctx context.Context, _ jobs.Worker, c jobs.Capacity) ([]jobs.Lease, error) {
	k := min(c.Jobs, int(min(c.Iterations, 1<<30)), s.n-s.given)
	if k <= 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	out := make([]jobs.Lease, k)
	for i := range out {
		out[i] = jobs.Lease{
			LeaseRef:   jobs.LeaseRef{ID: modelID(uint64(s.given)), Fence: jobs.Fence{N: uint64(s.given)}},
			Iterations: 2, Start: jobs.Progress{Done: 1, Value: s.v1},
		}
		s.given++
	}
	return out, nil
}

func (s *nothing) Report(_ context.Context, _ jobs.Worker, batch []jobs.Report) ([]jobs.Verdict, error) {
	s.calls++
	s.taken += len(batch)
	if s.taken == s.n {
		close(s.done)
	}
	return make([]jobs.Verdict, len(batch)), nil
}

// BenchmarkRun_tiny is what a job of two iterations costs, all included but the
// Source.
func BenchmarkRun_tiny(b *testing.B) {
	src := &nothing{n: b.N, done: make(chan struct{})}
	b.ReportAllocs()
	b.ResetTimer()
	stop := start(b, Config{Nice: true}, src)
	<-src.done
	b.StopTimer()
	stop()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
	b.ReportMetric(float64(src.taken)/float64(src.calls), "jobs/report")
}

// BenchmarkRun_latency is what an idle worker adds to a job of two iterations,
// from its lease to its report.
func BenchmarkRun_latency(b *testing.B) {
	src := &pingPong{next: make(chan time.Time, 1), took: make(chan time.Duration)}
	stop := start(b, Config{Nice: true}, src)
	var all []time.Duration
	for b.Loop() {
		src.next <- time.Now()
		all = append(all, <-src.took)
	}
	stop()
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
}

// pingPong gives one job at a time.
type pingPong struct {
	next chan time.Time
	from time.Time
	took chan time.Duration
}

func (s *pingPong) Lease(ctx context.Context, _ jobs.Worker, _ jobs.Capacity) ([]jobs.Lease, error) {
	select {
	case s.from = <-s.next:
		return []jobs.Lease{{Iterations: 2, Start: jobs.Progress{Done: 1}}}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *pingPong) Report(_ context.Context, _ jobs.Worker, batch []jobs.Report) ([]jobs.Verdict, error) {
	if batch[0].Kind == jobs.ReportValue {
		s.took <- time.Since(s.from)
	}
	return make([]jobs.Verdict, len(batch)), nil
}
