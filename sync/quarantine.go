package sync

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	"workmanager/jobs"
)

// Whom the pair does not trust. The rows are few, of no job and merged by
// themselves, so they go beside the feed: a node tells the other when its own
// have changed, and the two compare sums every few seconds, which finds what a
// partition or a restored backup has left.

// Quarantiner is what sharing quarantines needs of a host, besides. A Host that is
// none shares none. Its methods are safe for concurrent use.
type Quarantiner interface {
	// Quarantines returns the rows, which are not to be changed, and their sum.
	Quarantines() ([]jobs.Quarantine, jobs.QuarantineSum)
	// TakeQuarantines merges rows of the peer with those that are here.
	TakeQuarantines(ctx context.Context, rows []jobs.Quarantine) error
}

const (
	quarantineTimeout = time.Second
	// quarantineInterval is how often sums are compared where nothing has changed,
	// and how long to wait where the two do not come to hold the same.
	quarantineInterval = 5 * time.Second
	// quarantineRetry is how long to wait for a peer that did not answer.
	quarantineRetry = 500 * time.Millisecond
	// quarantinesAtOnce bounds the rows of one call, at most 3 KB each in JSON.
	quarantinesAtOnce = 256
)

// shared is how far the two nodes hold the same; Engine.mu guards it.
type shared struct {
	boot  jobs.ID // the peer's
	sum   jobs.QuarantineSum
	next  time.Time // not to be compared before, if nothing has changed
	tried jobs.QuarantineSum
}

// QuarantineCall is POST /peer/quarantine: rows of the caller and the sum of all
// that it has. More rows follow in the next call if More is set.
type QuarantineCall struct {
	caller
	Sum  string           `json:"sum"`
	Rows []wireQuarantine `json:"rows,omitempty"`
	More bool             `json:"more,omitempty"`
}

// QuarantineReply has the sum of what the answering node holds now and, if that
// is another, all of it.
type QuarantineReply struct {
	Sum  string           `json:"sum"`
	Rows []wireQuarantine `json:"rows,omitempty"`
}

type wireQuarantine struct {
	Worker string  `json:"worker"`
	Inside bool    `json:"inside,omitempty"`
	Turn   uint64  `json:"turn"`
	Barred bool    `json:"barred,omitempty"`
	Since  int64   `json:"since"` // microseconds
	Node   string  `json:"node,omitempty"`
	By     string  `json:"by,omitempty"`
	Reason string  `json:"reason,omitempty"`
	ID     jobs.ID `json:"id"`
	Done   uint64  `json:"done,omitempty"`
	Said   string  `json:"said,omitempty"`
	Right  string  `json:"right,omitempty"`
}

func toWire(q jobs.Quarantine) wireQuarantine {
	return wireQuarantine{Worker: q.Worker, Inside: q.Inside, Turn: q.Turn, Barred: q.Barred, Since: instantMicros(q.Since), Node: q.Node, By: q.By,
		Reason: q.Reason, ID: q.ID, Done: q.Done, Said: q.Said.String(), Right: q.Right.String()}
}

// row reads a row. It returns an error if no node of the pair can have made it.
func (w wireQuarantine) row() (jobs.Quarantine, error) {
	q := jobs.Quarantine{Subject: jobs.Subject{Worker: w.Worker, Inside: w.Inside}, Turn: w.Turn, Barred: w.Barred, Node: w.Node, By: w.By,
		Reason: w.Reason, ID: w.ID, Done: w.Done}
	var err error
	if q.Since, err = microInstant(w.Since); err != nil {
		return q, err
	}
	for _, p := range []struct {
		to   *jobs.Print
		text string
	}{{&q.Said, w.Said}, {&q.Right, w.Right}} {
		b, err := hex.DecodeString(p.text)
		if err != nil || len(b) != 0 && len(b) != len(p.to) {
			return q, errGarbage
		}
		copy(p.to[:], b)
	}
	return q, q.Check()
}

// readQuarantines reads the rows that can be read: one that cannot must not keep
// the others away.
func (e *Engine) readQuarantines(rows []wireQuarantine) []jobs.Quarantine {
	out := make([]jobs.Quarantine, 0, len(rows))
	for _, w := range rows {
		q, err := w.row()
		if err != nil {
			e.warn("quarantine", "what the peer says of a worker is not understood", "err", err)
			continue
		}
		out = append(out, q)
	}
	return out
}

// shareRound shares quarantines over HTTP, if that is due.
func (e *Engine) shareRound(ctx context.Context) error {
	host, ok := e.host.(Quarantiner)
	if !ok {
		return nil
	}
	_, sum := host.Quarantines()
	now := e.now()
	e.mu.Lock()
	s := &e.shared
	due := now.After(s.next) || s.next.Sub(now) > quarantineInterval || sum != s.tried || s.boot != e.peer.hello.Boot
	e.mu.Unlock()
	if !due {
		return nil
	}
	_, err := e.ShareQuarantines(ctx)
	if errors.Is(err, ErrNoPeer) || errors.Is(err, errNotThere) { // not now, or of an older release
		return nil
	}
	return err
}

// ShareQuarantines brings both nodes to hold the same quarantines, and reports
// whether they do. It returns ErrNoPeer, wrapped, if the peer cannot be asked.
func (e *Engine) ShareQuarantines(ctx context.Context) (bool, error) {
	return e.Quarantine(ctx, func(ctx context.Context, call QuarantineCall) (QuarantineReply, error) {
		var reply QuarantineReply
		err := e.call(ctx, quarantineTimeout, http.MethodPost, "/peer/quarantine", call, &reply)
		return reply, err
	})
}

// Quarantine is ShareQuarantines by calls that ask hands to the peer.
func (e *Engine) Quarantine(ctx context.Context, ask func(context.Context, QuarantineCall) (QuarantineReply, error)) (bool, error) {
	host, ok := e.host.(Quarantiner)
	if !ok {
		return false, nil
	}
	rows, sum := host.Quarantines()
	e.mu.Lock()
	boot := e.peer.hello.Boot
	tell := sum != e.shared.sum || boot != e.shared.boot
	e.mu.Unlock()
	var reply QuarantineReply
	for range 2 { // the second time with what the peer has said
		call := QuarantineCall{caller: e.caller(), Sum: hex.EncodeToString(sum[:])}
		if !tell {
			rows = nil
		}
		for first := true; first || len(rows) > 0; first = false {
			call.Rows = call.Rows[:0]
			for _, q := range rows[:min(len(rows), quarantinesAtOnce)] {
				call.Rows = append(call.Rows, toWire(q))
			}
			rows = rows[len(call.Rows):]
			call.More = len(rows) > 0
			var err error
			if reply, err = ask(ctx, call); err != nil {
				wait := quarantineInterval
				if errors.Is(err, ErrNoPeer) {
					wait = quarantineRetry
				}
				e.shares(boot, sum, jobs.QuarantineSum{}, wait)
				return false, err
			}
		}
		if reply.Sum != call.Sum {
			if err := host.TakeQuarantines(ctx, e.readQuarantines(reply.Rows)); err != nil {
				return false, err
			}
			rows, sum = host.Quarantines()
		}
		if reply.Sum == hex.EncodeToString(sum[:]) {
			e.shares(boot, sum, sum, quarantineInterval)
			return true, nil
		}
		tell = true
	}
	e.shares(boot, sum, jobs.QuarantineSum{}, quarantineInterval)
	return false, nil
}

// shares notes how a round went: what was tried to be told, what both hold, and
// when to compare again.
func (e *Engine) shares(boot jobs.ID, tried, both jobs.QuarantineSum, wait time.Duration) {
	now := e.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.shared = shared{boot: boot, sum: both, tried: tried, next: now.Add(wait)}
}

// Quarantined answers a call of the peer.
func (e *Engine) Quarantined(ctx context.Context, call *QuarantineCall) (QuarantineReply, error) {
	host, ok := e.host.(Quarantiner)
	if !ok {
		return QuarantineReply{}, &Refusal{RefusedRound, "this node keeps no quarantines"}
	}
	if len(call.Rows) > 0 {
		if err := host.TakeQuarantines(ctx, e.readQuarantines(call.Rows)); err != nil {
			return QuarantineReply{}, err
		}
	}
	rows, sum := host.Quarantines()
	reply := QuarantineReply{Sum: hex.EncodeToString(sum[:])}
	if call.More || reply.Sum == call.Sum {
		return reply, nil
	}
	for _, q := range rows {
		reply.Rows = append(reply.Rows, toWire(q))
	}
	return reply, nil
}

func (e *Engine) serveQuarantine(w http.ResponseWriter, r *http.Request) {
	serveCall(e, w, r, func(c *QuarantineCall) caller { return c.caller }, func(ctx context.Context, c *QuarantineCall) (any, error) {
		return e.Quarantined(ctx, c)
	})
}
