//go:build amd64 && !purego

package hashchain

import (
	"encoding/binary"

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
// Cove; package cpu also asks whether the system keeps the registers.
var native = []*kernel{
	{
		name: "single-avx512vl", lanes: 1, cost: 560,
		available: func() bool { return cpu.X86.HasBMI2 && cpu.X86.HasAVX512F && cpu.X86.HasAVX512VL },
		run:       func(v [][64]byte, n uint64) { run1(v, n, stepsSingleVL) },
	},
	{
		name: "single-avx2", lanes: 1, cost: 588,
		available: func() bool { return cpu.X86.HasBMI2 && cpu.X86.HasAVX2 },
		run:       func(v [][64]byte, n uint64) { run1(v, n, stepsSingle) },
	},
	{
		name: "avx512", lanes: 8, cost: 1030,
		available: func() bool { return cpu.X86.HasAVX512F && cpu.X86.HasAVX512VL },
		run: func(v [][64]byte, n uint64) {
			var st [8][8]uint64
			for l := range v {
				for w := range 8 {
					st[w][l] = binary.BigEndian.Uint64(v[l][8*w:])
				}
			}
			stepsAVX512(&st, n)
			for l := range v {
				for w := range 8 {
					binary.BigEndian.PutUint64(v[l][8*w:], st[w][l])
				}
			}
		},
	},
	{
		name: "avx512vl", lanes: 4, cost: 722,
		available: func() bool { return cpu.X86.HasAVX512F && cpu.X86.HasAVX512VL },
		run:       func(v [][64]byte, n uint64) { run4(v, n, stepsAVX512VL) },
	},
	{
		name: "avx2", lanes: 4, cost: 1362,
		available: func() bool { return cpu.X86.HasAVX2 },
		run:       func(v [][64]byte, n uint64) { run4(v, n, stepsAVX2) },
	},
}

func run1(v [][64]byte, n uint64, steps func(*[8]uint64, uint64)) {
	var st [8]uint64
	for w := range 8 {
		st[w] = binary.BigEndian.Uint64(v[0][8*w:])
	}
	steps(&st, n)
	for w := range 8 {
		binary.BigEndian.PutUint64(v[0][8*w:], st[w])
	}
}

// run4 runs a kernel of 4 lanes: the words of a value lie apart in it.
func run4(v [][64]byte, n uint64, steps func(*[8][4]uint64, uint64)) {
	var st [8][4]uint64
	for l := range v {
		for w := range 8 {
			st[w][l] = binary.BigEndian.Uint64(v[l][8*w:])
		}
	}
	steps(&st, n)
	for l := range v {
		for w := range 8 {
			binary.BigEndian.PutUint64(v[l][8*w:], st[w][l])
		}
	}
}
