// Package wire is the JSON of a worker's calls, written and read by hand: with
// encoding/json that is most of what a job costs that is computed elsewhere.
//
// What it writes is the JSON of the types of web/api. What it reads by itself is
// that text to the byte: anything else, be it a space, an escape, another order
// or a member that it does not know, is left to encoding/json. So the same is
// taken and the same refused as without this package.
package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"workmanager/jobs"
	"workmanager/web/api"
)

// About what a report of a value and a lease from v1 on take: no bound, but
// right lengths need no second piece of memory.
const (
	reportBytes, leastReport = 520, 420
	leaseBytes, leastLease   = 320, 270
)

// AppendReportRequest appends the api.ReportRequest of those reports of a batch.
func AppendReportRequest(b []byte, w jobs.Worker, batch []jobs.Report, of []int) []byte {
	c := codec{b: slices.Grow(b, (1+len(of))*reportBytes)}
	who := Worker(w)
	c.lit(`{"worker":`)
	c.worker(&who)
	c.list(`,"reports":`, len(of), func(i int) {
		r := batch[of[i]]
		r.Rate = finite(r.Rate)
		if r.Kind == jobs.ReportFailure {
			r.Err = clip(r.Err)
		} else {
			r.Err = ""
		}
		if len(r.Rungs) == 0 {
			r.RungsFrom = 0
		}
		c.report(&r)
	})
	c.lit(`}`)
	return c.b
}

// ReadReportRequest reads what AppendReportRequest wrote. Where ok is false the
// text is otherwise, and may be right all the same. Whether the numbers make
// sense is not looked at.
func ReadReportRequest(text []byte) (who api.Worker, batch []jobs.Report, ok bool) {
	c := codec{b: text, reading: true}
	batch = make([]jobs.Report, 0, len(text)/leastReport)
	c.lit(`{"worker":`)
	c.worker(&who)
	c.list(`,"reports":`, 0, func(i int) {
		batch = append(batch, jobs.Report{})
		c.report(&batch[i])
	})
	c.lit(`}`)
	return who, batch, c.end() && len(batch) <= api.MaxReports
}

// AppendReportReply appends r with these verdicts.
func AppendReportReply(b []byte, verdicts []jobs.Verdict, r api.ReportReply) []byte {
	c := codec{b: slices.Grow(b, (64+len(verdicts))*len(`"kept",`))}
	c.reportReply(&verdicts, &r)
	return c.b
}

// ReadReportReply reads an answer to so many reports: the verdicts, and the rest.
func ReadReportReply(text []byte, reports int) (verdicts []jobs.Verdict, r api.ReportReply, err error) {
	c := codec{b: text, reading: true}
	verdicts = make([]jobs.Verdict, 0, reports)
	if c.reportReply(&verdicts, &r); c.end() && len(verdicts) == reports {
		return verdicts, r, nil
	}
	r = api.ReportReply{}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&r); err != nil {
		return nil, r, err
	}
	if len(r.Verdicts) != reports {
		return nil, r, fmt.Errorf("%d verdicts on %d reports", len(r.Verdicts), reports)
	}
	verdicts = verdicts[:0]
	for _, word := range r.Verdicts {
		v := slices.Index(verdictWords, word+`"`)
		if v < 0 {
			return nil, r, fmt.Errorf("unknown verdict %q", word)
		}
		verdicts = append(verdicts, jobs.Verdict(v))
	}
	r.Verdicts = nil
	return verdicts, r, nil
}

// AppendLeaseReply appends r with these leases.
func AppendLeaseReply(b []byte, leases []jobs.Lease, r api.LeaseReply) []byte {
	c := codec{b: slices.Grow(b, (1+len(leases))*leaseBytes)}
	c.leaseReply(&leases, &r)
	return c.b
}

// ReadLeaseReply reads an answer: the leases, and the rest.
func ReadLeaseReply(text []byte) (leases []jobs.Lease, r api.LeaseReply, err error) {
	c := codec{b: text, reading: true}
	leases = make([]jobs.Lease, 0, len(text)/leastLease)
	c.leaseReply(&leases, &r)
	if !c.end() {
		r = api.LeaseReply{}
		if err := json.NewDecoder(bytes.NewReader(text)).Decode(&r); err != nil {
			return nil, r, err
		}
		leases = make([]jobs.Lease, len(r.Leases))
		for i := range r.Leases {
			if leases[i], err = leaseOf(&r.Leases[i]); err != nil {
				return nil, r, fmt.Errorf("read the lease of job %s: %w", r.Leases[i].ID, err)
			}
		}
		r.Leases = nil
	}
	for i := range leases {
		leases[i].TTL = time.Duration(r.TTL * float64(time.Second))
	}
	return leases, r, nil
}

// ReadAll reads a body to its end; length is what its header says of it, -1 if
// nothing.
func ReadAll(r io.Reader, length int64) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(int(max(0, min(length, maxAtOnce))) + bytes.MinRead) // what ReadFrom wants free at the end
	if _, err := b.ReadFrom(r); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// maxAtOnce bounds the memory that is got for bytes before they are there.
const maxAtOnce = 1 << 20

func (c *codec) worker(w *api.Worker) {
	c.text(`{"name":`, &w.Name, required)
	c.text(`,"instance":`, &w.Instance, required)
	number(c, `,"cores":`, &w.Cores, required)
	number(c, `,"lanes":`, &w.Lanes, required)
	c.float(`,"rate":`, &w.Rate, required)
	c.text(`,"kernel":`, &w.Kernel, optional)
	c.text(`,"version":`, &w.Version, optional)
	c.lit(`}`)
}

func (c *codec) report(r *jobs.Report) {
	c.id(`{"id":"`, &r.ID)
	c.id(`","boot":"`, &r.Fence.Boot)
	number(c, `","fence":`, &r.Fence.N, required)
	c.hex(`,"v1":"`, r.V1[:])
	number(c, `","iterations":`, &r.Iterations, required)
	word(c, `,"kind":"`, kindWords, &r.Kind)
	number(c, `,"done":`, &r.Progress.Done, required)
	if r.Progress.Done > 0 {
		c.hex(`,"value":"`, r.Progress.Value[:])
		c.lit(`"`)
	}
	c.float(`,"rate":`, &r.Rate, optional)
	c.text(`,"error":`, &r.Err, optional)
	c.text(`,"ticket":`, &r.Ticket, optional)
	number(c, `,"rungs_from":`, &r.RungsFrom, optional)
	c.rungs(`,"rungs":`, &r.Rungs)
	c.lit(`}`)
}

func (c *codec) rungs(name string, r *jobs.Rungs) {
	var text string
	if !c.reading && len(*r) > 0 {
		b, _ := r.MarshalText() // never fails
		text = string(b)
	}
	if c.text(name, &text, optional); c.reading && text != "" && r.UnmarshalText([]byte(text)) != nil {
		c.spoil()
	}
}

func (c *codec) reportReply(verdicts *[]jobs.Verdict, r *api.ReportReply) {
	c.list(`{"verdicts":`, len(*verdicts), func(i int) {
		if c.reading {
			*verdicts = append(*verdicts, 0)
		}
		word(c, `"`, verdictWords, &(*verdicts)[i])
	})
	c.texts(`,"nodes":`, &r.Nodes)
	c.orders(&r.Orders)
	c.lit(`}`)
}

func (c *codec) leaseReply(leases *[]jobs.Lease, r *api.LeaseReply) {
	c.list(`{"leases":`, len(*leases), func(i int) {
		if c.reading {
			*leases = append(*leases, jobs.Lease{})
		}
		c.lease(&(*leases)[i])
	})
	c.float(`,"ttl":`, &r.TTL, required)
	c.texts(`,"nodes":`, &r.Nodes)
	r.Apart = c.has(`,"apart":true`, r.Apart)
	c.orders(&r.Orders)
	c.lit(`}`)
}

func (c *codec) orders(o *api.Orders) {
	o.Drain = c.has(`,"drain":true`, o.Drain)
	c.float(`,"idle":`, &o.Idle, optional)
}

// lease has a value only where it does not begin at v1.
func (c *codec) lease(l *jobs.Lease) {
	c.id(`{"id":"`, &l.ID)
	c.id(`","boot":"`, &l.Fence.Boot)
	number(c, `","fence":`, &l.Fence.N, required)
	c.hex(`,"v1":"`, l.V1[:])
	number(c, `","iterations":`, &l.Iterations, required)
	number(c, `,"done":`, &l.Start.Done, required)
	if c.has(`,"value":"`, l.Start.Done > 1) {
		c.hex("", l.Start.Value[:])
		c.lit(`"`)
	} else if c.reading {
		l.Start.Value = l.V1
	}
	number(c, `,"keep":`, &l.Keep, optional)
	c.text(`,"ticket":`, &l.Ticket, optional)
	c.lit(`}`)
}

// leaseOf makes a lease of its wire form.
func leaseOf(l *api.Lease) (out jobs.Lease, err error) {
	if out.ID, err = jobs.ParseID(l.ID); err != nil {
		return out, err
	}
	if out.Fence.Boot, err = jobs.ParseID(l.Boot); err != nil {
		return out, err
	}
	if out.V1, err = jobs.ParseValue(l.V1); err != nil {
		return out, err
	}
	out.Fence.N, out.Iterations, out.Keep, out.Ticket = l.Fence, l.Iterations, l.Keep, l.Ticket
	out.Start = jobs.Progress{Done: l.Done, Value: out.V1}
	if l.Value != "" {
		out.Start.Value, err = jobs.ParseValue(l.Value)
	}
	return out, err
}

// Worker is what a worker says of itself.
func Worker(w jobs.Worker) api.Worker {
	return api.Worker{
		Name: w.Name, Instance: w.Instance, Cores: w.Cores, Lanes: w.Lanes, Rate: finite(w.Rate), Kernel: w.Kernel, Version: w.Version,
	}
}

// finite returns a rate that JSON can hold.
func finite(rate float64) float64 {
	if math.IsNaN(rate) || rate < 0 {
		return 0
	}
	return min(rate, 1e15)
}

// clip cuts why a job failed to what a node takes of it, and makes it text.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if s == "" {
		return "no reason given"
	}
	for n := jobs.MaxErrBytes; len(s) > jobs.MaxErrBytes; n-- {
		if utf8.RuneStart(s[n]) {
			s = s[:n]
		}
	}
	return s
}

// The words of the wire, as they end.
var (
	kindWords = []string{
		jobs.ReportProgress: api.ReportProgress + `"`, jobs.ReportValue: api.ReportValue + `"`,
		jobs.ReportFailure: api.ReportFailure + `"`, jobs.ReportHandBack: api.ReportHandBack + `"`,
	}
	verdictWords = []string{
		jobs.Kept: api.VerdictKept + `"`, jobs.Lost: api.VerdictLost + `"`, jobs.Withdrawn: api.VerdictWithdrawn + `"`,
	}
)
