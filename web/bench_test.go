package web_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"workmanager/web"
)

// nowhere is a ResponseWriter that costs nothing.
type nowhere struct{ h http.Header }

func (n nowhere) Header() http.Header         { return n.h }
func (n nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n nowhere) WriteHeader(int)             {}

func (n nowhere) SetReadDeadline(time.Time) error  { return nil }
func (n nowhere) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkEnqueue is what our code costs a small job, without net/http's
// reading and writing and without the queue.
func BenchmarkEnqueue(b *testing.B) {
	h := (&fake{}).server(b)
	w := nowhere{http.Header{}}
	body := bytes.NewReader(bytes.Repeat([]byte{'x'}, 64))
	r := httptest.NewRequest("PUT", "/enqueue?iterations=1000", io.NopCloser(body))
	r.ContentLength = 64
	r.RemoteAddr = "127.0.0.1:1" // held to no rate
	r.Header.Set("Content-Type", "application/octet-stream")
	b.ReportAllocs()
	for b.Loop() {
		body.Seek(0, io.SeekStart) //nolint:errcheck // never fails
		clear(w.h)
		h.ServeHTTP(w, r)
	}
}

// BenchmarkEnqueue256K is the share of bare SHA-512 that a large body reaches
// over a socket, the sender's work included.
func BenchmarkEnqueue256K(b *testing.B) {
	data := strings.Repeat("\xa5", 256<<10)
	b.Run("bare", func(b *testing.B) {
		p := []byte(data)
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			sha512.Sum512(p)
		}
	})
	for _, f := range forms {
		b.Run(f.name, func(b *testing.B) {
			s := serve(b, (&fake{}).server(b))
			ct, body := f.body(data)
			b.SetBytes(int64(len(data)))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r, _ := http.NewRequest("PUT", s.URL+"/enqueue?iterations=9", strings.NewReader(body))
					r.Header.Set("Content-Type", ct)
					resp, err := s.Client().Do(r)
					if err != nil || resp.StatusCode != 200 {
						b.Error(resp, err)
						return
					}
					io.Copy(io.Discard, resp.Body) //nolint:errcheck // of a benchmark
					resp.Body.Close()              //nolint:errcheck
				}
			})
		})
	}
}

// BenchmarkBatch is a batch over a socket into a queue that costs nothing; one
// operation is one job, with the sender's work and the reader's.
func BenchmarkBatch(b *testing.B) {
	s := serve(b, (&fake{}).server(b))
	r, w := io.Pipe()
	lines := bytes.Repeat([]byte(`{"data":"`+base64.StdEncoding.EncodeToString(make([]byte, 32))+`","iterations":1000}`+"\n"), 500)
	n := b.N
	go func() {
		one := len(lines) / 500
		for ; n > 0; n -= 500 {
			w.Write(lines[:one*min(n, 500)]) //nolint:errcheck // of a benchmark
		}
		w.Close() //nolint:errcheck // never fails
	}()
	b.ReportAllocs()
	b.ResetTimer()
	resp, err := s.Client().Post(s.URL+"/v1/jobs/batch", "application/x-ndjson", r)
	if err != nil {
		b.Fatal(err)
	}
	var got lineCount
	if _, err := io.Copy(&got, resp.Body); err != nil || int(got) != b.N {
		b.Fatalf("%d replies to %d jobs: %v", got, b.N, err)
	}
}

type lineCount int

func (c *lineCount) Write(p []byte) (int, error) {
	*c += lineCount(bytes.Count(p, []byte{'\n'}))
	return len(p), nil
}

// BenchmarkLine is the reading of one line alone.
func BenchmarkLine(b *testing.B) {
	for _, n := range []int{8, 32, 1000} {
		line := fmt.Appendf(nil, `{"data":"%s","iterations":1000}`, base64.StdEncoding.EncodeToString(make([]byte, n)))
		b.Run(fmt.Sprintf("fast/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			read := web.LineReader()
			for b.Loop() {
				if !read(line) {
					b.Fatal("not fast")
				}
			}
		})
		b.Run(fmt.Sprintf("slow/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := web.SlowLine(line, 1<<20); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
