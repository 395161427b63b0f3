package sync

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"io"
	"math"
	"math/rand/v2"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
)

var update = flag.Bool("update", false, "write the golden files anew")

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
