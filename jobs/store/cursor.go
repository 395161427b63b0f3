package store

import (
	"encoding/base64"
	"encoding/binary"
	"strings"

	"workmanager/jobs"
)

// Cursors are opaque to clients: a kind, then fields, in base64url. A kind is
// never given another meaning; a cursor that does not parse is refused.
const (
	cursorResults = 'R' // boot, rseq, and perhaps the same of the peer
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

// cursorBytes returns what is packed in a cursor. One place has one text, so line
// breaks, which the decoder would skip, are refused.
func cursorBytes(s string) ([]byte, error) {
	if i := strings.IndexAny(s, "\r\n"); i >= 0 {
		return nil, base64.CorruptInputError(i)
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}

// parseCursor unpacks a cursor of one kind with len(fields) fields.
func parseCursor(s string, kind byte, fields ...*int64) error {
	b, err := cursorBytes(s)
	if err != nil || len(b) != 1+8*len(fields) || b[0] != kind {
		return jobs.Invalid("query", "after", "value_error.cursor", "is no cursor of this list; leave it out to begin at the start")
	}
	for i, f := range fields {
		*f = int64(binary.BigEndian.Uint64(b[1+8*i:]))
	}
	return nil
}

// place is a place in the results of one boot of a node.
type place struct {
	boot jobs.ID
	n    jobs.RSeq
}

// resultsCursor packs a place in the results of this node and, if its boot is
// not zero, the place that stands for it at the peer.
func resultsCursor(here, there place) string {
	b := append([]byte{cursorResults}, here.boot[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(here.n))
	if there.boot != (jobs.ID{}) {
		b = append(b, there.boot[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(there.n))
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseResultsCursor returns the places of a cursor, one or two.
func parseResultsCursor(s string) ([]place, error) {
	b, err := cursorBytes(s)
	if err != nil || len(b) != 25 && len(b) != 49 || b[0] != cursorResults {
		return nil, errResultsCursor
	}
	var places []place
	for b = b[1:]; len(b) > 0; b = b[24:] {
		if b[16] > 127 {
			return nil, errResultsCursor
		}
		p := place{n: jobs.RSeq(binary.BigEndian.Uint64(b[16:]))}
		copy(p.boot[:], b)
		if len(places) > 0 && p.boot == (jobs.ID{}) { // a second place is of a boot, or left out
			return nil, errResultsCursor
		}
		places = append(places, p)
	}
	return places, nil
}

var errResultsCursor = jobs.Invalid("query", "after", "value_error.cursor", "is no cursor of the results; leave it out to begin at the oldest")
