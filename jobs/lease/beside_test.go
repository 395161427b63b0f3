package lease_test

import (
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/lease"
)

// row has the job's row come with a checkpoint that was reported to the other
// node. Its value tells that it is nobody's here.
func (c *chain) row(done uint64) jobs.Progress {
	c.j.Checkpoint = jobs.Progress{Done: done, Value: jobs.Value{0xff, byte(done)}}
	c.Further(c.j)
	return c.j.Checkpoint
}

// TestFurther_is_no_word_of_the_holder: a row that is further than the holder of
// the job has said does not count as said by it, and the next lease begins there.
func TestFurther_is_no_word_of_the_holder(t *testing.T) {
	c := newChain(t, 0)
	l := c.lend("good", 100)
	row := c.row(500)
	if p, _ := c.Reached(l.LeaseRef); p != (jobs.Progress{Done: 100, Value: jobs.Value{100}}) {
		t.Errorf("Reached() = %+v, want what the holder said", p)
	}
	if _, due := c.Due(epoch.Add(time.Hour), l.LeaseRef, 0); due {
		t.Error("what the row is beyond is to be written to it")
	}
	if got, want := c.Remaining(), (jobs.Work{Lo: 900}); got != want || c.LeftOf("good") != want {
		t.Errorf("%v iterations remain, %v of them the holder's; want %v, which it computes", got, c.LeftOf("good"), want)
	}
	c.Renew(epoch, l.LeaseRef, jobs.Progress{Done: 200, Value: jobs.Value{200}}, 1)
	c.row(400) // less than what came before
	c.HandBack(l.LeaseRef)
	if got := c.Remaining(); got != (jobs.Work{Lo: 500}) {
		t.Errorf("%v iterations remain, want 500", got)
	}
	next := c.lend("next", 0)
	if next.Start != row {
		t.Errorf("the next lease begins at %+v, want the row's %+v", next.Start, row)
	}
	trail, _ := c.Trail(next.LeaseRef, "next")
	v1 := jobs.Progress{Done: 1, Value: c.j.V1}
	if at := (jobs.Progress{Done: 200, Value: jobs.Value{200}}); len(trail) != 2 || trail[0] != (lease.Claim{Worker: "good", Start: v1, At: at}) ||
		trail[1].Worker != "" || trail[1].Start != at || trail[1].At != row {
		t.Errorf("Trail() = %+v, want 200 of the holder, and the rest of nobody", trail)
	}
	if trail, start := c.Trail(l.LeaseRef, "good"); len(trail) != 0 || start != v1 {
		t.Errorf("Trail() of the lease that ended = %+v from %+v", trail, start)
	}
}

// A holder that passes the row goes on from its own word, and one that is behind
// it and gets on has not stalled.
func TestFurther_the_holder_passes_the_row(t *testing.T) {
	c := newChain(t, 0)
	l := c.Grant(epoch, "good", jobs.Capacity{Jobs: 1}, time.Hour)[0]
	c.row(150)
	now := epoch
	for done := uint64(10); done < 150; done += 10 {
		now = now.Add(20 * time.Second)
		c.Renew(now, l.LeaseRef, jobs.Progress{Done: done, Value: jobs.Value{byte(done)}}, 1)
		if by := c.Stall(now); len(by) > 0 {
			t.Fatalf("at %d it was taken for one that stalls", done)
		}
	}
	own := jobs.Progress{Done: 160, Value: jobs.Value{160}}
	c.Renew(now, l.LeaseRef, own, 1)
	if p, due := c.Due(now, l.LeaseRef, 0); !due || p != own {
		t.Errorf("Due() = %+v, %v, want %+v", p, due, own)
	}
	c.HandBack(l.LeaseRef)
	next := c.lend("next", 0)
	if trail, _ := c.Trail(next.LeaseRef, "next"); next.Start != own || len(trail) != 1 || trail[0].Worker != "good" || trail[0].At != own {
		t.Errorf("the next lease begins at %+v, %+v; want the holder's own word", next.Start, trail)
	}
}

// What came with the row while a worker had the job may have been its word, told
// to the other node: it goes with the worker.
func TestRevoke_what_came_with_the_row(t *testing.T) {
	for _, tc := range []struct {
		name string
		run  func(c *chain)
		want uint64
	}{
		{"it has the job", func(c *chain) { c.pass("good", 50); c.lend("bad", 0); c.row(250) }, 50},
		{"it had the job", func(c *chain) { c.pass("good", 50); l := c.lend("bad", 0); c.row(250); c.HandBack(l.LeaseRef) }, 50},
		{"another went on", func(c *chain) { l := c.lend("bad", 50); c.row(150); c.HandBack(l.LeaseRef); c.lend("good", 200) }, 1},
		{"it came to another", func(c *chain) { c.pass("bad", 50); l := c.lend("good", 60); c.row(150); c.HandBack(l.LeaseRef) }, 1},
		{"forgotten since", func(c *chain) {
			l := c.lend("bad", 0)
			c.row(20)
			c.HandBack(l.LeaseRef)
			for n := range uint64(12) {
				c.pass("good", 30+n)
			}
		}, 1},
	} {
		c := newChain(t, 0)
		tc.run(c)
		if n, backs := c.Revoke("bad"); n != 1 || len(backs) != 1 {
			t.Errorf("%s: Revoke() = %d, %v, want 1 and that the row is told", tc.name, n, backs)
		}
		if next := c.lend("next", 0); next.Start.Done != tc.want {
			t.Errorf("%s: the next lease begins at %d, want %d", tc.name, next.Start.Done, tc.want)
		}
	}
	c := newChain(t, 0)
	l := c.lend("good", 0)
	c.row(100)
	c.Restart(c.j.ID)
	if l = c.lend("good", 0); l.Start.Done != 1 {
		t.Errorf("after a restart the lease begins at %d", l.Start.Done)
	}
	if c.HandBack(l.LeaseRef); c.Done(c.j.ID) != 1 {
		t.Errorf("after a restart the row's old checkpoint is back: %d", c.Done(c.j.ID))
	}
}

// TestAdopt_from_where_is_not_known: a worker that goes on under the lease of a
// node that has died did not begin where the job begins here.
func TestAdopt_from_where_is_not_known(t *testing.T) {
	c := newChain(t, 400)
	ref := jobs.LeaseRef{ID: c.j.ID, Fence: jobs.Fence{N: 77}}
	if !c.Adopt(epoch, ref, "w", time.Second) {
		t.Fatal("not adopted")
	}
	if p, stands := c.Reached(ref); !stands || p.Done != 0 {
		t.Errorf("Reached() = %+v, %v, want unknown", p, stands)
	}
	own := jobs.Progress{Done: 500, Value: jobs.Value{5}}
	c.Renew(epoch, ref, own, 1)
	if p, _ := c.Reached(ref); p != own {
		t.Errorf("Reached() = %+v, want its own word", p)
	}
	if _, start := c.Trail(ref, "w"); start.Done != 0 {
		t.Errorf("Trail() is from %d, want unknown", start.Done)
	}
	c.HandBack(ref)
	if _, start := c.Trail(ref, "w"); start.Done != 0 {
		t.Errorf("Trail() of the lease that ended is from %d, want unknown", start.Done)
	}
	next := c.lend("next", 0)
	if trail, start := c.Trail(next.LeaseRef, "next"); len(trail) != 1 || !trail[0].Adopted || start != own {
		t.Errorf("Trail() of the next lease = %+v from %+v", trail, start)
	}
	if _, backs := c.Revoke("w"); len(backs) != 1 || backs[0].To.Done != 400 {
		t.Errorf("without its word the job goes back to %+v, want where it began here", backs)
	}
}
