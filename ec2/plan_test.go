package ec2

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func planConfig() Config {
	c := DefaultConfig()
	c.Cluster = "test"
	c.Types = []string{"c7a.large", "c7i.large"}
	c.Subnets = []Subnet{{"subnet-a", "zone-a"}, {"subnet-b", "zone-b"}}
	return c
}

// planInput is an input with nothing to do and all slots free.
func planInput(c Config) *Input {
	in := &Input{Lanes: 16, Boot: 65 * time.Second}
	for k := range c.SlotCount() {
		in.Slots = append(in.Slots, Slot{Slot: k, Gen: 0, Offer: c.Offer(k)})
	}
	return in
}

// worked returns a machine in a slot, launched so long ago, with a worker that has leases.
func worked(slot int, age time.Duration, leases int) Machine {
	m := booting(slot, age)
	m.Worker = &Worker{Instance: m.ID, Lanes: 16, Leases: leases, Remaining: float64(leases), Leased: leases > 0, SeenAt: noon}
	return m
}

func booting(slot int, age time.Duration) Machine {
	return Machine{Instance: Instance{ID: fmt.Sprintf("i-%d", slot), State: Running, Slot: slot, LaunchedAt: noon.Add(-age)}}
}

// backlog sets chains of so many lane-seconds each, all waiting.
func backlog(in *Input, chains int, each float64) {
	in.Jobs, in.Queued = int64(chains), int64(chains)
	in.Capped = float64(chains) * min(each, 300)
}

func told(d Decision) string {
	var out []string
	for _, a := range d.Actions {
		if a.Do == Launch {
			out = append(out, fmt.Sprintf("launch %d", a.Slot.Slot))
		} else {
			out = append(out, fmt.Sprintf("%s %s", a.Do, a.Instance))
		}
	}
	return strings.Join(out, ", ")
}

func TestPlan(t *testing.T) {
	const min2 = 2 * time.Minute
	for name, c := range map[string]struct {
		set  func(c *Config, in *Input)
		want string
		why  string // part of the reason
	}{
		"nothing to do":                {func(_ *Config, _ *Input) {}, "", "hold at 0: nothing is queued or running"},
		"one chain, one worker":        {func(_ *Config, in *Input) { backlog(in, 1, 1e9) }, "launch 0", "launch 1: "},
		"never more lanes than chains": {func(_ *Config, in *Input) { backlog(in, 17, 1e9) }, "launch 0, launch 1", ""},
		"a burst": { // 20 000 x 3 s = 60 000 lane-seconds, of which one worker does 16 x 235
			func(c *Config, in *Input) { c.Max = 64; backlog(in, 20_000, 3) },
			"launch 0, launch 1, launch 2, launch 3, launch 4, launch 5, launch 6, launch 7, launch 8, launch 9, launch 10, launch 11, launch 12, launch 13, launch 14, launch 15", ""},
		"those that boot count": {
			func(_ *Config, in *Input) {
				backlog(in, 1000, 5)
				in.Machines = []Machine{booting(0, 10*time.Second), booting(1, 10*time.Second)}
			}, "", "hold at 2"},
		"those that have nearly booted count for more": {
			func(_ *Config, in *Input) { backlog(in, 1000, 4.5); in.Machines = []Machine{booting(0, time.Minute)} }, "", "hold at 1"},
		"those that drain do not": {
			func(_ *Config, in *Input) {
				backlog(in, 1000, 4)
				m := worked(0, min2, 4)
				m.DrainAt = noon.Add(-time.Second)
				in.Machines = []Machine{m}
			}, "launch 1, launch 2", ""},
		"a draining one holds its slot and counts for the cap": {
			func(c *Config, in *Input) {
				c.Max = 2
				backlog(in, 1000, 4)
				m := worked(0, min2, 4)
				m.DrainAt = noon.Add(-time.Second)
				in.Machines, in.Slots = []Machine{m}, in.Slots[:2]
			}, "launch 1", "--max-workers is 2; so 1 of 2 launches are made"},
		"work that keeps coming in": {func(_ *Config, in *Input) { in.Rate = 40 }, "launch 0, launch 1, launch 2, launch 3", ""},
		"a drain time below three boots is raised": {
			func(c *Config, in *Input) { c.Drain = time.Minute; in.Jobs, in.Queued, in.Capped = 600, 600, 6000 }, "launch 0, launch 1, launch 2", "in 3m15s"},
		"least workers": {func(c *Config, _ *Input) { c.Min = 2 }, "launch 0, launch 1", "--min-workers is 2"},

		"cap of workers":          {func(c *Config, in *Input) { c.Max = 3; backlog(in, 9999, 99); in.Slots = in.Slots[:3] }, "launch 0, launch 1, launch 2", "--max-workers is 3"},
		"cap of launches an hour": {func(c *Config, in *Input) { backlog(in, 9999, 99); in.Recent = 28 }, "launch 0, launch 1", "28 of at most 30 launches in the last hour"},
		"hour is full":            {func(c *Config, in *Input) { c.LaunchesPerHour = 5; backlog(in, 9999, 99); in.Recent = 7 }, "", "7 of at most 5 launches"},
		"budget": {func(c *Config, in *Input) { // a launch is worth 365 s at 3.6 $/h
			backlog(in, 9999, 99)
			c.BudgetPerDay, in.Spent, in.Price = 2, 1.2, 3.6
		}, "launch 0, launch 1", "$1.20 of the day's $2.00 are spent"},
		"budget, price not known": {func(c *Config, in *Input) { backlog(in, 9999, 99); c.BudgetPerDay = 2 }, "", "what a launch costs is not known"},
		"budget spent": {func(c *Config, in *Input) {
			backlog(in, 9999, 99)
			c.BudgetPerDay, in.Spent, in.Price = 2, 2, 3.6
			in.Machines = []Machine{worked(0, min2, 16), booting(1, time.Second)}
		}, "drain i-0, terminate i-1", ""},
		"quota": {func(_ *Config, in *Input) {
			backlog(in, 9999, 99)
			in.MostNow = 2
			in.Machines = []Machine{worked(0, min2, 16)}
		}, "launch 1", "EC2 allows no more than 2"},
		"slots set aside": {func(_ *Config, in *Input) { backlog(in, 40, 1e9); in.Slots = []Slot{{Slot: 3}, {Slot: 5}} }, "launch 3, launch 5", "no slot is usable"},
		"pause": {func(_ *Config, in *Input) {
			backlog(in, 40, 1e9)
			in.PausedUntil, in.Pause = noon.Add(time.Minute), "UnauthorizedOperation: no"
		}, "", "launches pause until 12:01:00: UnauthorizedOperation: no"},
		"one is tried after launches that never registered": {func(_ *Config, in *Input) { backlog(in, 40, 1e9); in.Unseen = 3 }, "launch 0", "3 launches in a row never registered"},
		"and no second before it is known what came of it": {func(_ *Config, in *Input) {
			backlog(in, 40, 1e9)
			in.Unseen, in.Machines = 3, []Machine{booting(0, time.Second)}
		}, "", "one at a time"},

		"too many, but not for long": {func(_ *Config, in *Input) {
			in.Machines = []Machine{worked(0, min2, 0)}
			in.Since = noon.Add(-59 * time.Second)
		}, "", "they drain if that lasts 1s more"},
		"too many for a minute": {func(_ *Config, in *Input) {
			in.Machines = []Machine{worked(0, min2, 0)}
			in.Since = noon.Add(-time.Minute)
		}, "drain i-0", ""},
		"too many, but chains wait": {func(_ *Config, in *Input) {
			in.Jobs, in.Queued, in.Capped = 1, 1, 1
			in.Machines, in.Since = []Machine{worked(0, min2, 0), worked(1, min2, 0)}, noon.Add(-time.Hour)
		}, "", ""},
		"too many, but one is young": {func(_ *Config, in *Input) {
			in.Machines, in.Since = []Machine{worked(0, 59*time.Second, 0), worked(1, min2, 0)}, noon.Add(-time.Hour)
		}, "drain i-1", ""},
		"chains that run are packed": {func(_ *Config, in *Input) { // 20 chains fit two workers
			in.Jobs, in.Capped, in.Since = 20, 20*300, noon.Add(-time.Hour)
			in.Machines = []Machine{worked(0, min2, 9), worked(1, min2, 4), worked(2, min2, 2), worked(3, min2, 5)}
		}, "drain i-2, drain i-1", ""},
		"chains that are nearly done keep their workers": {func(_ *Config, in *Input) {
			in.Jobs, in.Capped, in.Since = 20, 20, noon.Add(-time.Hour)
			in.Machines = []Machine{worked(0, min2, 16), worked(1, min2, 4), worked(2, min2, 0)}
		}, "drain i-2", ""},
		"one that never worked drains first, then the higher slot": {func(_ *Config, in *Input) {
			in.Jobs, in.Capped, in.Since = 1, 1, noon.Add(-time.Hour)
			b, c := worked(1, min2, 0), worked(2, min2, 0)
			c.Worker.Leased = true
			in.Machines = []Machine{worked(0, min2, 1), b, c}
		}, "drain i-1, drain i-2", ""},
		"one that boots ends when nothing waits": {func(_ *Config, in *Input) {
			in.Machines = []Machine{booting(0, 61*time.Second)}
			in.Since = noon.Add(-time.Hour)
		}, "terminate i-0", ""},
		"but not while chains run": {func(_ *Config, in *Input) {
			in.Jobs, in.Capped, in.Since = 1, 1, noon.Add(-time.Hour)
			in.Machines = []Machine{worked(0, min2, 1), booting(1, min2)}
		}, "", ""},
		"least workers stay": {func(c *Config, in *Input) {
			c.Min = 1
			in.Machines, in.Since = []Machine{worked(0, min2, 0), worked(1, min2, 0)}, noon.Add(-time.Hour)
		}, "drain i-1", ""},
		"none drains while the other node is away": {func(_ *Config, in *Input) {
			in.PeerAway, in.Machines, in.Since = true, []Machine{worked(0, min2, 0)}, noon.Add(-time.Hour)
		}, "", "while the other node is away"},

		"never registered, first look": {func(_ *Config, in *Input) { in.Machines = []Machine{booting(0, 11*time.Minute)} }, "", ""},
		"never registered, second look": {func(_ *Config, in *Input) {
			in.Machines = []Machine{booting(0, 11*time.Minute)}
			in.Machines[0].Suspect = noon.Add(-time.Minute)
		}, "terminate i-0", ""},
		"never registered, the other node away": {func(_ *Config, in *Input) {
			in.PeerAway, in.Machines = true, []Machine{booting(0, 11*time.Minute)}
			in.Machines[0].Suspect = noon.Add(-time.Minute)
		}, "", "is kept while the other node is away: it has not registered in 11m0s"},
		"in no slot": {func(_ *Config, in *Input) {
			in.Machines = []Machine{booting(-1, 6*time.Minute)}
			in.Machines[0].Suspect = noon.Add(-time.Minute)
		}, "terminate i--1", ""},
		"silent": {func(_ *Config, in *Input) {
			in.Machines = []Machine{worked(0, time.Hour, 3)}
			in.Machines[0].Worker.SeenAt, in.Machines[0].Suspect = noon.Add(-4*time.Minute), noon.Add(-time.Minute)
		}, "terminate i-0", ""},
		"a silent one is no capacity": {func(_ *Config, in *Input) {
			backlog(in, 1, 1e9)
			in.Machines = []Machine{worked(0, time.Hour, 3)}
			in.Machines[0].Worker.SeenAt = noon.Add(-3 * time.Minute)
		}, "launch 1", ""},
		"heard again": {func(_ *Config, in *Input) {
			backlog(in, 1, 1e9)
			in.Machines = []Machine{worked(0, time.Hour, 3)}
			in.Machines[0].Suspect = noon.Add(-time.Minute)
		}, "", ""},
		"its end is asked for until it is seen": {func(_ *Config, in *Input) {
			in.Machines = []Machine{booting(0, time.Minute)}
			in.Machines[0].Ending = true
		}, "terminate i-0", ""},
		"stopped": {func(_ *Config, in *Input) {
			in.Machines = []Machine{worked(0, time.Minute, 3)}
			in.Machines[0].State = Stopped
		}, "terminate i-0", ""},
		"drains for too long": {func(_ *Config, in *Input) {
			in.Machines = []Machine{worked(0, time.Hour, 3)}
			in.Machines[0].DrainAt = noon.Add(-2 * time.Minute)
		}, "terminate i-0", ""},
		"old": {func(_ *Config, in *Input) {
			backlog(in, 1, 1e9)
			in.Machines = []Machine{worked(0, 24*time.Hour, 3)}
		}, "drain i-0, launch 1", ""},
		"two in one slot": {func(_ *Config, in *Input) {
			backlog(in, 32, 1e9)
			young := worked(0, time.Minute, 3)
			young.ID = "i-young"
			in.Machines = []Machine{young, worked(0, time.Hour, 3), worked(1, time.Hour, 3)}
		}, "drain i-young", ""},
		"a slot that is no more": {func(_ *Config, in *Input) {
			in.Machines = []Machine{worked(10, time.Hour, 3), booting(11, time.Minute)}
		}, "drain i-10, terminate i-11", ""},
		"an operator's order": {func(_ *Config, in *Input) {
			in.Machines = []Machine{worked(0, time.Hour, 3), worked(1, time.Hour, 3)}
			in.Machines[0].Ordered, in.Machines[1].Ordered = Drain, Terminate
		}, "drain i-0, terminate i-1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := planConfig()
			in := planInput(cfg)
			c.set(&cfg, in)
			if cfg.Max > DefaultConfig().Max {
				in.Slots = planInput(cfg).Slots
			}
			d := Plan(noon, cfg, in)
			if got := told(d); got != c.want {
				t.Errorf("Plan() does %q, want %q; %s", got, c.want, d.Why)
			}
			why := d.Why
			for _, a := range d.Actions {
				why += " | " + a.Why
			}
			if !strings.Contains(why, c.why) {
				t.Errorf("Plan() says %q, want %q in it", why, c.why)
			}
		})
	}
}

func TestPlan_idle(t *testing.T) {
	cfg := planConfig()
	in := planInput(cfg)
	in.Jobs, in.Capped = 1, 100
	in.Machines = []Machine{worked(0, time.Hour, 1), worked(1, time.Hour, 0), worked(2, time.Hour, 0), booting(3, time.Second)}
	d := Plan(noon, cfg, in)
	if got, want := fmt.Sprint(d.Idle), "map[i-1:15s i-2:15s]"; got != want {
		t.Errorf("idle workers may stay for %s, want %s", got, want)
	}
	in.Machines = in.Machines[1:2]
	if got, want := fmt.Sprint(Plan(noon, cfg, in).Idle), "map[i-1:1m30s]"; got != want {
		t.Errorf("the last idle worker may stay for %s, want %s", got, want)
	}
	cfg.Min = 1
	if got, want := fmt.Sprint(Plan(noon, cfg, in).Idle), "map[i-1:0s]"; got != want {
		t.Errorf("a worker that --min-workers keeps may stay for %s, want %s", got, want)
	}
}

func TestOffer(t *testing.T) {
	c := planConfig()
	c.Max, c.Spot = 3, true
	var got []string
	for k := range c.SlotCount() {
		got = append(got, c.Offer(k).String())
	}
	want := "c7a.large in zone-a (Spot), c7a.large in zone-b (Spot), c7i.large in zone-a (Spot), c7a.large in zone-a, c7a.large in zone-b, c7i.large in zone-a"
	if got := strings.Join(got, ", "); got != want {
		t.Errorf("offers %s, want %s", got, want)
	}
}

func TestArrivals(t *testing.T) {
	var a Arrivals
	now := noon
	for minute := range 12 {
		if got, want := a.Rate(now), map[bool]float64{true: 10, false: 0}[minute >= 7]; got != want {
			t.Errorf("after %d minutes with work Rate() = %g, want %g", minute, got, want)
		}
		for range 60 {
			a.Add(now, 10)
			now = now.Add(time.Second)
		}
	}
	a.Add(now, 1e9) // a burst
	now = now.Add(time.Minute)
	if got := a.Rate(now); got != 10 {
		t.Errorf("after a burst Rate() = %g, want 10", got)
	}
	if got := a.Rate(now.Add(-time.Hour)); got != 10 {
		t.Errorf("with the clock an hour back Rate() = %g, want 10", got)
	}
	now = now.Add(3 * time.Minute)
	if got := a.Rate(now); got != 0 {
		t.Errorf("three minutes after the last work Rate() = %g, want 0", got)
	}
}

func TestConfigValidate(t *testing.T) {
	if err := planConfig().Validate(); err != nil {
		t.Errorf("Validate() = %v", err)
	}
	bad := Config{Max: 200, Min: -1, LaunchesPerHour: -1, BudgetPerDay: math.NaN()}
	err := bad.Validate()
	for _, flag := range []string{"cluster", "--max-workers", "--min-workers", "--drain-seconds", "--max-launches-per-hour", "--budget-per-day", "--types", "--subnets", "lanes", ""} {
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("Validate() = %v, want %s in it", err, flag)
		}
	}
}

// FuzzPlan plays a fleet for an hour and a half by chance, and holds every
// decision to what must never happen.
func FuzzPlan(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, uint8(seed*37))
	}
	f.Fuzz(func(t *testing.T, seed uint64, kind uint8) { playPlan(t, seed, kind) })
}

func playPlan(t *testing.T, seed uint64, kind uint8) {
	rng := rand.New(rand.NewPCG(seed, uint64(kind)))
	cfg := planConfig()
	cfg.Max = 1 + rng.IntN(12)
	cfg.Min = rng.IntN(min(cfg.Max, 3))
	cfg.Spot = kind&1 > 0
	if kind&2 > 0 {
		cfg.BudgetPerDay = 0.5 * rng.Float64()
	}
	cfg.LaunchesPerHour = rng.IntN(60)
	registers := kind&4 == 0
	price := 0.1
	now, spent, since := noon, 0.0, time.Time{}
	var alive []*Machine
	var launched []time.Time
	suspects := map[string]time.Time{}
	next, chains := 0, 0
	for range 540 {
		now = now.Add(10 * time.Second)
		if rng.IntN(20) == 0 {
			chains = rng.IntN(2) * rng.IntN(400)
		}
		if kind&8 > 0 && rng.IntN(30) == 0 {
			chains = 0
		}
		in := planInput(cfg)
		in.Slots = slices.DeleteFunc(in.Slots, func(Slot) bool { return rng.IntN(8) == 0 })
		in.PeerAway = kind&16 > 0 && rng.IntN(4) == 0
		in.Price, in.Spent, in.Since = price, spent, since
		in.MostNow = rng.IntN(2) * (1 + rng.IntN(cfg.Max))
		launched = slices.DeleteFunc(launched, func(at time.Time) bool { return now.Sub(at) >= time.Hour })
		in.Recent = len(launched)
		left := chains
		for _, m := range alive {
			spent += price * 10 / 3600
			if registers && now.Sub(m.LaunchedAt) > time.Minute && m.Worker == nil && rng.IntN(3) > 0 {
				m.Worker = &Worker{Instance: m.ID, Lanes: 1 + rng.IntN(32)}
			}
			if m.Worker != nil {
				m.Worker.Leases = min(left, m.Worker.Lanes)
				if !m.DrainAt.IsZero() {
					m.Worker.Leases = 0
				}
				left -= m.Worker.Leases
				m.Worker.Leased = m.Worker.Leased || m.Worker.Leases > 0
				if rng.IntN(40) > 0 {
					m.Worker.SeenAt = now
				}
			}
			m.Suspect = suspects[m.ID]
			in.Machines = append(in.Machines, *m)
		}
		in.Jobs, in.Queued, in.Capped, in.Lanes, in.Rate = int64(chains), int64(left), float64(chains)*300*rng.Float64(), 16, float64(rng.IntN(2)*rng.IntN(20))
		before := slices.Clone(in.Machines)
		d := Plan(now, cfg, in)
		since = d.Since

		live := map[int]string{}
		for _, m := range before {
			live[m.Slot] = m.ID
		}
		busy := map[string]Machine{}
		for _, m := range before {
			busy[m.ID] = m
		}
		launches := 0
		acted := map[string]bool{}
		for _, a := range d.Actions {
			if a.Why == "" {
				t.Fatalf("%s %s without a reason", a.Do, a.Instance)
			}
			if a.Do == Launch {
				launches++
				if other := live[a.Slot.Slot]; other != "" {
					t.Fatalf("launch into slot %d, which is %s's", a.Slot.Slot, other)
				}
				live[a.Slot.Slot] = "a launch"
				if !slices.Contains(in.Slots, a.Slot) {
					t.Fatalf("launch into slot %d, which is set aside", a.Slot.Slot)
				}
				continue
			}
			m, known := busy[a.Instance]
			if !known || acted[a.Instance] {
				t.Fatalf("%s %s: known %v, twice %v", a.Do, a.Instance, known, acted[a.Instance])
			}
			acted[a.Instance] = true
			if a.Do == Terminate && m.Worker != nil && m.Worker.Leases > 0 && now.Sub(m.Worker.SeenAt) < silenceLimit {
				t.Fatalf("terminate %s, which is busy: %s", a.Instance, a.Why)
			}
			if in.PeerAway && (a.Do == Drain || m.DrainAt.IsZero() && !m.Ending) {
				t.Fatalf("%s %s while the other node is away: %s", a.Do, a.Instance, a.Why)
			}
		}
		switch {
		case launches > 0 && len(before)+launches > cfg.Max:
			t.Fatalf("%d launches beside %d machines, with at most %d", launches, len(before), cfg.Max)
		case in.MostNow > 0 && launches > 0 && len(before)+launches > in.MostNow:
			t.Fatalf("%d launches beside %d machines, with %d allowed now", launches, len(before), in.MostNow)
		case launches > 0 && len(launched)+launches > cfg.HourLimit():
			t.Fatalf("%d launches after %d in an hour, with at most %d", launches, len(launched), cfg.HourLimit())
		case cfg.BudgetPerDay > 0 && launches > 0 && spent+float64(launches)*price/60 > cfg.BudgetPerDay:
			t.Fatalf("%d launches with $%g of $%g spent", launches, spent, cfg.BudgetPerDay)
		}

		seen := suspects
		suspects = map[string]time.Time{}
		for _, id := range d.Suspects {
			suspects[id] = now
			if at, was := seen[id]; was {
				suspects[id] = at
			}
		}
		for _, a := range d.Actions {
			switch i := slices.IndexFunc(alive, func(m *Machine) bool { return m.ID == a.Instance }); {
			case a.Do == Launch:
				m := &Machine{Instance: Instance{ID: fmt.Sprintf("i-%d", next), State: Running, Slot: a.Slot.Slot, LaunchedAt: now}}
				next++
				alive, launched = append(alive, m), append(launched, now)
			case a.Do == Drain:
				alive[i].DrainAt = now
			default:
				alive = slices.Delete(alive, i, i+1)
			}
		}
		alive = slices.DeleteFunc(alive, func(m *Machine) bool { // a drained one ends itself, but not always
			return !m.DrainAt.IsZero() && rng.IntN(4) == 0
		})
		for _, m := range alive {
			age := now.Sub(m.LaunchedAt)
			forgotten := m.Worker == nil && age > registerLimit+2*secondLook || !m.DrainAt.IsZero() && now.Sub(m.DrainAt) > drainLimit+secondLook
			if forgotten && kind&16 == 0 {
				t.Fatalf("%s is forgotten: launched %s ago, told to drain at %v", m.ID, age, m.DrainAt)
			}
		}
	}
}

// TestPlan_hurry divides the times of the safety nets, and of nothing else.
func TestPlan_hurry(t *testing.T) {
	for _, row := range []struct {
		hurry float64
		age   time.Duration // of one that has not registered
		want  int           // suspects
	}{{0, 9 * time.Minute, 0}, {0, 11 * time.Minute, 1}, {1, 9 * time.Minute, 0}, {30, 19 * time.Second, 0}, {30, 21 * time.Second, 1}} {
		c := planConfig()
		c.Hurry = row.hurry
		in := planInput(c)
		in.Machines = []Machine{booting(0, row.age)}
		backlog(in, 100, 100)
		if d := Plan(noon, c, in); len(d.Suspects) != row.want || d.Work != 100*100 {
			t.Errorf("hurry %g, age %s: %d suspects of %d, work %g", row.hurry, row.age, len(d.Suspects), row.want, d.Work)
		}
	}
}
