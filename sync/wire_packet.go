package sync

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"workmanager/jobs"
)

// A gossip packet of ours is
//
//	u8 kind | u32 crc32c of kind and rest | 16 bytes boot of the sender | …
//
// The kinds are none that a text or a frame begins with by chance.
const (
	packetCopies byte = 0xC1
	packetHint   byte = 0xC2
)

// packetBytes are those of a packet before its content.
const packetBytes = 1 + 4 + 16

func beginPacket(b []byte, kind byte, boot jobs.ID) ([]byte, int) {
	return append(append(b, kind, 0, 0, 0, 0), boot[:]...), len(b)
}

func endPacket(b []byte, start int) []byte {
	binary.LittleEndian.PutUint32(b[start+1:], frameSum(b[start:start+1], b[start+5:]))
	return b
}

// openPacket returns the boot and the content of a packet of the kind.
func openPacket(packet []byte, kind byte) (boot jobs.ID, content []byte, err error) {
	if len(packet) < packetBytes || packet[0] != kind {
		return jobs.ID{}, nil, fmt.Errorf("%d bytes are no packet of kind %#x", len(packet), kind)
	}
	if got, want := frameSum(packet[:1], packet[5:]), binary.LittleEndian.Uint32(packet[1:]); got != want {
		return jobs.ID{}, nil, fmt.Errorf("packet with a wrong checksum: %08x, it says %08x", got, want)
	}
	copy(boot[:], packet[5:])
	if boot == (jobs.ID{}) {
		return jobs.ID{}, nil, errors.New("packet: boot: is missing")
	}
	return boot, packet[packetBytes:], nil
}

// appendCopies appends one packet of at most size bytes with copies of rows,
// from the first on. taken is how many of them it has dealt with: those in the
// packet, and those that are too large for any, which go by the feed alone. If
// that leaves none, out is b, and there is nothing to send.
func appendCopies(b []byte, boot jobs.ID, rows []jobs.Row, size int) (out []byte, taken int) {
	b, start := beginPacket(b, packetCopies, boot)
	first := len(b)
	for i := range rows {
		at := len(b)
		b = appendRowFields(append(b, 0, 0), &rows[i])
		n := len(b) - at - 2
		if len(b)-start <= size && n <= math.MaxUint16 {
			binary.LittleEndian.PutUint16(b[at:], uint16(n))
			taken = i + 1
			continue
		}
		b = b[:at]
		if packetBytes+2+n <= size && n <= math.MaxUint16 {
			break // the next packet has room for it
		}
		taken = i + 1
	}
	if len(b) == first {
		return b[:start], taken
	}
	return endPacket(b, start), taken
}

// decodeCopies reads a packet of copies: its sender's boot and at least one
// row, each as decodeRow returns it. One that is bad spoils the packet.
func decodeCopies(packet []byte) (boot jobs.ID, rows []jobs.Row, err error) {
	boot, rest, err := openPacket(packet, packetCopies)
	if err != nil {
		return jobs.ID{}, nil, err
	}
	var d rowDecoder
	for len(rest) > 0 || rows == nil {
		if len(rest) < 2 || len(rest)-2 < int(binary.LittleEndian.Uint16(rest)) {
			return jobs.ID{}, nil, fmt.Errorf("packet: row %d cut short", len(rows))
		}
		end := 2 + int(binary.LittleEndian.Uint16(rest))
		r, err := d.decode(rest[2:end])
		if err != nil {
			return jobs.ID{}, nil, fmt.Errorf("packet: row %d: %w", len(rows), err)
		}
		rows, rest = append(rows, r), rest[end:]
	}
	return boot, rows, nil
}

// hint is a word to the peer that there may be something to fetch. It decides
// nothing.
type hint struct {
	Boot                 jobs.ID // of the sender
	Head                 jobs.LSeq
	Waiting, FreeWorkers int64
}

// appendHint appends a hint of at most maxHint bytes.
func appendHint(b []byte, boot jobs.ID, head jobs.LSeq, waiting, freeWorkers int64) []byte {
	b, start := beginPacket(b, packetHint, boot)
	b = binary.AppendUvarint(b, uint64(max(head, 0)))
	b = binary.AppendUvarint(b, uint64(max(waiting, 0)))
	b = binary.AppendUvarint(b, uint64(max(freeWorkers, 0)))
	return endPacket(b, start)
}

// decodeHint reads a hint. What a later release has added at its end is
// skipped.
func decodeHint(packet []byte) (hint, error) {
	if len(packet) > maxHint {
		return hint{}, fmt.Errorf("hint: has %d bytes, at most %d", len(packet), maxHint)
	}
	boot, rest, err := openPacket(packet, packetHint)
	if err != nil {
		return hint{}, fmt.Errorf("hint: %w", err)
	}
	var numbers [3]int64
	for i := range numbers {
		n, size := binary.Uvarint(rest)
		if size <= 0 || n > math.MaxInt64 {
			return hint{}, fmt.Errorf("hint: number %d of %d is none", i+1, len(numbers))
		}
		numbers[i], rest = int64(n), rest[size:]
	}
	return hint{Boot: boot, Head: jobs.LSeq(numbers[0]), Waiting: numbers[1], FreeWorkers: numbers[2]}, nil
}
