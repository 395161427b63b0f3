package web_test

import (
	"crypto/sha512"

	"workmanager/jobs"
)

// valueOf is the value of one iteration.
func valueOf(data string) string { return jobs.Value(sha512.Sum512([]byte(data))).String() }
