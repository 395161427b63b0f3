package store_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// TestDistrust: rows are merged with those that are there, bounded, and there
// after a restart; so are the jobs whose values are doubted.
func TestDistrust(t *testing.T) {
	dir := fastDir(t)
	now := time.UnixMicro(1e15).UTC()
	opt := store.Options{Node: "a", Now: func() time.Time { now = now.Add(time.Second); return now }}
	s := openIn(t, dir, opt)
	reopen := func() {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openIn(t, dir, opt)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	want := map[jobs.Subject]jobs.Quarantine{}
	head := s.Head()
	for range 300 {
		var rows []jobs.Quarantine
		for range rng.IntN(4) {
			q := jobs.Quarantine{
				Subject: jobs.Subject{Worker: fmt.Sprint("w", rng.IntN(8)), Inside: rng.IntN(2) == 0}, Turn: 1 + rng.Uint64N(6), Barred: rng.IntN(2) == 0,
				Since: time.UnixMicro(1 + rng.Int64N(1e15)).UTC(), Node: "a", By: []string{"", "ops"}[rng.IntN(2)], Reason: "it's \"wrong\"",
				Done: rng.Uint64N(jobs.MaxIterations), ID: jobs.ID{byte(rng.IntN(2))}, Said: jobs.Print{byte(rng.IntN(2))}, Right: jobs.Print{0, byte(rng.IntN(2))},
			}
			rows = append(rows, q)
			want[q.Subject] = jobs.MergeQuarantines(want[q.Subject], q)
		}
		if err := s.Distrust(t.Context(), store.Distrust{Quarantines: rows}); err != nil {
			t.Fatal(err)
		}
	}
	reopen()
	got, err := s.Quarantines(t.Context())
	if err != nil || len(got) != len(want) || len(got) < 10 {
		t.Fatalf("%d rows, %v, want %d", len(got), err, len(want))
	}
	for _, q := range got {
		if q != want[q.Subject] {
			t.Errorf("%+v, want %+v", q, want[q.Subject])
		}
	}
	if s.Head() != head {
		t.Error("quarantines move the feed")
	}

	var many []jobs.Quarantine
	for n := range jobs.MaxQuarantines + 50 {
		many = append(many, jobs.Quarantine{Subject: jobs.Subject{Worker: fmt.Sprint("x", n)}, Turn: 1, Barred: true, Since: time.UnixMicro(2e15 + int64(n)).UTC()})
	}
	if err := s.Distrust(t.Context(), store.Distrust{Quarantines: many}); err != nil {
		t.Fatal(err)
	}
	got, err = s.Quarantines(t.Context())
	if err != nil || len(got) != jobs.MaxQuarantines || slices.ContainsFunc(got, func(q jobs.Quarantine) bool { return q.Worker[0] == 'w' || q.Worker == "x49" }) {
		t.Errorf("%d rows, %v, want the %d last", len(got), err, jobs.MaxQuarantines)
	}
	if err := s.Distrust(t.Context(), store.Distrust{Quarantines: []jobs.Quarantine{{Subject: jobs.Subject{Worker: ""}, Turn: 1, Barred: true, Since: time.UnixMicro(3e15).UTC()}}}); err == nil {
		t.Error("a row without a worker was taken")
	}

	id := func(n int) jobs.ID { return jobs.ID{0: byte(n >> 8), 1: byte(n), 15: 1} }
	doubts := func(limit int) (out []int) {
		t.Helper()
		d, err := s.Doubts(t.Context(), limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range d {
			n := int(d.ID[0])<<8 + int(d.ID[1])
			if d.Disputed {
				n = -n
			}
			out = append(out, n)
		}
		return out
	}
	for _, d := range []store.Distrust{
		{Doubts: []store.Doubt{{ID: id(5)}, {ID: id(4)}}}, {Doubts: []store.Doubt{{ID: id(3), Disputed: true}}}, {Doubts: []store.Doubt{{ID: id(3)}, {ID: id(9)}}},
		{Doubts: []store.Doubt{{ID: id(4), Disputed: true}, {ID: id(2)}}, Cleared: []jobs.ID{id(9), id(8)}},
	} {
		if err := s.Distrust(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	reopen()
	if got, want := doubts(10), []int{-4, -3, 5, 2}; !reflect.DeepEqual(got, want) {
		t.Errorf("doubts %v, want %v: disputes first, each the oldest first", got, want)
	}
	if got := doubts(1); len(got) != 1 {
		t.Errorf("doubts %v, want one", got)
	}
	if err := s.Distrust(t.Context(), store.Distrust{}); err != nil {
		t.Error(err)
	}
}

// TestDisagreement_is_noted with the row that raised it, in one commit, where the
// job has ended; one that begins again from v1 needs nothing more.
func TestDisagreement_is_noted(t *testing.T) {
	s := open(t, store.Options{})
	if err := s.SetPeer(t.Context(), "b", "", ""); err != nil {
		t.Fatal(err)
	}
	batch := work(t, 3, 2)
	for i := range batch {
		batch[i].Job.Iterations = 1000
	}
	out, err := s.Enqueue(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	boot := jobs.ID{7}
	var rows []jobs.Row
	for i := range out {
		id := out[i].Job.ID
		apply := func(v jobs.Value) func(j jobs.Job, at store.Clock) (jobs.Job, bool) {
			return func(j jobs.Job, at store.Clock) (jobs.Job, bool) {
				if i == 1 {
					return j.Advance(jobs.Progress{Done: 5, Value: v})
				}
				return j.Complete(v, at())
			}
		}
		theirs, _ := apply(jobs.Value{byte(1 + i%2)})(out[i].Job, func() time.Time { return time.UnixMicro(1e15).UTC() })
		if _, err := s.Record(t.Context(), []store.Fact{{ID: id, Apply: apply(jobs.Value{9})}}); err != nil {
			t.Fatal(err)
		}
		if i < 2 {
			rows = append(rows, jobs.Row{Job: theirs, LSeq: jobs.LSeq(i + 1)})
		}
	}
	if _, err := s.Receive(t.Context(), jobs.Chunk{Peer: "b", Boot: boot, Reset: true, Rows: rows, Next: jobs.Cursor{Boot: boot, At: 3, SeenHead: 3}}); err != nil {
		t.Fatal(err)
	}
	d, err := s.Doubts(t.Context(), 10)
	if err != nil || len(d) != 1 || d[0] != (store.Doubt{ID: out[0].Job.ID, Disputed: true}) || s.Disagreements() != 2 {
		t.Errorf("doubts %v, %v, %d disagreements; want the first job, which has two values", d, err, s.Disagreements())
	}
}
