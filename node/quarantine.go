package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
	peersync "workmanager/sync"
	"workmanager/web/api"
)

// A quarantine is the pair's: it is in the store of each node, so that it outlives
// a restart, and each tells the other within a second, or when they reach each
// other again. Only an operator lifts it. It means all processes of a worker's
// name, since the machine is at fault and a worker that is started again has
// another instance; the worker inside a node is another than one elsewhere that
// has the node's name.

const (
	// maxShown bounds the quarantined workers that status lists.
	maxShown = 100
	// maxNoted bounds the jobs that are to be noted as doubted, or no longer, while
	// the disk takes nothing.
	maxNoted = 16384
	// lastRound bounds how long an operator's order waits for the peer.
	lastRound = time.Second
)

var _ peersync.Quarantiner = (*Queue)(nil)

// distrusted is what must outlive a restart, and of it what the store does not
// have yet. auditor.mu guards it.
type distrusted struct {
	rows    map[jobs.Subject]jobs.Quarantine // merged; of workers that were let in again too
	list    []jobs.Quarantine                // the same, nil if it is to be made
	sum     jobs.QuarantineSum
	lifted  chan struct{}             // closed when some worker is let in again
	unsaved map[jobs.Subject]struct{} // of rows
	noted   map[jobs.ID]noted
}

// noted is what the store is to be told of a job.
type noted uint8

const (
	notedClear noted = iota
	notedSuspected
	notedDisputed
)

func (d *distrusted) init() {
	d.rows, d.unsaved, d.noted = map[jobs.Subject]jobs.Quarantine{}, map[jobs.Subject]struct{}{}, map[jobs.ID]noted{}
	d.lifted, d.list = make(chan struct{}), []jobs.Quarantine{}
	d.sum = jobs.SumQuarantines(nil)
}

// note has the store remember that a job is to be recomputed. mu is held.
func (a *auditor) note(d store.Doubt) {
	n := notedSuspected
	if d.Disputed {
		n = notedDisputed
	}
	if _, there := a.noted[d.ID]; !there && len(a.noted) >= maxNoted {
		a.skipped.Add(1)
		return
	}
	a.noted[d.ID] = max(a.noted[d.ID], n)
}

// clear has the store forget it. mu is held.
func (a *auditor) clear(id jobs.ID) {
	if _, there := a.noted[id]; there || len(a.noted) < maxNoted { // else it is looked at again after a restart
		a.noted[id] = notedClear
	}
}

// save commits what memory knows and the store does not. What cannot be written
// is written with the next.
func (a *auditor) save(ctx context.Context) error {
	a.saving.Lock()
	defer a.saving.Unlock()
	a.mu.Lock()
	unsaved, what := a.unsaved, a.noted
	var d store.Distrust
	if len(unsaved)+len(what) > 0 {
		a.unsaved, a.noted = map[jobs.Subject]struct{}{}, map[jobs.ID]noted{}
		for s := range unsaved {
			if q, kept := a.rows[s]; kept {
				d.Quarantines = append(d.Quarantines, q)
			}
		}
		for id, n := range what {
			if n == notedClear {
				d.Cleared = append(d.Cleared, id)
			} else {
				d.Doubts = append(d.Doubts, store.Doubt{ID: id, Disputed: n == notedDisputed})
			}
		}
	}
	a.mu.Unlock()
	err := a.q.store.Distrust(ctx, d)
	if err == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.Copy(a.unsaved, unsaved)
	for id, n := range what {
		if _, since := a.noted[id]; !since {
			a.noted[id] = n
		}
	}
	return fmt.Errorf("note what is distrusted: %w", err)
}

// restore takes in what the last start left. Call it before anything is served.
func (a *auditor) restore(ctx context.Context) error {
	rows, err := a.q.store.Quarantines(ctx)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, q := range rows {
		a.rows[q.Subject], a.list = q, nil
		if q.Barred && q.Subject == (jobs.Subject{Worker: a.q.node, Inside: true}) {
			a.q.log.Error("this node's own worker is quarantined and computes nothing: see to this machine, then 'workmanager quarantine lift'", "worker", q.Worker, "reason", q.Reason, "since", q.Since)
		}
	}
	a.more = true
	a.tell()
	return nil
}

// load takes jobs to recompute from the store, those that are not here already.
func (a *auditor) load(ctx context.Context) error {
	if err := a.save(ctx); err != nil {
		return err
	}
	page, err := a.q.store.Doubts(ctx, maxDisputes)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range slices.Backward(page) { // of those that are not disputed the last is taken first
		if _, since := a.noted[d.ID]; since || a.known[d.ID] != nil {
			continue
		}
		c := &check{why: suspected, id: d.ID}
		if d.Disputed {
			c.why = disputed
			a.disputes = append(a.disputes, c)
		} else {
			a.suspects = append(a.suspects, c)
		}
		a.known[d.ID] = c
	}
	a.more = len(page) == maxDisputes
	return nil
}

// isBarred returns nil if a worker may have leases, and else the channel that is
// closed when some quarantine is lifted.
func (a *auditor) isBarred(w jobs.Worker) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rows[jobs.SubjectOf(w.Key())].Barred {
		return a.lifted
	}
	return nil
}

// quarantine lets a worker have nothing more: its leases end, what it brought
// further goes back to where others vouch for, and its last results are
// recomputed. change says why.
func (a *auditor) quarantine(key string, change jobs.Quarantine) {
	s := jobs.SubjectOf(key)
	a.mu.Lock()
	if a.rows[s].Barred {
		a.mu.Unlock()
		return
	}
	change.Subject, change.Barred, change.Node, change.Since = s, true, a.q.node, a.q.now()
	q := a.rows[s].Next(change)
	a.mu.Unlock()
	_, back := a.enter(q)
	a.q.log.Error("worker quarantined: it gets no more leases from either node until an operator lifts it", "worker", s.Worker, "inside", s.Inside, "reason", q.Reason, "job", q.ID, "jobs", back)
}

// enter merges rows with what is here and acts on what that changes. It returns
// those that changed, and how many jobs wait again.
func (a *auditor) enter(rows ...jobs.Quarantine) (changed []jobs.Quarantine, back int) {
	var barred []jobs.Subject
	a.mu.Lock()
	for _, q := range rows {
		was := a.rows[q.Subject]
		now := jobs.MergeQuarantines(was, q)
		if now == was {
			continue
		}
		a.rows[q.Subject], a.list = now, nil
		changed = append(changed, now)
		switch {
		case now.Barred && !was.Barred:
			barred = append(barred, q.Subject)
		case was.Barred && !now.Barred: // what was known of it does not count, and its first reports are checked again
			maps.DeleteFunc(a.workers, func(key string, _ *record) bool { return jobs.SubjectOf(key) == q.Subject })
			close(a.lifted)
			a.lifted = make(chan struct{})
		}
	}
	for len(a.rows) > jobs.MaxQuarantines {
		var first jobs.Quarantine
		for _, q := range a.rows {
			if first.Turn == 0 || first.Outlasts(q) > 0 {
				first = q
			}
		}
		delete(a.rows, first.Subject)
	}
	a.mu.Unlock()
	if len(barred) > 0 {
		back = a.revoke(barred)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, q := range changed { // with what is doubted for it, in one commit
		a.unsaved[q.Subject] = struct{}{}
	}
	return changed, back
}

// revoke ends the leases of workers and has recomputed what they did. It returns
// how many jobs wait again.
func (a *auditor) revoke(barred []jobs.Subject) int {
	a.q.mu.Lock()
	defer a.q.mu.Unlock()
	means := func(key string) bool { return slices.Contains(barred, jobs.SubjectOf(key)) }
	back, backs := a.q.table.RevokeAll(means)
	for _, b := range backs {
		a.q.backs = append(a.q.backs, takeBack{Back: b})
	}
	for key := range a.q.workers {
		if means(key) {
			delete(a.q.workers, key)
			a.q.table.Gone(key)
		}
	}
	a.q.available(back)
	a.mu.Lock()
	defer a.mu.Unlock()
	for key := range a.workers {
		if means(key) {
			a.doubtAll(key)
		}
	}
	return back
}

// Quarantines returns the rows and their sum. See sync.Quarantiner.
func (q *Queue) Quarantines() ([]jobs.Quarantine, jobs.QuarantineSum) {
	a := q.audit
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.list == nil {
		a.list = slices.AppendSeq(make([]jobs.Quarantine, 0, len(a.rows)), maps.Values(a.rows))
		slices.SortFunc(a.list, func(a, b jobs.Quarantine) int { return a.Subject.Compare(b.Subject) })
		a.sum = jobs.SumQuarantines(a.list)
	}
	return a.list, a.sum
}

// TakeQuarantines merges rows of the peer. They count at once, and are on the
// disk when it has returned. See sync.Quarantiner.
func (q *Queue) TakeQuarantines(ctx context.Context, rows []jobs.Quarantine) error {
	changed, back := q.audit.enter(rows...)
	for _, c := range changed {
		if c.Barred {
			q.log.Warn("worker quarantined by the peer: it gets no more leases here", "worker", c.Worker, "inside", c.Inside, "by", c.By, "at", c.Node, "reason", c.Reason, "jobs", back)
		} else {
			q.log.Info("quarantine lifted at the peer", "worker", c.Worker, "inside", c.Inside, "by", c.By, "at", c.Node)
		}
	}
	return q.audit.save(ctx)
}

// QuarantineList returns every row, quarantined workers first, and whether the
// peer holds the same. See web.Quarantine.
func (q *Queue) QuarantineList(ctx context.Context) (api.QuarantineList, error) {
	rows, _ := q.Quarantines()
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b jobs.Quarantine) int {
		switch {
		case a.Barred != b.Barred && a.Barred:
			return -1
		case a.Barred != b.Barred:
			return 1
		}
		return b.Since.Compare(a.Since)
	})
	out := api.QuarantineList{Quarantines: make([]api.Quarantine, 0, len(rows)), Replicated: true}
	for _, r := range rows {
		out.Quarantines = append(out.Quarantines, quarantineStatus(r))
	}
	if q.pair.Paired() {
		ctx, cancel := context.WithTimeout(ctx, lastRound)
		defer cancel()
		same, err := q.pair.ShareQuarantines(ctx)
		out.Replicated = same && err == nil
	}
	return out, nil
}

// OrderQuarantine imposes a quarantine or lifts it: on every worker of that name
// elsewhere, and on the one inside the node of that name. See web.Quarantine.
func (q *Queue) OrderQuarantine(ctx context.Context, do, worker, by, reason string) error {
	if err := jobs.CheckWorker("query", worker); err != nil {
		return err
	}
	a := q.audit
	barred := do == api.QuarantineAdd
	subjects := []jobs.Subject{{Worker: worker}}
	if !barred || worker == q.node || worker == q.pair.Peer().Node {
		subjects = append(subjects, jobs.Subject{Worker: worker, Inside: true})
	}
	if reason == "" {
		reason = "ordered by an operator"
	}
	var rows []jobs.Quarantine
	a.mu.Lock()
	for _, s := range subjects {
		if was := a.rows[s]; was.Barred != barred {
			rows = append(rows, was.Next(jobs.Quarantine{Subject: s, Barred: barred, Since: q.now(), Node: q.node, By: by, Reason: reason}))
		}
	}
	a.mu.Unlock()
	switch {
	case len(rows) == 0 && barred:
		return nil // it is, and why stays
	case len(rows) == 0:
		return jobs.Errorf(jobs.CodeNotFound, "worker %s is not quarantined", worker)
	}
	if err := q.store.Distrust(ctx, store.Distrust{Quarantines: rows}); err != nil { // before it counts: an error leaves all as it was
		return err
	}
	_, back := a.enter(rows...)
	if barred {
		q.log.Warn("worker quarantined by an operator: it gets no more leases from either node", "worker", worker, "by", by, "reason", reason, "jobs", back)
	} else {
		q.log.Warn("quarantine lifted by an operator: the worker gets leases again, and its first reports are checked", "worker", worker, "by", by, "reason", reason)
	}
	return nil
}

func quarantineStatus(q jobs.Quarantine) api.Quarantine {
	s := api.Quarantine{
		Worker: q.Worker, Inside: q.Inside, State: api.StateQuarantined, Reason: q.Reason, At: q.Since.UTC(), Node: q.Node, By: q.By,
		Done: q.Done, Said: q.Said.String(), Right: q.Right.String(),
	}
	if !q.Barred {
		s.State = api.StateLifted
	}
	if q.ID != (jobs.ID{}) {
		s.ID = q.ID.String()
	}
	return s
}

// status is what the operator is shown.
func (a *auditor) status() api.AuditStatus {
	rows, _ := a.q.Quarantines()
	a.mu.Lock()
	defer a.mu.Unlock()
	st := api.AuditStatus{
		Rate: a.rate, Checked: a.checked.Load(), Wrong: a.wrong.Load(), Settled: a.settled.Load(), Skipped: a.skipped.Load(),
		Disputed: len(a.disputes), Doubted: len(a.suspects), Samples: len(a.samples), Running: a.running.Load(),
		Quarantined: []api.Quarantine{}, Alarms: []api.Alarm{},
	}
	for _, q := range rows {
		if q.Barred {
			st.Quarantined = append(st.Quarantined, quarantineStatus(q))
		}
	}
	slices.SortStableFunc(st.Quarantined, func(a, b api.Quarantine) int { return b.At.Compare(a.At) })
	st.Quarantined = st.Quarantined[:min(len(st.Quarantined), maxShown)]
	for _, b := range slices.Backward(a.alarms) {
		st.Alarms = append(st.Alarms, api.Alarm{ID: b.job.String(), What: b.what, At: b.at.UTC()})
	}
	return st
}
