package client

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// Submission is one job of a batch.
type Submission struct {
	Data       []byte
	Iterations uint64
	Key        string // "" is a random one
	Priority   int
}

// Submitted is what became of one job of a batch. Line counts from 1.
type Submitted struct {
	Line       int64
	ID         jobs.ID
	State      jobs.State
	Durability jobs.Durability
	Existed    bool  // the key named this job before
	Err        error // this job's own; the others go on
}

// The window of a batch is what may be under way and not answered: it bounds
// the memory here, and what is sent again when a connection breaks.
const (
	batchLines = 32 << 10
	batchBytes = 8 << 20
)

// errBatchOver ends what still runs of a batch that nobody reads any more.
var errBatchOver = errors.New("batch over")

// Batch submits many jobs over one connection and yields what became of each,
// in their order, while later ones are still being sent. When the connection
// breaks, the jobs not answered are sent again with the same keys, to the
// other node if there is one. The error is yielded last and is for the whole
// batch: nothing is known of the jobs not yielded before it.
//
// batch runs on its own goroutine, which Batch waits for: a sequence that can
// block for long must end when ctx does.
func (c *Client) Batch(ctx context.Context, batch iter.Seq[Submission], ack jobs.Ack) iter.Seq2[Submitted, error] {
	return func(yield func(Submitted, error) bool) {
		c.init()
		if c.baseErr != nil {
			yield(Submitted{}, c.baseErr)
			return
		}
		prefix, err := c.newKey()
		if err != nil {
			yield(Submitted{}, err)
			return
		}
		ctx, cancel := context.WithCancelCause(ctx)
		w := newWindow()
		stop := context.AfterFunc(ctx, w.close)
		var filling sync.WaitGroup
		filling.Go(func() { w.fill(batch, prefix) })
		defer filling.Wait()
		defer w.close()
		defer stop()
		defer cancel(errBatchOver)

		b := &batchTry{try: try{c: c, at: int(c.good.Load())}, w: w, ack: ack}
		for {
			over, err := b.send(ctx, yield)
			if over {
				return
			}
			if wait, again := b.wait(ctx, err); again && sleep(ctx, wait) {
				b.at = (b.at + 1) % len(c.bases)
				continue
			}
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			yield(Submitted{}, err)
			return
		}
	}
}

// batchTry is the state of one batch over all its requests.
type batchTry struct {
	try
	w    *window
	ack  jobs.Ack
	resp *http.Response // of the last request, if it was refused
}

// send makes one request with all that is not answered and what comes after
// it. It reports whether the batch is over: all answered, or not wanted.
func (b *batchTry) send(ctx context.Context, yield func(Submitted, error) bool) (over bool, err error) {
	b.resp = nil
	q := url.Values{}
	if b.ack != jobs.AckDefault {
		q.Set("ack", string(b.ack))
	}
	body := b.w.open()
	defer body.Close()
	// A request's own context: what is left of it ends with this call.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url("/v1/jobs/batch", q), body)
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", api.MediaNDJSON)
	if b.c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+b.c.Token)
	}
	resp, err := b.c.patient.Do(req)
	if err != nil {
		return false, b.unreachable(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		b.resp = resp
		return false, refusal(resp)
	}
	r := bufio.NewReaderSize(resp.Body, 64<<10)
	for sent := int64(1); ; sent++ {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) && b.w.done() {
			b.c.good.Store(int32(b.at))
			return true, nil
		}
		if err != nil {
			return false, b.unreachable(fmt.Errorf("the answers to a batch broke off: %w", err))
		}
		var l api.BatchLine
		if err := json.Unmarshal(line, &l); err != nil || l.Line != sent {
			return false, b.unreachable(fmt.Errorf("answer %d of a batch cannot be read: %.100q", sent, line))
		}
		if e := l.Error; e != nil && (jobs.Code(e.Code) == jobs.CodeStopping || jobs.Code(e.Code) == jobs.CodeUnavailable) {
			return false, fromProblem(*e) // no fault of the job's: send it to the other
		}
		s, err := toSubmitted(l)
		if err != nil {
			return false, err
		}
		var known bool
		if s.Line, known = b.w.answered(); !known {
			return false, b.unreachable(fmt.Errorf("answer %d of a batch is to no line sent", sent))
		}
		b.failed = 0 // there was progress
		if !yield(s, nil) {
			return true, nil
		}
	}
}

func (b *batchTry) unreachable(err error) error {
	return fmt.Errorf("%w: %s: %w", ErrUnreachable, strings.Join(b.c.URLs, ", "), tidy(err))
}

// wait tells whether to send again after err, and after how long.
func (b *batchTry) wait(ctx context.Context, err error) (time.Duration, bool) {
	if ctx.Err() != nil || b.failed+1 >= b.c.rounds()*len(b.c.bases) {
		return 0, false
	}
	least, most := b.c.waits()
	if b.resp != nil {
		again, _ := b.again(ctx, b.resp, nil)
		return b.backoff(least, most, 0, b.resp), again
	}
	b.failed++
	code := jobs.CodeOf(err)
	again := errors.Is(err, ErrUnreachable) || code == jobs.CodeStopping || code == jobs.CodeUnavailable
	return b.backoff(least, most, 0, nil), again
}

// sleep waits, and reports whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func toSubmitted(l api.BatchLine) (Submitted, error) {
	if l.Error != nil {
		return Submitted{Err: fromProblem(*l.Error)}, nil
	}
	id, err := jobs.ParseID(l.ID)
	if err != nil {
		return Submitted{}, fmt.Errorf("read the answer to a batch: %w", err)
	}
	return Submitted{ID: id, State: jobs.State(l.State), Durability: durability(l.Durability, ""), Existed: l.Existed}, nil
}

// window holds the lines of a batch from when they are read from the caller
// until they are answered. One goroutine fills it, the transport's reads it,
// possibly over several requests, and the caller's takes off what is answered.
type window struct {
	mu    sync.Mutex // guards all below
	moved *sync.Cond // on any change

	lines  [][]byte // not answered, oldest first
	bytes  int
	first  int64 // the number of lines[0], from 1
	ended  bool  // the caller has no more lines
	closed bool  // nobody wants answers any more
	reader *windowReader
}

func newWindow() *window {
	w := &window{first: 1}
	w.moved = sync.NewCond(&w.mu)
	return w
}

// fill puts the lines in, and waits while the window is full.
func (w *window) fill(batch iter.Seq[Submission], prefix string) {
	n := int64(0)
	for s := range batch {
		n++
		if s.Key == "" {
			s.Key = prefix + "/" + strconv.FormatInt(n, 10)
		}
		if !w.put(appendLine(nil, s)) {
			return
		}
	}
	w.mu.Lock()
	w.ended = true
	w.moved.Broadcast()
	w.mu.Unlock()
}

func (w *window) put(line []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.closed && len(w.lines) > 0 && (len(w.lines) >= batchLines || w.bytes+len(line) > batchBytes) {
		w.moved.Wait()
	}
	if w.closed {
		return false
	}
	w.lines = append(w.lines, line)
	w.bytes += len(line)
	w.moved.Broadcast()
	return true
}

// answered takes the oldest line off and returns its number. It reports false
// if that line was not sent, so that no answer can be to it.
func (w *window) answered() (int64, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.lines) == 0 || w.reader.sent == 0 {
		return 0, false
	}
	n := w.first
	w.bytes -= len(w.lines[0])
	w.lines[0] = nil
	w.lines = w.lines[1:]
	w.first++
	w.reader.sent--
	w.moved.Broadcast()
	return n, true
}

// done reports whether every line was answered and no more will come.
func (w *window) done() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended && len(w.lines) == 0
}

func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.moved.Broadcast()
}

// open returns the body of the next request: all lines not answered, then the
// new ones as they come. The body before it gives no more.
func (w *window) open() io.ReadCloser {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reader = &windowReader{w: w}
	w.moved.Broadcast()
	return w.reader
}

// windowReader reads the lines for one request.
type windowReader struct {
	w      *window
	sent   int    // how many of w.lines were read, the last perhaps in part
	rest   []byte // of the last
	closed bool
}

func (r *windowReader) Read(p []byte) (int, error) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	n := 0
	for n < len(p) {
		if r.closed || r.w.closed || r.w.reader != r {
			return n, http.ErrBodyReadAfterClose
		}
		if len(r.rest) > 0 {
			k := copy(p[n:], r.rest)
			n, r.rest = n+k, r.rest[k:]
			continue
		}
		switch {
		case r.sent < len(r.w.lines):
			r.rest = r.w.lines[r.sent]
			r.sent++
		case n > 0:
			return n, nil // what there is, rather than wait for more
		case r.w.ended:
			return 0, io.EOF
		default:
			r.w.moved.Wait()
		}
	}
	return n, nil
}

func (r *windowReader) Close() error {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.closed = true
	r.w.moved.Broadcast()
	return nil
}

// appendLine appends s as a line of a batch.
func appendLine(b []byte, s Submission) []byte {
	b = append(b, `{"data":"`...)
	b = base64.StdEncoding.AppendEncode(b, s.Data)
	b = append(b, `","iterations":`...)
	b = strconv.AppendUint(b, s.Iterations, 10)
	b = append(b, `,"key":`...)
	b = appendString(b, s.Key)
	if s.Priority != 0 {
		b = append(b, `,"priority":`...)
		b = strconv.AppendInt(b, int64(s.Priority), 10)
	}
	return append(b, "}\n"...)
}

func appendString(b []byte, s string) []byte {
	text, err := json.Marshal(s)
	if err != nil {
		panic("client: a string has no JSON: " + err.Error()) // cannot be
	}
	return append(b, text...)
}
