// Package lease keeps the leases that one node has given and the open jobs it
// may give next, in memory. It is pure: time is an argument, nothing is
// written, and losing it costs work, never a job or a result. A restart voids
// every lease, since a fence carries the boot that gave it.
//
// The jobs that may be given are a window over the open rows of the store: the
// most urgent first, and of one priority the oldest first. Whoever owns the
// table keeps it filled. Which of them is given first order.go says.
package lease
