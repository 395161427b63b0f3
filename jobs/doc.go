// Package jobs says what a job is and how it lives: the words every other
// package speaks. It holds no state, starts no goroutine, reads no clock and
// does no I/O; time and chance come in as arguments.
//
// A job is (v1, iterations): v1 = SHA-512(data) is the first of the
// iterations, taken while the data arrived, and the data itself is never kept.
// Its value is v(iterations), where v(k+1) = SHA-512(v(k)).
//
// # Life of a job
//
//	enqueue ──▶ open ──▶ completed   a worker reported the value
//	             │  ╲──▶ failed      it cannot be computed, and says why
//	             ╰─────▶ cancelled   its owner withdrew it
//
// Open is shown as queued, or as leased while a worker holds it; a lease lives
// in the memory of the job's home node and is no part of the row.
//
// # Invariants
//
// Other packages cite these by number.
//
//   - J1: a rank never falls. Open < failed < cancelled < completed, at one
//     node and in every [Merge].
//   - J2: a completed job has its value, a failed one its reason, and no other
//     job has either; a purged one has neither v1, value nor checkpoint.
//   - J3: v1, iterations and owner of a job never change.
//   - J4: at one node at most one worker holds the lease of a job.
//   - J5: a value shown once stays the value of that job, but for an integrity
//     alarm that recomputing decided.
//   - J6: Merge is commutative, associative and idempotent, so order and
//     repetition of what arrives cannot matter.
//   - J7: a checkpoint and a lost-worker count belong to an open job; a job
//     that has ended carries neither. Its kept checkpoints stay until it is
//     purged.
//   - J8: what was taken back stays taken back: no checkpoint of a row with
//     fewer restarts is gone on from, at either node and after any restart.
package jobs
