package web

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"workmanager/jobs"
	"workmanager/web/api"
)

// ReadForm reads a body that comes in the given pieces through the decoder of
// PUT /enqueue, and returns the v1 of its data. It lets tests and fuzzing
// choose where a body is cut.
func ReadForm(contentType string, pieces [][]byte, max int64) (v1 jobs.Value, err error) {
	s := New(Config{Limits: jobs.Limits{DataBytes: max}, Log: slog.New(slog.DiscardHandler)})
	r := httptest.NewRequest(http.MethodPut, "/enqueue?iterations=1", &pieceReader{pieces})
	r.ContentLength = -1
	r.Header.Set("Content-Type", contentType)
	sub, err := s.dataOnly(httptest.NewRecorder(), r, "")
	return sub.v1, err
}

// pieceReader returns one piece a Read, or less.
type pieceReader struct{ pieces [][]byte }

func (p *pieceReader) Read(b []byte) (int, error) {
	for len(p.pieces) > 0 && len(p.pieces[0]) == 0 {
		p.pieces = p.pieces[1:]
	}
	if len(p.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.pieces[0])
	p.pieces[0] = p.pieces[0][n:]
	return n, nil
}

// Cut cuts b after each of the lengths, and the rest.
func Cut(b []byte, lengths []byte) [][]byte {
	var out [][]byte
	for _, n := range lengths {
		m := min(int(n), len(b))
		out = append(out, bytes.Clone(b[:m]))
		b = b[m:]
	}
	return append(out, bytes.Clone(b))
}

// Line is a batch line, read.
type Line = batchLine

// V1, Iterations, Priority and Key return what was read.
func (l batchLine) V1() jobs.Value     { return l.v1 }
func (l batchLine) Iterations() uint64 { return l.iterations }
func (l batchLine) Priority() int      { return l.priority }
func (l batchLine) Key() string        { return l.key }

// FastLine reads a line of the usual shape, SlowLine any line.
func FastLine(b []byte, max int64) (Line, bool)  { p := lineReader{max: max}; return p.fast(b) }
func SlowLine(b []byte, max int64) (Line, error) { p := lineReader{max: max}; return p.slow(b) }

// ScanObject reads one JSON object in pieces; it returns the raw text of the
// members named in want, by their names.
func ScanObject(pieces [][]byte, want ...string) (members map[string]string, data DataState, err error) {
	k := newSink(1 << 30)
	defer k.release()
	members = map[string]string{}
	sc := jsonScan{
		data: b64{k: k},
		want: func(name []byte) bool {
			for _, w := range want {
				if w == string(name) {
					return true
				}
			}
			return false
		},
		got: func(name string, raw []byte) { members[name] = string(raw) },
	}
	defer sc.data.release()
	for _, p := range pieces {
		if err = sc.write(p); err != nil {
			return nil, DataState{}, err
		}
	}
	if err = sc.finish(); err != nil {
		return nil, DataState{}, err
	}
	return members, DataState{Seen: k.seen, Bad: k.bad != nil, V1: k.v1()}, nil
}

// DataState is what a scan found under data.
type DataState struct {
	Seen, Bad bool
	V1        jobs.Value
}

// Whole reads an integer as a query spells it.
func Whole(s string) (int64, bool) { return whole(s) }

// Bounds that tests must know.
const (
	SmallBody     = smallBody
	ReplyTimeout  = replyTimeout
	StreamTimeout = streamTimeout
	BatchIdle     = batchIdle
	MaxDepth      = maxDepth
	MaxWatched    = maxWatched
	SpoolMemory   = spoolMemory
)

// QuickReports reads the body of POST /worker/report if it is what our worker
// sends, SlowReports any.
func QuickReports(text []byte) (api.Worker, []jobs.Report, bool) {
	req, ok := quickReports(text)
	return req.Worker, req.batch, ok
}

func SlowReports(text []byte) (api.Worker, []jobs.Report, error) {
	var req api.ReportRequest
	if err := unmarshal(text, &req); err != nil {
		return req.Worker, nil, err
	}
	if err := check("body", &req); err != nil && len(req.Reports) > api.MaxReports { // the rest of it is the worker's
		return req.Worker, nil, err
	}
	batch, err := reportsOf(req.Reports)
	return req.Worker, batch, err
}

// LineReader returns a reader that keeps its memory, as a batch's does.
func LineReader() func(b []byte) bool {
	p := lineReader{max: 1 << 20}
	return func(b []byte) bool { _, ok := p.fast(b); return ok }
}

// MaxPrograms is how many programs are sent at once, and Sending how many are.
const MaxPrograms = maxPrograms

// Sending returns how many programs are being sent.
func (s *Server) Sending() int64 { return s.sending.Load() }
