package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// single writes the kernel of one chain: rounds on integer registers with BMI2
// rotates, and beside them the schedule, two words at a time in vectors. Each
// pair of words is computed 6 to 8 rounds before its use, its instructions woven
// between those of the rounds. Latency bounds it, not ports.
type single struct {
	vl    bool                // rotates and ternary logic of AVX-512VL
	s     [8]reg.GPPhysical   // a to h
	ab    reg.GPPhysical      // free for a ^ b
	bc    reg.GPPhysical      // b ^ c, which is a ^ b of the round before
	t     [3]reg.GPPhysical   // temporaries
	w     [8]reg.VecPhysical  // pairs of the schedule, a ring of 16 words
	v     [6]reg.VecPhysical  // temporaries
	row8  reg.VecPhysical     // how bytes move in a rotate by 8
	frame Mem                 // 80 words plus their round constants
	pairs map[int][2]uint64   // pairs of the schedule that are constant
	names map[string][]uint64 // constants by the symbol that holds them
}

// data returns where a constant stands, in 16 byte rows.
func (x *single) data(lo, hi uint64) Mem {
	name := "singleConstants"
	if x.vl {
		name += "VL"
	}
	list := x.names[name]
	for i := 0; i < len(list); i += 2 {
		if list[i] == lo && list[i+1] == hi {
			return NewDataAddr(NewStaticSymbol(name), 8*i)
		}
	}
	x.names[name] = append(list, lo, hi)
	return NewDataAddr(NewStaticSymbol(name), 8*len(list))
}

func (x *single) word(t int) Mem { return x.frame.Offset(8 * t) }

func emitSingle(vl bool) {
	x := &single{
		vl: vl,
		s:  [8]reg.GPPhysical{reg.RAX, reg.RBX, reg.RCX, reg.RDX, reg.RSI, reg.RDI, reg.R8, reg.R9},
		ab: reg.R10, bc: reg.R11, t: [3]reg.GPPhysical{reg.R12, reg.R13, reg.R15},
		w:     [8]reg.VecPhysical{reg.X0, reg.X1, reg.X2, reg.X3, reg.X4, reg.X5, reg.X6, reg.X7},
		v:     [6]reg.VecPhysical{reg.X8, reg.X9, reg.X10, reg.X11, reg.X12, reg.X13},
		row8:  reg.X15,
		pairs: map[int][2]uint64{4: {padding[0], padding[1]}, 5: {}, 6: {}, 7: {padding[6], padding[7]}},
		names: map[string][]uint64{},
	}
	name, how := "stepsSingle", "AVX2"
	if vl {
		name, how = "stepsSingleVL", "AVX-512VL"
	}
	TEXT(name, 0, "func(st *[8]uint64, n uint64)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s takes one chain on by n > 0 steps, with BMI2 and %s.", name, how))
	local := AllocLocal(80*8 + 8)
	x.frame = local
	left := local.Offset(80 * 8) // steps left: no register is
	st := Load(Param("st"), reg.R10)
	Load(Param("n"), reg.R11)
	MOVQ(reg.R11, left)
	for i := range 4 {
		VMOVDQU(Mem{Base: st, Disp: 16 * i}, x.w[i])
	}
	MOVQ(Mem{Base: st}, x.s[0])
	if !vl {
		VMOVDQU(x.data(0x0007060504030201, 0x080f0e0d0c0b0a09), x.row8)
	}
	align(64)
	Label("step")
	r := *x
	r.step()
	DECQ(left)
	JNZ(LabelRef("step"))
	Load(Param("st"), reg.R10)
	for i := range 4 {
		VMOVDQU(x.w[i], Mem{Base: reg.R10, Disp: 16 * i})
	}
	VZEROUPPER()
	RET()
	for name, list := range x.names {
		GLOBL(name, RODATA|NOPTR)
		for i, c := range list {
			DATA(8*i, U64(c))
		}
	}
}

// step starts with the value in w[0] to w[3] and its first word in s[0], and
// ends so.
func (x *single) step() {
	// Round 0 is of a state that is all constant; so is h in rounds 1 to 3.
	p := &program{}
	first := p.sum(constant(k[0]), constant(iv[7]), p.ternary(tableCh, constant(iv[4]), constant(iv[5]), constant(iv[6])), p.bigSigma1(constant(iv[4])))
	e0 := first.c + iv[3]
	a0 := first.c + p.ternary(tableMaj, constant(iv[0]), constant(iv[1]), constant(iv[2])).c + p.bigSigma0(constant(iv[0])).c
	extra := func(t int) uint64 {
		if t >= 1 && t <= 3 {
			return k[t] + iv[7-t]
		}
		return k[t]
	}
	for j := range 4 {
		VPADDQ(x.data(extra(2*j), extra(2*j+1)), x.w[j], x.v[j])
		VMOVDQU(x.v[j], x.word(2*j))
	}
	MOVQ(U64(e0), x.s[4])
	MOVQ(U64(a0), x.t[0])
	ADDQ(x.s[0], x.s[4])
	ADDQ(x.t[0], x.s[0])
	for _, l := range []struct {
		at int
		c  uint64
	}{{1, iv[0]}, {2, iv[1]}, {3, iv[2]}, {5, iv[4]}, {6, iv[5]}} {
		MOVQ(U64(l.c), x.s[l.at])
	}
	MOVQ(U64(iv[0]^iv[1]), x.bc)
	for j := 4; j < 8; j++ {
		if c := x.pairs[j]; c == [2]uint64{} {
			VPXOR(x.w[j], x.w[j], x.w[j])
		} else {
			VMOVDQU(x.data(c[0], c[1]), x.w[j])
		}
	}
	var pending []func()
	for t := 1; t < 80; t++ {
		// Pair j goes into the two rounds from 2j-8 on.
		if j := (t + 8) / 2; t%2 == 0 && j >= 8 && j < 40 {
			pending = x.pair(j)
		}
		part := pending
		if t%2 == 0 {
			part = pending[:(len(pending)+1)/2]
		}
		pending = pending[len(part):]
		weave(x.round(t), part)
	}
	for i, s := range x.s {
		ADDQ(x.data(iv[i], iv[i]), s)
	}
	for j := range 4 {
		VMOVQ(x.s[2*j], x.w[j])
		VPINSRQ(U8(1), x.s[2*j+1], x.w[j], x.w[j])
	}
	if first := reg.RAX; x.s[0] != first {
		MOVQ(x.s[0], first)
	}
}

// weave emits two lists of instructions, the second spread evenly over the first.
func weave(a, b []func()) {
	done := 0
	for i, f := range a {
		f()
		for upto := len(b) * (i + 1) / len(a); done < upto; done++ {
			b[done]()
		}
	}
}

// round returns the instructions of round t and renames the registers.
func (x *single) round(t int) []func() {
	a, b, c, d := x.s[0], x.s[1], x.s[2], x.s[3]
	e, f, g, h := x.s[4], x.s[5], x.s[6], x.s[7]
	ab, bc, t0, t1, t2 := x.ab, x.bc, x.t[0], x.t[1], x.t[2]
	var out []func()
	do := func(i func()) { out = append(out, i) }
	switch {
	case t <= 3:
		do(func() { MOVQ(x.word(t), h) })
	case t >= 8 && t < 16:
		kw := k[t] + padding[t-8]
		at := x.data(kw, kw)
		do(func() { ADDQ(at, h) })
	default:
		do(func() { ADDQ(x.word(t), h) })
	}
	do(func() { MOVQ(f, t2) })
	do(func() { RORXQ(U8(14), e, t0) })
	do(func() { RORXQ(U8(18), e, t1) })
	do(func() { XORQ(g, t2) })
	do(func() { XORQ(t1, t0) })
	do(func() { RORXQ(U8(41), e, t1) })
	do(func() { ANDQ(e, t2) })
	do(func() { XORQ(t1, t0) })
	do(func() { XORQ(g, t2) })
	do(func() { ADDQ(t2, h) })
	do(func() { RORXQ(U8(28), a, t2) })
	do(func() { ADDQ(t0, h) })
	do(func() { MOVQ(a, ab) })
	do(func() { RORXQ(U8(34), a, t1) })
	do(func() { XORQ(b, ab) })
	do(func() { ADDQ(h, d) })
	do(func() { XORQ(t1, t2) })
	do(func() { RORXQ(U8(39), a, t1) })
	do(func() { ANDQ(ab, bc) })
	do(func() { XORQ(b, bc) })
	do(func() { XORQ(t1, t2) })
	do(func() { ADDQ(bc, h) })
	do(func() { ADDQ(t2, h) })
	x.ab, x.bc = bc, ab
	x.s = [8]reg.GPPhysical{h, a, b, c, d, e, f, g}
	return out
}

// pair returns the instructions that compute words 2j and 2j+1, add their round
// constants and store the sums.
func (x *single) pair(j int) []func() {
	var out []func()
	do := func(i func()) { out = append(out, i) }
	at := func(i int) reg.VecPhysical { return x.w[i%8] }
	zero := func(i int) bool { c, is := x.pairs[i]; return is && c == [2]uint64{} }
	s, v1, v2, v3, v4, sum := x.v[0], x.v[1], x.v[2], x.v[3], x.v[4], x.v[5]
	w := at(j) // holds pair j-8
	have := !zero(j - 8)
	// Terms are gathered in w, or in sum while w is still read.
	const odd = 8 // bytes: pairs that begin at an odd word
	s0 := !zero(j-8) || !zero(j-7)
	s0 = s0 && !(zero(j-8) && x.low(j-7))
	if s0 {
		do(func() { VPALIGNR(U8(odd), at(j-8), at(j-7), s) })
		if x.vl {
			do(func() { VPRORQ(U8(1), s, v1) })
			do(func() { VPRORQ(U8(8), s, v2) })
			do(func() { VPSRLQ(U8(7), s, s) })
			do(func() { VPTERNLOGQ(U8(tableXor), v1, v2, s) })
		} else {
			do(func() { VPSRLQ(U8(1), s, v1) })
			do(func() { VPSLLQ(U8(63), s, v2) })
			do(func() { VPSHUFB(x.row8, s, v3) })
			do(func() { VPSRLQ(U8(7), s, s) })
			do(func() { VPXOR(v1, v2, v1) })
			do(func() { VPXOR(s, v3, s) })
			do(func() { VPXOR(s, v1, s) })
		}
	}
	term := func(v reg.VecPhysical) {
		if have {
			do(func() { VPADDQ(v, w, w) })
		} else {
			do(func() { VMOVDQA(v, w) })
			have = true
		}
	}
	if !zero(j-4) || !zero(j-3) {
		do(func() { VPALIGNR(U8(odd), at(j-4), at(j-3), sum) })
		term(sum)
	}
	if s0 {
		term(s)
	}
	if !zero(j - 1) {
		p := at(j - 1)
		if x.vl {
			do(func() { VPRORQ(U8(19), p, v1) })
			do(func() { VPRORQ(U8(61), p, v2) })
			do(func() { VPSRLQ(U8(6), p, v3) })
			do(func() { VPTERNLOGQ(U8(tableXor), v1, v2, v3) })
			term(v3)
		} else {
			do(func() { VPSRLQ(U8(19), p, v1) })
			do(func() { VPSLLQ(U8(45), p, v2) })
			do(func() { VPSRLQ(U8(61), p, v3) })
			do(func() { VPSLLQ(U8(3), p, v4) })
			do(func() { VPXOR(v1, v2, v1) })
			do(func() { VPSRLQ(U8(6), p, v2) })
			do(func() { VPXOR(v3, v4, v3) })
			do(func() { VPXOR(v1, v2, v1) })
			do(func() { VPXOR(v1, v3, v1) })
			term(v1)
		}
	}
	kk := x.data(k[2*j], k[2*j+1])
	do(func() { VPADDQ(kk, w, v1) })
	do(func() { VMOVDQU(v1, x.word(2*j)) })
	return out
}

// low reports whether the first word of a pair is 0.
func (x *single) low(i int) bool { c, is := x.pairs[i]; return is && c[0] == 0 }
