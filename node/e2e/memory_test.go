package e2e

import (
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"workmanager/web/api"
)

// How far the resident memory may rise, what the garbage collector has not
// taken back included, and where it may stand after very many jobs: then the
// window, the store's rows and SQLite's pages are at their bounds. A body of
// 64 MiB that is held breaks the first, replies that are held the second.
const (
	maxBodyGrowth  = 24 << 20
	maxBatchGrowth = 32 << 20 // a collection late in the first phase is seen in the second
	maxResident    = 400 << 20
)

// grew fails the test if memory grew by more than max.
func grew(t testing.TB, what string, got, max int64) {
	t.Helper()
	t.Logf("%s: memory grew by %d KiB", what, got>>10)
	if !raced && got > max {
		t.Errorf("%s: memory grew by %d MiB, want at most %d", what, got>>20, max>>20)
	}
}

// pattern is n bytes without end in memory: the same piece again and again.
type pattern struct {
	piece string
	n, at int64
}

func (p *pattern) Read(b []byte) (int, error) {
	if p.at == p.n {
		return 0, io.EOF
	}
	n := copy(b[:min(int64(len(b)), p.n-p.at)], p.piece[p.at%int64(len(p.piece)):])
	p.at += int64(n)
	return n, nil
}

// TestLargeBodies sends 64 MiB in each form: the value is right, and the node
// is no larger after it.
func TestLargeBodies(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), nil, "--workers", "0")
	const size = 64 << 20
	piece := strings.Repeat(strings.Repeat("0123456789abcdef", 3)[:48], 1024) // 48 KiB: whole groups of base64
	data := func() *pattern { return &pattern{piece: piece, n: size} }
	h := sha512.New()
	if _, err := io.Copy(h, data()); err != nil {
		t.Fatal(err)
	}
	want := hex.EncodeToString(h.Sum(nil))
	for _, f := range forms { // what is made once is made before it counts
		n.must(http.StatusOK, "PUT", "/enqueue?iterations=1", strings.NewReader(f.encode(strings.Repeat("w", 256<<10))), "Content-Type", f.contentType)
	}
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			before, after, _ := strings.Cut(f.encode("@"), "@")
			var body io.Reader = data()
			if f.name == "json" {
				before, after = `{"data":"`, `"}`
				encoded := base64.StdEncoding.EncodeToString([]byte(piece))
				if size%3 != 1 {
					t.Fatalf("%d bytes end otherwise than this test thinks", size)
				}
				whole := int64(size / 3 * 4)
				body = io.MultiReader(&pattern{piece: encoded, n: whole},
					strings.NewReader(base64.StdEncoding.EncodeToString([]byte{piece[(size-1)%len(piece)]})))
			} else if f.name == "urlencoded" {
				before, after = "data=", ""
				if url.QueryEscape(piece) != piece {
					t.Fatal("the piece needs escapes")
				}
			}
			var w api.WorkID
			grew(t, f.name, n.growth(func() {
				decode(t, n.must(http.StatusOK, "PUT", "/enqueue?iterations=1",
					io.MultiReader(strings.NewReader(before), body, strings.NewReader(after)), "Content-Type", f.contentType), &w)
			}), maxBodyGrowth)
			if j := n.job(w.ID); j.Value != want {
				t.Errorf("value: got %s, want %s", j.Value, want)
			}
		})
	}
	n.stop()
}

// TestLargeBatches sends very many lines, to a client that reads as it sends
// and to one that does not, and to two at once: every line is answered, nobody
// waits for the other side for ever, and the node's memory stays bounded.
func TestLargeBatches(t *testing.T) {
	t.Parallel()
	lines := number(t, "WORKMANAGER_E2E_LINES", 200_000)
	n := start(t, t.TempDir(), nil, "--workers", "0")
	half := lines / 2
	t.Logf("%d lines, streamed, and two times %d at once fill the window and the caches: memory grew by %d KiB", lines, half, n.growth(func() {
		n.within("streamed", func() error { return streamed(n, "streamed", lines) })
		var wg sync.WaitGroup
		errs := make([]error, 2)
		wg.Go(func() { errs[0] = streamed(n, "at once/streamed", half) })
		wg.Go(func() { errs[1] = naive(n, "at once/naive", half) })
		n.within("at once", func() error { wg.Wait(); return errors.Join(errs...) })
	})>>10)
	grew(t, fmt.Sprintf("%d lines before a reply is read", lines), n.growth(func() {
		n.within("naive", func() error { return naive(n, "naive", lines) })
	}), maxBatchGrowth)
	if got, want := n.status().Queued, int64(2*lines+2*half); got != want {
		t.Errorf("queued: got %d, want %d", got, want)
	}
	grew(t, "in all, from nothing", n.memory("VmRSS"), maxResident)
	n.forgotten()
	n.stop()
}
