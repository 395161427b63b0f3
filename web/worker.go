package web

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
	"workmanager/web/wire"
)

// Bounds of the bodies: a full report, whose values and reasons are as long as
// can be, is about 7 MB, and its kept checkpoints 1.5 MB.
const (
	maxLeaseBody  = 64 << 10
	maxReportBody = 10 << 20
	// maxReportPieces bounds what of reports is in memory at once, from its first
	// byte until its answer: 256 MiB of bodies, of one caller 64, in pieces of
	// reportPiece. Reading them takes up to twice as much besides.
	maxReportPieces = 256 << 20 / reportPiece
	reportPiece     = 16 << 10
	// maxTold bounds the wrong reports of one batch that are told.
	maxTold = 16
	// maxTicket bounds what a report shows of its lease.
	maxTicket = 64
)

// lease answers POST /worker/lease: leases, with a wait for the first. A node
// that stops gives none.
func (s *Server) lease(ctx context.Context, req api.LeaseRequest) (leaseReply, error) {
	who, err := workerOf(&req.Worker)
	if err == nil {
		_, err = WorkerOf(ctx, who.Name)
	}
	if err != nil {
		return leaseReply{}, err
	}
	if s.stopping() {
		return leaseReply{}, errStopping()
	}
	release, err := s.hold(ctx, placeWait, 1)
	if err != nil {
		return leaseReply{}, err
	}
	defer release()
	waiting, cancel := s.untilStop(ctx)
	defer cancel()
	leases, err := s.cfg.Leaser.Lease(waiting, who, jobs.Capacity{
		Jobs: req.Jobs, Iterations: req.Iterations, Wait: time.Duration(req.Wait * float64(time.Second)),
	})
	if err != nil {
		return leaseReply{}, err
	}
	out := leaseReply{leases: leases}
	out.Nodes, out.Apart = s.nodes()
	out.Orders = s.orders(who)
	for i := range leases {
		leases[i].Ticket = s.ticket(ctx, leases[i].ID)
		out.TTL = leases[i].TTL.Seconds()
	}
	return out, nil
}

// leaseReply is an api.LeaseReply whose leases are ours.
type leaseReply struct {
	api.LeaseReply
	leases []jobs.Lease
}

func (r *leaseReply) appendJSON(b []byte) []byte {
	return wire.AppendLeaseReply(b, r.leases, r.LeaseReply)
}

// reports answers POST /worker/report.
func (s *Server) reports(w http.ResponseWriter, r *http.Request) error {
	length := r.ContentLength
	if length < 0 || length > maxReportBody {
		length = maxReportBody
	}
	release, err := s.hold(r.Context(), placeReport, int((length+reportPiece-1)/reportPiece))
	if err != nil {
		return err
	}
	defer release()
	text, err := s.text(w, r, maxReportBody)
	if err != nil {
		return err
	}
	req, ok := quickReports(text)
	if !ok {
		if err := unmarshal(text, &req.ReportRequest); err != nil {
			return err
		}
	}
	if err := check("body", &req.ReportRequest); err != nil {
		return err
	}
	resp, err := call(s, w, r, s.report, req)
	if err != nil {
		return err
	}
	return s.reply(w, r, &resp)
}

// reportRequest is an api.ReportRequest, or one whose reports are ours already.
type reportRequest struct {
	api.ReportRequest
	batch []jobs.Report // nil: they are not
}

// quickReports reads what our own worker sends, if nothing of it is to be
// refused by reportOf.
func quickReports(text []byte) (req reportRequest, ok bool) {
	req.Worker, req.batch, ok = wire.ReadReportRequest(text)
	for i := range req.batch {
		ok = ok && !odd(&req.batch[i])
	}
	if !ok {
		return reportRequest{}, false
	}
	return req, true
}

// report takes a batch, also while the node stops: what was computed is to
// arrive.
func (s *Server) report(ctx context.Context, req reportRequest) (reportReply, error) {
	who, err := workerOf(&req.Worker)
	if err == nil {
		_, err = WorkerOf(ctx, who.Name)
	}
	if err != nil {
		return reportReply{}, err
	}
	batch := req.batch
	if batch == nil {
		if batch, err = reportsOf(req.Reports); err != nil {
			return reportReply{}, err
		}
	}
	var out reportReply
	out.Nodes, _ = s.nodes()
	out.verdicts = make([]jobs.Verdict, len(batch))
	mine, place := batch[:0], make([]int, 0, len(batch)) // what it leased, now or before
	for i := range batch {
		out.verdicts[i] = jobs.Lost
		if s.mayReport(ctx, &batch[i]) {
			mine, place = append(mine, batch[i]), append(place, i)
		}
	}
	if n := len(batch) - len(mine); n > 0 {
		s.log.Warn("reports on jobs that the worker never leased", "worker", who.Key(), "reports", n)
	}
	verdicts, err := s.cfg.Leaser.Report(ctx, who, mine)
	if err != nil {
		return reportReply{}, err
	}
	for i, v := range verdicts {
		out.verdicts[place[i]] = v
	}
	out.Orders = s.orders(who)
	return out, nil
}

// reportReply is an api.ReportReply whose verdicts are ours.
type reportReply struct {
	api.ReportReply
	verdicts []jobs.Verdict
}

func (r *reportReply) appendJSON(b []byte) []byte {
	return wire.AppendReportReply(b, r.verdicts, r.ReportReply)
}

// orders is what the worker is told besides.
func (s *Server) orders(who jobs.Worker) api.Orders {
	o := s.cfg.Leaser.Orders(who)
	if o.Idle < 0 {
		return api.Orders{Drain: o.Drain, Idle: -1}
	}
	return api.Orders{Drain: o.Drain, Idle: o.Idle.Seconds()}
}

// ticket returns what the caller shows when it reports on a job, "" where
// nobody shows anything.
func (s *Server) ticket(ctx context.Context, id jobs.ID) string {
	c, known := CallerOf(ctx)
	t, ok := s.cfg.Keeper.(Tickets)
	if !known || !ok {
		return ""
	}
	return t.Ticket(c.Name, id)
}

// mayReport tells whether the caller once leased the job that it reports on. It
// is told that others are lost and no more, for it may hold a ticket by a key
// that is no longer good, among others that are.
func (s *Server) mayReport(ctx context.Context, r *jobs.Report) bool {
	c, known := CallerOf(ctx)
	if !known {
		return true // on loopback workers have no credentials
	}
	t, ok := s.cfg.Keeper.(Tickets)
	return ok && c.Role == Worker && t.Leased(c.Name, r.ID, r.Ticket)
}

// nodes is what the Leaser says of the nodes, with a list that is never null.
func (s *Server) nodes() ([]string, bool) {
	urls, apart := s.cfg.Leaser.Nodes()
	if urls == nil {
		urls = []string{}
	}
	return urls, apart
}

// workerOf checks what a worker says of itself. It is shown to people, and
// names the worker among all others.
func workerOf(w *api.Worker) (jobs.Worker, error) {
	var wrong problems
	for _, f := range []struct{ name, value, also string }{
		{"name", w.Name, "-."}, {"instance", w.Instance, "-"}, {"kernel", w.Kernel, "-._+ "}, {"version", w.Version, "-._+ ()"},
	} {
		for i := 0; i < len(f.value); i++ {
			c := f.value[i]
			plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
			if !plain && strings.IndexByte(f.also, c) < 0 {
				wrong.add(jobs.Invalid("body", "worker."+f.name, "value_error.str", "character %d is no letter, no digit and none of %q", i+1, f.also))
				break
			}
		}
	}
	return jobs.Worker{
		Name: w.Name, Instance: w.Instance, Cores: w.Cores, Lanes: w.Lanes, Rate: w.Rate, Kernel: w.Kernel, Version: w.Version,
	}, wrong.err()
}

// reportsOf turns a batch into ours, or says what is wrong with it.
func reportsOf(batch []api.Report) ([]jobs.Report, error) {
	var wrong problems
	out := make([]jobs.Report, len(batch))
	for i := range batch {
		var err error
		if out[i], err = reportOf(i, &batch[i]); err != nil && len(wrong.list) < maxTold {
			wrong.add(err)
		}
	}
	return out, wrong.err()
}

// odd reports whether a report that can be read is one that reportOf may refuse.
func odd(r *jobs.Report) bool {
	return jobs.CheckIterations(r.Iterations) != nil || len(r.Ticket) > maxTicket ||
		r.Progress.Done > r.Iterations || r.Kind == jobs.ReportValue && r.Progress.Done != r.Iterations ||
		r.RungsFrom > jobs.MaxKeep || !(r.Rate >= 0 && r.Rate <= 1e15) ||
		len(r.Err) > jobs.MaxErrBytes || r.Kind == jobs.ReportFailure && r.Err == ""
}

// reportOf turns report n of a batch into ours, or says what is wrong with it.
func reportOf(n int, r *api.Report) (out jobs.Report, err error) {
	wrong := func(field, kind, format string, args ...any) (jobs.Report, error) {
		return jobs.Report{}, jobs.Invalid("body", "reports."+strconv.Itoa(n)+"."+field, kind, format, args...)
	}
	if out.ID, err = jobs.ParseID(r.ID); err != nil {
		return wrong("id", "value_error.uuid", "%q is no job ID", clip(r.ID))
	}
	if out.Fence.Boot, err = jobs.ParseID(r.Boot); err != nil {
		return wrong("boot", "value_error.uuid", "%q is no boot", clip(r.Boot))
	}
	out.Fence.N = r.Fence
	if out.V1, err = jobs.ParseValue(r.V1); err != nil {
		return wrong("v1", "value_error.hex", "is not 128 hexadecimal digits")
	}
	if err := jobs.CheckIterations(r.Iterations); err != nil {
		return wrong("iterations", "value_error.number", "%d is not from 1 to %d (2^53)", r.Iterations, uint64(jobs.MaxIterations))
	}
	out.Iterations, out.Ticket = r.Iterations, r.Ticket
	if len(r.Ticket) > maxTicket {
		return wrong("ticket", "value_error.length", "has %d bytes, at most %d are allowed", len(r.Ticket), maxTicket)
	}
	switch r.Kind {
	case api.ReportProgress:
		out.Kind = jobs.ReportProgress
	case api.ReportValue:
		out.Kind = jobs.ReportValue
	case api.ReportFailure:
		out.Kind = jobs.ReportFailure
	case api.ReportHandBack:
		out.Kind = jobs.ReportHandBack
	default:
		return wrong("kind", "value_error.const", "%q is not one of %s, %s, %s, %s", clip(r.Kind),
			api.ReportProgress, api.ReportValue, api.ReportFailure, api.ReportHandBack)
	}
	out.Progress.Done = r.Done
	switch {
	case r.Done > r.Iterations:
		return wrong("done", "value_error.number", "%d is more than the job's %d iterations", r.Done, r.Iterations)
	case out.Kind == jobs.ReportValue && r.Done != r.Iterations:
		return wrong("done", "value_error.number", "%d is not the job's %d iterations, after which it has its value", r.Done, r.Iterations)
	}
	if r.Value != "" || r.Done > 0 && out.Kind != jobs.ReportFailure {
		if out.Progress.Value, err = jobs.ParseValue(r.Value); err != nil {
			return wrong("value", "value_error.hex", "is not 128 hexadecimal digits")
		}
	}
	if out.RungsFrom = r.RungsFrom; r.RungsFrom < 0 || r.RungsFrom > jobs.MaxKeep {
		return wrong("rungs_from", "value_error.number", "%d is not from 0 to %d", r.RungsFrom, jobs.MaxKeep)
	}
	if err := out.Rungs.UnmarshalText([]byte(r.Rungs)); err != nil {
		return wrong("rungs", "value_error.base64", "%v", err)
	}
	if out.Rate = r.Rate; !(r.Rate >= 0 && r.Rate <= 1e15) {
		return wrong("rate", "value_error.number", "%g is not from 0 to 1e15", r.Rate)
	}
	out.Err = r.Error
	switch size := len(r.Error); {
	case size > jobs.MaxErrBytes:
		return wrong("error", "value_error.length", "has %d bytes, at most %d are allowed", size, jobs.MaxErrBytes)
	case size == 0 && out.Kind == jobs.ReportFailure:
		return wrong("error", "value_error.missing", "a failure must say why")
	}
	return out, nil
}
