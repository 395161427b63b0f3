package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUsage: what people get wrong, word for word: what was wrong, what is wanted,
// and where to read on.
func TestUsage(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, name := range os.Environ() {
		if name, _, _ := strings.Cut(name, "="); strings.HasPrefix(name, twinPrefix) {
			t.Setenv(name, "")
			os.Unsetenv(name)
		}
	}
	for _, tc := range []struct {
		line, env string
		code      int
		says      string
		hint      string
	}{
		{line: "staus", code: 2, says: `no command "staus"`, hint: "did you mean status? Else: workmanager --help"},
		{line: "stat", code: 2, says: `no command "stat"`, hint: "did you mean status? Else: workmanager --help"},
		{line: "submit f", code: 2, says: `no command "submit"`, hint: "workmanager --help"},
		{line: "job x", code: 2, says: `job has no command "x"`, hint: "workmanager job --help"},
		{line: "bench", code: 2, says: "bench needs a command: hash, queue", hint: "workmanager bench --help"},
		{line: "--nosuch", code: 2, says: "unknown flag --nosuch", hint: "workmanager --help"},
		{line: "enqueue f -n 5 --wiat", code: 2, says: "unknown flag --wiat", hint: "did you mean --wait? Else: workmanager enqueue --help"},
		{line: "enqueue f -n 5 --prio=3", code: 2, says: "unknown flag --prio", hint: "did you mean --priority? Else: workmanager enqueue --help"},
		{line: "enqueue", code: 2, says: "enqueue needs a FILE, or - for stdin, and --iterations N (or -n N)", hint: "workmanager enqueue --help"},
		{line: "enqueue f", code: 2, says: "--iterations N (or -n N) is missing: how many times to apply SHA-512, 1 to 9007199254740992", hint: "workmanager enqueue --help"},
		{line: "enqueue f -n", code: 2, says: "flag -n needs a value", hint: "workmanager enqueue --help"},
		{line: "enqueue f -n many", code: 2, says: `-n: "many" is no whole number from 1 to 9007199254740992 (2^53)`, hint: "workmanager enqueue --help"},
		{line: "enqueue f --iterations=0", code: 2, says: `--iterations: "0" is no whole number from 1 to 9007199254740992 (2^53)`, hint: "workmanager enqueue --help"},
		{line: "enqueue f", env: "WORKMANAGER_ITERATIONS=many", code: 2, says: `WORKMANAGER_ITERATIONS: "many" is no whole number from 1 to 9007199254740992 (2^53)`, hint: "workmanager enqueue --help"},
		{line: "enqueue nofile -n 5", code: 1, says: "open nofile: no such file or directory"},
		{line: "enqueue . -n 5", code: 1, says: ". is no regular file"},
		{line: "job get", code: 2, says: "job get needs a job ID, or - to read them from stdin", hint: "workmanager job get --help"},
		{line: "job get abc", code: 2, says: `id: "abc" is no job ID; one looks like 0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801`, hint: "workmanager job get --help"},
		{line: "job ls --limit many", code: 2, says: `--limit: "many" is no whole number, or too large a one`, hint: "workmanager job ls --help"},
		{line: "job ls --state done", code: 2, says: `--state must be one of queued, leased, completed, failed, cancelled: "done" given`, hint: "workmanager job ls --help"},
		{line: "pull", code: 2, says: "--top N is missing: how many results, at least 1", hint: "workmanager pull --help"},
		{line: "pull --top 0", code: 2, says: "--top must be at least 1: 0 given", hint: "workmanager pull --help"},
		{line: "status -o xml", code: 2, says: `-o: "xml" is none of table, json, jsonl`, hint: "workmanager status --help"},
		{line: "status", env: "WORKMANAGER_OUTPUT=xml", code: 2, says: `WORKMANAGER_OUTPUT: "xml" is none of table, json, jsonl`, hint: "workmanager status --help"},
		{line: "status --watch 5", code: 2, says: `--watch takes an interval such as 5s: "5" given`, hint: "workmanager status --help"},
		{line: "status --watch=0s", code: 2, says: `--watch: "0s" is no interval such as 2s`, hint: "workmanager status --help"},
		{line: "status --node htp://a", code: 2, says: `node: "htp://a" is no URL of a node; one looks like http://127.0.0.1:5000`, hint: "workmanager status --help"},
		{line: "status --token @nofile", code: 2, says: "--token: open nofile: no such file or directory", hint: "workmanager status --help"},
		{line: "status --node 127.0.0.1:1", code: 5, says: "no node reachable: 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused",
			hint: "is a node running there? Start one with 'workmanager node', or name another with --node URL"},
		{line: "node --retention 10", code: 2, says: `--retention: "10" is no duration such as 500ms, 10m or 720h`, hint: "workmanager node --help"},
		{line: "node --spot=maybe", code: 2, says: `--spot: "maybe" is neither true nor false`, hint: "workmanager node --help"},
		{line: "node", env: "WORKMANAGER_INSECURE=maybe", code: 2, says: `WORKMANAGER_INSECURE: "maybe" is neither true nor false`, hint: "workmanager node --help"},
		{line: "node --audit-rate much", code: 2, says: `--audit-rate: "much" is no number such as 0.5`, hint: "workmanager node --help"},
		{line: "node --max-data-bytes large", code: 2, says: `--max-data-bytes: "large" is no size such as 1000000 or 64MiB`, hint: "workmanager node --help"},
		{line: "node --listen 5000", code: 2, says: `--listen must be HOST:PORT: "5000" given`, hint: "workmanager node --help"},
		{line: "node --keys nosuch", code: 1, says: "--keys nosuch: there is no such folder", hint: "'workmanager init --out FOLDER --node a=HOST --node b=HOST' makes the keys of a pair"},
		{line: "token ls --keys nosuch", code: 1, says: "--keys nosuch: there is no such folder", hint: "'workmanager init --out FOLDER --node a=HOST --node b=HOST' makes the keys of a pair"},
		{line: "token ls", code: 2, says: "--keys FOLDER is missing: what 'workmanager init --out' made, or one node's folder of it", hint: "workmanager token ls --help"},
		{line: "backup verify", code: 2, says: "backup verify wants one FILE, a backup: 0 given", hint: "workmanager backup verify --help"},
		{line: "backup --data-dir nosuch --out x", code: 1, says: "back up: there is no database in nosuch; is it the --data-dir of a node?"},
		{line: "simulate --runs 0", code: 2, says: "--runs must be at least 1: none would show nothing", hint: "workmanager simulate --help"},
		{line: "simulate --runs 1 --steps 0", code: 2, says: "--steps must be at least 1: 0 given", hint: "workmanager simulate --help"},
		{line: "version extra", code: 2, says: `version takes no arguments, got "extra"`, hint: "workmanager version --help"},
		{line: "help nosuch", code: 2, says: `no help on "nosuch"`, hint: "workmanager --help; 'workmanager help examples' shows how it goes"},
	} {
		t.Run(tc.line+tc.env, func(t *testing.T) {
			if name, value, ok := strings.Cut(tc.env, "="); ok {
				t.Setenv(name, value)
			}
			var stdout, stderr bytes.Buffer
			code := Main(t.Context(), append([]string{"workmanager"}, strings.Fields(tc.line)...), strings.NewReader(""), &stdout, &stderr)
			want := "workmanager: " + tc.says + "\n"
			if tc.hint != "" {
				want += "workmanager: hint: " + tc.hint + "\n"
			}
			if code != tc.code || stderr.String() != want || stdout.Len() > 0 {
				t.Errorf("exit code %d, want %d; stdout %q; stderr\n%swant\n%s", code, tc.code, &stdout, &stderr, want)
			}
		})
	}
}
