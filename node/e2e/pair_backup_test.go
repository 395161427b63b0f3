package e2e

import (
	"path/filepath"
	"testing"
	"time"
)

// TestPairBackup is the drill of the README: a node is copied under load, goes
// on, loses its disk, and starts on the copy, which is behind by then. Nothing
// that was answered as both is missing anywhere, and the pair holds the same.
func TestPairBackup(t *testing.T) {
	t.Parallel()
	rng := random(t)
	p := newPair(t, "--workers", "1", "--checkpoint-interval", "200ms")
	b := newBook()
	la, lb := b.paced(p.a, rng, 3, true, 20*time.Millisecond), b.paced(p.b, rng, 3, true, 20*time.Millisecond)
	b.more(t, 300)
	file := filepath.Join(t.TempDir(), "copy")
	begin := time.Now()
	if c := command(t, "backup", "--data-dir", p.a.dir, "--out", file); c.code != 0 {
		t.Fatalf("backup: exit code %d: %s", c.code, c.log.String())
	}
	stall, n := la.longest(begin, time.Now())
	t.Logf("backup in %v beside %d calls, the longest %v", time.Since(begin).Round(time.Millisecond), n, stall.Round(time.Millisecond))
	b.more(t, 300)
	b.faultless(t)
	la.stop()
	p.a.kill()
	p.a.wipe()
	lost := b.forgive(t, p.a) // answered as local there, and not yet fetched
	if c := command(t, "backup", "verify", file); c.code != 0 {
		t.Fatalf("backup verify: exit code %d: %s", c.code, c.log.String())
	}
	if c := command(t, "restore", file, "--data-dir", p.a.dir); c.code != 0 {
		t.Fatalf("restore: exit code %d: %s", c.code, c.log.String())
	}
	p.a.up()
	took := p.b.both(syncTimeout)
	lb.stop()
	p.equal()
	b.keeps(t, p.a)
	b.keeps(t, p.b)
	b.faultless(t)
	t.Logf("both again %v after the start on the copy; %d local promises went with the disk; %v", took.Round(time.Millisecond), lost, b)
	p.audit(b)
}
