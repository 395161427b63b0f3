package jobs

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A worker whose value proved wrong gets nothing more, from neither node. What
// the pair holds of that is one row a worker, kept by both nodes and exchanged
// between them outside the feed: there are few, and they are of no job.

const (
	// MaxQuarantines bounds the rows. Of more, those that were lifted first go, and
	// then those quarantined first.
	MaxQuarantines = 1024
	// MaxWorkerBytes bounds the name of a worker, 63 characters, and
	// MaxReasonBytes what is said of it.
	MaxWorkerBytes = 252
	MaxReasonBytes = 256
	// maxTurns bounds the changes of one row. Nobody makes so many: a larger one
	// would only hold the row for good.
	maxTurns = 1 << 40
)

// Subject is whom a quarantine means: every process of a worker's name or, with
// Inside, the worker in the process of the node of that name. A worker elsewhere
// that has a node's name is not taken for it.
type Subject struct {
	Worker string
	Inside bool
}

// SubjectOf returns whom a worker's key stands for; see [Worker.Key].
func SubjectOf(key string) Subject {
	name, _, elsewhere := strings.Cut(key, "/")
	return Subject{Worker: name, Inside: !elsewhere}
}

// Compare orders subjects by name.
func (s Subject) Compare(t Subject) int {
	return cmp.Or(cmp.Compare(s.Worker, t.Worker), compareBool(s.Inside, t.Inside))
}

// Print tells values apart and says nothing of them: the first bytes of the
// SHA-256 of one. So a row keeps no value of a job that is purged later. It is
// zero where it is not known.
type Print [8]byte

// PrintOf returns the print of a value.
func PrintOf(v Value) Print {
	sum := sha256.Sum256(v[:])
	return Print(sum[:8])
}

// String returns the print in hexadecimal, "" if it is not known.
func (p Print) String() string {
	if p == (Print{}) {
		return ""
	}
	return hex.EncodeToString(p[:])
}

// Quarantine is a row: whether a worker is quarantined, since when and why. It
// is a value.
type Quarantine struct {
	Subject
	Turn   uint64 // rises by one with each change, from 1; decides a merge, whatever the clocks say
	Barred bool   // false: it was lifted
	Since  time.Time
	Node   string // that changed it
	By     string // the operator whose order it was, "" if the node found out by itself
	Reason string

	ID          ID     // the job, zero if it is about none
	Done        uint64 // the place in its chain
	Said, Right Print  // what the worker reported there, and what recomputing gave
}

// MergeQuarantines joins two rows of one worker: the later change, and of two
// that were made at once the one that quarantines. What remains is decided by
// the rest, so that it is a total order and the join commutative, associative
// and idempotent: the nodes come to hold the same rows, in whatever order.
func MergeQuarantines(a, b Quarantine) Quarantine {
	if a.compare(b) < 0 {
		return b
	}
	return a
}

func (q Quarantine) compare(r Quarantine) int {
	return cmp.Or(
		cmp.Compare(q.Turn, r.Turn), compareBool(q.Barred, r.Barred), -q.Since.Compare(r.Since),
		cmp.Compare(q.Node, r.Node), cmp.Compare(q.By, r.By), cmp.Compare(q.Reason, r.Reason),
		slices.Compare(q.ID[:], r.ID[:]), cmp.Compare(q.Done, r.Done), slices.Compare(q.Said[:], r.Said[:]), slices.Compare(q.Right[:], r.Right[:]),
	)
}

// Next returns the row after a change of this one. It may be the zero row.
func (q Quarantine) Next(change Quarantine) Quarantine {
	change.Turn, change.Since = q.Turn+1, change.Since.UTC().Truncate(time.Microsecond)
	change.Reason = clip(change.Reason, MaxReasonBytes)
	return change
}

// Check says why a row is none that a node of this pair can have made.
func (q Quarantine) Check() error {
	if err := CheckWorker("body", q.Worker); err != nil {
		return err
	}
	for _, f := range []struct {
		name, text string
		most       int
	}{{"node", q.Node, MaxWorkerBytes}, {"by", q.By, MaxWorkerBytes}, {"reason", q.Reason, MaxReasonBytes}} {
		if len(f.text) > f.most || !utf8.ValidString(f.text) {
			return fmt.Errorf("quarantine of worker %q: %s is no text of at most %d bytes", q.Worker, f.name, f.most)
		}
	}
	if q.Turn < 1 || q.Turn > maxTurns || q.Done > MaxIterations {
		return fmt.Errorf("quarantine of worker %q: change %d, at iteration %d", q.Worker, q.Turn, q.Done)
	}
	return nil
}

// CheckWorker returns an *Error if no worker has this name.
func CheckWorker(in, name string) error {
	switch {
	case name == "" || len(name) > MaxWorkerBytes:
		return Invalid(in, "worker", "value_error.any_str.length", "has %d bytes, the name of a worker has 1 to %d", len(name), MaxWorkerBytes)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == '/' }):
		return Invalid(in, "worker", "value_error.any_str", "is no name of a worker: %.100q", name)
	}
	return nil
}

// CheckReason returns an *Error if a quarantine cannot keep this reason.
func CheckReason(in, reason string) error {
	switch {
	case len(reason) > MaxReasonBytes:
		return Invalid(in, "reason", "value_error.any_str.max_length", "has %d bytes, at most %d are kept", len(reason), MaxReasonBytes)
	case !utf8.ValidString(reason) || strings.ContainsFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) }):
		return Invalid(in, "reason", "value_error.any_str", "is not one line of text")
	}
	return nil
}

// Outlasts is positive if q is kept rather than r where there is no room for
// both, and negative if r is.
func (q Quarantine) Outlasts(r Quarantine) int {
	return cmp.Or(compareBool(q.Barred, r.Barred), q.Since.Compare(r.Since), r.Subject.Compare(q.Subject))
}

// BoundQuarantines returns the rows that are kept of these, one a worker, and
// the workers of the others. Of a row that is dropped while it is lifted the
// pair forgets that too: a node that was apart all the while may bring back
// from when the worker was quarantined, which is the safe side.
func BoundQuarantines(rows []Quarantine) (kept []Quarantine, dropped []Subject) {
	kept = slices.Clone(rows)
	slices.SortFunc(kept, func(a, b Quarantine) int { return b.Outlasts(a) })
	for _, q := range kept[min(len(kept), MaxQuarantines):] {
		dropped = append(dropped, q.Subject)
	}
	return kept[:min(len(kept), MaxQuarantines)], dropped
}

// QuarantineSum is what two nodes compare to learn whether they hold the same.
type QuarantineSum [16]byte

// SumQuarantines returns the sum of rows, in whatever order they are.
func SumQuarantines(rows []Quarantine) QuarantineSum {
	rows = slices.Clone(rows)
	slices.SortFunc(rows, func(a, b Quarantine) int { return a.Subject.Compare(b.Subject) })
	h := sha256.New()
	var b []byte
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	for i := range rows {
		q := &rows[i]
		b = b[:0]
		text(q.Worker)
		b = append(b, bit(q.Inside), bit(q.Barred))
		b = binary.BigEndian.AppendUint64(b, q.Turn)
		b = binary.BigEndian.AppendUint64(b, uint64(q.Since.UnixMicro()))
		text(q.Node)
		text(q.By)
		text(q.Reason)
		b = append(b, q.ID[:]...)
		b = binary.BigEndian.AppendUint64(b, q.Done)
		b = append(append(b, q.Said[:]...), q.Right[:]...)
		h.Write(b) //nolint:errcheck // never fails
	}
	return QuarantineSum(h.Sum(nil)[:16])
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}
