package node

import (
	"testing"

	"workmanager/jobs"
)

// TestPairShare: what one client may have open it may have at both nodes
// together, whichever took its jobs in. What ends at one makes room at both.
func TestPairShare(t *testing.T) {
	t.Parallel()
	const share = 6
	d := newDuo(t, false, func(a, b *Config) { a.Limits.ClientJobs, b.Limits.ClientJobs = share, share })
	put := func(s *solo, owner string, n int) (ids []jobs.ID, refused int) {
		t.Helper()
		var batch []jobs.Job
		for range n {
			j := d.fresh(1 << 40)
			j.Owner = owner
			batch = append(batch, j)
		}
		out, err := s.queue.Enqueue(t.Context(), batch, jobs.AckDefault)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range out {
			switch {
			case o.Err == nil:
				ids = append(ids, o.Job.ID)
			case jobs.CodeOf(o.Err) == jobs.CodeLimited:
				refused++
			default:
				t.Errorf("at %s: %v", s.cfg.Name, o.Err)
			}
		}
		return ids, refused
	}
	open := func(owner string, want int64) {
		t.Helper()
		d.until("both count the same", func() bool { return d.a.store.OpenOf(owner) == want && d.b.store.OpenOf(owner) == want })
	}
	first, _ := put(d.a, "alice", 4)
	open("alice", 4)
	second, refused := put(d.b, "alice", 4)
	if len(second) != 2 || refused != 2 {
		t.Errorf("at b beside 4 at a: %d taken, %d refused, want 2 and 2", len(second), refused)
	}
	open("alice", share)
	for _, s := range []*solo{d.a, d.b} {
		if ids, _ := put(s, "alice", 1); len(ids) != 0 {
			t.Errorf("at %s a job over the share was taken", s.cfg.Name)
		}
		if ids, _ := put(s, "bob", 2); len(ids) != 2 {
			t.Errorf("at %s bob's were not taken beside a full share of alice's", s.cfg.Name)
		}
	}
	if _, err := d.b.queue.Cancel(t.Context(), first[:1], false, jobs.AckDefault); err != nil {
		t.Fatal(err)
	}
	if _, err := d.a.queue.Cancel(t.Context(), second[:1], true, jobs.AckDefault); err != nil {
		t.Fatal(err)
	}
	open("alice", share-2)
	d.b.stop()
	if ids, refused := put(d.a, "alice", 3); len(ids) != 2 || refused != 1 {
		t.Errorf("at a without b: %d taken, %d refused, want 2 and 1: b's jobs count while it is away", len(ids), refused)
	}
	d.b.start()
	d.synced()
	open("alice", share)
	if ids, _ := put(d.b, "alice", 1); len(ids) != 0 {
		t.Error("at b, started again, a job over the share was taken")
	}
}
