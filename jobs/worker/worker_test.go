package worker

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
)

func TestRun_every_job_is_reported_once(t *testing.T) {
	for _, cfg := range []Config{{Cores: 1, Lanes: 1}, {Cores: 2}, {Cores: 3, Lanes: 8}} {
		synctest.Test(t, func(t *testing.T) {
			m := newModel(t)
			m.enqueue(repeat(1000, 2, 3, 1, 700, 2, 3000, 2)...)
			stop := start(t, cfg, m)
			synctest.Wait()
			m.enqueue(repeat(20, 2, 9000)...)
			synctest.Wait()
			stop()
			if n := m.open(); n != 0 {
				t.Errorf("%+v: %d jobs have no value", cfg, n)
			}
			for _, j := range m.jobs {
				if j.values != 1 || j.handBacks != 0 || j.failure != "" {
					t.Errorf("%+v: %v, want one value", cfg, j)
				}
			}
			if m.held != 0 {
				t.Errorf("%+v: %d leases never ended", cfg, m.held)
			}
			if want := max(1, cfg.Cores); m.who.Name != "w1" || m.who.Cores != want {
				t.Errorf("%+v: worker is %+v", cfg, m.who)
			}
		})
	}
}

func TestRun_heartbeats_carry_progress_and_rate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		m.enqueue(1e9, 1e9, 1e9)
		stop := start(t, Config{Cores: 2, Lanes: 2, HeartbeatInterval: time.Second, advance: slowly}, m)
		time.Sleep(10500 * time.Millisecond)
		for n := range uint64(3) {
			beats := m.job(n).beats
			if len(beats) != 10 {
				t.Errorf("job %d: %d heartbeats in 10.5 s, want 10", n, len(beats))
			}
			for i := 2; i < len(beats); i++ {
				if beats[i].Done <= beats[i-1].Done {
					t.Errorf("job %d: heartbeat %d at %d, the one before at %d", n, i, beats[i].Done, beats[i-1].Done)
				}
			}
		}
		m.mu.Lock()
		rate, one := m.who.Rate, m.log[len(m.log)-1].Rate
		m.mu.Unlock()
		// Eight steps a millisecond a chain, three chains.
		if rate < 23_000 || rate > 25_000 || one < 7_900 || one > 8_100 {
			t.Errorf("rate %v of the worker, %v of a job, want 24000 and 8000", rate, one)
		}
		stop()
	})
}

func TestRun_hands_back_and_another_goes_on(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		m.enqueue(repeat(20, 20_000, 2_000, 2)...)
		for range 3 {
			stop := start(t, Config{Cores: 2, Lanes: 2, advance: slowly}, m)
			time.Sleep(700 * time.Millisecond)
			if took := stop(); took > 50*time.Millisecond {
				t.Errorf("Run took %v to hand back", took)
			}
			m.mu.Lock()
			if m.held != 0 {
				t.Errorf("%d leases were not handed back", m.held)
			}
			m.mu.Unlock()
		}
		if j := m.job(0); j.handBacks == 0 || j.start.Done < 1000 {
			t.Errorf("%v, want progress over the three runs", j)
		}
		stop := start(t, Config{Cores: 2}, m)
		synctest.Wait()
		stop()
		for _, j := range m.jobs {
			if j.values != 1 {
				t.Errorf("%v, want one value", j)
			}
		}
	})
}

func TestRun_stops_what_nobody_waits_for(t *testing.T) {
	for _, verdict := range []jobs.Verdict{jobs.Lost, jobs.Withdrawn} {
		synctest.Test(t, func(t *testing.T) {
			m := newModel(t)
			m.verdict = func(r jobs.Report) jobs.Verdict {
				if r.ID == modelID(0) {
					return verdict
				}
				return jobs.Kept
			}
			m.enqueue(1e9, 40_000)
			var most atomic.Int64
			stop := start(t, Config{Cores: 1, Lanes: 2, HeartbeatInterval: time.Second, advance: func(e *hashchain.Executor[*held], steps uint64) uint64 {
				most.Store(int64(e.Active()))
				return slowly(e, steps)
			}}, m)
			time.Sleep(900 * time.Millisecond)
			if n := most.Load(); n != 2 {
				t.Errorf("verdict %d: %d chains before it, want 2", verdict, n)
			}
			time.Sleep(200 * time.Millisecond)
			if n := most.Load(); n != 1 {
				t.Errorf("verdict %d: %d chains after it, want 1", verdict, n)
			}
			time.Sleep(10 * time.Second)
			stop()
			if j := m.job(0); j.values != 0 || j.handBacks != 0 || len(j.beats) != 1 {
				t.Errorf("verdict %d: %v, %d heartbeats, want one and nothing more", verdict, j, len(j.beats))
			}
			if j := m.job(1); j.values != 1 {
				t.Errorf("verdict %d: %v, want its value", verdict, j)
			}
		})
	}
}

func TestRun_drops_a_lease_no_core_has_begun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		m.verdict = func(r jobs.Report) jobs.Verdict {
			if r.Progress.Done == 1 {
				return jobs.Lost
			}
			return jobs.Kept
		}
		// The first is short enough for others to be leased behind it.
		m.enqueue(3000, 3000, 3000, 3000)
		stop := start(t, Config{Cores: 1, Lanes: 1, HeartbeatInterval: 100 * time.Millisecond, advance: slowly}, m)
		time.Sleep(10 * time.Second)
		stop()
		lost := 0
		for _, j := range m.jobs {
			if j.values == 0 {
				lost++
				if j.handBacks != 0 {
					t.Errorf("%v, want nothing of a lost lease", j)
				}
			}
		}
		if lost == 0 || m.held != 0 {
			t.Errorf("%d leases were lost, %d are held, want some and none", lost, m.held)
		}
	})
}

// logs is a slog handler's output, safe for concurrent use.
type logs struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), s)
}

func TestRun_lease_errors_back_off_and_are_logged_once(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		away := atomic.Bool{}
		away.Store(true)
		calls := atomic.Int64{}
		m.beforeLease = func(context.Context, jobs.Capacity) error {
			calls.Add(1)
			if away.Load() {
				return errAway
			}
			return nil
		}
		m.enqueue(2, 2, 2)
		l := &logs{}
		stop := start(t, Config{Cores: 1, Log: slog.New(slog.NewTextHandler(l, nil))}, m)
		time.Sleep(30 * time.Second)
		if n := calls.Load(); n < 30 || n > 70 {
			t.Errorf("%d tries in 30 s, want one each 0.5 to 1 s", n)
		}
		away.Store(false)
		time.Sleep(2 * time.Second)
		if n := m.open(); n != 0 {
			t.Errorf("%d jobs open 2 s after the node is back", n)
		}
		stop()
		if f, w := l.count("leasing failed"), l.count("leasing works again"); f != 1 || w != 1 {
			t.Errorf("logged %d failures and %d recoveries, want 1 and 1:\n%s", f, w, l.buf.String())
		}
	})
}

// hasty never waits for a lease.
type hasty struct {
	*model
	calls atomic.Int64
}

func (h *hasty) Lease(context.Context, jobs.Worker, jobs.Capacity) ([]jobs.Lease, error) {
	h.calls.Add(1)
	return nil, nil
}

func TestRun_a_source_that_does_not_wait_is_not_asked_all_the_time(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hasty{model: newModel(t)}
		stop := start(t, Config{Cores: 1}, h)
		time.Sleep(time.Second)
		stop()
		if n := h.calls.Load(); n > 40 {
			t.Errorf("asked %d times in a second, want about 30", n)
		}
	})
}

func TestRun_keeps_values_through_report_errors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		away := atomic.Bool{}
		away.Store(true)
		m.beforeReport = func(context.Context, []jobs.Report) error {
			if away.Load() {
				return errAway
			}
			return nil
		}
		m.enqueue(repeat(maxHeld+5000, 2)...)
		l := &logs{}
		stop := start(t, Config{Cores: 2, Log: slog.New(slog.NewTextHandler(l, nil))}, m)
		time.Sleep(20 * time.Second)
		m.mu.Lock()
		if m.held != maxHeld {
			t.Errorf("%d leases held with reports failing, want to stop at %d", m.held, maxHeld)
		}
		m.mu.Unlock()
		away.Store(false)
		time.Sleep(5 * time.Second)
		stop()
		for _, j := range m.jobs {
			if j.values != 1 {
				t.Fatalf("%v, want one value", j)
			}
		}
		if f, w := l.count("reporting failed"), l.count("reporting works again"); f != 1 || w != 1 {
			t.Errorf("logged %d failures and %d recoveries, want 1 and 1:\n%s", f, w, l.buf.String())
		}
	})
}

func TestRun_a_lost_answer_is_reported_again(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		failed := false
		m.afterReport = func([]jobs.Report) error {
			if !failed {
				failed = true
				return errAway
			}
			return nil
		}
		m.enqueue(2)
		stop := start(t, Config{Cores: 1}, m)
		time.Sleep(time.Second)
		stop()
		if j := m.job(0); j.values != 2 || m.held != 0 {
			t.Errorf("%v, %d held, want the value twice", j, m.held)
		}
	})
}

// short answers with too few verdicts.
type short struct{ *model }

func (s short) Report(ctx context.Context, w jobs.Worker, batch []jobs.Report) ([]jobs.Verdict, error) {
	v, err := s.model.Report(ctx, w, batch)
	if s.job(0).values == 1 {
		return v[:0], err
	}
	return v, err
}

func TestRun_too_few_verdicts_are_an_error(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		m.enqueue(2)
		l := &logs{}
		stop := start(t, Config{Cores: 1, Log: slog.New(slog.NewTextHandler(l, nil))}, short{m})
		time.Sleep(time.Second)
		stop()
		if n := l.count("0 verdicts came back"); m.job(0).values != 2 || n != 1 {
			t.Errorf("%v, logged %d times, want two tries and one line", m.job(0), n)
		}
	})
}

func TestRun_returns_in_time_from_a_source_that_hangs(t *testing.T) {
	t.Run("for one call", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := newModel(t)
			hung := false
			m.beforeReport = func(ctx context.Context, _ []jobs.Report) error {
				if hung {
					return nil
				}
				hung = true
				<-ctx.Done()
				return ctx.Err()
			}
			m.enqueue(1e9)
			stop := start(t, Config{Cores: 1, HeartbeatInterval: time.Second, advance: slowly}, m)
			time.Sleep(1500 * time.Millisecond) // the heartbeat hangs
			if took := stop(); took > drainTimeout {
				t.Errorf("Run took %v to return, want at most %v", took, drainTimeout)
			}
			if j := m.job(0); j.handBacks != 1 || j.start.Done < 1000 {
				t.Errorf("%v, want it handed back with progress", j)
			}
		})
	})
	t.Run("for ever", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := newModel(t)
			m.beforeReport = func(ctx context.Context, _ []jobs.Report) error {
				<-ctx.Done()
				return ctx.Err()
			}
			m.enqueue(1e9, 2)
			stop := start(t, Config{Cores: 1, advance: slowly}, m)
			time.Sleep(time.Second)
			if took := stop(); took > drainTimeout+10*time.Millisecond {
				t.Errorf("Run took %v to return, want at most %v", took, drainTimeout)
			}
		})
	})
}

func TestRun_hands_back_leases_that_came_too_late(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		m.beforeLease = func(ctx context.Context, _ jobs.Capacity) error {
			<-ctx.Done()
			return nil // and so grants after all
		}
		m.enqueue(1e9, 1e9)
		stop := start(t, Config{Cores: 1}, m)
		synctest.Wait()
		stop()
		if m.held != 0 || m.job(0).handBacks != 1 {
			t.Errorf("%d leases held, %v, want them handed back", m.held, m.job(0))
		}
	})
}

func TestRun_a_panic_fails_one_job(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		m.enqueue(30_000, 20_000, 2, 30_000, 2)
		bad := modelID(1)
		stop := start(t, Config{Cores: 1, Lanes: 4, advance: func(e *hashchain.Executor[*held], steps uint64) uint64 {
			for c := range e.All() {
				if c.Tag.lease.ID == bad && c.Done > 5000 {
					panic("a lane is on fire")
				}
			}
			return e.Advance(steps)
		}}, m)
		synctest.Wait()
		stop()
		for n := range uint64(5) {
			j := m.job(n)
			if n == 1 {
				if j.values != 0 || j.failure != "panic while computing: a lane is on fire" {
					t.Errorf("%v, want the failure", j)
				}
			} else if j.values != 1 || j.failure != "" {
				t.Errorf("%v, want its value", j)
			}
		}
	})
}

func TestRun_a_lease_that_cannot_be_right_fails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		m.enqueue(10, 10, 10)
		m.jobs[modelID(0)].start = jobs.Progress{}
		m.jobs[modelID(1)].start.Done = 11
		m.jobs[modelID(1)].iterations = 10
		stop := start(t, Config{Cores: 1}, m)
		synctest.Wait()
		stop()
		if a, b := m.job(0).failure, m.job(1).failure; a != "lease starts at 0 of 10 iterations" || b != "lease starts at 11 of 10 iterations" {
			t.Errorf("failures %q and %q", a, b)
		}
		if m.job(2).values != 1 || m.held != 0 {
			t.Errorf("%v, %d held, want its value and none", m.job(2), m.held)
		}
	})
}

func TestRun_spreads_over_cores_before_lanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		var mu sync.Mutex
		active := map[*hashchain.Executor[*held]]int{}
		advance := func(e *hashchain.Executor[*held], steps uint64) uint64 {
			mu.Lock()
			active[e] = e.Active()
			mu.Unlock()
			return slowly(e, steps)
		}
		check := func(when string, most int, cores int) {
			t.Helper()
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			if len(active) != cores {
				t.Errorf("%s: %d cores at work, want %d", when, len(active), cores)
			}
			for _, n := range active {
				if n > most {
					t.Errorf("%s: a core has %d chains, want at most %d", when, n, most)
				}
			}
			clear(active)
		}
		stop := start(t, Config{Cores: 4, Lanes: 4, advance: advance}, m)
		m.enqueue(1e9, 1e9, 1e9, 1e9)
		time.Sleep(time.Millisecond)
		mu.Lock()
		clear(active)
		mu.Unlock()
		check("four jobs", 1, 4)
		m.enqueue(2e9, 2e9, 2e9, 2e9)
		check("eight jobs", 2, 4)
		if m.held != 8 {
			t.Errorf("%d leases held, want 8", m.held)
		}
		stop()

		// Two of four jobs end at once; the two others may have been together.
		m2 := newModel(t)
		m2.enqueue(1e9, 400, 1e9, 400)
		stop = start(t, Config{Cores: 2, Lanes: 4, advance: advance}, m2)
		time.Sleep(time.Second)
		mu.Lock()
		clear(active)
		mu.Unlock()
		check("two left of four", 1, 2)
		stop()
	})
}

func TestRun_leaves_to_others_what_it_cannot_begin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		m.enqueue(repeat(100, 1e9)...)
		stop := start(t, Config{Cores: 2, Lanes: 4, advance: slowly}, m)
		time.Sleep(10 * time.Second)
		m.mu.Lock()
		if m.most < 8 || m.most > 9 {
			t.Errorf("%d leases held at most, with 8 lanes", m.most)
		}
		m.mu.Unlock()
		stop()
	})
}

func TestRun_tiny_jobs_pass_long_ones(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		m.enqueue(1e9, 1e9, 1e9)
		stop := start(t, Config{Cores: 1, Lanes: 4, advance: slowly}, m)
		time.Sleep(time.Second)
		m.enqueue(repeat(500, 2)...)
		time.Sleep(2 * time.Second)
		if n := m.open(); n != 3 {
			t.Errorf("%d jobs open, want the three long ones", n)
		}
		stop()
	})
}

func TestRun_ends_when_idle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		m.enqueue(80_000)
		from := time.Now()
		if err := Run(t.Context(), Config{Cores: 1, Lanes: 1, IdleTimeout: time.Minute, advance: slowly}, m); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if took := time.Since(from); took < 69*time.Second || took > 72*time.Second {
			t.Errorf("Run took %v, want 10 s of work and a minute", took)
		}
		if m.job(0).values != 1 {
			t.Errorf("%v, want its value", m.job(0))
		}
	})
}

// Faults of all kinds, by chance: whatever happens, every job ends and every
// value is right.
func TestRun_survives_any_mix_of_faults(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			var mu sync.Mutex // guards rng
			chance := func(p float64) bool {
				mu.Lock()
				defer mu.Unlock()
				return rng.Float64() < p
			}
			calm := atomic.Bool{}
			m := newModel(t)
			m.beforeLease = func(context.Context, jobs.Capacity) error {
				if !calm.Load() && chance(0.2) {
					return errAway
				}
				return nil
			}
			m.beforeReport = func(context.Context, []jobs.Report) error {
				if !calm.Load() && chance(0.3) {
					return errAway
				}
				return nil
			}
			m.afterReport = func([]jobs.Report) error {
				if !calm.Load() && chance(0.1) {
					return errAway
				}
				return nil
			}
			m.verdict = func(r jobs.Report) jobs.Verdict {
				if !calm.Load() && chance(0.3) {
					m.queue = append(m.queue, r.ID) // as an expired lease; mu is held
					return jobs.Lost
				}
				return jobs.Kept
			}
			m.enqueue(repeat(300, 2, 4000, 2, 300, 2, 2)...)
			cfg := Config{
				Cores: 1 + int(seed)%3, Lanes: 1 + int(seed), HeartbeatInterval: 50 * time.Millisecond,
				Rand: rand.New(rand.NewPCG(seed, 1)), advance: slowly,
			}
			for range 5 {
				stop := start(t, cfg, m)
				time.Sleep(400 * time.Millisecond)
				if took := stop(); took > drainTimeout+10*time.Millisecond {
					t.Errorf("seed %d: Run took %v to return", seed, took)
				}
				m.mu.Lock()
				for id, j := range m.jobs { // leases whose hand-back was given up
					if j.fence != 0 {
						t.Errorf("seed %d: job %s still leased", seed, id)
					}
				}
				m.mu.Unlock()
			}
			calm.Store(true)
			stop := start(t, cfg, m)
			time.Sleep(time.Minute)
			stop()
			if n := m.open(); n != 0 {
				t.Errorf("seed %d: %d jobs have no value", seed, n)
			}
		})
	}
}

// Kept checkpoints are at their places whatever the chains beside them do, a
// heartbeat carries the news only, and a worker that takes over goes on.
func TestRun_keeps_checkpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		m.enqueue(40_001, 2, 33_333, 1_000_000, 2_001)
		stop := start(t, Config{Cores: 1, Lanes: 4, HeartbeatInterval: 500 * time.Millisecond, advance: slowly}, m)
		time.Sleep(4500 * time.Millisecond)
		stop()
		if j := m.job(0); j.start.Done < 10_000 || j.row.Rungs.Len() < 1 || j.handBacks != 1 {
			t.Errorf("%v, %d kept checkpoints", &j, j.row.Rungs.Len())
		}
		stop = start(t, Config{Cores: 2, Lanes: 2}, m)
		synctest.Wait()
		stop()
		for n := range uint64(5) {
			j := m.job(n)
			if j.values != 1 || j.row.Rungs.Len() != int(j.row.Keep) {
				t.Errorf("%v, %d of %d kept checkpoints", &j, j.row.Rungs.Len(), j.row.Keep)
			}
		}
		sent := map[jobs.ID]int{}
		for _, r := range m.log {
			if r.Kind == jobs.ReportProgress {
				sent[r.ID] += r.Rungs.Len()
			}
		}
		if n := sent[modelID(0)]; n > 5 {
			t.Errorf("heartbeats carried %d checkpoints of a job that keeps 5", n)
		}
	})
}

// calls notes when each value came, and how many calls brought them.
func calls(m *model) (when *[]time.Time, n *int) {
	when, n = new([]time.Time), new(int)
	m.beforeReport = func(_ context.Context, batch []jobs.Report) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		*n++
		for _, r := range batch {
			if r.Kind == jobs.ReportValue {
				*when = append(*when, time.Now())
			}
		}
		return nil
	}
	return when, n
}

func TestRun_gathers_what_ends_in_a_row(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		when, n := calls(m)
		const count = 1000 // a millisecond each
		m.enqueue(repeat(count, 9)...)
		begin := time.Now()
		stop := start(t, Config{Cores: 1, Lanes: 1, HeartbeatInterval: time.Hour, advance: slowly}, m)
		synctest.Wait()
		time.Sleep(2 * time.Second)
		m.mu.Lock()
		if len(*when) != count || *n > int(count*time.Millisecond/gather)+2 {
			t.Errorf("%d values in %d calls, want %d in %d at most", len(*when), *n, count, count*time.Millisecond/gather+2)
		}
		for i, at := range *when {
			if late := at.Sub(begin) - time.Duration(i+1)*time.Millisecond; late > gather {
				t.Errorf("value %d came %v after its end", i, late)
			}
		}
		if last := (*when)[len(*when)-1].Sub(begin); last != count*time.Millisecond {
			t.Errorf("the last value waited although nothing was left to compute: after %v", last)
		}
		m.mu.Unlock()
		stop()
	})
}

// While many leases wait here a report waits for more than otherwise, and no
// value comes later than that.
func TestRun_gathers_for_longer_while_many_wait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		when, n := calls(m)
		const count = 5000 // a millisecond each
		m.enqueue(repeat(count, 9)...)
		begin := time.Now()
		stop := start(t, Config{Cores: 1, Lanes: 1, HeartbeatInterval: time.Hour, advance: slowly}, m)
		synctest.Wait()
		time.Sleep(6 * time.Second)
		m.mu.Lock()
		if most := int(count*time.Millisecond/gather) / 2; len(*when) != count || *n > most {
			t.Errorf("%d values in %d calls, want %d in %d at most", len(*when), *n, count, most)
		}
		for i, at := range *when {
			if late := at.Sub(begin) - time.Duration(i+1)*time.Millisecond; late > gatherLong {
				t.Errorf("value %d came %v after its end", i, late)
			}
		}
		m.mu.Unlock()
		stop()
	})
}

func TestRun_gathers_no_more_than_its_bound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		when, n := calls(m)
		const count = 40_000 // 160 a millisecond
		m.enqueue(repeat(count, 2)...)
		stop := start(t, Config{Cores: 1, Lanes: 1, HeartbeatInterval: time.Hour, advance: func(e *hashchain.Executor[*held], steps uint64) uint64 {
			time.Sleep(time.Millisecond / 160)
			return e.Advance(steps)
		}}, m)
		time.Sleep(10 * time.Second)
		m.mu.Lock()
		if len(*when) != count || *n < count/(gatherFull+64) {
			t.Errorf("%d values in %d calls, want %d in %d at least", len(*when), *n, count, count/(gatherFull+64))
		}
		m.mu.Unlock()
		stop()
	})
}

func TestRun_what_ends_alone_is_reported_at_once(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		when, _ := calls(m)
		m.enqueue(1e9) // keeps one of the cores at work
		stop := start(t, Config{Cores: 2, Lanes: 1, HeartbeatInterval: time.Hour, advance: slowly}, m)
		for i := range 5 {
			time.Sleep(time.Second)
			begin := time.Now()
			m.enqueue(9)
			time.Sleep(gather)
			m.mu.Lock()
			if len(*when) != i+1 {
				t.Fatalf("%d values, want %d", len(*when), i+1)
			}
			if took := (*when)[i].Sub(begin); took > time.Millisecond {
				t.Errorf("the value came %v after it was enqueued, want the millisecond it takes", took)
			}
			m.mu.Unlock()
		}
		stop()
	})
}

// A report carries a bounded number of kept checkpoints, and none is forgotten.
func TestWithin(t *testing.T) {
	var entries []entry
	for i := range 50 {
		entries = append(entries, entry{rungs: jobs.Rungs(make([]byte, 64*(i*20)))})
	}
	calls, done := 0, 0
	for done < len(entries) {
		room, sum := 1000, 0
		n := within(entries[done:], 10, &room)
		for _, e := range entries[done : done+n] {
			sum += e.rungs.Len()
		}
		if n == 0 || n > 10 || sum >= 1000+entries[done+n-1].rungs.Len() {
			t.Fatalf("call %d: %d leases with %d checkpoints", calls, n, sum)
		}
		done, calls = done+n, calls+1
	}
	if room := 0; within(entries, 10, &room) != 0 {
		t.Error("more than there is room for")
	}
}
