package store_test

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// TestOwned: one owner is shown its own jobs, all of them and no others, in
// every list, page by page; results likewise.
func TestOwned(t *testing.T) {
	s := open(t, store.Options{})
	rng := rand.New(rand.NewPCG(1, 2))
	batch := work(t, 400, 50)
	for i := range batch {
		batch[i].Job.Owner = owners[rng.IntN(3)]
		batch[i].Job.Priority = uint8(rng.IntN(3))
		if rng.IntN(5) == 0 {
			batch[i].Known = &jobs.Value{9}
		}
		if rng.IntN(9) == 0 {
			batch[i].Job, _ = batch[i].Job.Keeping(3)
		}
	}
	if _, err := s.Enqueue(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	var facts []store.Fact
	for i := range batch {
		switch id := batch[i].Job.ID; rng.IntN(8) {
		case 0:
			facts = append(facts, store.Fact{ID: id, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Fail("no", at()) }})
		case 1:
			facts = append(facts, store.Fact{ID: id, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Cancel(at()) }})
		case 2, 3:
			facts = append(facts, store.Fact{ID: id, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Complete(jobs.Value{7}, at()) }})
		case 4:
			facts = append(facts, store.Fact{ID: id, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Purge(at()) }})
		}
	}
	rng.Shuffle(len(facts), func(i, j int) { facts[i], facts[j] = facts[j], facts[i] })
	if _, err := s.Record(t.Context(), facts); err != nil {
		t.Fatal(err)
	}
	everything := all(t, s)
	for _, owner := range []string{"alice", "bob", "nobody"} {
		for _, state := range []jobs.State{"", jobs.StateQueued, jobs.StateCompleted, jobs.StateFailed, jobs.StateCancelled} {
			var want []jobs.ID
			for _, j := range everything {
				if j.Owner == owner && (state == "" || jobs.StateOf(j.Rank, false) == state) {
					want = append(want, j.ID)
				}
			}
			for _, limit := range []int{1, 7, 1000} {
				var got []jobs.Row
				for after := ""; ; {
					page, next, more, err := s.List(t.Context(), "a", jobs.ListQuery{Owner: owner, State: state, Limit: limit, After: after})
					if err != nil {
						t.Fatalf("List(%s, %q) after %q = %v", owner, state, after, err)
					}
					if len(page) > limit || more && len(page) < limit {
						t.Fatalf("List(%s, %q) = %d jobs of %d, more %v", owner, state, len(page), limit, more)
					}
					got, after = append(got, page...), next
					if !more {
						again, _, more, err := s.List(t.Context(), "a", jobs.ListQuery{Owner: owner, State: state, Limit: limit, After: after})
						if err != nil || len(again) > 0 || more {
							t.Errorf("List(%s, %q) behind the end = %d jobs, more %v, %v", owner, state, len(again), more, err)
						}
						break
					}
				}
				var ids []jobs.ID
				for i, r := range got {
					ids = append(ids, r.Job.ID)
					if i > 0 && state != jobs.StateCompleted && got[i-1].Job.CreatedAt.After(r.Job.CreatedAt) {
						t.Errorf("List(%s, %q): %v before %v", owner, state, got[i-1].Job.CreatedAt, r.Job.CreatedAt)
					}
				}
				sorted(ids)
				sorted(want)
				if !slices.Equal(ids, want) {
					t.Errorf("List(%s, %q) by %d: %d jobs, want %d", owner, state, limit, len(ids), len(want))
				}
			}
		}
		var want []jobs.ID
		for _, j := range everything {
			if j.Owner == owner && j.Rank == jobs.Completed && !j.Purged {
				want = append(want, j.ID)
			}
		}
		sorted(want)
		var got []jobs.ID
		for after := ""; ; {
			page, err := s.Results(t.Context(), jobs.ResultsQuery{Owner: owner, Limit: 3, After: after})
			if err != nil {
				t.Fatal(err)
			}
			got, after = append(got, idsOf(page.Results)...), page.Cursor
			if !page.More {
				break
			}
		}
		sorted(got)
		newest, err := s.Newest(t.Context(), owner, 1000)
		if err != nil {
			t.Fatal(err)
		}
		pulled := idsOf(newest)
		sorted(pulled)
		if !slices.Equal(got, want) || !slices.Equal(pulled, want) {
			t.Errorf("%s: %d results, %d newest, want %d of each", owner, len(got), len(pulled), len(want))
		}
	}
}

func sorted(ids []jobs.ID) {
	slices.SortFunc(ids, func(a, b jobs.ID) int { return slices.Compare(a[:], b[:]) })
}

// TestOwnedConsume: results are handed out to their owner alone, and a key is
// its owner's.
func TestOwnedConsume(t *testing.T) {
	s := open(t, store.Options{})
	batch := work(t, 30, 1)
	for i := range batch {
		batch[i].Job.Owner = owners[i%3]
	}
	if _, err := s.Enqueue(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	for _, owner := range owners[1:] {
		first, err := s.Consume(t.Context(), owner, 4, "key")
		again, err2 := s.Consume(t.Context(), owner, 4, "key")
		if err := errors.Join(err, err2); err != nil || len(first) != 4 || !slices.Equal(idsOf(first), idsOf(again)) {
			t.Errorf("%s: %v, then by the same key %v, %v; want 4 and the same", owner, idsOf(first), idsOf(again), err)
		}
		rest, err := s.Consume(t.Context(), owner, 100, "")
		if err != nil || len(rest) != 6 {
			t.Errorf("%s: %d more results, %v, want 6", owner, len(rest), err)
		}
		for _, r := range slices.Concat(first, rest) {
			if j, _, err := s.Job(t.Context(), r.ID); err != nil || j.Owner != owner {
				t.Errorf("%s was given a result of %q, %v", owner, j.Owner, err)
			}
		}
	}
	if left, err := s.Consume(t.Context(), "", 100, "key"); err != nil || len(left) != 10 {
		t.Errorf("everybody's: %d results, %v, want the 10 that have no owner", len(left), err)
	}
}

// TestOwnedID: an ID that another has taken is refused, and nothing of the
// other's job is told.
func TestOwnedID(t *testing.T) {
	s := open(t, store.Options{})
	batch := work(t, 1, 5)
	batch[0].Job.Owner = "alice"
	if _, err := s.Enqueue(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	other := batch[0]
	other.Job.Owner = "bob"
	out, err := s.Enqueue(t.Context(), []store.Submission{other})
	if err != nil || jobs.CodeOf(out[0].Err) != jobs.CodeConflict || out[0].Existed || out[0].Job != other.Job {
		t.Errorf("Enqueue() of a taken ID = %+v, %v, want a conflict that shows what was asked", out, err)
	}
}

// BenchmarkOwned is what owners cost a batch, and a page of one owner's jobs
// among many of others'.
func BenchmarkOwned(b *testing.B) {
	for _, owner := range []string{"", "alice"} {
		b.Run("enqueue_"+cmp.Or(owner, "nobody"), func(b *testing.B) {
			s := open(b, store.Options{})
			for b.Loop() {
				b.StopTimer()
				batch := work(b, 1000, 50)
				for i := range batch {
					batch[i].Job.Owner = owner
				}
				b.StartTimer()
				if _, err := s.Enqueue(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
