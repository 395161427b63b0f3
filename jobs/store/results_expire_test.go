package store_test

import (
	"testing"
	"time"

	"workmanager/jobs/store"
)

// TestResultsCursorAfterRetention: a cursor that was given out when there was
// nothing more stands behind all there was, also behind what was purged or
// dropped before it. So the next page does not say that something was missed.
func TestResultsCursorAfterRetention(t *testing.T) {
	for name, dropFirst := range map[string]bool{"dropped_before": true, "purged_before_and_dropped_after": false} {
		t.Run(name, func(t *testing.T) {
			s := open(t, store.Options{})
			batch := work(t, 5, 1)
			if _, err := s.Enqueue(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Record(t.Context(), []store.Fact{{ID: batch[4].Job.ID, Apply: purge}}); err != nil {
				t.Fatal(err)
			}
			want := 4
			drop := func() {
				t.Helper()
				if n := expire(t, s, time.Now().Add(time.Hour)); n != 5 {
					t.Fatalf("Expire() = %d, want 5", n)
				}
			}
			if dropFirst {
				want = 0
				drop()
			}
			got, cursor, restarted := follow(t, s, "", 3)
			if len(got) != want || restarted {
				t.Errorf("from the beginning: %d results, restarted %v, want %d", len(got), restarted, want)
			}
			if !dropFirst {
				drop()
			}
			if got, _, restarted := follow(t, s, cursor, 3); len(got) != 0 || restarted {
				t.Errorf("behind all there was: %d results, restarted %v, want none and no word", len(got), restarted)
			}
			if _, err := s.Enqueue(t.Context(), work(t, 2, 1)); err != nil {
				t.Fatal(err)
			}
			if got, _, restarted := follow(t, s, cursor, 3); len(got) != 2 || restarted {
				t.Errorf("after two more: %d results, restarted %v, want the two", len(got), restarted)
			}
		})
	}
}
