package sync

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"workmanager/jobs"
)

// tailModel is a tail beside the list of all that was committed.
type tailModel struct {
	t    testing.TB
	tail tail
	log  []jobs.Changed
	from jobs.LSeq // nothing at or below it can be remembered: there was nobody to read
	peer jobs.ID
	rs   jobs.RSeq
}

var tailBoot = jobs.ID{7}

func (m *tailModel) chain() jobs.BootChain { return jobs.BootChain{{ID: tailBoot, StartLSeq: 1}} }

// commit adds a transaction of n changes of up to ids jobs.
func (m *tailModel) commit(rng *rand.Rand, n, ids int, skip bool) {
	from := len(m.log)
	for range n {
		c := jobs.Changed{Row: jobs.Row{Job: newJob(rng.IntN(ids), "a"), LSeq: jobs.LSeq(len(m.log) + 1)}}
		c.Job.Attempts = uint32(rng.Uint32())
		switch rng.IntN(4) {
		case 0:
			c.Via = m.peer
		case 1:
			c.Via = jobs.ID{0xEE} // an earlier boot of the peer
		}
		if rng.IntN(3) == 0 {
			m.rs++
			c.RSeq = m.rs
		}
		m.log = append(m.log, c)
	}
	if skip {
		m.tail.skip(m.log[from:])
		m.from = jobs.LSeq(len(m.log))
	} else {
		m.tail.add(m.log[from:])
	}
}

// check asks the tail and the list the same.
func (m *tailModel) check(q jobs.FeedQuery) {
	m.t.Helper()
	got, ok := m.tail.chunk(q, tailBoot)
	head := jobs.LSeq(len(m.log))
	remembered := q.Cursor.At >= max(m.from, head-maxTail) && !q.Cursor.Refilling()
	switch {
	case !ok && remembered:
		m.t.Fatalf("chunk from %+v at head %d: not remembered, want at least the newest %d", q.Cursor, head, maxTail)
	case !ok:
		return
	case q.Cursor.At < m.from:
		m.t.Fatalf("chunk from %+v: answered, but the tail begins behind %d", q.Cursor, m.from)
	}
	want := listFeed(m.log, m.chain(), q)
	if !got.HasRCov || got.RCov == want.RCov { // it may not know of results committed while nobody read
		want.HasRCov, want.RCov = got.HasRCov, got.RCov
	}
	if !reflect.DeepEqual(got, want) {
		m.t.Fatalf("chunk from %+v at head %d, %d rows at most:\n got %d rows, next %+v, more %v, rcov %d %v\nwant %d rows, next %+v, more %v, rcov %d %v",
			q.Cursor, head, q.Rows, len(got.Rows), got.Next, got.More, got.RCov, got.HasRCov, len(want.Rows), want.Next, want.More, want.RCov, want.HasRCov)
	}
}

func (m *tailModel) bounded() {
	m.t.Helper()
	if n := len(m.tail.rows); n > 2*maxTail {
		m.t.Fatalf("%d rows remembered, at most %d", n, 2*maxTail)
	}
}

// readAll follows the tail to its end and returns each row at its latest.
func (m *tailModel) readAll(from jobs.LSeq, rows int) map[jobs.ID]jobs.LSeq {
	m.t.Helper()
	seen := map[jobs.ID]jobs.LSeq{}
	c := jobs.Cursor{Boot: tailBoot, At: from, SeenHead: from}
	for range 2*len(m.log) + 2 {
		got, ok := m.tail.chunk(jobs.FeedQuery{Cursor: c, Me: m.peer, Rows: rows, Bytes: 1 << 20}, tailBoot)
		if !ok {
			m.t.Fatalf("chunk from %+v: not remembered any more", c)
		}
		for _, r := range got.Rows {
			seen[r.Job.ID] = r.LSeq
		}
		if c = got.Next; !got.More {
			return seen
		}
	}
	m.t.Fatalf("chunks of %d rows never end", rows)
	return nil
}

// FuzzTail: the tail answers what the list of all commits answers.
func FuzzTail(f *testing.F) {
	for seed := range uint64(24) {
		f.Add(seed, uint16(1+seed*7), seed%6 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, ids uint16, large bool) {
		rng := rand.New(rand.NewPCG(seed, 2))
		m := &tailModel{t: t, peer: jobs.ID{0xBB}}
		if start := rng.IntN(50); start > 0 { // rows of an earlier start
			m.commit(rng, start, int(ids)+1, true)
		} else {
			m.tail.from, m.tail.last = 0, 0
		}
		commits, most := 40, 40
		if large {
			commits, most = 12, 2*maxTail
		}
		for range commits {
			m.commit(rng, 1+rng.IntN(most), int(ids)+1, rng.IntN(30) == 0)
			m.bounded()
			head := len(m.log)
			for range 5 {
				back := rng.IntN(min(head, 1<<(1+rng.IntN(14))) + 1)
				c := jobs.Cursor{Boot: tailBoot, At: jobs.LSeq(head - back)}
				c.SeenHead = c.At + jobs.LSeq(rng.IntN(back+1))
				if rng.IntN(10) == 0 {
					c.BackTo, c.BackAt = c.SeenHead, 0
				}
				m.check(jobs.FeedQuery{Cursor: c, Me: []jobs.ID{m.peer, {0xCC}}[rng.IntN(2)],
					Rows: []int{0, 1, 2, 10, maxChunkRows}[rng.IntN(5)], Bytes: []int{0, 700, maxChunkBytes}[rng.IntN(3)]})
			}
		}
		from := max(m.tail.from, jobs.LSeq(len(m.log)-200))
		want := map[jobs.ID]jobs.LSeq{}
		for _, c := range m.log {
			delete(want, c.Job.ID) // only the latest counts
			if c.LSeq > from && c.Via != m.peer {
				want[c.Job.ID] = c.LSeq
			}
		}
		if got := m.readAll(from, 1+rng.IntN(9)); !reflect.DeepEqual(got, want) {
			t.Fatalf("followed from %d: %d rows, want %d", from, len(got), len(want))
		}
	})
}

// TestTail_trims: it never holds more than twice its measure, and never less
// than the newest of it, however large the commits are.
func TestTail_trims(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, size := range []int{1, maxTail - 1, maxTail, maxTail + 1, 2 * maxTail, 2*maxTail + 1, 3 * maxTail} {
		m := &tailModel{t: t, peer: jobs.ID{0xBB}}
		for len(m.log) <= 3*maxTail {
			n := size
			if size == 1 {
				n = 1 + rng.IntN(2000)
			}
			m.commit(rng, n, 100_000, false)
			m.bounded()
			head := jobs.LSeq(len(m.log))
			for _, at := range []jobs.LSeq{0, head - 2*maxTail - 1, head - 2*maxTail, head - maxTail - 1, head - maxTail, head - 1, head} {
				if at = max(at, 0); at >= 0 {
					m.check(jobs.FeedQuery{Cursor: jobs.Cursor{Boot: tailBoot, At: at, SeenHead: at}, Me: m.peer, Rows: maxChunkRows, Bytes: maxChunkBytes})
				}
			}
			if _, ok := m.tail.chunk(jobs.FeedQuery{Cursor: jobs.Cursor{Boot: tailBoot, At: m.tail.from - 1, SeenHead: head}}, tailBoot); ok {
				t.Fatalf("commits of %d: a cursor before the tail is answered", size)
			}
		}
	}
}

// TestTailOfLongRows: the bytes remembered are bounded, and so are those of a
// chunk.
func TestTailOfLongRows(t *testing.T) {
	var tl tail
	long := jobs.Rungs(make([]byte, 64*jobs.MaxKeep))
	forgotten := 0
	for i := range jobs.LSeq(400) {
		j := newJob(int(i), "a")
		j.Keep, j.Rungs = jobs.MaxKeep, long
		tl.add([]jobs.Changed{{Row: jobs.Row{Job: j, LSeq: i + 1}}})
		bytes := 0
		for _, r := range tl.rows {
			bytes += len(r.Job.Rungs)
		}
		if bytes > maxTailRungs {
			t.Fatalf("%d bytes are remembered", bytes)
		}
		if tl.from == i+1 {
			forgotten++
		}
	}
	if forgotten == 0 || tl.last != 400 {
		t.Errorf("at %d, forgotten %d times", tl.last, forgotten)
	}
	at := tl.from
	for n := 0; at < tl.last; n++ {
		c, ok := tl.chunk(jobs.FeedQuery{Cursor: jobs.Cursor{Boot: tailBoot, At: at, SeenHead: at}, Rows: 1000, Bytes: 300_000}, tailBoot)
		if !ok || len(c.Rows) == 0 || len(c.Rows) > 5 || c.Next.At != at+jobs.LSeq(len(c.Rows)) || c.More != (c.Next.At < tl.last) {
			t.Fatalf("chunk %d: %d rows from %d to %d, more %v, %v", n, len(c.Rows), at, c.Next.At, c.More, ok)
		}
		at = c.Next.At
	}
	if _, ok := tl.chunk(jobs.FeedQuery{Rows: 1000, Bytes: 1 << 20}, tailBoot); ok {
		t.Error("rows that were forgotten are answered")
	}
}
