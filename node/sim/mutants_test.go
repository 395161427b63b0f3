//go:build mutants

package sim

import (
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"workmanager/jobs"
)

// With the tag mutants the rule named in the environment is switched off in
// every test, to see what it does.
func init() { jobs.Break = os.Getenv("WORKMANAGER_BREAK") }

// rules are the rules that are switched off one at a time, with the seed to
// begin with and the runs that the simulator may take to notice. Where from is
// not 1 it is just before the first seed of a long search that noticed.
var rules = []struct {
	name, broken string
	from, runs   uint64
}{
	{"M1", "refuse open rows below the floor", 1, 5000},
	{"M2", "truncate to the common boot instead of reset", 1, 2000},
	{"M3", "do not send back a join that differs", 1, 2000},
	{"M4", "a wait does not follow its row", 1, 5000},
	{"M5", "a bare cursor, without the boot chain", 1, 500},
	{"M6", "leave out what came from the node, not from its boot", 1, 500},
	{"M7", "drop by age", 1, 500},
	{"M8", "drop by age and refuse unknown old rows", 1, 500},
	{"M9", "two cursors, confirmed by the first alone", 1, 5000},
	{"M10", "the second cursor is kept over a reset", 730, 5000},
	{"M11", "the cursor moves before its rows", 1, 5000},
	{"M12", "confirmed when sent", 1, 500},
	{"M13", "a wait that begins after the commit", 1, 2000},
	{"M15", "a timeout is an error", 1, 2000},
	{"M16", "news only by hints", 1, 2000},
	{"M17", "all of a dead peer's jobs taken over at once", 1, 2000},
	{"M18", "both because the row exists", 1, 2000},
	{"M19", "a copy moves the cursor", 1, 2000},
	{"M20", "a copy confirms", 1, 2000},
	{"M21", "a copy is taken below the floor", 1, 5000},
	{"M22", "results covered by the feed's place", 1, 5000},
	{"M23", "a purge is a state like the others", 1, 5000},
	{"M24", "a late chunk moves the cursor", 1, 500},
	{"M25", "a merge forgets the later birth", 1140, 5000},
}

// TestMutants: each rule is needed, and the simulator would notice if it went.
func TestMutants(t *testing.T) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			jobs.Break = r.name
			defer func() { jobs.Break = "" }()
			var next, seen atomic.Uint64
			var first *Violation
			var mu sync.Mutex // guards first
			var all sync.WaitGroup
			next.Store(r.from - 1)
			most := r.from + r.runs - 1
			if s, err := strconv.ParseUint(os.Getenv("WORKMANAGER_SIM_MUTANT_RUNS"), 10, 64); err == nil {
				most = s
			}
			for range runtime.GOMAXPROCS(0) {
				all.Go(func() {
					for seed := next.Add(1); seed <= most && seen.Load() < 3; seed = next.Add(1) {
						out, err := Run(Config{Seed: seed})
						if err != nil {
							t.Error(err)
							return
						}
						if v := out.Violation; v != nil {
							seen.Add(1)
							mu.Lock()
							if first == nil || v.Seed < first.Seed {
								first = v
							}
							mu.Unlock()
						}
					}
				})
			}
			all.Wait()
			if first == nil {
				t.Fatalf("%s: not noticed in %d runs", r.broken, most)
			}
			t.Logf("%s: %d of %d runs; %.200s", r.broken, seen.Load(), min(next.Load(), most), first)
		})
	}
}
