//go:build race

package hashchain

// raceEnabled: the race detector drops pooled values at random, so counts of
// allocations mean nothing under it.
const raceEnabled = true
