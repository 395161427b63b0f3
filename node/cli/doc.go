// Package cli is the command line. Each command is one file: flags become a
// Config or one call of the client, and what comes back is printed.
//
// It promises that stdout holds the answer and nothing else, that fields of
// JSON output are only ever added, that flags may stand before or after the
// arguments, that every flag has a twin in the environment, WORKMANAGER_ and
// its name, and that the exit code tells what went wrong (see [Main]).
package cli
