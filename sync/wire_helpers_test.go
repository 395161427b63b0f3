package sync

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
)

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
