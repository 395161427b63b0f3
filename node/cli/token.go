package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"workmanager/node/keys"
)

func (p *program) tokenCommand() *cli.Command {
	where := func() cli.Flag {
		return &cli.StringFlag{Name: "keys", Usage: "`FOLDER` that 'workmanager init' made, or one node's"}
	}
	return &cli.Command{
		Name:  "token",
		Usage: "make, list and revoke tokens",
		Subcommands: []*cli.Command{
			{
				Name:  "create",
				Usage: "make a token and print it, once",
				Description: "It is entered into the tokens.json of every node in the folder. A running node\n" +
					"that uses the folder takes it within seconds; else copy the file to the nodes.",
				Flags: []cli.Flag{
					where(),
					&cli.GenericFlag{Name: "role", Usage: "`ROLE`: " + strings.Join(keys.Roles, ", ") + "; a worker's is for enrolment only", Value: &choice{keys.Client, keys.Roles}},
					&cli.StringFlag{Name: "name", Usage: "`NAME` of whoever it is for"},
					&cli.StringFlag{Name: "worker", Usage: "a worker's token enrols `NAME` only, or with a '*' behind it names that begin so", DefaultText: "any"},
					&cli.DurationFlag{Name: "ttl", Usage: "it ends after `DURATION`", DefaultText: "never"},
					outputFlag(formatID, formatTable, formatJSON, formatJSONL),
				},
				Action: p.tokenCreate,
			},
			{
				Name:   "ls",
				Usage:  "list the tokens, without their secrets",
				Flags:  []cli.Flag{where(), listFlag()},
				Action: p.tokenList,
			},
			{
				Name:      "revoke",
				Usage:     "end tokens, and with them what they were exchanged for",
				ArgsUsage: "ID...",
				Flags:     []cli.Flag{where(), listFlag()},
				Action:    p.tokenRevoke,
			},
		},
	}
}

func keysFolder(c *cli.Context) (string, error) {
	if dir := c.String("keys"); dir != "" {
		return dir, keysThere(dir)
	}
	return "", usagef("--keys FOLDER is missing: what 'workmanager init --out' made, or one node's folder of it")
}

// keysThere refuses a folder of keys that is not there.
func keysThere(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return &failure{exit: exitFailed, code: "failed", err: fmt.Errorf("--keys %s: there is no such folder", dir),
			hint: "'workmanager init --out FOLDER --node a=HOST --node b=HOST' makes the keys of a pair"}
	}
	return nil
}

func (p *program) tokenCreate(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	dir, err := keysFolder(c)
	if err != nil {
		return err
	}
	if c.String("name") == "" {
		return usagef("--name NAME is missing: whom the token is for")
	}
	if c.Duration("ttl") < 0 {
		return usagef("--ttl must not be negative")
	}
	if role := c.Generic("role").(*choice).value; c.String("worker") != "" && role != keys.Worker {
		return usagef("--worker %s needs --role %s: a %s's token enrols no worker", c.String("worker"), keys.Worker, role)
	}
	t, text, err := keys.CreateToken(dir, c.Generic("role").(*choice).value, c.String("name"), c.Duration("ttl"), time.Now(), keys.ForWorker(c.String("worker")))
	if err != nil {
		return err
	}
	switch f := format(c); f {
	case formatJSON, formatJSONL:
		return p.printJSON(f, struct {
			keys.Token
			Text string `json:"token"`
		}{t, text})
	case formatTable:
		return p.printTable([]string{"ID", "ROLE", "NAME", "TOKEN"}, [][]any{{t.ID, t.Role, t.Name, text}})
	}
	fmt.Fprintln(p.stdout, text)
	return nil
}

func (p *program) tokenList(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	dir, err := keysFolder(c)
	if err != nil {
		return err
	}
	list, missing, err := keys.ListTokens(dir)
	if err != nil {
		return err
	}
	for _, t := range list {
		if in := missing[t.ID]; len(in) > 0 {
			p.say("token %s is not in %s", t.ID, strings.Join(in, ", "))
		}
	}
	switch f := format(c); f {
	case formatJSON:
		return p.printJSON(f, map[string]any{"tokens": list})
	case formatJSONL:
		for _, t := range list {
			if err := p.printJSON(f, t); err != nil {
				return err
			}
		}
		return nil
	case formatID:
		for _, t := range list {
			fmt.Fprintln(p.stdout, t.ID)
		}
		return nil
	}
	rows := make([][]any, len(list))
	for i, t := range list {
		ends := "never"
		if t.ExpiresAt != nil {
			if ends = t.ExpiresAt.Local().Format(time.DateTime); time.Now().After(*t.ExpiresAt) {
				ends = "ended"
			}
		}
		name := t.Name
		if t.Worker != "" {
			name += " (worker " + t.Worker + ")"
		}
		rows[i] = []any{t.ID, t.Role, name, t.CreatedAt.Local().Format(time.DateTime), ends}
	}
	return p.printTable([]string{"ID", "ROLE", "NAME", "CREATED", "ENDS"}, rows)
}

func (p *program) tokenRevoke(c *cli.Context) error {
	dir, err := keysFolder(c)
	if err != nil {
		return err
	}
	if !c.Args().Present() {
		return usagef("the ID of a token is missing; 'workmanager token ls' lists them")
	}
	var errs []error
	f, revoked := format(c), []string{}
	for _, id := range c.Args().Slice() {
		if strings.HasPrefix(id, "wm_") { // the token itself: do not repeat it
			if parts := strings.SplitN(id, "_", 4); len(parts) == 4 {
				id = parts[2]
			}
		}
		err := keys.RevokeToken(dir, id)
		if errors.Is(err, keys.ErrNoToken) {
			err = &failure{exit: exitNotFound, code: "not_found", err: err, hint: "'workmanager token ls' lists them"}
		}
		if err == nil {
			revoked = append(revoked, id)
			if f == formatTable {
				p.say("token %s is revoked", id)
			}
		}
		errs = append(errs, err)
	}
	switch f {
	case formatJSON, formatJSONL:
		errs = append(errs, p.printJSON(f, map[string][]string{"revoked": revoked}))
	case formatID:
		for _, id := range revoked {
			fmt.Fprintln(p.stdout, id)
		}
	}
	return errors.Join(errs...)
}
