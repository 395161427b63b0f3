//go:build mutants

package sim

import (
	"os"

	"workmanager/jobs"
)

// With the tag mutants the rule named in the environment is switched off, and
// the suite must fail.
func init() { jobs.Break = os.Getenv("WORKMANAGER_BREAK") }
