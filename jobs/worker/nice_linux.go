package worker

import (
	"fmt"
	"syscall"
)

// niceness is that of a computing thread, so that the API, the writer and the
// peer go first.
const niceness = 10

// lowerPriority lowers the priority of the calling thread, to which its
// goroutine must be locked.
func lowerPriority() error {
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), niceness); err != nil {
		return fmt.Errorf("set niceness %d: %w", niceness, err)
	}
	return nil
}
