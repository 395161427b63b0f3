package sync

import (
	"bytes"
	"context"
	"crypto/sha512"
	"database/sql"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// lap is how often a pair looks at its clock: seldom, for the race detector, and
// often enough not to be taken for asleep.
const lap = 200 * time.Millisecond

// quietHost is a node that does nothing.
type quietHost struct{ arrived atomic.Int64 }

func (h *quietHost) Load() Load { return Load{} }

func (h *quietHost) Arriving() func() { return func() {} }

func (h *quietHost) Arrived(changed []jobs.Changed) { h.arrived.Add(int64(len(changed))) }

func (h *quietHost) Find(context.Context, jobs.ID) (jobs.View, bool, error) {
	return jobs.View{}, false, nil
}

func (h *quietHost) ConsumeHere(context.Context, int, string, bool) ([]jobs.Result, error) {
	return nil, nil
}

func (h *quietHost) GiveAway(context.Context, string, int) ([]jobs.ID, error) { return nil, nil }

// comparedNode is a node with a real store, whose feed is carried by hand and
// whose comparisons go over HTTP.
type comparedNode struct {
	p    *comparedPair
	name string
	dir  string
	host *quietHost
	*store.Store
	e   *Engine
	srv *httptest.Server
	log bytes.Buffer
}

// comparedPair is two of them and their clock.
type comparedPair struct {
	t        testing.TB
	now      time.Time
	interval time.Duration
	made     int
	a, b     *comparedNode
	spoil    func(path string, reply []byte) []byte // what b answers, nil as it is
}

func newComparedPair(t testing.TB) *comparedPair {
	p := &comparedPair{t: t, now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), interval: time.Second}
	p.a, p.b = &comparedNode{p: p, name: "a", dir: t.TempDir()}, &comparedNode{p: p, name: "b", dir: t.TempDir()}
	p.a.open()
	p.b.open()
	p.meet()
	t.Cleanup(func() { p.a.close(); p.b.close() })
	return p
}

func (n *comparedNode) open() {
	n.host = &quietHost{}
	log := slog.New(slog.NewTextHandler(&n.log, nil))
	var err error
	n.Store, err = store.Open(context.Background(), n.dir, store.Options{Node: n.name, Log: log, DSN: "&_pragma=synchronous(OFF)",
		Now: func() time.Time { return n.p.now }, OnCommit: func(c []jobs.Changed) { n.e.Committed(c) }})
	if err != nil {
		n.p.t.Fatal(err)
	}
	n.e = New(Config{Node: n.name, Cluster: "c", Join: []string{"x"}, Retention: time.Hour, CompareInterval: n.p.interval,
		Now: func() time.Time { return n.p.now }, Log: log}, n.Store, n.host)
	h := n.e.Handler()
	n.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.p.spoil == nil {
			h.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		w.WriteHeader(rec.Code)
		_, _ = w.Write(n.p.spoil(r.URL.Path, rec.Body.Bytes())) // a client that has gone is no error
	}))
}

func (n *comparedNode) close() {
	n.srv.Close()
	n.e.wire.client.CloseIdleConnections()
	if err := n.Close(); err != nil {
		n.p.t.Error(err)
	}
}

// meet tells each where the other is.
func (p *comparedPair) meet() {
	for _, n := range []*comparedNode{p.a, p.b} {
		n.e.mu.Lock()
		n.e.peer.api = strings.TrimPrefix(p.other(n).srv.URL, "http://")
		n.e.mu.Unlock()
	}
}

func (p *comparedPair) other(n *comparedNode) *comparedNode {
	if n == p.a {
		return p.b
	}
	return p.a
}

// behind runs SQL on the file of a stopped node.
func (n *comparedNode) behind(query string, args ...any) {
	t := n.p.t
	t.Helper()
	n.close()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(n.dir, "workmanager.db"))
	if err != nil {
		t.Fatal(err)
	}
	res, err := db.Exec(query, args...)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := res.RowsAffected(); got == 0 {
		t.Fatalf("%s: changed no row", query)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	n.open()
	n.p.meet()
}

// feed lets each read the other's feed to its end.
func (p *comparedPair) feed() {
	p.t.Helper()
	for range 2 {
		for _, n := range []*comparedNode{p.a, p.b} {
			for more := true; more; {
				req := n.e.Ask()
				reply, err := p.other(n).e.Answer(context.Background(), req)
				if err == nil {
					err = n.e.Take(context.Background(), req, reply)
				}
				if err != nil {
					p.t.Fatal(err)
				}
				more = reply.End.More
			}
		}
	}
}

// pass lets time pass, with the feed running and a look at comparing each step.
func (p *comparedPair) pass(d time.Duration, compare bool) {
	p.t.Helper()
	for end := p.now.Add(d); p.now.Before(end); {
		p.now = p.now.Add(lap)
		p.feed()
		p.a.e.Step()
		p.b.e.Step()
		if !compare {
			continue
		}
		for _, n := range []*comparedNode{p.a, p.b} {
			if err := n.e.compareRound(context.Background()); err != nil {
				p.t.Fatalf("node %s: %v", n.name, err)
			}
		}
	}
}

// fill makes jobs at both nodes in all states, some of them at the other node
// than the one they came in at, and lets them settle.
func (p *comparedPair) fill(n int) []jobs.ID {
	p.t.Helper()
	ids := make([]jobs.ID, 0, n)
	for _, at := range []*comparedNode{p.a, p.b} {
		var batch []store.Submission
		for range n / 2 {
			p.made++
			id := jobs.KeyID("compare", "", fmt.Sprint(p.made))
			j, err := jobs.New(id, sha512.Sum512(id[:]), uint64(2+p.made%7), p.made%3)
			if err != nil {
				p.t.Fatal(err)
			}
			ids = append(ids, id)
			batch = append(batch, store.Submission{Job: j})
		}
		if _, err := at.Enqueue(context.Background(), batch); err != nil {
			p.t.Fatal(err)
		}
	}
	p.pass(100*time.Millisecond, false)
	var facts []store.Fact
	for i, id := range ids {
		facts = append(facts, store.Fact{ID: id, Apply: func(j jobs.Job, at store.Clock) (jobs.Job, bool) {
			switch i % 10 {
			case 0, 1, 2, 3, 4, 5:
				return j.Complete(sha512.Sum512(j.V1[:]), at())
			case 6:
				return j.Fail("broken", at())
			case 7:
				return j.Cancel(at())
			}
			return j, false
		}})
	}
	if _, err := p.a.Record(context.Background(), facts); err != nil {
		p.t.Fatal(err)
	}
	p.pass(3*p.interval, false)
	return ids
}

// rows returns all rows of a node.
func (n *comparedNode) rows() map[jobs.ID]jobs.Job {
	n.p.t.Helper()
	all := map[jobs.ID]jobs.Job{}
	for q := (jobs.ListQuery{Limit: 1000}); ; {
		page, next, more, err := n.List(context.Background(), "", q)
		if err != nil {
			n.p.t.Fatal(err)
		}
		for _, r := range page {
			all[r.Job.ID] = r.Job
		}
		if !more {
			return all
		}
		q.After = next
	}
}

// same reports how many rows differ.
func (p *comparedPair) differences() int {
	p.t.Helper()
	a, b := p.a.rows(), p.b.rows()
	n := 0
	for id, x := range a {
		if y, ok := b[id]; !ok || !x.Equal(y) {
			n++
		}
	}
	for id := range b {
		if _, ok := a[id]; !ok {
			n++
		}
	}
	return n
}

// sane checks that the counters of both nodes are those of their rows.
func (p *comparedPair) sane() {
	p.t.Helper()
	for _, n := range []*comparedNode{p.a, p.b} {
		var want jobs.Counts
		for _, j := range n.rows() {
			switch j.Rank {
			case jobs.Open:
				want.Open++
			case jobs.Failed:
				want.Failed++
			case jobs.Cancelled:
				want.Cancelled++
			case jobs.Completed:
				want.Completed++
			}
			if j.Pulled {
				want.Pulled++
			}
			want.Remaining = want.Remaining.Add(j.Remaining())
		}
		if got := n.Counts(); got != want {
			p.t.Errorf("node %s counts %+v, has %+v", n.name, got, want)
		}
	}
}
