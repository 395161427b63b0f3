package store_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// sharedBy returns limits with a share of n open jobs for one client.
func sharedBy(n int64) jobs.Limits {
	l := jobs.DefaultLimits()
	l.ClientJobs = n
	return l
}

// workOf is work of one owner.
func workOf(tb testing.TB, owner string, n int, iterations uint64) []store.Submission {
	tb.Helper()
	batch := work(tb, n, iterations)
	for i := range batch {
		batch[i].Job.Owner = owner
	}
	return batch
}

// taken enqueues a batch and returns how many of it are new; the others must be
// refused because of their owner's share, with words in what they are told.
func taken(tb testing.TB, s *store.Store, batch []store.Submission, words ...string) int {
	tb.Helper()
	out, err := s.Enqueue(tb.Context(), batch)
	if err != nil {
		tb.Fatal(err)
	}
	n := 0
	for i, o := range out {
		e, _ := errors.AsType[*jobs.Error](o.Err)
		switch {
		case o.Job.ID != batch[i].Job.ID:
			tb.Errorf("outcome %d is of job %v, want %v", i, o.Job.ID, batch[i].Job.ID)
		case o.Err == nil && !o.Existed:
			n++
		case e == nil || e.Code != jobs.CodeLimited || e.RetryAfter <= 0:
			tb.Errorf("job %d of %d: %+v, want new, or %s with a time to try again", i, len(batch), o, jobs.CodeLimited)
		default:
			for _, word := range words {
				if !strings.Contains(e.Msg, word) {
					tb.Errorf("%q does not say %q", e.Msg, word)
				}
			}
		}
	}
	return n
}

// TestShare: one client fills its share and no more, whatever else is asked
// for; what others may have stays as it was.
func TestShare(t *testing.T) {
	s := open(t, store.Options{Limits: sharedBy(10)})
	if n := taken(t, s, workOf(t, "alice", 4, 5)); n != 4 {
		t.Errorf("%d of 4 taken, want all", n)
	}
	if n := taken(t, s, workOf(t, "alice", 100, 5), `client "alice"`, "10 open jobs", "10 is the limit", "--max-client-jobs"); n != 6 {
		t.Errorf("%d of 100 taken with 4 of 10 open, want 6", n)
	}
	if n := taken(t, s, workOf(t, "alice", 1, 5)); n != 0 {
		t.Error("a job over the share was taken")
	}
	// What is completed at once is never open.
	done := workOf(t, "alice", 20, 1)
	for i := range done[:10] {
		done[i].Job.Iterations, done[i].Known = 7, &jobs.Value{1}
	}
	if n := taken(t, s, done); n != 20 {
		t.Errorf("%d of 20 taken that are completed at once, want all", n)
	}
	for _, owner := range []string{"bob", ""} {
		if n := taken(t, s, workOf(t, owner, 10, 5)); n != 10 {
			t.Errorf("%d of 10 of %q taken, want all: alice's share is hers", n, owner)
		}
	}
	if n := taken(t, s, workOf(t, "", 1000, 5)); n != 1000 {
		t.Errorf("%d of 1000 of nobody taken: operators and open nodes have no share", n)
	}
	if a, b, none := s.OpenOf("alice"), s.OpenOf("bob"), s.OpenOf(""); a != 10 || b != 10 || none != 0 {
		t.Errorf("OpenOf() = %d of alice, %d of bob, %d of nobody, want 10, 10, 0", a, b, none)
	}
	if owners, most, refused := s.Shares(); owners != 2 || most != 10 || refused != 95 {
		t.Errorf("Shares() = %d owners, most %d, %d refused, want 2, 10, 95", owners, most, refused)
	}
	mixed := slices.Concat(workOf(t, "carol", 6, 5), workOf(t, "bob", 3, 5), workOf(t, "carol", 6, 5))
	if n := taken(t, s, mixed); n != 10 || s.OpenOf("carol") != 10 {
		t.Errorf("%d of carol's 12 and bob's 3 taken, %d of carol's open, want 10 and 10", n, s.OpenOf("carol"))
	}
}

// TestShare_default: a quarter of the open jobs, unless said otherwise.
func TestShare_default(t *testing.T) {
	for _, c := range []struct{ open, client, want int64 }{{20_000_000, -1, 5_000_000}, {2, -1, 1}, {100, 0, 0}, {100, 7, 7}} {
		l := jobs.DefaultLimits()
		l.OpenJobs, l.ClientJobs = c.open, c.client
		if got := l.ClientShare(); got != c.want {
			t.Errorf("ClientShare() of %d with %d = %d, want %d", c.open, c.client, got, c.want)
		}
	}
	l := jobs.DefaultLimits()
	l.OpenJobs = 40
	s := open(t, store.Options{Limits: l})
	if n := taken(t, s, workOf(t, "alice", 12, 5)); n != 10 {
		t.Errorf("%d of 12 taken where 40 may be open, want a quarter of these", n)
	}
	none := open(t, store.Options{Limits: sharedBy(0)})
	if n := taken(t, none, workOf(t, "alice", 3000, 5)); n != 3000 {
		t.Errorf("%d of 3000 taken without a share", n)
	}
}

// TestShare_freed: every way in which a job ends makes room for the next, and
// what makes none does not.
func TestShare_freed(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir, store.Options{Limits: sharedBy(8)})
	batch := workOf(t, "alice", 8, 5)
	if n := taken(t, s, batch); n != 8 {
		t.Fatalf("%d of 8 taken", n)
	}
	record := func(i int, f func(jobs.Job, store.Clock) (jobs.Job, bool)) {
		t.Helper()
		if _, err := s.Record(t.Context(), []store.Fact{{ID: batch[i].Job.ID, Apply: f}}); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range []struct {
		name  string
		room  int
		apply func(jobs.Job, store.Clock) (jobs.Job, bool)
	}{
		{"checkpoint", 0, func(j jobs.Job, _ store.Clock) (jobs.Job, bool) {
			j.Checkpoint = jobs.Progress{Done: 2, Value: jobs.Value{1}}
			return j, true
		}},
		{"steal", 0, func(j jobs.Job, _ store.Clock) (jobs.Job, bool) { return j.Rehome("b") }},
		{"complete", 1, func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Complete(jobs.Value{2}, at()) }},
		{"fail", 1, func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Fail("no", at()) }},
		{"cancel", 1, func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Cancel(at()) }},
		{"purge", 1, func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Purge(at()) }},
	} {
		record(i, c.apply)
		record(i, c.apply) // ended once
		if n := taken(t, s, workOf(t, "alice", 3, 5)); n != c.room {
			t.Errorf("after a %s %d of 3 are taken, want %d", c.name, n, c.room)
		}
		checkCounts(t, s, peek(t, dir))
	}
	record(4, func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Complete(jobs.Value{2}, at()) }) // a late value of what was cancelled
	if n := taken(t, s, workOf(t, "alice", 1, 5)); n != 0 {
		t.Error("a job that ended twice made room twice")
	}
}

// TestShare_restart: the counts outlive the process, those of the peer's rows too.
func TestShare_restart(t *testing.T) {
	dir := t.TempDir()
	opt := store.Options{Node: "a", Limits: sharedBy(10)}
	for round := range 3 {
		s, err := store.Open(t.Context(), dir, opt)
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			if n := taken(t, s, workOf(t, "alice", 9, 5)); n != 9 {
				t.Fatalf("%d of 9 taken", n)
			}
		}
		if got := s.OpenOf("alice"); got != 9 {
			t.Errorf("start %d: %d open, want 9", round, got)
		}
		if n := taken(t, s, workOf(t, "alice", 3, 5)); n != 1 {
			t.Errorf("start %d: %d of 3 taken, want 1", round, n)
		}
		page, _, _, err := s.List(t.Context(), "a", jobs.ListQuery{Owner: "alice", State: jobs.StateQueued, Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Record(t.Context(), []store.Fact{{ID: page[0].Job.ID, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Cancel(at()) }}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestShare_peer: jobs that the peer took in count here as well, however they
// come, and no longer when it says that they have ended.
func TestShare_peer(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir, store.Options{Limits: sharedBy(10)})
	if err := s.SetPeer(t.Context(), "b", "", ""); err != nil {
		t.Fatal(err)
	}
	rows := foreignRows(t, 9, 5)
	for i := range rows {
		rows[i].Job.Owner = "alice"
	}
	rows[8].Job.Owner = "bob"
	c := foreign(rows[:8]...)
	if _, err := s.Receive(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.ReceiveCopies(t.Context(), c.Boot, rows[8:]); err != nil {
		t.Fatal(err)
	}
	if a, b := s.OpenOf("alice"), s.OpenOf("bob"); a != 8 || b != 1 {
		t.Errorf("%d of alice and %d of bob open, want the peer's 8 and 1", a, b)
	}
	if n := taken(t, s, workOf(t, "alice", 5, 5)); n != 2 {
		t.Errorf("%d of 5 taken beside 8 at the peer, want 2", n)
	}
	if took, err := s.TakeOver(t.Context(), "b", jobs.Capacity{Jobs: 3, Iterations: 1 << 40}); err != nil || len(took) != 3 || s.OpenOf("alice") != 10 {
		t.Errorf("%d open after a take-over of %d (%v), want 10 as before", s.OpenOf("alice"), len(took), err)
	}
	at := time.Date(2026, 5, 2, 0, 0, 0, 0, time.UTC)
	ended := slices.Clone(rows[3:5])
	for i := range ended {
		ended[i].Job, _ = ended[i].Job.Complete(jobs.Value{3}, at)
	}
	if _, err := s.Receive(t.Context(), jobs.Chunk{Peer: "b", From: c.Next, Boot: c.Boot, Rows: ended, Next: c.Next}); err != nil {
		t.Fatal(err)
	}
	if n := taken(t, s, workOf(t, "alice", 5, 5)); n != 2 {
		t.Errorf("%d of 5 taken after the peer has completed 2, want 2", n)
	}
	checkCounts(t, s, peek(t, dir))
}

// TestShare_keys: a retry with its keys is answered, also where there is no room
// for more, and goes on with what had not been taken.
func TestShare_keys(t *testing.T) {
	s := open(t, store.Options{Limits: sharedBy(10)})
	batch := workOf(t, "alice", 10, 5)
	for i := range batch {
		batch[i].Job.ID = jobs.KeyID("", "alice", fmt.Sprint("key ", i))
	}
	if n := taken(t, s, batch[:6]); n != 6 {
		t.Fatalf("%d of 6 taken", n)
	}
	again := func(want int) {
		t.Helper()
		out, err := s.Enqueue(t.Context(), batch)
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range out {
			if o.Err != nil || o.Existed != (i < want) || o.Job.ID != batch[i].Job.ID {
				t.Errorf("job %d again: %+v, want it, and known %v", i, o, i < want)
			}
		}
	}
	again(6) // only 4 fit, and 6 of these 10 are there already
	again(10)
	if _, _, refused := s.Shares(); refused != 0 {
		t.Errorf("%d jobs count as refused, none was in the end", refused)
	}
	other := slices.Clone(batch[:1])
	other[0].Job.V1[0]++
	out, err := s.Enqueue(t.Context(), append(other, workOf(t, "alice", 1, 5)...))
	if err != nil || jobs.CodeOf(out[0].Err) != jobs.CodeConflict || jobs.CodeOf(out[1].Err) != jobs.CodeLimited {
		t.Errorf("other work under a known key, and a new job: %+v, %v, want a conflict and a refusal", out, err)
	}
}

// TestShare_together: callers that submit at once get the share between them.
func TestShare_together(t *testing.T) {
	s := open(t, store.Options{Limits: sharedBy(500)})
	got := make(chan int)
	for range 16 {
		batch := workOf(t, "alice", 50, 5)
		go func() {
			out, err := s.Enqueue(t.Context(), batch)
			if err != nil {
				t.Error(err)
			}
			n := 0
			for _, o := range out {
				if o.Err == nil {
					n++
				}
			}
			got <- n
		}()
	}
	sum := 0
	for range 16 {
		sum += <-got
	}
	if sum != 500 || s.OpenOf("alice") != 500 {
		t.Errorf("%d of 800 taken, %d open, want 500", sum, s.OpenOf("alice"))
	}
}

// TestShare_recount: rows that were changed behind the node's back are counted
// right after the next recount, and no count that is wrong keeps a commit out.
func TestShare_recount(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir, store.Options{Limits: sharedBy(10)})
	batch := workOf(t, "alice", 6, 5)
	if n := taken(t, s, batch); n != 6 {
		t.Fatalf("%d of 6 taken", n)
	}
	if n := taken(t, s, workOf(t, "bob", 2, 5)); n != 2 {
		t.Fatalf("%d of 2 taken", n)
	}
	for _, q := range []string{"UPDATE jobs SET owner = 'carol' WHERE n <= 5", "UPDATE jobs SET owner = 'bob' WHERE n = 6"} {
		if _, err := poke(t, dir).Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Recount(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, b, c := s.OpenOf("alice"), s.OpenOf("bob"), s.OpenOf("carol"); a != 0 || b != 3 || c != 5 {
		t.Errorf("recounted: %d of alice, %d of bob, %d of carol, want 0, 3, 5", a, b, c)
	}
	checkCounts(t, s, peek(t, dir))
	if n := taken(t, s, workOf(t, "carol", 9, 5)); n != 5 {
		t.Errorf("%d of carol's 9 taken, want 5", n)
	}
}

// TestShare_below: a count that went below zero, since a row has another owner
// than it was counted for, keeps no commit out.
func TestShare_below(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), dir, store.Options{Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	batch := workOf(t, "bob", 2, 5)
	if n := taken(t, s, batch); n != 2 {
		t.Fatalf("%d of 2 taken", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := poke(t, dir).Exec("UPDATE jobs SET owner = 'erin' WHERE n = 1"); err != nil {
		t.Fatal(err)
	}
	s = openIn(t, dir, store.Options{Limits: sharedBy(2)})
	if _, err := s.Record(t.Context(), complete(batch[:1])); err != nil {
		t.Fatal(err)
	}
	if got := s.OpenOf("erin"); got != 0 {
		t.Errorf("%d of erin's open", got)
	}
	if n := taken(t, s, workOf(t, "bob", 1, 5)); n != 0 {
		t.Error("bob's count has forgotten the row, want it mended by a recount only")
	}
	if err := s.Recount(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkCounts(t, s, peek(t, dir))
	if n := taken(t, s, workOf(t, "bob", 2, 5)); n != 1 {
		t.Errorf("%d of 2 taken after the recount, want 1", n)
	}
}
