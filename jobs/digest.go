package jobs

import "time"

// Range is the rows that came in at From or later and before To, microseconds
// UTC.
type Range struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// Settled says which rows two nodes compare: those that have stood still since
// before a number was given out, and that retention keeps.
type Settled struct {
	Upto  LSeq
	Floor time.Time
}

// Has reports whether a row is compared.
func (s Settled) Has(r *Row) bool { return r.LSeq <= s.Upto && !r.Job.Key().Before(s.Floor) }

// Digest is how many rows a range has and the sum of their hashes modulo 2^64,
// both of what the columns say. A row that is damaged counts otherwise at each
// node, so two nodes that agree have no damaged row.
type Digest struct {
	Rows int64
	Sum  uint64
}

// RowSum is one row of a digest.
type RowSum struct {
	ID  ID
	Sum uint64
}

// Standing is how one row stands at a node that compares.
type Standing struct {
	Row     Row
	Found   bool
	Settled bool // it is compared
	Damaged bool // its columns are not those that its hash was written for
}
