package web

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// conns are the open connections of a listener. When there are too many, one
// on which nothing is answered gives way to a new one: so those who open very
// many and send nothing, or only half a header, keep nobody out.
type conns struct {
	s     *Server
	max   int // 0: no bound
	began time.Time

	mu    sync.Mutex // guards what follows
	open  map[*conn]struct{}
	from  map[netip.Addr]int
	told  time.Time // when the log was told of refusals
	since int       // refusals that it was not told of
}

// tellInterval is how often at most the log is told that connections are refused.
const tellInterval = 10 * time.Second

func (t *conns) init(s *Server) {
	t.s, t.max, t.began = s, s.cfg.Limits.Conns, time.Now()
	t.open, t.from = map[*conn]struct{}{}, map[netip.Addr]int{}
}

func (t *conns) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.open)
}

// Listener returns l with its connections counted and bounded. secure tells
// that TLS is spoken on them; then a refusal cannot be put in words.
func (s *Server) Listener(l net.Listener, secure bool) net.Listener {
	return &listener{l, &s.conns, secure}
}

type listener struct {
	net.Listener
	t      *conns
	secure bool
}

// Accept returns the next connection that is not refused.
func (l *listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: nc, t: l.t, addr: accountAddr(nc.RemoteAddr().String())}
		c.idle.Store(c.t.tick())
		victim, err := l.t.take(c)
		if victim != nil {
			_ = victim.Close() // whoever reads from it is told
		}
		if err == nil {
			return c, nil
		}
		refuse(nc, err, l.secure)
	}
}

// take counts c, or says why there is no room for it. If it returns a victim,
// that is to be closed, and is not counted any more.
func (t *conns) take(c *conn) (victim *conn, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	share := max(t.max/jobs.CallerShare, 1)
	switch {
	case t.max <= 0:
	case t.from[c.addr] >= share && !t.s.limitless(c.addr):
		err = jobs.Errorf(jobs.CodeLimited, "address %s: more than %d connections, which is the limit of one address (--max-connections is %d)", c.addr, share, t.max)
		t.tell(refusedAddr, err)
		return nil, err
	case len(t.open) >= t.max:
		if victim = t.idlest(); victim == nil {
			err = jobs.Errorf(jobs.CodeBusy, "all %d connections are in use (--max-connections)", t.max)
			t.tell(refusedConns, err)
			return nil, err
		}
		t.s.refused.count(closedIdle)
		t.drop(victim)
	}
	t.open[c] = struct{}{}
	t.from[c.addr]++
	return victim, nil
}

// tell counts a refusal, and tells the log of it now and then. mu is held.
func (t *conns) tell(why refusal, err error) {
	t.s.refused.count(why)
	t.since++
	if now := time.Now(); now.Sub(t.told) > tellInterval {
		t.s.log.Warn("connections refused", "refused", t.since, "last", err.Error())
		t.told, t.since = now, 0
	}
}

// idlest returns the connection that is idle longest of some drawn at random,
// nil if all are busy. mu is held.
func (t *conns) idlest() (found *conn) {
	var least int64
	seen := 0
	for c := range t.open { // in no order
		idle := c.idle.Load()
		if idle == 0 {
			continue
		}
		if found == nil || idle < least {
			found, least = c, idle
		}
		if seen++; seen == evictionSample {
			break
		}
	}
	return found
}

// drop counts c no more. mu is held.
func (t *conns) drop(c *conn) {
	if _, there := t.open[c]; !there {
		return
	}
	delete(t.open, c)
	if t.from[c.addr]--; t.from[c.addr] == 0 {
		delete(t.from, c.addr)
	}
}

// tick returns a time that is never 0.
func (t *conns) tick() int64 { return int64(time.Since(t.began)) + 1 }

// conn is one connection.
type conn struct {
	net.Conn
	t    *conns
	addr netip.Addr
	idle atomic.Int64 // since when no request on it is answered; 0: one is
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.t.mu.Lock()
	c.t.drop(c)
	c.t.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite lets net/http close gently, which it does where it finds this method.
func (c *conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return nil
}

type connKey struct{}

// connContext lets handlers find the connection.
func connContext(ctx context.Context, nc net.Conn) context.Context {
	if secure, ok := nc.(*tls.Conn); ok {
		nc = secure.NetConn()
	}
	if c, ok := nc.(*conn); ok {
		return context.WithValue(ctx, connKey{}, c)
	}
	return ctx
}

// connOf returns the connection of a request, nil if it is none of ours.
func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// refuse closes a new connection, and says why where that can be understood.
// It does not wait: what is said fits into the socket.
func refuse(nc net.Conn, err error, secure bool) {
	if !secure {
		p, _ := problem(err)
		p.Status, p.Title = http.StatusServiceUnavailable, kinds[jobs.CodeBusy].title
		if b, err := encode(p); err == nil {
			_ = nc.SetWriteDeadline(time.Now().Add(drainTimeout)) // it is closed at once all the same
			_, _ = fmt.Fprintf(nc, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: %s\r\nContent-Length: %s\r\nRetry-After: 1\r\nConnection: close\r\n\r\n%s",
				api.MediaProblem, strconv.Itoa(len(b)), b)
		}
	}
	_ = nc.Close() // nothing was promised
}
