package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// pages are those for people, from this folder.
var pages = []string{"../../README.md", "../../node/DEPLOYMENT.md", "../../node/DESIGN.md", "../../node/FAILURES.md", "../../node/OPERATIONS.md", "../../web/API.md"}

func pageText(t *testing.T, page string) string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	testNamed = regexp.MustCompile("`(Test[A-Za-z0-9_]+)`")
	testFunc  = regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(`)
	linked    = regexp.MustCompile(`\]\(([^)#\s]*)(#[^)\s]*)?\)|(?:src|srcset)="([^"]+)"`)
	heading   = regexp.MustCompile(`(?m)^#+ (.+)$`)
	notWord   = regexp.MustCompile(`[^a-z0-9 _-]`)
)

// TestDocs_name_what_there_is: each test that a page names is there, and so is
// what each of its links leads to.
func TestDocs_name_what_there_is(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (e.Name() == ".git" || e.Name() == "node_modules") {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, "_test.go") {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range testFunc.FindAllStringSubmatch(string(b), -1) {
				known[m[1]] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	anchors := func(text string) (out []string) {
		for _, m := range heading.FindAllStringSubmatch(text, -1) {
			h := notWord.ReplaceAllString(strings.ToLower(m[1]), "")
			out = append(out, "#"+strings.ReplaceAll(strings.TrimSpace(h), " ", "-"))
		}
		return out
	}
	named := 0
	for _, page := range pages {
		text := pageText(t, page)
		for _, m := range testNamed.FindAllStringSubmatch(text, -1) {
			named++
			if !known[m[1]] {
				t.Errorf("%s names %s, which is no test", page, m[1])
			}
		}
		for _, m := range linked.FindAllStringSubmatch(text, -1) {
			to, anchor := m[1]+m[3], m[2]
			if strings.Contains(to, "://") {
				continue
			}
			at := page
			if to != "" {
				at = filepath.Join(filepath.Dir(page), to)
			}
			b, err := os.ReadFile(at)
			if err != nil {
				t.Errorf("%s leads to %s: %v", page, to, err)
			} else if anchor != "" && !slices.Contains(anchors(string(b)), anchor) {
				t.Errorf("%s leads to %s%s, and there is no such heading", page, to, anchor)
			}
		}
	}
	if named < 80 {
		t.Errorf("the pages name %d tests, which is too few to be read right", named)
	}
	if n := len(regexp.MustCompile(`(?m)^\| \d+ `).FindAllString(pageText(t, "../../node/FAILURES.md"), -1)); n != 20 {
		t.Errorf("FAILURES.md answers %d of the 20 sentences", n)
	}
}

// block is what stands in a page to be run, with the comment before it.
var block = regexp.MustCompile("(?s)(<!-- not run: ([^>]*) -->\n+)?```sh\n(.*?)```")

// serving matches a line that runs until it is ended.
var serving = regexp.MustCompile(`^(\./workmanager|workmanager|go run \.) (node|worker)\b`)

// script makes one script of a page: what serves goes on behind the others.
func script(t *testing.T, page string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`set -eo pipefail
go() { # the program is built: by the tests, and by this one
	case "$1" in
	run) shift 2; ./workmanager "$@" ;;
	build) return 0 ;;
	*) echo "left out: go $*" ;;
	esac
}
curl() { command curl -fsS "$@"; }
serve() {
	n=$((n+1))
	(eval "exec $*") >"log.$n" 2>&1 &
	pids="$pids $!"
	for _ in $(seq 1800); do
		grep -qE 'node runs|worker runs' "log.$n" && return 0
		kill -0 "$!" 2>/dev/null || break
		sleep 0.05
	done
	cat "log.$n"
	return 1
}
some_worker() { # as soon as there is one
	for _ in $(seq 600); do
		workmanager fleet ls -o json | jq -er '.instances[0].id' && return 0
		sleep 0.05
	done
	return 1
}
finish() { [ -z "$pids" ] || kill $pids 2>/dev/null || true; wait; pids=; }
trap finish EXIT
n=0 pids=
`)
	n := 0
	for _, m := range block.FindAllStringSubmatch(pageText(t, page), -1) {
		if m[2] != "" {
			t.Logf("%s: not run, %s: %q", filepath.Base(page), m[2], strings.SplitN(m[3], "\n", 2)[0])
			continue
		}
		text := strings.ReplaceAll(m[3], "\\\n", " ")
		if slices.ContainsFunc(strings.Split(text, "\n"), func(l string) bool {
			return serving.MatchString(l) && strings.Contains(l, " node") && (!strings.Contains(l, "--listen") || strings.Contains(l, ":5000"))
		}) {
			b.WriteString("finish\nrm -rf data a b\n") // other nodes come: they want the ports
		}
		for line := range strings.SplitSeq(text, "\n") {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			fmt.Fprintf(&b, "printf '+ %%s\\n' %s\n", shellWord(line))
			if serving.MatchString(line) {
				line, _, _ = strings.Cut(line, " #")
				line = strings.TrimSpace(strings.Replace(line, "go run .", "./workmanager", 1))
				if strings.Contains(line, "--keys") && !strings.Contains(line, "--data-dir") { // on machines of their own
					line += " --data-dir at." + strconv.Itoa(n)
					n++
				}
				fmt.Fprintf(&b, "serve %s\n", shellWord(line))
				continue
			}
			fmt.Fprintln(&b, strings.Replace(line, " NAME ", " $(some_worker) ", 1))
		}
	}
	return b.String()
}

func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// TestDocs_commands runs every command of every page, in a network of its own,
// where 10.0.0.1 and 10.0.0.2 are this machine. What says that it is not run says
// why.
func TestDocs_commands(t *testing.T) {
	t.Parallel()
	need(t, true, "unshare", "ip", "bash", "curl", "jq")
	if out, err := exec.CommandContext(t.Context(), "unshare", "-n", "-p", "--fork", "true").CombinedOutput(); err != nil {
		skip(t, "no network of its own can be had: %v: %s", err, out)
	}
	readme := pageText(t, "../../README.md")
	for _, page := range pages {
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			t.Parallel()
			text := script(t, page)
			if !strings.Contains(text, "printf '+ ") {
				if filepath.Base(page) != "FAILURES.md" {
					t.Error("there is nothing to run in it")
				}
				return
			}
			dir := t.TempDir()
			text = strings.Replace(text, "n=0 pids=\n", "n=0 pids=\nserve './workmanager node'\n", 1) // pages are for whoever has one
			for _, err := range []error{
				os.WriteFile(filepath.Join(dir, "README.md"), []byte(readme), 0o600),
				os.Link(binary, filepath.Join(dir, "workmanager")),
				os.WriteFile(filepath.Join(dir, "page.sh"), []byte(text), 0o600),
			} {
				if err != nil && !errors.Is(err, fs.ErrExist) {
					t.Fatal(err)
				}
			}
			p := launch(t, page, "unshare", "-n", "-p", "--fork", "--kill-child=KILL", "bash", "-c",
				"ip link set lo up; ip addr add 10.0.0.1/32 dev lo; ip addr add 10.0.0.2/32 dev lo; cd "+shellWord(dir)+"; PATH="+shellWord(dir)+":$PATH exec bash page.sh")
			select {
			case <-p.exited:
			case <-time.After(10 * time.Minute):
				t.Errorf("%s is not done in 10 minutes", page)
				_ = p.cmd.Process.Kill() // told above
				<-p.exited
			}
			if p.code != 0 {
				t.Errorf("%s: exit code %d\n%s\n%s", page, p.code, tail(p.out.String(), 4000), tail(p.log.String(), 4000))
			}
		})
	}
}
