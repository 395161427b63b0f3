package node

import (
	"testing"

	"workmanager/ec2/ec2test"
	"workmanager/jobs"
	"workmanager/web/api"
)

// TestFleet_ends_instances_whose_worker_is_quarantined: an order at the node that
// does not lead ends the worker's leases, and then its instance at EC2, for a
// reason that the decision says; another comes in its place.
func TestFleet_ends_instances_whose_worker_is_quarantined(t *testing.T) {
	d := newFleetDuo(t)
	ids := d.put(d.a, 40, 1<<45, jobs.AckDefault)
	instances := func() (all []string) {
		for _, i := range d.cloud.All() {
			if i.Alive() {
				all = append(all, i.ID)
			}
		}
		return all
	}
	d.until("three are launched", func() bool { return len(instances()) == 3 })
	bad := instances()[0]
	for _, id := range instances() {
		if n, _ := calls(t, d.a, id); n != 1 {
			t.Fatalf("%s has %d leases, want 1", id, n)
		}
	}
	d.until("a knows that they work", func() bool { return d.a.fleetNow().Running == 3 })

	if err := d.b.queue.OrderQuarantine(t.Context(), api.QuarantineAdd, bad, "ops", "wrong values"); err != nil {
		t.Fatal(err)
	}
	var ended ec2test.Instance
	d.until("its instance is ended, and another launched", func() bool {
		for _, i := range d.cloud.All() {
			if i.ID == bad {
				ended = i
			}
		}
		return !ended.Alive() && len(instances()) == 3
	})
	says := false
	for _, e := range d.a.fleetNow().Decisions {
		for _, x := range e.Actions {
			says = says || x.Do == "terminate" && x.Instance == bad && x.Why == "its worker is quarantined: wrong values"
		}
	}
	if !says {
		t.Errorf("no decision says that %s is ended because its worker is quarantined: %+v", bad, d.a.fleetNow().Decisions)
	}
	d.a.queue.mu.Lock()
	leased := d.a.queue.table.Leased()
	d.a.queue.mu.Unlock()
	if leased != 2 {
		t.Errorf("%d of %d jobs are leased, want those of the two others", leased, len(ids))
	}
	f := d.a.fleetNow()
	if f.Paused != "" || f.Held != "" && f.Held != "its maximum" {
		t.Errorf("after one quarantine it is held by %q, paused %q", f.Held, f.Paused)
	}
}
