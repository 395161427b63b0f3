package ec2

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"workmanager/jobs"
)

const (
	// Interval is how often the leader decides, and wakeTime how soon after a
	// job came in while there is no worker.
	Interval = 10 * time.Second
	wakeTime = time.Second
	// followInterval is how often a node that does not lead looks at the fleet,
	// so that it knows it when it has to.
	followInterval = time.Minute
	// leadTime is how long a node must have been the one to lead.
	leadTime = 15 * time.Second
	// callTimeout bounds one call of the cloud.
	callTimeout = 20 * time.Second
	// unseenTime is how long an instance that was launched may not be shown.
	unseenTime = time.Minute
	// forgetTime is how long an instance is remembered that is shown no more.
	forgetTime = 2 * time.Hour
	// aliveTime is how long what a worker of the other node says counts.
	aliveTime = time.Minute

	quotaTime     = 30 * time.Minute
	wrongTime     = 15 * time.Minute
	throttleLeast = 10 * time.Second
	throttleMost  = 5 * time.Minute
	bootWeight    = 0.2
	entryCount    = 200
)

// Members is the pair as this node sees it.
type Members struct {
	Self  string
	Alive []string // names of the nodes that are alive, this one among them or not
	Pair  bool     // another node is expected
}

// Parts are what a scheduler works with. Cloud and Backlog are needed.
type Parts struct {
	Cloud   Cloud
	Backlog Backlog
	Members func() Members // nil: this node is alone
	// SpotPrices returns dollars an hour by offer, nil if they are not known.
	SpotPrices func(ctx context.Context) (map[Offer]float64, error)
	Log        *slog.Logger // nil: none
	Rand       *rand.Rand   // spreads retries; nil: seeded by chance
	// OnDecision hears of each decision, also of one to do nothing, once Decisions
	// has it. It must not block.
	OnDecision func(Entry)
}

// Scheduler keeps the fleet as large as its work needs. It is safe for
// concurrent use, but for Step, which one goroutine calls at a time.
type Scheduler struct {
	cfg  Config
	p    Parts
	wake chan struct{} // capacity 1: a job or an order came in
	have atomic.Int64  // workers, as decided last

	mu        sync.Mutex // guards the rest; not held over calls
	ledger    ledger
	machines  map[string]*machine
	arrivals  Arrivals
	arrived   jobs.Work
	met       bool // arrived was read once
	lanes     float64
	rate      float64 // iterations a second of one worker
	boot      time.Duration
	since     time.Time
	leadSince time.Time
	leading   bool
	lookedAt  time.Time
	stranger  bool // somebody asked for an instance that is not known
	launches  []time.Time
	bill      bill
	// launchCount and refusalCount are since the start.
	launchCount, refusalCount int64
	unseen                    int
	spoilt                    int              // workers in a row that were quarantined
	spoiltAt                  time.Time        // the last of them
	pauses                    uint64           // how often an operator paused or resumed: odd is paused
	asked                     map[string]asked // what operators asked for, by instance
	pauseUntil                time.Time
	pauseWhy                  string
	throttle                  time.Duration
	mostNow                   int
	mostUntil                 time.Time
	prices                    map[Offer]float64
	pricesAt                  time.Time
	direct                    []Worker          // heard here
	workers                   map[string]Worker // heard at the other node
	orders                    Orders            // as given last
	theirs                    Orders            // as the other node's scheduler gave them
	peerAway                  bool
	entries                   []Entry // oldest first
	last                      Decision
}

// machine is what is remembered of an instance.
type machine struct {
	Instance
	bornAt     time.Time
	seenAt     time.Time
	untilSeen  time.Time // counts until then, shown or not: answers may be older than the last one
	endedAt    time.Time // zero while it may live
	worker     *Worker   // nil: has not registered
	registered bool      // ever
	sampled    bool      // its boot was measured
	drainAt    time.Time
	suspect    time.Time
	ending     bool
	spared     bool // ended for being one too many: no fault of its own
	failed     bool // counted as one that never registered
	bad        bool // counted as one whose worker was quarantined
	quarantine string
	price      float64
}

func (m *machine) dead() bool { return !m.endedAt.IsZero() }

// Entry is a decision with what came of it. Decisions in a row to do nothing,
// for as many workers and the same limit, are one entry: the last.
type Entry struct {
	Decision
	Times   int       // how often it was decided
	Last    time.Time // when last
	Leader  bool
	Outcome []string
}

// New returns a scheduler. It does nothing before Run or Step.
func New(cfg Config, p Parts) *Scheduler {
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	if p.Rand == nil {
		p.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	return &Scheduler{
		cfg: cfg, p: p, wake: make(chan struct{}, 1), ledger: newLedger(cfg), machines: map[string]*machine{},
		lanes: float64(cfg.Lanes), rate: cfg.Rate, boot: cfg.Boot, prices: map[Offer]float64{}, workers: map[string]Worker{}, asked: map[string]asked{},
	}
}

// Run steps until ctx is done. It returns nil then.
func (s *Scheduler) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	next := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
			if soon := time.Now().Add(s.cfg.hasten(wakeTime)); soon.Before(next) {
				next = soon
				timer.Reset(s.cfg.hasten(wakeTime))
			}
			continue
		case now := <-timer.C:
			if err := s.Step(ctx, now); err != nil && ctx.Err() == nil {
				s.p.Log.Warn("fleet not decided, will be tried again", "err", err)
			}
		}
		next = time.Now().Add(s.cfg.interval())
		timer.Reset(s.cfg.interval())
	}
}

// Wake tells that a job came in. With no worker the next decision is then a
// second away. It never blocks.
func (s *Scheduler) Wake() {
	if s.have.Load() == 0 {
		s.nudge()
	}
}

// nudge brings the next decision to a second away. It never blocks.
func (s *Scheduler) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Step decides once, and acts if this node leads. An error means that there was
// no decision, neither to launch nor to end anything.
func (s *Scheduler) Step(ctx context.Context, now time.Time) error {
	leads := s.leads(now)
	demand, err := s.p.Backlog.Demand(ctx)
	if err != nil {
		return s.undecided(now, leads, fmt.Errorf("read the backlog: %w", err))
	}
	s.mu.Lock()
	s.arrive(now, demand)
	s.direct = demand.Workers // also where this node does not lead: the other one hears of them
	since := now.Sub(s.lookedAt)
	look := leads || since >= s.cfg.hasten(followInterval) || s.stranger && since >= s.cfg.interval()
	theirs := s.theirs
	s.mu.Unlock()
	if !leads {
		if err := s.p.Backlog.Order(ctx, theirs); err != nil {
			return fmt.Errorf("pass on the orders of the node that leads: %w", err)
		}
	}
	if !look {
		return nil
	}
	seen, err := s.instances(ctx)
	if err != nil {
		return s.undecided(now, leads, fmt.Errorf("look at the instances: %w", err))
	}
	s.readPrices(ctx, now)

	s.mu.Lock()
	s.observe(now, seen, demand)
	in := s.input(now, demand)
	d := Plan(now, s.cfg, &in)
	d.Why = s.because(now, d.Why, in)
	s.since = d.Since
	s.mind(now, d)
	s.last = d
	s.have.Store(int64(d.Have))
	s.mu.Unlock()
	if !leads {
		d.Actions = nil
		d.Why = "the other node leads; here it would be: " + d.Why
		s.note(Entry{Decision: d, Times: 1, Last: now})
		return nil
	}
	s.note(Entry{Decision: d, Times: 1, Last: now, Leader: true, Outcome: s.act(ctx, now, d)})
	return nil
}

// leads reports whether this node is the one to act: the living one of the
// smallest name, once it has been so for a while. That two do so at once must
// not matter, and does not.
func (s *Scheduler) leads(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.p.Members == nil {
		s.leading = true
		return true
	}
	m := s.p.Members()
	if !m.Pair {
		s.leading, s.peerAway = true, false
		return true
	}
	others := slices.DeleteFunc(slices.Clone(m.Alive), func(name string) bool { return name == m.Self })
	s.peerAway = m.Pair && len(others) == 0
	first := !slices.ContainsFunc(others, func(name string) bool { return name < m.Self })
	switch {
	case !first:
		s.leadSince = time.Time{}
	case s.leadSince.IsZero() || now.Before(s.leadSince):
		s.leadSince = now
	}
	s.leading = first && now.Sub(s.leadSince) >= s.cfg.lead()
	return s.leading
}

func (s *Scheduler) instances(ctx context.Context) ([]Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return s.p.Cloud.Instances(ctx)
}

// undecided keeps why there was no decision.
func (s *Scheduler) undecided(now time.Time, leads bool, err error) error {
	s.mu.Lock()
	have := s.last.Have
	s.mu.Unlock()
	s.note(Entry{Decision: Decision{At: now, Have: have, Why: "no decision: " + err.Error()}, Times: 1, Last: now, Leader: leads})
	return err
}

// arrive takes the work that came in since the last look into the rate.
func (s *Scheduler) arrive(now time.Time, d Demand) {
	if grown := d.Arrived.Float() - s.arrived.Float(); s.met && grown > 0 {
		s.arrivals.Add(now, grown/s.laneRate())
	}
	s.arrived, s.met = d.Arrived, true
}

// laneRate returns iterations a second of one lane.
func (s *Scheduler) laneRate() float64 { return max(s.rate/s.lanes, 1) }

// readPrices asks for Spot prices every few minutes; without them they are unknown.
func (s *Scheduler) readPrices(ctx context.Context, now time.Time) {
	s.mu.Lock()
	due := s.p.SpotPrices != nil && s.cfg.Spot && (s.pricesAt.IsZero() || now.Sub(s.pricesAt) >= 5*time.Minute)
	s.mu.Unlock()
	if !due {
		return
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	prices, err := s.p.SpotPrices(call)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pricesAt = now
	if err != nil {
		s.p.Log.Warn("Spot prices not read, will be tried again", "err", err)
		return
	}
	s.prices = prices
}

// price returns dollars an hour, 0 if that is not known.
func (s *Scheduler) price(o Offer) float64 {
	if o.Spot {
		return s.prices[o]
	}
	return s.cfg.Prices[o.Type]
}

// observe takes in what the cloud shows and what workers say.
func (s *Scheduler) observe(now time.Time, seen []Instance, d Demand) {
	before := s.lookedAt
	s.lookedAt, s.stranger = now, false
	for _, i := range seen {
		s.ledger.raise(i.Slot, markOf(i.Gen, i.State.Dead()))
		m, known := s.machines[i.ID]
		if !known {
			m = &machine{price: s.price(i.Offer), bornAt: born(i.LaunchedAt, before, now)}
			m.sampled = before.IsZero() // when it had its first lease was before this process
			s.machines[i.ID] = m
			_, m.bad = d.Quarantined[i.ID]
			m.bad = m.bad && i.State.Dead() // that one is long past
			if !i.State.Dead() {
				s.p.Log.Info("instance found that was not launched here", "instance", i.ID, "slot", i.Slot, "gen", i.Gen)
			}
		}
		was := m.dead()
		if was && !i.State.Dead() {
			continue // an old answer: no way leads back
		}
		i.LaunchedAt = m.bornAt
		m.Instance, m.seenAt, m.untilSeen = i, now, now.Add(s.cfg.hasten(unseenTime))
		if !was && i.State.Dead() {
			m.endedAt = now
			s.enter(now, m)
			if known && s.leading {
				s.died(now, m)
			}
		}
	}
	for _, id := range s.theirs.Drain { // so that it stays so when this node leads
		if m := s.machines[id]; m != nil && m.drainAt.IsZero() {
			m.drainAt = now
		}
	}
	heard := maps.Clone(s.workers)
	for _, w := range d.Workers {
		if there, both := heard[w.Instance]; !both || w.SeenAt.After(there.SeenAt) {
			heard[w.Instance] = w
		}
	}
	var lanes, rate, known float64
	for id, w := range heard {
		m := s.machines[id]
		if m == nil {
			continue
		}
		if m.worker = &w; !m.registered {
			m.registered = true
			s.unseen = 0
		}
		if w.Leased && !m.sampled && !w.LeasedAt.IsZero() {
			m.sampled = true
			took := min(max(w.LeasedAt.Sub(m.LaunchedAt), s.cfg.BootLeast), s.cfg.BootMost)
			s.boot += time.Duration(bootWeight * float64(took-s.boot))
		}
		if w.Lanes > 0 && w.Rate > 0 && !m.dead() {
			known, lanes, rate = known+1, lanes+float64(w.Lanes), rate+w.Rate
		}
	}
	if known > 0 {
		s.lanes, s.rate = lanes/known, rate/known
	}
	s.distrust(now, d)
	for id, m := range s.machines {
		if now.Sub(m.seenAt) > forgetTime {
			s.enter(now, m) // if its end was not seen
			delete(s.machines, id)
		}
	}
	s.forget(now)
	maps.DeleteFunc(s.workers, func(_ string, w Worker) bool { return now.Sub(w.SeenAt) > forgetTime })
	s.launches = slices.DeleteFunc(s.launches, func(at time.Time) bool { return now.Sub(at) >= time.Hour })
}

// born returns when an instance was launched, by the clock of this node, which
// may be an hour off: not after it is seen, and not before the last look, which
// did not show it. Only of those of the first look is the cloud's word taken.
func born(launched, before, now time.Time) time.Time {
	if launched.Before(before) {
		launched = before
	}
	if launched.After(now) {
		launched = now
	}
	return launched
}

// died takes in the end of an instance.
func (s *Scheduler) died(now time.Time, m *machine) {
	spot := m.Spot && strings.Contains(m.Reason, "SpotInstance")
	if spot || s.left(m) {
		o := m.Offer
		if s.ledger.has(m.Slot) {
			o = s.cfg.Offer(m.Slot) // in the words of the settings
		}
		s.ledger.setAside(now, o, "a Spot instance of it was taken back")
	}
	if !m.registered && !m.spared && !spot && m.drainAt.IsZero() {
		s.failed(now, m)
	}
}

// left reports whether a Spot instance ended itself in the middle of its work,
// though nobody asked it to. That is what one does that hears that it will be
// taken back, long before EC2 says so.
func (s *Scheduler) left(m *machine) bool {
	_, idle := s.orders.Idle[m.ID]
	return m.Spot && m.registered && !idle && m.drainAt.IsZero() && !m.ending && strings.Contains(m.Reason, "InstanceInitiatedShutdown")
}

// failed counts an instance whose worker was never heard of, once.
func (s *Scheduler) failed(now time.Time, m *machine) {
	if m.failed {
		return
	}
	m.failed = true
	s.p.Log.Warn("instance never registered", "instance", m.ID, "reason", m.Reason)
	if s.unseen++; s.unseen >= failLimit {
		why := fmt.Sprintf("%d launches in a row never registered", s.unseen)
		if m.Reason != "" {
			why += ", the last for " + m.Reason
		}
		s.pause(now.Add(wrongTime), why)
	}
}

func (s *Scheduler) pause(until time.Time, why string) {
	if until.After(s.pauseUntil) {
		s.pauseUntil, s.pauseWhy = until, why
	}
}

// input gathers what Plan goes by.
func (s *Scheduler) input(now time.Time, d Demand) Input {
	spent, _ := s.spent(now)
	in := Input{
		Slots: s.ledger.free(now), Queued: d.Queued, Rate: s.arrivals.Rate(now), Lanes: s.lanes, Boot: s.boot, Since: s.since,
		Unseen: s.unseen, Spoilt: s.spoilt, Recent: len(s.launches), Spent: spent, PausedUntil: s.pauseUntil, Pause: s.pauseWhy, PeerAway: s.peerAway,
	}
	if s.paused() {
		in.PausedUntil, in.Pause = now.Add(s.cfg.interval()), Asked
	}
	if now.Before(s.mostUntil) {
		in.MostNow = max(s.mostNow, 1)
	}
	if d.Open != nil {
		in.Jobs = d.Open.Jobs()
		most := s.cfg.DrainTime(s.boot).Seconds() * s.laneRate()
		in.Capped = d.Open.Capped(most) / s.laneRate()
	}
	for _, m := range s.machines {
		if m.dead() || !now.Before(m.untilSeen) {
			continue
		}
		x := Machine{Instance: m.Instance, Worker: m.worker, DrainAt: m.drainAt, Suspect: m.suspect, Ending: m.ending, Ordered: s.asked[m.ID].do, Quarantined: m.quarantine, Unproven: s.unproven(m)}
		in.Machines = append(in.Machines, x)
	}
	if len(in.Slots) > 0 {
		in.Price = s.price(in.Slots[0].Offer)
	}
	return in
}

// because adds to a reason what has been set aside, where that matters.
func (s *Scheduler) because(now time.Time, why string, in Input) string {
	if in.Jobs > 0 || s.cfg.Min > 0 {
		for _, a := range s.ledger.asides(now) {
			why += "; " + a
		}
	}
	return why
}

// mind keeps what the next decision goes by.
func (s *Scheduler) mind(now time.Time, d Decision) {
	for id, m := range s.machines {
		switch suspect := slices.Contains(d.Suspects, id); {
		case !suspect:
			m.suspect = time.Time{}
		case m.suspect.IsZero():
			m.suspect = now
			if s.leading && !m.registered {
				s.failed(now, m)
			}
		}
	}
}

// alive returns how many instances may be alive.
func (s *Scheduler) alive(now time.Time) int {
	n := 0
	for _, m := range s.machines {
		if !m.dead() && now.Before(m.untilSeen) {
			n++
		}
	}
	return n
}
