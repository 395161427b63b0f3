package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"workmanager/jobs"
	"workmanager/web/client"
)

func (p *program) jobCommand() *cli.Command {
	formats := func() []cli.Flag { return []cli.Flag{nodeFlag(), documentFlag(formatID)} }
	return &cli.Command{
		Name:  "job",
		Usage: "look at jobs, wait for them, cancel them",
		Subcommands: []*cli.Command{
			{
				Name: "get", Usage: "print jobs as they are now", ArgsUsage: "ID...|-",
				Flags:        formats(),
				BashComplete: p.completeIDs,
				Action:       p.jobGet,
			},
			{
				Name: "wait", Usage: "wait until jobs have ended; exit 3 if one has no value", ArgsUsage: "ID...|-",
				Flags:        append(append([]cli.Flag{timeoutFlag()}, formats()...), progressFlags()...),
				BashComplete: p.completeIDs,
				Action:       p.jobWait,
			},
			{
				Name: "cancel", Usage: "withdraw jobs; with --purge erase them", ArgsUsage: "ID...|-",
				Description: "A job that has ended stays as it was. --purge erases what is kept of a job, its\n" +
					"value too, and there is no way back.",
				Flags:        append([]cli.Flag{&cli.BoolFlag{Name: "purge", Usage: "erase v1, checkpoints and value too", DisableDefaultText: true}}, formats()...),
				BashComplete: p.completeIDs,
				Action:       p.jobCancel,
			},
			p.explainCommand(),
			{
				Name: "receipt", Usage: "print a signed statement of a completed job", ArgsUsage: "ID",
				Description: "It is signed by the node that answers. 'workmanager verify --receipt FILE' checks\n" +
					"it offline.",
				Flags:        []cli.Flag{nodeFlag(), outputFlag(formatJSON, formatJSONL, formatTable)},
				BashComplete: p.completeIDs,
				Action:       p.jobReceipt,
			},
			{
				Name: "ls", Usage: "list jobs, oldest first",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "state", Usage: "only jobs in `STATE`: queued, leased, completed, failed, cancelled", DefaultText: "any"},
					&cli.IntFlag{Name: "limit", Usage: "at most `N` jobs", Value: 50},
					&cli.StringFlag{Name: "after", Usage: "begin behind this `CURSOR`, which -o json shows"},
					nodeFlag(), listFlag(),
				},
				Action: p.jobList,
			},
		},
	}
}

func (p *program) jobGet(c *cli.Context) error {
	return p.eachJob(c, func(cl *client.Client, id jobs.ID) (jobs.View, error) { return cl.Job(c.Context, id, 0) })
}

func (p *program) jobCancel(c *cli.Context) error {
	purge := c.Bool("purge")
	return p.eachJob(c, func(cl *client.Client, id jobs.ID) (jobs.View, error) {
		return cl.Cancel(c.Context, id, purge, jobs.AckDefault)
	})
}

func (p *program) jobReceipt(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("job receipt needs one ID, got %d arguments", c.NArg())
	}
	id, err := jobs.ParseID(c.Args().First())
	if err != nil {
		return usagef("%w", err)
	}
	cl := p.client(c)
	defer cl.Close()
	r, err := cl.Receipt(c.Context, id)
	if err != nil {
		return err
	}
	if format(c) == formatTable { // the signed lines themselves
		_, err = fmt.Fprintf(p.stdout, "%spublic_key %x\nsignature %x\n", r.Canonical(), r.PublicKey, r.Signature)
		return err
	}
	return p.printJSON(format(c), r)
}

// eachJob does one call a job, prints what came back, and goes on after an
// error that is the job's own. It returns the first.
func (p *program) eachJob(c *cli.Context, call func(*client.Client, jobs.ID) (jobs.View, error)) error {
	ids, err := p.readIDs(c)
	if err != nil {
		return err
	}
	cl := p.client(c)
	defer cl.Close()
	var list jobs.List
	var first error
	for _, id := range ids {
		v, err := call(cl, id)
		if err == nil {
			list.Jobs = append(list.Jobs, v)
			continue
		}
		if first == nil {
			first = err
		} else {
			p.say("%v", err)
		}
		if jobs.CodeOf(err) != jobs.CodeNotFound {
			break
		}
	}
	if len(list.Jobs) > 0 || first == nil {
		if len(ids) == 1 && format(c) == formatTable {
			err = p.printJob(list.Jobs[0])
		} else {
			err = p.printJobs(format(c), list)
		}
	}
	if first != nil {
		return first
	}
	return err
}

// printJob prints one job with all that is known of it.
func (p *program) printJob(v jobs.View) error {
	line := func(name string, value any) {
		if s := fmt.Sprint(value); s != "" {
			fmt.Fprintf(p.stdout, "%-12s%s\n", name, s)
		}
	}
	j := jobJSON(v)
	line("id", j.ID)
	line("state", j.State)
	line("iterations", j.Iterations)
	line("done", fmt.Sprintf("%d (%s)", j.Done, share(j.Done, j.Iterations)))
	if v.Rate > 0 {
		line("rate", number(v.Rate)+" it/s, ETA "+roughly(v.ETA()))
	}
	line("owner", j.Owner)
	line("priority", j.Priority)
	if j.ResumedFrom > 0 {
		line("resumed", fmt.Sprintf("from %d, the value of another job over the same data", j.ResumedFrom))
	}
	if j.Checkpoints > 0 {
		line("checkpoints", j.Checkpoints)
	}
	line("value", j.Value)
	line("error", j.Error)
	line("durability", j.Durability+reason(j.DurabilityReason))
	line("attempts", j.Attempts)
	line("worker", j.Worker)
	line("node", j.Node)
	if j.Pulled {
		line("pulled", "yes")
	}
	if j.Purged {
		line("purged", "yes")
	}
	line("created", j.CreatedAt.Local().Format(timeLayout))
	if j.FinishedAt != nil {
		line("finished", fmt.Sprintf("%s, after %s", j.FinishedAt.Local().Format(timeLayout), roughly(j.FinishedAt.Sub(j.CreatedAt))))
	}
	return nil
}

const timeLayout = "2006-01-02 15:04:05.000 MST"

func reason(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

func (p *program) jobWait(c *cli.Context) error {
	ids, err := p.readIDs(c)
	if err != nil {
		return err
	}
	ctx, cancel := withTimeout(c.Context, c.Duration("timeout"), "the jobs go on: wait for them again")
	defer cancel()
	cl := p.client(c)
	defer cl.Close()
	m := p.meter(c, "jobs", len(ids))
	var list jobs.List
	err = p.awaitAll(ctx, cl, ids, m, func(_ int, v jobs.View) error {
		list.Jobs = append(list.Jobs, v)
		return nil
	})
	m.close()
	if len(list.Jobs) > 0 || err == nil {
		if perr := p.printJobs(format(c), list); perr != nil && err == nil {
			err = perr
		}
	}
	if err == nil {
		err = jobFailure(list.Jobs)
	}
	return err
}

// listPage bounds one call of job ls.
const listPage = 1000

func (p *program) jobList(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	q := jobs.ListQuery{State: jobs.State(c.String("state")), After: c.String("after")}
	left := c.Int("limit")
	switch {
	case q.State != "" && !slices.Contains(jobs.States, q.State):
		return usagef("--state must be one of %s: %q given", strings.ReplaceAll(strings.Trim(fmt.Sprint(jobs.States), "[]"), " ", ", "), q.State)
	case left < 1:
		return usagef("--limit %d is below 1", left)
	}
	cl := p.client(c)
	defer cl.Close()
	all := jobs.List{More: true}
	for left > 0 && all.More {
		q.Limit = min(left, listPage)
		page, err := cl.Jobs(c.Context, q)
		if err != nil {
			return err
		}
		all.Jobs = append(all.Jobs, page.Jobs...)
		all.Cursor, all.More, q.After = page.Cursor, page.More, page.Cursor
		left -= len(page.Jobs)
	}
	if err := p.printJobs(format(c), all); err != nil {
		return err
	}
	if all.More && format(c) != formatJSON { // which has it
		p.say("there are more: --limit, or --after %s", all.Cursor)
	}
	return nil
}
