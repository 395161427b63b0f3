package sync

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
)

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
