package sync

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"time"

	"workmanager/jobs"
)

// What two nodes say to each other, as bytes. An answer to GET /peer/changes is
// frames, one after the other, little endian:
//
//	u32 length of the payload | u8 kind | u32 crc32c of kind and payload | payload
//
// A payload is fields in any order:
//
//	uvarint key | uvarint length | bytes
//
// A number is a uvarint and a flag the number 1. An instant is the microseconds
// since the Unix epoch as a signed (zigzag) varint. IDs and values are their 16
// and 64 bytes, Work is its low and then its high half, 8 bytes each. A field
// that is zero is left out, and a field that is not there is zero. A number has
// no signed form: what is negative here by mistake is refused over there.
//
// Keys are only ever added. A reader skips those it does not know, but keeps
// them in a row (Ext), where they go out again behind the fields it knows. So
// of a key that stands twice the first counts: a later release writes its own
// value before the one that an older release had kept for it.

// Bounds of what one node takes from the other.
const (
	maxFrame      = 1 << 20         // bytes of a payload
	maxChunkRows  = 1000            // rows of one answer
	maxChunkBytes = 1 << 20         // bytes of rows of one answer, about
	maxPark       = 2 * time.Second // how long a request waits for news
	maxPacket     = 1300            // bytes of a gossip packet with copies
	maxHint       = 64              // bytes of a hint
	maxNode       = 63              // bytes of a node's name
	maxCluster    = 252             // bytes of a cluster's: memberlist takes 255 with our prefix
	maxExt        = 4 << 10         // bytes of unknown fields of one row
	maxFleet      = 8 << 10         // bytes of the scheduler's ledger
	maxEpoch      = 1 << 53         // of a home: a larger one leaves no room to raise it
)

// The kinds of frames.
const (
	kindHello byte = 1 + iota
	kindRow
	kindHeartbeat
	kindEnd
)

// headerBytes are those of a frame before its payload.
const headerBytes = 4 + 1 + 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frameSum is the checksum of a frame or packet: of its kind, then of the rest.
func frameSum(kind, rest []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, kind), castagnoli, rest)
}

// beginFrame appends the header of a frame that endFrame fills in. It returns
// where the frame begins.
func beginFrame(b []byte, kind byte) ([]byte, int) {
	return append(b, 0, 0, 0, 0, kind, 0, 0, 0, 0), len(b)
}

// endFrame ends the frame that begins at start and is the last of b.
func endFrame(b []byte, start int) []byte {
	header, payload := b[start:start+headerBytes], b[start+headerBytes:]
	binary.LittleEndian.PutUint32(header, uint32(len(payload)))
	binary.LittleEndian.PutUint32(header[5:], frameSum(header[4:5], payload))
	return b
}

// Why a stream of frames cannot be read on.
var (
	errFrameLong  = errors.New("frame too long")
	errFrameShort = errors.New("frame cut short")
	errFrameSum   = errors.New("frame with a wrong checksum")
)

// frameReader reads frames. It holds at most one of them, and is not safe for
// concurrent use.
type frameReader struct {
	r   *bufio.Reader
	buf []byte // of a frame that r cannot hold
	err error  // the first: behind it nothing can be trusted
}

// newFrameReader returns a frameReader over r, which is read ahead of.
func newFrameReader(r io.Reader) *frameReader {
	return &frameReader{r: bufio.NewReaderSize(r, 64<<10)}
}

// next returns the next frame; its payload is good until the call after. The
// error is io.EOF between two frames, wraps errFrameLong, errFrameShort or
// errFrameSum if the frame is none, and else is what reading came to. One cut
// short wraps io.ErrUnexpectedEOF too: the connection broke, nobody wrote
// garbage. The error stays: the calls after it return it again.
func (f *frameReader) next() (kind byte, payload []byte, err error) {
	if f.err == nil {
		kind, payload, f.err = f.read()
	}
	if f.err != nil {
		return 0, nil, f.err
	}
	return kind, payload, nil
}

func (f *frameReader) read() (kind byte, payload []byte, err error) {
	header, err := f.r.Peek(headerBytes)
	if err != nil {
		return 0, nil, readError(err, len(header), headerBytes)
	}
	n := int64(binary.LittleEndian.Uint32(header))
	if n > maxFrame {
		return 0, nil, fmt.Errorf("%w: %d bytes, at most %d", errFrameLong, n, maxFrame)
	}
	size := headerBytes + int(n)
	frame, err := f.whole(size)
	if err != nil {
		return 0, nil, readError(err, len(frame), size)
	}
	kind, payload = frame[4], frame[headerBytes:]
	if got, want := frameSum(frame[4:5], payload), binary.LittleEndian.Uint32(frame[5:]); got != want {
		return 0, nil, fmt.Errorf("%w: %08x over kind %d and %d bytes, it says %08x", errFrameSum, got, kind, n, want)
	}
	return kind, payload, nil
}

// whole reads size bytes, without copying them if the reader's buffer holds
// them all. With an error it returns what there was.
func (f *frameReader) whole(size int) ([]byte, error) {
	if size <= f.r.Size() {
		frame, err := f.r.Peek(size)
		if err == nil {
			_, err = f.r.Discard(size)
		}
		return frame, err
	}
	if cap(f.buf) < size {
		f.buf = make([]byte, size)
	}
	n, err := io.ReadFull(f.r, f.buf[:size])
	return f.buf[:n], err
}

// readError says what an error after got of want bytes of a frame means.
func readError(err error, got, want int) error {
	ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	switch {
	case ended && got > 0:
		return fmt.Errorf("%w: %d bytes of %d: %w", errFrameShort, got, want, io.ErrUnexpectedEOF)
	case err == io.EOF:
		return io.EOF
	}
	return fmt.Errorf("read frame: %w", err)
}

// The keys of HELLO. HEARTBEAT has some of them.
const (
	helloProtoMin = 1 + iota
	helloProtoMax
	helloFeatures
	helloSchema
	helloCluster
	helloNode
	helloStore
	helloBoot
	helloMemberEpoch
	helloHead
	helloFloor
	helloPromise
	helloNow
	helloReset
	helloLiveFrom
	helloComplete
	helloWaiting
	helloRemaining
	helloLeased
	helloFreeLanes
	helloWorkers
	helloFleet
	helloRate
	helloDone
	helloArriving
	helloIncoming
)

var helloNames = []string{
	helloProtoMin: "proto_min", helloProtoMax: "proto_max", helloFeatures: "features", helloSchema: "schema",
	helloCluster: "cluster_id", helloNode: "node", helloStore: "store_id", helloBoot: "boot_id",
	helloMemberEpoch: "member_epoch", helloHead: "head", helloFloor: "gc_floor", helloPromise: "gc_promise",
	helloNow: "now", helloReset: "reset", helloLiveFrom: "live_from", helloComplete: "complete",
	helloWaiting: "waiting", helloRemaining: "remaining", helloLeased: "leased", helloFreeLanes: "free_lanes",
	helloWorkers: "workers", helloFleet: "fleet", helloRate: "rate", helloDone: "done", helloArriving: "arriving", helloIncoming: "incoming",
}

// appendHello appends the frame of h.
func appendHello(b []byte, h *Hello) []byte {
	b, start := beginFrame(b, kindHello)
	b = appendUint(b, helloProtoMin, uint64(h.ProtoMin))
	b = appendUint(b, helloProtoMax, uint64(h.ProtoMax))
	b = appendUint(b, helloFeatures, h.Features)
	b = appendUint(b, helloSchema, uint64(h.Schema))
	b = appendBytes(b, helloCluster, h.Cluster)
	b = appendBytes(b, helloNode, h.Node)
	b = appendBytes(b, helloStore, h.Store[:])
	b = appendBytes(b, helloBoot, h.Boot[:])
	b = appendUint(b, helloMemberEpoch, uint64(h.MemberEpoch))
	b = appendUint(b, helloHead, uint64(h.Head))
	b = appendTime(b, helloFloor, h.Floor)
	b = appendTime(b, helloPromise, h.Promise)
	b = appendTime(b, helloNow, h.Now)
	b = appendFlag(b, helloReset, h.Reset)
	b = appendUint(b, helloLiveFrom, uint64(h.LiveFrom))
	b = appendFlag(b, helloComplete, h.Complete)
	b = appendLoad(b, &h.Load)
	return endFrame(b, start)
}

// decodeHello reads the payload of a HELLO. It refuses an identity that no node
// has, but compares nothing with what this node is.
func decodeHello(payload []byte) (Hello, error) {
	var h Hello
	_, err := eachField("hello", helloNames, payload, func(key uint64, val, _ []byte) (err error) {
		switch key {
		case helloProtoMin:
			h.ProtoMin, err = readNumber[int](val, math.MaxInt32)
		case helloProtoMax:
			h.ProtoMax, err = readNumber[int](val, math.MaxInt32)
		case helloFeatures:
			h.Features, err = readNumber[uint64](val, math.MaxUint64)
		case helloSchema:
			h.Schema, err = readNumber[int](val, math.MaxInt32)
		case helloCluster:
			h.Cluster, err = readText(val, maxCluster)
		case helloNode:
			h.Node, err = readText(val, maxNode)
		case helloStore:
			err = readFixed(h.Store[:], val)
		case helloBoot:
			err = readFixed(h.Boot[:], val)
		case helloMemberEpoch:
			h.MemberEpoch, err = readNumber[int64](val, math.MaxInt64)
		case helloHead:
			h.Head, err = readNumber[jobs.LSeq](val, math.MaxInt64)
		case helloFloor:
			h.Floor, err = readInstant(val)
		case helloPromise:
			h.Promise, err = readInstant(val)
		case helloNow:
			h.Now, err = readInstant(val)
		case helloReset:
			h.Reset, err = readFlag(val)
		case helloLiveFrom:
			h.LiveFrom, err = readNumber[jobs.LSeq](val, math.MaxInt64)
		case helloComplete:
			h.Complete, err = readFlag(val)
		default:
			err = h.Load.field(key, val)
		}
		return err
	})
	if err == nil {
		err = h.Identity.check("store_id", "boot_id")
		if err == nil && h.LiveFrom > h.Head {
			err = fmt.Errorf("live_from: %d is above the head, %d", h.LiveFrom, h.Head)
		}
		if err != nil {
			err = fmt.Errorf("hello: %w", err)
		}
	}
	if err != nil {
		return Hello{}, err
	}
	return h, nil
}

// check returns an error naming the field if no node is so. store and boot are
// what these two are called where it came from.
func (i *Identity) check(store, boot string) error {
	switch {
	case i.Node == "":
		return errors.New("node: is missing")
	case len(i.Node) > maxNode:
		return fmt.Errorf("node: has %d bytes, at most %d", len(i.Node), maxNode)
	case len(i.Cluster) > maxCluster:
		return fmt.Errorf("cluster: has %d bytes, at most %d", len(i.Cluster), maxCluster)
	case i.Store == jobs.ID{}:
		return fmt.Errorf("%s: is missing", store)
	case i.Boot == jobs.ID{}:
		return fmt.Errorf("%s: is missing", boot)
	case i.ProtoMin < 1 || i.ProtoMax < i.ProtoMin || i.ProtoMax > math.MaxInt32:
		return fmt.Errorf("proto: %d-%d is no range of versions", i.ProtoMin, i.ProtoMax)
	case i.Schema < 0 || i.Schema > math.MaxInt32:
		return fmt.Errorf("schema: %d is no version", i.Schema)
	case i.MemberEpoch < 0:
		return fmt.Errorf("member_epoch: %d is negative", i.MemberEpoch)
	}
	return nil
}

// appendHeartbeat appends the frame of h.
func appendHeartbeat(b []byte, h *Heartbeat) []byte {
	b, start := beginFrame(b, kindHeartbeat)
	b = appendUint(b, helloHead, uint64(h.Head))
	b = appendTime(b, helloNow, h.Now)
	b = appendLoad(b, &h.Load)
	return endFrame(b, start)
}

// decodeHeartbeat reads the payload of a HEARTBEAT.
func decodeHeartbeat(payload []byte) (Heartbeat, error) {
	var h Heartbeat
	_, err := eachField("heartbeat", helloNames, payload, func(key uint64, val, _ []byte) (err error) {
		switch key {
		case helloHead:
			h.Head, err = readNumber[jobs.LSeq](val, math.MaxInt64)
		case helloNow:
			h.Now, err = readInstant(val)
		default:
			err = h.Load.field(key, val)
		}
		return err
	})
	if err != nil {
		return Heartbeat{}, err
	}
	return h, nil
}

// appendLoad appends the fields of l. A count that is negative for a moment is
// sent as 0. Fleet has at most maxFleet bytes; the caller sees to that.
func appendLoad(b []byte, l *Load) []byte {
	b = appendUint(b, helloWaiting, uint64(max(l.Waiting, 0)))
	if l.Remaining != (jobs.Work{}) {
		b = append(b, helloRemaining, 16)
		b = binary.LittleEndian.AppendUint64(b, l.Remaining.Lo)
		b = binary.LittleEndian.AppendUint64(b, l.Remaining.Hi)
	}
	b = appendUint(b, helloLeased, uint64(max(l.Leased, 0)))
	b = appendUint(b, helloFreeLanes, uint64(max(l.FreeLanes, 0)))
	b = appendUint(b, helloWorkers, uint64(max(l.Workers, 0)))
	if l.Fleet != nil { // an empty ledger is not an unchanged one
		b = append(b, helloFleet)
		b = binary.AppendUvarint(b, uint64(len(l.Fleet)))
		b = append(b, l.Fleet...)
	}
	b = appendUint(b, helloRate, uint64(max(l.Rate, 0)))
	b = appendUint(b, helloDone, uint64(max(l.Done, 0)))
	b = appendUint(b, helloArriving, uint64(max(l.Arriving, 0)))
	b = appendUint(b, helloIncoming, uint64(max(l.Incoming, 0)))
	return b
}

// field reads one field; a key that is none of l's is skipped.
func (l *Load) field(key uint64, val []byte) (err error) {
	switch key {
	case helloWaiting:
		l.Waiting, err = readNumber[int64](val, math.MaxInt64)
	case helloRemaining:
		var w [16]byte
		err = readFixed(w[:], val)
		l.Remaining = jobs.Work{Lo: binary.LittleEndian.Uint64(w[:8]), Hi: binary.LittleEndian.Uint64(w[8:])}
	case helloLeased:
		l.Leased, err = readNumber[int64](val, math.MaxInt64)
	case helloFreeLanes:
		l.FreeLanes, err = readNumber[int64](val, math.MaxInt64)
	case helloWorkers:
		l.Workers, err = readNumber[int64](val, math.MaxInt64)
	case helloRate:
		l.Rate, err = readNumber[int64](val, math.MaxInt64)
	case helloDone:
		l.Done, err = readNumber[int64](val, math.MaxInt64)
	case helloArriving:
		l.Arriving, err = readNumber[int64](val, math.MaxInt64)
	case helloIncoming:
		l.Incoming, err = readNumber[int64](val, math.MaxInt64)
	case helloFleet:
		if len(val) > maxFleet {
			return fmt.Errorf("has %d bytes, at most %d", len(val), maxFleet)
		}
		l.Fleet = bytes.Clone(val)
	}
	return err
}

// The keys of END.
const (
	endAt = 1 + iota
	endSeenHead
	endBackAt
	endMore
	endRCov
	endWord
)

var endNames = []string{endAt: "at", endSeenHead: "seen_head", endBackAt: "back_at", endMore: "more", endRCov: "rcov", endWord: "word"}

// appendEnd appends the frame of e.
func appendEnd(b []byte, e *End) []byte {
	b, start := beginFrame(b, kindEnd)
	b = appendUint(b, endAt, uint64(e.At))
	b = appendUint(b, endSeenHead, uint64(e.SeenHead))
	b = appendUint(b, endBackAt, uint64(e.BackAt))
	b = appendFlag(b, endMore, e.More)
	if e.HasRCov { // 0 says that no result was sent, nothing says nothing
		b = append(b, endRCov, 0)
		b = endUint(b, uint64(e.RCov))
	}
	b = appendUint(b, endWord, e.Word)
	return endFrame(b, start)
}

// decodeEnd reads the payload of an END. It refuses a cursor that is above the
// head it was read under.
func decodeEnd(payload []byte) (End, error) {
	var e End
	_, err := eachField("end", endNames, payload, func(key uint64, val, _ []byte) (err error) {
		switch key {
		case endAt:
			e.At, err = readNumber[jobs.LSeq](val, math.MaxInt64)
		case endSeenHead:
			e.SeenHead, err = readNumber[jobs.LSeq](val, math.MaxInt64)
		case endBackAt:
			e.BackAt, err = readNumber[jobs.LSeq](val, math.MaxInt64)
		case endMore:
			e.More, err = readFlag(val)
		case endRCov:
			e.RCov, err = readNumber[jobs.RSeq](val, math.MaxInt64)
			e.HasRCov = true
		case endWord:
			e.Word, err = readNumber[uint64](val, math.MaxInt64)
		}
		return err
	})
	switch {
	case err != nil:
		return End{}, err
	case e.At > e.SeenHead:
		return End{}, fmt.Errorf("end: at: %d is above the head, %d", e.At, e.SeenHead)
	case e.BackAt > e.SeenHead:
		return End{}, fmt.Errorf("end: back_at: %d is above the head, %d", e.BackAt, e.SeenHead)
	}
	return e, nil
}
