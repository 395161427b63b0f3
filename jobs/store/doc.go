// Package store keeps the rows of one node in SQLite.
//
// All writes go through one writer: what waits is committed together in one
// immediate transaction with synchronous=FULL, so a write that has returned is
// on the disk. Each changed row takes the next lseq in that transaction, each
// job that becomes completed the next rseq; both only rise, over restarts too.
// Reads run beside the writer on connections that cannot write.
//
// A row is changed by the pure functions of package jobs: the writer reads the
// row, applies the fact, and updates it under the guard that its lseq has not
// moved. Nothing else writes the table.
//
// After an I/O error of the disk or a sign of damage the store refuses every
// call and Run returns the error: a file is not trusted again after a failed
// fsync. A full disk is no such error: the write is refused, reads go on, and
// writes work again when there is room.
//
// A purge erases: when it has returned, neither the database nor its log holds a
// value of the job, in use or not. While another process keeps an old view of
// the file the log cannot be emptied; Tidy, the next start or a later commit then
// does it.
//
// It leaves leases to their table in memory, and knows nothing of HTTP.
package store
