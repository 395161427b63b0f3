package node

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"workmanager/ec2"
	"workmanager/ec2/ec2test"
	"workmanager/jobs"
	"workmanager/web/api"
)

// oneJob is a backlog of one long chain.
type oneJob struct{ orders ec2.Orders }

func (b *oneJob) Demand(context.Context) (ec2.Demand, error) {
	d := ec2.Demand{Open: &jobs.Sizes{}, Queued: 1}
	d.Open.Add(1 << 40)
	return d, nil
}

func (b *oneJob) Order(_ context.Context, o ec2.Orders) error { b.orders = o; return nil }

func TestFleet_as_the_API_shows_it(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	cfg := ec2.DefaultConfig()
	cfg.Cluster, cfg.Types, cfg.Subnets, cfg.Prices = "test", []string{"c7a.large"}, []ec2.Subnet{{ID: "subnet-a", Zone: "zone-a"}}, map[string]float64{"c7a.large": 0.1}
	cloud := ec2test.New(ec2test.Options{Now: func() time.Time { return now }, Boot: 20 * time.Second})
	b := &oneJob{}
	f := fleet{now: func() time.Time { return now }, log: slog.New(slog.DiscardHandler)}
	f.scheduler.Store(ec2.New(cfg, ec2.Parts{Cloud: cloud.Cloud("1"), Backlog: b, OnDecision: f.decided}))
	step := func() {
		t.Helper()
		decided := f.Decided()
		if err := f.scheduler.Load().Step(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		select {
		case <-decided:
		default:
			t.Error("nobody is told of a decision")
		}
		now = now.Add(10 * time.Second)
	}
	step()
	step()
	got, err := f.Fleet(t.Context())
	if err != nil || len(got.Instances) != 1 || len(got.Decisions) != 2 {
		t.Fatalf("Fleet() = %+v, %v", got, err)
	}
	i := got.Instances[0]
	if i.State != "pending" || i.Type != "c7a.large" || i.Zone == "" || *i.PricePerHour != 0.1 || i.SeenAt != nil || !i.LaunchedAt.Equal(now.Add(-20*time.Second)) {
		t.Errorf("instance %+v", i)
	}
	if *got.PricePerHour != 0.1 || got.Kind != "ec2" || got.Max != 10 || got.Have != 1 || got.DrainSeconds != 300 || got.SpentToday <= 0 {
		t.Errorf("fleet %+v", got)
	}
	if got.Launched != 1 || got.Refused != 0 {
		t.Errorf("%d launched, %d refused, want 1 and 0", got.Launched, got.Refused)
	}
	d := got.Decisions[1]
	if d.Times != 1 || len(d.Actions) != 1 || d.Actions[0].Do != "launch" || len(d.Outcome) != 1 || d.Why == "" || got.Decisions[0].Actions == nil {
		t.Errorf("decisions %+v", got.Decisions)
	}
	if err := f.Order(t.Context(), api.FleetDrain, i.ID); err != nil {
		t.Fatal(err)
	}
	step()
	if len(b.orders.Drain) != 1 || b.orders.Drain[0] != i.ID {
		t.Errorf("workers are told %+v", b.orders)
	}
	if err := f.Order(t.Context(), api.FleetPause, ""); err != nil {
		t.Fatal(err)
	}
	if err := f.Order(t.Context(), api.FleetDrain, "i-03c6ef372fe94f82a"); err != nil { // the one in its place
		t.Fatal(err)
	}
	step()
	if got, _ := f.Fleet(t.Context()); got.Paused == "" || !got.PauseAsked || got.Instances[0].State != "draining" || got.Decisions[0].Held != "paused" {
		t.Errorf("fleet %+v", got)
	}
	unknown := fleetStatus(ec2.Fleet{Machines: []ec2.FleetMachine{{Price: 0.1}, {}}})
	if unknown.PricePerHour != nil || unknown.Instances[1].PricePerHour != nil || *unknown.Instances[0].PricePerHour != 0.1 {
		t.Errorf("with a price that is not known: %+v", unknown)
	}
	if err := f.Order(t.Context(), api.FleetTerminate, "i-unknown"); jobs.CodeOf(err) != jobs.CodeNotFound {
		t.Errorf("Order() of an unknown instance = %v", err)
	}
}

// TestFleet_of_EC2_needs_keys: no node starts with a fleet that cannot begin.
func TestFleet_of_EC2_needs_keys(t *testing.T) {
	n := &Node{cfg: Config{Cluster: "test", Fleet: Fleet{Kind: FleetEC2}}}
	if _, err := n.newFleet(nil); err == nil || !strings.Contains(err.Error(), "--fleet ec2 needs --keys") {
		t.Errorf("newFleet() = %v", err)
	}
}
