//go:build !mutants

package sim

import "errors"

// Break switches a rule of replication off, to see the simulator notice. Only a
// build with the tag mutants can.
func Break(string) error {
	return errors.New("this build keeps all its rules: build with -tags mutants to break one")
}
