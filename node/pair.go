package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"workmanager/jobs"
	peersync "workmanager/sync"
)

const (
	// stealLeast is the iterations below which moving a job to an idle peer
	// costs more than computing it, where there is somebody to compute it.
	stealLeast = 1000
	// stealAfter is the time that all of the peer's work must take for an idle
	// node to ask for one of a few jobs: below, the peer has soon begun them.
	stealAfter = 10 * time.Second
	// stealWait is for how long that must be so: a worker may be about to take them.
	stealWait = 2 * time.Second
	// shareInterval is how often a busy node takes some of a dead peer's jobs.
	shareInterval = 500 * time.Millisecond
	// consumePage bounds the results that the peer is asked for at once.
	consumePage = 1000
)

// The queue's half of the pair. What it asks of the engine it asks as it goes;
// the engine tells it of rows that came, and asks it what the peer wants to know.
var _ peersync.Host = (*Queue)(nil)

// Load says how busy this node is. See sync.Host.
func (q *Queue) Load() peersync.Load {
	mine, f := q.store.CountsOf(q.node), q.meter.pacing()
	q.mu.Lock()
	defer q.mu.Unlock()
	l := peersync.Load{
		Leased: int64(q.table.Leased()), Remaining: mine.Remaining, Fleet: q.fleet.shared(),
		Rate: int64(f.Iterations), Done: int64(f.Completed * 1000), Arriving: int64(f.Arriving * 1000), Incoming: int64(min(f.Incoming, 1<<62)),
	}
	l.Waiting = max(mine.Open-l.Leased, 0)
	for key, s := range q.workers {
		cores := int64(max(s.worker.Cores, 1))
		l.Workers += cores
		if drains, _ := q.drains(&s.worker); drains {
			continue
		}
		l.FreeLanes += max(cores-int64(q.table.LeasesOf(key)), 0)
	}
	return l
}

// Arriving is told before rows of the peer are committed. See sync.Host.
func (q *Queue) Arriving() func() { return q.crossing.begin().end }

// Arrived takes in what came from the peer: jobs that are ours now, and the end
// of jobs that we hold. See sync.Host.
func (q *Queue) Arrived(changed []jobs.Changed) {
	q.lockToEnter()
	defer q.mu.Unlock()
	added := 0
	for i := range changed {
		j := &changed[i].Job
		switch {
		case j.Ended():
			if j.Rank == jobs.Completed {
				q.cache.put(*j)
			}
			if j.Purged {
				q.cache.clear()
			}
			q.ended(j)
		case j.Home == q.node:
			if !q.mayEnter(j) {
				continue
			}
			other := q.table.Has(j.ID) && !q.table.Knows(*j) // one key came with other data: it is other work now
			if other {
				q.table.Remove(j.ID)
			}
			switch {
			case q.table.Has(j.ID):
				if q.enter(*j) {
					added++
				}
			case !other && !q.window.takes(int(j.Priority), q.table.Waiting()) && !q.table.Decides(*j):
				q.window.leaveOld(int(j.Priority))
			case q.table.Add(*j):
				added++
			}
		case q.table.Has(j.ID): // taken over by the peer, or given to it
			if worker, done, of := q.table.Holder(j.ID); worker == "" || done < of/2 || !q.table.Knows(*j) {
				q.left(j.ID) // the peer computes it; of what is half done one run more is the lesser waste
			} else if is := q.crossing.of(j.ID); is == wordNone || is == wordGone {
				q.table.LetGo(j.ID)
			}
		}
	}
	q.available(added)
}

// Find returns a job as this node sees it. See sync.Host.
func (q *Queue) Find(ctx context.Context, id jobs.ID) (jobs.View, bool, error) {
	row, found, err := q.store.Row(ctx, id)
	if err != nil || !found {
		return jobs.View{}, false, err
	}
	return q.views([]jobs.Row{row})[0], true, nil
}

// GiveAway moves jobs that wait here to the peer, which has nobody else to
// feed. See sync.Host.
func (q *Queue) GiveAway(ctx context.Context, to string, most int) ([]jobs.ID, error) {
	q.mu.Lock()
	least := uint64(0)
	if len(q.workers) > 0 {
		least = stealLeast
		most = min(most, (q.table.Waiting()+1)/2)
	}
	way := q.crossing.beginOf(most)
	defer way.end()
	ids := q.table.Spare(most, least)
	q.crossing.spare(ids)
	q.mu.Unlock()
	if len(ids) == 0 {
		return nil, nil
	}
	moved, err := q.store.GiveAway(ctx, ids, to)
	if len(moved) < len(ids) {
		q.takeBack(context.WithoutCancel(ctx), ids, moved)
	}
	if err != nil {
		return nil, fmt.Errorf("give jobs to node %s: %w", to, err)
	}
	return moved, nil
}

// takeBack returns to the table the jobs that were not given away.
func (q *Queue) takeBack(ctx context.Context, ids, moved []jobs.ID) {
	gone := make(map[jobs.ID]bool, len(moved))
	for _, id := range moved {
		gone[id] = true
	}
	for _, id := range ids {
		if gone[id] {
			continue
		}
		q.crossing.unspare(id)
		j, found, err := q.store.Job(ctx, id)
		q.lockToEnter()
		switch {
		case err != nil:
			q.window.leaveOld(jobs.MaxPriority) // it is found on the disk later
		case found && !j.Ended() && j.Home == q.node && q.mayEnter(&j) && q.table.Add(j):
			q.available(1)
		}
		q.mu.Unlock()
	}
}

// takeOver makes jobs of a dead peer ours, as many as the worker can hold, and
// returns them. While somebody else is at it, on a disk that may hang, it waits
// its turn until by, or not at all if that is zero; then it returns none. Of its
// own commit, once the store has it, it awaits the outcome all the same: the jobs
// are ours by that, and have to enter the table.
func (q *Queue) takeOver(ctx context.Context, c jobs.Capacity, by time.Time) ([]jobs.ID, error) {
	from := q.pair.MayTakeOver()
	if from == "" || q.store.CountsOf(from).Open == 0 {
		return nil, nil
	}
	if !by.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, by)
		defer cancel()
	}
	if !q.turn(ctx, !by.IsZero()) {
		return nil, nil
	}
	defer func() { <-q.taking }()
	for {
		ids, more, err := q.takeSome(ctx, from, c)
		if over := ctx.Err(); over != nil && errors.Is(err, over) { // the disk did not take it in time
			return nil, nil
		}
		if len(ids) > 0 || !more || err != nil {
			return ids, err
		}
	}
}

// turn enters the one place of those who take over, and reports whether it did.
func (q *Queue) turn(ctx context.Context, waits bool) bool {
	select {
	case q.taking <- struct{}{}:
		return true
	default:
	}
	if !waits {
		return false
	}
	select {
	case q.taking <- struct{}{}:
		return true
	case <-ctx.Done():
	case <-q.stopping:
	}
	return false
}

// takeSome returns those that entered the table, and whether it took others, that
// have ended meanwhile.
func (q *Queue) takeSome(ctx context.Context, from string, c jobs.Capacity) (ids []jobs.ID, more bool, err error) {
	way := q.crossing.beginOf(max(c.Jobs, 1))
	defer way.end()
	some, err := q.store.TakeOver(ctx, from, c)
	if err != nil {
		return nil, false, fmt.Errorf("take over jobs of node %s: %w", from, err)
	}
	q.lockToEnter()
	defer q.mu.Unlock()
	more = len(some) > 0
	for i := range some {
		if q.mayEnter(&some[i]) {
			if q.enter(some[i]) {
				ids = append(ids, some[i].ID)
			}
		} else if q.crossing.of(some[i].ID) == wordLost { // the disk has it, and no more need follow
			more = false
		}
	}
	if len(ids) > 1 { // more than who asks may take
		q.available(len(ids))
	}
	q.takenOver.Add(int64(len(some)))
	return ids, more, nil
}

// hungry reports whether a worker waits and nothing is here for it; mu is held.
func (q *Queue) hungry() bool {
	return q.waiters > 0 && q.table.Waiting() == 0 && !q.window.behind
}

// shareWithDead takes over a few jobs of a dead peer although there is work
// here: else they would wait until there is none.
func (q *Queue) shareWithDead(ctx context.Context, cores int) error {
	now := q.now()
	if cores == 0 || now.Before(q.shareAt) {
		return nil
	}
	q.shareAt = now.Add(shareInterval)
	q.mu.Lock()
	q.shared = slices.DeleteFunc(q.shared, func(id jobs.ID) bool { return !q.table.Waits(id) })
	room := 4*cores - len(q.shared)
	q.mu.Unlock()
	if room <= 0 {
		return nil
	}
	taken, err := q.takeOver(ctx, jobs.Capacity{Jobs: room, Iterations: math.MaxUint64}, time.Time{})
	q.shared = append(q.shared, taken...)
	if len(taken) > 0 {
		q.mu.Lock()
		q.available(len(taken))
		q.mu.Unlock()
	}
	return err
}

// feedIdle finds work for workers that wait: it wakes them when a dead peer has
// jobs, or steals from a living one.
func (q *Queue) feedIdle(ctx context.Context) error {
	q.mu.Lock()
	if may := q.pair.MayLease(); may && q.barred {
		q.barred = false
		q.available(1)
	}
	hungry, barred, cores := q.hungry(), q.barred, 0
	for _, s := range q.workers {
		cores += max(s.worker.Cores, 1)
	}
	q.mu.Unlock()
	if barred {
		return nil
	}
	if !hungry {
		q.fewSince = time.Time{}
		return q.shareWithDead(ctx, cores)
	}
	if from := q.pair.MayTakeOver(); from != "" {
		if q.store.CountsOf(from).Open > 0 {
			q.mu.Lock()
			q.available(1)
			q.mu.Unlock()
		}
		return nil
	}
	p := q.pair.Peer()
	if p.Session == peersync.SessionDown || !p.LoadFresh || !q.worthAsking(&p.Load) {
		return nil
	}
	if now := q.now(); now.Before(q.stealAt) {
		return nil
	} else {
		q.stealAt = now.Add(stepInterval)
	}
	n, err := q.pair.Steal(ctx, int(max(p.Load.Waiting/2, 1)))
	if errors.Is(err, peersync.ErrNoPeer) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("steal jobs: %w", err)
	}
	if n == 0 { // nothing worth it
		q.stealAt = q.now().Add(10 * stepInterval)
	}
	return nil
}

// worthAsking reports whether a peer has jobs to spare for this node, which has
// none: more than its workers begin soon, or some that have waited for a while
// and that nobody there is free for. Only the node's loop calls it.
func (q *Queue) worthAsking(l *peersync.Load) bool {
	few := l.Waiting > 0 && l.FreeLanes == 0 && l.Remaining.Float() > float64(l.Rate)*stealAfter.Seconds()
	if !few {
		q.fewSince = time.Time{}
	} else if q.fewSince.IsZero() {
		q.fewSince = q.now()
	}
	return l.Waiting > 2*l.Workers || few && q.now().Sub(q.fewSince) >= stealWait
}

// Consume hands out results, each once: those of this home first, and of the
// peer's where there are not enough. A key gets the same again at either node.
// See web.Queue.
func (q *Queue) Consume(ctx context.Context, top int, key string) ([]jobs.Result, jobs.Durability, error) {
	var out []jobs.Result
	asked := false
	if key != "" {
		known, err := q.store.PullKnown(ctx, jobs.ViewOf(ctx), key)
		if err != nil {
			return nil, jobs.Durability{}, err
		}
		if !known && q.pair.Connected() { // the first call may have come to the peer
			if out, err = q.consumeThere(ctx, top, key, true); err != nil {
				return nil, jobs.Durability{}, err
			}
			asked = len(out) > 0
		}
	}
	if len(out) < top {
		here, err := q.consumeHere(ctx, top-len(out), key)
		if err != nil && len(out) == 0 {
			return nil, jobs.Durability{}, err
		}
		out = append(out, here...)
	}
	if len(out) < top && !asked {
		there, err := q.consumeThere(ctx, top-len(out), key, false)
		if err != nil && len(out) == 0 {
			return nil, jobs.Durability{}, err
		}
		out = append(out, there...)
	}
	return out, q.pulledBoth(ctx, out), nil
}

// consumeHere hands out results of this home, and of a dead peer's.
func (q *Queue) consumeHere(ctx context.Context, top int, key string) ([]jobs.Result, error) {
	if from := q.pair.MayTakeOver(); from != "" {
		return q.store.Consume(ctx, jobs.ViewOf(ctx), top, key, from)
	}
	return q.store.Consume(ctx, jobs.ViewOf(ctx), top, key)
}

// ConsumeHere hands out results of this home to the peer's clients. See sync.Host.
func (q *Queue) ConsumeHere(ctx context.Context, top int, key string, again bool) ([]jobs.Result, error) {
	if again {
		known, err := q.store.PullKnown(ctx, jobs.ViewOf(ctx), key)
		if err != nil || !known {
			return nil, err
		}
	}
	return q.store.Consume(ctx, jobs.ViewOf(ctx), top, key)
}

// consumeThere asks the peer for results of its home. A peer that cannot be
// asked has none.
func (q *Queue) consumeThere(ctx context.Context, top int, key string, again bool) ([]jobs.Result, error) {
	var out []jobs.Result
	for len(out) < top && q.pair.Connected() {
		want := min(top-len(out), consumePage)
		if key != "" {
			want = top // one call: what the key gets is one list
		}
		page, err := q.pair.Consume(ctx, want, key, again)
		if errors.Is(err, peersync.ErrNoPeer) {
			break
		}
		if err != nil {
			return out, err
		}
		out = append(out, page...)
		if key != "" || len(page) < want {
			break
		}
	}
	return out[:min(len(out), top)], nil
}

// pulledBoth waits until both nodes know what was handed out: of this node's
// marks the peer confirms that, and the peer's must have come here.
func (q *Queue) pulledBoth(ctx context.Context, out []jobs.Result) jobs.Durability {
	ids := make([]jobs.ID, len(out))
	for i := range out {
		ids[i] = out[i].ID
	}
	w := q.pair.Expect(ids)
	deadline := time.Now().Add(peersync.AckTimeout)
	late := jobs.Durability{Both: true}
	for i, id := range ids {
		row, marked := q.marked(ctx, id, deadline)
		if !marked {
			q.pair.Drop(w, i)
			late = jobs.Durability{Reason: "peer_timeout: what the peer handed out is not here yet"}
			continue
		}
		q.pair.Stands(w, i, row.LSeq)
	}
	for i, d := range q.pair.Await(ctx, w, jobs.AckDefault) {
		if !d.Both && late.Both && (len(ids) == 0 || i < len(ids)) {
			return d
		}
	}
	return late
}

// marked returns the row of a result once it is marked here as pulled.
func (q *Queue) marked(ctx context.Context, id jobs.ID, deadline time.Time) (jobs.Row, bool) {
	for {
		row, found, err := q.store.Row(ctx, id)
		if err == nil && found && row.Job.Pulled {
			return row, true
		}
		t := time.NewTimer(2 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil || err != nil || !time.Now().Before(deadline) {
			return jobs.Row{}, false
		}
	}
}

// refuseBoth answers ack=both before anything is written.
func (q *Queue) refuseBoth(ack jobs.Ack) error {
	if ack != jobs.AckBoth {
		return nil
	}
	if why := q.pair.Unsynced(); why != "" {
		return jobs.Errorf(jobs.CodeUnavailable, "ack=both cannot be kept: %s; nothing was written, leave ack out to accept one disk", why).Retry(time.Second)
	}
	return nil
}

// confirm waits for the peer and enters into each outcome what was reached.
// With ack=both an outcome that is not on both disks gets an error: it is
// written here all the same.
func (q *Queue) confirm(ctx context.Context, w *peersync.Wait, out []jobs.Outcome, ack jobs.Ack) {
	for i := range out {
		switch o := &out[i]; {
		case o.Err != nil:
			q.pair.Drop(w, i)
		default:
			q.pair.Stands(w, i, o.LSeq)
		}
	}
	got := q.pair.Await(ctx, w, ack)
	for i := range out {
		o := &out[i]
		o.Durability = got[min(i, len(got)-1)]
		if ack == jobs.AckBoth && o.Err == nil && !o.Durability.Both {
			e := jobs.Errorf(jobs.CodeUnavailable, "ack=both was not reached in time: %s; it IS written on this node and will follow on the other. Try again with the same Idempotency-Key", o.Durability.Reason).Retry(time.Second)
			e.Written = true
			o.Err = e
		}
	}
}
