package lease_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/lease"
)

// The constants of the order, said again: a change must be meant.
const (
	laneRate     = 500_000
	patience     = 10
	maxAllowance = 24 * time.Hour
	share        = 16
)

// sized returns job i of so many iterations, which came in after the epoch.
func sized(i int, iterations uint64, after time.Duration, priority uint8) jobs.Job {
	j := jobs.Job{Iterations: iterations, CreatedAt: epoch.Add(after), Priority: priority}
	binary.BigEndian.PutUint64(j.ID[:], uint64(i)+1)
	return j
}

// one takes the next job of a table, and its number.
func one(t *testing.T, table *lease.Table) int {
	t.Helper()
	l := table.Grant(epoch, "w", jobs.Capacity{Jobs: 1}, 0)
	if len(l) != 1 {
		t.Fatalf("%d leases, want 1", len(l))
	}
	table.Remove(l[0].ID)
	return int(binary.BigEndian.Uint64(l[0].ID[:])) - 1
}

func all(t *testing.T, table *lease.Table) []int {
	t.Helper()
	var got []int
	for table.Waiting() > 0 {
		got = append(got, one(t, table))
	}
	return got
}

func TestOrder_shortest_first(t *testing.T) {
	table := lease.New(boot)
	table.Expect(16, jobs.Work{Hi: 1}) // much waits elsewhere: nothing here decides
	for i, n := range []uint64{5e6, 2, 9e9, 1000, 3e6} {
		table.Add(sized(i, n, time.Duration(i)*time.Millisecond, 0))
	}
	if got, want := all(t, table), []int{1, 3, 4, 0, 2}; !slices.Equal(got, want) {
		t.Errorf("granted %v, want %v, the shortest first", got, want)
	}
}

// TestOrder_age: a job waits for none that came in later than its allowance.
func TestOrder_age(t *testing.T) {
	for _, tc := range []struct {
		name       string
		iterations uint64
		allowance  time.Duration
	}{
		{"two seconds", 2*laneRate + 1, patience * 2 * time.Second},
		{"half an hour", 1800*laneRate + 1, patience * 30 * time.Minute},
		{"for ever", 1 << 53, maxAllowance},
	} {
		table := lease.New(boot)
		table.Expect(16, jobs.Work{Hi: 1})
		table.Add(sized(0, tc.iterations, 0, 0))
		table.Add(sized(1, 1, tc.allowance-time.Second, 0))
		table.Add(sized(2, 1, tc.allowance+time.Second, 0))
		if got, want := all(t, table), []int{1, 0, 2}; !slices.Equal(got, want) {
			t.Errorf("%s: granted %v, want %v: what came within %v after it, and nothing later", tc.name, got, want, tc.allowance)
		}
	}
}

func TestOrder_a_chain_that_decides_goes_first(t *testing.T) {
	fill := func(rest int, more jobs.Work) *lease.Table {
		table := lease.New(boot)
		table.Expect(16, more)
		for i := range rest {
			table.Add(sized(i, 1_000_001, 0, 0)) // two seconds each
		}
		table.Add(sized(1000, 10_000_001, time.Second, 0)) // twenty
		return table
	}
	if got := one(t, fill(140, jobs.Work{})); got != 1000 { // 150e6/16 lanes: 19 s
		t.Errorf("granted %d first, want the chain that lasts as long as all else", got)
	}
	if got := one(t, fill(160, jobs.Work{})); got == 1000 { // 170e6: 21 s
		t.Error("a chain that does not decide yet went first")
	}
	if got := one(t, fill(140, jobs.Work{Lo: 20e6})); got == 1000 {
		t.Error("a chain went first though more waits elsewhere")
	}
	table := fill(140, jobs.Work{})
	table.Add(sized(1001, 10_000_001, 2*time.Second, 0)) // now 160e6 in all
	table.Add(sized(1002, 20_000_001, 2*time.Second, 0))
	got := []int{one(t, table), one(t, table), one(t, table)}
	if got[0] != 1002 || got[1] >= 1000 {
		t.Errorf("granted %v, want the longest and then one whose turn it is", got)
	}
	if j := sized(5000, 9_000_001, 0, 0); !table.Decides(j) {
		t.Error("Decides() of a chain of 9e6 beside 170e6 on 16 lanes = false")
	}
	if j := sized(5000, 1_000_001, 0, 0); table.Decides(j) {
		t.Error("Decides() of a job like the others = true")
	}
}

// TestOrder_work_under_leases: what is being computed counts for what is left.
func TestOrder_work_under_leases(t *testing.T) {
	table := lease.New(boot)
	table.Expect(2, jobs.Work{})
	table.Add(sized(0, 50_000_001, 0, 0))
	l := table.Grant(epoch, "w", jobs.Capacity{Jobs: 1}, 0)[0]
	for i := range 10 {
		table.Add(sized(1+i, 1_000_001, time.Second, 0))
	}
	table.Add(sized(100, 20_000_001, time.Second, 0)) // 40e6 of 80e6
	if got := one(t, table); got == 100 {
		t.Error("a chain went first though another is being computed that ends later")
	}
	table.Renew(epoch, l.LeaseRef, jobs.Progress{Done: 45_000_001}, 1) // 34e6 are left
	if got := one(t, table); got != 100 {
		t.Errorf("granted %d, want the chain: the other is nearly done", got)
	}
	table.HandBack(l.LeaseRef)
	table.Remove(l.ID)
	for table.Waiting() > 0 {
		one(t, table)
	}
	if got := table.Remaining(); got != (jobs.Work{}) {
		t.Errorf("Remaining() of an empty table = %v", got)
	}
}

// TestOrder_low_priorities_get_their_share under a stream of urgent jobs that
// never ends.
func TestOrder_low_priorities_get_their_share(t *testing.T) {
	table := lease.New(boot)
	table.Expect(16, jobs.Work{Hi: 1})
	table.Add(sized(1, 5001, 0, 0))
	table.Add(sized(2, 1001, time.Hour, 3))
	next, urgent, low := 10, uint64(0), []uint64{}
	for len(low) < 2 {
		for table.Waiting() < 5 {
			table.Add(sized(next, 101, time.Duration(next)*time.Second, 9))
			next++
		}
		if n := one(t, table); n < 10 {
			low = append(low, urgent)
		} else if urgent += 100; urgent > 1e6 {
			t.Fatalf("%d of 2 jobs of lower priorities were granted in 1e6 urgent iterations", len(low))
		}
	}
	// Job 1 is older, whatever its priority among the lower ones.
	if low[0] < 5000*share || low[0] > 5100*share || low[1] < 6000*share || low[1] > 6200*share {
		t.Errorf("granted after %v urgent iterations, want %d and %d", low, 5000*share, 6000*share)
	}
}

func TestOrder_stands_when_jobs_leave_from_the_middle(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	table := lease.New(boot)
	table.Expect(1, jobs.Work{Hi: 1})
	var in []jobs.Job
	for i := range 3000 {
		in = append(in, sized(i, 2+r.Uint64N(4e6), 0, 0))
		table.Add(in[i])
	}
	r.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
	for _, j := range in[:2000] {
		table.Remove(j.ID)
	}
	in = in[2000:]
	slices.SortFunc(in, func(a, b jobs.Job) int { return cmp.Compare(a.Iterations, b.Iterations) })
	for i, want := range in {
		if l := table.Grant(epoch, "w", jobs.Capacity{Jobs: 1}, 0); l[0].Iterations != want.Iterations {
			t.Fatalf("grant %d has %d iterations, want %d", i, l[0].Iterations, want.Iterations)
		}
	}
}

// FuzzOrder compares the table with a list that is searched from end to end.
func FuzzOrder(f *testing.F) {
	f.Add([]byte("\x00\x10\x00\x81\x00\x42\x01\x00\x01\x00\x01\x00"))
	f.Add([]byte("\x00\xf0\x00\x81\x00\xf2\x00\x33\x02\x01\x01\x00\x00\xf9\x01\x00\x03\x00\x01\x00\x04\x02\x01\x00\x01\x00"))
	for seed := range uint64(100) {
		r, calls := rand.New(rand.NewPCG(seed, 3)), make([]byte, 400)
		for i := range calls {
			calls[i] = byte(r.Uint32())
		}
		f.Add(calls)
	}
	f.Fuzz(func(t *testing.T, calls []byte) {
		type waits struct {
			j       jobs.Job
			turn    int64
			need    uint64
			refs    jobs.LeaseRef
			leased  bool
			reached uint64
		}
		table, model := lease.New(boot), []*waits{}
		lanes, owed, jumped, n := 1.0, 0.0, [10]bool{}, 0
		turn := func(w *waits) {
			w.need = w.j.Iterations - w.reached
			w.turn = w.j.CreatedAt.UnixMicro() + min(int64(w.need)*patience*1e6/laneRate, maxAllowance.Microseconds())
		}
		earliest := func(ok func(*waits) bool) (best *waits) {
			for _, w := range model {
				if !w.leased && ok(w) && (best == nil || cmp.Or(cmp.Compare(w.turn, best.turn), w.j.CreatedAt.Compare(best.j.CreatedAt)) < 0) {
					best = w
				}
			}
			return best
		}
		for len(calls) >= 2 {
			op, arg := calls[0]%5, calls[1]
			calls = calls[2:]
			switch op {
			case 0: // add
				n++
				w := &waits{j: sized(n, 2+uint64(arg)*uint64(arg)*uint64(arg), time.Duration(n)*time.Second+time.Duration(arg)*time.Millisecond, arg%3), reached: 1}
				turn(w)
				table.Add(w.j)
				model = append(model, w)
			case 1: // grant
				var want *waits
				top, left := -1, 0.0
				for _, w := range model {
					if !w.leased {
						top = max(top, int(w.j.Priority))
					}
				}
				if top < 0 {
					continue
				}
				waiting := 0
				var longest *waits
				for _, w := range model {
					if w.leased || int(w.j.Priority) == top {
						left += float64(w.need)
					}
					if !w.leased && int(w.j.Priority) == top {
						waiting++
						if longest == nil || w.need > longest.need || w.need == longest.need && w.j.CreatedAt.Before(longest.j.CreatedAt) {
							longest = w
						}
					}
				}
				next := earliest(func(w *waits) bool { return int(w.j.Priority) == top })
				low := earliest(func(w *waits) bool { return int(w.j.Priority) < top })
				switch {
				case low != nil && owed >= float64(low.need):
					want = low
					owed -= float64(low.need)
					jumped[low.j.Priority] = low != earliest(func(w *waits) bool { return w.j.Priority == low.j.Priority })
				default:
					want = next
					if longest.need >= 2*laneRate && float64(longest.need)*lanes >= left && !(jumped[top] && waiting > 1) {
						want = longest
					}
					jumped[top] = want != next
					if low == nil {
						owed = 0
					} else {
						owed += float64(want.need) / share
					}
				}
				got := table.Grant(epoch, "w", jobs.Capacity{Jobs: 1}, 0)
				if len(got) != 1 || got[0].ID != want.j.ID {
					t.Fatalf("granted %v, want %v of %d iterations", got, want.j.ID, want.need)
				}
				want.leased, want.refs = true, got[0].LeaseRef
			case 2: // progress
				for _, w := range model {
					if w.leased {
						if to := w.reached + w.need*uint64(arg)/256; to > w.reached && to < w.j.Iterations {
							table.Renew(epoch, w.refs, jobs.Progress{Done: to}, 1)
							w.reached = to
							turn(w)
						}
						break
					}
				}
			case 3: // hand back
				for _, w := range model {
					if w.leased {
						table.HandBack(w.refs)
						w.leased = false
						break
					}
				}
			case 4: // end
				if len(model) > 0 {
					i := int(arg) % len(model)
					table.Remove(model[i].j.ID)
					model = slices.Delete(model, i, i+1)
				}
				lanes = float64(1 + arg%16)
				table.Expect(int(lanes), jobs.Work{})
			}
			var left uint64
			for _, w := range model {
				left += w.need
			}
			if got := table.Remaining(); got != (jobs.Work{Lo: left}) {
				t.Fatalf("Remaining() = %v, want %d", got, left)
			}
		}
	})
}

// load is a mix of jobs for the simulation: what came in when.
type load struct {
	name string
	jobs []jobs.Job
	// The bounds of mean flow and makespan against first come, first served.
	flow, makespan float64
}

// simulate runs the jobs on lanes, each of which advances one job at a time, and returns
// the mean time from coming in to done and the time until all is done. With
// fifo the order is the one that was before.
func simulate(in []jobs.Job, lanes int, fifo bool) (flow, makespan float64) {
	type lane struct {
		until float64
		id    jobs.ID
	}
	cost := map[jobs.ID]float64{}
	came := map[jobs.ID]float64{}
	table := lease.New(boot)
	table.Expect(lanes, jobs.Work{})
	busy := make([]lane, lanes)
	next, done, now := 0, 0, 0.0
	for done < len(in) {
		for next < len(in) && in[next].CreatedAt.Sub(epoch).Seconds() <= now {
			j := in[next]
			cost[j.ID], came[j.ID] = float64(j.Iterations-1)/laneRate, j.CreatedAt.Sub(epoch).Seconds()
			if fifo {
				j.Iterations = 2
			}
			table.Add(j)
			next++
		}
		for i := range busy {
			if busy[i].id != (jobs.ID{}) {
				continue
			}
			if l := table.Grant(epoch, "w", jobs.Capacity{Jobs: 1}, 0); len(l) == 1 {
				busy[i] = lane{now + cost[l[0].ID], l[0].ID}
			}
		}
		at := math.Inf(1)
		if next < len(in) {
			at = in[next].CreatedAt.Sub(epoch).Seconds()
		}
		for _, b := range busy {
			if b.id != (jobs.ID{}) {
				at = min(at, b.until)
			}
		}
		now = at
		for i := range busy {
			if b := &busy[i]; b.id != (jobs.ID{}) && b.until <= now {
				flow += now - came[b.id]
				makespan = now
				table.Remove(b.id)
				*b = lane{}
				done++
			}
		}
	}
	return flow / float64(len(in)), makespan
}

// loads are workloads of two to four minutes on 16 lanes.
func loads() []load {
	r := rand.New(rand.NewPCG(7, 7))
	n := 0
	mk := func(seconds, after float64) jobs.Job {
		n++
		return sized(n, 1+uint64(seconds*laneRate), time.Duration(after*1e6)*time.Microsecond, 0)
	}
	var last, first, many, heavy, stream []jobs.Job
	for i := range 1000 {
		last = append(last, mk(2*r.ExpFloat64(), float64(i)*1e-6))
		many = append(many, mk(2*r.ExpFloat64(), float64(i)*1e-6))
	}
	for i := range 4 {
		last = append(last, mk(120, 0.01+float64(i)*1e-6))
		first = append(first, mk(120, float64(i)*1e-6))
	}
	for i := range 1000 {
		first = append(first, mk(2*r.ExpFloat64(), 0.01+float64(i)*1e-6))
	}
	for i := range 24 {
		many = append(many, mk(60, 0.01+float64(i)*1e-6))
	}
	for i := range 500 { // a heavy tail: most short, some a hundred times as long
		heavy = append(heavy, mk(math.Min(0.5*math.Pow(1-r.Float64(), -1/1.1), 200), float64(i)*1e-6))
	}
	at := 0.0
	for range 1500 { // nine tenths of the lanes are busy
		s := math.Min(0.5*math.Pow(1-r.Float64(), -1/1.2), 100)
		at += r.ExpFloat64() * 1.9 / (0.9 * 16)
		stream = append(stream, mk(s, at))
	}
	slices.SortFunc(stream, func(a, b jobs.Job) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return []load{
		{"1,000 short, 4 long ones last", last, 0.62, 0.7},
		{"4 long ones first, 1,000 short", first, 0.6, 1.03},
		{"1,000 short, 24 long ones last", many, 0.6, 1.01},
		{"500 of a heavy tail at once", heavy, 0.65, 0.82},
		{"1,500 of a heavy tail, 90 % busy", stream, 0.82, 1.01},
	}
}

// TestOrder_simulated: on mixed workloads the order is better than first come,
// first served. The figures stand in the comment of the order.
func TestOrder_simulated(t *testing.T) {
	for _, l := range loads() {
		ff, fm := simulate(l.jobs, 16, true)
		of, om := simulate(l.jobs, 16, false)
		line := fmt.Sprintf("%-34s mean %5.1f s → %5.1f s (%.2f)   all done %5.0f s → %5.0f s (%.2f)", l.name, ff, of, of/ff, fm, om, om/fm)
		t.Log(line)
		if of > ff*l.flow || om > fm*l.makespan {
			t.Errorf("%s: want at most %.2f and %.2f", line, l.flow, l.makespan)
		}
	}
}
