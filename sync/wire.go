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
