package hashchain

import (
	"syscall"
	"time"
	"unsafe"
)

// threadCPUTime is CLOCK_THREAD_CPUTIME_ID, which package syscall lacks.
const threadCPUTime = 3

// threadTime returns the CPU time of the calling thread: on a shared machine
// wall time would measure the neighbours.
func threadTime() time.Duration {
	var ts syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, threadCPUTime, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		return time.Since(start)
	}
	return time.Duration(ts.Nano())
}
