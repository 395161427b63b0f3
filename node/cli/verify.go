package cli

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
)

func (p *program) verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "recompute a value here and compare; exit 8 if it differs",
		ArgsUsage: "FILE|- -n N --value HEX, or ID FILE|-",
		Description: "With a job ID, iterations and value are the node's; without one no node is needed.\n" +
			"A single chain is serial: it takes as long as one core takes for it.",
		Flags: append([]cli.Flag{
			iterationsFlag(),
			&cli.StringFlag{Name: "value", Usage: "the value to compare with, 128 `HEX` digits"},
			nodeFlag(),
			outputFlag(formatTable, formatJSON, formatJSONL),
		}, progressFlags()...),
		Action: p.verify,
	}
}

// verified is what verify found, in JSON.
type verified struct {
	OK         bool    `json:"ok"`
	ID         string  `json:"id,omitempty"`
	File       string  `json:"file"`
	Iterations uint64  `json:"iterations"`
	Value      string  `json:"value"`    // as claimed
	Computed   string  `json:"computed"` // here
	Seconds    float64 `json:"seconds"`
	Rate       float64 `json:"rate"` // iterations a second
}

func (p *program) verify(c *cli.Context) error {
	var out verified
	var want jobs.Value
	var err error
	iterations := c.Generic("iterations").(*count).n
	switch c.NArg() {
	case 1:
		out.File = c.Args().First()
		if _, bad := jobs.ParseID(out.File); bad == nil {
			return usagef("verify ID needs the FILE too: a node keeps no data")
		}
		if iterations, err = iterationsOf(c); err != nil {
			return err
		}
		if c.String("value") == "" {
			return usagef("--value HEX is missing: the value to compare with")
		}
		if want, err = jobs.ParseValue(c.String("value")); err != nil {
			return usagef("--%w", err)
		}
	case 2:
		out.File = c.Args().Get(1)
		id, err := jobs.ParseID(c.Args().First())
		if err != nil {
			return usagef("%w", err)
		}
		if iterations != 0 || c.String("value") != "" {
			return usagef("verify ID FILE takes iterations and value from the node, not from flags")
		}
		cl := p.client(c)
		defer cl.Close()
		v, err := cl.Job(c.Context, id, 0)
		if err != nil {
			return err
		}
		if v.Rank != jobs.Completed || v.Purged {
			return noValue(v)
		}
		out.ID, iterations, want = id.String(), v.Iterations, v.Result
	default:
		return usagef("verify needs FILE -n N --value HEX, or ID FILE; got %d arguments", c.NArg())
	}

	in, cleanup, err := p.inputs([]string{out.File})
	if err != nil {
		return err
	}
	defer cleanup()
	began := time.Now()
	chain, err := chainOf(in[0].data, iterations)
	if err != nil {
		return err
	}
	m := p.meter(c, "values", 1)
	t := m.track("verify "+out.File, iterations)
	values, err := recompute(c.Context, []hashchain.Chain[int]{chain}, func(_ int, done uint64) { t.advance(done) })
	m.close()
	if err != nil {
		return err
	}
	got := values[0]
	out.OK, out.Iterations, out.Value, out.Computed = got == want, iterations, want.String(), got.String()
	out.Seconds = time.Since(began).Seconds()
	out.Rate = float64(iterations) / out.Seconds
	if f := format(c); f != formatTable {
		err = p.printJSON(f, out)
	} else if out.OK {
		_, err = fmt.Fprintf(p.stdout, "ok: the value is right (%s iterations in %s, %s it/s)\n", humanize.Comma(int64(iterations)), roughly(time.Since(began)), number(out.Rate))
	}
	if !out.OK {
		return mismatch(out.File, got, want)
	}
	return err
}

func mismatch(what string, computed, claimed jobs.Value) error {
	return &failure{exit: exitMismatch, code: "mismatch",
		err:  fmt.Errorf("%s: the value is wrong: computed %s, claimed %s", what, computed, claimed),
		hint: "is it the same file, and the same number of iterations?"}
}

// noValue is the error for a job that has no value, or none yet.
func noValue(v jobs.View) error {
	if v.Ended() && !v.Purged {
		return jobFailure([]jobs.View{v})
	}
	if v.Purged {
		return &failure{exit: exitFailed, code: "purged", err: fmt.Errorf("job %s was purged: its value is erased", v.ID)}
	}
	return &failure{exit: exitFailed, code: "not_completed", err: fmt.Errorf("job %s is %s and has no value yet", v.ID, v.State()),
		hint: "workmanager job wait " + v.ID.String()}
}
