package web

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// pull answers POST /pullCompleted: the newest results, newest first, or, with
// consume, the oldest, each once. The body is not looked at. The answer is
// streamed, since it may be some twenty megabytes.
func (s *Server) pull(w http.ResponseWriter, r *http.Request) error {
	p := params{r: r, limits: &s.cfg.Limits}
	var top int64
	if v, ok := p.get("top"); !ok {
		p.wrong.add(missing("query", "top", fmt.Sprintf("how many results to return, a whole number; up to %d are", s.cfg.Limits.Top)))
	} else if top, ok = whole(v); !ok {
		p.wrong.add(jobs.Invalid("query", "top", "type_error.integer",
			"value is not a valid integer: %q; give a whole number, of which %d counts at most", clip(v), s.cfg.Limits.Top))
	}
	consume := p.flag("consume")
	key := p.key()
	if err := p.wrong.err(); err != nil {
		return err
	}

	h := w.Header()
	if most := int64(s.cfg.Limits.Top); top > most {
		top = most
		h.Set(api.HeaderTopLimit, strconv.FormatInt(most, 10))
	}
	var found []jobs.Result
	var err error
	switch {
	case top <= 0:
	case consume && s.stopping():
		return errStopping()
	case consume:
		var d jobs.Durability
		if found, d, err = s.cfg.Queue.Consume(r.Context(), int(top), key); err == nil {
			setDurability(h, d)
		}
	default:
		found, err = s.cfg.Reader.Pull(r.Context(), int(top))
	}
	if err != nil {
		return err
	}

	h["Content-Type"] = headerJSON
	h["Cache-Control"] = headerNoStore
	out := newPieces(w)
	defer out.release()
	out.buf = append(out.buf, '[')
	for i := range found {
		if i > 0 {
			out.buf = append(out.buf, ',')
		}
		out.buf = appendPulled(out.buf, &found[i])
		if !out.more() {
			return nil // the client has gone
		}
	}
	out.buf = append(out.buf, ']')
	out.flush()
	return nil
}

// pieces writes a long answer piece by piece, each with its own deadline, so
// that neither the answer nor a client that does not take it costs much.
type pieces struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	mem *[largeRead]byte
	buf []byte
}

func newPieces(w http.ResponseWriter) *pieces {
	mem := largeBuffers.Get().(*[largeRead]byte)
	return &pieces{w: w, rc: controller(w), mem: mem, buf: mem[:0]}
}

// more writes what has gathered if it is a piece's worth, and reports whether
// the client is still there.
func (o *pieces) more() bool {
	return len(o.buf) < largeRead-(1<<10) || o.flush()
}

func (o *pieces) flush() bool {
	_ = o.rc.SetWriteDeadline(time.Now().Add(replyTimeout)) // not supported in tests without a connection
	_, err := o.w.Write(o.buf)
	o.buf = o.buf[:0]
	return err == nil
}

func (o *pieces) release() { largeBuffers.Put(o.mem) }
