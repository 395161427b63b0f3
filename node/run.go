package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"workmanager/jobs/worker"
)

const (
	// stepInterval is how often leases are looked at for their deadlines.
	stepInterval = 100 * time.Millisecond
	// helpInterval is how often idle workers look to the peer.
	helpInterval = 50 * time.Millisecond
	// retentionEvery is how often ended jobs are looked at for their age, and
	// more often where retention is short.
	retentionEvery = time.Minute
	// heartbeat is how often the worker in this process renews and reports
	// progress; it has no deadline to meet, only a bar to move.
	heartbeat = 500 * time.Millisecond
	// The bounds of the steps of a shutdown, in all under five seconds.
	drainTimeout  = 2500 * time.Millisecond
	serverTimeout = 1500 * time.Millisecond
)

const (
	// diskThreads is how many threads may wait for the disk at once: the writer
	// and a reader.
	diskThreads = 2
	gcPercent   = 300
)

// Tune gives Go's scheduler a place for each thread that computes or waits for
// the disk, beside those that serve: without it such a thread holds one of the
// places that a request waits for. Measured on 2 CPUs with 64 connections, the
// two of the disk are worth 5 to 10 % of PUT /enqueue.
//
// It also lets the heap grow to four times what is live before it is collected,
// unless GOGC says otherwise: what is live is small, so 6 % of PUT /enqueue
// costs 80 MB with a million jobs. Tune changes the whole process; call it once,
// before Run.
func Tune(cfg Config) {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + cfg.Cores() + diskThreads)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// Run serves until ctx is done, shuts down in the order of the package comment
// and returns nil. It returns an error if a part fails: the disk first of all,
// since a file that could not be written is not to be trusted. It may be
// called once.
func (n *Node) Run(ctx context.Context) error {
	defer n.listener.Close() //nolint:errcheck // the server has closed it
	defer n.programs.close() //nolint:errcheck // they were read only
	serve, stopServe := context.WithCancel(ctx)
	defer stopServe()
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	write, stopWrite := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWrite()

	// A part that ends before it was told to brings the others down.
	var errs []error
	fail := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
		stopServe()
	}
	writer := start(func() error { return n.store.Run(write) })
	loops := start(func() error { return errors.Join(n.loop(work)) })
	keep := start(func() error { return n.retain(work) })
	computing := start(func() error { return n.compute(work) })
	pair := start(func() error { return n.pair.Run(work) })
	helping := start(func() error { return n.help(work) })
	auditing := start(func() error { return n.queue.audit.run(work) })
	rekeying := start(func() error { return n.rekey(work) })
	fleeting := start(func() error { return n.fleet.run(work) })
	debugging := start(n.debug.run)
	api := start(func() error {
		listener := n.listener
		if n.keys != nil {
			listener = tls.NewListener(listener, n.keys.Server())
		}
		if err := n.server.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the API: %w", err)
		}
		return nil
	})
	notifying := start(func() error { return n.notify(work) })
	n.log.Info("node runs", "node", n.cfg.Name, "listen", n.Addr(), "gossip", n.GossipAddr(), "data", n.cfg.DataDir, "workers", n.cfg.Cores(), "tls", n.keys != nil, "tokens", n.keys != nil && n.keys.Tokens())

	select {
	case <-serve.Done():
	case <-writer.done:
	case <-loops.done:
	case <-keep.done:
	case <-pair.done:
	case <-helping.done:
	case <-auditing.done:
	case <-fleeting.done:
	case <-api.done:
	}
	stopServe()
	n.stopping()
	n.debug.close()

	// From the outside in: clients first, so that nothing new comes in.
	n.api.Stop()
	n.queue.stop()
	n.pair.Stop()
	stopWork()
	for _, p := range []*part{fleeting, computing, auditing, loops, keep, helping, rekeying, notifying, debugging, pair} {
		if !p.wait(drainTimeout) {
			fail(errors.New("a part did not stop in time"))
		}
		fail(p.err())
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), serverTimeout)
	if err := n.server.Shutdown(bounded); err != nil {
		_ = n.server.Close() // what is still open had its time
	}
	cancel()
	api.wait(drainTimeout)
	fail(api.err())
	stopWrite()
	if !writer.wait(drainTimeout) {
		return errors.Join(append(errs, errors.New("the disk did not take the last writes in time"))...)
	}
	if err := writer.err(); err != nil {
		fail(fmt.Errorf("node stopped, start it again when the disk is well: %v", err)) // without the code meant for clients
	}
	fail(n.store.Close())
	if len(errs) == 0 {
		n.log.Info("node stopped", "node", n.cfg.Name)
	}
	return errors.Join(errs...)
}

// part is one goroutine and what it returned.
type part struct {
	done chan struct{}
	out  error // set before done is closed
}

func start(f func() error) *part {
	p := &part{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.out = f()
	}()
	return p
}

// wait reports whether the part has ended within the time.
func (p *part) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.done:
		return true
	case <-t.C:
		return false
	}
}

// err returns what the part returned, nil while it runs.
func (p *part) err() error {
	select {
	case <-p.done:
		return p.out
	default:
		return nil
	}
}

// loop steps the queue: leases expire, the window is filled, rates are taken.
func (n *Node) loop(ctx context.Context) error {
	tick := time.NewTicker(stepInterval)
	defer tick.Stop()
	var sampled time.Time
	n.queue.wantPage()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-n.queue.refill:
			err = n.queue.fillWindow(ctx)
		case <-tick.C:
			now := n.now()
			if now.Sub(sampled) >= time.Second || now.Before(sampled) {
				sampled = now
				n.status.tick(ctx, now)
				err = n.queue.fillLower(ctx)
			}
			err = errors.Join(n.queue.step(ctx, now), err)
			n.stepped.Store(now.UnixMicro())
		}
		if err != nil && ctx.Err() == nil {
			if n.store.Err() != nil {
				return nil // the writer tells why
			}
			n.log.Warn("queue step failed, will be tried again", "err", err)
		}
	}
}

// help finds work at the peer for workers that have none here.
func (n *Node) help(ctx context.Context) error {
	tick := time.NewTicker(helpInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := n.queue.feedIdle(ctx); err != nil && ctx.Err() == nil && n.store.Err() == nil {
			n.log.Warn("no work found at the peer, will be tried again", "err", err)
		}
	}
}

// rekey keeps the keys as their files are.
func (n *Node) rekey(ctx context.Context) error {
	if n.keys == nil {
		<-ctx.Done()
		return nil
	}
	n.keys.OnGossip(func(ring [][]byte) {
		if err := n.pair.SetGossipKeys(ring); err != nil {
			n.log.Warn("new gossip key refused, the former goes on", "err", err)
		}
	})
	return n.keys.Run(ctx, n.reload)
}

// retain warms the cache with the newest results and then deletes, at its
// pace, what ended before the retention.
func (n *Node) retain(ctx context.Context) error {
	if err := n.warm(ctx); err != nil && ctx.Err() == nil {
		n.log.Warn("cache starts cold", "err", err)
	}
	tick := time.NewTicker(min(retentionEvery, max(n.cfg.Retention/4, time.Second/4)))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := n.expire(ctx); err != nil && ctx.Err() == nil && n.store.Err() == nil {
			n.log.Warn("retention failed, will be tried again", "err", err)
		}
		if err := n.store.Tidy(ctx); err != nil && ctx.Err() == nil && n.store.Err() == nil {
			n.log.Warn("purged bytes not erased from unused room, will be tried again", "err", err)
		}
	}
}

// refreshSlice bounds the open jobs whose retention one transaction counts anew.
const (
	refreshSlice  = 1000
	refreshSlices = 60 // in one look
)

// expire raises the floor, where this node may do so alone, and deletes in
// slices until nothing is left below it.
func (n *Node) expire(ctx context.Context) error {
	now := n.now()
	for range refreshSlices {
		done, err := n.store.Refresh(ctx, now.Add(-n.cfg.Retention/2), refreshSlice)
		if err != nil {
			return err
		}
		if done < refreshSlice {
			break
		}
	}
	if err := n.queue.pair.RaiseAlone(ctx); err != nil {
		return err
	}
	total := 0
	for ctx.Err() == nil {
		dropped, err := n.store.Expire(ctx)
		if err != nil {
			return err
		}
		if dropped == 0 {
			break
		}
		total += dropped
	}
	if total > 0 {
		n.log.Info("retention dropped ended jobs", "jobs", total, "retention", n.cfg.Retention)
	}
	return nil
}

// warm puts the newest results into the cache.
func (n *Node) warm(ctx context.Context) error {
	if n.cfg.CacheEntries == 0 {
		return nil
	}
	defer n.queue.cache.warming()()
	return n.store.Recent(ctx, n.cfg.CacheEntries, n.queue.cache.put)
}

// compute runs the worker of this process, if it has one.
func (n *Node) compute(ctx context.Context) error {
	cores := n.cfg.Cores()
	if cores == 0 {
		<-ctx.Done()
		return nil
	}
	return worker.Run(ctx, worker.Config{
		Name: n.cfg.Name, Version: Version(), Cores: cores, HeartbeatInterval: heartbeat, Nice: true, Log: n.log, Now: n.now,
	}, n.queue)
}
