package ec2sim

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"workmanager/ec2"
)

// Recommended is ec2.Plan, asked every ten seconds, with the drain time.
func Recommended(drain time.Duration) Rule {
	cfg := ec2.DefaultConfig()
	cfg.Drain, cfg.Max, cfg.LaunchesPerHour = drain, MaxAlive, math.MaxInt
	cfg.Types, cfg.Subnets = []string{"sim"}, []ec2.Subnet{{ID: "sim"}}
	slots := make([]ec2.Slot, MaxAlive)
	for i := range slots {
		slots[i] = ec2.Slot{Slot: i, Offer: cfg.Offer(i)}
	}
	return Rule{
		Name: fmt.Sprintf("Plan, drain %.0f s", drain.Seconds()), Tick: 10, First: 0.5, Idle: 90, ShortIdle: 15, Tail: 90, Event: true,
		ByCost: true, Drain: drain.Seconds(), decide: func(w *world) { w.plan(cfg, slots) },
	}
}

// plan asks ec2.Plan and does what it says.
func (w *world) plan(cfg ec2.Config, slots []ec2.Slot) {
	now, t := w.time(), cfg.Drain.Seconds()
	in := ec2.Input{
		Jobs: int64(w.queue.Len() + w.running()), Queued: int64(w.queue.Len()),
		Capped: w.sizes.Capped(t*scale) / scale, Rate: w.arrivals.Rate(now),
		Lanes: Lanes, Boot: bootGuess * time.Second, Since: w.since, Slots: slots,
	}
	byID := map[string]*machine{}
	for slot, m := range w.alive { // the n-th oldest has the n-th slot
		name := fmt.Sprintf("i-%08d", m.id)
		byID[name] = m
		x := ec2.Machine{Instance: ec2.Instance{ID: name, State: ec2.Running, Slot: slot, LaunchedAt: instant(m.launched)}}
		if m.up {
			x.Worker = &ec2.Worker{Lanes: Lanes, Leases: len(m.running), Leased: m.everHad, SeenAt: now}
			for _, c := range m.running {
				left := c.left - (w.now - c.began)
				x.Worker.Remaining += left
				in.Capped += min(left, t)
			}
		}
		in.Machines = append(in.Machines, x)
	}
	d := ec2.Plan(now, cfg, &in)
	w.want, w.since = d.Want, d.Since
	launches := 0
	for _, a := range d.Actions {
		if a.Do == ec2.Launch {
			launches++
		} else {
			w.end(byID[a.Instance])
		}
	}
	w.launch(launches)
	w.fill()
}

// OldRule is that of the program that this one replaces, on one node or both: a
// worker for each so many jobs that wait, looked at every five minutes.
func OldRule(nodes int, each float64) Rule {
	return Rule{
		Name: fmt.Sprintf("old rule, %.0f jobs, nodes: %d", each, nodes), Tick: 300 / float64(nodes), First: 0.5, Idle: 450, Tail: 450, Poll: 45,
		decide: func(w *world) {
			q, busy := float64(w.queue.Len()), 0.0
			for _, m := range w.alive {
				if len(m.running) > 0 {
					busy++
				}
			}
			if q > 0 && q/each > busy {
				w.launch(max(1, int(q/each)))
			}
		},
	}
}

// QueueLength wants a worker for each so many jobs, as autoscalers by the length
// of a queue do.
func QueueLength(each int) Rule {
	return Rule{
		Name: fmt.Sprintf("queue length, %d jobs", each), Tick: 30, First: 0.5, Tail: 300,
		decide: func(w *world) {
			n := len(w.alive)
			want := (w.queue.Len() + w.running() + each - 1) / each
			most := n
			for range 2 { // two policies in a row
				most = max(most+4, 2*most)
			}
			w.history = append(slices.DeleteFunc(w.history, func(p past) bool { return w.now-p.at > 300 }), past{w.now, want})
			stay := slices.MaxFunc(w.history, func(a, b past) int { return cmp.Compare(a.want, b.want) }).want
			switch {
			case want > n:
				w.launch(min(want, most) - n)
			case stay < n:
				for _, m := range slices.Clone(w.alive[stay:]) {
					w.end(m)
				}
			}
			w.fill()
		},
	}
}

// Row is a rule with what it came to under each workload, and the geometric
// means over them: cost against the bound, latency against the mean job plus the
// shortest boot, and the product of the two.
type Row struct {
	Rule    string   `json:"rule"`
	Results []Result `json:"results"` // in the order of the workloads
	Cost    float64  `json:"cost"`
	Latency float64  `json:"latency"`
	Product float64  `json:"product"`
}

// Seeds are the runs whose mean counts.
var Seeds = []int64{100, 101, 102}

// Table runs every rule on every workload, on so many threads.
func Table(loads []Workload, rules []Rule, threads int) []Row {
	type task struct{ rule, load, seed int }
	tasks := make(chan task)
	out := make([][][]Result, len(rules))
	for i := range out {
		out[i] = make([][]Result, len(loads))
		for j := range out[i] {
			out[i][j] = make([]Result, len(Seeds))
		}
	}
	var all sync.WaitGroup
	for range threads {
		all.Go(func() {
			for t := range tasks {
				out[t.rule][t.load][t.seed] = Run(loads[t.load], rules[t.rule], Seeds[t.seed])
			}
		})
	}
	for r := range rules {
		for l := range loads {
			for s := range Seeds {
				tasks <- task{r, l, s}
			}
		}
	}
	close(tasks)
	all.Wait()
	var rows []Row
	for r, rule := range rules {
		row := Row{Rule: rule.Name}
		for l, load := range loads {
			m, b := Mean(out[r][l]), load.Bound()
			row.Results = append(row.Results, m)
			row.Cost += math.Log(m.Dollars / b.Dollars)
			row.Latency += math.Log(m.Mean / (b.Mean + bootLeast))
		}
		n := float64(len(loads))
		row.Cost, row.Latency = math.Exp(row.Cost/n), math.Exp(row.Latency/n)
		row.Product = row.Cost * row.Latency
		rows = append(rows, row)
	}
	return rows
}

// Print writes the bounds and the rows as a table.
func Print(out io.Writer, loads []Workload, rows []Row) {
	cell := func(r Result) string { return fmt.Sprintf("%.3g / %.0f / %.0f", r.Dollars, r.Mean, r.P95) }
	line := func(name string, cells []string, tail string) {
		fmt.Fprintf(out, "%-32s", name)
		for _, c := range cells {
			fmt.Fprintf(out, " %20s", c)
		}
		fmt.Fprintln(out, strings.TrimRight("  "+tail, " "))
	}
	var names, bounds []string
	for _, l := range loads {
		names, bounds = append(names, l.Name), append(bounds, cell(l.Bound()))
	}
	line("$ / mean s / p95 s", names, "  cost latency product")
	line("bounds, each for itself", bounds, "")
	for _, r := range rows {
		var cells []string
		for _, x := range r.Results {
			cells = append(cells, cell(x))
		}
		line(r.Rule, cells, fmt.Sprintf("x%5.2f  x%5.2f  %6.2f", r.Cost, r.Latency, r.Product))
	}
}
