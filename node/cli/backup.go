package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"workmanager/node"
)

func dataDirFlag(usage string) cli.Flag {
	return &cli.StringFlag{Name: "data-dir", Usage: usage, Value: node.Default().DataDir}
}

func (p *program) backupCommand() *cli.Command {
	return &cli.Command{
		Name:  "backup",
		Usage: "copy a node's database, which may be in use, into one file",
		Description: "Runs where the data folder is. The copy is the database at the moment at which it\n" +
			"began, with a checksum; the node goes on meanwhile. It has no keys and no tokens:\n" +
			"keep the folder of 'workmanager init' too. What is purged afterwards stays in it.",
		Flags: []cli.Flag{
			dataDirFlag("`FOLDER` of the node's database"),
			&cli.StringFlag{Name: "out", Usage: "`FILE` to make, or a folder that is there: the file is named by node and time"},
			&cli.IntFlag{Name: "keep", Usage: "in a folder, keep the newest `N` backups; 0 keeps all"},
			reportFlag(),
		},
		Action: p.backup,
		Subcommands: []*cli.Command{{
			Name: "verify", Usage: "read a backup whole: its checksum, and SQLite's check of the database in it", ArgsUsage: "FILE",
			Flags: []cli.Flag{reportFlag()}, Action: p.backupVerify,
		}},
	}
}

func (p *program) restoreCommand() *cli.Command {
	return &cli.Command{
		Name:  "restore",
		Usage: "make a data folder from a backup",
		Description: "The folder must be empty or not there. Start the node of that name on it: what its\n" +
			"peer has done since then comes back from there.",
		ArgsUsage: "FILE",
		Flags: []cli.Flag{
			dataDirFlag("`FOLDER` to make"),
			reportFlag(),
		},
		Action: p.restore,
	}
}

// kept is what a backup holds, as it is printed.
type kept struct {
	File    string    `json:"file"`
	DataDir string    `json:"data_dir,omitempty"`
	Node    string    `json:"node"`
	MadeAt  time.Time `json:"made_at"`
	Schema  int       `json:"schema"`
	Jobs    int64     `json:"jobs"`
	Open    int64     `json:"open"`
	Results int64     `json:"results"`
	Bytes   int64     `json:"bytes"`
	SHA256  string    `json:"sha256"`
}

func (k kept) String() string {
	return fmt.Sprintf("node %s at %s: %s jobs, %s of them open, %s results, %s", k.Node, k.MadeAt.Format(time.RFC3339),
		humanize.Comma(k.Jobs), humanize.Comma(k.Open), humanize.Comma(k.Results), humanize.IBytes(uint64(k.Bytes)))
}

func (p *program) backup(c *cli.Context) error {
	if c.Args().Present() {
		return unknownCommand(c, c.Command.Subcommands)
	}
	if c.String("out") == "" {
		return usagef("--out FILE is missing: where to put the copy")
	}
	if c.Int("keep") < 0 {
		return usagef("--keep must be at least 0: %d given", c.Int("keep"))
	}
	file, info, err := node.Backup(c.Context, c.String("data-dir"), c.String("out"), c.Int("keep"), time.Now())
	if err != nil {
		return err
	}
	return p.printKept(c, "", kept{file, "", info.Node, info.MadeAt, info.Schema, info.Jobs, info.Open, info.Results, info.Bytes, info.SHA256})
}

func (p *program) backupVerify(c *cli.Context) error {
	file, err := oneFile(c)
	if err != nil {
		return err
	}
	info, err := node.CheckBackup(c.Context, file)
	if err != nil {
		return err
	}
	return p.printKept(c, "whole: ", kept{file, "", info.Node, info.MadeAt, info.Schema, info.Jobs, info.Open, info.Results, info.Bytes, info.SHA256})
}

func (p *program) restore(c *cli.Context) error {
	file, err := oneFile(c)
	if err != nil {
		return err
	}
	dir := c.String("data-dir")
	info, err := node.Restore(c.Context, file, dir)
	if err != nil {
		return err
	}
	err = p.printKept(c, "restored to "+dir+": ", kept{file, dir, info.Node, info.MadeAt, info.Schema, info.Jobs, info.Open, info.Results, info.Bytes, info.SHA256})
	if err == nil {
		p.say("start it as node %s with --data-dir %s", info.Node, dir)
	}
	return err
}

func oneFile(c *cli.Context) (string, error) {
	if c.NArg() != 1 {
		return "", usagef("%s wants one FILE, a backup: %d given", strings.TrimPrefix(c.Command.HelpName, c.App.HelpName+" "), c.NArg())
	}
	return c.Args().First(), nil
}

func (p *program) printKept(c *cli.Context, what string, k kept) error {
	if f := format(c); f != formatTable {
		return p.printJSON(f, k)
	}
	if what == "" {
		what = k.File + ": "
	}
	_, err := fmt.Fprintf(p.stdout, "%s%v\n", what, k)
	return err
}
