package sync

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
)

var waitID = jobs.ID{0x55}

// stamp tells an engine that a job's row will stand at l.
func (x *shelved) stamp(id jobs.ID, l jobs.LSeq) {
	x.Stamped([]jobs.Changed{{Row: jobs.Row{Job: jobs.Job{ID: id}, LSeq: l}}})
}

// read is a request of the peer that has read up to l.
func (x *shelved) read1(t testing.TB, l jobs.LSeq) {
	t.Helper()
	x.ask(t, jobs.Cursor{Boot: x.s.boot, At: l, SeenHead: l})
}

// idle fails if anything is still waited for.
func (x *shelved) idle(t testing.TB) {
	t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.waiters.byID) != 0 || len(x.waiters.heap) != 0 {
		t.Errorf("%d rows and %d places are still waited for", len(x.waiters.byID), len(x.waiters.heap))
	}
}

// TestWait says what a wait comes to: "both", "local", or "" while it is open.
func TestWait(t *testing.T) {
	id2 := jobs.ID{0x66}
	for _, tc := range []struct {
		name string
		ids  []jobs.ID
		do   func(t *testing.T, x *shelved, w *Wait)
		want []string
	}{
		{"covered", []jobs.ID{waitID}, func(t *testing.T, x *shelved, w *Wait) {
			x.stamp(waitID, 1)
			x.read1(t, 1)
		}, []string{"both"}},
		{"not_covered", []jobs.ID{waitID}, func(t *testing.T, x *shelved, w *Wait) {
			x.stamp(waitID, 2)
			x.read1(t, 1)
		}, []string{""}},
		{"not_stamped_yet", []jobs.ID{waitID}, func(t *testing.T, x *shelved, w *Wait) { x.read1(t, 100) }, []string{""}},
		{"moved_while_waited_for", []jobs.ID{waitID}, func(t *testing.T, x *shelved, w *Wait) {
			x.stamp(waitID, 1)
			x.stamp(waitID, 7)
			x.read1(t, 6)
		}, []string{""}},
		{"moved_and_covered_there", []jobs.ID{waitID}, func(t *testing.T, x *shelved, w *Wait) {
			x.stamp(waitID, 1)
			x.stamp(waitID, 7)
			x.read1(t, 6)
			x.read1(t, 7)
		}, []string{"both"}},
		{"confirmed_before_commit_returns", []jobs.ID{waitID}, func(t *testing.T, x *shelved, w *Wait) {
			x.stamp(waitID, 1)
			x.read1(t, 1)
			x.Stands(w, 0, 1) // only now the writer is back
		}, []string{"both"}},
		{"was_there_and_is_not_covered", []jobs.ID{waitID}, func(t *testing.T, x *shelved, w *Wait) {
			x.Stands(w, 0, 5)
			x.read1(t, 4)
		}, []string{""}},
		{"was_there_and_was_covered_before", []jobs.ID{waitID}, func(t *testing.T, x *shelved, w *Wait) {
			x.read1(t, 5)
			x.Stands(w, 0, 5) // what was confirmed may be lost since
		}, []string{""}},
		{"was_there_and_is_confirmed_anew", []jobs.ID{waitID}, func(t *testing.T, x *shelved, w *Wait) {
			x.read1(t, 5)
			x.Stands(w, 0, 5)
			x.read1(t, 5)
		}, []string{"both"}},
		{"was_there_and_an_older_request_comes_late", []jobs.ID{waitID}, func(t *testing.T, x *shelved, w *Wait) {
			x.read1(t, 5)
			x.Stands(w, 0, 5)
			if err := x.asked(t.Context(), Request{Identity: peerIdentity(), Now: x.now(),
				Cursor: jobs.Cursor{Boot: x.s.boot, At: 5, SeenHead: 5}}); err != nil { // says no word
				t.Fatal(err)
			}
		}, []string{""}},
		{"a_word_of_another_boot_counts_for_nothing", []jobs.ID{waitID}, func(t *testing.T, x *shelved, w *Wait) {
			x.read1(t, 5)
			x.Stands(w, 0, 5)
			if err := x.asked(t.Context(), Request{Identity: peerIdentity(), Now: x.now(), WordOf: jobs.ID{0x99}, Word: 99,
				Cursor: jobs.Cursor{Boot: x.s.boot, At: 5, SeenHead: 5}}); err != nil {
				t.Fatal(err)
			}
		}, []string{""}},
		{"stamped_after_it_stood_lower", []jobs.ID{waitID}, func(t *testing.T, x *shelved, w *Wait) {
			x.stamp(waitID, 9)
			x.Stands(w, 0, 5)
			x.read1(t, 8)
		}, []string{""}},
		{"cursor_of_another_boot", []jobs.ID{waitID}, func(t *testing.T, x *shelved, w *Wait) {
			x.stamp(waitID, 1)
			x.ask(t, jobs.Cursor{Boot: jobs.ID{0x99}, At: 9, SeenHead: 9})
		}, []string{""}},
		{"refill_stretch_not_read", []jobs.ID{waitID, id2}, func(t *testing.T, x *shelved, w *Wait) {
			x.stamp(waitID, 50) // above back_at, at or below back_to
			x.stamp(id2, 120)
			x.ask(t, jobs.Cursor{Boot: x.s.boot, At: 120, SeenHead: 120, BackAt: 49, BackTo: 100})
		}, []string{"", "both"}},
		{"refill_stretch_read", []jobs.ID{waitID, id2}, func(t *testing.T, x *shelved, w *Wait) {
			x.stamp(waitID, 50)
			x.stamp(id2, 120)
			x.ask(t, jobs.Cursor{Boot: x.s.boot, At: 110, SeenHead: 120, BackAt: 49, BackTo: 100})
			x.ask(t, jobs.Cursor{Boot: x.s.boot, At: 110, SeenHead: 120, BackAt: 50, BackTo: 100})
		}, []string{"both", ""}},
		{"refill_done", []jobs.ID{waitID, id2}, func(t *testing.T, x *shelved, w *Wait) {
			x.stamp(waitID, 50)
			x.stamp(id2, 120)
			x.ask(t, jobs.Cursor{Boot: x.s.boot, At: 119, SeenHead: 120, BackAt: 10, BackTo: 100})
			x.read1(t, 120)
		}, []string{"both", "both"}},
		{"one_of_two", []jobs.ID{waitID, id2}, func(t *testing.T, x *shelved, w *Wait) {
			x.stamp(waitID, 1)
			x.stamp(id2, 2)
			x.read1(t, 1)
		}, []string{"both", ""}},
		{"one_row_twice_in_a_wait", []jobs.ID{waitID, waitID}, func(t *testing.T, x *shelved, w *Wait) {
			x.stamp(waitID, 1)
			x.read1(t, 1)
		}, []string{"both", "both"}},
		{"one_row_twice_and_one_dropped", []jobs.ID{waitID, waitID, waitID}, func(t *testing.T, x *shelved, w *Wait) {
			x.Drop(w, 1)
			x.stamp(waitID, 1)
			x.read1(t, 1)
		}, []string{"both", "local", "both"}},
		{"dropped", []jobs.ID{waitID, id2}, func(t *testing.T, x *shelved, w *Wait) {
			x.Drop(w, 0)
			x.stamp(id2, 1)
			x.read1(t, 1)
		}, []string{"local", "both"}},
		{"dropped_twice_and_after_it_is_confirmed", []jobs.ID{waitID}, func(t *testing.T, x *shelved, w *Wait) {
			x.stamp(waitID, 1)
			x.read1(t, 1)
			x.Drop(w, 0)
			x.Drop(w, 0)
		}, []string{"both"}},
		{"cancelled", []jobs.ID{waitID, id2}, func(t *testing.T, x *shelved, w *Wait) {
			x.stamp(waitID, 1)
			x.Cancel(w)
			x.read1(t, 1)
		}, []string{"local", "local"}},
		{"sync_is_left", []jobs.ID{waitID, id2}, func(t *testing.T, x *shelved, w *Wait) {
			x.stamp(waitID, 1)
			x.read1(t, 1)
			x.Lost()
			x.stamp(id2, 2)
			x.read1(t, 2)
		}, []string{"both", "local"}},
		{"gossip_brought_it", []jobs.ID{waitID}, func(t *testing.T, x *shelved, w *Wait) {
			x.stamp(waitID, 1)
			if err := x.TakeCopies(t.Context(), jobs.ID{2, 2}, []jobs.Row{{Job: newJob(1, "b")}}); err != nil {
				t.Fatal(err)
			}
		}, []string{""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &clock{}
			x := newShelved("a", 1, c.now)
			x.up(t)
			w := x.Expect(tc.ids)
			tc.do(t, x, w)
			open := 0
			for i, want := range tc.want {
				got := "local"
				switch it := &w.items[i]; {
				case !it.ended:
					got = ""
					open++
				case it.both:
					got = "both"
				}
				if got != want {
					t.Errorf("row %d: %q, want %q", i, got, want)
				}
			}
			if w.left != open {
				t.Errorf("left %d, want %d", w.left, open)
			}
			select {
			case <-w.done:
				if open > 0 {
					t.Error("done, but rows are open")
				}
			default:
				if open == 0 {
					t.Error("not done, but nothing is open")
				}
			}
			x.GiveUp(w, jobs.AckDefault)
			x.idle(t)
		})
	}
}

// TestWait_several_on_one_row: each is its own, whatever becomes of the others.
func TestWait_several_on_one_row(t *testing.T) {
	c := &clock{}
	x := newShelved("a", 1, c.now)
	x.up(t)
	var ws []*Wait
	for range 5 {
		ws = append(ws, x.Expect([]jobs.ID{waitID}))
	}
	x.stamp(waitID, 1)
	x.Drop(ws[2], 0) // the middle, the first and the last of the list
	x.Cancel(ws[4])
	x.GiveUp(ws[0], jobs.AckDefault)
	x.stamp(waitID, 3)
	x.read1(t, 2)
	for _, i := range []int{1, 3} {
		if _, decided := x.Confirmed(ws[i]); decided {
			t.Errorf("wait %d is decided at 2, the row stands at 3", i)
		}
	}
	x.read1(t, 3)
	for i, want := range []bool{false, true, false, true, false} {
		if both, decided := x.Confirmed(ws[i]); both != want || !decided {
			t.Errorf("wait %d: both %v, decided %v, want %v", i, both, decided, want)
		}
	}
	x.idle(t)
}

// TestAwait in virtual time: how long each kind of wait takes, and what it says.
func TestAwait(t *testing.T) {
	for _, tc := range []struct {
		name   string
		ack    jobs.Ack
		do     func(x *shelved) // 100 ms after the wait began
		cancel bool             // the client goes 100 ms after
		took   time.Duration
		both   bool
		reason string
	}{
		{"confirmed", jobs.AckDefault, func(x *shelved) { x.stamp(waitID, 1); x.read1(t, 1) }, false, 100 * time.Millisecond, true, ""},
		{"confirmed_strictly", jobs.AckBoth, func(x *shelved) { x.stamp(waitID, 1); x.read1(t, 1) }, false, 100 * time.Millisecond, true, ""},
		{"patience_is_over", jobs.AckDefault, nil, false, AckTimeout, false, reasonTimeout},
		{"strict_patience_is_over", jobs.AckBoth, func(x *shelved) {
			for range 60 { // the peer is there, and does not come to the row
				x.up(t)
				time.Sleep(100 * time.Millisecond)
			}
		}, false, StrictTimeout, false, reasonTimeout},
		{"not_waited_for", jobs.AckLocal, nil, false, 0, false, reasonAsked},
		{"sync_is_left", jobs.AckDefault, func(x *shelved) { x.Lost() }, false, 100 * time.Millisecond, false, reasonDown},
		{"sync_is_left_strictly", jobs.AckBoth, func(x *shelved) { x.Lost() }, false, 100 * time.Millisecond, false, reasonDown},
		{"the_client_goes", jobs.AckBoth, nil, true, 100 * time.Millisecond, false, reasonTimeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newShelved("a", 1, time.Now)
				x.up(t)
				w := x.Expect([]jobs.ID{waitID})
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				began := time.Now()
				go func() {
					time.Sleep(100 * time.Millisecond)
					if tc.do != nil {
						tc.do(x)
					}
					if tc.cancel {
						cancel()
					}
				}()
				got := x.Await(ctx, w, tc.ack)
				if took := time.Since(began); took != tc.took {
					t.Errorf("it took %v, want %v", took, tc.took)
				}
				if len(got) != 1 || got[0].Both != tc.both || got[0].Reason != tc.reason {
					t.Errorf("Await = %+v, want both %v, reason %q", got, tc.both, tc.reason)
				}
				x.idle(t)
				time.Sleep(10 * time.Second) // the other goroutine ends
			})
		})
	}
}

// TestAwait_context_done: a client that is gone already takes no time, is no
// timeout and leaves nothing behind.
func TestAwait_context_done(t *testing.T) {
	x := newShelved("a", 1, time.Now)
	x.up(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := x.Expect([]jobs.ID{waitID, {2}})
	x.stamp(waitID, 1)
	if got := x.Await(ctx, w, jobs.AckBoth); len(got) != 2 || got[0].Both || got[1].Both {
		t.Errorf("Await = %+v, want two local", got)
	}
	if n := x.Peer().Counters.AckTimeouts; n != 0 {
		t.Errorf("%d timeouts counted, want 0: the peer was not given its time", n)
	}
	x.idle(t)
}

// TestExpect_not_in_sync enters nothing and says why.
func TestExpect_not_in_sync(t *testing.T) {
	x := newShelved("a", 1, time.Now)
	w := x.Expect([]jobs.ID{waitID})
	x.stamp(waitID, 1)
	x.Stands(w, 0, 1)
	x.Drop(w, 0)
	x.Cancel(w)
	if both, decided := x.Confirmed(w); both || !decided {
		t.Errorf("Confirmed = %v, %v, want false, true", both, decided)
	}
	if got := x.Await(t.Context(), w, jobs.AckDefault); len(got) != 1 || got[0].Reason != reasonDown {
		t.Errorf("Await = %+v, want %q", got, reasonDown)
	}
	x.idle(t)

	x = newShelved("a", 1, time.Now)
	x.up(t)
	w = x.Expect(nil)
	if got := x.Await(t.Context(), w, jobs.AckBoth); len(got) != 0 {
		t.Errorf("Await of nothing = %+v", got)
	}
}

// TestAwait_three_timeouts in a row leave sync; a confirmation between them
// begins the count anew.
func TestAwait_three_timeouts(t *testing.T) {
	c := &clock{}
	x := newShelved("a", 1, c.now)
	x.up(t)
	late := func(n int) {
		for range n {
			w := x.Expect([]jobs.ID{waitID})
			x.stamp(waitID, 1_000)
			if got := x.GiveUp(w, jobs.AckDefault); got[0].Both || got[0].Reason == "" {
				t.Fatalf("GiveUp = %+v", got)
			}
		}
	}
	late(2)
	w := x.Expect([]jobs.ID{waitID})
	x.stamp(waitID, 1)
	x.read1(t, 1)
	if got := x.GiveUp(w, jobs.AckDefault); !got[0].Both {
		t.Fatalf("GiveUp = %+v, want both", got)
	}
	late(2)
	if why := x.Unsynced(); why != "" {
		t.Fatalf("not in sync (%s) after two timeouts in a row, twice", why)
	}
	open := x.Expect([]jobs.ID{{3}})
	late(1)
	if why := x.Unsynced(); why != reasonSlow {
		t.Errorf("Unsynced = %q after three timeouts, want %q", why, reasonSlow)
	}
	if _, decided := x.Confirmed(open); !decided {
		t.Error("another wait is still open")
	}
	if got := x.Await(t.Context(), open, jobs.AckBoth); got[0].Reason != reasonSlow {
		t.Errorf("Await = %+v, want %q", got, reasonSlow)
	}
	if n := x.Peer().Counters.AckTimeouts; n != 5 {
		t.Errorf("%d timeouts counted, want 5", n)
	}
	x.idle(t)
}

// modelWait is what a wait is, said simply.
type modelWait struct {
	w     *Wait
	items []modelItem
	gone  bool // settled
}

type modelItem struct {
	id    jobs.ID
	at    jobs.LSeq
	word  uint64
	ended bool
	both  bool
}

// FuzzWait: random histories come to what a list of open items comes to, and
// leave nothing behind.
func FuzzWait(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 3))
		c := &clock{}
		x := newShelved("a", 1, c.now)
		x.up(t)
		var ws []*modelWait
		var head jobs.LSeq
		ids := []jobs.ID{{1}, {2}, {3}, {4}}
		each := func(f func(it *modelItem)) {
			for _, m := range ws {
				for i := range m.items {
					if !m.items[i].ended {
						f(&m.items[i])
					}
				}
			}
		}
		pick := func() *modelWait {
			if len(ws) == 0 {
				return nil
			}
			return ws[rng.IntN(len(ws))]
		}
		synced := true
		for step := range 150 {
			switch op := rng.IntN(20); op {
			case 0, 1, 2, 3, 4:
				m := &modelWait{}
				for range rng.IntN(4) {
					m.items = append(m.items, modelItem{id: ids[rng.IntN(len(ids))]})
				}
				list := make([]jobs.ID, len(m.items))
				for i := range list {
					list[i] = m.items[i].id
				}
				if m.w = x.Expect(list); !synced {
					for i := range m.items {
						m.items[i].ended = true
					}
				}
				ws = append(ws, m)
			case 5, 6, 7, 8:
				var changed []jobs.Changed
				for range 1 + rng.IntN(3) {
					head++
					id := ids[rng.IntN(len(ids))]
					changed = append(changed, jobs.Changed{Row: jobs.Row{Job: jobs.Job{ID: id}, LSeq: head}})
					each(func(it *modelItem) {
						if it.id == id {
							it.at = head
						}
					})
				}
				x.Stamped(changed)
			case 9, 10:
				if m := pick(); m != nil && len(m.items) > 0 && head > 0 {
					i, l := rng.IntN(len(m.items)), 1+jobs.LSeq(rng.Int64N(int64(head)))
					x.Stands(m.w, i, l)
					if it := &m.items[i]; !it.ended && it.at < l {
						it.at, it.word = l, x.word
					}
				}
			case 11:
				if m := pick(); m != nil && len(m.items) > 0 {
					i := rng.IntN(len(m.items))
					x.Drop(m.w, i)
					m.items[i].ended = true
				}
			case 12:
				if m := pick(); m != nil {
					x.Cancel(m.w)
					for i := range m.items {
						m.items[i].ended = true
					}
				}
			case 13:
				if rng.IntN(4) == 0 {
					x.Lost()
					each(func(it *modelItem) { it.ended = true })
					synced = false
				}
			case 14:
				if m := pick(); m != nil && !m.gone {
					m.gone = true
					ctx, cancel := context.WithCancel(context.Background())
					cancel()
					got := x.Await(ctx, m.w, jobs.AckBoth) // may be decided, and then done
					for i := range m.items {
						if m.w.items != nil && got[i].Both != m.items[i].both {
							t.Fatalf("step %d: Await says both %v, want %v", step, got[i].Both, m.items[i].both)
						}
						m.items[i].ended = true
					}
				}
			default:
				cur := jobs.Cursor{Boot: x.s.boot, At: jobs.LSeq(rng.Int64N(int64(head) + 1)), SeenHead: head}
				if rng.IntN(3) == 0 {
					cur.BackTo = jobs.LSeq(rng.Int64N(int64(cur.At) + 1))
					if cur.BackTo > 0 {
						cur.BackAt = jobs.LSeq(rng.Int64N(int64(cur.BackTo)))
					}
				}
				said := x.word - min(x.word, rng.Uint64N(2))
				c.ms.Add(1)
				if err := x.greeted(context.Background(), &Hello{Identity: peerIdentity(), Now: c.now()}); err != nil {
					t.Fatal(err)
				}
				if err := x.asked(context.Background(), Request{Identity: peerIdentity(), Cursor: cur, WordOf: x.s.boot, Word: said, Now: c.now()}); err != nil {
					t.Fatal(err)
				}
				synced = true
				each(func(it *modelItem) {
					if it.at > 0 && cur.Covers(it.at) && it.word <= said {
						it.ended, it.both = true, true
					}
				})
			}
			places := 0
			names := map[jobs.ID]bool{}
			each(func(it *modelItem) {
				names[it.id] = true
				if it.at > 0 {
					places++
				}
			})
			if len(x.waiters.byID) != len(names) || len(x.waiters.heap) != places {
				t.Fatalf("step %d: %d rows and %d places are waited for, want %d and %d", step, len(x.waiters.byID), len(x.waiters.heap), len(names), places)
			}
			for n, m := range ws {
				for i, it := range m.items {
					if m.w.items == nil {
						continue
					}
					if got := m.w.items[i]; got.ended != it.ended || got.both != it.both || !it.ended && got.lseq != it.at {
						t.Fatalf("step %d, wait %d, row %d: ended %v, both %v, at %d, want %v, %v, %d", step, n, i, got.ended, got.both, got.lseq, it.ended, it.both, it.at)
					}
				}
			}
			for i, it := range x.waiters.heap {
				if it.at != i || i > 0 && x.waiters.heap[(i-1)/2].lseq > it.lseq {
					t.Fatalf("step %d: the heap is none at %d", step, i)
				}
			}
		}
		for _, m := range ws {
			x.GiveUp(m.w, jobs.AckDefault)
		}
		x.idle(t)
	})
}

// TestWait_concurrent: writers, the store's writer and the peer at once, under
// the race detector; a write that nothing is lost of is both in the end.
func TestWait_concurrent(t *testing.T) {
	x := newShelved("a", 1, func() time.Time { return stateEpoch })
	x.cfg.AckTimeout, x.cfg.StrictTimeout = 10*time.Second, 10*time.Second
	x.up(t)
	var mu sync.Mutex // the store's one writer; guards head
	var head jobs.LSeq
	write := func(list []jobs.ID) []jobs.LSeq {
		mu.Lock()
		defer mu.Unlock()
		var ch []jobs.Changed
		var places []jobs.LSeq
		for _, id := range list {
			head++
			ch = append(ch, jobs.Changed{Row: jobs.Row{Job: jobs.Job{ID: id}, LSeq: head}})
			places = append(places, head)
		}
		x.Stamped(ch)
		x.Committed(ch)
		return places
	}
	stop := make(chan struct{})
	var peer, clients sync.WaitGroup
	peer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			mu.Lock()
			at := head
			mu.Unlock()
			x.ask(t, jobs.Cursor{Boot: x.s.boot, At: at, SeenHead: at})
			_ = x.Replicated(at)
		}
	})
	for n := range 8 {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(n), 4))
			for round := range 200 {
				list := []jobs.ID{{byte(rng.IntN(3))}, {byte(n), byte(round), 1}}
				w := x.Expect(list)
				switch rng.IntN(6) {
				case 0:
					x.Cancel(w)
					continue
				case 1:
					x.Drop(w, 0)
					list = list[1:]
				}
				places := write(list)
				if len(list) == 2 && rng.IntN(2) == 0 {
					x.Stands(w, 0, places[0])
				}
				ctx, cancel := context.WithCancel(context.Background())
				gone := rng.IntN(4) == 0
				if gone {
					cancel()
				}
				got := x.Await(ctx, w, jobs.AckBoth)
				cancel()
				if last := got[len(got)-1]; !gone && !last.Both {
					t.Errorf("client %d, round %d: %+v, want both", n, round, got)
				}
				if !gone && len(list) == 2 && !slices.ContainsFunc(got, func(d jobs.Durability) bool { return d.Both }) {
					t.Errorf("client %d, round %d: %+v", n, round, got)
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	peer.Wait()
	x.idle(t)
}
