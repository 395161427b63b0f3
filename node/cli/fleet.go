package cli

import (
	"bufio"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"workmanager/jobs"
	"workmanager/node"
	"workmanager/web/api"
)

func (p *program) fleetCommand() *cli.Command {
	order := func(do, usage string, each bool) *cli.Command {
		c := &cli.Command{Name: do, Usage: usage, Flags: []cli.Flag{nodeFlag(), documentFlag()}, Action: func(c *cli.Context) error { return p.fleetOrder(c, do, each) }}
		if each {
			c.ArgsUsage = "INSTANCE..."
		}
		return c
	}
	return &cli.Command{
		Name:  "fleet",
		Usage: "look at the instances that the scheduler owns, and why; drain or end them",
		Subcommands: []*cli.Command{
			{Name: "ls", Usage: "list the instances, with what they do and cost", Flags: []cli.Flag{nodeFlag(), listFlag()}, Action: p.fleetList},
			{
				Name: "explain", Usage: "tell why the fleet is as large as it is: the last decisions, the newest first",
				Flags:  []cli.Flag{&cli.IntFlag{Name: "limit", Usage: "the last `N` decisions", Value: 10}, nodeFlag(), linesFlag()},
				Action: p.fleetExplain,
			},
			order(api.FleetDrain, "give instances no more jobs; they hand back what they have, and end", true),
			order(api.FleetTerminate, "end instances at once; their jobs go on elsewhere from the last checkpoint", true),
			order(api.FleetPause, "launch nothing until fleet resume; what is not needed still ends", false),
			order(api.FleetResume, "launch again as needed", false),
		},
	}
}

func (p *program) fleetList(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	cl := p.client(c)
	defer cl.Close()
	f, err := cl.Fleet(c.Context)
	if err != nil {
		return err
	}
	f.Decisions = nil
	return p.printFleet(format(c), f)
}

func (p *program) printFleet(f string, fleet api.FleetStatus) error {
	switch {
	case f == formatID:
		if fleet.Kind == "none" { // else nothing would be said at all
			p.say("this node has no fleet")
		}
		w := bufio.NewWriter(p.stdout)
		for _, i := range fleet.Instances {
			fmt.Fprintln(w, i.ID)
		}
		return w.Flush() // holds the first error of the writes above
	case f != formatTable:
		return p.printJSON(f, fleet)
	case fleet.Kind == "none":
		_, err := fmt.Fprintln(p.stdout, "This node has no fleet.")
		return err
	}
	fmt.Fprintln(p.stdout, fleetLine(fleet))
	if fleet.Held != "" && fleet.Paused == "" {
		fmt.Fprintf(p.stdout, "Held by %s.\n", fleet.Held)
	}
	if fleet.Paused != "" {
		fmt.Fprintf(p.stdout, "Launches pause: %s.\n", fleet.Paused)
	}
	now := time.Now()
	rows := make([][]any, len(fleet.Instances))
	for n, i := range fleet.Instances {
		market := "on demand"
		if i.Spot {
			market = "Spot"
		}
		age, seen := "", ""
		if i.LaunchedAt != nil {
			age = roughly(now.Sub(*i.LaunchedAt))
		}
		if i.SeenAt != nil {
			seen = roughly(now.Sub(*i.SeenAt)) + " ago"
		}
		rows[n] = []any{i.ID, i.State, i.Slot, i.Type, i.Zone, market, fmt.Sprintf("%d/%d", i.Leases, i.Lanes), number(i.Rate) + " it/s", age, seen, perHour(i.PricePerHour)}
	}
	return p.printTable([]string{"INSTANCE", "STATE", "SLOT", "TYPE", "ZONE", "MARKET", "LEASES/LANES", "RATE", "AGE", "SEEN", "PRICE"}, rows)
}

// fleetLine says in a line how many workers there are, and what they cost. What is
// not known is never shown as 0.
func fleetLine(f api.FleetStatus) string {
	line := fmt.Sprintf("%d running, ", f.Running)
	if f.Booting > 0 {
		line = fmt.Sprintf("%d booting, ", f.Booting) + line
	}
	line += fmt.Sprintf("of at most %s; %d wanted.", plural(int64(f.Max), "worker"), f.Want)
	if f.Kind == node.FleetProcess {
		return line + " They are processes of this machine."
	}
	price, spent := "Price unknown", fmt.Sprintf("$%.2f today", f.SpentToday)
	if f.PricePerHour != nil {
		price = perHour(f.PricePerHour) + " now, list price without volumes"
	}
	switch {
	case f.SpentUnknown && f.SpentToday > 0:
		spent = "more than " + spent
	case f.SpentUnknown && f.PricePerHour == nil:
		return line + " Price unknown: give --prices TYPE=DOLLARS to both nodes."
	case f.SpentUnknown:
		spent = "unknown today"
	}
	return line + " " + price + "; " + spent + "."
}

// perHour is a price for people. One that is not known is never shown as 0.
func perHour(price *float64) string {
	if price == nil {
		return "n/a"
	}
	return fmt.Sprintf("$%.4g/h", *price)
}

func (p *program) fleetExplain(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	limit := c.Int("limit")
	if limit < 1 {
		return usagef("--limit must be at least 1: %d given", limit)
	}
	cl := p.client(c)
	defer cl.Close()
	f, err := cl.Fleet(c.Context)
	if err != nil {
		return err
	}
	f.Decisions = f.Decisions[:min(limit, len(f.Decisions))]
	switch format(c) {
	case formatJSON:
		return p.printJSON(formatJSON, map[string]any{"decisions": append([]api.FleetDecision{}, f.Decisions...)})
	case formatJSONL:
		if f.Kind == "none" { // else nothing would be said at all
			p.say("this node has no fleet")
		}
		for _, d := range f.Decisions {
			if err := p.printJSON(formatJSONL, d); err != nil {
				return err
			}
		}
		return nil
	}
	switch {
	case f.Kind == "none":
		fmt.Fprintln(p.stdout, "This node has no fleet.")
	case len(f.Decisions) == 0:
		fmt.Fprintln(p.stdout, "Nothing was decided so far.")
	}
	for _, d := range f.Decisions {
		p.explain(d)
	}
	return nil
}

func (p *program) explain(d api.FleetDecision) {
	at := d.At.Local().Format(time.DateTime)
	if d.Times > 1 {
		at += fmt.Sprintf(" to %s, %d times", d.LastAt.Local().Format(time.TimeOnly), d.Times)
	}
	fmt.Fprintf(p.stdout, "%s  %s\n", at, d.Why)
	for _, a := range d.Actions {
		if a.Do != "launch" { // what came of one says it all
			fmt.Fprintf(p.stdout, "    %s %s: %s\n", a.Do, a.Instance, a.Why)
		}
	}
	for _, o := range d.Outcome {
		fmt.Fprintf(p.stdout, "    %s\n", o)
	}
}

func (p *program) fleetOrder(c *cli.Context, do string, each bool) error {
	instances := []string{""}
	if each {
		if instances = c.Args().Slice(); len(instances) == 0 {
			return usagef("%s needs the IDs of instances, as fleet ls shows them", do)
		}
	} else if err := noArgs(c); err != nil {
		return err
	}
	cl := p.client(c)
	defer cl.Close()
	var f api.FleetStatus
	for _, id := range instances {
		var err error
		if f, err = cl.OrderFleet(c.Context, do, id); jobs.CodeOf(err) == jobs.CodeNotFound {
			return &failure{exit: exitNotFound, code: string(jobs.CodeNotFound), err: err, hint: "'workmanager fleet ls' lists the instances there are"}
		} else if err != nil {
			return err
		}
	}
	f.Decisions = nil
	return p.printFleet(format(c), f)
}
