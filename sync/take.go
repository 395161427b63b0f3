package sync

import (
	"context"
	"errors"
	"fmt"
	"time"

	"workmanager/jobs"
)

// Ask returns what to ask the peer next: everything that its cursor covers is
// on this disk.
func (e *Engine) Ask() Request {
	r := e.store.Reading()
	e.mu.Lock()
	defer e.mu.Unlock()
	return Request{Identity: e.me, Cursor: r.Cursor, Complete: e.state.complete, Now: e.now(),
		WordOf: e.peer.wordOf, Word: e.peer.word, Unlisted: e.gossip != nil && e.state.dead, Wait: maxPark, Rows: maxChunkRows, Bytes: maxChunkBytes}
}

// errGarbage says that an answer cannot be one of our peer's protocol.
var errGarbage = errors.New("the answer makes no sense")

// chunkOf returns an answer as what it changes here. It returns an error if the
// cursor would go where it cannot.
func chunkOf(req Request, reply *Reply) (jobs.Chunk, error) {
	h, end := &reply.Hello, reply.End
	c := jobs.Chunk{Peer: h.Node, From: req.Cursor, Boot: suppress(h.Identity), Reset: h.Reset, Rows: reply.Rows, More: end.More,
		RCov: end.RCov, HasRCov: end.HasRCov, Floor: h.Floor}
	base := req.Cursor
	if c.Reset {
		base = jobs.Begin(h.Boot, h.LiveFrom, req.Cursor)
	}
	if end.At < base.At || end.At > end.SeenHead || end.BackAt < base.BackAt || base.Refilling() && end.BackAt > base.BackTo {
		return jobs.Chunk{}, fmt.Errorf("%w: its cursor goes from %+v to %+v", errGarbage, base, end)
	}
	if !base.Refilling() {
		end.BackAt = 0
	}
	c.Next = base.Advance(h.Boot, end.SeenHead, end.At, end.BackAt)
	return c, nil
}

// Take commits what the peer answered to a request. The rows and the cursor
// are one transaction; the next request is what confirms it.
func (e *Engine) Take(ctx context.Context, req Request, reply Reply) error {
	h := &reply.Hello
	if err := e.greeted(ctx, h); err != nil {
		return err
	}
	c, err := chunkOf(req, &reply)
	if err != nil {
		e.mu.Lock()
		e.count.badFrames++
		e.mu.Unlock()
		return err
	}
	e.mu.Lock()
	e.state.busy = true
	e.mu.Unlock()
	if jobs.Broken("M11") && len(c.Rows) > 1 {
		first := c
		first.Rows, c.Rows = c.Rows[:1], c.Rows[1:]
		if _, err := e.store.Receive(ctx, first); err != nil {
			return err
		}
	}
	defer e.host.Arriving()()
	changed, err := e.store.Receive(ctx, c)
	now := e.now()
	e.mu.Lock()
	e.state.busy = false
	if err == nil {
		e.state.heard = now
		if reply.End.Word > 0 {
			e.peer.word, e.peer.wordOf = reply.End.Word, h.Boot
		}
		e.count.chunksIn++
		e.count.rowsIn += int64(len(c.Rows))
		if !c.More && !c.Next.Refilling() && !e.state.complete {
			e.state.complete = true
			e.log.Info("peer's jobs are here", "peer", h.Node)
		}
		was := e.state.session
		if e.state.update(now, e.tail.last) {
			e.leave()
		}
		e.told(was)
	}
	e.mu.Unlock()
	if err != nil {
		return fmt.Errorf("store what node %s sent: %w", h.Node, err)
	}
	if len(changed) > 0 {
		e.host.Arrived(changed)
	}
	return nil
}

// TakeCopies commits rows that the peer sent by gossip. They confirm nothing
// and move no cursor.
func (e *Engine) TakeCopies(ctx context.Context, boot jobs.ID, rows []jobs.Row) error {
	defer e.host.Arriving()()
	changed, ignored, err := e.store.ReceiveCopies(ctx, boot, rows)
	e.mu.Lock()
	e.count.copiesIn += int64(len(rows) - ignored)
	e.count.copiesDropped += int64(ignored)
	if jobs.Broken("M20") {
		for i := range rows {
			for it := e.waiters.byID[rows[i].Job.ID]; it != nil; it = e.waiters.byID[rows[i].Job.ID] {
				e.waiters.end(it, true)
			}
		}
	}
	e.mu.Unlock()
	if err != nil {
		return fmt.Errorf("store copies: %w", err)
	}
	if r := e.store.Reading(); jobs.Broken("M19") && ignored == 0 {
		c := jobs.Chunk{Peer: r.Peer, From: r.Cursor, Boot: boot, Next: r.Cursor, Rows: rows[:1]}
		c.Next.At = max(c.Next.At, rows[len(rows)-1].LSeq)
		c.Next.SeenHead = max(c.Next.SeenHead, c.Next.At)
		if _, err := e.store.Receive(ctx, c); err != nil {
			return err
		}
	}
	if len(changed) > 0 {
		e.host.Arrived(changed)
	}
	return nil
}

// greeted notes who answered.
func (e *Engine) greeted(ctx context.Context, h *Hello) error {
	if r := e.admit(h.Identity); r != nil {
		e.mu.Lock()
		e.peer.refused = r.Error()
		e.mu.Unlock()
		return e.refuse(r)
	}
	if err := e.meet(ctx, h.Node); err != nil {
		return err
	}
	now := e.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	was := e.state.session
	e.state.Heard(now, e.peer.hello.Boot == h.Boot)
	same := e.peer.hello.Boot == h.Boot
	e.peer.hello, e.peer.head, e.peer.refused = *h, h.Head, ""
	e.heardLoad(now, h.Load, same)
	e.state.theyDone = h.Complete
	e.state.update(now, e.tail.last)
	e.told(was)
	return nil
}

// beat notes a heartbeat of the peer.
func (e *Engine) beat(h Heartbeat) {
	now := e.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.state.Heard(now, true)
	e.peer.head, e.peer.skew = h.Head, h.Now.Sub(now)
	e.heardLoad(now, h.Load, true)
}

// heardLoad notes how busy the peer is. What its scheduler shares stays until it
// says something else, or starts anew.
func (e *Engine) heardLoad(now time.Time, l Load, same bool) {
	switch {
	case l.Fleet != nil:
		e.peer.fleetAt = now
	case same:
		l.Fleet = e.peer.load.Fleet
	default:
		e.peer.fleetAt = time.Time{}
	}
	e.peer.load, e.peer.loadAt = l, now
}
