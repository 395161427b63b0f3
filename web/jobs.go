package web

import (
	"context"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// defaultPage is how many jobs a page has if the client does not say.
const defaultPage = 100

// jobRequest asks for one job.
type jobRequest struct {
	id         jobs.ID
	wait       time.Duration
	replicated bool // wait for the copy, not for the end
}

// waitReplicated is the wait that ends when both nodes have the job.
const waitReplicated = "replicated"

func (q *jobRequest) read(p *params) (err error) {
	if v, _ := p.get("wait"); v == waitReplicated {
		q.replicated, q.wait = true, jobs.MaxWait
	} else {
		q.wait = p.wait()
	}
	q.id, err = p.id()
	return err
}

// getJob answers GET /v1/jobs/{id}, with a wait when the job has ended, or is on
// both disks, or the wait is over. A node that stops answers at once, with the job as it is.
func (s *Server) getJob(ctx context.Context, req jobRequest) (api.Job, error) {
	if req.wait > 0 && !s.stopping() {
		release, err := s.hold(ctx, placeWait, 1)
		if err != nil {
			return api.Job{}, err
		}
		defer release()
		waiting, cancel := s.untilStop(ctx)
		defer cancel()
		ask := s.cfg.Reader.Job
		if req.replicated {
			ask = s.cfg.Reader.JobReplicated
		}
		v, err := ask(waiting, req.id, req.wait)
		if err == nil || !s.stopping() {
			return jobOf(v), err
		}
	}
	v, err := s.cfg.Reader.Job(ctx, req.id, 0)
	if err != nil {
		return api.Job{}, err
	}
	return jobOf(v), nil
}

// listRequest asks for a page of jobs.
type listRequest struct {
	State string `json:"state" validate:"omitempty,oneof=queued leased completed failed cancelled"`
	limit int
	after string
}

func (q *listRequest) read(p *params) error {
	q.State, _ = p.get("state")
	q.limit = p.number("limit", min(defaultPage, p.limits.ListJobs), 1, p.limits.ListJobs)
	q.after, _ = p.get("after")
	return nil
}

// listJobs answers GET /v1/jobs.
func (s *Server) listJobs(ctx context.Context, req listRequest) (api.JobList, error) {
	page, err := s.cfg.Reader.Jobs(ctx, jobs.ListQuery{State: jobs.State(req.State), Limit: req.limit, After: req.after})
	if err != nil {
		return api.JobList{}, err
	}
	list := api.JobList{Jobs: make([]api.Job, len(page.Jobs)), Cursor: page.Cursor, More: page.More}
	for i, v := range page.Jobs {
		list.Jobs[i] = jobOf(v)
	}
	return list, nil
}
