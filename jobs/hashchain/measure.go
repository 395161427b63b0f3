package hashchain

import (
	"context"
	"crypto/sha512"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// start is what wall time is counted from, where it must stand in.
var start = time.Now()

// Measurement is one thing measured by [Measure].
type Measurement struct {
	Name       string // "baseline", "kernel", "chains", "executor" or "cores"
	Kernel     string // the kernel that does the work
	Lanes      int    // the kernel's
	Chains     int    // active at once
	Iterations uint64 // of each job of an executor, 0 for all others

	// Nanoseconds of thread CPU time a hash: the median, the least, and what
	// 10 % and 90 % of the windows stay below.
	Median, Least, P10, P90 float64
	// Cycles a hash: the median by the clock of each window, as a chain of
	// dependent multiplications just before and after it tells.
	Cycles      float64
	Ratio       float64 // the baseline's median over this one
	OfKernel    float64 // executor: its bare kernel's median over this one, 0 for all others
	Cores       int     // that compute at once, each on its own chains
	OfOne       float64 // cores: how many times what one of them does alone, 0 for all others
	Repetitions int
}

// windowSteps makes a window of about half a millisecond.
const windowSteps = 2000

// MinRepetitions is the least a median is worth printing for.
const MinRepetitions = 100

// Measure times, in this order: v = sha512.Sum512(v[:]) as the baseline; every
// available kernel with all lanes full, or those named; what is chosen for fewer
// chains than fill a core; the executor with jobs of 1,000 and 10,000 iterations
// in steady state; and the widest kernel on all cores at once. A repetition is
// one window of each in turn, so that a wandering clock meets all alike. Fewer
// than MinRepetitions are raised to it. It returns an error if ctx ends first,
// if a name is of no kernel that this machine can run, or if any value was
// wrong. It holds its thread, for about 10 ms a repetition.
func Measure(ctx context.Context, repetitions int, names ...string) ([]Measurement, error) {
	repetitions = max(repetitions, MinRepetitions)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	var ks []*kernel
	d := current().d
	if len(names) > 0 {
		for _, name := range names {
			k, err := selectKernel(name)
			if err != nil {
				return nil, err
			}
			ks = append(ks, k)
		}
		d = newDispatch(ks)
	} else {
		for _, k := range registry() {
			if k.available() {
				ks = append(ks, k)
			}
		}
	}
	subjects := []subject{baseline()}
	bare := map[string]int{} // by kernel, where among the subjects
	for _, k := range ks {
		bare[k.name] = len(subjects)
		subjects = append(subjects, bareKernel(k))
	}
	for chains := 1; chains < d.byActive[d.lanes].lanes; chains++ {
		subjects = append(subjects, fewChains(d, chains))
	}
	for _, iterations := range []uint64{1_000, 10_000} {
		subjects = append(subjects, executorOf(d, iterations))
	}
	if n := runtime.GOMAXPROCS(0); n > 1 {
		subjects = append(subjects, allCores(d.byActive[d.lanes], n))
	}

	samples, cycles := make([][]float64, len(subjects)), make([][]float64, len(subjects))
	cycle := cycleTime()
	for range repetitions {
		for i := range subjects {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("measure kernels: %w", err)
			}
			spent, hashes, right := subjects[i].window()
			if !right {
				return nil, fmt.Errorf("measure kernels: %s %s gave a wrong value", subjects[i].Name, subjects[i].Kernel)
			}
			before := cycle
			cycle = cycleTime()
			each := float64(spent) / float64(hashes)
			samples[i] = append(samples[i], each)
			cycles[i] = append(cycles[i], each/((before+cycle)/2))
		}
	}

	out := make([]Measurement, len(subjects))
	for i, s := range samples {
		slices.Sort(s)
		slices.Sort(cycles[i])
		m := subjects[i].Measurement
		m.Cycles = cycles[i][len(s)/2]
		m.Median, m.Least, m.P10, m.P90 = s[len(s)/2], s[0], s[len(s)/10], s[len(s)*9/10]
		m.Repetitions = repetitions
		m.Cores = max(m.Cores, 1)
		m.Ratio = out[0].Median / m.Median
		if i == 0 {
			m.Ratio = 1
		}
		if m.Name == "executor" {
			m.OfKernel = out[bare[m.Kernel]].Median / m.Median
		}
		if m.Name == "cores" {
			m.OfOne = out[bare[m.Kernel]].Median / m.Median
		}
		out[i] = m
	}
	return out, nil
}

// subject is one thing to measure. A window returns the CPU time it took, the
// hashes it computed and whether their values were right.
type subject struct {
	Measurement
	window func() (spent time.Duration, hashes uint64, right bool)
}

func baseline() subject {
	want := Value(nil, 1+windowSteps)
	return subject{
		Measurement: Measurement{Name: "baseline", Kernel: "crypto/sha512", Lanes: 1, Chains: 1},
		window: func() (time.Duration, uint64, bool) {
			v := sha512.Sum512(nil)
			from := threadTime()
			for range windowSteps {
				v = sha512.Sum512(v[:])
			}
			return threadTime() - from, windowSteps, v == want
		},
	}
}

func bareKernel(k *kernel) subject {
	first, want := seedStates(k.lanes)
	s := new(state)
	return subject{
		Measurement: Measurement{Name: "kernel", Kernel: k.name, Lanes: k.lanes, Chains: k.lanes},
		window: func() (time.Duration, uint64, bool) {
			*s = first
			from := threadTime()
			k.advance(s, k.lanes, windowSteps)
			spent := threadTime() - from
			return spent, windowSteps * uint64(k.lanes), s.same(&want, k.lanes)
		},
	}
}

// stepTimes returns for each kernel what a step of all lanes takes, in
// nanoseconds: the median of a few short windows, of each in turn.
func stepTimes(ks []*kernel) []float64 {
	const windows = 15
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s := new(state)
	took := make([][]float64, len(ks))
	for range windows {
		for i, k := range ks {
			from := threadTime()
			k.run(s, 0, Chunk)
			took[i] = append(took[i], float64(max(threadTime()-from, 1))/Chunk)
		}
	}
	out := make([]float64, len(ks))
	for i, t := range took {
		slices.Sort(t)
		out[i] = t[windows/2]
	}
	return out
}

// seedStates returns so many chains that all differ, and where they are after
// a window.
func seedStates(chains int) (first, want state) {
	for i := range chains {
		v, w := Value([]byte{byte(i)}, 1), Value([]byte{byte(i)}, 1+windowSteps)
		first.set(i, &v)
		want.set(i, &w)
	}
	return first, want
}

// fewChains measures an executor with so many chains, which do not end.
func fewChains(d *dispatch, chains int) subject {
	e := newExecutor[int](MaxLanes, d)
	for i := range chains {
		e.Add(Chain[int]{Tag: i, Iterations: 1 << 53})
	}
	first, want := seedStates(chains)
	k := d.byActive[chains]
	return subject{
		Measurement: Measurement{Name: "chains", Kernel: k.name, Lanes: k.lanes, Chains: chains},
		window: func() (spent time.Duration, hashes uint64, right bool) {
			e.state = first
			from := threadTime()
			hashes = e.Advance(windowSteps)
			spent = threadTime() - from
			return spent, hashes, e.state.same(&want, chains)
		},
	}
}

// executorOf measures refilling lanes as a worker does. The windows follow on
// one another in one executor, so start and tail are in none of them.
func executorOf(d *dispatch, iterations uint64) subject {
	e := newExecutor[int](0, d)
	first := make([][64]byte, e.Lanes())
	want := make([][64]byte, e.Lanes())
	k := d.byActive[e.Lanes()]
	for i := range first {
		first[i] = Value([]byte{byte(i)}, 1)
		want[i] = Value([]byte{byte(i)}, iterations)
		// The first job of each lane is shorter by another part, so that lanes
		// end one after the other, as they do with jobs of all kinds.
		done := 1 + iterations*uint64(i)/uint64(len(first))
		e.Add(Chain[int]{Tag: i, Done: done, Iterations: iterations, Value: Value([]byte{byte(i)}, done)})
	}
	target := windowSteps * uint64(k.lanes)
	return subject{
		Measurement: Measurement{Name: "executor", Kernel: k.name, Lanes: k.lanes, Chains: e.Lanes(), Iterations: iterations},
		window: func() (spent time.Duration, hashes uint64, right bool) {
			right = true
			from := threadTime()
			for hashes < target {
				hashes += e.Advance(Chunk)
				for _, c := range e.Done() {
					right = right && c.Value == want[c.Tag]
					e.Add(Chain[int]{Tag: c.Tag, Done: 1, Iterations: iterations, Value: first[c.Tag]})
				}
			}
			return threadTime() - from, hashes, right
		},
	}
}

// allCores measures a kernel on n cores at once: what they compute together in
// the CPU time that each has taken.
func allCores(k *kernel, n int) subject {
	one := make([]subject, n)
	for i := range one {
		one[i] = bareKernel(k)
	}
	type did struct {
		spent  time.Duration
		hashes uint64
		right  bool
	}
	return subject{
		Measurement: Measurement{Name: "cores", Kernel: k.name, Lanes: k.lanes, Chains: n * k.lanes, Cores: n},
		window: func() (spent time.Duration, hashes uint64, right bool) {
			var all sync.WaitGroup
			all.Add(n) // all begin together
			out := make(chan did, n)
			for i := range n {
				go func() {
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					all.Done()
					all.Wait()
					var d did
					d.right = true
					for range coresWindows {
						spent, hashes, right := one[i].window()
						d.spent, d.hashes, d.right = d.spent+spent, d.hashes+hashes, d.right && right
					}
					out <- d
				}()
			}
			right = true
			rate := 0.0 // hashes a nanosecond of all
			for range n {
				d := <-out
				hashes += d.hashes
				rate += float64(d.hashes) / float64(d.spent)
				right = right && d.right
			}
			return time.Duration(float64(hashes) / rate), hashes, right
		},
	}
}

// coresWindows is how many windows cores compute beside each other: enough that
// they begin and end at about the same time.
const coresWindows = 8

// multiplications is the length of the chain that tells the clock, about 50 us.
const multiplications = 64_000

// multiplyCycles is the latency of a 64-bit multiplication on every amd64 core
// of the last ten years; elsewhere the cycles are a guess.
const multiplyCycles = 3

// odd keeps the compiler from knowing the factor.
var odd uint64 = 0x9e3779b97f4a7c15

// cycleTime returns the nanoseconds of one cycle of this core now.
func cycleTime() float64 {
	x, f := odd, odd
	from := threadTime()
	for range multiplications / 8 {
		x *= f
		x *= f
		x *= f
		x *= f
		x *= f
		x *= f
		x *= f
		x *= f
	}
	spent := threadTime() - from
	if x == 1 { // never: an odd power; so the chain is not left out
		odd++
	}
	return max(float64(spent), 1) / (multiplications * multiplyCycles)
}
