package jobs

import (
	"fmt"
	"math"
	"time"
)

// Rank is what a row keeps of a job's state, in merge order (J1).
type Rank uint8

// The ranks. Completed is the top because a client that has seen a value must
// never see it vanish.
const (
	Open Rank = iota
	Failed
	Cancelled
	Completed
)

// String returns the rank's name.
func (r Rank) String() string {
	switch r {
	case Open:
		return "open"
	case Failed:
		return "failed"
	case Cancelled:
		return "cancelled"
	case Completed:
		return "completed"
	}
	return fmt.Sprintf("Rank(%d)", uint8(r))
}

// State is what a job's owner is shown.
type State string

// The states. A job of rank Open is queued, or leased while a worker has it.
const (
	StateQueued    State = "queued"
	StateLeased    State = "leased"
	StateCompleted State = "completed"
	StateFailed    State = "failed"
	StateCancelled State = "cancelled"
)

// States lists every state.
var States = []State{StateQueued, StateLeased, StateCompleted, StateFailed, StateCancelled}

// StateOf returns the state shown for a rank; leased counts only if it is open.
func StateOf(r Rank, leased bool) State {
	switch {
	case r == Completed:
		return StateCompleted
	case r == Cancelled:
		return StateCancelled
	case r == Failed:
		return StateFailed
	case leased:
		return StateLeased
	}
	return StateQueued
}

// Ended reports whether the job needs no more work.
func (j Job) Ended() bool { return j.Rank != Open }

// Start returns where the next lease begins: the checkpoint, or v1.
func (j Job) Start() Progress {
	if j.Checkpoint.Done > 0 {
		return j.Checkpoint
	}
	return Progress{Done: 1, Value: j.V1}
}

// end gives j the rank r at now. The checkpoint and the lost workers go (J7),
// and retention counts from here.
func (j Job) end(r Rank, now time.Time) Job {
	j.Rank, j.DoneAt = r, now
	j.Checkpoint, j.Lost = Progress{}, 0
	if j.GCAfter.Before(now) {
		j.GCAfter = now
	}
	return j
}

// The facts below turn a job into the job after the fact. The second result
// tells whether anything changed: a fact that comes too late, or twice,
// changes nothing, so every one is safe to repeat.

// Advance records a checkpoint: the value reached after p.Done iterations.
func (j Job) Advance(p Progress) (Job, bool) {
	if j.Ended() || p.Done <= j.Start().Done || p.Done >= j.Iterations {
		return j, false
	}
	j.Checkpoint, j.Lost = p, 0
	return j, true
}

// TakeBack takes an open job back to a place that is trusted, because what was
// reported beyond it is not: v1 if to.Done is 1. A checkpoint or kept ones beyond
// it go, and no row or report from before can bring any of that back (J8).
// seen is the restarts of the row that proved wrong: one that was taken back
// since stays as it is.
func (j Job) TakeBack(to Progress, seen uint32) (Job, bool) {
	if j.Ended() || j.Restarts != seen || j.Restarts == math.MaxUint32 || to.Done < 1 || to.Done >= j.Iterations || to.Done == 1 && to.Value != j.V1 {
		return j, false
	}
	j.Restarts++
	switch {
	case to.Done == 1:
		j.Checkpoint = Progress{}
	case to.Done <= j.Start().Done:
		j.Checkpoint = to
	}
	j.Rungs = j.Rungs.First(RungsBy(j.Iterations, int(j.Keep), to.Done))
	return j, true
}

// Distrust is TakeBack to v1 of a job of which two rows have come equally far
// and to different values.
func (j Job) Distrust() (Job, bool) { return j.TakeBack(Progress{Done: 1, Value: j.V1}, j.Restarts) }

// Complete records the value. A right value is taken from anyone at any time,
// but for a job that its owner has withdrawn or erased.
func (j Job) Complete(v Value, now time.Time) (Job, bool) {
	if j.Rank == Completed || j.Rank == Cancelled || j.Purged {
		return j, false
	}
	j = j.end(Completed, now)
	j.Result, j.Err = v, ""
	return j, true
}

// Settle sets the value that recomputing gave and marks it as verified; it wins
// over any other that was reported, at either node. One that was verified
// before stays as it is.
func (j Job) Settle(v Value, now time.Time) (Job, bool) {
	if j.Rank == Cancelled || j.Purged || j.Verified {
		return j, false
	}
	if j.Rank != Completed {
		j = j.end(Completed, now)
		j.Err = ""
	}
	j.Result, j.Verified = v, true
	return j, true
}

// Correct replaces the kept checkpoints of a completed job by those that
// recomputing gave, where they differ. It counts as a restart, so that no row
// from before brings the wrong ones back.
func (j Job) Correct(r Rungs) (Job, bool) {
	if j.Rank != Completed || j.Purged || len(r) != len(j.Rungs) || r == j.Rungs || j.Restarts == math.MaxUint32 {
		return j, false
	}
	j.Rungs = r
	j.Restarts++
	return j, true
}

// Fail records why the job cannot be computed; reason is cut to MaxErrBytes.
func (j Job) Fail(reason string, now time.Time) (Job, bool) {
	if j.Ended() {
		return j, false
	}
	j = j.end(Failed, now)
	j.Err = clip(reason, MaxErrBytes)
	return j, true
}

// Cancel withdraws the job. One that has completed or failed stays as it is.
func (j Job) Cancel(now time.Time) (Job, bool) {
	if j.Ended() {
		return j, false
	}
	return j.end(Cancelled, now), true
}

// Lose records that a worker vanished with the job and without a word. At
// MaxLost losses without progress between them the job fails and says so.
func (j Job) Lose(now time.Time) (Job, bool) {
	if j.Ended() {
		return j, false
	}
	j.Lost++
	if j.Lost >= MaxLost {
		return j.Fail(fmt.Sprintf("%d workers lost while computing it", MaxLost), now)
	}
	return j, true
}

// Purge erases v1, value and checkpoints; an open job becomes cancelled first.
func (j Job) Purge(now time.Time) (Job, bool) {
	if j.Purged {
		return j, false
	}
	j, _ = j.Cancel(now)
	j.V1, j.Result, j.Checkpoint = Value{}, Value{}, Progress{}
	j.Keep, j.Rungs, j.ResumedFrom, j.Restarts = 0, "", 0, 0
	j.Verified, j.Purged = false, true
	return j, true
}

// Pull marks the result as handed out by a consuming pull.
func (j Job) Pull() (Job, bool) {
	if j.Rank != Completed || j.Purged || j.Pulled {
		return j, false
	}
	j.Pulled = true
	return j, true
}

// MaxLost is how many workers a job may lose, without progress between the
// losses and without a reported reason, before it fails.
const MaxLost = 5

// MaxFailures is how many times workers may report that a job cannot be
// computed before it fails with the last reason. The count is in the memory of
// its home: a restart or a take-over begins it anew.
const MaxFailures = 3

// clip cuts s to at most n bytes without splitting a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}
