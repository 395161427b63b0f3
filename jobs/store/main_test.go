package store_test

import (
	"fmt"
	"os"
	"testing"
)

// roles are what this test binary can be besides: a test starts it again with
// the variable set, as a process of its own that may be stopped, killed, or
// have its own mounts.
var roles = map[string]func() error{}

const roleVar = "WORKMANAGER_STORE_TEST_ROLE"

func TestMain(m *testing.M) {
	role, ok := os.LookupEnv(roleVar)
	if !ok {
		os.Exit(m.Run())
	}
	if err := roles[role](); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
