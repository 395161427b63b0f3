package jobstest

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"workmanager/jobs"
)

// retention is how long the random driver keeps rows that have ended.
const retention = time.Hour

// client follows results, and may change the node at any time.
type client struct {
	pinned *node // the only one that it asks, nil for any
	cursor string
	seen   map[jobs.ID]int
}

// driver makes random calls at two stores.
type driver struct {
	*world
	rng     *rand.Rand
	subs    []Submission
	moot    map[jobs.ID]bool // with more than one work or value
	chunks  map[string][]jobs.Chunk
	copies  []copied
	backups map[string][]Disk
	clients []*client
	damaged bool // ever
}

type copied struct {
	from string
	boot jobs.ID
	row  jobs.Row
}

// Random makes random calls at two nodes that read each other, with clients that
// follow the results at either. Nothing that happens between them, and with
// damage not even a disk that is lost or put back to an older copy, may keep
// them from being equal once they have met.
func Random(t *testing.T, newDisk func(t testing.TB) Disk, seed uint64, steps int, damage bool) {
	w := newWorld(t, func() Disk { return newDisk(t) })
	d := &driver{
		world: w, rng: rand.New(rand.NewPCG(seed, 77)), moot: map[jobs.ID]bool{},
		chunks: map[string][]jobs.Chunk{}, backups: map[string][]Disk{},
	}
	for _, pinned := range []*node{w.a, w.b, nil, nil} {
		d.clients = append(d.clients, &client{pinned: pinned, seen: map[jobs.ID]int{}})
	}
	for i := range steps {
		d.step(damage)
		if t.Failed() {
			t.Fatalf("seed %d, step %d", seed, i)
		}
	}
	w.meetAll()
	for range 2 { // what has ended below a floor that one learnt last is no row any more
		w.a.expire()
		w.b.expire()
		w.meetAll()
	}
	w.same()
	for i, c := range d.clients {
		at := c.pinned
		if at == nil {
			at = d.any()
		}
		d.read(c, at, 1000)
		for id, r := range at.rows() {
			if r.Job.Rank == jobs.Completed && !r.Job.Purged && c.seen[id] == 0 {
				t.Errorf("client %d, at last at %s: result %v was skipped", i, at.name, id)
			}
		}
	}
	if t.Failed() {
		t.Errorf("seed %d", seed)
	}
}

func (d *driver) any() *node {
	if d.rng.IntN(2) == 0 {
		return d.a
	}
	return d.b
}

func (d *driver) peer(n *node) *node {
	if n == d.a {
		return d.b
	}
	return d.a
}

// some returns an ID that was made, or none.
func (d *driver) some() jobs.ID {
	if len(d.subs) == 0 {
		return jobs.ID{}
	}
	if d.rng.IntN(2) == 0 { // one of the newest
		return d.subs[len(d.subs)-1-d.rng.IntN(min(12, len(d.subs)))].Job.ID
	}
	return d.subs[d.rng.IntN(len(d.subs))].Job.ID
}

func (d *driver) step(damage bool) {
	ctx := context.Background()
	n := d.any()
	peer := d.peer(n)
	d.now = d.now.Add(time.Duration(d.rng.IntN(3_000_000)) * time.Microsecond)
	if d.rng.IntN(60) == 0 {
		d.now = d.now.Add(retention / 3)
	}
	switch k := d.rng.IntN(100); {
	case k < 22:
		d.enqueue(n)
	case k < 42:
		d.facts(n)
	case k < 67:
		c, _ := n.pull(peer, 1+d.rng.IntN(12))
		d.chunks[n.name] = append(d.chunks[n.name], c)
	case k < 70:
		if late := d.chunks[n.name]; len(late) > 0 {
			n.take(late[d.rng.IntN(len(late))])
		}
	case k < 74:
		if r, found, err := n.Row(ctx, d.some()); found {
			d.copies = append(d.copies, copied{n.name, n.Boot(), r})
			n.ok(err)
		}
	case k < 79:
		if len(d.copies) > 0 {
			c := d.copies[d.rng.IntN(len(d.copies))]
			if c.from == n.name {
				n, peer = peer, n
			}
			had := n.Reading()
			_, _, err := n.ReceiveCopies(ctx, c.boot, []jobs.Row{c.row})
			if n.ok(err); n.Reading() != had {
				n.errorf("a copy moved the reading from %+v to %+v", had, n.Reading())
			}
		}
	case k < 82:
		_, err := n.TakeOver(ctx, peer.name, jobs.Capacity{Jobs: 1 + d.rng.IntN(2), Iterations: 300})
		n.ok(err)
	case k < 84:
		_, err := n.GiveAway(ctx, []jobs.ID{d.some(), d.some()}, peer.name)
		n.ok(err)
	case k < 87:
		d.floor()
	case k < 89:
		_, err := n.Refresh(ctx, d.now.Add(-retention/2), 1+d.rng.IntN(20))
		n.ok(err)
		n.expire()
	case k < 91:
		n.restart()
	case k < 92:
		d.backups[n.name] = append(d.backups[n.name], n.disk.Copy())
	case k < 93 && damage:
		disk := d.newDisk()
		if b := d.backups[n.name]; len(b) > 0 && d.rng.IntN(3) > 0 {
			disk = b[d.rng.IntN(len(b))].Copy()
		}
		d.damaged = true
		n.replace(disk)
		n.meet(peer)
	default:
		c := d.clients[d.rng.IntN(len(d.clients))]
		if c.pinned != nil {
			n = c.pinned
		}
		d.read(c, n, 1)
	}
}

func (d *driver) enqueue(n *node) {
	batch := d.work(1+d.rng.IntN(4), 100)
	for i := range batch {
		switch sub := &batch[i]; d.rng.IntN(8) {
		case 0, 1:
			sub.Job.Iterations = 1
		case 2:
			v := value(sub.Job)
			sub.Known = &v
		case 3:
			sub.Job.Priority = uint8(d.rng.IntN(10))
		case 5:
			sub.Job.Keep = uint16(1 + d.rng.IntN(5))
		case 6:
			sub.Job.ResumedFrom, sub.Job.Checkpoint = 3, jobs.Progress{Done: 3, Value: jobs.Value{3, 7}}
		case 4: // a key that was used before, mostly for the same work
			if len(d.subs) > 0 {
				*sub = d.subs[len(d.subs)-1-d.rng.IntN(min(10, len(d.subs)))]
				if d.rng.IntN(5) == 0 {
					sub.Job.V1[1]++
					sub.Known = nil
					d.moot[sub.Job.ID] = true
				}
			}
		}
	}
	for i := range batch { // an ID has one owner
		batch[i].Job.Owner = []string{"", "x", "y"}[batch[i].Job.ID[15]%3]
	}
	_, err := n.Enqueue(context.Background(), batch)
	n.ok(err)
	d.subs = append(d.subs, batch...)
}

// value is the right one, as far as this driver goes.
func value(j jobs.Job) jobs.Value {
	if j.Iterations == 1 {
		return j.V1
	}
	v := j.V1
	v[63] = 200
	return v
}

// rungs are the right ones, as far as this driver goes: n from the from-th on.
func rungs(j jobs.Job, from, n int) (r jobs.Rungs) {
	for i := range n {
		v := j.V1
		v[62] = byte(from + i)
		r = r.Add(v)
	}
	return r
}

func (d *driver) facts(n *node) {
	facts := make([]Fact, 1+d.rng.IntN(5))
	for i := range facts {
		f := &facts[i]
		f.ID = d.some()
		switch k := d.rng.IntN(29); {
		case k >= 27:
			f.Apply = func(j jobs.Job, _ func() time.Time) (jobs.Job, bool) { return j.Distrust() }
		case k >= 25:
			from := d.rng.IntN(3)
			f.Apply = func(j jobs.Job, _ func() time.Time) (jobs.Job, bool) { return j.AddRungs(from, rungs(j, from, 2)) }
		case k == 24:
			if d.rng.IntN(4) == 0 { // two workers that differ
				wrong := jobs.Rungs("").Add(jobs.Value{byte(1 + d.rng.IntN(3)), 63: 202})
				f.Apply = func(j jobs.Job, _ func() time.Time) (jobs.Job, bool) { return j.AddRungs(0, wrong) }
			} else {
				f.Apply = func(j jobs.Job, _ func() time.Time) (jobs.Job, bool) { return j.AddRungs(0, rungs(j, 0, 5)) }
			}
		case k < 8:
			f.Apply = func(j jobs.Job, at func() time.Time) (jobs.Job, bool) { return j.Complete(value(j), at()) }
		case k < 9:
			d.moot[f.ID] = true
			f.Apply = complete(jobs.Value{byte(1 + d.rng.IntN(3)), 63: 201})
		case k < 14:
			f.Apply = checkpoint(uint64(2 + d.rng.IntN(90)))
		case k < 16:
			f.Apply = cancel
		case k < 17:
			f.Apply = purge
		case k < 19:
			f.Apply = func(j jobs.Job, at func() time.Time) (jobs.Job, bool) { return j.Fail("no", at()) }
		case k < 21:
			f.Apply = func(j jobs.Job, at func() time.Time) (jobs.Job, bool) { return j.Lose(at()) }
		default:
			f.Apply = handOut
		}
	}
	_, err := n.Record(context.Background(), facts)
	n.ok(err)
}

// floor tries a round of the floor, as replication does it.
func (d *driver) floor() {
	ctx := context.Background()
	a, b := d.a, d.b
	whole := func(n, peer *node, head jobs.LSeq) bool {
		r := n.Reading()
		return !r.Amnesia && !r.Cursor.Refilling() && r.Cursor.Boot == peer.Boot() && r.Cursor.At >= head
	}
	if d.rng.IntN(2) == 0 {
		b.pullAll(a, 10)
	}
	t, head, err := a.Promise(ctx, d.now.Add(-retention))
	a.ok(err)
	if floor, _ := a.Floor(); !t.After(floor) || !whole(b, a, head) {
		return
	}
	t, head, err = b.Promise(ctx, t)
	b.ok(err)
	if floor, _ := b.Floor(); !t.After(floor) {
		return
	}
	if d.rng.IntN(2) == 0 {
		a.pullAll(b, 10)
	}
	if !whole(a, b, head) {
		return
	}
	a.ok(a.Raise(ctx, t))
	if d.rng.IntN(2) == 0 {
		a.expire()
	}
}

// read reads results, one page or to the end.
func (d *driver) read(c *client, n *node, pages int) {
	for range pages {
		page, err := n.Results(context.Background(), jobs.ResultsQuery{After: c.cursor, Limit: 1 + d.rng.IntN(9)})
		n.ok(err)
		if page.Restarted && c.pinned != nil && !d.damaged {
			if floor, _ := n.Floor(); floor.IsZero() {
				n.errorf("a cursor of this node could not be placed")
			}
		}
		for _, r := range page.Results {
			if c.seen[r.ID]++; c.seen[r.ID] > 1 && c.pinned != nil && !d.damaged && !d.moot[r.ID] {
				n.errorf("result %v was given out %d times to one who asked no other node", r.ID, c.seen[r.ID])
			}
		}
		c.cursor = page.Cursor
		if !page.More {
			return
		}
	}
}
