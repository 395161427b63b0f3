// Package ec2sim simulates a fleet in virtual time: workloads of known cost,
// workers that take a while to boot and are billed, and the rules that size the
// fleet, among them ec2.Plan itself. It tells what each rule costs and how long
// jobs take, beside what no rule could do better.
//
// It does not simulate faults, Spot, prices of anything but workers, or that
// what is known of costs is wrong.
package ec2sim

import (
	"cmp"
	"container/heap"
	"math"
	"math/rand"
	"slices"
	"time"

	"workmanager/ec2"
	"workmanager/jobs"
)

const (
	// Lanes is what a worker has, and Price what it costs in dollars an hour.
	Lanes = 16
	Price = 0.1026
	// MaxAlive bounds the workers.
	MaxAlive = 64

	bootLeast, bootMost, bootGuess = 40, 90, 65 // seconds
	leastBill                      = 60         // seconds
	saved                          = 15         // seconds of a moved chain that are lost
	horizon                        = 4 * 86400
	// scale makes iterations of lane-seconds: a lane does so many a second.
	scale = 1 << 20
)

// Workload is jobs in the order of their arrival.
type Workload struct {
	Name string
	At   []float64 // seconds
	Cost []float64 // lane-seconds
}

// Workloads returns the seven that every rule is measured by. They are the same
// at every call.
func Workloads() []Workload {
	r := rand.New(rand.NewSource(7))
	var all []Workload
	make := func(name string, fill func(add func(at, cost float64))) {
		w := Workload{Name: name}
		fill(func(at, cost float64) { w.At, w.Cost = append(w.At, at), append(w.Cost, cost) })
		all = append(all, w)
	}
	exp := func(mean float64) float64 { return r.ExpFloat64() * mean }
	make("A burst", func(add func(at, cost float64)) {
		for range 100_000 {
			add(1, 2*math.Exp(0.8*r.NormFloat64()-0.32))
		}
	})
	make("B steady", func(add func(at, cost float64)) {
		for t := 0.0; t < 6*3600; {
			t += exp(0.5)
			add(t, exp(20))
		}
	})
	make("C heavy tail", func(add func(at, cost float64)) {
		for t := 0.0; t < 3*3600; {
			t += exp(0.2)
			add(t, min(3600, 2*math.Pow(r.Float64(), -1/1.2)))
		}
	})
	make("D diurnal", func(add func(at, cost float64)) {
		for t := 0.0; t < 86400; {
			t += exp(1 / max(0.02, 5*(1-math.Cos(2*math.Pi*t/86400))))
			add(t, exp(10))
		}
	})
	make("E chain", func(add func(at, cost float64)) { add(1, 7200) })
	make("F bursts", func(add func(at, cost float64)) {
		for t := 0.0; t < 8*3600; t += 600 + exp(600) {
			for range 300 {
				add(t+1, exp(20))
			}
		}
	})
	make("G mixed", func(add func(at, cost float64)) {
		for range 20_000 {
			add(1, exp(3))
		}
		for range 40 {
			add(1, 1800+exp(1800))
		}
	})
	return all
}

// Work returns the lane-seconds of all jobs.
func (w Workload) Work() float64 {
	var sum float64
	for _, c := range w.Cost {
		sum += c
	}
	return sum
}

// Bound returns what no rule can do better, each figure for itself: the cost of
// one worker's lanes always full and booted as fast as any, and the latency of
// jobs that each start at once.
func (w Workload) Bound() Result {
	longest := slices.Max(w.Cost)
	sorted := slices.Sorted(slices.Values(w.Cost))
	return Result{
		Dollars: Price / 3600 * (max(w.Work()/Lanes, longest) + bootLeast),
		Mean:    w.Work() / float64(len(w.Cost)),
		P95:     percentile(sorted, 0.95),
	}
}

// Result is what a run came to. Times are in seconds, from a job's arrival to
// its end.
type Result struct {
	Dollars  float64 `json:"dollars"`
	Mean     float64 `json:"mean_seconds"`
	P95      float64 `json:"p95_seconds"`
	Launches float64 `json:"launches"`
	Peak     float64 `json:"peak"`     // instances alive
	Moved    float64 `json:"moved"`    // chains
	Stranded float64 `json:"stranded"` // chains that never ended
}

// Rule sizes a fleet.
type Rule struct {
	Name string
	// Tick is the seconds between two decisions, the first of them at First.
	Tick, First float64
	// Idle is after how many seconds an idle worker ends, ShortIdle one that is
	// one too many, 0 being Idle; Tail is what those that are alive at the end
	// still cost. Poll is how often an idle worker looks for work, 0 being at once.
	Idle, ShortIdle, Tail, Poll float64
	// Event lets a decision follow an arrival by a second while there is no worker.
	Event bool
	// ByCost gives out long chains first, then the shortest; else it is first come, first served.
	ByCost bool
	Drain  float64 // the drain time in seconds, where one is used
	decide func(w *world)
}

type chain struct {
	at, left float64
	order    int // in which it came to wait
	began    float64
	on       *machine
	version  int // of its end in the heap
}

type machine struct {
	id        int
	launched  float64
	booted    float64 // when it will have
	up        bool
	running   []*chain
	idleFrom  float64
	gone      bool
	everHad   bool
	idleCheck int // version
}

type kind uint8

const (
	arrival kind = iota
	boot
	finish
	tick
	checkIdle
	poll
)

type event struct {
	at      float64
	order   int
	kind    kind
	m       *machine
	c       *chain
	version int
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

// waiting is the queue: a heap by cost, or by arrival.
type waiting struct {
	list   []*chain
	byCost bool
	t      float64
}

func (q *waiting) Len() int { return len(q.list) }
func (q *waiting) Less(i, j int) bool {
	a, b := q.list[i], q.list[j]
	if !q.byCost {
		return a.order < b.order
	}
	if la, lb := a.left > q.t, b.left > q.t; la != lb {
		return la
	}
	return a.left < b.left
}
func (q *waiting) Swap(i, j int) { q.list[i], q.list[j] = q.list[j], q.list[i] }
func (q *waiting) Push(x any)    { q.list = append(q.list, x.(*chain)) }
func (q *waiting) Pop() any {
	x := q.list[len(q.list)-1]
	q.list = q.list[:len(q.list)-1]
	return x
}

type world struct {
	rule   Rule
	now    float64
	rng    *rand.Rand
	events events
	order  int
	queue  waiting
	sizes  jobs.Sizes // of what waits
	alive  []*machine // by id
	nextID int
	want   int // of the last decision

	arrivals ec2.Arrivals
	since    time.Time
	history  []past // of a rule that looks back

	open      int
	latencies []float64
	result    Result
	ticking   bool // an extra decision is due
}

type past struct {
	at   float64
	want int
}

func (w *world) at(t float64, e event) {
	e.at, e.order = t, w.order
	w.order++
	heap.Push(&w.events, e)
}

// Run runs the workload under the rule, with boot times drawn from the seed.
func Run(load Workload, rule Rule, seed int64) Result {
	w := &world{rule: rule, rng: rand.New(rand.NewSource(seed)), open: len(load.At)}
	w.queue = waiting{byCost: rule.ByCost, t: rule.Drain}
	next := 0
	arrive := func() {
		if next < len(load.At) {
			w.at(load.At[next], event{kind: arrival})
		}
	}
	arrive()
	w.at(rule.First, event{kind: tick, version: -1})
	for len(w.events) > 0 && w.open > 0 {
		e := heap.Pop(&w.events).(event)
		if e.at > horizon {
			break
		}
		w.now = e.at
		switch e.kind {
		case arrival:
			for next < len(load.At) && load.At[next] == w.now {
				c := &chain{at: w.now, left: load.Cost[next]}
				next++
				w.arrivals.Add(w.time(), c.left)
				w.put(c)
			}
			arrive()
			w.fill()
			if rule.Event && len(w.alive) == 0 && !w.ticking {
				w.ticking = true
				w.at(w.now+1, event{kind: tick, version: 1})
			}
		case boot:
			if !e.m.gone {
				e.m.up = true
				w.idleNow(e.m)
				w.fill()
			}
		case finish:
			if e.c.on != nil && e.version == e.c.version {
				w.finished(e.c)
			}
		case tick:
			w.ticking = w.ticking && e.version < 0
			rule.decide(w)
			if e.version < 0 {
				w.at(w.now+rule.Tick, event{kind: tick, version: -1})
			}
		case checkIdle:
			if !e.m.gone && e.version == e.m.idleCheck {
				w.checkIdle(e.m)
			}
		case poll:
			if !e.m.gone && len(e.m.running) == 0 {
				w.serve(e.m)
				if len(e.m.running) == 0 {
					w.at(w.now+rule.Poll, event{kind: poll, m: e.m})
				}
			}
		}
		w.result.Peak = max(w.result.Peak, float64(len(w.alive)))
	}
	for _, m := range w.alive {
		w.bill(m, rule.Tail)
	}
	slices.Sort(w.latencies)
	var sum float64
	for _, l := range w.latencies {
		sum += l
	}
	w.result.Stranded = float64(w.open)
	w.result.Mean = sum / max(1, float64(len(w.latencies)))
	w.result.P95 = percentile(w.latencies, 0.95)
	return w.result
}

// Mean returns the mean of several runs.
func Mean(runs []Result) Result {
	var r Result
	n := float64(len(runs))
	for _, x := range runs {
		r.Dollars += x.Dollars / n
		r.Mean += x.Mean / n
		r.P95 += x.P95 / n
		r.Launches += x.Launches / n
		r.Peak += x.Peak / n
		r.Moved += x.Moved / n
		r.Stranded += x.Stranded / n
	}
	return r
}

func percentile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}

var epoch = time.Unix(0, 0).UTC()

// time is the instant of a second of the run. Minutes of the run are minutes of it.
func (w *world) time() time.Time { return instant(w.now) }

func instant(s float64) time.Time { return epoch.Add(time.Duration((s + 86400) * 1e9)) }

func (w *world) put(c *chain) {
	c.order = w.order
	w.order++
	heap.Push(&w.queue, c)
	w.sizes.Add(uint64(c.left * scale))
}

func (w *world) take() *chain {
	c := heap.Pop(&w.queue).(*chain)
	w.sizes.Sub(uint64(c.left * scale))
	return c
}

// fill gives what waits to free lanes, the lowest workers first.
func (w *world) fill() {
	for _, m := range w.alive {
		if w.queue.Len() == 0 {
			return
		}
		if m.up && (w.rule.Poll == 0 || len(m.running) > 0) {
			w.serve(m)
		}
	}
}

func (w *world) serve(m *machine) {
	for w.queue.Len() > 0 && len(m.running) < Lanes {
		c := w.take()
		c.on, c.began = m, w.now
		c.version++
		m.running, m.everHad = append(m.running, c), true
		m.idleCheck++
		w.at(w.now+c.left, event{kind: finish, c: c, version: c.version})
	}
}

func (w *world) finished(c *chain) {
	m := c.on
	c.on = nil
	m.running = slices.DeleteFunc(m.running, func(x *chain) bool { return x == c })
	w.open--
	w.latencies = append(w.latencies, w.now-c.at)
	if w.rule.Poll > 0 || w.queue.Len() > 0 { // a busy worker refills at once
		w.serve(m)
	}
	if len(m.running) == 0 {
		w.idleNow(m)
	}
}

func (w *world) idleNow(m *machine) {
	m.idleFrom = w.now
	m.idleCheck++
	if w.rule.Poll > 0 {
		w.at(w.now, event{kind: poll, m: m})
	}
	if w.rule.Idle > 0 {
		ttl := cmp.Or(w.rule.ShortIdle, w.rule.Idle)
		w.at(max(w.now+ttl, m.launched+60), event{kind: checkIdle, m: m, version: m.idleCheck})
	}
}

func (w *world) checkIdle(m *machine) {
	if len(m.running) > 0 {
		return
	}
	if w.now-m.idleFrom < w.rule.Idle && len(w.alive) <= max(w.want, 1) {
		w.at(w.now+5, event{kind: checkIdle, m: m, version: m.idleCheck})
		return
	}
	w.end(m)
}

func (w *world) launch(n int) {
	for range min(n, MaxAlive-len(w.alive)) {
		m := &machine{id: w.nextID, launched: w.now, booted: w.now + bootLeast + w.rng.Float64()*(bootMost-bootLeast)}
		w.nextID++
		w.alive = append(w.alive, m)
		w.result.Launches++
		w.at(m.booted, event{kind: boot, m: m})
	}
}

// end ends a worker; its chains wait again, less what was saved of them.
func (w *world) end(m *machine) {
	m.gone = true
	w.alive = slices.DeleteFunc(w.alive, func(x *machine) bool { return x == m })
	w.bill(m, 0)
	for _, c := range m.running {
		c.on = nil
		c.version++
		c.left -= max(0, w.now-c.began-saved)
		w.result.Moved++
		w.put(c)
	}
	m.running = nil
}

func (w *world) bill(m *machine, tail float64) {
	w.result.Dollars += Price / 3600 * max(leastBill, math.Ceil(w.now-m.launched+tail))
}

func (w *world) running() int {
	n := 0
	for _, m := range w.alive {
		n += len(m.running)
	}
	return n
}
