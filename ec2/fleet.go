package ec2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"workmanager/jobs"
)

// State is where an instance is in its life.
type State string

// The states, in words of EC2; stopping counts as stopped.
const (
	Pending      State = "pending"
	Running      State = "running"
	Stopped      State = "stopped"
	ShuttingDown State = "shutting-down"
	Terminated   State = "terminated"
)

// Dead reports whether an instance in this state will never run again. There is
// no way back from either state.
func (s State) Dead() bool { return s == ShuttingDown || s == Terminated }

// Offer is what can run out: a type in one zone, on demand or Spot. Which offer
// a slot takes follows from its number alone, so that two nodes that fill one
// slot ask for the very same thing.
type Offer struct {
	Type   string
	Subnet string
	Zone   string
	Spot   bool
}

func (o Offer) String() string {
	s := o.Type + " in " + o.Zone
	if o.Zone == "" {
		s = o.Type
	}
	if o.Spot {
		s += " (Spot)"
	}
	return s
}

// Instance is a machine as its cloud shows it.
type Instance struct {
	ID    string
	State State
	Offer
	Slot, Gen  int // by its tags; -1 if it has none
	Address    string
	LaunchedAt time.Time
	Reason     string // why it is in its state, of one that ended
}

// Worker is a worker as the nodes know it, by the instance that it runs on.
type Worker struct {
	Instance  string
	Lanes     int     // chains at once, over all its cores
	Rate      float64 // iterations a second, over all its lanes
	Leases    int
	Remaining float64 // iterations left of them
	Leased    bool    // has ever had a lease
	LeasedAt  time.Time
	SeenAt    time.Time
}

// Demand is the work there is, in the pair.
type Demand struct {
	Open    *jobs.Sizes // by iterations left
	Queued  int64
	Arrived jobs.Work // iterations of all jobs ever enqueued; only its growth counts
	Workers []Worker  // that were heard at either node
	// Quarantined are instances whose worker gets no job from either node, and why.
	Quarantined map[string]string
}

// Orders are what workers are told at their next call. They replace the last.
type Orders struct {
	Drain []string                 // instances that get no more leases and are to hand back
	Idle  map[string]time.Duration // how long an idle one may stay, 0 being for ever
}

// Backlog tells what work there is, and tells workers what to do.
type Backlog interface {
	Demand(ctx context.Context) (Demand, error)
	Order(ctx context.Context, o Orders) error
}

// Request asks for one instance. The same token asks for the same instance.
type Request struct {
	Slot
	Token string
}

// Cloud has the machines. What it returns as error of a launch is a *Refusal
// where the cloud said no; of any other error nobody knows what came of it.
type Cloud interface {
	// Instances returns every instance of the cluster, also those that ended
	// lately. It returns all of them or an error.
	Instances(ctx context.Context) ([]Instance, error)
	Launch(ctx context.Context, r Request) (Instance, error)
	// Terminate ends instances, and may be called again for the same.
	Terminate(ctx context.Context, ids []string) error
}

// Refusal is a cloud's no to a launch.
type Refusal struct {
	Kind Kind
	Code string // the cloud's word
	Text string
}

// Kind is what follows from a refusal.
type Kind int

// The kinds.
const (
	Wrong     Kind = iota // the request is not allowed or not valid: nothing will come of another
	Capacity              // this offer has run out
	Quota                 // the account has as many as it may
	Throttled             // too many calls
	Dead                  // the token's instance has ended
	Mismatch              // the token was used with other parameters
	NoSpot                // the account cannot have Spot instances
)

func (r *Refusal) Error() string { return fmt.Sprintf("%s: %s", r.Code, r.Text) }

// Subnet is where instances may run.
type Subnet struct{ ID, Zone string }

// Config says what the fleet may be. Both nodes need the same.
type Config struct {
	Kind    string // ec2 or process: for display
	Cluster string // in tags and tokens

	Drain           time.Duration // the backlog is to be done in it; more is cheaper and slower
	Max, Min        int           // workers
	LaunchesPerHour int           // 0: three times Max
	BudgetPerDay    float64       // dollars a UTC day, 0: none

	Types   []string
	Subnets []Subnet
	Spot    bool               // Spot first, and on demand where that has run out
	Prices  map[string]float64 // dollars an hour on demand, by type

	Lanes int           // of a worker, until one was seen
	Rate  float64       // iterations a second over all its lanes, likewise
	Boot  time.Duration // from launch to the first lease, likewise
	// BootLeast and BootMost bound what is measured.
	BootLeast, BootMost time.Duration

	Pace
}

// Pace is how fast the fleet follows its work. The zero value is right for what
// EC2 costs: it bills a minute of each instance at least, and a boot is as much.
type Pace struct {
	Interval  time.Duration // between two decisions: 10 s
	Least     time.Duration // no worker ends before it, and each launch must be worth it: a minute
	Hold      time.Duration // too many workers for so long, before one drains: a minute
	ShortIdle time.Duration // a worker that is one too many ends when idle for so long: 15 s
	LongIdle  time.Duration // the others: 90 s
	// Hurry is for tests, which cannot wait: every other time of the policy, those
	// of its safety nets among them, is divided by it. 0 is 1.
	Hurry float64
	Lead  time.Duration // a node of a pair has been the one to lead for so long before it acts: 15 s
}

// hasten is a time that the policy goes by.
func (p Pace) hasten(d time.Duration) time.Duration {
	if p.Hurry > 1 {
		return time.Duration(float64(d) / p.Hurry)
	}
	return d
}

func (p Pace) interval() time.Duration  { return cmp.Or(p.Interval, p.hasten(Interval)) }
func (p Pace) least() time.Duration     { return cmp.Or(p.Least, p.hasten(minAge)) }
func (p Pace) hold() time.Duration      { return cmp.Or(p.Hold, p.hasten(holdTime)) }
func (p Pace) shortIdle() time.Duration { return cmp.Or(p.ShortIdle, p.hasten(shortIdle)) }
func (p Pace) lead() time.Duration      { return cmp.Or(p.Lead, p.hasten(leadTime)) }
func (p Pace) longIdle() time.Duration  { return cmp.Or(p.LongIdle, p.hasten(longIdle)) }

// DefaultConfig returns the settings that simulation chose.
func DefaultConfig() Config {
	return Config{
		Kind: "ec2", Drain: 300 * time.Second, Max: 10, Lanes: 16, Rate: 16e6,
		Boot: 65 * time.Second, BootLeast: 30 * time.Second, BootMost: 300 * time.Second,
	}
}

// MaxWorkers bounds a fleet: its ledger travels in the heartbeats of the pair.
const MaxWorkers = 200

// clusterName is what fits a token beside two numbers.
var clusterName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)

// Validate reports every problem of the settings at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(!clusterName.MatchString(c.Cluster), "the fleet's cluster must be 1 to 40 lower-case letters, digits and hyphens: %q given", c.Cluster)
	bad(c.Max < 1 || c.Max > MaxWorkers, "--max-workers must be from 1 to %d: %d given", MaxWorkers, c.Max)
	bad(c.Min < 0 || c.Min > c.Max, "--min-workers must be from 0 to --max-workers: %d given", c.Min)
	bad(c.Drain < time.Second || c.Drain > 24*time.Hour, "--drain-seconds must be from 1 to 86400: %g given", c.Drain.Seconds())
	bad(c.LaunchesPerHour < 0, "--max-launches-per-hour must not be negative: %d given", c.LaunchesPerHour)
	bad(!(c.BudgetPerDay >= 0), "--budget-per-day must not be negative: %g given", c.BudgetPerDay)
	bad(len(c.Types) == 0, "--types is missing: name at least one instance type")
	bad(len(c.Subnets) == 0, "--subnets is missing: name at least one subnet")
	bad(c.Lanes < 1 || !(c.Rate > 0), "a worker needs lanes and a rate: %d and %g given", c.Lanes, c.Rate)
	bad(c.BootLeast < 0 || c.Boot < c.BootLeast || c.Boot > c.BootMost, "the boot time must be from %s to %s: %s given", c.BootLeast, c.BootMost, c.Boot)
	return errors.Join(errs...)
}

// HourLimit returns how many launches an hour may see.
func (c Config) HourLimit() int {
	if c.LaunchesPerHour > 0 {
		return c.LaunchesPerHour
	}
	return 3 * c.Max
}

// SlotCount returns how many slots there are: as many as workers at most. With
// Spot there are as many again, on demand, for when Spot has run out.
func (c Config) SlotCount() int {
	if c.Spot {
		return 2 * c.Max
	}
	return c.Max
}

// Offer returns what slot k takes: the subnets in turn, then the types.
func (c Config) Offer(k int) Offer {
	spot := c.Spot && k < c.Max
	if c.Spot && !spot {
		k -= c.Max
	}
	n := len(c.Subnets)
	if n == 0 || len(c.Types) == 0 {
		return Offer{Spot: spot}
	}
	s := c.Subnets[k%n]
	return Offer{Subnet: s.ID, Zone: s.Zone, Type: c.Types[k/n%len(c.Types)], Spot: spot}
}

// Token names the launch of a slot's generation among all that this account
// ever asks for: EC2 gives one instance for it, however often it is asked.
func (c Config) Token(slot, gen int) string { return fmt.Sprintf("wm-%s-%d-%d", c.Cluster, slot, gen) }
