package api

// What workers in other processes and nodes say to each other. These routes
// are for our own programs; they may change with them.

// Worker is who calls, as it says of itself.
type Worker struct {
	Name     string  `json:"name" validate:"min=1,max=63"`
	Instance string  `json:"instance" validate:"min=1,max=64"`
	Cores    int     `json:"cores" validate:"min=1,max=4096"`
	Lanes    int     `json:"lanes" validate:"min=0,max=1024"`
	Rate     float64 `json:"rate" validate:"min=0,max=1e15"`
	Kernel   string  `json:"kernel,omitempty" validate:"max=64"`
	Version  string  `json:"version,omitempty" validate:"max=64"`
}

// Bounds of one call.
const (
	MaxLeases  = 16384
	MaxReports = 4096
)

// LeaseRequest is the body of POST /worker/lease.
type LeaseRequest struct {
	Worker     Worker  `json:"worker"`
	Jobs       int     `json:"jobs" validate:"min=1,max=16384"`        // leases, at most
	Iterations uint64  `json:"iterations" validate:"min=1"`            // their sum, at most, but for one
	Wait       float64 `json:"wait,omitempty" validate:"min=0,max=60"` // seconds, for the first
}

// LeaseReply answers it. TTL is how long each lease lasts, from now and from
// each report; Nodes are where the APIs of both nodes are. Apart says that the
// two do not reach each other, so that the other may have work too.
type LeaseReply struct {
	Leases []Lease  `json:"leases"`
	TTL    float64  `json:"ttl"` // seconds
	Nodes  []string `json:"nodes"`
	Apart  bool     `json:"apart,omitempty"`
	Orders
}

// Orders come with every answer to a worker. One that does not know them goes
// on as before.
type Orders struct {
	Drain bool    `json:"drain,omitempty"` // hand back and end
	Idle  float64 `json:"idle,omitempty"`  // seconds it may be idle; 0 is as it was started, below 0 for ever
}

// Lease is the right to one job. With no value it starts at v1.
type Lease struct {
	ID         string `json:"id"`
	Boot       string `json:"boot"` // with Fence, the lease's number
	Fence      uint64 `json:"fence"`
	V1         string `json:"v1"`
	Iterations uint64 `json:"iterations"`
	Done       uint64 `json:"done"`
	Value      string `json:"value,omitempty"`
	Keep       uint16 `json:"keep,omitempty"`   // checkpoints that the job keeps
	Ticket     string `json:"ticket,omitempty"` // shown with every report, where credentials are asked for
}

// ReportRequest is the body of POST /worker/report.
type ReportRequest struct {
	Worker  Worker   `json:"worker"`
	Reports []Report `json:"reports" validate:"max=4096"`
}

// Kinds of a report.
const (
	ReportProgress = "progress"
	ReportValue    = "value"
	ReportFailure  = "failure"
	ReportHandBack = "hand_back"
)

// Report is what a worker says of one lease.
type Report struct {
	ID         string  `json:"id"`
	Boot       string  `json:"boot"`
	Fence      uint64  `json:"fence"`
	V1         string  `json:"v1"`
	Iterations uint64  `json:"iterations"`
	Kind       string  `json:"kind"`
	Done       uint64  `json:"done"`
	Value      string  `json:"value,omitempty"`  // reached after Done iterations
	Rate       float64 `json:"rate,omitempty"`   // iterations a second of this job
	Error      string  `json:"error,omitempty"`  // why it failed
	Ticket     string  `json:"ticket,omitempty"` // of the lease
	// Rungs are kept checkpoints, base64 of 64 bytes each, of which the first is
	// the RungsFrom-th, from 0.
	RungsFrom int    `json:"rungs_from,omitempty"`
	Rungs     string `json:"rungs,omitempty"`
}

// ReportReply has one verdict for each report, in their order.
type ReportReply struct {
	Verdicts []string `json:"verdicts"`
	Nodes    []string `json:"nodes"`
	Orders
}

// Verdicts on a report.
const (
	VerdictKept      = "kept"
	VerdictLost      = "lost"
	VerdictWithdrawn = "withdrawn"
)
