package web

import (
	"context"
	"encoding/json"
	"time"

	"workmanager/jobs"
)

// defaultResults is how many results a page has if the client does not say.
const defaultResults = 1000

// resultsRequest asks for the results behind a cursor.
type resultsRequest struct {
	after string
	limit int
	wait  time.Duration
}

func (q *resultsRequest) read(p *params) error {
	q.after, _ = p.get("after")
	q.limit = p.number("limit", min(defaultResults, p.limits.ResultsJobs), 1, p.limits.ResultsJobs)
	q.wait = p.wait()
	return nil
}

// resultsReply is an api.ResultList that encodes itself: pages are long.
type resultsReply struct{ page jobs.Results }

func (r *resultsReply) appendJSON(b []byte) []byte {
	if b == nil {
		b = make([]byte, 0, 128+260*len(r.page.Results))
	}
	b = append(b, `{"results":[`...)
	for i := range r.page.Results {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendResult(b, &r.page.Results[i])
	}
	cursor, _ := json.Marshal(r.page.Cursor) // a string never fails
	b = append(append(b, `],"cursor":`...), cursor...)
	if r.page.More {
		b = append(b, `,"more":true`...)
	} else {
		b = append(b, `,"more":false`...)
	}
	if r.page.Restarted {
		b = append(b, `,"restarted":true`...)
	}
	return append(b, "}\n"...)
}

// results answers GET /v1/results, with a wait when there is a first one or
// the wait is over. A node that stops answers at once.
func (s *Server) results(ctx context.Context, req resultsRequest) (resultsReply, error) {
	q := jobs.ResultsQuery{After: req.after, Limit: req.limit, Wait: req.wait}
	if q.Wait > 0 && !s.stopping() {
		release, err := s.hold(ctx, placeWait, 1)
		if err != nil {
			return resultsReply{}, err
		}
		defer release()
		waiting, cancel := s.untilStop(ctx)
		defer cancel()
		page, err := s.cfg.Reader.Results(waiting, q)
		if err == nil || !s.stopping() {
			return resultsReply{page}, err
		}
	}
	q.Wait = 0
	page, err := s.cfg.Reader.Results(ctx, q)
	return resultsReply{page}, err
}
