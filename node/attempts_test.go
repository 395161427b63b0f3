package node

import (
	"testing"

	"workmanager/jobs"
)

// TestAttempts_are_kept_at_cancel: the leases that a job has had stand in its
// row when it is withdrawn or erased, and nowhere else from then on.
func TestAttempts_are_kept_at_cancel(t *testing.T) {
	for name, purge := range map[string]bool{"cancel": false, "purge": true} {
		t.Run(name, func(t *testing.T) {
			q := smallQueue(t)
			take(t, q, 1) // the first look at the disk
			ids := put(t, q, 1, 0)
			w := jobs.Worker{Name: "w"}
			lease := func() jobs.LeaseRef {
				leases, _ := q.grant(w, jobs.Capacity{Jobs: 1, Iterations: 1 << 60})
				if len(leases) != 1 {
					t.Fatalf("%d leases, want 1", len(leases))
				}
				return leases[0].LeaseRef
			}
			if _, err := q.Report(t.Context(), w, []jobs.Report{{LeaseRef: lease(), Kind: jobs.ReportHandBack}}); err != nil {
				t.Fatal(err)
			}
			lease()
			out, err := q.Cancel(t.Context(), ids, purge, jobs.AckDefault)
			if err != nil {
				t.Fatal(err)
			}
			v, err := q.Job(t.Context(), ids[0], 0)
			if err != nil || v.Rank != jobs.Cancelled || v.Attempts != 2 || out[0].Job.Attempts != 2 {
				t.Errorf("Job() = %v after %d attempts, %v, Cancel() says %d; want cancelled after 2", v.Rank, v.Attempts, err, out[0].Job.Attempts)
			}
		})
	}
}
