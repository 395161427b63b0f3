package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"workmanager/ec2"
	"workmanager/jobs"
	"workmanager/node/keys"
	peersync "workmanager/sync"
	"workmanager/web"
	"workmanager/web/api"
)

const (
	// fleetDecisions is how many decisions GET /v1/fleet shows, statusDecisions
	// how many the status.
	fleetDecisions, statusDecisions = 50, 5
	// fleetFile is what the scheduler remembers over a restart.
	fleetFile = "fleet.json"
	// shareInterval of the fleet is how often the two schedulers tell each other.
	fleetShareInterval = time.Second
	// fleetRetry is how long to wait where the fleet cannot begin.
	fleetRetry = 15 * time.Second
)

// cloud is a Cloud with what it takes to begin and to end.
type cloud interface {
	// begin returns the settings, complete, and the Cloud for them. It is tried
	// again while it fails.
	begin(ctx context.Context) (ec2.Config, ec2.Parts, error)
	// end ends what must not outlive this process.
	end() error
}

// fleet is the scheduler and its surroundings in a node.
type fleet struct {
	cfg   Config
	cloud cloud
	queue *Queue
	pair  *peersync.Engine
	log   *slog.Logger
	now   func() time.Time

	scheduler atomic.Pointer[ec2.Scheduler] // nil until it has begun
	next      bell                          // rings with each decision
	why       atomic.Pointer[string]        // why it has not
	share     atomic.Pointer[[]byte]        // for the peer

	// Of the keeping loop alone.
	heardAt time.Time
	saved   []byte
	warned  bool
}

var _ web.Fleet = (*fleet)(nil)

// newFleet returns the fleet that the settings ask for, nil for none. It starts
// nothing.
func (n *Node) newFleet(other func(n *Node) cloud) (*fleet, error) {
	if !n.cfg.Fleet.on() {
		return nil, nil
	}
	f := &fleet{cfg: n.cfg, queue: n.queue, pair: n.pair, log: n.log, now: n.now}
	var err error
	switch {
	case other != nil:
		f.cloud = other(n)
	case n.cfg.Fleet.Kind == FleetProcess:
		f.cloud, err = n.newProcessCloud()
	case n.keys == nil: // it could never begin
		return nil, errors.New("--fleet ec2 needs --keys: instances reach the nodes over TLS, and are let in by a credential that a key of the pair signs; run 'workmanager init'")
	default:
		c := n.newEC2Cloud()
		f.cloud = c
		n.admission = &admission{owns: f.admit, ends: c.terminates, keys: n.keys, log: n.log}
	}
	return f, err
}

// run keeps the fleet until ctx is done.
func (f *fleet) run(ctx context.Context) (err error) {
	if f == nil {
		<-ctx.Done()
		return nil
	}
	defer func() { err = errors.Join(err, f.cloud.end()) }()
	s := f.begin(ctx)
	if s == nil {
		return nil
	}
	keeping := start(func() error { return f.keepLoop(ctx, s) })
	err = s.Run(ctx)
	<-keeping.done
	return errors.Join(err, keeping.err())
}

// begin makes the scheduler. It returns nil if ctx is done before it could.
func (f *fleet) begin(ctx context.Context) *ec2.Scheduler {
	for {
		s, err := f.try(ctx)
		if err == nil {
			f.scheduler.Store(s)
			return s
		}
		if ctx.Err() != nil {
			return nil
		}
		why := err.Error()
		if was := f.why.Swap(&why); was == nil || *was != why {
			f.log.Warn("fleet cannot begin, will be tried again", "err", err)
		}
		t := time.NewTimer(fleetRetry)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

func (f *fleet) try(ctx context.Context) (*ec2.Scheduler, error) {
	if err := f.queue.store.Size(ctx); err != nil {
		return nil, err
	}
	cfg, parts, err := f.cloud.begin(ctx)
	if err != nil {
		return nil, err
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	parts.Backlog, parts.Members, parts.Log, parts.OnDecision = f.queue, f.members, f.log, f.decided
	s := ec2.New(cfg, parts)
	switch b, err := os.ReadFile(f.file()); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read what the scheduler remembers: %w", err)
	default:
		if err := s.Restore(b); err != nil { // it is found out anew
			f.log.Warn("scheduler begins without its memory", "file", f.file(), "err", err)
		}
	}
	return s, nil
}

func (f *fleet) file() string { return filepath.Join(f.cfg.DataDir, fleetFile) }

// members is the pair as the scheduler sees it. A peer without a fleet cannot
// lead.
func (f *fleet) members() ec2.Members {
	p := f.pair.Peer()
	m := ec2.Members{Self: f.cfg.Name, Alive: []string{f.cfg.Name}, Pair: f.pair.Paired()}
	if p.Node != "" && (p.Alive || p.LoadFresh) && !p.FleetAt.IsZero() {
		m.Alive = append(m.Alive, p.Node)
	}
	return m
}

// decided tells of a decision, and logs one that did something.
func (f *fleet) decided(e ec2.Entry) {
	if len(e.Actions)+len(e.Outcome) > 0 {
		f.log.Info("fleet decided", "why", e.Why, "have", e.Have, "want", e.Want, "outcome", e.Outcome)
	}
	f.next.ring()
}

// Decided returns a channel that is closed with the next decision. See web.Fleet.
func (f *fleet) Decided() <-chan struct{} { return f.next.wait() }

// keepLoop tells the peer what its scheduler is to know, takes in what that
// says, and keeps on the disk what must outlive a restart.
func (f *fleet) keepLoop(ctx context.Context, s *ec2.Scheduler) error {
	tick := time.NewTicker(fleetShareInterval)
	defer tick.Stop()
	for {
		f.keep(s)
		select {
		case <-ctx.Done():
			f.save(s)
			return nil
		case <-tick.C:
		}
	}
}

func (f *fleet) keep(s *ec2.Scheduler) {
	now := f.now()
	if p := f.pair.Peer(); f.pair.Paired() {
		if p.LoadFresh && !p.FleetAt.Equal(f.heardAt) && len(p.Load.Fleet) > 0 {
			if err := s.Heard(now, p.Load.Fleet); err != nil {
				f.log.Warn("what the peer's scheduler says is not understood", "peer", p.Node, "err", err)
			}
		}
		f.heardAt = p.FleetAt
		b := s.Share(now)
		f.share.Store(&b)
		if without := p.LoadFresh && p.FleetAt.IsZero() && now.Sub(p.Since) > fleetRetry; without && !f.warned {
			f.log.Warn("the peer has no fleet: give both nodes the same --fleet; until then no worker is drained for being too many", "peer", p.Node)
			f.warned = true
		}
	}
	f.save(s)
}

// save writes what the scheduler remembers, if it has changed.
func (f *fleet) save(s *ec2.Scheduler) {
	b := s.Save()
	if bytes.Equal(b, f.saved) {
		return
	}
	if err := keys.Replace(f.file(), b); err != nil {
		f.log.Warn("fleet not remembered, will be tried again", "err", err)
		return
	}
	f.saved = b
}

// worked tells of a commit: if work came in, the scheduler looks soon.
func (f *fleet) worked(changed []jobs.Changed) {
	if f == nil {
		return
	}
	s := f.scheduler.Load()
	if s != nil && slices.ContainsFunc(changed, func(c jobs.Changed) bool { return !c.Job.Ended() }) {
		s.Wake()
	}
}

// shared is what the peer's scheduler is told, nil for nothing.
func (f *fleet) shared() []byte {
	if f == nil {
		return nil
	}
	if b := f.share.Load(); b != nil {
		return *b
	}
	return nil
}

// Fleet returns what the scheduler owns, with its last decisions. See web.Fleet.
func (f *fleet) Fleet(context.Context) (api.FleetStatus, error) {
	return f.status(fleetDecisions), nil
}

// status is the fleet with its last decisions, and without a fleet that of none.
func (f *fleet) status(decisions int) api.FleetStatus {
	if f == nil {
		return api.FleetStatus{Kind: FleetNone, Instances: []api.Instance{}}
	}
	s := f.scheduler.Load()
	if s == nil {
		st := api.FleetStatus{Kind: f.cfg.Fleet.Kind, Instances: []api.Instance{}, Paused: "the node has just started"}
		if why := f.why.Load(); why != nil {
			st.Paused = *why
		}
		return st
	}
	st := fleetStatus(s.Fleet(f.now()))
	for _, e := range s.Decisions(max(decisions, 1)) {
		st.Decisions = append(st.Decisions, fleetDecision(e))
	}
	if len(st.Decisions) > 0 {
		st.Held = limits[ec2.Limit(st.Decisions[0].Held)].is
	}
	return st
}

// Order gives an operator's order. See web.Fleet.
func (f *fleet) Order(_ context.Context, do, instance string) error {
	s := f.scheduler.Load()
	if s == nil {
		return jobs.Errorf(jobs.CodeUnavailable, "the fleet has not begun: %s", f.status(0).Paused).Retry(time.Second)
	}
	switch do {
	case api.FleetDrain:
		return s.Order(instance, ec2.Drain)
	case api.FleetTerminate:
		return s.Order(instance, ec2.Terminate)
	case api.FleetPause, api.FleetResume:
		s.Pause(do == api.FleetPause)
		return nil
	}
	return jobs.Errorf(jobs.CodeInvalid, "the fleet knows no order %q", do)
}

// admit says why a worker on an instance is not let in. See ec2.Scheduler.Admit.
func (f *fleet) admit(instance string, slot int, from netip.Addr) error {
	s := f.scheduler.Load()
	if s == nil {
		return jobs.Errorf(jobs.CodeUnavailable, "the fleet has not begun: %s", f.status(0).Paused).Retry(time.Second)
	}
	return s.Admit(instance, slot, from)
}

// fleetStatus is the fleet as the API shows it, without decisions.
func fleetStatus(f ec2.Fleet) api.FleetStatus {
	st := api.FleetStatus{
		Kind: f.Kind, Leader: f.Leader, Min: f.Min, Max: f.Max, Want: f.Want, Have: f.Have, Paused: f.Paused, PauseAsked: f.Asked,
		DrainSeconds: f.DrainTime.Seconds(), BootSeconds: f.Boot.Seconds(), SpentToday: f.Spent, SpentUnknown: f.Unpriced, Launched: f.Launched, Refused: f.Refused, SeenAt: instant(f.SeenAt),
		Instances: []api.Instance{},
	}
	sum, known := 0.0, true
	paid, rate := 0.0, 0.0 // of those whose price and rate are known
	for _, m := range f.Machines {
		i := api.Instance{
			ID: m.ID, State: m.Phase, Type: m.Type, Zone: m.Zone, Spot: m.Spot, Slot: m.Slot, Generation: m.Gen, Address: m.Address,
			LaunchedAt: instant(m.LaunchedAt), SeenAt: instant(m.SeenAt), Lanes: m.Lanes, Leases: m.Leases, Rate: m.Rate, PricePerHour: price(m.Price),
		}
		sum, known = sum+m.Price, known && i.PricePerHour != nil
		if m.Price > 0 && m.Rate > 0 {
			paid, rate = paid+m.Price, rate+m.Rate
		}
		switch m.Phase {
		case "pending", "booting":
			st.Booting++
		case "ending", "stopped":
		default:
			st.Running++
		}
		st.Instances = append(st.Instances, i)
	}
	if known {
		st.PricePerHour = &sum
	}
	if rate > 0 {
		st.IterationPrice = paid / rate / time.Hour.Seconds()
	}
	return st
}

// price is null where it is not known.
func price(dollars float64) *float64 {
	if dollars <= 0 {
		return nil
	}
	return &dollars
}

func fleetDecision(e ec2.Entry) api.FleetDecision {
	d := api.FleetDecision{
		At: e.At.UTC(), LastAt: e.Last.UTC(), Times: e.Times, Leader: e.Leader, Want: e.Want, Have: e.Have, Why: e.Why,
		Actions: []api.FleetAction{}, Outcome: []string{},
	}
	for _, a := range e.Actions {
		d.Actions = append(d.Actions, api.FleetAction{Do: string(a.Do), Instance: a.Instance, Slot: a.Slot.Slot, Why: a.Why})
	}
	d.Outcome, d.Held = append(d.Outcome, e.Outcome...), string(e.Held)
	return d
}
