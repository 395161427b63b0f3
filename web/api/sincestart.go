package api

// SinceStart counts what a node has done since its start: what a rate is made
// of, where the rates of a Status are those of the last 10 s.
type SinceStart struct {
	Enqueued   int64   `json:"enqueued"`    // jobs that came in here
	Completed  int64   `json:"completed"`   // jobs that completed here
	Iterations float64 `json:"iterations"`  // computed by workers of this node
	LeasesLost int64   `json:"leases_lost"` // leases that ended because their worker fell silent
	// LeasesStalled are those that ended because their worker did not bring the job on.
	LeasesStalled int64 `json:"leases_stalled"`
	// Refused are requests answered with an error, by its code; there is no code
	// in it that was never answered.
	Refused map[string]int64 `json:"refused"`
	Commits CommitStatus     `json:"commits"`
}

// CommitStatus is how long the transactions of the store took, the wait for the
// disk among it.
type CommitStatus struct {
	Count   int64   `json:"count"`
	Rows    int64   `json:"rows"`    // that they changed
	Seconds float64 `json:"seconds"` // of all of them
	// Buckets count those that took no longer than so many seconds, the shortest
	// first; each counts those before it too.
	Buckets []CommitBucket `json:"buckets"`
}

// CommitBucket is how many commits took no longer than so many seconds.
type CommitBucket struct {
	Seconds float64 `json:"seconds"`
	Count   int64   `json:"count"`
}
