package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"workmanager/jobs"
	"workmanager/web/api"
	"workmanager/web/client"
)

// resultsPage is how many results one call asks for, and followWait how long
// it waits for the first.
const (
	resultsPage = 1000
	followWait  = 30 * time.Second
)

func (p *program) resultsCommand() *cli.Command {
	return &cli.Command{
		Name:  "results",
		Usage: "print every result, oldest first; on a pipe one JSON object a line",
		Description: "The last line of each page has a \"cursor\" too: give it to --after to go on behind\n" +
			"it, at either node and after a restart. Every result comes at least once and none\n" +
			"is skipped. --follow waits for more until it is interrupted, and outlives nodes\n" +
			"that go away.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "after", Usage: "begin behind this `CURSOR`", DefaultText: "the oldest kept"},
			&cli.BoolFlag{Name: "follow", Usage: "wait for more when there are none", DisableDefaultText: true},
			&cli.IntFlag{Name: "limit", Usage: "end after `N` results", DefaultText: "all there are"},
			nodeFlag(),
			linesFlag(formatID),
		},
		Action: p.results,
	}
}

// resultLine is one line of results.
type resultLine struct {
	api.Result
	Cursor string `json:"cursor,omitempty"`
}

func (p *program) results(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	f, follow, left := format(c), c.Bool("follow"), c.Int("limit")
	switch {
	case left < 0:
		return usagef("--limit %d is below 0", left)
	case follow && f == formatJSON:
		return usagef("-o json is one document and --follow has no end; take -o jsonl")
	}
	cl := p.client(c)
	defer cl.Close()
	q := jobs.ResultsQuery{After: c.String("after")}
	bounded := left > 0
	all := api.ResultList{Results: []api.Result{}}
	headed := false
	var away bool
	for met := false; ; met = true {
		if follow && met {
			q.Wait = followWait
		}
		q.Limit = resultsPage
		if bounded {
			q.Limit = min(left, resultsPage)
		}
		page, err := p.page(c.Context, cl, q, follow && met, &away)
		if err != nil {
			return err
		}
		if page.Restarted {
			p.say("the cursor could not be placed, going on at the oldest result kept: some may repeat, some may be gone")
			all.Restarted = true
		}
		if f == formatJSON {
			for _, r := range page.Results {
				all.Results = append(all.Results, resultJSON(r))
			}
		} else if err := p.printResults(f, page, &headed); err != nil {
			return err
		}
		q.After = page.Cursor
		all.Cursor, all.More = page.Cursor, page.More
		left -= len(page.Results)
		if bounded && left <= 0 || !follow && !page.More {
			break
		}
	}
	if f == formatJSON {
		return p.printJSON(f, all)
	}
	return nil
}

// page gets a page. If patient it tries until it gets one or ctx is done.
func (p *program) page(ctx context.Context, cl *client.Client, q jobs.ResultsQuery, patient bool, away *bool) (jobs.Results, error) {
	for {
		page, err := cl.Results(ctx, q)
		switch {
		case err == nil:
			if *away {
				p.say("a node answers again")
				*away = false
			}
			return page, nil
		case ctx.Err() != nil || !patient || !isAway(err):
			return page, err
		case !*away:
			p.say("no node answers, trying again: %v", err)
			*away = true
		}
	}
}

func (p *program) printResults(f string, page jobs.Results, headed *bool) error {
	w := bufio.NewWriter(p.stdout)
	for i, r := range page.Results {
		switch f {
		case formatID:
			fmt.Fprintln(w, r.ID)
		case formatTable:
			if !*headed {
				fmt.Fprintf(w, "%-36s  %-20s  %-16s  %s\n", "ID", "COMPLETED", "ITERATIONS", "VALUE")
				*headed = true
			}
			fmt.Fprintf(w, "%s  %-20s  %-16d  %s\n", r.ID, r.DoneAt.Local().Format(time.DateTime), r.Iterations, r.Value)
		default:
			line := resultLine{Result: resultJSON(r)}
			if i == len(page.Results)-1 {
				line.Cursor = page.Cursor
			}
			text, err := json.Marshal(line)
			if err != nil {
				return err
			}
			w.Write(append(text, '\n'))
		}
	}
	return w.Flush() // holds the first error of the writes above
}
