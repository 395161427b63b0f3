package main

import (
	"bufio"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"maps"
	"math/bits"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The emulator runs the text of a kernel, so that those are tested too that no
// machine at hand can run. It knows the few instructions that kernels use, as the
// vendor's manuals tell them; what it does not know is an error.

// instruction is one line: operands stand as in the text, the destination last.
type instruction struct {
	line int
	op   string
	args []string
}

// listing is a file of kernels.
type listing struct {
	funcs map[string]*function
	data  map[string][]byte
}

type function struct {
	frame  int
	code   []instruction
	labels map[string]int
}

var (
	textLine = regexp.MustCompile(`^TEXT ·(\w+)\(SB\), (?:NOSPLIT, )?\$(\d+)-16$`)
	dataLine = regexp.MustCompile(`^DATA (\w+)<>\+(\d+)\(SB\)/8, \$(0x[0-9a-f]+)$`)
)

func readListing(t *testing.T, path string) *listing {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := &listing{funcs: map[string]*function{}, data: map[string][]byte{}}
	var fn *function
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); {
		n++
		line, _, _ := strings.Cut(s.Text(), "//")
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || strings.HasPrefix(line, "GLOBL"):
		case strings.HasPrefix(line, "TEXT"):
			m := textLine.FindStringSubmatch(line)
			if m == nil {
				t.Fatalf("%s:%d: %q", path, n, line)
			}
			frame, _ := strconv.Atoi(m[2]) // digits
			fn = &function{frame: frame, labels: map[string]int{}}
			l.funcs[m[1]] = fn
		case strings.HasPrefix(line, "DATA"):
			m := dataLine.FindStringSubmatch(line)
			if m == nil {
				t.Fatalf("%s:%d: %q", path, n, line)
			}
			v, err := strconv.ParseUint(m[3], 0, 64)
			if at, _ := strconv.Atoi(m[2]); err != nil || at != len(l.data[m[1]]) {
				t.Fatalf("%s:%d: %q does not follow on %d bytes", path, n, line, len(l.data[m[1]]))
			}
			l.data[m[1]] = binary.LittleEndian.AppendUint64(l.data[m[1]], v)
		case strings.HasSuffix(line, ":"):
			fn.labels[strings.TrimSuffix(line, ":")] = len(fn.code)
		default:
			op, rest, _ := strings.Cut(line, " ")
			in := instruction{line: n, op: op}
			for arg := range strings.SplitSeq(rest, ",") {
				if arg = strings.TrimSpace(arg); arg != "" {
					in.args = append(in.args, arg)
				}
			}
			fn.code = append(fn.code, in)
		}
	}
	return l
}

// machine is one core: its registers and 64 KiB of memory.
type machine struct {
	gp     map[string]uint64
	vec    [32][8]uint64
	zero   bool // the flag
	memory []byte
	base   map[string]uint64 // of symbols
}

// Where things are in memory; between them is room that must stay as it is.
const (
	stateAt = 0x1000
	frameAt = 0x2010 // no multiple of 32: a frame has no better place
	dataAt  = 0x8000
)

var registers = []string{"AX", "BX", "CX", "DX", "SI", "DI", "R8", "R9", "R10", "R11", "R12", "R13", "R15"}

var memoryOperand = regexp.MustCompile(`^(?:(\w+)<>)?\+?(-?\d*)\((\w+)\)$`)

// address returns where a memory operand is, and false if it is none.
func (m *machine) address(arg string) (uint64, bool) {
	if arg == "st+0(FP)" || arg == "n+8(FP)" {
		panic("parameters are read by MOVQ only")
	}
	p := memoryOperand.FindStringSubmatch(arg)
	if p == nil {
		return 0, false
	}
	at := uint64(0)
	if p[2] != "" {
		d, err := strconv.Atoi(p[2])
		if err != nil {
			panic(err)
		}
		at = uint64(d)
	}
	switch {
	case p[3] == "SB":
		base, ok := m.base[p[1]]
		if !ok {
			panic("no symbol " + p[1])
		}
		return at + base, true
	case p[3] == "SP":
		return at + frameAt, true
	default:
		return at + m.reg(p[3]), true
	}
}

func (m *machine) reg(name string) uint64 {
	v, ok := m.gp[name]
	if !ok {
		panic("register " + name + " is not a kernel's, or was never written")
	}
	return v
}

// word reads an integer operand.
func (m *machine) word(arg string) uint64 {
	if imm, ok := strings.CutPrefix(arg, "$"); ok {
		if v, err := strconv.ParseInt(imm, 0, 64); err == nil {
			return uint64(v)
		}
		v, err := strconv.ParseUint(imm, 0, 64)
		if err != nil {
			panic(err)
		}
		return v
	}
	if at, ok := m.address(arg); ok {
		return binary.LittleEndian.Uint64(m.memory[at:])
	}
	return m.reg(arg)
}

func (m *machine) setWord(arg string, v uint64) {
	if at, ok := m.address(arg); ok {
		binary.LittleEndian.PutUint64(m.memory[at:], v)
		return
	}
	if !slices.Contains(registers, arg) {
		panic("a kernel may not write " + arg)
	}
	m.gp[arg] = v
}

// vector tells the number and the words of a vector register.
func vector(arg string) (n, words int, ok bool) {
	words = map[byte]int{'X': 2, 'Y': 4, 'Z': 8}[arg[0]]
	n, err := strconv.Atoi(arg[1:])
	return n, words, words > 0 && err == nil
}

// read reads a vector operand of so many words.
func (m *machine) read(arg string, words int) (v [8]uint64) {
	if n, w, ok := vector(arg); ok {
		if w != words {
			panic("operands of two widths")
		}
		copy(v[:words], m.vec[n][:])
		return v
	}
	at, ok := m.address(arg)
	if !ok {
		panic("operand " + arg)
	}
	for i := range words {
		v[i] = binary.LittleEndian.Uint64(m.memory[at+8*uint64(i):])
	}
	return v
}

// run runs a function to its RET and returns how many instructions that took.
func (m *machine) run(f *function, n uint64) (count int, err error) {
	at := 0
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("line %d: %s %v: %v", f.code[at].line, f.code[at].op, f.code[at].args, p)
		}
	}()
	for ; ; at++ {
		in := f.code[at]
		if count++; count > 1e6 {
			panic("does not end")
		}
		a := in.args
		last := len(a) - 1
		switch in.op {
		case "RET":
			return count, nil
		case "PCALIGN", "VZEROUPPER":
			continue
		case "JNZ":
			if !m.zero {
				to, ok := f.labels[a[0]]
				if !ok {
					panic("no label")
				}
				at = to - 1
			}
			continue
		case "DECQ":
			v := m.word(a[0]) - 1
			m.setWord(a[0], v)
			m.zero = v == 0
			continue
		case "LEAQ":
			addr, _ := m.address(a[0])
			m.setWord(a[1], addr)
			continue
		case "MOVQ":
			switch a[0] {
			case "st+0(FP)":
				m.setWord(a[1], stateAt)
			case "n+8(FP)":
				m.setWord(a[1], n)
			default:
				m.setWord(a[1], m.word(a[0]))
			}
			continue
		case "ADDQ":
			m.setWord(a[1], m.word(a[1])+m.word(a[0]))
			continue
		case "XORQ":
			m.setWord(a[1], m.word(a[1])^m.word(a[0]))
			continue
		case "ANDQ":
			m.setWord(a[1], m.word(a[1])&m.word(a[0]))
			continue
		case "RORXQ":
			m.setWord(a[2], bits.RotateLeft64(m.word(a[1]), -int(m.word(a[0]))))
			continue
		}

		// Vectors: as wide as the destination, or as what is stored.
		dst, words, isVector := vector(a[last])
		if !isVector {
			if _, words, isVector = vector(a[0]); !isVector || !strings.HasPrefix(in.op, "VMOV") {
				panic("unknown instruction")
			}
			addr, _ := m.address(a[last])
			from := m.read(a[0], words)
			for i := range words {
				binary.LittleEndian.PutUint64(m.memory[addr+8*uint64(i):], from[i])
			}
			continue
		}
		var out [8]uint64 // words past the width become 0
		each := func(f func(i int) uint64) {
			for i := range words {
				out[i] = f(i)
			}
		}
		shift := func(f func(v uint64, n int) uint64) {
			n, v := int(m.word(a[0])), m.read(a[1], words)
			each(func(i int) uint64 { return f(v[i], n) })
		}
		two := func(f func(x, y uint64) uint64) {
			x, y := m.read(a[0], words), m.read(a[1], words)
			each(func(i int) uint64 { return f(x[i], y[i]) })
		}
		switch in.op {
		case "VMOVDQU", "VMOVDQA", "VMOVDQU64", "VMOVDQA64":
			out = m.read(a[0], words)
		case "VPBROADCASTQ":
			k := m.word(a[0])
			each(func(int) uint64 { return k })
		case "VMOVQ":
			out[0] = m.word(a[0])
		case "VPINSRQ": // $i, word, x, dst
			out = m.read(a[2], words)
			out[m.word(a[0])] = m.word(a[1])
		case "VPADDQ":
			two(func(x, y uint64) uint64 { return x + y })
		case "VPADDQ.BCST":
			k, v := m.word(a[0]), m.read(a[1], words)
			each(func(i int) uint64 { return v[i] + k })
		case "VPXOR":
			two(func(x, y uint64) uint64 { return x ^ y })
		case "VPAND":
			two(func(x, y uint64) uint64 { return x & y })
		case "VPRORQ":
			shift(func(v uint64, n int) uint64 { return bits.RotateLeft64(v, -n) })
		case "VPSRLQ":
			shift(func(v uint64, n int) uint64 { return v >> n })
		case "VPSLLQ":
			shift(func(v uint64, n int) uint64 { return v << n })
		case "VPTERNLOGQ": // $table, z, y, dst: bit dst<<2 | y<<1 | z of the table
			z, y, x := m.read(a[1], words), m.read(a[2], words), m.read(a[3], words)
			table := m.word(a[0])
			each(func(i int) (v uint64) {
				for b := range 64 {
					v |= (table >> (x[i]>>b&1<<2 | y[i]>>b&1<<1 | z[i]>>b&1) & 1) << b
				}
				return v
			})
		case "VPALIGNR": // $n, low, high, dst: of each 16 bytes
			n, lo, hi := int(m.word(a[0])), m.read(a[1], words), m.read(a[2], words)
			if words != 2 || n != 8 {
				panic("only known for 8 bytes of 16")
			}
			out[0], out[1] = lo[1], hi[0]
		case "VPSHUFB": // order, bytes, dst: within each 16 bytes
			order, v := m.read(a[0], words), m.read(a[1], words)
			for i := range 8 * words {
				from := order[i/8] >> (i % 8 * 8) & 0xff
				if from > 15 {
					panic("only known for bytes 0 to 15")
				}
				from += uint64(i / 16 * 16)
				out[i/8] |= v[from/8] >> (from % 8 * 8) & 0xff << (i % 8 * 8)
			}
		default:
			panic("unknown instruction")
		}
		m.vec[dst] = out
	}
}

// TestEmulated runs the committed text of every kernel, and finds every lane
// where the standard library has it and all other memory as it was.
func TestEmulated(t *testing.T) {
	for _, k := range []struct {
		file, name string
		lanes      int
		steps      int // the most instructions a step may take
	}{
		{"avx512", "stepsAVX512", 8, 2200},
		{"avx512", "stepsAVX512VL", 4, 2200},
		{"avx2", "stepsAVX2", 4, 4200},
		{"single", "stepsSingle", 1, 2750},
		{"single", "stepsSingleVL", 1, 2450},
	} {
		t.Run(k.name, func(t *testing.T) {
			l := readListing(t, "../"+k.file+"_amd64.s")
			f := l.funcs[k.name]
			if f == nil {
				t.Fatalf("not in %s_amd64.s", k.file)
			}
			counts := map[uint64]int{}
			for _, n := range []uint64{1, 2, 3, 20} {
				m := &machine{gp: map[string]uint64{}, memory: make([]byte, 0x10000), base: map[string]uint64{}}
				for i := range m.memory {
					m.memory[i] = 0xa5
				}
				for i := range m.vec {
					m.vec[i] = [8]uint64{1: 0xdead, 7: 0xbeef} // what another left there
				}
				at := uint64(dataAt)
				for _, name := range slices.Sorted(maps.Keys(l.data)) {
					m.base[name] = at
					at += uint64(copy(m.memory[at:], l.data[name])+63) &^ 63
				}
				values := make([][64]byte, k.lanes)
				for i := range values {
					values[i] = sha512.Sum512([]byte{byte(i), byte(n)})
					for w, v := range words(values[i]) {
						binary.LittleEndian.PutUint64(m.memory[stateAt+8*(w*k.lanes+i):], v)
					}
				}
				before := slices.Clone(m.memory)
				count, err := m.run(f, n)
				if err != nil {
					t.Fatal(err)
				}
				counts[n] = count
				for i, v := range values {
					for range n {
						v = sha512.Sum512(v[:])
					}
					for w, want := range words(v) {
						if got := binary.LittleEndian.Uint64(m.memory[stateAt+8*(w*k.lanes+i):]); got != want {
							t.Fatalf("%d steps, lane %d, word %d: %x, want %x", n, i, w, got, want)
						}
					}
				}
				copy(m.memory[stateAt:stateAt+64*k.lanes], before[stateAt:])
				copy(m.memory[frameAt:frameAt+f.frame], before[frameAt:])
				if !slices.Equal(m.memory, before) {
					t.Errorf("%d steps: wrote beside its state and its frame", n)
				}
			}
			if step := counts[3] - counts[2]; step > k.steps {
				t.Errorf("%d instructions a step, want at most %d", step, k.steps)
			} else {
				t.Logf("%d instructions a step", step)
			}
		})
	}
}
