package ec2sim

import (
	"math"
	"os"
	"runtime"
	"testing"
	"time"
)

// TestWorkloads holds the workloads to the job counts and the lane-seconds that
// all figures were made with.
func TestWorkloads(t *testing.T) {
	want := []struct {
		jobs int
		work float64
	}{{100_000, 199_856}, {43_058, 870_325}, {53_708, 520_672}, {432_304, 4_325_728}, {1, 7_200}, {8_400, 167_466}, {20_040, 189_645}}
	for i, w := range Workloads() {
		if len(w.At) != want[i].jobs || math.Abs(w.Work()-want[i].work) > 1 {
			t.Errorf("%s: %d jobs of %.0f lane-seconds, want %d of %.0f", w.Name, len(w.At), w.Work(), want[i].jobs, want[i].work)
		}
	}
}

func TestTable(t *testing.T) {
	if testing.Short() {
		t.Skip("short: the simulation takes some seconds")
	}
	loads := Workloads()
	rules := []Rule{Recommended(300 * time.Second), OldRule(2, 10_000), QueueLength(160)}
	rows := Table(loads, rules, runtime.NumCPU())
	Print(os.Stdout, loads, rows)
	for i, r := range rows[0].Results {
		t.Logf("%s: %.0f launches, %.0f alive at most, %.0f moved, %.0f stranded", loads[i].Name, r.Launches, r.Peak, r.Moved, r.Stranded)
		if r.Stranded > 0 {
			t.Errorf("%s: %.0f jobs never ended", loads[i].Name, r.Stranded)
		}
	}
	if got := rows[0].Product; got > 1.3 {
		t.Errorf("cost x latency against the bounds = %.2f, want at most 1.3", got)
	}
}
