package web

import (
	"net/http"
	"slices"
	"strings"

	"workmanager/jobs"
)

// route is one line of the table: a pattern of http.ServeMux and who answers.
// A GET route answers HEAD too.
type route struct {
	pattern string
	handler http.Handler
}

// table lists every route.
func (s *Server) table() []route {
	return []route{
		// The three old routes.
		{"PUT /enqueue", s.serve(s.enqueue)},
		{"POST /pullCompleted", s.serve(s.pull)},
		{"GET /status", handle(s, s.status)},

		{"POST /v1/jobs", s.serve(s.submit)},
		{"POST /v1/jobs/batch", s.serve(s.batch)},
		{"GET /v1/jobs", handle(s, s.listJobs)},
		{"GET /v1/jobs/{id}", handle(s, s.getJob)},
		{"DELETE /v1/jobs/{id}", handle(s, s.cancelJob)},
		{"GET /v1/jobs/{id}/checkpoints", handle(s, s.checkpoints)},
		{"GET /v1/jobs/{id}/receipt", handle(s, s.receipt)},
		{"GET /v1/results", handle(s, s.results)},
		{"GET /v1/status", handle(s, s.status)},
		{"GET /v1/fleet", handle(s, s.fleet)},
		{"GET /v1/events", s.serve(s.eventStream)},

		{"GET /healthz", handle(s, s.healthz)},
		{"GET /readyz", handle(s, s.readyz)},
		{"GET /metrics", s.metrics()},

		// Documents and pages, all in the binary.
		{"GET /v1/openapi.yaml", s.openapiYAML()},
		{"GET /openapi.json", s.openapiJSON()},
		{"GET /docs", s.docs()},
		{"GET /redoc", s.redoc()},
		{"GET /{$}", s.dashboard()},
		{"GET /assets/{name}", s.serve(s.asset)},
	}
}

// noRoute answers what no pattern fits: a path with one slash too many goes on
// without it, a known path under another method names those it has, and
// everything else is unknown. The path "/" itself is GET only.
func (s *Server) noRoute(w http.ResponseWriter, r *http.Request) error {
	path := r.URL.Path
	if bare := strings.TrimRight(path, "/"); bare != "" && strings.HasSuffix(r.URL.EscapedPath(), "/") && len(s.methods(r, bare)) > 0 {
		target := strings.TrimRight(r.URL.EscapedPath(), "/")
		if r.URL.RawQuery != "" {
			target += "?" + r.URL.RawQuery
		}
		shorten(w, r)
		w.Header().Set("Location", target)
		w.WriteHeader(http.StatusTemporaryRedirect)
		return nil
	}
	if allowed := s.methods(r, path); len(allowed) > 0 {
		allow := strings.Join(allowed, ", ")
		w.Header().Set("Allow", allow)
		return jobs.Errorf(jobs.CodeMethod, "%s %s: this route takes %s", clip(r.Method), clip(path), allow)
	}
	return jobs.Errorf(jobs.CodeNoRoute, "%s: no such route", clip(path))
}

// methods returns which methods have a route for path.
func (s *Server) methods(r *http.Request, path string) []string {
	u := *r.URL
	u.Path, u.RawPath = path, ""
	var found []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		probe := http.Request{Method: m, URL: &u, Host: r.Host}
		if _, pattern := s.mux.Handler(&probe); pattern != "" && pattern != "/" {
			found = append(found, m)
		}
	}
	slices.Sort(found)
	return found
}
