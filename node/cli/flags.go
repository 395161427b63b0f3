package cli

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"workmanager/jobs"
	"workmanager/web/client"
)

// setTwin gives a flag its environment variable. A list may have one of its own.
func setTwin(f cli.Flag) {
	twin := []string{"WORKMANAGER_" + strings.ToUpper(strings.ReplaceAll(f.Names()[0], "-", "_"))}
	switch f := f.(type) {
	case *cli.BoolFlag:
		f.EnvVars = twin
	case *cli.StringFlag:
		f.EnvVars = twin
	case *cli.StringSliceFlag:
		if f.EnvVars == nil {
			f.EnvVars = twin
		}
	case *cli.IntFlag:
		f.EnvVars = twin
	case *cli.Uint64Flag:
		f.EnvVars = twin
	case *cli.Int64Flag:
		f.EnvVars = twin
	case *cli.Float64Flag:
		f.EnvVars = twin
	case *cli.DurationFlag:
		f.EnvVars = twin
	case *cli.GenericFlag:
		f.EnvVars = twin
	default:
		panic(fmt.Sprintf("cli: flag %s is of a kind that setTwin does not know", f.Names()[0]))
	}
}

// Groups of flags in the help.
const (
	groupClient   = "NODE AND OUTPUT"
	groupProgress = "PROGRESS"
	groupLimits   = "LIMITS"
	groupPair     = "PAIR"
	groupKeys     = "KEYS"

	// defaultGossip is where a node can be joined, if nothing else listens there.
	defaultGossip = "127.0.0.1:7946"
	groupLog      = "LOG"
)

const defaultNode = "http://127.0.0.1:5000"

func nodeFlag() cli.Flag {
	return &cli.StringSliceFlag{
		Name: "node", Usage: "`URL` of a node; give both of a pair and either will do", Category: groupClient,
		Value: cli.NewStringSlice(defaultNode),
	}
}

// asksNode reports whether a command is a client of nodes.
func asksNode(c *cli.Command) bool {
	return slices.ContainsFunc(c.Flags, func(f cli.Flag) bool {
		s, ok := f.(*cli.StringSliceFlag)
		return ok && s.Name == "node" && s.Category == groupClient
	})
}

// credentialFlags are what nodes that are not on loopback ask for.
func credentialFlags() []cli.Flag {
	return []cli.Flag{
		&cli.GenericFlag{Name: "token", Usage: "show `TOKEN`, or @FILE that holds it; in the environment it is not seen by other users", Category: groupClient, Value: &secret{}, DefaultText: "none"},
		&cli.StringFlag{Name: "ca", Usage: "`FILE` with the authority of the pair, ca.crt, for https URLs", Category: groupClient},
	}
}

// secret is a token. It is never printed, not even as a default.
type secret struct{ text string }

func (v *secret) Set(s string) error {
	if name, ok := strings.CutPrefix(s, "@"); ok {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		s = string(b)
	}
	v.text = strings.TrimSpace(s)
	return nil
}

func (v *secret) String() string { return "" }

func progressFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "no-progress", Usage: "show no progress bars; CI in the environment does the same", Category: groupProgress, DisableDefaultText: true},
		&cli.DurationFlag{Name: "progress", Usage: "`INTERVAL` of the progress lines where there are no bars", Value: 30 * time.Second, Category: groupProgress},
	}
}

func timeoutFlag() cli.Flag {
	return &cli.DurationFlag{Name: "timeout", Usage: "give up after `DURATION` and exit 7; the job goes on at the node", DefaultText: "never"}
}

func iterationsFlag() cli.Flag {
	return &cli.GenericFlag{Name: "iterations", Aliases: []string{"n"}, Usage: "apply SHA-512 `N` times", Value: &count{}}
}

// flag values of ours. Their String gives back what Set takes, as the library
// copies a flag to its other names that way.

// count is a number of iterations.
type count struct{ n uint64 }

func (v *count) Set(s string) error {
	n, err := strconv.ParseUint(strings.ReplaceAll(s, "_", ""), 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		n, err = math.MaxUint64, nil
	}
	if err == nil {
		err = jobs.CheckIterations(n)
	}
	if err != nil {
		return fmt.Errorf("%q is no whole number from 1 to %d (2^53)", s, uint64(jobs.MaxIterations))
	}
	v.n = n
	return nil
}

func (v *count) String() string {
	if v.n == 0 {
		return ""
	}
	return strconv.FormatUint(v.n, 10)
}

func iterationsOf(c *cli.Context) (uint64, error) {
	n := c.Generic("iterations").(*count).n
	if n == 0 {
		return 0, usagef("--iterations N (or -n N) is missing: how many times to apply SHA-512, 1 to %d", uint64(jobs.MaxIterations))
	}
	return n, nil
}

// size is a number of bytes, such as 67108864 or 64MiB.
type size struct{ n int64 }

func (v *size) Set(s string) error {
	n, err := humanize.ParseBytes(s)
	if err != nil || n > math.MaxInt64 {
		return fmt.Errorf("%q is no size such as 1000000 or 64MiB", s)
	}
	v.n = int64(n)
	return nil
}

func (v *size) String() string {
	if v.n > 0 {
		b := strings.ReplaceAll(strings.ReplaceAll(humanize.IBytes(uint64(v.n)), ".0 ", ""), " ", "")
		if n, err := humanize.ParseBytes(b); err == nil && int64(n) == v.n {
			return b
		}
	}
	return strconv.FormatInt(v.n, 10)
}

// choice is one of some words.
type choice struct {
	value string
	of    []string
}

func (v *choice) Set(s string) error {
	if !slices.Contains(v.of, s) {
		return fmt.Errorf("%q is none of %s", s, strings.Join(v.of, ", "))
	}
	v.value = s
	return nil
}

func (v *choice) String() string { return v.value }

// every is a flag that may have a duration: --watch, or --watch 5s.
type every struct {
	on       bool
	interval time.Duration
}

// IsBoolFlag tells package flag that no value need follow.
func (v *every) IsBoolFlag() bool { return true }

func (v *every) Set(s string) error {
	if on, err := strconv.ParseBool(s); err == nil {
		v.on = on
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is no interval such as 2s", s)
	}
	v.on, v.interval = true, d
	return nil
}

func (v *every) String() string {
	switch {
	case v == nil || !v.on:
		return ""
	case v.interval > 0:
		return v.interval.String()
	}
	return "true"
}

// client returns the client for the nodes that --node names.
func (p *program) client(c *cli.Context) *client.Client {
	return &client.Client{URLs: c.StringSlice("node"), Token: c.Generic("token").(*secret).text, CAFile: c.String("ca")}
}

// noArgs refuses arguments where there are none.
func noArgs(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("%s takes no arguments, got %q", c.Command.FullName(), c.Args().First())
	}
	return nil
}
