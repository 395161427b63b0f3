package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"workmanager/web/api"
)

const watchInterval = 2 * time.Second

func (p *program) statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "print how the queue and the node are",
		Flags: []cli.Flag{
			&cli.GenericFlag{Name: "watch", Usage: "print it again every `INTERVAL` until interrupted; alone every 2s", Value: &every{}},
			nodeFlag(),
			outputFlag(formatTable, formatJSON, formatJSONL),
		},
		Action: p.status,
	}
}

func (p *program) status(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	cl := p.client(c)
	defer cl.Close()
	watch, f := c.Generic("watch").(*every), format(c)
	if !watch.on {
		s, err := cl.Status(c.Context)
		if err != nil {
			return err
		}
		return p.printStatus(f, s)
	}
	if f == formatJSON {
		f = formatJSONL // a document a line, since there is one after the other
	}
	interval := watch.interval
	if interval <= 0 {
		interval = watchInterval
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for met := false; ; met = true {
		s, err := cl.Status(c.Context)
		switch {
		case err == nil:
			if f == formatTable && isTerminal(p.stdout) {
				fmt.Fprint(p.stdout, "\x1b[H\x1b[2J")
			}
			if err := p.printStatus(f, s); err != nil {
				return err
			}
		case c.Context.Err() != nil || !met || !isAway(err):
			return err
		default:
			p.say("%s: no node answers: %v", time.Now().Format(time.TimeOnly), err)
		}
		select {
		case <-c.Context.Done():
			return context.Cause(c.Context)
		case <-tick.C:
		}
	}
}

func (p *program) printStatus(f string, s api.Status) error {
	if f != formatTable {
		return p.printJSON(f, s)
	}
	fmt.Fprintln(p.stdout, forecast(s, time.Now()))
	if s.Alarms > 0 {
		fmt.Fprintf(p.stdout, "ALARM: %d jobs have two different values; see the node's log.\n", s.Alarms)
	}
	state := "healthy"
	if !s.Writable {
		state = "read only"
	}
	cache := "off"
	if s.Cache.Enabled {
		cache = fmt.Sprintf("%s/%s", number(float64(s.Cache.Entries)), number(float64(s.Cache.Max)))
	}
	err := p.printTable(
		[]string{"NODE", "STATE", "QUEUED", "LEASED", "COMPLETED", "FAILED", "STORE", "DISK FREE", "CACHE", "UP", "VERSION"},
		[][]any{{s.Node, state, s.Queued, s.Leased, s.Completed, s.Failed, humanize.IBytes(uint64(max(0, s.StoreBytes+s.WALBytes))),
			humanize.IBytes(uint64(max(0, s.DiskFreeBytes))), cache, roughly(s.Now.Sub(s.StartedAt)), s.Version}})
	if err != nil {
		return err
	}
	rows := make([][]any, len(s.WorkerList))
	for i, w := range s.WorkerList {
		rows[i] = []any{w.Name, w.Leases, number(w.Rate) + " it/s", roughly(s.Now.Sub(w.SeenAt)) + " ago"}
	}
	return p.printTable([]string{"WORKER", "LEASES", "RATE", "SEEN"}, rows)
}

// forecast says in a sentence when the work will be done.
func forecast(s api.Status, now time.Time) string {
	prefix := ""
	if !s.Writable {
		prefix = "Submits are refused"
		if s.WriteProblem != "" {
			prefix += ": " + s.WriteProblem
		}
		prefix += ". "
	}
	open := s.Queued + s.Leased
	count := plural(open, "job")
	rates := fmt.Sprintf("%s/s done, %s/s arriving, %s.", number(s.RateCompleted), number(s.RateEnqueued), plural(int64(s.Workers), "worker"))
	switch {
	case open == 0:
		return prefix + "Nothing queued, " + plural(int64(s.Workers), "worker") + "."
	case s.Workers == 0:
		return prefix + count + " queued, and no worker."
	case s.RateIterations <= 0:
		return prefix + count + " queued, measuring."
	case s.RateEnqueued > 1.02*s.RateCompleted && s.RateCompleted > 0:
		return prefix + fmt.Sprintf("Growing: %s, %s", count, rates)
	}
	left := time.Duration(min(s.RemainingIterations/s.RateIterations, 250*365*24*3600) * float64(time.Second))
	return prefix + fmt.Sprintf("Draining: %s clear in about %s (%s). %s", count, roughly(left), clock(now, now.Add(left)), rates)
}

// clock prints when something will be: a time today, else a date.
func clock(now, at time.Time) string {
	if at.Sub(now) < 20*time.Hour {
		return at.Format("15:04")
	}
	return at.Format(time.DateOnly)
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return humanize.Comma(n) + " " + what + "s"
}
