package cli

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"workmanager/jobs"
)

func usagef(format string, args ...any) error {
	return &failure{exit: exitUsage, code: "usage", err: fmt.Errorf(format, args...)}
}

// helped is an action whose usage errors lead to the command's help, where they
// say nothing better.
func helped(action cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		err := action(c)
		help := c.Command.HelpName + " --help"
		if f, ok := errors.AsType[*failure](err); ok {
			if f.exit == exitUsage && f.hint == "" {
				f.hint = help
			}
		} else if jobs.CodeOf(err) == jobs.CodeInvalid {
			return &failure{exit: exitUsage, code: string(jobs.CodeInvalid), err: err, hint: help}
		}
		return err
	}
}

// usageOf is the library's OnUsageError: a flag nobody knows, or a value that
// cannot be.
func usageOf(c *cli.Context, err error, _ bool) error {
	f := &failure{exit: exitUsage, code: "usage", err: err, hint: c.Command.HelpName + " --help"}
	if name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
		name = strings.TrimPrefix(name, "-")
		f.err = fmt.Errorf("unknown flag %s", dashed(name))
		var names []string
		for _, known := range c.Command.Flags {
			names = append(names, known.Names()...)
		}
		name, _, _ = strings.Cut(name, "=")
		if like := likely(name, names); like != "" {
			f.hint = "did you mean " + dashed(like) + "? Else: " + f.hint
		}
		return f
	}
	if said := valueRefused(c.Command.Flags, err.Error()); said != "" {
		f.err = errors.New(said)
	}
	return f
}

// refusals are the words of the library and of package flag for a value that
// cannot be: of a flag, of a switch, of the environment.
var refusals = []*regexp.Regexp{
	regexp.MustCompile(`(?s)^invalid (?:boolean )?value "(?P<value>.*)" for (?:flag )?(?P<flag>-[^ :]+): (?P<why>.*)$`),
	regexp.MustCompile(`(?s)^could not parse "(?P<value>.*)" (?:as .+ value )?from environment variable "(?P<where>[A-Z0-9_]+)"(?: as value)? for flag (?P<flag>[^ :]+): (?P<why>.*)$`),
}

// valueRefused says where a value stands and what is wanted there, in the same
// words for all flags; "" if said is about no value.
func valueRefused(flags []cli.Flag, said string) string {
	for _, r := range refusals {
		m := r.FindStringSubmatch(said)
		if m == nil {
			continue
		}
		part := func(name string) string {
			if i := r.SubexpIndex(name); i >= 0 {
				return m[i]
			}
			return ""
		}
		name := strings.TrimLeft(part("flag"), "-")
		where, why := part("where"), part("why")
		if where == "" {
			where = dashed(name)
		}
		if librarySays(why) {
			why = fmt.Sprintf("%q is %s", part("value"), wanted(flags, name))
		}
		return where + ": " + why
	}
	return ""
}

// librarySays reports whether words are the library's, which tell people nothing.
func librarySays(why string) bool {
	return strings.HasPrefix(why, "parse error") || strings.HasPrefix(why, "value out of range") ||
		strings.HasPrefix(why, "strconv.") || strings.HasPrefix(why, "time: ")
}

// wanted says what a value is not, by the kind of its flag.
func wanted(flags []cli.Flag, name string) string {
	for _, f := range flags {
		if !slices.Contains(f.Names(), name) {
			continue
		}
		switch f.(type) {
		case *cli.DurationFlag:
			return "no duration such as 500ms, 10m or 720h"
		case *cli.BoolFlag:
			return "neither true nor false"
		case *cli.Float64Flag:
			return "no number such as 0.5"
		}
	}
	return "no whole number, or too large a one"
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func unknownCommand(c *cli.Context, commands []*cli.Command) error {
	name, where := c.Args().First(), c.Command.HelpName
	f := &failure{exit: exitUsage, code: "usage", hint: where + " --help", err: fmt.Errorf("no command %q", name)}
	if where != c.App.HelpName {
		f.err = fmt.Errorf("%s has no command %q", strings.TrimPrefix(where, c.App.HelpName+" "), name)
	}
	if like := likely(name, namesOf(commands)); like != "" {
		f.hint = fmt.Sprintf("did you mean %s? Else: %s", like, f.hint)
	}
	return f
}

// likely returns which of names was meant: one that begins so, or is at most two
// letters away; "" if none is.
func likely(name string, names []string) string {
	for _, n := range names {
		if len(name) > 1 && strings.HasPrefix(n, name) {
			return n
		}
	}
	return nearest(name, names)
}
