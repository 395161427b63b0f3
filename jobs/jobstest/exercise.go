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

func idsOf(rows []jobs.Row) (ids []jobs.ID) {
	for _, r := range rows {
		ids = append(ids, r.Job.ID)
	}
	return ids
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
