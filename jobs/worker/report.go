package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"workmanager/jobs"
)

// Reports close behind one another are gathered: a call and its commit cost as
// much as many of the jobs they carry.
const (
	// gather is how long what ends after a report waits for more, unless there
	// is nothing left to compute. A job that ends by itself waits for nothing.
	gather = 25 * time.Millisecond
	// gatherMost ends the wait.
	gatherMost = 512
	// gatherLong and gatherFull are the same while more than gatherMost leases wait
	// for a core: who enqueued so many does not wait for each.
	gatherLong = 100 * time.Millisecond
	gatherFull = 2048
)

// gathers returns how long reports wait for more, and how many end the wait.
func (w *worker) gathers() (time.Duration, int) {
	if w.waiting.Load() > gatherMost {
		return gatherLong, gatherFull
	}
	return gather, gatherMost
}

// reportLoop reports what has ended, and every held lease at each heartbeat. It
// returns when the cores have ended and all is reported, or when drain is done.
// Calls made before the cores have ended are bounded by calls, the others by
// drain.
func (w *worker) reportLoop(calls, drain context.Context) {
	beat := time.NewTicker(w.cfg.HeartbeatInterval)
	defer beat.Stop()
	retry := backoff{rand: w.reportRand}

	hold := time.NewTimer(gather)
	defer hold.Stop()
	gathering := false // less than gather ago there was a report

	var ended, beats, batch []entry // ended is bounded by maxHeld, as all leases are
	ctx, due, draining := calls, false, false
	sieve := sieve{most: maxReport}
	for {
		select {
		case <-w.computed:
			ctx, draining = drain, true
			due, beats = false, nil // all leases have a last report now
		case <-beat.C:
			due = !draining
		default:
		}
		if draining && drain.Err() != nil {
			w.log.Warn("leases not handed back in time, they expire at their home", "count", len(ended))
			return
		}
		ended = w.collect(ended)
		if due {
			beats, due = w.heartbeat(beats[:0]), false
		}
		if len(ended) == 0 && len(beats) == 0 {
			if draining {
				return
			}
			select {
			case <-w.news:
			case <-beat.C:
				due = true
			case <-w.computed:
			}
			continue
		}
		if _, most := w.gathers(); gathering && len(beats) == 0 && !draining && len(ended) < most {
			select {
			case <-hold.C:
				gathering = false
			case <-w.soon:
				gathering = false
			case <-beat.C:
				due = true
			case <-w.computed:
			}
			continue
		}

		// Renewals go first: behind a long backlog they would come too late.
		room := maxReportRungs
		n := within(beats, sieve.most, &room)
		m := within(ended, sieve.most-n, &room)
		batch = append(append(batch[:0], beats[:n]...), ended[:m]...)
		most := reportTimeout
		if draining {
			most = drainTimeout / 2 // a second try is in it
		}
		if err := w.report(ctx, batch, most); err != nil {
			if ctx.Err() == nil && retry.failed() {
				w.log.Warn("reporting failed, trying again", "err", err)
			}
			switch sieve.refused(err, len(batch)) {
			case halved: // the same ones, or there would be no end to it
				continue
			case behind: // what comes after it has its turn first
				if n > 0 {
					beats = beats[1:]
				} else {
					ended = append(ended[1:], ended[0])
				}
			case dropped:
				w.refused(batch[0], err)
				if n == 0 {
					ended = ended[1:]
				}
				beats = beats[n:]
				continue
			default:
				// Fresh progress next time, the values as they are.
				due, beats = len(beats) > 0, beats[:0]
			}
			if draining {
				sleep(drain.Done(), retry.next())
			} else {
				sleep(w.computed, retry.next())
			}
			continue
		}
		sieve.worked()
		if retry.worked() {
			w.log.Info("reporting works again")
		}
		wait, _ := w.gathers()
		hold.Reset(wait)
		gathering = true
		beats = beats[n:]
		rest := copy(ended, ended[m:])
		clear(ended[rest:])
		ended = ended[:rest]
	}
}

// sieve finds the report for which a Source refuses a batch, as one of another
// release may: what is refused would be refused again, and all that is reported
// with it too. A batch that is refused is halved until one report is refused
// alone. It is dropped if another was taken since the last one that was, and goes
// behind the others if not: where all is refused it is not the reports that are
// wrong.
type sieve struct {
	most  int  // reports of the next call
	taken bool // some were, since one was dropped
}

// remedy is what is to be done with a batch that a Source has not taken.
type remedy int

const (
	again   remedy = iota // it may be taken the next time
	halved                // half of it, at once
	behind                // the one of it is reported after the others
	dropped               // the one of it is not reported again
)

// refused returns the remedy for a batch of n.
func (s *sieve) refused(err error, n int) remedy {
	switch jobs.CodeOf(err) {
	case jobs.CodeInvalid, jobs.CodeMalformed, jobs.CodeTooLarge:
	default:
		return again
	}
	switch {
	case n > 1:
		s.most = n / 2
		return halved
	case s.taken:
		s.taken = false
		return dropped
	}
	return behind
}

// worked notes that a batch was taken.
func (s *sieve) worked() { s.most, s.taken = min(maxReport, 2*s.most), true }

// refused forgets a lease of which a report was refused by itself: it ends at its
// home.
func (w *worker) refused(e entry, err error) {
	w.log.Error("a report is refused and not made again, its lease ends at its home", "job", e.held.lease.ID, "iterations", e.held.lease.Iterations, "err", err)
	w.mu.Lock()
	if e.kind == jobs.ReportProgress {
		w.drop(e.held)
	} else {
		w.remove(e.held)
	}
	if len(w.all) == 0 && w.idleFrom.IsZero() {
		w.idleFrom = w.cfg.Now()
	}
	w.mu.Unlock()
	tell(w.room)
}

// within returns how many of the entries, up to most, have room for what they
// keep: the one that uses it up is the last.
func within(entries []entry, most int, room *int) int {
	n := 0
	for n < min(most, len(entries)) && *room > 0 {
		*room -= entries[n].rungs.Len()
		n++
	}
	return n
}

// collect appends to ended what the cores have posted.
func (w *worker) collect(ended []entry) []entry {
	for _, c := range w.cores {
		c.mu.Lock()
		ended = append(ended, c.out...)
		clear(c.out)
		c.out = c.out[:0]
		c.mu.Unlock()
	}
	return ended
}

// heartbeat appends to beats the progress of every lease that has not ended,
// but of those that are younger than a heartbeat and whose work is small or not
// begun: of tiny jobs that is nearly all.
func (w *worker) heartbeat(beats []entry) []entry {
	now := w.cfg.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.all {
		c := h.core
		if now.Sub(h.since) < w.cfg.HeartbeatInterval && (c == nil || h.lease.Iterations-h.lease.Start.Done <= smallSteps) {
			continue
		}
		if c != nil {
			c.mu.Lock()
		}
		if !h.ended {
			beats = append(beats, entry{
				held: h, kind: jobs.ReportProgress, reached: h.reached, rate: h.rate, rungs: h.rungs.From(h.told), rungsFrom: h.rungsFrom + h.told,
			})
		}
		if c != nil {
			c.mu.Unlock()
		}
	}
	return beats
}

// report makes one call, of no more than most, and acts on the verdicts. After an error nothing has
// changed, and all of batch may be reported again.
func (w *worker) report(ctx context.Context, batch []entry, most time.Duration) error {
	reports := make([]jobs.Report, len(batch))
	w.mu.Lock()
	for i, e := range batch {
		reports[i] = jobs.Report{LeaseRef: e.held.lease.LeaseRef, V1: e.held.lease.V1, Iterations: e.held.lease.Iterations, Kind: e.kind, Progress: e.reached, Rate: e.rate, Err: e.err, RungsFrom: e.rungsFrom, Rungs: e.rungs, Ticket: e.held.lease.Ticket}
	}
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	verdicts, err := w.src.Report(ctx, w.who(), reports)
	if err != nil {
		w.heard(false)
		return err
	}
	if len(verdicts) != len(reports) {
		return fmt.Errorf("report %d leases: %d verdicts came back", len(reports), len(verdicts))
	}

	now := w.cfg.Now()
	w.mu.Lock()
	w.answered, w.failing, w.unheard = now, false, false
	for i, e := range batch {
		if e.kind != jobs.ReportProgress {
			w.remove(e.held)
		} else if verdicts[i] != jobs.Kept && e.held.lease.LeaseRef == reports[i].LeaseRef {
			w.drop(e.held)
		} else {
			e.held.told = e.rungsFrom - e.held.rungsFrom + e.rungs.Len()
		}
	}
	if len(w.all) == 0 && w.idleFrom.IsZero() {
		w.idleFrom = now
	}
	w.mu.Unlock()
	w.heed()
	tell(w.room)
	return nil
}

// remove forgets a lease. It may be forgotten already. w.mu is held.
func (w *worker) remove(h *held) {
	if h.at < 0 {
		return
	}
	if w.byJob[h.lease.ID] == h {
		delete(w.byJob, h.lease.ID)
	}
	last := len(w.all) - 1
	w.all[h.at] = w.all[last]
	w.all[h.at].at = h.at
	w.all[last] = nil
	w.all = w.all[:last]
	h.at = -1
}

// drop forgets a lease and stops its chain. If the chain has just ended, its
// value is reported all the same. w.mu is held.
func (w *worker) drop(h *held) {
	w.remove(h)
	if h.dropped {
		return
	}
	h.dropped = true
	if h.core == nil {
		w.work = w.work.Sub(h.remaining()) // it stands in ready, where take skips it
		return
	}
	h.core.mu.Lock()
	defer h.core.mu.Unlock()
	if !h.ended {
		h.core.stop = append(h.core.stop, h)
		h.core.told.Store(true)
	}
}

// backoff spaces tries: 50 ms, doubling to 1 s, each cut by up to a half.
type backoff struct {
	rand *rand.Rand
	n    int // failures in a row
}

const minRetry, maxRetry = 50 * time.Millisecond, time.Second

// failed notes a failure and reports whether it is the first in a row.
func (b *backoff) failed() bool {
	b.n++
	return b.n == 1
}

// worked notes a success and reports whether there were failures before it.
func (b *backoff) worked() bool {
	was := b.n
	b.n = 0
	return was > 0
}

// next returns how long to wait before the next try.
func (b *backoff) next() time.Duration {
	d := min(maxRetry, minRetry<<min(max(0, b.n-1), 10))
	return d - time.Duration(b.rand.Int64N(int64(d/2)))
}

// sleep waits for d, or until done is closed.
func sleep(done <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}
