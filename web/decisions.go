package web

import (
	"context"
	"net/http"
	"time"

	"workmanager/web/api"
)

// decisions are what one stream was told of what the scheduler decided.
type decisions struct {
	fleet Fleet
	at    time.Time // of the newest that was told
	times int       // how often it was decided then
}

// decisionsOf returns those of a stream, nil where there is no fleet or it is not
// for the caller: decisions are an operator's, as GET /v1/fleet is.
func decisionsOf(s *Server, r *http.Request) *decisions {
	if c, asked := CallerOf(r.Context()); s.cfg.Fleet == nil || asked && c.Role != Operator {
		return nil
	}
	return &decisions{fleet: s.cfg.Fleet}
}

// wait returns a channel that is closed with the next decision.
func (d *decisions) wait() <-chan struct{} { return d.fleet.Decided() }

// news returns the events of the decisions that were not told so far, the oldest
// first: of a slow viewer those that are still kept.
func (d *decisions) news(ctx context.Context) (out []byte) {
	f, err := d.fleet.Fleet(ctx)
	if err != nil {
		return nil // the next one may tell
	}
	for i := len(f.Decisions) - 1; i >= 0; i-- {
		x := &f.Decisions[i]
		if x.At.Before(d.at) || x.At.Equal(d.at) && x.Times == d.times {
			continue
		}
		d.at, d.times = x.At, x.Times
		out = append(out, event(api.EventDecision, x)...)
	}
	return out
}
