package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/urfave/cli/v2"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
	"workmanager/web/api"
	"workmanager/web/client"
)

// uploads is how many files are sent at once.
const uploads = 4

func (p *program) enqueueCommand() *cli.Command {
	return &cli.Command{
		Name:      "enqueue",
		Usage:     "submit files as jobs, one each; prints their IDs, or with --wait their values",
		ArgsUsage: "FILE...|-",
		Description: "The data is hashed as it arrives and never stored, here or there. A node that is\n" +
			"away or restarts is no harm: the submit is sent again with the same key, to the\n" +
			"other node if two were given, and makes no second job.",
		Flags: append([]cli.Flag{
			iterationsFlag(),
			&cli.BoolFlag{Name: "wait", Usage: "wait for the jobs and print their values, one a line; exit 3 if one failed", DisableDefaultText: true},
			&cli.BoolFlag{Name: "verify", Usage: "wait, recompute every value here and compare; exit 8 if one differs", DisableDefaultText: true},
			timeoutFlag(),
			&cli.StringFlag{Name: "key", Usage: "Idempotency-Key `K`: the same key again is the same job, not a second one (one file only)", DefaultText: "random"},
			&cli.IntFlag{Name: "priority", Usage: "0 to 9, higher goes first"},
			&cli.IntFlag{Name: "checkpoints", Usage: "keep `K` values of the chain, 0 to 1000, so that it can be verified in parallel"},
			nodeFlag(),
			outputFlag(formatID, formatTable, formatJSON, formatJSONL),
		}, progressFlags()...),
		Action: p.enqueue,
	}
}

// enqueued is one job of enqueue in JSON.
type enqueued struct {
	File string `json:"file"`
	api.Job
}

func (p *program) enqueue(c *cli.Context) error {
	if !c.Args().Present() {
		return usagef("enqueue needs a FILE, or - for stdin, and --iterations N (or -n N)")
	}
	iterations, err := iterationsOf(c)
	if err != nil {
		return err
	}
	o := client.EnqueueOptions{Key: c.String("key"), Priority: c.Int("priority"), Keep: c.Int("checkpoints")}
	switch {
	case o.Key != "" && c.NArg() > 1:
		return usagef("--key is for one file, got %d: one key is one job", c.NArg())
	case len(o.Key) > jobs.MaxKeyBytes:
		return usagef("--key has %d bytes, at most %d go", len(o.Key), jobs.MaxKeyBytes)
	case o.Priority < 0 || o.Priority > jobs.MaxPriority:
		return usagef("--priority %d is not from 0 to %d", o.Priority, jobs.MaxPriority)
	case o.Keep < 0 || o.Keep > jobs.MaxKeep:
		return usagef("--checkpoints %d is not from 0 to %d", o.Keep, jobs.MaxKeep)
	}
	in, cleanup, err := p.inputs(c.Args().Slice())
	if err != nil {
		return err
	}
	defer cleanup()
	ctx, cancel := withTimeout(c.Context, c.Duration("timeout"), "what was submitted goes on: 'workmanager job wait ID'")
	defer cancel()
	cl := p.client(c)
	defer cl.Close()

	wait := c.Bool("wait") || c.Bool("verify")
	f := format(c)
	var views []jobs.View
	err = p.submitAll(ctx, c, cl, in, iterations, o, func(i int, v jobs.View) error {
		views = append(views, v)
		switch {
		case wait && (f == formatID || f == formatTable):
			p.say("job %s  %s", v.ID, in[i].name)
		case wait:
		case f == formatID:
			_, err := fmt.Fprintln(p.stdout, v.ID)
			return err
		case f == formatJSONL:
			return p.printJSON(f, enqueued{in[i].name, jobJSON(v)})
		}
		return nil
	})
	if err == nil && wait {
		views, err = p.awaitEnqueued(ctx, c, cl, in, views)
	}
	if err == nil && c.Bool("verify") {
		err = p.verifyEnqueued(ctx, c, in, views)
	}
	// What is known is printed whatever went wrong later.
	if f == formatJSON || f == formatTable {
		if perr := p.printEnqueued(f, in, views); perr != nil && err == nil {
			err = perr
		}
	}
	if err == nil && wait {
		err = jobFailure(views)
	}
	return err
}

// submitAll submits all inputs, some at a time, and gives each job to done in
// their order. It stops at the first error.
func (p *program) submitAll(ctx context.Context, c *cli.Context, cl *client.Client, in []input, iterations uint64, o client.EnqueueOptions, done func(i int, v jobs.View) error) error {
	m := p.meter(c, "files", len(in))
	defer m.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type submitted struct {
		v   jobs.View
		err error
	}
	slots := make([]chan submitted, len(in))
	for i := range slots {
		slots[i] = make(chan submitted, 1)
	}
	next := make(chan int)
	var all sync.WaitGroup
	defer all.Wait()
	for range min(uploads, len(in)) {
		all.Go(func() {
			for i := range next {
				t := m.track(in[i].name, 0)
				id, d, err := cl.Enqueue(ctx, counted(in[i].data, t), iterations, o)
				t.end()
				if err != nil && !errors.Is(err, client.ErrUnreachable) && ctx.Err() == nil {
					err = fmt.Errorf("%s: %w", in[i].name, err)
				}
				v := jobs.View{Job: jobs.Job{ID: id}}
				if err == nil && format(c) != formatID {
					v, err = cl.Job(ctx, id, 0)
				}
				v.Durability = d
				slots[i] <- submitted{v, err}
			}
		})
	}
	all.Go(func() {
		defer close(next)
		for i := range in {
			select {
			case next <- i:
			case <-ctx.Done():
				return
			}
		}
	})
	for i := range in {
		var s submitted
		select {
		case s = <-slots[i]:
		case <-ctx.Done():
			s.err = context.Cause(ctx)
		}
		if s.err == nil {
			s.err = done(i, s.v)
		}
		if s.err != nil {
			cancel(s.err)
			return s.err
		}
	}
	return nil
}

func (p *program) awaitEnqueued(ctx context.Context, c *cli.Context, cl *client.Client, in []input, views []jobs.View) ([]jobs.View, error) {
	m := p.meter(c, "jobs", len(in))
	defer m.close()
	f := format(c)
	ids := make([]jobs.ID, len(views))
	for i, v := range views {
		ids[i] = v.ID
	}
	return views, p.awaitAll(ctx, cl, ids, m, func(i int, v jobs.View) error {
		v.Durability = views[i].Durability // as it was acknowledged
		views[i] = v
		switch {
		case f == formatJSONL:
			return p.printJSON(f, enqueued{in[i].name, jobJSON(v)})
		case f == formatID && v.Rank == jobs.Completed && !v.Purged:
			_, err := fmt.Fprintln(p.stdout, v.Result)
			return err
		}
		return nil
	})
}

// verifyEnqueued recomputes every completed job.
func (p *program) verifyEnqueued(ctx context.Context, c *cli.Context, in []input, views []jobs.View) error {
	m := p.meter(c, "values", len(in))
	defer m.close()
	var chains []hashchain.Chain[int]
	var of []int // the input of each chain
	var tracks []*track
	for i, v := range views {
		if v.Rank != jobs.Completed || v.Purged {
			continue
		}
		chain, err := chainOf(in[i].data, v.Iterations)
		if err != nil {
			return err
		}
		chains, of, tracks = append(chains, chain), append(of, i), append(tracks, m.track("verify "+in[i].name, v.Iterations))
	}
	values, err := recompute(ctx, chains, func(i int, done uint64) { tracks[i].advance(done) })
	if err != nil {
		return err
	}
	for i, v := range values {
		if got := views[of[i]]; got.Result != v {
			return mismatch(fmt.Sprintf("job %s of %s", got.ID, in[of[i]].name), v, got.Result)
		}
	}
	return nil
}

func (p *program) printEnqueued(f string, in []input, views []jobs.View) error {
	if f == formatJSON {
		list := make([]enqueued, len(views))
		for i, v := range views {
			list[i] = enqueued{in[i].name, jobJSON(v)}
		}
		return p.printJSON(f, map[string]any{"jobs": list})
	}
	rows := make([][]any, len(views))
	for i, v := range views {
		value := ""
		if v.Rank == jobs.Completed && !v.Purged {
			value = v.Result.String()
		}
		rows[i] = []any{v.ID, in[i].name, v.State(), value}
	}
	return p.printTable([]string{"ID", "FILE", "STATE", "VALUE"}, rows)
}

// counted shows how much of the data was read.
func counted(data client.Data, t *track) client.Data {
	return func() (io.ReadCloser, int64, error) {
		body, size, err := data()
		if err != nil {
			return nil, 0, err
		}
		t.resize(uint64(max(0, size)))
		return &countedBody{ReadCloser: body, t: t}, size, nil
	}
}

type countedBody struct {
	io.ReadCloser
	t *track
	n uint64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += uint64(n)
	b.t.set(b.n, "sending")
	return n, err
}
