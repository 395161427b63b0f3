package cli

import (
	"context"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"workmanager/node"
)

// program is one run of the command line.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	shown          *meter // at work; nil: none
}

// Main runs the command in args, of which the first is the program's name, and
// returns the exit code:
//
//	0    done
//	1    failed
//	2    usage: a flag, an argument or a value is wrong
//	3    the job failed
//	4    not authorised
//	5    no node reachable, or none could take it; a retry may help
//	6    not found
//	7    the --timeout passed
//	8    verification mismatch
//	130  interrupted
//
// It returns when the command is done or ctx is, and starts nothing that
// outlives it.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &program{stdin: stdin, stdout: stdout, stderr: stderr}
	app := p.app()
	if unknown := unknownTwins(os.Environ(), app.Commands); len(unknown) > 0 && !wantsJSON(args) && !completing(args) {
		p.say("%s; 'workmanager help environment' lists those there are", unknownSaid(unknown))
	}
	arranged, err := arrange(app, args)
	if err == nil {
		err = app.RunContext(ctx, arranged)
	}
	return p.report(ctx, err, wantsJSON(args))
}

func (p *program) app() *cli.App {
	app := &cli.App{
		Name:     "workmanager",
		HelpName: "workmanager",
		Usage:    "a work queue for iterated SHA-512",
		Description: "A job is some bytes and a number of iterations; its value is the iterated SHA-512\n" +
			"of the bytes. Start a node with 'workmanager node', then submit with\n" +
			"'workmanager enqueue FILE -n 1000000 --wait'.\n\n" +
			"Every flag has a twin in the environment: WORKMANAGER_ and its name in capitals,\n" +
			"'-' as '_'. Flags may follow arguments; '--' ends them.\n\n" +
			"Answers are tables on a terminal and ids or JSON on a pipe; -o chooses.\n\n" +
			"Exit codes: 0 done, 1 failed, 2 usage, 3 the job failed, 4 not authorised,\n" +
			"5 no node reachable, 6 not found, 7 timeout, 8 verification mismatch,\n" +
			"130 interrupted.",
		Version: node.Version(),
		Commands: []*cli.Command{
			p.nodeCommand(),
			p.workerCommand(),
			p.initCommand(),
			p.tokenCommand(),
			p.enqueueCommand(),
			p.pullCommand(),
			p.resultsCommand(),
			p.jobCommand(),
			p.statusCommand(),
			p.fleetCommand(),
			p.quarantineCommand(),
			p.verifyCommand(),
			p.backupCommand(),
			p.restoreCommand(),
			p.benchCommand(),
			p.demoCommand(),
			p.simulateCommand(),
			p.doctorCommand(),
			p.helpCommand(),
			p.versionCommand(),
			p.completionCommand(),
		},
		Flags:                []cli.Flag{cli.HelpFlag}, // the library's, which it leaves out where there is a help command
		Reader:               p.stdin,
		Writer:               p.stdout,
		ErrWriter:            p.stderr,
		EnableBashCompletion: true,
		Suggest:              true,
		ExitErrHandler:       func(*cli.Context, error) {}, // Main reports, and only main exits
		OnUsageError:         usageOf,
	}
	app.Action = groupAction(func() []*cli.Command { return app.Commands })
	finish(app.Commands)
	return app
}

// finish gives every command what all have: no "help" sub-command, which would
// take a file of that name for itself, usage errors of ours, and the
// environment twins.
func finish(commands []*cli.Command) {
	for _, c := range commands {
		c.HideHelpCommand = true
		c.OnUsageError = usageOf
		if asksNode(c) {
			c.Flags = append(c.Flags, credentialFlags()...)
		}
		for _, f := range c.Flags {
			setTwin(f)
		}
		if len(c.Subcommands) > 0 {
			subs := c.Subcommands
			if c.Action == nil { // else it does something by itself
				c.UsageText = "workmanager " + c.Name + " COMMAND [command options]"
				c.Action = groupAction(func() []*cli.Command { return subs })
			}
			finish(subs)
		}
		c.Action = helped(c.Action)
	}
}

// groupAction is what a command does that is only a group of others.
func groupAction(commands func() []*cli.Command) cli.ActionFunc {
	return func(c *cli.Context) error {
		if !c.Args().Present() {
			if c.Command.HelpName == c.App.HelpName {
				return cli.ShowAppHelp(c)
			}
			names := namesOf(commands())
			return usagef("%s needs a command: %s", c.Command.Name, strings.Join(names, ", "))
		}
		return unknownCommand(c, commands())
	}
}
