package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// kind is how a flag stands on the command line.
type kind int

const (
	unknownFlag  kind = iota
	switchFlag        // has no value
	valueFlag         // has one, behind = or as the next argument
	optionalFlag      // a duration may follow
)

func kindOf(f cli.Flag) kind {
	if g, ok := f.(*cli.GenericFlag); ok {
		if b, ok := g.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
			return optionalFlag
		}
		return valueFlag
	}
	if d, ok := f.(cli.DocGenerationFlag); ok && !d.TakesValue() {
		return switchFlag
	}
	return valueFlag
}

func lookup(flags []cli.Flag, name string) kind {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return kindOf(f)
		}
	}
	return unknownFlag
}

// level is a command on the way to the innermost, and the flags given to it.
type level struct {
	command  *cli.Command // nil: the app
	name     string       // as written
	flags    []cli.Flag
	commands []*cli.Command
	given    []string
}

func (l *level) kind(name string) kind {
	switch {
	case name == "help" || name == "h":
		return switchFlag
	case l.command == nil && (name == "version" || name == "v"):
		return switchFlag
	}
	return lookup(l.flags, name)
}

// arrange puts args in the order the library wants: every flag directly behind
// the command it belongs to, the arguments last. The library itself takes no
// flag behind an argument, and none before its command. A flag goes to the
// innermost command that knows it; one that nobody knows goes to the innermost
// too, which reports it. What follows "--" stays as it is.
func arrange(app *cli.App, args []string) ([]string, error) {
	if len(args) < 2 || completing(args) {
		return args, nil
	}
	path := []*level{{flags: app.Flags, commands: app.Commands}}
	inner := func() *level { return path[len(path)-1] }
	var flags [][]string // each with its value, if that is an argument of its own
	var rest []string

	for i := 1; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(append([]string{"--"}, rest...), args[i+1:]...)
			break
		}
		if arg == "-" || !strings.HasPrefix(arg, "-") {
			if c := find(inner().commands, arg); c != nil && len(rest) == 0 {
				path = append(path, &level{command: c, name: arg, flags: c.Flags, commands: c.Subcommands})
			} else {
				rest = append(rest, arg)
			}
			continue
		}
		name, _, hasValue := strings.Cut(undashed(arg), "=")
		k := unknownFlag
		for j := len(path) - 1; j >= 0 && k == unknownFlag; j-- {
			k = path[j].kind(name)
		}
		if k == unknownFlag { // perhaps it is of a command to come
			k = kindBelow(inner().commands, name)
		}
		flag := []string{arg}
		switch {
		case hasValue:
		case k == valueFlag:
			if i++; i == len(args) {
				help := []string{app.HelpName}
				for _, l := range path[1:] {
					help = append(help, l.name)
				}
				return nil, &failure{exit: exitUsage, code: "usage", err: fmt.Errorf("flag %s needs a value", arg), hint: strings.Join(help, " ") + " --help"}
			}
			flag = append(flag, args[i])
		case k == optionalFlag && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-"):
			if _, err := time.ParseDuration(args[i+1]); err == nil {
				i++
				flag[0] += "=" + args[i]
			}
		}
		flags = append(flags, flag)
	}

	for _, flag := range flags {
		name, _, _ := strings.Cut(undashed(flag[0]), "=")
		to := inner()
		for _, l := range slices.Backward(path) {
			if l.kind(name) != unknownFlag {
				to = l
				break
			}
		}
		if to.kind(name) == unknownFlag {
			// One argument, so that the value is not taken for the command's.
			flag = []string{strings.Join(flag, "=")}
		}
		to.given = append(to.given, flag...)
	}

	out := []string{args[0]}
	for _, l := range path {
		if l.name != "" {
			out = append(out, l.name)
		}
		out = append(out, l.given...)
	}
	return append(out, rest...), nil
}

// completing reports whether a shell asks what could stand next.
func completing(args []string) bool {
	return len(args) > 0 && args[len(args)-1] == "--generate-bash-completion"
}

// undashed is a flag without its one or two dashes.
func undashed(arg string) string {
	return strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-")
}

func find(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if slices.Contains(c.Names(), name) {
			return c
		}
	}
	return nil
}

// kindBelow is the kind that the commands below give a flag of this name. All
// that know it agree, which a test holds.
func kindBelow(commands []*cli.Command, name string) kind {
	for _, c := range commands {
		if k := lookup(c.Flags, name); k != unknownFlag {
			return k
		}
		if k := kindBelow(c.Subcommands, name); k != unknownFlag {
			return k
		}
	}
	return unknownFlag
}
