package web

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"workmanager/jobs"
	"workmanager/web/api"
)

// How much of the audit log is kept in memory, and how many refusals a second
// at most are put in it: whoever is refused very often fills no log.
const (
	maxActions   = 1000 // of operators
	maxEvents    = 1000 // logins, enrolments and refusals
	trailRate    = 10
	trailBurst   = 100
	defaultTrail = 100 // entries of one answer
)

// trail is the audit log: what operators did, who logged in or enrolled, and
// who was refused. It goes to the log, and the last of it stays in memory. No
// entry has data of a job or anything that a caller shows.
type trail struct {
	log   *slog.Logger
	quiet *rate.Limiter

	mu      sync.Mutex // guards what follows
	actions ring
	events  ring
	unsaid  int64 // refusals left out
}

// ring is the last entries of some kind, oldest first.
type ring struct {
	max  int
	list []api.AuditEntry
}

func (r *ring) add(e api.AuditEntry) {
	if len(r.list) >= r.max {
		r.list = append(r.list[:0], r.list[len(r.list)-r.max+1:]...)
	}
	r.list = append(r.list, e)
}

func (t *trail) init(log *slog.Logger) {
	t.log, t.quiet = log, rate.NewLimiter(trailRate, trailBurst)
	t.actions.max, t.events.max = maxActions, maxEvents
}

// outcomeOf is what became of an action, in a word.
func outcomeOf(err error) string {
	if err == nil {
		return "done"
	}
	return string(jobs.CodeOf(err))
}

// action notes what an operator did. ctx is that of its request; where nobody
// is asked who they are, that is what stands there.
func (t *trail) action(ctx context.Context, what, target string, err error) {
	t.add(&t.actions, slog.LevelInfo, entryOf(admissionOf(ctx), what, target, outcomeOf(err), ""))
}

// event notes a login.
func (t *trail) event(a *admission, what, target string, err error) {
	t.add(&t.events, slog.LevelInfo, entryOf(a, what, target, outcomeOf(err), ""))
}

// enrolled notes that a token bought the credential of a worker, or did not.
func (t *trail) enrolled(a *admission, worker string, ok bool) {
	outcome := "done"
	if !ok {
		outcome, worker = string(jobs.CodeInvalid), "" // it is no name, and may be anything
	}
	t.add(&t.events, slog.LevelInfo, entryOf(a, "enrol", worker, outcome, ""))
}

// refused notes who may not call a route. Above some a second they are counted,
// and no more.
func (t *trail) refused(a *admission, route, code, why string) {
	if !t.quiet.Allow() {
		t.mu.Lock()
		t.unsaid++
		t.mu.Unlock()
		return
	}
	t.add(&t.events, slog.LevelWarn, entryOf(a, "call", route, code, why))
}

func entryOf(a *admission, what, target, outcome, why string) api.AuditEntry {
	e := api.AuditEntry{At: time.Now().UTC().Truncate(time.Microsecond), Action: what, Target: clip(target), Outcome: outcome, Reason: why, Role: "nobody"}
	if a != nil {
		e.Who, e.Role = clip(a.caller.Name), roleName(a.caller.Role)
		if a.addr.IsValid() {
			e.Address = a.addr.String()
		}
	}
	return e
}

func (t *trail) add(to *ring, level slog.Level, e api.AuditEntry) {
	t.mu.Lock()
	to.add(e)
	t.mu.Unlock()
	attrs := []any{slog.String("who", e.Who), slog.String("role", e.Role), slog.String("address", e.Address),
		slog.String("action", e.Action), slog.String("target", e.Target), slog.String("outcome", e.Outcome)}
	if e.Reason != "" {
		attrs = append(attrs, slog.String("reason", e.Reason))
	}
	t.log.Log(context.Background(), level, "audit", slog.Group("audit", attrs...))
}

// read returns the newest entries, the newest first.
func (t *trail) read(limit int) api.AuditLog {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := slices.Concat(t.actions.list, t.events.list)
	slices.SortStableFunc(all, func(a, b api.AuditEntry) int { return b.At.Compare(a.At) })
	out := api.AuditLog{Entries: make([]api.AuditEntry, 0, min(limit, len(all))), LeftOut: t.unsaid}
	out.Entries = append(out.Entries, all[:min(limit, len(all))]...)
	return out
}

// auditRequest asks for the newest entries.
type auditRequest struct{ limit int }

func (q *auditRequest) read(p *params) error {
	q.limit = p.number("limit", defaultTrail, 1, maxActions+maxEvents)
	return nil
}

// auditLog answers GET /v1/audit.
func (s *Server) auditLog(_ context.Context, req auditRequest) (api.AuditLog, error) {
	return s.trail.read(req.limit), nil
}
