package sync

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
)

func TestImpossibleRowsAreRefused(t *testing.T) {
	valid := wireRows()
	for _, tc := range []struct {
		field, row string
		edit       func(f map[byte][]byte)
	}{
		{"id", "row_open", func(f map[byte][]byte) { delete(f, rowID) }},
		{"id", "row_open", func(f map[byte][]byte) { f[rowID] = f[rowID][1:] }},
		{"v1", "row_open", func(f map[byte][]byte) { delete(f, rowV1) }},
		{"v1", "row_open", func(f map[byte][]byte) { f[rowV1] = f[rowV1][:63] }},
		{"v1", "row_open", func(f map[byte][]byte) { f[rowV1] = nil }},
		{"v1", "row_purged", func(f map[byte][]byte) { f[rowV1] = make([]byte, 64) }},
		{"iterations", "row_open", func(f map[byte][]byte) { delete(f, rowIterations) }},
		{"iterations", "row_open", func(f map[byte][]byte) { f[rowIterations] = uvarint(1<<53 + 1) }},
		{"iterations", "row_open", func(f map[byte][]byte) { f[rowIterations] = nil }},
		{"iterations", "row_open", func(f map[byte][]byte) { f[rowIterations] = []byte{5, 5} }},
		{"iterations", "row_open", func(f map[byte][]byte) { f[rowIterations] = bytes.Repeat([]byte{0xFF}, 11) }},
		{"priority", "row_open", func(f map[byte][]byte) { f[rowPriority] = uvarint(10) }},
		{"priority", "row_open", func(f map[byte][]byte) { f[rowPriority] = uvarint(256) }},
		{"origin", "row_open", func(f map[byte][]byte) { delete(f, rowOrigin) }},
		{"origin", "row_open", func(f map[byte][]byte) { f[rowOrigin] = nil }},
		{"origin", "row_open", func(f map[byte][]byte) { f[rowOrigin] = make([]byte, 64) }},
		{"home", "row_open", func(f map[byte][]byte) { delete(f, rowHome) }},
		{"home", "row_open", func(f map[byte][]byte) { f[rowHome] = make([]byte, 64) }},
		{"created_at", "row_open", func(f map[byte][]byte) { delete(f, rowCreatedAt) }},
		{"created_at", "row_open", func(f map[byte][]byte) { f[rowCreatedAt] = binary.AppendVarint(nil, math.MaxInt64) }},
		{"gc_after", "row_open", func(f map[byte][]byte) { f[rowGCAfter] = nil }},
		{"rank", "row_open", func(f map[byte][]byte) { f[rowRank] = uvarint(4) }},
		{"rank", "row_open", func(f map[byte][]byte) { f[rowRank] = uvarint(256) }},
		{"rank", "row_open", func(f map[byte][]byte) { f[rowIterations] = uvarint(1) }},
		{"rank", "row_open", func(f map[byte][]byte) { delete(f, rowV1); f[rowPurged] = uvarint(1) }},
		{"result", "row_open", func(f map[byte][]byte) { f[rowResult] = make([]byte, 64) }},
		{"result", "row_failed", func(f map[byte][]byte) { f[rowResult] = make([]byte, 64) }},
		{"result", "row_purged", func(f map[byte][]byte) { f[rowResult] = make([]byte, 64) }},
		{"result", "row_completed", func(f map[byte][]byte) { delete(f, rowResult) }},
		{"result", "row_completed", func(f map[byte][]byte) { f[rowResult] = append(f[rowResult], 0) }},
		{"result", "row_one", func(f map[byte][]byte) { f[rowResult] = make([]byte, 64) }},
		{"err", "row_open", func(f map[byte][]byte) { f[rowErr] = []byte("no") }},
		{"err", "row_completed", func(f map[byte][]byte) { f[rowErr] = []byte("no") }},
		{"err", "row_failed", func(f map[byte][]byte) { f[rowErr] = make([]byte, jobs.MaxErrBytes+1) }},
		{"verified", "row_open", func(f map[byte][]byte) { f[rowVerified] = uvarint(1) }},
		{"verified", "row_purged", func(f map[byte][]byte) { f[rowVerified] = uvarint(1) }},
		{"verified", "row_completed", func(f map[byte][]byte) { f[rowVerified] = uvarint(2) }},
		{"done_at", "row_open", func(f map[byte][]byte) { f[rowDoneAt] = f[rowCreatedAt] }},
		{"done_at", "row_completed", func(f map[byte][]byte) { delete(f, rowDoneAt) }},
		{"done_at", "row_cancelled", func(f map[byte][]byte) { f[rowDoneAt] = uvarint(0) }},
		{"pulled", "row_completed", func(f map[byte][]byte) { f[rowPulled] = uvarint(2) }},
		{"purged", "row_completed", func(f map[byte][]byte) { f[rowPurged] = uvarint(257) }},
		{"ck_done", "row_checkpoint", func(f map[byte][]byte) { f[rowCkDone] = f[rowIterations] }},
		{"ck_done", "row_completed", func(f map[byte][]byte) { f[rowCkDone], f[rowCkValue] = uvarint(5), make([]byte, 64) }},
		{"ck_done", "row_checkpoint", func(f map[byte][]byte) { f[rowCkDone] = uvarint(math.MaxUint64) }},
		{"ck_value", "row_checkpoint", func(f map[byte][]byte) { delete(f, rowCkDone) }},
		{"ck_value", "row_checkpoint", func(f map[byte][]byte) { delete(f, rowCkValue) }},
		{"ck_value", "row_purged", func(f map[byte][]byte) { f[rowCkValue] = make([]byte, 64) }},
		{"lost", "row_completed", func(f map[byte][]byte) { f[rowLost] = uvarint(1) }},
		{"attempts", "row_open", func(f map[byte][]byte) { f[rowAttempts] = uvarint(1 << 32) }},
		{"lost", "row_open", func(f map[byte][]byte) { f[rowLost] = uvarint(1 << 32) }},
		{"own_epoch", "row_open", func(f map[byte][]byte) { f[rowOwnEpoch] = uvarint(1<<53 + 1) }},
		{"lseq", "row_open", func(f map[byte][]byte) { f[rowLSeq] = uvarint(1 << 63) }},
		{"keep", "row_purged", func(f map[byte][]byte) { f[rowKeep] = uvarint(1) }},
		{"keep", "row_purged", func(f map[byte][]byte) { f[rowResumedFrom] = uvarint(1) }},
		{"keep", "row_open", func(f map[byte][]byte) { f[rowKeep] = uvarint(jobs.MaxKeep + 1) }},
		{"keep", "row_kept", func(f map[byte][]byte) { f[rowIterations] = f[rowKeep] }},
		{"rungs", "row_kept", func(f map[byte][]byte) { f[rowKeep] = uvarint(1) }},
		{"rungs", "row_kept", func(f map[byte][]byte) { f[rowRungs] = f[rowRungs][1:] }},
		{"rungs", "row_open", func(f map[byte][]byte) { f[rowRungs] = make([]byte, 64) }},
		{"resumed_from", "row_one", func(f map[byte][]byte) { f[rowResumedFrom] = uvarint(1) }},
		{"owner", "row_owned", func(f map[byte][]byte) { f[rowOwner] = make([]byte, jobs.MaxOwnerBytes+1) }},
		{"restarts", "row_restarted", func(f map[byte][]byte) { f[rowRestarts] = uvarint(1 << 32) }},
		{"restarted", "row_restarted", func(f map[byte][]byte) { delete(f, rowRestarts) }},
		{"restarted", "row_restarted", func(f map[byte][]byte) { f[rowRestarted] = f[rowRestarted][1:] }},
		{"restarted", "row_restarted", func(f map[byte][]byte) { copy(f[rowRestarted], make([]byte, 8)) }},
		{"restarted", "row_restarted", func(f map[byte][]byte) { f[rowRestarted][7] = 1 }},
		{"field 28", "row_open", func(f map[byte][]byte) { f[28] = make([]byte, maxExt-2) }},
	} {
		r := valid[tc.row]
		fields := map[byte][]byte{}
		if _, err := eachField("row", rowNames, appendRowFields(nil, &r), func(key uint64, val, _ []byte) error {
			fields[byte(key)] = bytes.Clone(val)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		tc.edit(fields)
		var b []byte
		for key := range byte(32) {
			if val, ok := fields[key]; ok {
				b = binary.AppendUvarint(append(b, key), uint64(len(val)))
				b = append(b, val...)
			}
		}
		got, err := decodeRow(b)
		if err == nil || !strings.HasPrefix(err.Error(), "row: "+tc.field+": ") {
			t.Errorf("%s: a bad %s: %v, want an error that names it", tc.row, tc.field, err)
		}
		if !reflect.DeepEqual(got, jobs.Row{}) {
			t.Errorf("%s: a bad %s: got %+v with the error", tc.row, tc.field, got)
		}
	}
}

func uvarint(n uint64) []byte { return binary.AppendUvarint(nil, n) }

func TestImpossibleMessagesAreRefused(t *testing.T) {
	hello := func(edit func(*Hello)) []byte {
		h := wireHello()
		edit(&h)
		return appendHello(nil, &h)
	}
	end := func(e End) []byte { return appendEnd(nil, &e) }
	for _, tc := range []struct {
		want  string
		frame []byte
	}{
		{"hello: node: ", hello(func(h *Hello) { h.Node = "" })},
		{"hello: node: ", hello(func(h *Hello) { h.Node = strings.Repeat("x", 64) })},
		{"hello: cluster_id: ", hello(func(h *Hello) { h.Cluster = strings.Repeat("x", 253) })},
		{"hello: store_id: ", hello(func(h *Hello) { h.Store = jobs.ID{} })},
		{"hello: boot_id: ", hello(func(h *Hello) { h.Boot = jobs.ID{} })},
		{"hello: proto: ", hello(func(h *Hello) { h.ProtoMin = 3 })},
		{"hello: proto: ", hello(func(h *Hello) { h.ProtoMin = 0 })},
		{"hello: member_epoch: ", hello(func(h *Hello) { h.MemberEpoch = -1 })},
		{"hello: schema: ", hello(func(h *Hello) { h.Schema = -1 })},
		{"hello: head: ", hello(func(h *Hello) { h.Head = -1 })},
		{"hello: live_from: ", hello(func(h *Hello) { h.LiveFrom = h.Head + 1 })},
		{"hello: now: ", hello(func(h *Hello) { h.Now = time.UnixMicro(math.MaxInt64) })},
		{"hello: fleet: ", hello(func(h *Hello) { h.Load.Fleet = make([]byte, maxFleet+1) })},
		{"heartbeat: fleet: ", appendHeartbeat(nil, &Heartbeat{Load: Load{Fleet: make([]byte, maxFleet+1)}})},
		{"heartbeat: head: ", appendHeartbeat(nil, &Heartbeat{Head: -1})},
		{"end: at: ", end(End{At: 2, SeenHead: 1})},
		{"end: back_at: ", end(End{BackAt: 2, SeenHead: 1})},
		{"end: rcov: ", end(End{HasRCov: true, RCov: -1})},
	} {
		_, _, err := decodeAny(oneFrame(t, tc.frame))
		if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("got %v, want an error that begins with %q", err, tc.want)
		}
	}
	for _, payload := range [][]byte{{1}, {1, 5}, {0x80}, {1, 0x80}, {1, 2, 0}, bytes.Repeat([]byte{0xFF}, 30)} {
		for kind := kindHello; kind <= kindEnd; kind++ {
			if v, _, err := decodeAny(kind, payload); err == nil || !strings.Contains(err.Error(), "cut short") {
				t.Errorf("kind %d, payload %x: got %+v, %v, want a field cut short", kind, payload, v, err)
			}
		}
	}
}

func TestFrameErrors(t *testing.T) {
	r := wireRows()["row_completed"]
	frame := appendRow(nil, &r)
	long, start := beginFrame(nil, kindRow)
	long = endFrame(append(long, make([]byte, maxFrame+1)...), start)
	large, start := beginFrame(nil, kindRow)
	large = endFrame(append(large, make([]byte, 100_000)...), start)
	wrong := bytes.Clone(frame)
	wrong[len(wrong)-1]++
	broken := errors.New("broken pipe")
	for _, tc := range []struct {
		name string
		r    io.Reader
		want error
	}{
		{"too long", bytes.NewReader(long), errFrameLong},
		{"too long, nothing behind", bytes.NewReader(long[:headerBytes]), errFrameLong},
		{"wrong checksum", bytes.NewReader(wrong), errFrameSum},
		{"zeros", bytes.NewReader(make([]byte, 64)), errFrameSum},
		{"short header", bytes.NewReader(frame[:5]), errFrameShort},
		{"short payload", bytes.NewReader(frame[:50]), errFrameShort},
		{"short, cut by the transport", io.MultiReader(bytes.NewReader(frame[:50]), failing{io.ErrUnexpectedEOF}), errFrameShort},
		{"short and large", bytes.NewReader(large[:90_000]), errFrameShort},
		{"nothing", bytes.NewReader(nil), io.EOF},
		{"no body", failing{io.ErrUnexpectedEOF}, io.ErrUnexpectedEOF},
		{"broken", io.MultiReader(bytes.NewReader(frame[:50]), failing{broken}), broken},
	} {
		f := newFrameReader(tc.r)
		for range 2 { // it stays
			if _, payload, err := f.next(); !errors.Is(err, tc.want) || payload != nil {
				t.Errorf("%s: got %d bytes, %v, want %v", tc.name, len(payload), err, tc.want)
			} else if tc.want == errFrameShort && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s: %v, want one that is %v too", tc.name, err, io.ErrUnexpectedEOF)
			}
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestDamageIsRefused flips every bit and cuts at every byte.
func TestDamageIsRefused(t *testing.T) {
	hello, end, beat := wireHello(), End{At: 1, SeenHead: 2}, Heartbeat{Head: 5, Load: wireLoad()}
	frames := map[string][]byte{"hello": appendHello(nil, &hello), "end": appendEnd(nil, &end), "heartbeat": appendHeartbeat(nil, &beat)}
	for name, r := range wireRows() {
		frames[name] = appendRow(nil, &r)
	}
	for name, frame := range frames {
		next := func(b []byte) error {
			_, _, err := newFrameReader(bytes.NewReader(b)).next()
			return err
		}
		stream := slices.Concat(frame, frame) // so that a longer one has bytes to take
		for n := 1; n < len(frame); n++ {
			if err := next(frame[:n]); !errors.Is(err, errFrameShort) {
				t.Errorf("%s cut to %d bytes: %v, want %v", name, n, err, errFrameShort)
			}
		}
		for bit := range 8 * len(frame) {
			stream[bit/8] ^= 1 << (bit % 8)
			if err := next(stream); !errors.Is(err, errFrameSum) && !errors.Is(err, errFrameLong) && !errors.Is(err, errFrameShort) {
				t.Errorf("%s with bit %d flipped: %v, want it refused", name, bit, err)
			}
			stream[bit/8] ^= 1 << (bit % 8)
		}
	}

	rows := []jobs.Row{wireRows()["row_open"], wireRows()["row_failed"]}
	copies, _ := appendCopies(nil, wireID(1), rows, maxPacket)
	packets := map[string][]byte{"copies": copies, "hint": appendHint(nil, wireID(1), 1<<40, 1<<30, 1<<20)}
	for name, packet := range packets {
		open := func(b []byte) error {
			_, _, errCopies := decodeCopies(b)
			_, errHint := decodeHint(b)
			if errCopies == nil || errHint == nil {
				return nil
			}
			return errCopies
		}
		for n := range packet {
			if open(packet[:n]) == nil {
				t.Errorf("%s cut to %d bytes is taken", name, n)
			}
		}
		if open(append(slices.Clone(packet), 0)) == nil {
			t.Errorf("%s with a byte more is taken", name)
		}
		for bit := range 8 * len(packet) {
			packet[bit/8] ^= 1 << (bit % 8)
			if open(packet) == nil {
				t.Errorf("%s with bit %d flipped is taken", name, bit)
			}
			packet[bit/8] ^= 1 << (bit % 8)
		}
	}
}
