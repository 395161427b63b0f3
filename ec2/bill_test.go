package ec2_test

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"workmanager/ec2"
	"workmanager/ec2/ec2test"
)

// TestScheduler_bill has workers come and go all day: what those cost that are
// long forgotten counts, also over a restart, and on the next day no more.
func TestScheduler_bill(t *testing.T) {
	cfg := fleetConfig()
	cfg.BudgetPerDay = 1000
	w := newWorld(t, 1, ec2test.Options{Boot: 20 * time.Second})
	w.now = epoch.Truncate(24 * time.Hour).Add(30 * time.Second)
	s := w.scheduler("a", cfg, ec2.Parts{})
	cost := func() float64 {
		var sum float64
		for _, i := range w.cloud.All() {
			end := i.EndedAt
			if end.IsZero() {
				end = w.now
			}
			sum += cfg.Prices[i.Type] * max(end.Sub(i.LaunchedAt), time.Minute).Hours()
		}
		return sum
	}
	for hour := range 8 {
		w.wanted = 2
		w.steps(6*40, s) // longer than what follows, for which an end that was not seen is too late
		w.wanted = 0
		w.steps(6*20, s)
		got, want := s.Fleet(w.now).Spent, cost()
		if math.Abs(got-want) > 0.02*want {
			t.Fatalf("after %d hours: $%.4f were spent, by the scheduler $%.4f", hour+1, want, got)
		}
		if hour != 5 {
			continue
		}
		anew := w.scheduler("a", cfg, ec2.Parts{})
		if err := anew.Restore(s.Save()); err != nil {
			t.Fatal(err)
		}
		s = anew
		w.steps(1, s)
		if got := s.Fleet(w.now).Spent; math.Abs(got-want) > 0.02*want {
			t.Fatalf("after a restart: $%.4f were spent, by the scheduler $%.4f", want, got)
		}
	}
	if n := len(w.cloud.All()); n < 16 {
		t.Fatalf("only %d instances came and went", n)
	}
	w.now = w.now.Add(16 * time.Hour)
	w.steps(1, s)
	if got := s.Fleet(w.now).Spent; got > 0.001 {
		t.Errorf("on the next day $%.4f are spent", got)
	}
}

// TestScheduler_capacity_of_a_zone sets a type aside in all subnets of a zone,
// and nowhere else.
func TestScheduler_capacity_of_a_zone(t *testing.T) {
	cfg := fleetConfig()
	cfg.Types = []string{"c7a.large"}
	cfg.Subnets = []ec2.Subnet{{ID: "subnet-a", Zone: "zone-a"}, {ID: "subnet-b", Zone: "zone-b"}, {ID: "subnet-a2", Zone: "zone-a"}}
	asked := map[string]int{}
	w := newWorld(t, 1, ec2test.Options{
		Boot: 20 * time.Second, Zones: map[string]string{"subnet-a": "zone-a", "subnet-a2": "zone-a", "subnet-b": "zone-b"},
		Fault: func(c ec2test.Call) *ec2test.Fault {
			if c.Action != "RunInstances" {
				return nil
			}
			if asked[c.Subnet]++; c.Subnet != "subnet-b" {
				return &ec2test.Fault{Code: "InsufficientInstanceCapacity", Status: 500}
			}
			return nil
		},
	})
	s := w.scheduler("a", cfg, ec2.Parts{})
	w.wanted = 3
	w.steps(6, s)
	w.live(3, "in the other zone")
	if asked["subnet-a"]+asked["subnet-a2"] != 1 || asked["subnet-b"] != 3 {
		t.Errorf("asked %v, want once for the zone that has run out", asked)
	}
}

// TestScheduler_quota counts as alive what EC2 shows, not what it no longer does.
func TestScheduler_quota_of_what_is_there(t *testing.T) {
	hide := false
	w := newWorld(t, 1, ec2test.Options{Boot: 20 * time.Second})
	real := w.cloud.Cloud("1")
	s := w.scheduler("a", fleetConfig(), ec2.Parts{Cloud: &hiding{real, &hide}})
	w.wanted = 4
	w.steps(6, s)
	w.live(4, "at work")
	hide = true // one is shown no more, alive or not
	w.steps(8, s)
	w.wanted = 8
	w.steps(2, s)
	said(t, s, "at most 3 workers")
}

// hiding is a Cloud that does not show one instance, if it is told so.
type hiding struct {
	ec2.Cloud
	hide *bool
}

func (h *hiding) Instances(ctx context.Context) ([]ec2.Instance, error) {
	list, err := h.Cloud.Instances(ctx)
	if *h.hide && len(list) > 0 {
		list = list[:len(list)-1]
	}
	return list, err
}

func (h *hiding) Launch(ctx context.Context, r ec2.Request) (ec2.Instance, error) {
	if *h.hide {
		return ec2.Instance{}, &ec2.Refusal{Kind: ec2.Quota, Code: "VcpuLimitExceeded"}
	}
	return h.Cloud.Launch(ctx, r)
}

// TestScheduler_spot_notice has workers on Spot instances end themselves: one in
// the middle of its work has heard that it is taken back, so its offer is left
// alone; one that was idle, or drained, has not.
func TestScheduler_spot_notice(t *testing.T) {
	cfg := fleetConfig()
	cfg.Spot, cfg.Types, cfg.Max = true, []string{"c7a.large"}, 4
	w := newWorld(t, 1, ec2test.Options{Boot: 20 * time.Second})
	s := w.scheduler("a", cfg, ec2.Parts{})
	w.wanted = 2
	w.steps(9, s)
	w.live(2, "at work")
	w.cloud.Shutdown(w.cloud.Alive()[0].ID)
	w.steps(2, s)
	said(t, s, "c7a.large in zone-a (Spot) is set aside")

	s = w.scheduler("a", cfg, ec2.Parts{})
	w.wanted = 1
	w.steps(12, s)
	w.wanted = 0
	w.steps(60, s)
	w.live(0, "without work")
	w.wanted = 1
	w.steps(2, s)
	for _, e := range s.Decisions(1000) {
		if strings.Contains(e.Why, "set aside") {
			t.Errorf("workers that were not needed went, and their offers are set aside: %s", e.Why)
		}
	}
}
