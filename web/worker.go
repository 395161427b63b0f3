package web

import (
	"context"
	"strconv"
	"strings"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// Bounds of the bodies: a full report, whose values and reasons are as long as
// can be, is about 7 MB, and its kept checkpoints 1.5 MB.
const (
	maxLeaseBody  = 64 << 10
	maxReportBody = 10 << 20
	// maxTold bounds the wrong reports of one batch that are told.
	maxTold = 16
	// maxTicket bounds what a report shows of its lease.
	maxTicket = 64
)

// lease answers POST /worker/lease: leases, with a wait for the first. A node
// that stops gives none.
func (s *Server) lease(ctx context.Context, req api.LeaseRequest) (api.LeaseReply, error) {
	who, err := workerOf(&req.Worker)
	if err == nil {
		_, err = WorkerOf(ctx, who.Name)
	}
	if err != nil {
		return api.LeaseReply{}, err
	}
	if s.stopping() {
		return api.LeaseReply{}, errStopping()
	}
	release, err := s.hold(ctx, placeWait, 1)
	if err != nil {
		return api.LeaseReply{}, err
	}
	defer release()
	waiting, cancel := s.untilStop(ctx)
	defer cancel()
	leases, err := s.cfg.Leaser.Lease(waiting, who, jobs.Capacity{
		Jobs: req.Jobs, Iterations: req.Iterations, Wait: time.Duration(req.Wait * float64(time.Second)),
	})
	if err != nil {
		return api.LeaseReply{}, err
	}
	out := api.LeaseReply{Leases: make([]api.Lease, len(leases))}
	out.Nodes, out.Apart = s.nodes()
	out.Orders = s.orders(who)
	for i, l := range leases {
		w := &out.Leases[i]
		*w = api.Lease{ID: l.ID.String(), Boot: l.Fence.Boot.String(), Fence: l.Fence.N, V1: l.V1.String(), Iterations: l.Iterations, Done: l.Start.Done, Keep: l.Keep}
		if l.Start.Done > 1 {
			w.Value = l.Start.Value.String()
		}
		w.Ticket = s.ticket(ctx, l.ID)
		out.TTL = l.TTL.Seconds()
	}
	return out, nil
}

// report answers POST /worker/report, also while the node stops: what was
// computed is to arrive.
func (s *Server) report(ctx context.Context, req api.ReportRequest) (api.ReportReply, error) {
	who, err := workerOf(&req.Worker)
	if err == nil {
		_, err = WorkerOf(ctx, who.Name)
	}
	if err != nil {
		return api.ReportReply{}, err
	}
	var wrong problems
	batch := make([]jobs.Report, len(req.Reports))
	for i := range req.Reports {
		if batch[i], err = reportOf(i, &req.Reports[i]); err != nil && len(wrong.list) < maxTold {
			wrong.add(err)
		}
	}
	if err := wrong.err(); err != nil {
		return api.ReportReply{}, err
	}
	out := api.ReportReply{Verdicts: make([]string, len(batch))}
	out.Nodes, _ = s.nodes()
	mine, place := batch[:0], make([]int, 0, len(batch)) // what it leased, now or before
	for i := range batch {
		out.Verdicts[i] = api.VerdictLost
		if s.mayReport(ctx, &batch[i]) {
			mine, place = append(mine, batch[i]), append(place, i)
		}
	}
	if n := len(batch) - len(mine); n > 0 {
		s.log.Warn("reports on jobs that the worker never leased", "worker", who.Key(), "reports", n)
	}
	verdicts, err := s.cfg.Leaser.Report(ctx, who, mine)
	if err != nil {
		return api.ReportReply{}, err
	}
	for i, v := range verdicts {
		out.Verdicts[place[i]] = verdictWords[v]
	}
	out.Orders = s.orders(who)
	return out, nil
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

var verdictWords = map[jobs.Verdict]string{
	jobs.Kept: api.VerdictKept, jobs.Lost: api.VerdictLost, jobs.Withdrawn: api.VerdictWithdrawn,
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
