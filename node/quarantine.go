package node

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
	"workmanager/jobs/lease"
	"workmanager/web/api"
)

// Bounds of what is known of workers.
const (
	maxRecords     = 512  // workers of which anything is known; of more, the longest silent are forgotten
	maxReports     = 1024 // results of each, of 40 bytes
	maxQuarantined = 1024 // workers; of more, those quarantined first are let in again
	// maxStrikes is how many wrong values of one worker are borne that may be
	// another's fault, because it is not known from where it computed them.
	maxStrikes = 3
)

// record is what this node knows of a worker since its own start.
type record struct {
	checks  int // of its first reports
	strikes int
	at      time.Time
	results []result // a ring: the last ones that this node took
	next    int
}

// result is a value that a worker was the first to report.
type result struct {
	id    jobs.ID
	print uint64
	from  *origin // nil: its lease began at v1
}

// origin is where a lease began and how the job came there.
type origin struct {
	trail []lease.Claim
	start jobs.Progress // Done is 0 if it is not known
}

// quarantine is why a worker gets nothing more from this node.
type quarantine struct {
	worker string
	as     string // see barredAs
	reason string
	job    jobs.ID
	at     time.Time
}

// record returns what is known of a worker. mu is held.
func (a *auditor) record(worker string) *record {
	r := a.workers[worker]
	if r == nil {
		if len(a.workers) >= maxRecords {
			oldest := ""
			for name, other := range a.workers {
				if oldest == "" || other.at.Before(a.workers[oldest].at) {
					oldest = name
				}
			}
			delete(a.workers, oldest)
		}
		r = &record{}
		a.workers[worker] = r
	}
	r.at = a.q.now()
	return r
}

// origin returns where a worker's lease began, nil for v1. Queue.mu is held.
func (q *Queue) origin(ref jobs.LeaseRef, worker string) *origin {
	trail, start := q.table.Trail(ref, worker)
	if start.Done == 1 {
		return nil
	}
	return &origin{trail, start}
}

// completed notes that a worker's value became a job's.
func (a *auditor) completed(worker string, id jobs.ID, v jobs.Value, from *origin) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.record(worker)
	it := result{id, a.print(v), from}
	if len(r.results) < maxReports {
		r.results = append(r.results, it)
	} else {
		r.results[r.next] = it
		r.next = (r.next + 1) % maxReports
	}
	if from != nil && from.start.Done == 0 && a.rand.Float64() < a.rate { // no segment is known of it
		a.doubt(id)
	}
}

// value is what a worker says that reports the value of a job.
func (a *auditor) value(worker string, r *jobs.Report, from *origin) []said {
	s := said{worker: worker, start: 1, at: r.Iterations, result: a.print(r.Progress.Value)}
	return a.since(s, from)
}

// since adds to what was said of a value how the job came to where that began.
func (a *auditor) since(s said, from *origin) []said {
	if from == nil {
		return []said{s}
	}
	var out []said
	s.start, s.startPrint = from.start.Done, a.print(from.start.Value)
	for _, c := range from.trail {
		out = append(out, a.says(c))
	}
	return append(out, s)
}

// doubt has a job recomputed when nothing is disputed. mu is held.
func (a *auditor) doubt(id jobs.ID) {
	if a.known[id] != nil {
		return
	}
	if len(a.suspects) >= maxSuspects {
		oldest := a.suspects[0]
		a.suspects = slices.Delete(a.suspects, 0, 1)
		if a.known[oldest.id] == oldest {
			delete(a.known, oldest.id)
		}
		a.skipped.Add(1)
	}
	c := &check{why: suspected, id: id}
	a.suspects, a.known[id] = append(a.suspects, c), c
	a.tell()
}

// reports returns what workers of this node said of a job's value and of its
// way there. mu is held.
func (a *auditor) reports(id jobs.ID, iterations uint64) []said {
	var out []said
	for name, r := range a.workers {
		for _, it := range r.results {
			if it.id != id {
				continue
			}
			out = append(out, a.since(said{worker: name, start: 1, at: iterations, result: it.print}, it.from)...)
		}
	}
	return out
}

// reportedHere tells whether a worker of this node reported the job's value.
func (a *auditor) reportedHere(id jobs.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.reports(id, 0)) > 0
}

// isBarred reports whether a worker is quarantined.
func (a *auditor) isBarred(w jobs.Worker) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.barred[barredAs(w.Key())]
	return ok
}

// barredAs returns what stands for all processes of a worker's name elsewhere,
// or for the worker in this process, which a name elsewhere may equal.
func barredAs(key string) string {
	if name, _, elsewhere := strings.Cut(key, "/"); elsewhere {
		return name + "/"
	}
	return key
}

// blame acts on a worker that said what is wrong.
func (a *auditor) blame(id jobs.ID, s said) {
	switch {
	case s.worker == "":
		return
	case s.unsure:
		a.mu.Lock()
		r := a.record(s.worker)
		r.strikes++
		out := r.strikes >= maxStrikes
		a.mu.Unlock()
		if !out {
			return
		}
	}
	if s.worker == a.q.node {
		a.doubtAll(s.worker)
		a.selfCheck(id)
		return
	}
	a.quarantine(s.worker, id, fmt.Sprintf("a value that it reported is not what recomputing gives, job %s", id))
}

// doubtAll has a worker's last results recomputed, the newest first.
func (a *auditor) doubtAll(worker string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.workers[worker]
	if r == nil {
		return
	}
	for i := range r.results { // the oldest first, since the last on the list is taken first
		a.doubt(r.results[(r.next+i)%len(r.results)].id)
	}
	r.results, r.next = nil, 0
}

// quarantine lets a worker have nothing more while this node's process lives:
// its leases end, what it brought further goes back to where others vouch for,
// and its last results are recomputed. All processes of its name are meant: the
// machine is at fault, and a worker that is started again has another instance.
func (a *auditor) quarantine(key string, id jobs.ID, reason string) {
	name, as := strings.TrimSuffix(barredAs(key), "/"), barredAs(key)
	a.mu.Lock()
	if _, ok := a.barred[as]; ok {
		a.mu.Unlock()
		return
	}
	if len(a.quarantined) == maxQuarantined {
		delete(a.barred, a.quarantined[0].as)
		a.quarantined = slices.Delete(a.quarantined, 0, 1)
	}
	a.quarantined = append(a.quarantined, &quarantine{name, as, reason, id, a.q.now()})
	a.barred[as] = struct{}{}
	a.mu.Unlock()

	keys, back := []string{key}, 0
	a.q.mu.Lock()
	for other, s := range a.q.workers {
		if barredAs(s.worker.Key()) == as && other != key {
			keys = append(keys, other)
		}
	}
	for _, k := range keys {
		n, backs := a.q.table.Revoke(k)
		back += n
		for _, b := range backs {
			a.q.backs = append(a.q.backs, takeBack{Back: b})
		}
		delete(a.q.workers, k)
		a.q.table.Gone(k)
	}
	a.q.available(back)
	a.q.mu.Unlock()
	for _, k := range keys {
		a.doubtAll(k)
	}
	a.q.log.Error("worker quarantined: it gets no more leases until this node is started again", "worker", name, "reason", reason, "job", id, "jobs", back)
}

// selfCheck tries the kernels of this machine after its own worker, or the
// auditor, was wrong. A node does not take its only workers away for one wrong
// value, which may have been a stray bit: only if the kernels are wrong still.
func (a *auditor) selfCheck(id jobs.ID) {
	if a.well() {
		a.q.log.Error("this node's own worker was wrong, and its kernels compute rightly now: watch this machine", "worker", a.q.node, "job", id)
		return
	}
	a.quarantine(a.q.node, id, "the kernels of this machine compute wrongly")
}

// selfSteps is how far the self-check computes each lane.
const selfSteps = 4096

// kernelsRight compares the kernels with the standard library, all lanes full.
func kernelsRight() bool {
	e := hashchain.NewExecutor[int](0)
	for i := range e.Lanes() {
		e.Add(hashchain.Chain[int]{Tag: i, Done: 1, Iterations: selfSteps, Value: hashchain.Value([]byte{byte(i)}, 1)})
	}
	for e.Active() > 0 {
		e.Advance(hashchain.Chunk)
		for _, c := range e.Done() {
			if c.Value != hashchain.Value([]byte{byte(c.Tag)}, selfSteps) {
				return false
			}
		}
	}
	return true
}

// maxShown bounds the quarantined workers that status lists.
const maxShown = 100

// status is what the operator is shown.
func (a *auditor) status() api.AuditStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	st := api.AuditStatus{
		Rate: a.rate, Checked: a.checked.Load(), Wrong: a.wrong.Load(), Settled: a.settled.Load(), Skipped: a.skipped.Load(),
		Disputed: len(a.disputes), Doubted: len(a.suspects), Samples: len(a.samples), Running: a.running.Load(),
		Quarantined: []api.Quarantine{}, Alarms: []api.Alarm{},
	}
	for _, b := range slices.Backward(a.quarantined) {
		if len(st.Quarantined) == maxShown {
			break
		}
		st.Quarantined = append(st.Quarantined, api.Quarantine{Worker: b.worker, Reason: b.reason, ID: b.job.String(), At: b.at.UTC()})
	}
	for _, b := range slices.Backward(a.alarms) {
		st.Alarms = append(st.Alarms, api.Alarm{ID: b.job.String(), What: b.what, At: b.at.UTC()})
	}
	return st
}
