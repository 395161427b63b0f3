package main

import "math/bits"

// A step of the chain, v = SHA-512(v) for a v of 64 bytes, as straight-line
// code on 64-bit words: the message is the previous value plus constant
// padding, and the state starts at the IV, so that much of it is constant. What
// is constant is folded as the program is built.

// Initial value and round constants of SHA-512, FIPS 180-4, 5.3.5 and 4.2.3.
var iv = [8]uint64{
	0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
	0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
}

// The padding of a message of 64 bytes: one bit, and the length in bits.
var padding = [8]uint64{1 << 63, 0, 0, 0, 0, 0, 0, 512}

type kind uint8

const (
	input kind = iota
	load       // konst, in a register
	ror        // src[0], by imm
	shr        // src[0], by imm
	add        // src[0] + src[1]
	addK       // src[0] + konst
	tern       // the truth table imm of src[0], src[1], src[2]
)

// Truth tables: bit (x<<2 | y<<1 | z) is the function's value.
const (
	tableXor = 0x96
	tableCh  = 0xca // x ? y : z
	tableMaj = 0xe8
)

// op computes one value; its index in the program names that value.
type op struct {
	kind  kind
	src   []int
	imm   uint8
	konst uint64
}

// program turns the eight words of a value into those of the next.
type program struct {
	ops     []op
	inputs  [8]int
	outputs [8]int
}

// val is a value while the program is built: a constant, or an op's value plus
// a constant that is not added yet.
type val struct {
	id int // -1: a constant
	c  uint64
}

func constant(c uint64) val { return val{-1, c} }

func (p *program) op(o op) val {
	p.ops = append(p.ops, o)
	return val{len(p.ops) - 1, 0}
}

// whole adds what is still to be added.
func (p *program) whole(v val) val {
	if v.id < 0 || v.c == 0 {
		return v
	}
	return p.op(op{kind: addK, src: []int{v.id}, konst: v.c})
}

// reg returns the value as one that an op can read.
func (p *program) reg(v val) int {
	if v.id < 0 {
		return p.op(op{kind: load, konst: v.c}).id
	}
	return p.whole(v).id
}

// sum adds terms from left to right, the constant ones first: into the first
// that is not, or left open if there is no other.
func (p *program) sum(terms ...val) val {
	out := constant(0)
	var open []int
	for _, t := range terms {
		out.c += t.c
		if t.id >= 0 {
			open = append(open, t.id)
		}
	}
	if len(open) == 0 {
		return out
	}
	out.id = open[0]
	for _, id := range open[1:] {
		out = p.op(op{kind: add, src: []int{p.whole(out).id, id}})
	}
	return out
}

func (p *program) rotate(v val, n uint8) val {
	if v.id < 0 {
		return constant(bits.RotateLeft64(v.c, -int(n)))
	}
	return p.op(op{kind: ror, src: []int{p.reg(v)}, imm: n})
}

func (p *program) shift(v val, n uint8) val {
	if v.id < 0 {
		return constant(v.c >> n)
	}
	return p.op(op{kind: shr, src: []int{p.reg(v)}, imm: n})
}

func (p *program) ternary(table uint8, x, y, z val) val {
	if x.id < 0 && y.id < 0 && z.id < 0 {
		return constant(truth(table, x.c, y.c, z.c))
	}
	return p.op(op{kind: tern, imm: table, src: []int{p.reg(x), p.reg(y), p.reg(z)}})
}

// truth is the ternary operation on plain words.
func truth(table uint8, x, y, z uint64) uint64 {
	var out uint64
	for i := range uint8(8) {
		if table>>i&1 == 0 {
			continue
		}
		m := ^uint64(0)
		for _, in := range []struct {
			v   uint64
			bit uint8
		}{{x, i >> 2 & 1}, {y, i >> 1 & 1}, {z, i & 1}} {
			if in.bit == 1 {
				m &= in.v
			} else {
				m &^= in.v
			}
		}
		out |= m
	}
	return out
}

// The four functions of FIPS 180-4, 4.1.3.
func (p *program) bigSigma0(a val) val {
	return p.ternary(tableXor, p.rotate(a, 28), p.rotate(a, 34), p.rotate(a, 39))
}

func (p *program) bigSigma1(e val) val {
	return p.ternary(tableXor, p.rotate(e, 14), p.rotate(e, 18), p.rotate(e, 41))
}

func (p *program) smallSigma0(w val) val {
	return p.ternary(tableXor, p.rotate(w, 1), p.rotate(w, 8), p.shift(w, 7))
}

func (p *program) smallSigma1(w val) val {
	return p.ternary(tableXor, p.rotate(w, 19), p.rotate(w, 61), p.shift(w, 6))
}

// newStep builds the program in the order of the rounds, each word of the
// schedule just before its round. The value that is ready last is added last.
func newStep() *program {
	p := &program{}
	var w [80]val
	for i := range 8 {
		w[i] = p.op(op{kind: input})
		p.inputs[i] = w[i].id
		w[i+8] = constant(padding[i])
	}
	a, b, c, d := constant(iv[0]), constant(iv[1]), constant(iv[2]), constant(iv[3])
	e, f, g, h := constant(iv[4]), constant(iv[5]), constant(iv[6]), constant(iv[7])
	for t := range 80 {
		if t >= 16 {
			w[t] = p.whole(p.sum(w[t-16], p.smallSigma0(w[t-15]), w[t-7], p.smallSigma1(w[t-2])))
		}
		t1 := p.sum(w[t], constant(k[t]), h, p.ternary(tableCh, e, f, g), p.bigSigma1(e))
		na := p.sum(t1, p.ternary(tableMaj, a, b, c), p.bigSigma0(a))
		h, g, f, e = g, f, e, p.whole(p.sum(d, t1))
		d, c, b, a = c, b, a, p.whole(na)
	}
	for i, v := range []val{a, b, c, d, e, f, g, h} {
		p.outputs[i] = p.whole(p.sum(v, constant(iv[i]))).id
	}
	return p
}

// run interprets the program.
func (p *program) run(in [8]uint64) (out [8]uint64) {
	v := make([]uint64, len(p.ops))
	for i, id := range p.inputs {
		v[id] = in[i]
	}
	for i, o := range p.ops {
		switch o.kind {
		case load:
			v[i] = o.konst
		case ror:
			v[i] = bits.RotateLeft64(v[o.src[0]], -int(o.imm))
		case shr:
			v[i] = v[o.src[0]] >> o.imm
		case add:
			v[i] = v[o.src[0]] + v[o.src[1]]
		case addK:
			v[i] = v[o.src[0]] + o.konst
		case tern:
			v[i] = truth(o.imm, v[o.src[0]], v[o.src[1]], v[o.src[2]])
		}
	}
	for i, id := range p.outputs {
		out[i] = v[id]
	}
	return out
}
