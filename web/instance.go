package web

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// Instances lets in workers that show no secret: what they are is looked at. It
// is safe for concurrent use.
type Instances interface {
	// Admit returns a credential for the worker on an instance, which says that it
	// is in that slot, -1 if it does not say, and sends from that address. An error
	// that tells why not is a *jobs.Error, of CodeForbidden if it will not be
	// otherwise.
	Admit(ctx context.Context, instance string, slot int, from netip.Addr) (credential string, ends time.Time, err error)
}

// enrolInstance answers POST /worker/enrol/instance. The address is the one that
// the connection comes from: what a header says of it anybody can write.
func (s *Server) enrolInstance(w http.ResponseWriter, r *http.Request) error {
	if s.cfg.Instances == nil || s.cfg.Keeper == nil || !s.cfg.Keeper.Tokens() {
		return jobs.Errorf(jobs.CodeNoRoute, "%s: this node has no fleet of EC2 whose instances it would know, or asks workers for no credentials", r.URL.Path)
	}
	var req api.EnrolInstanceRequest
	if err := s.decode(w, r, maxForm, &req); err != nil {
		return err
	}
	if err := check("body", &req); err != nil {
		return err
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return jobs.Errorf(jobs.CodeForbidden, "it is not known where the request comes from")
	}
	slot := -1
	if req.Slot != nil {
		slot = *req.Slot
	}
	credential, ends, err := s.cfg.Instances.Admit(r.Context(), req.Instance, slot, from.Addr().Unmap())
	if err != nil {
		return err
	}
	return s.reply(w, r, &api.EnrolResponse{Name: req.Instance, Credential: credential, ExpiresAt: ends, TTLSeconds: time.Until(ends).Seconds()})
}
