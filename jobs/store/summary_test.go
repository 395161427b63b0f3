package store_test

import (
	"context"
	"crypto/sha512"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// whole is every row of a store.
func whole(s *store.Store) (jobs.Range, jobs.Settled) {
	return jobs.Range{From: math.MinInt64, To: math.MaxInt64}, jobs.Settled{Upto: s.Head()}
}

// TestEveryRowIsSealed: whatever a store has gone through, each row has the hash
// of its columns. One that has not would be taken for damaged.
func TestEveryRowIsSealed(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir, store.Options{DSN: "&_pragma=synchronous(OFF)"})
	ids, _ := churn(t, s, 2000)
	if err := s.SetPeer(t.Context(), "b", "", ""); err != nil {
		t.Fatal(err)
	}
	rows := foreignRows(t, 100, 3)
	for i := range rows {
		switch i % 5 {
		case 1:
			rows[i].Job, _ = rows[i].Job.Complete(jobs.Value{1}, time.Now())
		case 2:
			rows[i].Job, _ = rows[i].Job.Fail("", time.Now())
		case 3:
			rows[i].Job, _ = rows[i].Job.Purge(time.Now())
		case 4:
			rows[i].Job, _ = rows[i].Job.Advance(jobs.Progress{Done: 2, Value: jobs.Value{2}})
		}
		ids = append(ids, rows[i].Job.ID)
	}
	if _, err := s.Receive(t.Context(), foreign(rows...)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Enqueue(t.Context(), work(t, 50, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.TakeOver(t.Context(), "b", jobs.Capacity{Jobs: 10, Iterations: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	if n := expire(t, s, time.Now().Add(-time.Hour)); n < 0 {
		t.Fatal(n)
	}
	_, of := whole(s)
	stand, err := s.Standings(t.Context(), ids, of)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, r := range stand {
		if r.Found {
			found++
		}
		if r.Damaged {
			t.Errorf("job %+v has another hash", r.Row.Job)
		}
	}
	if found < 1000 {
		t.Fatalf("%d rows found of %d", found, len(ids))
	}
	if err := s.Recount(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestDigest: the digest of a range is the sum over its parts, however it is
// cut, of exactly the rows that have settled above the floor.
func TestDigest(t *testing.T) {
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	s := openIn(t, t.TempDir(), store.Options{Now: func() time.Time { now = now.Add(time.Millisecond); return now }})
	if _, err := s.Enqueue(t.Context(), work(t, 3000, 5)); err != nil {
		t.Fatal(err)
	}
	all, of := whole(s)
	want, ok, err := s.Digest(t.Context(), all, of, math.MaxInt)
	if err != nil || !ok || want.Rows != 3000 {
		t.Fatalf("Digest() = %+v, %v, %v", want, ok, err)
	}
	if d, ok, err := s.Digest(t.Context(), all, of, 700); err != nil || ok || d.Rows != 700 {
		t.Errorf("Digest() of at most 700 rows = %+v, %v, %v", d, ok, err)
	}
	rng := rand.New(rand.NewPCG(3, 0))
	for range 20 {
		every, limit := rng.IntN(400), 1+rng.IntN(40)
		cuts, err := s.Cuts(t.Context(), all, every, limit)
		if err != nil || len(cuts) == 0 || len(cuts) > limit || !slices.IsSorted(cuts) {
			t.Fatalf("Cuts(%d, %d) = %v, %v", every, limit, cuts, err)
		}
		bounds := append(append([]int64{all.From}, cuts...), all.To)
		var sum jobs.Digest
		for i := range len(bounds) - 1 {
			in := jobs.Range{From: bounds[i], To: bounds[i+1]}
			d, ok, err := s.Digest(t.Context(), in, of, math.MaxInt)
			if err != nil || !ok {
				t.Fatal(d, ok, err)
			}
			rows, ok, err := s.Sums(t.Context(), in, of, math.MaxInt)
			if err != nil || !ok {
				t.Fatal(ok, err)
			}
			var one jobs.Digest
			for _, r := range rows {
				one.Rows, one.Sum = one.Rows+1, one.Sum+r.Sum
			}
			if one != d {
				t.Errorf("Sums(%v) add up to %+v, Digest() = %+v", in, one, d)
			}
			sum.Rows, sum.Sum = sum.Rows+d.Rows, sum.Sum+d.Sum
			if every == 0 && (d.Rows < int64(3000/(limit+1)-limit) || d.Rows > int64(3000/(limit+1)+1)) {
				t.Errorf("part %d of %d has %d rows of 3000", i, limit+1, d.Rows)
			}
		}
		if sum != want {
			t.Errorf("parts add up to %+v, want %+v", sum, want)
		}
	}
	of.Upto -= 1000
	if d, _, err := s.Digest(t.Context(), all, of, math.MaxInt); err != nil || d.Rows != 2000 {
		t.Errorf("Digest() up to row 2000 = %+v, %v", d, err)
	}
	of.Floor = now.Add(time.Second)
	if d, _, err := s.Digest(t.Context(), all, of, math.MaxInt); err != nil || d != (jobs.Digest{}) {
		t.Errorf("Digest() above all rows = %+v, %v", d, err)
	}
}

// TestCutsOfOneInstant: rows that came in within one microsecond are not cut.
func TestCutsOfOneInstant(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir, store.Options{})
	if _, err := s.Enqueue(t.Context(), work(t, 100, 5)); err != nil {
		t.Fatal(err)
	}
	if _, err := poke(t, dir).Exec("UPDATE jobs SET created_at = CASE WHEN n <= 90 THEN 7 ELSE 9 END"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		in   jobs.Range
		want []int64
	}{
		{jobs.Range{From: math.MinInt64, To: math.MaxInt64}, []int64{7, 9}},
		{jobs.Range{From: 7, To: 10}, []int64{9}},
		{jobs.Range{From: 7, To: 8}, nil},
		{jobs.Range{From: 10, To: 20}, nil},
	} {
		if got, err := s.Cuts(t.Context(), c.in, 0, 15); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("Cuts(%v) = %v, %v, want %v", c.in, got, err, c.want)
		}
	}
}

// TestAdopt: only a row that is damaged is replaced, as it came and under the
// next numbers, and a purge is never undone.
func TestAdopt(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir, store.Options{})
	out, err := s.Enqueue(t.Context(), work(t, 4, 5))
	if err != nil {
		t.Fatal(err)
	}
	good, altered, purged := out[0].Job, out[1].Job, out[2].Job
	if _, err := s.Record(t.Context(), []store.Fact{{ID: purged.ID, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Purge(at()) }}}); err != nil {
		t.Fatal(err)
	}
	if _, err := poke(t, dir).Exec("UPDATE jobs SET attempts = 9, rank = iif(n = 2, 3, rank), result = iif(n = 2, zeroblob(64), result), rseq = iif(n = 2, 1, rseq), done_at = iif(n = 2, 5, done_at) WHERE n IN (2, 3)"); err != nil {
		t.Fatal(err)
	}
	if err := s.Recount(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := s.Counts(), (jobs.Counts{Open: 2, Cancelled: 1, Completed: 1, Remaining: jobs.Work{Lo: 8}}); got != want {
		t.Errorf("Counts() = %+v, want %+v", got, want)
	}
	boot, head := jobs.ID{0xb}, s.Head()
	in := []jobs.Row{{Job: good, Ext: []byte{200, 1, 0}}, {Job: altered}, {Job: purged}, {Job: jobs.Job{ID: jobs.ID{1}}}}
	in[0].Job.Priority = 9
	changed, err := s.Adopt(t.Context(), boot, in)
	if err != nil || len(changed) != 2 {
		t.Fatalf("Adopt() = %+v, %v", changed, err)
	}
	if c := changed[0]; !c.Job.Equal(altered) || c.Via != boot || c.LSeq != head+1 {
		t.Errorf("the damaged row is %+v", c)
	}
	if c := changed[1]; !c.Job.Purged || c.Job.V1 != (jobs.Value{}) || c.Via != (jobs.ID{}) {
		t.Errorf("the damaged row that was purged is %+v", c)
	}
	_, of := whole(s)
	stand, err := s.Standings(t.Context(), []jobs.ID{good.ID, altered.ID, purged.ID, {1}}, of)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range stand {
		if r.Damaged || r.Found != (i < 3) || i == 0 && !r.Row.Job.Equal(good) {
			t.Errorf("row %d is %+v", i, r)
		}
	}
	if got, want := s.Counts(), (jobs.Counts{Open: 3, Cancelled: 1, Remaining: jobs.Work{Lo: 12}}); got != want {
		t.Errorf("Counts() = %+v, want %+v", got, want)
	}
}

// TestResend: rows take the next numbers and nothing else of them changes; what
// has moved since is left alone.
func TestResend(t *testing.T) {
	var told []jobs.Changed
	s := openIn(t, t.TempDir(), store.Options{OnCommit: func(c []jobs.Changed) { told = append(told, c...) }})
	out, err := s.Enqueue(t.Context(), work(t, 600, 5))
	if err != nil {
		t.Fatal(err)
	}
	told = nil
	var ids []jobs.ID
	for _, o := range out {
		ids = append(ids, o.Job.ID)
	}
	n, err := s.Resend(t.Context(), append(ids, jobs.ID{9}), 550)
	if err != nil || n != 550 || len(told) != 550 || s.Head() != 1150 {
		t.Fatalf("Resend() = %d, %v; %d rows told of, head %d", n, err, len(told), s.Head())
	}
	for i, c := range told {
		if !c.Job.Equal(out[i].Job) || c.LSeq != jobs.LSeq(601+i) || c.Via != (jobs.ID{}) {
			t.Fatalf("row %d is %+v", i, c)
		}
	}
	if n, err := s.Resend(t.Context(), ids[:550], 600); err != nil || n != 0 {
		t.Errorf("the second Resend() = %d, %v", n, err)
	}
}

// BenchmarkDigest measures comparing: WM_ROWS rows, half of them completed, and
// enqueues beside it.
func BenchmarkDigest(b *testing.B) {
	rows, _ := strconv.Atoi(os.Getenv("WM_ROWS"))
	rows = max(rows, 20_000)
	dir := b.TempDir()
	s := openIn(b, dir, store.Options{})
	for made := 0; made < rows; made += 2000 {
		batch := work(b, 2000, 5)
		if _, err := s.Enqueue(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		facts := make([]store.Fact, 1000)
		for i := range facts {
			facts[i] = store.Fact{ID: batch[2*i].Job.ID, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) {
				return j.Complete(sha512.Sum512(j.V1[:]), at())
			}}
		}
		if _, err := s.Record(b.Context(), facts); err != nil {
			b.Fatal(err)
		}
	}
	all, of := whole(s)
	b.Run(fmt.Sprint("digest/", rows), func(b *testing.B) {
		for range b.N {
			if d, _, err := s.Digest(b.Context(), all, of, math.MaxInt); err != nil || d.Rows < int64(rows) {
				b.Fatal(d, err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
	})
	b.Run(fmt.Sprint("recount/", rows), func(b *testing.B) {
		for range b.N {
			if err := s.Recount(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("enqueue_beside", func(b *testing.B) {
		for _, beside := range []bool{false, true} {
			ctx, stop := context.WithCancel(b.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				for beside && ctx.Err() == nil {
					_, _, _ = s.Digest(ctx, all, of, math.MaxInt) // it ends with ctx
				}
			}()
			var took []time.Duration
			for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
				batch, at := work(b, 1, 5), time.Now()
				if _, err := s.Enqueue(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(at))
			}
			stop()
			<-done
			slices.Sort(took)
			b.Logf("digest beside %v: %d enqueues in 3 s, p50 %v, p99 %v, max %v", beside, len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
		}
	})
}
