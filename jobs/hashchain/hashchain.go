// Package hashchain computes the iterated hash v1 = SHA-512(data),
// v(k+1) = SHA-512(v(k)).
//
// [Value] is the reference. An [Executor] keeps many independent chains going
// at once, in the lanes of the fastest kernel the machine has; it starts from
// any place in a chain, stops at any, and gives the reference's values. The
// package starts no goroutine, but to measure all cores, logs nothing and knows
// nothing of jobs.
//
// On amd64 the kernels are written by the generator in _asm: 8 chains in AVX-512,
// 4 in AVX-512VL or AVX2, and one on integer registers with its schedule in
// vectors. All use that a message is a value of 64 bytes: the padding is
// constant, the state starts at the IV, and words stay words from one hash to
// the next. Elsewhere, and with -tags purego, crypto/sha512 computes, which on
// arm64 has instructions for it.
package hashchain

import (
	"crypto/sha512"
	"hash"
	"io"
	"sync"
)

// Chunk is a good number of steps for one [Executor.Advance]: a SIMD kernel
// cannot be preempted, so it bounds how long a running one holds up the garbage
// collector, a cancellation or a hand-back, at about 0.1 to 0.5 ms.
const Chunk = 1024

// pieceBytes bounds one Write: crypto/sha512 has no preemption point within
// one, and 64 MiB at once would stop every goroutine for 0.1 s.
const pieceBytes = 64 << 10

// Value returns v(iterations) of data, by the standard library alone.
// Iterations below 1 count as 1.
func Value(data []byte, iterations uint64) [64]byte {
	h := sha512.New()
	for len(data) > pieceBytes {
		h.Write(data[:pieceBytes])
		data = data[pieceBytes:]
	}
	h.Write(data)
	var v [64]byte
	h.Sum(v[:0])
	for ; iterations > 1; iterations-- {
		v = sha512.Sum512(v[:])
	}
	return v
}

// first is what First needs for one stream.
type first struct {
	h   hash.Hash
	buf [pieceBytes]byte
	sum [64]byte
}

var firsts = sync.Pool{New: func() any { return &first{h: sha512.New()} }}

// maxEmptyReads is how many reads may bring nothing before First gives up.
const maxEmptyReads = 100

// First returns v1 = SHA-512 of all that r holds, and how many bytes that was.
// On an error other than io.EOF it returns that error, as r gave it, and the
// bytes read so far. It keeps nothing of the data. Safe for concurrent use.
func First(r io.Reader) (v1 [64]byte, n int64, err error) {
	f := firsts.Get().(*first)
	used, empty := 0, 0
	for err == nil {
		var k int
		k, err = r.Read(f.buf[:])
		f.h.Write(f.buf[:k])
		n += int64(k)
		used = max(used, k)
		if k > 0 {
			empty = 0
		} else if empty++; empty >= maxEmptyReads && err == nil {
			err = io.ErrNoProgress
		}
	}
	f.h.Sum(f.sum[:0])
	if err == io.EOF {
		v1, err = f.sum, nil
	}
	// Data is often key material: it does not stay in the pool.
	clear(f.buf[:used])
	f.h.Reset()
	firsts.Put(f)
	return v1, n, err
}
