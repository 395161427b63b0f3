package sync

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"workmanager/jobs"
)

// doubtful is a host that keeps quarantines.
type doubtful struct {
	stubHost
	rows map[jobs.Subject]jobs.Quarantine
	fail error
}

func (h *doubtful) Quarantines() ([]jobs.Quarantine, jobs.QuarantineSum) {
	rows := slices.Collect(maps.Values(h.rows))
	return rows, jobs.SumQuarantines(rows)
}

func (h *doubtful) TakeQuarantines(_ context.Context, rows []jobs.Quarantine) error {
	if h.fail != nil {
		return h.fail
	}
	for _, q := range rows {
		h.rows[q.Subject] = jobs.MergeQuarantines(h.rows[q.Subject], q)
	}
	return nil
}

func (h *doubtful) change(r *rand.Rand, node, worker string) {
	s := jobs.Subject{Worker: worker}
	h.rows[s] = h.rows[s].Next(jobs.Quarantine{Subject: s, Barred: r.IntN(2) == 0, Node: node, Reason: "<\"&>", Since: time.UnixMicro(1e15 + r.Int64N(1e6)), Said: jobs.Print{1, byte(r.IntN(256))}})
}

// TestQuarantines_are_shared: one round, begun by either node, brings both to
// hold the same, however many rows there are, and one of them that says nothing
// new costs one call without rows.
func TestQuarantines_are_shared(t *testing.T) {
	c := &clock{}
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		hosts := [2]*doubtful{{rows: map[jobs.Subject]jobs.Quarantine{}}, {rows: map[jobs.Subject]jobs.Quarantine{}}}
		var nodes [2]*Engine
		calls, carried := 0, 0
		for n := range nodes {
			nodes[n] = New(Config{Node: []string{"a", "b"}[n], Cluster: "c", Now: c.now}, newShelf(byte(n+1)), hosts[n])
		}
		round := func(n int) bool {
			t.Helper()
			same, err := nodes[n].Quarantine(t.Context(), func(ctx context.Context, call QuarantineCall) (QuarantineReply, error) {
				var over QuarantineCall
				var back QuarantineReply
				b, err := json.Marshal(call)
				if err != nil || len(b) > maxBody || json.Unmarshal(b, &over) != nil {
					t.Fatalf("a call of %d bytes, %v", len(b), err)
				}
				calls, carried = calls+1, carried+len(call.Rows)
				reply, err := nodes[1-n].Quarantined(ctx, &over)
				if err != nil {
					return reply, err
				}
				b, err = json.Marshal(reply)
				if err != nil || json.Unmarshal(b, &back) != nil {
					t.Fatal(err)
				}
				return back, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return same
		}
		for lost := range 4 {
			for range r.IntN(900) {
				n := r.IntN(2)
				hosts[n].change(r, fmt.Sprint(n), fmt.Sprint("w", r.IntN(1000)))
			}
			n := r.IntN(2)
			if !round(n) || !maps.Equal(hosts[0].rows, hosts[1].rows) {
				t.Fatalf("seed %d: %d and %d rows after a round", seed, len(hosts[0].rows), len(hosts[1].rows))
			}
			calls, carried = 0, 0
			if !round(n) || calls != 1 || carried != 0 {
				t.Errorf("seed %d: with nothing new %d calls with %d rows", seed, calls, carried)
			}
			if lost == 2 { // what the other has lost meanwhile it gets again
				was := maps.Clone(hosts[n].rows)
				clear(hosts[1-n].rows)
				if !round(n) || !maps.Equal(hosts[1-n].rows, was) {
					t.Errorf("seed %d: %d of %d rows after the other had lost all", seed, len(hosts[1-n].rows), len(was))
				}
			}
		}
	}
}

// TestQuarantines_of_a_bad_peer: a row that no node can have made keeps the others
// from nobody, and what cannot be stored is an error.
func TestQuarantines_of_a_bad_peer(t *testing.T) {
	c := &clock{}
	h := &doubtful{rows: map[jobs.Subject]jobs.Quarantine{}}
	e := New(Config{Node: "a", Cluster: "c", Now: c.now}, newShelf(1), h)
	good := wireQuarantine{Worker: "w", Turn: 1, Barred: true, Since: 1e15, Said: "0102030405060708"}
	call := QuarantineCall{Rows: []wireQuarantine{good}}
	for _, change := range []func(q *wireQuarantine){
		func(q *wireQuarantine) { q.Worker = "" }, func(q *wireQuarantine) { q.Turn = 0 }, func(q *wireQuarantine) { q.Turn = 1 << 62 }, func(q *wireQuarantine) { q.Since = 1 << 62 },
		func(q *wireQuarantine) { q.Said = "01" }, func(q *wireQuarantine) { q.Right = "zz" }, func(q *wireQuarantine) { q.Done = 1 << 60 },
	} {
		bad := good
		bad.Worker = "x"
		change(&bad)
		call.Rows = append(call.Rows, bad)
	}
	reply, err := e.Quarantined(t.Context(), &call)
	if err != nil || len(h.rows) != 1 || !h.rows[jobs.Subject{Worker: "w"}].Barred || len(reply.Rows) != 1 || reply.Rows[0] != good {
		t.Errorf("%+v, %v; holds %v", reply, err, h.rows)
	}
	h.fail = errors.New("disk")
	if _, err := e.Quarantined(t.Context(), &call); !errors.Is(err, h.fail) {
		t.Errorf("not stored: %v", err)
	}
	if _, err := e.ShareQuarantines(t.Context()); !errors.Is(err, ErrNoPeer) {
		t.Errorf("without a peer: %v", err)
	}
	if err := e.shareRound(t.Context()); err != nil {
		t.Errorf("a round without a peer: %v", err)
	}
	// A host that keeps none.
	x := newShelved("a", 1, c.now)
	if _, err := x.Quarantined(t.Context(), &call); err == nil {
		t.Error("a node that keeps none takes some")
	}
}
