package sim

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// run runs many seeds over all cores and reports the first violations.
func run(t *testing.T, c Config, from, count uint64) Stats {
	t.Helper()
	var total Stats
	var mu sync.Mutex // guards total
	var next atomic.Uint64
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= count || t.Failed() && count > 1000 {
					return
				}
				c := c
				c.Seed = from + i
				out, err := Run(c)
				if err != nil {
					t.Errorf("seed %d: %v", c.Seed, err)
					return
				}
				if out.Violation != nil {
					t.Errorf("%v\nrepeat: %s", out.Violation, repeat(c))
				}
				mu.Lock()
				total.Add(out.Stats)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return total
}

// repeat returns the command that runs a seed again.
func repeat(c Config) string {
	s := fmt.Sprintf("workmanager simulate --seed %d --runs 1 --steps %d", c.Seed, max(c.Steps, defaultSteps))
	if c.SQLite {
		s += " --store sqlite"
	}
	return s
}

func runs(t *testing.T, otherwise int) uint64 {
	t.Helper()
	s := os.Getenv("WORKMANAGER_SIM_RUNS")
	if s == "" {
		return uint64(otherwise)
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("WORKMANAGER_SIM_RUNS is %q, want a number of runs", s)
	}
	return uint64(n)
}

func TestSimulate(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		s := run(t, Config{}, 1, runs(t, 300))
		t.Logf("%+v", s)
	})
	t.Run("sqlite", func(t *testing.T) {
		s := run(t, Config{SQLite: true, Dir: t.TempDir()}, 1, max(runs(t, 300)/30, 1))
		t.Logf("%+v", s)
	})
	t.Run("seeds_that_once_failed", func(t *testing.T) {
		f, err := os.Open("testdata/seeds.txt")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for in := bufio.NewScanner(f); in.Scan(); {
			line, _, _ := strings.Cut(in.Text(), "#")
			fields := strings.Fields(line)
			if len(fields) == 0 {
				continue
			}
			seed, err := strconv.ParseUint(fields[0], 10, 64)
			if err != nil {
				t.Fatalf("testdata/seeds.txt: %q: %v", in.Text(), err)
			}
			run(t, Config{SQLite: len(fields) > 1 && fields[1] == "sqlite", Dir: t.TempDir()}, seed, 1)
		}
	})
}

func TestSameSeedSameWorld(t *testing.T) {
	for seed := range uint64(10) {
		a, err := Run(Config{Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		b, err := Run(Config{Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		if a.Trace != b.Trace || a.Stats != b.Stats {
			t.Errorf("seed %d: traces %x and %x, %+v and %+v", seed, a.Trace, b.Trace, a.Stats, b.Stats)
		}
	}
}

func BenchmarkRun(b *testing.B) {
	for seed := uint64(1); b.Loop(); seed++ {
		if out, err := Run(Config{Seed: seed}); err != nil || out.Violation != nil {
			b.Fatal(err, out.Violation)
		}
	}
}
