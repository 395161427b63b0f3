package web

import (
	"context"

	"workmanager/jobs"
	"workmanager/web/api"
)

// fleet answers GET /v1/fleet.
func (s *Server) fleet(ctx context.Context, _ none) (api.FleetStatus, error) {
	if s.cfg.Fleet == nil {
		st, err := s.snapshot(ctx)
		return st.Fleet, err
	}
	f, err := s.cfg.Fleet.Fleet(ctx)
	if f.Instances == nil {
		f.Instances = []api.Instance{}
	}
	return f, err
}

// fleetOrder is an operator's order.
type fleetOrder struct{ do, instance string }

const maxInstance = 128 // bytes of its ID

func (q *fleetOrder) read(p *params) error {
	var given bool
	if q.do, given = p.get("do"); !given {
		p.wrong.add(missing("query", "do", "drain, terminate, pause or resume"))
		return nil
	}
	q.instance, given = p.get("instance")
	switch q.do {
	case api.FleetDrain, api.FleetTerminate:
		if q.instance == "" {
			p.wrong.add(missing("query", "instance", "the ID of an instance"))
		}
	case api.FleetPause, api.FleetResume:
		if given {
			p.wrong.add(jobs.Invalid("query", "instance", "value_error.extra", "%s is for the whole fleet", q.do))
		}
	default:
		p.wrong.add(jobs.Invalid("query", "do", "value_error.const", "value is not drain, terminate, pause or resume: %q", clip(q.do)))
	}
	if len(q.instance) > maxInstance {
		p.wrong.add(jobs.Invalid("query", "instance", "value_error.any_str.max_length", "is longer than %d bytes", maxInstance))
	}
	return nil
}

// orderFleet answers POST /v1/fleet, with the fleet as it is then.
func (s *Server) orderFleet(ctx context.Context, req fleetOrder) (api.FleetStatus, error) {
	if s.cfg.Fleet == nil {
		return api.FleetStatus{}, jobs.Errorf(jobs.CodeNotFound, "this node has no fleet")
	}
	err := s.cfg.Fleet.Order(ctx, req.do, req.instance)
	s.trail.action(ctx, req.do, req.instance, err)
	if err != nil {
		return api.FleetStatus{}, err
	}
	return s.fleet(ctx, none{})
}
