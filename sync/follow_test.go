package sync

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
)

// pipes is a listener within one bubble: a dial is a net.Pipe.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	dials atomic.Int64
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "peer" }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	p.dials.Add(1)
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.done:
	case <-ctx.Done():
	}
	return nil, errors.New("nobody listens")
}

// followed is an engine that follows a server in its bubble.
type followed struct {
	*shelved
	asked  atomic.Int64
	answer atomic.Pointer[http.HandlerFunc]
	stop   func()
}

// follow runs an engine against a server in a bubble; stop before the end.
func newFollowed(t *testing.T, answer http.HandlerFunc) *followed {
	t.Helper()
	f := &followed{shelved: newShelved("a", 1, time.Now)}
	f.answer.Store(&answer)
	p := newPipes()
	srv := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.asked.Add(1)
		(*f.answer.Load())(w, r)
	})}
	f.wire.client.Transport = &http.Transport{DialContext: p.dial, DisableCompression: true}
	f.mu.Lock()
	f.peer.api = "peer:1"
	f.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = srv.Serve(p) })
	all.Go(func() { f.Engine.follow(ctx) })
	all.Go(func() { f.tick(ctx) })
	f.stop = func() {
		cancel()
		f.wire.client.CloseIdleConnections()
		_ = srv.Close()
		all.Wait()
	}
	return f
}

// answered is a whole answer of the peer that brings one row.
func answered(change func(h *Hello, end *End)) []byte {
	h := Hello{Identity: peerIdentity(), Head: 1, Now: time.Now(), Reset: true, LiveFrom: 1}
	end := End{At: 1, SeenHead: 1, BackAt: 1}
	if change != nil {
		change(&h, &end)
	}
	b := appendHello(nil, &h)
	b = appendRow(b, &jobs.Row{Job: newJob(1, "b"), LSeq: 1})
	return appendEnd(b, &end)
}

// send answers with these bytes, and an end that looks whole.
func send(make func() []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaFrames)
		_, _ = w.Write(make()) // a client that has gone is no error
	}
}

// honest answers as a peer does that has one row: at once to who does not have
// it, and after a second of heartbeats to who does.
func honest(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("boot") == "" {
		_, _ = w.Write(answered(nil))
		return
	}
	_, _ = w.Write(appendHello(nil, &Hello{Identity: peerIdentity(), Head: 1, Now: time.Now()}))
	for range 10 {
		_, _ = w.Write(appendHeartbeat(nil, &Heartbeat{Head: 1, Now: time.Now()}))
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-time.After(heartbeatInterval):
		}
	}
	_, _ = w.Write(appendEnd(nil, &End{At: 1, SeenHead: 1}))
}

// TestFollow_hostile: whatever comes from where the peer should be, nothing of
// it reaches the store, the reason is told, it is asked again and again, ever
// more seldom, and an honest answer afterwards is taken.
func TestFollow_hostile(t *testing.T) {
	whole := func() []byte { return answered(nil) }
	flip := func(at int) func() []byte {
		return func() []byte {
			b := whole()
			if at < 0 {
				at += len(b)
			}
			b[at] ^= 0x40
			return b
		}
	}
	hello := func(change func(*Hello)) http.HandlerFunc {
		return send(func() []byte { return answered(func(h *Hello, _ *End) { change(h) }) })
	}
	ends := func(change func(*End)) http.HandlerFunc {
		return send(func() []byte { return answered(func(_ *Hello, e *End) { change(e) }) })
	}
	status := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	for _, tc := range []struct {
		name    string
		answer  http.HandlerFunc
		bad     bool   // counted as bad frames
		refused string // why, as status shows it: its first word
		told    string // in the log
		lost    bool   // the connection is taken for lost
		slow    bool   // each takes the silence time
	}{
		{name: "garbage", answer: send(func() []byte { return []byte(strings.Repeat("\xff\xfe\x00garbage", 500)) }), bad: true, told: "frame too long"},
		{name: "html", answer: send(func() []byte { return []byte("<!DOCTYPE html><html><body>It works!</body></html>") }), bad: true, told: "frame too long"},
		{name: "nothing", answer: send(func() []byte { return nil }), lost: true},
		{name: "checksum_of_the_hello", answer: send(flip(7)), bad: true, told: "wrong checksum"},
		{name: "checksum_of_the_end", answer: send(flip(-1)), bad: true, told: "wrong checksum"},
		{name: "frame_too_long", answer: send(func() []byte {
			return append(answered(nil)[:len(answered(nil))-20], 0xff, 0xff, 0xff, 0x7f, kindRow, 0, 0, 0, 0)
		}), bad: true},
		{name: "frame_of_4_GiB", answer: send(func() []byte { return []byte{0xff, 0xff, 0xff, 0xff, kindHello, 0, 0, 0, 0} }), bad: true, told: "frame too long"},
		{name: "no_hello", answer: send(func() []byte {
			return appendEnd(appendRow(nil, &jobs.Row{Job: newJob(1, "b"), LSeq: 1}), &End{At: 1, SeenHead: 1})
		}), bad: true, told: "before the hello"},
		{name: "end_without_hello", answer: send(func() []byte { return appendEnd(nil, &End{At: 1, SeenHead: 1}) }), bad: true, told: "before the hello"},
		{name: "no_end_and_a_proper_end_of_the_body", answer: send(func() []byte {
			b := answered(nil)
			return b[:len(b)-len(appendEnd(nil, &End{At: 1, SeenHead: 1, BackAt: 1}))]
		}), lost: true},
		{name: "no_end_and_the_connection_cut", answer: func(w http.ResponseWriter, r *http.Request) {
			b := answered(nil)
			_, _ = w.Write(b[:len(b)-len(appendEnd(nil, &End{At: 1, SeenHead: 1, BackAt: 1}))])
			panic(http.ErrAbortHandler)
		}, lost: true},
		{name: "cut_within_a_row", answer: func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(answered(nil)[:200])
			panic(http.ErrAbortHandler)
		}, lost: true},
		{name: "cut_before_the_header", answer: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, lost: true},
		{name: "another_cluster", answer: hello(func(h *Hello) { h.Cluster = "other" }), refused: RefusedCluster, told: "of cluster"},
		{name: "same_store", answer: hello(func(h *Hello) { h.Store = jobs.ID{1, 1} }), refused: RefusedSameStore, told: "data directory"},
		{name: "same_node", answer: hello(func(h *Hello) { h.Node = "a" }), refused: RefusedSameNode, told: "two nodes are named"},
		{name: "third_node", answer: hello(func(h *Hello) { h.Node = "x" }), refused: RefusedStranger, told: "is a third"},
		{name: "proto_9", answer: hello(func(h *Hello) { h.ProtoMin, h.ProtoMax = 9, 9 }), refused: RefusedProto, told: "upgrade the older"},
		{name: "no_name", answer: hello(func(h *Hello) { h.Node = "" }), bad: true, told: "node: is missing"},
		{name: "live_from_above_the_head", answer: hello(func(h *Hello) { h.LiveFrom = 2 }), bad: true, told: "live_from"},
		{name: "end_above_its_head", answer: ends(func(e *End) { e.At = 2 }), bad: true, told: "above the head"},
		{name: "end_below_where_it_begins", answer: ends(func(e *End) { e.At = 0 }), bad: true, told: "cursor goes from"},
		{name: "refill_beyond_its_end", answer: ends(func(e *End) { e.SeenHead, e.BackAt = 9, 9 }), bad: true, told: "cursor goes from"},
		{name: "a_row_that_could_not_be", answer: send(func() []byte {
			b := appendHello(nil, &Hello{Identity: peerIdentity(), Head: 1, Reset: true, LiveFrom: 1})
			j := newJob(1, "b")
			j.Home = ""
			return appendEnd(appendRow(b, &jobs.Row{Job: j, LSeq: 1}), &End{At: 1, SeenHead: 1, BackAt: 1})
		}), bad: true, told: "home: is missing"},
		{name: "rows_without_end", answer: func(w http.ResponseWriter, r *http.Request) {
			b := appendHello(nil, &Hello{Identity: peerIdentity(), Head: 1, Reset: true, LiveFrom: 1})
			_, err := w.Write(b)
			row := appendRow(nil, &jobs.Row{Job: newJob(1, "b"), LSeq: 1})
			for n := 0; n < 10_000_000 && err == nil; n++ {
				_, err = w.Write(row)
			}
		}, bad: true, told: "more than 4000 rows"},
		{name: "no_answer", answer: func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, told: "gone silent", slow: true},
		{name: "a_header_and_no_more", answer: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, told: "gone silent", slow: true},
		{name: "a_byte_a_second", answer: func(w http.ResponseWriter, r *http.Request) {
			for _, c := range whole() {
				select {
				case <-r.Context().Done():
					return
				case <-time.After(time.Second - time.Millisecond):
				}
				_, _ = w.Write([]byte{c})
				_ = http.NewResponseController(w).Flush()
			}
		}, told: "gone silent", slow: true},
		{name: "a_refusal_that_drips", answer: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusConflict)
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte{' '})
				_ = http.NewResponseController(w).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
		}, told: "gone silent", slow: true},
		{name: "redirect_to_itself", answer: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/peer/changes?"+r.URL.RawQuery, http.StatusTemporaryRedirect)
		}, told: "peer's jobs are not read"},
		{name: "status_500", answer: status(500, "internal error"), told: "500 Internal Server Error"},
		{name: "status_404", answer: status(404, "404 page not found"), told: "404 Not Found"},
		{name: "status_204", answer: status(204, ""), told: "204 No Content"},
		{name: "status_409_with_a_reason", answer: status(409, `{"code":"cluster","detail":"go away"}`), refused: RefusedCluster, told: "go away"},
		{name: "status_409_without", answer: status(409, `{}`), told: "409 Conflict"},
		{name: "status_503_stopping", answer: status(503, `{"code":"stopping","detail":"bye"}`), lost: true},
		{name: "status_500_without_end", answer: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			buf := make([]byte, 64<<10)
			for range 1000 {
				if _, err := w.Write(buf); err != nil {
					return
				}
			}
		}, told: "500 Internal Server Error"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFollowed(t, tc.answer)
				defer f.stop()
				f.s.mu.Lock()
				f.s.reading = jobs.Reading{Peer: "b", Amnesia: true}
				f.s.mu.Unlock()
				before := f.s.kept()
				time.Sleep(10 * time.Second)
				synctest.Wait()
				n := f.asked.Load()
				lowest, highest := int64(8), int64(20) // 50 ms doubling to 1 s, 20 % more or less
				if tc.slow {
					lowest, highest = 5, 10
				}
				if strings.HasPrefix(tc.name, "redirect") {
					highest *= 11
				}
				if n < lowest || n > highest {
					t.Errorf("asked %d times in 10 s, want %d to %d", n, lowest, highest)
				}
				if after := f.s.kept(); after != before {
					t.Errorf("the store went from %+v to %+v", before, after)
				}
				p := f.Peer()
				if (p.Counters.BadFrames > 0) != tc.bad {
					t.Errorf("%d bad frames counted, want some: %v", p.Counters.BadFrames, tc.bad)
				}
				if !strings.HasPrefix(p.Refused, tc.refused) || (p.Refused == "") != (tc.refused == "") {
					t.Errorf("refused %q, want %q", p.Refused, tc.refused)
				}
				if !f.log.has(tc.told) {
					t.Errorf("the log does not say %q:\n%s", tc.told, f.log.String())
				}
				// That the peer is gone, each time that it is, is no repetition of one thing.
				if lines := strings.Count(f.log.String(), "level=WARN") - strings.Count(f.log.String(), "peer is gone"); lines > 3 {
					t.Errorf("%d warnings in 10 s:\n%s", lines, f.log.String())
				}
				f.mu.Lock()
				if lost := !f.state.lost.IsZero(); lost != tc.lost {
					t.Errorf("connection lost %v, want %v", lost, tc.lost)
				}
				f.mu.Unlock()

				f.answer.Store(new(http.HandlerFunc(honest)))
				time.Sleep(3 * time.Second)
				if !f.s.has(newJob(1, "b").ID) {
					t.Errorf("an honest answer is not taken; the log:\n%s", f.log.String())
				}
				if p := f.Peer(); p.Refused != "" {
					t.Errorf("refused %q after an honest answer", p.Refused)
				}
			})
		})
	}
}

// TestFollow_cursor_going_backwards: one that has read up to 5 does not go back
// to 3, whatever the peer says.
func TestFollow_cursor_going_backwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Pointer[string]
		f := newFollowed(t, func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query().Get("at")
			asked.Store(&q)
			h := Hello{Identity: peerIdentity(), Head: 5, Now: time.Now()}
			end := End{At: 3, SeenHead: 5}
			if q == "" {
				h.Reset, h.LiveFrom, end = true, 5, End{At: 5, SeenHead: 5, BackAt: 5}
			}
			_, _ = w.Write(appendEnd(appendHello(nil, &h), &end))
		})
		defer f.stop()
		time.Sleep(5 * time.Second)
		want := jobs.Cursor{Boot: jobs.ID{2, 2}, At: 5, SeenHead: 5}
		if got := f.s.Reading().Cursor; got != want || *asked.Load() != "5" {
			t.Errorf("cursor %+v, asked from %s, want %+v", got, *asked.Load(), want)
		}
		if n := f.Peer().Counters.BadFrames; n == 0 {
			t.Error("no bad frames counted")
		}
	})
}

// TestFollow_store_fails: what could not be stored is not confirmed, and asked
// for again.
func TestFollow_store_fails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var last atomic.Pointer[string]
		f := newFollowed(t, func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query().Get("boot")
			last.Store(&q)
			honest(w, r)
		})
		defer f.stop()
		f.s.fail.Store(true)
		time.Sleep(5 * time.Second)
		if *last.Load() != "" || f.Peer().Complete {
			t.Errorf("asks behind boot %q, complete %v: it confirms what was not stored", *last.Load(), f.Peer().Complete)
		}
		f.s.fail.Store(false)
		time.Sleep(2 * time.Second)
		if want := (jobs.ID{2, 2}); *last.Load() != hex.EncodeToString(want[:]) {
			t.Errorf("asks behind boot %q, want %s", *last.Load(), want)
		}
	})
}

// TestFollow_kicked: a kick ends the back-off at once.
func TestFollow_kicked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollowed(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
		defer f.stop()
		time.Sleep(20 * time.Second)
		for range 5 {
			time.Sleep(time.Millisecond) // within the back-off of 50 ms and more
			before := f.asked.Load()
			f.kick()
			synctest.Wait()
			if got := f.asked.Load() - before; got != 1 {
				t.Errorf("%d requests after a kick, want 1", got)
			}
		}
	})
}

// TestFollow_two_engines over HTTP in a bubble: both come into sync, a write is
// confirmed, heartbeats keep an idle session fresh, and a peer that stops is
// noticed at once.
func TestFollow_two_engines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newShelved("b", 2, time.Now)
		served := b.Handler().ServeHTTP
		a := newFollowed(t, served)
		defer a.stop()
		// b follows a the same way.
		p := newPipes()
		srv := &http.Server{Handler: a.Handler(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
		b.wire.client.Transport = &http.Transport{DialContext: p.dial, DisableCompression: true}
		b.mu.Lock()
		b.peer.api = "peer:1"
		b.mu.Unlock()
		ctx, cancel := context.WithCancel(context.Background())
		var all sync.WaitGroup
		all.Go(func() { _ = srv.Serve(p) })
		all.Go(func() { b.follow(ctx) })
		all.Go(func() { b.tick(ctx) })
		defer all.Wait()
		defer srv.Close()
		defer b.wire.client.CloseIdleConnections()
		defer cancel()

		time.Sleep(maxPark + time.Second) // sync is entered by a request, and the last may be parked
		if aw, bw := a.Unsynced(), b.Unsynced(); aw != "" || bw != "" {
			t.Fatalf("not in sync after 3 s: %q, %q", aw, bw)
		}
		id := newJob(1, "a").ID
		w := a.Expect([]jobs.ID{id})
		began := time.Now()
		a.s.put(newJob(1, "a"))
		if got := a.Await(t.Context(), w, jobs.AckDefault); !got[0].Both || time.Since(began) > 0 {
			t.Errorf("Await = %+v after %v of virtual time, want both at once", got, time.Since(began))
		}
		if !b.s.has(id) {
			t.Error("confirmed, and not at the peer")
		}
		asked := a.asked.Load()
		time.Sleep(20 * time.Second)
		if n := a.asked.Load() - asked; n > 12 {
			t.Errorf("%d requests in 20 idle seconds, want one per %v", n, maxPark)
		}
		if aw, bw := a.Unsynced(), b.Unsynced(); aw != "" || bw != "" {
			t.Errorf("not in sync after 20 idle seconds: %q, %q", aw, bw)
		}
		b.Stop()
		synctest.Wait()
		time.Sleep(100 * time.Millisecond)
		if s := a.Peer().Session; s >= SessionCatchup {
			t.Errorf("session %s 100 ms after the peer said that it stops", s)
		}
		if n := len(a.s.kept().reading.Peer); n == 0 {
			t.Error("the peer is not noted")
		}
	})
}

// TestFailed_refused_connection counts as evidence, other refusals do not.
func TestFailed(t *testing.T) {
	c := &clock{}
	x := newShelved("a", 1, c.now)
	x.up(t)
	x.failed("peer", &Refusal{RefusedStopping, "bye"})
	x.mu.Lock()
	if x.state.refused != 1 || x.state.lost.IsZero() {
		t.Errorf("stopping: refused %d, lost %v", x.state.refused, x.state.lost)
	}
	x.mu.Unlock()
	x.up(t)
	x.failed("peer", &Refusal{RefusedCluster, strings.Repeat("x", 100)})
	x.mu.Lock()
	if x.state.refused != 0 || !x.state.lost.IsZero() {
		t.Errorf("cluster: refused %d, lost %v: one that answers is not dead", x.state.refused, x.state.lost)
	}
	x.mu.Unlock()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for want := 1; want <= 2; want++ {
		x.failed(addr, x.once(t.Context(), addr))
		x.mu.Lock()
		if x.state.refused != want {
			t.Errorf("%d refusals after %d requests where nobody listens", x.state.refused, want)
		}
		x.mu.Unlock()
	}
	c.ms.Add(290)
	x.Step()
	if x.Peer().Gone {
		t.Error("gone before 300 ms")
	}
	c.ms.Add(10)
	x.Step()
	if !x.Peer().Gone {
		t.Error("not gone 300 ms after two refusals")
	}
}
