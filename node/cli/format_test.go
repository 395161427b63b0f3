package cli

import (
	"testing"

	"github.com/urfave/cli/v2"
)

// TestFormats: what each command prints where -o says nothing. A table is for a
// terminal, so what has one by default prints something else on a pipe, but for
// those that tell in words what they have done or found.
func TestFormats(t *testing.T) {
	const words = "the same words"
	want := map[string]string{ // on a pipe
		"job ls": formatID, "fleet ls": formatID, "token ls": formatID, "token revoke": formatID,
		"pull": formatJSONL, "results": formatJSONL, "fleet explain": formatJSONL,
		"status": formatJSON, "job get": formatJSON, "job wait": formatJSON, "job cancel": formatJSON, "job explain": formatJSON,
		"fleet drain": formatJSON, "fleet terminate": formatJSON, "fleet pause": formatJSON, "fleet resume": formatJSON,
		"enqueue": formatID, "token create": formatID, "job receipt": formatJSON, // on a terminal too
		"node": words, "worker": words, "init": words, "verify": words, "backup": words, "backup verify": words, "restore": words,
		"bench hash": words, "bench queue": words, "demo": words, "simulate": words, "simulate fleet": words, "doctor": words,
		"help": words, "version": words,
		"completion bash": words, "completion zsh": words, "completion fish": words, "completion powershell": words,
	}
	walk(testApp().Commands, "", func(name string, c *cli.Command) {
		if c.Hidden || len(c.Subcommands) > 0 && name != "backup" && name != "simulate" {
			return
		}
		got := ""
		for _, f := range c.Flags {
			if g, ok := f.(*cli.GenericFlag); ok && g.Name == "output" {
				switch v := g.Value.(type) {
				case *placed:
					got = v.pipe
				case *choice:
					if got = v.value; got == formatTable {
						got = words
					}
				}
			}
		}
		if got != want[name] {
			t.Errorf("%s prints %q on a pipe, want %q", name, got, want[name])
		}
		delete(want, name)
	})
	for name := range want {
		t.Errorf("%s is no command", name)
	}
}
