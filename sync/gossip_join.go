package sync

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// joinLoop joins at once, and then again and again: without it a pair that lost
// sight of each other for a second stays apart for ever.
func (g *gossip) joinLoop(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.join:
		case <-pause.C:
		}
		g.joinAll(ctx)
		pause.Reset(joinSpacing)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		pause.Reset(g.pause() - joinSpacing)
	}
}

// pause is how long to wait for the next join, 20 % more or less: two nodes that
// join each other at the same instant must not do so for ever.
func (g *gossip) pause() time.Duration {
	g.mu.Lock()
	d := refreshInterval
	if g.peer == nil || time.Now().Before(g.unlisted) {
		d = joinInterval
	}
	g.mu.Unlock()
	return time.Duration(float64(d) * (0.8 + 0.4*g.chance.Float64()))
}

// joinAll joins every address where the peer may be.
func (g *gossip) joinAll(ctx context.Context) {
	g.mu.Lock()
	where := slices.Clone(g.cfg.Join)
	if g.last != "" && !slices.Contains(where, g.last) {
		where = append(where, g.last)
	}
	g.mu.Unlock()
	var tried []string
	var errs []error
	for _, addr := range where {
		ips, err := resolve(ctx, addr)
		if err != nil {
			errs = append(errs, err)
		}
		for _, ip := range ips {
			if ctx.Err() != nil {
				return
			}
			if ip == g.self || ip == g.bound || slices.Contains(tried, ip) {
				continue
			}
			tried = append(tried, ip)
			if _, err := g.list.Join([]string{ip}); err != nil {
				errs = append(errs, errors.Unwrap(err)) // without "1 error occurred"
			}
		}
	}
	if len(errs) == 0 || !g.alone() || ctx.Err() != nil {
		return
	}
	if missed, ok := g.warnings.due("join", 10*time.Second); ok {
		g.cfg.Log.Warn("gossip reaches no peer", "err", oneLine(errors.Join(errs...)), "missed", missed)
	}
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func (g *gossip) alone() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.peer == nil
}

// resolve looks a host:port up. memberlist would first ask for it by TCP, and
// not be stopped by a context.
func resolve(ctx context.Context, addr string) ([]string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("join %s: %w", addr, err)
	}
	if ip := net.ParseIP(host); ip != nil {
		return []string{net.JoinHostPort(ip.String(), port)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	hosts, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("join %s: %w", addr, err)
	}
	for i, ip := range hosts {
		hosts[i] = net.JoinHostPort(ip, port)
	}
	return hosts, nil
}

// Rejoin makes us join the peer now: by what its HTTP session says it does not
// list us. It never blocks.
func (g *gossip) Rejoin() {
	g.eager()
	g.joinSoon()
}

// eager makes us join every second for a while, as if no peer were alive.
func (g *gossip) eager() {
	g.mu.Lock()
	g.unlisted = time.Now().Add(eagerTime)
	g.mu.Unlock()
}

func (g *gossip) joinSoon() {
	select {
	case g.join <- struct{}{}:
	default: // it will anyway
	}
}

// SetPeerAddr names the address the peer's gossip had last, of an earlier boot
// perhaps, to be joined beside the configured ones. It never blocks.
func (g *gossip) SetPeerAddr(addr string) {
	g.mu.Lock()
	known := addr == g.last
	g.last = addr
	g.mu.Unlock()
	if !known {
		g.joinSoon()
	}
}
