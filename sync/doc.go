// Package sync keeps the jobs of two nodes in step. Each node holds all rows of
// both in its own store. It is imported as peersync.
//
// # What it promises
//
// A write that was confirmed as both is on both disks: it survives the loss of
// either node, disk and all. One that is local is on this node's disk and
// follows by itself. Two nodes that can talk, and are left alone, hold equal
// rows after a while, whatever was lost, repeated, delayed or restored from a
// backup before; nothing but retention drops a row, and retention drops only
// rows that have ended and that both nodes agreed to drop.
//
// It does not promise that a job is computed once: a node that is thought dead
// and is not computes on. It does not promise that two results handed out at
// the two nodes during a partition are different ones.
//
// # The protocol in one page
//
// Rows travel, operations do not. Every commit that changes a row gives it the
// node's next lseq; the rows in lseq order are the feed, and a row stands in it
// once, at its latest. A node asks its peer for the rows above its cursor, joins
// each with its own (jobs.Merge), and commits them with the new cursor in one
// transaction. Its next request carries that cursor, and so confirms what it
// covers: writers that wait for the peer are let go by it. Push, tail, catch-up
// and refill are one path.
//
//	GET /peer/changes?boot&at&seen_head&me…    → HELLO ROW… HEARTBEAT… END
//
// The cursor is (boot, at, seen_head). It is good while the server's boot chain
// has that boot with an end at or above seen_head. Else numbers may have been
// given out twice, since a disk was lost or put back, and the reader begins
// anew: it follows what is new at once, and reads what is there beside it with a
// second cursor (back_at, back_to).
//
// A row that came from the peer, and to which nothing was added, does not go
// back to the boot it came from (via); so an echo dies after one hop, and a peer
// that has lost its disk, and has another boot, gets everything.
//
// Only a row's home leases it. A dead node's rows are taken over one by one as
// they are leased; an idle node asks a living one for rows that wait. Whether
// the peer is dead three signals say together: its connection, silence, gossip.
//
// Ended rows are dropped below one floor. It rises by a round in which both
// promise to make no row below it any more, while both have read all of each
// other; open rows below it are taken along.
//
// Gossip tells who is alive, wakes the reader and carries copies of changed rows
// while HTTP is cut. Nothing rests on it: muting it costs time only.
//
// Where others are on the network, HTTP is over TLS and a node is who its
// certificate says, to whoever asks it (Config.Dial) and to whoever it asks
// (named); gossip is encrypted with a ring of keys. Config decides; package node
// sees to it.
//
// # Files
//
// The core is synchronous, takes time as a value and has no goroutine: state.go,
// wait.go, floor.go, and the engine: engine.go, answer.go (what the peer asks),
// take.go (what it answers). The simulator (node/sim) drives it. Around it stand
// follow.go and serve.go (HTTP), gossip.go, gossip_join.go and delegate.go (memberlist),
// events.go (what gossip tells), calls.go (what a node asks its peer),
// repair.go (comparing), wire*.go (the bytes) and run.go (the loops).
package sync
