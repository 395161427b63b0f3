package cli

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"workmanager/ec2/ec2sim"
	"workmanager/node/sim"
)

func (p *program) simulateCommand() *cli.Command {
	return &cli.Command{
		Name:  "simulate",
		Usage: "run simulated pairs that crash, lose disks and networks, and check every promise",
		Flags: []cli.Flag{
			&cli.Uint64Flag{Name: "seed", Usage: "begin with seed `N`", Value: 1},
			&cli.Uint64Flag{Name: "runs", Usage: "`N` runs, one seed each", Value: 1000},
			&cli.IntFlag{Name: "steps", Usage: "`N` steps a run", Value: 1500},
			&cli.GenericFlag{Name: "store", Usage: "keep rows in `STORE`: memory, sqlite", Value: &choice{"memory", []string{"memory", "sqlite"}}},
			reportFlag(),
		},
		Action: p.simulate,
		Subcommands: []*cli.Command{{
			Name:  "fleet",
			Usage: "run the rules that size a fleet on seven workloads, and print cost and latency",
			Description: "Each cell is dollars, the mean and the 95th percentile of seconds from a job's\n" +
				"arrival to its end; at the end of a line are geometric means against the bounds.",
			Flags: []cli.Flag{
				&cli.DurationFlag{Name: "drain-time", Usage: "the backlog is to be done in `DURATION`", Value: 300 * time.Second},
				&cli.BoolFlag{Name: "others", Usage: "other rules too: that of the program which this one replaces, and queue lengths", DisableDefaultText: true},
				reportFlag(),
			},
			Action: p.simulateFleet,
		}},
	}
}

func (p *program) simulateFleet(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	drain := c.Duration("drain-time")
	if drain < time.Second {
		return usagef("--drain-time must be at least 1s: %s given", drain)
	}
	rules := []ec2sim.Rule{ec2sim.Recommended(drain)}
	if c.Bool("others") {
		rules = append(rules, ec2sim.OldRule(2, 10_000), ec2sim.OldRule(1, 10_000), ec2sim.OldRule(2, 160),
			ec2sim.QueueLength(16), ec2sim.QueueLength(160), ec2sim.QueueLength(1600))
	}
	loads := ec2sim.Workloads()
	rows := ec2sim.Table(loads, rules, runtime.NumCPU())
	if f := format(c); f != formatTable {
		type workload struct {
			Name  string        `json:"name"`
			Jobs  int           `json:"jobs"`
			Work  float64       `json:"lane_seconds"`
			Bound ec2sim.Result `json:"bound"`
		}
		var list []workload
		for _, l := range loads {
			list = append(list, workload{l.Name, len(l.At), l.Work(), l.Bound()})
		}
		return p.printJSON(f, map[string]any{"workloads": list, "rules": rows})
	}
	ec2sim.Print(p.stdout, loads, rows)
	return nil
}

// simulated is what simulate prints with -o json.
type simulated struct {
	sim.Stats
	Seconds    float64        `json:"seconds"`
	Faults     map[string]int `json:"faults"`
	Violations []string       `json:"violations"`
}

func (p *program) simulate(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	first, runs := c.Uint64("seed"), c.Uint64("runs")
	switch {
	case runs < 1:
		return usagef("--runs must be at least 1: none would show nothing")
	case c.Int("steps") < 1:
		return usagef("--steps must be at least 1: %d given", c.Int("steps"))
	}
	config := sim.Config{Steps: c.Int("steps"), SQLite: c.Generic("store").(*choice).value == "sqlite"}
	var next atomic.Uint64
	var mu sync.Mutex // guards total, bad, failed, violations and what is printed
	var total sim.Stats
	var bad int
	var failed error
	violations := []string{}
	began := time.Now()
	var all sync.WaitGroup
	for range runtime.NumCPU() {
		all.Go(func() {
			for c.Context.Err() == nil {
				i := next.Add(1) - 1
				if i >= runs {
					return
				}
				one := config
				one.Seed = first + i
				out, err := sim.Run(one)
				mu.Lock()
				total.Add(out.Stats)
				if err != nil && failed == nil {
					failed = fmt.Errorf("seed %d: %w", one.Seed, err)
				}
				if out.Violation != nil {
					bad++
					said := fmt.Sprintf("VIOLATION %v\n  repeat: workmanager simulate --seed %d --runs 1 --steps %d --store %s",
						out.Violation, one.Seed, one.Steps, c.Generic("store").(*choice).value)
					if format(c) == formatTable {
						fmt.Fprintln(p.stdout, said)
					} else if len(violations) < 100 {
						violations = append(violations, said)
					}
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if failed != nil {
		return failed
	}
	took := time.Since(began)
	if f := format(c); f != formatTable {
		out := simulated{Stats: total, Seconds: took.Seconds(), Faults: map[string]int{}, Violations: violations}
		for i, n := range total.Faults {
			out.Faults[sim.FaultNames[i]] = n
		}
		err := p.printJSON(f, out)
		if err == nil && bad > 0 {
			err = fmt.Errorf("%d of %d runs broke a promise", bad, total.Runs)
		}
		return errors.Join(err, c.Context.Err())
	}
	fmt.Fprintf(p.stdout, "%d runs of %d steps in %s, %.0f a second\n", total.Runs, config.Steps, took.Round(100*time.Millisecond), float64(total.Runs)/took.Seconds())
	fmt.Fprintf(p.stdout, "%d jobs enqueued, %d answered both, %d local; %d ended, %d dropped by retention, %d re-stamped\n",
		total.Enqueued, total.Both, total.Local, total.Ended, total.Dropped, total.Restamped)
	fmt.Fprintf(p.stdout, "%d taken over, %d stolen; %d rows sent in %d answers, %d resets, %d copies by gossip; %d results followed\n",
		total.TakenOver, total.Stolen, total.Rows, total.Pulls, total.Resets, total.Copies, total.Results)
	for i, n := range total.Faults {
		fmt.Fprintf(p.stdout, "%8d x %s\n", n, sim.FaultNames[i])
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d runs broke a promise", bad, total.Runs)
	}
	fmt.Fprintln(p.stdout, "no promise was broken")
	return c.Context.Err()
}
