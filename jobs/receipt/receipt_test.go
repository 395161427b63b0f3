package receipt_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/receipt"
)

var update = flag.Bool("update", false, "write the golden files anew")

func filled(n byte) (v jobs.Value) {
	for i := range v {
		v[i] = n + byte(i)
	}
	return v
}

// signed is a receipt that is the same each time: Ed25519 draws no random bytes.
func signed(t testing.TB) receipt.Signed {
	t.Helper()
	at := time.Date(2026, 11, 25, 14, 22, 1, 123456000, time.UTC)
	j, err := jobs.New(jobs.ID{0: 1, 6: 0x70, 8: 0x80, 15: 9}, filled(1), 6001, 0)
	if err != nil {
		t.Fatal(err)
	}
	j, _ = j.Keeping(2)
	j = j.Born("a", at, nil)
	j, _ = j.Complete(filled(3), at.Add(time.Second))
	j, _ = j.AddRungs(0, jobs.Rungs("").Add(filled(4)).Add(filled(5)))
	r, err := receipt.Of(j, "node-ä")
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.Sign(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestGolden: what is signed never changes, or receipts that are out there
// would no longer be good.
func TestGolden(t *testing.T) {
	s := signed(t)
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{"canonical.txt": s.Canonical(), "receipt.json": append(text, '\n')} {
		name = "testdata/" + name
		if *update {
			if err := os.MkdirAll("testdata", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s(%v)", name, got, want, err)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	s := signed(t)
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var got receipt.Signed
	if err := json.Unmarshal(text, &got); err != nil || got != s {
		t.Fatalf("read back %+v, %v, want %+v", got, err, s)
	}
	if err := got.Check(); err != nil {
		t.Errorf("Check() = %v", err)
	}
}

// TestChanged: whatever is changed, the signature no longer fits.
func TestChanged(t *testing.T) {
	for name, change := range map[string]func(*receipt.Signed){
		"job":         func(s *receipt.Signed) { s.Job[3]++ },
		"v1":          func(s *receipt.Signed) { s.V1[63]++ },
		"iterations":  func(s *receipt.Signed) { s.Iterations++ },
		"value":       func(s *receipt.Signed) { s.Value[0]++ },
		"checkpoints": func(s *receipt.Signed) { s.Checkpoints++ },
		"digest":      func(s *receipt.Signed) { s.Digest[0]++ },
		"created_at":  func(s *receipt.Signed) { s.CreatedAt = s.CreatedAt.Add(time.Microsecond) },
		"finished_at": func(s *receipt.Signed) { s.FinishedAt = s.FinishedAt.Add(-time.Microsecond) },
		"node":        func(s *receipt.Signed) { s.Node += "x" },
		"worker":      func(s *receipt.Signed) { s.Worker = "w" },
		"public_key":  func(s *receipt.Signed) { s.PublicKey[0]++ },
		"signature":   func(s *receipt.Signed) { s.Signature[40]++ },
	} {
		s := signed(t)
		change(&s)
		if err := s.Check(); err != receipt.ErrSignature {
			t.Errorf("%s changed: Check() = %v", name, err)
		}
	}
}

func TestRefused(t *testing.T) {
	text, err := json.Marshal(signed(t))
	if err != nil {
		t.Fatal(err)
	}
	good := string(text)
	for _, c := range []struct{ old, new, want string }{
		{`"version":1`, `"version":2`, "version"},
		{`"job":"01`, `"job":"0`, "job"},
		{`"v1":"01`, `"v1":"`, "v1"},
		{`"value":"03`, `"value":"0g`, "value"},
		{`"checkpoints":2`, `"checkpoints":1001`, "checkpoints"},
		{`"checkpoints":2`, `"checkpoints":-1`, "checkpoints"},
		{`"iterations":6001`, `"iterations":0`, "iterations"},
		{`"iterations":6001`, `"iterations":9007199254740993`, "iterations"},
		{`"created_at":"2026-11-25T14:22:01.123456Z"`, `"created_at":"2026-11-25T14:22:01.123456+00:00"`, "created_at"},
		{`"created_at":"2026-11-25T14:22:01.123456Z"`, `"created_at":"2026-11-25T14:22:01.1234567Z"`, "created_at"},
		{`"created_at":"2026-11-25T14:22:01.123456Z"`, `"created_at":""`, "created_at"},
		{`"node":"node-ä"`, `"node":"a\nworker b"`, "node"},
		{`"node":"node-ä"`, `"node":""`, "node"},
		{`"node":"node-ä"`, `"node":"` + strings.Repeat("n", 256) + `"`, "node"},
		{`"node":"node-ä"`, `"node":"a","worker":"\u0000"`, "worker"},
		{`"node":"node-ä"`, `"node":"a","more":1`, "more"},
		{`}`, ``, "EOF"},
	} {
		bad := strings.Replace(good, c.old, c.new, 1)
		var s receipt.Signed
		if err := s.UnmarshalJSON([]byte(bad)); bad == good || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s for %s: %v, want an error that names %s", c.new, c.old, err, c.want)
		}
	}
	var s receipt.Signed
	for _, bad := range []string{"", "null", "[]", good + good, good + strings.Repeat(" ", receipt.MaxBytes)} {
		if err := s.UnmarshalJSON([]byte(bad)); err == nil {
			t.Errorf("%.20q was taken", bad)
		}
	}
}

func TestOf(t *testing.T) {
	j, _ := jobs.New(jobs.ID{1}, filled(1), 5, 0)
	now := time.UnixMicro(5).UTC()
	done, _ := j.Complete(filled(2), now)
	purged, _ := done.Purge(now)
	failed, _ := j.Fail("no", now)
	one := jobs.Job{ID: jobs.ID{2}, V1: filled(1), Iterations: 1}.Born("a", now, nil)
	for _, bad := range []jobs.Job{j, purged, failed} {
		if _, err := receipt.Of(bad, "a"); jobs.CodeOf(err) != jobs.CodeNotCompleted {
			t.Errorf("Of(%v) = %v", bad.Rank, err)
		}
	}
	for _, good := range []jobs.Job{done, one} {
		if r, err := receipt.Of(good, "a"); err != nil || r.Value != good.Result || r.Checkpoints != 0 {
			t.Errorf("Of(%v) = %+v, %v", good.Rank, r, err)
		}
	}
	r, _ := receipt.Of(done, "a\nb")
	if _, err := r.Sign(ed25519.NewKeyFromSeed(make([]byte, 32))); err == nil {
		t.Error("a name that could be two lines is signed")
	}
}

// FuzzReceipt: what is read is written the same way, and changes nothing of what
// is signed.
func FuzzReceipt(f *testing.F) {
	text, err := json.Marshal(signed(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(strings.Replace(string(text), `"node":"node-ä"`, `"worker":"w","node":"\u00e4"`, 1)))
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var s, again receipt.Signed
		if s.UnmarshalJSON(text) != nil {
			return
		}
		out, err := json.Marshal(s)
		if err != nil {
			t.Fatalf("%q was read and cannot be written: %v", text, err)
		}
		if err := json.Unmarshal(out, &again); err != nil || again != s || !bytes.Equal(again.Canonical(), s.Canonical()) {
			t.Fatalf("%q read back as %+v, %v, want %+v", out, again, err, s)
		}
		if n := bytes.Count(s.Canonical(), []byte("\n")); n != 11 {
			t.Fatalf("%q: the canonical bytes have %d lines", text, n)
		}
	})
}
