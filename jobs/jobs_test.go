package jobs_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
)

// TestFacts tries every fact on every state: what changes, and what must not.
func TestFacts(t *testing.T) {
	now := time.UnixMicro(7_000).UTC()
	open, err := jobs.New(jobs.ID{1}, jobs.Value{1}, 100, 3)
	if err != nil {
		t.Fatal(err)
	}
	open = open.Born("a", now, nil)
	failed, _ := open.Fail("broken", now)
	cancelled, _ := open.Cancel(now)
	completed, _ := open.Complete(jobs.Value{9}, now)
	purged, _ := completed.Purge(now)

	states := []struct {
		name string
		job  jobs.Job
	}{{"open", open}, {"failed", failed}, {"cancelled", cancelled}, {"completed", completed}, {"purged", purged}}
	facts := []struct {
		name  string
		apply func(jobs.Job) (jobs.Job, bool)
		want  map[string]jobs.Rank // the states it changes, and the rank after it
	}{
		{"advance", func(j jobs.Job) (jobs.Job, bool) { return j.Advance(jobs.Progress{Done: 7, Value: jobs.Value{7}}) },
			map[string]jobs.Rank{"open": jobs.Open}},
		{"advance too far", func(j jobs.Job) (jobs.Job, bool) { return j.Advance(jobs.Progress{Done: 100}) }, nil},
		{"advance not at all", func(j jobs.Job) (jobs.Job, bool) { return j.Advance(jobs.Progress{Done: 1}) }, nil},
		{"complete", func(j jobs.Job) (jobs.Job, bool) { return j.Complete(jobs.Value{8}, now) },
			map[string]jobs.Rank{"open": jobs.Completed, "failed": jobs.Completed}},
		{"settle", func(j jobs.Job) (jobs.Job, bool) { return j.Settle(jobs.Value{7}, now) },
			map[string]jobs.Rank{"open": jobs.Completed, "failed": jobs.Completed, "completed": jobs.Completed}},
		{"fail", func(j jobs.Job) (jobs.Job, bool) { return j.Fail("no", now) },
			map[string]jobs.Rank{"open": jobs.Failed}},
		{"cancel", func(j jobs.Job) (jobs.Job, bool) { return j.Cancel(now) },
			map[string]jobs.Rank{"open": jobs.Cancelled}},
		{"lose", func(j jobs.Job) (jobs.Job, bool) { return j.Lose(now) },
			map[string]jobs.Rank{"open": jobs.Open}},
		{"purge", func(j jobs.Job) (jobs.Job, bool) { return j.Purge(now) },
			map[string]jobs.Rank{"open": jobs.Cancelled, "failed": jobs.Failed, "cancelled": jobs.Cancelled, "completed": jobs.Completed}},
		{"pull", jobs.Job.Pull, map[string]jobs.Rank{"completed": jobs.Completed}},
	}
	for _, f := range facts {
		for _, s := range states {
			got, changed := f.apply(s.job)
			rank, want := f.want[s.name]
			switch {
			case changed != want:
				t.Errorf("%s on %s: changed = %v, want %v", f.name, s.name, changed, want)
			case !changed && got != s.job:
				t.Errorf("%s on %s changed nothing and returned %+v, want %+v", f.name, s.name, got, s.job)
			case changed && got.Rank != rank:
				t.Errorf("%s on %s: rank %v, want %v", f.name, s.name, got.Rank, rank)
			}
			if bad := valid(got); bad != "" {
				t.Errorf("%s on %s: %s: %+v", f.name, s.name, bad, got)
			}
			if changed && f.name != "lose" { // a fact said twice changes nothing
				if again, twice := f.apply(got); twice {
					t.Errorf("%s on %s twice: changed again, to %+v", f.name, s.name, again)
				}
			}
		}
	}
}

// TestSettle: what recomputing gave wins over any other value, at either node,
// and is not recomputed away again.
func TestSettle(t *testing.T) {
	now := time.UnixMicro(1).UTC()
	open := jobs.Job{Iterations: 100, V1: jobs.Value{1}}
	a, _ := open.Complete(jobs.Value{3}, now)
	b, _ := open.Complete(jobs.Value{5}, now.Add(time.Second))
	right, changed := a.Settle(jobs.Value{9}, now)
	if !changed || right.Result != (jobs.Value{9}) || !right.Verified || right.DoneAt != now {
		t.Fatalf("Settle() = %+v, %v", right, changed)
	}
	for _, other := range []jobs.Job{a, b, open} {
		if m, n := jobs.Merge(right, other), jobs.Merge(other, right); m.Result != right.Result || n.Result != right.Result {
			t.Errorf("merged with %v the value is %v and %v, want the verified one", other.Result, m.Result, n.Result)
		}
	}
	if again, changed := right.Settle(jobs.Value{3}, now); changed {
		t.Errorf("a verified value was settled again: %+v", again)
	}
	x, _ := open.Advance(jobs.Progress{Done: 7, Value: jobs.Value{1}})
	y, _ := open.Advance(jobs.Progress{Done: 7, Value: jobs.Value{2}})
	z, _ := open.Advance(jobs.Progress{Done: 8, Value: jobs.Value{3}})
	if !jobs.Diverge(x, y) || jobs.Diverge(x, z) || jobs.Diverge(x, open) || jobs.Diverge(x, a) {
		t.Error("Diverge() is not two values at one checkpoint")
	}
}

func TestLoseFailsAtTheLimit(t *testing.T) {
	now := time.UnixMicro(1).UTC()
	j := jobs.Job{Iterations: 100, V1: jobs.Value{1}}
	for range jobs.MaxLost - 1 {
		j, _ = j.Lose(now)
	}
	j, _ = j.Advance(jobs.Progress{Done: 50, Value: jobs.Value{5}}) // progress between them: they count anew
	for i := range jobs.MaxLost {
		if j.Ended() {
			t.Fatalf("failed after %d losses since its progress, want %d", i, jobs.MaxLost)
		}
		j, _ = j.Lose(now)
	}
	if j.Rank != jobs.Failed || !strings.Contains(j.Err, "5 workers lost") {
		t.Errorf("after %d losses: %v %q, want failed and why", jobs.MaxLost, j.Rank, j.Err)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, n := range []uint64{0, jobs.MaxIterations + 1, 1 << 63} {
		_, err := jobs.New(jobs.ID{}, jobs.Value{}, n, 0)
		if jobs.CodeOf(err) != jobs.CodeInvalid || !strings.Contains(err.Error(), "iterations") || !strings.Contains(err.Error(), "9007199254740992") {
			t.Errorf("New(iterations %d) = %v, want CodeInvalid naming iterations and its range", n, err)
		}
	}
	for _, p := range []int{-1, 10} {
		if _, err := jobs.New(jobs.ID{}, jobs.Value{}, 1, p); jobs.CodeOf(err) != jobs.CodeInvalid {
			t.Errorf("New(priority %d) = %v, want CodeInvalid", p, err)
		}
	}
	if got := jobs.CodeOf(fmt.Errorf("around: %w", jobs.Errorf(jobs.CodeBusy, "x"))); got != jobs.CodeBusy {
		t.Errorf("CodeOf(wrapped) = %q, want %q", got, jobs.CodeBusy)
	}
	if got := jobs.CodeOf(errors.New("x")); got != jobs.CodeInternal {
		t.Errorf("CodeOf(other) = %q, want %q", got, jobs.CodeInternal)
	}
}

func TestIDs(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var last jobs.ID
	for i := range 1000 {
		id, err := jobs.NewID(at.Add(time.Duration(i)*time.Microsecond), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Compare(last[:], id[:]) >= 0 {
			t.Fatalf("NewID: %s after %s, want it later", id, last)
		}
		last = id
		if back, err := jobs.ParseID(strings.ToUpper(id.String())); err != nil || back != id {
			t.Fatalf("ParseID(%s) = %v, %v", id, back, err)
		}
		if v := id[6] >> 4; v != 7 || id[8]>>6 != 2 {
			t.Fatalf("NewID: version %d variant %b in %s", v, id[8]>>6, id)
		}
	}
	if once := jobs.KeyID("c", "t", "k"); once != jobs.KeyID("c", "t", "k") {
		t.Error("KeyID: one key, two IDs")
	}
	if jobs.KeyID("c", "ta", "b") == jobs.KeyID("c", "t", "ab") {
		t.Error("KeyID: two keys, one ID")
	}
	key := last.String()
	if id := jobs.KeyID("c", "t", key); !bytes.Equal(id[:6], last[:6]) || id[6]>>4 != 8 || id == jobs.KeyID("c", "u", key) || id == jobs.KeyID("c", "t", key+"/1") {
		t.Errorf("KeyID(%s) = %s, want the key's time, version 8, and all else from the hash", key, id)
	}
	first, far := jobs.KeyID("c", "t", key+"/1"), jobs.KeyID("c", "t", key+"/640")
	if !bytes.Equal(first[:6], last[:6]) || bytes.Compare(far[:6], last[:6]) <= 0 {
		t.Errorf("KeyID of lines 1 and 640 = %s and %s, want them in order behind %s", first, far, last)
	}
	for _, key := range []string{key + "-1", key + "/x", key + "/", "k" + key[1:], key[:35]} { // no time in these: the hash alone
		if id := jobs.KeyID("c", "t", key); bytes.Equal(id[:6], last[:6]) {
			t.Errorf("KeyID(%q) = %s took a time", key, id)
		}
	}
	for _, bad := range []string{"", "x", "0193a2c4-7e21-7c3e-9b1a-5d2f60c4e80", "{193a2c4-7e21-7c3e-9b1a-5d2f60c4e801", "0193a2c4x7e21-7c3e-9b1a-5d2f60c4e801"} {
		if id, err := jobs.ParseID(bad); err == nil {
			t.Errorf("ParseID(%q) = %s, want an error", bad, id)
		}
	}
}

func TestWork(t *testing.T) {
	var w jobs.Work
	for range 10_000 {
		w = w.Add(jobs.MaxIterations)
	}
	if got, want := w.Float(), 10_000*float64(jobs.MaxIterations); got != want {
		t.Errorf("Float() = %g, want %g", got, want)
	}
	w = w.Plus(w)
	for range 20_000 {
		w = w.Sub(jobs.MaxIterations)
	}
	if w != (jobs.Work{}) {
		t.Errorf("what was added and taken away leaves %+v", w)
	}
}

// TestHashCoversEveryField changes one field after the other: each must change the hash.
func TestHashCoversEveryField(t *testing.T) {
	at := time.UnixMicro(99).UTC()
	seen := map[int64]string{jobs.Job{}.Hash(): "nothing"}
	for name, change := range map[string]func(*jobs.Job){
		"id": func(j *jobs.Job) { j.ID[0]++ }, "v1": func(j *jobs.Job) { j.V1[0]++ }, "iterations": func(j *jobs.Job) { j.Iterations++ },
		"priority": func(j *jobs.Job) { j.Priority++ }, "origin": func(j *jobs.Job) { j.Origin = "o" }, "created": func(j *jobs.Job) { j.CreatedAt = at },
		"gc after": func(j *jobs.Job) { j.GCAfter = at }, "rank": func(j *jobs.Job) { j.Rank++ }, "result": func(j *jobs.Job) { j.Result[0]++ },
		"err": func(j *jobs.Job) { j.Err = "e" }, "verified": func(j *jobs.Job) { j.Verified = true }, "done at": func(j *jobs.Job) { j.DoneAt = at },
		"pulled": func(j *jobs.Job) { j.Pulled = true }, "purged": func(j *jobs.Job) { j.Purged = true }, "ck done": func(j *jobs.Job) { j.Checkpoint.Done++ },
		"ck value": func(j *jobs.Job) { j.Checkpoint.Value[0]++ }, "attempts": func(j *jobs.Job) { j.Attempts++ }, "lost": func(j *jobs.Job) { j.Lost++ },
		"home": func(j *jobs.Job) { j.Home = "h" }, "own epoch": func(j *jobs.Job) { j.OwnEpoch++ },
	} {
		var j jobs.Job
		change(&j)
		if other, ok := seen[j.Hash()]; ok {
			t.Errorf("Hash: %s and %s give the same", name, other)
		}
		seen[j.Hash()] = name
	}
}
