package sync

import (
	"context"
	"fmt"

	"workmanager/jobs"
)

// admit says why a node that gives this identity is not our peer, nil if it is
// or may become it.
func (e *Engine) admit(id Identity) *Refusal {
	known := e.store.Reading().Peer
	switch {
	case id.Cluster != e.cfg.Cluster:
		return &Refusal{RefusedCluster, fmt.Sprintf("node %s is of cluster %q, this one of %q: give both the same --cluster", id.Node, id.Cluster, e.cfg.Cluster)}
	case id.ProtoMin > protoMax || id.ProtoMax < protoMin:
		return &Refusal{RefusedProto, fmt.Sprintf("node %s speaks versions %d to %d of the protocol, this one %d to %d: upgrade the older", id.Node, id.ProtoMin, id.ProtoMax, protoMin, protoMax)}
	case id.Store == e.me.Store:
		return &Refusal{RefusedSameStore, fmt.Sprintf("node %s has a copy of the data directory of %s: two nodes must not begin from one; empty one of the two", id.Node, e.cfg.Node)}
	case id.Node == e.cfg.Node:
		return &Refusal{RefusedSameNode, fmt.Sprintf("two nodes are named %s: give one another --name", id.Node)}
	case known != "" && id.Node != known:
		return &Refusal{RefusedStranger, fmt.Sprintf("node %s has node %s as its peer; %s is a third", e.cfg.Node, known, id.Node)}
	}
	return nil
}

// meet makes a node that was admitted the peer, if there was none.
func (e *Engine) meet(ctx context.Context, node string) error {
	if e.store.Reading().Peer == node {
		return nil
	}
	if err := e.store.SetPeer(ctx, node, "", ""); err != nil {
		return fmt.Errorf("note the peer: %w", err)
	}
	e.log.Info("peer found", "peer", node)
	return nil
}

// Answer is one whole answer to the peer, without waiting for news. The error
// is a *Refusal if the asker is not our peer.
func (e *Engine) Answer(ctx context.Context, req Request) (Reply, error) {
	if err := e.asked(ctx, req); err != nil {
		return Reply{}, err
	}
	return e.read(ctx, req)
}

// asked notes a request: who asks, and what that confirms.
func (e *Engine) asked(ctx context.Context, req Request) error {
	if r := e.admit(req.Identity); r != nil {
		return e.refuse(r)
	}
	if e.stranger(req.Node) {
		return &Refusal{RefusedStranger, fmt.Sprintf("node %s is not in the gossip of %s yet", req.Node, e.cfg.Node)}
	}
	if err := e.meet(ctx, req.Node); err != nil {
		return err
	}
	good, reset := e.store.Chain().Resume(req.Confirmed(), e.store.Head())
	if reset {
		good = jobs.Cursor{}
	}
	now := e.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	was := e.state.session
	e.peer.skew = req.Now.Sub(now)
	if e.newsFor != req.Boot { // what came from its last start it may not have
		e.newsFor, e.news = req.Boot, e.tail.last
	}
	if req.WordOf == e.me.Boot {
		e.heardOf = req.Word
	}
	e.state.asked(now, good, e.tail.last, req.Complete)
	e.release(good)
	if was == SessionSync && e.state.session != SessionSync {
		e.leave()
	}
	e.told(was)
	if req.Unlisted && e.gossip != nil {
		e.gossip.Rejoin()
	}
	return nil
}

// stranger reports whether a node that would become the peer is one that gossip
// does not know: anybody can send a request.
func (e *Engine) stranger(node string) bool {
	if e.gossip == nil || e.store.Reading().Peer != "" {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.peer.name != node
}

// told logs a change of the session; mu is held.
func (e *Engine) told(was Session) {
	if e.state.session == SessionCatchup && was < SessionCatchup {
		e.nudge() // its next request may find both in step, and it would come only when there is news
	}
	if e.state.session != was {
		e.log.Info("session", "peer", e.store.Reading().Peer, "is", e.state.session.String(), "was", was.String())
	}
}

// read makes the answer to a request from one view of the store.
func (e *Engine) read(ctx context.Context, req Request) (Reply, error) {
	q := jobs.FeedQuery{Cursor: req.Cursor, Me: suppress(req.Identity), Rows: req.Rows, Bytes: req.Bytes}
	c, ok := e.recent(q)
	if !ok {
		var err error
		if c, err = e.store.Feed(ctx, q); err != nil {
			return Reply{}, fmt.Errorf("read the feed for node %s: %w", req.Node, err)
		}
	}
	r := Reply{Hello: e.hello(), Rows: c.Rows, End: End{At: c.Next.At, SeenHead: c.Next.SeenHead, BackAt: c.Next.BackAt,
		More: c.More, RCov: c.RCov, HasRCov: c.HasRCov}}
	r.Hello.Reset = c.Reset
	if c.Reset {
		r.Hello.LiveFrom = c.Next.SeenHead
		if c.Next.BackTo == 0 { // read to its end already
			r.End.BackAt = r.Hello.LiveFrom
		}
	} else if req.Cursor.Refilling() && !c.Next.Refilling() {
		r.End.BackAt = req.Cursor.BackTo
	}
	e.mu.Lock()
	e.count.chunksOut++
	e.count.rowsOut += int64(len(c.Rows))
	if c.Reset {
		e.count.resets++
	}
	r.End.Word = e.word
	if jobs.Broken("M12") {
		e.release(c.Next)
	}
	e.mu.Unlock()
	return r, nil
}

// recent answers a reader in step from memory.
func (e *Engine) recent(q jobs.FeedQuery) (jobs.Chunk, bool) {
	if !e.store.Chain().Covers(q.Cursor) {
		return jobs.Chunk{}, false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tail.chunk(q, e.me.Boot)
}

// suppress returns what marks the rows that came from a node, which are left
// out of the answers to it: its boot, since one that has started anew may not
// have them.
func suppress(id Identity) jobs.ID {
	if jobs.Broken("M6") {
		return jobs.KeyID("", "", id.Node)
	}
	return id.Boot
}

// hello says who answers.
func (e *Engine) hello() Hello {
	floor, promise := e.store.Floor()
	h := Hello{Identity: e.me, Head: e.store.Head(), Floor: floor, Promise: promise, Now: e.now(), Load: e.loadOf()}
	e.mu.Lock()
	defer e.mu.Unlock()
	h.Complete = e.state.complete
	return h
}
