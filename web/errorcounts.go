package web

import (
	"sync"

	"workmanager/jobs"
)

// errorCounts count the errors that were answered, by their code: there are as many
// as package jobs has codes.
type errorCounts struct {
	mu     sync.Mutex // guards byCode
	byCode map[jobs.Code]int64
}

func (r *errorCounts) count(code jobs.Code) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byCode == nil {
		r.byCode = map[jobs.Code]int64{}
	}
	r.byCode[code]++
}

// all returns the counts, never nil.
func (r *errorCounts) all() map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]int64, len(r.byCode))
	for code, n := range r.byCode {
		out[string(code)] = n
	}
	return out
}
