package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"workmanager/jobs"
	"workmanager/web/api"
)

// submit answers POST /v1/jobs: one job, as JSON or in any form that
// PUT /enqueue takes.
func (s *Server) submit(w http.ResponseWriter, r *http.Request) error {
	if s.stopping() {
		return errStopping()
	}
	if err := checkEncoding(r); err != nil {
		return err
	}
	f, _, err := formOf(contentType(r))
	if err != nil {
		return err
	}
	var sub submission
	if f == formJSON {
		sub, err = s.jsonJob(w, r)
	} else {
		sub, err = s.dataOnly(w, r, "give it in the query, or send the whole job as JSON with Content-Type: application/json")
	}
	if err != nil {
		return err
	}
	out, err := s.enqueueOne(r, sub)
	if err != nil {
		return err
	}
	body, err := encode(jobOf(viewOf(out.Job, out.Durability)))
	if err != nil {
		return err
	}
	h := w.Header()
	h["Content-Type"] = headerJSON
	h["Cache-Control"] = headerNoStore
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Location", "/v1/jobs/"+out.Job.ID.String())
	setDurability(h, out.Durability)
	status := http.StatusCreated
	if out.Existed {
		status = http.StatusOK
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone is no error
	return nil
}

// jsonJob reads an api.SubmitJob, however large its data is, with the other
// members before or behind it. What the body does not say, the query
// and the header may.
func (s *Server) jsonJob(w http.ResponseWriter, r *http.Request) (sub submission, err error) {
	p := params{r: r, limits: &s.cfg.Limits}
	sub.ack = p.ack()
	sub.key = p.key()
	k := newSink(s.cfg.Limits.DataBytes)
	defer k.release()
	b, err := s.newBody(w, r, formJSON.bodyMax(k.max))
	if err != nil {
		return sub, err
	}
	defer b.close()
	m := newMembers(k)
	if err := s.readJSON(b, r, &m.scan); err != nil {
		return sub, err
	}
	job := m.finish(&p.wrong)
	sub.iterations, sub.priority, sub.keep = job.Iterations, job.Priority, job.Checkpoints
	if !m.found["iterations"] {
		sub.iterations = p.iterations("give it in the body or in the query")
	}
	if !m.found["priority"] {
		sub.priority = p.number("priority", 0, 0, jobs.MaxPriority)
	}
	if !m.found["checkpoints"] {
		sub.keep = p.number("checkpoints", 0, 0, jobs.MaxKeep)
	}
	if job.Key != "" && sub.key != "" && job.Key != sub.key {
		p.wrong.add(jobs.Invalid("body", "key", "value_error.const", "differs from the header Idempotency-Key"))
	}
	if job.Key != "" {
		sub.key = job.Key
	}
	if err := p.wrong.err(); err != nil {
		return sub, err
	}
	sub.v1 = k.v1()
	return sub, nil
}

// members gathers a submitted job from a scan.
type members struct {
	scan  jsonScan
	job   api.SubmitJob
	found map[string]bool // members with a value that is not null
	wrong map[string]error
	extra []string // names that no job has
}

func newMembers(k *sink) *members {
	m := &members{found: map[string]bool{}, wrong: map[string]error{}}
	m.scan = jsonScan{data: b64{k: k}, want: m.want, got: m.got}
	return m
}

func (m *members) want(name []byte) bool {
	switch string(name) {
	case "iterations", "key", "priority", "checkpoints":
		return true
	}
	if len(m.extra) < 8 {
		m.extra = append(m.extra, clip(string(name)))
	}
	return false
}

// got decodes one member; a repeated one counts as it stood last.
func (m *members) got(name string, raw []byte) {
	delete(m.wrong, name)
	m.found[name] = string(raw) != "null"
	var err error
	switch name {
	case "iterations":
		m.job.Iterations = 0
		err = decodeField("body", name, raw, &m.job.Iterations)
		if lit, ok := integerBeyond(raw); ok && err != nil {
			_, err = parseIterations("body", lit)
		}
	case "key":
		m.job.Key = ""
		if err = decodeField("body", name, raw, &m.job.Key); err == nil && m.job.Key != "" {
			err = checkKey("body", name, m.job.Key)
		}
	case "priority":
		m.job.Priority = 0
		err = decodeField("body", name, raw, &m.job.Priority)
	case "checkpoints":
		m.job.Checkpoints = 0
		err = decodeField("body", name, raw, &m.job.Checkpoints)
	}
	if err != nil {
		m.wrong[name] = err
	}
}

// finish returns the job and adds all that is wrong with it to p.
func (m *members) finish(p *problems) api.SubmitJob {
	for _, name := range m.extra {
		p.add(jobs.Invalid("body", name, "value_error.extra", "no such field; a job has data, iterations, key, priority and checkpoints"))
	}
	if err := m.scan.data.k.check(); err != nil {
		p.add(err)
	}
	for _, name := range []string{"iterations", "key", "priority", "checkpoints"} {
		if err := m.wrong[name]; err != nil {
			p.add(err)
		}
	}
	if m.found["iterations"] && m.wrong["iterations"] == nil {
		p.add(checkIterations("body", m.job.Iterations))
	}
	if e, ok := errors.AsType[*jobs.Error](check("body", &m.job)); ok {
		for _, x := range e.Problems {
			if name := x.Loc[1]; (name == "priority" || name == "checkpoints") && m.wrong[name] == nil {
				p.list = append(p.list, x)
			}
		}
	}
	return m.job
}

// integerBeyond returns raw if it is a JSON integer, perhaps one that no
// uint64 holds: then its range is wrong, not its type.
func integerBeyond(raw []byte) (string, bool) {
	var n json.Number
	if json.Unmarshal(raw, &n) != nil || len(raw) == 0 || raw[0] == '"' {
		return "", false
	}
	for i, c := range []byte(n) {
		if (c < '0' || c > '9') && (c != '-' || i > 0) {
			return "", false
		}
	}
	return string(n), n != ""
}
