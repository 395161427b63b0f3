package node

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"workmanager/ec2"
	"workmanager/ec2/ec2test"
	"workmanager/jobs"
	"workmanager/web/api"
)

// testCloud is one EC2 that both nodes of a pair see. Its instances run when the
// test says so, by calls to the nodes' queues.
type testCloud struct {
	*ec2test.EC2
}

func newTestCloud() *testCloud { return &testCloud{EC2: ec2test.New(ec2test.Options{})} }

func (c *testCloud) of(n *Node) cloud { return testCloudOf{c, n} }

type testCloudOf struct {
	*testCloud
	n *Node
}

func (c testCloudOf) begin(context.Context) (ec2.Config, ec2.Parts, error) {
	cfg, err := c.n.cfg.Fleet.plan(c.n.cfg.Cluster)
	cfg.Interval, cfg.Lead = 100*time.Millisecond, time.Second
	cfg.Subnets = []ec2.Subnet{{ID: "subnet-a"}}
	return cfg, ec2.Parts{Cloud: c.Cloud("1")}, err
}

func (testCloudOf) end() error { return nil }

// calls is a worker of the instance that calls at the node once, and returns
// what it is told.
func calls(t *testing.T, s *solo, instance string) (leases int, o jobs.Orders) {
	t.Helper()
	w := jobs.Worker{Name: instance, Instance: "x", Cores: 1, Lanes: 8, Rate: 1e6}
	got, err := s.queue.Lease(t.Context(), w, jobs.Capacity{Jobs: 1, Iterations: 1})
	if err != nil {
		t.Fatal(err)
	}
	return len(got), s.queue.Orders(w)
}

func newFleetDuo(t *testing.T) *duo {
	t.Helper()
	d := newDuo(t, false, func(a, b *Config) {
		for _, c := range []*Config{a, b} {
			c.Cluster, c.Workers = "test", -1
			c.Fleet = Fleet{Kind: FleetEC2, MaxWorkers: 3, Types: []string{"c7a.large"}}
		}
	})
	d.until("both have begun", func() bool { return d.a.fleet.scheduler.Load() != nil && d.b.fleet.scheduler.Load() != nil })
	return d
}

func (s *solo) fleetNow() api.FleetStatus { return s.fleet.status(fleetDecisions) }

func TestFleet_one_of_a_pair_leads_and_both_take_orders(t *testing.T) {
	d := newFleetDuo(t)
	if cores := d.a.cfg.Cores(); cores != 0 {
		t.Errorf("with a fleet %d cores compute in the node, want none", cores)
	}
	long := func(s *solo, n int) {
		t.Helper()
		batch := make([]jobs.Job, n)
		for i := range batch {
			id, err := s.newID(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			if batch[i], err = jobs.New(id, jobs.Value{byte(i)}, 1<<40, 0); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.queue.Enqueue(t.Context(), batch, jobs.AckDefault); err != nil {
			t.Fatal(err)
		}
	}
	// The pause is given to the node that does not lead, before either does.
	if err := d.b.fleet.Order(t.Context(), api.FleetPause, ""); err != nil {
		t.Fatal(err)
	}
	d.until("both pause", func() bool { return d.a.fleetNow().Paused != "" && d.b.fleetNow().Paused != "" })
	long(d.b, 40) // at the node that does not lead: the other knows of it
	d.within(40*time.Second, "a leads and says why it launches nothing", func() bool {
		f := d.a.fleetNow()
		return f.Leader && f.Want == 3 && len(f.Decisions) > 0 && strings.Contains(f.Decisions[0].Why, "an operator asked for it")
	})
	if n := len(d.cloud.Alive()); n != 0 || d.b.fleetNow().Leader {
		t.Errorf("%d instances in a pause, b leads: %t, want none and no", n, d.b.fleetNow().Leader)
	}
	if err := d.b.fleet.Order(t.Context(), api.FleetResume, ""); err != nil {
		t.Fatal(err)
	}
	d.until("three are launched", func() bool { return len(d.cloud.Alive()) == 3 })
	var ids []string
	for _, i := range d.cloud.Alive() {
		ids = append(ids, i.ID)
	}
	slices.Sort(ids)

	// Their workers call at b alone: a must hear of them.
	work := func() {
		for _, id := range ids[1:] {
			calls(t, d.b, id)
		}
	}
	d.until("a hears of the workers at b", func() bool {
		work()
		f := d.a.fleetNow()
		return len(f.Instances) == 3 && !slices.ContainsFunc(f.Instances, func(i api.Instance) bool { return i.ID != ids[0] && (i.Lanes != 8 || i.Leases == 0) })
	})
	// An order at b.
	if err := d.b.fleet.Order(t.Context(), api.FleetDrain, ids[1]); err != nil {
		t.Fatal(err)
	}
	d.until("the worker is told at b, where it calls", func() bool {
		_, o := calls(t, d.b, ids[1])
		return o.Drain
	})
	if n, _ := calls(t, d.a, ids[1]); n != 0 {
		t.Error("at a it gets a lease")
	}
	if _, o := calls(t, d.a, ids[1]); !o.Drain {
		t.Error("at a it is not told")
	}
	if err := d.b.fleet.Order(t.Context(), api.FleetTerminate, ids[2]); err != nil {
		t.Fatal(err)
	}
	d.until("a ends the other", func() bool {
		return slices.ContainsFunc(d.cloud.All(), func(i ec2test.Instance) bool { return i.ID == ids[2] && !i.Alive() })
	})
	if err := d.b.fleet.Order(t.Context(), api.FleetDrain, "i-unknown"); jobs.CodeOf(err) != jobs.CodeNotFound {
		t.Errorf("an order for what is not there: %v", err)
	}
	// A pause outlives restarts, of each and of both.
	if err := d.a.fleet.Order(t.Context(), api.FleetPause, ""); err != nil {
		t.Fatal(err)
	}
	d.until("b pauses too", func() bool { return d.b.fleetNow().Paused != "" })
	d.a.stop()
	d.b.stop()
	d.a.start()
	d.b.cfg.Join = []string{d.a.GossipAddr()}
	d.b.start()
	for _, s := range []*solo{d.a, d.b} {
		d.until("it has begun", func() bool { return s.fleet.scheduler.Load() != nil })
		if s.fleetNow().Paused == "" {
			t.Errorf("node %s has forgotten the pause", s.cfg.Name)
		}
		if fi, err := os.Stat(s.fleet.file()); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("its memory: %v, %v", fi, err)
		}
	}
}

func (d *duo) within(most time.Duration, what string, ok func() bool) {
	d.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(most); !ok(); <-tick.C {
		if time.Now().After(end) {
			d.t.Fatalf("it did not come to be in %v: %s; a: %+v, b: %+v", most, what, d.a.fleetNow(), d.b.fleetNow())
		}
	}
}
