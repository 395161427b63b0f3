package worker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
)

// What matters to a worker whose Source may be away: a node elsewhere.

// cut makes every call to m fail while away is set.
func cut(m *model) (away *atomic.Bool) {
	away = &atomic.Bool{}
	m.beforeLease = func(context.Context, jobs.Capacity) error {
		if away.Load() {
			return errAway
		}
		return nil
	}
	m.beforeReport = func(context.Context, []jobs.Report) error {
		if away.Load() {
			return errAway
		}
		return nil
	}
	return away
}

func TestRun_computes_while_it_is_cut_off(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		away := cut(m)
		m.enqueue(1e9, 40_000, 40_000)
		stop := start(t, Config{Cores: 1, Lanes: 3, HeartbeatInterval: 2 * time.Second, CutoffTimeout: time.Minute, advance: slowly}, m)
		time.Sleep(time.Second)
		away.Store(true)
		time.Sleep(50 * time.Second)
		if n := m.open(); n != 3 {
			t.Errorf("%d jobs open, want all: no report has arrived", n)
		}
		away.Store(false)
		time.Sleep(5 * time.Second)
		if n := m.open(); n != 1 {
			t.Errorf("%d jobs open, want the long one: the values were kept", n)
		}
		if j := m.job(0); len(j.beats) == 0 || j.beats[len(j.beats)-1].Done < 390_000 {
			t.Errorf("%v: last heartbeat %v, want the work done meanwhile", j, j.beats)
		}
		// The time counts anew.
		away.Store(true)
		time.Sleep(50 * time.Second)
		away.Store(false)
		if took := stop(); took > time.Second {
			t.Errorf("Run took %v to return", took)
		}
		if j := m.job(0); j.handBacks != 1 {
			t.Errorf("%v, want it handed back", j)
		}
	})
}

func TestRun_ends_when_it_is_cut_off_for_too_long(t *testing.T) {
	for name, iterations := range map[string][]uint64{"at work": {1e9}, "with values to report": {2, 2}, "with nothing to do": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel(t)
				away := cut(m)
				m.enqueue(iterations...)
				done := make(chan error, 1)
				from := time.Now()
				go func() {
					done <- Run(t.Context(), Config{Name: "w", Cores: 1, Lanes: 1, CutoffTimeout: time.Minute, advance: slowly}, m)
				}()
				time.Sleep(time.Millisecond)
				away.Store(true)
				if err := <-done; !errors.Is(err, ErrCutOff) {
					t.Errorf("Run = %v, want ErrCutOff", err)
				}
				if took := time.Since(from); took < time.Minute || took > 75*time.Second {
					t.Errorf("Run took %v, want about a minute", took)
				}
			})
		})
	}
}

// A process that was stopped for long tries once more before it gives up.
func TestRun_is_not_cut_off_by_its_own_sleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		var ahead atomic.Int64 // of the clock
		now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		m.enqueue(1e9)
		stop := start(t, Config{Cores: 1, Lanes: 1, CutoffTimeout: time.Minute, Now: now, advance: slowly}, m) // full: it takes no leases
		time.Sleep(10 * time.Second)
		ahead.Store(int64(time.Hour))
		time.Sleep(10 * time.Second)
		stop() // fails the test if Run had ended with an error
		if j := m.job(0); j.handBacks != 1 {
			t.Errorf("%v, want it handed back at the end", j)
		}
	})
}

// A worker that is full asks for nothing: its heartbeats tell that it is heard.
func TestRun_is_not_cut_off_while_reports_arrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		away := cut(m)
		m.enqueue(1e9)
		stop := start(t, Config{Cores: 1, Lanes: 1, CutoffTimeout: 20 * time.Second, advance: slowly}, m)
		time.Sleep(time.Second)
		away.Store(true)
		time.Sleep(10 * time.Second)
		away.Store(false)
		time.Sleep(30 * time.Second)
		stop() // fails the test if Run had ended with an error
	})
}

// What a worker has comes before what it could have: when its node is back,
// having forgotten its lease, it is not given its own job from the start.
func TestRun_goes_on_with_a_job_that_is_leased_to_it_again(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		away := cut(m)
		m.enqueue(1e9)
		stop := start(t, Config{Cores: 1, Lanes: 2, HeartbeatInterval: 2 * time.Second, advance: slowly}, m)
		time.Sleep(9 * time.Second)
		m.mu.Lock() // the lease ends there, and the job waits again
		reached := m.jobs[modelID(0)].beats[len(m.jobs[modelID(0)].beats)-1].Done
		m.jobs[modelID(0)].fence = 0
		m.held--
		m.queue = append(m.queue, modelID(0))
		close(m.wake)
		m.wake = make(chan struct{})
		m.mu.Unlock()
		time.Sleep(5 * time.Second)
		if j := m.job(0); j.fence == 0 || j.beats[len(j.beats)-1].Done <= reached {
			t.Errorf("%v, last heartbeat %v, want it to go on beyond %d", j, j.beats[len(j.beats)-1], reached)
		}
		// While its node is away it asks for nothing, but that its reports are taken.
		away.Store(true)
		time.Sleep(leaseWait + 2*time.Second) // a call that was under way comes to its end, and one more fails
		leases := m.leases.Load()
		time.Sleep(5 * time.Second)
		if n := m.leases.Load() - leases; n != 0 {
			t.Errorf("asked %d times for leases while its reports failed", n)
		}
		away.Store(false)
		time.Sleep(2 * time.Second)
		stop()
		if j := m.job(0); j.handBacks != 1 {
			t.Errorf("%v, want it handed back once", j)
		}
	})
}

// A drain that meets a silent node has time for another try.
func TestRun_drains_through_a_silent_node(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		draining := atomic.Bool{}
		calls := atomic.Int64{}
		m.beforeReport = func(ctx context.Context, _ []jobs.Report) error {
			if !draining.Load() {
				return nil
			}
			if calls.Add(1) == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			if end, ok := ctx.Deadline(); !ok || time.Until(end) > drainTimeout/2 {
				t.Errorf("a call of the drain may last until %v, half of its time is %v", end, drainTimeout/2)
			}
			return nil
		}
		m.enqueue(1e9, 1e9)
		stop := start(t, Config{Cores: 2, HeartbeatInterval: time.Hour, advance: slowly}, m)
		time.Sleep(time.Second)
		draining.Store(true)
		if took := stop(); took >= drainTimeout {
			t.Errorf("Run took %v to return, want less than %v", took, drainTimeout)
		}
		if a, b := m.job(0), m.job(1); a.handBacks != 1 || b.handBacks != 1 || a.start.Done < 1000 {
			t.Errorf("%v, %v, want both handed back with progress", a, b)
		}
	})
}

func TestRun_tiny_jobs_need_no_heartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		m.enqueue(1e9)
		stop := start(t, Config{Cores: 1, Lanes: 2, HeartbeatInterval: 2 * time.Second, advance: slowly}, m)
		for range 20 { // each second half a second of work
			m.enqueue(repeat(40, 100)...)
			time.Sleep(time.Second)
		}
		stop()
		beats, open := 0, m.open()
		for n := range uint64(800) {
			beats += len(m.job(1 + n).beats)
		}
		if long := len(m.job(0).beats); long < 9 || beats > 0 || open != 1 {
			t.Errorf("%d heartbeats of a long job, %d of 800 tiny ones, %d open, want 9 and none, one", long, beats, open)
		}
	})
}

// noted tells of the leases that m gives.
type noted struct {
	*model
	note func([]jobs.Lease)
}

func (n noted) Lease(ctx context.Context, w jobs.Worker, c jobs.Capacity) ([]jobs.Lease, error) {
	leases, err := n.model.Lease(ctx, w, c)
	n.note(leases)
	return leases, err
}

// A lease never waits two heartbeats for its first one, however small it is: it
// would end.
func TestRun_no_lease_goes_without_a_heartbeat_for_long(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		var mu sync.Mutex // guards last
		last := map[jobs.ID]time.Time{}
		src := noted{m, func(leases []jobs.Lease) {
			mu.Lock()
			defer mu.Unlock()
			for _, l := range leases {
				last[l.ID] = time.Now()
			}
		}}
		m.beforeReport = func(_ context.Context, batch []jobs.Report) error {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range batch {
				if at, known := last[r.ID]; known && time.Since(at) > 4100*time.Millisecond {
					t.Errorf("job %s: %v without a word", r.ID, time.Since(at))
				}
				last[r.ID] = time.Now()
			}
			return nil
		}
		m.enqueue(repeat(40, 60_000, 1e6)...)
		stop := start(t, Config{Cores: 1, Lanes: 4, HeartbeatInterval: 2 * time.Second, advance: slowly}, src)
		time.Sleep(time.Minute)
		stop()
	})
}

func TestRun_says_what_it_computes_with(t *testing.T) {
	m := newModel(t)
	ctx, cancel := context.WithCancel(t.Context())
	m.beforeLease = func(context.Context, jobs.Capacity) error {
		cancel() // one call is enough
		return nil
	}
	if err := Run(ctx, Config{Name: "w", Instance: "0a", Version: "devel", Cores: 2, Lanes: 4, Measure: true}, m); err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.who; w.Name != "w" || w.Instance != "0a" || w.Version != "devel" || w.Cores != 2 || w.Lanes != 4 || w.Kernel == "" || w.Rate < 1e4 {
		t.Errorf("says %+v at its first call", w)
	}
}

// directed is a model that directs the worker.
type directed struct {
	*model
	drain atomic.Bool
	idle  atomic.Int64 // a time.Duration; below 0: the worker's own
	asked atomic.Int64 // what the worker says is its own
}

func (d *directed) Orders(idle time.Duration) (bool, time.Duration) {
	d.asked.Store(int64(idle))
	if most := time.Duration(d.idle.Load()); most >= 0 {
		idle = most
	}
	return d.drain.Load(), idle
}

func TestRun_hands_back_when_it_is_told_to_drain(t *testing.T) {
	for name, c := range map[string]struct {
		lanes int
		jobs  []uint64
	}{"full, so that it only reports": {2, []uint64{1e9, 1e9}}, "waiting for a job": {2, nil}, "with room": {3, []uint64{1e9, 1e9}}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &directed{model: newModel(t)}
				d.idle.Store(-1)
				d.enqueue(c.jobs...)
				done := make(chan error, 1)
				go func() {
					done <- Run(t.Context(), Config{Name: "w", Cores: 1, Lanes: c.lanes, HeartbeatInterval: 2 * time.Second, IdleTimeout: time.Hour, advance: slowly}, d)
				}()
				time.Sleep(5 * time.Second)
				d.drain.Store(true)
				from := time.Now()
				if err := <-done; err != nil {
					t.Errorf("Run = %v, want nil", err)
				}
				if took := time.Since(from); took > 13*time.Second { // the longest that a Lease waits here, and the hand-back
					t.Errorf("Run ended %v after it was told", took)
				}
				for i := range c.jobs {
					if j := d.job(uint64(i)); j.handBacks != 1 || j.start.Done < 5_000 {
						t.Errorf("%v, want it handed back with its progress", j)
					}
				}
				if want := time.Hour; time.Duration(d.asked.Load()) != want {
					t.Errorf("the worker says that it may be idle for %v, want %v", time.Duration(d.asked.Load()), want)
				}
			})
		})
	}
}

func TestRun_is_idle_for_as_long_as_it_is_told(t *testing.T) {
	for name, c := range map[string]struct{ own, told, want time.Duration }{
		"shorter":             {time.Minute, 15 * time.Second, 15 * time.Second},
		"longer":              {time.Minute, 5 * time.Minute, 5 * time.Minute},
		"as it would":         {time.Minute, -1, time.Minute},
		"for ever, by itself": {0, 20 * time.Second, 20 * time.Second},
		"for ever":            {time.Minute, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &directed{model: newModel(t)}
				d.idle.Store(int64(c.told))
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				from := time.Now()
				if err := Run(ctx, Config{Name: "w", Cores: 1, Lanes: 1, IdleTimeout: c.own, advance: slowly}, d); err != nil {
					t.Errorf("Run = %v, want nil", err)
				}
				want := c.want
				if want == 0 {
					want = time.Hour
				}
				if took := time.Since(from); took < want || took > want+leaseWait+time.Second {
					t.Errorf("Run took %v, want %v", took, want)
				}
			})
		})
	}
}
