package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// foreign returns a chunk of node b that begins anew, with rows it made.
func foreign(rows ...jobs.Row) jobs.Chunk {
	boot := jobs.ID{0xb}
	for i := range rows {
		rows[i].LSeq = jobs.LSeq(i + 1)
	}
	return jobs.Chunk{Peer: "b", Boot: boot, Reset: true, Rows: rows, HasRCov: true,
		Next: jobs.Cursor{Boot: boot, At: jobs.LSeq(len(rows)), SeenHead: jobs.LSeq(len(rows))}}
}

// foreignRows returns n rows that node b made.
func foreignRows(tb testing.TB, n int, iterations uint64) []jobs.Row {
	tb.Helper()
	rows := make([]jobs.Row, n)
	at := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	for i, sub := range work(tb, n, iterations) {
		rows[i] = jobs.Row{Job: sub.Job.Born("b", at.Add(time.Duration(i)*time.Microsecond), nil)}
	}
	return rows
}

// TestPurgeByCopyErases: a purge may come by gossip first. When the feed has
// brought it too, which is what its sender takes for an answer, the bytes are
// gone from the files.
func TestPurgeByCopyErases(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir, store.Options{})
	_, _ = churn(t, s, 2000)
	if err := s.SetPeer(t.Context(), "b", "", ""); err != nil {
		t.Fatal(err)
	}
	rows := foreignRows(t, 200, 1)
	c := foreign(rows...)
	if _, err := s.Receive(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	for i := range rows { // each row is written anew a few times, which leaves copies of it
		rows[i].Job.Attempts++
	}
	if _, _, err := s.ReceiveCopies(t.Context(), c.Boot, rows); err != nil {
		t.Fatal(err)
	}
	if _, err := poke(t, dir).Exec("PRAGMA wal_checkpoint"); err != nil {
		t.Fatal(err)
	}
	gone := secrets{}
	var purged []jobs.Row
	for _, r := range rows[:100] {
		gone.add(r.Job.V1)
		r.Job, _ = r.Job.Purge(time.Date(2026, 5, 2, 0, 0, 0, 0, time.UTC))
		purged = append(purged, r)
	}
	if changed, _, err := s.ReceiveCopies(t.Context(), c.Boot, purged); err != nil || len(changed) != 100 {
		t.Fatalf("ReceiveCopies() = %d changed, %v", len(changed), err)
	}
	if changed, err := s.Receive(t.Context(), jobs.Chunk{Peer: "b", From: c.Next, Boot: c.Boot, Rows: purged, Next: c.Next}); err != nil || len(changed) != 0 {
		t.Fatalf("Receive() = %d changed, %v", len(changed), err)
	}
	if found := gone.find(t, dir); len(found) > 0 {
		t.Errorf("%d purged values are still in the files", len(found))
	}
	if n := littered(t, dir); n > 0 {
		t.Errorf("%d pages still hold something in unused room", n)
	}
}

// TestReceive_one_job_twice: a chunk that has a job twice, as no peer of ours
// sends it, is joined row by row. It must not be refused, for it would be sent
// again.
func TestReceive_one_job_twice(t *testing.T) {
	for name, there := range map[string]bool{"new": false, "known": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openIn(t, dir, store.Options{})
			if err := s.SetPeer(t.Context(), "b", "", ""); err != nil {
				t.Fatal(err)
			}
			rows := foreignRows(t, 20, 9)
			if there {
				if _, err := s.Receive(t.Context(), foreign(slices.Clone(rows)...)); err != nil {
					t.Fatal(err)
				}
				for i := range rows { // ended rows are read again
					rows[i].Job, _ = rows[i].Job.Fail("no", time.Date(2026, 5, 2, 0, 0, 0, 0, time.UTC))
				}
				if _, err := s.Receive(t.Context(), foreign(slices.Clone(rows)...)); err != nil {
					t.Fatal(err)
				}
			}
			twice := slices.Clone(rows)
			for i := range rows {
				r := rows[i]
				r.Job, _ = r.Job.Complete(jobs.Value{byte(i)}, time.Date(2026, 5, 3, 0, 0, 0, 0, time.UTC))
				twice = slices.Insert(twice, 2*i+1, r)
			}
			if _, err := s.Receive(t.Context(), foreign(twice...)); err != nil {
				t.Fatalf("Receive() = %v", err)
			}
			for i := range rows {
				j, found, err := s.Job(t.Context(), rows[i].Job.ID)
				if err != nil || !found || j.Rank != jobs.Completed || j.Result != (jobs.Value{byte(i)}) {
					t.Errorf("job %d is %+v, %v, %v, want it completed", i, j, found, err)
				}
			}
			checkCounts(t, s, peek(t, dir))
		})
	}
}

// TestRaiseIsRepeatable: the same calls give the same numbers, or a seed of the
// simulator would not be one run.
func TestRaiseIsRepeatable(t *testing.T) {
	var want []jobs.LSeq
	for try := range 6 {
		s, err := store.Open(t.Context(), t.TempDir(), store.Options{Node: "a", DSN: "&_pragma=synchronous(OFF)"})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SetPeer(t.Context(), "b", "", ""); err != nil {
			t.Fatal(err)
		}
		rows := foreignRows(t, 24, 9)
		for i := range rows {
			rows[i].Job.Home = fmt.Sprint("home ", i%6)
		}
		if _, err := s.Receive(t.Context(), foreign(slices.Clone(rows)...)); err != nil {
			t.Fatal(err)
		}
		if err := s.Raise(t.Context(), time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)); err != nil {
			t.Fatal(err)
		}
		var got []jobs.LSeq
		for _, r := range rows {
			r, _, err := s.Row(t.Context(), r.Job.ID)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r.LSeq)
		}
		if try == 0 {
			want = got
		} else if !slices.Equal(got, want) {
			t.Errorf("try %d: the rows stand at %v, before at %v", try, got, want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
