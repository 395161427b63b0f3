package node

import (
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"time"

	"workmanager/ec2"
	"workmanager/jobs/hashchain"
)

// Kinds of a fleet.
const (
	FleetNone    = "none"
	FleetProcess = "process"
	FleetEC2     = "ec2"
)

// Fleet says which workers the node starts as its work needs them. Both nodes
// of a pair need the same.
type Fleet struct {
	Kind string // none, process or ec2; "" is none

	MaxWorkers      int // 0: 10, and of processes one a CPU
	MinWorkers      int
	Drain           time.Duration // the backlog is to be done in it; 0: 5 minutes, of processes 10 s
	LaunchesPerHour int           // 0: three times MaxWorkers, and of processes 3600
	BudgetPerDay    float64       // dollars a UTC day; 0: none
	Prices          []string      // TYPE=DOLLARS an hour, on demand

	// Of instances. What is empty is found by calls of EC2.
	Spot          bool
	Image         string
	Subnets       []string // ID, or ID=ZONE
	Types         []string
	SecurityGroup string
	// Nodes are the URLs at which instances reach the nodes of the pair: the same
	// at both, or their launches differ; none: where the two advertise their APIs.
	Nodes []string

	// Hurry is for tests: the times that instances cost are divided by it, 0 being
	// 1. Both nodes need the same.
	Hurry float64
}

// on reports whether there is a fleet.
func (f Fleet) on() bool { return f.Kind == FleetProcess || f.Kind == FleetEC2 }

var (
	imageID  = regexp.MustCompile(`^ami-[0-9a-z-]+$`)
	groupID  = regexp.MustCompile(`^sg-[0-9a-z-]+$`)
	subnetID = regexp.MustCompile(`^subnet-[0-9a-z-]+(=[a-z0-9-]+)?$`)
	typeName = regexp.MustCompile(`^[a-z][a-z0-9-]*\.[a-z0-9-]+$`)
)

// check reports every problem of the fleet's settings.
func (f Fleet) check(cluster string) error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	if f.Kind != "" && f.Kind != FleetNone && !f.on() {
		return fmt.Errorf("--fleet must be none, process or ec2: %q given", f.Kind)
	}
	if !f.on() {
		return nil
	}
	cfg, err := f.plan(cluster)
	errs = append(errs, err)
	switch f.Kind {
	case FleetProcess:
		bad(f.BudgetPerDay > 0, "--budget-per-day is for --fleet ec2: processes cost nothing that is known")
		for _, g := range []struct {
			flag  string
			given bool
		}{{"spot", f.Spot}, {"ami", f.Image != ""}, {"subnets", len(f.Subnets) > 0}, {"types", len(f.Types) > 0}, {"worker-sg", f.SecurityGroup != ""}, {"worker-node", len(f.Nodes) > 0}, {"prices", len(f.Prices) > 0}} {
			bad(g.given, "--%s is for --fleet ec2", g.flag)
		}
	case FleetEC2:
		bad(cluster == "", "--fleet ec2 needs --cluster NAME: its instances are told from all others of the account by it; give both nodes the same")
		bad(f.Image != "" && !imageID.MatchString(f.Image), "--ami must be an ID such as ami-0123456789abcdef0: %q given", f.Image)
		bad(f.SecurityGroup != "" && !groupID.MatchString(f.SecurityGroup), "--worker-sg must be an ID such as sg-0123456789abcdef0: %q given", f.SecurityGroup)
		for _, s := range f.Subnets {
			bad(!subnetID.MatchString(s), "--subnets must be IDs such as subnet-0123456789abcdef0, or with their zones subnet-…=eu-central-1a: %q given", s)
		}
		for _, t := range f.Types {
			bad(!typeName.MatchString(t), "--types must be instance types such as c7a.large: %q given", t)
		}
		for _, u := range f.Nodes {
			bad(!strings.HasPrefix(u, "https://") && !strings.HasPrefix(u, "http://"), "--worker-node must be the URL of a node, https://HOST:PORT: %q given", u)
		}
		if len(cfg.Types) == 0 {
			cfg.Types = []string{"c7a.large"} // to be found
		}
		if len(cfg.Subnets) == 0 {
			cfg.Subnets = []ec2.Subnet{{ID: "subnet-0"}}
		}
		if cluster == "" {
			cfg.Cluster = "x" // told above
		}
	}
	return errors.Join(append(errs, cfg.Validate())...)
}

// plan is the fleet as its scheduler takes it; types and subnets of instances may
// be missing so far.
func (f Fleet) plan(cluster string) (ec2.Config, error) {
	cfg := ec2.DefaultConfig()
	cfg.Kind, cfg.Cluster, cfg.Max, cfg.Min = f.Kind, cluster, f.MaxWorkers, f.MinWorkers
	cfg.LaunchesPerHour, cfg.BudgetPerDay, cfg.Spot = f.LaunchesPerHour, f.BudgetPerDay, f.Spot
	if cfg.Max == 0 {
		cfg.Max = ec2.DefaultConfig().Max
	}
	if f.Kind == FleetProcess {
		// It takes a second to start and costs nothing to hold for a while.
		cfg.Cluster, cfg.Types, cfg.Subnets = "local", []string{FleetProcess}, []ec2.Subnet{{ID: "here"}}
		cfg.Lanes, cfg.Rate = hashchain.Lanes(), processRate
		cfg.Drain, cfg.Boot, cfg.BootLeast, cfg.BootMost = 10*time.Second, 2*time.Second, 500*time.Millisecond, 30*time.Second
		cfg.Pace = ec2.Pace{Interval: 2 * time.Second, Least: 5 * time.Second, Hold: 10 * time.Second, ShortIdle: 5 * time.Second, LongIdle: 30 * time.Second}
		if f.MaxWorkers == 0 {
			cfg.Max = min(runtime.NumCPU(), ec2.MaxWorkers)
		}
		if f.LaunchesPerHour == 0 {
			cfg.LaunchesPerHour = 3600
		}
	}
	if f.Drain != 0 {
		cfg.Drain = f.Drain
	}
	if f.Kind != FleetEC2 {
		return cfg, nil
	}
	cfg.Hurry, cfg.Boot, cfg.BootLeast, cfg.BootMost = f.Hurry, f.hasten(cfg.Boot), f.hasten(cfg.BootLeast), f.hasten(cfg.BootMost)
	cfg.Types = f.Types
	for _, s := range f.Subnets {
		id, zone, _ := strings.Cut(s, "=")
		cfg.Subnets = append(cfg.Subnets, ec2.Subnet{ID: id, Zone: zone})
	}
	var err error
	cfg.Prices, err = prices(f.Prices)
	return cfg, err
}

// hasten is a time of instances for a test that cannot wait for it.
func (f Fleet) hasten(d time.Duration) time.Duration {
	if f.Hurry > 1 {
		return time.Duration(float64(d) / f.Hurry)
	}
	return d
}

// processRate is what one process is taken to do, iterations a second, until one
// has said what it does.
const processRate = 4e6

// prices reads TYPE=DOLLARS.
func prices(list []string) (map[string]float64, error) {
	out := map[string]float64{}
	for _, text := range list {
		var dollars float64
		name, number, _ := strings.Cut(text, "=")
		if _, err := fmt.Sscanf(number, "%g", &dollars); err != nil || !typeName.MatchString(name) || !(dollars > 0 && dollars < 1e6) {
			return nil, fmt.Errorf("--prices must be TYPE=DOLLARS an hour, such as c7a.large=0.1026: %q given", text)
		}
		out[name] = dollars
	}
	return out, nil
}
