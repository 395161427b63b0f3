package worker

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
)

func TestRun_computes_at_a_lower_priority(t *testing.T) {
	if p, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0); err == nil && 20-p >= niceness {
		t.Skipf("the test itself runs at niceness %d: nothing is left to see", 20-p)
	}
	m := newModel(t)
	m.enqueue(2)
	reported := make(chan struct{})
	m.afterReport = func([]jobs.Report) error { close(reported); return nil }
	var nice atomic.Int64
	stop := start(t, Config{Cores: 1, Nice: true, advance: func(e *hashchain.Executor[*held], steps uint64) uint64 {
		p, err := syscall.Getpriority(syscall.PRIO_PROCESS, syscall.Gettid())
		if err != nil {
			t.Errorf("get priority: %v", err)
		}
		nice.Store(int64(20 - p)) // as the system call itself returns it
		return e.Advance(steps)
	}}, m)
	<-reported
	stop()
	if n := nice.Load(); n < niceness {
		t.Errorf("niceness %d while computing, want at least %d", n, niceness)
	}

	// No thread that others run on has kept it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if p, err := syscall.Getpriority(syscall.PRIO_PROCESS, syscall.Gettid()); err != nil || 20-p >= niceness {
		t.Errorf("niceness %d outside, %v, want it unchanged", 20-p, err)
	}
}
