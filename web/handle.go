package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"workmanager/jobs"
	"workmanager/web/wire"
)

// handler answers one request itself, or returns the error to answer.
type handler func(w http.ResponseWriter, r *http.Request) error

// serve turns a handler that writes its own answer, because it streams or is
// hot, into an http.Handler.
func (s *Server) serve(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			s.fail(w, r, err)
		}
	})
}

// handle turns a function from request to response into an http.Handler: it
// reads the request from the parameters, checks its shape, calls f, and writes
// the response as JSON. A response may also set headers, choose its status and
// encode itself.
func handle[Req, Resp any, P interface {
	*Req
	read(p *params) error
}](s *Server, f func(context.Context, Req) (Resp, error)) http.Handler {
	return s.serve(func(w http.ResponseWriter, r *http.Request) error {
		p := params{r: r, limits: &s.cfg.Limits}
		var req Req
		if err := P(&req).read(&p); err != nil {
			return err
		}
		if err := check("query", &req); err != nil {
			p.wrong.add(err)
		}
		if err := p.wrong.err(); err != nil {
			return err
		}
		resp, err := call(s, w, r, f, req)
		if err != nil {
			return err
		}
		return s.reply(w, r, &resp)
	})
}

// handleJSON is handle for a request that is one JSON object of at most max
// bytes, in the body.
func handleJSON[Req, Resp any](s *Server, max int64, f func(context.Context, Req) (Resp, error)) http.Handler {
	return s.serve(func(w http.ResponseWriter, r *http.Request) error {
		var req Req
		if err := s.decode(w, r, max, &req); err != nil {
			return err
		}
		if err := check("body", &req); err != nil {
			return err
		}
		resp, err := call(s, w, r, f, req)
		if err != nil {
			return err
		}
		return s.reply(w, r, &resp)
	})
}

// decode reads a body of one JSON object, and nothing else, into v.
func (s *Server) decode(w http.ResponseWriter, r *http.Request, max int64, v any) error {
	text, err := s.text(w, r, max)
	if err != nil {
		return err
	}
	return unmarshal(text, v)
}

// text reads a body that says it is JSON.
func (s *Server) text(w http.ResponseWriter, r *http.Request, max int64) ([]byte, error) {
	if err := checkEncoding(r); err != nil {
		return nil, err
	}
	if f, _, err := formOf(contentType(r)); err != nil {
		return nil, err
	} else if f != formJSON {
		return nil, jobs.Errorf(jobs.CodeUnsupported, "the body must be JSON, with Content-Type: application/json")
	}
	b, err := s.newBody(w, r, max)
	if err != nil {
		return nil, err
	}
	defer b.close()
	return wire.ReadAll(b, b.want)
}

// unmarshal reads text that is one JSON object, and nothing else, into v.
func unmarshal(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return badJSON(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return jobs.Errorf(jobs.CodeMalformed, "this is no JSON object: something follows it")
	}
	return nil
}

// badJSON says what is wrong with a body in words that name no Go type.
func badJSON(err error) error {
	if te, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		name := te.Field
		if name == "" {
			return jobs.Errorf(jobs.CodeMalformed, "this is no JSON object but a JSON %s", te.Value)
		}
		kind, want := wanted(te.Type)
		if kind == "type_error.integer" {
			want = "a whole number of the range"
		}
		return jobs.Invalid("body", name, kind, "a JSON %s is not %s", clip(te.Value), want)
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok { // the one error without a type
		return jobs.Invalid("body", clip(strings.Trim(name, `"`)), "value_error.extra", "no such field")
	}
	return jobs.Errorf(jobs.CodeMalformed, "this is no JSON object: %s", clip(strings.TrimPrefix(err.Error(), "json: ")))
}

// none is a request without parameters.
type none struct{}

func (*none) read(*params) error { return nil }

// What a response may do beyond being encoded.
type (
	headerSetter interface{ setHeader(http.Header) }
	statuser     interface{ status() int }
	appender     interface{ appendJSON([]byte) []byte }
)

// reply writes a response.
func (s *Server) reply(w http.ResponseWriter, r *http.Request, resp any) error {
	var body []byte
	if a, ok := resp.(appender); ok {
		body = a.appendJSON(nil)
	} else {
		var err error
		if body, err = encode(resp); err != nil {
			return err
		}
	}
	h := w.Header()
	h["Content-Type"] = headerJSON
	h["Cache-Control"] = headerNoStore
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if hs, ok := resp.(headerSetter); ok {
		hs.setHeader(h)
	}
	status := http.StatusOK
	if st, ok := resp.(statuser); ok {
		status = st.status()
	}
	shorten(w, r)
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone is no error
	return nil
}

// Header values made once. net/http reads them and changes nothing.
var (
	headerJSON     = []string{"application/json"}
	headerNoStore  = []string{"no-store"}
	headerBoth     = []string{jobs.Durability{Both: true}.String()}
	headerLocal    = []string{jobs.Durability{}.String()}
	headerNDJSON   = []string{"application/x-ndjson"}
	headerEvents   = []string{"text/event-stream"}
	headerNoSniff  = []string{"nosniff"}
	headerNoBuffer = []string{"no"}
)
