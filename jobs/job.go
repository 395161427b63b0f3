package jobs

import (
	"encoding/hex"
	"time"
)

// Value is what a chain has reached: 64 bytes, shown as 128 hexadecimal digits.
type Value [64]byte

// String returns the value in lower-case hexadecimal.
func (v Value) String() string { return hex.EncodeToString(v[:]) }

// ParseValue reads 128 hexadecimal digits, upper or lower case.
func ParseValue(s string) (Value, error) {
	var v Value
	if len(s) != 2*len(v) {
		return v, Invalid("query", "value", "value_error.hex", "has %d characters, a value has %d hexadecimal digits", len(s), 2*len(v))
	}
	if _, err := hex.Decode(v[:], []byte(s)); err != nil {
		return Value{}, Invalid("query", "value", "value_error.hex", "is not hexadecimal: %v", err)
	}
	return v, nil
}

// Progress is a place in a chain: the value reached after Done iterations. It
// is what a worker reports, what a checkpoint keeps and where a lease starts.
type Progress struct {
	Done  uint64
	Value Value
}

// Job is a job's row: all that is kept of it and all that travels between the
// nodes. It is a value; the methods that change it return the changed copy.
type Job struct {
	ID         ID
	V1         Value // SHA-512(data); zero once purged
	Iterations uint64
	Priority   uint8 // 0..MaxPriority, higher first

	Owner     string // the client that submitted it, "" for an operator or where no tokens are asked for
	Origin    string // the node it came in at
	CreatedAt time.Time
	GCAfter   time.Time // retention counts from the later of this and CreatedAt

	Rank     Rank
	Result   Value  // if Completed and not Purged
	Err      string // if Failed
	Verified bool   // the result was recomputed here after an alarm
	DoneAt   time.Time
	Pulled   bool // handed out by a consuming pull
	Purged   bool // erased by its owner

	Checkpoint Progress // if Open; Done is 0 where there is none
	Attempts   uint32   // leases given
	Lost       uint32   // workers vanished since the last progress
	Restarts   uint32   // how often the job was taken back below a checkpoint that proved wrong

	Keep        uint16 // checkpoints that stay, 0..MaxKeep
	Rungs       Rungs  // the first of them, as far as they are known
	ResumedFrom uint64 // computing began behind so many iterations, known from another job; 0: from the data

	Home     string // the node that may lease it
	OwnEpoch uint64 // how often the home has changed
}

// New returns a job for data whose SHA-512 is v1. It is the only constructor
// and checks what a shape check cannot know. A job of one iteration is born
// completed, since v1 is its value.
func New(id ID, v1 Value, iterations uint64, priority int) (Job, error) {
	if err := CheckIterations(iterations); err != nil {
		return Job{}, err
	}
	if priority < 0 || priority > MaxPriority {
		return Job{}, Invalid("body", "priority", "value_error.number", "%d is not from 0 to %d", priority, MaxPriority)
	}
	return Job{ID: id, V1: v1, Iterations: iterations, Priority: uint8(priority)}, nil
}

// CheckIterations returns an *Error naming the range if n is outside it.
func CheckIterations(n uint64) error {
	if n < 1 || n > MaxIterations {
		return Invalid("query", "iterations", "value_error.number", "%d is not from 1 to %d (2^53)", n, uint64(MaxIterations))
	}
	return nil
}

// Born gives a new job its place and time: the node it came in at, which is
// its home, and the instant of its row. A job whose value is known already,
// because it has one iteration or known is not nil, is completed at once.
func (j Job) Born(node string, now time.Time, known *Value) Job {
	j.Origin, j.Home, j.CreatedAt = node, node, now
	if j.Iterations == 1 {
		known = &j.V1
	}
	if known != nil {
		j, _ = j.Complete(*known, now)
	}
	return j
}

// Remaining returns the iterations still to be computed, from the checkpoint.
func (j Job) Remaining() uint64 {
	if j.Ended() {
		return 0
	}
	return j.Iterations - j.Start().Done
}

// Durability is what a successful answer promises.
type Durability struct {
	Both   bool   // fsynced in both databases
	Reason string // why not, if it is not
}

// String returns the word of the Workmanager-Durability header.
func (d Durability) String() string {
	if d.Both {
		return "both"
	}
	return "local"
}

// Ack is how durable a client wants a write before it is answered.
type Ack string

// AckDefault waits a bounded time for the peer and then says what was reached.
// AckBoth refuses rather than promise less, AckLocal does not wait.
const (
	AckDefault Ack = ""
	AckBoth    Ack = "both"
	AckLocal   Ack = "local"
)

// Outcome is what became of one job of a batch.
type Outcome struct {
	Job        Job
	Existed    bool // the Idempotency-Key named this job before
	LSeq       LSeq // where its row stands
	Durability Durability
	Err        error // this job's own error; the others of the batch go on
}

// View is a job as its owner sees it: the row, and what the lease table of its
// home adds while it is being computed.
type View struct {
	Job
	Leased     bool
	Done       uint64  // iterations done, as last reported; Iterations if completed
	Rate       float64 // iterations a second, 0 if not known
	Worker     string  // who holds the lease
	Durability Durability
}

// State returns the state shown.
func (v View) State() State { return StateOf(v.Rank, v.Leased) }

// ETA returns how long the rest takes at the present rate, 0 if not known.
func (v View) ETA() time.Duration {
	if v.Ended() || v.Rate <= 0 || v.Done >= v.Iterations {
		return 0
	}
	s := float64(v.Iterations-v.Done) / v.Rate
	if s > float64(maxETA/time.Second) {
		return maxETA
	}
	return time.Duration(s * float64(time.Second))
}

// maxETA is about the longest time.Duration holds; a chain may take longer.
const maxETA = 290 * 365 * 24 * time.Hour

// ListQuery asks for a page of jobs.
type ListQuery struct {
	Owner string // whose jobs, "" is everybody's
	State State  // "" is any
	Limit int    // 1..Limits.ListJobs
	After string // the cursor of the page before, "" for the first
}

// List is a page of jobs. Cursor goes on behind it; More says whether there
// was anything when the page was made. A page may hold fewer than asked for,
// even none, while More is true.
type List struct {
	Jobs   []View
	Cursor string
	More   bool
}

// ResultsQuery asks for results behind a cursor, in the order this node learnt
// them. Wait is how long to wait for the first if there is none.
type ResultsQuery struct {
	Owner string // whose jobs' results, "" is everybody's
	After string
	Limit int
	Wait  time.Duration
}

// Result is a completed job's value, as it is pulled and followed.
type Result struct {
	ID         ID
	Value      Value
	Iterations uint64
	DoneAt     time.Time
}

// Results is a page of results. Restarted says that the cursor could not be
// placed, or that retention has dropped results behind it: some may repeat,
// some may be gone.
type Results struct {
	Results   []Result
	Cursor    string
	More      bool
	Restarted bool
}

// Counts is how many jobs there are, kept in the transactions that change them.
type Counts struct {
	Open, Failed, Cancelled, Completed int64
	Pulled                             int64
	Remaining                          Work // iterations still to do, of the open
	OldestOpen                         time.Time
}

// Total returns the number of rows.
func (c Counts) Total() int64 { return c.Open + c.Failed + c.Cancelled + c.Completed }
