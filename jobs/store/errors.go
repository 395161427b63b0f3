package store

import (
	"errors"
	"fmt"

	"modernc.org/sqlite"

	"workmanager/jobs"
)

// SQLite's primary result codes that mean something to us, from sqlite3.h.
const (
	codeBusy     = 5
	codeReadOnly = 8
	codeIOErr    = 10
	codeCorrupt  = 11
	codeFull     = 13
	codeNotADB   = 26

	codeIOErrShmSize = 19<<8 | codeIOErr // the -shm file could not grow: no room
)

// errFailed is what callers are told after a fatal error; what it was stands
// behind it, for the log.
var errFailed = jobs.Errorf(jobs.CodeUnavailable, "the disk failed or the database is damaged: this node stops, use another").Retry(retryFull)

// ErrInUse says that another process has the data directory.
var ErrInUse = errors.New("data directory is in use")

// sqliteCode returns the extended result code of err, 0 if it is none of SQLite's.
func sqliteCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}

// fatal reports whether the file can no longer be trusted after err.
func fatal(err error) bool {
	code := sqliteCode(err)
	switch code & 0xff {
	case codeIOErr:
		return code != codeIOErrShmSize
	case codeCorrupt, codeNotADB, codeReadOnly:
		return true
	}
	return false
}

// full reports whether err says that there was no room.
func full(err error) bool {
	code := sqliteCode(err)
	return code&0xff == codeFull || code == codeIOErrShmSize
}

// explain turns an error of SQLite into one a caller can be told, where there
// is one; any other error is wrapped with what was being done.
func explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	switch {
	case full(err):
		return jobs.Errorf(jobs.CodeDiskFull, "the disk is full: nothing was written; free some space, reads go on meanwhile").Retry(retryFull)
	case fatal(err):
		return fmt.Errorf("%s: %w: %w", doing, errFailed, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
