package api

import "time"

// AuditStatus is what a node recomputes to check what workers report, since its
// start.
type AuditStatus struct {
	Rate     float64 `json:"rate"`     // the share of the iterations that is computed again
	Checked  int64   `json:"checked"`  // reports and jobs
	Wrong    int64   `json:"wrong"`    // of these
	Settled  int64   `json:"settled"`  // jobs whose value recomputing decided
	Skipped  int64   `json:"skipped"`  // drawn or doubted, and not checked for want of room
	Disputed int     `json:"disputed"` // jobs with two values that wait to be recomputed
	Doubted  int     `json:"doubted"`  // results of workers that were wrong elsewhere, likewise
	Samples  int     `json:"samples"`  // reports that wait to be checked
	Running  int64   `json:"running"`

	Quarantined []Quarantine `json:"quarantined"` // the last ones first, at most 100
	Alarms      []Alarm      `json:"alarms"`      // the last ones first, at most 16
}

// Quarantine is a worker that gets no more leases from this node until that is
// started again.
type Quarantine struct {
	Worker string    `json:"worker"`
	Reason string    `json:"reason"`
	ID     string    `json:"id"` // of the job
	At     time.Time `json:"at"`
}

// Alarm is one thing that was found wrong.
type Alarm struct {
	ID   string    `json:"id"` // of the job
	What string    `json:"what"`
	At   time.Time `json:"at"`
}
