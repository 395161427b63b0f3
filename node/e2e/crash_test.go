package e2e

import (
	"context"
	"crypto/sha512"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestKill9 kills a node again and again while clients write to it and follow
// its results. What was acknowledged is there, once, with the right value, and
// a cursor has seen all of it.
func TestKill9(t *testing.T) {
	t.Parallel()
	rng := random(t)
	dir := t.TempDir()
	l := newLedger()
	f := &follower{seen: map[string]string{}}
	flags := []string{"--workers", "1", "--checkpoint-interval", "200ms"}
	for round := range number(t, "WORKMANAGER_E2E_ROUNDS", 15) {
		n := start(t, dir, nil, flags...)
		ctx, cancel := context.WithCancel(context.Background())
		var following sync.WaitGroup
		following.Go(func() { f.follow(ctx, n, false) })
		before := l.len()
		end := l.writers(n, rng, 4)
		poll(t, 20*time.Second, "the first job of the round is acknowledged", func() string {
			if l.len() == before {
				return "none yet"
			}
			return ""
		})
		pause(time.Duration(rng.IntN(250)) * time.Millisecond)
		n.kill()
		end()
		cancel()
		following.Wait()
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}

	n := start(t, dir, nil, flags...)
	l.settle(t, n)
	n.idle(60 * time.Second)
	l.check(t, n)
	f.follow(context.Background(), n, true)
	for i, fault := range f.faults {
		if i < 10 {
			t.Error(fault)
		}
	}
	missed := 0
	for id, o := range l.acked {
		if v, ok := f.seen[id]; !ok || v != o.value() {
			if missed++; missed <= 5 {
				t.Errorf("the cursor gave %q for job %s (%v)", v, id, o)
			}
		}
	}
	if missed > 0 {
		t.Errorf("the cursor missed %d of %d results", missed, len(l.acked))
	}
	t.Logf("%d jobs acknowledged, %d results followed, %d refusals", len(l.acked), len(f.seen), l.refused)
	n.stop()
}

// TestKill9Resumes shows that a chain goes on from its last checkpoint, not from its
// beginning, and ends with the right value.
func TestKill9Resumes(t *testing.T) {
	t.Parallel()
	iterations := lasting(12 * time.Second) // measured while others compute: it may be a fourth of that
	dir := t.TempDir()
	flags := []string{"--workers", "1", "--checkpoint-interval", "200ms"}
	n := start(t, dir, nil, flags...)
	id := n.enqueue("a long chain", iterations)

	// A worker reports one thing after the other, so of three reports seen the
	// first two are on the disk.
	var seen []uint64
	progress := func(reports int) {
		seen = seen[:0]
		poll(t, 60*time.Second, "progress", func() string {
			j := n.job(id)
			if j.Done > 1 && (len(seen) == 0 || j.Done > seen[len(seen)-1]) {
				seen = append(seen, j.Done)
			}
			if len(seen) >= reports || j.State == "completed" {
				return ""
			}
			return "no other report yet"
		})
	}
	progress(3)
	if len(seen) < 3 {
		t.Fatalf("%d iterations were too few: reports at %v", iterations, seen)
	}
	durable := seen[1]
	n.kill()

	n = start(t, dir, nil, "--workers", "0") // nobody computes: what is shown is on the disk
	j := n.job(id)
	if j.Done < durable || j.Done >= iterations || j.State != "queued" {
		t.Errorf("after kill -9: got %s at %d of %d, want queued at %d or more", j.State, j.Done, j.Iterations, durable)
	}
	t.Logf("reports at %v, after kill -9 at %d", seen, j.Done)
	resumed := j.Done
	n.kill()

	n = start(t, dir, nil, flags...)
	poll(t, 60*time.Second, "the chain goes on", func() string {
		if j = n.job(id); j.Done < resumed {
			t.Fatalf("the chain went back from %d to %d", resumed, j.Done)
		}
		if j.Done == resumed {
			return "no progress yet"
		}
		return ""
	})
	j = n.completed(id, chain("a long chain", iterations))
	if j.Attempts < 2 {
		t.Errorf("attempts: got %d, want 2 or more", j.Attempts)
	}
	n.stop()
}

// lasting returns how many iterations take about d here by the reference, if
// nobody else computes: what others take meanwhile does not make them fewer.
func lasting(d time.Duration) uint64 {
	const sample = 100_000
	var v [sha512.Size]byte
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin := threadTime()
	for range sample {
		v = sha512.Sum512(v[:])
	}
	return uint64(float64(sample) * d.Seconds() / (threadTime() - begin).Seconds())
}

// threadTime is how long the calling thread has computed.
func threadTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_THREAD, &u); err != nil {
		panic(err) // it fails for no reason but a wrong argument
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
