package store

import (
	"bytes"
	"context"
	"crypto/sha512"
	"fmt"
	"math/rand/v2"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"workmanager/jobs"
)

// write is one call of a store; what it answers is compared as text.
type write func(s *Store) string

// writes makes calls by chance, over few jobs, so that many meet in one commit.
type writes struct {
	*rand.Rand
	ids []jobs.ID
	at  time.Time

	received bool // some call takes rows of the peer
}

func newWrites(seed uint64) *writes {
	w := &writes{Rand: rand.New(rand.NewPCG(seed, 9)), at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	for i := range 120 {
		w.ids = append(w.ids, jobs.ID{0: byte(seed), 6: 0x80, 8: 0x80, 15: byte(i)})
	}
	return w
}

func (w *writes) id() jobs.ID { return w.ids[w.IntN(len(w.ids))] }

func (w *writes) value() jobs.Value { return jobs.Value{0: byte(w.IntN(3)), 5: 7} }

// job is the work of an ID, as whoever submits it gives it.
func (w *writes) job(id jobs.ID) jobs.Job {
	j := jobs.Job{ID: id, V1: sha512.Sum512(id[:]), Iterations: 100 + uint64(id[15]), Priority: id[15] % 3}
	if id[15]%5 == 1 {
		j.Owner = "ann"
	}
	if id[15]%7 == 2 {
		j.Iterations, j.Keep = 5000, 3
	}
	if w.IntN(30) == 0 { // one key, other work
		j.V1[0]++
	}
	return j
}

func (w *writes) fact() func(jobs.Job, Clock) (jobs.Job, bool) {
	v, n := w.value(), 1+w.Uint64N(50)
	if w.IntN(3) > 0 {
		return func(j jobs.Job, at Clock) (jobs.Job, bool) { j.Attempts++; return j.Complete(v, at()) }
	}
	switch w.IntN(8) {
	case 0:
		return func(j jobs.Job, _ Clock) (jobs.Job, bool) { return j.Advance(jobs.Progress{Done: n, Value: v}) }
	case 1:
		return func(j jobs.Job, at Clock) (jobs.Job, bool) { return j.Fail("no", at()) }
	case 2:
		return func(j jobs.Job, at Clock) (jobs.Job, bool) { return j.Cancel(at()) }
	case 3:
		return func(j jobs.Job, at Clock) (jobs.Job, bool) { return j.Lose(at()) }
	case 4:
		return func(j jobs.Job, at Clock) (jobs.Job, bool) { return j.Purge(at()) }
	case 5:
		return func(j jobs.Job, _ Clock) (jobs.Job, bool) { return j.Pull() }
	case 6:
		return func(j jobs.Job, _ Clock) (jobs.Job, bool) { return j.Distrust() }
	}
	return func(j jobs.Job, at Clock) (jobs.Job, bool) { // with what it keeps
		j, _ = j.AddRungs(0, jobs.Rungs("").Add(v))
		return j.Complete(v, at())
	}
}

// row is a row as the peer may send it, of a job that is perhaps here too.
func (w *writes) row(id jobs.ID) jobs.Row {
	at := w.at.Add(time.Duration(w.IntN(5000)) * time.Microsecond)
	j := w.job(id).Born("b", w.at.Add(time.Duration(id[15])*time.Microsecond), nil)
	for range w.IntN(3) {
		j, _ = w.fact()(j, func() time.Time { return at })
	}
	if w.IntN(4) == 0 {
		j.Home, j.OwnEpoch = "a", j.OwnEpoch+w.Uint64N(2)
	}
	r := jobs.Row{Job: j}
	if w.IntN(10) == 0 && !j.Purged {
		r.Ext = []byte("newer")
	}
	return r
}

func (w *writes) rows() []jobs.Row {
	rows := make([]jobs.Row, 1+w.IntN(25))
	for i := range rows {
		rows[i] = w.row(w.id())
		rows[i].LSeq = jobs.LSeq(i + 1)
	}
	return rows
}

// call returns one call, with all that it says chosen beforehand.
func (w *writes) call() write {
	boot := jobs.ID{0xb}
	ctx := context.Background()
	switch w.IntN(9) {
	case 0, 1:
		batch := make([]Submission, 1+w.IntN(30))
		for i := range batch {
			batch[i].Job = w.job(w.id())
			if w.IntN(6) == 0 {
				v := w.value()
				batch[i].Known = &v
			}
		}
		return func(s *Store) string { out, err := s.Enqueue(ctx, batch); return fmt.Sprintf("%+v %v", out, err) }
	case 2:
		c := jobs.Chunk{Peer: "b", Boot: boot, Reset: true, Rows: w.rows()}
		c.Next = jobs.Cursor{Boot: boot, At: jobs.LSeq(len(c.Rows)), SeenHead: jobs.LSeq(len(c.Rows))}
		w.received = true
		return func(s *Store) string { out, err := s.Receive(ctx, c); return fmt.Sprintf("%+v %v", byID(out), err) }
	case 3:
		rows := w.rows()
		w.received = true
		return func(s *Store) string {
			out, ignored, err := s.ReceiveCopies(ctx, boot, rows)
			return fmt.Sprintf("%+v %d %v", byID(out), ignored, err)
		}
	}
	facts := make([]Fact, []int{1, 2, 15, 16, 17, 32, 33, 60}[w.IntN(8)])
	for i := range facts {
		facts[i] = Fact{ID: w.id(), Apply: w.fact()}
		if w.IntN(40) == 0 {
			facts[i].ID = jobs.ID{0xff, 15: byte(i)} // nobody knows it
		}
	}
	if w.IntN(8) == 0 { // the table refuses it, and with it all of this call
		facts[w.IntN(len(facts))].Apply = func(j jobs.Job, _ Clock) (jobs.Job, bool) { j.Iterations = 0; return j, true }
	}
	return func(s *Store) string { out, err := s.Record(ctx, facts); return fmt.Sprintf("%+v %v", out, err) }
}

// byID sorts what a chunk of the peer's has changed: rows that the writer remembers
// are joined before those that it has to look for.
func byID(changed []jobs.Changed) []jobs.Changed {
	slices.SortFunc(changed, func(a, b jobs.Changed) int { return bytes.Compare(a.Job.ID[:], b.Job.ID[:]) })
	return changed
}

// together makes the calls in one commit, in this order.
func together(s *Store, calls []write) []string {
	out := make([]string, len(calls))
	var wg sync.WaitGroup
	s.running.Store(true) // they wait for Run, and meet here instead
	for i, call := range calls {
		wg.Go(func() { out[i] = call(s) })
		for len(s.ops) <= i {
			runtime.Gosched()
		}
	}
	s.running.Store(false) // what a call has to write besides it writes at once
	var batch []*op
	for range calls {
		batch = append(batch, <-s.ops)
	}
	s.commitBatch(batch)
	wg.Wait()
	return out
}

// content is every row of every table that is not of this start of the store, and
// perhaps the order of both numbers: known jobs among new ones may leave gaps in
// them, others where more are inserted at once.
func content(t *testing.T, s *Store, order bool) string {
	t.Helper()
	var b strings.Builder
	queries := []string{
		"SELECT " + strings.NewReplacer("n, id", "id", "lseq, rseq, ", "").Replace(rowColumns) + ", rhash, via FROM jobs ORDER BY id",
		"SELECT * FROM counts ORDER BY home", "SELECT * FROM owners ORDER BY owner", "SELECT * FROM peers",
		"SELECT * FROM conflicts ORDER BY id, v1", "SELECT * FROM doubts ORDER BY id", "SELECT * FROM meta WHERE k LIKE 'gc%'",
	}
	if order {
		queries = append(queries, "SELECT id FROM jobs ORDER BY lseq", "SELECT id FROM jobs WHERE rseq IS NOT NULL ORDER BY rseq")
	}
	for _, query := range queries {
		rows, err := s.read.Query(query)
		if err != nil {
			t.Fatal(err)
		}
		columns, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			values, to := make([]any, len(columns)), make([]any, len(columns))
			for i := range values {
				to[i] = &values[i]
			}
			if err := rows.Scan(to...); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s: %v\n", query, values)
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintf(&b, "%+v", s.Counts())
	return b.String()
}

var numbers = regexp.MustCompile(`([LR]Seq:|at lseq )\d+`)

// parting is where two texts begin to differ.
func parting(a, b string) (string, string) {
	at := 0
	for at < min(len(a), len(b)) && a[at] == b[at] {
		at++
	}
	from := max(0, at-900)
	return a[from:min(len(a), at+300)], b[from:min(len(b), at+300)]
}

// TestOneCommitOfMany: whatever meets in one commit comes to what it would come
// to call by call, also where one of the calls breaks and all of them are tried
// again, and whether the writer remembers the rows or has to read them.
func TestOneCommitOfMany(t *testing.T) {
	for seed := range uint64(12) {
		w := newWrites(seed)
		dirs := [2]string{t.TempDir(), t.TempDir()}
		var s [2]*Store
		open := func() {
			for i := range s {
				var err error
				if s[i] != nil {
					if err = s[i].Close(); err != nil {
						t.Fatal(err)
					}
				}
				if s[i], err = Open(t.Context(), dirs[i], Options{Node: "a", Now: func() time.Time { return w.at }, DSN: "&_pragma=synchronous(OFF)"}); err != nil {
					t.Fatal(err)
				}
				if err := s[i].SetPeer(t.Context(), "b", "", ""); err != nil {
					t.Fatal(err)
				}
			}
		}
		open()
		for round := range 8 {
			if w.IntN(2) == 0 {
				open()
			}
			calls := make([]write, 1+w.IntN(8))
			for i := range calls {
				calls[i] = w.call()
			}
			got := together(s[0], calls)
			for i, call := range calls {
				if got, want := numbers.ReplaceAllString(got[i], ""), numbers.ReplaceAllString(call(s[1]), ""); got != want {
					a, b := parting(got, want)
					t.Fatalf("seed %d, round %d, call %d of %d answers\n%s\ntogether, by itself\n%s", seed, round, i, len(calls), a, b)
				}
			}
			if got, want := content(t, s[0], !w.received), content(t, s[1], !w.received); got != want {
				a, b := parting(got, want)
				t.Fatalf("seed %d, round %d: the store holds\n%s\nafter one commit, call by call\n%s", seed, round, a, b)
			}
		}
		for i := range s {
			if err := s[i].Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
