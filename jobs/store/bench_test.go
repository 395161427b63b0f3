package store_test

import (
	"context"
	"crypto/rand"
	"crypto/sha512"
	"fmt"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// open opens a store in a new directory and runs its writer.
func open(tb testing.TB, opt store.Options) *store.Store {
	tb.Helper()
	return openIn(tb, tb.TempDir(), opt)
}

func openIn(tb testing.TB, dir string, opt store.Options) *store.Store {
	tb.Helper()
	if opt.Node == "" {
		opt.Node = "a"
	}
	s, err := store.Open(context.Background(), dir, opt)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	tb.Cleanup(func() {
		stop()
		if err := <-ran; err != nil && s.Err() == nil {
			tb.Errorf("Run() = %v", err)
		}
		_ = s.Close() // a test that breaks the disk breaks this too
	})
	return s
}

// work returns n new jobs over different data.
func work(tb testing.TB, n int, iterations uint64) []store.Submission {
	tb.Helper()
	batch := make([]store.Submission, n)
	for i := range batch {
		id, err := jobs.NewID(time.Now(), rand.Reader)
		if err != nil {
			tb.Fatal(err)
		}
		j, err := jobs.New(id, sha512.Sum512(id[:]), iterations, 0)
		if err != nil {
			tb.Fatal(err)
		}
		batch[i] = store.Submission{Job: j}
	}
	return batch
}

// expire counts the retention of this node's open jobs anew, raises the floor as
// a node without a peer does, and drops what is below it.
func expire(tb testing.TB, s *store.Store, before time.Time) int {
	tb.Helper()
	ctx := context.Background()
	if _, err := s.Refresh(ctx, before, 1<<20); err != nil {
		tb.Fatal(err)
	}
	floor, _, err := s.Promise(ctx, before)
	if err != nil {
		tb.Fatal(err)
	}
	if err := s.Raise(ctx, floor); err != nil {
		tb.Fatal(err)
	}
	n, err := s.Expire(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// BenchmarkEnqueue commits batches of a size, each on the disk before the next.
func BenchmarkEnqueue(b *testing.B) {
	for _, size := range []int{1, 64, 512} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := open(b, store.Options{})
			for b.Loop() {
				b.StopTimer()
				batch := work(b, size, 2)
				b.StartTimer()
				if _, err := s.Enqueue(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}

// BenchmarkComplete completes jobs in batches of a size.
func BenchmarkComplete(b *testing.B) {
	for _, size := range []int{1, 64, 512} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := open(b, store.Options{})
			for b.Loop() {
				b.StopTimer()
				batch := work(b, size, 2)
				if _, err := s.Enqueue(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if _, err := s.Record(b.Context(), complete(batch)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}

// complete returns the facts that complete jobs with their right values.
func complete(batch []store.Submission) []store.Fact {
	facts := make([]store.Fact, len(batch))
	for i, sub := range batch {
		v := sub.Job.V1
		for range sub.Job.Iterations - 1 {
			v = sha512.Sum512(v[:])
		}
		facts[i] = store.Fact{ID: sub.Job.ID, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Complete(v, at()) }}
	}
	return facts
}

// BenchmarkCompleteBacklog completes jobs in batches of a size, oldest first, in
// a backlog so long that the writer does not remember them.
func BenchmarkCompleteBacklog(b *testing.B) {
	for _, size := range []int{16, 128, 1024} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := open(b, store.Options{})
			for range 33 { // what it remembers
				if _, err := s.Enqueue(b.Context(), work(b, 1024, 2)); err != nil {
					b.Fatal(err)
				}
			}
			var backlog []store.Submission
			for b.Loop() {
				b.StopTimer()
				if len(backlog) == 0 {
					for range 8 {
						more := work(b, 1024, 2)
						if _, err := s.Enqueue(b.Context(), more); err != nil {
							b.Fatal(err)
						}
						backlog = append(backlog, more...)
					}
				}
				facts := complete(backlog[:size])
				backlog = backlog[size:]
				b.StartTimer()
				if _, err := s.Record(b.Context(), facts); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/job")
		})
	}
}

// BenchmarkOpen reads pages of waiting jobs.
func BenchmarkOpen(b *testing.B) {
	s := open(b, store.Options{})
	for range 8 {
		if _, err := s.Enqueue(b.Context(), work(b, 1024, 2)); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if page, _, err := s.Open(b.Context(), "a", store.Place{}, 4096); err != nil || len(page) != 4096 {
			b.Fatal(len(page), err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*4096), "ns/job")
}
