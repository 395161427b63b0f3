//go:build !linux

package hashchain

import "time"

// threadTime returns wall time, where no thread's CPU time is to be had.
func threadTime() time.Duration { return time.Since(start) }
