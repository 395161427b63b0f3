package jobstest

import (
	"context"
	"slices"
	"time"

	"workmanager/jobs"
)

func lseqs(rows []jobs.Row) (n []jobs.LSeq) {
	for _, r := range rows {
		n = append(n, r.LSeq)
	}
	return n
}

func feedOrder(w *world) {
	made := w.a.fresh(5)
	w.a.record(made[1].ID, checkpoint(10))
	w.a.record(made[1].ID, checkpoint(20))
	w.a.record(made[0].ID, cancel)
	c, changed := w.b.pull(w.a, 100)
	want := []jobs.ID{made[2].ID, made[3].ID, made[4].ID, made[1].ID, made[0].ID}
	if got := idsOf(c.Rows); !slices.Equal(got, want) || !slices.IsSorted(lseqs(c.Rows)) {
		w.t.Errorf("the feed gives %v at %v, want %v", got, lseqs(c.Rows), want)
	}
	if len(changed) != 5 || c.More || w.b.Head() != 5 {
		w.t.Errorf("%d rows changed, head %d, want 5 and 5: a row is read once, whatever became of it: %+v", len(changed), w.b.Head(), c.Next)
	}
	for i, ch := range changed {
		if ch.Via != w.a.Boot() || ch.Copy || ch.LSeq == 0 || !ch.Job.Equal(c.Rows[i].Job) {
			w.t.Errorf("Receive() tells %+v of %+v", ch, c.Rows[i])
		}
	}
	if len(w.b.committed) != 5 {
		w.t.Errorf("OnCommit told %d rows, want 5", len(w.b.committed))
	}
	if c, changed := w.b.pull(w.a, 100); len(c.Rows) != 0 || len(changed) != 0 {
		w.t.Errorf("the feed gives %v again", c.Rows)
	}
	w.same()
}

func feedLimit(w *world) {
	w.a.fresh(23)
	var got []jobs.LSeq
	for i := 1; ; i++ {
		c, _ := w.b.pull(w.a, 5)
		got = append(got, lseqs(c.Rows)...)
		if i == 1 && !c.Reset || i > 1 && c.Reset {
			w.t.Errorf("chunk %d: reset %v", i, c.Reset)
		}
		if !c.More {
			break
		}
		if !w.b.Reading().Amnesia {
			w.t.Errorf("chunk %d: the reading is whole though there is more: %+v", i, w.b.Reading())
		}
	}
	if len(got) != 23 || !slices.IsSorted(got) || w.b.Reading().Amnesia {
		w.t.Errorf("rows %v, want 23 ascending; reading %+v", got, w.b.Reading())
	}
	w.a.fresh(7) // and again behind a cursor, by bytes
	q := jobs.FeedQuery{Cursor: w.b.Reading().Cursor, Me: w.b.Boot(), Rows: 1000, Bytes: 750}
	c, err := w.a.Feed(context.Background(), q)
	w.a.ok(err)
	if len(c.Rows) != 3 || !c.More || c.Next.At != 26 || c.Next.SeenHead != 30 || c.HasRCov {
		w.t.Errorf("Feed() of 750 bytes = %+v, want 3 rows and more", c)
	}
	q.Bytes = 0
	if c, err := w.a.Feed(context.Background(), q); err != nil || len(c.Rows) != 1 {
		w.t.Errorf("Feed() of 0 bytes = %+v, %v, want one row: it must move on", c, err)
	}
	w.meetAll()
	w.same()
}

// headIsARow: a reader that has read all stands at the head; rows that came and
// changed nothing must not leave the head above it for ever.
func headIsARow(w *world) {
	made := w.a.done(12)
	w.meetAll()
	late := w.b.ask(w.a, 100)
	for _, j := range made {
		late.Rows = append(late.Rows, w.a.row(j.ID))
	}
	late.Rows[4].Job.Pulled = true // one of them changes something
	late.Rows = append(late.Rows[:8:8], append([]jobs.Row{{Job: w.work(1, 1)[0].Job.Born("a", w.now, nil)}}, late.Rows[8:]...)...)
	rhead := w.b.ResultsHead()
	changed := w.b.take(late)
	if len(changed) != 2 || w.b.ResultsHead() != rhead+1 {
		w.t.Errorf("%d rows changed, results head %d, was %d, want 2 and one more", len(changed), w.b.ResultsHead(), rhead)
	}
	late.From = w.b.Reading().Cursor
	if changed := w.b.take(late); len(changed) != 0 || w.b.ResultsHead() != rhead+1 {
		w.t.Errorf("%d rows changed the second time, results head %d, want %d", len(changed), w.b.ResultsHead(), rhead+1)
	}
	w.a.pullAll(w.b, 100)
	if at := w.a.Reading().Cursor.At; at != w.b.Head() {
		w.t.Errorf("who has read all stands at %d, the head is %d", at, w.b.Head())
	}
	_, head, err := w.b.Promise(context.Background(), w.now)
	if w.b.ok(err); head != w.a.Reading().Cursor.At {
		w.t.Errorf("Promise() gives head %d, who has read all stands at %d: no round of the floor would pass", head, w.a.Reading().Cursor.At)
	}
}

func echo(w *world) {
	made := w.a.fresh(3)
	w.b.pullAll(w.a, 100)
	if came := w.a.pullAll(w.b, 100); len(came) != 0 {
		w.t.Errorf("%d rows come back as they were sent", len(came))
	}
	// Both change one row: each has something that the other lacks.
	w.a.record(made[0].ID, checkpoint(10))
	w.b.record(made[0].ID, func(j jobs.Job, _ func() time.Time) (jobs.Job, bool) { j.Attempts = 5; return j, true })
	ca := w.a.ask(w.b, 100)
	cb := w.b.ask(w.a, 100)
	w.a.take(ca)
	w.b.take(cb)
	if via := w.b.committed[0].Via; via != (jobs.ID{}) {
		w.t.Errorf("a join that added something has via %v", via)
	}
	came := w.a.pullAll(w.b, 100)
	if len(came) != 1 || came[0].Job.Attempts != 5 || came[0].Job.Checkpoint.Done != 10 {
		w.t.Errorf("the join does not go back: %v", came)
	}
	w.meetAll()
	w.same()
	// A change here of a row from there goes there.
	w.b.record(made[1].ID, cancel)
	if came := w.a.pullAll(w.b, 100); len(came) != 1 {
		w.t.Errorf("%d rows come, want the one that was cancelled", len(came))
	}
	w.same()
}

func echoByBoot(w *world) {
	w.a.fresh(4)
	w.b.pullAll(w.a, 100)
	w.a.pullAll(w.b, 100)
	w.a.replace(w.newDisk()) // all is lost, the name is the same
	w.a.meet(w.b)
	if came := w.a.pullAll(w.b, 3); len(came) != 4 {
		w.t.Errorf("%d rows come back to an empty disk, want 4", len(came))
	}
	w.meetAll()
	w.same()
}

func restartResumes(w *world) {
	w.a.fresh(6)
	w.b.pullAll(w.a, 100)
	for range 3 {
		w.a.restart()
		w.b.restart()
		w.a.fresh(2)
		c, _ := w.b.pull(w.a, 100)
		if c.Reset || len(c.Rows) != 2 || w.b.Reading().Amnesia {
			w.t.Errorf("after a restart: %+v, want two rows", c)
		}
	}
	if n := len(w.a.Chain()); n != 4 {
		w.t.Errorf("%d boots in the chain, want 4", n)
	}
	w.same()
}

func lostDisk(w *world) {
	w.a.fresh(6)
	w.b.fresh(2)
	w.meetAll()
	before := w.a.ID()
	w.a.replace(w.newDisk())
	w.a.meet(w.b)
	if w.a.ID() == before || !w.a.Reading().Amnesia {
		w.t.Errorf("an empty disk has the ID of the old one, or knows all: %+v", w.a.Reading())
	}
	fresh := w.a.fresh(9) // the numbers that b has read stand for other rows now
	c, _ := w.b.pull(w.a, 100)
	if !c.Reset || len(c.Rows) != 9 {
		w.t.Errorf("after the disk was lost: %+v, want a reset and 9 rows", c)
	}
	if !w.b.has(fresh[0].ID) {
		w.t.Error("a new row under an old number is not read")
	}
	w.meetAll()
	w.same()
	if got := len(w.a.rows()); got != 17 {
		w.t.Errorf("%d rows, want 17", got)
	}
}

func olderCopy(w *world) {
	w.a.fresh(6)
	w.meetAll()
	backup := w.a.disk.Copy()
	w.a.fresh(3)
	w.b.pullAll(w.a, 100)
	w.a.replace(backup)
	fresh := w.a.fresh(3)
	c, _ := w.b.pull(w.a, 100)
	if !c.Reset || !w.b.has(fresh[0].ID) || !w.b.has(fresh[2].ID) {
		w.t.Errorf("after an older copy was put back: %+v, want a reset and the new rows", c)
	}
	w.meetAll()
	w.same()
	if got := len(w.b.rows()); got != 12 {
		w.t.Errorf("%d rows, want 12", got)
	}
}

// movedRow: why the head that was seen decides, and not the place. X moves from
// below the cursor to above it, and an older copy puts it back below.
func movedRow(w *world) {
	x := w.a.fresh(1)[0]
	w.a.fresh(3)
	backup := w.a.disk.Copy() // x at 1
	w.a.fresh(3)
	w.a.record(x.ID, checkpoint(3)) // x at 8
	c := w.b.ask(w.a, 100)
	w.b.take(jobs.Chunk{Peer: "a", From: c.From, Boot: c.Boot, Reset: true, Next: jobs.Cursor{Boot: c.Boot, At: 0, SeenHead: 8}}) // as a reader that reads from the bottom only
	if c, _ := w.b.pull(w.a, 3); c.Next.At != 4 || w.b.has(x.ID) {
		w.t.Fatalf("b stands at %+v and has x: %v", c.Next, w.b.has(x.ID))
	}
	w.a.replace(backup)
	w.meetAll()
	if !w.b.has(x.ID) {
		w.t.Error("the row that went back below the cursor is never read")
	}
	w.same()
}

func ownOlderCopy(w *world) {
	w.a.fresh(4)
	w.meetAll()
	backup := w.b.disk.Copy()
	w.a.fresh(4)
	w.b.fresh(1)
	w.meetAll()
	w.b.replace(backup)
	if got := len(w.b.rows()); got != 4 {
		w.t.Errorf("%d rows in the copy, want 4", got)
	}
	w.meetAll()
	w.same()
	if got := len(w.b.rows()); got != 9 {
		w.t.Errorf("%d rows, want 9", got)
	}
}

func twoCursors(w *world) {
	old := w.a.fresh(10)
	if c, _ := w.b.pull(w.a, 4); !c.Reset || len(c.Rows) != 4 || c.Next.At != 10 || c.Next.BackAt != 4 || c.Next.BackTo != 10 || !c.More || c.HasRCov {
		w.t.Fatalf("first chunk: %+v, want old rows to 4", c)
	}
	fresh := w.a.fresh(2)
	w.a.record(old[6].ID, cancel) // from 7 to 13
	c, _ := w.b.pull(w.a, 4)
	if got, want := idsOf(c.Rows), []jobs.ID{fresh[0].ID, fresh[1].ID, old[6].ID, old[4].ID}; !slices.Equal(got, want) {
		w.t.Errorf("second chunk: %v, want what is new, then one old row: %v", got, want)
	}
	cur := w.b.Reading().Cursor
	for l, want := range map[jobs.LSeq]bool{1: true, 4: true, 5: true, 6: false, 10: false, 11: true, 13: true, 14: false} {
		if cur.Covers(l) != want {
			w.t.Errorf("%+v covers %d: %v, want %v", cur, l, !want, want)
		}
	}
	if !w.b.Reading().Amnesia {
		w.t.Error("the reading is whole in the middle of a refill")
	}
	c, _ = w.b.pull(w.a, 4)
	if !slices.Equal(lseqs(c.Rows), []jobs.LSeq{6, 8, 9, 10}) {
		w.t.Errorf("third chunk: %v, want 6, 8, 9, 10", lseqs(c.Rows))
	}
	w.meetAll()
	if r := w.b.Reading(); r.Amnesia || r.Cursor.BackAt != 0 || r.Cursor.BackTo != 0 {
		w.t.Errorf("after the refill: %+v", r)
	}
	w.same()
}

func secondReset(w *world) {
	w.a.fresh(12)
	backup := w.a.disk.Copy()
	w.a.fresh(3)
	w.b.pull(w.a, 4)
	w.b.pull(w.a, 4)
	w.a.replace(backup) // in the middle of the refill
	w.a.fresh(4)
	c, _ := w.b.pull(w.a, 3)
	if !c.Reset || c.Next.BackAt != 3 {
		w.t.Errorf("chunk after the second reset: %+v, want the bottom", c)
	}
	w.meetAll()
	w.same()
	// And where it matters: the rows at the bottom are other rows now.
	w.a.replace(w.newDisk())
	w.a.meet(w.b)
	w.a.fresh(9)
	w.b.pull(w.a, 5)
	w.a.replace(w.newDisk())
	fresh := w.a.fresh(9)
	for w.b.Reading().Amnesia || w.b.Reading().Cursor.Boot != w.a.Boot() {
		w.b.pull(w.a, 2)
	}
	for _, j := range fresh {
		if !w.b.has(j.ID) {
			w.t.Errorf("row %v of the second empty disk was not read", j.ID)
		}
	}
}

func lateChunk(w *world) {
	w.a.fresh(3)
	first := w.b.ask(w.a, 2)
	w.b.take(first)
	second := w.b.ask(w.a, 2)
	w.b.take(second)
	want := w.b.Reading()
	head := w.b.Head()
	if changed := w.b.take(first); len(changed) != 0 || w.b.Reading() != want || w.b.Head() != head {
		w.t.Errorf("a late chunk changed %v, the reading is %+v, was %+v", changed, w.b.Reading(), want)
	}
	// Its rows are good, if they are new.
	late := w.b.ask(w.a, 9)
	w.a.fresh(1)
	now := w.b.ask(w.a, 9)
	late.Rows = append(late.Rows, now.Rows...)
	w.b.take(jobs.Chunk{Peer: "a", From: now.From, Boot: now.Boot, Next: now.From.Advance(now.Boot, now.Next.SeenHead, now.From.At, 0), Rows: nil})
	if changed := w.b.take(late); len(changed) != 1 {
		w.t.Errorf("a late chunk with a new row changed %v", changed)
	}
	w.meetAll()
	w.same()
}

func foreignChunk(w *world) {
	w.a.fresh(3)
	c := w.b.ask(w.a, 2)
	c.Peer = "c"
	was, head := w.b.Reading(), w.b.Head()
	if _, err := w.b.Receive(context.Background(), c); err == nil || w.b.Reading() != was || w.b.Head() != head {
		w.t.Errorf("a chunk of another node: %v, reading %+v, head %d", err, w.b.Reading(), w.b.Head())
	}
}

func anotherPeer(w *world) {
	ctx := context.Background()
	w.a.fresh(3)
	w.b.ok(w.b.SetPeer(ctx, "a", "10.0.0.1:80", "10.0.0.1:81"))
	w.meetAll()
	had := w.b.Reading()
	if had.API != "10.0.0.1:80" || had.Gossip != "10.0.0.1:81" || had.Cursor.At != 3 {
		w.t.Errorf("Reading() = %+v", had)
	}
	w.b.ok(w.b.SetPeer(ctx, "a", "", "10.0.0.2:81")) // the cursor stays
	if had.Gossip = "10.0.0.2:81"; w.b.Reading() != had {
		w.t.Errorf("Reading() = %+v, want %+v", w.b.Reading(), had)
	}
	for _, name := range []string{"c", "0"} { // before and behind the old one
		want := jobs.Reading{Peer: name, Amnesia: true, API: "10.0.0.3:80"}
		w.b.ok(w.b.SetPeer(ctx, name, "10.0.0.3:80", ""))
		if got := w.b.Reading(); got != want {
			w.t.Errorf("Reading() of another peer = %+v, want %+v", got, want)
		}
		w.b.restart()
		if got := w.b.Reading(); got != want {
			w.t.Errorf("Reading() of another peer after a restart = %+v, want %+v", got, want)
		}
	}
}

func cursorStays(w *world) {
	w.a.fresh(10)
	for range 4 {
		w.b.pull(w.a, 3)
		was := w.b.Reading()
		w.b.restart()
		if got := w.b.Reading(); got != was {
			w.t.Errorf("Reading() after a restart = %+v, was %+v", got, was)
		}
	}
	// One that moved without rows may go back, but not far, and never out of step.
	w.b.fresh(1)
	w.a.pullAll(w.b, 10)
	w.b.pull(w.a, 3) // passes the echo
	was := w.b.Reading()
	w.b.restart()
	if got := w.b.Reading(); got.Cursor.At > was.Cursor.At || got.Amnesia || got.Peer != "a" {
		w.t.Errorf("Reading() after a restart = %+v, was %+v", got, was)
	}
	w.now = w.now.Add(2 * time.Second)
	w.b.pull(w.a, 3)
	was = w.b.Reading()
	w.b.restart()
	if got := w.b.Reading(); got != was {
		w.t.Errorf("Reading() after a quiet second and a restart = %+v, was %+v", got, was)
	}
	w.meetAll()
	w.same()
}
