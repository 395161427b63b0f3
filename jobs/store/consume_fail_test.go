//go:build linux

package store_test

import (
	"sync/atomic"
	"testing"

	lib "modernc.org/sqlite/lib"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// TestConsumeFailsLate: the disk is full after the first slice of a large
// consume. What is marked is handed out, at once or, under a key, to who asks
// again with it; in the end each result was handed out once.
func TestConsumeFailsLate(t *testing.T) {
	for name, key := range map[string]string{"without_key": "", "with_key": "key"} {
		t.Run(name, func(t *testing.T) {
			dir := fastDir(t)
			var armed, full atomic.Bool
			onDisk(t, dir, func(op diskOp) (int32, int) {
				if op.kind == opWrite && full.Load() {
					return lib.SQLITE_FULL, 0
				}
				return 0, 0
			})
			s := openIn(t, dir, store.Options{DSN: onFault, OnCommit: func([]jobs.Changed) { full.Store(armed.Load()) }})
			const slice, all = 1000, 1020
			if _, err := s.Enqueue(t.Context(), work(t, all, 1)); err != nil {
				t.Fatal(err)
			}
			armed.Store(true)
			got, err := s.Consume(t.Context(), "", all, key)
			if c := s.Counts(); c.Pulled != slice {
				t.Fatalf("%d results are marked, want %d: the test proves nothing", c.Pulled, slice)
			}
			switch {
			case key == "" && (err != nil || len(got) != slice):
				t.Errorf("Consume() = %d results, %v, want the %d that are marked", len(got), err, slice)
			case key != "" && jobs.CodeOf(err) != jobs.CodeDiskFull:
				t.Errorf("Consume() with a key = %d results, %v, want %s", len(got), err, jobs.CodeDiskFull)
			}
			armed.Store(false)
			full.Store(false)
			again, err := s.Consume(t.Context(), "", all, key)
			if err != nil {
				t.Fatal(err)
			}
			once := map[jobs.ID]bool{}
			for _, id := range append(idsOf(got), idsOf(again)...) {
				if once[id] {
					t.Errorf("result %v was handed out twice", id)
				}
				once[id] = true
			}
			if len(once) != all {
				t.Errorf("%d of %d results were handed out", len(once), all)
			}
		})
	}
}
