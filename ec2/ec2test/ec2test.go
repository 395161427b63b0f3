// Package ec2test is a fake EC2. It keeps the rules that a scheduler must live
// with: answers that lag behind and go backwards, tokens that give one instance
// however often they are asked, launches that run out of capacity and bind their
// token, replies that are lost, instances that boot slowly, fail or are taken
// back. It speaks EC2's wire protocol over HTTP, so that the real SDK can be
// used ([EC2] is an http.Handler), and is a Cloud by itself, for runs by the
// thousand ([EC2.Cloud]).
//
// It checks no signature, knows few actions, and starts nothing.
package ec2test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"workmanager/ec2"
)

const (
	shutdownTime = 20 * time.Second
	shownTime    = time.Hour      // so long after its end an instance is shown
	tokenTime    = 24 * time.Hour // so long after its end its token counts
)

// Options are how the fake behaves. The zero value is a cloud without faults.
type Options struct {
	Now  func() time.Time // nil: time.Now
	Rand *rand.Rand       // for Lag; nil: seeded with 1
	// Boot is how long an instance is pending.
	Boot time.Duration
	// Shutdown is how long one is shutting down; 0: 20 s.
	Shutdown time.Duration
	// Lag is the most that a DescribeInstances may be behind; each draws its own.
	Lag time.Duration
	// DeadInstance answers a token whose instance has ended with that instance
	// rather than with an error: EC2 has been seen to do either.
	DeadInstance bool
	// Fault may let a call fail. It is called under the lock, before the call has
	// any effect; nil lets it go on.
	Fault func(c Call) *Fault
	// OnLaunch hears of each new instance, with all that are alive, it among them.
	OnLaunch func(i Instance, alive []Instance)
	// Address is the private address of the n-th instance, from 1; nil: 10.0.0.n
	// and on.
	Address func(n int) string
	// Zones are the zones of subnets; one that is not named is in zone-1.
	Zones map[string]string
	// PageSize is the most instances of an answer, 0 being 1000.
	PageSize int
}

// Call is what is asked.
type Call struct {
	Action, Token string
	Type, Subnet  string
	Spot          bool
	Page          int // of a DescribeInstances, from 0
}

// Fault is what goes wrong with a call.
type Fault struct {
	Code   string // of the error; "" with LoseReply
	Status int    // of HTTP; 0: 400
	Text   string
	// Bind binds the token to the parameters though nothing was launched, as a
	// launch does that failed for capacity.
	Bind bool
	// LoseReply does what was asked and then cuts the connection.
	LoseReply bool
	// Fails lets the instance be launched and end at once, with the text as reason.
	Fails bool
}

// Instance is an instance as it is, not as it is shown.
type Instance struct {
	ID, Image, Type, Subnet, Zone string
	Address                       string
	Spot                          bool
	ShutdownTerminates            bool
	UserData                      string // base64
	Token                         string
	Tags                          map[string]string
	LaunchedAt                    time.Time
	RunningAt                     time.Time
	EndedAt                       time.Time // zero while it lives: when it began to shut down
	StoppedAt                     time.Time
	Reason                        string
}

// Alive reports whether it may still run.
func (i Instance) Alive() bool { return i.EndedAt.IsZero() }

// state is what an observer sees who is so far behind; "" is nothing at all.
func (i *Instance) state(now time.Time, lag, shutdown time.Duration) ec2.State {
	seen := now.Add(-lag)
	switch {
	case seen.Before(i.LaunchedAt):
		return ""
	case !i.EndedAt.IsZero() && !seen.Before(i.EndedAt.Add(shownTime)):
		return ""
	case !i.EndedAt.IsZero() && !seen.Before(i.EndedAt.Add(shutdown)):
		return ec2.Terminated
	case !i.EndedAt.IsZero() && !seen.Before(i.EndedAt):
		return ec2.ShuttingDown
	case !i.StoppedAt.IsZero() && !seen.Before(i.StoppedAt):
		return ec2.Stopped
	case seen.Before(i.RunningAt):
		return ec2.Pending
	}
	return ec2.Running
}

// EC2 is the fake. It is safe for concurrent use.
type EC2 struct {
	o Options

	mu     sync.Mutex // guards the rest
	list   []*Instance
	byID   map[string]*Instance
	tokens map[string]*token // by token and zone
	calls  map[string]int
	next   int
}

type token struct {
	params string
	id     string // "" if it was bound by a launch that failed
}

// New returns a fake without instances.
func New(o Options) *EC2 {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.New(rand.NewPCG(1, 1))
	}
	o.Shutdown = cmp.Or(o.Shutdown, shutdownTime)
	return &EC2{o: o, byID: map[string]*Instance{}, tokens: map[string]*token{}, calls: map[string]int{}}
}

// failure is EC2's no, or a reply that was lost.
type failure struct {
	code, text string
	status     int
	lost       bool
}

func (f *failure) Error() string { return cmp.Or(f.code, "lost reply") + ": " + f.text }

func refuse(status int, code, format string, args ...any) *failure {
	return &failure{code: code, status: status, text: fmt.Sprintf(format, args...)}
}

// begin counts the call and returns what goes wrong with it.
func (e *EC2) begin(c Call) (*Fault, *failure) {
	e.calls[c.Action]++
	if e.o.Fault == nil {
		return nil, nil
	}
	f := e.o.Fault(c)
	if f == nil || f.LoseReply || f.Bind || f.Fails {
		return f, nil
	}
	return f, refuse(cmp.Or(f.Status, 400), f.Code, "%s", f.Text)
}

// launch is what RunInstances asks for.
type launch struct {
	Instance
	count  int
	params string // all of them, but for the token
	dry    bool
}

func (e *EC2) run(l launch) ([]Instance, *failure) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fault, no := e.begin(Call{Action: "RunInstances", Token: l.Token, Type: l.Type, Subnet: l.Subnet, Spot: l.Spot})
	if no != nil {
		return nil, no
	}
	if l.dry {
		return nil, refuse(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
	}
	now := e.o.Now()
	zone := cmp.Or(e.o.Zones[l.Subnet], "zone-1")
	key := l.Token + " in " + zone
	lost := func(out []Instance) ([]Instance, *failure) {
		if fault != nil && fault.LoseReply {
			return nil, &failure{lost: true}
		}
		return out, nil
	}
	if t := e.tokens[key]; t != nil && l.Token != "" {
		i := e.byID[t.id]
		switch {
		case i != nil && !i.Alive() && now.Sub(i.EndedAt) > tokenTime: // forgotten
		case t.params != l.params:
			return nil, refuse(400, "IdempotentParameterMismatch", "The token %s was used with other parameters", l.Token)
		case i == nil: // bound by a failed launch of the same parameters
		case !i.Alive() && !e.o.DeadInstance:
			return nil, refuse(400, "IdempotentInstanceTerminated", "The instance %s of token %s is terminated", i.ID, l.Token)
		default:
			return lost([]Instance{*i})
		}
	}
	if l.Token != "" {
		e.tokens[key] = &token{params: l.params}
	}
	if fault != nil && fault.Bind {
		return nil, refuse(cmp.Or(fault.Status, 500), fault.Code, "%s", fault.Text)
	}
	var out []Instance
	for range max(l.count, 1) {
		i := l.Instance
		e.next++
		i.ID = fmt.Sprintf("i-0%016x", uint64(e.next)*0x9e3779b97f4a7c15) // no two are alike, as with EC2
		i.Address = fmt.Sprintf("10.0.%d.%d", e.next/250, 1+e.next%250)
		if e.o.Address != nil {
			i.Address = e.o.Address(e.next)
		}
		i.Zone, i.LaunchedAt, i.RunningAt = zone, now, now.Add(e.o.Boot)
		if fault != nil && fault.Fails {
			i.EndedAt, i.Reason = now, fault.Text
		}
		e.list, e.byID[i.ID] = append(e.list, &i), &i
		if l.Token != "" {
			e.tokens[key].id = i.ID
		}
		out = append(out, i)
		if e.o.OnLaunch != nil && i.Alive() {
			e.o.OnLaunch(i, e.alive())
		}
	}
	return lost(out)
}

func (e *EC2) alive() []Instance {
	var out []Instance
	for _, i := range e.list {
		if i.Alive() {
			out = append(out, *i)
		}
	}
	return out
}

// answer is the instance as the answer to its launch has it.
func (e *EC2) answer(i Instance) shown {
	if !i.Alive() { // however long ago
		return shown{i, ec2.Terminated}
	}
	return shown{i, i.state(e.o.Now(), 0, e.o.Shutdown)}
}

// shown is an instance as one answer has it.
type shown struct {
	Instance
	state ec2.State
}

// describe returns what one answer has, of the page.
func (e *EC2) describe(page int, ids []string, match func(shown) bool) (out []shown, more bool, no *failure) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, no := e.begin(Call{Action: "DescribeInstances", Page: page}); no != nil {
		return nil, false, no
	}
	now, lag := e.o.Now(), time.Duration(0)
	if e.o.Lag > 0 {
		lag = time.Duration(e.o.Rand.Int64N(int64(e.o.Lag)))
	}
	for _, id := range ids {
		if i := e.byID[id]; i == nil || i.state(now, lag, e.o.Shutdown) == "" {
			return nil, false, refuse(400, "InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", id)
		}
	}
	for _, i := range e.list {
		s := shown{*i, i.state(now, lag, e.o.Shutdown)}
		if s.state != "" && (len(ids) == 0 || slices.Contains(ids, i.ID)) && match(s) {
			out = append(out, s)
		}
	}
	size := e.o.PageSize
	if size <= 0 {
		size = 1000
	}
	from := min(page*size, len(out))
	to := min(from+size, len(out))
	return out[from:to], to < len(out), nil
}

func (e *EC2) terminate(ids []string, dry bool) *failure {
	e.mu.Lock()
	defer e.mu.Unlock()
	fault, no := e.begin(Call{Action: "TerminateInstances"})
	if no != nil {
		return no
	}
	for _, id := range ids {
		if e.byID[id] == nil {
			return refuse(400, "InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", id)
		}
	}
	if dry {
		return refuse(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
	}
	for _, id := range ids {
		e.end(e.byID[id], "Client.UserInitiatedShutdown: User initiated shutdown")
	}
	if fault != nil && fault.LoseReply {
		return &failure{lost: true}
	}
	return nil
}

func (e *EC2) end(i *Instance, why string) {
	if i.Alive() {
		i.EndedAt, i.Reason = e.o.Now(), why
	}
}

// Shutdown lets the guest power itself off: it is then gone, or stopped if it
// was launched so. It reports whether it was alive.
func (e *EC2) Shutdown(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := e.byID[id]
	if i == nil || !i.Alive() {
		return false
	}
	if i.ShutdownTerminates {
		e.end(i, "Client.InstanceInitiatedShutdown: Instance initiated shutdown")
	} else {
		i.StoppedAt = e.o.Now()
	}
	return true
}

// Reclaim takes a Spot instance back.
func (e *EC2) Reclaim(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := e.byID[id]; i != nil {
		e.end(i, "Server.SpotInstanceTermination: Spot instance termination")
	}
}

// Alive returns all that live, the oldest first.
func (e *EC2) Alive() []Instance {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.alive()
}

// All returns every instance there ever was.
func (e *EC2) All() []Instance {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []Instance
	for _, i := range e.list {
		out = append(out, *i)
	}
	return out
}

// Calls returns how often an action was asked for.
func (e *EC2) Calls(action string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.calls[action]
}

// tagString is all tags in one order.
func tagString(tags map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		fmt.Fprintf(&b, "%s=%s;", k, tags[k])
	}
	return b.String()
}
