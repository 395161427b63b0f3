package store_test

import (
	"context"
	"crypto/sha512"
	"slices"
	"sync"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// TestEnqueue enqueues batches of every small size, so that one row and eight
// rows a statement, and both in one call, are met.
func TestEnqueue(t *testing.T) {
	for name, kind := range map[string]func(i int) bool{
		"open": func(int) bool { return false }, "done": func(int) bool { return true },
		"mixed": func(i int) bool { return i%3 == 1 }, "eight_then_other": func(i int) bool { return i >= 8 },
	} {
		s := open(t, store.Options{})
		for size := 1; size <= 20; size++ {
			had := s.Counts()
			batch := work(t, size, 5)
			for i := range batch {
				if kind(i) && i%2 == 0 {
					batch[i].Job.Iterations = 1
				} else if kind(i) {
					v := jobs.Value{byte(i)}
					batch[i].Known = &v
				}
			}
			fresh, err := s.Enqueue(t.Context(), batch)
			if err != nil {
				t.Fatal(err)
			}
			var last time.Time
			done := 0
			for i, o := range fresh {
				if want := batch[i].Job.Born("a", o.Job.CreatedAt, batch[i].Known); o.Job != want || o.Existed || o.Err != nil {
					t.Errorf("%s, job %d of %d: %+v, want fresh %v", name, i, size, o, want)
				}
				if !o.Job.CreatedAt.After(last) {
					t.Errorf("%s, job %d of %d: created at %v, not after %v", name, i, size, o.Job.CreatedAt, last)
				}
				last = o.Job.CreatedAt
				if kind(i) {
					done++
				}
				if got, found, err := s.Job(t.Context(), o.Job.ID); err != nil || !found || got != o.Job {
					t.Errorf("%s: Job(%v) = %v, %v, %v, want %v", name, o.Job.ID, got, found, err, o.Job)
				}
			}
			if c := s.Counts(); c.Open-had.Open != int64(size-done) || c.Completed-had.Completed != int64(done) {
				t.Errorf("%s of %d: Counts() = %+v, were %+v, want %d completed", name, size, c, had, done)
			}

			// Again, with one other job in the middle and one of other work.
			head := s.Head()
			again := slices.Clone(batch)
			again[size/2] = work(t, 1, 5)[0]
			again[size-1].Job.V1[0]++
			out, err := s.Enqueue(t.Context(), again)
			if err != nil {
				t.Fatal(err)
			}
			for i, o := range out {
				switch {
				case i == size-1 && i != size/2:
					if jobs.CodeOf(o.Err) != jobs.CodeConflict {
						t.Errorf("%s, job %d of %d with other data: %+v, want %s", name, i, size, o, jobs.CodeConflict)
					}
				case i == size/2:
					if o.Existed || o.Err != nil {
						t.Errorf("%s, new job %d of %d: %+v, want fresh", name, i, size, o)
					}
				case !o.Existed || o.Err != nil || o.Job != fresh[i].Job:
					t.Errorf("%s, job %d of %d again: %+v, want existed %v", name, i, size, o, fresh[i].Job)
				}
			}
			if c := s.Counts(); c.Total()-had.Total() != int64(size+1) || s.Head() <= head {
				t.Errorf("%s of %d: Counts() = %+v, want %d; head %d, was %d", name, size, c, size+1, s.Head(), head)
			}
		}
	}
}

// TestEnqueueTwiceInOneBatch: the first of a kind is new, the rest existed.
func TestEnqueueTwiceInOneBatch(t *testing.T) {
	s := open(t, store.Options{})
	batch := work(t, 8, 3)
	batch[5], batch[7] = batch[2], batch[2]
	batch[7].Job.Iterations++
	out, err := s.Enqueue(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	if out[2].Existed || !out[5].Existed || out[5].Err != nil || jobs.CodeOf(out[7].Err) != jobs.CodeConflict {
		t.Errorf("Enqueue() = %+v, %+v, %+v, want fresh, existed, conflict", out[2], out[5], out[7])
	}
	if c := s.Counts(); c.Open != 6 {
		t.Errorf("Counts().Open = %d, want 6", c.Open)
	}
}

// TestOpenJobsLimit: a batch over the limit is refused whole and writes nothing.
func TestOpenJobsLimit(t *testing.T) {
	limits := jobs.DefaultLimits()
	limits.OpenJobs = 10
	s := open(t, store.Options{Limits: limits})
	first := work(t, 8, 3)
	if _, err := s.Enqueue(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Enqueue(t.Context(), work(t, 3, 3)); jobs.CodeOf(err) != jobs.CodeBusy {
		t.Errorf("Enqueue() over the limit = %v, want %s", err, jobs.CodeBusy)
	}
	if _, err := s.Record(t.Context(), complete(first[:2])); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Enqueue(t.Context(), work(t, 3, 3)); err != nil {
		t.Errorf("Enqueue() after two have ended = %v", err)
	}
	if c := s.Counts(); c.Total() != 11 {
		t.Errorf("Counts() = %+v, want 11 rows", c)
	}
}

// TestStoreBytesLimit: new jobs are refused when the database has reached its
// limit, and taken again when retention has made room in the file.
func TestStoreBytesLimit(t *testing.T) {
	limits := jobs.DefaultLimits()
	limits.StoreBytes = 10 << 20 // the log takes 4 of it
	s := open(t, store.Options{Limits: limits})
	enqueue := func() error {
		_, err := s.Enqueue(t.Context(), work(t, 1000, 1))
		return err
	}
	// A look at the disk counts for 0.2 s, so each state is waited for.
	until := func(what string, code jobs.Code) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; {
			err := enqueue()
			if jobs.CodeOf(err) == code {
				return
			}
			if err != nil && jobs.CodeOf(err) != jobs.CodeDiskFull || time.Now().After(deadline) {
				t.Fatalf("%s: Enqueue() = %v, want code %q", what, err, code)
			}
		}
	}
	until("over the limit", jobs.CodeDiskFull)
	for {
		if expire(t, s, time.Now().Add(time.Hour)) == 0 {
			break
		}
	}
	until("after retention", "")
}

// TestGroupCommit: many callers at once, each answered about its own jobs, in
// fewer commits than calls.
func TestGroupCommit(t *testing.T) {
	const callers, rounds = 64, 12
	commits := 0
	var last jobs.LSeq
	s := open(t, store.Options{OnCommit: func(changed []jobs.Changed) {
		commits++
		for _, c := range changed {
			if c.LSeq != last+1 {
				t.Errorf("OnCommit: lseq %d after %d", c.LSeq, last)
			}
			last = c.LSeq
		}
	}})
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for r := range rounds {
				batch := work(t, 1+(c+r)%3, 2)
				out, err := s.Enqueue(t.Context(), batch)
				if err != nil {
					t.Errorf("Enqueue() = %v", err)
					return
				}
				for i := range out {
					if out[i].Job.ID != batch[i].Job.ID {
						t.Errorf("Enqueue(%v) = %v", batch[i].Job.ID, out[i].Job)
					}
				}
				effects, err := s.Record(t.Context(), complete(batch))
				if err != nil {
					t.Errorf("Record() = %v", err)
					return
				}
				for i, e := range effects {
					if want := sha512.Sum512(batch[i].Job.V1[:]); !e.Changed || e.Job.Result != want {
						t.Errorf("Record(%v) = %+v, want completed with %x", batch[i].Job.ID, e, want)
					}
				}
			}
		})
	}
	wg.Wait()
	if got := s.Counts(); got.Completed != got.Total() || got.Total() == 0 {
		t.Errorf("Counts() = %+v, want all completed", got)
	}
	if commits >= callers*rounds*2 {
		t.Errorf("%d commits for %d calls: nothing was committed together", commits, callers*rounds*2)
	}
}

// TestRunEnds: what was taken is committed, what comes after Run is refused, and
// Run ends though others go on writing.
func TestRunEnds(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), dir, store.Options{Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	var mu sync.Mutex
	acked := map[jobs.ID]bool{}
	var wg sync.WaitGroup
	started := make(chan struct{}, 100)
	for range 32 {
		wg.Go(func() {
			for {
				batch := work(t, 2, 2)
				_, err := s.Enqueue(context.Background(), batch)
				if jobs.CodeOf(err) == jobs.CodeStopping {
					return
				}
				if err != nil {
					t.Errorf("Enqueue() = %v", err)
					return
				}
				mu.Lock()
				acked[batch[0].Job.ID], acked[batch[1].Job.ID] = true, true
				mu.Unlock()
				select {
				case started <- struct{}{}:
				default:
				}
			}
		})
	}
	for range 50 {
		<-started
	}
	stop()
	if err := <-ran; err != nil {
		t.Errorf("Run() = %v", err)
	}
	wg.Wait()
	if _, err := s.Record(t.Context(), complete(work(t, 1, 2))); jobs.CodeOf(err) != jobs.CodeStopping {
		t.Errorf("Record() after Run = %v, want %s", err, jobs.CodeStopping)
	}
	got := all(t, s)
	for id := range acked {
		if got[id].ID != id {
			t.Errorf("job %v was acknowledged and is not there", id)
		}
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	if _, _, err := s.Job(t.Context(), jobs.ID{1}); err == nil {
		t.Error("Job() of a closed store answers")
	}
}

// TestFullQueue: with the queue full an enqueue is refused as busy, and a report
// waits until its context ends. What was taken is done, whatever becomes of its
// context.
func TestFullQueue(t *testing.T) {
	hold, held := make(chan struct{}), make(chan struct{}, 1)
	s := open(t, store.Options{OnCommit: func([]jobs.Changed) {
		select {
		case held <- struct{}{}:
		default:
		}
		<-hold
	}})
	batch := work(t, 5000, 2) // more than the queue takes
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, len(batch))
	put := func(sub store.Submission) {
		_, err := s.Enqueue(ctx, []store.Submission{sub})
		errs <- err
	}
	go put(batch[0])
	<-held // the writer is busy
	for _, sub := range batch[1:] {
		go put(sub)
	}
	if err := <-errs; jobs.CodeOf(err) != jobs.CodeBusy {
		t.Errorf("Enqueue() with a full queue = %v, want %s", err, jobs.CodeBusy)
	}
	cancel()
	if _, err := s.Record(ctx, complete(batch[:1])); err != context.Canceled {
		t.Errorf("Record() with a full queue and an ended context = %v, want %v", err, context.Canceled)
	}
	close(hold)
	taken := 0
	for range batch[1:] {
		switch err := <-errs; {
		case err == nil:
			taken++
		case jobs.CodeOf(err) != jobs.CodeBusy:
			t.Errorf("Enqueue() = %v", err)
		}
	}
	if c := s.Counts(); c.Open != int64(taken) || c.Completed != 0 || taken < 4096 {
		t.Errorf("Counts() = %+v, want %d open, and at least 4096", c, taken)
	}
}

// TestFacts: facts that come too late or twice change nothing and take no lseq.
func TestFacts(t *testing.T) {
	s := open(t, store.Options{})
	batch := work(t, 1, 100)
	id := batch[0].Job.ID
	if _, err := s.Enqueue(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	v := jobs.Value{1, 2, 3}
	step := func(done uint64) func(jobs.Job, store.Clock) (jobs.Job, bool) {
		return func(j jobs.Job, _ store.Clock) (jobs.Job, bool) {
			return j.Advance(jobs.Progress{Done: done, Value: v})
		}
	}
	lose := func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Lose(at()) }
	for i, c := range []struct {
		name    string
		fact    func(jobs.Job, store.Clock) (jobs.Job, bool)
		changed bool
		want    func(jobs.Job) bool
	}{
		{"advance", step(10), true, func(j jobs.Job) bool { return j.Checkpoint.Done == 10 && j.Checkpoint.Value == v }},
		{"advance back", step(9), false, func(j jobs.Job) bool { return j.Checkpoint.Done == 10 }},
		{"lose", lose, true, func(j jobs.Job) bool { return j.Lost == 1 && j.Checkpoint.Done == 10 }},
		{"advance after", step(11), true, func(j jobs.Job) bool { return j.Lost == 0 }},
		{"fail", func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Fail("no", at()) }, true,
			func(j jobs.Job) bool { return j.Rank == jobs.Failed && j.Err == "no" && j.Checkpoint.Done == 0 }},
		{"lose a failed", lose, false, func(j jobs.Job) bool { return j.Rank == jobs.Failed }},
		{"complete a failed", func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Complete(v, at()) }, true,
			func(j jobs.Job) bool { return j.Rank == jobs.Completed && j.Result == v && j.Err == "" }},
		{"complete again", func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Complete(jobs.Value{9}, at()) }, false,
			func(j jobs.Job) bool { return j.Result == v }},
		{"cancel a completed", func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Cancel(at()) }, false,
			func(j jobs.Job) bool { return j.Rank == jobs.Completed }},
		{"purge", purge, true, func(j jobs.Job) bool { return j.Purged && j.V1 == jobs.Value{} && j.Result == jobs.Value{} }},
		{"purge again", purge, false, func(j jobs.Job) bool { return j.Purged && j.Rank == jobs.Completed }},
	} {
		head := s.Head()
		out, err := s.Record(t.Context(), []store.Fact{{ID: id, Apply: c.fact}})
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got, found, err := s.Job(t.Context(), id)
		if err != nil || !found || out[0].Changed != c.changed || got != out[0].Job || !c.want(got) {
			t.Errorf("step %d, %s: %+v, read back %v, %v, %v", i, c.name, out[0], got, found, err)
		}
		if (s.Head() > head) != c.changed {
			t.Errorf("step %d, %s: head %d, was %d, changed %v", i, c.name, s.Head(), head, c.changed)
		}
	}
	if page, err := s.Results(t.Context(), jobs.ResultsQuery{Limit: 10}); err != nil || len(page.Results) != 0 {
		t.Errorf("Results() = %+v, %v, want none: it is purged", page, err)
	}
	if s.ResultsHead() != 1 {
		t.Errorf("ResultsHead() = %d, want 1", s.ResultsHead())
	}
}
