package node

import (
	"context"
	"time"

	"workmanager/ec2"
	"workmanager/jobs"
	"workmanager/web"
	"workmanager/web/api"
)

// fleetDecisions is how many decisions GET /v1/fleet shows.
const fleetDecisions = 50

// fleet is the scheduler as the API sees it.
type fleet struct {
	scheduler *ec2.Scheduler
	now       func() time.Time
}

var _ web.Fleet = fleet{}

// Fleet returns what the scheduler owns, with its last decisions. See web.Fleet.
func (f fleet) Fleet(context.Context) (api.FleetStatus, error) {
	st := fleetStatus(f.scheduler.Fleet(f.now()))
	for _, e := range f.scheduler.Decisions(fleetDecisions) {
		st.Decisions = append(st.Decisions, fleetDecision(e))
	}
	return st, nil
}

// Order gives an operator's order. See web.Fleet.
func (f fleet) Order(_ context.Context, do, instance string) error {
	switch do {
	case api.FleetDrain:
		return f.scheduler.Order(instance, ec2.Drain)
	case api.FleetTerminate:
		return f.scheduler.Order(instance, ec2.Terminate)
	case api.FleetPause, api.FleetResume:
		f.scheduler.Pause(do == api.FleetPause)
		return nil
	}
	return jobs.Errorf(jobs.CodeInvalid, "the fleet knows no order %q", do)
}

// fleetStatus is the fleet for the status, without decisions.
func fleetStatus(f ec2.Fleet) api.FleetStatus {
	st := api.FleetStatus{
		Kind: f.Kind, Leader: f.Leader, Min: f.Min, Max: f.Max, Want: f.Want, Have: f.Have, Paused: f.Paused,
		DrainSeconds: f.DrainTime.Seconds(), BootSeconds: f.Boot.Seconds(), SpentToday: f.Spent, Launched: f.Launched, Refused: f.Refused, SeenAt: instant(f.SeenAt),
		Instances: []api.Instance{},
	}
	sum, known := 0.0, true
	for _, m := range f.Machines {
		i := api.Instance{
			ID: m.ID, State: m.Phase, Type: m.Type, Zone: m.Zone, Spot: m.Spot, Slot: m.Slot, Generation: m.Gen, Address: m.Address,
			LaunchedAt: instant(m.LaunchedAt), SeenAt: instant(m.SeenAt), Lanes: m.Lanes, Leases: m.Leases, Rate: m.Rate, PricePerHour: price(m.Price),
		}
		sum, known = sum+m.Price, known && i.PricePerHour != nil
		st.Instances = append(st.Instances, i)
	}
	if known {
		st.PricePerHour = &sum
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
	d.Outcome = append(d.Outcome, e.Outcome...)
	return d
}
