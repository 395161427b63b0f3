package lease

import (
	"slices"

	"workmanager/jobs"
)

// Claim is what a worker says of a chain: given the value at Start, it reached
// that at At.
type Claim struct {
	Worker    string
	Start, At jobs.Progress
}

// past is what a table remembers of the earlier leases of a job, if there is
// anything to remember: most jobs have one lease and none of this.
type past struct {
	trail  []Claim  // by whom and from where the job came to its start, the oldest first; at most maxTrail
	cut    bool     // older claims were dropped
	failed []string // who said that it cannot be computed, once a time
}

// maxTrail bounds the claims kept of one job, 160 bytes each.
const maxTrail = 8

// noted returns the past of a job, to add to it.
func (e *entry) noted() *past {
	if e.past == nil {
		e.past = &past{}
	}
	return e.past
}

// claim notes how far the holder brought the job.
func (e *entry) claim() {
	if e.progress.Done <= e.start.Done {
		return
	}
	p := e.noted()
	if len(p.trail) == maxTrail {
		p.trail = slices.Delete(p.trail, 0, 1)
		p.cut = true
	}
	p.trail = append(p.trail, Claim{Worker: e.holder, Start: e.start, At: e.progress})
}

// Failed notes that the holder says that the job cannot be computed. Below most
// times the job waits again, for another worker where there is one, and Failed
// returns true. Else the lease stands, and the job should fail.
func (t *Table) Failed(ref jobs.LeaseRef, most int) bool {
	e := t.held(ref)
	if e == nil || e.past != nil && len(e.past.failed)+1 >= most || most <= 1 {
		return false
	}
	p := e.noted()
	p.failed = append(p.failed, e.holder)
	t.release(e)
	return true
}

// shuns reports whether the worker should leave the job to others: it failed
// here, and there are live workers that have not tried.
func (t *Table) shuns(e *entry, worker string) bool {
	if e.past == nil || !slices.Contains(e.past.failed, worker) {
		return false
	}
	for name := range t.live {
		if !slices.Contains(e.past.failed, name) {
			return true
		}
	}
	return false
}

// Work returns a job as its present lease, or its next, has it: what is to be
// computed and from where. It is zero if the job is not known.
func (t *Table) Work(id jobs.ID) jobs.Lease {
	e := t.entries[id]
	if e == nil {
		return jobs.Lease{}
	}
	return jobs.Lease{LeaseRef: jobs.LeaseRef{ID: id}, V1: e.v1, Iterations: e.iterations, Start: e.start}
}

// Live tells the table of a live worker, and Gone that it is none any more. A
// job that failed at one worker waits for another only while there is one.
func (t *Table) Live(worker string) { t.live[worker] = struct{}{} }

// Gone undoes Live.
func (t *Table) Gone(worker string) { delete(t.live, worker) }
