package sync

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"workmanager/jobs"
)

// What a node asks its living peer: one hop, never passed on.

const (
	findTimeout    = 500 * time.Millisecond
	consumeTimeout = 5 * time.Second
	stealTimeout   = 2 * time.Second
	// maxSteal bounds the jobs of one steal.
	maxSteal = 2048
	// maxReply bounds an answer: 100,000 results are about 20 MB.
	maxReply = 64 << 20
)

// ErrNoPeer says that the peer cannot be asked now.
var ErrNoPeer = errors.New("the peer cannot be asked")

// call sends JSON to the peer and decodes its answer. It returns ErrNoPeer,
// wrapped, if there is none to ask.
func (e *Engine) call(ctx context.Context, timeout time.Duration, method, path string, in, out any) error {
	addr := e.target()
	e.mu.Lock()
	up := e.state.session != SessionDown && e.state.lost.IsZero()
	e.mu.Unlock()
	if addr == "" || !up {
		return ErrNoPeer
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var body []byte
	if in != nil {
		body = encodeBody(in)
	}
	req, err := http.NewRequestWithContext(ctx, method, e.url(addr, path), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("call the peer: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.wire.client.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoPeer, err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return errNotThere
	case resp.StatusCode != http.StatusOK:
		return readRefusal(resp)
	}
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err == nil {
		err = json.Unmarshal(reply, out)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoPeer, err)
	}
	return nil
}

var errNotThere = errors.New("the peer does not have it")

// caller is who calls, on the wire: every call but a look for one job has it.
type caller struct {
	Node    string  `json:"node"`
	Cluster string  `json:"cluster"`
	Store   jobs.ID `json:"store"`
	Boot    jobs.ID `json:"boot"`
	Proto   [2]int  `json:"proto"`
}

func (e *Engine) caller() caller {
	return caller{e.me.Node, e.me.Cluster, e.me.Store, e.me.Boot, [2]int{protoMin, protoMax}}
}

func (c caller) identity() Identity {
	return Identity{Node: c.Node, Cluster: c.Cluster, Store: c.Store, Boot: c.Boot, ProtoMin: c.Proto[0], ProtoMax: c.Proto[1]}
}

// serveCall decodes a call, lets its caller in and answers with what f returns.
func serveCall[In any](e *Engine, w http.ResponseWriter, r *http.Request, who func(*In) caller, f func(context.Context, *In) (any, error)) {
	var in In
	if err := decodeBody(r.Body, &in); err != nil {
		e.writeError(w, e.refuse(&Refusal{RefusedMalformed, err.Error()}))
		return
	}
	id := who(&in).identity()
	no := named(r, id.Node)
	if no == nil {
		no = e.admit(id)
	}
	if no == nil && e.store.Reading().Peer != id.Node { // only the feed makes a peer
		no = &Refusal{RefusedStranger, fmt.Sprintf("node %s is not the peer of %s", id.Node, e.cfg.Node)}
	}
	if no != nil {
		e.writeError(w, e.refuse(no))
		return
	}
	out, err := f(r.Context(), &in)
	if err != nil {
		e.writeError(w, err)
		return
	}
	body, err := json.Marshal(out)
	if err != nil {
		e.writeError(w, err)
		return
	}
	writeBody(w, body)
}

// foundJob is a job as its home sees it.
type foundJob struct {
	Row    []byte  `json:"row"` // a row's payload
	Leased bool    `json:"leased,omitempty"`
	Done   uint64  `json:"done,omitempty"`
	Rate   float64 `json:"rate,omitempty"`
	Worker string  `json:"worker,omitempty"`
}

// Find asks the peer for a job. The second result is false if the peer does
// not have it; the error is ErrNoPeer, wrapped, if it could not be asked.
func (e *Engine) Find(ctx context.Context, id jobs.ID) (jobs.View, bool, error) {
	var f foundJob
	err := e.call(ctx, findTimeout, http.MethodGet, "/peer/jobs/"+id.String(), nil, &f)
	if errors.Is(err, errNotThere) {
		return jobs.View{}, false, nil
	}
	if err != nil {
		return jobs.View{}, false, err
	}
	row, err := decodeRow(f.Row)
	if err != nil || row.Job.ID != id {
		return jobs.View{}, false, fmt.Errorf("%w: %w", ErrNoPeer, errGarbage)
	}
	return jobs.View{Job: row.Job, Leased: f.Leased, Done: f.Done, Rate: f.Rate, Worker: f.Worker}, true, nil
}

func (e *Engine) serveFind(w http.ResponseWriter, r *http.Request) {
	id, err := jobs.ParseID(r.PathValue("id"))
	if err != nil {
		e.writeError(w, e.refuse(&Refusal{RefusedMalformed, err.Error()}))
		return
	}
	if no := named(r, e.store.Reading().Peer); no != nil {
		e.writeError(w, e.refuse(no))
		return
	}
	v, found, err := e.host.Find(r.Context(), id)
	switch {
	case err != nil:
		e.writeError(w, err)
		return
	case !found:
		http.Error(w, "not here", http.StatusNotFound)
		return
	}
	v.Rungs = v.Rungs.First(fewRungs)                                                                                                                   // it is asked for its progress, and often
	body, _ := json.Marshal(foundJob{Row: appendRowFields(nil, &jobs.Row{Job: v.Job}), Leased: v.Leased, Done: v.Done, Rate: v.Rate, Worker: v.Worker}) // plain fields never fail
	writeBody(w, body)
}

// consumeCall hands out results of the peer's home. Again: only what the key
// has got before.
type consumeCall struct {
	caller
	Top   int    `json:"top"`
	Key   string `json:"key,omitempty"`
	Again bool   `json:"again,omitempty"`
	Owner string `json:"owner,omitempty"` // only of its jobs
}

type consumed struct {
	Results []wireResult `json:"results"`
}

type wireResult struct {
	ID         jobs.ID `json:"id"`
	Value      []byte  `json:"value"`
	Iterations uint64  `json:"iterations"`
	DoneAt     int64   `json:"done_at"` // microseconds
}

// Consume hands out results of the peer's home, marked as pulled there. It
// returns ErrNoPeer, wrapped, if the peer cannot be asked: what it may have
// marked is then handed out again by nobody, but for the same key. Where ctx
// sees one owner's jobs only, results of no others are handed out, and a peer
// that knows of no owners is not asked.
func (e *Engine) Consume(ctx context.Context, top int, key string, again bool) ([]jobs.Result, error) {
	var out consumed
	owner := jobs.ViewOf(ctx)
	if owner != "" {
		e.mu.Lock()
		knows := e.peer.hello.Schema >= schemaOwner
		e.mu.Unlock()
		if !knows {
			return nil, ErrNoPeer
		}
	}
	if err := e.call(ctx, consumeTimeout, http.MethodPost, "/peer/consume", consumeCall{e.caller(), top, key, again, owner}, &out); err != nil {
		return nil, err
	}
	results := make([]jobs.Result, 0, len(out.Results))
	for _, r := range out.Results {
		v := jobs.Result{ID: r.ID, Iterations: r.Iterations, DoneAt: time.UnixMicro(r.DoneAt).UTC()}
		if len(r.Value) != len(v.Value) {
			return nil, fmt.Errorf("%w: %w", ErrNoPeer, errGarbage)
		}
		copy(v.Value[:], r.Value)
		results = append(results, v)
	}
	return results, nil
}

func (e *Engine) serveConsume(w http.ResponseWriter, r *http.Request) {
	serveCall(e, w, r, func(c *consumeCall) caller { return c.caller }, func(ctx context.Context, c *consumeCall) (any, error) {
		if c.Owner != "" {
			ctx = jobs.WithView(ctx, c.Owner)
		}
		found, err := e.host.ConsumeHere(ctx, max(c.Top, 0), c.Key, c.Again)
		if err != nil {
			return nil, err
		}
		out := consumed{Results: make([]wireResult, 0, len(found))}
		for i := range found {
			v := &found[i]
			out.Results = append(out.Results, wireResult{v.ID, v.Value[:], v.Iterations, v.DoneAt.UnixMicro()})
		}
		return out, nil
	})
}

type stealCall struct {
	caller
	Max int `json:"max"`
}

type stolen struct {
	IDs []jobs.ID `json:"ids"`
}

// Steal asks the peer for up to max jobs that wait there. Their rows come by the
// feed; it returns how many.
func (e *Engine) Steal(ctx context.Context, max int) (int, error) {
	var out stolen
	if err := e.call(ctx, stealTimeout, http.MethodPost, "/peer/steal", stealCall{e.caller(), max}, &out); err != nil {
		return 0, err
	}
	e.mu.Lock()
	e.count.stolen += int64(len(out.IDs))
	e.mu.Unlock()
	return len(out.IDs), nil
}

func (e *Engine) serveSteal(w http.ResponseWriter, r *http.Request) {
	serveCall(e, w, r, func(c *stealCall) caller { return c.caller }, func(ctx context.Context, c *stealCall) (any, error) {
		ids, err := e.host.GiveAway(ctx, c.Node, min(max(c.Max, 0), maxSteal))
		if err != nil {
			return nil, err
		}
		return stolen{IDs: ids}, nil
	})
}

// proposeFloor runs one round of the floor, if one is due.
func (e *Engine) proposeFloor(ctx context.Context) error {
	req, ok, err := e.ProposeFloor(ctx)
	if err != nil || !ok {
		return err
	}
	addr := e.target()
	ctx, cancel := context.WithTimeout(ctx, floorPatience)
	defer cancel()
	hr, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url(addr, "/peer/gc"), bytes.NewReader(encodeFloorRequest(req)))
	if err != nil {
		return fmt.Errorf("propose a floor: %w", err)
	}
	resp, err := e.wire.client.Do(hr)
	if err != nil {
		return fmt.Errorf("propose a floor: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return readRefusal(resp)
	}
	reply, err := decodeFloorReply(resp.Body)
	if err != nil {
		return fmt.Errorf("propose a floor: %w", err)
	}
	for {
		done, err := e.FinishFloor(ctx, reply)
		if done || err != nil {
			return err
		}
		t := time.NewTimer(stepInterval)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return &Refusal{RefusedRound, "the peer's newest jobs did not come in time"}
		}
	}
}
