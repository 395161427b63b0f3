package cli

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"workmanager/jobs"
	"workmanager/web/client"
)

const (
	// awayPatience is how long a wait outlives all its nodes being away.
	awayPatience = time.Minute
	// pollInterval is how often a wait asks for progress, and waiters how many
	// jobs are asked for at once.
	pollInterval = 500 * time.Millisecond
	waiters      = 8
)

// await returns the job when it has ended. A node that goes away meanwhile,
// such as for a restart, is waited for; one that was never there is not.
func (p *program) await(ctx context.Context, cl *client.Client, id jobs.ID, t *track) (jobs.View, error) {
	var away time.Time
	met := false
	wait := pollInterval
	if t.bar != nil {
		wait = pollInterval / 10 // soon something to show
	}
	for ; ; wait = pollInterval {
		v, err := cl.Job(ctx, id, wait)
		switch {
		case err == nil:
			met, away = true, time.Time{}
			t.show(v)
			if v.Ended() {
				return v, nil
			}
		case ctx.Err() != nil || !met || !isAway(err):
			return v, err
		case away.IsZero():
			away = time.Now()
			p.say("no node answers, trying again: %v", err)
		case time.Since(away) > awayPatience:
			return v, err
		}
	}
}

// isAway reports whether err is that of nodes that may come back.
func isAway(err error) bool {
	code := jobs.CodeOf(err)
	return errors.Is(err, client.ErrUnreachable) || code == jobs.CodeStopping || code == jobs.CodeLimited || code == jobs.CodeBusy || code == jobs.CodeUnavailable
}

// show brings the job's progress to the meter.
func (t *track) show(v jobs.View) {
	t.resize(v.Iterations)
	text := string(v.State())
	if v.Leased {
		text = fmt.Sprintf("%s/%s", number(float64(v.Done)), number(float64(v.Iterations)))
		if n := note(v); n != "" {
			text += "  " + n
		}
	}
	t.set(v.Done, text)
	if v.Ended() {
		t.end()
	}
}

// awaitAll waits for all jobs, some at a time, and gives each to done in their
// order, as soon as it and those before it have ended. It stops at the first
// error, but lets a failed job be one of many.
func (p *program) awaitAll(ctx context.Context, cl *client.Client, ids []jobs.ID, m *meter, done func(i int, v jobs.View) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type ended struct {
		v   jobs.View
		err error
	}
	slots := make([]chan ended, len(ids))
	tracks := make([]*track, len(ids))
	for i, id := range ids {
		slots[i] = make(chan ended, 1)
		tracks[i] = m.track(id.String(), 0)
	}
	next := make(chan int)
	var all sync.WaitGroup
	defer all.Wait()
	for range min(waiters, len(ids)) {
		all.Go(func() {
			for i := range next {
				v, err := p.await(ctx, cl, ids[i], tracks[i])
				slots[i] <- ended{v, err}
			}
		})
	}
	all.Go(func() {
		defer close(next)
		for i := range ids {
			select {
			case next <- i:
			case <-ctx.Done():
				return
			}
		}
	})
	for i := range ids {
		var e ended
		select {
		case e = <-slots[i]:
		case <-ctx.Done():
			e.err = context.Cause(ctx)
		}
		if e.err == nil {
			e.err = done(i, e.v)
		}
		if e.err != nil {
			cancel(e.err)
			return e.err
		}
	}
	return nil
}

// jobFailure is the error for jobs that ended without a value, nil if there is
// none. The first is named.
func jobFailure(ended []jobs.View) error {
	var bad []jobs.View
	for _, v := range ended {
		if v.Rank != jobs.Completed || v.Purged {
			bad = append(bad, v)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	f := &failure{exit: exitJobFailed, code: "job_failed"}
	switch v := bad[0]; {
	case v.Purged:
		f.code, f.err = "job_purged", fmt.Errorf("job %s was purged: its value is gone", v.ID)
	case v.Rank == jobs.Cancelled:
		f.code, f.err = "job_cancelled", fmt.Errorf("job %s was cancelled", v.ID)
	default:
		f.err = fmt.Errorf("job %s failed: %s", v.ID, v.Err)
	}
	if len(bad) > 1 {
		f.err = fmt.Errorf("%w; %d of %d jobs have no value", f.err, len(bad), len(ended))
	}
	return f
}
