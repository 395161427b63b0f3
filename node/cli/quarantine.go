package cli

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"workmanager/jobs"
	"workmanager/web/api"
)

func (p *program) quarantineCommand() *cli.Command {
	reason := func() cli.Flag {
		return &cli.StringFlag{Name: "reason", Usage: "`TEXT` that is shown with it"}
	}
	return &cli.Command{
		Name:  "quarantine",
		Usage: "list the workers that the pair does not trust; take one out, or let it in again",
		Subcommands: []*cli.Command{
			{Name: "ls", Usage: "list the quarantined workers, and why", Flags: []cli.Flag{&cli.BoolFlag{Name: "all", Usage: "those too that were let in again"}, nodeFlag(), listFlag()}, Action: p.quarantineList},
			{
				Name: "add", Usage: "give workers nothing more, at both nodes, and recompute what they reported last", ArgsUsage: "WORKER...",
				Flags: []cli.Flag{reason(), nodeFlag(), documentFlag()}, Action: func(c *cli.Context) error { return p.quarantineOrder(c, api.QuarantineAdd) },
			},
			{
				Name: "lift", Usage: "let workers in again, at both nodes; their first reports are checked", ArgsUsage: "WORKER...",
				Flags: []cli.Flag{reason(), nodeFlag(), documentFlag()}, Action: func(c *cli.Context) error { return p.quarantineOrder(c, api.QuarantineLift) },
			},
		},
	}
}

func (p *program) quarantineList(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	cl := p.client(c)
	defer cl.Close()
	l, err := cl.Quarantines(c.Context)
	if err != nil {
		return err
	}
	return p.printQuarantines(c, l, c.Bool("all"))
}

// printQuarantines prints the workers that are quarantined, and with all those
// that were.
func (p *program) printQuarantines(c *cli.Context, l api.QuarantineList, all bool) error {
	shown := []api.Quarantine{}
	for _, q := range l.Quarantines {
		if all || q.State == api.StateQuarantined {
			shown = append(shown, q)
		}
	}
	l.Quarantines = shown
	if !l.Replicated {
		p.say("the other node does not hold the same yet: it does when the two reach each other again")
	}
	switch f := format(c); f {
	case formatJSON:
		return p.printJSON(f, l)
	case formatJSONL:
		for _, q := range shown {
			if err := p.printJSON(f, q); err != nil {
				return err
			}
		}
		return nil
	case formatID:
		for _, q := range shown {
			fmt.Fprintln(p.stdout, q.Worker)
		}
		return nil
	}
	if len(shown) == 0 {
		fmt.Fprintln(p.stdout, "No worker is quarantined.")
		return nil
	}
	rows := make([][]any, len(shown))
	for i, q := range shown {
		name, by := q.Worker, "node "+q.Node
		if q.Inside {
			name += " (inside the node)"
		}
		if q.By != "" {
			by = q.By + " at " + by
		}
		rows[i] = []any{name, q.State, q.At.Local().Format(time.DateTime), by, q.Reason}
	}
	return p.printTable([]string{"WORKER", "STATE", "SINCE", "BY", "REASON"}, rows)
}

func (p *program) quarantineOrder(c *cli.Context, do string) error {
	workers := c.Args().Slice()
	if len(workers) == 0 {
		return usagef("%s needs the names of workers, as status and quarantine ls show them", do)
	}
	cl := p.client(c)
	defer cl.Close()
	var l api.QuarantineList
	for _, w := range workers {
		var err error
		if l, err = cl.OrderQuarantine(c.Context, do, w, c.String("reason")); jobs.CodeOf(err) == jobs.CodeNotFound {
			return &failure{exit: exitNotFound, code: string(jobs.CodeNotFound), err: err, hint: "'workmanager quarantine ls' lists the workers that are"}
		} else if err != nil {
			return err
		}
	}
	return p.printQuarantines(c, l, do == api.QuarantineLift)
}
