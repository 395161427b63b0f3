package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStartUp holds the command line to 30 ms of CPU time, the least of some
// tries: the machine may have other work.
func TestStartUp(t *testing.T) {
	if raced {
		skip(t, "the race detector makes it slow")
	}
	for _, args := range [][]string{{"version"}, {"completion", "bash"}, {"help", "examples"}} {
		least := time.Hour
		for range 20 {
			cmd := exec.CommandContext(t.Context(), binary, args...)
			cmd.Env = environment()
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %v: %s", args, err, out)
			}
			least = min(least, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
		}
		t.Logf("%v takes %v of CPU", args, least)
		if least > 30*time.Millisecond {
			t.Errorf("%v takes %v of CPU, want at most 30ms", args, least)
		}
	}
}

// TestCompletion asks real shells what they offer: commands, flags, and the ID of
// a job that there is.
func TestCompletion(t *testing.T) {
	t.Parallel()
	n := start(t, filepath.Join(t.TempDir(), "data"), nil, "--workers", "0")
	id := n.enqueue("completion", 5)
	name := filepath.Base(binary)
	ask := func(t *testing.T, shell string, args ...string) string {
		t.Helper()
		need(t, false, shell)
		cmd := exec.CommandContext(t.Context(), shell, args...)
		cmd.Env = append(environment(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"), "WORKMANAGER_NODE="+n.addr, "HOME="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", shell, err, out)
		}
		return string(out)
	}
	// A completion that takes long offers nothing: whoever presses the key is not to
	// wait for a node, and presses it again.
	offered := func(t *testing.T, words []string, want string, complete func() string) {
		t.Helper()
		poll(t, upTimeout, fmt.Sprintf("%q offers %s", words, want), func() string {
			if got := complete(); !strings.Contains("\n"+got, "\n"+want) {
				return fmt.Sprintf("%q", got)
			}
			return ""
		})
	}
	cases := []struct {
		words []string
		want  string
	}{
		{[]string{name, "sta"}, "status"},
		{[]string{name, "job", "wa"}, "wait"},
		{[]string{name, "status", "--wat"}, "--watch"},
		{[]string{name, "job", "get", ""}, id},
	}
	t.Run("bash", func(t *testing.T) {
		for _, c := range cases {
			script := "source <(workmanager completion bash); COMP_WORDS=("
			for _, w := range c.words {
				script += " '" + w + "'"
			}
			script += "); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _workmanager; printf '%s\\n' \"${COMPREPLY[@]}\""
			offered(t, c.words, c.want, func() string { return ask(t, "bash", "--norc", "-c", script) })
		}
	})
	t.Run("fish", func(t *testing.T) {
		for _, c := range cases {
			line := strings.Join(c.words, " ")
			offered(t, c.words, c.want, func() string {
				return ask(t, "fish", "--no-config", "-c", "workmanager completion fish | source; complete -C '"+line+"'")
			})
		}
	})
	t.Run("zsh", func(t *testing.T) { // what it would hand to the menu
		for _, c := range cases {
			script := "autoload -U compinit; compinit -u -D; source <(workmanager completion zsh); [[ ${_comps[workmanager]} = _workmanager ]] || exit 9; " +
				"_describe() { print -l -- ${(P)2} }; _files() { print files }; words=("
			for _, w := range c.words {
				script += " '" + w + "'"
			}
			offered(t, c.words, c.want, func() string { return ask(t, "zsh", "-f", "-c", script+"); _workmanager") })
		}
	})
}
