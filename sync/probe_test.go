package sync

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"workmanager/jobs"
)

// TestProbe asks real gossip over real sockets.
func TestProbe(t *testing.T) {
	t.Parallel() // what does not answer is waited for
	key, other := make([]byte, 32), make([]byte, 32)
	other[0] = 1
	for _, keys := range [][][]byte{nil, {key}} {
		g, err := newGossip(gossipConfig{Node: "a", Cluster: "x", Boot: jobs.ID{1}, Store: jobs.ID{1}, Bind: "127.0.0.1:0", API: "127.0.0.1:1", Keys: keys, Log: slog.New(slog.DiscardHandler)}, &heard{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		if p := Probe(t.Context(), g.Addr(), "x", keys, 20*time.Second); p.TCP != nil || p.UDP != nil || p.Took <= 0 {
			t.Errorf("of gossip with %d keys: %+v", len(keys), p)
		}
		if n := g.list.NumMembers(); n != 1 {
			t.Errorf("the probe was taken for a node: %d are listed", n)
		}
		if p := Probe(t.Context(), g.Addr(), "y", keys, 2*time.Second); p.TCP != nil || p.UDP == nil {
			t.Errorf("of another cluster: %+v, want an answer by TCP only", p)
		}
		if len(keys) > 0 {
			if p := Probe(t.Context(), g.Addr(), "x", [][]byte{other}, 300*time.Millisecond); p.UDP == nil {
				t.Errorf("with another key: %+v, want no answer by UDP", p)
			}
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if p := Probe(t.Context(), l.Addr().String(), "x", nil, 2*time.Second); p.TCP != nil || p.UDP == nil {
		t.Errorf("with UDP closed: %+v", p)
	}
	l.Close()
	if p := Probe(t.Context(), l.Addr().String(), "x", nil, 300*time.Millisecond); p.TCP == nil || p.UDP == nil {
		t.Errorf("with nobody there: %+v", p)
	}
}
