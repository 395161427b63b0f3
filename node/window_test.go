package node

import (
	"context"
	"crypto/rand"
	"crypto/sha512"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// smallQueue returns a queue whose window is so small that jobs wait on the disk.
func smallQueue(t *testing.T) *Queue {
	t.Helper()
	return smallQueueOn(t, func() {})
}

// smallQueueOn is smallQueue, and calls stamped in each transaction, before its
// commit.
func smallQueueOn(t *testing.T, stamped func()) *Queue {
	t.Helper()
	cfg := Default()
	cfg.Name = "a"
	h := &hook{}
	s, err := store.Open(t.Context(), t.TempDir(), store.Options{Node: cfg.Name, OnStamp: func(changed []jobs.Changed) { stamped(); h.stamped(changed) }, OnCommit: h.committed, DSN: "&_pragma=synchronous(OFF)"}) // no power is lost here
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	q := newQueue(cfg, s, time.Now, slog.New(slog.DiscardHandler), newCache(100), nil)
	h.queue, h.pair = q, q.pair
	q.window = newWindow(6, 3)
	return q
}

// put enqueues n jobs of a priority and returns their IDs.
func put(t *testing.T, q *Queue, n, priority int) []jobs.ID {
	t.Helper()
	batch := make([]jobs.Job, n)
	ids := make([]jobs.ID, n)
	for i := range batch {
		id, err := jobs.NewID(time.Now(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if batch[i], err = jobs.New(id, sha512.Sum512(id[:]), 1000, priority); err != nil {
			t.Fatal(err)
		}
		ids[i] = id
	}
	if _, err := q.Enqueue(t.Context(), batch, jobs.AckDefault); err != nil {
		t.Fatal(err)
	}
	return ids
}

// take leases up to n jobs as a worker and the queue's loop do: the window is
// filled when the queue asks for it. There must be no other loop.
func take(t *testing.T, q *Queue, n int) []jobs.ID {
	t.Helper()
	var got []jobs.ID
	for len(got) < n {
		leases, _ := q.grant(jobs.Worker{Name: "w"}, jobs.Capacity{Jobs: n - len(got), Iterations: 1 << 60})
		for _, l := range leases {
			got = append(got, l.ID)
		}
		select {
		case <-q.refill:
			if err := q.fillWindow(t.Context()); err != nil {
				t.Fatal(err)
			}
		default:
			if len(leases) == 0 {
				return got
			}
		}
	}
	return got
}

// TestWindow_every_job_is_leased_once lets jobs of every priority come in, be
// taken and be cancelled while the window is filled beside them. In the end
// each has been leased once, or was cancelled first.
func TestWindow_every_job_is_leased_once(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := mathrand.New(mathrand.NewPCG(seed, 1))
			q := smallQueue(t)
			open, leased := map[jobs.ID]bool{}, map[jobs.ID]bool{}
			note := func(ids []jobs.ID) {
				for _, id := range ids {
					if leased[id] || !open[id] {
						t.Fatalf("job %s was leased twice, or after its cancel was answered", id)
					}
					leased[id] = true
				}
			}
			// The loop fills the window at any moment.
			stop, fill := context.WithCancel(t.Context())
			filled := make(chan error, 1)
			go func() {
				var err error
				for stop.Err() == nil && err == nil {
					err = q.fillWindow(context.WithoutCancel(stop))
				}
				filled <- err
			}()
			for range 80 {
				switch r.IntN(5) {
				case 0, 1, 2:
					for _, id := range put(t, q, 1+r.IntN(12), r.IntN(3)*r.IntN(4)) {
						open[id] = true
					}
				case 3:
					leases, _ := q.grant(jobs.Worker{Name: "w"}, jobs.Capacity{Jobs: r.IntN(10), Iterations: 1 << 60})
					for _, l := range leases {
						note([]jobs.ID{l.ID})
					}
				case 4:
					for id := range open {
						if !leased[id] {
							if _, err := q.Cancel(t.Context(), []jobs.ID{id}, false, jobs.AckDefault); err != nil {
								t.Fatal(err)
							}
							delete(open, id)
							break
						}
					}
				}
			}
			fill()
			if err := <-filled; err != nil {
				t.Fatal(err)
			}
			note(take(t, q, 1<<20))
			for id := range open {
				if !leased[id] {
					t.Fatalf("job %s was acknowledged and never leased; %d of %d were", id, len(leased), len(open))
				}
			}
		})
	}
}

func TestWindow_urgent_jobs_pass_a_full_one(t *testing.T) {
	q := smallQueue(t)
	take(t, q, 1) // the first look at the disk
	put(t, q, 100, 1)
	want := put(t, q, 1, 9)
	if got := take(t, q, 1); got[0] != want[0] {
		t.Error("a job of priority 9 came after one of priority 1")
	}
}

// TestWindow_old_jobs_do_not_starve: as many come as are taken, so the window
// stays full enough, and those left to the disk are older than those that come.
func TestWindow_old_jobs_do_not_starve(t *testing.T) {
	q := smallQueue(t)
	q.window = newWindow(18, 4)
	take(t, q, 1)
	put(t, q, 20, 1)
	waiting := map[jobs.ID]bool{}
	for _, id := range put(t, q, 4, 1) {
		waiting[id] = true
	}
	for range 60 {
		for _, id := range take(t, q, 2) {
			delete(waiting, id)
		}
		put(t, q, 2, 1)
	}
	if len(waiting) > 0 {
		t.Errorf("120 jobs were leased, and %d of the first 24 still wait", len(waiting))
	}
}

// asked is a context that calls f each time it is asked whether it is done:
// a way into the middle of a read.
type asked struct {
	context.Context //nolint:containedctx // it is one
	f               func()
}

func (a asked) Done() <-chan struct{} {
	a.f()
	return a.Context.Done()
}

// TestWindow_full_while_it_closes_the_gap: urgent jobs come in behind the place
// that is being read, and are more than the window holds.
func TestWindow_full_while_it_closes_the_gap(t *testing.T) {
	q := smallQueue(t)
	const n = 20
	var calls atomic.Int64 // the driver asks from a goroutine of its own too
	came := make(chan struct{})
	err := q.fillWindow(asked{t.Context(), func() {
		if calls.Add(1) == 5 {
			put(t, q, n, jobs.MaxPriority)
			close(came)
		}
	}})
	if err != nil || calls.Load() < 5 {
		t.Fatalf("fillWindow() = %v after %d looks at its context", err, calls.Load())
	}
	<-came
	if got := take(t, q, n); len(got) != n {
		t.Errorf("%d jobs were acknowledged and %d of them leased", n, len(got))
	}
}
