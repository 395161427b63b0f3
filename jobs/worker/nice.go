package worker

// LowerPriority gives the calling thread the priority of one that computes. Its
// goroutine must be locked to it, and should never be unlocked.
func LowerPriority() error { return lowerPriority() }
