package web

import (
	"context"

	"workmanager/web/api"
)

// status answers GET /status and GET /v1/status: one body, whose two old keys
// are Jobs and Workers.
func (s *Server) status(ctx context.Context, _ none) (api.Status, error) {
	return s.snapshot(ctx)
}

// snapshot is the status with lists that are never null.
func (s *Server) snapshot(ctx context.Context) (api.Status, error) {
	st, err := s.cfg.Status.Status(ctx)
	if err != nil {
		return api.Status{}, err
	}
	if st.WorkerList == nil {
		st.WorkerList = []api.WorkerStatus{}
	}
	if st.Fleet.Instances == nil {
		st.Fleet.Instances = []api.Instance{}
	}
	if st.Failures.Groups == nil {
		st.Failures.Groups = []api.FailureGroup{}
	}
	return st, nil
}

// healthz answers as long as the process does.
func (s *Server) healthz(context.Context, none) (api.Health, error) {
	return api.Health{Status: "ok"}, nil
}

// readyz answers 200 while the API serves, peer or no peer.
func (s *Server) readyz(context.Context, none) (api.Health, error) {
	if s.stopping() {
		return api.Health{}, errStopping()
	}
	return api.Health{Status: "ok"}, nil
}
