package jobstest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"workmanager/jobs"
)

// Exercise holds a kind of store to the promises of replication. newDisk returns
// an empty disk.
func Exercise(t *testing.T, newDisk func(t testing.TB) Disk) {
	for _, c := range []struct {
		name string
		run  func(w *world)
	}{
		{"feed_gives_each_row_once_at_its_latest", feedOrder},
		{"feed_goes_on_behind_the_limit", feedLimit},
		{"head_is_a_row's", headIsARow},
		{"echo_stays_away_and_joins_go_back", echo},
		{"echo_is_by_boot", echoByBoot},
		{"restart_needs_no_reset", restartResumes},
		{"lost_disk_resets", lostDisk},
		{"older_copy_resets", olderCopy},
		{"row_that_an_older_copy_put_back_is_seen", movedRow},
		{"own_older_copy_reads_again", ownOlderCopy},
		{"refill_reads_the_new_before_the_old", twoCursors},
		{"second_reset_refills_from_the_bottom", secondReset},
		{"late_chunk_moves_no_cursor", lateChunk},
		{"chunk_of_another_node_is_refused", foreignChunk},
		{"another_peer_is_read_from_the_start", anotherPeer},
		{"cursor_survives_a_restart", cursorStays},
		{"floor_is_learnt_before_the_rows", floorFirst},
		{"floor_raises_open_rows", floorRaises},
		{"floor_and_promise_survive_a_restart", floorStays},
		{"ended_unknown_row_below_the_floor_is_ignored", belowFloor},
		{"ended_known_row_below_the_floor_is_joined", knownBelowFloor},
		{"promise_lifts_what_is_made", promise},
		{"refresh_frees_the_floor", refresh},
		{"expired_numbers_are_not_given_again", expired},
		{"copy_moves_no_cursor", copies},
		{"copy_of_another_boot_is_ignored", copiesOfBoot},
		{"copy_below_the_floor_is_ignored", copiesBelow},
		{"take_over_raises_the_epoch", takeOver},
		{"take_over_is_by_urgency_then_age_within_capacity", takeOverOrder},
		{"give_away_moves_open_rows_of_this_home", giveAway},
		{"later_home_wins", laterHome},
		{"results_go_on_at_the_other_node", results},
		{"results_do_not_skip_a_row_that_moved", trapR},
		{"results_of_a_lost_disk_restart", resultsRestart},
		{"result_takes_one_number", oneRSeq},
		{"other_value_takes_a_new_number", newRSeq},
		{"purge_arrives", purgeArrives},
		{"purge_beats_what_comes_later", purgeBeats},
		{"key_conflict_keeps_the_smaller_work", keyConflict},
		{"one_key_at_both_nodes_is_one_row", oneKey},
		{"unknown_fields_are_kept", unknownFields},
		{"many_rows_known_and_unknown", manyRows},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.run(newWorld(t, func() Disk { return newDisk(t) }))
		})
	}
	for seed := range uint64(6) {
		t.Run(fmt.Sprintf("random_%d", seed), func(t *testing.T) {
			Random(t, newDisk, seed, 500, false)
		})
		t.Run(fmt.Sprintf("random_damaged_%d", seed), func(t *testing.T) {
			Random(t, newDisk, seed, 500, true)
		})
	}
}

func lseqs(rows []jobs.Row) (n []jobs.LSeq) {
	for _, r := range rows {
		n = append(n, r.LSeq)
	}
	return n
}

func idsOf(rows []jobs.Row) (ids []jobs.ID) {
	for _, r := range rows {
		ids = append(ids, r.Job.ID)
	}
	return ids
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

func results(w *world) {
	first := w.a.done(3)
	w.meetAll()
	w.b.done(2)
	w.meetAll()
	if w.a.ResultsHead() != 5 || w.b.ResultsHead() != 5 {
		w.t.Errorf("results heads %d and %d, want 5", w.a.ResultsHead(), w.b.ResultsHead())
	}
	for _, n := range []*node{w.a, w.b} {
		other := w.b
		if n == w.b {
			other = w.a
		}
		seen, cursor, restarted := n.follow("", 2)
		if len(seen) != 5 || restarted {
			w.t.Errorf("node %s: results %v, restarted %v", n.name, seen, restarted)
		}
		if again, _, restarted := n.follow(cursor, 2); len(again) != 0 || restarted {
			w.t.Errorf("node %s: results %v again, restarted %v", n.name, again, restarted)
		}
		w.now = w.now.Add(2 * time.Second)
		w.meetAll()
		seen, cursor, _ = n.follow("", 2)
		more := other.done(2)
		got, next, restarted := other.follow(cursor, 2)
		for _, j := range more {
			if !slices.Contains(got, j.ID) {
				w.t.Errorf("from %s to %s: result %v is skipped", n.name, other.name, j.ID)
			}
		}
		if restarted || len(got) != 2 {
			w.t.Errorf("from %s to %s: %d results, restarted %v, want the 2 new ones", n.name, other.name, len(got), restarted)
		}
		if got, _, restarted := n.follow(next, 2); restarted { // and back, before it knows of them
			w.t.Errorf("back to %s: %v, restarted %v", n.name, got, restarted)
		}
		for _, j := range more {
			other.record(j.ID, purge)
		}
		w.meetAll()
		_ = seen
	}
	if got, _, _ := w.a.follow("", 100); len(got) != 5 || got[0] != first[0].ID {
		w.t.Errorf("results of a: %v, want 5 that are not purged", got)
	}
	// In the middle of a page too: a cursor that stands below all pairs repeats, and never skips.
	page, err := w.a.Results(context.Background(), jobs.ResultsQuery{Limit: 2})
	w.a.ok(err)
	got, _, _ := w.b.follow(page.Cursor, 100)
	for _, r := range page.Results {
		got = append(got, r.ID)
	}
	for _, j := range first {
		if !slices.Contains(got, j.ID) {
			w.t.Errorf("after a page of a: result %v is skipped at b", j.ID)
		}
	}
}

// trapR is the counterexample of the results cursor: a result that was numbered
// early and moved in the feed behind others.
func trapR(w *world) {
	w.a.done(6)
	w.a.fresh(2)
	w.b.pullAll(w.a, 100) // b stands at 8
	r := w.a.fresh(1)[0]
	w.a.record(r.ID, complete(jobs.Value{1, 2, 3})) // R: lseq 10, rseq 7
	w.a.done(12)                                    // to lseq 22, rseq 19
	w.a.record(r.ID, handOut)                       // R: lseq 23, rseq 7
	w.b.pull(w.a, 5)                                // at 15, without R
	if w.b.has(r.ID) || w.b.Reading().Cursor.At != 15 {
		w.t.Fatalf("b stands at %+v, has R: %v", w.b.Reading().Cursor, w.b.has(r.ID))
	}
	seen, cursor, _ := w.b.follow("", 100)
	if len(seen) != 11 || slices.Contains(seen, r.ID) {
		w.t.Fatalf("%d results at b, want 11", len(seen))
	}
	more, _, restarted := w.a.follow(cursor, 100)
	if restarted || !slices.Contains(more, r.ID) {
		w.t.Errorf("R is skipped at a: %v, restarted %v", more, restarted)
	}
	if len(more) != 13 {
		w.t.Errorf("%d results at a, want 13: those above the 6 that were surely there", len(more))
	}
	w.meetAll()
	w.same()
}

func resultsRestart(w *world) {
	w.a.done(5)
	w.meetAll()
	backup := w.a.disk.Copy()
	w.a.done(5)
	w.b.pullAll(w.a, 100)
	_, atA, _ := w.a.follow("", 100)
	_, atB, _ := w.b.follow("", 100)
	w.a.replace(backup)
	w.a.done(7)
	for name, cursor := range map[string]string{"a": atA, "b": atB} {
		got, next, restarted := w.a.follow(cursor, 100)
		if !restarted || len(got) != 12 {
			w.t.Errorf("after a cursor of %s: %d results, restarted %v, want all 12 and a word", name, len(got), restarted)
		}
		if got, _, restarted := w.a.follow(next, 100); restarted || len(got) != 0 {
			w.t.Errorf("the cursor after it: %v, restarted %v", got, restarted)
		}
	}
	if _, _, restarted := w.b.follow("", 100); restarted {
		w.t.Error("the beginning is no restart")
	}
	if _, err := w.a.Results(context.Background(), jobs.ResultsQuery{After: "no cursor", Limit: 1}); jobs.CodeOf(err) != jobs.CodeInvalid {
		w.t.Errorf("Results() of no cursor = %v", err)
	}
}

func oneRSeq(w *world) {
	ctx := context.Background()
	j := w.a.fresh(1)[0]
	w.a.record(j.ID, complete(jobs.Value{1}))
	w.a.done(1)
	w.meetAll()
	w.a.record(j.ID, handOut)
	w.b.record(j.ID, func(j jobs.Job, _ func() time.Time) (jobs.Job, bool) { j.Attempts += 3; return j, true })
	w.meetAll()
	w.a.record(j.ID, purge)
	w.meetAll()
	for _, n := range []*node{w.a, w.b} {
		if n.ResultsHead() != 2 {
			w.t.Errorf("node %s: results head %d, want 2: changes of a result take no number", n.name, n.ResultsHead())
		}
		if page, err := n.Results(ctx, jobs.ResultsQuery{Limit: 9}); err != nil || len(page.Results) != 1 {
			w.t.Errorf("node %s: %+v, %v, want one result that is not purged", n.name, page, err)
		}
	}
	w.same()
}

// newRSeq: a value that changes takes a new number, so that who follows sees it;
// a result that is none any more loses it, and it is never given again.
func newRSeq(w *world) {
	j := w.a.fresh(1)[0]
	w.meetAll()
	w.a.record(j.ID, complete(jobs.Value{9}))
	w.b.record(j.ID, complete(jobs.Value{4})) // smaller bytes: stays, until recomputed
	_, cursor, _ := w.a.follow("", 9)
	w.meetAll()
	w.same()
	if w.a.ResultsHead() != 2 || w.b.ResultsHead() != 1 {
		w.t.Errorf("results heads %d and %d, want 2 and 1", w.a.ResultsHead(), w.b.ResultsHead())
	}
	if got, _, _ := w.a.follow(cursor, 9); !slices.Equal(got, []jobs.ID{j.ID}) {
		w.t.Errorf("after the value changed: %v, want it again", got)
	}
	if w.a.Disagreements() == 0 && w.b.Disagreements() == 0 {
		w.t.Error("two values for one job, and no alarm")
	}
	// A key conflict takes the result away.
	sub := w.work(1, 1)
	sub[0].Job.V1[0] = 200
	w.a.enqueue(sub...) // rseq 3
	sub[0].Job.V1[0], sub[0].Job.Iterations = 2, 50
	w.b.enqueue(sub...)
	w.meetAll()
	w.same()
	if r := w.a.row(sub[0].Job.ID); r.Job.Rank != jobs.Open {
		w.t.Errorf("the row is %+v, want the smaller work, open", r)
	}
	w.a.restart()
	w.a.done(1)
	if w.a.ResultsHead() != 4 {
		w.t.Errorf("results head %d, want 4: 3 was given to what is no result any more", w.a.ResultsHead())
	}
	w.meetAll()
	w.same()
}

func purgeArrives(w *world) {
	made := w.a.done(2)
	open := w.a.fresh(1)[0]
	w.meetAll()
	w.a.record(made[0].ID, purge)
	w.a.record(open.ID, purge)
	w.b.pullAll(w.a, 10)
	for _, id := range []jobs.ID{made[0].ID, open.ID} {
		j := w.b.row(id).Job
		if !j.Purged || j.V1 != (jobs.Value{}) || j.Result != (jobs.Value{}) || !j.Ended() {
			w.t.Errorf("the purge arrived as %+v", j)
		}
	}
	if got, _, _ := w.b.follow("", 9); !slices.Equal(got, []jobs.ID{made[1].ID}) {
		w.t.Errorf("results at b: %v, want the one that is not purged", got)
	}
	w.same()
	if came := w.a.pullAll(w.b, 10); len(came) != 0 {
		w.t.Errorf("a purge comes back: %v", came)
	}
}

// purgeBeats: no late row, result, copy or key brings the bytes of a purged job back.
func purgeBeats(w *world) {
	ctx := context.Background()
	sub := w.work(1, 100)
	j := w.a.enqueue(sub...)[0]
	w.meetAll()
	w.b.record(j.ID, complete(jobs.Value{7}))
	before := w.b.row(j.ID)
	w.a.record(j.ID, purge)
	late := w.a.ask(w.b, 10)
	w.a.take(late)
	if got := w.a.row(j.ID).Job; !got.Purged || got.Result != (jobs.Value{}) || got.V1 != (jobs.Value{}) || got.Rank != jobs.Cancelled {
		w.t.Errorf("a late result made a purged row %+v", got)
	}
	_, _, err := w.a.ReceiveCopies(ctx, w.b.Boot(), []jobs.Row{before})
	w.a.ok(err)
	w.meetAll()
	w.same()
	if got := w.b.row(j.ID).Job; !got.Purged || got.Result != (jobs.Value{}) || w.b.ResultsHead() != 1 {
		w.t.Errorf("the purge arrived over a result as %+v", got)
	}
	out, err := w.b.Enqueue(ctx, sub)
	if w.b.ok(err); !out[0].Existed || !out[0].Job.Purged {
		w.t.Errorf("Enqueue() under the key of a purged job = %+v", out[0])
	}
	w.b.restart()
	w.b.done(1)
	if w.b.ResultsHead() != 2 {
		w.t.Errorf("results head %d, want 2", w.b.ResultsHead())
	}
	w.meetAll()
	w.same()
}

func keyConflict(w *world) {
	sub := w.work(1, 100)
	other := slices.Clone(sub)
	other[0].Job.V1[0]++
	small := w.a.enqueue(sub...)[0]
	w.b.enqueue(other...)
	w.b.record(small.ID, checkpoint(40))
	twice := w.a.ask(w.b, 9)
	w.a.take(twice)
	w.a.take(twice)
	if n := w.a.Conflicts(); n != 1 {
		w.t.Errorf("%d conflicts after the same row came twice, want 1", n)
	}
	w.meetAll()
	w.same()
	if got := w.b.row(small.ID).Job; got.V1 != small.V1 || got.Checkpoint.Done != 0 || got.Origin != "a" {
		w.t.Errorf("the row is %+v, want the smaller work, %+v", got, small)
	}
	if n := w.a.Conflicts() + w.b.Conflicts(); n == 0 {
		w.t.Error("a conflict was not counted")
	}
	was := w.a.Conflicts() + w.b.Conflicts()
	w.meetAll()
	if n := w.a.Conflicts() + w.b.Conflicts(); n != was {
		w.t.Errorf("%d conflicts, were %d: one is counted once", n, was)
	}
	out, err := w.b.Enqueue(context.Background(), other)
	if w.b.ok(err); jobs.CodeOf(out[0].Err) != jobs.CodeConflict {
		w.t.Errorf("Enqueue() of the work that lost = %+v, want a conflict", out[0])
	}
	w.a.record(small.ID, complete(jobs.Value{3}))
	w.meetAll()
	w.same()
}

func oneKey(w *world) {
	sub := w.work(2, 100)
	a := w.a.enqueue(sub...)
	w.now = w.now.Add(time.Second)
	sub[0].Job.Priority = 5
	b := w.b.enqueue(sub...)
	w.b.record(b[1].ID, complete(jobs.Value{8}))
	w.meetAll()
	w.same()
	got := w.b.row(a[0].ID).Job
	if !got.CreatedAt.Equal(a[0].CreatedAt) || got.Priority != 5 || got.Origin != "a" || got.Home != "b" || got.OwnEpoch != 0 {
		w.t.Errorf("the row is %+v, joined of %+v and %+v", got, a[0], b[0])
	}
	if got := w.a.row(a[1].ID).Job; got.Rank != jobs.Completed || w.a.ResultsHead() != 1 {
		w.t.Errorf("the row is %+v, results head %d, want the result", got, w.a.ResultsHead())
	}
}

func unknownFields(w *world) {
	ctx := context.Background()
	made := w.a.fresh(9)
	w.b.pullAll(w.a, 100)
	c := w.b.ask(w.a, 10)
	ext := []byte{99, 1, 7}
	newer := w.a.row(made[0].ID)
	newer.Ext = ext
	fresh := jobs.Row{Job: w.work(1, 5)[0].Job.Born("a", w.now, nil), Ext: ext}
	c.Rows = append(c.Rows, newer, fresh)
	if changed := w.b.take(c); len(changed) != 2 || string(changed[0].Ext) != string(ext) || changed[0].Via != w.a.Boot() {
		w.t.Errorf("%+v changed, want two rows with what the newer release wrote", changed)
	}
	head := w.b.Head()
	c.From = w.b.Reading().Cursor
	if changed := w.b.take(c); len(changed) != 0 || w.b.Head() != head {
		w.t.Errorf("%+v changed the second time", changed)
	}
	for _, id := range []jobs.ID{newer.Job.ID, fresh.Job.ID} {
		w.b.record(id, checkpoint(2))
		if r := w.b.row(id); string(r.Ext) != string(ext) {
			w.t.Errorf("a change here lost what the newer release wrote: %+v", r)
		}
	}
	_, err := w.b.TakeOver(ctx, "a", jobs.Capacity{Jobs: 100, Iterations: 1 << 40})
	w.b.ok(err)
	w.b.ok(w.b.Raise(ctx, w.now.Add(time.Hour)))
	_, err = w.b.Refresh(ctx, w.now.Add(2*time.Hour), 100)
	w.b.ok(err)
	w.b.restart()
	w.meetAll()
	for _, n := range []*node{w.a, w.b} {
		if r := n.row(newer.Job.ID); string(r.Ext) != string(ext) {
			w.t.Errorf("node %s: %+v, want what the newer release wrote", n.name, r)
		}
	}
	w.same()
	older := w.a.row(newer.Job.ID) // a row that lacks them does not take them away
	older.Ext, older.Job.Attempts = nil, 77
	c = w.b.ask(w.a, 10)
	c.Rows = append(c.Rows, older)
	if changed := w.b.take(c); len(changed) != 1 || string(changed[0].Ext) != string(ext) || changed[0].Via != (jobs.ID{}) {
		w.t.Errorf("%+v changed, want the fields kept and the row sent back", changed)
	}
	w.b.record(newer.Job.ID, purge)
	if r := w.b.row(newer.Job.ID); len(r.Ext) != 0 {
		w.t.Errorf("a purge left %+v", r)
	}
	w.meetAll()
	w.same()
}

// manyRows: chunks of every mixture of what is here, open or ended, and what is not.
func manyRows(w *world) {
	for round := range 8 {
		half := w.a.fresh(20)
		done := w.a.done(13)
		w.b.pullAll(w.a, 7+round)
		w.b.restart() // what it remembers of open rows is gone
		w.a.fresh(round)
		w.a.done(8 - round)
		for i, j := range half {
			switch (i + round) % 4 {
			case 0:
				w.a.record(j.ID, checkpoint(5))
			case 1:
				w.a.record(j.ID, complete(jobs.Value{byte(i), 5}))
			case 2:
				w.b.record(j.ID, cancel)
			}
			if i < len(done) && (i+round)%3 == 0 {
				w.a.record(done[i].ID, handOut)
			}
			if i%5 == 0 {
				w.a.done(1)
			}
		}
		w.a.pullAll(w.b, 5)
		w.b.pullAll(w.a, 9+round)
		w.meetAll()
		w.same()
	}
	a, _, _ := w.a.follow("", 50)
	b, _, _ := w.b.follow("", 50)
	if len(a) == 0 || len(a) != len(b) || int64(len(a)) != w.a.Counts().Completed {
		w.t.Errorf("%d and %d results, %d completed", len(a), len(b), w.a.Counts().Completed)
	}
}
