package jobs_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
)

// someQuarantine returns a row of one worker from few values, so that two of
// them are often equal in much.
func someQuarantine(r *rand.Rand) jobs.Quarantine {
	at := time.UnixMicro(1e15).UTC()
	return jobs.Quarantine{
		Subject: jobs.Subject{Worker: "w"}, Turn: 1 + r.Uint64N(3), Barred: r.IntN(2) == 0, Since: at.Add(time.Duration(r.IntN(2)) * time.Second),
		Node: []string{"a", "b"}[r.IntN(2)], By: []string{"", "ops"}[r.IntN(2)], Reason: []string{"x", "y"}[r.IntN(2)],
		ID: jobs.ID{byte(r.IntN(2))}, Done: r.Uint64N(2), Said: jobs.Print{byte(r.IntN(2))}, Right: jobs.Print{byte(r.IntN(2))},
	}
}

// TestMergeQuarantines: the join is commutative, associative and idempotent, and
// decides as it says.
func TestMergeQuarantines(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		a, b, c := someQuarantine(r), someQuarantine(r), someQuarantine(r)
		ab := jobs.MergeQuarantines(a, b)
		if ba := jobs.MergeQuarantines(b, a); ab != ba {
			t.Fatalf("Merge(%+v, %+v) = %+v, the other way round %+v", a, b, ab, ba)
		}
		if l, r := jobs.MergeQuarantines(ab, c), jobs.MergeQuarantines(a, jobs.MergeQuarantines(b, c)); l != r {
			t.Fatalf("of %+v, %+v, %+v: %+v or %+v", a, b, c, l, r)
		}
		if jobs.MergeQuarantines(a, a) != a || jobs.MergeQuarantines(ab, a) != ab {
			t.Fatalf("Merge(%+v, %+v) is not idempotent", a, b)
		}
		switch {
		case a.Turn != b.Turn && ab.Turn != max(a.Turn, b.Turn):
			t.Fatalf("Merge(%+v, %+v) = %+v, want the later change", a, b, ab)
		case a.Turn == b.Turn && ab.Barred != (a.Barred || b.Barred):
			t.Fatalf("Merge(%+v, %+v) = %+v, want quarantined", a, b, ab)
		}
	}
}

// TestQuarantines_converge: nodes that change rows while they are apart hold the
// same after they have told each other, in whatever order, and twice.
func TestQuarantines_converge(t *testing.T) {
	type table map[jobs.Subject]jobs.Quarantine
	take := func(to table, rows []jobs.Quarantine) {
		for _, q := range rows {
			to[q.Subject] = jobs.MergeQuarantines(to[q.Subject], q)
		}
	}
	list := func(r *rand.Rand, of table) (rows []jobs.Quarantine) {
		for _, q := range of {
			rows = append(rows, q)
		}
		r.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		return rows
	}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		nodes := [2]table{{}, {}}
		for range r.IntN(40) {
			n := r.IntN(2)
			s := jobs.Subject{Worker: fmt.Sprint("w", r.IntN(5)), Inside: r.IntN(2) == 0}
			if r.IntN(4) == 0 {
				take(nodes[1-n], list(r, nodes[n]))
				continue
			}
			change := jobs.Quarantine{Subject: s, Barred: !nodes[n][s].Barred, Node: fmt.Sprint(n), Since: time.UnixMicro(r.Int64N(1e6)), Reason: "r"}
			take(nodes[n], []jobs.Quarantine{nodes[n][s].Next(change)})
		}
		for range 2 {
			take(nodes[0], list(r, nodes[1]))
			take(nodes[1], list(r, nodes[0]))
		}
		a, b := jobs.SumQuarantines(list(r, nodes[0])), jobs.SumQuarantines(list(r, nodes[1]))
		if len(nodes[0]) != len(nodes[1]) || a != b {
			t.Fatalf("seed %d: %v and %v", seed, nodes[0], nodes[1])
		}
		for s, q := range nodes[0] {
			if q != nodes[1][s] {
				t.Errorf("seed %d, worker %v: %+v and %+v", seed, s, q, nodes[1][s])
			}
			if err := q.Check(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestSumQuarantines: every field of a row is in the sum.
func TestSumQuarantines(t *testing.T) {
	q := jobs.Quarantine{Subject: jobs.Subject{Worker: "w"}, Turn: 1, Barred: true, Since: time.UnixMicro(5).UTC(), Node: "a", By: "b", Reason: "c", ID: jobs.ID{1}, Done: 3, Said: jobs.Print{1}, Right: jobs.Print{2}}
	was := jobs.SumQuarantines([]jobs.Quarantine{q})
	for name, change := range map[string]func(q *jobs.Quarantine){
		"worker": func(q *jobs.Quarantine) { q.Worker = "v" }, "inside": func(q *jobs.Quarantine) { q.Inside = true }, "turn": func(q *jobs.Quarantine) { q.Turn++ },
		"barred": func(q *jobs.Quarantine) { q.Barred = false }, "since": func(q *jobs.Quarantine) { q.Since = time.UnixMicro(6) }, "node": func(q *jobs.Quarantine) { q.Node = "" },
		"by": func(q *jobs.Quarantine) { q.By = "" }, "reason": func(q *jobs.Quarantine) { q.Reason = "bc"; q.By = "" }, "id": func(q *jobs.Quarantine) { q.ID = jobs.ID{} },
		"done": func(q *jobs.Quarantine) { q.Done = 0 }, "said": func(q *jobs.Quarantine) { q.Said = jobs.Print{} }, "right": func(q *jobs.Quarantine) { q.Right = jobs.Print{} },
	} {
		other := q
		change(&other)
		if jobs.SumQuarantines([]jobs.Quarantine{other}) == was {
			t.Errorf("another %s has the same sum", name)
		}
	}
}

func TestBoundQuarantines(t *testing.T) {
	var rows []jobs.Quarantine
	for n := range jobs.MaxQuarantines + 10 {
		rows = append(rows, jobs.Quarantine{Subject: jobs.Subject{Worker: fmt.Sprint("w", n)}, Turn: 1, Barred: n%200 != 0, Since: time.UnixMicro(int64(n))})
	}
	kept, dropped := jobs.BoundQuarantines(rows)
	if len(kept) != jobs.MaxQuarantines || len(dropped) != 10 {
		t.Fatalf("%d kept, %d dropped", len(kept), len(dropped))
	}
	var names []string
	for _, s := range dropped {
		names = append(names, s.Worker)
	}
	slices.Sort(names)
	if got, want := strings.Join(names, " "), "w0 w1 w1000 w2 w200 w3 w4 w400 w600 w800"; got != want {
		t.Errorf("dropped %s, want the lifted ones and then the oldest: %s", got, want)
	}
}

func TestQuarantine_Check(t *testing.T) {
	good := jobs.Quarantine{Subject: jobs.Subject{Worker: "w-1.x"}, Turn: 1}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(q *jobs.Quarantine){
		"no name": func(q *jobs.Quarantine) { q.Worker = "" }, "a slash": func(q *jobs.Quarantine) { q.Worker = "a/b" }, "a line": func(q *jobs.Quarantine) { q.Worker = "a\nb" },
		"a long name": func(q *jobs.Quarantine) { q.Worker = strings.Repeat("w", 253) }, "no turn": func(q *jobs.Quarantine) { q.Turn = 0 },
		"a turn that locks it": func(q *jobs.Quarantine) { q.Turn = 1 << 41 }, "a long reason": func(q *jobs.Quarantine) { q.Reason = strings.Repeat("r", 257) },
		"bytes": func(q *jobs.Quarantine) { q.By = "\xff" }, "no place": func(q *jobs.Quarantine) { q.Done = jobs.MaxIterations + 1 },
	} {
		q := good
		change(&q)
		if q.Check() == nil {
			t.Errorf("%s: %+v is taken", name, q)
		}
	}
	if s := jobs.SubjectOf("w/i"); s != (jobs.Subject{Worker: "w"}) {
		t.Errorf("SubjectOf = %v", s)
	}
	if s := jobs.SubjectOf("a"); s != (jobs.Subject{Worker: "a", Inside: true}) {
		t.Errorf("SubjectOf = %v", s)
	}
}
