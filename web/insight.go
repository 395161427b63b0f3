package web

import (
	"context"

	"workmanager/jobs"
	"workmanager/web/api"
)

// Insight tells more of the queue than a status does.
type Insight interface {
	// History returns how the queue was, of the last hour or of the last day.
	History(day bool) api.History
	// Explain says why a job is where it is.
	Explain(ctx context.Context, id jobs.ID) (api.Explanation, error)
}

// historyRequest asks for an hour or a day.
type historyRequest struct {
	Span string `json:"span" validate:"omitempty,oneof=1h 24h"`
}

func (q *historyRequest) read(p *params) error {
	q.Span, _ = p.get("span")
	return nil
}

// history answers GET /v1/history.
func (s *Server) history(_ context.Context, req historyRequest) (api.History, error) {
	if s.cfg.Insight == nil {
		return api.History{}, jobs.Errorf(jobs.CodeNotFound, "this node keeps no history")
	}
	return s.cfg.Insight.History(req.Span == "24h"), nil
}

// explainRequest names a job.
type explainRequest struct{ id jobs.ID }

func (q *explainRequest) read(p *params) (err error) {
	q.id, err = p.id()
	return err
}

// explain answers GET /v1/jobs/{id}/explain.
func (s *Server) explain(ctx context.Context, req explainRequest) (api.Explanation, error) {
	if s.cfg.Insight == nil {
		return api.Explanation{}, jobs.Errorf(jobs.CodeNotFound, "this node explains nothing")
	}
	return s.cfg.Insight.Explain(ctx, req.id)
}
