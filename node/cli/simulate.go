package cli

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

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
		},
		Action: p.simulate,
	}
}

func (p *program) simulate(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	first, runs := c.Uint64("seed"), c.Uint64("runs")
	config := sim.Config{Steps: c.Int("steps"), SQLite: c.Generic("store").(*choice).value == "sqlite"}
	var next atomic.Uint64
	var mu sync.Mutex // guards total, bad, failed and what is printed
	var total sim.Stats
	var bad int
	var failed error
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
					fmt.Fprintf(p.stdout, "VIOLATION %v\n  repeat: workmanager simulate --seed %d --runs 1 --steps %d --store %s\n",
						out.Violation, one.Seed, one.Steps, c.Generic("store").(*choice).value)
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
