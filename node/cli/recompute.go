package cli

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
	"workmanager/web/client"
)

// recompute computes the values of some jobs here, over all cores and lanes.
// It tells how far each has come, about five times a second.
func recompute(ctx context.Context, chains []hashchain.Chain[int], progress func(i int, done uint64)) ([]jobs.Value, error) {
	values := make([]jobs.Value, len(chains))
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(chains)) {
		all.Go(func() {
			// A core takes as many at once as it has lanes, but leaves some to
			// the other cores.
			e := hashchain.NewExecutor[int](min(hashchain.Lanes(), 1+(len(chains)-1)/runtime.GOMAXPROCS(0)))
			told := time.Now()
			for ctx.Err() == nil {
				for e.Free() > 0 {
					i := int(next.Add(1)) - 1
					if i >= len(chains) {
						break
					}
					c := chains[i]
					c.Tag = i
					e.Add(c)
				}
				e.Advance(hashchain.Chunk)
				for _, c := range e.Done() {
					values[c.Tag] = c.Value
					progress(c.Tag, c.Done)
				}
				if e.Active() == 0 && int(next.Load()) >= len(chains) {
					return
				}
				if time.Since(told) > 200*time.Millisecond {
					for c := range e.All() {
						progress(c.Tag, c.Done)
					}
					told = time.Now()
				}
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return values, nil
}

// chainOf reads data and returns the chain to compute for it.
func chainOf(data client.Data, iterations uint64) (hashchain.Chain[int], error) {
	body, _, err := data()
	if err != nil {
		return hashchain.Chain[int]{}, err
	}
	defer body.Close()
	v1, _, err := hashchain.First(body)
	if err != nil {
		return hashchain.Chain[int]{}, fmt.Errorf("read the data: %w", err)
	}
	return hashchain.Chain[int]{Done: 1, Iterations: iterations, Value: v1}, nil
}
