package jobs

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// ID names a job: a UUID, written in lower case with hyphens.
type ID uuid.UUID

// NewID returns an ID of version 7: now, to the quarter of a microsecond, then
// chance from rand. IDs made one after the other sort in the order made, which
// keeps new rows together on disk. It returns an error only if rand fails.
func NewID(now time.Time, rand io.Reader) (ID, error) {
	var id ID
	if _, err := io.ReadFull(rand, id[8:]); err != nil {
		return ID{}, fmt.Errorf("read chance for a job ID: %w", err)
	}
	ms := now.UnixMilli()
	binary.BigEndian.PutUint64(id[:8], uint64(ms)<<16)
	// RFC 9562, section 6.2, method 3: twelve bits of the millisecond's rest.
	frac := uint16((now.UnixNano() - ms*1_000_000) * 4096 / 1_000_000)
	id[6] = 0x70 | byte(frac>>8)&0x0F
	id[7] = byte(frac)
	id[8] = id[8]&0x3F | 0x80
	return id, nil
}

// KeyID returns the ID that an Idempotency-Key stands for: version 8, the first
// 16 bytes of SHA-256 over the length-prefixed cluster, tenant and key. It is
// the same at either node, so one key at both nodes is one row.
//
// Such IDs are scattered, and so is the work of the disk. A key that begins
// with a UUID of version 7, as our own clients make them, therefore gives its
// 48 bits of time to the ID, and jobs that come together lie together. With
// "/n" behind it, the n-th of a batch, every 64 lines count as a millisecond.
func KeyID(cluster, tenant, key string) ID {
	h := sha256.New()
	var n [8]byte
	for _, s := range []string{cluster, tenant, key} {
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		io.WriteString(h, s)
	}
	var id ID
	copy(id[:], h.Sum(nil))
	if ms, ok := keyTime(key); ok {
		binary.BigEndian.PutUint16(id[:2], uint16(ms>>32))
		binary.BigEndian.PutUint32(id[2:6], uint32(ms))
	}
	id[6] = id[6]&0x0F | 0x80
	id[8] = id[8]&0x3F | 0x80
	return id
}

// keyTime returns the milliseconds in a key that is UUIDv7 or UUIDv7/n.
func keyTime(key string) (uint64, bool) {
	const size = 36
	if len(key) < size || key[14] != '7' {
		return 0, false
	}
	u, err := uuid.Parse(key[:size])
	if err != nil {
		return 0, false
	}
	ms := binary.BigEndian.Uint64(u[:8]) >> 16
	if len(key) == size {
		return ms, true
	}
	line, err := strconv.ParseUint(key[size+1:], 10, 32)
	if key[size] != '/' || err != nil {
		return 0, false
	}
	return ms + line>>6, true
}

// Keyed reports whether the ID was made from an Idempotency-Key.
func (id ID) Keyed() bool { return id[6]>>4 == 8 }

// ParseID reads an ID in its canonical form, upper or lower case.
func ParseID(s string) (ID, error) {
	if len(s) != 36 {
		return ID{}, Invalid("path", "id", "value_error.uuid", "%q is no job ID; one looks like 0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801", clip(s, 64))
	}
	u, err := uuid.Parse(s)
	if err != nil {
		return ID{}, Invalid("path", "id", "value_error.uuid", "%q is no job ID: %v", s, err)
	}
	return ID(u), nil
}

// String returns the canonical form.
func (id ID) String() string { return uuid.UUID(id).String() }

// MarshalText and UnmarshalText let an ID stand in JSON as a string.
func (id ID) MarshalText() ([]byte, error) { return uuid.UUID(id).MarshalText() }

// UnmarshalText reads the canonical form.
func (id *ID) UnmarshalText(b []byte) error {
	v, err := ParseID(string(b))
	if err == nil {
		*id = v
	}
	return err
}
