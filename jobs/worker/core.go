package worker

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
)

// entry is one thing to report.
type entry struct {
	held    *held
	kind    jobs.ReportKind
	reached jobs.Progress
	rate    float64
	err     string

	rungs     jobs.Rungs
	rungsFrom int
}

// core is one computing goroutine and its chains.
type core struct {
	w     *worker
	lanes int
	woken chan struct{} // bound 1, full means told: there are leases to take

	// Owned by the goroutine.
	exec    *hashchain.Executor[*held]
	solo    *hashchain.Executor[*held] // one lane, to find which chain panics
	pending []*held                    // taken and without a lane yet: they are tiny
	next    int                        // the first of pending that has none
	unseen  uint64                     // hashes since progress was published
	keeps   bool                       // a chain of exec may keep checkpoints
	meter   meter

	idle bool        // waits for woken; guarded by worker.mu
	told atomic.Bool // stop is not empty

	mu    sync.Mutex // guards what follows; taken after worker.mu, never before
	out   []entry    // bounded by maxHeld: a lease ends once
	stop  []*held    // chains to drop
	load  int        // chains and pending
	long  int        // chains that will not end within the time we lease ahead
	short uint64     // iterations left of all others
	rate  float64    // iterations a second over all lanes; 0 until known
}

func newCore(w *worker) *core {
	exec := hashchain.NewExecutor[*held](w.cfg.Lanes)
	return &core{
		w: w, exec: exec, lanes: exec.Lanes(),
		solo:  hashchain.NewExecutor[*held](1),
		woken: make(chan struct{}, 1),
	}
}

// publishHashes is how many hashes may pass before progress is published: about
// a millisecond, so that a heartbeat need not ask for it.
const publishHashes = 4 * hashchain.Chunk

// run computes until stopping is closed, and then hands back what it has.
func (c *core) run(stopping <-chan struct{}) {
	if c.w.cfg.Nice {
		// Never unlocked, so the thread ends with the goroutine and nothing
		// else inherits its priority.
		runtime.LockOSThread()
		if err := lowerPriority(); err != nil {
			c.w.log.Debug("cannot lower the priority of a computing thread", "err", err)
		}
	}
	c.meter.begin(c.w.cfg.Now())
	for {
		select {
		case <-stopping:
			c.obey()
			c.handBack()
			return
		default:
		}
		c.obey()
		if !c.fill() {
			c.rest()
			select {
			case <-c.woken:
				c.meter.begin(c.w.cfg.Now())
			case <-stopping:
			}
			continue
		}
		c.advance()
		c.publish()
	}
}

// fill puts leases into free lanes. It returns false if there is nothing to
// compute; the core counts as idle then.
func (c *core) fill() bool {
	active := c.exec.Active()
	free := c.exec.Free()
	if c.next == len(c.pending) {
		clear(c.pending)
		c.pending, c.next = c.pending[:0], 0
		if free > 0 && (active == 0 || c.w.waiting.Load() > 0) {
			c.pending = c.w.take(c, c.pending, free, active)
		}
		if active > 1 && len(c.pending) == 0 && c.w.idling.Load() > 0 {
			c.share(active / 2)
		}
	}
	for c.next < len(c.pending) {
		h := c.pending[c.next]
		// Only this goroutine writes reached while the lease is at this core.
		if !c.exec.Add(hashchain.Chain[*held]{
			Tag: h, Done: h.reached.Done, Iterations: h.lease.Iterations, Value: h.reached.Value,
		}) {
			break
		}
		c.keeps = c.keeps || h.rungAt != 0
		c.next++
	}
	return c.exec.Active() > 0 || len(c.pending) > 0
}

// share gives n chains to the cores that have none.
func (c *core) share(n int) {
	chains := slices.Collect(c.exec.All())[:n]
	given := make([]*held, 0, n)
	c.mu.Lock()
	for _, ch := range chains {
		c.exec.Remove(ch.Tag)
		ch.Tag.reached = progress(ch)
		given = append(given, ch.Tag)
	}
	c.tally()
	c.mu.Unlock()
	c.w.giveBack(given)
}

// advance takes all chains one chunk on. A panic fails the chain that causes it
// and no other.
func (c *core) advance() {
	hashes, reason := c.try(c.exec)
	if reason != "" {
		hashes = c.isolate()
	}
	c.rungs(c.exec)
	c.unseen += hashes
	if rate, ok := c.meter.add(hashes, c.w.cfg.Now); ok {
		c.mu.Lock()
		c.rate = rate
		c.mu.Unlock()
	}
}

// try advances e and returns what a panic said, or "".
func (c *core) try(e *hashchain.Executor[*held]) (hashes uint64, reason string) {
	defer func() {
		if p := recover(); p != nil {
			reason = fmt.Sprintf("panic while computing: %v", p)
			c.w.log.Error("panic while computing", "err", p, "stack", string(debug.Stack()))
		}
	}()
	return c.w.cfg.advance(e, c.rungs(e)), ""
}

// rungs takes down the kept checkpoints at which chains of e stand, and returns
// how many steps e may go: one chunk, or to the next of them. Chains that keep
// none, nearly all, cost nothing.
func (c *core) rungs(e *hashchain.Executor[*held]) uint64 {
	steps := uint64(hashchain.Chunk)
	if !c.keeps {
		return steps
	}
	more := false
	for ch := range e.All() {
		h := ch.Tag
		switch {
		case h.rungAt == 0 || ch.Done < h.rungAt:
		case ch.Done == h.rungAt:
			c.mu.Lock()
			h.rungs, h.reached = h.rungs.Add(ch.Value), progress(ch)
			c.mu.Unlock()
			h.nextRung()
		default: // its value is right all the same
			c.w.log.Error("a chain went past a checkpoint to keep", "job", h.lease.ID, "at", h.rungAt, "done", ch.Done)
			h.rungAt = 0
		}
		if h.rungAt != 0 {
			more = true
			steps = min(steps, h.rungAt-ch.Done)
		}
	}
	if e == c.exec {
		c.keeps = more
	}
	return steps
}

// isolate advances each chain alone after a panic. The one that panics alone is
// reported as failed, the others go on.
func (c *core) isolate() (hashes uint64) {
	for _, ch := range slices.Collect(c.exec.All()) {
		c.exec.Remove(ch.Tag)
		c.solo.Add(ch)
		n, reason := c.try(c.solo)
		hashes += n
		ended := c.solo.Done()
		switch {
		case reason != "":
			c.solo.Remove(ch.Tag)
			c.post(entry{held: ch.Tag, kind: jobs.ReportFailure, reached: progress(ch), err: reason})
		case len(ended) > 0:
			c.exec.Add(ended[0]) // needs no lane, Done gives it next
		default:
			ch, _ = c.solo.Remove(ch.Tag)
			c.exec.Add(ch)
		}
	}
	return hashes
}

// publish makes ended chains ready to report, and now and then the progress of
// the others.
func (c *core) publish() {
	ended := c.exec.Done()
	if len(ended) == 0 && c.unseen < publishHashes {
		return
	}
	c.mu.Lock()
	rate := c.chainRate()
	for _, ch := range ended {
		h := ch.Tag
		h.ended = true
		c.out = append(c.out, entry{held: h, kind: jobs.ReportValue, reached: progress(ch), rate: rate, rungs: h.rungs, rungsFrom: h.rungsFrom})
	}
	if c.unseen >= publishHashes {
		c.unseen = 0
		for ch := range c.exec.All() {
			ch.Tag.reached, ch.Tag.rate = progress(ch), rate
		}
	}
	c.tally()
	_, most := c.w.gathers()
	many := len(c.out) >= most
	c.mu.Unlock()
	if len(ended) > 0 {
		tell(c.w.news)
	}
	if many {
		tell(c.w.soon)
	}
}

// tally counts what the lease loop wants to know. c.mu is held.
func (c *core) tally() {
	c.load, c.long, c.short = 0, 0, 0
	for ch := range c.exec.All() {
		c.count(ch.Iterations - ch.Done)
	}
	for _, h := range c.pending[c.next:] {
		c.count(h.remaining())
	}
}

// count adds one chain to the tally. c.mu is held.
func (c *core) count(left uint64) {
	c.load++
	rate := c.rate
	if rate == 0 {
		rate = guessedRate
	}
	if float64(left) > rate/float64(c.lanes)*ahead.Seconds() {
		c.long++
	} else {
		c.short += left
	}
}

// chainRate returns the rate of one chain. c.mu is held.
func (c *core) chainRate() float64 {
	return c.rate / float64(max(1, c.exec.Active()))
}

// rest is what a core does before it waits: it has no chains.
func (c *core) rest() {
	rate, ok := c.meter.end(c.w.cfg.Now)
	c.mu.Lock()
	defer c.mu.Unlock()
	if ok {
		c.rate = rate
	}
	c.tally()
}

// obey drops the chains that nobody waits for.
func (c *core) obey() {
	if !c.told.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.stop {
		if _, ok := c.exec.Remove(h); ok {
			continue
		}
		if i := slices.Index(c.pending[c.next:], h); i >= 0 {
			c.pending = slices.Delete(c.pending, c.next+i, c.next+i+1)
		}
	}
	clear(c.stop)
	c.stop = c.stop[:0]
	c.told.Store(false)
	c.tally()
	tell(c.w.room)
}

// handBack ends every lease of this core with the progress it has.
func (c *core) handBack() {
	var back []entry
	for ch := range c.exec.All() {
		back = append(back, entry{held: ch.Tag, kind: jobs.ReportHandBack, reached: progress(ch), rungs: ch.Tag.rungs, rungsFrom: ch.Tag.rungsFrom})
	}
	for _, h := range c.pending[c.next:] {
		back = append(back, entry{held: h, kind: jobs.ReportHandBack, reached: h.reached, rungs: h.rungs, rungsFrom: h.rungsFrom})
	}
	c.post(back...)
}

// post adds last reports of leases. A lease without a core may be posted at any.
func (c *core) post(entries ...entry) {
	if len(entries) == 0 {
		return
	}
	c.mu.Lock()
	for _, e := range entries {
		e.held.ended = true
		c.out = append(c.out, e)
	}
	c.mu.Unlock()
	tell(c.w.news)
}

func progress(ch hashchain.Chain[*held]) jobs.Progress {
	return jobs.Progress{Done: ch.Done, Value: ch.Value}
}

// meter measures the rate of a core while it has work, by wall time: what is
// left takes as long as the neighbours let it.
type meter struct {
	from   time.Time // start of the running measurement; zero while idle
	hashes uint64    // since then
	rate   float64
}

// Bounds of one measurement: longer than what taking the time costs, and
// enough hashes that waking up does not count.
const (
	meterHashes = 1 << 16
	meterLeast  = 1 << 12
	meterTau    = time.Second // how fast an old rate is forgotten
)

func (m *meter) begin(now time.Time) { m.from, m.hashes = now, 0 }

// add counts hashes; it returns the rate when there is a new one.
func (m *meter) add(hashes uint64, now func() time.Time) (rate float64, ok bool) {
	m.hashes += hashes
	if m.hashes < meterHashes {
		return 0, false
	}
	rate, ok = m.end(now)
	m.from = now()
	return rate, ok
}

// end closes the running measurement, before a core waits.
func (m *meter) end(now func() time.Time) (rate float64, ok bool) {
	hashes, from := m.hashes, m.from
	m.hashes, m.from = 0, time.Time{}
	if hashes < meterLeast || from.IsZero() {
		return 0, false
	}
	took := now().Sub(from)
	if took <= 0 {
		return 0, false
	}
	seen := float64(hashes) / took.Seconds()
	if m.rate == 0 {
		m.rate = seen
	}
	weight := took.Seconds() / (took + meterTau).Seconds()
	m.rate += weight * (seen - m.rate)
	return m.rate, true
}
