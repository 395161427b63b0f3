package web

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// Keeper knows who calls. It is safe for concurrent use.
type Keeper interface {
	// Tokens reports whether callers of the public routes must show one.
	Tokens() bool
	// Identify says whose token or credential text is: client, operator, worker
	// (a token for enrolment) or enrolled (a worker's credential), and its name.
	Identify(text string) (role, name string, ok bool)
	// Session does so for what Login gave out.
	Session(text string) (role, name string, ok bool)
	// Login exchanges a token for a session of the dashboard.
	Login(token string) (session string, ends time.Time, ok bool)
	// Logout ends one, here.
	Logout(session string)
	// Enrol exchanges a token for the credential of a worker of that name.
	Enrol(token, worker string) (credential string, ends time.Time, ok bool)
}

// Role is what a caller is, or a set of what it may be.
type Role uint8

// What a caller can be.
const (
	nobody   Role = 1 << iota
	Client        // submits, reads and cancels jobs
	Operator      // all that a client may, and what concerns the node itself
	Enrol         // becomes a worker, and nothing else
	Worker        // a worker that has enrolled
	Peer          // the other node, by its certificate
)

// words are the roles as a Keeper and a refusal say them.
var words = []struct {
	role Role
	word string
	says string
}{
	{Client, "client", "a client's token"}, {Operator, "operator", "an operator's token"},
	{Enrol, "worker", "a worker's enrolment token"}, {Worker, "enrolled", "a worker's credential, from POST /worker/enrol"},
	{Peer, "peer", "the certificate of a node of this pair"},
}

func roleWord(role Role) string {
	for _, w := range words {
		if w.role == role {
			return w.word
		}
	}
	return ""
}

func roleOf(word string) Role {
	for _, w := range words {
		if w.word == word {
			return w.role
		}
	}
	return nobody
}

// String says which roles are in the set.
func (r Role) String() string {
	var in []string
	for _, w := range words {
		if r&w.role != 0 {
			in = append(in, w.says)
		}
	}
	return strings.Join(in, " or ")
}

// Caller is who sent a request: its role, and the name of the token, the worker
// or the node.
type Caller struct {
	Role Role
	Name string
}

type callerKey struct{}

// CallerOf returns who sent the request of ctx. The second result is false
// where nobody was asked to show anything: on loopback.
func CallerOf(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// WorkerOf returns the name of the worker that sent the request of ctx. claimed
// is the name it gives itself in the body: where credentials are asked for it
// must be the one that was enrolled, or be left out.
func WorkerOf(ctx context.Context, claimed string) (string, error) {
	c, known := CallerOf(ctx)
	switch {
	case !known:
		return claimed, nil
	case c.Role != Worker:
		return "", jobs.Errorf(jobs.CodeForbidden, "this needs %s", Worker)
	case claimed != "" && claimed != c.Name:
		return "", jobs.Errorf(jobs.CodeForbidden, "worker %q sends for worker %q", clip(c.Name), clip(claimed))
	}
	return c.Name, nil
}

// Tickets are given along with leases and shown with reports: a worker reports
// only on jobs that it has leased, now or before, at either node.
type Tickets interface {
	Ticket(worker string, id jobs.ID) string
	Leased(worker string, id jobs.ID, ticket string) bool
}

// The cookie of the dashboard. With the prefix a browser keeps it to this host
// and to TLS; without TLS, on loopback, it cannot have it.
const (
	secureCookie = "__Host-workmanager"
	plainCookie  = "workmanager"
)

// challenge says to whoever showed nothing what to show.
const challenge = `Bearer realm="workmanager"`

// limitless reports whether nobody is charged for what comes from addr.
func (s *Server) limitless(addr netip.Addr) bool { return s.open && addr.IsLoopback() }

// guard lets only those callers through that may call a route, as often as each
// may.
func (s *Server) guard(may Role, h http.Handler) http.Handler {
	keeper := s.cfg.Keeper
	asks := keeper != nil && may != anyone && (may&^Peer == 0 || keeper.Tokens())
	return s.serve(func(w http.ResponseWriter, r *http.Request) error {
		addr := addrOf(r)
		if !asks && s.limitless(addr) {
			h.ServeHTTP(w, r)
			return nil
		}
		now := time.Now()
		a := &admission{Context: r.Context(), addr: addr}
		if !asks {
			if may != peers {
				a.pays[0] = s.account(addr, now)
			}
			if err := s.admit(a, now); err != nil {
				return err
			}
			h.ServeHTTP(w, r.WithContext(a))
			return nil
		}
		c, why := s.caller(r)
		a.caller, a.known = c, c.Role != nobody
		if c.Role != Peer {
			a.pays[0] = s.account(addr, now)
			if a.known {
				a.pays[1] = s.accounts.get(accountKey{role: c.Role, name: c.Name}, now)
			}
		}
		if err := s.admit(a, now); err != nil {
			return err
		}
		if c.Role&may == 0 {
			if err := s.tried(a, r.Pattern, why, now); err != nil {
				return err
			}
			if c.Role == nobody {
				w.Header().Set("WWW-Authenticate", challenge)
				if why == "" {
					why = "nothing was shown"
				}
				if may == peers {
					w.Header().Set("Connection", "close") // a new connection may show a new certificate
				}
				return jobs.Errorf(jobs.CodeAuth, "%s; this needs %s", why, may)
			}
			return jobs.Errorf(jobs.CodeForbidden, "%s does not do here; this needs %s", c.Role, may)
		}
		h.ServeHTTP(w, r.WithContext(s.as(a, c)))
		return nil
	})
}

// tried notes that a caller was refused: why, if what it showed is not known. An
// address whose unknown tokens are too many gets another answer. Who shows one
// that is known is never kept out: nobody can lock out others.
func (s *Server) tried(a *admission, route, why string, now time.Time) error {
	switch {
	case !a.known && why == "": // nothing was shown
		return nil
	case a.caller.Role == Peer:
		return nil
	}
	if a.known { // it has tried nothing; it is noted whatever others from there do
		s.trail.refused(a, route, string(jobs.CodeForbidden), why)
		return nil
	}
	if over := s.account(a.addr, now).try(now); over != nil {
		s.refused.count(refusedTries)
		return over
	}
	s.trail.refused(a, route, string(jobs.CodeAuth), why)
	return nil
}

// account is that of an address.
func (s *Server) account(addr netip.Addr, now time.Time) *account {
	return s.accounts.get(accountKey{addr: addr}, now)
}

// as returns the context of a request of c, by ctx. It is here, behind every route, that
// a client is bound to its own jobs: what is not there for it, nothing finds.
func (s *Server) as(ctx context.Context, c Caller) context.Context {
	if c.Role != Client {
		return ctx
	}
	ctx = jobs.WithOwner(ctx, c.Name)
	if !s.cfg.Shared {
		ctx = jobs.WithView(ctx, c.Name)
	}
	return ctx
}

// caller says who sent a request, and if it is nobody why. What is shown in the
// header counts first, then a certificate, then a session's cookie.
func (s *Server) caller(r *http.Request) (c Caller, why string) {
	if h := r.Header["Authorization"]; len(h) > 0 {
		scheme, text, _ := strings.Cut(h[0], " ")
		if len(h) > 1 || !strings.EqualFold(scheme, "Bearer") {
			return Caller{Role: nobody}, "the Authorization header is no Bearer token"
		}
		role, name, ok := s.cfg.Keeper.Identify(strings.TrimSpace(text))
		if !ok {
			return Caller{Role: nobody}, "the token is not known here, or its time is over"
		}
		return Caller{roleOf(role), name}, ""
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		leaf := r.TLS.VerifiedChains[0][0]
		if time.Now().After(leaf.NotAfter) { // it was good when the connection began
			return Caller{Role: nobody}, "the certificate has expired"
		}
		return Caller{Peer, leaf.Subject.CommonName}, ""
	}
	if text := sessionOf(r); text != "" {
		role, name, ok := s.cfg.Keeper.Session(text)
		if !ok {
			return Caller{Role: nobody}, "the login is over"
		}
		return Caller{roleOf(role), name}, ""
	}
	return Caller{Role: nobody}, ""
}

func cookieName(r *http.Request) string {
	if r.TLS != nil {
		return secureCookie
	}
	return plainCookie
}

func sessionOf(r *http.Request) string {
	if c, err := r.Cookie(cookieName(r)); err == nil {
		return c.Value
	}
	return ""
}

func setSession(w http.ResponseWriter, r *http.Request, value string, age time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName(r), Value: value, Path: "/", MaxAge: int(age / time.Second),
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode,
	})
}

// maxForm bounds the body of a login or an enrolment.
const maxForm = 4 << 10

// login answers POST /login: the form of the login page has one token in it.
func (s *Server) login(w http.ResponseWriter, r *http.Request) error {
	if s.cfg.Keeper == nil || !s.cfg.Keeper.Tokens() {
		return seeOther(w, r, "/")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return jobs.Errorf(jobs.CodeMalformed, "the form cannot be read")
	}
	token := strings.TrimSpace(r.PostForm.Get("token"))
	role, name, _ := s.cfg.Keeper.Identify(token)
	a := &admission{addr: addrOf(r), caller: Caller{roleOf(role), name}}
	session, ends, ok := s.cfg.Keeper.Login(token)
	if !ok {
		if err := s.tried(a, "login", "the token does not log in", time.Now()); err != nil {
			return err
		}
		return seeOther(w, r, "/login?refused")
	}
	s.trail.event(a, "login", "dashboard", nil)
	setSession(w, r, session, time.Until(ends))
	return seeOther(w, r, "/")
}

// logout answers POST /logout.
func (s *Server) logout(w http.ResponseWriter, r *http.Request) error {
	if text := sessionOf(r); s.cfg.Keeper != nil && text != "" {
		s.cfg.Keeper.Logout(text)
	}
	setSession(w, r, "", -time.Second)
	return seeOther(w, r, "/login")
}

func seeOther(w http.ResponseWriter, r *http.Request, to string) error {
	w.Header().Set("Location", to)
	w.Header().Set("Cache-Control", "no-store")
	shorten(w, r)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// enrol answers POST /worker/enrol.
func (s *Server) enrol(w http.ResponseWriter, r *http.Request) error {
	if s.cfg.Keeper == nil || !s.cfg.Keeper.Tokens() {
		return jobs.Errorf(jobs.CodeNoRoute, "%s: this node asks workers for no credentials", r.URL.Path)
	}
	var req api.EnrolRequest
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxForm))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		return jobs.Errorf(jobs.CodeMalformed, `the body is no {"name": "<worker>"}`)
	}
	_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	credential, ends, ok := s.cfg.Keeper.Enrol(strings.TrimSpace(token), req.Name)
	defer func() { s.trail.enrolled(admissionOf(r.Context()), req.Name, ok) }()
	if !ok {
		return jobs.Invalid("body", "name", "value_error.name", "%q cannot be this worker's name: 1 to 63 letters, digits, '.', '-' or '_', no node's, and what the token is for if it is for one", clip(req.Name))
	}
	return s.reply(w, r, &api.EnrolResponse{Name: req.Name, Credential: credential, ExpiresAt: ends, TTLSeconds: time.Until(ends).Seconds()})
}

// peer answers what the other node asks.
func (s *Server) peer() http.Handler {
	if s.cfg.Peer != nil {
		return s.cfg.Peer
	}
	return s.serve(s.noRoute)
}

// home answers GET /: the dashboard, or where one logs in to it.
func (s *Server) home(w http.ResponseWriter, r *http.Request) error {
	if k := s.cfg.Keeper; k != nil && k.Tokens() {
		if c, _ := s.caller(r); c.Role&users == 0 {
			return seeOther(w, r, "/login")
		}
	}
	s.dashboard().ServeHTTP(w, r)
	return nil
}
