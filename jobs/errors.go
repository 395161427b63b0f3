package jobs

import (
	"errors"
	"fmt"
	"time"
)

// Code says what kind of error a caller caused or met. It is stable: clients
// compare it, and package web turns it into a status.
type Code string

// The codes, by who can mend them: first the caller, then time, then us.
const (
	CodeInvalid      Code = "invalid"       // a value is wrong; Problems says which
	CodeMalformed    Code = "malformed"     // the request cannot be read at all
	CodeNotFound     Code = "not_found"     // no such job
	CodeConflict     Code = "conflict"      // one Idempotency-Key, other data
	CodeNotCompleted Code = "not_completed" // the job has no value, or none any more
	CodeTooLarge     Code = "too_large"     // over a limit in bytes
	CodeUnsupported  Code = "unsupported"   // a media type or encoding we do not take
	CodeTimeout      Code = "timeout"       // the request came in too slowly
	CodeLimited      Code = "limited"       // a limit of this one caller; try later
	CodeBusy         Code = "busy"          // a limit of the whole node; try later
	CodeStopping     Code = "stopping"      // this node is shutting down; try the other
	CodeDiskFull     Code = "disk_full"     // no room for the write; reads go on
	CodeUnavailable  Code = "unavailable"   // the answer cannot be known now
	CodeInternal     Code = "internal"      // our fault; details are in the log
	CodeNoRoute      Code = "no_route"      // no such route
	CodeMethod       Code = "method"        // the route knows other methods
	CodeForbidden    Code = "forbidden"     // the caller may not do this
	CodeAuth         Code = "unauthorized"  // the caller is not known
)

// Problem is one thing that is wrong with a request. Loc is where: "query" or
// "body", then the parameter.
type Problem struct {
	Loc  []string
	Msg  string
	Type string
}

// Error is an error that a caller can be told in full. Everything else is
// internal: it is logged, and a caller sees only that it happened.
type Error struct {
	Code     Code
	Msg      string
	Problems []Problem
	// RetryAfter, if not zero, is when trying again makes sense.
	RetryAfter time.Duration
	// Written says that what was asked for is durable here all the same: only
	// the confirmation that the caller insisted on is missing.
	Written bool
}

// Error returns the message.
func (e *Error) Error() string { return e.Msg }

// Errorf returns an *Error with a formatted message.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Msg: fmt.Sprintf(format, args...)}
}

// Invalid returns the *Error for one wrong value: name is the parameter, in
// where it stood ("query", "body"), kind a stable word for programs.
func Invalid(in, name, kind, format string, args ...any) *Error {
	msg := fmt.Sprintf(format, args...)
	return &Error{Code: CodeInvalid, Msg: name + ": " + msg, Problems: []Problem{{Loc: []string{in, name}, Msg: msg, Type: kind}}}
}

// Retry returns a copy of e that tells the caller when to try again.
func (e *Error) Retry(after time.Duration) *Error {
	c := *e
	c.RetryAfter = after
	return &c
}

// CodeOf returns the code of err, CodeInternal if it has none, and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}
