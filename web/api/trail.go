package api

import "time"

// AuditLog is what operators did at a node, who logged in or enrolled there, and
// who was refused, since its start; the newest first.
type AuditLog struct {
	Entries []AuditEntry `json:"entries"`
	LeftOut int64        `json:"left_out"` // refusals that came too fast to be noted
}

// AuditEntry is one line of it. It never has data of a job, nor a token.
type AuditEntry struct {
	At      time.Time `json:"at"`
	Who     string    `json:"who"`     // name of the token, the worker or the node; "" if not known
	Role    string    `json:"role"`    // what it is, "nobody" if that is not known
	Address string    `json:"address"` // where it came from; "" on loopback where nobody is asked
	Action  string    `json:"action"`  // cancel, purge, drain, terminate, pause, resume, quarantine, lift, login, enrol, call
	Target  string    `json:"target"`  // the job, instance, worker or route
	Outcome string    `json:"outcome"` // done, or the code of the error
	Reason  string    `json:"reason,omitempty"`
}
