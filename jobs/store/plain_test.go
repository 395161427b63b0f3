package store_test

import (
	"crypto/sha512"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// mixed returns a store in dir with plain rows among others of every kind, of
// which its writer remembers none, and the IDs of all.
func mixed(t *testing.T, dir string) (*store.Store, []jobs.ID) {
	t.Helper()
	const count = 45 // not a multiple of what is read in one go
	at := time.UnixMicro(1e15).UTC()
	opt := store.Options{Node: "a", Now: func() time.Time { return at }}
	s, err := store.Open(t.Context(), dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	subs, ids := make([]store.Submission, count), make([]jobs.ID, count)
	for i := range subs {
		ids[i] = jobs.ID{6: 0x70, 8: 0x80, 15: byte(i + 1)}
		j, err := jobs.New(ids[i], sha512.Sum512(ids[i][:]), 1000, i%3)
		if err != nil {
			t.Fatal(err)
		}
		if i%5 == 1 {
			j.Owner = "ann"
		}
		if i%7 == 2 {
			j.Keep = 4
		}
		subs[i] = store.Submission{Job: j}
	}
	if _, err := s.Enqueue(t.Context(), subs); err != nil {
		t.Fatal(err)
	}
	var facts []store.Fact
	for i, id := range ids {
		switch i % 9 {
		case 3:
			facts = append(facts, store.Fact{ID: id, Apply: func(j jobs.Job, _ store.Clock) (jobs.Job, bool) {
				return j.Advance(jobs.Progress{Done: 10, Value: jobs.Value{1}})
			}})
		case 4:
			facts = append(facts, store.Fact{ID: id, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Fail("no", at()) }})
		case 5:
			facts = append(facts, store.Fact{ID: id, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Complete(jobs.Value{2}, at()) }})
		case 6:
			facts = append(facts, store.Fact{ID: id, Apply: func(j jobs.Job, _ store.Clock) (jobs.Job, bool) { j.Attempts++; return j, true }})
		}
	}
	for _, f := range facts {
		if _, err := s.Record(t.Context(), []store.Fact{f}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return openIn(t, dir, opt), ids
}

// What is read and written in one go is what it would be one by one.
func TestRecord_many_is_as_one_by_one(t *testing.T) {
	complete := func(v byte) func(jobs.Job, store.Clock) (jobs.Job, bool) {
		return func(j jobs.Job, at store.Clock) (jobs.Job, bool) {
			j.Attempts += uint32(v)
			if v%4 == 0 {
				j.GCAfter = at().Add(time.Duration(v) * time.Hour)
			}
			return j.Complete(jobs.Value{v}, at())
		}
	}
	for name, more := range map[string]func(ids []jobs.ID, i int) []store.Fact{
		"each once": func([]jobs.ID, int) []store.Fact { return nil },
		"some again, and some that are not there": func(ids []jobs.ID, i int) []store.Fact {
			switch i % 4 {
			case 1: // the same job at once, and another behind others
				return []store.Fact{{ID: ids[i], Apply: complete(99)}, {ID: ids[i/2], Apply: complete(98)}}
			case 2:
				return []store.Fact{{ID: jobs.ID{1: byte(i)}, Apply: complete(97)}}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			together, ids := mixed(t, t.TempDir())
			apart, _ := mixed(t, t.TempDir())
			var facts []store.Fact
			for i, id := range ids {
				facts = append(facts, store.Fact{ID: id, Apply: complete(byte(i))})
				facts = append(facts, more(ids, i)...)
			}
			for range 2 { // and when nothing is left to change
				got, err := together.Record(t.Context(), facts)
				if err != nil {
					t.Fatal(err)
				}
				for i, f := range facts {
					want, err := apart.Record(t.Context(), []store.Fact{f})
					if err != nil {
						t.Fatal(err)
					}
					if !reflect.DeepEqual(got[i], want[0]) {
						t.Errorf("fact %d of job %s: %+v together, %+v by itself", i, f.ID, got[i], want[0])
					}
				}
			}
			for _, id := range ids {
				a, _, errA := together.Row(t.Context(), id)
				b, _, errB := apart.Row(t.Context(), id)
				if errA != nil || errB != nil || !reflect.DeepEqual(a, b) {
					t.Errorf("job %s: %+v (%v) together, %+v (%v) by itself", id, a, errA, b, errB)
				}
			}
			for _, q := range []func(*store.Store) (any, error){
				func(s *store.Store) (any, error) { return s.CountsOf("a"), nil },
				func(s *store.Store) (any, error) { // each with its right hash
					rows, err := s.Standings(t.Context(), ids, jobs.Settled{Upto: math.MaxInt64})
					if slices.ContainsFunc(rows, func(r jobs.Standing) bool { return r.Damaged }) {
						t.Error("a row is damaged")
					}
					return rows, err
				},
				func(s *store.Store) (any, error) {
					all, err := s.Results(t.Context(), jobs.ResultsQuery{Limit: 100})
					return all.Results, err
				},
				func(s *store.Store) (any, error) { return s.Newest(t.Context(), "", 100) },
			} {
				a, errA := q(together)
				b, errB := q(apart)
				if errA != nil || errB != nil || !reflect.DeepEqual(a, b) {
					t.Errorf("%+v (%v) together, %+v (%v) by itself", a, errA, b, errB)
				}
			}
		})
	}
}

// A page of waiting jobs is the same whether all of them are plain or not.
func TestOpen_reads_plain_rows_as_others(t *testing.T) {
	s, ids := mixed(t, t.TempDir())
	for _, limit := range []int{1, 2, 3, 7, 1000} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			seen := 0
			for at := (store.Place{}); ; {
				page, end, err := s.Open(t.Context(), "a", at, limit)
				if err != nil {
					t.Fatal(err)
				}
				for _, j := range page {
					want, found, err := s.Job(t.Context(), j.ID)
					if err != nil || !found || !reflect.DeepEqual(j, want) {
						t.Errorf("job %s: %+v on the page, %+v by itself (%v)", j.ID, j, want, err)
					}
					if j.Ended() {
						t.Errorf("job %s has ended", j.ID)
					}
				}
				seen, at = seen+len(page), end
				if len(page) < limit {
					break
				}
			}
			if want := len(ids) - 10; seen != want { // of each nine two have ended
				t.Errorf("%d jobs on all pages, want %d", seen, want)
			}
		})
	}
}
