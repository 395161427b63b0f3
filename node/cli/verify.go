package cli

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
	"workmanager/jobs/receipt"
)

func (p *program) verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "recompute a value here, or check a receipt; exit 8 if it is wrong",
		ArgsUsage: "FILE|- -n N --value HEX, or ID FILE|-, or --receipt FILE [[ID] FILE|-]",
		Description: "With a job ID, iterations and value are the node's, and so are its checkpoints if\n" +
			"it keeps any: the segments between them are recomputed side by side, on all cores\n" +
			"and lanes. Without them a chain is serial and takes as long as one core takes.\n" +
			"--sample looks at a few segments only: that finds a broken machine, and a forger\n" +
			"who changed one of m segments with K in m.\n\n" +
			"A receipt is checked offline. Its signature proves who signed; with the data the\n" +
			"value is recomputed as well. Without --key the key in the receipt itself is\n" +
			"trusted: compare it with the node's, which 'workmanager status -o json' shows.",
		Flags: append([]cli.Flag{
			iterationsFlag(),
			&cli.StringFlag{Name: "value", Usage: "the value to compare with, 128 `HEX` digits"},
			&cli.StringFlag{Name: "job", Usage: "the job's `ID`, the same as the argument"},
			&cli.IntFlag{Name: "sample", Usage: "recompute `K` segments only, drawn by chance", DefaultText: "all"},
			&cli.StringFlag{Name: "receipt", Usage: "check the receipt in `FILE`, - for stdin"},
			&cli.StringFlag{Name: "key", Usage: "the public key that must have signed the receipt, 64 `HEX` digits"},
			nodeFlag(),
			reportFlag(),
		}, progressFlags()...),
		Action: p.verify,
	}
}

// verified is what verify found, in JSON.
type verified struct {
	OK         bool    `json:"ok"`
	ID         string  `json:"id,omitempty"`
	File       string  `json:"file,omitempty"`
	Iterations uint64  `json:"iterations"`
	Value      string  `json:"value"`              // as claimed
	Computed   string  `json:"computed,omitempty"` // here, of the whole chain or of the segment that is wrong
	Seconds    float64 `json:"seconds,omitempty"`
	Rate       float64 `json:"rate,omitempty"` // iterations a second

	Segments int     `json:"segments,omitempty"` // of the chain
	Checked  int     `json:"checked,omitempty"`  // of them
	Speedup  float64 `json:"speedup,omitempty"`  // against one chain on one core here

	Receipt *checkedReceipt `json:"receipt,omitempty"`

	work uint64 // iterations recomputed, the first among them
}

// checkedReceipt is what was found of a receipt's signature.
type checkedReceipt struct {
	Node      string `json:"node"`
	PublicKey string `json:"public_key"`
	Trusted   string `json:"trusted"` // given: by --key; embedded: the one in the receipt
}

// claim is what verify is to hold against the data.
type claim struct {
	id       string // the job's, "" without one
	file     string // the data, "" to look at a receipt alone
	receipt  *receipt.Signed
	ladder   []jobs.Progress // from done 1 to the value; the first value may not be known
	v1Known  bool            // the ladder's first value is
	segments []int           // to recompute: the i-th ends at ladder[i+1]
}

func (c *claim) end() jobs.Progress { return c.ladder[len(c.ladder)-1] }

func (p *program) verify(c *cli.Context) error {
	cl, err := p.claimed(c)
	if err != nil {
		return err
	}
	out := verified{ID: cl.id, File: cl.file, Iterations: cl.end().Done, Value: cl.end().Value.String()}
	if cl.receipt != nil {
		if out.Receipt, err = checkReceipt(c.String("key"), cl.receipt); err != nil {
			return err
		}
	}
	if cl.file == "" {
		out.OK = true
		return p.printVerified(c, out, 0)
	}
	in, cleanup, err := p.inputs([]string{cl.file})
	if err != nil {
		return err
	}
	defer cleanup()
	first, err := chainOf(in[0].data, 1)
	if err != nil {
		return err
	}
	v1 := jobs.Value(first.Value)
	if cl.v1Known && v1 != cl.ladder[0].Value {
		return &failure{exit: exitMismatch, code: "mismatch",
			err:  fmt.Errorf("%s is not the data: its SHA-512 is %s, the job's v1 is %s", cl.file, v1, cl.ladder[0].Value),
			hint: "is it the same file?"}
	}
	cl.ladder[0].Value = v1
	return p.recomputed(c, cl, out)
}

// claimed reads what there is to verify from the arguments, a receipt and a node.
func (p *program) claimed(c *cli.Context) (*claim, error) {
	cl := &claim{id: c.String("job")}
	args := c.Args().Slice()
	iterations, value, spot := c.Generic("iterations").(*count).n, c.String("value"), c.Int("sample")
	hasReceipt := c.String("receipt") != ""
	if cl.id == "" && (len(args) == 2 || len(args) == 1 && !hasReceipt && isID(args[0])) {
		cl.id, args = args[0], args[1:]
	}
	switch {
	case len(args) > 1:
		return nil, usagef("verify needs FILE -n N --value HEX, or ID FILE; got %d arguments", c.NArg())
	case len(args) == 0 && cl.id != "":
		return nil, usagef("verify ID needs the FILE too: a node keeps no data")
	case len(args) == 0 && !hasReceipt:
		return nil, usagef("verify needs FILE -n N --value HEX, or ID FILE; got %d arguments", c.NArg())
	case (cl.id != "" || hasReceipt) && (iterations != 0 || value != ""):
		return nil, usagef("verify takes iterations and value from the node or the receipt, not from flags, if there is one")
	case c.String("key") != "" && !hasReceipt:
		return nil, usagef("--key is for --receipt")
	case c.IsSet("sample") && (spot < 1 || cl.id == ""):
		return nil, usagef("--sample K needs a job ID, whose checkpoints make the segments, and K of at least 1")
	}
	if len(args) == 1 {
		cl.file = args[0]
	}
	if hasReceipt {
		if c.String("receipt") == "-" && cl.file == "-" {
			return nil, usagef("stdin cannot be both the receipt and the data")
		}
		r, err := p.readReceipt(c.String("receipt"))
		if err != nil {
			return nil, err
		}
		cl.receipt, cl.v1Known = r, true
		cl.ladder = []jobs.Progress{{Done: 1, Value: r.V1}, {Done: r.Iterations, Value: r.Value}}
	}
	switch {
	case cl.id != "":
		if err := p.claimedJob(c, cl); err != nil {
			return nil, err
		}
	case !hasReceipt:
		n, err := iterationsOf(c)
		if err != nil {
			return nil, err
		}
		if value == "" {
			return nil, usagef("--value HEX is missing: the value to compare with")
		}
		v, err := jobs.ParseValue(value)
		if err != nil {
			return nil, usagef("--%w", err)
		}
		cl.ladder = []jobs.Progress{{Done: 1}, {Done: n, Value: v}}
	}
	for i := range len(cl.ladder) - 1 {
		cl.segments = append(cl.segments, i)
	}
	if c.IsSet("sample") && spot < len(cl.segments) {
		rand.Shuffle(len(cl.segments), func(i, j int) { cl.segments[i], cl.segments[j] = cl.segments[j], cl.segments[i] })
		cl.segments = cl.segments[:spot]
		slices.Sort(cl.segments)
	}
	return cl, nil
}

func isID(s string) bool {
	_, err := jobs.ParseID(s)
	return err == nil
}

// claimedJob asks the node for the job and its checkpoints. A receipt must say
// the same.
func (p *program) claimedJob(c *cli.Context, cl *claim) error {
	id, err := jobs.ParseID(cl.id)
	if err != nil {
		return usagef("%w", err)
	}
	node := p.client(c)
	defer node.Close()
	v, err := node.Job(c.Context, id, 0)
	if err != nil {
		return err
	}
	if v.Rank != jobs.Completed || v.Purged {
		return noValue(v)
	}
	ladder, err := node.Checkpoints(c.Context, id)
	if jobs.CodeOf(err) == jobs.CodeNoRoute && cl.receipt == nil { // a node of an older release
		cl.ladder = []jobs.Progress{{Done: 1}, {Done: v.Iterations, Value: v.Result}}
		return nil
	}
	if err != nil {
		return err
	}
	if v.Iterations == 1 {
		ladder = append(ladder, ladder...) // its value is v1
	}
	wrong := func(format string, args ...any) error {
		return &failure{exit: exitMismatch, code: "mismatch", err: fmt.Errorf("job %s: "+format, append([]any{id}, args...)...)}
	}
	if n := len(ladder); n < 2 || ladder[0].Done != 1 || ladder[n-1] != (jobs.Progress{Done: v.Iterations, Value: v.Result}) {
		return wrong("the node's checkpoints do not lead from its data to its value")
	}
	if r := cl.receipt; r != nil {
		switch kept := ladder[1 : len(ladder)-1]; {
		case r.Job != id:
			return wrong("the receipt is of job %s", r.Job)
		case r.V1 != ladder[0].Value || r.Iterations != v.Iterations || r.Value != v.Result:
			return wrong("the receipt states other work or another value than the node")
		case r.Checkpoints != len(kept) || r.Digest != receipt.Digest(kept):
			return wrong("the node's checkpoints are not those that the receipt was made over")
		}
	}
	cl.ladder, cl.v1Known = ladder, true
	return nil
}

func (p *program) readReceipt(name string) (*receipt.Signed, error) {
	var text []byte
	var err error
	if name == "-" {
		text, err = io.ReadAll(io.LimitReader(p.stdin, receipt.MaxBytes+1))
	} else {
		text, err = os.ReadFile(name)
	}
	var r receipt.Signed
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return nil, &failure{exit: exitFailed, code: "receipt", err: fmt.Errorf("read the receipt in %s: %w", name, err)}
	}
	return &r, nil
}

// checkReceipt checks the signature, and says which key was trusted.
func checkReceipt(given string, r *receipt.Signed) (*checkedReceipt, error) {
	found := &checkedReceipt{Node: r.Node, PublicKey: hex.EncodeToString(r.PublicKey[:]), Trusted: "embedded"}
	if given != "" {
		key, err := hex.DecodeString(given)
		if err != nil || len(key) != len(r.PublicKey) {
			return nil, usagef("--key: is not %d hexadecimal digits", 2*len(r.PublicKey))
		}
		if found.Trusted = "given"; [32]byte(key) != r.PublicKey {
			return nil, &failure{exit: exitMismatch, code: "key", err: fmt.Errorf("the receipt is signed with the key %s, not with %s", found.PublicKey, strings.ToLower(given))}
		}
	}
	if err := r.Check(); err != nil {
		return nil, &failure{exit: exitMismatch, code: "signature", err: fmt.Errorf("the receipt of job %s: %w", r.Job, err), hint: "was it changed?"}
	}
	return found, nil
}

// recomputed recomputes the segments side by side and compares each with where
// the next begins.
func (p *program) recomputed(c *cli.Context, cl *claim, out verified) error {
	chains := make([]hashchain.Chain[int], len(cl.segments))
	total := uint64(0)
	for k, i := range cl.segments {
		from, to := cl.ladder[i], cl.ladder[i+1]
		chains[k] = hashchain.Chain[int]{Done: from.Done, Iterations: to.Done, Value: from.Value}
		total += to.Done - from.Done
	}
	parts := len(cl.ladder) - 1
	serial := 0.0
	if len(chains) > 1 {
		serial = serialRate(c.Context)
	}
	m := p.meter(c, "values", 1)
	t := m.track("verify "+cl.file, total)
	var mu sync.Mutex // guards done and sum
	done, sum := make([]uint64, len(chains)), uint64(0)
	began := time.Now()
	values, err := recompute(c.Context, chains, func(k int, at uint64) {
		mu.Lock()
		defer mu.Unlock()
		at -= cl.ladder[cl.segments[k]].Done
		sum += at - done[k]
		done[k] = at
		t.advance(sum)
	})
	m.close()
	if err != nil {
		return err
	}
	took := time.Since(began)
	out.OK, out.Seconds = true, took.Seconds()
	out.Rate = float64(total) / max(out.Seconds, 1e-9)
	if out.work = total; len(chains) == parts {
		out.work = out.Iterations
	}
	if parts > 1 {
		out.Segments, out.Checked = parts, len(chains)
	}
	if serial > 0 {
		out.Speedup = out.Rate / max(serial, serialRate(c.Context))
	}
	for k, i := range cl.segments {
		to := cl.ladder[i+1]
		if values[k] == to.Value {
			continue
		}
		out.OK, out.Computed = false, values[k].String()
		if err := p.printVerified(c, out, took); err != nil {
			return err
		}
		what := cl.file
		if parts > 1 {
			what = fmt.Sprintf("%s: segment %d of %d, iterations %d to %d", cl.file, i+1, parts, cl.ladder[i].Done, to.Done)
		}
		return mismatch(what, values[k], to.Value)
	}
	if len(chains) == parts {
		out.Computed = out.Value
	}
	return p.printVerified(c, out, took)
}

// serialRate measures how fast one chain is on one core here: the best of ten
// windows of 10 ms, since whatever else runs can only slow one down.
func serialRate(ctx context.Context) (best float64) {
	e := hashchain.NewExecutor[int](1)
	e.Add(hashchain.Chain[int]{Done: 1, Iterations: jobs.MaxIterations})
	for range 10 {
		began, hashes := time.Now(), uint64(0)
		for time.Since(began) < 10*time.Millisecond && ctx.Err() == nil {
			hashes += e.Advance(hashchain.Chunk)
		}
		best = max(best, float64(hashes)/time.Since(began).Seconds())
	}
	return best
}

func (p *program) printVerified(c *cli.Context, out verified, took time.Duration) error {
	if f := format(c); f != formatTable {
		return p.printJSON(f, out)
	}
	if !out.OK {
		return nil // the error says it
	}
	if r := out.Receipt; r != nil {
		trusted := "the key given with --key"
		if r.Trusted == "embedded" {
			trusted = "the key in the receipt itself: is it the node's?"
		}
		if _, err := fmt.Fprintf(p.stdout, "ok: signed by node %s with %s, %s\n", r.Node, r.PublicKey, trusted); err != nil {
			return err
		}
	}
	if out.File == "" {
		_, err := fmt.Fprintf(p.stdout, "not recomputed: give the data to check the value of %s iterations too\n", humanize.Comma(int64(out.Iterations)))
		return err
	}
	what, how := "the value is right", ""
	if out.Checked < out.Segments {
		what = fmt.Sprintf("%d of %d segments are right, the others were not looked at", out.Checked, out.Segments)
	} else if out.Segments > 1 {
		how = fmt.Sprintf(" in %d segments", out.Segments)
	}
	speed := ""
	if out.Speedup > 0 {
		speed = fmt.Sprintf(", %.1f times one chain", out.Speedup)
	}
	_, err := fmt.Fprintf(p.stdout, "ok: %s (%s iterations%s in %s, %s it/s%s)\n", what, humanize.Comma(int64(out.work)), how, roughly(took), number(out.Rate), speed)
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
