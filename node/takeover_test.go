package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
)

// TestTakeOver_on_a_disk_that_hangs: while one call is at it, no other waits
// longer than it was to, or than its caller does; and when the disk is back each
// gets a job.
func TestTakeOver_on_a_disk_that_hangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrossed(t, maxWords)
		for range 4 {
			c.theirs()
		}
		for c.pair.MayTakeOver() == "" {
			time.Sleep(50 * time.Millisecond)
			c.pair.Step()
		}
		c.barred = false // as the loop finds then
		type answer struct {
			leases int
			took   time.Duration
		}
		ask := func(ctx context.Context, wait time.Duration) <-chan answer {
			ch, begin := make(chan answer, 1), time.Now()
			go func() {
				l, err := c.Lease(ctx, jobs.Worker{Name: "w", Cores: 1}, jobs.Capacity{Jobs: 1, Wait: wait})
				if err != nil {
					t.Error(err)
				}
				ch <- answer{len(l), time.Since(begin)}
			}()
			return ch
		}
		hang := make(chan struct{})
		*c.in = func() { <-hang }
		first := ask(t.Context(), time.Minute)
		synctest.Wait() // its commit hangs

		if got := <-ask(t.Context(), 3*time.Second); got != (answer{0, 3 * time.Second}) {
			t.Errorf("a call that was to wait for 3 s: %+v", got)
		}
		if got := <-ask(t.Context(), 0); got != (answer{}) {
			t.Errorf("a call that was not to wait: %+v", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got := <-ask(ctx, 20*time.Second); got != (answer{0, time.Second}) {
			t.Errorf("a call whose caller left after a second: %+v", got)
		}
		loop := time.Now()
		if err := c.shareWithDead(t.Context(), 1); err != nil || time.Since(loop) != 0 {
			t.Errorf("the loop waited for %v, %v", time.Since(loop), err)
		}
		second, third := ask(t.Context(), 20*time.Second), ask(t.Context(), 20*time.Second)
		synctest.Wait()
		if len(first)+len(second)+len(third) != 0 {
			t.Fatal("one was answered while the disk hung")
		}
		close(hang)
		for _, ch := range []<-chan answer{first, second, third} {
			if got := <-ch; got.leases != 1 || got.took > 10*time.Second {
				t.Errorf("after the disk is back: %+v, want a job at once", got)
			}
		}
		if n := c.table.Leased(); n != 3 {
			t.Errorf("%d leases of 3 jobs", n)
		}

		// A node that stops lets nobody wait.
		hang = make(chan struct{})
		*c.in = func() { <-hang }
		first = ask(t.Context(), time.Minute)
		synctest.Wait()
		second = ask(t.Context(), time.Minute)
		synctest.Wait()
		c.stop()
		if got := <-second; got != (answer{}) {
			t.Errorf("a call that waited when the node stopped: %+v", got)
		}
		close(hang)
		if got := <-first; got.leases != 1 {
			t.Errorf("the call whose commit was under way: %+v, want its job", got)
		}
	})
}
