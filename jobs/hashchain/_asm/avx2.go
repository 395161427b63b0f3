package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// avx2 writes the kernel of 4 lanes for AVX2, which has no rotates, no ternary
// logic and half the registers: the words of the schedule are rows in the frame.
// Plain order measured best.
type avx2 struct {
	table constants
	k, w  reg.Register // the table of constants, the rows of the schedule
	row8  reg.VecPhysical
	t     [6]reg.VecPhysical // temporaries
	fixed map[int]uint64     // words of the schedule that are constant
}

const rowBytes = 4 * 8

func (x *avx2) konst(c uint64) Mem { return Mem{Base: x.k, Disp: rowBytes * x.table.index(c)} }
func (x *avx2) word(t int) Mem     { return Mem{Base: x.w, Disp: rowBytes * t} }

func emitAVX2() {
	x := &avx2{
		table: constants{at: map[uint64]int{}}, k: reg.RAX, w: reg.RDX, row8: reg.Y15,
		t:     [6]reg.VecPhysical{reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13},
		fixed: map[int]uint64{},
	}
	for i, c := range padding {
		x.fixed[8+i] = c
	}
	TEXT("stepsAVX2", 0, "func(st *[8][4]uint64, n uint64)")
	Pragma("noescape")
	Doc("stepsAVX2 takes 4 chains on by n > 0 steps; st holds word w of lane l at st[w][l].")
	frame := AllocLocal(80*rowBytes + rowBytes)
	st, n := Load(Param("st"), reg.RDI), Load(Param("n"), reg.RCX)
	LEAQ(NewDataAddr(NewStaticSymbol("stepRows"), 0), x.k)
	LEAQ(frame.Offset(rowBytes-1), x.w)
	ANDQ(I32(-rowBytes), x.w) // a row never crosses a cache line
	mask := GLOBL("rotate8", RODATA|NOPTR)
	for i := range 4 {
		lane := uint64(8 * (i % 2))
		DATA(8*i, U64(0x0007060504030201+lane*0x0101010101010101)) // byte i takes byte i+1 of its word
	}
	VMOVDQU(mask, x.row8)
	for w := range 8 {
		VMOVDQU(Mem{Base: st, Disp: w * rowBytes}, x.t[0])
		VMOVDQU(x.t[0], x.word(w))
	}
	align(64)
	Label("step")
	x.step()
	DECQ(n)
	JNZ(LabelRef("step"))
	for w := range 8 {
		VMOVDQU(x.word(w), x.t[0])
		VMOVDQU(x.t[0], Mem{Base: st, Disp: w * rowBytes})
	}
	VZEROUPPER()
	RET()

	GLOBL("stepRows", RODATA|NOPTR)
	for i, c := range x.table.list {
		for l := range 4 {
			DATA(rowBytes*i+8*l, U64(c))
		}
	}
}

// state names the registers of a round.
type avx2State struct {
	s  [8]reg.VecPhysical // a to h
	bc reg.VecPhysical    // b ^ c
}

func (x *avx2) step() {
	r := avx2State{s: [8]reg.VecPhysical{reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7}, bc: reg.Y14}
	// Round 0, of a state that is all constant.
	p := &program{}
	first := p.sum(constant(k[0]), constant(iv[7]), p.ternary(tableCh, constant(iv[4]), constant(iv[5]), constant(iv[6])), p.bigSigma1(constant(iv[4])))
	e := first.c + iv[3]
	a := first.c + p.ternary(tableMaj, constant(iv[0]), constant(iv[1]), constant(iv[2])).c + p.bigSigma0(constant(iv[0])).c
	VMOVDQU(x.word(0), x.t[0])
	VPADDQ(x.konst(a), x.t[0], r.s[0])
	VPADDQ(x.konst(e), x.t[0], r.s[4])
	for _, l := range []struct {
		at int
		c  uint64
	}{{1, iv[0]}, {2, iv[1]}, {3, iv[2]}, {5, iv[4]}, {6, iv[5]}} {
		VMOVDQU(x.konst(l.c), r.s[l.at])
	}
	VMOVDQU(x.konst(iv[0]^iv[1]), r.bc)
	for t := 1; t < 80; t++ {
		x.round(t, &r)
	}
	for i, s := range r.s {
		VPADDQ(x.konst(iv[i]), s, s)
		VMOVDQU(s, x.word(i))
	}
}

// round does round t, with the word of the schedule that it wants, and renames
// the registers.
func (x *avx2) round(t int, r *avx2State) {
	a, b, d := r.s[0], r.s[1], r.s[3]
	e, f, g, h := r.s[4], r.s[5], r.s[6], r.s[7]
	switch fixed, is := x.fixed[t]; {
	case t <= 3: // h is constant too
		VMOVDQU(x.word(t), h)
		VPADDQ(x.konst(k[t]+iv[7-t]), h, h)
	case is:
		VPADDQ(x.konst(k[t]+fixed), h, h)
	case t < 16:
		VPADDQ(x.word(t), h, h)
		VPADDQ(x.konst(k[t]), h, h)
	default:
		w := x.schedule(t)
		VPADDQ(x.konst(k[t]), w, w)
		VPADDQ(w, h, h)
	}
	t0 := x.t[0]
	VPXOR(f, g, t0)
	VPAND(e, t0, t0)
	VPXOR(g, t0, t0)
	VPADDQ(t0, h, h)
	VPADDQ(x.sigma(e, 14, 18, 41), h, h)
	VPADDQ(h, d, d)
	VPXOR(a, b, t0)
	VPAND(t0, r.bc, r.bc)
	VPXOR(b, r.bc, r.bc)
	VPADDQ(r.bc, h, h)
	VPADDQ(x.sigma(a, 28, 34, 39), h, h)
	r.bc, x.t[0] = t0, r.bc
	r.s = [8]reg.VecPhysical{h, a, b, r.s[2], d, e, f, g}
}

// sigma returns the xor of three rotates.
func (x *avx2) sigma(v reg.VecPhysical, n0, n1, n2 uint64) reg.VecPhysical {
	t1, t2, t3, t4 := x.t[1], x.t[2], x.t[3], x.t[4]
	VPSRLQ(U8(n0), v, t1)
	VPSLLQ(U8(64-n0), v, t2)
	VPSRLQ(U8(n1), v, t3)
	VPSLLQ(U8(64-n1), v, t4)
	VPXOR(t1, t2, t1)
	VPXOR(t3, t4, t3)
	VPSRLQ(U8(n2), v, t2)
	VPSLLQ(U8(64-n2), v, t4)
	VPXOR(t1, t3, t1)
	VPXOR(t2, t4, t2)
	VPXOR(t1, t2, t1)
	return t1
}

// schedule computes word t from 16 on, stores it, and returns it.
func (x *avx2) schedule(t int) reg.VecPhysical {
	out := x.t[1]
	open := false // out holds something
	c := uint64(0)
	plus := func(v Op) {
		VPADDQ(v, out, out)
	}
	p := &program{}
	if fixed, is := x.fixed[t-15]; is {
		c += p.smallSigma0(constant(fixed)).c
	} else {
		v, t2, t3 := x.t[2], x.t[3], x.t[4]
		VMOVDQU(x.word(t-15), v)
		VPSRLQ(U8(1), v, out)
		VPSLLQ(U8(63), v, t2)
		VPSHUFB(x.row8, v, t3)
		VPSRLQ(U8(7), v, v)
		VPXOR(out, t2, out)
		VPXOR(t3, v, t3)
		VPXOR(out, t3, out)
		open = true
	}
	for _, back := range []int{16, 7} {
		switch fixed, is := x.fixed[t-back]; {
		case is:
			c += fixed
		case open:
			plus(x.word(t - back))
		default:
			VMOVDQU(x.word(t-back), out)
			open = true
		}
	}
	if fixed, is := x.fixed[t-2]; is {
		c += p.smallSigma1(constant(fixed)).c
	} else {
		v, t2, t3, t4 := x.t[2], x.t[3], x.t[4], x.t[5]
		VMOVDQU(x.word(t-2), v)
		VPSRLQ(U8(19), v, t2)
		VPSLLQ(U8(45), v, t3)
		VPSRLQ(U8(61), v, t4)
		VPXOR(t2, t3, t2)
		VPSLLQ(U8(3), v, t3)
		VPSRLQ(U8(6), v, v)
		VPXOR(t4, t3, t3)
		VPXOR(t2, v, t2)
		VPXOR(t2, t3, t2)
		if open {
			plus(t2)
		} else {
			x.t[1], x.t[3] = t2, out
			out, open = t2, true
		}
	}
	if c != 0 {
		plus(x.konst(c))
	}
	VMOVDQU(out, x.word(t))
	return out
}
