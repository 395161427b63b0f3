package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"workmanager/jobs"
)

const (
	// completeTimeout is how long a key of the user may wait for a node.
	completeTimeout = 500 * time.Millisecond
	completeJobs    = 30
)

// completeIDs offers the IDs of jobs: those that are computed, those that wait and
// the newest results. Where no node answers at once there are none.
func (p *program) completeIDs(c *cli.Context) {
	if args := os.Args; len(args) > 2 && strings.HasPrefix(args[len(args)-2], "-") {
		cli.DefaultCompleteWithFlags(c.Command)(c)
		return
	}
	ctx, cancel := context.WithTimeout(c.Context, completeTimeout)
	defer cancel()
	cl := p.client(c)
	cl.Rounds = 1
	defer cl.Close()
	for _, state := range []jobs.State{jobs.StateLeased, jobs.StateQueued} {
		list, err := cl.Jobs(ctx, jobs.ListQuery{State: state, Limit: completeJobs})
		if err != nil {
			return // the shell offers files
		}
		for _, v := range list.Jobs {
			fmt.Fprintln(p.stdout, v.ID)
		}
	}
	results, err := cl.Pull(ctx, completeJobs)
	if err != nil {
		return
	}
	for _, r := range results {
		fmt.Fprintln(p.stdout, r.ID)
	}
}
