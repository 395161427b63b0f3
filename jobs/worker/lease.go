package worker

import (
	"context"
	"fmt"
	"time"

	"workmanager/jobs"
)

// maxHasty is how often in a row a Source may return nothing at once, as one
// does that lost a job to another worker, before it is no longer asked at once.
const maxHasty = 10

// leaseLoop takes leases whenever there is room for them. It returns when ctx
// is done, the worker has been idle for too long, or, with ErrCutOff, without
// an answer for too long.
func (w *worker) leaseLoop(ctx context.Context) error {
	retry := backoff{rand: w.leaseRand}
	hasty := 0 // calls in a row that brought nothing and did not wait
	for ctx.Err() == nil {
		capacity, room, idle := w.capacity(w.cfg.Now())
		if idle {
			w.log.Info("idle for too long")
			return nil
		}
		if w.cutOff() {
			w.log.Warn("cut off for too long", "timeout", w.cfg.CutoffTimeout)
			return ErrCutOff
		}
		if !room {
			w.pause(ctx, roomInterval)
			continue
		}
		asked := w.cfg.Now()
		leases, err := w.src.Lease(ctx, w.who(), capacity)
		// Also when ctx ended meanwhile: these are ours and must go back.
		w.add(leases)
		switch {
		case err == nil:
			w.heard(true)
			w.heed()
			if retry.worked() {
				w.log.Info("leasing works again")
			}
			if len(leases) > 0 || w.cfg.Now().Sub(asked) >= minRetry {
				hasty = 0
			} else if hasty++; hasty > maxHasty {
				sleep(ctx.Done(), minRetry)
			}
		case ctx.Err() == nil:
			w.heard(false)
			w.mu.Lock()
			w.unheard = true
			w.mu.Unlock()
			if retry.failed() {
				w.log.Warn("leasing failed, trying again", "err", err)
			}
			sleep(ctx.Done(), retry.next())
		}
	}
	return nil
}

// pause waits until there may be room for leases, at most d.
func (w *worker) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-w.room:
	case <-t.C:
	}
}

// capacity returns what to ask the Source for, whether to ask at all, and
// whether the worker has been idle for too long.
//
// A lane counts if it is free or will be within the time we lease ahead. What
// these lanes can do in that time is what we want to have waiting. A lane with
// a long chain counts for nothing, so a worker full of them takes no leases
// that others could have.
func (w *worker) capacity(now time.Time) (c jobs.Capacity, room, idle bool) {
	var lanes, chains int
	var soon, have float64
	for _, core := range w.cores {
		core.mu.Lock()
		lanes += core.lanes
		chains += core.load
		rate := core.rate
		if rate == 0 {
			rate = guessedRate
		}
		short := max(0, core.lanes-core.long)
		soon += rate * ahead.Seconds() * float64(short) / float64(core.lanes)
		have += float64(core.short)
		core.mu.Unlock()
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	have += w.work.Float()
	wait := leaseWait
	if left, ends := w.idleLeft(now.Sub(w.idleFrom)); ends && len(w.all) == 0 {
		if left <= 0 {
			return jobs.Capacity{}, false, true
		}
		wait = min(wait, left)
	}
	free := lanes - chains - len(w.ready)
	c = jobs.Capacity{
		Jobs:       min(maxLease, maxHeld-len(w.all)),
		Iterations: uint64(max(1, soon-have)),
		Wait:       wait,
	}
	// When the Source is back the leases that it has come first: else it might be
	// given its own jobs again, from where their home last knew them.
	told := !w.unheard || len(w.all) == 0
	w.enough = soon / 2
	room = c.Jobs > 0 && told && (free > 0 || w.few() && have < w.enough)
	return c, room, false
}

// few reports whether so few leases are ready that more may be wanted. w.mu is
// held.
func (w *worker) few() bool { return len(w.ready) < maxLease/2 }

// add takes leases in: it checks them, hands them to the cores and wakes as
// many idle ones as there are jobs.
func (w *worker) add(leases []jobs.Lease) {
	if len(leases) == 0 {
		return
	}
	var block []held // few enough that one long chain does not keep many others
	var bad []entry
	now := w.cfg.Now()
	w.mu.Lock()
	w.idleFrom = time.Time{}
	for i, l := range leases {
		if w.again(l) {
			continue
		}
		if len(block) == 0 {
			block = make([]held, min(64, len(leases)-i))
		}
		h := &block[0]
		block = block[1:]
		*h = held{lease: l, since: now, at: len(w.all), reached: l.Start, rungsFrom: jobs.RungsBy(l.Iterations, int(l.Keep), l.Start.Done)}
		h.nextRung()
		w.all, w.byJob[l.ID] = append(w.all, h), h
		if l.Start.Done < 1 || l.Start.Done > l.Iterations {
			// No value can be right from there, and a second try would begin
			// there as well.
			reason := fmt.Sprintf("lease starts at %d of %d iterations", l.Start.Done, l.Iterations)
			h.core, h.ended = w.cores[0], true
			bad = append(bad, entry{held: h, kind: jobs.ReportFailure, err: reason})
			continue
		}
		w.ready = append(w.ready, h)
		w.work = w.work.Add(h.remaining())
	}
	w.waiting.Store(int64(len(w.ready)))
	w.wake(len(leases))
	w.mu.Unlock()
	if len(bad) > 0 {
		w.cores[0].post(bad...)
	}
}

// again takes in a lease of a job that the worker has already, under one that
// has ended at the job's home: it goes on from where it is. It returns false if
// the new lease starts further on, and lets go of the old one. w.mu is held.
func (w *worker) again(l jobs.Lease) bool {
	h := w.byJob[l.ID]
	if h == nil || h.lease.V1 != l.V1 || h.lease.Iterations != l.Iterations {
		return false
	}
	if c := h.core; c != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
	}
	if l.Start.Done > h.reached.Done && !h.ended {
		return false
	}
	if l.Start.Done < h.lease.Start.Done { // where this one began is perhaps not trusted any more
		return false
	}
	h.lease.LeaseRef = l.LeaseRef // if it has ended, its last report is on its way
	return true
}

// wake wakes up to n idle cores. w.mu is held.
func (w *worker) wake(n int) {
	for _, c := range w.cores {
		if n == 0 {
			return
		}
		if c.idle {
			c.idle = false
			w.idling.Add(-1)
			tell(c.woken)
			n--
		}
	}
}

// Bounds of what a core takes at a time beyond its free lanes.
const (
	tinySteps  = 4096  // a job with at most these many iterations left is tiny
	groupSteps = 16384 // and so many of them in all: a few milliseconds
)

// take moves leases from ready to the core and appends them to to, which is
// empty: as many as the core has free lanes, and more if all of them are tiny,
// but no more than its share, so that jobs spread over the cores before lanes
// are filled. A core that has no load and finds none becomes idle: it will be
// woken.
func (w *worker) take(c *core, to []*held, free, load int) []*held {
	w.mu.Lock()
	defer w.mu.Unlock()
	total := load + len(w.ready)
	for _, other := range w.cores {
		if other != c {
			other.mu.Lock()
			total += other.load
			other.mu.Unlock()
		}
	}
	share := (total+len(w.cores)-1)/len(w.cores) - load

	taken, tiny, steps := 0, true, uint64(0)
	next := 0
	for next < len(w.ready) && taken < share {
		h := w.ready[next]
		if h.dropped {
			next++
			continue
		}
		left := h.remaining()
		if taken >= free && (!tiny || left > tinySteps || steps+left > groupSteps) {
			break
		}
		tiny, steps = tiny && left <= tinySteps, steps+left
		w.work = w.work.Sub(left)
		h.core = c
		to = append(to, h)
		taken++
		next++
	}
	w.ready = dequeue(w.ready, next)
	w.waiting.Store(int64(len(w.ready)))
	c.mu.Lock()
	for _, h := range to { // others must see it before they take theirs
		c.count(h.remaining())
	}
	c.mu.Unlock()
	if load+taken == 0 {
		c.idle = true
		if w.idling.Add(1) == int64(len(w.cores)) { // there is nothing to wait for
			tell(w.soon)
		}
	}
	if len(w.ready) == 0 || w.few() && w.work.Float() < w.enough {
		tell(w.room)
	}
	return to
}

// giveBack puts chains that a core has begun in front of ready and wakes the
// idle cores: better alone there than two to a core here.
func (w *worker) giveBack(hs []*held) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range hs {
		h.core = nil
		if !h.dropped {
			w.work = w.work.Add(h.remaining())
		}
	}
	w.ready = append(hs, w.ready...)
	w.waiting.Store(int64(len(w.ready)))
	w.wake(len(hs))
}

// handBackReady reports the leases that no core has taken as handed back. It
// is called when the cores have returned.
func (w *worker) handBackReady() {
	w.mu.Lock()
	var back []entry
	for _, h := range w.ready {
		if !h.dropped {
			h.core, h.ended = w.cores[0], true
			back = append(back, entry{held: h, kind: jobs.ReportHandBack, reached: h.reached, rungs: h.rungs, rungsFrom: h.rungsFrom})
		}
	}
	w.ready, w.work = nil, jobs.Work{}
	w.mu.Unlock()
	w.cores[0].post(back...)
}

// dequeue removes the first n of q, and lets go of them.
func dequeue(q []*held, n int) []*held {
	clear(q[:n])
	q = q[n:]
	if len(q) == 0 {
		return nil
	}
	return q
}
