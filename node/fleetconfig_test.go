package node

import (
	"strings"
	"testing"
	"time"
)

func TestFleet_settings_are_checked(t *testing.T) {
	for name, c := range map[string]struct {
		fleet   Fleet
		cluster string
		want    []string // in the error; none: no error
	}{
		"none":                     {Fleet{}, "", nil},
		"none, by name":            {Fleet{Kind: FleetNone, MaxWorkers: -3}, "", nil},
		"another kind":             {Fleet{Kind: "k8s"}, "", []string{"--fleet must be none, process or ec2", "k8s"}},
		"processes":                {Fleet{Kind: FleetProcess}, "", nil},
		"processes of any cluster": {Fleet{Kind: FleetProcess}, "A Name No Token Takes!", nil},
		"processes, wrong": {Fleet{Kind: FleetProcess, MaxWorkers: 5000, BudgetPerDay: 5, Spot: true, Image: "ami-1", Types: []string{"x"}}, "",
			[]string{"--max-workers must be from 1 to 200: 5000 given", "--budget-per-day is for --fleet ec2", "--spot is for", "--ami is for", "--types is for"}},
		"instances, what is not given is found": {Fleet{Kind: FleetEC2}, "test", nil},
		"instances": {Fleet{Kind: FleetEC2, MaxWorkers: 20, MinWorkers: 1, Drain: time.Minute, BudgetPerDay: 10, Prices: []string{"c7a.large=0.1026"}, Image: "ami-0abc",
			Subnets: []string{"subnet-1", "subnet-2=eu-central-1b"}, Types: []string{"c7a.large", "m7g.2xlarge"}, SecurityGroup: "sg-1", Nodes: []string{"https://10.0.0.1:5000"}}, "test", nil},
		"instances without a cluster":   {Fleet{Kind: FleetEC2}, "", []string{"--fleet ec2 needs --cluster NAME"}},
		"a cluster that no token takes": {Fleet{Kind: FleetEC2}, "My Cluster", []string{"My Cluster", "lower-case"}},
		"instances, all wrong": {Fleet{Kind: FleetEC2, MaxWorkers: 2, MinWorkers: 3, Drain: -time.Second, LaunchesPerHour: -1, BudgetPerDay: -1, Prices: []string{"c7a.large"}, Image: "debian",
			Subnets: []string{"net"}, Types: []string{"large"}, SecurityGroup: "default", Nodes: []string{"10.0.0.1:5000"}}, "test",
			[]string{"--min-workers must be", "--drain-seconds must be", "--max-launches-per-hour must not", "--budget-per-day must not", "--prices must be", "--ami must be", "--subnets must be", "--types must be", "--worker-sg must be", "--worker-node must be"}},
	} {
		cfg := Default()
		cfg.Fleet, cfg.Cluster = c.fleet, c.cluster
		err := cfg.Validate()
		if len(c.want) == 0 && err != nil {
			t.Errorf("%s: Validate() = %v", name, err)
		}
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: Validate() = %v, want it to say %q", name, err, want)
			}
		}
	}
	c := Default()
	if c.Cores() == 0 {
		t.Error("without a fleet nothing computes")
	}
	c.Fleet.Kind = FleetProcess
	if c.Cores() != 0 {
		t.Errorf("with a fleet %d cores compute in the node, want none", c.Cores())
	}
	c.Workers = 2
	if c.Cores() != 2 {
		t.Errorf("with --workers 2 %d cores compute", c.Cores())
	}
}

func TestFleet_plan(t *testing.T) {
	cfg, err := Fleet{Kind: FleetEC2, Subnets: []string{"subnet-2=zone-b", "subnet-1"}, Prices: []string{"c7a.large=0.1", "c6a.large=.09"}, Drain: 90 * time.Second}.plan("x")
	if err != nil || cfg.Subnets[0].Zone != "zone-b" || cfg.Subnets[1].ID != "subnet-1" || cfg.Prices["c6a.large"] != 0.09 || cfg.Drain != 90*time.Second || cfg.Max != 10 || cfg.Cluster != "x" {
		t.Errorf("plan() = %+v, %v", cfg, err)
	}
	cfg, err = Fleet{Kind: FleetProcess}.plan("")
	if err != nil || cfg.Validate() != nil || cfg.Drain != 10*time.Second || cfg.HourLimit() != 3600 {
		t.Errorf("plan() of processes = %+v, %v, %v", cfg, err, cfg.Validate())
	}
}
