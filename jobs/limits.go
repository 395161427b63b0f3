package jobs

import "time"

// Limits of meaning. They are part of the contract and not configurable.
const (
	// MaxIterations is 2^53, the largest count that a JSON number holds exactly
	// in every client. At 4 million hashes a second it is about 70 years.
	MaxIterations = 1 << 53
	// MaxPriority is the most urgent priority; 0 is the default and the least.
	MaxPriority = 9
	// MaxKeyBytes bounds an Idempotency-Key.
	MaxKeyBytes = 255
	// MaxOwnerBytes bounds the name of a job's owner.
	MaxOwnerBytes = 63
	// MaxErrBytes bounds the reason a failed job keeps.
	MaxErrBytes = 1024
	// MaxWait bounds every long poll; a longer wait asked for is cut to it.
	MaxWait = 60 * time.Second
)

// Limits are the bounds an operator may raise. The zero value is not usable;
// start from [DefaultLimits].
type Limits struct {
	// DataBytes bounds the data of one job. Data is hashed as it arrives, so
	// the bound guards time and bandwidth, not memory.
	DataBytes int64
	// Top bounds how many results one pull returns; a larger top is cut to it.
	Top int
	// BatchJobs bounds the lines of one batch.
	BatchJobs int
	// BatchLineBytes bounds one line of a batch, which is held in memory.
	BatchLineBytes int
	// ListJobs bounds a page of jobs, and ResultsJobs a page of results.
	ListJobs, ResultsJobs int
	// OpenJobs bounds the jobs that have not ended. An enqueue above it is
	// refused as busy, before anything is written.
	OpenJobs int64
	// ClientJobs bounds those of one client. 0 is no bound but OpenJobs, less is
	// the share of OpenJobs that CallerShare says. See ClientShare.
	ClientJobs int64
	// StoreBytes bounds the database file. 0 is no bound but the disk's.
	StoreBytes int64
	// Waiters bounds the long polls and event streams open at once.
	Waiters int
	// Rate bounds the requests a second, and RateBytes the bytes of bodies a
	// second, of one token and of one address. 0 is no bound.
	Rate, RateBytes int64
	// Tries bounds the tokens a minute from one address that are not known here.
	// 0 is no bound.
	Tries int
	// Conns bounds the connections open at once. 0 is no bound.
	Conns int
}

// CallerShare is the part of Waiters, and of Conns, that one token or one
// address may take, and of OpenJobs that one client may: a quarter.
const CallerShare = 4

// ClientShare returns how many open jobs one client may have, 0 for any number.
func (l Limits) ClientShare() int64 {
	if l.ClientJobs < 0 {
		return max(l.OpenJobs/CallerShare, 1)
	}
	return l.ClientJobs
}

// DefaultLimits returns the limits of a node that was told nothing else.
func DefaultLimits() Limits {
	return Limits{
		DataBytes:      64 << 20,
		Top:            100_000,
		BatchJobs:      10_000_000,
		BatchLineBytes: 1 << 20,
		ListJobs:       1_000,
		ResultsJobs:    10_000,
		OpenJobs:       20_000_000,
		ClientJobs:     -1,
		StoreBytes:     0,
		Waiters:        10_000,
		Rate:           20_000,
		RateBytes:      1 << 30,
		Tries:          60,
		Conns:          16_384,
	}
}
