package web

import (
	"context"

	"workmanager/jobs"
	"workmanager/web/api"
)

// quarantine answers GET /v1/quarantine.
func (s *Server) quarantine(ctx context.Context, _ none) (api.QuarantineList, error) {
	if s.cfg.Quarantine == nil {
		return api.QuarantineList{Quarantines: []api.Quarantine{}, Replicated: true}, nil
	}
	return s.cfg.Quarantine.QuarantineList(ctx)
}

// quarantineOrder is an operator's order.
type quarantineOrder struct{ do, worker, reason string }

func (q *quarantineOrder) read(p *params) error {
	var given bool
	switch q.do, given = p.get("do"); {
	case !given:
		p.wrong.add(missing("query", "do", "add or lift"))
	case q.do != api.QuarantineAdd && q.do != api.QuarantineLift:
		p.wrong.add(jobs.Invalid("query", "do", "value_error.const", "value is not add or lift: %q", clip(q.do)))
	}
	if q.worker, given = p.get("worker"); !given {
		p.wrong.add(missing("query", "worker", "the name of a worker"))
	} else if err := jobs.CheckWorker("query", q.worker); err != nil {
		p.wrong.add(err)
	}
	q.reason, _ = p.get("reason")
	p.wrong.add(jobs.CheckReason("query", q.reason))
	return nil
}

// orderQuarantine answers POST /v1/quarantine, with the list as it is then.
func (s *Server) orderQuarantine(ctx context.Context, req quarantineOrder) (api.QuarantineList, error) {
	if s.cfg.Quarantine == nil {
		return api.QuarantineList{}, jobs.Errorf(jobs.CodeNotFound, "this node keeps no quarantines")
	}
	by := ""
	if c, known := CallerOf(ctx); known {
		by = c.Name
	}
	what := "quarantine"
	if req.do == api.QuarantineLift {
		what = "lift"
	}
	err := s.cfg.Quarantine.OrderQuarantine(ctx, req.do, req.worker, by, req.reason)
	s.trail.action(ctx, what, req.worker, err)
	if err != nil {
		return api.QuarantineList{}, err
	}
	return s.quarantine(ctx, none{})
}
