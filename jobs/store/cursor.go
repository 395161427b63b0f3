package store

import (
	"encoding/base64"
	"encoding/binary"

	"workmanager/jobs"
)

// Cursors are opaque to clients: a kind, then fields, in base64url. A kind is
// never given another meaning; a cursor that does not parse is refused.
const (
	cursorResults = 'R' // boot, rseq
	cursorCreated = 'C' // created_at, n
	cursorOpen    = 'O' // priority, created_at, n
	cursorEnded   = 'E' // created_at, n
)

// cursor packs a kind and its fields.
func cursor(kind byte, fields ...int64) string {
	b := []byte{kind}
	for _, f := range fields {
		b = binary.BigEndian.AppendUint64(b, uint64(f))
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseCursor unpacks a cursor of one kind with len(fields) fields.
func parseCursor(s string, kind byte, fields ...*int64) error {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != 1+8*len(fields) || b[0] != kind {
		return jobs.Invalid("query", "after", "value_error.cursor", "is no cursor of this list; leave it out to begin at the start")
	}
	for i, f := range fields {
		*f = int64(binary.BigEndian.Uint64(b[1+8*i:]))
	}
	return nil
}

// resultsCursor packs a place in the results of this node.
func resultsCursor(boot jobs.ID, n jobs.RSeq) string {
	b := append([]byte{cursorResults}, boot[:]...)
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(b, uint64(n)))
}

func parseResultsCursor(s string) (boot jobs.ID, n jobs.RSeq, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != 25 || b[0] != cursorResults || b[17] > 127 {
		return boot, 0, jobs.Invalid("query", "after", "value_error.cursor", "is no cursor of the results; leave it out to begin at the oldest")
	}
	copy(boot[:], b[1:])
	return boot, jobs.RSeq(binary.BigEndian.Uint64(b[17:])), nil
}
