package hashchain

import (
	"bytes"
	"crypto/sha512"
	"os"
	"strings"
	"testing"
)

// eachKernel runs test for every kernel of the build. One that the machine
// lacks is skipped aloud.
func eachKernel(t *testing.T, test func(t *testing.T, k *kernel)) {
	t.Helper()
	for _, k := range registry() {
		t.Run(k.name, func(t *testing.T) {
			k, err := selectKernel(k.name)
			if err != nil {
				t.Skip(err)
			}
			test(t, k)
		})
	}
}

func TestKernel(t *testing.T) {
	eachKernel(t, func(t *testing.T, k *kernel) {
		t.Run("golden values", func(t *testing.T) {
			for _, v := range vectors(t) {
				var s state
				first := Value(v.data, 1)
				for i := range k.lanes {
					s.set(i, &first)
				}
				k.advance(&s, k.lanes, v.iterations-1)
				for i := range k.lanes {
					if got := s.value(i); !v.matches(got) {
						t.Errorf("%s, lane %d: %x, want %s", v.name, i, got, v.want)
					}
				}
			}
		})
		t.Run("every number of chains and a seam", func(t *testing.T) {
			for chains := 1; chains <= MaxLanes; chains++ {
				for _, n := range []uint64{0, 1, 2, 3, 501} {
					got, seam := seeds(), seeds()
					k.advance(&got, chains, n)
					k.advance(&seam, chains, n/3)
					k.advance(&seam, chains, n-n/3)
					for i := range chains {
						want := Value([]byte{byte(i)}, 1+n)
						if got.value(i) != want || seam.value(i) != want {
							t.Fatalf("%d chains, %d steps, chain %d: %x, in two calls %x, want %x", chains, n, i, got.value(i), seam.value(i), want)
						}
					}
				}
			}
		})
		t.Run("leaves other lanes alone, and the memory around", func(t *testing.T) {
			for at := 0; at < MaxLanes; at += k.lanes {
				var guarded struct {
					before state
					s      state
					after  state
				}
				guarded.s = seeds()
				k.run(&guarded.s, at, 7)
				for i := range MaxLanes {
					n := uint64(1)
					if at <= i && i < at+k.lanes {
						n += 7
					}
					if got, want := guarded.s.value(i), Value([]byte{byte(i)}, n); got != want {
						t.Errorf("lanes from %d on: lane %d became %x, want %x", at, i, got, want)
					}
				}
				if guarded.before != (state{}) || guarded.after != (state{}) {
					t.Errorf("lanes from %d on: memory around the state was written", at)
				}
			}
		})
		if !k.right() {
			t.Error("right() = false for a kernel that is")
		}
	})
}

func TestKernel_a_wrong_one_is_noticed(t *testing.T) {
	for lane := range MaxLanes {
		wrong := kernel{name: "wrong", lanes: MaxLanes, cost: 1, available: generic.available}
		wrong.run = func(s *state, at int, n uint64) {
			generic.advance(s, MaxLanes, n)
			s[7][lane] ^= 1
		}
		if wrong.right() {
			t.Errorf("right() = true for a kernel whose last bit in lane %d is wrong", lane)
		}
		c := try([]*kernel{&generic, &wrong})
		if !c.list[1].Wrong || c.list[0].Wrong || c.d.byActive[MaxLanes] != &generic {
			t.Errorf("chose %s among %+v, want the wrong kernel switched off", c.d.byActive[MaxLanes].name, c.list)
		}
	}
}

// TestKernel_never_gets_0_steps: their loops test at the end, so that 0 would
// be 2^64 steps that nothing can interrupt.
func TestKernel_never_gets_0_steps(t *testing.T) {
	k := generic
	k.run = func(_ *state, _ int, n uint64) { t.Errorf("called for %d steps", n) }
	s := seeds()
	k.advance(&s, MaxLanes, 0)
	e := newExecutor[byte](4, newDispatch([]*kernel{&k}))
	e.Advance(0)
	e.Add(Chain[byte]{Tag: 1, Done: 5, Iterations: 5})
	e.Advance(10)
	e.Add(Chain[byte]{Tag: 2, Done: 5, Iterations: 50})
	e.Advance(0)
}

// TestKernels_of_the_release_machine: where a release is made no kernel may go
// untested. WORKMANAGER_TEST_KERNELS names those that this machine must have.
func TestKernels_of_the_release_machine(t *testing.T) {
	for name := range strings.FieldsSeq(os.Getenv("WORKMANAGER_TEST_KERNELS")) {
		if _, err := selectKernel(name); err != nil {
			t.Error(err)
		}
	}
}

func TestSelectKernel_unknown(t *testing.T) {
	if k, err := selectKernel("abacus"); err == nil {
		t.Errorf("selectKernel(abacus) = %v, want an error", k.name)
	}
}

func TestKernels_the_reference_is_first(t *testing.T) {
	ks := Kernels()
	if len(ks) != len(registry()) || ks[0].Name != "generic" || !ks[0].Available {
		t.Errorf("Kernels() = %+v, want %d with generic first", ks, len(registry()))
	}
	for _, k := range ks {
		if k.Wrong {
			t.Errorf("kernel %s gives wrong values on this machine", k.Name)
		}
	}
	for chains := range MaxLanes + 2 {
		if _, err := selectKernel(Choice(chains)); err != nil {
			t.Errorf("Choice(%d): %v", chains, err)
		}
	}
	if n := Lanes(); n < 1 || n > MaxLanes {
		t.Errorf("Lanes() = %d, want 1 to %d", n, MaxLanes)
	}
}

func TestDispatch_takes_the_cheapest(t *testing.T) {
	single := &kernel{name: "single", lanes: 1, cost: 560}
	singleAVX2 := &kernel{name: "single", lanes: 1, cost: 588}
	avx2 := &kernel{name: "avx2", lanes: 4, cost: 1362}
	vl := &kernel{name: "vl", lanes: 4, cost: 722}
	zmm := &kernel{name: "zmm", lanes: 8, cost: 1030}
	for _, tt := range []struct {
		name    string
		kernels []*kernel
		lanes   int
		want    [MaxLanes]string
	}{
		{"generic", []*kernel{&generic}, genericLanes,
			[MaxLanes]string{"generic", "generic", "generic", "generic", "generic", "generic", "generic", "generic"}},
		{"avx2", []*kernel{&generic, singleAVX2, avx2}, 4,
			[MaxLanes]string{"single", "single", "avx2", "avx2", "avx2", "avx2", "avx2", "avx2"}},
		{"avx512", []*kernel{&generic, single, avx2, vl, zmm}, 8,
			[MaxLanes]string{"single", "vl", "vl", "vl", "zmm", "zmm", "zmm", "zmm"}},
		{"zmm and generic", []*kernel{&generic, zmm}, 8,
			[MaxLanes]string{"generic", "zmm", "zmm", "zmm", "zmm", "zmm", "zmm", "zmm"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDispatch(tt.kernels)
			if d.lanes != tt.lanes {
				t.Errorf("lanes = %d, want %d", d.lanes, tt.lanes)
			}
			for i, want := range tt.want {
				if got := d.byActive[i+1].name; got != want {
					t.Errorf("%d chains: %s, want %s", i+1, got, want)
				}
			}
		})
	}
}

func TestDispatch_measured(t *testing.T) {
	single := &kernel{name: "single", lanes: 1, cost: 588}
	avx2 := &kernel{name: "avx2", lanes: 4, cost: 1362}
	ks := []*kernel{&generic, single, avx2}
	d := newDispatch(ks)
	for _, tt := range []struct {
		name  string
		costs []float64
		lanes int
		want  [3]string // for 1, 2 and 3 chains
	}{
		{"as known", []float64{829, 588, 1362}, 4, [3]string{"single", "single", "avx2"}},
		{"another scale", []float64{200, 140, 330}, 4, [3]string{"single", "single", "avx2"}},
		{"within what a short measurement is off", []float64{829, 588, 1150}, 4, [3]string{"single", "single", "avx2"}},
		{"wide vectors are faster here", []float64{829, 588, 1000}, 4, [3]string{"single", "avx2", "avx2"}},
		{"vectors are slow here", []float64{400, 588, 4000}, genericLanes, [3]string{"generic", "generic", "generic"}},
	} {
		got := d.measured(ks, tt.costs)
		for i, want := range tt.want {
			if name := got.byActive[i+1].name; name != want {
				t.Errorf("%s: %d chains: %s, want %s", tt.name, i+1, name, want)
			}
		}
		if got.lanes != tt.lanes {
			t.Errorf("%s: %d lanes, want %d", tt.name, got.lanes, tt.lanes)
		}
	}
}

func TestCalibrate(t *testing.T) {
	defer calibrated.Store(nil)
	for _, k := range Calibrate() {
		if (k.Rate > 0) != (k.Available && !k.Wrong) {
			t.Errorf("%+v: want a rate of each kernel that is used, and of no other", k)
		}
		t.Logf("%-15s %.2f M/s", k.Name, k.Rate/1e6)
	}
	if got := Kernels(); got[0].Rate == 0 {
		t.Errorf("Kernels() = %+v, want the rates found", got)
	}
	e := NewExecutor[byte](0)
	for i := range byte(MaxLanes) {
		e.Add(chain(i, 500))
	}
	for e.Active() > 0 {
		e.Advance(Chunk)
	}
	for _, c := range e.Done() {
		if want := Value([]byte{c.Tag}, 500); c.Value != want {
			t.Errorf("chain %d: %x, want %x", c.Tag, c.Value, want)
		}
	}
}

// FuzzKernel compares every kernel, in slices of any length, with the standard
// library: every lane has other data, and the slices end where they like.
func FuzzKernel(f *testing.F) {
	f.Add([]byte("abc"), uint16(9), []byte{1, 2, 3})
	f.Add([]byte{}, uint16(1), []byte{})
	f.Add(bytes.Repeat([]byte{0xa5}, 300), uint16(700), []byte{0, 255, 1})
	f.Fuzz(func(t *testing.T, data []byte, iterations uint16, slices []byte) {
		n := uint64(iterations) % 1024
		var start, want state
		for l := range MaxLanes {
			v := sha512.Sum512(append(data[:len(data):len(data)], byte(l)))
			if l == 0 && len(data) >= 64 { // any value at all, not only one of a hash
				v = [64]byte(data)
			}
			start.set(l, &v)
			for range n {
				v = sha512.Sum512(v[:])
			}
			want.set(l, &v)
		}
		for _, k := range registry() {
			if !k.available() {
				continue
			}
			s, left := start, n
			for _, slice := range slices {
				steps := min(uint64(slice), left)
				k.advance(&s, MaxLanes, steps)
				left -= steps
			}
			k.advance(&s, MaxLanes, left)
			if s != want {
				t.Errorf("%s: %x after %d steps in slices %v, want %x", k.name, s, n, slices, want)
			}
		}
	})
}

// seeds returns v1 of chains that all differ, one a lane.
func seeds() (s state) {
	for i := range MaxLanes {
		v := Value([]byte{byte(i)}, 1)
		s.set(i, &v)
	}
	return s
}

func BenchmarkKernel(b *testing.B) {
	for _, k := range registry() {
		b.Run(k.name, func(b *testing.B) {
			if !k.available() {
				b.Skip("this machine cannot run it")
			}
			s := seeds()
			hashes := 0
			for b.Loop() {
				k.advance(&s, k.lanes, Chunk)
				hashes += Chunk * k.lanes
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(hashes), "ns/hash")
		})
	}
}
