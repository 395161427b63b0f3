package jobs_test

import (
	"encoding/json"
	"testing"

	"workmanager/jobs"
)

// TestRungPlaces: the places rise, stand inside the chain and far enough apart,
// and RungsBy counts them.
func TestRungPlaces(t *testing.T) {
	for _, n := range []uint64{1, 2, 1000, 2000, 2001, 2002, 12_345, 1_000_000, 1_001_001, 1 << 40, jobs.MaxIterations} {
		most := jobs.MostRungs(n)
		for _, keep := range []int{1, 2, 3, 7, most - 1, most} {
			if keep < 1 || keep > most {
				continue
			}
			last := uint64(1)
			for i := range keep {
				at := jobs.RungAt(n, keep, i)
				if at < last+jobs.RungSpacing || at > n-jobs.RungSpacing {
					t.Fatalf("RungAt(%d, %d, %d) = %d, the one before is at %d", n, keep, i, at, last)
				}
				for _, done := range []uint64{at - 1, at, at + 1} {
					want := i
					if done >= at {
						want++
					}
					if got := jobs.RungsBy(n, keep, done); got != want {
						t.Fatalf("RungsBy(%d, %d, %d) = %d, want %d", n, keep, done, got, want)
					}
				}
				last = at
			}
			if got := jobs.RungsBy(n, keep, n); got != keep {
				t.Errorf("RungsBy(%d, %d, all) = %d", n, keep, got)
			}
		}
	}
	for n, want := range map[uint64]int{1: 0, 2: 0, 2000: 0, 2001: 1, 3000: 1, 3001: 2, 1_000_001: 999, 1_001_001: 1000, jobs.MaxIterations: 1000} {
		if got := jobs.MostRungs(n); got != want {
			t.Errorf("MostRungs(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestKeeping(t *testing.T) {
	for _, c := range []struct {
		n    uint64
		k    int
		want int // -1: refused
	}{{1, 5, 0}, {2, 1000, 0}, {5001, 0, 0}, {5001, 3, 3}, {5001, 1000, 4}, {jobs.MaxIterations, 1000, 1000}, {5001, 1001, -1}, {5001, -1, -1}} {
		j, err := jobs.New(jobs.ID{1}, jobs.Value{1}, c.n, 0)
		if err != nil {
			t.Fatal(err)
		}
		j, err = j.Keeping(c.k)
		if c.want < 0 {
			if jobs.CodeOf(err) != jobs.CodeInvalid {
				t.Errorf("Keeping(%d) = %v, want a refusal", c.k, err)
			}
		} else if err != nil || int(j.Keep) != c.want {
			t.Errorf("Keeping(%d) of %d iterations: %d, %v, want %d", c.k, c.n, j.Keep, err, c.want)
		}
	}
}

func TestAddRungs(t *testing.T) {
	rungs := func(vs ...byte) (r jobs.Rungs) {
		for _, v := range vs {
			r = r.Add(jobs.Value{v})
		}
		return r
	}
	j, _ := jobs.New(jobs.ID{1}, jobs.Value{9}, 5001, 0)
	j, _ = j.Keeping(4)
	for _, c := range []struct {
		from int
		add  jobs.Rungs
		want jobs.Rungs
	}{
		{1, rungs(2), ""}, // behind a gap
		{-1, rungs(2), ""},
		{0, "short", ""},
		{0, rungs(1), rungs(1)},
		{0, rungs(1), rungs(1)},
		{0, rungs(7, 2), rungs(1, 2)}, // what is known stays
		{1, rungs(2), rungs(1, 2)},
		{2, rungs(3, 4, 5), rungs(1, 2, 3, 4)}, // no more than it keeps
		{4, rungs(5), rungs(1, 2, 3, 4)},
	} {
		was := j.Rungs
		var changed bool
		if j, changed = j.AddRungs(c.from, c.add); j.Rungs != c.want || changed != (was != c.want) {
			t.Errorf("AddRungs(%d, %x) = %x, %v, want %x", c.from, c.add, j.Rungs, changed, c.want)
		}
	}
	want := []jobs.Progress{{Done: 1, Value: jobs.Value{9}}, {Done: 1001, Value: jobs.Value{1}}, {Done: 2001, Value: jobs.Value{2}}, {Done: 3001, Value: jobs.Value{3}}, {Done: 4001, Value: jobs.Value{4}}}
	got := j.Ladder()
	if len(got) != len(want) {
		t.Fatalf("Ladder() = %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("Ladder()[%d] = %v, want %v", i, got[i], want[i])
		}
	}
	done, _ := j.Complete(jobs.Value{5}, j.CreatedAt)
	if l := done.Ladder(); len(l) != 6 || l[5] != (jobs.Progress{Done: 5001, Value: jobs.Value{5}}) {
		t.Errorf("Ladder() of a completed job = %v", l)
	}
	purged, _ := done.Purge(j.CreatedAt)
	if purged.Rungs != "" || purged.Keep != 0 || purged.Ladder() != nil {
		t.Errorf("a purged job keeps %v", purged)
	}
	if again, changed := purged.AddRungs(0, rungs(1)); changed {
		t.Errorf("a purged job took %v", again.Rungs)
	}
}

func TestRungsText(t *testing.T) {
	type holder struct{ R jobs.Rungs }
	h := holder{jobs.Rungs("").Add(jobs.Value{0xFF}).Add(jobs.Value{2})}
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var got holder
	if err := json.Unmarshal(text, &got); err != nil || got != h {
		t.Errorf("%s read back as %x, %v", text, got.R, err)
	}
	for _, bad := range []string{`{"R":"!"}`, `{"R":"AAAA"}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

// TestHashOfRungs: a row that keeps nothing has the hash it always had, and
// every kept checkpoint counts.
func TestHashOfRungs(t *testing.T) {
	j, _ := jobs.New(jobs.ID{1}, jobs.Value{1}, 5001, 3)
	if got := j.Hash(); got != hashOf5001 {
		t.Errorf("Hash() = %d, want %d as ever", got, hashOf5001)
	}
	seen := map[int64]bool{j.Hash(): true}
	for _, change := range []func(*jobs.Job){
		func(j *jobs.Job) { j.ResumedFrom = 2 },
		func(j *jobs.Job) { j.Keep = 3 },
		func(j *jobs.Job) { j.Keep, j.Rungs = 3, j.Rungs.Add(jobs.Value{1}) },
		func(j *jobs.Job) { j.Keep, j.Rungs = 3, j.Rungs.Add(jobs.Value{2}) },
	} {
		k := j
		change(&k)
		if seen[k.Hash()] {
			t.Errorf("%+v has the hash of another row", k)
		}
		seen[k.Hash()] = true
	}
}

const hashOf5001 = -1670403068952242986 // before there were kept checkpoints
