package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestPairDiskFull fills the disk of one node. The other one goes on answering,
// as local and at its speed, and both are in step again when there is room.
func TestPairDiskFull(t *testing.T) {
	atLength(t)
	canMount(t)
	rng := random(t)
	ns := newNamespace(t)
	mnt := t.TempDir()
	if err := ns.run("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", mnt); err != nil {
		skip(t, "%v", err)
	}
	p := idlePair(t, "--workers", "1", "--checkpoint-interval", "200ms")
	p.b.dir, p.b.prefix = filepath.Join(mnt, "data"), ns.enter()
	p.a.up()
	p.b.up()
	p.inStep()
	b := newBook()
	rate := func(l *load, begin time.Time) float64 {
		_, n := l.longest(begin, time.Now())
		return float64(n) / time.Since(begin).Seconds()
	}
	l := b.paced(p.a, rng, 4, true, 10*time.Millisecond)
	b.more(t, 300)
	begin := time.Now()
	pause(2 * time.Second)
	well := rate(l, begin)
	before, _ := l.longest(time.Time{}, time.Now())

	ballast := ns.path(filepath.Join(mnt, "ballast"))
	fill(t, ballast)
	begin = time.Now()
	reason := p.a.local(20 * time.Second)
	turned := time.Since(begin)
	settled := time.Now()
	pause(4 * time.Second)
	full := rate(l, settled)
	stall, _ := l.longest(begin, time.Now())
	t.Logf("calls/s in step %.0f, with the peer's disk full %.0f; local after %v (%s), longest call %v", well, full, turned, reason, stall)
	if stall > promisedStall*slack()+before {
		t.Errorf("longest call: %v, promised are %v; before it took %v", stall, promisedStall, before)
	}
	if s := p.b.status(); s.Writable {
		t.Errorf("the full node's status: writable %v, %q", s.Writable, s.WriteProblem)
	}
	b.faultless(t)

	if err := ns.run("mount", "-o", "remount,size=512m", mnt); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	again := p.a.both(convergeTimeout)
	begin = time.Now()
	pause(2 * time.Second)
	mended := rate(l, begin)
	if full < min(well, mended)/2 { // the machine may have got busy, or idle, meanwhile
		t.Errorf("%.0f calls/s with the peer's disk full, %.0f before and %.0f after", full, well, mended)
	}
	l.stop()
	b.faultless(t)
	t.Logf("both %v after there was room", again)
	p.audit(b)
}
