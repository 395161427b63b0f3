package web

import (
	"context"

	"workmanager/jobs"
	"workmanager/web/api"
)

// oneJob asks for something of one job.
type oneJob struct{ id jobs.ID }

func (q *oneJob) read(p *params) (err error) {
	q.id, err = p.id()
	return err
}

// checkpoints answers GET /v1/jobs/{id}/checkpoints.
func (s *Server) checkpoints(ctx context.Context, req oneJob) (api.Checkpoints, error) {
	v, err := s.cfg.Reader.Job(ctx, req.id, 0)
	if err != nil {
		return api.Checkpoints{}, err
	}
	ladder := v.Ladder()
	out := api.Checkpoints{Checkpoints: make([]api.Checkpoint, len(ladder))}
	for i, p := range ladder {
		out.Checkpoints[i] = api.Checkpoint{Done: p.Done, Value: p.Value.String()}
	}
	return out, nil
}
