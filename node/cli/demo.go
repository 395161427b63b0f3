package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
	"workmanager/web/client"
)

const (
	// demoTimeout is how long the demo may take, whatever happens: on a machine that
	// has ten times as much to do, too.
	demoTimeout = 2 * time.Minute
	// demoCompute is how long the nodes are to compute, together, were nothing
	// to happen to them; all else takes as long again.
	demoCompute = 2500 * time.Millisecond
	// demoClients submit while the node dies, each every demoRest.
	demoClients = 2
	demoRest    = 10 * time.Millisecond
	demoPoll    = 5 * time.Millisecond
	// demoSmall are the iterations of the jobs that the clients submit.
	demoSmall = 2000
)

func (p *program) demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "show it all: two nodes, a batch, one node killed, every value checked",
		Description: "Two nodes run as processes of their own on this machine, in a temporary folder.\n" +
			"They get a batch of jobs; in the middle of it one of them is killed, as by a\n" +
			"power cut, while clients go on. Every value is then computed again here. It\n" +
			"takes some 15 seconds, ends with 0 if nothing was lost or wrong, and leaves\n" +
			"nothing behind.",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "jobs", Usage: "`N` jobs in the batch", Value: 240},
			reportFlag(),
		},
		Action: p.demo,
	}
}

// demo is one run of the demo.
type demo struct {
	p     *program
	begin time.Time
	dir   string
	nodes [2]*demoNode
	both  *client.Client // knows both nodes

	mu      sync.Mutex // guards the rest
	jobs    map[jobs.ID]demoJob
	local   int // answered so; the others are on two disks
	longest time.Duration
	errs    []error
}

// demoJob is a job as it was submitted.
type demoJob struct {
	data       string
	iterations uint64
}

func (p *program) demo(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	if n := c.Int("jobs"); n < 20 || n > 100_000 {
		return usagef("--jobs must be from 20 to 100000: %d given", n)
	}
	ctx, cancel := context.WithTimeoutCause(c.Context, demoTimeout, fmt.Errorf("not done within %v: the machine is too busy", demoTimeout))
	defer cancel()
	d := &demo{p: p, begin: time.Now(), jobs: map[jobs.ID]demoJob{}}
	err := d.run(ctx, c.Int("jobs"), format(c))
	if err != nil && c.Context.Err() == nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		d.showLogs()
	}
	d.end()
	return err
}

// say tells what goes on.
func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.p.stderr, "%6.1fs  %s\n", time.Since(d.begin).Seconds(), fmt.Sprintf(format, args...))
}

func (d *demo) run(ctx context.Context, count int, format string) error {
	if err := d.prepare(); err != nil {
		return err
	}
	a, b := d.nodes[0], d.nodes[1]
	d.say("node a starts at http://%s, node b at http://%s", a.listen, b.listen)
	for _, n := range d.nodes {
		if err := n.start(); err != nil {
			return err
		}
	}
	for _, n := range d.nodes {
		if err := d.inStep(ctx, n); err != nil {
			return err
		}
	}
	d.say("both are in step: what one acknowledges is on the disks of both")

	iterations := demoIterations(ctx, count)
	onBoth, err := d.batch(ctx, a, count, iterations)
	if err != nil {
		return err
	}
	d.say("%d jobs of %s iterations given to node a; %d of them on both disks", count, humanize.Comma(int64(iterations)), onBoth)

	stopClients := d.clients(ctx)
	defer stopClients()
	if err := d.progress(ctx, b, int64(count)*35/100); err != nil {
		return err
	}
	theirs, err := d.open(ctx, b, "a")
	if err != nil {
		return err
	}
	killed := time.Now()
	if err := a.kill(); err != nil {
		return err
	}
	d.say("node a is killed (SIGKILL); %d jobs that were its own are not done", len(theirs))
	noticed, err := d.noticed(ctx, b, killed)
	if err != nil {
		return err
	}
	d.say("node b noticed after %s and takes over what node a had", short(noticed))
	if err := until(ctx, func() (bool, error) { return time.Since(killed) > 2*time.Second, nil }); err != nil {
		return err
	}
	during := stopClients()
	d.say("clients went on: %d jobs submitted around the kill, the longest call took %s", during, short(d.longest))
	if err := d.idle(ctx, b); err != nil {
		return err
	}
	d.say("all jobs are done, by node b alone")

	back := time.Now()
	if err := a.start(); err != nil {
		return err
	}
	if err := d.inStep(ctx, a); err != nil {
		return err
	}
	if err := d.inStep(ctx, b); err != nil {
		return err
	}
	values, homes, err := d.same(ctx)
	if err != nil {
		return err
	}
	caughtUp := time.Since(back)
	d.say("node a was started again, has read what it missed, and holds the same %d jobs", len(values))

	d.say("every value is computed again here, to be sure")
	lost, wrong, err := d.check(ctx, values)
	if err != nil {
		return err
	}
	taken := 0
	for _, id := range theirs {
		if homes[id] == "b" {
			taken++
		}
	}
	d.say("done")
	fmt.Fprintln(d.p.stderr)
	rows := [][]any{
		{"jobs", len(d.jobs), ""},
		{"on both disks", len(d.jobs) - d.local, "when they were acknowledged"},
		{"on one disk", d.local, "acknowledged while the other node was away, and on both since"},
		{"client errors", len(d.errs), ""},
		{"longest stall", short(d.longest), "of a client, around the kill"},
		{"taken over", taken, "jobs of the dead node"},
		{"time to take over", short(noticed), "from the kill until they could be leased"},
		{"back in step", short(caughtUp), "from the start of the dead node until both held the same"},
		{"values checked", len(d.jobs) - lost, ""},
		{"wrong", wrong, ""},
		{"lost", lost, ""},
	}
	if format != formatTable {
		err = d.p.printJSON(format, map[string]any{
			"jobs": len(d.jobs), "both": len(d.jobs) - d.local, "local": d.local, "client_errors": len(d.errs), "longest_stall_seconds": d.longest.Seconds(),
			"taken_over": taken, "take_over_seconds": noticed.Seconds(), "back_in_step_seconds": caughtUp.Seconds(), "checked": len(d.jobs) - lost, "wrong": wrong, "lost": lost,
		})
	} else {
		err = d.p.printTable([]string{"WHAT", "HOW MUCH", ""}, rows)
	}
	if err != nil {
		return err
	}
	switch {
	case lost > 0 || wrong > 0:
		return &failure{exit: exitFailed, code: "demo", err: fmt.Errorf("%d jobs lost, %d values wrong", lost, wrong)}
	case len(d.errs) > 0:
		return &failure{exit: exitFailed, code: "demo", err: fmt.Errorf("%d client errors, the first: %w", len(d.errs), d.errs[0])}
	}
	return nil
}

// prepare makes the folder and the places of the nodes.
func (d *demo) prepare() error {
	var err error
	if d.dir, err = os.MkdirTemp("", "workmanager-demo-"); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	addrs, err := freeAddrs(4)
	if err != nil {
		return err
	}
	for i, name := range []string{"a", "b"} {
		n := &demoNode{name: name, listen: addrs[2*i], gossip: addrs[2*i+1],
			dir: filepath.Join(d.dir, name), log: filepath.Join(d.dir, name+".log")}
		n.client = &client.Client{URLs: []string{n.listen}}
		d.nodes[i] = n
	}
	d.nodes[0].join, d.nodes[1].join = d.nodes[1].gossip, d.nodes[0].gossip
	d.both = &client.Client{URLs: []string{addrs[0], addrs[2]}, WaitMin: 10 * time.Millisecond, WaitMax: 100 * time.Millisecond, Rounds: 30}
	return nil
}

// until asks again and again until done says so.
func until(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(demoPoll)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// short is a duration for people.
func short(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// submitted notes a job that was acknowledged.
func (d *demo) submitted(id jobs.ID, j demoJob, got jobs.Durability) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.jobs[id]; !known && !got.Both {
		d.local++
	}
	d.jobs[id] = j
}

// inStep waits until a job given to a node is on both disks.
func (d *demo) inStep(ctx context.Context, n *demoNode) error {
	for try := 0; ; try++ {
		select {
		case <-n.exited:
			return fmt.Errorf("node %s has ended", n.name)
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		j := demoJob{fmt.Sprintf("demo %s: is node %s there? %d", d.begin, n.name, try), 1}
		id, got, err := n.client.Enqueue(ctx, client.Bytes([]byte(j.data)), j.iterations, client.EnqueueOptions{})
		if err == nil {
			d.submitted(id, j, got)
			if got.Both {
				return nil
			}
		} else if ctx.Err() == nil && !errors.Is(err, client.ErrUnreachable) {
			return err
		}
		if err := pause(ctx, 10*demoPoll); err != nil {
			return err
		}
	}
}

// pause waits for d, or as long as ctx lets it.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// demoIterations returns how many iterations each of the jobs has, so that two
// cores take demoCompute for all of them.
func demoIterations(ctx context.Context, count int) uint64 {
	e := hashchain.NewExecutor[int](hashchain.Lanes())
	for i := 0; e.Free() > 0; i++ {
		e.Add(hashchain.Chain[int]{Tag: i, Done: 1, Iterations: jobs.MaxIterations})
	}
	var done uint64
	begin := time.Now()
	for time.Since(begin) < 150*time.Millisecond && ctx.Err() == nil {
		done += e.Advance(hashchain.Chunk)
	}
	perCore := float64(done) / time.Since(begin).Seconds()
	n := perCore * float64(min(2, runtime.NumCPU())) * demoCompute.Seconds() / float64(count)
	return uint64(max(n/1000, 1)) * 1000
}

// batch gives a node the jobs, and returns how many it had on both disks when
// it acknowledged them.
func (d *demo) batch(ctx context.Context, n *demoNode, count int, iterations uint64) (onBoth int, err error) {
	data := func(i int) string { return fmt.Sprintf("demo %s: job %d", d.begin, i) }
	all := func(yield func(client.Submission) bool) {
		for i := range count {
			if !yield(client.Submission{Data: []byte(data(i)), Iterations: iterations}) {
				return
			}
		}
	}
	for s, err := range n.client.Batch(ctx, all, jobs.AckDefault) {
		if err = errors.Join(err, s.Err); err != nil {
			return 0, fmt.Errorf("submit the batch: %w", err)
		}
		d.submitted(s.ID, demoJob{data(int(s.Line) - 1), iterations}, s.Durability)
		if s.Durability.Both {
			onBoth++
		}
	}
	return onBoth, nil
}

// clients submit jobs at whichever node answers. The function returned ends
// them and tells how many jobs they submitted.
func (d *demo) clients(ctx context.Context) (stop func() int) {
	ending := make(chan struct{})
	var all sync.WaitGroup
	count := 0
	for k := range demoClients {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				select {
				case <-ending:
					return
				default:
				}
				j := demoJob{fmt.Sprintf("demo %s: client %d, job %d", d.begin, k, i), demoSmall}
				begin := time.Now()
				id, got, err := d.both.Enqueue(ctx, client.Bytes([]byte(j.data)), j.iterations, client.EnqueueOptions{})
				took := time.Since(begin)
				if err == nil {
					d.submitted(id, j, got)
				}
				d.mu.Lock()
				d.longest = max(d.longest, took)
				if err != nil {
					d.errs = append(d.errs, err)
				} else {
					count++
				}
				d.mu.Unlock()
				if pause(ctx, demoRest) != nil {
					return
				}
			}
		})
	}
	var once sync.Once
	return func() int {
		once.Do(func() { close(ending) })
		all.Wait()
		return count
	}
}

// progress waits until so many jobs are done, and tells how many are.
func (d *demo) progress(ctx context.Context, n *demoNode, want int64) error {
	return d.watch(ctx, n, func(done, _ int64) bool { return done >= want })
}

// idle waits until no job is open.
func (d *demo) idle(ctx context.Context, n *demoNode) error {
	return d.watch(ctx, n, func(_, open int64) bool { return open == 0 })
}

func (d *demo) watch(ctx context.Context, n *demoNode, over func(done, open int64) bool) error {
	said := time.Now()
	return until(ctx, func() (bool, error) {
		s, err := n.client.Status(ctx)
		if err != nil {
			return false, fmt.Errorf("ask node %s for its status: %w", n.name, err)
		}
		open := s.Queued + s.Leased
		if over(s.Completed, open) {
			return true, nil
		}
		if time.Since(said) > time.Second {
			said = time.Now()
			d.say("  %d jobs done, %d to go", s.Completed, open)
		}
		return false, nil
	})
}

// noticed waits until a node takes its peer for dead.
func (d *demo) noticed(ctx context.Context, n *demoNode, killed time.Time) (time.Duration, error) {
	err := until(ctx, func() (bool, error) {
		s, err := n.client.Status(ctx)
		return err == nil && s.Peer.Gone, err
	})
	return time.Since(killed), err
}

// list returns all jobs of a node.
func (d *demo) list(ctx context.Context, n *demoNode) (map[jobs.ID]jobs.View, error) {
	all := map[jobs.ID]jobs.View{}
	for q, more := (jobs.ListQuery{Limit: 1000}), true; more; {
		page, err := n.client.Jobs(ctx, q)
		if err != nil {
			return nil, fmt.Errorf("ask node %s for its jobs: %w", n.name, err)
		}
		for _, v := range page.Jobs {
			all[v.ID] = v
		}
		q.After, more = page.Cursor, page.More
	}
	return all, nil
}

// open returns the jobs of a home that have not ended.
func (d *demo) open(ctx context.Context, n *demoNode, home string) ([]jobs.ID, error) {
	all, err := d.list(ctx, n)
	var ids []jobs.ID
	for id, v := range all {
		if v.Home == home && !v.Ended() {
			ids = append(ids, id)
		}
	}
	return ids, err
}

// same waits until both nodes show the same jobs, all ended, and returns their
// values and homes.
func (d *demo) same(ctx context.Context) (values map[jobs.ID]jobs.Value, homes map[jobs.ID]string, err error) {
	err = until(ctx, func() (bool, error) {
		a, err := d.list(ctx, d.nodes[0])
		if err != nil {
			return false, err
		}
		b, err := d.list(ctx, d.nodes[1])
		if err != nil || len(a) != len(b) {
			return false, err
		}
		values, homes = map[jobs.ID]jobs.Value{}, map[jobs.ID]string{}
		for id, v := range a {
			w, there := b[id]
			if !there || v.Rank != jobs.Completed || w.Rank != jobs.Completed || v.Result != w.Result || v.Home != w.Home {
				return false, nil
			}
			values[id], homes[id] = v.Result, v.Home
		}
		return true, nil
	})
	return values, homes, err
}

// check computes every value again.
func (d *demo) check(ctx context.Context, got map[jobs.ID]jobs.Value) (lost, wrong int, err error) {
	ids := make([]jobs.ID, 0, len(d.jobs))
	var chains []hashchain.Chain[int]
	for id, j := range d.jobs {
		c, err := chainOf(client.Bytes([]byte(j.data)), j.iterations)
		if err != nil {
			return 0, 0, err
		}
		ids, chains = append(ids, id), append(chains, c)
	}
	want, err := recompute(ctx, chains, func(int, uint64) {})
	if err != nil {
		return 0, 0, err
	}
	for i, id := range ids {
		v, there := got[id]
		switch {
		case !there:
			lost++
		case v != want[i]:
			wrong++
		}
	}
	return lost, wrong, nil
}
