package web

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// How long a refused client is asked to stay away, where the error itself does
// not say.
const (
	busyRetry     = time.Second
	stoppingRetry = 2 * time.Second
	diskRetry     = 30 * time.Second
)

// kinds says what each code is over HTTP.
var kinds = map[jobs.Code]struct {
	status int
	title  string
	retry  time.Duration
}{
	jobs.CodeInvalid:      {http.StatusUnprocessableEntity, "a value is wrong", 0},
	jobs.CodeMalformed:    {http.StatusBadRequest, "the request cannot be read", 0},
	jobs.CodeNotFound:     {http.StatusNotFound, "no such job", 0},
	jobs.CodeNotCompleted: {http.StatusConflict, "the job has no value", 0},
	jobs.CodeConflict:     {http.StatusConflict, "the Idempotency-Key was used for other work", 0},
	jobs.CodeTooLarge:     {http.StatusRequestEntityTooLarge, "the data is too large", 0},
	jobs.CodeUnsupported:  {http.StatusUnsupportedMediaType, "the encoding is not supported", 0},
	jobs.CodeTimeout:      {http.StatusRequestTimeout, "the request came in too slowly", 0},
	jobs.CodeLimited:      {http.StatusTooManyRequests, "the caller asks for too much", busyRetry},
	jobs.CodeBusy:         {http.StatusServiceUnavailable, "the node is busy", busyRetry},
	jobs.CodeStopping:     {http.StatusServiceUnavailable, "the node is stopping", stoppingRetry},
	jobs.CodeDiskFull:     {http.StatusInsufficientStorage, "the disk is full", diskRetry},
	jobs.CodeUnavailable:  {http.StatusServiceUnavailable, "the answer cannot be known now", busyRetry},
	jobs.CodeAuth:         {http.StatusUnauthorized, "the caller is not known", 0},
	jobs.CodeForbidden:    {http.StatusForbidden, "the caller may not do this", 0},
	jobs.CodeNoRoute:      {http.StatusNotFound, "no such route", 0},
	jobs.CodeMethod:       {http.StatusMethodNotAllowed, "the route has other methods", 0},
	jobs.CodeInternal:     {http.StatusInternalServerError, "internal error", 0},
}

// internalDetail is all that a caller hears of an error of ours.
const internalDetail = "internal error"

// problem turns err into what its caller may know, and when to try again. An
// error without a code is ours: only that it happened is told.
func problem(err error) (api.Problem, time.Duration) {
	e, ok := errors.AsType[*jobs.Error](err)
	if !ok {
		e = &jobs.Error{Code: jobs.CodeInternal, Msg: internalDetail}
	}
	k, known := kinds[e.Code]
	if !known || e.Code == jobs.CodeInternal {
		k = kinds[jobs.CodeInternal]
		e = &jobs.Error{Code: jobs.CodeInternal, Msg: internalDetail}
	}
	p := api.Problem{Title: k.title, Status: k.status, Detail: e.Msg, Code: string(e.Code)}
	for _, x := range e.Problems {
		p.Errors = append(p.Errors, api.FieldError{Loc: x.Loc, Msg: x.Msg, Type: x.Type})
	}
	retry := e.RetryAfter
	if retry == 0 {
		retry = k.retry
	}
	return p, retry
}

// fail answers err. It is the only place that writes an error.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	h := w.Header()
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		err = jobs.Errorf(jobs.CodeUnavailable, "the client gave up before the answer") // so nobody reads this
	}
	p, retry := problem(err)
	s.failed.count(jobs.Code(p.Code))
	if why := codeRefusals[jobs.Code(p.Code)]; why != 0 {
		s.refused.count(why)
	}
	if p.Status == http.StatusInternalServerError && h.Get(api.HeaderRequestID) == "" {
		id := requestID()
		h.Set(api.HeaderRequestID, id)
		s.log.Error("request failed", "request", id, "method", r.Method, "path", logged(r.URL.Path), "err", err)
	}
	if retry > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((retry+time.Second-1)/time.Second), 10))
	}
	if e, ok := errors.AsType[*jobs.Error](err); ok && e.Written {
		setDurability(h, jobs.Durability{})
	}
	h.Set("Content-Type", api.MediaProblem)
	h.Set("Cache-Control", "no-store")
	switch {
	case p.Status == http.StatusRequestEntityTooLarge, p.Status == http.StatusRequestTimeout:
		hangUp(w)
	case jobs.Code(p.Code) == jobs.CodeStopping && r.ContentLength != 0: // a body that is on its way, and was perhaps cut
		hangUp(w)
	}
	b, err := encode(p)
	if err != nil {
		panic("web: a problem cannot be encoded: " + err.Error())
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	shorten(w, r)
	w.WriteHeader(p.Status)
	_, _ = w.Write(b) // a client that has gone is no error
}

// shorten gives the rest of an unread body little time. net/http reads some of
// it before it answers, to keep the connection; a client that still sends, or
// has stopped sending, must not delay its answer.
func shorten(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Now().Add(drainTimeout)) // not supported in tests without a connection
		_ = rc.SetWriteDeadline(time.Now().Add(replyTimeout))
	}
}

// hangUp makes net/http answer without reading the body any further, and close
// the connection gently: a client that still sends gets the answer, not a reset.
// It does so when a MaxBytesReader meets its limit, and offers no other way.
func hangUp(w http.ResponseWriter) {
	for {
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = outer.Unwrap()
	}
	w.Header().Set("Connection", "close")
	_, _ = http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1)) // always over
}

// encode returns v as JSON, with < > & as they are.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode a reply: %w", err)
	}
	return b.Bytes(), nil
}

// requestID returns a number that ties an answer to its line in the log.
func requestID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// problems collects all that is wrong with one request.
type problems struct{ list []jobs.Problem }

// add takes the problems of err, a wrong value, and reports whether it was
// one. Any other error is not collected: it is the answer by itself.
func (p *problems) add(err error) bool {
	e, ok := errors.AsType[*jobs.Error](err)
	if !ok || e.Code != jobs.CodeInvalid || len(e.Problems) == 0 {
		return false
	}
	p.list = append(p.list, e.Problems...)
	return true
}

// err returns all problems as one error, nil if there are none.
func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	var msg []byte
	for i, x := range p.list {
		if i > 0 {
			msg = append(msg, "; "...)
		}
		if len(x.Loc) > 0 {
			msg = append(msg, x.Loc[len(x.Loc)-1]...)
			msg = append(msg, ": "...)
		}
		msg = append(msg, x.Msg...)
	}
	return &jobs.Error{Code: jobs.CodeInvalid, Msg: string(msg), Problems: p.list}
}

// maxShown bounds how much of a caller's value a message repeats.
const maxShown = 64

// clip cuts s to what a message shows of it.
func clip(s string) string {
	if len(s) <= maxShown {
		return s
	}
	n := maxShown
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n] + "…"
}
