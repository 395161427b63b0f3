package web

import (
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// How many bytes of replies wait for a client that does not take them: first
// in memory, then in a file without a name, and then the batch waits too.
const (
	spoolMemory = 1 << 20
	spoolFile   = 1 << 30
	spoolFiles  = 4 << 30 // of all batches
)

// spool is a queue of bytes between who makes replies and who sends them. It
// has one reader and one writer.
type spool struct {
	dir string
	rc  *http.ResponseController
	all *atomic.Int64 // bytes in the files of all batches

	mu     sync.Mutex // guards what follows
	change sync.Cond
	mem    []byte // the oldest bytes
	head   int    // of mem, taken already
	file   *os.File
	broken bool  // no file can be had, or it took no more
	r, w   int64 // of the file, what is taken and what is put
	ended  bool  // nothing more will be put
	full   bool  // put waits for the client
	due    bool  // the client has sent all, so it can read
	closed bool  // nothing more will be taken
}

func newSpool(dir string, rc *http.ResponseController, all *atomic.Int64) *spool {
	q := &spool{dir: dir, rc: rc, all: all}
	q.change.L = &q.mu
	return q
}

// put adds p. It waits when the client is far behind, and returns false when
// nobody will take it any more.
func (q *spool) put(p []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(p) > 0 && !q.closed {
		// Bytes go to memory only while none are in the file, to stay in order.
		if q.w == q.r && len(q.mem)-q.head < spoolMemory {
			n := min(len(p), spoolMemory-(len(q.mem)-q.head))
			if q.head > 0 && len(q.mem)+n > cap(q.mem) {
				q.mem = q.mem[:copy(q.mem, q.mem[q.head:])]
				q.head = 0
			}
			q.mem = append(q.mem, p[:n]...)
			p = p[n:]
			q.change.Broadcast()
			continue
		}
		if n := q.spill(p); n > 0 {
			p = p[n:]
			continue
		}
		if !q.full {
			q.full = true
			q.limitWrite()
		}
		q.change.Wait()
	}
	q.full = false
	return !q.closed
}

// spill puts what fits of p into the file and returns how much.
func (q *spool) spill(p []byte) int {
	if q.broken || q.w+int64(len(p)) > spoolFile {
		return 0
	}
	if q.all.Add(int64(len(p))) > spoolFiles {
		q.all.Add(int64(-len(p)))
		return 0
	}
	n := 0
	defer func() { q.all.Add(int64(n - len(p))) }() // what was not written
	if q.file == nil {
		f, err := os.CreateTemp(q.dir, "replies-*")
		if err != nil {
			q.broken = true
			return 0
		}
		if err := os.Remove(f.Name()); err != nil {
			_ = f.Close() // the removal's error is the one that counts
			q.broken = true
			return 0
		}
		q.file = f
	}
	var err error
	n, err = q.file.WriteAt(p, q.w)
	q.w += int64(n)
	if err != nil {
		q.broken = true // until it has been emptied
	}
	return n
}

// take moves the oldest bytes into p. It waits for some; more tells whether
// others follow at once. It returns 0 at the end.
func (q *spool) take(p []byte) (n int, more bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.mem) == q.head && q.r == q.w && !q.ended && !q.closed {
		q.change.Wait()
	}
	if q.closed {
		return 0, false, io.ErrClosedPipe
	}
	if q.head < len(q.mem) {
		n = copy(p, q.mem[q.head:])
		if q.head += n; q.head == len(q.mem) {
			q.mem, q.head = q.mem[:0], 0
		}
	} else if q.r < q.w {
		n, err = q.file.ReadAt(p[:min(int64(len(p)), q.w-q.r)], q.r)
		if err == io.EOF && n > 0 {
			err = nil
		}
		if q.r += int64(n); q.r == q.w {
			q.all.Add(-q.w)
			q.r, q.w, q.broken = 0, 0, false
			_ = q.file.Truncate(0) // only to give the room back early
		}
	}
	q.change.Broadcast()
	return n, q.head < len(q.mem) || q.r < q.w, err
}

// A simple client reads replies only after it has sent everything. So a write
// to the client may stand still while the body still comes in; once the body
// is at its end, or no room is left, it may not.

// bodyEnded says that the client has sent all it will.
func (q *spool) bodyEnded() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.due = true
	q.limitWrite()
}

// beforeWrite sets the deadline of the next write to the client.
func (q *spool) beforeWrite() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.due || q.full {
		q.limitWrite()
	} else {
		_ = q.rc.SetWriteDeadline(time.Time{}) // not supported in tests without a connection
	}
}

func (q *spool) limitWrite() {
	_ = q.rc.SetWriteDeadline(time.Now().Add(replyTimeout)) // not supported in tests without a connection
}

// end says that nothing more will be put.
func (q *spool) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.change.Broadcast()
}

// close says that nothing more will be taken, and frees the file.
func (q *spool) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	if q.file != nil {
		_ = q.file.Close() // it has no name, and nobody reads it again
		q.file = nil
		q.all.Add(-q.w)
		q.r, q.w = 0, 0
	}
	q.change.Broadcast()
}
