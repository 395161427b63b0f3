package sync

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// settledAge is how long a row is unchanged before it is compared.
	settledAge = time.Minute
	// roundsInterval is how often it is looked at whether a round is due.
	roundsInterval = 250 * time.Millisecond
)

// Run follows the peer, gossips and holds the rounds until ctx is done, and
// returns when all of that has ended. It may be called once.
func (e *Engine) Run(ctx context.Context) error {
	var all sync.WaitGroup
	var gossipErr error
	all.Go(func() { e.tick(ctx) })
	all.Go(func() { e.follow(ctx) })
	all.Go(func() { e.rounds(ctx) })
	all.Go(func() { e.takeCopies(ctx) })
	if e.gossip != nil {
		all.Go(func() { gossipErr = e.gossip.Run(ctx) })
		all.Go(func() { e.sendCopies(ctx) })
	}
	<-ctx.Done()
	all.Wait()
	e.wire.client.CloseIdleConnections()
	return gossipErr
}

// Stop ends what the peer's open requests wait for: they are answered as it
// stands, and later ones refused. It may be called once, before Run's context
// ends, so that the peer learns of it by a word and not by silence.
func (e *Engine) Stop() {
	close(e.wire.stop)
}

func (e *Engine) tick(ctx context.Context) {
	t := time.NewTicker(stepInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			e.Step()
		}
	}
}

// rounds proposes floors, compares rows and notes where the peer is.
func (e *Engine) rounds(ctx context.Context) {
	t := time.NewTicker(roundsInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		e.mute()
		if err := e.proposeFloor(ctx); err != nil && ctx.Err() == nil {
			if r, ok := errors.AsType[*Refusal](err); ok {
				e.log.Debug("no floor agreed", "reason", r.Error())
			} else {
				e.warn("floor", "no floor agreed, will be tried again", "err", err)
			}
		}
		if err := e.notePeer(ctx); err != nil && ctx.Err() == nil {
			e.warn("peer", "the peer's address not noted, will be tried again", "err", err)
		}
		if err := e.compareRound(ctx); err != nil && ctx.Err() == nil {
			e.warn("compare", "rows not compared, will be tried again", "err", err)
		}
		if err := e.shareRound(ctx); err != nil && ctx.Err() == nil {
			e.warn("quarantines", "quarantines not shared, will be tried again", "err", err)
		}
	}
}

// mute silences gossip once the peer was found, if that is wanted.
func (e *Engine) mute() {
	if !e.cfg.Muted || e.gossip == nil || e.store.Reading().API == "" {
		return
	}
	e.gossip.Mute(true)
}
