package store_test

import (
	"testing"
	"time"
)

// TestModel drives stores at random over restarts and compares every answer,
// every row and every number with a model in memory.
func TestModel(t *testing.T) {
	for seed := range uint64(8) {
		d := newDriver(t, fastDir(t), "", seed)
		d.expires = true
		for range 4 {
			if err := d.open(); err != nil {
				t.Fatalf("seed %d: Open() = %v", seed, err)
			}
			d.check()
			for i := range 60 {
				if err := d.step(); err != nil {
					t.Fatalf("seed %d, step %d: %v", seed, i, err)
				}
				if t.Failed() {
					t.Fatalf("seed %d, step %d", seed, i)
				}
			}
			d.check()
			if got := d.s.Head(); got != d.lseq {
				t.Errorf("seed %d: Head() = %d, the last change was %d", seed, got, d.lseq)
			}
			if err := d.s.Close(); err != nil {
				t.Fatalf("seed %d: Close() = %v", seed, err)
			}
			d.now = d.now.Add(-time.Second) // the clock was wrong and is set back at the restart
		}
	}
}
