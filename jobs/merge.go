package jobs

import (
	"bytes"
	"cmp"
	"time"
)

// Merge joins two rows of one job. It is commutative, associative and
// idempotent (J6), so two nodes that have seen the same rows, in any order and
// any number of times, hold the same job. It is a product of joins:
//
//   - purged over not purged, before all else: v1 is gone, so nothing could
//     tell whose state belongs to which work;
//   - the work (v1, iterations): equal, or the smaller brings its own state, a
//     conflict of keys that [Conflict] reports;
//   - the rank: the higher; at one rank the verified result, then the smaller
//     bytes, then the earlier end;
//   - the restarts of one work: more, and with them what was found since: the
//     checkpoint and the kept checkpoints of the row that has them;
//   - the checkpoint, while open: the further, then more lost workers;
//   - the kept checkpoints: those of the job that keeps more, then the longer,
//     then the smaller bytes;
//   - all else by itself: the owner, if either knows one, the later home, the
//     largest counters and the earliest birth, with retention counted from the
//     latest.
func Merge(a, b Job) Job {
	m := a
	if cmpState(a, b) < 0 {
		m = b
	}
	if a.Purged == b.Purged && cmpWork(a, b) == 0 && a.Rank == Open && b.Rank == Open {
		m.Checkpoint, m.Lost = a.Checkpoint, a.Lost
		if cmpCheckpoint(a, b) < 0 {
			m.Checkpoint, m.Lost = b.Checkpoint, b.Lost
		}
	}

	if a.Purged == b.Purged && cmpWork(a, b) == 0 {
		m.Keep, m.Rungs = a.Keep, a.Rungs
		if cmpRungs(a, b) < 0 {
			m.Keep, m.Rungs = b.Keep, b.Rungs
		}
		m.ResumedFrom = max(a.ResumedFrom, b.ResumedFrom)
		m.Restarts = max(a.Restarts, b.Restarts)
	}

	m.Home, m.OwnEpoch = a.Home, a.OwnEpoch
	if c := cmp.Compare(a.OwnEpoch, b.OwnEpoch); c < 0 || c == 0 && a.Home < b.Home {
		m.Home, m.OwnEpoch = b.Home, b.OwnEpoch
	}
	m.Owner = max(a.Owner, b.Owner) // one ID has one owner, or a row of an older release that lacks it
	m.Origin = min(a.Origin, b.Origin)
	m.Priority = max(a.Priority, b.Priority)
	m.Attempts = max(a.Attempts, b.Attempts)
	m.Pulled = a.Pulled || b.Pulled
	m.CreatedAt = earlier(a.CreatedAt, b.CreatedAt)
	m.GCAfter = later(a.GCAfter, b.GCAfter)
	if !a.CreatedAt.Equal(b.CreatedAt) && !broken("M25") {
		m.GCAfter = later(a.Key(), b.Key()) // else a late copy of the younger could outlive both
	}
	return m
}

// Conflict reports whether two rows of one ID are different work: one
// Idempotency-Key that came with different data at the two nodes.
func Conflict(a, b Job) bool {
	return !a.Purged && !b.Purged && cmpWork(a, b) != 0
}

// Disagree reports whether two rows of the same work have different values at
// one place of the chain: its end, or a kept checkpoint. One of them is wrong:
// an alarm that recomputing must decide. So is a value that may have been
// computed from a checkpoint that the other row has taken back.
func Disagree(a, b Job) bool {
	return !a.Purged && !b.Purged && cmpWork(a, b) == 0 &&
		(a.Rank == Completed && b.Rank == Completed && a.Result != b.Result || disagreeRungs(a, b) || outdated(a, b) || outdated(b, a))
}

// outdated reports whether a has a value that nobody has verified and fewer
// restarts than b, which has none.
func outdated(a, b Job) bool {
	return a.Rank == Completed && !a.Verified && b.Rank != Completed && a.Restarts < b.Restarts
}

// Diverge reports whether two open rows of the same work have come equally far
// and to different values. One of them is wrong, and what goes on from it is.
func Diverge(a, b Job) bool {
	return !a.Purged && !b.Purged && cmpWork(a, b) == 0 && a.Rank == Open && b.Rank == Open &&
		a.Restarts == b.Restarts && a.Checkpoint.Done == b.Checkpoint.Done && a.Checkpoint.Value != b.Checkpoint.Value
}

// cmpState orders two rows by which one's state the merge takes: positive if
// a's. It is a total order on (purged, work, rank, verified, result, err, end).
func cmpState(a, b Job) int {
	if broken("M23") && a.Purged != b.Purged {
		return cmp.Or(cmp.Compare(a.Rank, b.Rank), compareBool(a.Purged, b.Purged))
	}
	return cmp.Or(
		compareBool(a.Purged, b.Purged),
		-cmpWork(a, b),
		cmp.Compare(a.Rank, b.Rank),
		compareBool(a.Verified, b.Verified),
		-bytes.Compare(a.Result[:], b.Result[:]),
		-cmp.Compare(a.Err, b.Err),
		-a.DoneAt.Compare(b.DoneAt),
	)
}

func cmpWork(a, b Job) int {
	return cmp.Or(bytes.Compare(a.V1[:], b.V1[:]), cmp.Compare(a.Iterations, b.Iterations))
}

// cmpCheckpoint orders two open rows of the same work by their progress.
func cmpCheckpoint(a, b Job) int {
	return cmp.Or(
		cmp.Compare(a.Restarts, b.Restarts),
		cmp.Compare(a.Checkpoint.Done, b.Checkpoint.Done),
		cmp.Compare(a.Lost, b.Lost),
		-bytes.Compare(a.Checkpoint.Value[:], b.Checkpoint.Value[:]),
	)
}

// cmpRungs orders two rows of the same work by their kept checkpoints.
func cmpRungs(a, b Job) int {
	return cmp.Or(cmp.Compare(a.Restarts, b.Restarts), cmp.Compare(a.Keep, b.Keep), cmp.Compare(len(a.Rungs), len(b.Rungs)), -cmp.Compare(a.Rungs, b.Rungs))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
