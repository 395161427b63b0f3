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

// The states of a quarantine, and what an operator orders.
const (
	StateQuarantined = "quarantined"
	StateLifted      = "lifted"
	QuarantineAdd    = "add"
	QuarantineLift   = "lift"
)

// Quarantine is a worker that gets no leases from either node until an operator
// lifts that, or one of which it was lifted.
type Quarantine struct {
	Worker string    `json:"worker"`
	Inside bool      `json:"inside,omitempty"` // the worker inside the node of that name, not one elsewhere
	State  string    `json:"state"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	Node   string    `json:"node"`            // that found out, or was told
	By     string    `json:"by,omitempty"`    // the operator; "" if a node found out
	ID     string    `json:"id,omitempty"`    // of the job whose value was wrong
	Done   uint64    `json:"done,omitempty"`  // at which of its iterations
	Said   string    `json:"said,omitempty"`  // print of what the worker reported: the first 8 bytes of the value's SHA-256
	Right  string    `json:"right,omitempty"` // print of what recomputing gave
}

// QuarantineList is every worker that is quarantined, or was and is not any more.
type QuarantineList struct {
	Quarantines []Quarantine `json:"quarantines"` // those quarantined first, and the last first
	Replicated  bool         `json:"replicated"`  // the peer holds the same, or there is none
}

// Alarm is one thing that was found wrong.
type Alarm struct {
	ID   string    `json:"id"` // of the job
	What string    `json:"what"`
	At   time.Time `json:"at"`
}
