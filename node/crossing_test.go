package node

import (
	"context"
	"crypto/rand"
	"crypto/sha512"
	"fmt"
	"log/slog"
	"math"
	mathrand "math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// crossed is a small queue whose peer, b, is this test.
type crossed struct {
	*Queue
	t  *testing.T
	in *func() // called in the next transaction, before its commit
}

func newCrossed(t *testing.T, most int) crossed {
	t.Helper()
	in := new(func())
	q := smallQueueOn(t, func() {
		if f := *in; f != nil {
			*in = nil
			f()
		}
	})
	q.crossing.most = most
	q.audit = newAuditor(q, 0, 1)
	if err := q.store.SetPeer(t.Context(), "b", "", ""); err != nil {
		t.Fatal(err)
	}
	take(t, q, 1) // the first look at the disk
	return crossed{q, t, in}
}

// sends lets rows come from the peer, as the engine does.
func (c crossed) sends(rows ...jobs.Job) {
	c.t.Helper()
	over := c.Arriving()
	defer over()
	chunk := jobs.Chunk{Peer: "b", Boot: jobs.ID{7}}
	for _, j := range rows {
		chunk.Rows = append(chunk.Rows, jobs.Row{Job: j, LSeq: 1})
	}
	changed, err := c.store.Receive(context.WithoutCancel(c.t.Context()), chunk)
	if err != nil {
		c.t.Error(err)
	}
	c.Arrived(changed)
}

func (c crossed) row(id jobs.ID) jobs.Job {
	c.t.Helper()
	j, found, err := c.store.Job(context.WithoutCancel(c.t.Context()), id)
	if err != nil || !found {
		c.t.Errorf("Job(%s) = %v, %v", id, found, err)
	}
	return j
}

func (c crossed) shown(id jobs.ID) string {
	j := c.row(id)
	return fmt.Sprint(j.Rank, " at ", j.Home)
}

// ours is a job that waits here, theirs one that waits at the peer.
func (c crossed) ours() jobs.ID { return put(c.t, c.Queue, 1, 3)[0] }

func (c crossed) theirs() jobs.ID {
	id := c.ours()
	c.peerHas(id)
	return id
}

// What may become of a job at any moment.

func (c crossed) peerHas(id jobs.ID) {
	j, _ := c.row(id).Rehome("b")
	c.sends(j)
}

func (c crossed) peerReturns(id jobs.ID) {
	j, _ := c.row(id).Rehome("a")
	c.sends(j)
}

func (c crossed) peerHasValue(id jobs.ID) {
	j := c.row(id)
	j, _ = j.Complete(jobs.Value{1}, j.CreatedAt)
	c.sends(j)
}

// hasValue is a worker that comes late, or that has the job from the peer.
func (c crossed) hasValue(id jobs.ID) {
	j := c.row(id)
	_, err := c.Report(context.WithoutCancel(c.t.Context()), far("late"), []jobs.Report{{
		LeaseRef: jobs.LeaseRef{ID: id}, V1: j.V1, Iterations: j.Iterations, Kind: jobs.ReportValue, Progress: jobs.Progress{Done: j.Iterations, Value: jobs.Value{1}},
	}})
	if err != nil {
		c.t.Error(err)
	}
}

func (c crossed) cancels(id jobs.ID) {
	if _, err := c.Cancel(context.WithoutCancel(c.t.Context()), []jobs.ID{id}, false, jobs.AckDefault); err != nil {
		c.t.Error(err)
	}
}

// leases leases all there is and returns how often the job was among it.
func (c crossed) leases(id jobs.ID) int {
	c.t.Helper()
	n := 0
	for _, got := range take(c.t, c.Queue, 1000) {
		if got == id {
			n++
		}
	}
	return n
}

// ways are the ways of a job into the table. Each prepares, and returns the job
// and what lets it in.
var ways = map[string]func(c crossed) (jobs.ID, func() error){
	"enqueue": func(c crossed) (jobs.ID, func() error) {
		j := (&duo{t: c.t}).fresh(1000)
		return j.ID, func() error {
			_, err := c.Enqueue(c.t.Context(), []jobs.Job{j}, jobs.AckDefault)
			return err
		}
	},
	"take-over": func(c crossed) (jobs.ID, func() error) {
		return c.theirs(), func() error {
			_, _, err := c.takeSome(c.t.Context(), "b", jobs.Capacity{Jobs: 9, Iterations: math.MaxUint64})
			return err
		}
	},
	"adopted": func(c crossed) (jobs.ID, func() error) {
		put(c.t, c.Queue, 30, 9) // the window is full of them
		id := c.ours()
		if c.table.Has(id) {
			c.t.Fatal("the job does not wait on the disk")
		}
		return id, func() error {
			j := c.row(id)
			_, err := c.Report(c.t.Context(), far("has it"), []jobs.Report{{
				LeaseRef: jobs.LeaseRef{ID: id, Fence: jobs.Fence{Boot: jobs.ID{9}, N: 5}}, V1: j.V1, Iterations: j.Iterations, Kind: jobs.ReportHandBack,
			}})
			return err
		}
	},
	"page": func(c crossed) (jobs.ID, func() error) {
		id := c.ours()
		c.table.Remove(id)
		c.window = newWindow(6, 3)
		return id, func() error { return c.fillWindow(c.t.Context()) }
	},
	"lower": func(c crossed) (jobs.ID, func() error) {
		put(c.t, c.Queue, 30, 9)
		return c.ours(), func() error { return c.fillLower(c.t.Context()) }
	},
	"not given away": func(c crossed) (jobs.ID, func() error) {
		id := c.ours()
		return id, func() error {
			c.mu.Lock()
			c.crossing.spare(c.table.Spare(1, 0))
			c.mu.Unlock()
			way := c.crossing.begin() // GiveAway's; that the writer refuses it is the point
			defer way.end()
			c.takeBack(c.t.Context(), []jobs.ID{id}, nil)
			return nil
		}
	},
	"arrived": func(c crossed) (jobs.ID, func() error) {
		id := c.theirs()
		return id, func() error { c.peerReturns(id); return nil }
	},
}

// TestCrossing lets a job end, go to the peer, or go and come back, between the
// commit or the read that brings it and the moment at which it enters the table.
// One that has ended or gone is not leased; one that is ours is leased once.
func TestCrossing(t *testing.T) {
	fates := map[string]struct {
		befalls func(c crossed, id jobs.ID)
		want    int
	}{
		"nothing":           {func(crossed, jobs.ID) {}, 1},
		"a late value":      {crossed.hasValue, 0},
		"a value at a peer": {crossed.peerHasValue, 0},
		"a cancel":          {crossed.cancels, 0},
		"goes to the peer":  {crossed.peerHas, 0},
		"goes and is taken over": {func(c crossed, id jobs.ID) {
			c.peerHas(id)
			if _, _, err := c.takeSome(c.t.Context(), "b", jobs.Capacity{Jobs: 1, Iterations: 1}); err != nil {
				c.t.Error(err)
			}
		}, 1},
		"goes and comes back": {func(c crossed, id jobs.ID) { c.peerHas(id); c.peerReturns(id) }, 1},
		"goes, comes back and ends": {func(c crossed, id jobs.ID) {
			c.peerHas(id)
			c.peerReturns(id)
			c.hasValue(id)
		}, 0},
		"a page of the disk": {func(c crossed, _ jobs.ID) {
			c.mu.Lock()
			c.window.leaveOld(jobs.MaxPriority)
			c.mu.Unlock()
			if err := c.fillWindow(c.t.Context()); err != nil {
				c.t.Error(err)
			}
		}, 1},
	}
	for way, prepare := range ways {
		for fate, f := range fates {
			for _, most := range []int{maxWords, 0} { // the second leaves all to the disk
				t.Run(fmt.Sprint(way, "/", fate, "/", most), func(t *testing.T) {
					t.Parallel()
					c := newCrossed(t, most)
					id, run := prepare(c)
					c.between = func() {
						c.between = nil
						f.befalls(c, id)
					}
					if err := run(); err != nil {
						t.Fatal(err)
					}
					if c.between != nil {
						t.Fatal("it did not come between")
					}
					if got := c.leases(id); got != f.want {
						t.Errorf("the job was leased %d times, want %d; it is %s", got, f.want, c.shown(id))
					}
				})
			}
		}
	}
}

// TestCrossing_late_word: who made a job the peer's comes to the table when it is
// ours again. It stays there.
func TestCrossing_late_word(t *testing.T) {
	for _, most := range []int{maxWords, 0} {
		c := newCrossed(t, most)
		id := c.ours()
		c.between = func() {
			c.between = nil
			if _, _, err := c.takeSome(t.Context(), "b", jobs.Capacity{Jobs: 1, Iterations: 1}); err != nil {
				t.Fatal(err)
			}
		}
		c.peerHas(id)
		if got := c.leases(id); got != 1 || c.row(id).Home != "a" {
			t.Errorf("room for %d words: a job of node %s was leased %d times, want 1", most, c.row(id).Home, got)
		}
	}
}

// TestCrossing_given_away: a page that was read before a job was given away comes
// to the table in the middle of that.
func TestCrossing_given_away(t *testing.T) {
	for _, most := range []int{maxWords, 0} {
		c := newCrossed(t, most)
		put(t, c.Queue, 3, 1)
		clear(c.workers) // short jobs are given away where nobody computes
		c.window = newWindow(6, 3)
		*c.in = func() {
			if err := c.fillWindow(t.Context()); err != nil {
				t.Error(err)
			}
		}
		moved, err := c.GiveAway(t.Context(), "b", 1)
		if err != nil || len(moved) != 1 || *c.in != nil {
			t.Fatal(moved, err)
		}
		if got := c.leases(moved[0]); got != 0 {
			t.Errorf("room for %d words: a job of node %s was leased %d times", most, c.row(moved[0]).Home, got)
		}
	}
}

// TestCrossing_half_done: a worker goes on with a job that the peer has taken over.
// When that worker is lost the job is the peer's alone, unless it has come back.
func TestCrossing_half_done(t *testing.T) {
	for fate, f := range map[string]struct {
		befalls func(c crossed, id jobs.ID)
		want    int
	}{
		"nothing": {func(crossed, jobs.ID) {}, 0},
		"returns": {crossed.peerReturns, 1},
		"taken over": {func(c crossed, _ jobs.ID) {
			if _, _, err := c.takeSome(t.Context(), "b", jobs.Capacity{Jobs: 1, Iterations: 1}); err != nil {
				t.Error(err)
			}
		}, 1},
	} {
		c := newCrossed(t, maxWords)
		at := time.Now()
		c.Queue.now = func() time.Time { return at }
		id := c.ours()
		l, _ := leaseTo(t, c.Queue, far("w"))
		says(t, c.Queue, far("w"), l, jobs.ReportProgress, 900, jobs.Value{9})
		c.peerHas(id)
		if v := says(t, c.Queue, far("w"), l, jobs.ReportProgress, 910, jobs.Value{9}); v != jobs.Kept {
			t.Errorf("%s: verdict %d on progress of a job that is half done, want kept", fate, v)
		}
		f.befalls(c, id)
		at = at.Add(leaseTTL + time.Second)
		for _, lost := range []time.Duration{0, time.Second} {
			if err := c.step(t.Context(), at.Add(lost)); err != nil {
				t.Fatal(err)
			}
		}
		if got := c.leases(id); got != f.want {
			t.Errorf("%s: a job of node %s was leased %d times when its worker was lost, want %d", fate, c.row(id).Home, got, f.want)
		}
		if j := c.row(id); int(j.Lost) != f.want {
			t.Errorf("%s: %d workers of the job were lost, want %d", fate, j.Lost, f.want)
		}
	}
}

// TestCrossing_end_of_other_work: one key came with other data, and that came to
// the table before the end of the work that was there before.
func TestCrossing_end_of_other_work(t *testing.T) {
	c := newCrossed(t, maxWords)
	id := c.ours()
	l, _ := leaseTo(t, c.Queue, far("w"))
	before := c.row(id)
	other := before
	other.V1 = jobs.Value{} // the smaller is kept
	c.sends(other)
	before.Rank = jobs.Completed
	report := jobs.Report{LeaseRef: l.LeaseRef, V1: l.V1, Iterations: l.Iterations, Kind: jobs.ReportValue, Progress: jobs.Progress{Done: l.Iterations}}
	c.settle(far("w"), []jobs.Report{report}, []store.Effect{{Found: true, Changed: true, Job: before}}, []int{0}, make([]jobs.Verdict, 1), map[int]*origin{})
	if got := c.leases(id); got != 1 {
		t.Errorf("the job was leased %d times as the work that it is now, want 1", got)
	}
}

// TestCrossing_value_of_a_job_that_comes: a value is reported of a job that is not
// here, which comes before that is answered. The job stays in the table.
func TestCrossing_value_of_a_job_that_comes(t *testing.T) {
	c := newCrossed(t, maxWords)
	id := c.ours()
	w, verdicts := far("late"), make([]jobs.Verdict, 1)
	c.settle(w, []jobs.Report{{LeaseRef: jobs.LeaseRef{ID: id}, Kind: jobs.ReportValue}}, []store.Effect{{}}, []int{0}, verdicts, nil)
	if got := c.leases(id); verdicts[0] != jobs.Lost || got != 1 {
		t.Errorf("the value is %v, and the job leased %d times; want lost, 1", verdicts[0], got)
	}
}

// TestCrossing_other_work: one key came with other data, and the table heard of
// it in the wrong order, or not at all. A report puts that right.
func TestCrossing_other_work(t *testing.T) {
	c := newCrossed(t, maxWords)
	id := c.ours()
	l, _ := leaseTo(t, c.Queue, far("w"))
	j := c.row(id)
	j.V1 = jobs.Value{} // the smaller is kept
	if _, err := c.store.Receive(t.Context(), jobs.Chunk{Peer: "b", Boot: jobs.ID{7}, Rows: []jobs.Row{{Job: j, LSeq: 1}}}); err != nil {
		t.Fatal(err)
	}
	if v := says(t, c.Queue, far("w"), l, jobs.ReportValue, l.Iterations, jobs.Value{1}); v != jobs.Lost {
		t.Fatalf("a value of other work is %v, want lost", v)
	}
	if err := c.step(t.Context(), c.now()); err != nil {
		t.Fatal(err)
	}
	if got := take(t, c.Queue, 10); !slices.Equal(got, []jobs.ID{id}) || c.table.Work(id).V1 != j.V1 {
		t.Errorf("leased afterwards: %v of %v, want the job as it is in its row", got, c.table.Work(id).V1)
	}
}

// TestCrossing_words_are_forgotten: what is remembered is of the time of passages
// that are on their way.
func TestCrossing_words_are_forgotten(t *testing.T) {
	c := newCrossing("a")
	n := 0
	ends := func() (id jobs.ID) {
		n++
		id = jobs.ID{byte(n >> 16), byte(n >> 8), byte(n)}
		c.committed([]jobs.Changed{{Row: jobs.Row{Job: jobs.Job{ID: id, Home: "a", Rank: jobs.Completed}}}})
		return id
	}
	before := ends()
	slow := c.begin()
	first := ends()
	for range 500 {
		p := c.begin()
		id := ends()
		if c.of(id) != wordGone || c.of(first) != wordGone {
			t.Fatal("a word was forgotten while a passage was on its way that began before it")
		}
		p.end()
	}
	if c.of(before) != wordNone {
		t.Error("a word was remembered when no passage was on its way")
	}
	slow.end()
	for range 500 { // always one on its way
		p := c.begin()
		ends()
		q := c.begin()
		ends()
		p.end()
		r := c.begin()
		q.end()
		r.end()
	}
	if got := len(c.last.words) + len(c.this.words); got > 8 || c.of(first) != wordNone {
		t.Errorf("%d words are remembered, of which two passages at a time have seen 4", got)
	}
	p := c.begin()
	defer p.end()
	for c.of(ends()) == wordGone {
		if n > 3*maxWords {
			t.Fatal("words have no bound")
		}
	}
}

// TestCrossing_never_ours: what comes in at the peer and ends there is no word,
// however much of it there is. What was ours before is one, and so is a key, which
// may have come to both nodes.
func TestCrossing_never_ours(t *testing.T) {
	c := newCrossing("a")
	defer c.begin().end()
	tell := func(j jobs.Job) {
		for j.Rank = range jobs.Completed + 1 {
			c.committed([]jobs.Changed{{Row: jobs.Row{Job: j}}})
		}
	}
	born := jobs.Job{ID: jobs.ID{6: 0x70, 15: 1}, Home: "b"}
	if tell(born); len(c.this.words) > 0 || c.of(born.ID) != wordNone {
		t.Errorf("a job that was never ours is word %d", c.of(born.ID))
	}
	for _, j := range []jobs.Job{
		{ID: jobs.ID{6: 0x70, 15: 2}, Home: "b", OwnEpoch: 1},
		{ID: jobs.ID{6: 0x80, 15: 3}, Home: "b"},
		{ID: jobs.ID{6: 0x70, 15: 4}, Home: "a"},
	} {
		if tell(j); c.of(j.ID) != wordGone {
			t.Errorf("job %s of node %s is word %d, want gone", j.ID, j.Home, c.of(j.ID))
		}
	}
	moved, _ := born.Rehome("a")
	if tell(moved); c.of(born.ID) != wordGone {
		t.Error("a job that we took over and that ended is no word")
	}
}

// TestCrossing_panic: a request that panics leaves no passage on its way, which
// would be remembered for until there is room for nothing else.
func TestCrossing_panic(t *testing.T) {
	c := newCrossed(t, maxWords)
	id := c.theirs()
	for name, call := range map[string]func(){
		"enqueue": func() { c.ours() },
		"arrived": func() { c.peerReturns(id) },
	} {
		c.Queue.between = func() { panic("test") }
		func() {
			defer func() { _ = recover() }()
			call()
		}()
		c.Queue.between = nil
		if n := c.crossing.last.passages + c.crossing.this.passages; n != 0 {
			t.Fatalf("%s: %d passages are on their way", name, n)
		}
	}
}

// TestCrossing_value_being_written: a lease does not end while the disk takes long
// over the value that was reported under it.
func TestCrossing_value_being_written(t *testing.T) {
	c := newCrossed(t, maxWords)
	at := time.Now()
	c.Queue.now = func() time.Time { return at }
	c.ours()
	l, _ := leaseTo(t, c.Queue, far("w"))
	at = at.Add(leaseTTL - time.Second)
	*c.in = func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if lost := c.table.Expire(at.Add(leaseTTL - time.Second)); len(lost) > 0 {
			t.Error("the lease ended, and the job may be leased once more")
		}
	}
	if v := says(t, c.Queue, far("w"), l, jobs.ReportValue, l.Iterations, jobs.Value{1}); v != jobs.Kept || *c.in != nil {
		t.Errorf("the value is %v, want kept", v)
	}
}

// TestCrossing_value_of_another: who guesses the number of a lease does not keep it
// alive, with a value that is none.
func TestCrossing_value_of_another(t *testing.T) {
	c := newCrossed(t, maxWords)
	at := time.Now()
	c.Queue.now = func() time.Time { return at }
	c.ours()
	l, _ := leaseTo(t, c.Queue, far("dead"))
	guessed := l
	guessed.V1 = jobs.Value{}
	at = at.Add(leaseTTL - time.Second)
	if v := says(t, c.Queue, far("w"), guessed, jobs.ReportValue, l.Iterations, jobs.Value{1}); v != jobs.Lost {
		t.Errorf("a value of other work is %v, want lost", v)
	}
	if lost := c.table.Expire(at.Add(2 * time.Second)); len(lost) != 1 {
		t.Error("the lease of a dead worker goes on")
	}
}

// TestCrossing_wakes_others: what was taken over may be more than one worker takes.
func TestCrossing_wakes_others(t *testing.T) {
	c := newCrossed(t, maxWords)
	c.theirs()
	c.theirs()
	got := make(chan int, 1)
	go func() {
		l, _ := c.Lease(t.Context(), far("waits"), jobs.Capacity{Jobs: 2, Iterations: 1, Wait: jobs.MaxWait})
		got <- len(l)
	}()
	for waiting := 0; waiting == 0; {
		c.mu.Lock()
		waiting = c.waiters
		c.mu.Unlock()
		runtime.Gosched()
	}
	if ids, _, err := c.takeSome(t.Context(), "b", jobs.Capacity{Jobs: 2, Iterations: math.MaxUint64}); err != nil || len(ids) != 2 {
		t.Fatal(ids, err)
	}
	select {
	case n := <-got:
		if n == 0 {
			t.Error("a worker that waits got nothing")
		}
	case <-time.After(jobs.MaxWait / 2):
		t.Error("a worker waits on, and two jobs wait for one")
	}
}

// TestWindow_reads_what_is_missed: a job is nowhere, by a way that nobody knows.
func TestWindow_reads_what_is_missed(t *testing.T) {
	c := newCrossed(t, maxWords)
	at := time.Now()
	id := c.ours()
	steps := func(d time.Duration) {
		t.Helper()
		for end := at.Add(d); at.Before(end); at = at.Add(stepInterval) {
			if err := c.step(t.Context(), at); err != nil {
				t.Fatal(err)
			}
		}
	}
	steps(2 * missedAfter)
	if c.window.behind {
		t.Error("all is read again, and nothing was missed")
	}
	c.table.Remove(id)
	steps(missedAfter - time.Second)
	if got := c.leases(id); got != 0 {
		t.Fatalf("the job was leased %d times before it was found", got)
	}
	steps(2 * time.Second)
	if got := c.leases(id); got != 1 {
		t.Errorf("the job was leased %d times, want 1", got)
	}
}

func BenchmarkCrossing(b *testing.B) {
	rows := make([]jobs.Changed, 1000)
	for i := range rows {
		rows[i] = jobs.Changed{Row: jobs.Row{Job: jobs.Job{ID: jobs.ID{byte(i >> 8), byte(i)}, Home: "a", Rank: jobs.Completed}}}
	}
	b.Run("passage", func(b *testing.B) {
		c := newCrossing("a")
		for b.Loop() {
			way := c.begin()
			c.of(jobs.ID{})
			way.end()
		}
	})
	for _, rank := range []jobs.Rank{jobs.Open, jobs.Completed} {
		for i := range rows {
			rows[i].Job.Rank = rank
		}
		b.Run("commit of 1000 "+rank.String(), func(b *testing.B) {
			c := newCrossing("a")
			for b.Loop() {
				way := c.begin()
				c.committed(rows)
				way.end()
			}
		})
	}
}

// BenchmarkQueue is a job's way through the queue, in batches of 1000 jobs; cpu is
// what that costs whatever else the machine does.
func BenchmarkQueue(b *testing.B) {
	cfg := Default()
	h := &hook{}
	s, err := store.Open(b.Context(), b.TempDir(), store.Options{Node: cfg.Name, OnStamp: h.stamped, OnCommit: h.committed, DSN: "&_pragma=synchronous(OFF)"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	q := newQueue(cfg, s, time.Now, slog.New(slog.DiscardHandler), newCache(0), nil)
	h.queue, h.pair = q, q.pair
	if err := q.fillWindow(b.Context()); err != nil {
		b.Fatal(err)
	}
	var before, after syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
		b.Fatal(err)
	}
	w := jobs.Worker{Name: "w"}
	for b.Loop() {
		batch := make([]jobs.Job, 1000)
		for i := range batch {
			id, _ := jobs.NewID(time.Now(), rand.Reader)
			if batch[i], err = jobs.New(id, jobs.Value(sha512.Sum512(id[:])), 1000, 0); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := q.Enqueue(b.Context(), batch, jobs.AckDefault); err != nil {
			b.Fatal(err)
		}
		leases, _ := q.grant(w, jobs.Capacity{Jobs: len(batch), Iterations: 1 << 60})
		reports := make([]jobs.Report, len(leases))
		for i, l := range leases {
			reports[i] = jobs.Report{LeaseRef: l.LeaseRef, V1: l.V1, Iterations: l.Iterations, Kind: jobs.ReportValue, Progress: jobs.Progress{Done: l.Iterations, Value: l.V1}}
		}
		if _, err := q.Report(b.Context(), w, reports); err != nil || len(leases) != len(batch) {
			b.Fatal(len(leases), err)
		}
	}
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano())/float64(1000*b.N), "cpu-ns/job")
}

// TestCrossing_random lets everything happen at once that brings a job into the
// table or ends it. No job is leased after its end was answered, none of the peer's
// is in the table in the end, and none of ours is left out.
func TestCrossing_random(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			c := newCrossed(t, []int{maxWords, maxWords, 3}[seed%3])
			stop, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() { _ = c.store.Run(stop) }()
			var mu sync.Mutex // guards the rest
			var known []jobs.ID
			over := map[jobs.ID]bool{} // answered
			some := func(r *mathrand.Rand) (jobs.ID, bool) {
				mu.Lock()
				defer mu.Unlock()
				if len(known) == 0 {
					return jobs.ID{}, false
				}
				return known[max(len(known)-1-r.IntN(12), 0)], true
			}
			end := func(how func(id jobs.ID) bool) func(*mathrand.Rand) {
				return func(r *mathrand.Rand) {
					if id, ok := some(r); ok && how(id) {
						mu.Lock()
						over[id] = true
						mu.Unlock()
					}
				}
			}
			ifFound := func(how func(jobs.ID)) func(jobs.ID) bool {
				return func(id jobs.ID) bool {
					_, found, err := c.store.Job(t.Context(), id)
					if found = found && err == nil; found {
						how(id)
					}
					return found
				}
			}
			moves := []func(r *mathrand.Rand){
				func(r *mathrand.Rand) { // known before it is answered, as by a list
					var batch []jobs.Job
					for range 1 + r.IntN(4) {
						batch = append(batch, (&duo{t: t}).fresh(1000))
					}
					mu.Lock()
					for _, j := range batch {
						known = append(known, j.ID)
					}
					mu.Unlock()
					if _, err := c.Enqueue(t.Context(), batch, jobs.AckDefault); err != nil {
						t.Error(err)
					}
				},
				func(r *mathrand.Rand) {
					mu.Lock()
					before := make(map[jobs.ID]bool, len(over))
					for id := range over {
						before[id] = true
					}
					mu.Unlock()
					got, _ := c.grant(jobs.Worker{Name: "w"}, jobs.Capacity{Jobs: 1 + r.IntN(3), Iterations: 1 << 60})
					for _, l := range got {
						if before[l.ID] {
							t.Errorf("job %s was leased after its end was answered", l.ID)
						}
						if r.IntN(3) > 0 {
							c.mu.Lock()
							c.handBack(l.LeaseRef)
							c.mu.Unlock()
						}
					}
				},
				func(*mathrand.Rand) {
					if err := c.fillWindow(t.Context()); err != nil {
						t.Error(err)
					}
				},
				func(*mathrand.Rand) {
					if _, _, err := c.takeSome(t.Context(), "b", jobs.Capacity{Jobs: 5, Iterations: math.MaxUint64}); err != nil {
						t.Error(err)
					}
				},
				func(r *mathrand.Rand) {
					c.mu.Lock()
					clear(c.workers) // short jobs are given away where nobody computes
					c.mu.Unlock()
					if _, err := c.GiveAway(t.Context(), "b", 1+r.IntN(3)); err != nil {
						t.Error(err)
					}
				},
				func(r *mathrand.Rand) {
					if id, ok := some(r); ok {
						if j, found, err := c.store.Job(t.Context(), id); found && err == nil {
							j, _ = j.Rehome([]string{"a", "b"}[r.IntN(2)])
							c.sends(j)
						}
					}
				},
				end(ifFound(c.peerHasValue)),
				end(ifFound(c.hasValue)),
				end(ifFound(c.cancels)),
			}
			var all sync.WaitGroup
			for k, move := range moves {
				all.Go(func() {
					r := mathrand.New(mathrand.NewPCG(seed, uint64(k)))
					for range 80 {
						move(r)
					}
				})
			}
			all.Wait()
			c.mu.Lock()
			leased := c.table.LeasedIDs()
			c.mu.Unlock()
			have := map[jobs.ID]bool{}
			for _, id := range append(leased, take(t, c.Queue, 1<<20)...) {
				if j := c.row(id); have[id] || j.Ended() || j.Home != "a" {
					t.Errorf("job %s is leased in the end, twice: %v; it is %s", id, have[id], c.shown(id))
				}
				have[id] = true
			}
			open, _, err := c.store.Open(t.Context(), "a", store.Place{}, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			for _, j := range open {
				if !have[j.ID] {
					t.Errorf("job %s is open and ours, and nobody can lease it", j.ID)
				}
			}
		})
	}
}
