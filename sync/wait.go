package sync

import (
	"container/heap"

	"workmanager/jobs"
)

// A write waits for the peer by the IDs of its rows. It is entered before the
// commit, since the peer may confirm before COMMIT returns, and when the writer
// moves a row to another number the wait goes with it: the peer's cursor would
// otherwise pass a place where the row no longer stands.

// Wait is the confirmation that one write waits for. Its methods are those of
// the engine that made it.
type Wait struct {
	items  []waiter
	left   int           // items not yet decided
	done   chan struct{} // closed when left is 0
	reason string        // why what is left is local; "" while it is waited for
}

// waiter is one row of a write.
type waiter struct {
	w     *Wait
	id    jobs.ID
	lseq  jobs.LSeq // 0: not stamped yet
	word  uint64    // not before the peer has said it
	at    int       // index in the heap, -1 outside
	both  bool
	ended bool
	next  *waiter // of the same row
}

// waiters is all that wait, by row and by number. Engine.mu guards it.
type waiters struct {
	byID map[jobs.ID]*waiter
	heap waiterHeap
}

// Expect enters rows that are about to be written. With the peer out of sync
// there is nothing to wait for: the Wait then only holds the reason.
func (e *Engine) Expect(ids []jobs.ID) *Wait {
	w := &Wait{}
	e.mu.Lock()
	defer e.mu.Unlock()
	if w.reason = e.reason(); w.reason != "" {
		return w
	}
	w.done, w.left, w.items = make(chan struct{}), len(ids), make([]waiter, len(ids))
	for i, id := range ids {
		it := &w.items[i]
		*it = waiter{w: w, id: id, at: -1, next: e.waiters.byID[id]}
		e.waiters.byID[id] = it
	}
	if len(ids) == 0 {
		close(w.done)
	}
	return w
}

// reason says why nothing is waited for; mu is held.
func (e *Engine) reason() string {
	if !e.paired() {
		return reasonNone
	}
	return e.state.reason()
}

// Stamped is told of the rows of a transaction before its commit.
func (e *Engine) Stamped(changed []jobs.Changed) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiters.byID) == 0 {
		return
	}
	for i := range changed {
		for it := e.waiters.byID[changed[i].Job.ID]; it != nil; it = it.next {
			if it.lseq > 0 && jobs.Broken("M4") {
				continue
			}
			e.waiters.move(it, changed[i].LSeq)
		}
	}
}

// Stands tells where the i-th row of a wait stands, if its write did not change
// it. It must be called before Await for each row that was there already.
func (e *Engine) Stands(w *Wait, i int, at jobs.LSeq) {
	if w.items == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	it := &w.items[i]
	if it.ended || it.lseq >= at {
		return
	}
	if jobs.Broken("M18") {
		e.waiters.end(it, true)
		return
	}
	e.waiters.move(it, at)
	it.word = e.nudge() // what it has asked may be late, and its disk another by now
}

// Drop takes the i-th row out of a wait: nothing was written.
func (e *Engine) Drop(w *Wait, i int) {
	if w.items == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiters.end(&w.items[i], false)
}

// Cancel ends a wait whose write failed.
func (e *Engine) Cancel(w *Wait) {
	if w.items == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range w.items {
		e.waiters.end(&w.items[i], false)
	}
}

// late notes that the patience for a wait is over.
func (e *Engine) late(w *Wait) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if w.left > 0 && w.reason == "" {
		e.count.timeouts++
		e.state.timeouts++
		if e.state.update(e.now(), e.head()) {
			e.leave()
		}
	}
}

// Confirmed reports, without waiting, whether a wait is decided, and whether
// the peer has confirmed all of it.
func (e *Engine) Confirmed(w *Wait) (both, decided bool) {
	if w.items == nil {
		return false, true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range w.items {
		if !w.items[i].both {
			return false, w.left == 0
		}
	}
	return true, true
}

// GiveUp is Await for one whose patience is over.
func (e *Engine) GiveUp(w *Wait, ack jobs.Ack) []jobs.Durability {
	if w.items != nil {
		e.late(w)
	}
	return e.settle(w, ack)
}

// settle takes a wait out and says what it came to.
func (e *Engine) settle(w *Wait, ack jobs.Ack) []jobs.Durability {
	if w.items == nil {
		return []jobs.Durability{{Reason: w.reason}}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	reason := w.reason
	switch {
	case reason != "":
	case ack == jobs.AckLocal:
		reason = reasonAsked
	default:
		reason = reasonTimeout
	}
	out := make([]jobs.Durability, len(w.items))
	for i := range w.items {
		it := &w.items[i]
		e.waiters.end(it, it.both)
		out[i] = jobs.Durability{Both: it.both}
		if !it.both {
			out[i].Reason = reason
			if reason == reasonTimeout && jobs.Broken("M15") {
				out[i].Reason = "" // an error
			}
		}
	}
	return out
}

// release confirms all rows that the peer's cursor covers; mu is held.
func (e *Engine) release(c jobs.Cursor) {
	ws := &e.waiters
	var later []*waiter // in the stretch of a refill that is not read yet
	for len(ws.heap) > 0 && ws.heap[0].lseq <= max(c.At, c.BackAt) {
		it := ws.heap[0]
		if c.Covers(it.lseq) && it.word <= e.heardOf {
			e.state.timeouts = 0
			ws.end(it, true)
			continue
		}
		heap.Pop(&ws.heap)
		later = append(later, it)
	}
	for _, it := range later {
		heap.Push(&ws.heap, it)
	}
}

// leave ends all waits as local: the session has left sync; mu is held.
func (e *Engine) leave() {
	reason := e.state.reason()
	for _, first := range e.waiters.byID {
		for it := first; it != nil; {
			next := it.next
			it.w.reason = reason
			e.waiters.end(it, false)
			it = next
		}
	}
}

// move puts a waiter at a number.
func (ws *waiters) move(it *waiter, at jobs.LSeq) {
	if it.ended {
		return
	}
	it.lseq = at
	if it.at < 0 {
		heap.Push(&ws.heap, it)
	} else {
		heap.Fix(&ws.heap, it.at)
	}
}

// end takes a waiter out. The last of a wait wakes it.
func (ws *waiters) end(it *waiter, both bool) {
	if it.ended {
		return
	}
	it.ended, it.both = true, both
	if it.at >= 0 {
		heap.Remove(&ws.heap, it.at)
	}
	if first := ws.byID[it.id]; first == it {
		if it.next == nil {
			delete(ws.byID, it.id)
		} else {
			ws.byID[it.id] = it.next
		}
	} else {
		for p := first; p != nil; p = p.next {
			if p.next == it {
				p.next = it.next
				break
			}
		}
	}
	if it.w.left--; it.w.left == 0 {
		close(it.w.done)
	}
}

// waiterHeap orders waiters by the number of their row.
type waiterHeap []*waiter

func (h waiterHeap) Len() int           { return len(h) }
func (h waiterHeap) Less(i, j int) bool { return h[i].lseq < h[j].lseq }
func (h waiterHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push and Pop are for container/heap.
func (h *waiterHeap) Push(x any) {
	it := x.(*waiter) //nolint:forcetypeassert // only move and release push
	it.at = len(*h)
	*h = append(*h, it)
}

func (h *waiterHeap) Pop() any {
	old := *h
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	it.at = -1
	return it
}
