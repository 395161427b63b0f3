package sim

import (
	"encoding/binary"
	"slices"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// enqueue is a client's batch: new jobs, and keys that came before.
func (w *world) enqueue(n *node) {
	if !n.up {
		return
	}
	count := 1
	if w.chance(0.1) {
		count = 2 + w.rng.IntN(3)
	}
	batch := make([]store.Submission, 0, count)
	ids := make([]jobs.ID, 0, count)
	for range count {
		j, wk := w.submission()
		if slices.Contains(ids, j.id) {
			continue
		}
		sub := store.Submission{Job: jobs.Job{ID: j.id, V1: wk.v1, Iterations: wk.iterations, Priority: uint8(w.rng.IntN(2))}}
		if wk.keeps() { // the same key may ask for more the second time
			sub.Job.Keep = uint16(w.step % 4)
		}
		if w.chance(0.05) {
			v := wk.value()
			sub.Known = &v
		}
		if sub.Known != nil || wk.iterations == 1 {
			j.ended = true
		}
		batch, ids = append(batch, sub), append(ids, j.id)
	}
	n.write("enqueue", ids, func() ([]jobs.Outcome, error) {
		n.enqueuing = true
		out, err := n.rows.Enqueue(ctx, batch)
		n.enqueuing = false
		for i := range out {
			j := w.job(ids[i])
			w.stats.Enqueued++
			switch {
			case out[i].Err != nil:
				w.stats.Conflicts++
			case out[i].Existed:
				w.stats.Repeated++
			default: // its client has made it anew, whatever became of it
				j.sent++
				j.remade = j.remade || j.gone[0] || j.gone[1]
				j.gone, j.both, j.erased = [2]bool{}, false, false
			}
		}
		return out, err
	})
}

// submission returns a job to send and the work to send it with.
func (w *world) submission() (*job, work) {
	if len(w.keyed) > 0 && w.chance(0.12) { // one of the last, or any
		k := w.rng.IntN(len(w.keyed))
		if w.chance(0.7) {
			k = max(len(w.keyed)-1-w.rng.IntN(6), 0)
		}
		j := w.keyed[k]
		if len(j.works) < 4 && w.chance(0.1) {
			j.works = append(j.works, w.work())
		}
		return j, j.works[w.rng.IntN(len(j.works))]
	}
	j := &job{i: len(w.jobs), keyed: w.chance(1.0 / 3), works: []work{w.work()}}
	j.id = jobs.ID{0: 1, 6: 0x70, 8: 0x80}
	if j.keyed {
		j.id[6] = 0x80
		w.keyed = append(w.keyed, j)
	}
	binary.BigEndian.PutUint32(j.id[1:], w.rng.Uint32())
	binary.BigEndian.PutUint32(j.id[12:], uint32(j.i+1<<20))
	w.jobs = append(w.jobs, j)
	for _, n := range w.nodes {
		n.shadow = append(n.shadow, place{})
	}
	for _, c := range w.clients {
		c.got = append(c.got, got{})
	}
	return j, j.works[0]
}

func (w *world) work() work {
	wk := work{iterations: uint64(2 + w.rng.IntN(100))}
	if w.chance(0.05) {
		wk.iterations = 1
	}
	binary.BigEndian.PutUint64(wk.v1[:], w.rng.Uint64()|1)
	return wk
}

// pick returns a job that is at a node, open if possible.
func (w *world) pick(n *node, open bool) *job {
	for range 8 {
		if len(w.jobs) == 0 {
			return nil
		}
		k := w.rng.IntN(len(w.jobs))
		if w.chance(0.6) {
			k = max(len(w.jobs)-1-w.rng.IntN(60), 0)
		}
		if p := &n.shadow[k]; p.there && (!open || !p.job.Ended()) {
			return w.jobs[k]
		}
	}
	return nil
}

// fact is what a worker reports, or a client withdraws, erases or consumes.
func (w *world) fact(n *node) {
	if !n.up {
		return
	}
	x := w.rng.IntN(100)
	j := w.pick(n, x < 80)
	if j == nil {
		return
	}
	var what string
	var apply func(jobs.Job, store.Clock) (jobs.Job, bool)
	switch {
	case x < 50, x >= 95:
		what, apply = "complete", func(j jobs.Job, at store.Clock) (jobs.Job, bool) {
			j.Attempts++
			j, changed := j.Complete(work{j.V1, j.Iterations}.value(), at())
			if changed && w.step%3 > 0 { // else the worker is of an older release
				j, _ = j.AddRungs(0, work{j.V1, j.Iterations}.rungs(0, int(j.Keep)))
			}
			return j, changed
		}
	case x < 57:
		what, apply = "fail", func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Fail("no", at()) }
	case x < 66:
		what, apply = "cancel", func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Cancel(at()) }
	case x < 74:
		what, apply = "checkpoint", func(j jobs.Job, _ store.Clock) (jobs.Job, bool) {
			done := j.Start().Done + 1 + uint64(w.step)%3
			j, changed := j.Advance(jobs.Progress{Done: done, Value: work{j.V1, done}.value()})
			if n := j.Rungs.Len(); changed {
				j, _ = j.AddRungs(n, work{j.V1, j.Iterations}.rungs(n, n+1))
			}
			return j, changed
		}
	case x < 80:
		what, apply = "lose", func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Lose(at()) }
	case x < 86:
		what, apply = "purge", func(j jobs.Job, at store.Clock) (jobs.Job, bool) { return j.Purge(at()) }
	default:
		what, apply = "consume", func(j jobs.Job, _ store.Clock) (jobs.Job, bool) {
			if j.Home != n.name {
				return j, false
			}
			return j.Pull()
		}
	}
	w.note(what, j.i)
	facts := []store.Fact{{ID: j.id, Apply: apply}}
	commit := func() ([]jobs.Outcome, error) {
		effects, err := n.rows.Record(ctx, facts)
		if err != nil {
			return nil, err
		}
		e := &effects[0]
		if !e.Found {
			w.violate("I1", j, "%v has lost it", n)
		}
		if e.Job.Ended() {
			j.ended = true
		}
		if e.Changed {
			switch what {
			case "purge":
				w.stats.Purged++
			case "consume":
				w.stats.Pulled++
			}
			if e.Job.Ended() {
				w.stats.Ended++
			}
		}
		return []jobs.Outcome{{Job: e.Job, LSeq: e.LSeq, Existed: !e.Changed}}, nil
	}
	switch what {
	case "cancel", "purge", "consume":
		n.write(what, []jobs.ID{j.id}, commit)
	default:
		if _, err := commit(); err != nil {
			w.violate(what, j, "%v: %v", n, err)
		}
	}
}
