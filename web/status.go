package web

import (
	"context"

	"workmanager/jobs"
	"workmanager/web/api"
)

// status answers GET /status and GET /v1/status: one body, whose two old keys
// are Jobs and Workers.
func (s *Server) status(ctx context.Context, _ none) (api.Status, error) {
	st, err := s.snapshot(ctx)
	return s.shown(viewerOf(ctx), st), err
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
	st.SinceStart.Refused = s.failed.all()
	if st.SinceStart.Commits.Buckets == nil {
		st.SinceStart.Commits.Buckets = []api.CommitBucket{}
	}
	if st.Fleet.Instances == nil {
		st.Fleet.Instances = []api.Instance{}
	}
	if st.Failures.Groups == nil {
		st.Failures.Groups = []api.FailureGroup{}
	}
	return st, nil
}

// healthz answers 200 as long as the node does its work, and says what stands
// still if it does not: then only a restart helps.
func (s *Server) healthz(context.Context, none) (api.Health, error) {
	if s.cfg.Alive != nil {
		if err := s.cfg.Alive(); err != nil {
			return api.Health{}, jobs.Errorf(jobs.CodeUnavailable, "this node does not work: %v", err)
		}
	}
	return api.Health{Status: "ok"}, nil
}

// readyz answers 200 while the API serves, peer or no peer, and says in a word
// each what is not as it should be: anybody may ask, so no more than that.
func (s *Server) readyz(ctx context.Context, _ none) (api.Health, error) {
	if s.stopping() {
		return api.Health{}, errStopping()
	}
	h := api.Health{Status: "ok"}
	if s.cfg.Status == nil {
		return h, nil
	}
	st, err := s.cfg.Status.Status(ctx)
	if err != nil {
		return api.Health{}, err
	}
	for _, r := range []struct {
		holds bool
		word  string
	}{
		{!st.Writable, api.ReasonReadOnly},
		{st.Peer.Session == "down" || st.Peer.Session == "connected", api.ReasonPeerDown},
		{st.Peer.Session == "catchup" || st.Peer.Session != api.SessionNone && (st.Peer.Refilling || !st.Peer.Complete), api.ReasonCatchUp},
	} {
		if r.holds {
			h.Reasons = append(h.Reasons, r.word)
		}
	}
	return h, nil
}
