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
	results map[string]*resultWait // closed at the next result of the owner, "" for anybody's
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

// result returns a channel that is closed when a result is committed, of one
// owner or, for "", of anybody, and a function that must be called when nobody
// waits for it any more.
func (w *watch) result(owner string) (<-chan struct{}, func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.results[owner]
	if r == nil {
		if w.results == nil {
			w.results = map[string]*resultWait{}
		}
		r = &resultWait{ch: make(chan struct{})}
		w.results[owner] = r
	}
	r.n++
	return r.ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if r.n--; r.n == 0 && w.results[owner] == r {
			delete(w.results, owner)
		}
	}
}

// resultWait is those who wait for a result, n of them.
type resultWait struct {
	ch chan struct{}
	n  int
}

// committed is told of every commit by the store's writer.
func (w *watch) committed(changed []jobs.Changed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.results) == 0 && len(w.ends) == 0 {
		return
	}
	for i := range changed {
		j := &changed[i].Job
		if !j.Ended() {
			continue
		}
		if j.Rank == jobs.Completed {
			w.tell("")
			if j.Owner != "" {
				w.tell(j.Owner)
			}
		}
		for _, ch := range w.ends[j.ID] {
			close(ch)
		}
		delete(w.ends, j.ID)
	}
}

// tell wakes those who wait for a result of the owner. mu is held.
func (w *watch) tell(owner string) {
	if r := w.results[owner]; r != nil {
		close(r.ch)
		delete(w.results, owner)
	}
}

// bell wakes all who wait for the next of something. The zero value is ready; it
// is safe for concurrent use.
type bell struct {
	mu sync.Mutex // guards ch
	ch chan struct{}
}

// wait returns a channel that is closed when it rings next.
func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

// ring never blocks.
func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
