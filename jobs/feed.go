package jobs

import (
	"bytes"
	"slices"
	"time"
)

// A node's rows in lseq order are its feed. Its peer reads it: rows above a
// cursor, ascending, each at its latest. There is no log of operations.

// Row is a job's row as it travels between the nodes.
type Row struct {
	Job  Job
	LSeq LSeq   // at the sender
	Ext  []byte // fields that this release does not know, kept verbatim
}

// Cursor is how far a node has read its peer's feed: up to At, and, while it
// refills, a second stretch from the bottom, of which BackAt is read and BackTo
// the end. Boot is the peer's boot when that was read and SeenHead its head in
// the same view: a row that was at or below SeenHead may have moved since, but
// never below. Without a refill BackAt and BackTo are 0.
type Cursor struct {
	Boot           ID
	At, SeenHead   LSeq
	BackAt, BackTo LSeq
}

// Covers reports whether a row that stands at l was read.
func (c Cursor) Covers(l LSeq) bool {
	if broken("M9") {
		return l <= c.At
	}
	return l <= c.BackAt || c.BackTo < l && l <= c.At
}

// Refilling reports whether the second stretch is not read to its end.
func (c Cursor) Refilling() bool { return c.BackTo > 0 }

// Boot is one start of a node and the first numbers it gives out.
type Boot struct {
	ID        ID
	StartLSeq LSeq
	StartRSeq RSeq
}

// BootChain is the starts of a node, oldest first. A number of a boot means
// what it meant as long as no later boot began at or below it.
type BootChain []Boot

func (b BootChain) find(boot ID) int {
	return slices.IndexFunc(b, func(x Boot) bool { return x.ID == boot })
}

// Covers reports whether a cursor still means what it meant when it was given
// out: the chain has its boot, and that boot ended at or above SeenHead. Else
// numbers above the end were given out twice, or the disk is another, and the
// reader must begin anew.
func (b BootChain) Covers(c Cursor) bool {
	if broken("M5") {
		return true
	}
	i := b.find(c.Boot)
	if i < 0 {
		return false
	}
	return i == len(b)-1 || b[i+1].StartLSeq-1 >= c.SeenHead
}

// CoversResult reports whether a place in the results given out under a boot
// still means the same.
func (b BootChain) CoversResult(boot ID, n RSeq) bool {
	i := b.find(boot)
	return i >= 0 && (i == len(b)-1 || b[i+1].StartRSeq-1 >= n)
}

// FeedQuery asks for the rows behind a cursor. Rows that came from Me, the
// asker's present boot, and to which nothing was added are left out.
type FeedQuery struct {
	Cursor Cursor
	Me     ID
	Rows   int // at most
	Bytes  int // about, of rows of 250 bytes
}

// Chunk is what a feed answers, read in one view. The fields but Peer and From
// are the sender's.
type Chunk struct {
	Peer string // the sender's name
	From Cursor // the cursor it was asked with; it moves only from there

	Boot  ID
	Reset bool // the cursor was not good: this begins anew
	Rows  []Row
	Next  Cursor // where the reader stands after these rows
	More  bool   // there was more
	// RCov, if HasRCov: every result that the sender numbers up to it was sent
	// up to the end of this chunk, or came from the asker.
	RCov    RSeq
	HasRCov bool
	// Floor is the sender's retention floor, to be learnt before the rows.
	Floor time.Time
}

// Resume returns where a reader with a cursor goes on in a feed whose head is
// given, and whether it begins anew there.
func (b BootChain) Resume(c Cursor, head LSeq) (from Cursor, reset bool) {
	if b.Covers(c) {
		return c, false
	}
	if i := b.find(c.Boot); i >= 0 && broken("M2") {
		c.At = min(c.At, b[i+1].StartLSeq-1)
		return c, false
	}
	return Begin(b[len(b)-1].ID, head, c), true
}

// Begin returns the cursor of a reader that begins anew at a feed whose head is
// given, whatever it had read: from now on it follows what is new, and reads
// what is there beside it, so that a new job is on both disks at once.
func Begin(boot ID, head LSeq, had Cursor) Cursor {
	c := Cursor{Boot: boot, At: head, SeenHead: head, BackTo: head}
	if broken("M10") {
		c.BackAt = had.BackAt
	}
	return c.settle()
}

// settle ends a refill that has nothing left.
func (c Cursor) settle() Cursor {
	if c.BackAt >= c.BackTo {
		c.BackAt, c.BackTo = 0, 0
	}
	return c
}

// Advance returns where a reader of a feed stands after a chunk that was read
// under boot with the head given: at and backAt are the last rows considered,
// and what is complete is read to its end.
func (c Cursor) Advance(boot ID, head, at, backAt LSeq) Cursor {
	return Cursor{Boot: boot, At: at, SeenHead: head, BackAt: backAt, BackTo: c.BackTo}.settle()
}

// Key is the instant that retention goes by.
func (j Job) Key() time.Time { return later(j.CreatedAt, j.GCAfter) }

// Raised returns the row with retention counted from the floor at least: an
// open row is never dropped, and one below the floor would be refused a place.
func (j Job) Raised(floor time.Time) (Job, bool) {
	if j.Ended() || !j.Key().Before(floor) {
		return j, false
	}
	j.GCAfter = floor
	return j, true
}

// Arrival is what becomes of a row that came from the peer.
type Arrival struct {
	Row     Row
	Ignored bool // it is below the floor and has ended: both nodes have dropped it
	Changed bool // there is something new: it takes a number
	Echo    bool // it is exactly what came: it need not go back
}

// Receive joins a row that came by the feed with the one that is here, nil if
// none is. floor is this node's retention floor.
func Receive(here *Row, in Row, floor time.Time) Arrival {
	now := in
	if here != nil {
		now.Job, now.Ext, now.LSeq = Merge(here.Job, in.Job), mergeExt(here.Ext, in.Ext), here.LSeq
		if Diverge(here.Job, in.Job) || disagreeRungs(here.Job, in.Job) && cmpWork(here.Job, in.Job) == 0 {
			now.Job, _ = now.Job.Distrust() // a fact of this node: it goes back, and the sender takes its own back too
		}
	} else if in.Job.Ended() && in.Job.Key().Before(floor) && !broken("M7") {
		return Arrival{Row: in, Ignored: true}
	} else if !in.Job.Ended() && in.Job.Key().Before(floor) && (broken("M1") || broken("M8")) {
		return Arrival{Row: in, Ignored: true}
	}
	now.Job, _ = now.Job.Raised(floor)
	if now.Job.Purged {
		now.Ext = nil
	}
	return Arrival{
		Row:     now,
		Changed: here == nil || !now.Job.Equal(here.Job) || !bytes.Equal(now.Ext, here.Ext),
		Echo:    now.Job.Equal(in.Job) && bytes.Equal(now.Ext, in.Ext) || broken("M3"),
	}
}

// ReceiveCopy is Receive for a copy that came by gossip: one that is unknown
// and below the floor, or the promise of one, is ignored whatever its rank. It
// may be late by any time, and the job it shows dropped since.
func ReceiveCopy(here *Row, in Row, floor, promise time.Time) Arrival {
	if in.Job.Key().Before(later(floor, promise)) && !broken("M21") {
		return Arrival{Row: in, Ignored: true}
	}
	return Receive(here, in, floor)
}

// mergeExt joins what a newer release wrote: the longer, then the larger.
func mergeExt(a, b []byte) []byte {
	if len(b) > len(a) || len(b) == len(a) && bytes.Compare(b, a) > 0 {
		return b
	}
	return a
}

// Equal reports whether two rows agree in every field that travels.
func (j Job) Equal(o Job) bool {
	if !j.CreatedAt.Equal(o.CreatedAt) || !j.GCAfter.Equal(o.GCAfter) || !j.DoneAt.Equal(o.DoneAt) {
		return false
	}
	j.CreatedAt, j.GCAfter, j.DoneAt = o.CreatedAt, o.GCAfter, o.DoneAt
	return j == o
}

// Rehome moves the row to another home, one epoch on.
func (j Job) Rehome(node string) (Job, bool) {
	if j.Home == node {
		return j, false
	}
	j.Home, j.OwnEpoch = node, j.OwnEpoch+1
	return j, true
}

// Reading is what a node knows of its peer and of the peer's feed.
type Reading struct {
	Peer    string // "" while no peer is known
	Cursor  Cursor
	Amnesia bool   // the copy of the feed is incomplete
	API     string // where the peer's API answered last, host:port
	Gossip  string // where its gossip answered last
}

// Take returns the reading after a chunk: the cursor, and what is known of the
// feed's completeness. It reports false for a chunk that was asked for from
// another place, which is late: its rows are good, its cursor is not.
func (r Reading) Take(c Chunk) (Reading, bool) {
	if r.Cursor != c.From && !broken("M24") {
		return r, false
	}
	if c.Reset {
		r.Amnesia = true
	}
	r.Cursor = c.Next
	if !r.Cursor.Refilling() {
		r.Amnesia = false
	}
	return r, true
}
