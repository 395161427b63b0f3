//go:build !linux

package worker

import "errors"

// lowerPriority returns an error: here a thread has no priority of its own.
func lowerPriority() error {
	return errors.New("threads have no priority of their own on this system")
}
