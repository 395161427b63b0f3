package node

import (
	"context"
	"fmt"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
	"workmanager/jobs/store"
)

// lowerPage is how many jobs of each lower priority wait in memory while more
// urgent ones fill the window.
const lowerPage = 16

// outlook tells the lease table what it cannot see: how many lanes compute for
// it, and what waits on the disk. q.mu is held; open is what is open here.
func (q *Queue) outlook(open jobs.Work) {
	lanes := 0
	for _, s := range q.workers {
		lanes += max(s.worker.Cores, 1) * hashchain.Lanes() // another machine's are about as many
	}
	var more jobs.Work
	if in := q.table.Remaining(); q.window.behind && (open.Hi > in.Hi || open.Hi == in.Hi && open.Lo > in.Lo) {
		more = open.Sub(in.Lo)
		more.Hi -= in.Hi
	}
	q.table.Expect(lanes, more)
}

// fillLower brings a few jobs of the lower priorities into the table, the
// oldest of each, when urgent ones keep the window full: without that their
// share of the work would be nobody's. Only the node's loop calls it.
func (q *Queue) fillLower(ctx context.Context) error {
	q.mu.Lock()
	top, waiting := q.table.WaitingBy()
	if !q.window.behind || top <= 0 {
		q.mu.Unlock()
		return nil
	}
	q.mu.Unlock()
	way := q.crossing.begin()
	defer way.end()

	var page []jobs.Job
	var err error
	for p := top - 1; p >= 0 && err == nil; p-- {
		if waiting[p] >= lowerPage/2 {
			continue
		}
		var some []jobs.Job
		some, _, err = q.store.Open(ctx, q.node, store.PlaceOf(p), lowerPage)
		for _, j := range some { // the page goes on with the priorities below
			waiting[j.Priority]++
		}
		page = append(page, some...)
	}

	q.lockToEnter()
	defer q.mu.Unlock()
	for i := range page {
		if w := q.crossing.of(page[i].ID); w == wordNone || w == wordBack {
			q.table.Add(page[i]) // nobody need be told: more urgent jobs wait too
		}
	}
	if err != nil {
		return fmt.Errorf("read jobs of lower priorities: %w", err)
	}
	return nil
}
