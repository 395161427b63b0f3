package node

import (
	"sync"

	"workmanager/jobs"
)

// watch wakes those who wait for a job to end or for a new result. It is safe
// for concurrent use; committed never blocks.
type watch struct {
	mu      sync.Mutex // guards the rest
	ends    map[jobs.ID][]chan struct{}
	results chan struct{} // closed at the next result, nil if nobody waits
}

// end returns a channel that is closed when the job ends, and a function that
// must be called when nobody waits for it any more.
func (w *watch) end(id jobs.ID) (<-chan struct{}, func()) {
	ch := make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ends == nil {
		w.ends = map[jobs.ID][]chan struct{}{}
	}
	w.ends[id] = append(w.ends[id], ch)
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for i, c := range w.ends[id] {
			if c == ch {
				w.ends[id] = append(w.ends[id][:i], w.ends[id][i+1:]...)
				break
			}
		}
		if len(w.ends[id]) == 0 {
			delete(w.ends, id)
		}
	}
}

// result returns a channel that is closed when a result is committed.
func (w *watch) result() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.results == nil {
		w.results = make(chan struct{})
	}
	return w.results
}

// committed is told of every commit by the store's writer.
func (w *watch) committed(changed []jobs.Changed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.results == nil && len(w.ends) == 0 {
		return
	}
	for i := range changed {
		j := &changed[i].Job
		if !j.Ended() {
			continue
		}
		if w.results != nil && j.Rank == jobs.Completed {
			close(w.results)
			w.results = nil
		}
		for _, ch := range w.ends[j.ID] {
			close(ch)
		}
		delete(w.ends, j.ID)
	}
}
