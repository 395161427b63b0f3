package web

import (
	"errors"
	"net/http"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// submission is one job asked for, and how durable it must be.
type submission struct {
	iterations uint64
	priority   int
	keep       int // checkpoints
	key        string
	ack        jobs.Ack
	v1         jobs.Value
}

// readData reads r's body to its end, whatever its form, and gives its data to
// k. idle is how long the body may stand still. The error ends the request; what
// is wrong with the data k.check tells.
func (s *Server) readData(w http.ResponseWriter, r *http.Request, k *sink, idle time.Duration) error {
	f, boundary, err := formOf(contentType(r))
	if err != nil {
		return err
	}
	b, err := s.newBody(w, r, f.bodyMax(k.max))
	if err != nil {
		return err
	}
	defer b.close()
	b.idle = idle
	if f == formJSON {
		return s.readJSON(b, r, &jsonScan{data: b64{k: k}})
	}
	buf, err := s.buffer(r)
	if err != nil {
		return err
	}
	defer buf.release()
	switch f {
	case formMultipart:
		return readMultipart(b, boundary, k, buf.bytes())
	case formURL:
		return readURL(b, k, buf.bytes())
	}
	return readRaw(b, k, buf.bytes())
}

// readJSON reads b through sc.
func (s *Server) readJSON(b *body, r *http.Request, sc *jsonScan) error {
	buf, err := s.buffer(r)
	if err != nil {
		return err
	}
	defer buf.release()
	defer sc.data.release()
	return pump(b, buf.bytes(), 0, sc)
}

// dataOnly reads what PUT /enqueue takes: the parameters from the query and the
// header, the data from the body in any of its forms. A wrong parameter is
// answered without waiting for a body, unless there is none or it is small:
// then what is wrong with the data is told too.
func (s *Server) dataOnly(w http.ResponseWriter, r *http.Request, hint string) (sub submission, err error) {
	p := params{r: r, limits: &s.cfg.Limits}
	sub.iterations = p.iterations(hint)
	sub.priority = p.number("priority", 0, 0, jobs.MaxPriority)
	sub.keep = p.number("checkpoints", 0, 0, jobs.MaxKeep)
	sub.ack = p.ack()
	sub.key = p.key()
	wrong := len(p.wrong.list) > 0
	if wrong && (r.ContentLength < 0 || r.ContentLength > smallBody) {
		return sub, p.wrong.err()
	}
	k := newSink(s.cfg.Limits.DataBytes)
	defer k.release()
	idle := BodyIdle
	if wrong {
		idle = drainTimeout
	}
	err = s.readData(w, r, k, idle)
	if e, ok := errors.AsType[*syntaxError](err); ok {
		k.seen, k.bad = true, jobs.Invalid("body", "data", "value_error.json", "%s", e.e.Msg)
		err = nil
	}
	if err == nil {
		err = k.check()
	}
	if err != nil && !p.wrong.add(err) && !wrong {
		return sub, err
	}
	if err := p.wrong.err(); err != nil {
		return sub, err
	}
	sub.v1 = k.v1()
	return sub, nil
}

// enqueueOne commits one job and returns what became of it.
func (s *Server) enqueueOne(r *http.Request, sub submission) (jobs.Outcome, error) {
	if s.stopping() {
		return jobs.Outcome{}, errStopping()
	}
	if (r.ContentLength < 0 || r.ContentLength > smallBody) && !s.admitted(r) { // it may have been long in coming
		return jobs.Outcome{}, errRevoked()
	}
	id, err := s.cfg.NewID(r.Context(), sub.key)
	if err != nil {
		return jobs.Outcome{}, err
	}
	j, err := jobs.New(id, sub.v1, sub.iterations, sub.priority)
	if err == nil {
		j, err = j.Keeping(sub.keep)
	}
	if err != nil {
		return jobs.Outcome{}, err
	}
	j.Owner = jobs.OwnerOf(r.Context())
	out, err := s.cfg.Queue.Enqueue(r.Context(), []jobs.Job{j}, sub.ack)
	if err != nil {
		return jobs.Outcome{}, err
	}
	return out[0], out[0].Err
}

// setDurability tells how durable a write is, and why it is not more.
func setDurability(h http.Header, d jobs.Durability) {
	if d.Both {
		h[api.HeaderDurability] = headerBoth
		return
	}
	h[api.HeaderDurability] = headerLocal
	if d.Reason != "" {
		h[api.HeaderDurabilityReason] = []string{d.Reason}
	}
}
