//go:build mutants

package sim

import "workmanager/jobs"

// Break switches a rule of replication off, to see the simulator notice.
func Break(rule string) error {
	jobs.Break = rule
	return nil
}
