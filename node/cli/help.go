package cli

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

const exitCodesHelp = `A command exits with

0    done
1    failed
2    usage: a flag, an argument or a value is wrong
3    the job failed, was cancelled or purged: it has no value
4    not authorised: no token, or one that may not do this
5    no node reachable, or none could take it; a retry may help
6    not found
7    the --timeout passed; what was begun at a node goes on
8    verification mismatch: the value is not what was computed here
130  interrupted

'status --check' has those of monitoring systems instead: 0 ok, 1 warning,
2 critical, 3 unknown, such as when no node answers. 'doctor' exits with 1 if
something needs doing.

With -o json an error is {"error":{"code","message","hint"}} on standard error.
`

const examplesHelp = `One node on this machine, and a job:

  workmanager node
  workmanager enqueue README.md -n 5000000 --wait --verify

Many jobs, their ids on a pipe, and their values as they come:

  workmanager enqueue *.raw -n 1000000 > ids
  workmanager job wait - < ids -o jsonl
  workmanager results --follow

Why is it not done?

  workmanager status --watch
  workmanager job explain ID
  workmanager fleet explain

Check somebody else's value, on all cores where checkpoints allow:

  workmanager verify ID FILE
  workmanager verify FILE -n 1000 --value HEX

Scripts: ids and values by jq, and what to do when it takes too long:

  workmanager job get ID -o json | jq -r '.jobs[0].value'
  workmanager job wait ID --timeout 10m || echo "exit code $?"

For a monitoring system, and for whoever is called by it:

  workmanager status --check --max-oldest 10m --max-lag 5s
  workmanager doctor
`

func (p *program) helpCommand() *cli.Command {
	return &cli.Command{
		Name:      "help",
		Aliases:   []string{"h"},
		Usage:     "help on a command, or on exit-codes, environment, examples",
		ArgsUsage: "[COMMAND... | exit-codes | environment | examples]",
		Flags:     []cli.Flag{reportFlag()},
		Action:    p.help,
		BashComplete: func(c *cli.Context) {
			for _, w := range append([]string{"exit-codes", "environment", "examples"}, namesOf(c.App.Commands)...) {
				fmt.Fprintln(c.App.Writer, w)
			}
		},
	}
}

func namesOf(commands []*cli.Command) []string {
	var names []string
	for _, c := range commands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return names
}

func (p *program) help(c *cli.Context) error {
	var text string
	switch topic := strings.Join(c.Args().Slice(), " "); topic {
	case "exit-codes":
		text = exitCodesHelp
	case "environment":
		text = environmentHelp(c.App.Commands)
	case "examples":
		text = examplesHelp
	default:
		// A command's, by another run of the program, which writes it there.
		var b strings.Builder
		other := &program{stdin: p.stdin, stdout: &b, stderr: p.stderr}
		app := other.app()
		commands := app.Commands
		for _, name := range c.Args().Slice() {
			sub := find(commands, name)
			if sub == nil {
				return &failure{exit: exitUsage, code: "usage", hint: "workmanager --help; 'workmanager help examples' shows how it goes", err: fmt.Errorf("no help on %q", topic)}
			}
			commands = sub.Subcommands
		}
		args := append([]string{"workmanager"}, c.Args().Slice()...)
		if err := app.RunContext(c.Context, append(args, "--help")); err != nil {
			return err
		}
		text = b.String()
	}
	if f := format(c); f != formatTable {
		return p.printJSON(f, map[string]string{"help": text})
	}
	_, err := fmt.Fprint(p.stdout, text)
	return err
}
