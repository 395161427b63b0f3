package sync

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"workmanager/jobs"
)

// shelf is a very small store: every change of a row in a list, the list being
// the model of the feed. It is safe for concurrent use.
type shelf struct {
	id, boot jobs.ID
	commit   func([]jobs.Changed) // after each commit, nil none
	fail     atomic.Bool          // Receive fails

	mu             sync.Mutex // guards the rest
	log            []jobs.Changed
	reading        jobs.Reading
	floor, promise time.Time
	receives       int
}

func newShelf(n byte) *shelf { return &shelf{id: jobs.ID{n, 1}, boot: jobs.ID{n, 2}} }

func (s *shelf) ID() jobs.ID   { return s.id }
func (s *shelf) Boot() jobs.ID { return s.boot }
func (s *shelf) Chain() jobs.BootChain {
	return jobs.BootChain{{ID: s.boot, StartLSeq: 1, StartRSeq: 1}}
}
func (s *shelf) Schema() int { return 1 }

func (s *shelf) Head() jobs.LSeq {
	s.mu.Lock()
	defer s.mu.Unlock()
	return jobs.LSeq(len(s.log))
}

func (s *shelf) Feed(_ context.Context, q jobs.FeedQuery) (jobs.Chunk, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return listFeed(s.log, s.Chain(), q), nil
}

func (s *shelf) Receive(_ context.Context, c jobs.Chunk) ([]jobs.Changed, error) {
	s.mu.Lock()
	if s.fail.Load() || c.Peer != s.reading.Peer {
		s.mu.Unlock()
		return nil, errors.New("the shelf takes nothing")
	}
	s.receives++
	if c.Floor.After(s.floor) {
		s.floor = c.Floor
	}
	from := len(s.log)
	for _, in := range c.Rows {
		a := jobs.Receive(s.find(in.Job.ID), in, s.floor)
		if a.Ignored || !a.Changed {
			continue
		}
		ch := jobs.Changed{Row: a.Row}
		if a.Echo {
			ch.Via = c.Boot
		}
		ch.LSeq = jobs.LSeq(len(s.log) + 1)
		s.log = append(s.log, ch)
	}
	changed := s.log[from:len(s.log):len(s.log)]
	s.reading, _ = s.reading.Take(c)
	s.mu.Unlock()
	if s.commit != nil {
		s.commit(changed)
	}
	return changed, nil
}

// find returns the row of a job, nil if there is none; mu is held.
func (s *shelf) find(id jobs.ID) *jobs.Row {
	for i := len(s.log) - 1; i >= 0; i-- {
		if s.log[i].Job.ID == id {
			return &s.log[i].Row
		}
	}
	return nil
}

func (s *shelf) has(id jobs.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(id) != nil
}

func (s *shelf) ReceiveCopies(context.Context, jobs.ID, []jobs.Row) ([]jobs.Changed, int, error) {
	return nil, 0, nil
}

func (s *shelf) Reading() jobs.Reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reading
}

func (s *shelf) SetPeer(_ context.Context, node, api, gossip string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reading.Peer != node {
		s.reading = jobs.Reading{Peer: node, Amnesia: true}
	}
	return nil
}

func (s *shelf) Floor() (floor, promise time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.floor, s.promise
}

func (s *shelf) Promise(_ context.Context, upTo time.Time) (time.Time, jobs.LSeq, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if upTo.After(s.promise) {
		s.promise = upTo
	}
	return upTo, jobs.LSeq(len(s.log)), nil
}

func (s *shelf) Raise(_ context.Context, floor time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if floor.After(s.floor) {
		s.floor = floor
	}
	return nil
}

// put commits rows as a client's write does.
func (s *shelf) put(list ...jobs.Job) {
	s.mu.Lock()
	from := len(s.log)
	for _, j := range list {
		s.log = append(s.log, jobs.Changed{Row: jobs.Row{Job: j, LSeq: jobs.LSeq(len(s.log) + 1)}})
	}
	changed := s.log[from:len(s.log):len(s.log)]
	s.mu.Unlock()
	if s.commit != nil {
		s.commit(changed)
	}
}

// kept is all of a shelf that an answer or a request could change.
type kept struct {
	rows, receives int
	reading        jobs.Reading
	floor, promise time.Time
}

func (s *shelf) kept() kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	return kept{len(s.log), s.receives, s.reading, s.floor, s.promise}
}

// listFeed answers a query from a list of all changes, by the rules of section
// 3 and 12 of the replication page alone: it is the model of a feed.
func listFeed(log []jobs.Changed, chain jobs.BootChain, q jobs.FeedQuery) jobs.Chunk {
	boot, head := chain[len(chain)-1].ID, jobs.LSeq(len(log))
	at, reset := chain.Resume(q.Cursor, head)
	latest := map[jobs.ID]jobs.LSeq{}
	var results jobs.RSeq
	for _, c := range log {
		latest[c.Job.ID] = c.LSeq
		results = max(results, c.RSeq)
	}
	limit := max(min(q.Rows, q.Bytes/250), 1)
	c := jobs.Chunk{Boot: boot, Reset: reset}
	stretch := func(from, to jobs.LSeq) jobs.LSeq {
		for _, r := range log {
			switch {
			case r.LSeq <= from || r.LSeq > to || latest[r.Job.ID] != r.LSeq || r.Via != jobs.ID{} && r.Via == q.Me:
			case len(c.Rows) == limit:
				return c.Rows[limit-1].LSeq
			default:
				c.Rows = append(c.Rows, r.Row)
			}
		}
		return to
	}
	live, back := at.At, at.BackAt
	if live < head {
		live = stretch(live, head)
	}
	if c.More = live < head; at.Refilling() && !c.More {
		if len(c.Rows) < limit {
			back = stretch(back, at.BackTo)
		}
		c.More = back < at.BackTo
	}
	c.Next = at.Advance(boot, head, live, back)
	c.RCov, c.HasRCov = results, !c.More && results > 0
	return c
}

// stubHost is a node that counts what it is asked.
type stubHost struct {
	consumes, gives atomic.Int64
	job             *jobs.View
}

func (h *stubHost) Load() Load             { return Load{Waiting: 7} }
func (h *stubHost) Arriving() func()       { return func() {} }
func (h *stubHost) Arrived([]jobs.Changed) {}
func (h *stubHost) Find(_ context.Context, id jobs.ID) (jobs.View, bool, error) {
	if h.job == nil || h.job.ID != id {
		return jobs.View{}, false, nil
	}
	return *h.job, true, nil
}

func (h *stubHost) ConsumeHere(context.Context, int, string, bool) ([]jobs.Result, error) {
	h.consumes.Add(1)
	return []jobs.Result{{ID: jobs.ID{1}, Iterations: 2, DoneAt: stateEpoch}}, nil
}

func (h *stubHost) GiveAway(_ context.Context, _ string, most int) ([]jobs.ID, error) {
	h.gives.Add(1)
	return make([]jobs.ID, min(most, 3)), nil
}

// logText is a log that is read while it is written.
type logText struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logText) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.buf.String(), s)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// shelved is an engine over a shelf.
type shelved struct {
	*Engine
	s    *shelf
	host *stubHost
	log  logText
}

func newShelved(name string, n byte, now func() time.Time) *shelved {
	x := &shelved{s: newShelf(n), host: &stubHost{}}
	x.Engine = New(Config{Node: name, Cluster: "c", Join: []string{"127.0.0.1:1"}, Retention: time.Hour, CompareInterval: time.Hour,
		Now: now, Log: slog.New(slog.NewTextHandler(&x.log, &slog.HandlerOptions{Level: slog.LevelInfo}))}, x.s, x.host)
	x.s.commit = func(changed []jobs.Changed) { x.Stamped(changed); x.Committed(changed) }
	return x
}

// clock is a time that tests move.
type clock struct{ ms atomic.Int64 }

func (c *clock) now() time.Time { return stateEpoch.Add(time.Duration(c.ms.Load()) * time.Millisecond) }

// peerIdentity is what the other node says of itself.
func peerIdentity() Identity {
	return Identity{Node: "b", Cluster: "c", Store: jobs.ID{2, 1}, Boot: jobs.ID{2, 2}, ProtoMin: 1, ProtoMax: 1, Schema: 1}
}

// newJob is an open job of the n-th ID.
func newJob(n int, home string) jobs.Job {
	j := jobs.Job{ID: jobs.ID{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), 1}, V1: jobs.Value{byte(n), 1}, Iterations: 1000}
	return j.Born(home, stateEpoch, nil)
}

// up brings an engine into sync with a peer that has read all.
func (x *shelved) up(t testing.TB) {
	t.Helper()
	if err := x.greeted(context.Background(), &Hello{Identity: peerIdentity(), Now: x.now()}); err != nil {
		t.Fatal(err)
	}
	head := x.s.Head()
	x.ask(t, jobs.Cursor{Boot: x.s.boot, At: head, SeenHead: head})
	if why := x.Unsynced(); why != "" {
		t.Fatalf("not in sync: %s", why)
	}
}

// ask is a request of the peer, which says the newest word.
func (x *shelved) ask(t testing.TB, c jobs.Cursor) {
	t.Helper()
	x.mu.Lock()
	word := x.word
	x.mu.Unlock()
	if err := x.asked(context.Background(), Request{Identity: peerIdentity(), Cursor: c, Now: x.now(), WordOf: x.s.boot, Word: word}); err != nil {
		t.Fatal(err)
	}
}

// carry lets to read one answer of from, as the network does it.
func carry(t testing.TB, from, to *shelved) Reply {
	t.Helper()
	req := to.Ask()
	reply, err := from.Answer(context.Background(), req)
	if err != nil {
		t.Fatal(err)
	}
	if err := to.Take(context.Background(), req, reply); err != nil {
		t.Fatal(err)
	}
	return reply
}

// TestEngine_carries: two engines over shelves hold the same after each has
// asked the other, nothing goes back to where it came from, and a request
// confirms what it covers.
func TestEngine_carries(t *testing.T) {
	c := &clock{}
	a, b := newShelved("a", 1, c.now), newShelved("b", 2, c.now)
	for n := range 2500 {
		a.s.put(newJob(n, "a"))
	}
	b.s.put(newJob(9999, "b"))
	answers := 0
	for more := true; more; answers++ {
		more = carry(t, a, b).End.More
	}
	if !b.Ask().Complete || b.s.Head() != 2501 || b.Ask().Cursor != (jobs.Cursor{Boot: a.s.boot, At: 2500, SeenHead: 2500}) {
		t.Errorf("after %d answers: complete %v, head %d, cursor %+v", answers, b.Ask().Complete, b.s.Head(), b.Ask().Cursor)
	}
	if r := carry(t, b, a); len(r.Rows) != 1 || !r.Hello.Reset {
		t.Errorf("the first answer of b has %d rows, want its own one: what came from a does not go back", len(r.Rows))
	}
	carry(t, a, b)
	if why := a.Unsynced(); why != "" {
		t.Fatalf("a is not in sync: %s", why)
	}
	w := a.Expect([]jobs.ID{newJob(5000, "a").ID})
	a.s.put(newJob(5000, "a"))
	carry(t, a, b) // a's row comes to b, which has not confirmed it
	if both, decided := a.Confirmed(w); both || decided {
		t.Errorf("confirmed %v, decided %v before the peer has asked again", both, decided)
	}
	carry(t, a, b)
	if both, decided := a.Confirmed(w); !both || !decided {
		t.Errorf("confirmed %v, decided %v after the peer has asked again", both, decided)
	}
	if got := a.Replicated(2501); !got.Both {
		t.Errorf("Replicated = %+v", got)
	}
}

// TestEngine_refuses: no identity but the peer's is let in, and the node keeps
// the first peer it meets.
func TestEngine_refuses(t *testing.T) {
	for _, tc := range strangers() {
		t.Run(tc.code, func(t *testing.T) {
			x := newShelved("a", 1, time.Now)
			x.up(t)
			before := x.s.kept()
			_, err := x.Answer(context.Background(), Request{Identity: tc.id, Now: time.Now()})
			r, ok := errors.AsType[*Refusal](err)
			if !ok || r.Code != tc.code {
				t.Errorf("Answer to %+v: %v, want a refusal %s", tc.id, err, tc.code)
			}
			if after := x.s.kept(); after != before {
				t.Errorf("the store went from %+v to %+v", before, after)
			}
			if got := x.Peer().Counters.Refusals; got != 1 {
				t.Errorf("%d refusals counted, want 1", got)
			}
		})
	}
}

type stranger struct {
	code string
	id   Identity
}

// strangers are identities that are not the peer's.
func strangers() []stranger {
	change := func(f func(*Identity)) Identity {
		id := peerIdentity()
		f(&id)
		return id
	}
	return []stranger{
		{RefusedCluster, change(func(i *Identity) { i.Cluster = "other" })},
		{RefusedSameStore, change(func(i *Identity) { i.Store = jobs.ID{1, 1} })},
		{RefusedSameNode, change(func(i *Identity) { i.Node = "a" })},
		{RefusedStranger, change(func(i *Identity) { i.Node = "third" })},
		{RefusedProto, change(func(i *Identity) { i.ProtoMin, i.ProtoMax = 9, 9 })},
	}
}
