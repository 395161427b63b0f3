package hashchain

import (
	"bytes"
	"crypto/sha512"
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
				lanes := make([][64]byte, k.lanes)
				for i := range lanes {
					lanes[i] = Value(v.data, 1)
				}
				k.advance(lanes, v.iterations-1)
				for i, got := range lanes {
					if !v.matches(got) {
						t.Errorf("%s, lane %d: %x, want %s", v.name, i, got, v.want)
					}
				}
			}
		})
		t.Run("every number of chains and a seam", func(t *testing.T) {
			for chains := 1; chains <= 2*k.lanes; chains++ {
				for _, n := range []uint64{0, 1, 2, 3, 501} {
					got, seam := seeds(chains), seeds(chains)
					k.advance(got, n)
					k.advance(seam, n/3)
					k.advance(seam, n-n/3)
					for i := range got {
						want := Value([]byte{byte(i)}, 1+n)
						if got[i] != want || seam[i] != want {
							t.Fatalf("%d chains, %d steps, chain %d: %x, in two calls %x, want %x", chains, n, i, got[i], seam[i], want)
						}
					}
				}
			}
		})
		t.Run("leaves the next values alone", func(t *testing.T) {
			v := seeds(k.lanes + 1)
			k.run(v[:k.lanes:k.lanes], 7)
			if want := Value([]byte{byte(k.lanes)}, 1); v[k.lanes] != want {
				t.Errorf("the value behind the lanes became %x, want %x", v[k.lanes], want)
			}
		})
		if !k.right() {
			t.Error("right() = false for a kernel that is")
		}
	})
}

func TestKernel_a_wrong_one_is_noticed(t *testing.T) {
	wrong := generic
	wrong.run = func(v [][64]byte, n uint64) { generic.run(v, n); v[0][63] ^= 1 }
	if wrong.right() {
		t.Error("right() = true for a kernel whose last bit is wrong")
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

// FuzzKernel compares every kernel, in slices of any length, with the standard
// library.
func FuzzKernel(f *testing.F) {
	f.Add([]byte("abc"), uint16(9), []byte{1, 2, 3})
	f.Add([]byte{}, uint16(1), []byte{})
	f.Add(bytes.Repeat([]byte{0xa5}, 300), uint16(700), []byte{0, 255, 1})
	f.Fuzz(func(t *testing.T, data []byte, iterations uint16, slices []byte) {
		n := uint64(iterations) % 1024
		want := sha512.Sum512(data)
		start := want
		for range n {
			want = sha512.Sum512(want[:])
		}
		for _, k := range registry() {
			if !k.available() {
				continue
			}
			v := seeds(k.lanes)
			at := len(data) % k.lanes
			v[at] = start
			left := n
			for _, s := range slices {
				step := min(uint64(s), left)
				k.advance(v, step)
				left -= step
			}
			k.advance(v, left)
			if v[at] != want {
				t.Errorf("%s: %x after %d steps in slices %v, want %x", k.name, v[at], n, slices, want)
			}
		}
	})
}

// seeds returns v1 of n chains that all differ.
func seeds(n int) [][64]byte {
	v := make([][64]byte, n)
	for i := range v {
		v[i] = Value([]byte{byte(i)}, 1)
	}
	return v
}

func BenchmarkKernel(b *testing.B) {
	for _, k := range registry() {
		b.Run(k.name, func(b *testing.B) {
			if !k.available() {
				b.Skip("this machine cannot run it")
			}
			v := seeds(k.lanes)
			hashes := 0
			for b.Loop() {
				k.advance(v, Chunk)
				hashes += Chunk * k.lanes
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(hashes), "ns/hash")
		})
	}
}
