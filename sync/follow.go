package sync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"workmanager/jobs"
)

const (
	stepInterval = 50 * time.Millisecond
	dialTimeout  = time.Second
	backoffMin   = 50 * time.Millisecond
	backoffMax   = time.Second
	// longestReply bounds one request, however alive its answer looks: what it
	// waits for news, and a chunk over a slow line.
	longestReply = 2 * time.Minute
	// emptyReplies is how many answers may come at once without bringing
	// anything before the next is asked for with a pause.
	emptyReplies = 20
)

// wires is what Run and Handler need of the network.
type wires struct {
	client *http.Client
	kick   chan struct{} // capacity 1: the peer is there, ask it now
	stop   chan struct{} // closed when Run ends
	copies chan packet
	out    outbox
}

// packet is one datagram of gossip.
type packet struct {
	node string
	data []byte
}

func (w *wires) init(e *Engine) {
	dial := &net.Dialer{Timeout: dialTimeout, KeepAlive: 5 * time.Second}
	w.client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Transport: &http.Transport{
		DialContext: dial.DialContext, MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute, DisableCompression: true,
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return e.cfg.Dial(ctx, addr, e.peerName())
		},
	}}
	w.kick, w.stop = make(chan struct{}, 1), make(chan struct{})
	w.copies = make(chan packet, 256)
	w.out.init()
}

// kick lets the follower ask at once.
func (e *Engine) kick() {
	select {
	case e.wire.kick <- struct{}{}:
	default: // it is about to
	}
}

// target returns where the peer's API is, "" if that is not known yet.
func (e *Engine) target() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.peer.api
}

// url is where a route of the peer is.
func (e *Engine) url(addr, path string) string {
	if e.cfg.Dial != nil {
		return "https://" + addr + path
	}
	return "http://" + addr + path
}

// peerName returns the name of the peer that is there, or was, "" if none ever
// said it.
func (e *Engine) peerName() string {
	if known := e.store.Reading().Peer; known != "" {
		return known
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.peer.name
}

// follow reads the peer's feed until ctx ends.
func (e *Engine) follow(ctx context.Context) {
	backoff := backoffMin
	empty := 0
	for ctx.Err() == nil {
		if addr := e.target(); addr != "" {
			asked, before := e.now(), e.store.Reading().Cursor
			err := e.once(ctx, addr)
			if err == nil {
				backoff = backoffMin
				if e.store.Reading().Cursor != before || e.now().Sub(asked) >= stepInterval {
					empty = 0
				} else if empty++; empty > emptyReplies {
					e.pause(ctx, backoffMin)
				}
				continue
			}
			if ctx.Err() != nil {
				return
			}
			e.failed(addr, err)
		}
		t := time.NewTimer(backoff*8/10 + rand.N(backoff*4/10))
		select {
		case <-t.C:
			backoff = min(2*backoff, backoffMax)
		case <-e.wire.kick:
			backoff = backoffMin
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// pause waits for d, or until ctx ends.
func (e *Engine) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// fetched is an answer, or why there is none.
type fetched struct {
	req   Request
	reply Reply
	err   error
}

// once asks and commits the answer, and while more follows asks for the next
// chunk as it writes the one before.
func (e *Engine) once(ctx context.Context, addr string) error {
	got := e.fetch(ctx, addr, e.Ask())
	for {
		if got.err != nil {
			return got.err
		}
		var next chan fetched
		if got.reply.End.More {
			next = make(chan fetched, 1)
			ahead := e.Ask()
			ahead.Ahead, ahead.Durable = true, ahead.Cursor
			if ahead.Cursor != got.req.Cursor {
				return fmt.Errorf("%w: the cursor has moved", errGarbage)
			}
			c, err := chunkOf(got.req, &got.reply)
			if err != nil {
				return e.Take(context.WithoutCancel(ctx), got.req, got.reply) // it says what is wrong
			}
			ahead.Cursor = c.Next
			go func() { next <- e.fetch(ctx, addr, ahead) }()
		}
		err := e.Take(context.WithoutCancel(ctx), got.req, got.reply)
		if next == nil {
			return err
		}
		got = <-next
		if err != nil {
			return err
		}
		got.req.Ahead, got.req.Durable = false, jobs.Cursor{} // by now all before it is written
	}
}

// failed notes what an error of a request says of the peer.
func (e *Engine) failed(addr string, err error) {
	r, refused := errors.AsType[*Refusal](err)
	switch {
	case refused && r.Code == RefusedStopping, errors.Is(err, syscall.ECONNREFUSED):
		e.Refused()
	case refused:
		e.mu.Lock()
		e.peer.refused = r.Error()
		e.mu.Unlock()
		e.warn("refused-"+r.Code, "the peer refuses this node", "at", addr, "reason", r.Error())
		return
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		e.Lost()
	}
	e.log.Debug("peer not read", "at", addr, "err", err)
	if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, io.EOF) {
		e.warn("follow", "the peer's jobs are not read, will be tried again", "at", addr, "err", err)
	}
}

// fetch asks for one chunk and reads the answer.
func (e *Engine) fetch(ctx context.Context, addr string, asked Request) (f fetched) {
	ctx, cancel := context.WithTimeout(ctx, longestReply)
	defer cancel()
	var silent atomic.Bool
	watchdog := time.AfterFunc(e.silence(), func() { silent.Store(true); cancel() })
	defer watchdog.Stop()
	f.req = asked
	f.reply, f.err = e.get(ctx, addr, asked, func() { watchdog.Reset(e.silence()) })
	if f.err != nil && silent.Load() {
		f.err = errSilent
	}
	return f
}

func (e *Engine) get(ctx context.Context, addr string, asked Request, heard func()) (Reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url(addr, "/peer/changes?"+encodeRequest(asked).Encode()), nil)
	if err != nil {
		return Reply{}, fmt.Errorf("ask for changes: %w", err)
	}
	resp, err := e.wire.client.Do(req)
	if err != nil {
		return Reply{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Reply{}, readRefusal(resp)
	}
	return e.readReply(ctx, resp.Body, heard)
}

var errSilent = errors.New("the peer has gone silent")

// silence is how long nothing may come before a request is given up.
func (e *Engine) silence() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return silentGone * time.Duration(e.state.patience)
}

// readRefusal reads why a request was refused.
func readRefusal(resp *http.Response) error {
	r, err := decodeRefusal(resp.Body)
	if err != nil {
		return fmt.Errorf("the peer answers %s", resp.Status)
	}
	return &Refusal{clipText(r.Code), clipText(r.Detail)}
}

// clipText bounds what a peer may put into our log.
func clipText(s string) string { return s[:min(len(s), 300)] }

// maxReplyRows bounds the rows taken of one answer, whatever was asked for.
const maxReplyRows = 4 * maxChunkRows

// readReply reads an answer to its end.
func (e *Engine) readReply(ctx context.Context, body io.Reader, heard func()) (Reply, error) {
	var reply Reply
	var rows rowDecoder
	frames, greeted := newFrameReader(body), false
	bad := func(err error) (Reply, error) {
		if ctx.Err() == nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) {
			e.mu.Lock()
			e.count.badFrames++
			e.mu.Unlock()
		}
		return Reply{}, err
	}
	for {
		kind, payload, err := frames.next()
		if err != nil {
			return bad(err)
		}
		heard()
		if !greeted && kind != kindHello {
			return bad(fmt.Errorf("%w: frame %d before the hello", errGarbage, kind))
		}
		switch kind {
		case kindHello:
			if reply.Hello, err = decodeHello(payload); err == nil {
				greeted, err = true, e.greeted(ctx, &reply.Hello)
				if err != nil {
					return Reply{}, err
				}
			}
		case kindRow:
			var row jobs.Row
			if row, err = rows.decode(payload); err == nil {
				if reply.Rows = append(reply.Rows, row); len(reply.Rows) > maxReplyRows {
					err = fmt.Errorf("%w: more than %d rows", errGarbage, maxReplyRows)
				}
			}
		case kindHeartbeat:
			var h Heartbeat
			if h, err = decodeHeartbeat(payload); err == nil {
				e.beat(h)
			}
		case kindEnd:
			if reply.End, err = decodeEnd(payload); err == nil {
				if _, err := io.Copy(io.Discard, io.LimitReader(body, 1)); err != nil { // the connection is used again
					return Reply{}, err
				}
				return reply, nil
			}
		}
		if err != nil {
			return bad(err)
		}
	}
}
