package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/store"
	peersync "workmanager/sync"
)

// rows is what a node needs of a store: *store.Store and *memStore fit.
type rows interface {
	peersync.Store
	Enqueue(ctx context.Context, batch []store.Submission) ([]jobs.Outcome, error)
	Record(ctx context.Context, facts []store.Fact) ([]store.Effect, error)
	Refresh(ctx context.Context, before time.Time, limit int) (int, error)
	Expire(ctx context.Context) (int, error)
	TakeOver(ctx context.Context, from string, c jobs.Capacity) ([]jobs.Job, error)
	GiveAway(ctx context.Context, ids []jobs.ID, to string) ([]jobs.ID, error)
	Results(ctx context.Context, q jobs.ResultsQuery) (jobs.Results, error)
}

// medium is what a node's rows are on. It survives a kill of the node.
type medium interface {
	// open starts the node n on it.
	open(n *node) rows
	// kill is what a kill -9 does to the store that is open on it.
	kill()
	// copy is a backup, taken of the living.
	copy() medium
	// drop gives up the medium.
	drop()
}

// memMedium is a disk in memory.
type memMedium struct{ d *disk }

func (m memMedium) open(n *node) rows {
	s := m.d.open(n.name, n.w.id(1), n.now)
	s.OnStamp, s.OnCommit = n.stamped, n.committed
	return s
}
func (m memMedium) kill()        {}
func (m memMedium) drop()        {}
func (m memMedium) copy() medium { return memMedium{m.d.clone()} }

// node is one of the two: what is on its disk, and the process while it runs.
type node struct {
	w    *world
	i    int
	name string
	skew time.Duration
	now  func() time.Time

	on     medium
	backup medium // nil: none was taken
	shadow []place

	up      bool
	starts  int
	rows    rows
	eng     *peersync.Engine
	last    jobs.LSeq // newest committed
	crashIn int       // calls of the store until the process is killed; 0: never
	slow    int64     // until then its disk is slow

	asked   int   // number of the request it waits for, 0: none
	askedAt int64 // when it was sent
	heard   int   // damages to the peer's disk when it sent what was served last
	round   round
	waits   []*wait
	damages int  // to its disk
	damaged bool // since its last start

	enqueuing bool // rows that appear are a client's
	floor     time.Time
	floorHurt int // damages to any disk when it was agreed
	floorAt   int64
}

// place is a row on a disk, as its last commit told. It is what the world
// compares the store with.
type place struct {
	there bool
	lseq  jobs.LSeq
	job   jobs.Job
}

// round is a round of the floor under way at its proposer.
type round struct {
	on    bool
	reply *peersync.FloorReply
	until int64
}

// wait is a write whose client waits for its answer.
type wait struct {
	hurt    int  // damages to the peer's disk when it began
	existed bool // a row was there already: the peer must ask once more
	w       *peersync.Wait
	what    string
	want    []jobs.Job // what the peer must hold once it is both
	ack     jobs.Ack
	until   int64
}

// killed is what a node's process ends with.
type killed struct{ *node }

// guarded is a node's store as its engine sees it: the process may be killed
// before and after each call that commits.
type guarded struct {
	rows
	n *node
}

func (g guarded) crash() {
	if g.n.crashIn > 0 {
		if g.n.crashIn--; g.n.crashIn == 0 {
			panic(killed{g.n})
		}
	}
}

func (g guarded) Receive(ctx context.Context, c jobs.Chunk) ([]jobs.Changed, error) {
	g.crash()
	defer g.crash()
	return g.rows.Receive(ctx, c)
}

func (g guarded) ReceiveCopies(ctx context.Context, boot jobs.ID, rows []jobs.Row) ([]jobs.Changed, int, error) {
	g.crash()
	defer g.crash()
	return g.rows.ReceiveCopies(ctx, boot, rows)
}

func (g guarded) Promise(ctx context.Context, upTo time.Time) (time.Time, jobs.LSeq, error) {
	g.crash()
	defer g.crash()
	return g.rows.Promise(ctx, upTo)
}

func (g guarded) Raise(ctx context.Context, floor time.Time) error {
	g.crash()
	defer g.crash()
	return g.rows.Raise(ctx, floor)
}

// host is the node as its engine asks it: it has nothing to add.
type host struct{}

func (host) Load() peersync.Load    { return peersync.Load{} }
func (host) Arriving() func()       { return func() {} }
func (host) Arrived([]jobs.Changed) {}
func (host) Find(context.Context, jobs.ID) (jobs.View, bool, error) {
	return jobs.View{}, false, errors.ErrUnsupported
}
func (host) ConsumeHere(context.Context, int, string, bool) ([]jobs.Result, error) {
	return nil, errors.ErrUnsupported
}
func (host) GiveAway(context.Context, string, int) ([]jobs.ID, error) {
	return nil, errors.ErrUnsupported
}

// ctx is of all calls: nothing below them waits.
var ctx = context.Background()

// id returns an ID that was not there before.
func (w *world) id(kind byte) jobs.ID {
	w.made++
	id := jobs.ID{0: kind, 6: 0x70, 8: 0x80}
	binary.BigEndian.PutUint32(id[12:], uint32(w.made))
	return id
}

func (n *node) peer() *node { return n.w.nodes[1-n.i] }

// start starts the node's process.
func (n *node) start() {
	n.starts++
	n.rows = n.on.open(n)
	if head := n.rows.Head(); head < n.last {
		n.w.violate("I8", nil, "node %s has head %d after a start, it had %d", n.name, head, n.last)
	}
	if chain := n.rows.Chain(); chain[len(chain)-1].StartLSeq != n.rows.Head()+1 {
		n.w.violate("I8", nil, "node %s: the new boot begins at %d, the head is %d", n.name, chain[len(chain)-1].StartLSeq, n.rows.Head())
	}
	n.last = n.rows.Head()
	if n.damaged {
		n.damaged = false
		n.w.dump(n, func(r *jobs.Row) { n.shadow[n.w.job(r.Job.ID).i] = place{true, r.LSeq, r.Job} })
	} else if n.w.cfg.SQLite {
		n.w.compare(n, "I2")
	}
	n.eng = peersync.New(peersync.Config{Node: n.name, Cluster: "sim", Join: []string{"peer"}, Retention: n.w.retention, Now: n.now}, guarded{n.rows, n}, host{})
	n.up, n.crashIn = true, 0
	n.look()
}

// look notes where the floor is.
func (n *node) look() {
	floor, _ := n.rows.Floor()
	if !floor.After(n.floor) {
		return
	}
	n.floor, n.floorAt = floor, n.w.t
	hurt, risen := n.w.floors[floor]
	if !risen {
		hurt = n.w.damages()
		n.w.floors[floor] = hurt
	}
	n.floorHurt = hurt
}

// kill ends the node's process: what was not committed is gone, and so are its
// clients' waits.
func (n *node) kill() {
	n.on.kill()
	n.up, n.rows, n.eng, n.asked, n.round, n.waits, n.crashIn = false, nil, nil, 0, round{}, nil, 0
	n.enqueuing = false
}

// call runs what may end the node's process.
func (n *node) call(f func()) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case killed:
			n.w.stats.Faults[faultCrashInside]++
			n.w.note("crash inside", r.i)
			r.kill()
		default:
			panic(r)
		}
	}()
	f()
}

// stamped is told of the rows of a transaction before its commit.
func (n *node) stamped(changed []jobs.Changed) {
	if n.crashIn == 1 && n.w.cfg.SQLite {
		panic(killed{n}) // in the middle of the transaction
	}
	if n.eng != nil {
		n.eng.Stamped(changed)
	}
}

// committed is told of the rows of a transaction after its commit.
func (n *node) committed(changed []jobs.Changed) {
	for i := range changed {
		n.w.seen(n, &changed[i])
	}
	n.eng.Committed(changed)
	n.w.copied(n, changed)
}

// write makes a client's write and enters its wait before the commit, as the
// node does.
func (n *node) write(what string, ids []jobs.ID, commit func() ([]jobs.Outcome, error)) {
	w := n.w
	var wt *peersync.Wait
	if !jobs.Broken("M13") {
		wt = n.eng.Expect(ids)
	}
	out, err := commit()
	if jobs.Broken("M13") {
		wt = n.eng.Expect(ids)
	}
	if err != nil {
		n.w.violate(what, nil, "node %s: %v", n.name, err)
	}
	p := &wait{w: wt, what: what, hurt: n.peer().damages, ack: jobs.AckDefault, until: w.t + peersync.AckTimeout.Microseconds()}
	if w.chance(0.3) {
		p.ack, p.until = jobs.AckBoth, w.t+peersync.StrictTimeout.Microseconds()
	}
	for i := range out {
		p.want = append(p.want, out[i].Job)
		switch {
		case out[i].Err != nil: // an error before the commit
			n.eng.Drop(wt, i)
			p.want[i].ID = jobs.ID{}
		case out[i].Existed:
			p.existed = true
			n.eng.Stands(wt, i, out[i].LSeq)
		}
	}
	n.waits = append(n.waits, p)
	n.answer(p)
}

// answer answers a client if its wait is decided or its patience over.
func (n *node) answer(p *wait) bool {
	_, decided := n.eng.Confirmed(p.w)
	if !decided && n.w.t < p.until {
		return false
	}
	said := n.eng.GiveUp(p.w, p.ack)
	for i := range p.want {
		want := &p.want[i]
		if want.ID == (jobs.ID{}) {
			continue
		}
		d := said[min(i, len(said)-1)]
		switch {
		case d.Both:
			n.w.stats.Both++
			n.w.acked(n, p, want)
		case d.Reason == "":
			n.w.violate("I14", n.w.job(want.ID), "node %s answers %s after the commit with neither both nor local", n.name, p.what)
		default:
			n.w.stats.Local++
		}
	}
	return true
}

// answers looks at all waits. After a request of the peer each one whose rows
// it covers must be confirmed.
func (n *node) answers(covered *jobs.Cursor) {
	if len(n.waits) == 0 {
		return
	}
	kept := n.waits[:0]
	for _, p := range n.waits {
		if n.answer(p) {
			continue
		}
		if covered != nil && !p.existed && n.covers(p, *covered) {
			n.w.violate("I10", n.w.job(p.want[0].ID), "node %s: the peer's cursor %+v covers what %s wrote, and it is not confirmed", n.name, *covered, p.what)
		}
		kept = append(kept, p)
	}
	clear(n.waits[len(kept):])
	n.waits = kept
}

// covers reports whether a cursor of the peer covers all rows of a wait, where
// they stand now.
func (n *node) covers(p *wait, c jobs.Cursor) bool {
	for i := range p.want {
		if p.want[i].ID == (jobs.ID{}) {
			continue
		}
		at := &n.shadow[n.w.job(p.want[i].ID).i]
		if !at.there || !c.Covers(at.lseq) {
			return false
		}
	}
	return true
}

func (n *node) String() string { return fmt.Sprintf("node %s", n.name) }
