package sim

import (
	"time"
)

func (w *world) crash(n *node) {
	if !n.up {
		return
	}
	w.stats.Faults[faultCrash]++
	w.note("crash", n.i)
	n.kill()
}

func (w *world) start(n *node) {
	if n.up {
		n = n.peer()
	}
	if n.up {
		return
	}
	w.note("start", n.i)
	n.start()
}

func (w *world) backup(n *node) {
	if !n.up {
		return
	}
	if n.backup != nil {
		n.backup.drop()
	}
	n.backup = n.on.copy()
}

// damage takes a node's disk, or puts an older one in its place. It waits until
// no job is on one disk alone that a client believes on both.
func (w *world) damage(n *node) {
	if !w.whole(n.peer()) {
		return
	}
	if n.up {
		n.kill()
	}
	n.on.drop()
	for i := range n.shadow { // what was still to be dropped there is dropped now
		if p := &n.shadow[i]; p.there && p.job.Ended() && p.job.Key().Before(n.peer().floor) {
			w.jobs[i].gone[n.i] = true
		}
	}
	n.last, n.floor = 0, time.Time{}
	n.damages++
	for _, c := range w.clients { // an older disk may not know what it has dropped
		c.missed = c.missed[:0]
	}
	n.damaged = true
	clear(n.shadow)
	if n.backup != nil && w.rng.IntN(2) == 0 {
		w.note("restored", n.i)
		w.stats.Faults[faultRestored]++
		n.on, n.backup = n.backup, nil
		n.start()
	} else {
		w.note("wiped", n.i)
		w.stats.Faults[faultWiped]++
		n.on = w.newMedium()
		n.start()
	}
	for i, j := range w.jobs {
		if j.both && !n.peer().shadow[i].there && !n.shadow[i].there && !j.gone[0] && !j.gone[1] {
			w.violate("I1", j, "was answered as both, and is gone with the disk of %v", n)
		}
	}
	if w.chance(0.5) {
		n.kill()
	}
}

func (w *world) slowDown(n *node) {
	n.slow = w.t + 100_000 + w.rng.Int64N(1_000_000)
	w.stats.Faults[faultSlow]++
}
