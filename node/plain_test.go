package node

import (
	"crypto/ed25519"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"workmanager/ec2"
	"workmanager/ec2/ec2test"
	"workmanager/jobs"
	"workmanager/web/api"
)

// TestStatus_plain: what a client is told of a fleet that cannot launch holds the
// limit in words and what to do, in the forecast and in why its job waits, and
// nothing that the scheduler or the cloud has said. An operator is told that.
func TestStatus_plain(t *testing.T) {
	const said = "sir-secret-of-EC2"
	cfg := ec2.DefaultConfig()
	cfg.Cluster, cfg.Types, cfg.Subnets = "test", []string{"c7a.large"}, []ec2.Subnet{{ID: "subnet-a", Zone: "zone-a"}}
	for name, c := range map[string]struct {
		code string
		want string
	}{
		"no capacity": {"InsufficientInstanceCapacity", "is held at 0 workers by what has run out. It tries again by itself; another of --types"},
		"not allowed": {"UnauthorizedOperation", "The fleet launches nothing: " + api.PausedForNow + "."},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDuo(t, false, func(a, b *Config) { a.Workers, b.Workers = 0, 0 })
			cloud := ec2test.New(ec2test.Options{Fault: func(call ec2test.Call) *ec2test.Fault {
				if call.Action != "RunInstances" {
					return nil
				}
				return &ec2test.Fault{Code: c.code, Text: said, Status: 500}
			}})
			f := &fleet{now: time.Now, log: slog.New(slog.DiscardHandler)}
			s := ec2.New(cfg, ec2.Parts{Cloud: cloud.Cloud("1"), Backlog: &oneJob{}})
			f.scheduler.Store(s)
			id := d.put(d.a, 1, 1<<50, jobs.AckDefault)[0]
			for range 2 { // what the first learned the second says
				if err := s.Step(t.Context(), time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			seen := &status{cfg: d.a.cfg, signing: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), queue: d.a.queue, store: d.a.store, now: time.Now, fleet: f}
			st, err := seen.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(st.Forecast.Reason+st.Fleet.Paused, c.code) {
				t.Errorf("an operator is not told what EC2 said: %q, %q", st.Forecast.Reason, st.Fleet.Paused)
			}
			client, err := seen.Explain(jobs.WithOwner(t.Context(), "ci"), id)
			if err != nil {
				t.Fatal(err)
			}
			operator, err := seen.Explain(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if text := strings.Join(operator.Reasons, " "); !strings.Contains(text, c.code) {
				t.Errorf("an operator is not told why the job waits: %q", text)
			}
			st.Fleet = st.Fleet.Totals()
			told, err := json.Marshal(st.Fleet)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{st.Plain.Reason, strings.Join(client.Reasons, " ")} {
				if !strings.Contains(text, c.want) {
					t.Errorf("a client is told %q, want %q", text, c.want)
				}
			}
			for _, text := range []string{st.Plain.Text, st.Plain.Reason, client.Text, strings.Join(client.Reasons, " "), string(told)} {
				if strings.Contains(text, said) || strings.Contains(text, "slot") || strings.Contains(text, c.code) {
					t.Errorf("a client is told what the scheduler or EC2 said: %q", text)
				}
			}
		})
	}
}

// TestFleet_counts: what boots is not running, and what ends is neither.
func TestFleet_counts(t *testing.T) {
	phases := []string{"pending", "booting", "working", "idle", "silent", "draining", "ending", "stopped"}
	var f ec2.Fleet
	for _, p := range phases {
		f.Machines = append(f.Machines, ec2.FleetMachine{Phase: p})
	}
	if st := fleetStatus(f); st.Booting != 2 || st.Running != 4 {
		t.Errorf("%d booting and %d running of one of each phase, want 2 and 4", st.Booting, st.Running)
	}
	f.Machines = []ec2.FleetMachine{
		{Price: 0.36, Worker: ec2.Worker{Rate: 1e6}}, {Price: 0.72, Worker: ec2.Worker{Rate: 2e6}},
		{Price: 9}, {Worker: ec2.Worker{Rate: 9e9}}, // of these the one or the other is not known
	}
	if got, want := fleetStatus(f).IterationPrice, 1.08/3600/3e6; got < 0.999*want || got > 1.001*want {
		t.Errorf("an iteration costs $%g, want %g", got, want)
	}
	if got := fleetStatus(ec2.Fleet{}).IterationPrice; got != 0 {
		t.Errorf("an iteration costs $%g where nothing is known", got)
	}
}

// TestStatus_lane_rate is what a job's time is estimated by.
func TestStatus_lane_rate(t *testing.T) {
	for want, list := range map[float64][]api.WorkerStatus{
		0:   {{Cores: 4, Lanes: 8}},
		1e6: {{Cores: 4, Lanes: 8, Rate: 32e6}, {Cores: 4, Lanes: 8}},
		3e6: {{Cores: 1, Lanes: 1, Rate: 5e6}, {Cores: 2, Rate: 4e6}},
	} {
		if got := laneRate(list); got != want {
			t.Errorf("laneRate(%+v) = %g, want %g", list, got, want)
		}
	}
}
