package sync

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"workmanager/jobs"
)

// SummaryCall is POST /peer/summary. One of its questions is set.
type SummaryCall struct {
	caller
	Schema int   `json:"schema"`
	Floor  int64 `json:"floor"` // microseconds; rows below it are not compared
	Age    int64 `json:"age"`   // microseconds that a row has to have stood still

	Bounds  []int64        `json:"bounds,omitempty"` // the digest of each range between two
	Cut     *jobs.Range    `json:"cut,omitempty"`    // where to cut it
	List    *jobs.Range    `json:"list,omitempty"`   // its rows
	IDs     []jobs.ID      `json:"ids,omitempty"`    // how these stand
	Recount bool           `json:"recount,omitempty"`
	Adopt   [][]byte       `json:"adopt,omitempty"`  // payloads of rows, for those that are damaged
	Resend  []jobs.ID      `json:"resend,omitempty"` // rows to be sent once more
	Ended   *CompareStatus `json:"ended,omitempty"`
}

// SummaryReply is its answer.
type SummaryReply struct {
	Floor    int64        `json:"floor"`             // in force for this answer
	Digests  []wireDigest `json:"digests,omitempty"` // of the first ranges
	Cuts     []int64      `json:"cuts,omitempty"`    // of the range asked for, or of the first if that is too large
	Sums     []wireSum    `json:"sums,omitempty"`
	Standing []wireStand  `json:"standing,omitempty"` // of the first IDs
	Repaired int          `json:"repaired,omitempty"`
}

// wireDigest has the sum in two halves, which every reader of JSON holds.
type wireDigest struct {
	Rows int64  `json:"rows"`
	Lo   uint32 `json:"lo"`
	Hi   uint32 `json:"hi"`
}

type wireSum struct {
	ID  jobs.ID `json:"id"`
	Sum uint64  `json:"sum,string"`
}

type wireStand struct {
	Found   bool   `json:"found,omitempty"`
	Settled bool   `json:"settled,omitempty"`
	Damaged bool   `json:"damaged,omitempty"`
	Row     []byte `json:"row,omitempty"` // its payload, if it is not damaged
}

// standing reads how a row stands at the peer.
func (s wireStand) standing(id jobs.ID) (jobs.Standing, error) {
	out := jobs.Standing{Found: s.Found, Settled: s.Settled, Damaged: s.Damaged}
	if !s.Found || s.Damaged {
		return out, nil
	}
	var err error
	if out.Row, err = decodeRow(s.Row); err != nil {
		return out, fmt.Errorf("%w: job %s: %w", errGarbage, id, err)
	}
	if out.Row.Job.ID != id {
		return out, fmt.Errorf("%w: job %s asked for, %s answered", errGarbage, id, out.Row.Job.ID)
	}
	return out, nil
}

func (e *Engine) serveSummary(w http.ResponseWriter, r *http.Request) {
	serveCall(e, w, r, func(c *SummaryCall) caller { return c.caller }, func(ctx context.Context, c *SummaryCall) (any, error) {
		return e.Summary(ctx, c)
	})
}

// Summary answers a call of the peer that compares. The error is a *Refusal if
// this node cannot be compared now, or the call makes no sense.
func (e *Engine) Summary(ctx context.Context, call *SummaryCall) (SummaryReply, error) {
	rows, ok := e.store.(Comparer)
	r := e.store.Reading()
	e.mu.Lock()
	why := e.incomparable(r)
	e.mu.Unlock()
	switch {
	case !ok:
		why = "this node's store cannot be compared"
	case call.Schema != e.me.Schema:
		why = "the nodes are of different releases"
	case call.Age < 0 || call.Age > settledAge.Microseconds() || call.Floor < 0:
		return SummaryReply{}, e.refuse(&Refusal{RefusedMalformed, fmt.Sprintf("an age of %d or a floor of %d", call.Age, call.Floor)})
	}
	of, old := e.settled(e.now(), time.Duration(call.Age)*time.Microsecond, call.Floor)
	if why == "" && !old {
		why = "this node has just started"
	}
	if why != "" {
		return SummaryReply{}, &Refusal{RefusedRound, why}
	}
	reply := SummaryReply{Floor: instantMicros(of.Floor)}
	err := e.summarize(ctx, rows, call, of, &reply)
	return reply, err
}

func (e *Engine) summarize(ctx context.Context, rows Comparer, call *SummaryCall, of jobs.Settled, reply *SummaryReply) error {
	switch {
	case len(call.Bounds) > 0:
		if n := len(call.Bounds); n < 2 || n > rangesAtOnce+1 || !slices.IsSorted(call.Bounds) {
			return e.refuse(&Refusal{RefusedMalformed, fmt.Sprintf("%d bounds", n)})
		}
		return digests(ctx, rows, call.Bounds, of, reply)
	case call.Cut != nil:
		cuts, err := rows.Cuts(ctx, *call.Cut, 0, splitParts-1)
		reply.Cuts = cuts
		return err
	case call.List != nil:
		sums, _, err := rows.Sums(ctx, *call.List, of, maxListed)
		for _, s := range sums {
			reply.Sums = append(reply.Sums, wireSum(s))
		}
		return err
	case len(call.IDs) > 0:
		return stand(ctx, rows, call.IDs[:min(len(call.IDs), lookRows)], of, reply)
	case call.Ended != nil:
		e.mu.Lock()
		defer e.mu.Unlock()
		call.Ended.At = e.now() // by this node's clock
		e.compare.last = *call.Ended
		e.countCompared(*call.Ended, CompareStatus{})
		return nil
	}
	if len(call.Resend)+len(call.Adopt) > maxRepairs {
		return e.refuse(&Refusal{RefusedMalformed, fmt.Sprintf("%d rows to repair", len(call.Resend)+len(call.Adopt))})
	}
	if call.Recount {
		if err := rows.Recount(ctx); err != nil {
			return err
		}
	}
	adopt := make([]jobs.Row, len(call.Adopt))
	for i, payload := range call.Adopt {
		var err error
		if adopt[i], err = decodeRow(payload); err != nil {
			return e.refuse(&Refusal{RefusedMalformed, err.Error()})
		}
	}
	adopted, err := e.adopt(ctx, rows, call.Boot, adopt)
	if err != nil {
		return err
	}
	sent, err := rows.Resend(ctx, call.Resend, of.Upto)
	reply.Repaired = adopted + sent
	return err
}

// digests answers for as many ranges as maxSummaryRows allows. One that has
// more alone is cut; if it cannot be, it is read whole.
func digests(ctx context.Context, rows Comparer, bounds []int64, of jobs.Settled, reply *SummaryReply) error {
	left := maxSummaryRows
	for i := range len(bounds) - 1 {
		in := jobs.Range{From: bounds[i], To: bounds[i+1]}
		d, whole, err := rows.Digest(ctx, in, of, left)
		if err == nil && !whole && i == 0 {
			if reply.Cuts, err = rows.Cuts(ctx, in, 0, splitParts-1); err != nil || len(reply.Cuts) > 0 {
				return err
			}
			d, whole, err = rows.Digest(ctx, in, of, math.MaxInt)
		}
		if err != nil {
			return err
		}
		if !whole {
			return nil
		}
		reply.Digests = append(reply.Digests, wireDigest{d.Rows, uint32(d.Sum), uint32(d.Sum >> 32)})
		if left -= int(d.Rows); left <= 0 {
			return nil
		}
	}
	return nil
}

// stand answers for as many rows as lookBytes allows.
func stand(ctx context.Context, rows Comparer, ids []jobs.ID, of jobs.Settled, reply *SummaryReply) error {
	found, err := rows.Standings(ctx, ids, of)
	if err != nil {
		return err
	}
	size := 0
	for i := range found {
		s := &found[i]
		out := wireStand{Found: s.Found, Settled: s.Settled, Damaged: s.Damaged}
		if s.Found && !s.Damaged {
			// Both are of one release: what one had kept for this release while it
			// was of an older one is what it lacks, and must not look like its own.
			s.Row.Ext = nil
			out.Row = appendRowFields(nil, &s.Row)
		}
		if size += cmp.Or(len(out.Row), 64); size > lookBytes && i > 0 {
			return nil
		}
		reply.Standing = append(reply.Standing, out)
	}
	return nil
}
