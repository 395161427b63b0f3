package sync

import (
	"context"
	"time"

	"workmanager/jobs"
)

// Store is what replication needs of a store of rows. A *store.Store fits. Its
// methods are safe for concurrent use.
type Store interface {
	// ID is of the file, Boot of this start; Chain ends with it. Schema is the
	// version of the file's form, Head the newest lseq committed.
	ID() jobs.ID
	Boot() jobs.ID
	Chain() jobs.BootChain
	Schema() int
	Head() jobs.LSeq

	// Feed returns the rows behind a cursor, read in one view.
	Feed(ctx context.Context, q jobs.FeedQuery) (jobs.Chunk, error)
	// Receive commits a chunk of the peer's feed: floor, rows and cursor in one
	// transaction.
	Receive(ctx context.Context, c jobs.Chunk) ([]jobs.Changed, error)
	// ReceiveCopies commits rows that came by gossip. They move no cursor.
	ReceiveCopies(ctx context.Context, boot jobs.ID, rows []jobs.Row) (changed []jobs.Changed, ignored int, err error)

	// Reading is what is known of the peer and its feed; SetPeer notes who it is.
	Reading() jobs.Reading
	SetPeer(ctx context.Context, node, api, gossip string) error

	// Floor, Promise and Raise are the instant below which no ended row is kept.
	Floor() (floor, promise time.Time)
	Promise(ctx context.Context, upTo time.Time) (time.Time, jobs.LSeq, error)
	Raise(ctx context.Context, floor time.Time) error
}
