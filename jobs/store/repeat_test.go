package store_test

import (
	"testing"

	"workmanager/jobs"
	"workmanager/jobs/store"
)

// TestRepeatWithoutRoom: a retry with its key writes nothing, so it is answered
// also when new jobs are refused.
func TestRepeatWithoutRoom(t *testing.T) {
	limits := jobs.DefaultLimits()
	limits.OpenJobs = 1
	s := open(t, store.Options{Limits: limits})
	keyed := work(t, 2, 5)
	for i, key := range []string{"one", "two"} {
		keyed[i].Job.ID = jobs.KeyID("", "", key)
	}
	first, err := s.Enqueue(t.Context(), keyed[:1])
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Enqueue(t.Context(), keyed)
	if err != nil || !out[0].Existed || out[0].Err != nil || out[0].Job != first[0].Job || jobs.CodeOf(out[1].Err) != jobs.CodeBusy {
		t.Errorf("Enqueue of a known and a new key over the limit = %+v, %v", out, err)
	}
	other := keyed[:1:1]
	other[0].Job.V1[0]++
	if out, err := s.Enqueue(t.Context(), other); err != nil || jobs.CodeOf(out[0].Err) != jobs.CodeConflict {
		t.Errorf("Enqueue of other data under a known key = %+v, %v, want CodeConflict", out, err)
	}
	if out, err := s.Enqueue(t.Context(), keyed[1:]); jobs.CodeOf(err) != jobs.CodeBusy {
		t.Errorf("Enqueue of a new key over the limit = %+v, %v, want CodeBusy", out, err)
	}
}
