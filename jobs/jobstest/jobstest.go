// Package jobstest says what a store of rows must do, whatever it is made of:
// [Exercise] runs the same promises of replication against the SQLite store and
// against the one that the simulator keeps in memory. A rule that only one of
// them keeps is a failing test, and so is one that neither does.
package jobstest

import (
	"context"
	"time"

	"workmanager/jobs"
)

// Submission is a job to enqueue. Known, if not nil, is its value.
type Submission struct {
	Job   jobs.Job
	Known *jobs.Value
}

// Fact is one thing that happened to a job; at gives the instant of it.
type Fact struct {
	ID    jobs.ID
	Apply func(j jobs.Job, at func() time.Time) (jobs.Job, bool)
}

// Effect is what a fact came to.
type Effect struct {
	Job            jobs.Job
	LSeq           jobs.LSeq
	Found, Changed bool
}

// Store is what is exercised.
type Store interface {
	ID() jobs.ID
	Boot() jobs.ID
	Chain() jobs.BootChain
	Head() jobs.LSeq

	Feed(ctx context.Context, q jobs.FeedQuery) (jobs.Chunk, error)
	Receive(ctx context.Context, c jobs.Chunk) ([]jobs.Changed, error)
	ReceiveCopies(ctx context.Context, boot jobs.ID, rows []jobs.Row) (changed []jobs.Changed, ignored int, err error)
	Reading() jobs.Reading
	SetPeer(ctx context.Context, node, api, gossip string) error

	Floor() (floor, promise time.Time)
	Promise(ctx context.Context, upTo time.Time) (time.Time, jobs.LSeq, error)
	Raise(ctx context.Context, floor time.Time) error
	Refresh(ctx context.Context, before time.Time, limit int) (int, error)
	Expire(ctx context.Context) (int, error)

	TakeOver(ctx context.Context, from string, c jobs.Capacity) ([]jobs.Job, error)
	GiveAway(ctx context.Context, ids []jobs.ID, to string) ([]jobs.ID, error)

	Job(ctx context.Context, id jobs.ID) (jobs.Job, bool, error)
	Row(ctx context.Context, id jobs.ID) (jobs.Row, bool, error)
	Results(ctx context.Context, q jobs.ResultsQuery) (jobs.Results, error)
	ResultsHead() jobs.RSeq
	Counts() jobs.Counts
	Conflicts() int64
	Disagreements() int64

	// Enqueue and Record adapt those of the store.
	Enqueue(ctx context.Context, batch []Submission) ([]jobs.Outcome, error)
	Record(ctx context.Context, facts []Fact) ([]Effect, error)

	// Close ends this start of the node. Its disk can then be opened again.
	Close() error
}

// Options say how a disk is opened.
type Options struct {
	Node              string
	Now               func() time.Time
	OnStamp, OnCommit func(changed []jobs.Changed)
}

// Disk is what survives a restart. It fails the test that it was made for when
// it cannot do what it is asked.
type Disk interface {
	// Open starts a node on the disk, under a new boot.
	Open(o Options) Store
	// Copy returns the disk as it is now: a backup. The store may be open.
	Copy() Disk
}
