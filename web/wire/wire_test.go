package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// What encoding/json alone makes of the same values.

func refReport(r *jobs.Report) api.Report {
	out := api.Report{
		ID: r.ID.String(), Boot: r.Fence.Boot.String(), Fence: r.Fence.N, V1: r.V1.String(), Iterations: r.Iterations,
		Done: r.Progress.Done, Rate: finite(r.Rate), Ticket: r.Ticket,
	}
	if len(r.Rungs) > 0 {
		text, _ := r.Rungs.MarshalText()
		out.RungsFrom, out.Rungs = r.RungsFrom, string(text)
	}
	if r.Progress.Done > 0 {
		out.Value = r.Progress.Value.String()
	}
	switch r.Kind {
	case jobs.ReportProgress:
		out.Kind = "progress"
	case jobs.ReportValue:
		out.Kind = "value"
	case jobs.ReportHandBack:
		out.Kind = "hand_back"
	case jobs.ReportFailure:
		out.Kind, out.Error = "failure", clip(r.Err)
	}
	return out
}

func refReportRequest(w jobs.Worker, batch []jobs.Report, of []int) api.ReportRequest {
	req := api.ReportRequest{Worker: Worker(w), Reports: make([]api.Report, len(of))}
	for n, i := range of {
		req.Reports[n] = refReport(&batch[i])
	}
	return req
}

func refReportReply(verdicts []jobs.Verdict, r api.ReportReply) api.ReportReply {
	r.Verdicts = make([]string, len(verdicts))
	for i, v := range verdicts {
		r.Verdicts[i] = []string{"kept", "lost", "withdrawn"}[v]
	}
	return r
}

func refReadReportReply(text []byte, reports int) ([]jobs.Verdict, api.ReportReply, error) {
	var r api.ReportReply
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&r); err != nil {
		return nil, r, err
	}
	if len(r.Verdicts) != reports {
		return nil, r, fmt.Errorf("%d verdicts on %d reports", len(r.Verdicts), reports)
	}
	verdicts := make([]jobs.Verdict, reports)
	for i, word := range r.Verdicts {
		switch word {
		case "kept":
			verdicts[i] = jobs.Kept
		case "lost":
			verdicts[i] = jobs.Lost
		case "withdrawn":
			verdicts[i] = jobs.Withdrawn
		default:
			return nil, r, fmt.Errorf("unknown verdict %q", word)
		}
	}
	return verdicts, r, nil
}

func refLeaseReply(leases []jobs.Lease, r api.LeaseReply) api.LeaseReply {
	r.Leases = make([]api.Lease, len(leases))
	for i, l := range leases {
		w := &r.Leases[i]
		*w = api.Lease{ID: l.ID.String(), Boot: l.Fence.Boot.String(), Fence: l.Fence.N, V1: l.V1.String(), Iterations: l.Iterations, Done: l.Start.Done, Keep: l.Keep, Ticket: l.Ticket}
		if l.Start.Done > 1 {
			w.Value = l.Start.Value.String()
		}
	}
	return r
}

func refReadLeaseReply(text []byte) ([]jobs.Lease, api.LeaseReply, error) {
	var r api.LeaseReply
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&r); err != nil {
		return nil, r, err
	}
	leases := make([]jobs.Lease, len(r.Leases))
	for i := range r.Leases {
		var err error
		if leases[i], err = leaseOf(&r.Leases[i]); err != nil {
			return nil, r, fmt.Errorf("read the lease of job %s: %w", r.Leases[i].ID, err)
		}
		leases[i].TTL = time.Duration(r.TTL * float64(time.Second))
	}
	return leases, r, nil
}

// refReadReport is a report as encoding/json reads it, if all of it can be read.
func refReadReport(r *api.Report) (out jobs.Report, err error) {
	out = jobs.Report{Iterations: r.Iterations, Progress: jobs.Progress{Done: r.Done}, Rate: r.Rate, Err: r.Error, Ticket: r.Ticket, RungsFrom: r.RungsFrom}
	out.Fence.N = r.Fence
	var errs [5]error
	out.ID, errs[0] = jobs.ParseID(r.ID)
	out.Fence.Boot, errs[1] = jobs.ParseID(r.Boot)
	out.V1, errs[2] = jobs.ParseValue(r.V1)
	if r.Value != "" || r.Done > 0 {
		out.Progress.Value, errs[3] = jobs.ParseValue(r.Value)
	}
	errs[4] = out.Rungs.UnmarshalText([]byte(r.Rungs))
	kind := slices.Index([]string{"progress", "value", "failure", "hand_back"}, r.Kind)
	if kind < 0 {
		return out, fmt.Errorf("no kind %q", r.Kind)
	}
	out.Kind = jobs.ReportKind(kind)
	return out, errors.Join(errs[:]...)
}

// marshal is json.Marshal of what cannot fail.
func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// world makes values by chance, with what is odd among them.
type world struct{ *rand.Rand }

func newWorld(seed uint64) world { return world{rand.New(rand.NewPCG(seed, 1))} }

func (w world) fill(b []byte) {
	for i := range b {
		b[i] = byte(w.Uint32())
	}
}

func (w world) id() (id jobs.ID)      { w.fill(id[:]); return id }
func (w world) value() (v jobs.Value) { w.fill(v[:]); return v }
func (w world) one(n int) bool        { return w.IntN(n) == 0 }

func (w world) number() uint64 {
	return []uint64{0, 1, 5, 1000, 1 << 53, math.MaxInt64, math.MaxUint64, w.Uint64(), w.Uint64() >> w.IntN(64)}[w.IntN(9)]
}

func (w world) rate() float64 {
	return []float64{0, 1, 1e6, 1.5, 1e15, 1e16, -1, math.NaN(), math.Inf(1), math.SmallestNonzeroFloat64, 1e-7, w.Float64(), w.Float64() * 1e9, w.NormFloat64() * 1e3}[w.IntN(14)]
}

func (w world) text() string {
	return []string{"", "plain", "a b-c.d", "http://10.0.0.1:5000", `q"`, `b\s`, "n\nl", "é", "\xff", "<&>", "\u2028", "\x7f", strings.Repeat("x", 3000), strings.Repeat("é", 1500)}[w.IntN(14)]
}

func (w world) worker() jobs.Worker {
	out := jobs.Worker{Name: "w1", Instance: "0a1b", Cores: w.IntN(100), Lanes: w.IntN(16), Rate: w.rate()}
	if w.one(3) {
		out = jobs.Worker{Name: w.text(), Instance: w.text(), Cores: int(w.number()), Lanes: -1, Kernel: w.text(), Version: w.text()}
	}
	return out
}

func (w world) report() jobs.Report {
	r := jobs.Report{
		LeaseRef: jobs.LeaseRef{ID: w.id(), Fence: jobs.Fence{Boot: w.id(), N: w.number()}}, V1: w.value(), Iterations: w.number(), Kind: jobs.ReportKind(w.IntN(4)),
		Progress: jobs.Progress{Done: w.number(), Value: w.value()}, Rate: w.rate(),
	}
	if w.one(3) || r.Kind == jobs.ReportFailure {
		r.Err, r.Ticket = w.text(), w.text()
	}
	if w.one(4) {
		r.RungsFrom = w.IntN(1000)
		for range w.IntN(3) {
			r.Rungs = r.Rungs.Add(w.value())
		}
	}
	return r
}

func (w world) batch() (batch []jobs.Report, of []int) {
	for i := range w.IntN(6) {
		batch = append(batch, w.report())
		if !w.one(5) {
			of = append(of, i)
		}
	}
	return batch, of
}

func (w world) orders() (o api.Orders) {
	return api.Orders{Drain: w.one(3), Idle: []float64{0, -1, 90, 0.5, 1e-9}[w.IntN(5)]}
}

func (w world) nodes() []string {
	out := []string{}
	for range w.IntN(3) {
		out = append(out, w.text())
	}
	return out
}

func (w world) leaseReply() ([]jobs.Lease, api.LeaseReply) {
	leases := []jobs.Lease{}
	ttl := time.Duration(w.IntN(2)) * time.Duration(w.Int64N(1e12))
	for range w.IntN(5) {
		l := jobs.Lease{LeaseRef: jobs.LeaseRef{ID: w.id(), Fence: jobs.Fence{Boot: w.id(), N: w.number()}}, V1: w.value(), Iterations: w.number(), Keep: uint16(w.number()), TTL: ttl}
		if l.Start = (jobs.Progress{Done: 1, Value: l.V1}); w.one(2) {
			l.Start = jobs.Progress{Done: max(2, w.number()), Value: w.value()}
		}
		if w.one(3) {
			l.Ticket = w.text()
		}
		leases = append(leases, l)
	}
	return leases, api.LeaseReply{TTL: ttl.Seconds(), Nodes: w.nodes(), Apart: w.one(2), Orders: w.orders()}
}

func (w world) reportReply() ([]jobs.Verdict, api.ReportReply) {
	verdicts := make([]jobs.Verdict, w.IntN(5))
	for i := range verdicts {
		verdicts[i] = jobs.Verdict(w.IntN(3))
	}
	return verdicts, api.ReportReply{Nodes: w.nodes(), Orders: w.orders()}
}

// same compares what text says with what encoding/json says by itself.
func same[T any](t *testing.T, text []byte, want T) {
	t.Helper()
	var got, ref T
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&got); err != nil {
		t.Fatalf("%q is no JSON of a %T: %v", text, got, err)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("%q: something follows", text)
	}
	if err := json.Unmarshal(marshal(want), &ref); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, ref) {
		t.Fatalf("%q says\n%+v, want\n%+v", text, got, ref)
	}
}

// FuzzAppend: what is written means what encoding/json would have written.
func FuzzAppend(f *testing.F) {
	for i := range uint64(200) {
		f.Add(i)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		w := newWorld(seed)
		who := w.worker()
		batch, of := w.batch()
		was := slices.Clone(batch)
		same(t, AppendReportRequest(nil, who, batch, of), refReportRequest(who, batch, of))
		if marked := AppendReportRequest([]byte("before"), who, batch, of); !bytes.HasPrefix(marked, []byte(`before{"worker":`)) {
			t.Errorf("%q does not stand behind what was there", marked)
		}
		for i := range was { // not DeepEqual: a rate may be NaN
			if fmt.Sprint(batch[i]) != fmt.Sprint(was[i]) {
				t.Errorf("the caller's report became %+v", batch[i])
			}
		}
		verdicts, rr := w.reportReply()
		same(t, AppendReportReply(nil, verdicts, rr), refReportReply(verdicts, rr))
		leases, lr := w.leaseReply()
		same(t, AppendLeaseReply(nil, leases, lr), refLeaseReply(leases, lr))
	})
}

// FuzzRead: whatever a node answers, it is read as encoding/json reads it, and
// refused with the same words; and so is what a worker reports, if it is read at
// all. Text changes at one place, so that most stays.
func FuzzRead(f *testing.F) {
	for i := range uint64(20) {
		w := newWorld(i)
		verdicts, rr := w.reportReply()
		leases, lr := w.leaseReply()
		for _, text := range [][]byte{
			AppendReportReply(nil, verdicts, rr), marshal(refReportReply(verdicts, rr)), AppendLeaseReply(nil, leases, lr), append(marshal(refLeaseReply(leases, lr)), '\n'),
		} {
			f.Add(text, uint16(i*40), uint8(0), []byte(" "), len(verdicts))
			f.Add(text, uint16(i*40), uint8(i), []byte{}, len(verdicts))
		}
		batch, of := w.batch()
		if i%2 == 0 {
			_, batch, of = plainBatch(1 + int(i/5))
		}
		text := AppendReportRequest(nil, jobs.Worker{Name: "w1", Instance: "0a", Cores: 1}, batch, of)
		for at := 0; at < len(text); at += 29 {
			f.Add(text, uint16(at), uint8(at%3), []byte{byte('0' + at%10)}, 0)
		}
		for _, put := range []string{"1", "-", ".5", "e5", `"`, `\`, ",", "}", "]", "null", `,"rate":1`, `,"error":"x"`, "A", "18446744073709551615", "\n"} {
			f.Add(text, uint16(len(text)/3), uint8(1), []byte(put), 0)
			f.Add(text, uint16(len(text)-2), uint8(0), []byte(put), 0)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, at uint16, cut uint8, put []byte, reports int) {
		text = change(text, at, cut, put)
		if who, got, ok := ReadReportRequest(text); ok {
			var want api.ReportRequest
			d := json.NewDecoder(bytes.NewReader(text))
			d.DisallowUnknownFields()
			if err := d.Decode(&want); err != nil || who != want.Worker || len(got) != len(want.Reports) {
				t.Fatalf("%q\ngives %+v, %+v,\nwant  %+v, %v", text, who, got, want, err)
			}
			if _, err := d.Token(); err != io.EOF {
				t.Fatalf("%q: something follows", text)
			}
			for i := range got {
				if r, err := refReadReport(&want.Reports[i]); err != nil || r != got[i] {
					t.Fatalf("%q\ngives %+v,\nwant  %+v, %v", text, got[i], r, err)
				}
			}
		}
		leases, lr, err := ReadLeaseReply(text)
		wantLeases, wantLR, wantErr := refReadLeaseReply(text)
		if wantLR.Leases = nil; !alike(err, wantErr) || err == nil && !(slices.Equal(leases, wantLeases) && reflect.DeepEqual(rest(lr), rest(wantLR))) {
			t.Fatalf("%q\ngives %+v, %+v, %v,\nwant  %+v, %+v, %v", text, leases, lr, err, wantLeases, wantLR, wantErr)
		}
		reports = max(0, min(reports, 10))
		verdicts, rr, err := ReadReportReply(text, reports)
		wantVerdicts, wantRR, wantErr := refReadReportReply(text, reports)
		if wantRR.Verdicts = nil; !alike(err, wantErr) || err == nil && !(slices.Equal(verdicts, wantVerdicts) && slices.Equal(rr.Nodes, wantRR.Nodes) && rr.Orders == wantRR.Orders) {
			t.Fatalf("%q\ngives %+v, %+v, %v,\nwant  %+v, %+v, %v", text, verdicts, rr, err, wantVerdicts, wantRR, wantErr)
		}
	})
}

// change puts something in the place of some bytes.
func change(text []byte, at uint16, cut uint8, put []byte) []byte {
	from := min(int(at), len(text))
	return slices.Concat(text[:from], put, text[min(from+int(cut), len(text)):])
}

func alike(a, b error) bool {
	return (a == nil) == (b == nil) && (a == nil || a.Error() == b.Error())
}

// rest is r with no nodes as a list without any.
func rest(r api.LeaseReply) api.LeaseReply {
	if r.Nodes == nil {
		r.Nodes = []string{}
	}
	return r
}

// plainBatch is what a worker reports most of the time.
func plainBatch(n int) (who jobs.Worker, batch []jobs.Report, of []int) {
	w := newWorld(7)
	who = jobs.Worker{Name: "w1", Instance: "6f1d2c3b4a59", Cores: 2, Lanes: 8, Rate: 31_415_926.5, Kernel: "avx2", Version: "v1.2.3"}
	boot := w.id()
	for i := range n {
		batch = append(batch, jobs.Report{
			LeaseRef: jobs.LeaseRef{ID: w.id(), Fence: jobs.Fence{Boot: boot, N: 100_000 + uint64(i)}}, V1: w.value(), Iterations: 1000, Kind: jobs.ReportValue,
			Progress: jobs.Progress{Done: 1000, Value: w.value()}, Rate: w.Float64() * 1e6,
		})
		of = append(of, i)
	}
	return who, batch, of
}

func plainLeases(n int) ([]jobs.Lease, api.LeaseReply) {
	_, batch, _ := plainBatch(n)
	leases := make([]jobs.Lease, n)
	for i, r := range batch {
		leases[i] = jobs.Lease{LeaseRef: r.LeaseRef, V1: r.V1, Iterations: r.Iterations, Start: jobs.Progress{Done: 1, Value: r.V1}, TTL: 7 * time.Second}
	}
	return leases, api.LeaseReply{TTL: 7, Nodes: []string{"http://10.0.0.1:5000", "http://10.0.0.2:5000"}}
}

// TestQuick: what is written by this package, and by encoding/json in an older
// worker or node, is read without encoding/json, with all that it says.
func TestQuick(t *testing.T) {
	who, batch, of := plainBatch(5)
	batch[0].Ticket = "AAAAAAAAAAAAAAAAAAAAAA"
	batch[1].Kind, batch[1].Err = jobs.ReportFailure, "on fire"
	batch[2].Kind, batch[2].Progress = jobs.ReportHandBack, jobs.Progress{}
	batch[3].Kind, batch[3].Rate, batch[3].RungsFrom, batch[3].Rungs = jobs.ReportProgress, 0, 3, jobs.Rungs("").Add(batch[0].V1).Add(batch[1].V1)
	for name, text := range map[string][]byte{"ours": AppendReportRequest(nil, who, batch, of), "older": marshal(refReportRequest(who, batch, of))} {
		if gotWho, got, ok := ReadReportRequest(text); !ok || gotWho != Worker(who) || !slices.Equal(got, batch) {
			t.Errorf("%s: reports %s\nread as %v, %+v, %+v", name, text, ok, gotWho, got)
		}
	}

	verdicts := []jobs.Verdict{jobs.Kept, jobs.Lost, jobs.Withdrawn, jobs.Kept}
	rr := api.ReportReply{Nodes: []string{"http://a:1", "http://b:2"}, Orders: api.Orders{Drain: true, Idle: -1}}
	for name, text := range map[string][]byte{"ours": AppendReportReply(nil, verdicts, rr), "older": append(marshal(refReportReply(verdicts, rr)), '\n')} {
		c := codec{b: text, reading: true}
		var got []jobs.Verdict
		var r api.ReportReply
		if c.reportReply(&got, &r); !c.end() || !slices.Equal(got, verdicts) || !reflect.DeepEqual(r, rr) {
			t.Errorf("%s: verdicts %s\nread as %v, %+v, %+v", name, text, c.end(), got, r)
		}
	}

	leases, lr := plainLeases(3)
	leases[1].Start, leases[1].Keep, leases[2].Ticket = jobs.Progress{Done: 500, Value: leases[0].V1}, 65535, "AAAAAAAAAAAAAAAAAAAAAA"
	lr.Apart, lr.Orders = true, api.Orders{Drain: true, Idle: 0.25}
	for name, text := range map[string][]byte{"ours": AppendLeaseReply(nil, leases, lr), "older": append(marshal(refLeaseReply(leases, lr)), '\n')} {
		c := codec{b: text, reading: true}
		var got []jobs.Lease
		var r api.LeaseReply
		c.leaseReply(&got, &r)
		for i := range got {
			got[i].TTL = leases[0].TTL
		}
		if !c.end() || !slices.Equal(got, leases) || !reflect.DeepEqual(r, lr) {
			t.Errorf("%s: leases %s\nread as %v, %+v, %+v", name, text, c.end(), got, r)
		}
	}
}

// TestLeaseReply_other: an answer that is not to the byte what is written here
// is left to encoding/json, and not lost.
func TestLeaseReply_other(t *testing.T) {
	leases, lr := plainLeases(2)
	leases[1].Start = jobs.Progress{Done: 500, Value: leases[0].V1}
	text := string(AppendLeaseReply(nil, leases, lr))
	for name, row := range map[string]struct{ old, new string }{
		"a space":               {`{"leases":[{`, `{"leases": [{`},
		"a line break":          {`,"ttl"`, "\n,\"ttl\""},
		"an escape":             {`http://10.0.0.1`, `http:\/\/10.0.0.1`},
		"beyond ASCII":          {`http://10.0.0.1`, `http://é`},
		"a new member":          {`,"done":500`, `,"done":500,"mood":"fine"`},
		"a new member behind":   {`"nodes":["http://10.0.0.1:5000","http://10.0.0.2:5000"]`, `"nodes":[],"mood":[1]`},
		"a member twice":        {`,"done":500`, `,"done":400,"done":500`},
		"another order":         {`"iterations":1000,"done":500`, `"done":500,"iterations":1000`},
		"capitals in a name":    {`"done":500`, `"Done":500`},
		"an exponent":           {`"ttl":7`, `"ttl":7e0`},
		"a word that is untold": {`"ttl":7`, `"ttl":7,"apart":false`},
		"no nodes":              {`"nodes":["http://10.0.0.1:5000","http://10.0.0.2:5000"]`, `"nodes":null`},
	} {
		t.Run(name, func(t *testing.T) {
			other := strings.Replace(text, row.old, row.new, 1)
			c := codec{b: []byte(other), reading: true}
			if c.leaseReply(new([]jobs.Lease), new(api.LeaseReply)); other == text || c.end() {
				t.Errorf("%s is read by this package", other)
			}
			if got, r, err := ReadLeaseReply([]byte(other)); err != nil || !slices.Equal(got, leases) || r.TTL != 7 || r.Leases != nil {
				t.Errorf("%s\nread as %+v, %+v, %v", other, got, r, err)
			}
		})
	}
	for name, row := range map[string]struct{ old, new, want string }{
		"a fence below 0":     {`"fence":100000`, `"fence":-1`, "cannot unmarshal number -1"},
		"a fence over 2^64":   {`"fence":100000`, `"fence":18446744073709551616`, "cannot unmarshal number"},
		"a needless zero":     {`"fence":100000`, `"fence":07`, "invalid character '7'"},
		"a half":              {`"fence":100000`, `"fence":1.5`, "cannot unmarshal number 1.5"},
		"too many to keep":    {`}],"ttl"`, `,"keep":65536}],"ttl"`, "cannot unmarshal number 65536"},
		"a job without an ID": {`{"id":"` + leases[0].ID.String(), `{"id":"`, "read the lease of job : "},
		"no hyphens":          {leases[0].ID.String(), strings.ReplaceAll(leases[0].ID.String(), "-", "_"), "is no job ID"},
		"no hex":              {leases[0].V1.String(), strings.Repeat("z", 128), "hexadecimal"},
		"cut off":             {`"ttl":7`, `"ttl":`, "invalid character"},
		"a needless zero 2":   {`"ttl":7`, `"ttl":07`, "invalid character"},
		"a bare point":        {`"ttl":7`, `"ttl":7.`, "invalid character"},
		"a bare minus":        {`"ttl":7`, `"ttl":-`, "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := ReadLeaseReply([]byte(strings.Replace(text, row.old, row.new, 1)))
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
	// What follows the answer is not looked at, as ever.
	if got, _, err := ReadLeaseReply([]byte(text + "}")); err != nil || !slices.Equal(got, leases) {
		t.Errorf("with something behind it: %+v, %v", got, err)
	}
}

func TestReportReply_other(t *testing.T) {
	want := []jobs.Verdict{jobs.Kept, jobs.Withdrawn}
	for _, text := range []string{
		`{"verdicts":["kept","withdrawn"],"nodes":[]}`, `{ "verdicts":["kept","withdrawn"],"nodes":[]}`, `{"nodes":[],"verdicts":["kept","withdrawn"]}`,
		`{"verdicts":["kept","withdraw\u006e"]}`, `{"verdicts":["lost"],"nodes":null,"verdicts":["kept","withdrawn"],"x":1}`,
	} {
		if got, r, err := ReadReportReply([]byte(text), 2); err != nil || !slices.Equal(got, want) || r.Verdicts != nil || len(r.Nodes) != 0 {
			t.Errorf("%s: %v, %+v, %v", text, got, r, err)
		}
	}
	for text, want := range map[string]string{
		`{"verdicts":["kept"],"nodes":[]}`:        "1 verdicts on 2 reports",
		`{"verdicts":["kept","new"],"nodes":[]}`:  `unknown verdict "new"`,
		`{"verdicts":["kept","kept"],"nodes":[`:   "unexpected EOF",
		`{"verdicts":["kept","kept\""]}`:          `unknown verdict "kept\""`,
		``:                                        "EOF",
		`{"verdicts":["kept" "kept"],"nodes":[]}`: "invalid character",
	} {
		if _, _, err := ReadReportReply([]byte(text), 2); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}

// TestReadAll: a length that is only said gets no memory, and one that is wrong
// costs nothing.
func TestReadAll(t *testing.T) {
	for _, length := range []int64{-1, 0, 3, 5, 1 << 40} {
		got, err := ReadAll(strings.NewReader("hello"), length)
		if err != nil || string(got) != "hello" || cap(got) > 2*maxAtOnce {
			t.Errorf("length %d: %q, %v in %d bytes", length, got, err, cap(got))
		}
	}
	long := strings.Repeat("x", 3<<20)
	if got, err := ReadAll(strings.NewReader(long), int64(len(long))); err != nil || string(got) != long {
		t.Errorf("3 MiB: %d bytes, %v", len(got), err)
	}
	broken := errors.New("broken")
	if got, err := ReadAll(io.MultiReader(strings.NewReader("he"), &failing{broken}), 5); !errors.Is(err, broken) || got != nil {
		t.Errorf("got %q, %v, want the error", got, err)
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// The benchmarks tell the nanoseconds of one report or lease of a batch of 1,000.

const many = 1000

func each(b *testing.B, f func()) {
	b.ReportAllocs()
	for b.Loop() {
		f()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/many, "ns/job")
}

func BenchmarkReportEncode(b *testing.B) {
	who, batch, of := plainBatch(many)
	b.Run("wire", func(b *testing.B) { each(b, func() { AppendReportRequest(nil, who, batch, of) }) })
	b.Run("json", func(b *testing.B) { each(b, func() { marshal(refReportRequest(who, batch, of)) }) })
}

func BenchmarkLeaseEncode(b *testing.B) {
	leases, r := plainLeases(many)
	b.Run("wire", func(b *testing.B) { each(b, func() { AppendLeaseReply(nil, leases, r) }) })
	b.Run("json", func(b *testing.B) {
		each(b, func() {
			enc := json.NewEncoder(new(bytes.Buffer))
			enc.SetEscapeHTML(false)
			enc.Encode(refLeaseReply(leases, r)) //nolint:errcheck // never fails
		})
	})
}

func BenchmarkLeaseDecode(b *testing.B) {
	leases, r := plainLeases(many)
	text := AppendLeaseReply(nil, leases, r)
	b.Run("wire", func(b *testing.B) { each(b, func() { ReadLeaseReply(text) }) })    //nolint:errcheck // never fails
	b.Run("json", func(b *testing.B) { each(b, func() { refReadLeaseReply(text) }) }) //nolint:errcheck
}

func BenchmarkReportReply(b *testing.B) {
	verdicts := make([]jobs.Verdict, many)
	r := api.ReportReply{Nodes: []string{"http://10.0.0.1:5000", "http://10.0.0.2:5000"}}
	b.Run("wire", func(b *testing.B) {
		each(b, func() { ReadReportReply(AppendReportReply(nil, verdicts, r), many) }) //nolint:errcheck // never fails
	})
	b.Run("json", func(b *testing.B) {
		each(b, func() { refReadReportReply(marshal(refReportReply(verdicts, r)), many) }) //nolint:errcheck // never fails
	})
}
