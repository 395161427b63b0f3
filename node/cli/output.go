package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/urfave/cli/v2"

	"workmanager/jobs"
	"workmanager/web/api"
)

// printJSON prints one document: indented for json, one line for jsonl.
func (p *program) printJSON(format string, v any) error {
	e := json.NewEncoder(p.stdout)
	e.SetEscapeHTML(false)
	if format == formatJSON {
		e.SetIndent("", "  ")
	}
	return e.Encode(v)
}

// printTable prints columns with a head, and nothing for no rows.
func (p *program) printTable(head []string, rows [][]any) error {
	if len(rows) == 0 {
		return nil
	}
	t := table.NewWriter()
	t.SetStyle(table.Style{
		Name:   "plain",
		Box:    table.BoxStyle{PaddingRight: "  "},
		Format: table.FormatOptions{},
	})
	t.SuppressTrailingSpaces()
	h := make(table.Row, len(head))
	for i, s := range head {
		h[i] = s
	}
	t.AppendHeader(h)
	for _, r := range rows {
		t.AppendRow(r)
	}
	_, err := fmt.Fprintln(p.stdout, t.Render())
	return err
}

// jobJSON is a job as the API shows it.
func jobJSON(v jobs.View) api.Job {
	j := api.Job{
		ID: v.ID.String(), State: string(v.State()), Iterations: v.Iterations, Done: v.Done, Priority: int(v.Priority),
		Rate: v.Rate, ETASeconds: v.ETA().Seconds(), Error: v.Err,
		Durability: v.Durability.String(), DurabilityReason: v.Durability.Reason, Replicated: v.Durability.Both,
		Attempts: v.Attempts, Worker: v.Worker, Node: v.Home, Pulled: v.Pulled, Purged: v.Purged, CreatedAt: v.CreatedAt,
		Checkpoints: int(v.Keep), ResumedFrom: v.ResumedFrom, Owner: v.Owner,
	}
	if v.Rank == jobs.Completed && !v.Purged {
		j.Value = v.Result.String()
	}
	if !v.DoneAt.IsZero() {
		j.FinishedAt = &v.DoneAt
	}
	return j
}

// printJobs prints jobs in any format; cursor and more are for JSON only.
func (p *program) printJobs(format string, list jobs.List) error {
	switch format {
	case formatJSON:
		out := api.JobList{Jobs: make([]api.Job, len(list.Jobs)), Cursor: list.Cursor, More: list.More}
		for i, v := range list.Jobs {
			out.Jobs[i] = jobJSON(v)
		}
		return p.printJSON(format, out)
	case formatJSONL, formatID:
		w := bufio.NewWriter(p.stdout)
		for _, v := range list.Jobs {
			if format == formatID {
				fmt.Fprintln(w, v.ID)
				continue
			}
			text, err := json.Marshal(jobJSON(v))
			if err != nil {
				return err
			}
			w.Write(append(text, '\n'))
		}
		return w.Flush() // holds the first error of the writes above
	}
	rows := make([][]any, len(list.Jobs))
	for i, v := range list.Jobs {
		rows[i] = []any{v.ID, v.State(), humanize.Comma(int64(v.Iterations)), share(v.Done, v.Iterations), v.Home, v.CreatedAt.Local().Format(time.DateTime), note(v)}
	}
	return p.printTable([]string{"ID", "STATE", "ITERATIONS", "DONE", "NODE", "CREATED", "NOTE"}, rows)
}

// note says in a few words what is worth knowing of a job.
func note(v jobs.View) string {
	var notes []string
	switch {
	case v.Purged:
		notes = append(notes, "purged")
	case v.Err != "":
		notes = append(notes, v.Err)
	case v.Leased && v.Rate > 0:
		notes = append(notes, number(v.Rate)+" it/s", "ETA "+roughly(v.ETA()))
	}
	if v.Worker != "" {
		notes = append(notes, "on "+v.Worker)
	}
	if v.Pulled {
		notes = append(notes, "pulled")
	}
	return strings.Join(notes, ", ")
}

// number prints a count shortly: 12.9M.
func number(f float64) string {
	if f < 1000 {
		return humanize.FtoaWithDigits(f, 1)
	}
	v, prefix := humanize.ComputeSI(f)
	return humanize.FtoaWithDigits(v, 1) + strings.ToUpper(prefix)
}

// share prints a part in per cent, never 100 before it is all.
func share(done, all uint64) string {
	switch {
	case all == 0:
		return "0%"
	case done >= all:
		return "100%"
	}
	return fmt.Sprintf("%d%%", int(math.Min(99, 100*float64(done)/float64(all))))
}

// roughly prints a duration with two units at most.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "0s"
	case d < 100*time.Millisecond:
		return d.Round(time.Millisecond / 10).String()
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 2*day:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	case d < 2*365*day:
		return fmt.Sprintf("%d days", d/day)
	}
	return fmt.Sprintf("%d years", d/(365*day))
}

// readIDs reads the job IDs among the arguments; "-" stands for those on
// stdin, one a line. What follows an ID on its line is ignored.
func (p *program) readIDs(c *cli.Context) ([]jobs.ID, error) {
	var ids []jobs.ID
	add := func(s string) error {
		id, err := jobs.ParseID(s)
		if err != nil {
			return usagef("%w", err)
		}
		ids = append(ids, id)
		return nil
	}
	for _, arg := range c.Args().Slice() {
		if arg != "-" {
			if err := add(arg); err != nil {
				return nil, err
			}
			continue
		}
		r := bufio.NewReader(p.stdin)
		for {
			line, err := r.ReadString('\n')
			if fields := strings.Fields(line); len(fields) > 0 {
				if err := add(fields[0]); err != nil {
					return nil, err
				}
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("read job IDs from stdin: %w", err)
			}
		}
	}
	if len(ids) == 0 && !c.Args().Present() {
		return nil, usagef("%s needs a job ID, or - to read them from stdin", strings.TrimPrefix(c.Command.HelpName, c.App.HelpName+" "))
	}
	return ids, nil
}
