package cli

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

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
			"meets all alike. RATIO is against v = sha512.Sum512(v[:]) in the same run. A step is one\n" +
			"hash of every chain. NS/HASH is a median, then the least and what 10 % and 90 % stay below.",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "repetitions", Usage: "of each measurement, about 10 ms each", Value: 200},
			&cli.StringSliceFlag{Name: "kernels", Usage: "only these `KERNELS`", DefaultText: "all that this machine can run"},
			reportFlag(),
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
	CPU  string `json:"cpu,omitempty"` // as it names itself; a hypervisor may mask it
	// Features are those that kernels ask for.
	Features []string `json:"features,omitempty"`
	CPUs     int      `json:"cpus"`
	Go       string   `json:"go"`
	GOAMD64  string   `json:"goamd64,omitempty"`
	// Revision is what the program was built from, if the build knows.
	Revision string `json:"revision,omitempty"`
}

func thisMachine() machine {
	b := readBuild()
	return machine{OS: b.OS, Arch: b.Arch, CPU: cpuModel(), Features: hashchain.Features(), CPUs: runtime.NumCPU(), Go: b.Go,
		GOAMD64: b.GOAMD64, Revision: b.commit()}
}

type hashMeasure struct {
	Name        string  `json:"name"`
	Kernel      string  `json:"kernel"`
	Lanes       int     `json:"lanes"`
	Iterations  uint64  `json:"iterations,omitempty"` // of each job of an executor
	Nanoseconds float64 `json:"ns_per_hash"`          // median
	Step        float64 `json:"ns_per_step"`
	Least       float64 `json:"least_ns_per_hash"`
	P10         float64 `json:"p10_ns_per_hash"`
	P90         float64 `json:"p90_ns_per_hash"`
	Rate        float64 `json:"hashes_per_second"`
	Ratio       float64 `json:"ratio"`                     // to the baseline
	OfKernel    float64 `json:"ratio_to_kernel,omitempty"` // of an executor, to its bare kernel
	Cycles      float64 `json:"cycles_per_hash"`
	Chains      int     `json:"chains"` // active at once
	Cores       int     `json:"cores"`
	OfOne       float64 `json:"ratio_to_one_core,omitempty"` // of several cores at once
	Repetitions int     `json:"repetitions"`
}

func (p *program) benchHash(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	if isTerminal(p.stderr) {
		p.say("measuring; keep the machine idle meanwhile")
	}
	only := c.StringSlice("kernels")
	for _, name := range only {
		if !slices.ContainsFunc(hashchain.Kernels(), func(k hashchain.Kernel) bool { return k.Name == name && k.Available }) {
			return usagef("--kernels: this machine cannot run %q", name)
		}
	}
	ms, err := hashchain.Measure(c.Context, c.Int("repetitions"), only...)
	if err != nil {
		return err
	}
	out := hashBench{Machine: thisMachine()}
	rows := make([][]any, len(ms))
	for i, m := range ms {
		h := hashMeasure{Name: m.Name, Kernel: m.Kernel, Lanes: m.Lanes, Iterations: m.Iterations, Nanoseconds: m.Median, Step: m.Median * float64(m.Chains),
			Least: m.Least, P10: m.P10, P90: m.P90, Rate: 1e9 / m.Median, Ratio: m.Ratio, OfKernel: m.OfKernel, Repetitions: m.Repetitions,
			Cycles: m.Cycles, Chains: m.Chains, Cores: m.Cores, OfOne: m.OfOne}
		out.Results = append(out.Results, h)
		of := ""
		if m.OfKernel > 0 {
			of = fmt.Sprintf("%.1f%% of its kernel", 100*m.OfKernel)
		}
		if m.OfOne > 0 {
			of = fmt.Sprintf("%.2fx one core", m.OfOne)
		}
		iterations := ""
		if m.Iterations > 0 {
			iterations = fmt.Sprint(m.Iterations)
		}
		rows[i] = []any{m.Name, m.Kernel, m.Chains, iterations, fmt.Sprintf("%.0f", h.Step), fmt.Sprintf("%.1f", m.Median),
			fmt.Sprintf("%.1f", m.Least), fmt.Sprintf("%.1f-%.1f", m.P10, m.P90), fmt.Sprintf("%.0f", m.Cycles), number(h.Rate), fmt.Sprintf("%.2fx", m.Ratio), of}
	}
	if f := format(c); f != formatTable {
		return p.printJSON(f, out)
	}
	mc := out.Machine
	fmt.Fprintf(p.stdout, "%s/%s, %d CPUs, %s; workmanager bench hash --repetitions %d\n", mc.OS, mc.Arch, mc.CPUs, mc.Go, ms[0].Repetitions)
	fmt.Fprintf(p.stdout, "GOAMD64=%s, built from %s\n", cmp.Or(mc.GOAMD64, "none"), cmp.Or(mc.Revision, "an unknown commit"))
	fmt.Fprintf(p.stdout, "%s; features: %s\n", cmp.Or(mc.CPU, "CPU unknown"), cmp.Or(strings.Join(mc.Features, " "), "none that a kernel asks for"))
	for _, k := range hashchain.Kernels() {
		if !k.Available {
			fmt.Fprintf(p.stdout, "not measured: %s, %d lanes: this machine cannot run it\n", k.Name, k.Lanes)
		}
	}
	return p.printTable([]string{"WHAT", "KERNEL", "CHAINS", "ITERATIONS", "NS/STEP", "NS/HASH", "LEAST", "P10-P90", "CYCLES", "HASH/S", "RATIO", ""}, rows)
}

// cpuModel returns what the system calls the processor, "" if it does not say.
func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
