package sync

import (
	"time"

	"workmanager/jobs"
)

// The protocol between two nodes. Fields are only ever added, each with a
// number of its own (wire_row.go and others) and a zero value that means what it meant before.
const (
	protoMin = 1
	protoMax = 1
)

// Identity is what a node says of itself in every request and answer.
type Identity struct {
	Node        string
	Cluster     string
	Store       jobs.ID // of the database file
	Boot        jobs.ID // of this start
	ProtoMin    int
	ProtoMax    int
	Schema      int
	MemberEpoch int64
}

// Request asks for the changes behind a cursor: GET /peer/changes. By sending
// it the asker says that everything its cursor covers is on its disk, or, of a
// request that is sent ahead, everything that Durable covers.
type Request struct {
	Identity
	Cursor   jobs.Cursor
	Complete bool      // the asker has read this feed to its end since its boot
	Now      time.Time // the asker's clock, for display only
	Ahead    bool      // sent while the chunk before is being written
	Durable  jobs.Cursor
	WordOf   jobs.ID // the boot that gave the word, zero for none
	Word     uint64  // the newest that the asker has got: it asks after that
	Unlisted bool    // the asker's gossip does not know the asked: it should join again
	Wait     time.Duration
	Rows     int
	Bytes    int
}

// Confirmed returns the cursor that covers what is on the asker's disk.
func (q *Request) Confirmed() jobs.Cursor {
	if q.Ahead {
		return q.Durable
	}
	return q.Cursor
}

// Hello opens the answer to a request.
type Hello struct {
	Identity
	Features uint64
	Head     jobs.LSeq
	Floor    time.Time
	Promise  time.Time
	Now      time.Time
	Reset    bool      // the cursor was not good
	LiveFrom jobs.LSeq // with Reset: what is new begins above it, what was there ends at it
	Complete bool      // the answering node has read the asker's feed to its end since its boot
	Load     Load
}

// Load is how busy a node is: a snapshot that replaces the last one.
type Load struct {
	Waiting   int64     // jobs of its home that wait
	Remaining jobs.Work // iterations still to do of its home
	Leased    int64
	FreeLanes int64
	Workers   int64  // cores of its live workers
	Rate      int64  // iterations a second that they do
	Done      int64  // jobs that they complete in 1,000 s
	Arriving  int64  // jobs that come in at it in 1,000 s
	Incoming  int64  // iterations a second that these have
	Fleet     []byte // what the scheduler shares, nil if unchanged
}

// Heartbeat is sent while a request is parked.
type Heartbeat struct {
	Head jobs.LSeq
	Now  time.Time
	Load Load
}

// End closes the answer: where the asker's cursor stands after it.
type End struct {
	At, SeenHead jobs.LSeq
	BackAt       jobs.LSeq
	More         bool
	RCov         jobs.RSeq
	HasRCov      bool
	Word         uint64 // to be said in the next request: what that confirms, it confirms now
}

// Reply is a whole answer, heartbeats left out.
type Reply struct {
	Hello Hello
	Rows  []jobs.Row
	End   End
}

// Refusal says why a node will not talk to another. It is an error.
type Refusal struct {
	Code   string
	Detail string
}

// The codes of a refusal.
const (
	RefusedCluster   = "cluster"    // of another cluster
	RefusedSameStore = "same_store" // one database file at two nodes: a cloned disk
	RefusedSameNode  = "same_node"  // two nodes with one name
	RefusedStranger  = "stranger"   // a third node: this one has its peer
	RefusedForgotten = "forgotten"  // of a member that the operator has forgotten
	RefusedProto     = "proto"      // no common version of the protocol
	RefusedRound     = "round"      // a floor cannot be agreed now
	RefusedStopping  = "stopping"
	RefusedMalformed = "malformed"
)

// Error returns the code and the detail.
func (r *Refusal) Error() string { return r.Code + ": " + r.Detail }

// FloorRequest is POST /peer/gc: the proposer will make no row below Floor any
// more and asks the peer for the same.
type FloorRequest struct {
	Identity
	Floor time.Time
	Head  jobs.LSeq // the proposer's, after its promise
}

// FloorReply promises no row below Floor, which is at or below the one asked.
type FloorReply struct {
	Identity
	Floor time.Time
	Head  jobs.LSeq
}
