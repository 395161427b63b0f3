package cli

import (
	"bufio"
	"encoding/json"
	"fmt"

	"github.com/urfave/cli/v2"

	"workmanager/jobs"
	"workmanager/web/api"
)

func (p *program) pullCommand() *cli.Command {
	return &cli.Command{
		Name:  "pull",
		Usage: "print the newest results, or consume the oldest",
		Description: "Without --consume this changes nothing: the newest N, newest first. With it the\n" +
			"oldest N are handed out, oldest first, each once. 'workmanager results' reads\n" +
			"every result in order and can be resumed.",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "top", Usage: "how many at most, `N`", DefaultText: "none; it must be given"},
			&cli.BoolFlag{Name: "consume", Usage: "hand each out once, oldest first", DisableDefaultText: true},
			nodeFlag(),
			linesFlag(formatID),
		},
		Action: p.pull,
	}
}

func (p *program) pull(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	top := c.Int("top")
	switch {
	case !c.IsSet("top"):
		return usagef("--top N is missing: how many results, at least 1")
	case top < 1:
		return usagef("--top must be at least 1: %d given", top)
	}
	cl := p.client(c)
	defer cl.Close()
	var results []jobs.Result
	var err error
	if c.Bool("consume") {
		results, err = cl.Consume(c.Context, top, "")
	} else {
		results, err = cl.Pull(c.Context, top)
	}
	if err != nil {
		return err
	}
	// Pulled results have an ID and a value, and so has their JSON.
	type pulled struct {
		ID    string `json:"id"`
		Value string `json:"value"`
	}
	list := make([]pulled, len(results))
	for i, r := range results {
		list[i] = pulled{r.ID.String(), r.Value.String()}
	}
	switch f := format(c); f {
	case formatJSON:
		return p.printJSON(f, map[string]any{"results": list})
	case formatTable:
		rows := make([][]any, len(list))
		for i, r := range list {
			rows[i] = []any{r.ID, r.Value}
		}
		return p.printTable([]string{"ID", "VALUE"}, rows)
	default:
		w := bufio.NewWriter(p.stdout)
		for _, r := range list {
			if f == formatID {
				fmt.Fprintln(w, r.ID)
				continue
			}
			text, err := json.Marshal(r)
			if err != nil {
				return err
			}
			w.Write(append(text, '\n'))
		}
		return w.Flush() // holds the first error of the writes above
	}
}

// resultJSON is a result as the API shows it.
func resultJSON(r jobs.Result) api.Result {
	return api.Result{ID: r.ID.String(), Value: r.Value.String(), Iterations: r.Iterations, CompletedAt: r.DoneAt}
}
