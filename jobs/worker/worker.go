// Package worker computes jobs: it leases them from a [Source], advances them
// in the lanes of each core and reports what it reached. The same code runs
// inside a node, where the Source is the node's queue, and on an instance,
// where it is a client of a node.
//
// Leases are taken ahead, so that no core waits for a call, and reports follow
// behind, a batch a call: what ends alone is reported at once, and what ends
// soon after a report is gathered for some milliseconds. Every lease ends in exactly one
// of: its value reported, its failure reported, handed back with its progress,
// or dropped because the Source said it is lost or withdrawn, or refused what
// was reported of it while it took others. A report that did not arrive is made
// again, so a Source may see one twice.
//
// A worker that is cut off from its Source computes what it has and keeps what
// it has reached in memory, within a bound, until the Source has taken it.
//
// The package promises no order among jobs beyond that of their leases, and it
// keeps nothing on disk: a killed worker's leases expire at their home.
package worker

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
)

// Config says how a worker works. The zero value uses all of the machine.
type Config struct {
	Name     string // unique among the live workers
	Instance string // this process, by chance; "" inside a node. See jobs.Worker
	Version  string // of the program; told to the Source
	Cores    int    // goroutines that compute; 0: one a CPU
	Lanes    int    // chains a core advances together; 0: as many as its kernels want

	// HeartbeatInterval is how often every held lease is renewed, with its
	// progress; 0: 3 s. It must be well below the TTL of a lease.
	HeartbeatInterval time.Duration
	// IdleTimeout ends Run when no lease was held for so long; 0: never. A Source
	// that is a Director may make it longer or shorter.
	IdleTimeout time.Duration
	// CutoffTimeout ends Run, with ErrCutOff, when the Source has only failed
	// for so long; 0: never.
	CutoffTimeout time.Duration
	// Measure takes some 40 ms at the start to find out which kernels are fastest
	// here and the rate of a core, so that the Source knows it from the first
	// call on.
	Measure bool
	// Nice gives the computing threads a lower priority than the rest of the
	// process, where the system can.
	Nice bool

	Log  *slog.Logger     // nil: none
	Now  func() time.Time // nil: time.Now
	Rand *rand.Rand       // spreads retries; nil: seeded by chance. Used before Run starts anything.

	// advance stands in for Executor.Advance in tests.
	advance func(e *hashchain.Executor[*held], steps uint64) uint64
}

// Bounds of one worker.
const (
	// maxLease and maxReport bound the jobs of one call.
	maxLease, maxReport = 4096, 4096
	// maxReportRungs bounds the kept checkpoints of one call, 1 MiB, but for the
	// last lease in it, of which all go.
	maxReportRungs = 16384
	// maxHeld bounds the leases a worker has, with those it has ended but not
	// yet been able to report: they wait in memory until a Source has taken
	// them. At it no more are taken: about 8 MB.
	maxHeld = 16384
	// ahead is how far in advance leases are taken. A job leased ahead is one
	// that another worker cannot take, so it is short.
	ahead = time.Second
	// smallSteps is the work that need not be reported on its way: losing it costs
	// next to nothing.
	smallSteps = 1 << 16
	// roomInterval is how often a worker that has enough looks again.
	roomInterval = ahead / 10
	// leaseWait is how long a Lease call may wait for the first job.
	leaseWait = 10 * time.Second
	// reportTimeout bounds one Report call, and drainTimeout all of what
	// follows the end of Run's context.
	reportTimeout, drainTimeout = 5 * time.Second, 2 * time.Second
	// guessedRate is taken for a core until its own is known.
	guessedRate = 4e6
)

// ErrCutOff says that no call to the Source went well for the CutoffTimeout.
var ErrCutOff = errors.New("cut off")

// Run leases, computes and reports until ctx is done, the IdleTimeout has passed
// or a Director says that it is to end. It then hands back every lease it holds with its progress, for which
// it takes no longer than 2 s, and returns nil. A Source that fails is tried
// again for as long as it takes, or until the CutoffTimeout has passed; what
// was leased is computed meanwhile. The Source must return from Lease when its
// context is done. Run waits for every goroutine that it starts.
func Run(ctx context.Context, cfg Config, src Source) error {
	w := newWorker(cfg, src)

	leasing, stopLeasing := context.WithCancel(ctx)
	defer stopLeasing()
	w.end = stopLeasing
	// Reports outlive ctx: what was computed is to arrive. A call that was
	// under way when ctx ended gets half of the time that is left, so that the
	// hand-back after it has the other half.
	calls, stopCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer stopCalls()
	drain, stopDrain := context.WithCancel(context.WithoutCancel(ctx))
	defer stopDrain()

	var computing, talking sync.WaitGroup
	for _, c := range w.cores {
		computing.Go(func() { c.run(w.stopping) })
	}
	talking.Go(func() { w.reportLoop(calls, drain) })

	err := w.leaseLoop(leasing)

	defer time.AfterFunc(drainTimeout/2, stopCalls).Stop()
	defer time.AfterFunc(drainTimeout, stopDrain).Stop()
	close(w.stopping)
	computing.Wait()
	w.handBackReady()
	close(w.computed)
	talking.Wait()
	return err
}

// held is one lease and what has become of it.
type held struct {
	lease jobs.Lease // its fence is guarded by worker.mu, the rest stays
	since time.Time  // when the lease came
	at    int        // its place in worker.all, -1 when it is there no more; guarded by worker.mu

	// core is nil while the lease waits in worker.ready; guarded by worker.mu.
	core *core
	// dropped says that nobody waits for it any more; guarded by worker.mu.
	dropped bool

	// reached is the progress last published and rate that of its chain.
	// ended says that its last report is on its way. They are guarded by
	// core.mu, or by worker.mu while there is no core.
	reached jobs.Progress
	rate    float64
	ended   bool

	// rungs are the kept checkpoints passed under this lease, of which the first
	// is the job's rungsFrom-th. They are guarded as reached is. rungAt is where
	// the next is, 0 if there is none; it belongs to the core's goroutine.
	rungs     jobs.Rungs
	rungsFrom int
	rungAt    uint64
	told      int // of rungs, that a report was kept of; the report loop's
}

// nextRung finds where the next kept checkpoint is. One that cannot be is none:
// a lease may come from elsewhere.
func (h *held) nextRung() {
	h.rungAt = 0
	keep := int(h.lease.Keep)
	if i := h.rungsFrom + h.rungs.Len(); i < keep && keep <= jobs.MostRungs(h.lease.Iterations) {
		h.rungAt = jobs.RungAt(h.lease.Iterations, keep, i)
	}
}

// remaining returns the iterations that are left, as last published.
func (h *held) remaining() uint64 { return h.lease.Iterations - h.reached.Done }

// worker is what the loops of one Run share.
type worker struct {
	cfg   Config
	src   Source
	log   *slog.Logger
	cores []*core

	kernel string // what computes when all lanes are full

	director Director // nil: nobody directs
	end      func()   // ends leasing, and Run with it
	told     atomic.Bool

	leaseRand, reportRand *rand.Rand

	stopping chan struct{} // closed: the cores hand back and return
	computed chan struct{} // closed: nothing will be added to report
	room     chan struct{} // bound 1, full means told: there may be room for leases
	news     chan struct{} // bound 1, full means told: there is something to report
	soon     chan struct{} // bound 1, full means told: report it without waiting for more

	mu       sync.Mutex // guards what follows
	all      []*held    // every lease whose last report has not arrived
	byJob    map[jobs.ID]*held
	ready    []*held   // leases no core has taken, the oldest first
	work     jobs.Work // their remaining iterations
	enough   float64   // so many there, with the cores', that no more are wanted yet
	idleFrom time.Time // since when all is empty; zero if it is not
	answered time.Time // when a call to the Source went well last
	failing  bool      // one has failed since
	unheard  bool      // a Lease has failed, and no Report has gone well since

	waiting atomic.Int64 // len(ready), read without mu as a hint
	idling  atomic.Int64 // cores that are idle, likewise
}

func newWorker(cfg Config, src Source) *worker {
	if cfg.Cores <= 0 {
		cfg.Cores = runtime.NumCPU()
	}
	if cfg.HeartbeatInterval <= 0 {
		cfg.HeartbeatInterval = 3 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	if cfg.advance == nil {
		cfg.advance = (*hashchain.Executor[*held]).Advance
	}
	w := &worker{
		cfg: cfg, src: src, log: cfg.Log.With("worker", cfg.Name),
		leaseRand:  rand.New(rand.NewPCG(cfg.Rand.Uint64(), cfg.Rand.Uint64())),
		reportRand: rand.New(rand.NewPCG(cfg.Rand.Uint64(), cfg.Rand.Uint64())),
		stopping:   make(chan struct{}),
		computed:   make(chan struct{}),
		room:       make(chan struct{}, 1),
		news:       make(chan struct{}, 1),
		soon:       make(chan struct{}, 1),
		idleFrom:   cfg.Now(),
		answered:   cfg.Now(),
		byJob:      map[jobs.ID]*held{},
	}
	w.director, _ = src.(Director)
	if cfg.Measure {
		var rates []any
		for _, k := range hashchain.Calibrate() {
			if k.Rate > 0 {
				rates = append(rates, slog.Int(k.Name, int(k.Rate)))
			}
		}
		w.log.Info("measured the kernels", slog.Group("hashes_per_second", rates...))
	}
	for range cfg.Cores {
		w.cores = append(w.cores, newCore(w))
	}
	w.kernel = hashchain.Choice(w.cores[0].lanes)
	if cfg.Measure {
		rate := measure(w.cores[0].lanes)
		for _, c := range w.cores {
			c.rate, c.meter.rate = rate, rate
		}
	}
	for _, k := range hashchain.Kernels() {
		if k.Wrong {
			w.log.Error("kernel gave a wrong value and is switched off", "kernel", k.Name)
		}
	}
	return w
}

// who names the worker to its Source, with its rate over all cores.
func (w *worker) who() jobs.Worker {
	who := jobs.Worker{
		Name: w.cfg.Name, Instance: w.cfg.Instance, Version: w.cfg.Version,
		Cores: len(w.cores), Lanes: w.cores[0].lanes, Kernel: w.kernel,
	}
	for _, c := range w.cores {
		c.mu.Lock()
		who.Rate += c.rate
		c.mu.Unlock()
	}
	return who
}

// measureTime is how long a core's rate is measured before it has work.
const measureTime = 20 * time.Millisecond

// measure returns the rate of one core with all of its lanes full.
func measure(lanes int) float64 {
	e := hashchain.NewExecutor[int](lanes)
	for i := range e.Lanes() {
		e.Add(hashchain.Chain[int]{Tag: i, Iterations: jobs.MaxIterations})
	}
	var hashes uint64
	begin := time.Now()
	for time.Since(begin) < measureTime {
		hashes += e.Advance(hashchain.Chunk)
	}
	return float64(hashes) / time.Since(begin).Seconds()
}

// heard notes whether a call to the Source went well.
func (w *worker) heard(well bool) {
	now := w.cfg.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failing = !well; well {
		w.answered = now
	}
}

// idleLeft returns how much longer the worker may be idle, which it has been for
// so long. ends is false if it may for ever.
func (w *worker) idleLeft(idle time.Duration) (left time.Duration, ends bool) {
	most := w.cfg.IdleTimeout
	if w.director != nil {
		_, most = w.director.Orders(most)
	}
	return most - idle, most > 0
}

// heed ends the worker if it is told to.
func (w *worker) heed() {
	if w.director == nil {
		return
	}
	if drain, _ := w.director.Orders(w.cfg.IdleTimeout); drain && !w.told.Swap(true) {
		w.log.Info("told to drain: what is held is handed back")
		w.end()
	}
}

// cutOff reports whether the Source has not answered for too long.
func (w *worker) cutOff() bool {
	if w.cfg.CutoffTimeout <= 0 {
		return false
	}
	now := w.cfg.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failing && now.Sub(w.answered) >= w.cfg.CutoffTimeout
}

// tell marks a channel of bound 1 as told.
func tell(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default: // told already
	}
}
