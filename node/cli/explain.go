package cli

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"workmanager/jobs"
)

func (p *program) explainCommand() *cli.Command {
	return &cli.Command{
		Name: "explain", Usage: "say why a job waits, or what became of it", ArgsUsage: "ID",
		Description: "For a job that waits: how many are ahead of it, about how long that takes, and what\n" +
			"is in its way, by name. 'workmanager fleet explain' says why there are not more workers.",
		Flags:        []cli.Flag{nodeFlag(), documentFlag()},
		BashComplete: p.completeIDs,
		Action:       p.jobExplain,
	}
}

func (p *program) jobExplain(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("job explain needs one ID, got %d arguments", c.NArg())
	}
	id, err := jobs.ParseID(c.Args().First())
	if err != nil {
		return usagef("%w", err)
	}
	cl := p.client(c)
	defer cl.Close()
	e, err := cl.Explain(c.Context, id)
	if err != nil {
		return err
	}
	if f := format(c); f != formatTable {
		return p.printJSON(f, e)
	}
	fmt.Fprintln(p.stdout, e.Text)
	for _, reason := range e.Reasons {
		fmt.Fprintln(p.stdout, reason)
	}
	return nil
}
