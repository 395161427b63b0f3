package main

import (
	"crypto/sha512"
	"math/bits"
	"testing"
)

// runInsts interprets instructions on registers.
func runInsts(list []inst, regs []uint64) {
	for _, in := range list {
		s := func(i int) uint64 { return regs[in.op.src[i]] }
		switch {
		case in.move:
			regs[in.dst] = s(0)
		case in.op.kind == load:
			regs[in.dst] = in.op.konst
		case in.op.kind == ror:
			regs[in.dst] = bits.RotateLeft64(s(0), -int(in.op.imm))
		case in.op.kind == shr:
			regs[in.dst] = s(0) >> in.op.imm
		case in.op.kind == add:
			regs[in.dst] = s(0) + s(1)
		case in.op.kind == addK:
			regs[in.dst] = s(0) + in.op.konst
		case in.op.kind == tern:
			regs[in.dst] = truth(in.op.imm, s(0), s(1), s(2))
		}
	}
}

func TestSchedule(t *testing.T) {
	for _, c := range []struct{ window, slack int }{{16, 1}, {32, 1}, {48, 2}, {80, 4}, {200, 1}} {
		p := newStep()
		order, err := p.schedule(c.window, c.slack, 32)
		if err != nil {
			t.Errorf("window %d, slack %d: %v", c.window, c.slack, err)
			continue
		}
		list, most, err := p.allocate(order, 32)
		if err != nil {
			t.Errorf("window %d, slack %d: %v", c.window, c.slack, err)
			continue
		}
		v := sha512.Sum512([]byte("abc"))
		regs := make([]uint64, 32)
		w := words(v)
		copy(regs, w[:])
		moves := 0
		for _, in := range list {
			if in.move {
				moves++
			}
		}
		t.Logf("window %d, slack %d: %d instructions, %d moves, %d registers", c.window, c.slack, len(list), moves, most)
		for i := range 50 {
			v = sha512.Sum512(v[:])
			runInsts(list, regs)
			if got := [8]uint64(regs[:8]); got != words(v) {
				t.Errorf("window %d, slack %d, step %d: %x, want %x", c.window, c.slack, i, got, words(v))
				break
			}
		}
	}
}

// TestSchedule_alternates: a rotate just after another waits for its port, as
// the rows of three in plain order do.
func TestSchedule_alternates(t *testing.T) {
	p := newStep()
	order, err := p.schedule(zmmWindow, zmmSlack, 32)
	if err != nil {
		t.Fatal(err)
	}
	before := load
	for at, i := range order {
		k := p.ops[i].kind
		if k == load { // on no port
			continue
		}
		if rotates(k) && rotates(before) {
			t.Errorf("two rotates in a row at %d of %d", at, len(order))
		}
		before = k
	}
}

// TestPermuted: another order of the operands with its own truth table is the
// same function.
func TestPermuted(t *testing.T) {
	in := []uint64{0xf0f0, 0xcccc, 0xaaaa}
	for _, table := range []uint8{tableXor, tableCh, tableMaj, 0x1b} {
		for _, order := range [][]int{{0, 1, 2}, {1, 0, 2}, {2, 0, 1}} {
			want := truth(table, in[0], in[1], in[2])
			if got := truth(permuted(table, order), in[order[0]], in[order[1]], in[order[2]]); got != want {
				t.Errorf("table %#x, order %v: %#x, want %#x", table, order, got, want)
			}
		}
	}
}
