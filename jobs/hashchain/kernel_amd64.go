//go:build amd64 && !purego

package hashchain

import (
	"golang.org/x/sys/cpu"
)

//go:generate go run -C _asm . avx512 -out ../avx512_amd64.s -stubs ../avx512_amd64.go -pkg hashchain
//go:generate go run -C _asm . single -out ../single_amd64.s -stubs ../single_amd64.go -pkg hashchain
//go:generate go run -C _asm . avx2 -out ../avx2_amd64.s -stubs ../avx2_amd64.go -pkg hashchain

// Features returns what this machine has of all that kernels ask for.
func Features() []string {
	var out []string
	for _, f := range []struct {
		name string
		has  bool
	}{{"bmi2", cpu.X86.HasBMI2}, {"avx2", cpu.X86.HasAVX2}, {"avx512f", cpu.X86.HasAVX512F}, {"avx512vl", cpu.X86.HasAVX512VL}} {
		if f.has {
			out = append(out, f.name)
		}
	}
	return out
}

// native lists the kernels of amd64. The costs are cycles a step on Redwood
// Cove; package cpu also asks whether the system keeps the registers, and heeds
// GODEBUG=cpu.avx512f=off,cpu.avx2=off, which makes one machine test as another.
var native = []*kernel{
	{
		name: "single-avx512vl", lanes: 1, cost: 560,
		available: func() bool { return cpu.X86.HasBMI2 && cpu.X86.HasAVX512F && cpu.X86.HasAVX512VL },
		run:       func(s *state, at int, n uint64) { run1(s, at, n, stepsSingleVL) },
	},
	{
		name: "single-avx2", lanes: 1, cost: 588,
		available: func() bool { return cpu.X86.HasBMI2 && cpu.X86.HasAVX2 },
		run:       func(s *state, at int, n uint64) { run1(s, at, n, stepsSingle) },
	},
	{
		name: "avx512", lanes: 8, cost: 1030,
		available: func() bool { return cpu.X86.HasAVX512F && cpu.X86.HasAVX512VL },
		run:       func(s *state, _ int, n uint64) { stepsAVX512((*[8][8]uint64)(s), n) },
	},
	{
		name: "avx512vl", lanes: 4, cost: 722,
		available: func() bool { return cpu.X86.HasAVX512F && cpu.X86.HasAVX512VL },
		run:       func(s *state, at int, n uint64) { run4(s, at, n, stepsAVX512VL) },
	},
	{
		name: "avx2", lanes: 4, cost: 1362,
		available: func() bool { return cpu.X86.HasAVX2 },
		run:       func(s *state, at int, n uint64) { run4(s, at, n, stepsAVX2) },
	},
}

// run1 and run4 run a kernel of so many lanes: its words lie side by side, so
// they are copied, at most 256 bytes a slice.
func run1(s *state, at int, n uint64, steps func(*[8]uint64, uint64)) {
	var st [8]uint64
	for w := range s {
		st[w] = s[w][at]
	}
	steps(&st, n)
	for w := range s {
		s[w][at] = st[w]
	}
}

func run4(s *state, at int, n uint64, steps func(*[8][4]uint64, uint64)) {
	var st [8][4]uint64
	for w := range s {
		st[w] = [4]uint64(s[w][at:])
	}
	steps(&st, n)
	for w := range s {
		*(*[4]uint64)(s[w][at:]) = st[w]
	}
}
