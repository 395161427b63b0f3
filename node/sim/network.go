package sim

import (
	"errors"
	"time"

	"workmanager/jobs"
	peersync "workmanager/sync"
)

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
