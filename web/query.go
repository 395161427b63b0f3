package web

import (
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// params reads the parameters of one request and collects what is wrong with
// them, so that a caller hears of all of it at once. Names are case-sensitive,
// and of a repeated parameter the last counts.
type params struct {
	r      *http.Request
	limits *jobs.Limits
	wrong  problems
}

// get returns the last value of a query parameter. It does not use
// url.ParseQuery, which drops what it cannot read and costs a map.
func (p *params) get(name string) (string, bool) { return queryLast(p.r.URL.RawQuery, name) }

func queryLast(query, name string) (value string, found bool) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		k, v, _ := strings.Cut(pair, "=")
		if k != name && (!strings.ContainsAny(k, "%+") || unescape(k) != name) {
			continue
		}
		value, found = v, true
	}
	return unescape(value), found
}

// unescape decodes a part of a query; one that cannot be decoded stays as it
// is, and fails where its value is judged.
func unescape(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}

// iterationsRange is what a count must be.
const iterationsRange = "a whole number from 1 to 9007199254740992 (2^53)"

// missing is what a required parameter's absence is called.
func missing(in, name, hint string) error {
	if hint != "" {
		hint = ": " + hint
	}
	return jobs.Invalid(in, name, "value_error.missing", "field required%s", hint)
}

// iterations reads the count from the query.
func (p *params) iterations(hint string) uint64 {
	v, ok := p.get("iterations")
	if !ok {
		p.wrong.add(missing("query", "iterations", iterationsRange+hint))
		return 0
	}
	n, err := parseIterations("query", v)
	p.wrong.add(err)
	return n
}

// parseIterations reads a count of iterations as it is spelt in a query.
func parseIterations(in, v string) (uint64, error) {
	n, ok := whole(v)
	if !ok {
		return 0, jobs.Invalid(in, "iterations", "type_error.integer",
			"value is not a valid integer: %q; give a whole number from 1 to %d (2^53)", clip(v), uint64(jobs.MaxIterations))
	}
	if n < 1 || n > jobs.MaxIterations {
		return 0, jobs.Invalid(in, "iterations", "value_error.number",
			"%s is not from 1 to %d (2^53)", clip(strings.TrimSpace(v)), uint64(jobs.MaxIterations))
	}
	return uint64(n), nil
}

// checkIterations returns an error that says where the count stood if it is out
// of range.
func checkIterations(in string, n uint64) error {
	if n >= 1 && n <= jobs.MaxIterations {
		return nil
	}
	return jobs.Invalid(in, "iterations", "value_error.number", "%d is not from 1 to %d (2^53)", n, uint64(jobs.MaxIterations))
}

// whole reads an integer as the old service did: blanks around it, a sign,
// leading zeros and single underscores between digits do no harm. One beyond
// 64 bits is the nearest that fits.
func whole(s string) (n int64, ok bool) {
	s = strings.TrimSpace(s)
	neg := false
	if s != "" && (s[0] == '+' || s[0] == '-') {
		neg, s = s[0] == '-', s[1:]
	}
	if s == "" {
		return 0, false
	}
	digit := false // whether the last character was one
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			digit = true
			if n > (math.MaxInt64-9)/10 {
				n = math.MaxInt64 / 10 * 10 // saturated: more digits change nothing
				continue
			}
			n = n*10 + int64(c-'0')
		case c == '_' && digit:
			digit = false
		default:
			return 0, false
		}
	}
	if neg {
		n = -n
	}
	return n, digit
}

// number reads an optional integer from min to max.
func (p *params) number(name string, def, min, max int) int {
	v, ok := p.get(name)
	if !ok {
		return def
	}
	n, ok := whole(v)
	switch {
	case !ok:
		p.wrong.add(jobs.Invalid("query", name, "type_error.integer", "value is not a valid integer: %q; give a whole number from %d to %d", clip(v), min, max))
		return def
	case n < int64(min) || n > int64(max):
		p.wrong.add(jobs.Invalid("query", name, "value_error.number", "%s is not from %d to %d", clip(strings.TrimSpace(v)), min, max))
		return def
	}
	return int(n)
}

// flag reads an optional true, false, 1 or 0.
func (p *params) flag(name string) bool {
	v, ok := p.get(name)
	if !ok {
		return false
	}
	switch v {
	case "true", "1":
		return true
	case "false", "0":
		return false
	}
	p.wrong.add(jobs.Invalid("query", name, "type_error.bool", "value is not true, false, 1 or 0: %q", clip(v)))
	return false
}

// wait reads how long a long poll may last: a Go duration or seconds. A longer
// one than jobs.MaxWait is cut to it.
func (p *params) wait() time.Duration {
	v, ok := p.get("wait")
	if !ok {
		return 0
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		var secs float64
		if secs, err = strconv.ParseFloat(v, 64); err == nil && !math.IsNaN(secs) {
			d = time.Duration(min(max(secs, -1), jobs.MaxWait.Seconds()) * float64(time.Second))
		} else {
			p.wrong.add(jobs.Invalid("query", "wait", "type_error.duration", "value is not a duration: %q; give seconds, or a number with a unit such as 30s or 500ms; the longest is %v", clip(v), jobs.MaxWait))
			return 0
		}
	}
	if d < 0 {
		p.wrong.add(jobs.Invalid("query", "wait", "value_error.duration", "%q is negative; the range is 0s to %v", clip(v), jobs.MaxWait))
		return 0
	}
	return min(d, jobs.MaxWait)
}

// ack reads how durable a write must be before it is answered.
func (p *params) ack() jobs.Ack {
	v, ok := p.get("ack")
	if !ok {
		return jobs.AckDefault
	}
	switch a := jobs.Ack(v); a {
	case jobs.AckBoth, jobs.AckLocal:
		return a
	}
	p.wrong.add(jobs.Invalid("query", "ack", "value_error.const", "value is not local or both: %q", clip(v)))
	return jobs.AckDefault
}

// key reads the Idempotency-Key, "" where there is none.
func (p *params) key() string {
	vs := p.r.Header[api.HeaderIdempotencyKey]
	if len(vs) == 0 {
		return ""
	}
	if len(vs) > 1 {
		p.wrong.add(jobs.Invalid("header", api.HeaderIdempotencyKey, "value_error.repeated", "is given %d times", len(vs)))
		return ""
	}
	if err := checkKey("header", api.HeaderIdempotencyKey, vs[0]); err != nil {
		p.wrong.add(err)
		return ""
	}
	return vs[0]
}

// checkKey returns an error if key is not 1 to jobs.MaxKeyBytes visible ASCII
// characters.
func checkKey(in, name, key string) error {
	if n := len(key); n < 1 || n > jobs.MaxKeyBytes {
		return jobs.Invalid(in, name, "value_error.length", "has %d characters; from 1 to %d are allowed", n, jobs.MaxKeyBytes)
	}
	for i := 0; i < len(key); i++ {
		if key[i] < 0x21 || key[i] > 0x7E {
			return jobs.Invalid(in, name, "value_error.str", "character %d is not visible ASCII", i+1)
		}
	}
	return nil
}

// id reads the job's ID from the path. One that cannot exist is not found.
func (p *params) id() (jobs.ID, error) {
	v := p.r.PathValue("id")
	id, err := jobs.ParseID(v)
	if err != nil {
		return id, jobs.Errorf(jobs.CodeNotFound, "%q is no job ID; one looks like 0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801", clip(v))
	}
	return id, nil
}
