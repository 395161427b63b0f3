package lease

import (
	"slices"
	"time"

	"workmanager/jobs"
)

// Claim is what a worker says of a chain: given the value at Start, it reached
// that at At.
type Claim struct {
	Worker    string // "" if it came with the row, and is nobody's word here
	Start, At jobs.Progress
	Adopted   bool   // the worker began elsewhere, and perhaps not at Start
	during    string // whose lease stood when it came with the row
}

// past is what a table remembers of the earlier leases of a job, if there is
// anything to remember: most jobs have one lease and none of this.
type past struct {
	trail   []Claim   // by whom and from where the job came to its start, the oldest first; at most maxTrail
	cut     []string  // whose older claims were dropped
	failed  []string  // who said that it cannot be computed, once a time
	stalled string    // who held it last without bringing it on
	stalls  uint32    // how often somebody did
	at      time.Time // when that was, or one said so, whichever came last
	anew    bool      // it goes on from below its checkpoint, which is not trusted
	// beside is the row's checkpoint, if that is further than what the holder has
	// said: somebody said it to the other node. The holder may have, so it goes
	// where the holder is not trusted; but it is not held to it.
	beside jobs.Progress
}

// shunned is how long a job that failed or stalled at a worker is left to others.
// They may have enough to do for days, and then it is tried again there.
const shunned = time.Minute

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
	e.noted().add(Claim{Worker: e.holder, Start: e.start, At: e.progress, Adopted: e.adopted})
}

// add adds to the trail.
func (p *past) add(c Claim) {
	if len(p.trail) == maxTrail {
		if w := p.trail[0].Worker + p.trail[0].during; !slices.Contains(p.cut, w) { // one of them is ""
			p.cut = append(p.cut, w)
		}
		p.trail = slices.Delete(p.trail, 0, 1)
	}
	p.trail = append(p.trail, c)
}

// beside returns how far the row is, if that is further than the holder has said.
func (e *entry) beside() uint64 {
	if e.past == nil || e.past.beside.Done <= e.progress.Done {
		return 0
	}
	return e.past.beside.Done
}

// takeBeside has a job that its holder has left begin where its row is, if that
// is further.
func (e *entry) takeBeside(holder string) {
	if e.beside() > 0 {
		e.past.add(Claim{Start: e.start, At: e.past.beside, during: holder})
		e.start = e.past.beside
	}
	if e.past != nil {
		e.past.beside = jobs.Progress{}
	}
}

// Failed notes that the holder says that the job cannot be computed. Below most
// times the job waits again, for another worker where there is one, and Failed
// returns true. Else the lease stands, and the job should fail.
func (t *Table) Failed(now time.Time, ref jobs.LeaseRef, most int) bool {
	e := t.held(ref)
	if e == nil || e.past != nil && len(e.past.failed)+1 >= most || most <= 1 {
		return false
	}
	p := e.noted()
	p.failed, p.at = append(p.failed, e.holder), now
	t.release(e)
	return true
}

// shuns reports whether the worker should leave the job to others: it failed or
// stalled here a short while ago, and there are live workers where it did not.
func (t *Table) shuns(now time.Time, e *entry, worker string) bool {
	if e.past == nil || now.Sub(e.past.at) >= shunned || !e.past.tried(worker) {
		return false
	}
	for name := range t.live {
		if !e.past.tried(name) {
			return true
		}
	}
	return false
}

// tried reports whether the job failed or stalled at a worker.
func (p *past) tried(worker string) bool {
	return p.stalled == worker || slices.Contains(p.failed, worker)
}

// Work returns a job as its present lease, or its next, has it: what is to be
// computed and from where. It is zero if the job is not known.
func (t *Table) Work(id jobs.ID) jobs.Lease {
	e := t.entries[id]
	if e == nil {
		return jobs.Lease{}
	}
	return jobs.Lease{LeaseRef: jobs.LeaseRef{ID: id}, V1: e.v1, Iterations: e.iterations, Start: e.start, Keep: e.keep}
}

// Live tells the table of a live worker, and Gone that it is none any more. A
// job that failed at one worker waits for another only while there is one.
func (t *Table) Live(worker string) { t.live[worker] = struct{}{} }

// Gone undoes Live.
func (t *Table) Gone(worker string) {
	delete(t.live, worker)
	delete(t.sweeps, worker)
}

// Reached returns how far the holder of a lease that stands has brought it, as it
// said last. Its Done is 0 if the lease was adopted and nothing was said since.
func (t *Table) Reached(ref jobs.LeaseRef) (jobs.Progress, bool) {
	e := t.held(ref)
	switch {
	case e == nil:
		return jobs.Progress{}, false
	case e.adopted && e.progress.Done == e.start.Done:
		return jobs.Progress{}, true
	}
	return e.progress, true
}

// Trail returns how a job came to where a worker's lease of it began: the
// claims of the leases before, and that place, whose Done is 0 if it is not
// known, or not any more.
func (t *Table) Trail(ref jobs.LeaseRef, worker string) ([]Claim, jobs.Progress) {
	e := t.entries[ref.ID]
	if e == nil {
		return nil, jobs.Progress{}
	}
	var trail []Claim
	if e.past != nil {
		trail = slices.Clone(e.past.trail)
	}
	if t.held(ref) != nil {
		return trail, began(e.start, e.adopted)
	}
	for i := len(trail) - 1; i >= 0; i-- {
		if trail[i].Worker == worker {
			return trail[:i], began(trail[i].Start, trail[i].Adopted)
		}
	}
	if len(trail) == 0 && e.start.Done == 1 {
		return nil, e.start
	}
	return trail, jobs.Progress{}
}

func began(start jobs.Progress, adopted bool) jobs.Progress {
	if adopted {
		return jobs.Progress{}
	}
	return start
}

// Anew reports whether a job was taken back below its checkpoint: then a value
// is right only under a lease given since.
func (t *Table) Anew(id jobs.ID) bool {
	e := t.entries[id]
	return e != nil && e.past != nil && e.past.anew
}

// Restarts returns how often a job of the table was taken back, false if it is
// not in the table.
func (t *Table) Restarts(id jobs.ID) (uint32, bool) {
	if e := t.entries[id]; e != nil {
		return e.restarts, true
	}
	return 0, false
}

// Back is a job that was taken back, for its row: to where, and how often it had
// been before.
type Back struct {
	ID         jobs.ID
	V1         jobs.Value
	Iterations uint64
	To         jobs.Progress
	Seen       uint32
}

// Restart takes a job back to v1: its checkpoint is not trusted. Its lease ends,
// and no worker is counted as lost. The row has to be told. It returns false if
// the table does not have the job.
func (t *Table) Restart(id jobs.ID) (Back, bool) {
	e := t.entries[id]
	if e == nil {
		return Back{}, false
	}
	return t.back(e, 0, jobs.Progress{Done: 1, Value: e.v1}), true
}

// Revoke is RevokeAll for one worker.
func (t *Table) Revoke(worker string) (waiting int, backs []Back) {
	return t.RevokeAll(func(w string) bool { return w == worker })
}

// RevokeAll ends every lease of the workers meant and takes every job that they
// brought further back to where others vouch for: to where their first claim
// began, or to v1 if older claims are forgotten. It returns how many jobs wait
// again, and of which of them the row has to be told. It looks at every job of
// the table.
func (t *Table) RevokeAll(means func(worker string) bool) (waiting int, backs []Back) {
	for _, e := range t.entries {
		at := -1
		if e.past != nil {
			at = slices.IndexFunc(e.past.trail, func(c Claim) bool { return means(c.Worker + c.during) })
		}
		holds := e.holder != "" && means(e.holder)
		switch {
		case e.past != nil && slices.ContainsFunc(e.past.cut, means):
			backs = append(backs, t.back(e, 0, jobs.Progress{Done: 1, Value: e.v1}))
		case at >= 0:
			backs = append(backs, t.back(e, at, e.past.trail[at].Start))
		case holds && (e.durable > e.start.Done || e.progress.Done > e.start.Done):
			backs = append(backs, t.back(e, len(e.noted().trail), e.start))
		case holds:
			t.letGo(e)
			t.waits(e)
		default:
			continue
		}
		waiting++
	}
	return waiting, backs
}

// back takes a job back by this table's word.
func (t *Table) back(e *entry, trail int, to jobs.Progress) Back {
	b := Back{e.id, e.v1, e.iterations, to, e.restarts}
	e.restarts++
	t.takeBack(e, trail, to)
	return b
}

// takeBack makes a job wait at a place below what was reported of it. What
// workers said of its checkpoints beyond that is forgotten.
func (t *Table) takeBack(e *entry, trail int, to jobs.Progress) {
	p := e.noted()
	p.trail, p.beside, p.anew = p.trail[:trail], jobs.Progress{}, true
	if to.Done == 1 {
		p.cut = nil
	}
	if e.holder == "" {
		t.waiting.remove(e)
	} else {
		t.letGo(e)
	}
	e.start, e.durable = to, min(e.durable, to.Done)
	e.rungs = e.rungs.First(jobs.RungsBy(e.iterations, int(e.keep), to.Done) - e.rungsFrom)
	t.waits(e)
}
