//go:build mutants

package jobs

// Break is the rule that is switched off, "" for none. See node/sim.
var Break string

func broken(rule string) bool { return Break == rule }

// Broken is broken for the packages that carry the other rules.
func Broken(rule string) bool { return Break == rule }
