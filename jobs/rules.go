//go:build !mutants

package jobs

// broken reports whether a rule of replication is switched off. It never is:
// only a build with the tag mutants can do so, to show that the simulator
// notices.
func broken(string) bool { return false }

// Broken is broken for the packages that carry the other rules.
func Broken(string) bool { return false }
