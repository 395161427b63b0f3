package ec2

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPlan_quarantined: the machine of a worker that is quarantined ends, behind
// its leases and not while the other node is away; another comes in its place, but
// not for ever.
func TestPlan_quarantined(t *testing.T) {
	bad := func(leases int) Machine {
		m := worked(0, 2*time.Minute, leases)
		m.Quarantined = "a wrong value"
		return m
	}
	for name, c := range map[string]struct {
		set  func(c *Config, in *Input)
		want string
		why  string // part of the reasons
		held Limit
	}{
		"ends at once":                  {func(_ *Config, in *Input) { in.Machines = []Machine{bad(0)} }, "terminate i-0", "its worker is quarantined: a wrong value", ""},
		"though it is young":            {func(_ *Config, in *Input) { m := bad(0); m.LaunchedAt = noon; in.Machines = []Machine{m} }, "terminate i-0", "quarantined", ""},
		"though it drains":              {func(_ *Config, in *Input) { m := bad(0); m.DrainAt = noon; in.Machines = []Machine{m} }, "terminate i-0", "quarantined", ""},
		"though it is one of the least": {func(c *Config, in *Input) { c.Min = 1; in.Machines = []Machine{bad(0)} }, "terminate i-0, launch 1", "quarantined", ""},
		"not before its leases":         {func(_ *Config, in *Input) { in.Machines = []Machine{bad(3)} }, "", "i-0 is quarantined, and ends when the 3 jobs it had are taken back", ""},
		"not while the other node is away": {func(_ *Config, in *Input) { in.PeerAway = true; in.Machines = []Machine{bad(0)} }, "",
			"i-0 is quarantined, and kept while the other node is away", ""},
		"is no capacity": {func(_ *Config, in *Input) { backlog(in, 16, 1e9); in.Machines = []Machine{bad(0)} }, "terminate i-0, launch 1", "", ""},
		"the third in a row": {func(_ *Config, in *Input) {
			backlog(in, 16, 1e9)
			in.Machines, in.Spoilt, in.PausedUntil, in.Pause = []Machine{bad(0)}, 3, noon.Add(time.Minute), "3 workers in a row were quarantined"
		}, "terminate i-0", "launches pause until 12:01:00: 3 workers in a row", HeldSpoilt},
		"then one is tried": {func(_ *Config, in *Input) { backlog(in, 99, 1e9); in.Spoilt = 3 }, "launch 0", "3 workers in a row were quarantined, so one at a time is tried", HeldSpoilt},
		"and no second before that one has worked": {func(_ *Config, in *Input) {
			backlog(in, 99, 1e9)
			m := worked(0, time.Minute, 16)
			m.Unproven = true
			in.Spoilt, in.Machines = 3, []Machine{m}
		}, "", "one at a time is tried", HeldSpoilt},
		"of one that ends another may be": {func(_ *Config, in *Input) {
			backlog(in, 99, 1e9)
			m := worked(0, time.Minute, 0)
			m.Unproven, m.Ending = true, true
			in.Spoilt, in.Machines = 3, []Machine{m}
		}, "terminate i-0, launch 1", "one at a time is tried", HeldSpoilt},
		"least workers too": {func(c *Config, in *Input) { c.Min = 4; in.Spoilt = 3 }, "launch 0", "one at a time is tried", HeldSpoilt},
		"two are no row":    {func(_ *Config, in *Input) { backlog(in, 32, 1e9); in.Spoilt = 2 }, "launch 0, launch 1", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := planConfig()
			in := planInput(cfg)
			c.set(&cfg, in)
			d := Plan(noon, cfg, in)
			why := d.Why
			for _, a := range d.Actions {
				why += "; " + a.Why
			}
			if got := told(d); got != c.want || !strings.Contains(why, c.why) || d.Held != c.held {
				t.Errorf("got %q, held %q, %s\nwant %q, held %q, with %q", got, d.Held, why, c.want, c.held, c.why)
			}
			if bad := slices.ContainsFunc(d.Suspects, func(id string) bool { return id == "i-0" }); bad {
				t.Error("it is a suspect")
			}
		})
	}
}
