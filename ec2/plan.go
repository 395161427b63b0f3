package ec2

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Times that Plan goes by. Each was chosen by simulation or by what EC2 does.
const (
	minAge        = time.Minute      // no worker ends before it: EC2 bills a minute at least
	holdTime      = time.Minute      // too many workers for so long, before one drains
	shortIdle     = 15 * time.Second // a worker that is one too many ends when idle for so long
	longIdle      = 90 * time.Second // the others: about what a boot costs
	registerLimit = 10 * time.Minute // from launch to the first word to a node
	strayLimit    = 5 * time.Minute  // the same, for one that is in no slot
	silenceLimit  = 3 * time.Minute  // without a word, of one that has registered
	secondLook    = time.Minute      // between two looks at one that is to be terminated
	drainLimit    = 2 * time.Minute  // from the order to drain to the end
	maxAge        = 24 * time.Hour
	failLimit     = 3 // launches that never registered, in a row, before a pause
)

// Plan decides what is to be done now. It is the whole policy: it reads no
// clock, keeps nothing, and returns the same for the same arguments.
//
// The rules, in their order: workers that are lost, stray, silent, quarantined or
// too old are ended; enough are launched to do the work within the drain time, within the
// caps; those that were too many for a minute are drained; and each idle worker
// is told how long it may stay so.
func Plan(now time.Time, cfg Config, in *Input) Decision {
	p := planner{now: now, cfg: cfg, in: in, out: Decision{At: now, MostNow: cfg.Max}}
	p.sort()
	p.safety()
	p.count()
	p.launch()
	p.shrink()
	p.idle()
	p.explain()
	return p.out
}

// Input is all that a decision rests on.
type Input struct {
	Machines []Machine // every one that may be alive, in any order
	Slots    []Slot    // that may be filled, lowest first; one with a live machine is skipped

	Jobs    int64   // chains queued or running
	Queued  int64   // chains that wait
	Capped  float64 // remaining work in lane-seconds, each chain cut at the drain time
	Rate    float64 // sustained arriving work, lane-seconds a second
	Lanes   float64 // of a worker that is not known so far
	Boot    time.Duration
	Since   time.Time // Decision.Since of the last decision
	Unseen  int       // launches in a row that never registered
	Spoilt  int       // workers in a row that were quarantined
	Recent  int       // launches of the last hour
	Spent   float64   // dollars today
	Price   float64   // dollars an hour of the next launch; 0 unknown
	MostNow int       // EC2 allows no more for now; 0 no such limit
	// PausedUntil is until when nothing may be launched, and Pause why.
	PausedUntil time.Time
	Pause       string
	// PeerAway says that the other node is not heard. What registered there only
	// is not known here, so nothing is ended that a worker could still need.
	PeerAway bool
}

// Machine is an instance with all that is known of it.
type Machine struct {
	Instance
	Worker  *Worker   // nil if it has not registered
	DrainAt time.Time // when it was told to drain
	Suspect time.Time // since when it is to be terminated on a second look
	Ending  bool      // its end was asked for, and is not seen so far
	Ordered Verb      // an operator's order: drain, terminate or none
	// Quarantined is why its worker gets no job, "" if it may have some. Unproven
	// tells that it came after the last one that was quarantined, and has not worked
	// for long.
	Quarantined string
	Unproven    bool
}

// Slot is a place that a launch may fill.
type Slot struct {
	Slot int
	Gen  int
	Offer
}

// Verb is what an action does.
type Verb string

// The verbs.
const (
	Launch    Verb = "launch"
	Drain     Verb = "drain"
	Terminate Verb = "terminate"
)

// Action is one thing to do, and why. A launch has a slot, the others an instance.
type Action struct {
	Do       Verb
	Slot     Slot
	Instance string
	Why      string
}

// Decision is what Plan found.
type Decision struct {
	At      time.Time
	Actions []Action
	Want    int     // workers wanted, before any cap
	Have    int     // workers that are not draining, those that boot among them
	Work    float64 // lane-seconds to do within the drain time
	Can     float64 // lane-seconds that the workers can do in it
	MostNow int     // workers allowed now
	// Since is since when there were too many workers without a break.
	Since time.Time
	// Suspects are instances that will be terminated if they look the same later.
	Suspects []string
	// Idle is how long each idle worker may stay so, 0 being for ever.
	Idle map[string]time.Duration
	// Held is what kept it from launching as many as the work asks for, "" if
	// nothing did: of several limits the one that let the fewest through.
	Held Limit
	Why  string // in a sentence
}

// Limit is what keeps a scheduler from launching.
type Limit string

// The limits.
const (
	HeldMax     Limit = "max_workers"
	HeldQuota   Limit = "quota"         // EC2 allows no more
	HeldHour    Limit = "launches_hour" // as many as an hour may see
	HeldBudget  Limit = "budget"        // of the day
	HeldPrice   Limit = "price"         // is not known, and there is a budget
	HeldPause   Limit = "paused"        // by an operator
	HeldRefused Limit = "refused"       // the cloud said no, and is asked again later
	HeldLost    Limit = "lost"          // what was launched never registered
	HeldSpoilt  Limit = "quarantined"   // were the workers of what was launched
	HeldSlots   Limit = "slots"         // all are taken or set aside
)

// Limits are all of them.
var Limits = []Limit{HeldMax, HeldQuota, HeldHour, HeldBudget, HeldPrice, HeldPause, HeldRefused, HeldLost, HeldSpoilt, HeldSlots}

// Asked is why launches pause that an operator has paused.
const Asked = "an operator asked for it"

type planner struct {
	now  time.Time
	cfg  Config
	in   *Input
	out  Decision
	own  []*Machine // alive, not draining, not ending: by slot
	all  int        // own and draining
	full map[int]bool

	lanes   float64 // of a worker
	running int64
	unseen  int // launches that are given up by this decision
	reasons []string
}

// DrainTime returns the time in which the backlog is to be done, given how long
// a worker takes to boot: below three times that it only buys boots.
func (c Config) DrainTime(boot time.Duration) time.Duration { return max(c.Drain, 3*boot) }

func (p *planner) say(format string, args ...any) {
	p.reasons = append(p.reasons, fmt.Sprintf(format, args...))
}

func (p *planner) act(do Verb, m *Machine, format string, args ...any) {
	p.out.Actions = append(p.out.Actions, Action{Do: do, Instance: m.ID, Slot: Slot{Slot: m.Slot, Gen: m.Gen, Offer: m.Offer}, Why: fmt.Sprintf(format, args...)})
}

func (p *planner) sort() {
	slices.SortStableFunc(p.in.Machines, func(a, b Machine) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), a.LaunchedAt.Compare(b.LaunchedAt), cmp.Compare(a.ID, b.ID))
	})
	p.full = map[int]bool{}
}

// safety ends what costs money for nothing, and sorts the rest.
func (p *planner) safety() {
	holder := map[int]string{} // slot: the instance that has it
	var free []*Machine
	for i := range p.in.Machines {
		m := &p.in.Machines[i]
		p.full[m.Slot] = true
		if m.State == ShuttingDown {
			continue // it ends, and keeps its slot until that is sure
		}
		p.all++
		age := p.now.Sub(m.LaunchedAt)
		switch {
		case m.Ending:
			p.act(Terminate, m, "its end is not seen so far")
			continue
		case m.Ordered == Terminate:
			p.act(Terminate, m, Asked)
			continue
		case m.State == Stopped:
			p.act(Terminate, m, "it stopped, and a stopped instance is paid for without use")
			continue
		case m.Quarantined != "":
			p.spoilt(m)
			continue // it is no capacity
		case !m.DrainAt.IsZero():
			if p.now.Sub(m.DrainAt) >= p.cfg.hasten(drainLimit) {
				p.act(Terminate, m, "it was told to drain %s ago and is still there", rough(p.now.Sub(m.DrainAt)))
			}
			continue
		case m.Ordered == Drain:
			p.act(Drain, m, Asked)
			continue
		}
		if why := p.doubt(m, age); why != "" {
			if p.in.PeerAway {
				p.say("%s is kept while the other node is away: %s", m.ID, why)
			} else {
				p.out.Suspects = append(p.out.Suspects, m.ID)
				if m.Worker == nil && m.Suspect.IsZero() {
					p.unseen++
				}
				if !m.Suspect.IsZero() && p.now.Sub(m.Suspect) >= p.cfg.hasten(secondLook) {
					p.act(Terminate, m, "%s", why)
				}
				continue // it is no capacity
			}
		}
		if other, taken := holder[m.Slot]; taken && m.Slot >= 0 && !p.in.PeerAway {
			p.drop(m, "slot %d is %s's, which is older", m.Slot, other)
			continue
		}
		holder[m.Slot] = m.ID
		switch {
		case p.in.PeerAway:
		case m.Slot >= p.cfg.SlotCount():
			p.drop(m, "there is no slot %d any more", m.Slot)
			continue
		case age >= maxAge:
			p.drop(m, "it is %s old", rough(age))
			continue
		case p.cfg.BudgetPerDay > 0 && p.in.Spent >= p.cfg.BudgetPerDay:
			p.drop(m, "the day's budget of $%.2f is spent", p.cfg.BudgetPerDay)
			continue
		}
		free = append(free, m)
	}
	p.own = free
}

// spoilt ends a machine whose worker is quarantined. It does so behind its leases:
// they end with the quarantine, but the other node may have heard of that later.
func (p *planner) spoilt(m *Machine) {
	switch {
	case p.in.PeerAway: // where an operator may have lifted it; the worker itself ends when it is idle for long
		p.say("%s is quarantined, and kept while the other node is away", m.ID)
	case m.worker().Leases > 0:
		p.say("%s is quarantined, and ends when the %d jobs it had are taken back", m.ID, m.worker().Leases)
	default:
		p.act(Terminate, m, "its worker is quarantined: %s", m.Quarantined)
	}
}

// drop drains a machine that has a worker, and terminates another.
func (p *planner) drop(m *Machine, format string, args ...any) {
	if m.Worker == nil {
		p.act(Terminate, m, format, args...)
		return
	}
	p.act(Drain, m, format, args...)
}

// doubt says why nobody can use the machine, "" if somebody may.
func (p *planner) doubt(m *Machine, age time.Duration) string {
	switch {
	case m.Worker != nil:
		if silent := p.now.Sub(m.Worker.SeenAt); silent >= p.cfg.hasten(silenceLimit) {
			return "it has said nothing for " + rough(silent)
		}
	case m.Slot < 0 && age >= p.cfg.hasten(strayLimit):
		return "it is in no slot, and has not registered in " + rough(age)
	case age >= p.cfg.hasten(registerLimit):
		return "it has not registered in " + rough(age)
	}
	return ""
}

// count sets what there is and what is wanted.
func (p *planner) count() {
	var known, lanes float64
	boot, t := p.in.Boot, p.cfg.DrainTime(p.in.Boot)
	for _, m := range p.own {
		if m.Worker != nil && m.Worker.Lanes > 0 {
			known, lanes = known+1, lanes+float64(m.Worker.Lanes)
			p.running += int64(min(m.Worker.Leases, m.Worker.Lanes))
		}
	}
	p.lanes = max(p.in.Lanes, 1)
	if known > 0 {
		p.lanes = lanes / known
	}
	for _, m := range p.own {
		s, left := p.lanes, t
		switch {
		case m.Worker == nil:
			left -= max(0, boot-p.now.Sub(m.LaunchedAt))
		case m.Worker.Lanes > 0:
			s = float64(m.Worker.Lanes)
		}
		p.out.Can += s * max(0, left.Seconds())
	}
	p.out.Have = len(p.own)
	p.out.Work = p.in.Capped + p.in.Rate*t.Seconds()
	p.out.Want = ceil(p.out.Work / (p.lanes * t.Seconds()))
}

// launch fills as many slots as the work needs and the caps allow.
func (p *planner) launch() {
	n, t := len(p.own), p.cfg.DrainTime(p.in.Boot)
	m := 0
	if p.out.Work > p.out.Can {
		m = ceil((p.out.Work - p.out.Can) / (p.lanes * max(p.cfg.least(), t-p.in.Boot).Seconds()))
		m = min(m, ceil((float64(p.in.Jobs)+math.Ceil(p.in.Rate*t.Seconds()))/p.lanes)-n)
	}
	m = max(m, p.cfg.Min-n)
	if m <= 0 {
		return
	}
	wanted := m
	limit := func(held Limit, most int, format string, args ...any) {
		if most = max(most, 0); most < m {
			m, p.out.Held = most, held
			p.say(format, args...)
		}
	}
	limit(HeldMax, p.cfg.Max-p.all, "--max-workers is %d", p.cfg.Max)
	if p.in.MostNow > 0 {
		p.out.MostNow = min(p.out.MostNow, p.in.MostNow)
		limit(HeldQuota, p.in.MostNow-p.all, "EC2 allows no more than %d for now", p.in.MostNow)
	}
	hour := p.cfg.HourLimit()
	limit(HeldHour, hour-p.in.Recent, "%d of at most %d launches in the last hour", p.in.Recent, hour)
	if budget := p.cfg.BudgetPerDay; budget > 0 {
		if p.in.Price <= 0 {
			limit(HeldPrice, 0, "what a launch costs is not known, so a budget cannot be kept: give the price of the type")
		} else {
			each := p.in.Price * max(p.cfg.least(), t+p.in.Boot).Hours()
			limit(HeldBudget, int(min((budget-p.in.Spent)/each, 1e9)), "$%.2f of the day's $%.2f are spent", p.in.Spent, budget)
		}
	}
	switch {
	case p.now.Before(p.in.PausedUntil) && p.in.Pause == Asked:
		limit(HeldPause, 0, "launches pause: %s", Asked)
	case p.now.Before(p.in.PausedUntil):
		held := HeldRefused
		switch {
		case p.in.Unseen >= failLimit:
			held = HeldLost
		case p.in.Spoilt >= failLimit:
			held = HeldSpoilt
		}
		limit(held, 0, "launches pause until %s: %s", p.in.PausedUntil.UTC().Format(time.TimeOnly), p.in.Pause)
	case p.unseen > 0 && p.in.Unseen+p.unseen >= failLimit:
		limit(HeldLost, 0, "%d launches in a row never registered", p.in.Unseen+p.unseen)
	case p.in.Unseen >= failLimit:
		booting := 0
		for i := range p.in.Machines {
			if p.in.Machines[i].Worker == nil {
				booting++
			}
		}
		limit(HeldLost, 1-booting, "%d launches in a row never registered, so one at a time is tried", p.in.Unseen)
	}
	if p.in.Spoilt >= failLimit {
		unproven := 0
		for i := range p.in.Machines {
			if m := &p.in.Machines[i]; m.Unproven && !m.Ending && !m.State.Dead() {
				unproven++
			}
		}
		limit(HeldSpoilt, 1-unproven, "%d workers in a row were quarantined, so one at a time is tried", p.in.Spoilt)
	}
	free := Pick(p.in.Slots, p.full, m)
	limit(HeldSlots, len(free), "no slot is usable: all are taken or set aside")
	if m < wanted {
		p.say("so %d of %d launches are made", m, wanted)
	}
	for _, s := range free[:m] {
		p.out.Actions = append(p.out.Actions, Action{Do: Launch, Slot: s, Why: p.need()})
	}
}

// Pick returns the lowest n slots that are not full.
func Pick(slots []Slot, full map[int]bool, n int) []Slot {
	var out []Slot
	for _, s := range slots {
		if len(out) >= n {
			break
		}
		if !full[s.Slot] {
			out = append(out, s)
		}
	}
	return out
}

// need says what the work asks for.
func (p *planner) need() string {
	if p.out.Work <= p.out.Can {
		return fmt.Sprintf("--min-workers is %d", p.cfg.Min)
	}
	return fmt.Sprintf("%.0f lane-seconds of work are to be done in %s, and %d workers can do %.0f",
		p.out.Work, rough(p.cfg.DrainTime(p.in.Boot)), p.out.Have, p.out.Can)
}

// keep returns how many workers are to stay.
func (p *planner) keep() int {
	return max(p.out.Want, ceil(float64(p.running)/p.lanes), p.cfg.Min)
}

// shrink drains the workers that were too many for a while.
func (p *planner) shrink() {
	surplus := len(p.own) - p.keep()
	if p.in.Queued > 0 || surplus <= 0 {
		return
	}
	if p.out.Since = p.in.Since; p.out.Since.IsZero() {
		p.out.Since = p.now
	}
	if left := p.cfg.hold() - p.now.Sub(p.out.Since); left > 0 {
		p.say("%d more than needed; they drain if that lasts %s more", surplus, rough(left))
		return
	}
	if p.in.PeerAway {
		p.say("%d more than needed; none is drained while the other node is away", surplus)
		return
	}
	var able []*Machine
	for _, m := range p.own {
		switch {
		case m.Worker == nil && p.running > 0:
			surplus-- // it is one too many as soon as it has registered, rather than one that works
		case p.now.Sub(m.LaunchedAt) >= p.cfg.least():
			able = append(able, m)
		}
	}
	slices.SortStableFunc(able, func(a, b *Machine) int {
		wa, wb := a.worker(), b.worker()
		return cmp.Or(compareBool(wa.Leased, wb.Leased), cmp.Compare(wa.Leases, wb.Leases),
			cmp.Compare(wa.Remaining, wb.Remaining), cmp.Compare(b.Slot, a.Slot))
	})
	for _, m := range able[:max(0, min(surplus, len(able)))] {
		p.drop(m, "%d workers are %d more than needed", len(p.own), len(p.own)-p.keep())
	}
}

// worker returns the machine's worker, one that never did anything if it has none.
func (m *Machine) worker() Worker {
	if m.Worker == nil {
		return Worker{}
	}
	return *m.Worker
}

// idle says how long idle workers may stay.
func (p *planner) idle() {
	p.out.Idle = map[string]time.Duration{}
	short := len(p.own) - max(p.out.Want, 1, p.cfg.Min)
	for i := len(p.own) - 1; i >= 0; i-- {
		m := p.own[i]
		if m.Worker == nil || m.Worker.Leases > 0 {
			continue
		}
		switch {
		case short > 0:
			short--
			p.out.Idle[m.ID] = p.cfg.shortIdle()
		case len(p.own) <= p.cfg.Min:
			p.out.Idle[m.ID] = 0
		default:
			p.out.Idle[m.ID] = p.cfg.longIdle()
		}
	}
}

// explain puts the decision into a sentence.
func (p *planner) explain() {
	var parts []string
	counts := map[Verb]int{}
	for _, a := range p.out.Actions {
		counts[a.Do]++
	}
	for _, v := range []Verb{Launch, Drain, Terminate} {
		if counts[v] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", v, counts[v]))
		}
	}
	did := strings.Join(parts, ", ")
	if did == "" {
		did = fmt.Sprintf("hold at %d", p.out.Have)
	}
	var why string
	switch {
	case p.in.Jobs == 0 && p.in.Rate == 0:
		why = "nothing is queued or running"
	case p.out.Work > p.out.Can:
		why = p.need()
	default:
		why = fmt.Sprintf("%d workers do the work of %.0f lane-seconds within %s", p.out.Have, p.out.Work, rough(p.cfg.DrainTime(p.in.Boot)))
	}
	p.out.Why = did + ": " + strings.Join(append([]string{why}, p.reasons...), "; ")
}

func ceil(f float64) int { return int(math.Ceil(min(max(f, 0), 1e9))) }

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// rough is d to the second, for people.
func rough(d time.Duration) string { return d.Round(time.Second).String() }
