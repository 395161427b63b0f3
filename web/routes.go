package web

import (
	"net/http"
	"slices"
	"strings"

	"workmanager/jobs"
)

// route is one line of the table: a pattern of http.ServeMux, who may call it
// where tokens are asked for, and who answers. A GET route answers HEAD too.
type route struct {
	pattern string
	may     Role
	handler http.Handler
}

// Who may call a route. A route that says nothing lets nobody in.
const (
	anyone    = nobody | users | Enrol | Worker | Peer // pages and documents of the binary, and whether it is alive
	users     = Client | Operator
	operators = Operator
	enrolling = Enrol
	unknown   = nobody // by what it shows; the handler looks at what it is
	workers   = Worker
	peers     = Peer
)

// table lists every route.
func (s *Server) table() []route {
	return []route{
		// The three old routes.
		{"PUT /enqueue", users, s.serve(s.enqueue)},
		{"POST /pullCompleted", users, s.serve(s.pull)},
		{"GET /status", users, handle(s, s.status)},

		{"POST /v1/jobs", users, s.serve(s.submit)},
		{"POST /v1/jobs/batch", users, s.serve(s.batch)},
		{"GET /v1/jobs", users, handle(s, s.listJobs)},
		{"GET /v1/jobs/{id}", users, handle(s, s.getJob)},
		{"DELETE /v1/jobs/{id}", users, handle(s, s.cancelJob)},
		{"GET /v1/jobs/{id}/checkpoints", users, handle(s, s.checkpoints)},
		{"GET /v1/jobs/{id}/receipt", users, handle(s, s.receipt)},
		{"GET /v1/jobs/{id}/explain", users, handle(s, s.explain)},
		{"GET /v1/results", users, handle(s, s.results)},
		{"GET /v1/status", users, handle(s, s.status)},
		{"GET /v1/history", users, handle(s, s.history)},
		{"GET /v1/fleet", operators, handle(s, s.fleet)},
		{"POST /v1/fleet", operators, handle(s, s.orderFleet)},
		{"GET /v1/quarantine", operators, handle(s, s.quarantine)},
		{"POST /v1/quarantine", operators, handle(s, s.orderQuarantine)},
		{"GET /v1/audit", operators, handle(s, s.auditLog)},
		{"GET /v1/events", users, s.serve(s.eventStream)},

		{"GET /healthz", anyone, handle(s, s.healthz)},
		{"GET /readyz", anyone, handle(s, s.readyz)},
		{"GET /metrics", users, s.metrics()},

		// Documents and pages, all in the binary.
		{"GET /v1/openapi.yaml", anyone, s.openapiYAML()},
		{"GET /openapi.json", anyone, s.openapiJSON()},
		{"GET /docs", anyone, s.docs()},
		{"GET /redoc", anyone, s.redoc()},
		{"GET /{$}", anyone, s.serve(s.home)},
		{"GET /assets/{name}", anyone, s.serve(s.asset)},
		{"GET /assets/lib/{name}", anyone, s.serve(s.asset)},
		{"GET /login", anyone, pages["login.html"]},
		{"POST /login", anyone, s.serve(s.login)},
		{"POST /logout", anyone, s.serve(s.logout)},

		// Between our own processes.
		{"GET /worker/binary/{arch}", anyone, s.serve(s.program)},
		{"POST /worker/enrol", enrolling, s.serve(s.enrol)},
		{"POST /worker/enrol/instance", unknown, s.serve(s.enrolInstance)},
		{"POST /worker/lease", workers, handleJSON(s, maxLeaseBody, s.lease)},
		{"POST /worker/report", workers, s.serve(s.reports)},
		{"/peer/", peers, s.peer()},
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
		if _, pattern := s.mux.Handler(&probe); pattern != "" && pattern != "/" && pattern != "/peer/" {
			found = append(found, m)
		}
	}
	slices.Sort(found)
	return found
}
