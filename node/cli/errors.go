package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"workmanager/jobs"
	"workmanager/web/client"
)

// The exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitJobFailed   = 3
	exitAuth        = 4
	exitUnreachable = 5
	exitNotFound    = 6
	exitTimeout     = 7
	exitMismatch    = 8
	exitInterrupted = 130
)

// failure is an error that knows its exit code, its word for programs and
// perhaps the way out.
type failure struct {
	exit int
	code string
	err  error
	hint string
	said bool // it stands in the output: the exit code is all that is left to say
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// withTimeout bounds ctx by --timeout, 0 being no bound. hint is the way on.
func withTimeout(ctx context.Context, d time.Duration, hint string) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, d, &failure{
		exit: exitTimeout, code: "timeout", err: fmt.Errorf("the --timeout of %s passed", d), hint: hint})
}

// classify finds out what to say of an error.
func classify(ctx context.Context, err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return &failure{exit: f.exit, code: f.code, err: err, hint: f.hint, said: f.said}
	}
	f := &failure{exit: exitFailed, code: "failed", err: err}
	switch {
	case errors.Is(err, client.ErrUnreachable):
		f.exit, f.code = exitUnreachable, "unreachable"
		f.hint = "is a node running there? Start one with 'workmanager node', or name another with --node URL"
		return f
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		f.exit, f.code, f.err = exitInterrupted, "interrupted", errors.New("interrupted")
		return f
	}
	if e, ok := errors.AsType[cli.ExitCoder](err); ok { // the library's own: no such help topic
		f.exit, f.code, f.err, f.hint = exitUsage, "usage", e, "workmanager --help"
		return f
	}
	e, ok := errors.AsType[*jobs.Error](err)
	if !ok {
		return f
	}
	f.code = string(e.Code)
	switch e.Code {
	case jobs.CodeInvalid:
		f.exit = exitUsage
	case jobs.CodeAuth, jobs.CodeForbidden:
		f.exit = exitAuth
		f.hint = "show a token with WORKMANAGER_TOKEN or --token; 'workmanager token create' makes one"
	case jobs.CodeNotFound:
		f.exit = exitNotFound
		f.hint = "'workmanager job ls' lists the jobs there are; ended ones are dropped when retention is over"
	case jobs.CodeLimited, jobs.CodeBusy, jobs.CodeStopping, jobs.CodeUnavailable:
		f.exit = exitUnreachable
		f.hint = "try again later"
		if e.RetryAfter > 0 {
			f.hint = fmt.Sprintf("try again in %s", e.RetryAfter)
		}
	case jobs.CodeDiskFull:
		f.hint = "make room on the node's disk; reads go on meanwhile"
	case jobs.CodeTooLarge:
		f.hint = "the node's limit is raised with 'workmanager node --max-data-bytes'"
	case jobs.CodeInternal:
		f.hint = "the node's log says more"
	case jobs.CodeNoRoute, jobs.CodeMethod:
		f.hint = "is it a workmanager node that listens there?"
	}
	return f
}

// report prints err and returns the exit code.
func (p *program) report(ctx context.Context, err error, asJSON bool) int {
	if err == nil {
		return exitDone
	}
	f := classify(ctx, err)
	if f.said {
		return f.exit
	}
	if asJSON {
		type body struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Hint    string `json:"hint,omitempty"`
		}
		text, jerr := json.Marshal(map[string]body{"error": {f.code, f.err.Error(), f.hint}})
		if jerr == nil {
			fmt.Fprintf(p.stderr, "%s\n", text)
			return f.exit
		}
	}
	for line := range strings.SplitSeq(f.err.Error(), "\n") { // of errors that were joined
		p.say("%s", line)
	}
	if f.hint != "" {
		p.say("hint: %s", f.hint)
	}
	return f.exit
}

// say prints one line on stderr, above the bars if there are any.
func (p *program) say(format string, args ...any) {
	line := "workmanager: " + fmt.Sprintf(format, args...)
	if p.shown != nil && p.shown.bars != nil {
		p.shown.bars.Log("%s", line)
		return
	}
	fmt.Fprintln(p.stderr, line)
}

// wantsJSON tells whether errors are wanted as JSON. It looks at the arguments
// themselves, since one of them may be what is wrong.
func wantsJSON(args []string) bool {
	format := os.Getenv("WORKMANAGER_OUTPUT")
	for i, arg := range args {
		if arg == "--" {
			break
		}
		name, value, hasValue := strings.Cut(undashed(arg), "=")
		if !strings.HasPrefix(arg, "-") || name != "o" && name != "output" {
			continue
		}
		switch {
		case hasValue:
			format = value
		case i+1 < len(args):
			format = args[i+1]
		}
	}
	return format == formatJSON || format == formatJSONL
}
