package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// formerCommit is a build that pairs are upgraded from: its database has a schema
// of its own. WORKMANAGER_E2E_FORMER names another commit.
const formerCommit = "0ea9259"

// former builds the program of a former commit, or skips the test aloud where the
// history is not there, as in a shallow clone or an archive.
func former(t *testing.T) string {
	t.Helper()
	need(t, false, "git", "tar")
	commit := os.Getenv("WORKMANAGER_E2E_FORMER")
	if commit == "" {
		commit = formerCommit
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "git", "-C", root, "cat-file", "-e", commit+"^{commit}").CombinedOutput(); err != nil {
		skip(t, "the history has no commit %s to upgrade from: %v %s", commit, err, out)
	}
	dir := t.TempDir()
	source, program := filepath.Join(dir, "source"), filepath.Join(dir, "workmanager")
	if err := os.Mkdir(source, 0o700); err != nil {
		t.Fatal(err)
	}
	archive := exec.CommandContext(t.Context(), "sh", "-c", `git -C "$1" archive "$2" | tar -x -C "$3"`, "sh", root, commit, source)
	if out, err := archive.CombinedOutput(); err != nil {
		t.Fatalf("take commit %s out: %v: %s", commit, err, out)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build commit %s: %v: %s", commit, err, out)
	}
	return program
}

// TestUpgrade takes a pair from a former build to this one as OPERATIONS.md says,
// a node at a time, under clients: none of them sees an error at the node that
// runs, the two builds keep each other's jobs meanwhile, and every value is right
// in the end. There is no way back, and the former build says so.
func TestUpgrade(t *testing.T) {
	if raced {
		skip(t, "two more builds with the race detector take too long")
	}
	old := former(t)
	rng := random(t)
	p, b := idlePair(t, "--workers", "1"), newBook()
	p.a.binary, p.b.binary = old, old
	p.a.up()
	p.b.up()
	p.inStep()
	const rest = 20 * time.Millisecond
	was := p.a.status().Version

	clients := b.paced(p.b, rng, 2, true, rest)
	b.more(t, 20)
	p.a.stop()
	p.a.binary = ""
	p.a.up()
	p.inStep()
	b.more(t, 20)
	for _, s := range p.halves() { // the two builds confirm each other's jobs
		s.both(syncTimeout)
	}
	t.Logf("node a %s, node b %s: in step", p.a.status().Version, was)
	clients.stop()

	clients = b.paced(p.a, rng, 2, true, rest)
	b.more(t, 20)
	p.b.stop()
	p.b.binary = ""
	p.b.up()
	p.inStep()
	b.more(t, 20)
	clients.stop()
	b.faultless(t)
	p.audit(b)

	p.a.stop()
	p.a.binary = old
	back := launch(t, "the former build", p.a.argv()...)
	if code := back.wait(downTimeout); code == 0 || !strings.Contains(back.log.String(), "this release knows up to") {
		t.Errorf("the former build on the new database: exit code %d, %s", code, back.log.String())
	}
}
