package worker

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
)

// refuses makes m refuse each batch that has a report of which is, as a node does
// that knows less, or more, than the worker: all of the batch, each time.
func refuses(m *model, is func(r jobs.Report) bool) (calls *atomic.Int64) {
	calls = &atomic.Int64{}
	m.beforeReport = func(_ context.Context, batch []jobs.Report) error {
		calls.Add(1)
		if slices.ContainsFunc(batch, is) {
			return jobs.Invalid("body", "reports.0.iterations", "value_error.number", "0 is not from 1 to 2^53")
		}
		return nil
	}
	return calls
}

// A report that a node will never take keeps no other one, be it a value, a
// heartbeat or what the worker still has when it ends.
func TestRun_a_refused_report_stops_no_other(t *testing.T) {
	const bad, jobsCount = 17, 300
	for name, kind := range map[string]jobs.ReportKind{"a value": jobs.ReportValue, "a heartbeat": jobs.ReportProgress} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel(t)
				refuses(m, func(r jobs.Report) bool { return r.ID == modelID(bad) && r.Kind == kind })
				work := repeat(jobsCount, 40)
				work[bad] = 100
				if kind == jobs.ReportProgress {
					work[bad] = 1e9
				}
				m.enqueue(append(work, 1e9, 1e9)...)
				stop := start(t, Config{Cores: 1, Lanes: 8, HeartbeatInterval: 2 * time.Second, advance: slowly}, m)
				time.Sleep(20 * time.Second)
				if n := m.open(); n != 3 {
					t.Errorf("%d jobs open, want the refused one and the two long ones", n)
				}
				for i := range uint64(2) {
					if j := m.job(jobsCount + i); len(j.beats) < 5 {
						t.Errorf("%v: %d heartbeats came through, want one each 2 s", j, len(j.beats))
					}
				}
				m.enqueue(2)
				time.Sleep(time.Second)
				if j := m.job(jobsCount + 2); j.values != 1 {
					t.Errorf("%v, want its value: a later one", j)
				}
				if took := stop(); took > time.Second {
					t.Errorf("Run took %v to return", took)
				}
				for i := range uint64(2) {
					if j := m.job(jobsCount + i); j.handBacks != 1 {
						t.Errorf("%v, want it handed back", j)
					}
				}
			})
		})
	}
}

// Where all is refused the reports are not what is wrong: none of them is
// dropped, and the node is not asked all the time.
func TestRun_keeps_its_values_while_all_is_refused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		var all atomic.Bool
		all.Store(true)
		calls := refuses(m, func(jobs.Report) bool { return all.Load() })
		m.enqueue(append(repeat(300, 40), 1e9)...)
		stop := start(t, Config{Cores: 1, Lanes: 8, HeartbeatInterval: 2 * time.Second, advance: slowly}, m)
		time.Sleep(time.Minute)
		if n := calls.Load(); n > 250 {
			t.Errorf("%d calls in a minute", n)
		}
		all.Store(false)
		time.Sleep(10 * time.Second)
		if n := m.open(); n != 1 {
			t.Errorf("%d jobs open, want the long one", n)
		}
		if j := m.job(300); j.fence == 0 || len(j.beats) == 0 {
			t.Errorf("%v, want it held: its heartbeat is taken now", j)
		}
		stop()
	})
}
