package sim

import (
	"fmt"
	"io"
	"os"
	"time"

	"workmanager/jobs"
)

// Config says what a world is. Two worlds of one Config live alike.
type Config struct {
	Seed  uint64
	Steps int // 0: 1500
	// SQLite keeps the rows in real databases below Dir instead of in memory.
	SQLite bool
	Dir    string
	// Trace, if not nil, is told what happens.
	Trace io.Writer
}

const defaultSteps = 1500

// Violation is a promise that was not kept.
type Violation struct {
	Seed      uint64 `json:"seed"`
	Step      int    `json:"step"`
	Invariant string `json:"invariant"`     // I1..I16 of the replication rules, or what went wrong
	Job       string `json:"job,omitempty"` // "" if it is of no job
	Detail    string `json:"detail"`
}

// Error says all of it.
func (v *Violation) Error() string {
	job := ""
	if v.Job != "" {
		job = ", job " + v.Job
	}
	return fmt.Sprintf("seed %d, step %d: %s%s: %s", v.Seed, v.Step, v.Invariant, job, v.Detail)
}

// Stats counts what happened.
type Stats struct {
	Runs      int             `json:"runs"`
	Steps     int             `json:"steps"`
	Enqueued  int             `json:"enqueued"`
	Repeated  int             `json:"repeated"`
	Conflicts int             `json:"conflicts"`
	Both      int             `json:"both"`  // answers of both
	Local     int             `json:"local"` // answers of local
	Ended     int             `json:"ended"`
	Purged    int             `json:"purged"`
	Pulled    int             `json:"pulled"`
	Dropped   int             `json:"dropped"`
	Restamped int             `json:"restamped"`
	TakenOver int             `json:"taken_over"`
	Stolen    int             `json:"stolen"`
	Rounds    int             `json:"rounds"` // of the floor, begun
	Raised    int             `json:"raised"` // and finished
	Pulls     int             `json:"pulls"`
	Rows      int             `json:"rows"`
	Resets    int             `json:"resets"`
	Copies    int             `json:"copies"`    // packets of gossip
	Results   int             `json:"results"`   // given to clients
	Restarted int             `json:"restarted"` // cursors that began anew
	Faults    [faultKinds]int `json:"-"`
}

// The kinds of fault.
const (
	faultCut = iota
	faultOneWay
	faultCrash
	faultCrashInside
	faultWiped
	faultRestored
	faultSlow
	faultDropped
	faultDelayed
	faultDuplicated
	faultKinds
)

// FaultNames names the kinds of fault, in the order of Stats.Faults.
var FaultNames = [faultKinds]string{"cut", "cut one way", "crash", "crash inside", "disk lost", "disk restored",
	"slow", "message dropped", "message delayed", "message duplicated"}

// Add adds o to s.
func (s *Stats) Add(o Stats) {
	for _, p := range []struct {
		to *int
		n  int
	}{
		{&s.Runs, o.Runs}, {&s.Steps, o.Steps}, {&s.Enqueued, o.Enqueued}, {&s.Repeated, o.Repeated}, {&s.Conflicts, o.Conflicts},
		{&s.Both, o.Both}, {&s.Local, o.Local}, {&s.Ended, o.Ended}, {&s.Purged, o.Purged}, {&s.Pulled, o.Pulled},
		{&s.Dropped, o.Dropped}, {&s.Restamped, o.Restamped}, {&s.TakenOver, o.TakenOver}, {&s.Stolen, o.Stolen},
		{&s.Rounds, o.Rounds}, {&s.Raised, o.Raised}, {&s.Pulls, o.Pulls}, {&s.Rows, o.Rows}, {&s.Resets, o.Resets}, {&s.Copies, o.Copies},
		{&s.Results, o.Results}, {&s.Restarted, o.Restarted},
	} {
		*p.to += p.n
	}
	for i, n := range o.Faults {
		s.Faults[i] += n
	}
}

// Outcome is what a run came to.
type Outcome struct {
	Seed      uint64
	Trace     uint64 // a hash of all that happened
	Violation *Violation
	Stats
}

// Run lives one world to its end, or to the first promise that is not kept. The
// error is of the machine it runs on, not of the world.
func Run(c Config) (out Outcome, err error) {
	if c.Steps == 0 {
		c.Steps = defaultSteps
	}
	if c.SQLite {
		dir, err := os.MkdirTemp(c.Dir, "sim")
		if err != nil {
			return out, fmt.Errorf("make a place for the databases: %w", err)
		}
		c.Dir = dir
		defer os.RemoveAll(dir)
	}
	w := newWorld(c)
	defer w.close()
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *Violation:
			out.Violation = r
		case machineError:
			err = r.error
		case error:
			out.Violation = w.broken("panic", nil, "%v", r)
		default:
			if jobs.Broken("") { // a build that looks for bugs of the simulator itself
				out.Violation = w.broken("panic", nil, "%v", r)
			}
			panic(fmt.Sprintf("seed %d, step %d: %v", c.Seed, w.step, r))
		}
		out.Seed, out.Trace, out.Stats = c.Seed, w.trace, w.stats
		out.Runs, out.Steps = 1, w.step
	}()
	w.live()
	w.rest()
	return out, nil
}

// machineError is an error of the machine, which proves nothing.
type machineError struct{ error }

// base is when a world begins.
var base = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
