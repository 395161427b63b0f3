package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func testApp() *cli.App {
	var none bytes.Buffer
	p := &program{stdin: &none, stdout: &none, stderr: &none}
	return p.app()
}

func TestArrange(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"in_order_already":        {"enqueue -n 5 --wait f", "enqueue -n 5 --wait f"},
		"flags_behind_arguments":  {"enqueue f -n 5 g --wait", "enqueue -n 5 --wait f g"},
		"value_behind_equals":     {"enqueue f -n=5 --node=u", "enqueue -n=5 --node=u f"},
		"stdin":                   {"enqueue - -n 5", "enqueue -n 5 -"},
		"a_value_that_is_a_dash":  {"enqueue f --key - -n 5", "enqueue --key - -n 5 f"},
		"a_value_like_a_flag":     {"enqueue f -n -5", "enqueue -n -5 f"},
		"after_two_dashes":        {"enqueue f -n 5 -- -n --wait", "enqueue -n 5 -- f -n --wait"},
		"sub_command":             {"job wait ID --timeout 3s", "job wait --timeout 3s ID"},
		"before_the_command":      {"--node u -o json job get ID", "job get --node u -o json ID"},
		"between_the_commands":    {"job -o json get ID", "job get -o json ID"},
		"command_only_once":       {"enqueue status job -n 5", "enqueue -n 5 status job"},
		"help_of_a_command":       {"enqueue f --help", "enqueue --help f"},
		"version":                 {"--version", "--version"},
		"version_before_command":  {"-v status", "-v status"},
		"optional_value":          {"status --watch 5s -o json", "status --watch=5s -o json"},
		"optional_value_missing":  {"status --watch -o json", "status --watch -o json"},
		"unknown_flag":            {"enqueue f --what -n 5", "enqueue --what -n 5 f"},
		"unknown_flag_with_value": {"enqueue f --what=5 g", "enqueue --what=5 f g"},
		"flag_of_another_command": {"-n 5 status", "status -n=5"},
		"empty_value":             {"enqueue f --key= -n 5", "enqueue --key= -n 5 f"},
		"unknown_command":         {"bogus -n 5", "-n=5 bogus"},
		"completion":              {"enqueue f --wait --generate-bash-completion", "enqueue f --wait --generate-bash-completion"},
		"nothing":                 {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			in := append([]string{"workmanager"}, strings.Fields(tc.in)...)
			out, err := arrange(testApp(), in)
			if got := strings.Join(out[1:], " "); err != nil || got != tc.want {
				t.Errorf("arrange(%s) = %s, %v, want %s", tc.in, got, err, tc.want)
			}
		})
	}
	for _, in := range []string{"enqueue f -n", "job wait ID --timeout", "enqueue --node"} {
		if out, err := arrange(testApp(), append([]string{"workmanager"}, strings.Fields(in)...)); err == nil {
			t.Errorf("arrange(%s) = %q, want that a value is missing", in, out)
		}
	}
}

// FuzzArrange holds that no argument is lost, made or changed, that arranging
// twice is arranging once, and that what follows "--" stays in its order.
func FuzzArrange(f *testing.F) {
	f.Add("enqueue f -n 5 --wait -- -x")
	f.Add("--node u job -o json wait ID --timeout 3s")
	f.Add("status --watch 5s --bogus -")
	f.Add("-- --")
	app := testApp()
	f.Fuzz(func(t *testing.T, line string) {
		in := append([]string{"workmanager"}, strings.Split(line, " ")...)
		once, err := arrange(app, slices.Clone(in))
		if err != nil {
			return
		}
		// A flag and its value may become one argument.
		flat := func(args []string) []string {
			var out []string
			for _, a := range args {
				if name, value, ok := strings.Cut(a, "="); ok && strings.HasPrefix(a, "-") {
					out = append(out, name, value)
					continue
				}
				out = append(out, a)
			}
			slices.Sort(out)
			return out
		}
		if got, want := flat(once), flat(in); !slices.Equal(got, want) {
			t.Errorf("arrange(%q) = %q: an argument was lost or made", in, once)
		}
		twice, err := arrange(app, slices.Clone(once))
		if strings.Contains(line, "watch") {
			return // alone before an argument that is a duration, it takes that
		}
		if err != nil || !slices.Equal(once, twice) {
			t.Errorf("arrange(%q) = %q, and arranged again %q, %v", in, once, twice, err)
		}
		dashed := func(a string) bool { return strings.HasPrefix(a, "-") }
		if i := slices.Index(in, "--"); i > 0 && !slices.ContainsFunc(in[:i], dashed) { // else it may be a value
			if tail := in[i+1:]; !slices.Equal(once[len(once)-len(tail):], tail) {
				t.Errorf("arrange(%q) = %q: what follows -- was moved", in, once)
			}
		}
	})
}

// walk calls f for every command, with its name in full.
func walk(commands []*cli.Command, path string, f func(name string, c *cli.Command)) {
	for _, c := range commands {
		name := strings.TrimSpace(path + " " + c.Name)
		f(name, c)
		walk(c.Subcommands, name, f)
	}
}

// formatsOf are the formats that an -o knows.
func formatsOf(f cli.Flag) []string {
	switch v := f.(*cli.GenericFlag).Value.(type) {
	case *choice:
		return v.of
	case *placed:
		return v.of
	}
	return nil
}

func TestFlags(t *testing.T) {
	kinds := map[string]kind{}
	walk(testApp().Commands, "", func(name string, c *cli.Command) {
		if c.Hidden {
			return // between our own processes
		}
		hasOutput := false
		for _, f := range c.Flags {
			long := f.Names()[0]
			want := "WORKMANAGER_" + strings.ToUpper(strings.ReplaceAll(long, "-", "_"))
			if name == "init" && long == "node" {
				want = "WORKMANAGER_INIT_NODE" // WORKMANAGER_NODE has URLs
			}
			if got := f.(cli.DocGenerationFlag).GetEnvVars(); !slices.Equal(got, []string{want}) {
				t.Errorf("%s --%s has the twins %q, want %s", name, long, got, want)
			}
			if f.(cli.DocGenerationFlag).GetUsage() == "" {
				t.Errorf("%s --%s has no words of help", name, long)
			}
			for _, n := range f.Names() {
				if k, ok := kinds[n]; ok && k != kindOf(f) {
					t.Errorf("%s --%s has a value where another command's has none: a flag before its command could not be read", name, n)
				}
				kinds[n] = kindOf(f)
			}
			if long == "output" {
				hasOutput = true
				of := formatsOf(f)
				if !slices.Contains(of, formatJSON) || !slices.Contains(of, formatJSONL) || !slices.Contains(of, formatTable) {
					t.Errorf("%s -o knows only %q", name, of)
				}
			}
			if v, ok := f.(*cli.GenericFlag); ok {
				if s := v.Value.String(); s != "" {
					if err := v.Value.Set(s); err != nil {
						t.Errorf("%s --%s does not take its own default %q: %v", name, long, s, err)
					}
				}
			}
		}
		if c.Action != nil && len(c.Subcommands) == 0 && !hasOutput {
			t.Errorf("%s has no -o", name)
		}
		if c.Usage == "" {
			t.Errorf("%s has no words of help", name)
		}
	})
}
