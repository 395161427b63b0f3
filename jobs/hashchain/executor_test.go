package hashchain

import (
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
)

// chain returns a chain over one byte, at its start.
func chain(tag byte, iterations uint64) Chain[byte] {
	return Chain[byte]{Tag: tag, Done: 1, Iterations: iterations, Value: Value([]byte{tag}, 1)}
}

func TestExecutor(t *testing.T) {
	t.Run("computes more chains than lanes", func(t *testing.T) {
		for lanes := 1; lanes <= MaxLanes; lanes++ {
			e := NewExecutor[byte](lanes)
			const jobs = 40
			next, ended := byte(0), 0
			for ended < jobs {
				for next < jobs && e.Add(chain(next, 1+uint64(next)*37%300)) {
					next++
				}
				e.Advance(64)
				for _, c := range e.Done() {
					ended++
					if want := Value([]byte{c.Tag}, c.Iterations); c.Value != want || c.Done != c.Iterations {
						t.Errorf("%d lanes, chain %d: %x after %d of %d, want %x", lanes, c.Tag, c.Value, c.Done, c.Iterations, want)
					}
				}
			}
			if e.Active() != 0 || e.Free() != e.Lanes() {
				t.Errorf("%d lanes: %d active, %d free after the last", lanes, e.Active(), e.Free())
			}
		}
	})
	t.Run("computes with every kernel alone", func(t *testing.T) {
		eachKernel(t, func(t *testing.T, k *kernel) {
			e := newExecutor[byte](MaxLanes, newDispatch([]*kernel{k}))
			const jobs = 20
			for next, ended := byte(0), 0; ended < jobs; {
				for next < jobs && e.Add(chain(next, 1+uint64(next)*53%200)) {
					next++
				}
				e.Advance(30)
				for _, c := range e.Done() {
					ended++
					if want := Value([]byte{c.Tag}, c.Iterations); c.Value != want {
						t.Errorf("chain %d: %x after %d, want %x", c.Tag, c.Value, c.Iterations, want)
					}
				}
			}
		})
	})
	t.Run("refuses a chain without a free lane", func(t *testing.T) {
		e := NewExecutor[byte](1)
		if !e.Add(chain(1, 10)) || e.Add(chain(2, 10)) {
			t.Error("one lane took no chain, or two")
		}
		if !e.Add(chain(3, 1)) {
			t.Error("a chain with nothing to do needs no lane, and was refused")
		}
		if got := e.Done(); len(got) != 1 || got[0].Tag != 3 {
			t.Errorf("Done() = %v, want chain 3", got)
		}
	})
	t.Run("clips to the chain that ends first", func(t *testing.T) {
		e := NewExecutor[byte](2)
		e.Add(chain(1, 11))
		e.Add(chain(2, 1001))
		if got := e.Advance(100); got != 20 {
			t.Errorf("Advance(100) = %d hashes, want 2 chains by 10 steps", got)
		}
		if got := e.Done(); len(got) != 1 || got[0].Tag != 1 {
			t.Errorf("Done() = %v, want chain 1", got)
		}
		if got := slices.Collect(e.All()); len(got) != 1 || got[0].Done != 11 || got[0].Value != Value([]byte{2}, 11) {
			t.Errorf("All() = %v, want chain 2 at 11", got)
		}
	})
	t.Run("hands a chain over at any place", func(t *testing.T) {
		e := NewExecutor[byte](0)
		e.Add(chain(1, 1000))
		e.Advance(333)
		c, ok := e.Remove(1)
		if !ok || c.Done != 334 || c.Iterations != 1000 || c.Value != Value([]byte{1}, 334) {
			t.Fatalf("Remove(1) = %d of %d, %v, want 334 of 1000", c.Done, c.Iterations, ok)
		}
		if _, ok := e.Remove(1); ok || e.Active() != 0 {
			t.Errorf("removed twice, %d active", e.Active())
		}
		other := NewExecutor[byte](0)
		other.Add(c)
		for other.Active() > 0 {
			other.Advance(Chunk)
		}
		if got, want := other.Done()[0].Value, Value([]byte{1}, 1000); got != want {
			t.Errorf("resumed value %x, want %x", got, want)
		}
	})
	t.Run("does nothing with no chain or no steps", func(t *testing.T) {
		e := NewExecutor[byte](0)
		if got := e.Advance(10); got != 0 {
			t.Errorf("Advance without a chain = %d hashes", got)
		}
		e.Add(chain(1, 10))
		if got := e.Advance(0); got != 0 || e.Active() != 1 {
			t.Errorf("Advance(0) = %d hashes, %d active", got, e.Active())
		}
	})
	t.Run("stays right when a kernel panics", func(t *testing.T) {
		calls := 0
		faulty := generic
		faulty.run = func(s *state, at int, n uint64) {
			if calls++; calls == 6 {
				panic("broken")
			}
			generic.run(s, at, n)
		}
		e := newExecutor[byte](4, newDispatch([]*kernel{&faulty}))
		for i := range byte(4) {
			e.Add(chain(i, 100+uint64(i)))
		}
		e.Advance(99) // calls 1 to 4: the first ends
		e.Done()
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic did not come through")
				}
			}()
			e.Advance(1) // calls 5 and 6
		}()
		for e.Active() > 0 {
			e.Advance(Chunk)
		}
		for _, c := range e.Done() {
			if want := Value([]byte{c.Tag}, 100+uint64(c.Tag)); c.Value != want {
				t.Errorf("chain %d: %x, want %x", c.Tag, c.Value, want)
			}
		}
	})
	t.Run("allocates nothing once warm", func(t *testing.T) {
		e := NewExecutor[byte](4)
		c := chain(1, 3)
		if n := testing.AllocsPerRun(100, func() {
			e.Add(c)
			e.Advance(Chunk)
			if len(e.Done()) != 1 {
				t.Fatal("the chain did not end")
			}
		}); n != 0 {
			t.Errorf("a chain allocates %v times, want 0", n)
		}
	})
}

// FuzzExecutor drives an executor by a script of adds, advances and hand-overs,
// and compares every value with the standard library.
func FuzzExecutor(f *testing.F) {
	f.Add([]byte("abc"), uint8(4), []byte{0, 10, 1, 3, 2, 0, 0, 200, 1, 255})
	f.Add([]byte{}, uint8(1), []byte{0, 1, 0, 2, 0, 3})
	f.Fuzz(func(t *testing.T, data []byte, lanes uint8, script []byte) {
		e := NewExecutor[int](int(lanes) % (MaxLanes + 1))
		v1 := sha512.Sum512(data)
		want := map[int]uint64{} // iterations of the chains that have not ended
		check := func() {
			for _, c := range e.Done() {
				n, ok := want[c.Tag]
				if delete(want, c.Tag); !ok || n != c.Done {
					t.Fatalf("chain %d ended at %d, want once and at %d", c.Tag, c.Done, n)
				}
				v := v1
				for range n - 1 {
					v = sha512.Sum512(v[:])
				}
				if c.Value != v {
					t.Fatalf("chain %d: %x after %d, want %x", c.Tag, c.Value, n, v)
				}
			}
		}
		if len(script) > 200 {
			script = script[:200]
		}
		for i := 0; i+1 < len(script); i += 2 {
			arg := uint64(script[i+1])
			switch script[i] % 3 {
			case 0:
				if e.Add(Chain[int]{Tag: i, Done: 1, Iterations: 1 + arg, Value: v1}) {
					want[i] = 1 + arg
				}
			case 1:
				e.Advance(arg)
			case 2: // a resume seam: out, and in again
				for c := range e.All() {
					if c, ok := e.Remove(c.Tag); !ok || !e.Add(c) {
						t.Fatalf("chain %d cannot be put back", c.Tag)
					}
					break
				}
			}
			check()
		}
		for e.Active() > 0 {
			e.Advance(Chunk)
			check()
		}
		check()
		if len(want) > 0 {
			t.Fatalf("%d chains never ended: %v", len(want), want)
		}
	})
}

func TestMeasure(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a second")
	}
	ms, err := Measure(t.Context(), MinRepetitions)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range ms {
		names = append(names, fmt.Sprint(m.Name, " ", m.Iterations))
		if m.Median <= 0 || m.P10 > m.Median || m.Median > m.P90 || m.Ratio <= 0 || m.Repetitions != MinRepetitions {
			t.Errorf("%+v is not a measurement", m)
		}
		t.Logf("%-9s %-14s chains %d iterations %5d: %.1f ns/hash (%.1f to %.1f), %.3f of the baseline, %.3f of the kernel",
			m.Name, m.Kernel, m.Chains, m.Iterations, m.Median, m.P10, m.P90, m.Ratio, m.OfKernel)
	}
	n := len(names)
	if runtime.GOMAXPROCS(0) > 1 { // then all cores are measured too, at the end
		if n--; names[n] != "cores 0" {
			t.Errorf("measured %v, want all cores last", names)
		}
	}
	if n < 4 || names[0] != "baseline 0" || names[1] != "kernel 0" || names[n-2] != "executor 1000" || names[n-1] != "executor 10000" {
		t.Errorf("measured %v, want the baseline, the kernels and two executors", names)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Measure(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Measure with a context that is done = %v, want %v", err, context.Canceled)
	}
}

func BenchmarkExecutor(b *testing.B) {
	for _, iterations := range []uint64{2, 100, 1_000, 10_000} {
		b.Run(fmt.Sprint("iterations=", iterations), func(b *testing.B) {
			e := NewExecutor[byte](0)
			for i := range e.Lanes() {
				e.Add(chain(byte(i), 1+iterations))
			}
			hashes := uint64(0)
			b.ReportAllocs()
			for b.Loop() {
				hashes += e.Advance(Chunk)
				for _, c := range e.Done() {
					c.Done = 1
					e.Add(c)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(hashes), "ns/hash")
		})
	}
}
