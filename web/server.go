package web

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/receipt"
	"workmanager/web/api"
)

// Config is what a Server needs. All of it is required but SpillDir, where ""
// is the system's folder for temporary files, Version, and Log.
type Config struct {
	Queue  Queue
	Reader Reader
	Leaser Leaser
	Status StatusReporter
	// Insight is nil where there is none.
	Insight Insight
	// Fleet is nil where this node has none.
	Fleet Fleet
	// Quarantine is nil where this node keeps none.
	Quarantine Quarantiner
	// Sign makes the receipt of a completed job, or says why there is none.
	Sign func(j jobs.Job) (receipt.Signed, error)
	// NewID makes the ID of a new job: a fresh one for the key "", and for any
	// other key of one owner (jobs.OwnerOf) always the same.
	NewID func(ctx context.Context, key string) (jobs.ID, error)
	// OpenOf tells how many jobs an owner has open, in the pair; nil: nobody counts.
	OpenOf func(owner string) int64
	// Limits are announced in every refusal that they cause.
	Limits jobs.Limits
	// SpillDir holds replies of a batch whose client does not take them yet.
	SpillDir string
	Version  string
	Log      *slog.Logger
	// Keeper knows who calls; nil is for loopback: everybody may do everything.
	Keeper Keeper
	// Instances lets in the workers of a fleet of EC2; nil: there is none.
	Instances Instances
	// Programs has what instances run; nil: there is none.
	Programs Programs
	// Alive says what stands still in this node, nil if nothing does; nil: nobody
	// looks. It answers at once.
	Alive func() error
	// Shared lets a client see and cancel the jobs of all clients, and not only
	// those that it has submitted.
	Shared bool
	// Peer answers what the other node asks, below /peer/; nil: nobody does.
	Peer http.Handler
}

// Server is the public HTTP API. It is safe for concurrent use.
type Server struct {
	cfg    Config
	log    *slog.Logger
	mux    *http.ServeMux
	routes []route
	origin *http.CrossOriginProtection

	// ending is done once Stop was called: the one switch that long polls,
	// streams and body readers watch.
	ending context.Context
	end    context.CancelFunc

	open        bool                     // nobody is asked for a token
	taken       [placeKinds]atomic.Int64 // places of long polls, streams, batches and reports
	largeBodies atomic.Int64             // bodies in flight that hold a large buffer
	spooled     atomic.Int64             // bytes of replies in files
	accounts    *accounts
	conns       conns
	refused     refusalCounts
	trail       trail
	sending     atomic.Int64 // programs that are being sent
	sent        programFigures
	events      hub
	failed      errorCounts
}

// New returns a Server of cfg. It starts nothing.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: cfg.Log, mux: http.NewServeMux(), origin: http.NewCrossOriginProtection(), sent: newProgramFigures()}
	s.ending, s.end = context.WithCancel(context.Background())
	s.open = cfg.Keeper == nil || !cfg.Keeper.Tokens()
	s.accounts = newAccounts(cfg.Limits)
	s.conns.init(s)
	s.trail.init(s.log)
	s.events.init(s)
	s.routes = s.table()
	for _, r := range s.routes {
		s.mux.Handle(r.pattern, s.guard(r.may, r.handler))
	}
	s.mux.Handle("/", s.guard(anyone, s.serve(s.noRoute)))
	return s
}

// Stop makes long polls, event streams and submissions end soon: what waits is
// answered as it stands, new submissions are refused with 503 and a batch ends
// behind the lines it has taken. Reads go on. Stop returns at once and may be
// called more than once.
func (s *Server) Stop() { s.end() }

// stopping reports whether Stop was called.
func (s *Server) stopping() bool { return s.ending.Err() != nil }

func errStopping() error {
	return jobs.Errorf(jobs.CodeStopping, "this node is shutting down; try again, or the other node").Retry(stoppingRetry)
}

// Times that bound what a client can cost. They are generous to slow lines and
// mean to silent ones.
const (
	headerTimeout = 10 * time.Second // the whole of a request's header
	serverTimeout = 2 * time.Minute  // a plain request and its answer; longer than jobs.MaxWait
	idleTimeout   = 2 * time.Minute  // a connection between two requests
	maxHeader     = 64 << 10

	replyTimeout  = 30 * time.Second // each write of an answer
	streamTimeout = 5 * time.Second  // each write of an event
	drainTimeout  = 500 * time.Millisecond

	drainBytes = 4 << 20 // of a body that is not wanted
)

// Tune sets srv's timeouts to those this package counts on. Handlers push
// their own deadlines from there, where a body or a stream may last.
func Tune(srv *http.Server) {
	srv.ReadHeaderTimeout = headerTimeout
	srv.ReadTimeout = serverTimeout
	srv.WriteTimeout = serverTimeout
	srv.IdleTimeout = idleTimeout
	srv.MaxHeaderBytes = maxHeader
	srv.ConnContext = connContext
	srv.Protocols = new(http.Protocols) // what streams and deadlines here were tried with
	srv.Protocols.SetHTTP1(true)
}

// response wraps what net/http hands in, to know whether an answer has begun.
type response struct {
	http.ResponseWriter
	conn   *conn // nil in tests without one
	status int
	start  time.Time // zero where no line is written
}

var responses = sync.Pool{New: func() any { return new(response) }}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader notes the status.
func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write is a 200 if no status came before.
func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// ServeHTTP answers one request. A panic in a handler costs its own request
// only: the stack goes to the log, the client gets a 500 that names it.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := responses.Get().(*response)
	*w = response{ResponseWriter: rw, conn: connOf(r.Context())}
	if w.conn != nil {
		w.conn.idle.Store(0)
	}
	if s.log.Enabled(r.Context(), slog.LevelDebug) {
		w.start = time.Now()
	}
	defer s.finish(w, r)

	if srv, ok := r.Context().Value(http.ServerContextKey).(*http.Server); !ok || srv.WriteTimeout <= 0 {
		_ = http.NewResponseController(rw).SetWriteDeadline(time.Now().Add(serverTimeout)) // not supported in tests without a connection
	}
	rw.Header()["X-Content-Type-Options"] = headerNoSniff
	if err := s.origin.Check(r); err != nil {
		s.fail(w, r, jobs.Errorf(jobs.CodeForbidden, "the request comes from a page of another origin"))
		return
	}
	s.mux.ServeHTTP(w, r)
}

// finish ends a request: it contains a panic and writes the debug line.
func (s *Server) finish(w *response, r *http.Request) {
	if w.conn != nil {
		w.conn.idle.Store(w.conn.t.tick())
	}
	if p := recover(); p != nil {
		if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
			panic(p)
		}
		id := requestID()
		s.log.Error("panic in a handler", "request", id, "method", r.Method, "path", logged(r.URL.Path), "panic", p, "stack", string(debug.Stack()))
		if w.status != 0 {
			panic(http.ErrAbortHandler) // an answer has begun: only breaking it off tells the truth
		}
		w.Header().Set(api.HeaderRequestID, id)
		s.fail(w, r, jobs.Errorf(jobs.CodeInternal, "internal error"))
	}
	if !w.start.IsZero() {
		s.log.Debug("request", "method", r.Method, "path", logged(r.URL.Path), "status", w.status, "took", time.Since(w.start))
	}
	*w = response{}
	responses.Put(w)
}

// logged is a path as the log has it: without a token that somebody put there by
// mistake. Queries are not logged.
func logged(path string) string {
	if i := strings.Index(path, "wm_"); i >= 0 {
		return path[:i] + "wm_…"
	}
	if i := strings.Index(path, "wmc_"); i >= 0 {
		return path[:i] + "wmc_…"
	}
	return path
}

// untilStop returns ctx, done also when Stop is called or its caller is shut out.
func (s *Server) untilStop(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	undo := context.AfterFunc(s.ending, cancel)
	whileAdmitted(ctx, cancel)
	return ctx, func() { undo(); cancel() }
}

// controller returns the controller of the connection under w, without the
// wrapper, which does not outlive the request.
func controller(w http.ResponseWriter) *http.ResponseController {
	if own, ok := w.(*response); ok {
		w = own.ResponseWriter
	}
	return http.NewResponseController(w)
}
