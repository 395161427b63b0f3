package cli

import (
	"fmt"
	"runtime"

	"github.com/urfave/cli/v2"

	"workmanager/jobs/hashchain"
)

func (p *program) benchCommand() *cli.Command {
	return &cli.Command{
		Name:  "bench",
		Usage: "measure this machine",
		Subcommands: []*cli.Command{
			p.benchHashCommand(),
			p.benchQueueCommand(),
			p.benchBareCommand(),
		},
	}
}

func (p *program) benchHashCommand() *cli.Command {
	return &cli.Command{
		Name:  "hash",
		Usage: "measure the hash kernels against Go's crypto/sha512, on one core",
		Description: "CPU time of one thread; a repetition times each in turn, so that a wandering clock\n" +
			"meets all alike. RATIO is against v = sha512.Sum512(v[:]) in the same run.",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "repetitions", Usage: "of each measurement, about 5 ms each", Value: 200},
			outputFlag(formatTable, formatJSON, formatJSONL),
		},
		Action: p.benchHash,
	}
}

// hashBench is bench hash in JSON.
type hashBench struct {
	Machine machine       `json:"machine"`
	Results []hashMeasure `json:"results"`
}

type machine struct {
	OS   string `json:"os"`
	Arch string `json:"arch"`
	CPUs int    `json:"cpus"`
	Go   string `json:"go"`
}

func thisMachine() machine {
	return machine{OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Go: runtime.Version()}
}

type hashMeasure struct {
	Name        string  `json:"name"`
	Kernel      string  `json:"kernel"`
	Lanes       int     `json:"lanes"`
	Iterations  uint64  `json:"iterations,omitempty"` // of each job of an executor
	Nanoseconds float64 `json:"ns_per_hash"`          // median
	P10         float64 `json:"p10_ns_per_hash"`
	P90         float64 `json:"p90_ns_per_hash"`
	Rate        float64 `json:"hashes_per_second"`
	Ratio       float64 `json:"ratio"`                     // to the baseline
	OfKernel    float64 `json:"ratio_to_kernel,omitempty"` // of an executor, to its bare kernel
	Repetitions int     `json:"repetitions"`
}

func (p *program) benchHash(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	if isTerminal(p.stderr) {
		p.say("measuring; keep the machine idle meanwhile")
	}
	ms, err := hashchain.Measure(c.Context, c.Int("repetitions"))
	if err != nil {
		return err
	}
	out := hashBench{Machine: thisMachine()}
	rows := make([][]any, len(ms))
	for i, m := range ms {
		h := hashMeasure{Name: m.Name, Kernel: m.Kernel, Lanes: m.Lanes, Iterations: m.Iterations, Nanoseconds: m.Median, P10: m.P10, P90: m.P90,
			Rate: 1e9 / m.Median, Ratio: m.Ratio, OfKernel: m.OfKernel, Repetitions: m.Repetitions}
		out.Results = append(out.Results, h)
		of := ""
		if m.OfKernel > 0 {
			of = fmt.Sprintf("%.1f%%", 100*m.OfKernel)
		}
		iterations := ""
		if m.Iterations > 0 {
			iterations = fmt.Sprint(m.Iterations)
		}
		rows[i] = []any{m.Name, m.Kernel, m.Lanes, iterations, fmt.Sprintf("%.1f", m.Median), fmt.Sprintf("%.1f-%.1f", m.P10, m.P90), number(h.Rate), fmt.Sprintf("%.2fx", m.Ratio), of}
	}
	if f := format(c); f != formatTable {
		return p.printJSON(f, out)
	}
	mc := out.Machine
	fmt.Fprintf(p.stdout, "%s/%s, %d CPUs, %s; workmanager bench hash --repetitions %d\n", mc.OS, mc.Arch, mc.CPUs, mc.Go, ms[0].Repetitions)
	return p.printTable([]string{"WHAT", "KERNEL", "LANES", "ITERATIONS", "NS/HASH", "P10-P90", "HASH/S", "RATIO", "OF KERNEL"}, rows)
}
