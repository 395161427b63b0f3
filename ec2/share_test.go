package ec2_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"workmanager/ec2"
	"workmanager/ec2/ec2test"
)

// pairOf are two schedulers that hear of each other; a leads.
func pairOf(w *world) (a, b *ec2.Scheduler, tick func(n int)) {
	members := func(self string) func() ec2.Members {
		return func() ec2.Members { return ec2.Members{Self: self, Alive: []string{"a", "b"}, Pair: true} }
	}
	a = w.scheduler("a", fleetConfig(), ec2.Parts{Members: members("a")})
	b = w.scheduler("b", fleetConfig(), ec2.Parts{Members: members("b")})
	return a, b, func(n int) {
		w.t.Helper()
		for range n {
			w.step(a, b)
			if err := b.Heard(w.now, a.Share(w.now)); err != nil {
				w.t.Fatal(err)
			}
			if err := a.Heard(w.now, b.Share(w.now)); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

func TestShare_orders_reach_the_node_that_leads(t *testing.T) {
	w := newWorld(t, 1, ec2test.Options{Boot: 20 * time.Second})
	a, b, tick := pairOf(w)
	b.Pause(true)
	w.wanted = 3
	tick(6)
	w.live(0, "in a pause that was ordered at the other node")
	if a.Fleet(w.now).Paused == "" || b.Fleet(w.now).Paused == "" {
		t.Error("not both say that they pause")
	}
	a.Pause(false)
	tick(12) // until b, which looks each minute, has seen them
	w.live(3, "after it")
	if b.Fleet(w.now).Paused != "" {
		t.Error("the other node still pauses")
	}
	ids := []string{}
	for _, i := range w.cloud.Alive() {
		ids = append(ids, i.ID)
	}
	if err := b.Order(ids[0], ec2.Terminate); err != nil {
		t.Fatal(err)
	}
	if err := b.Order(ids[0], ec2.Drain); err != nil { // too late
		t.Fatal(err)
	}
	tick(3)
	if slices.ContainsFunc(w.cloud.Alive(), func(i ec2test.Instance) bool { return i.ID == ids[0] }) {
		t.Error("the instance lives")
	}
	w.deaf = 1 // the worker goes on, so the order must stand
	if err := b.Order(ids[1], ec2.Drain); err != nil {
		t.Fatal(err)
	}
	tick(3)
	for _, node := range []string{"a", "b"} {
		if !slices.Contains(w.orders[node].Drain, ids[1]) {
			t.Errorf("node %s tells its workers %+v, want %s to drain", node, w.orders[node], ids[1])
		}
	}
	if err := b.Order("i-unknown", ec2.Drain); err == nil {
		t.Error("Order() of what nobody knows = nil")
	}
}

func TestScheduler_remembers(t *testing.T) {
	w := newWorld(t, 1, ec2test.Options{Boot: 20 * time.Second})
	s := w.scheduler("a", fleetConfig(), ec2.Parts{})
	w.wanted = 2
	w.steps(12, s)
	w.live(2, "wanted")
	ids := w.cloud.Alive()
	w.cloud.Shutdown(ids[0].ID) // its slot comes to generation 1
	w.steps(4, s)
	w.deaf = 1
	if err := s.Order(ids[1].ID, ec2.Drain); err != nil {
		t.Fatal(err)
	}
	s.Pause(true)
	saved := s.Save()
	if again := s.Save(); !bytes.Equal(saved, again) {
		t.Errorf("Save() = %s, then %s", saved, again)
	}
	boot := s.Fleet(w.now).Boot

	next := w.scheduler("a", fleetConfig(), ec2.Parts{})
	if err := next.Restore(saved); err != nil {
		t.Fatal(err)
	}
	if f := next.Fleet(w.now); f.Paused == "" || f.Boot.Round(time.Second) != boot.Round(time.Second) {
		t.Errorf("after a restart %+v, want a pause and a boot of %v", f, boot)
	}
	w.steps(2, next)
	if !slices.Contains(w.orders["a"].Drain, ids[1].ID) {
		t.Errorf("workers are told %+v, want %s to drain", w.orders["a"], ids[1].ID)
	}
	if got := next.Save(); !bytes.Contains(got, []byte(`"marks":[`+fmt.Sprint(2))) {
		t.Errorf("generations are forgotten: %s", got)
	}
	for _, bad := range []string{"", "[]", "{", `{"marks":"x"}`} {
		if err := next.Restore([]byte(bad)); err == nil {
			t.Errorf("Restore(%q) = nil", bad)
		}
	}
	if err := next.Restore([]byte(`{"boot":-5,"lanes":0,"asked":["x launch","y"]}`)); err != nil {
		t.Error(err)
	}
	if f := next.Fleet(w.now); f.Boot.Round(time.Second) != boot.Round(time.Second) {
		t.Errorf("a boot of %v was believed", f.Boot)
	}
}

// Whatever workers call themselves, a share fits the heartbeat of the pair.
func TestShare_fits_whatever_workers_are_called(t *testing.T) {
	w := newWorld(t, 1, ec2test.Options{})
	r := rand.New(rand.NewPCG(1, 1))
	names := &named{backlog: backlog{w: w, node: "a"}}
	for range 4 * ec2.MaxWorkers {
		var b strings.Builder
		for range 32 {
			b.WriteByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-."[r.IntN(64)])
		}
		names.list = append(names.list, b.String())
	}
	s := w.scheduler("a", fleetConfig(), ec2.Parts{Backlog: names})
	w.steps(2, s)
	for _, n := range names.list[:2*ec2.MaxWorkers] {
		if err := s.Order(n, ec2.Drain); err != nil {
			t.Fatal(err)
		}
	}
	b := s.Share(w.now)
	if len(b) == 0 || len(b) > 8<<10 {
		t.Errorf("Share() has %d bytes, at most 8192 fit", len(b))
	}
	other := w.scheduler("b", fleetConfig(), ec2.Parts{})
	if err := other.Heard(w.now, b); err != nil {
		t.Error(err)
	}
}

// named is a backlog with workers of any name.
type named struct {
	backlog
	list []string
}

func (b *named) Demand(ctx context.Context) (ec2.Demand, error) {
	d, err := b.backlog.Demand(ctx)
	for _, n := range b.list {
		d.Workers = append(d.Workers, ec2.Worker{Instance: n, Lanes: 8, Rate: 1e6, SeenAt: b.w.now})
	}
	return d, err
}
