package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

const (
	twinPrefix = "WORKMANAGER_"
	// testPrefix begins the settings of our own tests.
	testPrefix = twinPrefix + "E2E_"
)

// twins returns the environment names of all flags, sorted, each with the words
// of help that go with it and the commands that have it.
func twins(commands []*cli.Command) (names []string, usage, of map[string]string) {
	usage, of = map[string]string{}, map[string]string{}
	var walk func(path string, commands []*cli.Command)
	walk = func(path string, commands []*cli.Command) {
		for _, c := range commands {
			name := strings.TrimSpace(path + " " + c.Name)
			for _, f := range c.Flags {
				d, ok := f.(cli.DocGenerationFlag)
				if !ok || c.Hidden {
					continue
				}
				for _, twin := range d.GetEnvVars() {
					if usage[twin] == "" {
						names, usage[twin] = append(names, twin), strings.ReplaceAll(d.GetUsage(), "`", "")
					}
					of[twin] = strings.TrimPrefix(of[twin]+", "+name, ", ")
				}
			}
			walk(name, c.Subcommands)
		}
	}
	walk("", commands)
	slices.Sort(names)
	return names, usage, of
}

// unknownTwin is a name in the environment that looks like ours and is not.
type unknownTwin struct{ name, like string }

// unknownTwins returns those of env that no flag has: a setting that is not there
// is set to no effect, and nobody would know.
func unknownTwins(env []string, commands []*cli.Command) []unknownTwin {
	var out []unknownTwin
	var names []string
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, twinPrefix) || strings.HasPrefix(name, testPrefix) {
			continue
		}
		if names == nil {
			names, _, _ = twins(commands)
		}
		if !slices.Contains(names, name) {
			out = append(out, unknownTwin{name, nearest(name, names)})
		}
	}
	return out
}

// nearest returns which of names is at most two letters away, "" if none is.
func nearest(name string, names []string) string {
	best, least := "", 3
	for _, n := range names {
		if d := distance(name, n); d < min(least, len(name)) { // not all of its letters
			best, least = n, d
		}
	}
	return best
}

// distance is how many letters must be changed, added or left out.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			here := last
			if a[i] != b[j] {
				here++
			}
			last, row[j+1] = row[j+1], min(here, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

func unknownSaid(list []unknownTwin) string {
	var out []string
	for _, u := range list {
		s := u.name
		if u.like != "" {
			s += " (did you mean " + u.like + "?)"
		}
		out = append(out, s)
	}
	what := "no setting has the name "
	if len(out) > 1 {
		what = "no settings have the names "
	}
	return what + strings.Join(out, ", ")
}

// environmentHelp is what 'help environment' prints.
func environmentHelp(commands []*cli.Command) string {
	var b strings.Builder
	b.WriteString("Every flag has a twin in the environment. A flag counts before its twin, the twin\n" +
		"before the default; several values of one twin are split at commas. NO_COLOR, CI and\n" +
		"TERM=dumb are heeded. A name that no flag has is reported.\n\n")
	names, usage, of := twins(commands)
	for _, n := range names {
		cmds := of[n]
		if strings.Count(cmds, ",") > 3 {
			cmds = "most commands"
		}
		fmt.Fprintf(&b, "%s\n    %s (%s)\n", n, usage[n], cmds)
	}
	b.WriteString("\nAWS_REGION, AWS_PROFILE and the others of the AWS SDK are for a node with --fleet ec2.\n" +
		"NOTIFY_SOCKET and WATCHDOG_USEC are systemd's. GOGC and GOMAXPROCS are Go's.\n")
	return b.String()
}
