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
	// Checkpoints to keep; no more are kept than stand 1,000 iterations apart.
	Checkpoints int `json:"checkpoints,omitempty" validate:"min=0,max=1000"`
}

// Job is a job as its owner sees it.
type Job struct {
	ID               string     `json:"id"`
	State            string     `json:"state"` // queued, leased, completed, failed, cancelled
	Iterations       uint64     `json:"iterations"`
	Done             uint64     `json:"done"`            // iterations done; equals iterations when completed
	Owner            string     `json:"owner,omitempty"` // the client that submitted it, by the name of its token
	Priority         int        `json:"priority"`
	Rate             float64    `json:"rate,omitempty"`  // iterations a second, while leased
	ETASeconds       float64    `json:"eta,omitempty"`   // seconds to go, while leased
	Value            string     `json:"value,omitempty"` // 128 hexadecimal digits, when completed
	Error            string     `json:"error,omitempty"` // why, when failed
	Durability       string     `json:"durability"`      // both or local
	DurabilityReason string     `json:"durability_reason,omitempty"`
	Replicated       bool       `json:"replicated"` // as it stands here, on both disks: durability is both
	Attempts         uint32     `json:"attempts"`
	Worker           string     `json:"worker,omitempty"`
	Checkpoints      int        `json:"checkpoints,omitempty"`  // how many it keeps
	ResumedFrom      uint64     `json:"resumed_from,omitempty"` // iterations known beforehand, from another job
	Node             string     `json:"node"`                   // its home
	Pulled           bool       `json:"pulled,omitempty"`
	Purged           bool       `json:"purged,omitempty"`
	CreatedAt        time.Time  `json:"created_at"`
	FinishedAt       *time.Time `json:"finished_at,omitempty"`
}

// Checkpoint is a place in a job's chain: the value after so many iterations.
type Checkpoint struct {
	Done  uint64 `json:"done"`
	Value string `json:"value"` // 128 hexadecimal digits
}

// Checkpoints is what is kept of a job's chain, in its order: v1 first, which is
// done 1, then the kept checkpoints so far, and the value if it is completed. It
// is empty for a purged job.
type Checkpoints struct {
	Checkpoints []Checkpoint `json:"checkpoints"`
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
	Jobs    int64 `json:"Jobs"`    // jobs waiting, in the pair
	Workers int   `json:"Workers"` // workers alive, at both nodes

	Node    string `json:"node"`
	Version string `json:"version"`
	Boot    string `json:"boot"`
	// ReceiptKey is the public key of this node's receipts, 64 hexadecimal digits.
	ReceiptKey string    `json:"receipt_key,omitempty"`
	StartedAt  time.Time `json:"started_at"`
	Now        time.Time `json:"now"`

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
	LaneRate       float64 `json:"lane_rate"`       // iterations a second of one job, as workers of this node measured; 0 unknown

	Retention     string      `json:"retention"` // Go duration; results are kept this long after a job's end
	RetentionSecs float64     `json:"retention_seconds"`
	StoreBytes    int64       `json:"store_bytes"`
	WALBytes      int64       `json:"wal_bytes"`
	DiskFreeBytes int64       `json:"disk_free_bytes"`
	Writable      bool        `json:"writable"` // false: the disk is full or nearly so
	WriteProblem  string      `json:"write_problem,omitempty"`
	Alarms        int64       `json:"alarms"` // pairs of different values for one job
	Cache         CacheStatus `json:"cache"`

	WorkerList []WorkerStatus `json:"workers_list"` // of this node
	Audit      AuditStatus    `json:"audit"`        // likewise
	Fleet      FleetStatus    `json:"fleet"`
	Clients    ClientsStatus  `json:"clients"`

	Forecast Forecast `json:"forecast"`
	// Plain is the forecast for one who is not told what the scheduler decided.
	Plain    Forecast `json:"-"`
	Failures Failures `json:"failures"`

	Peer PeerStatus `json:"peer"`

	Certificate *CertificateStatus `json:"certificate,omitempty"` // where there is TLS

	SinceStart SinceStart `json:"since_start"`
}

// ClientsStatus is what clients have open, at both nodes, of what one may. It
// names none of them.
type ClientsStatus struct {
	MaxOpenJobs  int64  `json:"max_open_jobs"`           // of one client; 0: any number
	OwnOpenJobs  *int64 `json:"own_open_jobs,omitempty"` // of the client that asks
	MostOpenJobs int64  `json:"most_open_jobs"`          // of the one that has most
	WithOpenJobs int    `json:"with_open_jobs"`          // how many clients have any
	RefusedJobs  int64  `json:"refused_jobs"`            // over the limit, at this node since its start
}

// SessionNone is the session of a node that has no peer and looks for none.
// The others are down, connected, catchup and sync.
const SessionNone = "none"

// Sessions are all sessions, the worst first.
var Sessions = []string{SessionNone, "down", "connected", "catchup", "sync"}

// PeerStatus is the other node as this one sees it. It is always there: with no
// peer the session is none and the rest says nothing. Jobs and workers of the
// peer are as it said just now; if it says nothing, none of its jobs is leased,
// and those that wait are counted in our copy. They are part of the totals of
// the Status.
type PeerStatus struct {
	Node    string     `json:"node,omitempty"` // while it is known
	Session string     `json:"session"`        // none, down, connected, catchup, sync
	Since   *time.Time `json:"since,omitempty"`
	Reason  string     `json:"reason,omitempty"`  // why writes are local
	Refused string     `json:"refused,omitempty"` // why the two do not talk
	API     string     `json:"api,omitempty"`
	Gossip  string     `json:"gossip,omitempty"`
	Alive   bool       `json:"alive"` // gossip says so
	Gone    bool       `json:"gone"`  // its jobs may be taken over
	HeardAt *time.Time `json:"heard_at,omitempty"`

	Heard   bool  `json:"heard"` // the next three are as it said just now
	Waiting int64 `json:"waiting"`
	Leased  int64 `json:"leased"`
	Workers int   `json:"workers"`

	UnderReplicated int64   `json:"under_replicated"`   // at most so many rows are here and not there
	LagSeconds      float64 `json:"lag_seconds"`        // so old is the oldest of them; not counted beyond 20 s
	Behind          int64   `json:"behind"`             // at most so many rows are there and not here
	Refilling       bool    `json:"refilling"`          // all of its rows are being read anew
	Complete        bool    `json:"complete"`           // all that it had was read since our start
	PeerComplete    bool    `json:"peer_complete"`      // it has read all that we had
	SkewSeconds     float64 `json:"clock_skew_seconds"` // its clock less ours

	Floor    *time.Time    `json:"floor,omitempty"` // below it no ended job is kept
	Compare  CompareStatus `json:"compare"`
	Counters PeerCounters  `json:"counters"`
}

// CompareStatus is the search for rows that differ though both nodes should
// have the same: how the last round went, and what all have found since the
// start.
type CompareStatus struct {
	At          *time.Time `json:"at,omitempty"` // when the last round ended
	TookSeconds float64    `json:"took_seconds"` // the last round
	Rows        int64      `json:"rows"`         // compared by the last round
	Running     bool       `json:"running"`
	Error       string     `json:"error,omitempty"` // why the last round did not end well

	Ranges   int64 `json:"ranges"`   // compared
	Differed int64 `json:"differed"` // of these
	Repaired int64 `json:"repaired"` // rows
	Alarms   int64 `json:"alarms"`   // rows that were damaged, or differ again
}

// PeerCounters count since the start.
type PeerCounters struct {
	RowsIn        int64 `json:"rows_in"` // by the feed
	RowsOut       int64 `json:"rows_out"`
	CopiesIn      int64 `json:"copies_in"` // rows by gossip
	CopiesOut     int64 `json:"copies_out"`
	CopiesDropped int64 `json:"copies_dropped"`
	AckTimeouts   int64 `json:"ack_timeouts"`
	Refusals      int64 `json:"refusals"`
	BadFrames     int64 `json:"bad_frames"`
	Strangers     int64 `json:"strangers"` // kept out of gossip
	Resets        int64 `json:"resets"`    // of the cursor
	FloorRounds   int64 `json:"floor_rounds"`
	Stolen        int64 `json:"stolen"`     // jobs asked of the living peer
	TakenOver     int64 `json:"taken_over"` // jobs of the dead one
	Conflicts     int64 `json:"conflicts"`  // keys that came with other work at the two nodes
}

// CacheStatus is the result cache.
type CacheStatus struct {
	Enabled bool   `json:"enabled"`
	Entries int    `json:"entries"`
	Max     int    `json:"max"`
	Hits    uint64 `json:"hits"`
	Misses  uint64 `json:"misses"`
	Resumed uint64 `json:"resumed"` // longer jobs that went on from a remembered result
}

// WorkerStatus is one live worker.
type WorkerStatus struct {
	Name     string    `json:"name"`
	Instance string    `json:"instance,omitempty"` // tells processes of one name apart; none in the node's own
	Cores    int       `json:"cores"`              // how many of its cores compute
	Lanes    int       `json:"lanes,omitempty"`    // chains that each core advances together
	Leases   int       `json:"leases"`
	Rate     float64   `json:"rate"`              // iterations a second, as measured; 0 unknown
	Kernel   string    `json:"kernel,omitempty"`  // what computes when all lanes are full
	Version  string    `json:"version,omitempty"` // of its program
	SeenAt   time.Time `json:"seen_at"`
}

// FleetStatus is what the scheduler owns, and why. GET /v1/fleet answers it; in
// a Status it has fewer decisions.
type FleetStatus struct {
	Kind      string     `json:"kind"`      // none, process or ec2
	Instances []Instance `json:"instances"` // for operators; a client is told how many

	Leader         bool            `json:"leader"` // this node decides
	Min            int             `json:"min"`    // workers
	Max            int             `json:"max"`
	Want           int             `json:"want"`                          // by the work there is
	Have           int             `json:"have"`                          // that do not drain, those that boot among them
	Running        int             `json:"running"`                       // instances with a worker, those that drain among them
	Booting        int             `json:"booting"`                       // instances whose worker was not heard so far
	Held           string          `json:"held,omitempty"`                // what keeps it from launching more, in words
	Paused         string          `json:"paused,omitempty"`              // why nothing is launched
	PauseAsked     bool            `json:"pause_asked,omitempty"`         // an operator has paused launches
	DrainSeconds   float64         `json:"drain_seconds"`                 // the backlog is to be done in it
	BootSeconds    float64         `json:"boot_seconds"`                  // from launch to the first job, as measured
	PricePerHour   *float64        `json:"price_per_hour"`                // dollars for all, list price without volumes; null unknown
	IterationPrice float64         `json:"price_per_iteration,omitempty"` // dollars, by the instances whose price and rate are known
	SpentToday     float64         `json:"spent_today"`                   // dollars of this UTC day, as far as prices are known
	SpentUnknown   bool            `json:"spent_unknown,omitempty"`       // some price of today is not known: it was more
	Launched       int64           `json:"launched"`                      // by this node since its start
	Refused        int64           `json:"refused"`                       // launches that the cloud said no to, likewise
	SeenAt         *time.Time      `json:"seen_at,omitempty"`
	Decisions      []FleetDecision `json:"decisions,omitempty"` // for operators, the newest first
}

// Instance is one machine of the fleet.
type Instance struct {
	ID           string     `json:"id"`
	State        string     `json:"state"` // pending, booting, working, idle, silent, draining, ending or stopped
	Type         string     `json:"type,omitempty"`
	Zone         string     `json:"zone,omitempty"`
	Spot         bool       `json:"spot,omitempty"`
	Slot         int        `json:"slot"`
	Generation   int        `json:"generation"`
	Address      string     `json:"address,omitempty"`
	LaunchedAt   *time.Time `json:"launched_at,omitempty"`
	SeenAt       *time.Time `json:"seen_at,omitempty"` // when its worker last spoke to a node
	Lanes        int        `json:"lanes"`
	Leases       int        `json:"leases"`
	Rate         float64    `json:"rate"`           // iterations a second; 0 unknown
	PricePerHour *float64   `json:"price_per_hour"` // dollars; null unknown
}

// FleetDecision is what the scheduler decided and why. Decisions in a row to do
// nothing are one.
type FleetDecision struct {
	At      time.Time     `json:"at"`
	LastAt  time.Time     `json:"last_at"`
	Times   int           `json:"times"`
	Leader  bool          `json:"leader"` // false: it was not acted on
	Want    int           `json:"want"`
	Have    int           `json:"have"`
	Why     string        `json:"why"`
	Actions []FleetAction `json:"actions"`
	Outcome []string      `json:"outcome"` // what came of it
	// Held is what kept it from launching as many as the work asks for, nothing if
	// nothing did.
	Held string `json:"held,omitempty"`
}

// FleetAction is one thing that was done, and why.
type FleetAction struct {
	Do       string `json:"do"` // launch, drain or terminate
	Instance string `json:"instance,omitempty"`
	Slot     int    `json:"slot"`
	Why      string `json:"why"`
}

// Orders of an operator: POST /v1/fleet?do=.
const (
	FleetDrain     = "drain"
	FleetTerminate = "terminate"
	FleetPause     = "pause"
	FleetResume    = "resume"
)

// CertificateStatus is until when a node's certificate, and that of the pair's
// own authority, are good.
type CertificateStatus struct {
	ExpiresAt   time.Time `json:"expires_at"`
	DaysLeft    int       `json:"days_left"` // whole days, negative once it is past
	CAExpiresAt time.Time `json:"ca_expires_at"`
	CADaysLeft  int       `json:"ca_days_left"`
}

// EnrolRequest is the body of POST /worker/enrol, whose token is in the header.
type EnrolRequest struct {
	Name string `json:"name"`
}

// EnrolInstanceRequest is the body of POST /worker/enrol/instance: where the
// worker runs, by the instance's metadata.
type EnrolInstanceRequest struct {
	Instance string `json:"instance" validate:"min=1,max=63"`
	Slot     *int   `json:"slot,omitempty" validate:"omitempty,min=0,max=100000"`
}

// EnrolResponse is a worker's credential, which it shows as a Bearer token.
type EnrolResponse struct {
	Name       string    `json:"name"`
	Credential string    `json:"credential"`
	ExpiresAt  time.Time `json:"expires_at"`
	TTLSeconds float64   `json:"ttl_seconds"`
}

// Health answers /healthz and /readyz.
type Health struct {
	Status  string   `json:"status"`            // ok
	Reasons []string `json:"reasons,omitempty"` // what is not as it should be, though it serves
}

// Reasons of GET /readyz.
const (
	ReasonReadOnly = "read_only"   // new jobs are refused for want of room
	ReasonPeerDown = "peer_down"   // new jobs are on this node's disk only
	ReasonCatchUp  = "catching_up" // not all that the peer has is here, or the other way round
)

// Names of the events of GET /v1/events. The first one, you, carries a You, a
// status a Status, progress a Progress, a decision a FleetDecision, a job a Job,
// and gone a Gone.
const (
	EventYou      = "you"
	EventStatus   = "status"
	EventProgress = "progress"
	EventDecision = "decision"
	EventJob      = "job"
	EventGone     = "gone"
)

// Progress is how far the leased jobs of a node are, by their IDs. More says that
// it has others.
type Progress struct {
	Jobs []JobProgress `json:"jobs"`
	More bool          `json:"more"`
}

// JobProgress is how far one leased job is.
type JobProgress struct {
	ID         string  `json:"id"`
	Iterations uint64  `json:"iterations"`
	Done       uint64  `json:"done"`
	Rate       float64 `json:"rate,omitempty"` // iterations a second, once known
	ETASeconds float64 `json:"eta,omitempty"`  // seconds to go
	Worker     string  `json:"worker"`
}

// Gone says that a watched job is not, or no longer, known here.
type Gone struct {
	ID string `json:"id"`
}
