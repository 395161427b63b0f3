package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// aheadMost is how far the jobs ahead of one are counted on the disk.
const aheadMost = 10_000

// Explain says why a job is where it is, and what it waits for, by name. See
// web.Insight.
func (s *status) Explain(ctx context.Context, id jobs.ID) (api.Explanation, error) {
	v, err := s.queue.job(ctx, id)
	if err != nil {
		return api.Explanation{}, err
	}
	st, err := s.Status(ctx)
	if err != nil {
		return api.Explanation{}, err
	}
	e := api.Explanation{ID: id.String(), State: string(v.State()), Reasons: []string{}}
	if v.Ended() {
		explainEnd(&e, v)
		return e, nil
	}
	if v.ResumedFrom > 0 {
		because(&e, "It began behind iteration %s, which another job over the same data had reached.", commas(int64(v.ResumedFrom)))
	}
	if v.Leased {
		explainLease(&e, v)
		return e, nil
	}
	if jobs.OwnerOf(ctx) != "" { // a client, which is told totals
		st.Fleet, st.Forecast = plainly(st.Fleet), st.Plain
		for i := range st.Audit.Quarantined {
			st.Audit.Quarantined[i] = api.Quarantine{}
		}
	}
	w, err := s.waits(ctx, v)
	if err != nil {
		return api.Explanation{}, err
	}
	explainWait(&e, v, &st, w)
	return e, nil
}

// because adds a reason.
func because(e *api.Explanation, format string, args ...any) {
	e.Reasons = append(e.Reasons, fmt.Sprintf(format, args...))
}

// explainEnd explains a job that has ended.
func explainEnd(e *api.Explanation, v jobs.View) {
	took := v.DoneAt.Sub(v.CreatedAt)
	switch v.Rank {
	case jobs.Failed:
		e.Text = "It failed: " + strings.TrimSuffix(v.Err, ".") + "."
		because(e, "It had %s. Submit it again to try it again: its input was not kept.", plural(int64(v.Attempts), "attempt"))
	case jobs.Cancelled:
		e.Text = fmt.Sprintf("Its owner withdrew it %s after it came in.", age(took))
	default:
		e.Text = fmt.Sprintf("It was completed %s after it came in.", lasted(took))
		switch {
		case v.Iterations == 1:
			because(e, "One iteration is computed as the data comes in: no worker is needed.")
		case v.Attempts == 0:
			because(e, "No worker was needed: the node knew the value of the same work.")
		case v.Attempts > 1:
			because(e, "It had %s: a worker was lost or gave it back, and the next went on from its last checkpoint.", plural(int64(v.Attempts), "attempt"))
		}
		if v.Verified {
			because(e, "Its value was recomputed by a node, because it had been doubted.")
		}
	}
	if v.Purged {
		because(e, "Its value and its checkpoints were erased by its owner.")
	}
}

// lasted is a time that may be shorter than a second.
func lasted(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", max(d.Milliseconds(), 0))
	}
	return age(d)
}

// explainLease explains a job that is being computed.
func explainLease(e *api.Explanation, v jobs.View) {
	e.Text = fmt.Sprintf("Worker %s computes it, %d %% done.", v.Worker, 100*(v.Done/1024)/max(v.Iterations/1024, 1))
	if v.Iterations < 1<<20 {
		e.Text = fmt.Sprintf("Worker %s computes it, %d %% done.", v.Worker, 100*v.Done/v.Iterations)
	}
	if eta := v.ETA(); eta > 0 {
		because(e, "About %s to go at %s iterations/s. It is one chain: more workers do not shorten it.", about(eta.Seconds()), short(v.Rate))
	} else {
		because(e, "The worker has not reported yet how fast it gets on.")
	}
	explainPast(e, v)
}

// explainPast tells what happened to an open job before.
func explainPast(e *api.Explanation, v jobs.View) {
	tries := v.Attempts
	if v.Leased && tries > 0 {
		tries--
	}
	if tries > 0 {
		because(e, "%s before: a worker was lost, failed at it or gave it back.", plural(int64(tries), "attempt"))
	}
	if v.Lost > 0 {
		because(e, "%s lost at it without progress between; at %d it fails.", plural(int64(v.Lost), "worker"), jobs.MaxLost)
	}
	if c := v.Checkpoint.Done; c > 0 && !v.Leased {
		because(e, "Its next worker goes on behind iteration %s.", commas(int64(c)))
	}
}

// waiting is where a job waits.
type waiting struct {
	here    bool // this node is its home
	barred  bool // this node leases nothing yet
	ahead   int
	work    float64 // iterations of those ahead, where known
	atLeast bool
	gone    bool // its home is dead, and its jobs may be taken
}

// waits finds the place of an open job that is not leased.
func (s *status) waits(ctx context.Context, v jobs.View) (waiting, error) {
	w := waiting{here: v.Home == s.cfg.Name, gone: s.queue.pair.MayTakeOver() == v.Home}
	s.queue.mu.Lock()
	w.barred = s.queue.barred
	ahead, work, known := s.queue.table.Place(v.ID)
	s.queue.mu.Unlock()
	if known {
		w.ahead, w.work = ahead, work.Float()
		return w, nil
	}
	n, err := s.store.Ahead(ctx, v.Job, aheadMost)
	if err != nil {
		return w, err
	}
	w.ahead, w.atLeast = n, n >= aheadMost
	return w, nil
}

// explainWait explains a job that waits: what is in its way, the worst first,
// and then its place.
func explainWait(e *api.Explanation, v jobs.View, st *api.Status, w waiting) {
	f := &st.Fleet
	switch {
	case w.barred && w.here:
		e.Text = "It waits because this node leases nothing yet: it has not read all of its peer's jobs since its start."
	case !w.here && w.gone:
		e.Text = fmt.Sprintf("It waits at node %s, which does not answer: this node takes it over as soon as one of its workers is free.", v.Home)
	case !w.here && st.Peer.Session == "down":
		e.Text = fmt.Sprintf("It waits at node %s, which does not answer.", v.Home)
	case st.Workers == 0 && booting(st) > 0:
		e.Text = fmt.Sprintf("It waits for a worker: %s starting%s.", plural(int64(booting(st)), "instance"), readyIn(st))
	case st.Workers == 0:
		e.Text = "It waits because no worker is connected."
		because(e, "%s", noWorker(st))
	case w.ahead == 0:
		e.Text = "It is next: it waits for a worker to come free."
	case w.atLeast:
		e.Text = fmt.Sprintf("It waits its turn: at least %s are ahead of it.", plural(int64(w.ahead), "job"))
	default:
		e.Text = fmt.Sprintf("It waits its turn: %s ahead of it.", isAre(w.ahead))
	}
	n := int64(w.ahead)
	e.Position, e.AtLeast = &n, w.atLeast
	if st.Workers > 0 && w.work > 0 && st.Forecast.RateIterations > 0 {
		e.WaitSeconds = w.work / st.Forecast.RateIterations
		because(e, "Those ahead have %s iterations to go, about %s at %s/s.", short(w.work), about(e.WaitSeconds), short(st.Forecast.RateIterations))
	}
	if st.Workers > 0 {
		because(e, "%s connected. Higher priorities go first; within one (this job's is %d) short jobs go before long ones, and none is passed for ever.", plural(int64(st.Workers), "worker"), v.Priority)
	}
	if f.Paused != "" && st.Workers > 0 {
		because(e, "%s", pausedReason(f))
	} else if f.Max > 0 && f.Have >= f.Max && f.Want > f.Have {
		because(e, "The fleet is at its maximum of %d and wants %d.", f.Max, f.Want)
	}
	for _, q := range st.Audit.Quarantined[:min(len(st.Audit.Quarantined), 3)] {
		if q.Worker == "" {
			because(e, "Quarantined, and given nothing: %s.", plural(int64(len(st.Audit.Quarantined)), "worker"))
			break
		}
		because(e, "Worker %s is quarantined and gets nothing: %s.", q.Worker, q.Reason)
	}
	explainPast(e, v)
}

func isAre(n int) string {
	if n == 1 {
		return "1 job is"
	}
	return plural(int64(n), "job") + " are"
}
