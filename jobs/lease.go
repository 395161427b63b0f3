package jobs

import "time"

// Worker is who asks for leases and reports on them.
type Worker struct {
	Name string
	// Instance is one process elsewhere, by chance: two of one name share no
	// leases. It is "" for a worker in the node's own process, whose leases live
	// as long as the node does.
	Instance string
	Cores    int     // how many cores compute
	Lanes    int     // chains that each of them advances together; 0 unknown
	Rate     float64 // iterations a second over all its cores, as measured; 0 unknown
	Kernel   string  // what computes when all lanes are full; "" unknown
	Version  string  // "" unknown
}

// Key names the worker among all that live: a lease is held by a key.
func (w Worker) Key() string {
	if w.Instance == "" {
		return w.Name
	}
	return w.Name + "/" + w.Instance
}

// Capacity is what a worker can take now.
type Capacity struct {
	// Jobs bounds how many leases it takes, and Iterations their sum, but one
	// job is always within it: so a call carries seconds of work, be it one
	// long chain or thousands of tiny ones.
	Jobs       int
	Iterations uint64
	// Wait is how long the call may wait for the first lease.
	Wait time.Duration
}

// Orders are what a node wants of a worker besides the work of its leases.
type Orders struct {
	// Drain: it is to take no more leases, hand back what it has, and end.
	Drain bool
	// Idle is how long it may stay without a lease: 0 is as it would by itself,
	// IdleForEver for ever.
	Idle time.Duration
}

// IdleForEver keeps an idle worker from ending.
const IdleForEver time.Duration = -1

// Fence numbers a lease: the boot that gave it and a counter. It tells a
// worker at renewal that its lease is lost. It never refuses a right value.
type Fence struct {
	Boot ID
	N    uint64
}

// LeaseRef names one lease of one job.
type LeaseRef struct {
	ID    ID
	Fence Fence
}

// Lease is a worker's time-limited right to one job.
type Lease struct {
	LeaseRef
	V1         Value // with Iterations, the work: a report says it again
	Iterations uint64
	Start      Progress
	Keep       uint16        // checkpoints that the job keeps, see [RungAt]
	Ticket     string        // of a node that asks for credentials: reports show it, elsewhere and later too
	TTL        time.Duration // from the grant and from each report; 0: as long as the process
}

// ReportKind is what a worker says of a lease.
type ReportKind uint8

// The kinds. Every report but a hand-back, a value or a failure renews the lease.
const (
	ReportProgress ReportKind = iota // Progress: so far; renews
	ReportValue                      // Progress.Value is the value; ends the lease
	ReportFailure                    // Err says why it cannot be computed; ends the lease
	ReportHandBack                   // Progress: so far; ends the lease, the job is queued again
)

// Report is what a worker says of one lease.
type Report struct {
	LeaseRef
	// V1 and Iterations are the lease's. The job may have become other work
	// since: one Idempotency-Key that came with different data at the two nodes.
	V1         Value
	Iterations uint64
	Kind       ReportKind
	Progress   Progress // Done is 0 where nothing was computed
	Rate       float64  // iterations a second of this job, 0 unknown
	Err        string
	Ticket     string // of the lease
	// Rungs are kept checkpoints of the job that stand at or below Progress, of
	// which the first is its RungsFrom-th, from 0. A progress report carries what
	// came since the last one that was kept, the last report of a lease all that
	// came under it.
	RungsFrom int
	Rungs     Rungs
}

// Verdict answers one report.
type Verdict uint8

// The verdicts.
const (
	Kept      Verdict = iota // the lease goes on, or what was reported is durable
	Lost                     // the lease is no longer the worker's: stop, nobody waits for it
	Withdrawn                // the job was cancelled or purged: stop
)

// Of reports whether the report is of the work that the job now is.
func (r *Report) Of(j Job) bool { return j.V1 == r.V1 && j.Iterations == r.Iterations }
