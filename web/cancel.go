package web

import (
	"context"
	"net/http"

	"workmanager/jobs"
	"workmanager/web/api"
)

// cancelRequest withdraws one job, and with purge erases it.
type cancelRequest struct {
	id    jobs.ID
	purge bool
	ack   jobs.Ack
}

func (q *cancelRequest) read(p *params) (err error) {
	q.purge = p.flag("purge")
	q.ack = p.ack()
	q.id, err = p.id()
	return err
}

// cancelReply is the job as it is after, with its durability in the header.
type cancelReply struct {
	api.Job
	d jobs.Durability
}

func (c *cancelReply) setHeader(h http.Header) { setDurability(h, c.d) }

// cancelJob answers DELETE /v1/jobs/{id}. A job that has ended stays as it is:
// the answer shows that, and is no error.
func (s *Server) cancelJob(ctx context.Context, req cancelRequest) (cancelReply, error) {
	if s.stopping() {
		return cancelReply{}, errStopping()
	}
	out, err := s.cfg.Queue.Cancel(ctx, []jobs.ID{req.id}, req.purge, req.ack)
	if err == nil {
		err = out[0].Err
	}
	if c, known := CallerOf(ctx); known && c.Role == Operator { // of clients there are too many
		what := "cancel"
		if req.purge {
			what = "purge"
		}
		s.trail.action(ctx, what, req.id.String(), err)
	}
	if err != nil {
		return cancelReply{}, err
	}
	return cancelReply{Job: jobOf(viewOf(out[0].Job, out[0].Durability)), d: out[0].Durability}, nil
}
