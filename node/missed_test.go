package node

import (
	"log/slog"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"workmanager/jobs"
)

// TestWindow_steady_enqueueing_is_nothing_missed: at every look jobs have just been
// committed and have not entered yet, for minutes. That is no reason to warn; a
// job that is truly missed is one, in the same bustle, and it is found.
func TestWindow_steady_enqueueing_is_nothing_missed(t *testing.T) {
	q := smallQueue(t)
	var logs strings.Builder
	q.log = slog.New(slog.NewTextHandler(&logs, nil))
	q.window = newWindow(1<<20, 4096)
	take(t, q, 1) // the first look at the disk
	at, looks := time.Now(), 0
	look := func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		at, looks = at.Add(stepInterval), looks+1
		q.lookForMissed(at)
	}
	bustle := func() {
		for end := at.Add(3 * missedAfter); at.Before(end); {
			q.between = look
			put(t, q, 2, looks%3)
			q.between = nil // the loop, which looks, is what reads
			select {
			case <-q.refill:
				if err := q.fillWindow(t.Context()); err != nil {
					t.Fatal(err)
				}
			default:
			}
		}
	}
	bustle()
	if looks < 3*int(missedAfter/stepInterval) {
		t.Fatalf("%d looks", looks)
	}
	if logs.Len() > 0 {
		t.Errorf("nothing is missed, and it says\n%s", logs.String())
	}
	id := put(t, q, 1, 3)[0]
	q.table.Remove(id)
	bustle()
	if n := strings.Count(logs.String(), "level=WARN"); n != 1 || !q.table.Has(id) {
		t.Errorf("a job is missed: found %v, said %d times, want once\n%s", q.table.Has(id), n, logs.String())
	}
}

// TestWindow_missed_is_proved: whatever jobs do at once, more are never open than
// are here and may be entering.
func TestWindow_missed_is_proved(t *testing.T) {
	q := smallQueue(t)
	q.window = newWindow(1<<20, 4096)
	if err := q.store.SetPeer(t.Context(), "b", "", ""); err != nil {
		t.Fatal(err)
	}
	take(t, q, 1)
	var wg sync.WaitGroup
	var over atomic.Bool
	for g := range uint64(4) {
		r := mathrand.New(mathrand.NewPCG(g, 3))
		wg.Go(func() {
			for range 150 {
				ids := put(t, q, 1+r.IntN(5), r.IntN(3))
				switch r.IntN(4) {
				case 0:
					if _, err := q.Cancel(t.Context(), ids[:1], false, jobs.AckDefault); err != nil {
						t.Error(err)
					}
				case 1:
					if _, err := q.GiveAway(t.Context(), "b", 3); err != nil {
						t.Error(err)
					}
				case 2:
					if _, _, err := q.takeSome(t.Context(), "b", jobs.Capacity{Jobs: 4, Iterations: 1 << 40}); err != nil {
						t.Error(err)
					}
				case 3:
					w := jobs.Worker{Name: "w", Cores: 1}
					leases, _ := q.grant(w, jobs.Capacity{Jobs: 3, Iterations: 1 << 40})
					var reports []jobs.Report
					for _, l := range leases {
						reports = append(reports, jobs.Report{LeaseRef: l.LeaseRef, V1: l.V1, Iterations: l.Iterations, Kind: jobs.ReportValue, Progress: jobs.Progress{Done: l.Iterations, Value: l.V1}})
					}
					if _, err := q.Report(t.Context(), w, reports); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	go func() { wg.Wait(); over.Store(true) }()
	looks, suspected := 0, 0
	for !over.Load() {
		q.mu.Lock()
		q.lookForMissed(time.Time{}.Add(time.Hour))
		if !q.window.missing.IsZero() {
			suspected++
		}
		if q.window.proved {
			over.Store(true)
			t.Error("a job is missed, it says")
		}
		q.mu.Unlock()
		looks++
	}
	wg.Wait()
	t.Logf("%d looks, at %d of them jobs were entering", looks, suspected)
	if suspected == 0 {
		t.Error("no look came while a job was entering")
	}
	q.lookForMissed(time.Time{}.Add(time.Hour))
	if entering, known := q.crossing.entering(); entering != 0 || !known || !q.window.missing.IsZero() {
		t.Errorf("at rest %d may be entering, known %v", entering, known)
	}
}
