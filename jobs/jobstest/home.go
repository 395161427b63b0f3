package jobstest

import (
	"context"
	"slices"

	"workmanager/jobs"
)

func copies(w *world) {
	ctx := context.Background()
	w.a.fresh(2)
	w.b.pullAll(w.a, 10)
	made := w.a.fresh(2)
	rows := []jobs.Row{w.a.row(made[0].ID), w.a.row(made[1].ID)}
	was := w.b.Reading()
	changed, ignored, err := w.b.ReceiveCopies(ctx, w.a.Boot(), rows)
	if w.b.ok(err); len(changed) != 2 || ignored != 0 || w.b.Reading() != was {
		w.t.Errorf("ReceiveCopies() = %v, %d, reading %+v, was %+v", changed, ignored, w.b.Reading(), was)
	}
	for _, c := range slices.Concat(changed, w.b.committed) {
		if !c.Copy || c.Via != w.a.Boot() {
			w.t.Errorf("a copy is told as %+v", c)
		}
	}
	changed, ignored, err = w.b.ReceiveCopies(ctx, w.a.Boot(), rows)
	if w.b.ok(err); len(changed) != 0 || ignored != 0 {
		w.t.Errorf("ReceiveCopies() of what is here = %v, %d", changed, ignored)
	}
	head := w.b.Head()
	c, changed := w.b.pull(w.a, 10)
	if len(c.Rows) != 2 || len(changed) != 0 || w.b.Head() != head || !w.b.Reading().Cursor.Covers(rows[1].LSeq) {
		w.t.Errorf("after the copies the feed gave %d rows and changed %d, cursor %+v", len(c.Rows), len(changed), w.b.Reading().Cursor)
	}
	w.a.record(made[0].ID, complete(jobs.Value{4}))
	changed, _, err = w.b.ReceiveCopies(ctx, w.a.Boot(), []jobs.Row{w.a.row(made[0].ID)})
	if w.b.ok(err); len(changed) != 1 || !changed[0].Copy || w.b.ResultsHead() != 1 {
		w.t.Errorf("a copy of a result: %v, results head %d", changed, w.b.ResultsHead())
	}
	if came := w.a.pullAll(w.b, 10); len(came) != 0 {
		w.t.Errorf("copies come back: %v", came)
	}
	w.meetAll()
	w.same()
}

func copiesOfBoot(w *world) {
	ctx := context.Background()
	made := w.a.fresh(2)
	row := w.a.row(made[0].ID)
	changed, ignored, err := w.b.ReceiveCopies(ctx, w.a.Boot(), []jobs.Row{row}) // before b has read anything
	if w.b.ok(err); len(changed) != 0 || ignored != 1 || w.b.has(row.Job.ID) {
		w.t.Errorf("a copy of a boot that is not read: %v, %d", changed, ignored)
	}
	w.b.pull(w.a, 1)
	boot := w.a.Boot()
	w.a.restart()
	w.a.record(made[1].ID, cancel)
	changed, ignored, err = w.b.ReceiveCopies(ctx, w.a.Boot(), []jobs.Row{w.a.row(made[1].ID)})
	if w.b.ok(err); len(changed) != 0 || ignored != 1 {
		w.t.Errorf("a copy of the next boot: %v, %d", changed, ignored)
	}
	w.b.pull(w.a, 1)
	_, ignored, err = w.b.ReceiveCopies(ctx, boot, []jobs.Row{row})
	if w.b.ok(err); ignored != 1 {
		w.t.Error("a copy of the boot before was taken")
	}
	w.meetAll()
	w.same()
}

func takeOver(w *world) {
	ctx := context.Background()
	made := w.a.fresh(3)
	w.meetAll()
	taken, err := w.b.TakeOver(ctx, "a", jobs.Capacity{Jobs: 1, Iterations: 1000})
	if w.b.ok(err); len(taken) != 1 || taken[0].ID != made[0].ID || taken[0].Home != "b" || taken[0].OwnEpoch != 1 || taken[0].Origin != "a" {
		w.t.Fatalf("TakeOver() = %+v, want the oldest of a", taken)
	}
	if r := w.b.row(made[0].ID); !r.Job.Equal(taken[0]) {
		w.t.Errorf("the row is %+v, TakeOver() said %+v", r, taken[0])
	}
	if came := w.a.pullAll(w.b, 10); len(came) != 1 || w.a.row(made[0].ID).Job.Home != "b" {
		w.t.Errorf("%v went to the old home", came)
	}
	w.same()
	back, err := w.a.TakeOver(ctx, "b", jobs.Capacity{Jobs: 10, Iterations: 1000})
	if w.a.ok(err); len(back) != 1 || back[0].OwnEpoch != 2 || back[0].Home != "a" {
		w.t.Errorf("TakeOver() back = %+v", back)
	}
	if none, err := w.a.TakeOver(ctx, "nobody", jobs.Capacity{Jobs: 10, Iterations: 1000}); err != nil || len(none) != 0 {
		w.t.Errorf("TakeOver() of nobody's = %v, %v", none, err)
	}
	w.meetAll()
	w.same()
}

func takeOverOrder(w *world) {
	ctx := context.Background()
	batch := w.work(8, 100)
	for i, p := range []uint8{0, 9, 0, 3, 9, 0, 3, 0} {
		batch[i].Job.Priority = p
	}
	made := w.a.enqueue(batch...)
	w.a.record(made[1].ID, checkpoint(90)) // 10 to do
	w.a.record(made[0].ID, cancel)
	w.meetAll()
	taken, err := w.b.TakeOver(ctx, "a", jobs.Capacity{Jobs: 4, Iterations: 10 + 99 + 99 + 1})
	w.b.ok(err)
	var got []jobs.ID
	for _, j := range taken {
		got = append(got, j.ID)
	}
	if want := []jobs.ID{made[1].ID, made[4].ID, made[3].ID}; !slices.Equal(got, want) {
		w.t.Errorf("TakeOver() = %v, want %v: within the iterations", got, want)
	}
	taken, err = w.b.TakeOver(ctx, "a", jobs.Capacity{Jobs: 2, Iterations: 1})
	if w.b.ok(err); len(taken) != 1 || taken[0].ID != made[6].ID {
		w.t.Errorf("TakeOver() = %+v, want one job: it is always within capacity", taken)
	}
	taken, err = w.b.TakeOver(ctx, "a", jobs.Capacity{Jobs: 2, Iterations: 1 << 40})
	if w.b.ok(err); len(taken) != 2 || taken[0].ID != made[2].ID || taken[1].ID != made[5].ID {
		w.t.Errorf("TakeOver() = %+v, want two jobs, the oldest", taken)
	}
	w.meetAll()
	w.same()
}

func giveAway(w *world) {
	ctx := context.Background()
	made := w.a.fresh(3)
	ended := w.a.record(made[2].ID, cancel)
	theirs := w.b.fresh(1)[0]
	w.meetAll()
	moved, err := w.a.GiveAway(ctx, []jobs.ID{made[1].ID, ended.ID, theirs.ID, {9}, made[1].ID}, "b")
	if w.a.ok(err); !slices.Equal(moved, []jobs.ID{made[1].ID}) {
		w.t.Errorf("GiveAway() = %v, want only the open one of this home", moved)
	}
	if j := w.a.row(made[1].ID).Job; j.Home != "b" || j.OwnEpoch != 1 {
		w.t.Errorf("the row is %+v", j)
	}
	moved, err = w.a.GiveAway(ctx, []jobs.ID{theirs.ID, made[1].ID, ended.ID}, "c")
	if w.a.ok(err); len(moved) != 0 {
		w.t.Errorf("GiveAway() = %v of rows that are not this home's to give", moved)
	}
	w.meetAll()
	if j := w.b.row(made[1].ID).Job; j.Home != "b" || j.OwnEpoch != 1 {
		w.t.Errorf("the row at its new home is %+v", j)
	}
	w.same()
}

// laterHome: both move one row in a partition; the higher epoch wins, then the name.
func laterHome(w *world) {
	ctx := context.Background()
	made := w.a.fresh(2)
	w.meetAll()
	for range 2 {
		_, err := w.a.GiveAway(ctx, []jobs.ID{made[0].ID}, "b")
		w.a.ok(err)
		_, err = w.a.TakeOver(ctx, "b", jobs.Capacity{Jobs: 9, Iterations: 1000})
		w.a.ok(err)
	}
	_, err := w.b.TakeOver(ctx, "a", jobs.Capacity{Jobs: 9, Iterations: 1000})
	w.b.ok(err)
	w.meetAll()
	if j := w.b.row(made[0].ID).Job; j.Home != "a" || j.OwnEpoch != 4 {
		w.t.Errorf("the row is %+v, want home a by epoch 4", j)
	}
	if j := w.a.row(made[1].ID).Job; j.Home != "b" || j.OwnEpoch != 1 {
		w.t.Errorf("the row is %+v, want home b by epoch 1", j)
	}
	w.same()
}
