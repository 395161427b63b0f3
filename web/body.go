package web

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"workmanager/jobs"
)

// What a body may cost in time and memory.
const (
	// BodyIdle is how long a body may stand still. One that comes so slowly
	// that it falls this far behind BodyRate ends as well, so a client that
	// drips bytes cannot hold a connection for ever.
	BodyIdle = 30 * time.Second
	// BodyRate is the least mean rate of a body, in bytes a second.
	BodyRate = 1 << 10

	// deadlineStep is how fine the deadline follows the bytes.
	deadlineStep = time.Second

	smallBody = 4 << 10  // a body up to this is read through a small buffer
	largeRead = 64 << 10 // a larger one through one of this size
	// maxLargeBodies bounds the large buffers in use: 256 MiB of them.
	maxLargeBodies = 4096
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBody]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeRead]byte) }}
)

// buffer is memory to read a body through.
type buffer struct {
	s     *Server
	small *[smallBody]byte
	large *[largeRead]byte
}

// buffer returns memory that fits what is known of the length of r's body.
func (s *Server) buffer(r *http.Request) (buffer, error) {
	if r.ContentLength >= 0 && r.ContentLength <= smallBody {
		return buffer{s: s, small: smallBuffers.Get().(*[smallBody]byte)}, nil
	}
	if s.largeBodies.Add(1) > maxLargeBodies {
		s.largeBodies.Add(-1)
		return buffer{}, jobs.Errorf(jobs.CodeBusy, "%d large bodies are coming in already", maxLargeBodies).Retry(busyRetry)
	}
	return buffer{s: s, large: largeBuffers.Get().(*[largeRead]byte)}, nil
}

func (b buffer) bytes() []byte {
	if b.small != nil {
		return b.small[:]
	}
	return b.large[:]
}

func (b buffer) release() {
	if b.small != nil {
		smallBuffers.Put(b.small)
		return
	}
	b.s.largeBodies.Add(-1)
	largeBuffers.Put(b.large)
}

// body reads a request's body under its limit and its deadlines. Every error
// it returns but io.EOF is an *Error for the caller, and stays.
type body struct {
	s    *Server
	r    io.Reader
	rc   *http.ResponseController
	want int64         // Content-Length, -1 if not known
	max  int64         // more bytes than this are refused
	idle time.Duration // the longest time without a byte
	rate int64         // the least mean rate, 0 for none
	// lined: what counts against idle is whole lines, told by moved, not bytes.
	lined bool
	pays  *admission      // whose bytes these are; nil: nobody's
	gone  <-chan struct{} // closed when the client has gone

	n       int64
	started time.Time
	set     time.Time     // when the deadline was set last
	waited  time.Duration // for bytes since a line ended or began, with lined
	undo    func() bool
	mu      sync.Mutex // guards what follows, and setting the deadline
	done    bool       // the connection is no longer ours
	cut     bool       // reading is to end now
	err     error
}

// newBody returns the body of r, of at most max bytes. A Content-Length over
// max is refused before anything is read.
func (s *Server) newBody(w http.ResponseWriter, r *http.Request, max int64) (*body, error) {
	b := &body{s: s, r: r.Body, rc: controller(w), want: r.ContentLength, max: max, idle: BodyIdle, rate: BodyRate, pays: admissionOf(r.Context()), gone: r.Context().Done()}
	if b.want > max {
		return nil, b.tooLarge()
	}
	if b.want < 0 || b.want > smallBody {
		b.undo = context.AfterFunc(s.ending, b.interrupt)
	}
	return b, nil
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	now := time.Now()
	b.arm(now)
	n, err := b.r.Read(p)
	b.n += int64(n)
	if b.lined {
		b.waited += time.Since(now)
	}
	if wait := b.pays.took(n); wait > 0 && err == nil && b.n <= b.max {
		b.pause(wait)
	}
	switch {
	case b.n > b.max:
		b.err = b.tooLarge()
		return 0, b.err
	case err == io.EOF:
		b.err = io.EOF
		b.close()
		if n > 0 {
			return n, nil
		}
		return 0, io.EOF
	case err != nil:
		b.err = b.explain(err)
		return n, b.err
	}
	return n, nil
}

// pause lets the sender wait: it sends more than its share. The time does not
// count against it.
func (b *body) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	began := time.Now()
	select {
	case <-t.C:
	case <-b.gone:
	case <-b.s.ending.Done(): // the next Read tells
	}
	spent := time.Since(began)
	b.started = b.started.Add(spent)
	b.set = time.Time{}
}

// moved tells that a line has ended, or begun.
func (b *body) moved() { b.waited = 0 }

// arm sets the read deadline: idle from now, or when the mean rate is missed.
func (b *body) arm(now time.Time) {
	if b.started.IsZero() {
		b.started = now
	} else if now.Sub(b.set) < deadlineStep {
		return
	}
	b.set = now
	end := now.Add(b.idle)
	if b.lined {
		end = now.Add(b.idle - b.waited) // what is not spent on waiting does not count
	}
	if b.rate > 0 {
		if due := b.started.Add(b.idle + time.Duration(b.n/b.rate)*time.Second); due.Before(end) {
			end = due
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cut {
		end = past
	}
	_ = b.rc.SetReadDeadline(end) // not supported in tests without a connection
}

// close lifts the deadline, so that the wait for the answer is not cut; where
// the body has not been read to its end, its rest gets little time. It must be
// called before the handler returns, and may be called again.
func (b *body) close() {
	if b.undo != nil {
		b.undo()
		b.undo = nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done {
		return
	}
	b.done = true
	if b.started.IsZero() {
		return
	}
	var end time.Time
	if b.err != io.EOF {
		end = time.Now().Add(drainTimeout)
	}
	if b.n > smallBody && time.Since(b.started) > replyTimeout {
		_ = b.rc.SetWriteDeadline(time.Now().Add(serverTimeout)) // the one set at the start may be near
	}
	_ = b.rc.SetReadDeadline(end) // not supported in tests without a connection
}

// drain reads a little more of a body that is not wanted, so that its
// connection can go on, and reports whether that was all of it.
func (b *body) drain() bool {
	b.idle, b.set, b.lined = drainTimeout, time.Time{}, false
	mem := lineBuffers.Get().(*[batchRead]byte)
	defer lineBuffers.Put(mem)
	for upto := b.n + drainBytes; b.err == nil && b.n < upto; {
		_, _ = b.Read(mem[:]) // the error stays in b
	}
	return b.err == io.EOF
}

// interrupt ends a Read that waits, because the server stops.
func (b *body) interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cut = true
	if !b.done {
		_ = b.rc.SetReadDeadline(past)
	}
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

func (b *body) tooLarge() error {
	if b.want > b.max {
		return tooLarge("the body has %d bytes, over the limit of %d", b.want, b.max)
	}
	return tooLarge("the body has more than %d bytes, which is the limit", b.max)
}

// explain turns what reading a body can end with into words for its sender.
func (b *body) explain(err error) error {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		if b.s.stopping() {
			return errStopping()
		}
		if b.lined {
			return jobs.Errorf(jobs.CodeTimeout, "no line has ended for %v: a batch may stand still for so long, and a line take as long", b.idle)
		}
		return jobs.Errorf(jobs.CodeTimeout, "the body came too slowly: %d bytes in %v; it may stand still for %v and must keep up with %d bytes a second",
			b.n, time.Since(b.started).Round(time.Millisecond), b.idle, b.rate)
	case errors.Is(err, io.ErrUnexpectedEOF) && b.want >= 0:
		return jobs.Errorf(jobs.CodeMalformed, "the body ended after %d of its %d bytes", b.n, b.want)
	}
	return jobs.Errorf(jobs.CodeMalformed, "the body broke off after %d bytes", b.n)
}
