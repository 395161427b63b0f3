package jobstest

import (
	"context"
	"time"

	"workmanager/jobs"
)

// floorFirst: the floor of a chunk stands before its rows, so an open row below
// it is raised as it comes in, and goes back.
func floorFirst(w *world) {
	job := w.a.fresh(1)[0]
	floor := w.now.Add(time.Hour)
	c := w.b.ask(w.a, 10)
	c.Floor = floor
	changed := w.b.take(c)
	if f, _ := w.b.Floor(); !f.Equal(floor) {
		w.t.Errorf("the floor is %v, want %v", f, floor)
	}
	if len(changed) != 1 || !changed[0].Job.GCAfter.Equal(floor) || changed[0].Via != (jobs.ID{}) {
		w.t.Errorf("an open row below the floor came in as %+v, want it at the floor and to go back", changed)
	}
	if came := w.a.pullAll(w.b, 10); len(came) != 1 || came[0].Job.ID != job.ID {
		w.t.Errorf("%v goes back, want the raised row", came)
	}
	w.meetAll()
	w.same()
	c = w.b.ask(w.a, 10) // a floor only rises
	c.Floor = floor.Add(-time.Minute)
	w.b.take(c)
	if f, _ := w.b.Floor(); !f.Equal(floor) {
		w.t.Errorf("the floor fell to %v", f)
	}
}

func floorRaises(w *world) {
	old := w.a.fresh(3)
	w.now = w.now.Add(time.Hour)
	floor := w.now
	w.now = w.now.Add(time.Minute)
	young := w.a.fresh(2)
	gone := w.a.record(old[2].ID, cancel)
	w.meetAll()
	head := w.b.Head()
	w.b.ok(w.b.Raise(context.Background(), floor))
	if w.b.Head() != head+2 {
		w.t.Errorf("head %d, was %d, want the two old open rows to move", w.b.Head(), head)
	}
	for _, j := range old[:2] {
		if r := w.b.row(j.ID); !r.Job.GCAfter.Equal(floor) || r.LSeq <= head {
			w.t.Errorf("an open row below the floor stays as %+v", r)
		}
	}
	if r := w.b.row(young[0].ID); !r.Job.Equal(young[0]) {
		w.t.Errorf("a row above the floor is %+v, was %+v", r, young[0])
	}
	if n := w.b.expire(); n != 0 || !w.b.has(gone.ID) {
		w.t.Errorf("%d rows were dropped that ended above the floor", n)
	}
	w.b.ok(w.b.Raise(context.Background(), floor)) // again: nothing
	if w.b.Head() != head+2 {
		w.t.Error("raising to the same floor changed rows")
	}
	w.meetAll()
	if f, _ := w.a.Floor(); !f.Equal(floor) {
		w.t.Errorf("a has not learnt the floor with the rows: %v", f)
	}
	w.same()
}

func floorStays(w *world) {
	ctx := context.Background()
	up := w.now.Add(-time.Hour)
	p, head, err := w.a.Promise(ctx, up)
	if w.a.ok(err); !p.Equal(up) || head != w.a.Head() {
		w.t.Errorf("Promise() = %v, %d, want %v", p, head, up)
	}
	w.a.ok(w.a.Raise(ctx, up.Add(-time.Hour)))
	w.a.restart()
	if f, p := w.a.Floor(); !f.Equal(up.Add(-time.Hour)) || !p.Equal(up) {
		w.t.Errorf("Floor() after a restart = %v, %v", f, p)
	}
}

func belowFloor(w *world) {
	gone := w.a.done(3)
	w.now = w.now.Add(time.Hour)
	kept := w.a.done(1)
	floor := w.now.Add(-time.Minute)
	c := w.b.ask(w.a, 10)
	c.Floor = floor
	changed := w.b.take(c)
	if len(changed) != 1 || changed[0].Job.ID != kept[0].ID || w.b.Head() != 1 {
		w.t.Errorf("%v came in, head %d, want only the one above the floor", changed, w.b.Head())
	}
	for _, j := range gone {
		if w.b.has(j.ID) {
			w.t.Errorf("job %v is back below the floor", j.ID)
		}
	}
	w.meetAll()
	w.a.expire()
	w.same()
}

// knownBelowFloor: a row that is here takes the end that it came to, however old.
func knownBelowFloor(w *world) {
	open := w.a.fresh(1)[0]
	w.meetAll()
	ended := w.a.record(open.ID, cancel)
	c := w.b.ask(w.a, 10)
	c.Floor = w.now.Add(time.Hour)
	if w.b.take(c); w.b.row(open.ID).Job.Rank != ended.Rank {
		w.t.Errorf("the row is %+v, want its end", w.b.row(open.ID))
	}
	// One that has ended here too, and is not dropped yet.
	w.now = w.now.Add(3 * time.Hour)
	other := w.a.done(1)[0]
	w.meetAll()
	w.b.restart()
	w.a.record(other.ID, handOut)
	c = w.b.ask(w.a, 10)
	c.Floor = other.Key().Add(time.Hour)
	if changed := w.b.take(c); len(changed) != 1 || !w.b.row(other.ID).Job.Pulled {
		w.t.Errorf("%v changed, the row is %+v, want it joined", changed, w.b.row(other.ID))
	}
	w.meetAll()
	w.same()
	w.a.expire()
	w.b.expire()
	w.same()
}

func promise(w *world) {
	ctx := context.Background()
	far := w.now.Add(time.Hour)
	p, _, err := w.a.Promise(ctx, far)
	if w.a.ok(err); !p.Equal(far) {
		w.t.Errorf("Promise() without an open job = %v, want %v", p, far)
	}
	job := w.a.fresh(1)[0]
	if job.CreatedAt.Before(far) {
		w.t.Errorf("a job is made at %v, below the promise %v", job.CreatedAt, far)
	}
	if ended := w.a.record(job.ID, cancel); ended.GCAfter.Before(far) {
		w.t.Errorf("a job ended with retention from %v, below the promise %v", ended.GCAfter, far)
	}
	open := w.a.fresh(2)
	w.a.restart() // the promise stays
	if j := w.a.fresh(1)[0]; j.CreatedAt.Before(far) {
		w.t.Errorf("after a restart a job is made at %v, below the promise %v", j.CreatedAt, far)
	}
	later := far.Add(2 * time.Hour)
	p, _, err = w.a.Promise(ctx, later)
	if w.a.ok(err); !p.Equal(open[0].CreatedAt) {
		w.t.Errorf("Promise() = %v, want the oldest open job's %v", p, open[0].CreatedAt)
	}
	if _, got := w.a.Floor(); !got.Equal(open[0].CreatedAt) {
		w.t.Errorf("the promise is %v, want %v", got, open[0].CreatedAt)
	}
	p, _, err = w.a.Promise(ctx, w.now.Add(-time.Hour)) // it never falls
	if w.a.ok(err); !p.Equal(w.now.Add(-time.Hour)) {
		w.t.Errorf("Promise() of the past = %v", p)
	}
	if _, got := w.a.Floor(); !got.Equal(open[0].CreatedAt) {
		w.t.Errorf("the promise fell to %v", got)
	}
	// The peer's open rows count too.
	w.meetAll()
	p, _, err = w.b.Promise(ctx, later)
	if w.b.ok(err); !p.Equal(open[0].CreatedAt) {
		w.t.Errorf("Promise() of the other node = %v, want %v", p, open[0].CreatedAt)
	}
	w.a.ok(w.a.Raise(ctx, far.Add(3*time.Hour))) // a floor above the promise is one too
	if j := w.a.fresh(1)[0]; j.CreatedAt.Before(far.Add(3 * time.Hour)) {
		w.t.Errorf("a job is made at %v, below the floor", j.CreatedAt)
	}
}

func refresh(w *world) {
	ctx := context.Background()
	mine := w.a.fresh(3)
	urgent := w.work(2, 50)
	urgent[0].Job.Priority, urgent[1].Job.Priority = 9, 4
	mine = append(mine, w.a.enqueue(urgent...)...)
	theirs := w.b.fresh(1)[0]
	w.meetAll()
	w.now = w.now.Add(time.Hour)
	young := w.a.fresh(1)[0]
	n, err := w.a.Refresh(ctx, w.now.Add(-time.Minute), 2)
	if w.a.ok(err); n != 2 {
		w.t.Errorf("Refresh() = %d, want 2, the limit", n)
	}
	n, err = w.a.Refresh(ctx, w.now.Add(-time.Minute), 100)
	if w.a.ok(err); n != 3 {
		w.t.Errorf("Refresh() = %d, want the 3 others", n)
	}
	n, err = w.a.Refresh(ctx, w.now.Add(-time.Minute), 100)
	if w.a.ok(err); n != 0 {
		w.t.Errorf("Refresh() = %d, want 0: all are young", n)
	}
	for _, j := range mine {
		if got := w.a.row(j.ID).Job; got.GCAfter.Before(w.now) {
			w.t.Errorf("job %+v was not refreshed", got)
		}
	}
	if got := w.a.row(theirs.ID).Job; !got.Equal(theirs) {
		w.t.Errorf("a job of the other home is %+v, was %+v", got, theirs)
	}
	if got := w.a.row(young.ID).Job; !got.Equal(young) {
		w.t.Errorf("a young job is %+v, was %+v", got, young)
	}
	p, _, err := w.a.Promise(ctx, w.now)
	if w.a.ok(err); !p.Equal(theirs.CreatedAt) {
		w.t.Errorf("Promise() = %v, want %v, of the one that is not ours", p, theirs.CreatedAt)
	}
	w.b.record(theirs.ID, cancel)
	w.meetAll()
	p, _, err = w.a.Promise(ctx, w.now)
	if w.a.ok(err); !p.Equal(w.now) {
		w.t.Errorf("Promise() = %v, want %v", p, w.now)
	}
	w.a.record(young.ID, cancel)
	oldest := w.now.Add(time.Hour)
	for _, r := range w.a.rows() {
		if !r.Job.Ended() && r.Job.Key().Before(oldest) {
			oldest = r.Job.Key()
		}
	}
	p, _, err = w.a.Promise(ctx, w.now.Add(time.Hour))
	if w.a.ok(err); !p.Equal(oldest) {
		w.t.Errorf("Promise() = %v, want %v, of the first that was refreshed", p, oldest)
	}
	w.meetAll()
	w.same()
}

func expired(w *world) {
	w.a.done(4)
	open := w.a.fresh(1)[0]
	w.a.record(open.ID, checkpoint(3))
	last := w.a.done(1)[0]
	w.meetAll()
	head, rhead := w.a.Head(), w.a.ResultsHead()
	w.now = w.now.Add(time.Hour)
	w.a.ok(w.a.Raise(context.Background(), w.now))
	if n := w.a.expire(); n != 5 || w.a.has(last.ID) || !w.a.has(open.ID) {
		w.t.Errorf("%d dropped, want 5, and not the open one", n)
	}
	w.a.recount()
	w.a.restart()
	if w.a.Head() < head || w.a.ResultsHead() != rhead {
		w.t.Errorf("heads %d and %d after what had them was dropped, were %d and %d", w.a.Head(), w.a.ResultsHead(), head, rhead)
	}
	if c, _ := w.b.pull(w.a, 10); c.Reset {
		w.t.Errorf("retention led to a reset: %+v", c)
	}
	w.b.expire()
	w.a.done(1)
	if w.a.ResultsHead() != rhead+1 {
		w.t.Errorf("results head %d, want %d", w.a.ResultsHead(), rhead+1)
	}
	w.meetAll()
	w.same()
	// And where nothing is left at all.
	w.a.record(open.ID, cancel)
	w.meetAll()
	head = w.a.Head()
	w.now = w.now.Add(time.Hour)
	w.a.ok(w.a.Raise(context.Background(), w.now))
	w.a.expire()
	if got := len(w.a.rows()); got != 0 || w.a.Head() != head {
		w.t.Errorf("%d rows are left, head %d, was %d", got, w.a.Head(), head)
	}
	w.a.restart()
	if w.a.Head() != head {
		w.t.Errorf("head %d of an empty store after a restart, was %d", w.a.Head(), head)
	}
	if c, _ := w.b.pull(w.a, 10); c.Reset {
		w.t.Errorf("retention of all led to a reset: %+v", c)
	}
	w.b.expire()
	w.meetAll()
	w.same()
}

func copiesBelow(w *world) {
	ctx := context.Background()
	made := w.a.fresh(3)
	rows := []jobs.Row{w.a.row(made[0].ID), w.a.row(made[1].ID)}
	rows[1].Job, _ = rows[1].Job.Cancel(w.now)
	w.b.meet(w.a)
	c := w.b.ask(w.a, 10)
	c.Rows = nil
	w.b.take(c) // b reads a, and has none of the rows
	_, _, err := w.b.Promise(ctx, w.now.Add(time.Minute))
	w.b.ok(err)
	changed, ignored, err := w.b.ReceiveCopies(ctx, w.a.Boot(), rows)
	if w.b.ok(err); len(changed) != 0 || ignored != 2 || len(w.b.rows()) != 0 {
		w.t.Errorf("copies below the promise: %v, %d ignored, want all", changed, ignored)
	}
	w.b.ok(w.b.Raise(ctx, w.now.Add(time.Hour)))
	changed, ignored, err = w.b.ReceiveCopies(ctx, w.a.Boot(), rows)
	if w.b.ok(err); len(changed) != 0 || ignored != 2 || len(w.b.rows()) != 0 {
		w.t.Errorf("copies below the floor: %v, %d ignored, want all: one may be of a job that was dropped", changed, ignored)
	}
}
