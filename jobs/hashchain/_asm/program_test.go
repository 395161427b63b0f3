package main

import (
	"crypto/sha512"
	"encoding/binary"
	"testing"
)

func words(v [64]byte) (w [8]uint64) {
	for i := range w {
		w[i] = binary.BigEndian.Uint64(v[8*i:])
	}
	return w
}

// TestStep compares the algebra with the standard library, and counts what the
// folded constants leave of 2072 operations.
func TestStep(t *testing.T) {
	p := newStep()
	v := sha512.Sum512([]byte("abc"))
	for i := range 200 {
		next := sha512.Sum512(v[:])
		if got := p.run(words(v)); got != words(next) {
			t.Fatalf("step %d: %x, want %x", i, got, words(next))
		}
		v = next
	}
	n, rotates := 0, 0
	for _, o := range p.ops {
		switch o.kind {
		case input, load:
		case ror, shr:
			rotates++
			n++
		default:
			n++
		}
	}
	if n != 1987 || rotates != 828 {
		t.Errorf("%d operations, %d of them rotates or shifts; want 1987 and 828", n, rotates)
	}
}
