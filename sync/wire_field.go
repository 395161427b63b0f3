package sync

import (
	"encoding/binary"
	"fmt"
	"time"
)

// appendUint appends the field of a number, or nothing if it is 0. Keys that
// are written here are below 128, one byte.
func appendUint(b []byte, key byte, n uint64) []byte {
	if n == 0 {
		return b
	}
	return endUint(append(b, key, 0), n)
}

// endUint appends n to a field whose last byte, its length, it fills in.
func endUint(b []byte, n uint64) []byte {
	at := len(b)
	b = binary.AppendUvarint(b, n)
	b[at-1] = byte(len(b) - at)
	return b
}

// appendTime appends the field of an instant, or nothing if it is zero. As in
// the store, 1970-01-01T00:00:00Z to the microsecond counts as zero.
func appendTime(b []byte, key byte, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	us := t.UnixMicro()
	return appendUint(b, key, uint64(us)<<1^uint64(us>>63))
}

func appendFlag(b []byte, key byte, v bool) []byte {
	if !v {
		return b
	}
	return append(b, key, 1, 1)
}

func appendBytes[T ~string | []byte](b []byte, key byte, v T) []byte {
	if len(v) == 0 {
		return b
	}
	b = append(b, key)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// eachField calls visit with the fields of a payload: the key, the bytes of its
// value, and the bytes of the whole field. names holds the keys it knows. Of
// such a key only the first field counts; seen has its bit. An error names the
// message and the field.
func eachField(message string, names []string, payload []byte, visit func(key uint64, val, raw []byte) error) (seen uint64, err error) {
	for len(payload) > 0 {
		key, val, rest, ok := cutField(payload)
		if !ok {
			return seen, fmt.Errorf("%s: field cut short, %d bytes before the end", message, len(payload))
		}
		known := key < uint64(len(names))
		if !known || seen>>key&1 == 0 {
			if err := visit(key, val, payload[:len(payload)-len(rest)]); err != nil {
				if known && names[key] != "" {
					return seen, fmt.Errorf("%s: %s: %w", message, names[key], err)
				}
				return seen, fmt.Errorf("%s: field %d: %w", message, key, err)
			}
		}
		if known {
			seen |= 1 << key
		}
		payload = rest
	}
	return seen, nil
}

// cutField cuts the first field off a payload, ok if there is a whole one.
func cutField(payload []byte) (key uint64, val, rest []byte, ok bool) {
	if len(payload) >= 2 && payload[0] < 0x80 && payload[1] < 0x80 { // as nearly all are
		end := 2 + int(payload[1])
		if end > len(payload) {
			return 0, nil, nil, false
		}
		return uint64(payload[0]), payload[2:end], payload[end:], true
	}
	key, n := binary.Uvarint(payload)
	if n <= 0 {
		return 0, nil, nil, false
	}
	size, m := binary.Uvarint(payload[n:])
	if m <= 0 || size > uint64(len(payload)-n-m) {
		return 0, nil, nil, false
	}
	payload = payload[n+m:]
	return key, payload[:size], payload[size:], true
}

// readNumber reads a number of at most limit, which T holds.
func readNumber[T ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~int | ~int64](val []byte, limit uint64) (T, error) {
	n, size := binary.Uvarint(val)
	if size <= 0 || size != len(val) {
		return 0, fmt.Errorf("%d bytes are no number", len(val))
	}
	if n > limit {
		return 0, fmt.Errorf("%d is above %d", n, limit)
	}
	return T(n), nil
}

func readFlag(val []byte) (bool, error) {
	n, err := readNumber[uint8](val, 1)
	return n == 1, err
}

// Instants lie in the years 1 to 9999, behind the zero instant: JSON writes no
// others.
var (
	firstMicro = time.Time{}.UnixMicro() + 1
	lastMicro  = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro() - 1
)

// readInstant reads an instant. It equals, by ==, what jobs/store reads.
func readInstant(val []byte) (time.Time, error) {
	us, size := binary.Varint(val)
	if size <= 0 || size != len(val) {
		return time.Time{}, fmt.Errorf("%d bytes are no instant", len(val))
	}
	return microInstant(us)
}

// microInstant returns the instant us microseconds after the Unix epoch, the
// zero one for 0.
func microInstant(us int64) (time.Time, error) {
	switch {
	case us == 0:
		return time.Time{}, nil
	case us < firstMicro || us > lastMicro:
		return time.Time{}, fmt.Errorf("%d microseconds are not in the years 1 to 9999", us)
	}
	return time.UnixMicro(us).UTC(), nil
}

// instantMicros is the other way round.
func instantMicros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func readText(val []byte, limit int) (string, error) {
	if len(val) > limit {
		return "", fmt.Errorf("has %d bytes, at most %d", len(val), limit)
	}
	return string(val), nil
}

func readFixed(to, val []byte) error {
	if len(val) != len(to) {
		return fmt.Errorf("has %d bytes, want %d", len(val), len(to))
	}
	copy(to, val)
	return nil
}
