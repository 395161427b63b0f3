// Package api holds the wire format of the public HTTP API: requests,
// responses, the error body and the header names. It has no behaviour, so that
// server and client can share it.
package api

import "time"

// Header names.
const (
	HeaderDurability       = "Workmanager-Durability"        // both or local
	HeaderDurabilityReason = "Workmanager-Durability-Reason" // why local
	HeaderIdempotencyKey   = "Idempotency-Key"
	HeaderTopLimit         = "Workmanager-Top-Limit" // set when a pull's top was cut to it
	HeaderRequestID        = "Workmanager-Request-Id"
)

// MediaProblem is the media type of an error body, RFC 9457.
const (
	MediaProblem = "application/problem+json"
	MediaNDJSON  = "application/x-ndjson"
)

// WorkID is the answer of PUT /enqueue.
type WorkID struct {
	ID string `json:"Work ID"`
}

// PulledResult is one item of POST /pullCompleted; it has exactly these keys.
type PulledResult struct {
	ID    string `json:"Work ID"`
	Value string `json:"Value"`
}

// SubmitJob is the body of POST /v1/jobs and one line of a batch.
type SubmitJob struct {
	Data       *string `json:"data"` // padded standard base64
	Iterations uint64  `json:"iterations" validate:"min=1,max=9007199254740992"`
	Key        string  `json:"key,omitempty" validate:"max=255"`
	Priority   int     `json:"priority,omitempty" validate:"min=0,max=9"`
}

// Job is a job as its owner sees it.
type Job struct {
	ID               string     `json:"id"`
	State            string     `json:"state"` // queued, leased, completed, failed, cancelled
	Iterations       uint64     `json:"iterations"`
	Done             uint64     `json:"done"` // iterations done; equals iterations when completed
	Priority         int        `json:"priority"`
	Rate             float64    `json:"rate,omitempty"`  // iterations a second, while leased
	ETASeconds       float64    `json:"eta,omitempty"`   // seconds to go, while leased
	Value            string     `json:"value,omitempty"` // 128 hexadecimal digits, when completed
	Error            string     `json:"error,omitempty"` // why, when failed
	Durability       string     `json:"durability"`      // both or local
	DurabilityReason string     `json:"durability_reason,omitempty"`
	Attempts         uint32     `json:"attempts"`
	Worker           string     `json:"worker,omitempty"`
	Node             string     `json:"node"` // its home
	Pulled           bool       `json:"pulled,omitempty"`
	Purged           bool       `json:"purged,omitempty"`
	CreatedAt        time.Time  `json:"created_at"`
	FinishedAt       *time.Time `json:"finished_at,omitempty"`
}

// BatchLine answers one line of a batch, in the order of the lines.
type BatchLine struct {
	Line       int64    `json:"line"` // from 1
	ID         string   `json:"id,omitempty"`
	State      string   `json:"state,omitempty"`
	Durability string   `json:"durability,omitempty"`
	Existed    bool     `json:"existed,omitempty"` // the key named this job before
	Error      *Problem `json:"error,omitempty"`
}

// JobList is a page of jobs.
type JobList struct {
	Jobs   []Job  `json:"jobs"`
	Cursor string `json:"cursor"`
	More   bool   `json:"more"`
}

// Result is a completed job's value.
type Result struct {
	ID          string    `json:"id"`
	Value       string    `json:"value"`
	Iterations  uint64    `json:"iterations"`
	CompletedAt time.Time `json:"completed_at"`
}

// ResultList is a page of results. Restarted: the cursor could not be placed,
// or retention dropped results behind it.
type ResultList struct {
	Results   []Result `json:"results"`
	Cursor    string   `json:"cursor"`
	More      bool     `json:"more"`
	Restarted bool     `json:"restarted,omitempty"`
}

// Problem is an error body, RFC 9457, with a code for programs and, for wrong
// values, all of them.
type Problem struct {
	Type   string       `json:"type,omitempty"`
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail"`
	Code   string       `json:"code"`
	Errors []FieldError `json:"errors,omitempty"`
}

// FieldError is one wrong value: where it stood, what is wrong, and a word for programs.
type FieldError struct {
	Loc  []string `json:"loc"`
	Msg  string   `json:"msg"`
	Type string   `json:"type"`
}

// Status is a node's snapshot: the one that GET /status, GET /v1/status, the
// events, the dashboard, the CLI and the metrics show. GET /status is the same
// body; its two old keys are Jobs and Workers.
type Status struct {
	Jobs    int64 `json:"Jobs"`    // jobs waiting
	Workers int   `json:"Workers"` // workers alive

	Node      string    `json:"node"`
	Version   string    `json:"version"`
	Boot      string    `json:"boot"`
	StartedAt time.Time `json:"started_at"`
	Now       time.Time `json:"now"`

	Queued              int64      `json:"queued"`
	Leased              int64      `json:"leased"`
	Completed           int64      `json:"completed"`
	Failed              int64      `json:"failed"`
	Cancelled           int64      `json:"cancelled"`
	Pulled              int64      `json:"pulled"`
	RemainingIterations float64    `json:"remaining_iterations"` // of open jobs, from their checkpoints
	OldestQueuedAt      *time.Time `json:"oldest_queued_at,omitempty"`

	RateIterations float64 `json:"rate_iterations"` // iterations a second, last 10 s
	RateCompleted  float64 `json:"rate_completed"`  // jobs a second, last 10 s
	RateEnqueued   float64 `json:"rate_enqueued"`   // jobs a second, last 10 s

	Retention     string      `json:"retention"` // Go duration; results are kept this long after a job's end
	RetentionSecs float64     `json:"retention_seconds"`
	StoreBytes    int64       `json:"store_bytes"`
	WALBytes      int64       `json:"wal_bytes"`
	DiskFreeBytes int64       `json:"disk_free_bytes"`
	Writable      bool        `json:"writable"` // false: the disk is full or nearly so
	WriteProblem  string      `json:"write_problem,omitempty"`
	Alarms        int64       `json:"alarms"` // pairs of different values for one job
	Cache         CacheStatus `json:"cache"`

	WorkerList []WorkerStatus `json:"workers_list"`
	Fleet      FleetStatus    `json:"fleet"`
}

// CacheStatus is the result cache.
type CacheStatus struct {
	Enabled bool   `json:"enabled"`
	Entries int    `json:"entries"`
	Max     int    `json:"max"`
	Hits    uint64 `json:"hits"`
	Misses  uint64 `json:"misses"`
}

// WorkerStatus is one live worker.
type WorkerStatus struct {
	Name   string    `json:"name"`
	Cores  int       `json:"cores"` // how many of its cores compute
	Leases int       `json:"leases"`
	Rate   float64   `json:"rate"` // iterations a second
	SeenAt time.Time `json:"seen_at"`
}

// FleetStatus is what the scheduler owns. GET /v1/fleet answers it.
type FleetStatus struct {
	Kind      string     `json:"kind"` // none, process or ec2
	Instances []Instance `json:"instances"`
}

// Instance is one machine of the fleet.
type Instance struct {
	ID    string `json:"id"`
	State string `json:"state"`
}

// Health answers /healthz and /readyz.
type Health struct {
	Status string `json:"status"` // ok
}

// Names of the events of GET /v1/events. A status carries a Status, a job a
// Job, and gone a Gone.
const (
	EventStatus = "status"
	EventJob    = "job"
	EventGone   = "gone"
)

// Gone says that a watched job is not, or no longer, known here.
type Gone struct {
	ID string `json:"id"`
}
