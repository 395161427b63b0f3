package web

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"strconv"

	"workmanager/jobs"
	"workmanager/web/api"
)

// batchLine is one line of a batch, read.
type batchLine struct {
	v1         jobs.Value
	iterations uint64
	priority   int
	keep       int // checkpoints
	key        string
}

// lineReader reads lines of a batch. The usual shape, an object of plain
// strings and whole numbers, goes through a scan of its own; everything else,
// and every error, through the same reading as a single job, so both agree.
type lineReader struct {
	max int64  // bytes of data
	out []byte // decoded data
}

func (p *lineReader) read(line []byte) (batchLine, error) {
	if l, ok := p.fast(line); ok {
		return l, nil
	}
	return p.slow(line)
}

// slow reads any line.
func (p *lineReader) slow(line []byte) (l batchLine, err error) {
	k := newSink(p.max)
	defer k.release()
	m := newMembers(k)
	defer m.scan.data.release()
	if err = m.scan.write(line); err == nil {
		err = m.scan.finish()
	}
	if err != nil {
		return l, err
	}
	var wrong problems
	job := m.finish(&wrong)
	if !m.found["iterations"] {
		wrong.add(missing("body", "iterations", iterationsRange))
	}
	if err := wrong.err(); err != nil {
		return l, err
	}
	return batchLine{v1: k.v1(), iterations: job.Iterations, priority: job.Priority, keep: job.Checkpoints, key: job.Key}, nil
}

// fast reads a line of the usual shape; ok is false for any other, right or
// wrong.
func (p *lineReader) fast(b []byte) (l batchLine, ok bool) {
	const data, iterations, key, priority, checkpoints = 1, 2, 4, 8, 16
	seen := 0
	i := blanks(b, 0)
	if i == len(b) || b[i] != '{' {
		return l, false
	}
	for i++; ; i++ {
		i = blanks(b, i)
		var member int
		switch rest := b[i:]; {
		case hasPrefix(rest, `"data"`):
			member, i = data, i+6
		case hasPrefix(rest, `"iterations"`):
			member, i = iterations, i+12
		case hasPrefix(rest, `"key"`):
			member, i = key, i+5
		case hasPrefix(rest, `"priority"`):
			member, i = priority, i+10
		case hasPrefix(rest, `"checkpoints"`):
			member, i = checkpoints, i+13
		default:
			return l, false
		}
		if i = blanks(b, i); i == len(b) || b[i] != ':' || seen&member != 0 {
			return l, false
		}
		seen |= member
		i = blanks(b, i+1)
		switch member {
		case data, key:
			if i == len(b) || b[i] != '"' {
				return l, false
			}
			i++
			n := bytes.IndexByte(b[i:], '"')
			if n <= 0 {
				return l, false
			}
			if member == data {
				if ok = p.data(&l, b[i:i+n]); !ok {
					return l, false
				}
			} else if l.key, ok = plainKey(b[i : i+n]); !ok {
				return l, false
			}
			i += n + 1
		default:
			n := i
			var v uint64
			for ; i < len(b) && i-n < 16 && b[i] >= '0' && b[i] <= '9'; i++ {
				v = v*10 + uint64(b[i]-'0')
			}
			if i == n || b[n] == '0' && i-n > 1 {
				return l, false
			}
			switch member {
			case priority:
				if v > jobs.MaxPriority {
					return l, false
				}
				l.priority = int(v)
			case checkpoints:
				if v > jobs.MaxKeep {
					return l, false
				}
				l.keep = int(v)
			default:
				if v < 1 || v > jobs.MaxIterations {
					return l, false
				}
				l.iterations = v
			}
		}
		if i = blanks(b, i); i == len(b) {
			return l, false
		}
		switch b[i] {
		case ',':
		case '}':
			return l, seen&(data|iterations) == data|iterations && blanks(b, i+1) == len(b)
		default:
			return l, false
		}
	}
}

// data decodes one data and takes its SHA-512.
func (p *lineReader) data(l *batchLine, s []byte) bool {
	n := len(s)
	if n&3 != 0 || int64(n/4*3) > p.max {
		return false
	}
	if need := n / 4 * 3; cap(p.out) < need {
		p.out = make([]byte, max(need, 1<<10))
	}
	m, err := base64.StdEncoding.Decode(p.out[:cap(p.out)], s)
	want := n / 4 * 3
	if s[n-1] == '=' {
		want--
		if s[n-2] == '=' {
			want--
		}
	}
	if err != nil || m != want {
		return false
	}
	l.v1 = sha512.Sum512(p.out[:m])
	return true
}

func plainKey(s []byte) (string, bool) {
	if len(s) > jobs.MaxKeyBytes {
		return "", false
	}
	for _, c := range s {
		if c < 0x21 || c > 0x7E || c == '\\' {
			return "", false
		}
	}
	return string(s), true
}

func hasPrefix(b []byte, s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }

// blanks returns the first place from i on that is no blank of JSON.
func blanks(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// appendReply appends what became of a line.
func appendReply(b []byte, line int64, out *jobs.Outcome) []byte {
	b = append(b, `{"line":`...)
	b = strconv.AppendInt(b, line, 10)
	b = append(b, `,"id":"`...)
	b = appendID(b, out.Job.ID)
	b = append(b, `","state":"`...)
	b = append(b, jobs.StateOf(out.Job.Rank, false)...)
	b = append(b, `","durability":"`...)
	b = append(b, out.Durability.String()...)
	if out.Existed {
		return append(b, "\",\"existed\":true}\n"...)
	}
	return append(b, "\"}\n"...)
}

// appendError appends why a line was refused.
func (s *Server) appendError(b []byte, line int64, err error) []byte {
	p, _ := problem(err)
	if _, told := errors.AsType[*jobs.Error](err); !told {
		s.log.Error("a line of a batch failed", "line", line, "err", err)
	}
	return appendLine(b, api.BatchLine{Line: line, Error: &p})
}

// appendWritten appends the answer to a line whose job stands, but not as
// durable as was asked.
func (s *Server) appendWritten(b []byte, line int64, out *jobs.Outcome) []byte {
	p, _ := problem(out.Err)
	return appendLine(b, api.BatchLine{
		Line: line, ID: out.Job.ID.String(), State: string(jobs.StateOf(out.Job.Rank, false)),
		Durability: out.Durability.String(), Existed: out.Existed, Error: &p,
	})
}

func appendLine(b []byte, l api.BatchLine) []byte {
	e, err := encode(l)
	if err != nil {
		panic("web: a problem cannot be encoded: " + err.Error())
	}
	return append(b, e...)
}
