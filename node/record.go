package node

import (
	"fmt"
	"slices"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
	"workmanager/jobs/lease"
	"workmanager/jobs/store"
)

// Bounds of what is known of workers.
const (
	maxRecords = 512  // workers of which anything is known; of more, the longest silent are forgotten
	maxReports = 1024 // results of each, of 40 bytes
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
	shown jobs.Print
	from  *origin // nil: its lease began at v1
}

// origin is where a lease began and how the job came there.
type origin struct {
	trail []lease.Claim
	start jobs.Progress // Done is 0 if it is not known
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
	it := result{id, a.print(v), jobs.PrintOf(v), from}
	if len(r.results) < maxReports {
		r.results = append(r.results, it)
	} else {
		r.results[r.next] = it
		r.next = (r.next + 1) % maxReports
	}
	if from != nil && from.start.Done == 0 && a.rand.Float64() < a.rate { // no segment is known of it
		a.doubt(id, false)
	}
}

// value is what a worker says that reports the value of a job.
func (a *auditor) value(worker string, r *jobs.Report, from *origin) []said {
	s := said{worker: worker, start: 1, at: r.Iterations, result: a.print(r.Progress.Value), shown: jobs.PrintOf(r.Progress.Value)}
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

// doubt has a job recomputed when nothing is disputed. With kept it outlives a
// restart; what was drawn by lot does not. mu is held.
func (a *auditor) doubt(id jobs.ID, kept bool) {
	if a.known[id] != nil {
		return
	}
	if kept {
		a.note(store.Doubt{ID: id})
	}
	if len(a.suspects) >= maxSuspects {
		oldest := a.suspects[0]
		a.suspects = slices.Delete(a.suspects, 0, 1)
		if a.known[oldest.id] == oldest {
			delete(a.known, oldest.id)
		}
		a.skipped.Add(1)
		a.more = true // it is in the store, if it was to be kept
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
			out = append(out, a.since(said{worker: name, start: 1, at: iterations, result: it.print, shown: it.shown}, it.from)...)
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

// blame acts on a worker that said what is wrong.
func (a *auditor) blame(c *check, s said) {
	id := c.id
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
		a.mu.Lock()
		a.doubtAll(s.worker)
		a.mu.Unlock()
		a.selfCheck(id)
		return
	}
	q := jobs.Quarantine{ID: id, Done: s.at, Said: s.shown, Reason: fmt.Sprintf("a value that it reported is not what recomputing gives, job %s", id)}
	if i, ok := slices.BinarySearch(c.stops, s.at); ok {
		q.Right = jobs.PrintOf(c.values[i])
	}
	a.quarantine(s.worker, q)
}

// doubtAll has a worker's last results recomputed, the newest first. mu is held.
func (a *auditor) doubtAll(worker string) {
	r := a.workers[worker]
	if r == nil {
		return
	}
	for i := range r.results { // the oldest first, since the last on the list is taken first
		a.doubt(r.results[(r.next+i)%len(r.results)].id, true)
	}
	r.results, r.next = nil, 0
}

// selfCheck tries the kernels of this machine after its own worker, or the
// auditor, was wrong. A node does not take its only workers away for one wrong
// value, which may have been a stray bit: only if the kernels are wrong still.
func (a *auditor) selfCheck(id jobs.ID) {
	if a.well() {
		a.q.log.Error("this node's own worker was wrong, and its kernels compute rightly now: watch this machine", "worker", a.q.node, "job", id)
		return
	}
	a.quarantine(a.q.node, jobs.Quarantine{ID: id, Reason: "the kernels of this machine compute wrongly"})
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
