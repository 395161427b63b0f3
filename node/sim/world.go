package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"workmanager/jobs"
	peersync "workmanager/sync"
)

// world is two nodes, what is between them, and what their clients know. It is
// for one goroutine, and its only input is its Config.
type world struct {
	cfg   Config
	rng   *rand.Rand
	t     int64 // microseconds since base
	step  int
	nodes [2]*node
	link  [2]bool // what node i sends arrives
	net   []message
	sent  int // messages
	mail  []packet
	made  int // IDs that are not of jobs

	jobs    []*job
	keyed   []*job
	clients []*client
	floors  map[time.Time]int // damages to any disk when each was agreed

	retention time.Duration
	calm      float64 // times as many faults
	gossip    bool
	stats     Stats
	trace     uint64
}

const (
	stepMicros = 20_000 // a step of the world
	tooLate    = 800_000
	maxMail    = 64
)

func newWorld(c Config) *world {
	w := &world{cfg: c, rng: rand.New(rand.NewPCG(c.Seed, 0x5eed)), link: [2]bool{true, true}, trace: 14695981039346656037, floors: map[time.Time]int{}}
	w.retention = time.Duration(2+w.rng.IntN(5)) * time.Second
	w.calm = []float64{0.2, 0.5, 1, 1}[w.rng.IntN(4)]
	w.gossip = w.rng.IntN(4) > 0
	for i := range w.nodes {
		n := &node{w: w, i: i, name: string(rune('a' + i))}
		w.nodes[i] = n
		if q := w.retention / 4; w.rng.IntN(8) > 0 { // else too far apart for the floor to move
			n.skew = time.Duration(w.rng.Int64N(int64(q))) - q/2
		} else {
			n.skew = time.Duration(w.rng.Int64N(int64(2*w.retention))) - w.retention
		}
		n.skew = n.skew.Truncate(time.Microsecond)
		n.now = func() time.Time { return base.Add(time.Duration(w.t)*time.Microsecond + n.skew) }
		n.on = w.newMedium()
	}
	for i := range 3 {
		w.clients = append(w.clients, &client{w: w, i: i})
	}
	for _, n := range w.nodes {
		n.start()
	}
	return w
}

func (w *world) newMedium() medium {
	if w.cfg.SQLite {
		return newFileMedium(w.cfg.Dir)
	}
	return memMedium{newDisk()}
}

// close gives up what the world holds.
func (w *world) close() {
	for _, n := range w.nodes {
		if n == nil {
			continue
		}
		if n.up {
			n.kill()
		}
		n.on.drop()
		if n.backup != nil {
			n.backup.drop()
		}
	}
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// hash takes something that happened into the trace.
func (w *world) hash(x uint64) { w.trace = (w.trace ^ x) * 1099511628211 }

// note takes a step into the trace.
func (w *world) note(what string, i int) {
	w.hash(uint64(len(what))<<8 ^ uint64(i) ^ uint64(w.step)<<20)
	if w.cfg.Trace != nil {
		w.tracef("%d %.2fs %s %d", w.step, float64(w.t)/1e6, what, i)
	}
}

func (w *world) mark(what string) { w.note(what, 0) }

func (w *world) tracef(format string, args ...any) {
	fmt.Fprintf(w.cfg.Trace, format+"\n", args...)
}

// live takes the steps.
func (w *world) live() {
	ops := w.ops()
	total := 0.0
	for _, o := range ops {
		total += o.weight
	}
	for w.step = 0; w.step < w.cfg.Steps; w.step++ {
		w.tick(stepMicros/2 + w.rng.Int64N(stepMicros))
		x := w.rng.Float64() * total
		k := 0
		for x >= ops[k].weight && k < len(ops)-1 {
			x -= ops[k].weight
			k++
		}
		w.hash(uint64(k))
		n := w.nodes[w.rng.IntN(2)]
		n.call(func() { ops[k].do(n) })
	}
}

type op struct {
	weight float64
	do     func(n *node)
}

func (w *world) ops() []op {
	return []op{
		{22, w.enqueue},
		{18, w.fact},
		{40, w.pull},
		{4 * w.calm, w.toggle},
		{3 * w.calm, w.crash},
		{6, w.start},
		{2, w.backup},
		{0.3 + 0.3*w.calm, w.damage},
		{5, w.collect},
		{3, w.lease},
		{3, w.deliver},
		{4, w.follow},
		{1 * w.calm, w.slowDown},
	}
}

// tick lets time pass and what is due happen.
func (w *world) tick(us int64) {
	w.t += us
	for i := 0; i < len(w.net); {
		m := w.net[i]
		if m.due > w.t {
			i++
			continue
		}
		w.net = slices.Delete(w.net, i, i+1)
		w.arrive(&m)
		i = 0
	}
	for _, n := range w.nodes {
		if n.up {
			n.eng.Step()
			n.answers(nil)
			w.finish(n)
		}
	}
}

// catchUp lets a node ask for all that there is: a round of the floor needs
// both to be in step, which they mostly are when they live.
func (w *world) catchUp(n *node) {
	if n.up && n.asked == 0 && w.hinted(n) {
		w.ask(n, 1000)
	}
}

// collect is what a node does for its retention now and then.
func (w *world) collect(n *node) {
	if !n.up {
		return
	}
	w.note("collect", n.i)
	if _, err := n.rows.Refresh(ctx, n.now().Add(-w.retention/2), 1+w.rng.IntN(20)); err != nil {
		w.violate("I6", nil, "%v: %v", n, err)
	}
	inStep := w.chance(0.7)
	if inStep {
		w.catchUp(n.peer())
	}
	n.call(func() {
		if w.chance(0.05 * w.calm) {
			n.crashIn = 1 + w.rng.IntN(3)
		}
		if err := n.eng.RaiseAlone(ctx); err != nil {
			w.violate("I6", nil, "%v: %v", n, err)
		}
		if n.round.on {
			return
		}
		req, due, err := n.eng.ProposeFloor(ctx)
		if err != nil {
			w.violate("I6", nil, "%v: %v", n, err)
		}
		if due {
			w.stats.Rounds++
			n.round = round{on: true, until: w.t + 5_000_000}
			w.send(message{to: n.peer(), starts: n.starts, asked: w.t, floor: &req}, n)
		}
	})
	if inStep {
		w.catchUp(n)
	}
	if n.up && w.chance(0.7) {
		w.expire(n)
	}
}

// expire drops what is below the floor.
func (w *world) expire(n *node) {
	n.look()
	dropped := 0
	for {
		k, err := n.rows.Expire(ctx)
		if err != nil {
			w.violate("I6", nil, "%v: %v", n, err)
		}
		if dropped += k; k == 0 {
			break
		}
	}
	if dropped > 0 {
		w.expired(n, dropped)
	}
}

// finish ends a round if it can.
func (w *world) finish(n *node) {
	if !n.round.on {
		return
	}
	if w.t > n.round.until {
		n.round = round{}
		return
	}
	if n.round.reply == nil {
		return
	}
	n.call(func() {
		done, err := n.eng.FinishFloor(ctx, *n.round.reply)
		if err != nil {
			if _, ok := errors.AsType[*peersync.Refusal](err); !ok {
				w.violate("I6", nil, "%v: %v", n, err)
			}
		}
		if done {
			w.stats.Raised++
			n.look()
		}
		if done || err != nil {
			n.round = round{}
		}
	})
}

// lease is a worker that asks for a job: of a dead peer if there is none here,
// or of a living one.
func (w *world) lease(n *node) {
	if !n.up || !n.eng.MayLease() {
		return
	}
	if from := n.eng.MayTakeOver(); from != "" {
		lanes := 1 + w.rng.IntN(2)
		c := jobs.Capacity{Jobs: lanes, Iterations: 1 << 40}
		if jobs.Broken("M17") {
			c.Jobs = 1 << 20
		}
		taken, err := n.rows.TakeOver(ctx, from, c)
		if err != nil {
			w.violate("I12", nil, "%v: %v", n, err)
		}
		if len(taken) > lanes {
			w.violate("I13", w.job(taken[lanes].ID), "%v leases %d jobs and takes over %d", n, lanes, len(taken))
		}
		w.stats.TakenOver += len(taken)
		return
	}
	peer := n.peer()
	if !peer.up || w.link != [2]bool{true, true} {
		return
	}
	var ids []jobs.ID
	for range 3 {
		if j := w.pick(peer, true); j != nil && !slices.Contains(ids, j.id) {
			ids = append(ids, j.id)
		}
	}
	moved, err := peer.rows.GiveAway(ctx, ids, n.name)
	if err != nil {
		w.violate("I12", nil, "%v: %v", peer, err)
	}
	w.stats.Stolen += len(moved)
}
