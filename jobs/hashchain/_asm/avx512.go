package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Chosen by measurement on Redwood Cove, 1022 cycles a step against 1061 in
// plain order: how far the scheduler looks, and how many registers it spares.
const (
	zmmWindow, zmmSlack = 200, 1
	// Three ports, two of which rotate: the order hardly matters to ymm.
	ymmWindow, ymmSlack = 32, 1
)

var (
	zmm = []reg.VecPhysical{
		reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
		reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
	}
	ymm = []reg.VecPhysical{
		reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7, reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15,
		reg.Y16, reg.Y17, reg.Y18, reg.Y19, reg.Y20, reg.Y21, reg.Y22, reg.Y23, reg.Y24, reg.Y25, reg.Y26, reg.Y27, reg.Y28, reg.Y29, reg.Y30, reg.Y31,
	}
)

// constants is a table of words, each once.
type constants struct {
	at   map[uint64]int
	list []uint64
}

func newConstants(p *program) *constants {
	c := &constants{at: map[uint64]int{}}
	for _, o := range p.ops {
		if o.kind == load || o.kind == addK {
			c.index(o.konst)
		}
	}
	return c
}

func (c *constants) index(k uint64) int {
	i, ok := c.at[k]
	if !ok {
		i = len(c.list)
		c.at[k] = i
		c.list = append(c.list, k)
	}
	return i
}

// emitAVX512 writes the kernels of 8 lanes (zmm) and of 4 (ymm): the same
// program, constants broadcast from one table, state and schedule in registers.
func emitAVX512() error {
	p := newStep()
	table := newConstants(p)
	sym := GLOBL("stepConstants", RODATA|NOPTR)
	for i, k := range table.list {
		DATA(8*i, U64(k))
	}
	for _, f := range []struct {
		name          string
		regs          []reg.VecPhysical
		lanes         int
		window, slack int
	}{
		{"stepsAVX512", zmm, 8, zmmWindow, zmmSlack},
		{"stepsAVX512VL", ymm, 4, ymmWindow, ymmSlack},
	} {
		order, err := p.schedule(f.window, f.slack, len(f.regs))
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		list, _, err := p.allocate(order, len(f.regs))
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		TEXT(f.name, NOSPLIT, fmt.Sprintf("func(st *[8][%d]uint64, n uint64)", f.lanes))
		Pragma("noescape")
		Doc(fmt.Sprintf("%s takes %d chains on by n > 0 steps; st holds word w of lane l at st[w][l].", f.name, f.lanes))
		st, n, base := Load(Param("st"), reg.RDI), Load(Param("n"), reg.RCX), reg.RAX
		LEAQ(sym, base)
		row := func(w int) Mem { return Mem{Base: st, Disp: w * 8 * f.lanes} }
		for w := range 8 {
			VMOVDQU64(row(w), f.regs[w])
		}
		align(64)
		Label("step")
		for _, in := range list {
			emit512(in, f.regs, Mem{Base: base}, table)
		}
		DECQ(n)
		JNZ(LabelRef("step"))
		for w := range 8 {
			VMOVDQU64(f.regs[w], row(w))
		}
		VZEROUPPER()
		RET()
	}
	return nil
}

func emit512(in inst, r []reg.VecPhysical, table Mem, c *constants) {
	konst := func() Mem { return table.Offset(8 * c.index(in.op.konst)) }
	src := func(i int) reg.VecPhysical { return r[in.op.src[i]] }
	dst := r[in.dst]
	switch {
	case in.move:
		VMOVDQA64(src(0), dst)
	case in.op.kind == load:
		VPBROADCASTQ(konst(), dst)
	case in.op.kind == ror:
		VPRORQ(U8(in.op.imm), src(0), dst)
	case in.op.kind == shr:
		VPSRLQ(U8(in.op.imm), src(0), dst)
	case in.op.kind == add:
		VPADDQ(src(0), src(1), dst)
	case in.op.kind == addK:
		VPADDQ_BCST(konst(), src(0), dst)
	case in.op.kind == tern:
		// The destination is the first operand of the truth table.
		at := 0
		for i, s := range in.op.src {
			if s == in.dst {
				at = i
			}
		}
		order := []int{at}
		for i := range in.op.src {
			if i != at {
				order = append(order, i)
			}
		}
		VPTERNLOGQ(U8(permuted(in.op.imm, order)), src(order[2]), src(order[1]), dst)
	}
}

// permuted returns the truth table for operands given in another order.
func permuted(table uint8, order []int) uint8 {
	var out uint8
	for i := range uint8(8) {
		var in [3]uint8 // as the table wants them
		for at, o := range order {
			in[o] = i >> (2 - at) & 1
		}
		out |= table >> (in[0]<<2 | in[1]<<1 | in[2]) & 1 << i
	}
	return out
}

// align starts the next instruction at a multiple of n bytes.
func align(n int) {
	Instruction(&ir.Instruction{Opcode: "PCALIGN", Operands: []Op{Imm(uint64(n))}})
}
