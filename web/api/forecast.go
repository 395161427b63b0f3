package api

import "time"

// States of a Forecast; the first that fits is shown.
const (
	ForecastSplit     = "split"     // the peer is not seen
	ForecastIdle      = "idle"      // nothing is queued or running
	ForecastStarting  = "starting"  // no worker yet, and instances that boot
	ForecastStalled   = "stalled"   // work, and nobody gets on with it
	ForecastMeasuring = "measuring" // work, and no rate yet
	ForecastGrowing   = "growing"   // more comes in than is done
	ForecastHolding   = "holding"   // as much comes in as is done
	ForecastDraining  = "draining"
)

// Forecast says when the work will be done, in one sentence, and why. All views
// of a node show this one. Its rates are those of the pair: of the last minute,
// and arrivals of the last five.
type Forecast struct {
	State  string `json:"state"`
	Text   string `json:"text"`   // no full stop: whoever shows it adds the clock of done_at
	Reason string `json:"reason"` // sentences

	LeftSeconds float64    `json:"left_seconds,omitempty"` // until all is done, where that is known
	DoneAt      *time.Time `json:"done_at,omitempty"`      // the same as an instant

	RateCompleted  float64 `json:"rate_completed"`  // jobs a second
	RateArriving   float64 `json:"rate_arriving"`   // jobs a second; a batch is no rate
	RateIterations float64 `json:"rate_iterations"` // iterations a second
}

// FailureGroup is the failed jobs that have one error.
type FailureGroup struct {
	Error   string    `json:"error"`
	Jobs    int64     `json:"jobs"`
	LastAt  time.Time `json:"last_at"`
	Example string    `json:"example"` // the ID of the last one
}

// Failures is the failed jobs by their errors, the most frequent first. It
// looks at the newest ones only: At of All.
type Failures struct {
	Groups []FailureGroup `json:"groups"`
	Looked int64          `json:"looked"` // so many of the failed jobs were looked at
}

// History is how the queue was, a column a figure and a row an instant, the
// oldest first. It begins with the start of the node that answers. GET
// /v1/history answers it.
type History struct {
	StepSeconds    int       `json:"step_seconds"`
	At             []int64   `json:"at"` // seconds since 1970
	Queued         []int64   `json:"queued"`
	Leased         []int64   `json:"leased"`
	Workers        []int     `json:"workers"`
	RateCompleted  []float64 `json:"rate_completed"`
	RateIterations []float64 `json:"rate_iterations"`
}

// Explanation says why a job is where it is, and what it waits for.
type Explanation struct {
	ID      string   `json:"id"`
	State   string   `json:"state"`
	Text    string   `json:"text"`    // one sentence
	Reasons []string `json:"reasons"` // one sentence each

	Position *int64 `json:"position,omitempty"` // jobs ahead of it, while it is queued
	AtLeast  bool   `json:"at_least,omitempty"` // there may be more ahead
	// WaitSeconds is about how long until a worker takes it up, where that is known.
	WaitSeconds float64 `json:"wait_seconds,omitempty"`
}

// You is who reads the events: an operator where nobody is asked for a token.
type You struct {
	Role   string `json:"role"` // client or operator
	Name   string `json:"name,omitempty"`
	Tokens bool   `json:"tokens"` // this node asks for tokens
}
