package web_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/web"
	"workmanager/web/api"
	"workmanager/web/client"
)

// fleet is a scheduler of one instance.
type fleet struct {
	status
	orders []string
}

func (f *fleet) Decided() <-chan struct{} { return nil }

func (f *fleet) Fleet(context.Context) (api.FleetStatus, error) {
	now, price := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC), 0.1
	return api.FleetStatus{
		Kind: "ec2", Leader: true, Max: 10, Want: 3, Have: 1, DrainSeconds: 300, BootSeconds: 65, PricePerHour: &price, SpentToday: 0.4, SeenAt: &now, Paused: "for a test",
		Instances: []api.Instance{{
			ID: "i-1", State: "working", Type: "c7a.large", Zone: "zone-a", Spot: true, Slot: 0, Generation: 3, Address: "10.0.0.1",
			LaunchedAt: &now, SeenAt: &now, Lanes: 16, Leases: 7, Rate: 1e6, PricePerHour: &price,
		}, {ID: "i-2", State: "booting", Slot: -1, Generation: -1}},
		Decisions: []api.FleetDecision{{
			At: now, LastAt: now, Times: 2, Leader: true, Want: 3, Have: 1, Why: "launch 1: work", Outcome: []string{"launched"},
			Actions: []api.FleetAction{{Do: "launch", Slot: 1, Why: "work"}},
		}},
	}, nil
}

func (f *fleet) Order(_ context.Context, do, instance string) error {
	if instance == "i-9" {
		return jobs.Errorf(jobs.CodeNotFound, "instance i-9 is not in the fleet")
	}
	f.orders = append(f.orders, strings.TrimSpace(do+" "+instance))
	return nil
}

// status is the least a node says of itself.
type status struct{}

func (status) Status(context.Context) (api.Status, error) { return busyStatus(), nil }

func TestFleet(t *testing.T) {
	f := &fleet{}
	s := httptest.NewServer(validated(t, web.New(web.Config{Status: f, Fleet: f, Limits: jobs.DefaultLimits()})))
	defer s.Close()
	c := &client.Client{URLs: []string{s.URL}}
	defer c.Close()
	got, err := c.Fleet(t.Context())
	if err != nil || len(got.Instances) != 2 || got.Instances[0].Generation != 3 || len(got.Decisions) != 1 || *got.PricePerHour != 0.1 || got.Instances[1].PricePerHour != nil {
		t.Errorf("Fleet() = %+v, %v", got, err)
	}
	for _, o := range [][2]string{{"drain", "i-1"}, {"terminate", "i-2"}, {"pause", ""}, {"resume", ""}} {
		if got, err := c.OrderFleet(t.Context(), o[0], o[1]); err != nil || got.Kind != "ec2" {
			t.Errorf("OrderFleet(%v) = %+v, %v", o, got, err)
		}
	}
	if got, want := strings.Join(f.orders, ", "), "drain i-1, terminate i-2, pause, resume"; got != want {
		t.Errorf("orders %q, want %q", got, want)
	}
	for _, bad := range []struct {
		do, instance string
		code         jobs.Code
	}{{"drain", "", jobs.CodeInvalid}, {"pause", "i-1", jobs.CodeInvalid}, {"kill", "i-1", jobs.CodeInvalid}, {"", "", jobs.CodeInvalid}, {"drain", strings.Repeat("i", 129), jobs.CodeInvalid}, {"drain", "i-9", jobs.CodeNotFound}} {
		if _, err := c.OrderFleet(t.Context(), bad.do, bad.instance); jobs.CodeOf(err) != bad.code {
			t.Errorf("OrderFleet(%q, %q) = %v, want code %s", bad.do, bad.instance, err, bad.code)
		}
	}
	if len(f.orders) != 4 {
		t.Errorf("orders %q", f.orders)
	}
}

func TestFleet_none(t *testing.T) {
	s := httptest.NewServer(validated(t, web.New(web.Config{Status: status{}, Limits: jobs.DefaultLimits()})))
	defer s.Close()
	c := &client.Client{URLs: []string{s.URL}}
	defer c.Close()
	if got, err := c.Fleet(t.Context()); err != nil || got.Kind != "none" || got.Instances == nil {
		t.Errorf("Fleet() = %+v, %v", got, err)
	}
	if _, err := c.OrderFleet(t.Context(), "pause", ""); jobs.CodeOf(err) != jobs.CodeNotFound {
		t.Errorf("OrderFleet() without a fleet = %v", err)
	}
}
