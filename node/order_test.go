package node

import (
	"crypto/sha512"
	"testing"

	"workmanager/jobs"
)

// TestOrder_low_priorities_pass_a_full_window: more urgent jobs than the window
// holds wait all the time, and a job of a low priority is on the disk.
func TestOrder_low_priorities_pass_a_full_window(t *testing.T) {
	q := smallQueue(t)
	take(t, q, 1) // the first look at the disk
	put(t, q, 40, 9)
	low := put(t, q, 1, 2)[0]
	for n := range 200 {
		if err := q.fillLower(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := take(t, q, 1)
		if len(got) != 1 {
			t.Fatalf("nothing to lease after %d", n)
		}
		if got[0] == low {
			if n < 16 || n > 20 {
				t.Errorf("the job was leased after %d urgent ones of its size, want 16", n)
			}
			return
		}
		put(t, q, 1, 9)
	}
	t.Error("200 urgent jobs were leased and the other never")
}

// TestOrder_a_chain_enters_a_full_window: what may decide when all is done does
// not wait for its turn to be read from the disk.
func TestOrder_a_chain_enters_a_full_window(t *testing.T) {
	q := smallQueue(t)
	take(t, q, 1)
	put(t, q, 100, 1)
	id := put(t, q, 1, 1)[0]
	if q.table.Has(id) {
		t.Fatal("the window takes any job: it is not full")
	}
	j, err := jobs.New(jobs.ID{1}, sha512.Sum512(nil), 1e9, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Enqueue(t.Context(), []jobs.Job{j}, jobs.AckDefault); err != nil {
		t.Fatal(err)
	}
	if err := q.step(t.Context(), q.now()); err != nil {
		t.Fatal(err)
	}
	if got := take(t, q, 1); got[0] != j.ID {
		t.Errorf("granted %s first, want the chain of 1e9 iterations", got[0])
	}
}
