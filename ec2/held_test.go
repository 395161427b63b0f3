package ec2

import (
	"strings"
	"testing"
	"time"
)

// TestPlan_held: a decision names the limit that kept it from launching as many
// as the work asks for, and none if nothing did.
func TestPlan_held(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(c *Config, in *Input)
		want Limit
	}{
		"nothing to do":    {func(_ *Config, in *Input) { in.Jobs, in.Capped = 0, 0 }, ""},
		"nothing holds":    {func(_ *Config, in *Input) { in.Jobs = 1 }, ""},
		"workers":          {func(c *Config, _ *Input) { c.Max = 3 }, HeldMax},
		"quota":            {func(_ *Config, in *Input) { in.MostNow = 1 }, HeldQuota},
		"hour":             {func(_ *Config, in *Input) { in.Recent = 29 }, HeldHour},
		"budget":           {func(c *Config, in *Input) { c.BudgetPerDay, in.Spent, in.Price = 2, 2, 3.6 }, HeldBudget},
		"price":            {func(c *Config, _ *Input) { c.BudgetPerDay = 2 }, HeldPrice},
		"an operator":      {func(_ *Config, in *Input) { in.PausedUntil, in.Pause = noon.Add(time.Second), Asked }, HeldPause},
		"refused":          {func(_ *Config, in *Input) { in.PausedUntil, in.Pause = noon.Add(time.Second), "UnauthorizedOperation" }, HeldRefused},
		"lost, and paused": {func(_ *Config, in *Input) { in.PausedUntil, in.Pause, in.Unseen = noon.Add(time.Second), "lost", 3 }, HeldLost},
		"lost":             {func(_ *Config, in *Input) { in.Unseen = 3 }, HeldLost},
		"slots":            {func(_ *Config, in *Input) { in.Slots = in.Slots[:1] }, HeldSlots},
		"the tightest": {func(c *Config, in *Input) {
			c.Max = 3
			in.PausedUntil, in.Pause = noon.Add(time.Second), Asked
		}, HeldPause},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := planConfig()
			in := planInput(cfg)
			backlog(in, 9999, 99)
			c.set(&cfg, in)
			d := Plan(noon, cfg, in)
			if d.Held != c.want {
				t.Errorf("held by %q, want %q: %s", d.Held, c.want, d.Why)
			}
			if said := strings.Contains(d.Why, " launches are made"); said != (c.want != "") {
				t.Errorf("held by %q, and it says %s", d.Held, d.Why)
			}
		})
	}
}
