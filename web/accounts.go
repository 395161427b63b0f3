package web

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"workmanager/jobs"
)

// What one caller may take. A caller has two accounts, that of its token and
// that of its address, and each request is charged to both. Nobody is charged
// on loopback where no token is asked for, nor is the peer.

// What is had in places, each given back.
const (
	placeWait   = iota // a long poll, a stream, a watched job
	placeBatch         // a batch under way: its buffers, and the file of its replies
	placeReport        // reportPiece bytes of what a worker reports
	placeKinds
)

var placeNames = [placeKinds]string{"long polls and streams", "batches", "pieces of 16 KiB of reports"}

// maxBatches bounds the batches under way: some 4 MiB of memory each.
const maxBatches = 256

const (
	// rateBurst is how many seconds' worth of a rate may come at once.
	rateBurst = 2
	// maxDebt is how many seconds' worth of bytes a caller may owe before its
	// next request is refused. Bodies are never cut: they are read more slowly.
	maxDebt = 1
	// leastBurst is at least what one read of a body may bring.
	leastBurst = 1 << 20

	// maxAccounts bounds the accounts in memory, some 500 bytes each.
	maxAccounts = 16_384
	// accountAge is how long an account is kept that is not used, and has
	// nothing to remember.
	accountAge = time.Minute
	// evictionSample is how many are looked at for the one that is given up.
	evictionSample = 16
)

// account is what one token, or one address, has taken lately.
type account struct {
	who      string        // as a refusal names it
	requests *rate.Limiter // nil: no bound
	bytes    *rate.Limiter // nil: no bound
	tries    *rate.Limiter // of an address: tokens that are not known; nil: no bound
	taken    [placeKinds]atomic.Int64
	used     time.Time // guarded by accounts.mu
}

// accountKey names an account: a role and a name, or an address.
type accountKey struct {
	role Role
	name string
	addr netip.Addr
}

// accounts are those of the callers of late. It is safe for concurrent use.
type accounts struct {
	limits jobs.Limits
	max    int

	mu    sync.Mutex // guards what follows
	of    map[accountKey]*account
	swept time.Time
}

func newAccounts(l jobs.Limits) *accounts {
	return &accounts{limits: l, max: maxAccounts, of: map[accountKey]*account{}}
}

func perSecond(n int64, least int) *rate.Limiter {
	if n <= 0 {
		return nil
	}
	burst := min(n, math.MaxInt32/rateBurst) * rateBurst
	return rate.NewLimiter(rate.Limit(n), max(int(burst), least))
}

// get returns the account of key, a new one if it has none.
func (t *accounts) get(key accountKey, now time.Time) *account {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.of[key]
	if a == nil {
		t.makeRoom(now)
		a = &account{requests: perSecond(t.limits.Rate, 1), bytes: perSecond(t.limits.RateBytes, leastBurst)}
		if key.addr.IsValid() {
			a.who = "address " + key.addr.String()
			if t.limits.Tries > 0 {
				a.tries = rate.NewLimiter(rate.Limit(float64(t.limits.Tries)/60), t.limits.Tries)
			}
		} else {
			a.who = fmt.Sprintf("%s %q", roleName(key.role), clip(key.name))
		}
		t.of[key] = a
	}
	a.used = now
	return a
}

// makeRoom drops, now and then, accounts that have nothing to remember; and
// where there are too many one that was not used for long. mu is held.
func (t *accounts) makeRoom(now time.Time) {
	if full := len(t.of) >= t.max; full && now.Sub(t.swept) > time.Second || now.Sub(t.swept) > accountAge {
		t.swept = now
		for k, a := range t.of {
			if now.Sub(a.used) > accountAge && a.idle(now) {
				delete(t.of, k)
			}
		}
	}
	for len(t.of) >= t.max {
		var oldest accountKey
		var since time.Time
		seen := 0
		for k, a := range t.of { // in no order, so these are drawn at random
			if seen == 0 || a.used.Before(since) {
				oldest, since = k, a.used
			}
			if seen++; seen == evictionSample {
				break
			}
		}
		delete(t.of, oldest)
	}
}

// idle reports whether the account owes nothing and holds no place.
func (a *account) idle(now time.Time) bool {
	for i := range a.taken {
		if a.taken[i].Load() > 0 {
			return false
		}
	}
	return (a.bytes == nil || a.bytes.TokensAt(now) >= 0) && (a.tries == nil || a.tries.TokensAt(now) >= float64(a.tries.Burst())-1)
}

// len returns how many accounts there are.
func (t *accounts) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.of)
}

// until returns how long it takes until l has n.
func until(l *rate.Limiter, now time.Time, n float64) time.Duration {
	lack := n - l.TokensAt(now)
	if lack <= 0 {
		return 0
	}
	return time.Duration(min(lack/float64(l.Limit()), 3600) * float64(time.Second))
}

// admit charges one request, or says why it is refused.
func (a *account) admit(now time.Time) (refusal, error) {
	if l := a.bytes; l != nil {
		if wait := until(l, now, -maxDebt*float64(l.Limit())); wait > 0 {
			return refusedBytes, jobs.Errorf(jobs.CodeLimited, "%s: more than %d bytes a second, which is the limit of one caller (--rate-bytes)", a.who, int64(l.Limit())).Retry(wait)
		}
	}
	if l := a.requests; l != nil && !l.AllowN(now, 1) {
		return refusedRate, jobs.Errorf(jobs.CodeLimited, "%s: more than %d requests a second, which is the limit of one caller (--rate)", a.who, int64(l.Limit())).Retry(until(l, now, 1))
	}
	return 0, nil
}

// try charges a token that is not known here, or says why it is not looked into
// any more.
func (a *account) try(now time.Time) error {
	if l := a.tries; l != nil && !l.AllowN(now, 1) {
		return jobs.Errorf(jobs.CodeLimited, "%s: more than %d unknown tokens a minute, which is the limit of one address (--max-tries)", a.who, l.Burst()).Retry(until(l, now, 1))
	}
	return nil
}

// admission is a request that was let in: who sent it, and to whose accounts it
// is charged. It is the context of that request.
type admission struct {
	context.Context //nolint:containedctx // it is one
	caller          Caller
	known           bool
	addr            netip.Addr
	pays            [2]*account // nil where nobody is charged
}

type admissionKey struct{}

// Value implements context.Context.
func (a *admission) Value(key any) any {
	switch key.(type) {
	case callerKey:
		if a.known {
			return a.caller
		}
	case admissionKey:
		return a
	}
	return a.Context.Value(key)
}

// admissionOf returns the admission of a request, nil where nobody is charged.
func admissionOf(ctx context.Context) *admission {
	a, _ := ctx.Value(admissionKey{}).(*admission)
	return a
}

// admit charges the request to all accounts of a.
func (s *Server) admit(a *admission, now time.Time) error {
	for _, acc := range a.pays {
		if acc == nil {
			continue
		}
		if why, err := acc.admit(now); err != nil {
			s.refused.count(why)
			return err
		}
	}
	return nil
}

// took charges n bytes of a body, and returns for how long no more should be
// read. a may be nil.
func (a *admission) took(n int) (wait time.Duration) {
	if a == nil || n <= 0 {
		return 0
	}
	now := time.Now()
	for _, acc := range a.pays {
		if acc == nil || acc.bytes == nil {
			continue
		}
		for left, burst := n, acc.bytes.Burst(); left > 0; left -= burst {
			r := acc.bytes.ReserveN(now, min(left, burst))
			wait = max(wait, r.DelayFrom(now))
		}
	}
	return wait
}

// hold takes n of the places of a kind, of the server's and of the caller's,
// and returns how to give them back.
func (s *Server) hold(ctx context.Context, kind, n int) (release func(), err error) {
	most := int64(s.cfg.Limits.Waiters)
	switch kind {
	case placeBatch:
		most = min(most, maxBatches)
	case placeReport:
		most = maxReportPieces
	}
	a := admissionOf(ctx)
	if a == nil {
		a = &admission{}
	}
	back := func() {
		s.taken[kind].Add(int64(-n))
		for _, acc := range a.pays {
			if acc != nil {
				acc.taken[kind].Add(int64(-n))
			}
		}
	}
	// All are taken before any is looked at, so that all can be given back.
	full := s.taken[kind].Add(int64(n)) > most
	var over *account
	share := max(most/jobs.CallerShare, 1)
	for _, acc := range a.pays {
		if acc != nil && acc.taken[kind].Add(int64(n)) > share {
			over = acc
		}
	}
	switch {
	case over != nil:
		back()
		s.refused.count(refusedPlaces)
		return nil, jobs.Errorf(jobs.CodeLimited, "%s: more than %d %s at once, which is the limit of one caller", over.who, share, placeNames[kind]).Retry(busyRetry)
	case full:
		back()
		return nil, jobs.Errorf(jobs.CodeBusy, "all %d places for %s are taken", most, placeNames[kind]).Retry(busyRetry)
	}
	return back, nil
}

// addrOf returns the address that a request came from, as accounts know it.
func addrOf(r *http.Request) netip.Addr {
	if c := connOf(r.Context()); c != nil {
		return c.addr
	}
	return accountAddr(r.RemoteAddr)
}

// accountAddr returns an address as accounts know it: of IPv6 the network of 64
// bits, which is the least that one customer has.
func accountAddr(hostport string) netip.Addr {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.IPv6Unspecified() // of one account all whose address is not known
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() && !addr.IsLoopback() {
		if p, err := addr.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return addr
}

// roleName is what a role is called in logs and refusals.
func roleName(r Role) string {
	switch r {
	case Enrol:
		return "worker's token"
	case Worker:
		return "worker"
	}
	for _, w := range words {
		if w.role == r {
			return w.word
		}
	}
	return "nobody"
}
