package web

import (
	"context"

	"workmanager/jobs"
	"workmanager/web/api"
)

// viewer is for whom a status is made.
type viewer struct {
	client bool   // is told totals; an operator, and everybody at an open node, all
	owner  string // whose open jobs are told
	view   string // whose jobs alone it sees, "" for everybody's
}

// viewerOf returns who looks at the status of ctx.
func viewerOf(ctx context.Context) viewer {
	c, asked := CallerOf(ctx)
	return viewer{client: asked && c.Role != Operator, owner: jobs.OwnerOf(ctx), view: jobs.ViewOf(ctx)}
}

// shown returns a status as v may see it.
func (s *Server) shown(v viewer, st api.Status) api.Status {
	if v.owner != "" && s.cfg.OpenOf != nil {
		own := s.cfg.OpenOf(v.owner)
		st.Clients.OwnOpenJobs = &own
	}
	if v.client { // whose machines they are concerns operators: see GET /v1/fleet, /v1/quarantine
		st.Fleet, st.Forecast = st.Fleet.Totals(), st.Plain
		st.WorkerList, st.Audit.Quarantined = []api.WorkerStatus{}, []api.Quarantine{}
	}
	if v.view != "" { // it names no job
		st.Audit.Alarms = []api.Alarm{}
		st.Failures.Groups = []api.FailureGroup{} // an error may tell of what is another's
	}
	return st
}
