package hashchain

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
)

// vector is one line of testdata/vectors.txt.
type vector struct {
	name       string
	data       []byte
	iterations uint64
	want       string
}

func (v vector) matches(got [64]byte) bool {
	digits := hex.EncodeToString(got[:])
	first, last, cut := strings.Cut(v.want, "…")
	if cut {
		return strings.HasPrefix(digits, first) && strings.HasSuffix(digits, last)
	}
	return digits == v.want
}

func vectors(t testing.TB) []vector {
	t.Helper()
	f, err := os.Open("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var vs []vector
	for s := bufio.NewScanner(f); s.Scan(); {
		line := s.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) != 3 {
			t.Fatalf("vectors.txt: %q has %d fields, want 3", line, len(fields))
		}
		n, err := strconv.ParseUint(fields[1], 10, 64)
		if err != nil {
			t.Fatalf("vectors.txt: %q: %v", line, err)
		}
		if testing.Short() && n > 10_000 {
			continue
		}
		vs = append(vs, vector{fields[0] + " " + fields[1], vectorData(t, fields[0]), n, fields[2]})
	}
	return vs
}

func vectorData(t testing.TB, s string) []byte {
	t.Helper()
	kind, rest, _ := strings.Cut(s, ":")
	var data []byte
	var err error
	switch {
	case s[0] == '"':
		var text string
		text, err = strconv.Unquote(s)
		data = []byte(text)
	case kind == "hex":
		data, err = hex.DecodeString(rest)
	case kind == "seq":
		var n int
		n, err = strconv.Atoi(rest)
		for i := range n {
			data = append(data, byte(i))
		}
	case kind == "repeat":
		b, count, _ := strings.Cut(rest, "*")
		var one []byte
		if one, err = hex.DecodeString(b); err == nil {
			var n int
			n, err = strconv.Atoi(count)
			data = bytes.Repeat(one, n)
		}
	default:
		err = errors.New("unknown kind")
	}
	if err != nil {
		t.Fatalf("vectors.txt: data %q: %v", s, err)
	}
	return data
}

func TestValue(t *testing.T) {
	for _, v := range vectors(t) {
		if got := Value(v.data, v.iterations); !v.matches(got) {
			t.Errorf("Value(%s) = %x, want %s", v.name, got, v.want)
		}
	}
	if got, want := Value([]byte("abc"), 0), Value([]byte("abc"), 1); got != want {
		t.Errorf("Value(abc, 0) = %x, want v1 %x", got, want)
	}
}

func TestFirst(t *testing.T) {
	t.Run("hashes a stream however it is cut", func(t *testing.T) {
		for _, size := range []int{0, 1, 127, 128, pieceBytes - 1, pieceBytes, pieceBytes + 1, 3*pieceBytes + 5} {
			data := bytes.Repeat([]byte{0xa5, 1, 2}, size)[:size]
			want := Value(data, 1)
			for name, r := range map[string]io.Reader{
				"whole":         bytes.NewReader(data),
				"half":          iotest.HalfReader(bytes.NewReader(data)),
				"data with EOF": iotest.DataErrReader(bytes.NewReader(data)),
			} {
				got, n, err := First(r)
				if err != nil || n != int64(size) || got != want {
					t.Errorf("First(%d bytes, %s) = %x, %d, %v, want %x", size, name, got, n, err, want)
				}
			}
		}
	})
	t.Run("gives back the reader's error", func(t *testing.T) {
		cause := errors.New("cut off")
		got, n, err := First(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(cause)))
		if err != cause || n != 3 || got != [64]byte{} {
			t.Errorf("First = %x, %d, %v, want no value, 3 bytes and %v", got, n, err, cause)
		}
	})
	t.Run("gives up on a reader that brings nothing", func(t *testing.T) {
		if _, _, err := First(empty{}); err != io.ErrNoProgress {
			t.Errorf("First = %v, want %v", err, io.ErrNoProgress)
		}
	})
	t.Run("allocates nothing", func(t *testing.T) {
		r := strings.NewReader("abc")
		if n := testing.AllocsPerRun(100, func() {
			r.Reset("abc")
			if _, _, err := First(r); err != nil {
				t.Fatal(err)
			}
		}); n >= 1 && !raceEnabled {
			t.Errorf("First allocates %v times a call, want 0", n)
		}
	})
}

// empty is a reader that never ends and never brings anything.
type empty struct{}

func (empty) Read([]byte) (int, error) { return 0, nil }

func BenchmarkFirst(b *testing.B) {
	data := bytes.Repeat([]byte{1}, 256<<10)
	r := bytes.NewReader(data)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(data)
		if _, _, err := First(r); err != nil {
			b.Fatal(err)
		}
	}
}
