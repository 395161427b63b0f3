package jobs

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// LSeq is a row's number on one node: every commit that changes the row gives
// it the next. RSeq is a result's number on one node, taken once, when the row
// first becomes completed there. Both begin at 1 and never repeat.
type (
	LSeq int64
	RSeq int64
)

// Changed is one row of a commit, as the store tells its owner before and after.
type Changed struct {
	Row
	RSeq RSeq // 0 if it is no result
	Via  ID   // the boot of the peer that sent exactly this row, zero if none did
	Copy bool // it came by gossip
}

// Hash returns 64 bits over every field that two nodes in step agree on. Equal
// rows have equal hashes whatever node they are on, so the sum of hashes over
// a range of rows tells whether two nodes hold the same. The encoding is
// fixed: every integer as 8 bytes, every string behind its length.
func (j Job) Hash() int64 {
	b := make([]byte, 0, 384)
	u := func(n uint64) { b = binary.LittleEndian.AppendUint64(b, n) }
	t := func(at time.Time) {
		if at.IsZero() {
			u(0)
		} else {
			u(uint64(at.UnixMicro()))
		}
	}
	s := func(s string) { u(uint64(len(s))); b = append(b, s...) }
	f := func(v bool) {
		if v {
			u(1)
		} else {
			u(0)
		}
	}
	b = append(b, j.ID[:]...)
	b = append(b, j.V1[:]...)
	u(j.Iterations)
	u(uint64(j.Priority))
	s(j.Origin)
	t(j.CreatedAt)
	t(j.GCAfter)
	u(uint64(j.Rank))
	b = append(b, j.Result[:]...)
	s(j.Err)
	f(j.Verified)
	t(j.DoneAt)
	f(j.Pulled)
	f(j.Purged)
	u(j.Checkpoint.Done)
	b = append(b, j.Checkpoint.Value[:]...)
	u(uint64(j.Attempts))
	u(uint64(j.Lost))
	s(j.Home)
	u(j.OwnEpoch)
	if j.Keep > 0 || j.ResumedFrom > 0 { // appended by a later release: a row without keeps its hash
		u(uint64(j.Keep))
		u(j.ResumedFrom)
		s(string(j.Rungs))
	}
	if j.Owner != "" || j.Restarts > 0 { // the same; no number of kept checkpoints is as large as this mark
		u(1 << 32)
		s(j.Owner)
		u(uint64(j.Restarts))
	}
	sum := sha256.Sum256(b)
	return int64(binary.LittleEndian.Uint64(sum[:8]))
}
