package sync

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

func TestCompareMendsWhatWasAltered(t *testing.T) {
	for name, c := range map[string]struct {
		query  string
		damage bool // the row is not the one its hash was written for
	}{
		"result":       {"UPDATE jobs SET result = zeroblob(64) WHERE id = ? AND rank = 3", true},
		"larger":       {"UPDATE jobs SET result = unhex(printf('%.128d', 7)), done_at = done_at - 1 WHERE id = ? AND rank = 3", true},
		"state":        {"UPDATE jobs SET rank = 0, result = NULL, done_at = NULL, rseq = NULL, verified = 0 WHERE id = ?", true},
		"v1":           {"UPDATE jobs SET v1 = zeroblob(64) WHERE id = ?", true},
		"iterations":   {"UPDATE jobs SET iterations = iterations + 1 WHERE id = ?", true},
		"home":         {"UPDATE jobs SET home = 'zz', own_epoch = own_epoch + 9 WHERE id = ?", true},
		"created_at":   {"UPDATE jobs SET created_at = created_at - 1000000000 WHERE id = ?", true},
		"pulled":       {"UPDATE jobs SET pulled = 1 WHERE id = ?", true},
		"hash":         {"UPDATE jobs SET rhash = rhash + 1 WHERE id = ?", true},
		"row":          {"DELETE FROM jobs WHERE id = ?", false},
		"all_of_them":  {"DELETE FROM jobs WHERE ?1 IS NOT NULL", false},
		"all_damaged":  {"UPDATE jobs SET priority = 9 WHERE ?1 IS NOT NULL", true},
		"id_exchanged": {"UPDATE jobs SET id = zeroblob(16) WHERE id = ?", true},
	} {
		for _, damaged := range []string{"a", "b"} {
			t.Run(name+"_at_"+damaged, func(t *testing.T) {
				p := newComparedPair(t)
				ids := p.fill(200)
				before := p.a.rows()
				if n := p.differences(); n > 0 {
					t.Fatalf("%d rows differ before", n)
				}
				n := p.a
				if damaged == "b" {
					n = p.b
				}
				n.behind(c.query, ids[60][:]) // completed, came in at a
				if got := p.differences(); got == 0 && name != "hash" {
					t.Fatal("nothing was altered")
				}
				p.pass(6*p.interval, true)
				if got := p.differences(); got > 0 {
					t.Errorf("%d rows differ still\n%s%s", got, &p.a.log, &p.b.log)
				}
				after := p.a.rows()
				for id, want := range before {
					if got := after[id]; !got.Equal(want) {
						t.Errorf("job %s is %+v, was %+v", id, got, want)
					}
				}
				p.sane()
				for _, e := range []*Engine{p.a.e, p.b.e} {
					s := e.Peer().Compare
					if s.At.IsZero() || s.Err != "" || s.Differed != 0 {
						t.Errorf("the last comparison at %s: %+v", e.cfg.Node, s)
					}
					if got := e.Peer().Counters; got.Repaired < 1 || got.Differed < 1 || c.damage != (got.Alarms > 0) {
						t.Errorf("%s counts %+v", e.cfg.Node, got)
					}
				}
				head := p.a.Head() + p.b.Head()
				p.pass(3*p.interval, true)
				if got := p.a.Head() + p.b.Head(); got != head {
					t.Errorf("%d rows took numbers after all was equal", got-head)
				}
			})
		}
	}
}

// TestCompareBothDamaged: where neither row is what its hash was written for,
// the merge decides, and afterwards both are whole.
func TestCompareBothDamaged(t *testing.T) {
	p := newComparedPair(t)
	ids := p.fill(300)
	p.a.behind("UPDATE jobs SET priority = 8 WHERE id = ?", ids[3][:])
	p.b.behind("UPDATE jobs SET attempts = 70 WHERE id = ?", ids[3][:])
	p.pass(8*p.interval, true)
	a, b := p.a.rows()[ids[3]], p.b.rows()[ids[3]]
	if !a.Equal(b) || a.Priority != 8 || a.Attempts != 70 {
		t.Errorf("a has %+v, b %+v", a, b)
	}
	for _, n := range []*comparedNode{p.a, p.b} {
		if s, err := n.Standings(t.Context(), ids[3:4], jobs.Settled{Upto: n.Head()}); err != nil || s[0].Damaged {
			t.Errorf("node %s: %+v, %v", n.name, s, err)
		}
	}
}

// TestCompareDisagreement: two values, each on a disk that is whole, are the
// merge's to choose from, and an alarm.
func TestCompareDisagreement(t *testing.T) {
	p := newComparedPair(t)
	ids := p.fill(100)
	j := p.b.rows()[ids[0]]
	j.Result = jobs.Value{1}
	p.b.behind("UPDATE jobs SET result = ?, rhash = ? WHERE id = ?", j.Result[:], j.Hash(), ids[0][:])
	p.pass(8*p.interval, true)
	if n := p.differences(); n > 0 {
		t.Errorf("%d rows differ", n)
	}
	if p.a.Disagreements()+p.b.Disagreements() == 0 {
		t.Error("no alarm")
	}
}

// TestCompareEqual: two nodes that hold the same give out no number and write
// nothing, however often they compare, by themselves and over many ranges.
func TestCompareEqual(t *testing.T) {
	p := newComparedPair(t)
	for range 5 {
		p.fill(700)
	}
	heads := [2]jobs.LSeq{p.a.Head(), p.b.Head()}
	p.pass(8*p.interval, true)
	if got := [2]jobs.LSeq{p.a.Head(), p.b.Head()}; got != heads {
		t.Errorf("heads are %d, were %d", got, heads)
	}
	for _, e := range []*Engine{p.a.e, p.b.e} {
		s := e.Peer()
		if s.Compare.Rows != 3500 || s.Compare.Ranges < 3 || s.Counters.Compared < 2*s.Compare.Ranges || s.Counters.Differed != 0 {
			t.Errorf("%s: %+v, %+v", e.cfg.Node, s.Compare, s.Counters)
		}
	}
}

// TestCompareMoving: rows that change while they are compared are no difference.
func TestCompareMoving(t *testing.T) {
	p := newComparedPair(t)
	ids := p.fill(1000)
	for i := range 30 {
		var facts []store.Fact
		for k := range 20 {
			facts = append(facts, store.Fact{ID: ids[(i*20+k*131)%len(ids)], Apply: func(j jobs.Job, _ store.Clock) (jobs.Job, bool) {
				j.Attempts++
				return j, true
			}})
		}
		n := []*comparedNode{p.a, p.b}[i%2]
		if _, err := n.Record(t.Context(), facts); err != nil {
			t.Fatal(err)
		}
		if i%5 == 0 { // the feed lags behind the comparison
			p.a.e.mu.Lock()
			p.a.e.compare.due = p.now
			p.a.e.mu.Unlock()
			if err := p.a.e.compareRound(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		p.pass(lap, true)
	}
	c := p.a.e.Peer().Counters
	if c.Compared < 10 || c.Repaired != 0 || c.Alarms != 0 || c.Differed != 0 {
		t.Errorf("counters %+v", c)
	}
}

// TestCompareFloors: a row that one node has dropped by the floor, and the other
// not yet, is no difference.
func TestCompareFloors(t *testing.T) {
	for _, first := range []string{"a", "b"} {
		t.Run(first, func(t *testing.T) {
			p := newComparedPair(t)
			ids := p.fill(600)
			n := p.a
			if first == "b" {
				n = p.b
			}
			if _, err := n.Refresh(t.Context(), p.now, 1<<20); err != nil {
				t.Fatal(err)
			}
			p.pass(3*p.interval, true)
			compared := p.a.e.Peer().Counters.Compared
			heads := [2]jobs.LSeq{p.a.Head(), p.b.Head()}
			// The floor is raised at one node only; the feed does not run, so the
			// other does not learn it.
			if err := n.Raise(t.Context(), p.now.Add(-2*p.interval)); err != nil {
				t.Fatal(err)
			}
			if dropped, err := n.Expire(t.Context()); err != nil || dropped < len(ids)/2 {
				t.Fatalf("Expire() = %d, %v", dropped, err)
			}
			p.a.e.compare.due = time.Time{}
			for range 20 {
				p.now = p.now.Add(time.Millisecond)
				if err := p.a.e.compareRound(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			c := p.a.e.Peer()
			if c.Counters.Compared == compared || c.Counters.Repaired != 0 || c.Counters.Differed != 0 {
				t.Errorf("%+v, %+v", c.Compare, c.Counters)
			}
			if got := p.a.Head() + p.b.Head(); got > heads[0]+heads[1]+jobs.LSeq(len(ids)) {
				t.Errorf("rows took numbers: the heads add up to %d, were %d", got, heads)
			}
		})
	}
}

// TestCompareManyLost: a round repairs so many rows and no more; the next goes on.
func TestCompareManyLost(t *testing.T) {
	p := newComparedPair(t)
	p.fill(2000)
	p.a.behind("DELETE FROM jobs WHERE n % 5 > 0")
	before := p.b.Head()
	for range 12 {
		was := p.b.Head()
		p.pass(lap, true)
		if n := p.b.Head() - was; n > maxRepairs {
			t.Fatalf("%d rows repaired in one round", n)
		}
	}
	n := 0
	for range 10 {
		if n = p.differences(); n == 0 {
			break
		}
		p.pass(p.interval, true)
	}
	if n > 0 {
		t.Errorf("%d rows differ; %d were sent again", n, p.b.Head()-before)
	}
	if sent := p.b.Head() - before; sent > 1700 {
		t.Errorf("%d rows were sent again, 1600 were lost", sent)
	}
	p.sane()
}

// TestCompareGarbage: whatever the peer answers, nothing is changed by it and the
// next comparison goes well.
func TestCompareGarbage(t *testing.T) {
	for name, spoil := range map[string]func(*SummaryReply){
		"digests_missing": func(r *SummaryReply) { r.Digests = nil },
		"digests_many":    func(r *SummaryReply) { r.Digests = append(r.Digests, make([]wireDigest, 20)...) },
		"cuts_outside":    func(r *SummaryReply) { r.Cuts = []int64{5, 4} },
		"floor":           func(r *SummaryReply) { r.Floor = -1 },
		"standing_many":   func(r *SummaryReply) { r.Standing = make([]wireStand, 300) },
		"standing_none":   func(r *SummaryReply) { r.Standing = nil },
		"row": func(r *SummaryReply) {
			for i := range r.Standing {
				r.Standing[i].Row = []byte{1, 2, 3}
			}
		},
		"other_row": func(r *SummaryReply) {
			for i := range r.Standing {
				r.Standing[i].Row = appendRowFields(nil, &jobs.Row{Job: jobs.Job{ID: jobs.ID{1}, V1: jobs.Value{1}, Iterations: 2, Origin: "a", Home: "a", CreatedAt: time.UnixMicro(1)}})
			}
		},
		"repaired": func(r *SummaryReply) { r.Repaired = 1 << 40 },
		"nothing":  func(r *SummaryReply) { *r = SummaryReply{} },
	} {
		t.Run(name, func(t *testing.T) {
			p := newComparedPair(t)
			ids := p.fill(300)
			p.b.behind("UPDATE jobs SET priority = 9 WHERE id = ?", ids[9][:])
			p.spoil = func(path string, body []byte) []byte {
				var r SummaryReply
				if json.Unmarshal(body, &r) != nil {
					return body
				}
				spoil(&r)
				return encodeBody(r)
			}
			rows, failed := p.a.rows(), 0
			for range 25 {
				p.pass(lap, false)
				if err := p.a.e.compareRound(t.Context()); err != nil {
					failed++
				}
			}
			if failed == 0 || failed > 10 {
				t.Errorf("%d rounds failed of about 5", failed)
			}
			for id, want := range rows {
				if got := p.a.rows()[id]; !got.Equal(want) {
					t.Errorf("job %s is %+v, was %+v", id, got, want)
				}
				break
			}
			p.spoil = nil
			p.pass(5*p.interval, true)
			if n := p.differences(); n > 0 || p.a.e.Peer().Compare.Err != "" {
				t.Errorf("%d rows differ, %+v", n, p.a.e.Peer().Compare)
			}
		})
	}
}

// TestSummaryRefuses: a node that cannot be compared says so.
func TestSummaryRefuses(t *testing.T) {
	p := newComparedPair(t)
	p.fill(100)
	ask := func(change func(*SummaryCall)) (int, string) {
		c := SummaryCall{caller: p.a.e.caller(), Schema: p.a.Schema(), Age: 1e6, Bounds: []int64{0, 1 << 60}}
		change(&c)
		resp, err := http.Post(p.b.srv.URL+"/peer/summary", "application/json", bytes.NewReader(encodeBody(c)))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	for name, c := range map[string]struct {
		change func(*SummaryCall)
		status int
	}{
		"good":         {func(*SummaryCall) {}, 200},
		"schema":       {func(c *SummaryCall) { c.Schema++ }, 409},
		"stranger":     {func(c *SummaryCall) { c.Node = "x" }, 409},
		"age":          {func(c *SummaryCall) { c.Age = -1 }, 400},
		"age_long":     {func(c *SummaryCall) { c.Age = 1 << 60 }, 400},
		"floor":        {func(c *SummaryCall) { c.Floor = -1 }, 400},
		"one_bound":    {func(c *SummaryCall) { c.Bounds = c.Bounds[:1] }, 400},
		"descending":   {func(c *SummaryCall) { c.Bounds = []int64{2, 1} }, 400},
		"many_bounds":  {func(c *SummaryCall) { c.Bounds = make([]int64, 100) }, 400},
		"no_row":       {func(c *SummaryCall) { c.Bounds, c.Adopt = nil, [][]byte{{1}} }, 400},
		"many_repairs": {func(c *SummaryCall) { c.Bounds, c.Resend = nil, make([]jobs.ID, maxRepairs+1) }, 400},
	} {
		if got, body := ask(c.change); got != c.status {
			t.Errorf("%s: %d %s, want %d", name, got, body, c.status)
		}
	}
	p.b.e.mu.Lock()
	p.b.e.state.theyDone = false
	p.b.e.mu.Unlock()
	if got, body := ask(func(*SummaryCall) {}); got != 409 || !strings.Contains(body, RefusedRound) {
		t.Errorf("with a peer that has not read all: %d %s", got, body)
	}
}

// TestComparePauses: a comparison goes on where it was when the peer could not
// be asked for a moment, and begins anew with a peer that has started anew.
func TestComparePauses(t *testing.T) {
	p := newComparedPair(t)
	for range 5 {
		p.fill(2000)
	}
	asked := 0
	ask := func(ctx context.Context, call SummaryCall) (SummaryReply, error) {
		if asked++; asked == 2 {
			return SummaryReply{}, fmt.Errorf("%w: cut", ErrNoPeer)
		}
		return p.b.e.Summary(ctx, &call)
	}
	for asked < 2 {
		p.pass(lap, false)
		if err := p.a.e.Compare(t.Context(), ask); err != nil {
			t.Fatal(err)
		}
	}
	s := p.a.e.Peer().Compare
	if !s.Running || s.Err == "" || !s.At.IsZero() {
		t.Errorf("cut off: %+v", s)
	}
	for range 40 {
		p.pass(lap, false)
		if err := p.a.e.Compare(t.Context(), ask); err != nil {
			t.Fatal(err)
		}
		if s = p.a.e.Peer().Compare; !s.Running {
			break
		}
	}
	if s.At.IsZero() || s.Err != "" || s.Rows != 10_000 {
		t.Errorf("after the cut: %+v", s)
	}
	asked = 0
	for asked < 2 {
		p.pass(lap, false)
		if err := p.a.e.Compare(t.Context(), ask); err != nil {
			t.Fatal(err)
		}
	}
	p.b.close()
	p.b.open()
	p.meet()
	p.pass(lap, false)
	if err := p.a.e.Compare(t.Context(), ask); err != nil {
		t.Fatal(err)
	}
	if s := p.a.e.Peer().Compare; s.Running || s.Err == "" {
		t.Errorf("with a peer that has started anew: %+v", s)
	}
	p.pass(4*p.interval, true)
	if s := p.a.e.Peer().Compare; s.Err != "" || s.Rows != 10_000 {
		t.Errorf("after that: %+v", s)
	}
}

// TestCompareUnread: what the peer has not read yet it does not lack, however
// long it takes to read.
func TestCompareUnread(t *testing.T) {
	p := newComparedPair(t)
	ids := p.fill(300)
	var facts []store.Fact
	for _, id := range ids[:100] {
		facts = append(facts, store.Fact{ID: id, Apply: func(j jobs.Job, _ store.Clock) (jobs.Job, bool) {
			j.Attempts++
			return j, true
		}})
	}
	if _, err := p.a.Record(t.Context(), facts); err != nil {
		t.Fatal(err)
	}
	head := p.a.Head()
	for range 25 { // b hears of a, and writes nothing
		p.now = p.now.Add(lap)
		req := p.a.e.Ask()
		reply, err := p.b.e.Answer(t.Context(), req)
		if err == nil {
			err = p.a.e.Take(t.Context(), req, reply)
		}
		if err == nil {
			reply, err = p.a.e.Answer(t.Context(), p.b.e.Ask())
		}
		if err == nil {
			err = p.b.e.greeted(t.Context(), &reply.Hello)
		}
		if err != nil {
			t.Fatal(err)
		}
		p.a.e.Step()
		p.b.e.Step()
		if err := p.a.e.compareRound(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if c := p.a.e.Peer(); c.Counters.Compared == 0 || c.Counters.Repaired != 0 || p.a.Head() != head {
		t.Errorf("%+v, %+v; head %d, was %d", c.Compare, c.Counters, p.a.Head(), head)
	}
}

// TestCompareUpgraded: a node that was of the schema before kept checkpoints has
// them as fields that it did not know, up to as many as it was sent. When it is
// of this release the two compare, and it gets them all.
func TestCompareUpgraded(t *testing.T) {
	for _, upgraded := range []string{"a", "b"} {
		p := newComparedPair(t)
		p.fill(20)
		ids := make([]jobs.ID, 3)
		var batch []store.Submission
		var facts []store.Fact
		rungs := jobs.Rungs("")
		for i := range 40 {
			rungs = rungs.Add(jobs.Value{byte(i), 1})
		}
		for i := range ids {
			ids[i] = jobs.KeyID("upgraded", "", fmt.Sprint(i))
			j, err := jobs.New(ids[i], sha512.Sum512(ids[i][:]), 1_000_000, 0)
			if err == nil {
				j, err = j.Keeping(40)
			}
			if err != nil {
				t.Fatal(err)
			}
			batch = append(batch, store.Submission{Job: j})
			facts = append(facts, store.Fact{ID: ids[i], Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) {
				j, _ = j.Complete(jobs.Value{9}, at())
				return j.AddRungs(0, rungs)
			}})
		}
		if _, err := p.a.Enqueue(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if _, err := p.a.Record(t.Context(), facts); err != nil {
			t.Fatal(err)
		}
		p.pass(3*p.interval, false)
		n := p.a
		if upgraded == "b" {
			n = p.b
		}
		for _, id := range ids {
			r, found, err := n.Row(t.Context(), id)
			if err != nil || !found || r.Job.Rungs != rungs {
				t.Fatalf("Row() at %s: %d kept checkpoints, %v, %v", n.name, r.Job.Rungs.Len(), found, err)
			}
			old := r.Job
			old.Keep, old.Rungs = 0, ""
			few := forSchema(r, schemaRungs-1)
			ext := appendBytes(appendUint(nil, rowKeep, uint64(few.Job.Keep)), rowRungs, few.Job.Rungs)
			n.behind("UPDATE jobs SET kept = NULL, ext = ?, rhash = ? WHERE id = ?", ext, old.Hash(), id[:])
		}
		p.pass(6*p.interval, true)
		for _, n := range []*comparedNode{p.a, p.b} {
			for _, id := range ids {
				if j, _, err := n.Job(t.Context(), id); err != nil || j.Keep != 40 || j.Rungs != rungs {
					t.Errorf("%s upgraded: at %s %d of %d kept checkpoints, %v", upgraded, n.name, j.Rungs.Len(), j.Keep, err)
				}
			}
		}
		p.sane()
	}
}
