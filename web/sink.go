package web

import (
	"crypto/sha512"
	"hash"
	"sync"

	"workmanager/jobs"
)

// sink takes the data of one job as it arrives and keeps only its length and
// its SHA-512, which is the job's v1. Where data begins again, the last counts.
type sink struct {
	h    hash.Hash
	sum  jobs.Value
	max  int64
	n    int64
	seen bool  // data was found
	file bool  // it came as a file, which alone may be empty
	bad  error // why what was found is no data
}

var sinks = sync.Pool{New: func() any { return &sink{h: sha512.New()} }}

// newSink returns a sink for data of at most max bytes, to be released.
func newSink(max int64) *sink {
	k := sinks.Get().(*sink)
	k.h.Reset()
	*k = sink{h: k.h, max: max}
	return k
}

func (k *sink) release() { sinks.Put(k) }

// begin starts a data, and forgets one that came before.
func (k *sink) begin(file bool) {
	if k.n > 0 {
		k.h.Reset()
	}
	k.n, k.seen, k.file, k.bad = 0, true, file, nil
}

// Write takes bytes of the data. Its error is an *Error for the caller.
func (k *sink) Write(p []byte) (int, error) {
	k.n += int64(len(p))
	if k.n > k.max {
		return 0, tooLarge("has more than %d bytes, which is the limit", k.max)
	}
	return k.h.Write(p)
}

// check returns what is wrong with the data found, nil if it can be a job's.
func (k *sink) check() error {
	switch {
	case !k.seen:
		return missing("body", "data", "")
	case k.bad != nil:
		return k.bad
	case k.n == 0 && !k.file:
		return errEmpty
	}
	return nil
}

// v1 returns SHA-512(data).
func (k *sink) v1() jobs.Value {
	k.h.Sum(k.sum[:0])
	return k.sum
}

var errEmpty = jobs.Invalid("body", "data", "value_error.empty",
	"is empty; to hash nothing send an empty file: multipart/form-data with a part named data that has a filename")

// tooLarge is the error for data over a limit.
func tooLarge(format string, args ...any) error {
	e := jobs.Invalid("body", "data", "value_error.too_large", format, args...)
	e.Code = jobs.CodeTooLarge
	return e
}
