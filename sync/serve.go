package sync

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"workmanager/jobs"
)

const (
	// writeTimeout bounds each write of an answer.
	writeTimeout = 2 * time.Second
	writePiece   = 16 << 10 // bytes of one write
	// echoAge is how long a cursor waits that could only pass the asker's own
	// rows: to tell it of each would cost a request a commit.
	echoAge = 100 * time.Millisecond

	mediaFrames = "application/x-workmanager-frames"
)

var frameBuffers = sync.Pool{New: func() any { return new([]byte) }}

// Handler returns the routes between nodes, all below /peer/.
func (e *Engine) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, serve := range e.routes() {
		mux.HandleFunc(pattern, serve)
	}
	return mux
}

func (e *Engine) routes() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"GET /peer/changes":     e.serveChanges,
		"POST /peer/gc":         e.serveFloor,
		"POST /peer/steal":      e.serveSteal,
		"POST /peer/consume":    e.serveConsume,
		"POST /peer/summary":    e.serveSummary,
		"POST /peer/quarantine": e.serveQuarantine,
		"GET /peer/jobs/{id}":   e.serveFind,
	}
}

// Patterns returns the patterns of the routes between nodes.
func Patterns() []string { return slices.Sorted(maps.Keys((*Engine)(nil).routes())) }

// named refuses a request over TLS whose certificate is not that of the node
// that the request says it is from. Whoever mounts Handler has seen to it that
// the certificate is of this pair.
func named(r *http.Request, node string) *Refusal {
	if r.TLS == nil {
		return nil
	}
	name := ""
	if len(r.TLS.VerifiedChains) > 0 {
		name = r.TLS.VerifiedChains[0][0].Subject.CommonName
	}
	if name == "" || name != node {
		return &Refusal{RefusedStranger, fmt.Sprintf("the certificate of node %q is shown for node %q", name, node)}
	}
	return nil
}

// refusalStatus is the HTTP status of each refusal.
func refusalStatus(code string) int {
	switch code {
	case RefusedProto:
		return http.StatusUpgradeRequired
	case RefusedStopping:
		return http.StatusServiceUnavailable
	case RefusedMalformed:
		return http.StatusBadRequest
	}
	return http.StatusConflict
}

// writeError answers with a refusal, or with 500 for what is ours.
func (e *Engine) writeError(w http.ResponseWriter, err error) {
	r, ok := errors.AsType[*Refusal](err)
	status := http.StatusInternalServerError
	switch {
	case ok:
		status = refusalStatus(r.Code)
	case jobs.CodeOf(err) == jobs.CodeStopping:
		r, status = &Refusal{RefusedStopping, "this node is stopping"}, http.StatusServiceUnavailable
	default:
		e.warn("peer-error", "request of the peer failed", "err", err)
		r = &Refusal{"internal", "internal error"}
	}
	body := encodeRefusal(r)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a peer that has gone is no error
}

// serveChanges answers GET /peer/changes: at once if there is news for the
// asker, else when there is, with heartbeats meanwhile.
func (e *Engine) serveChanges(w http.ResponseWriter, r *http.Request) {
	req, err := decodeRequest(r.URL.Query())
	if err != nil {
		e.writeError(w, e.refuse(&Refusal{RefusedMalformed, err.Error()}))
		return
	}
	if no := named(r, req.Node); no != nil {
		e.writeError(w, e.refuse(no))
		return
	}
	if err := e.asked(r.Context(), req); err != nil { // also of a node that stops: it confirms
		e.writeError(w, err)
		return
	}
	if e.stopping() {
		e.writeError(w, &Refusal{RefusedStopping, "this node is stopping"})
		return
	}
	e.hold(1)
	defer e.hold(-1)
	a := answer{e: e, w: w, rc: http.NewResponseController(w), buf: frameBuffers.Get().(*[]byte)}
	defer frameBuffers.Put(a.buf)
	w.Header().Set("Content-Type", mediaFrames)
	if err := a.run(r.Context(), req); err != nil {
		if r.Context().Err() != nil {
			e.unfollowed()
		} else {
			e.warn("peer-answer", "answer to the peer broke off", "err", err)
		}
		panic(http.ErrAbortHandler) // the answer is not whole, and its end must not look so
	}
}

// answer is one answer to a request for changes.
type answer struct {
	e     *Engine
	w     http.ResponseWriter
	rc    *http.ResponseController
	buf   *[]byte
	hello bool // sent
}

func (a *answer) run(ctx context.Context, req Request) error {
	e := a.e
	parked := time.Now()
	tick := time.NewTicker(heartbeatInterval)
	defer tick.Stop()
	for first := true; ; first = false {
		news, wake := e.hasNews(req)
		age := time.Since(parked)
		if last := age >= req.Wait || age >= echoAge && e.passed(req); news || last || e.stopping() {
			reply, err := e.read(ctx, req)
			if err != nil {
				return err
			}
			return a.finish(&reply, req.Schema)
		}
		if first {
			h := e.hello()
			if err := a.send(appendHello((*a.buf)[:0], &h)); err != nil {
				return err
			}
			a.hello = true
		}
		select {
		case <-wake:
		case <-tick.C:
			h := Heartbeat{Head: e.store.Head(), Now: e.now(), Load: e.loadOf()}
			if err := a.send(appendHeartbeat((*a.buf)[:0], &h)); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-e.wire.stop:
		}
	}
}

// finish sends the rows and the end, and the hello before them if it was not
// sent yet. A floor that rose meanwhile is told with the next answer. schema is
// the asker's.
func (a *answer) finish(r *Reply, schema int) error {
	b := (*a.buf)[:0]
	if !a.hello {
		b = appendHello(b, &r.Hello)
	}
	for i := range r.Rows {
		row := forSchema(r.Rows[i], schema)
		b = appendRow(b, &row)
	}
	return a.send(appendEnd(b, &r.End))
}

func (a *answer) send(b []byte) error {
	*a.buf = b
	for len(b) > 0 {
		n := min(len(b), writePiece)
		_ = a.rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // not supported over a pipe
		if _, err := a.w.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return a.rc.Flush()
}

// hasNews reports whether there is something for the asker, and the channel
// that is closed at the next news.
func (e *Engine) hasNews(req Request) (bool, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.wake == nil {
		e.wake = make(chan struct{})
	}
	good := e.state.theirs == req.Cursor && req.Cursor.Boot != (jobs.ID{})
	return !good || e.word > e.heardOf || req.Cursor.Refilling() || e.newsFor != req.Boot || e.news > req.Cursor.At, e.wake
}

// passed reports whether the asker's cursor could move on, over its own rows.
func (e *Engine) passed(req Request) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tail.last > req.Cursor.At
}

// hold counts the peer's open requests.
func (e *Engine) hold(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.state.asking += n
	if n < 0 {
		e.state.theirsAt = e.now()
	}
}

// unfollowed notes that the peer's connection ended in the middle of an answer.
func (e *Engine) unfollowed() {
	e.note(func(time.Time) {
		if e.state.asking <= 1 { // else it has asked again on another
			e.state.reads = false
		}
	})
}

// stopping reports whether Run is ending.
func (e *Engine) stopping() bool {
	select {
	case <-e.wire.stop:
		return true
	default:
		return false
	}
}

func (e *Engine) serveFloor(w http.ResponseWriter, r *http.Request) {
	req, err := decodeFloorRequest(r.Body)
	if err != nil {
		e.writeError(w, e.refuse(&Refusal{RefusedMalformed, err.Error()}))
		return
	}
	if no := named(r, req.Node); no != nil {
		e.writeError(w, e.refuse(no))
		return
	}
	reply, err := e.AcceptFloor(r.Context(), req)
	if err != nil {
		e.writeError(w, err)
		return
	}
	writeBody(w, encodeFloorReply(reply))
}

func writeBody(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // a peer that has gone is no error
}
