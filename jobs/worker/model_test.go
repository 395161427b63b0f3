package worker

import (
	"context"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// model is a Source in memory: a map of jobs, each leased to one at a time. It
// checks what every worker promises of every report.
type model struct {
	t testing.TB

	// Set before the worker runs, called without mu. An error from before is
	// answered and nothing happens; one from after comes when all has happened.
	beforeLease  func(ctx context.Context, c jobs.Capacity) error
	beforeReport func(ctx context.Context, batch []jobs.Report) error
	afterReport  func(batch []jobs.Report) error
	verdict      func(r jobs.Report) jobs.Verdict // of a lease that is still good

	leases atomic.Int64 // calls of Lease

	mu     sync.Mutex // guards what follows
	jobs   map[jobs.ID]*modelJob
	queue  []jobs.ID
	wake   chan struct{} // closed when queue grows
	fences uint64
	held   int // leases given and not ended
	most   int // the largest held was
	who    jobs.Worker
	log    []jobs.Report
}

type modelJob struct {
	id         jobs.ID
	iterations uint64
	start      jobs.Progress
	known      jobs.Progress // by the reference
	fence      uint64        // of the lease; 0: none
	value      *jobs.Value
	failure    string
	withdrawn  bool
	values     int // reports of the value, repeated ones included
	handBacks  int
	beats      []jobs.Progress
	row        jobs.Job // its kept checkpoints
}

func newModel(t testing.TB) *model {
	return &model{t: t, jobs: map[jobs.ID]*modelJob{}, wake: make(chan struct{})}
}

func modelID(n uint64) (id jobs.ID) {
	binary.BigEndian.PutUint64(id[8:], n)
	return id
}

// want returns the value after n iterations, by the standard library.
func (j *modelJob) want(n uint64) jobs.Value {
	if n < j.known.Done || j.known.Done == 0 {
		j.known = jobs.Progress{Done: 1, Value: sha512.Sum512(j.id[:])}
	}
	for ; j.known.Done < n; j.known.Done++ {
		j.known.Value = sha512.Sum512(j.known.Value[:])
	}
	return j.known.Value
}

// enqueue adds one job for each count, numbered on from those there are.
func (m *model) enqueue(iterations ...uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range iterations {
		id := modelID(uint64(len(m.jobs)))
		j := &modelJob{id: id, iterations: n}
		j.start = jobs.Progress{Done: 1, Value: j.want(1)}
		j.row = jobs.Job{Iterations: n, Keep: uint16(min(5, jobs.MostRungs(n)))} // whatever else a test is about
		m.jobs[id] = j
		m.queue = append(m.queue, id)
	}
	close(m.wake)
	m.wake = make(chan struct{})
}

func (m *model) Lease(ctx context.Context, w jobs.Worker, c jobs.Capacity) ([]jobs.Lease, error) {
	m.leases.Add(1)
	if m.beforeLease != nil {
		if err := m.beforeLease(ctx, c); err != nil {
			return nil, err
		}
	}
	if c.Jobs < 1 || c.Iterations < 1 {
		m.t.Errorf("Lease(%+v): asked for nothing", c)
	}
	late := time.After(c.Wait)
	for {
		m.mu.Lock()
		m.who = w
		var out []jobs.Lease
		var sum uint64
		for len(m.queue) > 0 && len(out) < c.Jobs {
			j := m.jobs[m.queue[0]]
			if sum += j.iterations - j.start.Done; len(out) > 0 && sum > c.Iterations {
				break
			}
			m.queue = m.queue[1:]
			m.fences++
			j.fence = m.fences
			m.held++
			out = append(out, jobs.Lease{LeaseRef: jobs.LeaseRef{ID: j.id, Fence: jobs.Fence{N: j.fence}}, Iterations: j.iterations, Start: j.start, Keep: j.row.Keep})
		}
		m.most = max(m.most, m.held)
		wake := m.wake
		m.mu.Unlock()
		if len(out) > 0 {
			return out, nil
		}
		select {
		case <-wake:
		case <-late:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (m *model) Report(ctx context.Context, w jobs.Worker, batch []jobs.Report) ([]jobs.Verdict, error) {
	if len(batch) == 0 || len(batch) > maxReport {
		m.t.Errorf("a report of %d leases", len(batch))
	}
	if m.beforeReport != nil {
		if err := m.beforeReport(ctx, batch); err != nil {
			return nil, err
		}
	}
	m.mu.Lock()
	m.who = w
	verdicts := make([]jobs.Verdict, len(batch))
	for i, r := range batch {
		verdicts[i] = m.take(r)
	}
	m.log = append(m.log, batch...)
	m.mu.Unlock()
	if m.afterReport != nil {
		if err := m.afterReport(batch); err != nil {
			return nil, err
		}
	}
	return verdicts, nil
}

// take is what a home does with one report. m.mu is held.
func (m *model) take(r jobs.Report) jobs.Verdict {
	j := m.jobs[r.ID]
	if r.Kind != jobs.ReportFailure && r.Progress.Value != j.want(r.Progress.Done) {
		m.t.Errorf("job %s: kind %d reports a wrong value after %d iterations", r.ID, r.Kind, r.Progress.Done)
	}
	for i := range r.Rungs.Len() {
		at := jobs.RungAt(j.iterations, int(j.row.Keep), r.RungsFrom+i)
		if at > r.Progress.Done || r.Rungs.At(i) != j.want(at) {
			m.t.Errorf("job %s: kind %d reports a wrong checkpoint at %d, after %d iterations", r.ID, r.Kind, at, r.Progress.Done)
		}
	}
	j.row, _ = j.row.AddRungs(r.RungsFrom, r.Rungs)
	if got, want := j.row.Rungs.Len(), jobs.RungsBy(j.iterations, int(j.row.Keep), r.Progress.Done); r.Kind != jobs.ReportFailure && got < want {
		m.t.Errorf("job %s: kind %d: %d kept checkpoints after %d iterations, want %d", r.ID, r.Kind, got, r.Progress.Done, want)
	}
	if r.Kind == jobs.ReportValue {
		j.values++
		if r.Progress.Done != j.iterations {
			m.t.Errorf("job %s: value after %d of %d iterations", r.ID, r.Progress.Done, j.iterations)
		}
		j.value = &r.Progress.Value
	}
	good := j.fence == r.Fence.N
	if good && r.Kind != jobs.ReportProgress {
		j.fence = 0
		m.held--
	}
	switch {
	case j.withdrawn:
		return jobs.Withdrawn
	case !good:
		return jobs.Lost
	}
	switch r.Kind {
	case jobs.ReportFailure:
		j.failure = r.Err
	case jobs.ReportHandBack:
		j.handBacks++
		j.start = r.Progress
		m.queue = append(m.queue, j.id)
	case jobs.ReportProgress:
		j.beats = append(j.beats, r.Progress)
		if m.verdict != nil {
			v := m.verdict(r)
			if v != jobs.Kept {
				j.fence = 0
				m.held--
				j.withdrawn = v == jobs.Withdrawn
			}
			return v
		}
	}
	return jobs.Kept
}

// open returns the number of jobs that have neither value nor failure.
func (m *model) open() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range m.jobs {
		if j.value == nil && j.failure == "" {
			n++
		}
	}
	return n
}

// job returns a copy of job n.
func (m *model) job(n uint64) modelJob {
	m.mu.Lock()
	defer m.mu.Unlock()
	return *m.jobs[modelID(n)]
}

// start runs a worker and returns how to stop it; stop returns how long Run
// took to return and fails the test if it returned an error.
func start(t testing.TB, cfg Config, src Source) (stop func() time.Duration) {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = "w1"
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg, src) }()
	return sync.OnceValue(func() time.Duration {
		from := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		return time.Since(from)
	})
}

// slowly advances one chunk a millisecond of bubble time, so that time passes
// while there is work.
func slowly(e *hashchain.Executor[*held], steps uint64) uint64 {
	time.Sleep(time.Millisecond)
	return e.Advance(min(steps, 8))
}

var errAway = errors.New("node is away")

func repeat(n int, iterations ...uint64) []uint64 {
	var out []uint64
	for i := range n {
		out = append(out, iterations[i%len(iterations)])
	}
	return out
}

func (j modelJob) String() string {
	return fmt.Sprintf("job %s: start %d of %d, %d values, %d hand-backs, failure %q", j.id, j.start.Done, j.iterations, j.values, j.handBacks, j.failure)
}
