package sync

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"workmanager/jobs"
)

// The keys of ROW.
const (
	rowID = 1 + iota
	rowV1
	rowIterations
	rowOrigin
	rowCreatedAt
	rowGCAfter
	rowRank
	rowResult
	rowErr
	rowVerified
	rowDoneAt
	rowPulled
	rowPurged
	rowCkDone
	rowCkValue
	rowAttempts
	rowLost
	rowOwnEpoch
	rowHome
	rowLSeq
	rowPriority
	rowKeep // from here on since schema 3
	rowResumedFrom
	rowRungs
	rowOwner // from here on since schema 4
	rowRestarts
	rowRestarted
)

// restartedBytes are those of rowRestarted, the checkpoint of a job that was
// taken back: its place and its value. A release that does not know of that
// reads no checkpoint in such a row, and what it has kept of one, or finds
// further on, is none for those that do.
const restartedBytes = 8 + len(jobs.Value{})

// schemaRungs is the first schema that has kept checkpoints. A peer before it
// keeps them as fields that it does not know, of which it takes maxExt bytes,
// so it is sent the first fewRungs only. It gets the others when it is of this
// release and the two compare.
const (
	schemaRungs = 3
	fewRungs    = 60
	schemaOwner = 4 // the first that knows whose a job is
)

var rowNames = []string{
	rowID: "id", rowV1: "v1", rowIterations: "iterations", rowOrigin: "origin", rowCreatedAt: "created_at",
	rowGCAfter: "gc_after", rowRank: "rank", rowResult: "result", rowErr: "err", rowVerified: "verified",
	rowDoneAt: "done_at", rowPulled: "pulled", rowPurged: "purged", rowCkDone: "ck_done", rowCkValue: "ck_value",
	rowAttempts: "attempts", rowLost: "lost", rowOwnEpoch: "own_epoch", rowHome: "home", rowLSeq: "lseq",
	rowPriority: "priority", rowKeep: "keep", rowResumedFrom: "resumed_from", rowRungs: "rungs",
	rowOwner: "owner", rowRestarts: "restarts", rowRestarted: "restarted",
}

// appendRow appends the frame of r.
func appendRow(b []byte, r *jobs.Row) []byte {
	b, start := beginFrame(b, kindRow)
	return endFrame(appendRowFields(b, r), start)
}

// appendRowFields appends the payload of r, with Ext as it came. What a row of
// its rank does not have is left out, as the store leaves it out.
func appendRowFields(b []byte, r *jobs.Row) []byte {
	j := &r.Job
	b = appendBytes(b, rowID, j.ID[:])
	if !j.Purged {
		b = appendBytes(b, rowV1, j.V1[:])
	}
	b = appendUint(b, rowIterations, j.Iterations)
	b = appendBytes(b, rowOrigin, j.Origin)
	b = appendTime(b, rowCreatedAt, j.CreatedAt)
	b = appendTime(b, rowGCAfter, j.GCAfter)
	b = appendUint(b, rowRank, uint64(j.Rank))
	if j.Rank == jobs.Completed && !j.Purged {
		b = appendBytes(b, rowResult, j.Result[:])
		b = appendFlag(b, rowVerified, j.Verified)
	}
	if j.Rank == jobs.Failed {
		b = appendBytes(b, rowErr, j.Err)
	}
	if j.Ended() {
		b = appendTime(b, rowDoneAt, j.DoneAt)
	}
	b = appendFlag(b, rowPulled, j.Pulled)
	b = appendFlag(b, rowPurged, j.Purged)
	if !j.Ended() {
		if j.Checkpoint.Done > 0 && j.Restarts == 0 {
			b = appendUint(b, rowCkDone, j.Checkpoint.Done)
			b = appendBytes(b, rowCkValue, j.Checkpoint.Value[:])
		}
		b = appendUint(b, rowLost, uint64(j.Lost))
	}
	b = appendUint(b, rowAttempts, uint64(j.Attempts))
	b = appendUint(b, rowOwnEpoch, j.OwnEpoch)
	b = appendBytes(b, rowHome, j.Home)
	b = appendUint(b, rowLSeq, uint64(r.LSeq))
	b = appendUint(b, rowPriority, uint64(j.Priority))
	b = appendUint(b, rowKeep, uint64(j.Keep))
	b = appendUint(b, rowResumedFrom, j.ResumedFrom)
	b = appendBytes(b, rowRungs, j.Rungs)
	b = appendBytes(b, rowOwner, j.Owner)
	b = appendUint(b, rowRestarts, uint64(j.Restarts))
	if j.Restarts > 0 && j.Checkpoint.Done > 0 && !j.Ended() {
		b = append(b, rowRestarted, byte(restartedBytes))
		b = binary.LittleEndian.AppendUint64(b, j.Checkpoint.Done)
		b = append(b, j.Checkpoint.Value[:]...)
	}
	return append(b, r.Ext...)
}

// forSchema returns the row as a peer of the schema can keep it.
func forSchema(r jobs.Row, schema int) jobs.Row {
	if schema < schemaRungs {
		r.Job.Rungs = r.Job.Rungs.First(fewRungs)
	}
	return r
}

// decodeRow is rowDecoder.decode for a single row.
func decodeRow(payload []byte) (jobs.Row, error) {
	var d rowDecoder
	return d.decode(payload)
}

// rowDecoder decodes rows. It remembers the names of the last nodes, so that
// only the reason of a failure and unknown fields are allocated. The zero value
// is ready; it is not safe for concurrent use.
type rowDecoder struct {
	nodes, owners recent
}

// recent is the names that were read last.
type recent struct {
	names [4]string
	next  int
}

// decode reads the payload of a ROW. A row that could not be is refused with an
// error naming the field: whatever comes back passes the CHECKs of the store
// (jobs/store/migrations), and more. It keeps no part of payload.
func (d *rowDecoder) decode(payload []byte) (jobs.Row, error) {
	var r jobs.Row
	j := &r.Job
	var restarted jobs.Progress
	seen, err := eachField("row", rowNames, payload, func(key uint64, val, raw []byte) (err error) {
		switch key {
		case rowID:
			err = readFixed(j.ID[:], val)
		case rowV1:
			err = readFixed(j.V1[:], val)
		case rowIterations:
			j.Iterations, err = readNumber[uint64](val, jobs.MaxIterations)
		case rowOrigin:
			j.Origin, err = d.nodes.name(val, maxNode)
		case rowCreatedAt:
			j.CreatedAt, err = readInstant(val)
		case rowGCAfter:
			j.GCAfter, err = readInstant(val)
		case rowRank:
			j.Rank, err = readNumber[jobs.Rank](val, uint64(jobs.Completed))
		case rowResult:
			err = readFixed(j.Result[:], val)
		case rowErr:
			j.Err, err = readText(val, jobs.MaxErrBytes)
		case rowVerified:
			j.Verified, err = readFlag(val)
		case rowDoneAt:
			j.DoneAt, err = readInstant(val)
		case rowPulled:
			j.Pulled, err = readFlag(val)
		case rowPurged:
			j.Purged, err = readFlag(val)
		case rowCkDone:
			j.Checkpoint.Done, err = readNumber[uint64](val, jobs.MaxIterations)
		case rowCkValue:
			err = readFixed(j.Checkpoint.Value[:], val)
		case rowAttempts:
			j.Attempts, err = readNumber[uint32](val, math.MaxUint32)
		case rowLost:
			j.Lost, err = readNumber[uint32](val, math.MaxUint32)
		case rowOwnEpoch:
			j.OwnEpoch, err = readNumber[uint64](val, maxEpoch)
		case rowHome:
			j.Home, err = d.nodes.name(val, maxNode)
		case rowLSeq:
			r.LSeq, err = readNumber[jobs.LSeq](val, math.MaxInt64)
		case rowPriority:
			j.Priority, err = readNumber[uint8](val, jobs.MaxPriority)
		case rowKeep:
			j.Keep, err = readNumber[uint16](val, jobs.MaxKeep)
		case rowResumedFrom:
			j.ResumedFrom, err = readNumber[uint64](val, jobs.MaxIterations)
		case rowRungs:
			if len(val)%len(jobs.Value{}) != 0 {
				return fmt.Errorf("%d bytes are no values of %d", len(val), len(jobs.Value{}))
			}
			j.Rungs = jobs.Rungs(val)
		case rowOwner:
			j.Owner, err = d.owners.name(val, jobs.MaxOwnerBytes)
		case rowRestarts:
			j.Restarts, err = readNumber[uint32](val, math.MaxUint32)
		case rowRestarted:
			if len(val) != restartedBytes {
				return fmt.Errorf("has %d bytes, want %d", len(val), restartedBytes)
			}
			restarted.Done = binary.LittleEndian.Uint64(val)
			copy(restarted.Value[:], val[8:])
		default:
			if len(r.Ext)+len(raw) > maxExt {
				return fmt.Errorf("more than %d bytes of fields that this release does not know", maxExt)
			}
			r.Ext = append(r.Ext, raw...)
		}
		return err
	})
	if err == nil {
		err = checkRow(j, seen)
	}
	if err == nil {
		err = takeRestarted(j, restarted, seen)
	}
	if err != nil {
		return jobs.Row{}, err
	}
	return r, nil
}

// name reads a name.
func (c *recent) name(val []byte, limit int) (string, error) {
	for i := range c.names {
		if c.names[i] == string(val) {
			return c.names[i], nil
		}
	}
	s, err := readText(val, limit)
	if err == nil {
		c.names[c.next%len(c.names)] = s
		c.next++
	}
	return s, err
}

// checkRow returns an error naming the field if no job is so. seen tells which
// of its fields were there. A failed job's reason may be empty: absent is
// what an empty one looks like.
func checkRow(j *jobs.Job, seen uint64) error {
	has := func(key uint) bool { return seen>>key&1 == 1 }
	completed := j.Rank == jobs.Completed && !j.Purged
	switch {
	case !has(rowID):
		return errors.New("row: id: is missing")
	case has(rowV1) && j.Purged:
		return errors.New("row: v1: is there, but the job is purged")
	case !has(rowV1) && !j.Purged:
		return errors.New("row: v1: is missing")
	case j.Iterations < 1:
		return errors.New("row: iterations: is missing")
	case j.Origin == "":
		return errors.New("row: origin: is missing")
	case j.Home == "":
		return errors.New("row: home: is missing")
	case j.CreatedAt.IsZero(): // it would be the earliest of any merge
		return errors.New("row: created_at: is missing")
	case j.Purged && !j.Ended():
		return errors.New("row: rank: open, but the job is purged")
	case j.Iterations == 1 && !j.Ended():
		return errors.New("row: rank: open, but a job of one iteration is born completed")
	case has(rowResult) && !completed:
		return fmt.Errorf("row: result: is there, but the job is %s", shown(j))
	case !has(rowResult) && completed:
		return errors.New("row: result: is missing")
	case completed && j.Iterations == 1 && j.Result != j.V1:
		return errors.New("row: result: is not v1, the value of one iteration")
	case j.Verified && !completed:
		return fmt.Errorf("row: verified: but the job is %s", shown(j))
	case j.Err != "" && j.Rank != jobs.Failed:
		return fmt.Errorf("row: err: is there, but the job is %s", shown(j))
	case j.DoneAt.IsZero() && j.Ended():
		return errors.New("row: done_at: is missing")
	case !j.DoneAt.IsZero() && !j.Ended():
		return errors.New("row: done_at: is there, but the job is open")
	case j.Checkpoint.Done > 0 && j.Ended():
		return fmt.Errorf("row: ck_done: is there, but the job is %s", shown(j))
	case j.Checkpoint.Done > 0 && j.Checkpoint.Done >= j.Iterations:
		return fmt.Errorf("row: ck_done: %d is not below the iterations, %d", j.Checkpoint.Done, j.Iterations)
	case has(rowCkValue) != (j.Checkpoint.Done > 0):
		return fmt.Errorf("row: ck_value: does not go with ck_done, %d", j.Checkpoint.Done)
	case j.Purged && (j.Keep > 0 || j.ResumedFrom > 0 || j.Rungs != ""):
		return errors.New("row: keep: is there, but the job is purged")
	case uint64(j.Keep) >= j.Iterations:
		return fmt.Errorf("row: keep: %d is not below the iterations, %d", j.Keep, j.Iterations)
	case j.Rungs.Len() > int(j.Keep):
		return fmt.Errorf("row: rungs: %d are there, the job keeps %d", j.Rungs.Len(), j.Keep)
	case j.ResumedFrom >= j.Iterations:
		return fmt.Errorf("row: resumed_from: %d is not below the iterations, %d", j.ResumedFrom, j.Iterations)
	case j.Lost > 0 && j.Ended():
		return fmt.Errorf("row: lost: is there, but the job is %s", shown(j))
	}
	return nil
}

// takeRestarted gives a job that was taken back the checkpoint that it has
// since. What else stands there is of a release that does not know of that.
func takeRestarted(j *jobs.Job, p jobs.Progress, seen uint64) error {
	has := seen>>rowRestarted&1 == 1
	switch {
	case j.Restarts == 0 && has:
		return errors.New("row: restarted: is there, but the job was not taken back")
	case j.Restarts == 0:
		return nil
	case j.Purged || j.Ended(): // an older release ends such a job and keeps what it does not know
		if j.Purged {
			j.Restarts = 0
		}
		return nil
	case has && (p.Done < 2 || p.Done >= j.Iterations):
		return fmt.Errorf("row: restarted: %d is not from 2 to below the iterations, %d", p.Done, j.Iterations)
	}
	j.Checkpoint = p
	return nil
}

// shown names what a job is, for an error.
func shown(j *jobs.Job) string {
	if j.Purged {
		return "purged"
	}
	return j.Rank.String()
}
