package web

import (
	"context"
	"net/http"
	"time"

	"workmanager/jobs"
)

// Who was let in may be shut out while its answer is still to come: its token
// is revoked, or its time is over. A stream then ends before its next event, a
// batch before its next lines, and a long poll within recheckInterval, with 401.
// What was accepted before stays so.

// recheckInterval is how often a long poll looks whether its caller still may.
const recheckInterval = time.Second

// admitted reports whether the caller of a long answer may still have it.
func (s *Server) admitted(r *http.Request) bool {
	was, asked := CallerOf(r.Context())
	if !asked {
		return true
	}
	now, _ := s.caller(r)
	return now == was
}

func errRevoked() error {
	return jobs.Errorf(jobs.CodeAuth, "what was shown was revoked, or its time was over, before the answer")
}

type admittedKey struct{}

// call calls f for a request. Where callers are known, f can ask while it waits
// whether its caller still may, and what took long is answered only if so.
func call[Req, Resp any](s *Server, w http.ResponseWriter, r *http.Request, f func(context.Context, Req) (Resp, error), req Req) (Resp, error) {
	ctx := r.Context()
	if _, asked := CallerOf(ctx); !asked {
		return f(ctx, req)
	}
	began := time.Now()
	resp, err := f(context.WithValue(ctx, admittedKey{}, func() bool { return s.admitted(r) }), req)
	if time.Since(began) >= recheckInterval && !s.admitted(r) {
		w.Header().Set("WWW-Authenticate", challenge)
		var none Resp
		return none, errRevoked()
	}
	return resp, err
}

// whileAdmitted calls cancel when the caller of ctx may no longer be answered,
// until ctx is done.
func whileAdmitted(ctx context.Context, cancel context.CancelFunc) {
	admitted, ok := ctx.Value(admittedKey{}).(func() bool)
	if !ok {
		return
	}
	go func() {
		tick := time.NewTicker(recheckInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if !admitted() {
					cancel()
					return
				}
			}
		}
	}()
}
