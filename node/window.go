package node

import (
	"context"
	"fmt"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

const (
	// maxWindow bounds the jobs that wait in memory, about 300 bytes each; the
	// others wait on the disk and follow in pages. The more urgent a job, the
	// more room it has, up to double for the most urgent.
	maxWindow  = 32768
	windowPage = 4096
	// missedAfter is how long an open job may be known to nobody.
	missedAfter = time.Minute
	// noPriority is below every priority.
	noPriority = -1
)

// window is what the queue knows of the open jobs that are not in its table:
// whether any wait on the disk, and where. The table holds the first of them,
// in the order in which they are leased; the rest is read behind place, page by
// page. Queue.mu guards it.
type window struct {
	size, page int // jobs that wait in memory, and those of one read

	place  store.Place // the end of what was read
	behind bool        // open jobs may wait on the disk: behind place, or above it
	above  int         // the highest priority left to the disk above place, noPriority if none
	missed uint64      // counts jobs left to the disk
	left   int         // the highest priority left while a page is read

	missing time.Time // since when more are open than there are here, zero if they are not
	proved  bool      // once since then they were more than could be entering
}

// newWindow returns a window that knows nothing: all may wait on the disk.
func newWindow(size, page int) window {
	return window{size: size, page: page, behind: true, above: noPriority, left: noPriority}
}

// takes reports whether a new job enters the table at once: there is room, and
// none of its priority or above waits on the disk, where it would be older.
func (w *window) takes(priority, waiting int) bool {
	if waiting >= w.size+w.size*priority/jobs.MaxPriority {
		return false
	}
	return !w.behind || priority > max(w.place.Priority(), w.above)
}

// leave notes that an open job waits on the disk.
func (w *window) leave(priority int) {
	w.behind = true
	w.missed++
	w.left = max(w.left, priority)
	if priority > w.place.Priority() {
		w.above = max(w.above, priority)
	}
}

// leaveOld is leave for a job that did not come in just now: it may be older
// than what was read, and then nothing but reading from the top finds it.
func (w *window) leaveOld(priority int) {
	w.leave(priority)
	w.above = max(w.above, priority)
}

// next says where to read on: at the top, if a job was left above place.
func (w *window) next() store.Place {
	if w.above > noPriority {
		w.place, w.above = store.Place{}, noPriority
	}
	return w.place
}

// read notes that a page was read up to end. A job that was left meanwhile,
// above the priority at which the page ends, is not in it.
func (w *window) read(end store.Place) {
	w.place = end
	if w.left > end.Priority() {
		w.above = max(w.above, w.left)
	}
}

// lookForMissed looks whether open jobs are in neither the table nor the window, where
// nobody would ever lease them. There is no way to that which is known; this is
// for one that is not. Jobs that are entering seem to be missed for a moment, and
// where they always come, at every look: if it was so for as long as missedAfter
// all are read again, which costs little, and it is said only if once more were
// open than are here and could be entering. q.mu is held, so none enters meanwhile.
func (q *Queue) lookForMissed(now time.Time) {
	w := &q.window
	open := q.store.CountsOf(q.node).Open // first: what enters since has a passage on its way
	entering, known := q.crossing.entering()
	in := int64(q.table.Waiting() + q.table.Leased())
	if w.behind || open <= in {
		w.missing, w.proved = time.Time{}, false
		return
	}
	w.proved = w.proved || known && open > in+int64(entering)
	switch {
	case w.missing.IsZero():
		w.missing = now
	case now.Sub(w.missing) >= missedAfter:
		if w.proved {
			q.log.Warn("open jobs are missing from the lease table, all are read again", "open", open, "known", in, "entering", entering)
		} else {
			q.log.Debug("open jobs may be missing from the lease table, all are read again", "open", open, "known", in, "entering", entering)
		}
		w.missing, w.proved = time.Time{}, false
		w.leaveOld(jobs.MaxPriority)
		q.wantPage()
	}
}

// fillWindow reads pages of waiting jobs until the window is full or nothing
// is left on the disk. While jobs come in faster than the end can be told from
// the middle it closes the gap: new ones enter at once, until all that was
// there before them is read. Some jobs are met twice, none is missed. Only the
// node's loop calls it.
func (q *Queue) fillWindow(ctx context.Context) error {
	w, closing := &q.window, false
	for {
		q.mu.Lock()
		if full := q.table.Waiting() >= w.size; full || !w.behind && !closing {
			w.behind = w.behind || closing // full in the middle: the rest still waits
			q.mu.Unlock()
			return nil
		}
		w.behind = !closing
		w.left = noPriority
		place, missed := w.next(), w.missed
		q.mu.Unlock()

		way := q.crossing.begin()
		page, end, err := q.store.Open(ctx, q.node, place, w.page)

		q.lockToEnter()
		if err != nil {
			w.behind = true
			q.mu.Unlock()
			way.end()
			return fmt.Errorf("read waiting jobs: %w", err)
		}
		added, lost := 0, false
		for i := range page {
			switch q.crossing.of(page[i].ID) {
			case wordLost:
				lost = true
			case wordNone, wordBack:
				if q.table.Add(page[i]) {
					added++
				}
			}
		}
		way.end()
		if lost { // the page is read again, later
			w.behind = true
			q.available(added)
			q.mu.Unlock()
			return nil
		}
		w.read(end)
		if len(page) < w.page { // the end of the disk, but for what was left meanwhile
			closing = missed != w.missed || w.above > noPriority
			w.behind = false
		}
		q.available(added)
		q.mu.Unlock()
	}
}
