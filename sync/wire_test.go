package sync

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
)

var update = flag.Bool("update", false, "write the golden files anew")

var wireEpoch = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)

func wireID(n byte) (id jobs.ID) {
	for i := range id {
		id[i] = n + byte(i)
	}
	return id
}

func wireValue(n byte) (v jobs.Value) {
	for i := range v {
		v[i] = n + byte(i)
	}
	return v
}

func wireIdentity() Identity {
	return Identity{Node: "a", Cluster: "prod", Store: wireID(0x10), Boot: wireID(0x20),
		ProtoMin: 1, ProtoMax: 2, Schema: 3, MemberEpoch: 4}
}

func wireHello() Hello {
	return Hello{Identity: wireIdentity(), Features: 1<<63 | 5, Head: 123456, Floor: wireEpoch.Add(-30 * 24 * time.Hour),
		Promise: wireEpoch.Add(-29 * 24 * time.Hour), Now: wireEpoch, Reset: true, LiveFrom: 123456, Complete: true, Load: wireLoad()}
}

func wireLoad() Load {
	return Load{Waiting: 1000, Remaining: jobs.Work{Hi: 3, Lo: math.MaxUint64}, Leased: 64, FreeLanes: 8, Workers: 4, Rate: 12_000_000, Done: 6300, Arriving: 400, Incoming: 3_000_000,
		Fleet: []byte(`{"0":{"gen":1,"instance":"i-0abc","state":"running"}}`)}
}

// wireRows are rows of every shape, by name. The names of nodes are longer
// than what Go keeps for nothing.
func wireRows() map[string]jobs.Row {
	born := jobs.Job{ID: wireID(1), V1: wireValue(2), Iterations: 1 << 40, Priority: 7}.Born("node-a", wireEpoch, nil)
	ahead, _ := born.Advance(jobs.Progress{Done: 1 << 39, Value: wireValue(3)})
	ahead, _ = ahead.Lose(wireEpoch)
	ahead.Attempts = 300
	ahead, _ = ahead.Rehome("node-b")
	completed, _ := ahead.Complete(wireValue(4), wireEpoch.Add(time.Hour))
	pulled, _ := completed.Pull()
	pulled.Verified = true
	failed, _ := ahead.Fail("5 workers lost while computing it", wireEpoch.Add(time.Minute))
	cancelled, _ := born.Cancel(wireEpoch.Add(time.Second))
	purged, _ := pulled.Purge(wireEpoch.Add(2 * time.Hour))
	one := jobs.Job{ID: wireID(9), V1: wireValue(8), Iterations: 1}.Born("node-a", wireEpoch, nil)
	keeping := born
	keeping.Keep, keeping.ResumedFrom = 900, 77
	keeping.Rungs = jobs.Rungs("").Add(wireValue(5)).Add(wireValue(6))
	owned := born
	owned.Owner = "client-1"
	restarted, _ := ahead.TakeBack(jobs.Progress{Done: 1 << 38, Value: wireValue(7)}, 0)
	return map[string]jobs.Row{
		"row_owned":      {Job: owned, LSeq: 987663},
		"row_restarted":  {Job: restarted, LSeq: 987664},
		"row_kept":       {Job: keeping, LSeq: 987662},
		"row_open":       {Job: born, LSeq: 987654},
		"row_checkpoint": {Job: ahead, LSeq: 987655},
		"row_completed":  {Job: completed, LSeq: 987656},
		"row_pulled":     {Job: pulled, LSeq: 987657},
		"row_failed":     {Job: failed, LSeq: 987658},
		"row_cancelled":  {Job: cancelled, LSeq: 987659},
		"row_purged":     {Job: purged, LSeq: 987660},
		"row_one":        {Job: one, LSeq: 1},
		"row_ext":        {Job: born, LSeq: 987661, Ext: []byte{28, 2, 0xAB, 0xCD, 0x81, 0x80, 0x01, 0}},
	}
}

// randomRow makes a row by the facts that make them in life.
func randomRow(rng *rand.Rand) jobs.Row {
	nodes := []string{"a", "b", "node-of-a-long-name", strings.Repeat("n", maxNode)}
	j := jobs.Job{Iterations: 1 + rng.Uint64N(1<<rng.UintN(54)), Priority: uint8(rng.UintN(10))}
	for _, b := range [][]byte{j.ID[:], j.V1[:]} {
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
	}
	j.Owner = []string{"", "", "c", strings.Repeat("c", jobs.MaxOwnerBytes)}[rng.IntN(4)]
	now := wireEpoch.Add(time.Duration(rng.Int64N(1e15)) / 1000 * 1000)
	j = j.Born(nodes[rng.IntN(len(nodes))], now, nil)
	if rng.IntN(3) == 0 {
		j, _ = j.Keeping(rng.IntN(jobs.MaxKeep + 1))
	}
	if rng.IntN(5) == 0 {
		j.ResumedFrom = rng.Uint64N(j.Iterations)
	}
	for range rng.IntN(8) {
		now = now.Add(time.Duration(rng.Int64N(1e12)) / 1000 * 1000)
		v := jobs.Value{byte(rng.Uint32()), 63: byte(rng.Uint32())}
		switch rng.IntN(12) {
		case 10:
			j, _ = j.Distrust()
		case 11:
			j, _ = j.TakeBack(jobs.Progress{Done: 2 + rng.Uint64N(j.Start().Done), Value: v}, j.Restarts)
		case 9:
			j, _ = j.AddRungs(j.Rungs.Len(), jobs.Rungs("").Add(v).Add(v))
		case 0, 1:
			j, _ = j.Advance(jobs.Progress{Done: rng.Uint64N(j.Iterations + 1), Value: v})
		case 2:
			j, _ = j.Complete(v, now)
		case 3:
			j, _ = j.Fail(strings.Repeat("ü", rng.IntN(jobs.MaxErrBytes)), now)
		case 4:
			j, _ = j.Cancel(now)
		case 5:
			j, _ = j.Lose(now)
		case 6:
			if rng.IntN(3) == 0 {
				j, _ = j.Purge(now)
			}
		case 7:
			j, _ = j.Pull()
		case 8:
			j, _ = j.Rehome(nodes[rng.IntN(len(nodes))])
			j.Attempts++
			j, _ = j.Raised(now)
		}
	}
	r := jobs.Row{Job: j, LSeq: jobs.LSeq(rng.Int64N(math.MaxInt64))}
	for range max(0, rng.IntN(6)-3) {
		r.Ext = binary.AppendUvarint(r.Ext, 28+rng.Uint64N(1<<rng.UintN(60)))
		n := rng.IntN(300)
		r.Ext = binary.AppendUvarint(r.Ext, uint64(n))
		for range n {
			r.Ext = append(r.Ext, byte(rng.Uint32()))
		}
	}
	return r
}

// same reports whether two rows are equal by ==, as the store compares them.
func same(a, b jobs.Row) bool {
	return a.Job == b.Job && a.LSeq == b.LSeq && bytes.Equal(a.Ext, b.Ext)
}

// oneFrame returns the only frame of stream.
func oneFrame(t testing.TB, stream []byte) (kind byte, payload []byte) {
	t.Helper()
	r := newFrameReader(bytes.NewReader(stream))
	kind, payload, err := r.next()
	if err != nil {
		t.Fatalf("next of %x: %v", stream, err)
	}
	payload = bytes.Clone(payload)
	if _, _, err := r.next(); err != io.EOF {
		t.Fatalf("next behind the only frame: %v, want %v", err, io.EOF)
	}
	return kind, payload
}

// decodeAny decodes a payload and encodes it anew.
func decodeAny(kind byte, payload []byte) (v any, again []byte, err error) {
	switch kind {
	case kindHello:
		h, err := decodeHello(payload)
		return h, appendHello(nil, &h), err
	case kindRow:
		r, err := decodeRow(payload)
		return r, appendRow(nil, &r), err
	case kindHeartbeat:
		h, err := decodeHeartbeat(payload)
		return h, appendHeartbeat(nil, &h), err
	case kindEnd:
		e, err := decodeEnd(payload)
		return e, appendEnd(nil, &e), err
	}
	return nil, nil, fmt.Errorf("kind %d", kind)
}

func TestWireGolden(t *testing.T) {
	hello, end := wireHello(), End{At: 100, SeenHead: 300, BackAt: 42, More: true, RCov: 7, HasRCov: true}
	beat := Heartbeat{Head: 77, Now: wireEpoch, Load: Load{Waiting: 2, Leased: 1, Workers: 4}}
	frames := map[string][]byte{
		"hello":     appendHello(nil, &hello),
		"heartbeat": appendHeartbeat(nil, &beat),
		"end":       appendEnd(nil, &end),
	}
	want := map[string]any{"hello": hello, "heartbeat": beat, "end": end}
	rows := wireRows()
	for name, r := range rows {
		frames[name], want[name] = appendRow(nil, &r), r
	}
	for name, got := range frames {
		golden := readGolden(t, name+".hex", []byte(hexLines(got)))
		b, err := hex.DecodeString(strings.Join(strings.Fields(string(golden)), ""))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(got, b) {
			t.Errorf("%s: encoded\n%swant\n%s", name, hexLines(got), golden)
		}
		v, again, err := decodeAny(oneFrame(t, b))
		if err != nil || !reflect.DeepEqual(v, want[name]) || !bytes.Equal(again, b) {
			t.Errorf("%s: decoded %+v, %v, want %+v", name, v, err, want[name])
		}
	}

	copies, taken := appendCopies(nil, wireID(0x20), []jobs.Row{rows["row_open"], rows["row_completed"], rows["row_ext"]}, maxPacket)
	if taken != 3 || len(copies) > maxPacket {
		t.Errorf("appendCopies took %d rows in %d bytes, want 3 in at most %d", taken, len(copies), maxPacket)
	}
	for name, got := range map[string]string{
		"copies.hex": hexLines(copies),
		"hint.hex":   hexLines(appendHint(nil, wireID(0x20), 123456, 1000, 8)),
		"request.txt": encodeRequest(Request{Identity: wireIdentity(), Complete: true, Now: wireEpoch, Unlisted: true,
			Cursor: jobs.Cursor{Boot: wireID(0x30), At: 20, SeenHead: 30, BackAt: 1, BackTo: 9},
			Wait:   time.Second, Rows: 500, Bytes: 1 << 19}).Encode() + "\n",
		"floor.json":   string(encodeFloorRequest(FloorRequest{Identity: wireIdentity(), Floor: wireEpoch, Head: 9})) + "\n",
		"refusal.json": string(encodeRefusal(&Refusal{Code: RefusedCluster, Detail: `cluster "x", this is "y"`})) + "\n",
	} {
		if want := string(readGolden(t, name, []byte(got))); got != want {
			t.Errorf("%s: encoded\n%swant\n%s", name, got, want)
		}
	}
}

// readGolden returns a golden file, which it writes first under -update.
func readGolden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func hexLines(b []byte) string {
	var s strings.Builder
	for line := range slices.Chunk(b, 32) {
		fmt.Fprintf(&s, "%x\n", line)
	}
	return s.String()
}

func TestRowRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var d rowDecoder
	var b []byte
	var before jobs.Row
	for n := range 20_000 {
		r := randomRow(rng)
		b = appendRow(b[:0], &r)
		kind, payload, err := newFrameReader(bytes.NewReader(b)).next()
		if err != nil || kind != kindRow {
			t.Fatalf("row %d, %+v: frame of kind %d, %v", n, r, kind, err)
		}
		got, err := d.decode(payload)
		if err != nil || !same(got, r) {
			t.Fatalf("row %d: got %+v, %v\nwant %+v", n, got, err, r)
		}

		// What Merge makes of two rows is a row again.
		before.Job.ID = r.Job.ID
		if n%2 == 0 {
			before.Job.V1, before.Job.Iterations = r.Job.V1, r.Job.Iterations
			if before.Job.Purged {
				before.Job.V1 = jobs.Value{}
			}
		}
		if _, err := decodeRow(appendRowFields(nil, &before)); n > 0 && err == nil {
			m := jobs.Row{Job: jobs.Merge(before.Job, r.Job), LSeq: r.LSeq}
			if got, err := decodeRow(appendRowFields(nil, &m)); err != nil || !same(got, m) {
				t.Fatalf("row %d: Merge(%+v, %+v): got %+v, %v\nwant %+v", n, before.Job, r.Job, got, err, m)
			}
		}
		before = r
	}
}

func TestTimesCompareWithTheStores(t *testing.T) {
	for _, at := range []time.Time{{}, wireEpoch, wireEpoch.Add(999), time.Unix(-1, 1000), time.UnixMicro(0),
		wireEpoch.In(time.FixedZone("", 3600)), time.Now()} {
		b := appendTime(nil, rowGCAfter, at)
		var got time.Time
		if len(b) > 0 {
			var err error
			if got, err = readInstant(b[2:]); err != nil {
				t.Errorf("instant %v: %v", at, err)
			}
		}
		var want time.Time // jobs/store: instant(micros(at))
		if us := at.UnixMicro(); !at.IsZero() && us != 0 {
			want = time.UnixMicro(us).UTC()
		}
		if got != want {
			t.Errorf("instant %v: got %#v, want %#v", at, got, want)
		}
	}
	for _, us := range []int64{math.MinInt64, time.Time{}.UnixMicro(), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro(), math.MaxInt64} {
		if got, err := readInstant(binary.AppendVarint(nil, us)); err == nil {
			t.Errorf("instant of %d microseconds = %v, want an error", us, got)
		}
	}
}

func TestMessagesRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	at := func() time.Time {
		if rng.IntN(4) == 0 {
			return time.Time{}
		}
		return time.UnixMicro(rng.Int64N(lastMicro)).UTC()
	}
	num := func() int64 {
		return max(0, rng.Int64N(math.MaxInt64)>>(1+rng.UintN(63))-1)
	}
	for range 2000 {
		load := Load{Waiting: num(), Remaining: jobs.Work{Hi: uint64(num()), Lo: rng.Uint64()}, Leased: num(), FreeLanes: num(), Workers: num(), Rate: num(), Done: num(), Arriving: num(), Incoming: num()}
		if n := rng.IntN(4); n > 0 {
			load.Fleet = make([]byte, (n-1)*maxFleet/2)
		}
		live := jobs.LSeq(num())
		hello := Hello{Identity: wireIdentity(), Features: rng.Uint64(), Head: live + jobs.LSeq(rng.Int64N(int64(math.MaxInt64-live))),
			Floor: at(), Promise: at(), Now: at(), Reset: rng.IntN(2) == 0, LiveFrom: live, Complete: rng.IntN(2) == 0, Load: load}
		if got, _, err := decodeAny(oneFrame(t, appendHello(nil, &hello))); err != nil || !reflect.DeepEqual(got, hello) {
			t.Fatalf("hello: got %+v, %v\nwant %+v", got, err, hello)
		}
		beat := Heartbeat{Head: jobs.LSeq(num()), Now: at(), Load: load}
		if got, _, err := decodeAny(oneFrame(t, appendHeartbeat(nil, &beat))); err != nil || !reflect.DeepEqual(got, beat) {
			t.Fatalf("heartbeat: got %+v, %v\nwant %+v", got, err, beat)
		}
		end := End{SeenHead: jobs.LSeq(num()), More: rng.IntN(2) == 0}
		end.At, end.BackAt = jobs.LSeq(rng.Int64N(int64(end.SeenHead)+1)), jobs.LSeq(rng.Int64N(int64(end.SeenHead)+1))
		if rng.IntN(2) == 0 {
			end.HasRCov, end.RCov = true, jobs.RSeq(num())
		}
		if got, _, err := decodeAny(oneFrame(t, appendEnd(nil, &end))); err != nil || !reflect.DeepEqual(got, end) {
			t.Fatalf("end: got %+v, %v\nwant %+v", got, err, end)
		}
	}
	if got, _, err := decodeAny(oneFrame(t, appendHeartbeat(nil, &Heartbeat{Load: Load{FreeLanes: -1}}))); err != nil || !reflect.DeepEqual(got, Heartbeat{}) {
		t.Errorf("heartbeat with -1 free lanes: got %+v, %v, want none", got, err)
	}
}

// unknown are fields of a later release, one with a key that is written longer
// than it need be.
var unknown = []byte{28, 0, 29, 3, 1, 2, 3, 0xA3, 0x00, 1, 9, 0xFF, 0xFF, 0x7F, 2, 7, 7, 28, 1, 5}

func TestUnknownFieldsSurvive(t *testing.T) {
	for name, r := range wireRows() {
		r.Ext = nil
		plain := appendRowFields(nil, &r)
		// Before, between and behind the known fields: in their order they
		// come out behind them.
		cut := 2 + len(r.Job.ID)
		var mixed []byte
		mixed = append(mixed, unknown[:2]...)
		mixed = append(mixed, plain[:cut]...)
		mixed = append(mixed, unknown[2:7]...)
		mixed = append(mixed, plain[cut:]...)
		mixed = append(mixed, unknown[7:]...)
		got, err := decodeRow(mixed)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := slices.Concat(plain, unknown); !bytes.Equal(appendRowFields(nil, &got), want) {
			t.Errorf("%s: encoded again\n%x, want\n%x", name, appendRowFields(nil, &got), want)
		}
		if got.Job != r.Job || !bytes.Equal(got.Ext, unknown) {
			t.Errorf("%s: got %+v, Ext %x, want %+v, Ext %x", name, got.Job, got.Ext, r.Job, unknown)
		}
		clear(mixed)
		if !bytes.Equal(got.Ext, unknown) {
			t.Errorf("%s: Ext changed with the payload", name)
		}
	}
	later := []byte{200, 1, 2, 1, 2} // of key 200
	hello, end := wireHello(), End{At: 1, SeenHead: 2}
	for kind, frame := range map[byte][]byte{kindHello: appendHello(nil, &hello), kindEnd: appendEnd(nil, &end)} {
		_, payload := oneFrame(t, frame)
		if _, again, err := decodeAny(kind, append(payload, later...)); err != nil || !bytes.Equal(again, frame) {
			t.Errorf("kind %d with an unknown field: %x, %v, want it skipped", kind, again, err)
		}
	}
}

// TestOlderPeerKeepsRungs: a peer of the schema before kept checkpoints takes a
// row that has many, and gives back what it was sent.
func TestOlderPeerKeepsRungs(t *testing.T) {
	r := wireRows()["row_kept"]
	r.Job.Keep = jobs.MaxKeep
	for r.Job.Rungs.Len() < jobs.MaxKeep {
		r.Job.Rungs = r.Job.Rungs.Add(wireValue(byte(r.Job.Rungs.Len())))
	}
	if same := forSchema(r, schemaRungs); same.Job != r.Job {
		t.Error("a peer of this release is sent less than all")
	}
	sent := forSchema(r, schemaRungs-1)
	var known, ext []byte
	if _, err := eachField("row", rowNames, appendRowFields(nil, &sent), func(key uint64, _, raw []byte) error {
		if key >= rowKeep {
			ext = append(ext, raw...)
		} else {
			known = append(known, raw...)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(ext) > maxExt {
		t.Fatalf("%d bytes that the older release does not know, it takes %d", len(ext), maxExt)
	}
	back, err := decodeRow(append(known, ext...))
	if want := r.Job.Rungs.First(fewRungs); err != nil || back.Job.Rungs != want || back.Job.Keep != r.Job.Keep || back.Job.ResumedFrom != r.Job.ResumedFrom {
		t.Errorf("came back with %d of %d kept checkpoints, resumed from %d, %v", back.Job.Rungs.Len(), back.Job.Keep, back.Job.ResumedFrom, err)
	}
	if m := jobs.Merge(r.Job, back.Job); m != r.Job {
		t.Errorf("merged with what came back: %d kept checkpoints", m.Rungs.Len())
	}
}

func TestFirstOfAFieldCounts(t *testing.T) {
	r := wireRows()["row_open"]
	payload := appendRowFields(nil, &r)
	payload = append(appendUint(payload, rowPriority, 3), rowHome, 1, 'x')
	if got, err := decodeRow(payload); err != nil || !same(got, r) {
		t.Errorf("got %+v, %v, want %+v", got, err, r)
	}
}

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

func TestFrameReader(t *testing.T) {
	var stream []byte
	sizes := []int{0, 1, 300, 64<<10 - headerBytes, 64 << 10, 100_000, 3, maxFrame, 7, maxFrame}
	for i, n := range sizes {
		var start int
		stream, start = beginFrame(stream, byte(i+1))
		stream = append(stream, bytes.Repeat([]byte{byte(i)}, n)...)
		stream = endFrame(stream, start)
	}
	for name, r := range map[string]io.Reader{
		"whole":     bytes.NewReader(stream),
		"dribbling": io.MultiReader(bytes.NewReader(stream[:1]), &dribble{b: stream[1:], rng: rand.New(rand.NewPCG(5, 6))}),
	} {
		f := newFrameReader(r)
		for i, n := range sizes {
			kind, payload, err := f.next()
			if err != nil || kind != byte(i+1) || !bytes.Equal(payload, bytes.Repeat([]byte{byte(i)}, n)) {
				t.Fatalf("%s: frame %d: kind %d, %d bytes, %v, want kind %d, %d bytes", name, i, kind, len(payload), err, i+1, n)
			}
		}
		if _, _, err := f.next(); err != io.EOF {
			t.Errorf("%s: next at the end: %v, want %v", name, err, io.EOF)
		}
	}
}

// dribble reads a few bytes at a time.
type dribble struct {
	b   []byte
	rng *rand.Rand
}

func (d *dribble) Read(p []byte) (int, error) {
	if len(d.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 1+d.rng.IntN(5000))], d.b)
	d.b = d.b[n:]
	return n, nil
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

func TestRequestRoundTrip(t *testing.T) {
	full := Request{Identity: wireIdentity(), Complete: true, Now: wireEpoch, Unlisted: true,
		Cursor: jobs.Cursor{Boot: wireID(0x30), At: 20, SeenHead: 30, BackAt: 1, BackTo: 9},
		Wait:   time.Second, Rows: 500, Bytes: 1 << 19}
	first := Request{Identity: wireIdentity(), Rows: maxChunkRows, Bytes: maxChunkBytes}
	for _, want := range []Request{full, first} {
		v, err := url.ParseQuery(encodeRequest(want).Encode())
		if err != nil {
			t.Fatal(err)
		}
		v.Set("added_later", "1")
		if got, err := decodeRequest(v); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	greedy := full
	greedy.Wait, greedy.Rows, greedy.Bytes = time.Hour, 1<<40, 1<<40
	got, err := decodeRequest(encodeRequest(greedy))
	if err != nil || got.Wait != maxPark || got.Rows != maxChunkRows || got.Bytes != maxChunkBytes {
		t.Errorf("greedy: wait %v, rows %d, bytes %d, %v, want %v, %d, %d", got.Wait, got.Rows, got.Bytes, err, maxPark, maxChunkRows, maxChunkBytes)
	}
	late := full
	late.Wait, late.Now = -time.Second, time.Unix(-5, 0)
	if got, err := decodeRequest(encodeRequest(late)); err != nil || got.Wait != 0 || !got.Now.IsZero() {
		t.Errorf("wait -1 s, a clock before 1970: wait %v, now %v, %v, want none", got.Wait, got.Now, err)
	}
	for name, values := range map[string][]string{
		askNode:        {"", strings.Repeat("n", 64)},
		askCluster:     {strings.Repeat("n", 253)},
		askStore:       {"", "1234", strings.Repeat("g", 32), strings.Repeat("0", 32)},
		askMe:          {"", "1234", strings.Repeat("g", 32), strings.Repeat("0", 32)},
		askProto:       {"", "1", "-", "1-", "-1", "0-1", "2-1", "1-2-3", "1--2", "+1-2", "1-99999999999"},
		askSchema:      {"", "-1", "x", "99999999999"},
		askMemberEpoch: {"", "-1", "1.5", "9223372036854775808"},
		askComplete:    {"", "true", "2", "-1"},
		askNow:         {"", "-1", "9223372036854775807"},
		askBoot:        {"", "zz"},
		askAt:          {"", "-1", "+1", " 1", "0x1", "1e3", "31", "18446744073709551616"},
		askSeenHead:    {"", "-1"},
		askBackAt:      {"", "-1", "10"},
		askBackTo:      {"", "-1", "31"},
		askUnlisted:    {"", "yes"},
		askWait:        {"", "-1", "1s"},
		askRows:        {"", "-1"},
		askBytes:       {"", "-1"},
	} {
		bad := [][]string{{"1", "1"}}
		for _, s := range values {
			bad = append(bad, []string{s})
		}
		for _, b := range bad {
			v := encodeRequest(full)
			v[name] = b
			if q, err := decodeRequest(v); err == nil || !strings.HasPrefix(err.Error(), "parameter "+name+": ") {
				t.Errorf("%s=%.70q: %+v, %v, want an error that names it", name, b, q, err)
			}
		}
	}
	for _, name := range []string{askNode, askStore, askMe, askProto} {
		v := encodeRequest(full)
		v.Del(name)
		if _, err := decodeRequest(v); err == nil || !strings.HasPrefix(err.Error(), "parameter "+name+": ") {
			t.Errorf("without %s: %v, want an error that names it", name, err)
		}
	}
}

func TestBodies(t *testing.T) {
	want := FloorRequest{Identity: wireIdentity(), Floor: wireEpoch, Head: 1<<62 + 1}
	b := encodeFloorRequest(want)
	if got, err := decodeFloorRequest(bytes.NewReader(b)); err != nil || got != want {
		t.Errorf("%s: got %+v, %v, want %+v", b, got, err, want)
	}
	reply := FloorReply(want)
	if got, err := decodeFloorReply(bytes.NewReader(encodeFloorReply(reply))); err != nil || got != reply {
		t.Errorf("got %+v, %v, want %+v", got, err, reply)
	}
	refusal := &Refusal{Code: RefusedSameStore, Detail: "of \"a\" and <b>"}
	if got, err := decodeRefusal(bytes.NewReader(encodeRefusal(refusal))); err != nil || *got != *refusal {
		t.Errorf("got %+v, %v, want %+v", got, err, refusal)
	}
	for _, tc := range []struct{ old, new, want string }{
		{`{`, `{"added_later":[1],`, ""},
		{`"head":4611686018427387905`, `"head":-1`, "head"},
		{`"head":4611686018427387905`, `"head":1.5`, "head"},
		{`"head":4611686018427387905`, `"head":1e30`, "head"},
		{`"floor":`, `"floor":-`, "floor"},
		{`"floor":`, `"floor":999`, "floor"},
		{`"member_epoch":`, `"member_epoch":-`, "member_epoch"},
		{`"schema":`, `"schema":-`, "schema"},
		{`"proto_min":1`, `"proto_min":0`, "proto"},
		{`"proto_max":2`, `"proto_max":0`, "proto"},
		{`"store":"10`, `"store":"1`, "store"},
		{`"store":"10`, `"store":"xx`, "store"},
		{`"boot":"20`, `"boot":"`, "boot"},
		{`"node":"a"`, `"node":""`, "node"},
		{`"node":"a"`, `"node":7`, "node"},
		{`}`, ``, "body"},
		{`}`, `}}`, "body"},
		{`{`, strings.Repeat(" ", maxBody) + `{`, "too long"},
	} {
		s := strings.Replace(string(b), tc.old, tc.new, 1)
		if s == string(b) {
			t.Fatalf("%s is not in %s", tc.old, b)
		}
		got, err := decodeFloorRequest(strings.NewReader(s))
		switch {
		case tc.want == "" && (err != nil || got != want):
			t.Errorf("%.300s: got %+v, %v, want %+v", s, got, err, want)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%.300s: %v, want an error with %q", s, err, tc.want)
		}
	}
	for _, s := range []string{"", "{}", "null", "<html>502", `{"code":""}`, `{"code":1}`, "[]"} {
		if got, err := decodeRefusal(strings.NewReader(s)); err == nil {
			t.Errorf("refusal %q: got %+v, want an error", s, got)
		}
	}
}

func TestCopies(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 500 {
		var rows, fit []jobs.Row
		for range rng.IntN(40) {
			r := randomRow(rng)
			rows = append(rows, r)
			if packetBytes+2+len(appendRowFields(nil, &r)) <= maxPacket {
				fit = append(fit, r)
			}
		}
		var got []jobs.Row
		for rest := rows; len(rest) > 0; {
			out, taken := appendCopies([]byte("before"), wireID(3), rest, maxPacket)
			packet, ok := bytes.CutPrefix(out, []byte("before"))
			if !ok || taken < 1 || taken > len(rest) || len(packet) > maxPacket {
				t.Fatalf("packet of %d bytes, %d of %d rows taken", len(packet), taken, len(rest))
			}
			rest = rest[taken:]
			if len(packet) == 0 {
				continue
			}
			boot, some, err := decodeCopies(packet)
			if err != nil || boot != wireID(3) || len(some) > taken {
				t.Fatalf("%x: boot %s, %d rows of %d, %v", packet, boot, len(some), taken, err)
			}
			got = append(got, some...)
		}
		if !slices.EqualFunc(got, fit, same) {
			t.Fatalf("%d rows came, want %d of %d", len(got), len(fit), len(rows))
		}
	}
	if out, taken := appendCopies(nil, wireID(3), nil, maxPacket); len(out) != 0 || taken != 0 {
		t.Errorf("of no rows: %x, %d taken, want nothing", out, taken)
	}
	empty, start := beginPacket(nil, packetCopies, wireID(3))
	if _, rows, err := decodeCopies(endPacket(empty, start)); err == nil {
		t.Errorf("a packet of no rows: %v, want an error", rows)
	}
	r := wireRows()["row_open"]
	packet, _ := appendCopies(nil, jobs.ID{}, []jobs.Row{r}, maxPacket)
	if _, rows, err := decodeCopies(packet); err == nil {
		t.Errorf("a packet of no boot: %v, want an error", rows)
	}
	r.Job.Origin = ""
	packet, _ = appendCopies(nil, wireID(3), []jobs.Row{wireRows()["row_open"], r}, maxPacket)
	if _, rows, err := decodeCopies(packet); err == nil || !strings.Contains(err.Error(), "row 1: row: origin") || rows != nil {
		t.Errorf("a packet with a bad row: %v, %v, want an error that names it", rows, err)
	}
}

func TestHint(t *testing.T) {
	for _, want := range []hint{{Boot: wireID(1)}, {wireID(2), 1, 2, 3}, {wireID(3), math.MaxInt64, math.MaxInt64, math.MaxInt64}} {
		b := appendHint(nil, want.Boot, want.Head, want.Waiting, want.FreeWorkers)
		if got, err := decodeHint(b); err != nil || got != want || len(b) > maxHint {
			t.Errorf("%d bytes: got %+v, %v, want %+v in at most %d", len(b), got, err, want, maxHint)
		}
		later := endPacket(append(b, 5), 0)
		if got, err := decodeHint(later); err != nil || got != want {
			t.Errorf("with a number more: got %+v, %v, want %+v", got, err, want)
		}
	}
	if got, err := decodeHint(appendHint(nil, wireID(1), 1, -1, -1)); err != nil || got != (hint{Boot: wireID(1), Head: 1}) {
		t.Errorf("negative counts: got %+v, %v, want none", got, err)
	}
	if got, err := decodeHint(endPacket(append(appendHint(nil, wireID(1), 1, 1, 1), make([]byte, maxHint)...), 0)); err == nil {
		t.Errorf("a long hint: got %+v, want an error", got)
	}
}

func TestNoGarbage(t *testing.T) {
	r := wireRows()["row_completed"]
	b := appendRow(nil, &r)
	payload := b[headerBytes:]
	var d rowDecoder
	if n := testing.AllocsPerRun(100, func() { b = appendRow(b[:0], &r) }); n != 0 {
		t.Errorf("appendRow allocates %v times, want 0", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := d.decode(payload); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("decode of a row allocates %v times, want 0", n)
	}
	src := bytes.NewReader(nil)
	f := newFrameReader(src)
	if n := testing.AllocsPerRun(100, func() {
		src.Reset(b)
		if _, _, err := f.next(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("next allocates %v times, want 0", n)
	}
}

func FuzzFrame(f *testing.F) {
	hello, end, beat := wireHello(), End{At: 1, SeenHead: 2}, Heartbeat{Head: 5, Load: wireLoad()}
	all := appendEnd(appendHeartbeat(appendHello(nil, &hello), &beat), &end)
	f.Add(all)
	f.Add(make([]byte, 40))
	for _, r := range wireRows() {
		f.Add(appendRow(all, &r))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		readAll(t, newFrameReader(bytes.NewReader(b)))
		// The checksum keeps chance out: let each kind in by the front door.
		for kind := kindHello; kind <= kindEnd+1; kind++ {
			frame, start := beginFrame(nil, kind)
			frame = endFrame(append(frame, b...), start)
			r := newFrameReader(bytes.NewReader(frame))
			readAll(t, r)
			if r.err != io.EOF && len(b) <= maxFrame {
				t.Fatalf("kind %d, payload %x: %v, want %v", kind, b, r.err, io.EOF)
			}
		}
	})
}

// readAll reads every frame; what decodes must decode alike once encoded anew.
func readAll(t *testing.T, r *frameReader) {
	for {
		kind, payload, err := r.next()
		if err != nil {
			return
		}
		v, again, err := decodeAny(kind, payload)
		if err != nil {
			continue
		}
		kind2, payload2 := oneFrame(t, again)
		v2, again2, err := decodeAny(kind2, payload2)
		if err != nil || kind2 != kind || !reflect.DeepEqual(v2, v) || !bytes.Equal(again2, again) {
			t.Fatalf("kind %d, payload %x\ndecodes to     %+v\nencoded anew %x\ndecodes to     %+v, %v", kind, payload, v, payload2, v2, err)
		}
	}
}

func FuzzRow(f *testing.F) {
	rng := rand.New(rand.NewPCG(9, 10))
	for _, r := range wireRows() {
		f.Add(appendRowFields(nil, &r))
		r.Ext = unknown
		f.Add(appendRowFields(nil, &r))
	}
	for range 20 {
		r := randomRow(rng)
		f.Add(appendRowFields(nil, &r))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		r, err := decodeRow(payload)
		if err != nil {
			return
		}
		again := appendRowFields(nil, &r)
		if got, err := decodeRow(again); err != nil || !same(got, r) {
			t.Fatalf("%x\ndecodes to     %+v\nencoded anew %x\ndecodes to     %+v, %v", payload, r, again, got, err)
		}
		if len(again) > len(payload) {
			t.Fatalf("%x grew to %x", payload, again)
		}
		m := jobs.Row{Job: jobs.Merge(r.Job, wireRows()["row_checkpoint"].Job)}
		if _, err := decodeRow(appendRowFields(nil, &m)); err != nil {
			t.Fatalf("%+v merged: %+v: %v", r.Job, m.Job, err)
		}
	})
}

func FuzzRequest(f *testing.F) {
	q := Request{Identity: wireIdentity(), Complete: true, Now: wireEpoch, Unlisted: true,
		Cursor: jobs.Cursor{Boot: wireID(0x30), At: 20, SeenHead: 30, BackAt: 1, BackTo: 9}, Wait: time.Second, Rows: 500, Bytes: 1 << 19}
	f.Add(encodeRequest(q).Encode())
	f.Add(encodeRequest(Request{Identity: wireIdentity()}).Encode())
	f.Add(string(encodeFloorRequest(FloorRequest{Identity: wireIdentity(), Floor: wireEpoch, Head: 9})))
	f.Add(string(encodeRefusal(&Refusal{Code: "x", Detail: "y"})))
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := url.ParseQuery(s); err == nil {
			if q, err := decodeRequest(v); err == nil {
				again := encodeRequest(q)
				if got, err := decodeRequest(again); err != nil || got != q {
					t.Fatalf("%q\ndecodes to     %+v\nencoded anew %q\ndecodes to     %+v, %v", s, q, again.Encode(), got, err)
				}
			}
		}
		if r, err := decodeFloorRequest(strings.NewReader(s)); err == nil {
			again := encodeFloorRequest(r)
			if got, err := decodeFloorRequest(bytes.NewReader(again)); err != nil || got != r {
				t.Fatalf("%q\ndecodes to     %+v\nencoded anew %s\ndecodes to     %+v, %v", s, r, again, got, err)
			}
		}
		if r, err := decodeRefusal(strings.NewReader(s)); err == nil {
			again := encodeRefusal(r)
			if got, err := decodeRefusal(bytes.NewReader(again)); len(again) <= maxBody && (err != nil || *got != *r) {
				t.Fatalf("%q\ndecodes to     %+v\nencoded anew %s\ndecodes to     %+v, %v", s, r, again, got, err)
			}
		}
	})
}

func FuzzCopies(f *testing.F) {
	var all []jobs.Row
	for _, r := range wireRows() {
		all = append(all, r)
		b, _ := appendCopies(nil, wireID(1), []jobs.Row{r}, maxPacket)
		f.Add(b)
	}
	b, _ := appendCopies(nil, wireID(1), all, maxPacket)
	f.Add(b)
	f.Add(appendHint(nil, wireID(1), 1<<40, 1000, 8))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := decodeCopies(b); err == nil {
			if _, err := decodeHint(b); err == nil {
				t.Fatalf("%x is both copies and a hint", b)
			}
		}
		if len(b) < packetBytes { // else mend the checksum, or chance never gets in
			return
		}
		for _, kind := range []byte{packetCopies, packetHint} {
			b := bytes.Clone(b)
			b[0] = kind
			b = endPacket(b, 0)
			if h, err := decodeHint(b); err == nil {
				again := appendHint(nil, h.Boot, h.Head, h.Waiting, h.FreeWorkers)
				if got, err := decodeHint(again); err != nil || got != h || len(again) > maxHint {
					t.Fatalf("%x\ndecodes to     %+v\nencoded anew %x\ndecodes to     %+v, %v", b, h, again, got, err)
				}
			}
			boot, rows, err := decodeCopies(b)
			if err != nil {
				continue
			}
			again, taken := appendCopies(nil, boot, rows, len(b))
			boot2, rows2, err := decodeCopies(again)
			if err != nil || taken != len(rows) || boot2 != boot || !slices.EqualFunc(rows2, rows, same) {
				t.Fatalf("%x\ndecodes to     %s %+v\nencoded anew %x, %d rows\ndecodes to     %s %+v, %v", b, boot, rows, again, taken, boot2, rows2, err)
			}
		}
	})
}

func BenchmarkRow(b *testing.B) {
	for _, name := range []string{"row_open", "row_checkpoint", "row_completed"} {
		r := wireRows()[name]
		frame := appendRow(nil, &r)
		b.Run("encode/"+name, func(b *testing.B) {
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				buf = appendRow(buf[:0], &r)
			}
		})
		b.Run("decode/"+name, func(b *testing.B) { // a stream of frames, checksum and checks included
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			f := newFrameReader(&repeat{b: bytes.Repeat(frame, 1000)})
			var d rowDecoder
			for b.Loop() {
				_, payload, err := f.next()
				if err != nil {
					b.Fatal(err)
				}
				if _, err := d.decode(payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// repeat reads b again and again.
type repeat struct {
	b  []byte
	at int
}

func (r *repeat) Read(p []byte) (int, error) {
	n := copy(p, r.b[r.at:])
	r.at = (r.at + n) % len(r.b)
	return n, nil
}
