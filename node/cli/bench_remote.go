package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"workmanager/jobs/hashchain"
	"workmanager/web/api"
)

// The jobs of the remote figure: so short that calls, leases and commits cost as
// much as the computing where they are not gathered.
const (
	remoteJobs       = 100_000
	remoteIterations = 1000
)

// remote measures what a worker on loopback makes of short jobs, on one core,
// beside what that core computes when nothing else runs.
func (b *queueBench) remote(ctx context.Context) error {
	base, got, err := b.beside(ctx,
		func() (float64, error) { return kernelRate(ctx, b.lasting/2), ctx.Err() },
		func() (load, error) { return b.remoteOnce(ctx) })
	if err != nil {
		return err
	}
	b.add(figure{Name: "kernel alone", Value: base / 1e6, Unit: "M hashes/s", Note: hashchain.Choice(hashchain.Lanes()) + ", all lanes full, one core"})
	b.add(figure{Name: "one remote worker", Value: got.Rate / 1e6, Unit: "M hashes/s", Baseline: "kernel alone", Ratio: got.Rate / base,
		Note: fmt.Sprintf("%d jobs of %d iterations from a backlog, leased, computed on one core, kept", remoteJobs, remoteIterations)})
	return nil
}

// kernelRate returns the hashes a second of one core with all lanes full.
func kernelRate(ctx context.Context, lasting time.Duration) float64 {
	hashchain.Calibrate()
	e := hashchain.NewExecutor[int](0)
	for i := range e.Lanes() {
		e.Add(hashchain.Chain[int]{Tag: i, Done: 1, Iterations: 1 << 50})
	}
	hashes, begin := uint64(0), time.Now()
	for time.Since(begin) < lasting && ctx.Err() == nil {
		hashes += e.Advance(hashchain.Chunk)
	}
	return float64(hashes) / time.Since(begin).Seconds()
}

// remoteOnce returns the hashes a second from the start of the worker until the
// node has the last value.
func (b *queueBench) remoteOnce(ctx context.Context) (load, error) {
	n, err := b.node(ctx, "remote", "--workers", "0")
	if err != nil {
		return load{}, err
	}
	if _, err := submit(ctx, n.url, remoteJobs, remoteIterations); err != nil {
		return load{}, errors.Join(err, n.stop())
	}
	self, err := os.Executable()
	if err != nil {
		return load{}, errors.Join(fmt.Errorf("find this binary: %w", err), n.stop())
	}
	w := &child{cmd: exec.CommandContext(ctx, self, "worker", "--name", "bench", "--cores", "1", "--node", n.url)}
	w.cmd.Env = ownEnvironment()
	begin := time.Now()
	if err := w.cmd.Start(); err != nil {
		return load{}, errors.Join(fmt.Errorf("start a worker: %w", err), n.stop())
	}
	took, err := completed(ctx, n.url, remoteJobs, begin)
	return load{Rate: remoteJobs * remoteIterations / took.Seconds()}, errors.Join(err, w.stop(), n.stop())
}

// completed waits until a node has so many values, and returns how long that took
// from begin. It gives up when there is none more for 30 s.
func completed(ctx context.Context, url string, n int64, begin time.Time) (time.Duration, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	seen, at := int64(-1), begin
	for {
		var s api.Status
		if err := getJSON(ctx, url+"/v1/status", &s); err != nil {
			return time.Since(begin), err
		}
		switch {
		case s.Completed >= n:
			return time.Since(begin), nil
		case s.Completed > seen:
			seen, at = s.Completed, time.Now()
		case time.Since(at) > 30*time.Second:
			return time.Since(begin), fmt.Errorf("only %d of %d values, and none for 30 s", seen, n)
		}
		select {
		case <-ctx.Done():
			return time.Since(begin), ctx.Err()
		case <-tick.C:
		}
	}
}
