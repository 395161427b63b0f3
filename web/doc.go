// Package web serves the public HTTP API: every route of the contract, from
// bytes on the wire to calls of [Queue], [Reader] and [StatusReporter], and
// back. It knows no store, no lease and no peer.
//
// It promises that input is hashed while it arrives and never kept, that a
// request costs bounded memory whatever its size, that a slow client cannot
// hold a connection for ever, that a panic stays within its request, and that
// every refusal is a problem document that names the field and the limit, and
// that one caller, by its token or its address, takes no more than its share. It
// does not authenticate, and it does not open the listener.
package web
