package ec2

import (
	"bytes"
	"compress/flate"
	"math"
	"slices"
	"testing"
	"time"
)

// FuzzShare: what the other node's scheduler says is read in bounds, and once
// read means the same when it is told again.
func FuzzShare(f *testing.F) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	plain := func(s string) []byte {
		var b bytes.Buffer
		w, err := flate.NewWriter(&b, flate.BestCompression)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := w.Write([]byte(s)); err != nil {
			f.Fatal(err)
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	full := share{Marks: []mark{markOf(0, false), markOf(7, true)}, Leads: true, Drain: []string{"i-1"}, Idle: []string{"i-1 30", "i-2"},
		Workers: []string{shareWorker(now, Worker{Instance: "i-1", Lanes: 8, Rate: 1e6, Leases: 3, Leased: true, LeasedAt: now.Add(-time.Minute)})}}
	f.Add(full.encode(), []byte(nil))
	f.Add([]byte(nil), []byte(`{"m":[1,2,3],"w":["i-1 1 1e300 5 -1","x","i 1 NaN 1 1"],"i":["a 99999999999999999999","b -1","c 9223372036854775807"],"x":1}`))
	f.Add([]byte(nil), []byte(`{"w":["i-1 1 1 5 9223372036854775807"]}`))
	f.Add([]byte(nil), []byte(`{"m":[18446744073709551615]}`))
	f.Add([]byte(nil), []byte(`{"m":[-1]}`))
	f.Add([]byte{1, 2, 3}, []byte("null"))
	f.Fuzz(func(t *testing.T, packed, text []byte) {
		for _, b := range [][]byte{packed, plain(string(text))} { // chance packs little that unpacks
			s, err := decodeShare(b)
			if err != nil {
				continue
			}
			for _, m := range s.Marks {
				if m > 1<<40 {
					t.Fatalf("%q: mark %d", b, m)
				}
			}
			again, err := decodeShare(s.encode())
			if err != nil || !slices.Equal(again.Marks, s.Marks) || again.Leads != s.Leads || !slices.Equal(again.Workers, s.Workers) || !slices.Equal(again.Drain, s.Drain) || !slices.Equal(again.Idle, s.Idle) {
				t.Fatalf("%+v\ntold again is %+v, %v", s, again, err)
			}
			l := newLedger(Config{})
			for k, m := range s.Marks {
				l.raise(k, m) // of slots that this fleet may not have
			}
			for _, w := range s.Workers {
				got, err := readWorker(now, w)
				if err == nil && (got.Leased && got.LeasedAt.After(now) || got.SeenAt != now) {
					t.Fatalf("readWorker(%q) = %+v", w, got)
				}
				if err == nil && !math.IsNaN(got.Rate) && len(got.Instance) < 100 {
					if back, err := readWorker(now, shareWorker(now, got)); err != nil || back.Instance != got.Instance || back.Leased != got.Leased {
						t.Fatalf("%q read is %+v, told again %+v, %v", w, got, back, err)
					}
				}
			}
			for id, d := range s.orders().Idle {
				if d < 0 || d%time.Second != 0 {
					t.Fatalf("%q idles for %v", id, d)
				}
			}
		}
	})
}
