package sync

import (
	"context"
	"fmt"
	"sync"
	"time"

	"workmanager/jobs"
)

// What gossip tells the engine, and what the engine gives to gossip. All of it
// is best effort: a hint only wakes the follower, and copies of rows pass
// through the same merge as the feed's, move no cursor and confirm nothing.

const (
	maxOutbox    = 512       // rows that wait to be sent as copies
	copyRate     = 256 << 10 // bytes a second
	copyInterval = 5 * time.Millisecond
)

// Gossip opens the address at which the peer may join, and with it membership.
// Without it a node has no peer. Call it before Run; Run closes it.
func (e *Engine) Gossip(bind string) error {
	g, err := newGossip(gossipConfig{
		Node: e.cfg.Node, Cluster: e.cfg.Cluster, Boot: e.me.Boot, Store: e.me.Store, Schema: e.me.Schema,
		Bind: bind, API: e.cfg.API, Join: e.cfg.Join, Head: e.store.Head, Keys: e.cfg.GossipKeys, Log: e.log,
	}, e)
	if err != nil {
		return fmt.Errorf("gossip at %s: %w", bind, err)
	}
	if r := e.store.Reading(); r.Gossip != "" {
		g.SetPeerAddr(r.Gossip)
	}
	e.gossip = g
	return nil
}

// SetGossipKeys exchanges the keys of gossip; the first one sends. It does
// nothing where gossip runs in the clear.
func (e *Engine) SetGossipKeys(ring [][]byte) error {
	if e.gossip == nil {
		return nil
	}
	return e.gossip.SetKeys(ring)
}

// GossipAddr returns the address that the peer joins, "" if there is none.
func (e *Engine) GossipAddr() string {
	if e.gossip == nil {
		return ""
	}
	return e.gossip.Addr()
}

// Allowed says whether a node of this name may be in our gossip.
func (e *Engine) Allowed(node string) (bool, string) {
	known := e.store.Reading().Peer
	switch {
	case node == e.cfg.Node, known == "", node == known:
		return true, ""
	}
	return false, fmt.Sprintf("the peer is %s", known)
}

// Alive notes a member that joined or started anew.
func (e *Engine) Alive(m member) {
	if m.Node == e.cfg.Node {
		return
	}
	e.mu.Lock()
	e.state.Gossip(true)
	e.peer.api, e.peer.gossip, e.peer.name, e.peer.noted = m.API, m.Gossip, m.Node, false
	e.mu.Unlock()
	e.kick()
}

// Dead notes a member that left or failed.
func (e *Engine) Dead(node string) {
	if node == e.cfg.Node {
		return
	}
	e.note(func(time.Time) { e.state.Gossip(false) })
}

// Hinted wakes the follower if the peer has something new.
func (e *Engine) Hinted(_ string, boot8 [8]byte, head jobs.LSeq) {
	c := e.store.Reading().Cursor
	if [8]byte(c.Boot[:8]) != boot8 || head > c.At {
		e.kick()
	}
}

// Copies takes a packet of rows; what there is no room for is dropped.
func (e *Engine) Copies(node string, data []byte) {
	select {
	case e.wire.copies <- packet{node, data}:
	default:
		e.mu.Lock()
		e.count.copiesDropped++
		e.mu.Unlock()
	}
}

// Stranger notes a node that gossip did not let in.
func (e *Engine) Stranger(node, addr, why string) {
	e.mu.Lock()
	e.count.strays++
	e.mu.Unlock()
	e.warn("stranger-"+node, "node kept out of gossip", "node", node, "at", addr, "reason", why)
}

// takeCopies commits rows that came by gossip.
func (e *Engine) takeCopies(ctx context.Context) {
	for {
		var p packet
		select {
		case <-ctx.Done():
			return
		case p = <-e.wire.copies:
		}
		boot, rows, err := decodeCopies(p.data)
		if err != nil || p.node != e.store.Reading().Peer {
			e.mu.Lock()
			e.count.badFrames++
			e.mu.Unlock()
			continue
		}
		if err := e.TakeCopies(ctx, boot, rows); err != nil {
			e.log.Debug("copies not stored", "err", err)
		}
	}
}

// outbox is the rows to be sent as copies, each at its latest.
type outbox struct {
	mu    sync.Mutex // guards the rest
	rows  map[jobs.ID]jobs.Row
	order []jobs.ID
	wake  chan struct{} // capacity 1
}

func (o *outbox) init() {
	o.rows, o.wake = map[jobs.ID]jobs.Row{}, make(chan struct{}, 1)
}

// put takes rows in, and returns how many there was no room for.
func (o *outbox) put(changed []jobs.Changed, peer jobs.ID) (dropped int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range changed {
		c := &changed[i]
		if c.Via != (jobs.ID{}) && c.Via == peer || len(c.Job.Rungs) > maxPacket {
			continue
		}
		if _, ok := o.rows[c.Job.ID]; !ok {
			if len(o.order) >= maxOutbox {
				dropped++
				continue
			}
			o.order = append(o.order, c.Job.ID)
		}
		o.rows[c.Job.ID] = c.Row
	}
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return dropped
}

// take returns up to n rows, the oldest first.
func (o *outbox) take(n int) []jobs.Row {
	o.mu.Lock()
	defer o.mu.Unlock()
	n = min(n, len(o.order))
	rows := make([]jobs.Row, 0, n)
	for _, id := range o.order[:n] {
		rows = append(rows, o.rows[id])
		delete(o.rows, id)
	}
	o.order = append(o.order[:0], o.order[n:]...)
	return rows
}

// offer tells the peer of news outside the feed, while it does not read that.
func (e *Engine) offer(changed []jobs.Changed) {
	if e.gossip == nil || jobs.Broken("gossip") {
		return
	}
	load := e.host.Load()
	e.gossip.Hint(e.store.Head(), load.Waiting, load.FreeLanes)
	dropped := e.wire.out.put(changed, e.store.Reading().Cursor.Boot)
	if dropped > 0 {
		e.mu.Lock()
		e.count.copiesDropped += int64(dropped)
		e.mu.Unlock()
	}
}

// sendCopies sends what is in the outbox at its pace, until ctx is done.
func (e *Engine) sendCopies(ctx context.Context) {
	t := time.NewTicker(copyInterval)
	defer t.Stop()
	budget := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.wire.out.wake:
		}
		for {
			rows := e.wire.out.take(maxPacket / 200)
			if len(rows) == 0 {
				break
			}
			for len(rows) > 0 {
				data, n := appendCopies(nil, e.me.Boot, rows, maxPacket)
				if n == 0 { // too large for a packet
					rows = rows[1:]
					continue
				}
				rows = rows[n:]
				for budget < len(data) {
					select {
					case <-ctx.Done():
						return
					case <-t.C:
						budget = min(budget+int(copyRate*copyInterval/time.Second), copyRate/10)
					}
				}
				budget -= len(data)
				if e.gossip.SendCopies(data) {
					e.mu.Lock()
					e.count.copiesOut += int64(n)
					e.mu.Unlock()
				}
			}
		}
	}
}

// notePeer commits where the peer is, once gossip and its feed agree on who it
// is, so that a restart finds it without gossip.
func (e *Engine) notePeer(ctx context.Context) error {
	peer := e.store.Reading().Peer
	e.mu.Lock()
	p := &e.peer
	due := !p.noted && p.api != "" && p.name == peer
	api, gossip := p.api, p.gossip
	e.mu.Unlock()
	if !due {
		return nil
	}
	if err := e.store.SetPeer(ctx, peer, api, gossip); err != nil {
		return fmt.Errorf("note the peer's address: %w", err)
	}
	e.mu.Lock()
	p.noted = p.api == api
	e.mu.Unlock()
	return nil
}
