package jobs_test

import (
	"encoding/binary"
	"testing"
	"time"

	"workmanager/jobs"
)

// source draws small numbers from fuzz bytes; when they are used up it draws 0.
type source []byte

func (s *source) n(max int) int {
	if len(*s) == 0 {
		return 0
	}
	b := (*s)[0]
	*s = (*s)[1:]
	return int(b) % max
}

func (s *source) value() jobs.Value { return jobs.Value{63: byte(1 + s.n(3))} }

func (s *source) at() time.Time { return time.UnixMicro(int64(1_000 + s.n(4))).UTC() }

// job draws a row of one ID in a form the store could hold: every field from a
// few values, so that two rows are often equal in part.
func (s *source) job() jobs.Job {
	j := jobs.Job{
		ID: jobs.ID{15: 1}, V1: s.value(), Iterations: uint64(10 + s.n(2)), Priority: uint8(s.n(3)),
		Origin: string(rune('a' + s.n(2))), Home: string(rune('a' + s.n(2))), OwnEpoch: uint64(s.n(3)),
		CreatedAt: s.at(), GCAfter: s.at(), Attempts: uint32(s.n(3)),
		Keep: uint16(s.n(4)), ResumedFrom: uint64(s.n(3)), Restarts: uint32(s.n(3)), Owner: []string{"", "x", "y"}[s.n(3)],
	}
	for range s.n(int(j.Keep) + 1) {
		j.Rungs = j.Rungs.Add(s.value())
	}
	switch s.n(5) {
	case 0:
		if d := s.n(4); d > 1 {
			j.Checkpoint = jobs.Progress{Done: uint64(d), Value: s.value()}
		}
		j.Lost = uint32(s.n(3))
	case 1:
		j, _ = j.Fail(string(rune('x'+s.n(2))), s.at())
	case 2:
		j, _ = j.Cancel(s.at())
	default:
		j, _ = j.Complete(s.value(), s.at())
		j.Verified = s.n(3) == 1
		j.Pulled = s.n(2) == 1
	}
	if s.n(4) == 1 {
		j, _ = j.Purge(s.at())
	}
	return j
}

// FuzzMerge checks the laws of a join (J6) and that no state falls (J1).
func FuzzMerge(f *testing.F) {
	for seed := range uint64(200) { // a fixed spread of starting points, the fuzzer goes on from there
		b := make([]byte, 128)
		for i := range len(b) / 8 {
			seed = seed*6364136223846793005 + 1442695040888963407
			binary.LittleEndian.PutUint64(b[8*i:], seed^seed>>29)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := source(b)
		x, y, z := s.job(), s.job(), s.job()
		if xy, yx := jobs.Merge(x, y), jobs.Merge(y, x); xy != yx {
			t.Errorf("Merge(%+v, %+v) = %+v, the other way round %+v", x, y, xy, yx)
		}
		if l, r := jobs.Merge(jobs.Merge(x, y), z), jobs.Merge(x, jobs.Merge(y, z)); l != r {
			t.Errorf("x = %+v\ny = %+v\nz = %+v\nMerge(Merge(x, y), z) = %+v\nMerge(x, Merge(y, z)) = %+v", x, y, z, l, r)
		}
		if xx := jobs.Merge(x, x); xx != x {
			t.Errorf("Merge(%+v, itself) = %+v", x, xx)
		}
		xy := jobs.Merge(x, y)
		if again := jobs.Merge(xy, x); again != xy {
			t.Errorf("Merge is not inflationary: Merge(%+v, %+v) = %+v", xy, x, again)
		}
		if x.V1 == y.V1 && x.Iterations == y.Iterations && x.Purged == y.Purged && xy.Rank < max(x.Rank, y.Rank) {
			t.Errorf("J1: Merge of ranks %v and %v is %v", x.Rank, y.Rank, xy.Rank)
		}
		if xy.Purged != (x.Purged || y.Purged) {
			t.Errorf("Merge of purged %v and %v is %v", x.Purged, y.Purged, xy.Purged)
		}
		if !xy.Purged && x.V1 == y.V1 && x.Iterations == y.Iterations && x.Keep == y.Keep && x.Restarts == y.Restarts && xy.Rungs.Len() != max(x.Rungs.Len(), y.Rungs.Len()) {
			t.Errorf("Merge of %d and %d kept checkpoints has %d", x.Rungs.Len(), y.Rungs.Len(), xy.Rungs.Len())
		}
		if x.V1 == y.V1 && x.Iterations == y.Iterations && !xy.Purged {
			if xy.Restarts != max(x.Restarts, y.Restarts) {
				t.Errorf("J8: Merge of %d and %d restarts has %d", x.Restarts, y.Restarts, xy.Restarts)
			}
			if later := max(x.Restarts, y.Restarts); x.Restarts != y.Restarts && xy.Rank == jobs.Open {
				of := x
				if y.Restarts == later {
					of = y
				}
				if xy.Checkpoint != of.Checkpoint || xy.Rungs != of.Rungs {
					t.Errorf("J8: Merge(%+v, %+v) has the checkpoint %+v, want that of %d restarts", x, y, xy.Checkpoint, later)
				}
			}
		}
		if o := xy.Owner; o != x.Owner && o != y.Owner || o == "" && x.Owner+y.Owner != "" {
			t.Errorf("Merge of a job of %q and of %q is of %q", x.Owner, y.Owner, o)
		}
		if err := valid(xy); err != "" {
			t.Errorf("Merge(%+v, %+v) = %+v: %s", x, y, xy, err)
		}
	})
}

// valid tells which invariant of package jobs a row breaks.
func valid(j jobs.Job) string {
	var zero jobs.Value
	switch {
	case j.Purged && (j.V1 != zero || j.Result != zero || j.Checkpoint.Value != zero):
		return "J2: a purged job has bytes"
	case j.Purged && (j.Keep != 0 || j.Rungs != "" || j.ResumedFrom != 0 || j.Restarts != 0):
		return "J2: a purged job has kept checkpoints"
	case j.Rungs.Len() > int(j.Keep):
		return "more checkpoints than the job keeps"
	case (j.Err != "") != (j.Rank == jobs.Failed):
		return "J2: only a failed job has a reason"
	case (j.Result != zero) != (j.Rank == jobs.Completed && !j.Purged):
		return "J2: only a completed job has a value"
	case j.Ended() && (j.Checkpoint.Done != 0 || j.Lost != 0):
		return "J7: a job that has ended has progress"
	case j.Ended() == j.DoneAt.IsZero():
		return "only a job that has ended has an end"
	}
	return ""
}

func TestMergeDecides(t *testing.T) {
	now := time.UnixMicro(5_000).UTC()
	open := jobs.Job{ID: jobs.ID{1}, V1: jobs.Value{1}, Iterations: 10, Home: "a", Origin: "a", CreatedAt: now, GCAfter: now}
	completed, _ := open.Complete(jobs.Value{9}, now)
	cancelled, _ := open.Cancel(now)
	purged, _ := completed.Purge(now)
	further := open
	further.Checkpoint = jobs.Progress{Done: 5, Value: jobs.Value{5}}
	lost := open
	lost.Lost = 4
	taken := open
	taken.Home, taken.OwnEpoch = "b", 1
	other := completed
	other.Result = jobs.Value{8}
	kept := func(j jobs.Job, keep uint16, values ...byte) jobs.Job {
		j.Keep = keep
		for _, v := range values {
			j.Rungs = j.Rungs.Add(jobs.Value{v})
		}
		return j
	}
	verified := completed
	verified.Verified = true

	for name, tc := range map[string]struct{ a, b, want jobs.Job }{
		"completed over cancelled":        {completed, cancelled, completed},
		"purged over completed":           {purged, completed, purged},
		"the further checkpoint":          {further, lost, further},
		"the later home":                  {taken, open, taken},
		"verified over smaller bytes":     {verified, other, verified},
		"unverified: the smaller bytes":   {completed, other, other},
		"a checkpoint ends with the job":  {further, completed, completed},
		"lost workers without a progress": {lost, open, lost},

		"the longer ladder":              {kept(open, 3, 1), kept(open, 3, 1, 2), kept(open, 3, 1, 2)},
		"of two as long: the smaller":    {kept(open, 3, 1, 3), kept(open, 3, 1, 2), kept(open, 3, 1, 2)},
		"the one that keeps more":        {kept(open, 3, 1, 3), kept(open, 4, 9), kept(open, 4, 9)},
		"a ladder outlives the end":      {kept(open, 3, 1, 2), kept(completed, 3), kept(completed, 3, 1, 2)},
		"purged over kept checkpoints":   {purged, kept(completed, 3, 1, 2), purged},
		"kept checkpoints of other work": {kept(jobs.Job{ID: open.ID, V1: jobs.Value{2}, Iterations: 10, Home: "a", Origin: "a", CreatedAt: now, GCAfter: now}, 9, 1, 2), open, open},
	} {
		if got := jobs.Merge(tc.a, tc.b); got != tc.want {
			t.Errorf("%s: Merge = %+v, want %+v", name, got, tc.want)
		}
	}
	if !jobs.Disagree(completed, other) || jobs.Disagree(completed, completed) || jobs.Disagree(completed, open) {
		t.Error("Disagree must tell two different values of one job, and nothing else")
	}
	for name, tc := range map[string]struct {
		a, b jobs.Job
		want bool
	}{
		"a ladder that goes on":  {kept(open, 3, 1), kept(completed, 3, 1, 2), false},
		"one that forks":         {kept(open, 3, 1, 3), kept(completed, 3, 1, 2), true},
		"one that forked before": {kept(open, 3, 3), kept(open, 3, 1, 2), true},
		"other places":           {kept(open, 4, 3), kept(open, 3, 1, 2), false},
		"a purged one":           {purged, kept(open, 3, 1, 2), false},
	} {
		if ab, ba := jobs.Disagree(tc.a, tc.b), jobs.Disagree(tc.b, tc.a); ab != tc.want || ba != tc.want {
			t.Errorf("%s: Disagree = %v, the other way round %v, want %v", name, ab, ba, tc.want)
		}
	}
	clash := open
	clash.V1 = jobs.Value{2}
	if !jobs.Conflict(open, clash) || jobs.Conflict(open, completed) || jobs.Conflict(purged, open) {
		t.Error("Conflict must tell other work under one ID, and nothing else")
	}
}
