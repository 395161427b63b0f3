package jobstest

import (
	"context"
	"slices"
	"time"

	"workmanager/jobs"
)

func results(w *world) {
	first := w.a.done(3)
	w.meetAll()
	w.b.done(2)
	w.meetAll()
	if w.a.ResultsHead() != 5 || w.b.ResultsHead() != 5 {
		w.t.Errorf("results heads %d and %d, want 5", w.a.ResultsHead(), w.b.ResultsHead())
	}
	for _, n := range []*node{w.a, w.b} {
		other := w.b
		if n == w.b {
			other = w.a
		}
		seen, cursor, restarted := n.follow("", 2)
		if len(seen) != 5 || restarted {
			w.t.Errorf("node %s: results %v, restarted %v", n.name, seen, restarted)
		}
		if again, _, restarted := n.follow(cursor, 2); len(again) != 0 || restarted {
			w.t.Errorf("node %s: results %v again, restarted %v", n.name, again, restarted)
		}
		w.now = w.now.Add(2 * time.Second)
		w.meetAll()
		seen, cursor, _ = n.follow("", 2)
		more := other.done(2)
		got, next, restarted := other.follow(cursor, 2)
		for _, j := range more {
			if !slices.Contains(got, j.ID) {
				w.t.Errorf("from %s to %s: result %v is skipped", n.name, other.name, j.ID)
			}
		}
		if restarted || len(got) != 2 {
			w.t.Errorf("from %s to %s: %d results, restarted %v, want the 2 new ones", n.name, other.name, len(got), restarted)
		}
		if got, _, restarted := n.follow(next, 2); restarted { // and back, before it knows of them
			w.t.Errorf("back to %s: %v, restarted %v", n.name, got, restarted)
		}
		for _, j := range more {
			other.record(j.ID, purge)
		}
		w.meetAll()
		_ = seen
	}
	if got, _, _ := w.a.follow("", 100); len(got) != 5 || got[0] != first[0].ID {
		w.t.Errorf("results of a: %v, want 5 that are not purged", got)
	}
	// In the middle of a page too: a cursor that stands below all pairs repeats, and never skips.
	page, err := w.a.Results(context.Background(), jobs.ResultsQuery{Limit: 2})
	w.a.ok(err)
	got, _, _ := w.b.follow(page.Cursor, 100)
	for _, r := range page.Results {
		got = append(got, r.ID)
	}
	for _, j := range first {
		if !slices.Contains(got, j.ID) {
			w.t.Errorf("after a page of a: result %v is skipped at b", j.ID)
		}
	}
}

// trapR is the counterexample of the results cursor: a result that was numbered
// early and moved in the feed behind others.
func trapR(w *world) {
	w.a.done(6)
	w.a.fresh(2)
	w.b.pullAll(w.a, 100) // b stands at 8
	r := w.a.fresh(1)[0]
	w.a.record(r.ID, complete(jobs.Value{1, 2, 3})) // R: lseq 10, rseq 7
	w.a.done(12)                                    // to lseq 22, rseq 19
	w.a.record(r.ID, handOut)                       // R: lseq 23, rseq 7
	w.b.pull(w.a, 5)                                // at 15, without R
	if w.b.has(r.ID) || w.b.Reading().Cursor.At != 15 {
		w.t.Fatalf("b stands at %+v, has R: %v", w.b.Reading().Cursor, w.b.has(r.ID))
	}
	seen, cursor, _ := w.b.follow("", 100)
	if len(seen) != 11 || slices.Contains(seen, r.ID) {
		w.t.Fatalf("%d results at b, want 11", len(seen))
	}
	more, _, restarted := w.a.follow(cursor, 100)
	if restarted || !slices.Contains(more, r.ID) {
		w.t.Errorf("R is skipped at a: %v, restarted %v", more, restarted)
	}
	if len(more) != 13 {
		w.t.Errorf("%d results at a, want 13: those above the 6 that were surely there", len(more))
	}
	w.meetAll()
	w.same()
}

func resultsRestart(w *world) {
	w.a.done(5)
	w.meetAll()
	backup := w.a.disk.Copy()
	w.a.done(5)
	w.b.pullAll(w.a, 100)
	_, atA, _ := w.a.follow("", 100)
	_, atB, _ := w.b.follow("", 100)
	w.a.replace(backup)
	w.a.done(7)
	for name, cursor := range map[string]string{"a": atA, "b": atB} {
		got, next, restarted := w.a.follow(cursor, 100)
		if !restarted || len(got) != 12 {
			w.t.Errorf("after a cursor of %s: %d results, restarted %v, want all 12 and a word", name, len(got), restarted)
		}
		if got, _, restarted := w.a.follow(next, 100); restarted || len(got) != 0 {
			w.t.Errorf("the cursor after it: %v, restarted %v", got, restarted)
		}
	}
	if _, _, restarted := w.b.follow("", 100); restarted {
		w.t.Error("the beginning is no restart")
	}
	if _, err := w.a.Results(context.Background(), jobs.ResultsQuery{After: "no cursor", Limit: 1}); jobs.CodeOf(err) != jobs.CodeInvalid {
		w.t.Errorf("Results() of no cursor = %v", err)
	}
}

func oneRSeq(w *world) {
	ctx := context.Background()
	j := w.a.fresh(1)[0]
	w.a.record(j.ID, complete(jobs.Value{1}))
	w.a.done(1)
	w.meetAll()
	w.a.record(j.ID, handOut)
	w.b.record(j.ID, func(j jobs.Job, _ func() time.Time) (jobs.Job, bool) { j.Attempts += 3; return j, true })
	w.meetAll()
	w.a.record(j.ID, purge)
	w.meetAll()
	for _, n := range []*node{w.a, w.b} {
		if n.ResultsHead() != 2 {
			w.t.Errorf("node %s: results head %d, want 2: changes of a result take no number", n.name, n.ResultsHead())
		}
		if page, err := n.Results(ctx, jobs.ResultsQuery{Limit: 9}); err != nil || len(page.Results) != 1 {
			w.t.Errorf("node %s: %+v, %v, want one result that is not purged", n.name, page, err)
		}
	}
	w.same()
}

// newRSeq: a value that changes takes a new number, so that who follows sees it;
// a result that is none any more loses it, and it is never given again.
func newRSeq(w *world) {
	j := w.a.fresh(1)[0]
	w.meetAll()
	w.a.record(j.ID, complete(jobs.Value{9}))
	w.b.record(j.ID, complete(jobs.Value{4})) // smaller bytes: stays, until recomputed
	_, cursor, _ := w.a.follow("", 9)
	w.meetAll()
	w.same()
	if w.a.ResultsHead() != 2 || w.b.ResultsHead() != 1 {
		w.t.Errorf("results heads %d and %d, want 2 and 1", w.a.ResultsHead(), w.b.ResultsHead())
	}
	if got, _, _ := w.a.follow(cursor, 9); !slices.Equal(got, []jobs.ID{j.ID}) {
		w.t.Errorf("after the value changed: %v, want it again", got)
	}
	if w.a.Disagreements() == 0 && w.b.Disagreements() == 0 {
		w.t.Error("two values for one job, and no alarm")
	}
	// A key conflict takes the result away.
	sub := w.work(1, 1)
	sub[0].Job.V1[0] = 200
	w.a.enqueue(sub...) // rseq 3
	sub[0].Job.V1[0], sub[0].Job.Iterations = 2, 50
	w.b.enqueue(sub...)
	w.meetAll()
	w.same()
	if r := w.a.row(sub[0].Job.ID); r.Job.Rank != jobs.Open {
		w.t.Errorf("the row is %+v, want the smaller work, open", r)
	}
	w.a.restart()
	w.a.done(1)
	if w.a.ResultsHead() != 4 {
		w.t.Errorf("results head %d, want 4: 3 was given to what is no result any more", w.a.ResultsHead())
	}
	w.meetAll()
	w.same()
}

func purgeArrives(w *world) {
	made := w.a.done(2)
	open := w.a.fresh(1)[0]
	w.meetAll()
	w.a.record(made[0].ID, purge)
	w.a.record(open.ID, purge)
	w.b.pullAll(w.a, 10)
	for _, id := range []jobs.ID{made[0].ID, open.ID} {
		j := w.b.row(id).Job
		if !j.Purged || j.V1 != (jobs.Value{}) || j.Result != (jobs.Value{}) || !j.Ended() {
			w.t.Errorf("the purge arrived as %+v", j)
		}
	}
	if got, _, _ := w.b.follow("", 9); !slices.Equal(got, []jobs.ID{made[1].ID}) {
		w.t.Errorf("results at b: %v, want the one that is not purged", got)
	}
	w.same()
	if came := w.a.pullAll(w.b, 10); len(came) != 0 {
		w.t.Errorf("a purge comes back: %v", came)
	}
}

// purgeBeats: no late row, result, copy or key brings the bytes of a purged job back.
func purgeBeats(w *world) {
	ctx := context.Background()
	sub := w.work(1, 100)
	j := w.a.enqueue(sub...)[0]
	w.meetAll()
	w.b.record(j.ID, complete(jobs.Value{7}))
	before := w.b.row(j.ID)
	w.a.record(j.ID, purge)
	late := w.a.ask(w.b, 10)
	w.a.take(late)
	if got := w.a.row(j.ID).Job; !got.Purged || got.Result != (jobs.Value{}) || got.V1 != (jobs.Value{}) || got.Rank != jobs.Cancelled {
		w.t.Errorf("a late result made a purged row %+v", got)
	}
	_, _, err := w.a.ReceiveCopies(ctx, w.b.Boot(), []jobs.Row{before})
	w.a.ok(err)
	w.meetAll()
	w.same()
	if got := w.b.row(j.ID).Job; !got.Purged || got.Result != (jobs.Value{}) || w.b.ResultsHead() != 1 {
		w.t.Errorf("the purge arrived over a result as %+v", got)
	}
	out, err := w.b.Enqueue(ctx, sub)
	if w.b.ok(err); !out[0].Existed || !out[0].Job.Purged {
		w.t.Errorf("Enqueue() under the key of a purged job = %+v", out[0])
	}
	w.b.restart()
	w.b.done(1)
	if w.b.ResultsHead() != 2 {
		w.t.Errorf("results head %d, want 2", w.b.ResultsHead())
	}
	w.meetAll()
	w.same()
}
