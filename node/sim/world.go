package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
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

// message is a request or its reply on the way.
type message struct {
	due    int64
	to     *node
	number int // of the request
	starts int // of the requester, when it asked
	asked  int64
	hurt   int // damages to the sender's disk
	req    *peersync.Request
	reply  *peersync.Reply
	floor  *peersync.FloorRequest
	agreed *peersync.FloorReply
	err    error
}

// packet is rows on their way by gossip. It may arrive at any time, and again.
type packet struct {
	to   *node
	boot jobs.ID
	rows []jobs.Row
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

// enqueue is a client's batch: new jobs, and keys that came before.
func (w *world) enqueue(n *node) {
	if !n.up {
		return
	}
	count := 1
	if w.chance(0.1) {
		count = 2 + w.rng.IntN(3)
	}
	batch := make([]store.Submission, 0, count)
	ids := make([]jobs.ID, 0, count)
	for range count {
		j, wk := w.submission()
		if slices.Contains(ids, j.id) {
			continue
		}
		sub := store.Submission{Job: jobs.Job{ID: j.id, V1: wk.v1, Iterations: wk.iterations, Priority: uint8(w.rng.IntN(2))}}
		if wk.keeps() { // the same key may ask for more the second time
			sub.Job.Keep = uint16(w.step % 4)
		}
		if w.chance(0.05) {
			v := wk.value()
			sub.Known = &v
		}
		if sub.Known != nil || wk.iterations == 1 {
			j.ended = true
		}
		batch, ids = append(batch, sub), append(ids, j.id)
	}
	n.write("enqueue", ids, func() ([]jobs.Outcome, error) {
		n.enqueuing = true
		out, err := n.rows.Enqueue(ctx, batch)
		n.enqueuing = false
		for i := range out {
			j := w.job(ids[i])
			w.stats.Enqueued++
			switch {
			case out[i].Err != nil:
				w.stats.Conflicts++
			case out[i].Existed:
				w.stats.Repeated++
			default: // its client has made it anew, whatever became of it
				j.sent++
				j.remade = j.remade || j.gone[0] || j.gone[1]
				j.gone, j.both, j.erased = [2]bool{}, false, false
			}
		}
		return out, err
	})
}

// submission returns a job to send and the work to send it with.
func (w *world) submission() (*job, work) {
	if len(w.keyed) > 0 && w.chance(0.12) { // one of the last, or any
		k := w.rng.IntN(len(w.keyed))
		if w.chance(0.7) {
			k = max(len(w.keyed)-1-w.rng.IntN(6), 0)
		}
		j := w.keyed[k]
		if len(j.works) < 4 && w.chance(0.1) {
			j.works = append(j.works, w.work())
		}
		return j, j.works[w.rng.IntN(len(j.works))]
	}
	j := &job{i: len(w.jobs), keyed: w.chance(1.0 / 3), works: []work{w.work()}}
	j.id = jobs.ID{0: 1, 6: 0x70, 8: 0x80}
	if j.keyed {
		j.id[6] = 0x80
		w.keyed = append(w.keyed, j)
	}
	binary.BigEndian.PutUint32(j.id[1:], w.rng.Uint32())
	binary.BigEndian.PutUint32(j.id[12:], uint32(j.i+1<<20))
	w.jobs = append(w.jobs, j)
	for _, n := range w.nodes {
		n.shadow = append(n.shadow, place{})
	}
	for _, c := range w.clients {
		c.got = append(c.got, got{})
	}
	return j, j.works[0]
}

func (w *world) work() work {
	wk := work{iterations: uint64(2 + w.rng.IntN(100))}
	if w.chance(0.05) {
		wk.iterations = 1
	}
	binary.BigEndian.PutUint64(wk.v1[:], w.rng.Uint64()|1)
	return wk
}

// pick returns a job that is at a node, open if possible.
func (w *world) pick(n *node, open bool) *job {
	for range 8 {
		if len(w.jobs) == 0 {
			return nil
		}
		k := w.rng.IntN(len(w.jobs))
		if w.chance(0.6) {
			k = max(len(w.jobs)-1-w.rng.IntN(60), 0)
		}
		if p := &n.shadow[k]; p.there && (!open || !p.job.Ended()) {
			return w.jobs[k]
		}
	}
	return nil
}

// fact is what a worker reports, or a client withdraws, erases or consumes.
func (w *world) fact(n *node) {
	if !n.up {
		return
	}
	x := w.rng.IntN(100)
	j := w.pick(n, x < 80)
	if j == nil {
		return
	}
	var what string
	var apply func(jobs.Job, store.Clock) (jobs.Job, bool)
	switch {
	case x < 50, x >= 95:
		what, apply = "complete", func(j jobs.Job, at store.Clock) (jobs.Job, bool) {
			j.Attempts++
			j, changed := j.Complete(work{j.V1, j.Iterations}.value(), at())
			if changed && w.step%3 > 0 { // else the worker is of an older release
				j, _ = j.AddRungs(0, work{j.V1, j.Iterations}.rungs(0, int(j.Keep)))
			}
			return j, changed
		}
	case x < 57:
		what, apply = "fail", func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Fail("no", at()) }
	case x < 66:
		what, apply = "cancel", func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Cancel(at()) }
	case x < 74:
		what, apply = "checkpoint", func(j jobs.Job, _ store.Clock) (jobs.Job, bool) {
			done := j.Start().Done + 1 + uint64(w.step)%3
			j, changed := j.Advance(jobs.Progress{Done: done, Value: work{j.V1, done}.value()})
			if n := j.Rungs.Len(); changed {
				j, _ = j.AddRungs(n, work{j.V1, j.Iterations}.rungs(n, n+1))
			}
			return j, changed
		}
	case x < 80:
		what, apply = "lose", func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Lose(at()) }
	case x < 86:
		what, apply = "purge", func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Purge(at()) }
	default:
		what, apply = "consume", func(j jobs.Job, _ store.Clock) (jobs.Job, bool) {
			if j.Home != n.name {
				return j, false
			}
			return j.Pull()
		}
	}
	w.note(what, j.i)
	facts := []store.Fact{{ID: j.id, Apply: apply}}
	commit := func() ([]jobs.Outcome, error) {
		effects, err := n.rows.Record(ctx, facts)
		if err != nil {
			return nil, err
		}
		e := &effects[0]
		if !e.Found {
			w.violate("I1", j, "%v has lost it", n)
		}
		if e.Job.Ended() {
			j.ended = true
		}
		if e.Changed {
			switch what {
			case "purge":
				w.stats.Purged++
			case "consume":
				w.stats.Pulled++
			}
			if e.Job.Ended() {
				w.stats.Ended++
			}
		}
		return []jobs.Outcome{{Job: e.Job, LSeq: e.LSeq, Existed: !e.Changed}}, nil
	}
	switch what {
	case "cancel", "purge", "consume":
		n.write(what, []jobs.ID{j.id}, commit)
	default:
		if _, err := commit(); err != nil {
			w.violate(what, j, "%v: %v", n, err)
		}
	}
}

// delay returns how long a message is on its way: mostly not at all.
func (w *world) delay(to *node) int64 {
	d := int64(0)
	if w.chance(0.15 * w.calm) {
		d = 1 + w.rng.Int64N(300_000)
		w.stats.Faults[faultDelayed]++
	}
	if to.slow > w.t {
		d = max(d, w.rng.Int64N(to.slow-w.t))
	}
	return d
}

// send puts a message on its way. What is not delayed arrives at once.
func (w *world) send(m message, from *node) {
	if w.chance(0.03 * w.calm) {
		w.stats.Faults[faultDropped]++
		return
	}
	if w.chance(0.03 * w.calm) {
		w.stats.Faults[faultDuplicated]++
		again := m
		again.due = w.t + 1 + w.rng.Int64N(tooLate)
		if m.req != nil && m.reply == nil && w.chance(0.5) { // a request may come very late
			again.due = w.t + 1 + w.rng.Int64N(5_000_000)
		}
		w.net = append(w.net, again)
	}
	if d := w.delay(m.to); d > 0 {
		m.due = w.t + d
		w.net = append(w.net, m)
		return
	}
	_ = from
	w.arrive(&m)
}

// pull is a round of a node's follower.
func (w *world) pull(n *node) {
	if !n.up || !w.hinted(n) {
		return
	}
	if n.asked > 0 {
		if w.t-n.askedAt < time.Second.Microseconds() {
			return
		}
		n.asked = 0 // given up
	}
	w.note("pull", n.i)
	w.stats.Pulls++
	rows := 1 + w.rng.IntN(12)
	if w.chance(0.1) {
		rows = 1000
	}
	if w.chance(0.02 * w.calm) {
		n.crashIn = 1 + w.rng.IntN(4)
	}
	w.ask(n, rows)
}

// hinted reports whether a node would follow now. It always would.
func (w *world) hinted(n *node) bool {
	if !jobs.Broken("M16") || w.rng.IntN(4) == 0 {
		return true
	}
	r := n.rows.Reading()
	return !(r.Cursor.At < n.peer().last) && w.rng.IntN(2) == 0
}

func (w *world) ask(n *node, rows int) {
	req := n.eng.Ask()
	req.Rows = rows
	w.sent++
	n.asked, n.askedAt = w.sent, w.t
	w.send(message{to: n.peer(), number: w.sent, starts: n.starts, asked: w.t, hurt: n.damages, req: &req}, n)
}

// exchange is a whole round without faults. It reports whether there is more.
func (w *world) exchange(n *node, rows int) bool {
	was := n.rows.Reading().Cursor
	n.asked, n.peer().heard = 0, n.damages
	req := n.eng.Ask()
	req.Rows = rows
	reply, err := n.peer().eng.Answer(ctx, req)
	if err != nil {
		w.violate("I3", nil, "%v is refused: %v", n, err)
	}
	n.peer().answers(nil)
	if err := n.eng.Take(ctx, req, reply); err != nil {
		w.violate("I3", nil, "%v does not take a reply: %v", n, err)
	}
	now := n.rows.Reading().Cursor
	n.look()
	return reply.End.More || now != was
}

// arrive is the end of a message's way.
func (w *world) arrive(m *message) {
	n := m.to
	switch {
	case m.reply != nil || m.agreed != nil || m.err != nil:
		w.replied(m)
	case !w.link[1-n.i]: // what is cut is lost in silence
	case !n.up:
		if from := n.peer(); from.up && from.starts == m.starts && w.link[n.i] && from.asked == m.number {
			from.asked = 0
			from.eng.Refused()
			from.answers(nil)
		}
	case m.floor != nil:
		w.accept(m)
	default:
		w.serve(m)
	}
}

// serve answers a request.
func (w *world) serve(m *message) {
	n := m.to
	n.call(func() {
		n.heard = m.hurt
		reply, err := n.eng.Answer(ctx, *m.req)
		if err != nil {
			if r, ok := errors.AsType[*peersync.Refusal](err); ok {
				w.violate("I10", nil, "%v refuses its peer: %v", n, r)
			}
			w.violate("I10", nil, "%v does not answer: %v", n, err)
		}
		if n.rows.Chain().Covers(m.req.Cursor) {
			n.answers(&m.req.Cursor)
		} else {
			n.answers(nil)
			if reply.Hello.Reset {
				w.stats.Resets++
			}
		}
		w.send(message{to: n.peer(), number: m.number, starts: m.starts, asked: m.asked, req: m.req, reply: &reply}, n)
	})
}

// replied is the arrival of a reply.
func (w *world) replied(m *message) {
	n := m.to
	if !w.link[1-n.i] || !n.up || n.starts != m.starts {
		return
	}
	if m.reply == nil {
		w.agreed(m)
		return
	}
	if n.asked == m.number {
		n.asked = 0
	} else if w.t-m.asked > tooLate {
		return
	}
	n.call(func() {
		w.stats.Rows += len(m.reply.Rows)
		was := n.rows.Reading().Cursor
		if err := n.eng.Take(ctx, *m.req, *m.reply); err != nil {
			w.violate("I3", nil, "%v does not take a reply: %v", n, err)
		}
		if now := n.rows.Reading().Cursor; was != m.req.Cursor && now != was {
			w.violate("I9", nil, "%v: a late reply moves the cursor from %+v to %+v", n, was, now)
		}
		for i := range m.reply.Rows {
			if r := &m.reply.Rows[i]; !r.Job.Ended() && !n.shadow[w.job(r.Job.ID).i].there {
				w.violate("I6", w.job(r.Job.ID), "%v refuses a job that has not ended: %+v", n, r.Job)
			}
		}
		n.look()
		n.answers(nil)
	})
}

// toggle cuts the link, both ways or one, or heals it.
func (w *world) toggle(n *node) {
	switch {
	case w.link != [2]bool{true, true}:
		w.link = [2]bool{true, true}
		w.mark("heal")
	case w.rng.IntN(3) > 0:
	case w.rng.IntN(3) == 0:
		w.link[n.i] = false
		w.stats.Faults[faultOneWay]++
		w.note("cut one way", n.i)
	default:
		w.link = [2]bool{}
		w.stats.Faults[faultCut]++
		w.mark("cut")
	}
}

func (w *world) crash(n *node) {
	if !n.up {
		return
	}
	w.stats.Faults[faultCrash]++
	w.note("crash", n.i)
	n.kill()
}

func (w *world) start(n *node) {
	if n.up {
		n = n.peer()
	}
	if n.up {
		return
	}
	w.note("start", n.i)
	n.start()
}

func (w *world) backup(n *node) {
	if !n.up {
		return
	}
	if n.backup != nil {
		n.backup.drop()
	}
	n.backup = n.on.copy()
}

// damage takes a node's disk, or puts an older one in its place. It waits until
// no job is on one disk alone that a client believes on both.
func (w *world) damage(n *node) {
	if !w.whole(n.peer()) {
		return
	}
	if n.up {
		n.kill()
	}
	n.on.drop()
	for i := range n.shadow { // what was still to be dropped there is dropped now
		if p := &n.shadow[i]; p.there && p.job.Ended() && p.job.Key().Before(n.peer().floor) {
			w.jobs[i].gone[n.i] = true
		}
	}
	n.last, n.floor = 0, time.Time{}
	n.damages++
	for _, c := range w.clients { // an older disk may not know what it has dropped
		c.missed = c.missed[:0]
	}
	n.damaged = true
	clear(n.shadow)
	if n.backup != nil && w.rng.IntN(2) == 0 {
		w.note("restored", n.i)
		w.stats.Faults[faultRestored]++
		n.on, n.backup = n.backup, nil
		n.start()
	} else {
		w.note("wiped", n.i)
		w.stats.Faults[faultWiped]++
		n.on = w.newMedium()
		n.start()
	}
	for i, j := range w.jobs {
		if j.both && !n.peer().shadow[i].there && !n.shadow[i].there && !j.gone[0] && !j.gone[1] {
			w.violate("I1", j, "was answered as both, and is gone with the disk of %v", n)
		}
	}
	if w.chance(0.5) {
		n.kill()
	}
}

func (w *world) slowDown(n *node) {
	n.slow = w.t + 100_000 + w.rng.Int64N(1_000_000)
	w.stats.Faults[faultSlow]++
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

// catchUp lets a node ask for all that there is: a round of the floor needs
// both to be in step, which they mostly are when they live.
func (w *world) catchUp(n *node) {
	if n.up && n.asked == 0 && w.hinted(n) {
		w.ask(n, 1000)
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

// accept is the peer's side of a round.
func (w *world) accept(m *message) {
	n := m.to
	n.call(func() {
		reply, err := n.eng.AcceptFloor(ctx, *m.floor)
		back := message{to: n.peer(), starts: m.starts, asked: m.asked, agreed: &reply}
		if err != nil {
			if _, ok := errors.AsType[*peersync.Refusal](err); !ok {
				w.violate("I6", nil, "%v: %v", n, err)
			}
			back.agreed, back.err = nil, err
		} else if _, risen := w.floors[reply.Floor]; !risen { // whatever becomes of this disk before it rises
			w.floors[reply.Floor] = w.damages()
		}
		w.send(back, n)
	})
}

// agreed is the arrival of a promise, or of a refusal, at the proposer.
func (w *world) agreed(m *message) {
	n := m.to
	if !n.round.on || n.round.reply != nil || m.asked+5_000_000 < w.t {
		return
	}
	if m.err != nil {
		n.round = round{}
		return
	}
	n.round.reply = m.agreed
	w.finish(n)
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

// copied keeps rows for gossip.
func (w *world) copied(n *node, changed []jobs.Changed) {
	if !w.gossip || !w.chance(0.15) {
		return
	}
	p := packet{to: n.peer(), boot: n.rows.Boot(), rows: make([]jobs.Row, 0, 5)}
	for i := range changed[:min(len(changed), 5)] {
		p.rows = append(p.rows, changed[i].Row)
	}
	if len(w.mail) < maxMail {
		w.mail = append(w.mail, p)
	} else {
		w.mail[w.rng.IntN(maxMail)] = p
	}
}

// deliver is a packet of gossip that arrives, not for the last time.
func (w *world) deliver(*node) {
	if len(w.mail) == 0 {
		return
	}
	k := w.rng.IntN(len(w.mail))
	if w.chance(0.5) {
		k = max(len(w.mail)-1-w.rng.IntN(4), 0)
	}
	p := w.mail[k]
	n := p.to
	if !n.up {
		return
	}
	w.note("copies", n.i)
	w.stats.Copies++
	n.call(func() {
		was := n.rows.Reading().Cursor
		n.answers(nil)
		both := w.stats.Both
		if err := n.eng.TakeCopies(ctx, p.boot, p.rows); err != nil {
			w.violate("I10", nil, "%v: %v", n, err)
		}
		n.answers(nil)
		if now := n.rows.Reading().Cursor; now != was {
			w.violate("I10", nil, "%v: gossip moves the cursor from %+v to %+v", n, was, now)
		}
		if w.stats.Both != both {
			w.violate("I10", w.job(p.rows[0].Job.ID), "%v answers both because of gossip", n)
		}
	})
}

// follow is a client that reads on in the results, at either node.
func (w *world) follow(n *node) {
	c := w.clients[w.rng.IntN(len(w.clients))]
	if c.at != nil && w.chance(0.7) {
		n = c.at
	}
	if !n.up {
		n = n.peer()
	}
	if n.up {
		c.read(n, 1+w.rng.IntN(10))
	}
}
