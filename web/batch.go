package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"workmanager/jobs"
)

// How a batch is cut up. A group is what one call of Queue.Enqueue gets.
const (
	batchGroup    = 1000            // lines of a group
	batchInFlight = 3               // groups being committed at once
	batchRead     = 256 << 10       // bytes of one read
	batchIdle     = 5 * time.Minute // without a byte, or without a reply taken
	spoolPiece    = 32 << 10        // bytes of one write
)

// group is some consecutive lines of a batch.
type group struct {
	lines []groupLine
	jobs  []jobs.Job
	keyed bool // a line has a key of its own, which another line may have too
}

// groupLine is one line: a job of the group, or an error.
type groupLine struct {
	line int64
	err  error // nil: the next of the group's jobs
}

var (
	groups       = sync.Pool{New: func() any { return new(group) }}
	lineBuffers  = sync.Pool{New: func() any { return new([batchRead]byte) }}
	replyBuffers = sync.Pool{New: func() any { return new([]byte) }}
)

// batchRun is one batch under way. Three stages overlap: parse fills the open
// group; submit, several of it, takes the group, commits it and puts its
// replies, in turn, into the spool; send gives them to the client.
type batchRun struct {
	s     *Server
	ctx   context.Context //nolint:containedctx // of this one request, whose life this is
	stop  context.CancelFunc
	rc    *http.ResponseController
	body  *body
	may   func() bool // the caller still may
	ack   jobs.Ack
	key   string // of the whole batch, "" for none
	owner string // of its jobs
	spool *spool

	mu     sync.Mutex // guards what follows
	change sync.Cond
	open   *group // filled by parse, not yet taken by submit
	taken  int64  // groups taken
	turn   int64  // groups whose replies are in the spool
	parsed bool   // parse is done
	lost   bool   // the client takes no more replies

}

// batch answers POST /v1/jobs/batch: one job a line, one reply a line, in
// order, while both streams go on.
func (s *Server) batch(w http.ResponseWriter, r *http.Request) error {
	if s.stopping() {
		return errStopping()
	}
	if err := checkEncoding(r); err != nil {
		return err
	}
	p := params{r: r, limits: &s.cfg.Limits}
	b := &batchRun{s: s, may: func() bool { return s.admitted(r) }, ack: p.ack(), key: p.key(), owner: jobs.OwnerOf(r.Context()), rc: controller(w)}
	if err := p.wrong.err(); err != nil {
		return err
	}
	for _, kind := range []int{placeWait, placeBatch} {
		release, err := s.hold(r.Context(), kind, 1)
		if err != nil {
			return err
		}
		defer release()
	}
	b.body = &body{s: s, r: r.Body, rc: b.rc, want: -1, max: 1 << 62, idle: batchIdle, lined: true, pays: admissionOf(r.Context()), gone: r.Context().Done()}
	b.body.undo = context.AfterFunc(s.ending, b.body.interrupt)
	defer b.body.close()
	if r.ContentLength > 0 {
		b.body.want = r.ContentLength
	}

	_ = b.rc.EnableFullDuplex() // HTTP/2 always is, and a test without a connection needs it not
	_ = b.rc.SetWriteDeadline(time.Time{})
	h := w.Header()
	h["Content-Type"] = headerNDJSON
	h["Cache-Control"] = headerNoStore
	h["X-Accel-Buffering"] = headerNoBuffer

	b.ctx, b.stop = context.WithCancel(r.Context())
	defer b.stop()
	b.change.L = &b.mu
	b.spool = newSpool(s.cfg.SpillDir, b.rc, &s.spooled)
	var stages sync.WaitGroup
	b.stage(&stages, "parse", b.parse)
	for range batchInFlight {
		b.stage(&stages, "submit", b.submit)
	}
	stages.Go(func() { b.ended(); b.spool.end() })

	sent := b.send(w)
	if sent != nil {
		b.lose()
	}
	stages.Wait()
	b.spool.close()
	if sent != nil {
		panic(http.ErrAbortHandler) // the answer is not whole, and its end must not look so
	}
	if !b.body.drain() {
		// Under full duplex net/http would read on while it waits for the next
		// request, and panic where the rest of the body ends just then. The
		// client cannot be told any more that its connection ends here.
		hangUp(w)
	}
	return nil
}

// stage runs f; a panic in it breaks the batch off and no more.
func (b *batchRun) stage(wg *sync.WaitGroup, name string, f func()) {
	wg.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				b.s.log.Error("panic in a batch", "stage", name, "panic", p, "stack", string(debug.Stack()))
				b.lose()
			}
		}()
		f()
	})
}

// lose ends all stages: nobody takes the replies any more.
func (b *batchRun) lose() {
	b.stop()
	b.mu.Lock()
	b.lost = true
	b.change.Broadcast()
	b.mu.Unlock()
	b.spool.close()
	b.body.interrupt()
}

// ended waits until every group's replies are in the spool.
func (b *batchRun) ended() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.lost && !(b.parsed && b.open == nil && b.turn == b.taken) {
		b.change.Wait()
	}
}

// parse reads lines until the body ends, and hands them on after each read.
func (b *batchRun) parse() {
	mem := lineBuffers.Get().(*[batchRead]byte)
	defer lineBuffers.Put(mem)
	buf := mem[:]
	reader := lineReader{max: b.s.cfg.Limits.DataBytes}
	g := groups.Get().(*group)
	start, end := 0, 0
	line := int64(0) // the number of the line that begins at start
	most := int64(b.s.cfg.Limits.BatchJobs)
	skipping := false // the line is too long, its rest is thrown away
	var last error    // why the batch ended before its body did

	defer func() {
		b.spool.bodyEnded()
		if last != nil {
			g.lines = append(g.lines, groupLine{line: line + 1, err: last})
		}
		b.hand(g)
		b.mu.Lock()
		b.parsed = true
		b.change.Broadcast()
		b.mu.Unlock()
	}()
	for {
		waited := end > start || skipping // a line has begun
		n, err := b.body.Read(buf[end:])
		if !b.may() {
			last = errRevoked()
			return
		}
		scanned := end
		end += n
		if !waited || bytes.IndexByte(buf[scanned:end], '\n') >= 0 {
			b.body.moved()
		}
		for {
			i := bytes.IndexByte(buf[scanned:end], '\n')
			if i < 0 {
				break
			}
			text := buf[start : scanned+i]
			start, scanned = scanned+i+1, scanned+i+1
			if line >= most {
				last = overBatch(most)
				return
			}
			line++
			if !skipping {
				b.take(g, &reader, line, text)
			}
			skipping = false
			if len(g.lines) >= batchGroup {
				if !b.hand(g) {
					return
				}
				g = groups.Get().(*group)
			}
		}
		switch {
		case err == io.EOF:
			if end > start && !skipping {
				if line >= most {
					last = overBatch(most)
					return
				}
				line++
				b.take(g, &reader, line, buf[start:end])
			}
			return
		case err != nil:
			last = err
			return
		}
		if start == end || skipping {
			start, end = 0, 0
		} else if end-start > b.s.cfg.Limits.BatchLineBytes {
			g.lines = append(g.lines, groupLine{line: line + 1, err: b.longLine()})
			skipping = true
			start, end = 0, 0
		} else if end == len(buf) {
			if start > 0 {
				end = copy(buf, buf[start:end])
				start = 0
			} else {
				buf = append(buf, make([]byte, len(buf))...)
			}
		}
		if !b.hand(g) {
			return
		}
		g = groups.Get().(*group)
	}
}

func overBatch(most int64) error {
	return tooLarge("the batch has more than %d lines, which is the limit; send the rest in another", most)
}

func (b *batchRun) longLine() error {
	return tooLarge("the line has more than %d bytes, which is the limit; send this job by itself", b.s.cfg.Limits.BatchLineBytes)
}

// take adds one line to g. A blank one counts but is not answered.
func (b *batchRun) take(g *group, reader *lineReader, line int64, text []byte) {
	if blanks(text, 0) == len(text) {
		return
	}
	if len(text) > b.s.cfg.Limits.BatchLineBytes {
		g.lines = append(g.lines, groupLine{line: line, err: b.longLine()})
		return
	}
	l, err := reader.read(text)
	if err == nil {
		key := l.key
		g.keyed = g.keyed || key != ""
		if key == "" && b.key != "" {
			key = b.key + "/" + strconv.FormatInt(line, 10)
		}
		var id jobs.ID
		if id, err = b.s.cfg.NewID(b.ctx, key); err == nil {
			var j jobs.Job
			if j, err = jobs.New(id, l.v1, l.iterations, l.priority); err == nil {
				j, err = j.Keeping(l.keep)
			}
			if err == nil {
				j.Owner = b.owner
				g.jobs = append(g.jobs, j)
			}
		}
	}
	g.lines = append(g.lines, groupLine{line: line, err: err})
}

// hand gives g to submit, joined to the open group if there is room. It waits
// while there is none, and returns false if the batch is lost.
func (b *batchRun) hand(g *group) bool {
	if len(g.lines) == 0 {
		groups.Put(g)
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		switch {
		case b.lost:
			return false
		case b.open == nil:
			b.open = g
			b.change.Broadcast()
			return true
		case len(b.open.lines)+len(g.lines) <= batchGroup:
			b.open.lines = append(b.open.lines, g.lines...)
			b.open.jobs = append(b.open.jobs, g.jobs...)
			b.open.keyed = b.open.keyed || g.keyed
			g.reset()
			groups.Put(g)
			return true
		}
		b.change.Wait()
	}
}

func (g *group) reset() {
	clear(g.lines) // errors are not kept alive
	g.lines, g.jobs, g.keyed = g.lines[:0], g.jobs[:0], false
}

// submit commits groups until there are no more.
func (b *batchRun) submit() {
	mem := replyBuffers.Get().(*[]byte)
	defer replyBuffers.Put(mem)
	for {
		b.mu.Lock()
		for b.open == nil && !b.parsed && !b.lost {
			b.change.Wait()
		}
		g := b.open
		if g == nil || b.lost {
			b.mu.Unlock()
			return
		}
		b.open = nil
		turn := b.taken // the place of its replies among the groups
		b.taken++
		b.change.Broadcast()
		for g.keyed && b.turn != turn && !b.lost { // of two lines with one key the first is the job
			b.change.Wait()
		}
		b.mu.Unlock()

		replies := b.commit(g, (*mem)[:0])
		*mem = replies

		b.mu.Lock()
		for b.turn != turn && !b.lost {
			b.change.Wait()
		}
		b.mu.Unlock()
		if !b.spool.put(replies) {
			return
		}
		b.mu.Lock()
		b.turn++
		b.change.Broadcast()
		b.mu.Unlock()
	}
}

// commit makes a group durable and appends its replies.
func (b *batchRun) commit(g *group, out []byte) []byte {
	var outcomes []jobs.Outcome
	var err error
	if len(g.jobs) > 0 {
		outcomes, err = b.s.cfg.Queue.Enqueue(b.ctx, g.jobs, b.ack)
		if err == nil && len(outcomes) != len(g.jobs) {
			err = fmt.Errorf("%d outcomes for %d jobs", len(outcomes), len(g.jobs))
		}
		if err != nil && jobs.CodeOf(err) == jobs.CodeInternal { // told once, not for every line
			b.s.log.Error("a group of a batch failed", "jobs", len(g.jobs), "err", err)
			err = jobs.Errorf(jobs.CodeInternal, "internal error")
		}
	}
	next := 0
	for _, l := range g.lines {
		switch {
		case l.err != nil:
			out = b.s.appendError(out, l.line, l.err)
		case err != nil:
			out = b.s.appendError(out, l.line, err)
		default:
			o := &outcomes[next]
			next++
			written, _ := errors.AsType[*jobs.Error](o.Err)
			switch {
			case o.Err == nil:
				out = appendReply(out, l.line, o)
			case written != nil && written.Written:
				out = b.s.appendWritten(out, l.line, o)
			default:
				out = b.s.appendError(out, l.line, o.Err)
			}
		}
	}
	if err == nil { // after an error the queue may still hold the jobs
		g.reset()
		groups.Put(g)
	}
	return out
}

// send gives the client its replies, and pushes them out whenever there are no
// more at once.
func (b *batchRun) send(w http.ResponseWriter) error {
	var buf [spoolPiece]byte
	for {
		n, more, err := b.spool.take(buf[:])
		if err != nil {
			return fmt.Errorf("take replies: %w", err)
		}
		if n == 0 {
			return nil
		}
		b.spool.beforeWrite()
		if _, err := w.Write(buf[:n]); err != nil {
			return fmt.Errorf("send replies: %w", err)
		}
		if !more {
			if err := b.rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
				return fmt.Errorf("send replies: %w", err)
			}
		}
	}
}
