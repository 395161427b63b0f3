package lease

import "workmanager/jobs"

// Place says where a job waits: how many jobs go before it if none comes in
// meanwhile, and the iterations that those have. It reports false if the job
// does not wait in this table. A chain that decides when all is done goes
// before its turn, and the lower priorities have their share, so the place is a
// good guess and no promise. It looks at each job that waits.
func (t *Table) Place(id jobs.ID) (ahead int, work jobs.Work, waits bool) {
	e := t.entries[id]
	if e == nil || e.holder != "" {
		return 0, jobs.Work{}, false
	}
	turn := e.turn()
	for p := range t.waiting.lines {
		l := &t.waiting.lines[p]
		switch {
		case p > int(e.priority):
			ahead += len(l.turns)
			work = work.Plus(l.work)
		case p == int(e.priority):
			for _, s := range l.turns {
				if s.turn < turn {
					ahead++
					work = work.Add(s.e.need())
				}
			}
		}
	}
	return ahead, work, true
}

// Longest returns the most iterations that one job of the table has to go: one
// chain is serial, so nothing is done before it. rate is what a leased job does
// a second, on the average of those that have said so, 0 if none has. It looks
// at each lease.
func (t *Table) Longest() (left uint64, rate float64) {
	for i := range t.waiting.lines {
		if l := t.waiting.lines[i].longs; len(l) > 0 {
			left = max(left, l[0].need())
		}
	}
	n, sum := 0, 0.0
	for _, held := range t.holders {
		for _, e := range held {
			if done := max(e.progress.Done, e.start.Done); done < e.iterations {
				left = max(left, e.iterations-done)
			}
			if e.rate > 0 {
				n++
				sum += e.rate
			}
		}
	}
	if n > 0 {
		rate = sum / float64(n)
	}
	return left, rate
}
