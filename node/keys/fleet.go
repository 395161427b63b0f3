package keys

import (
	"errors"
	"os"
	"path/filepath"
	"time"
)

// Workers that the pair's own scheduler starts have no token of an operator's:
// the node that knows them as its own vouches for them. What it signs is as good
// at the other node as a token's.

const (
	// PassTTL is how long a pass is good: as long as a worker lives, and a little.
	PassTTL = 25 * time.Hour

	kindPass kind = "pass"
	// fleetID stands in credentials where others have the id of a token.
	fleetID = "fleet"
)

// fleetToken is the token that no file has and nobody can show.
var fleetToken = Token{ID: fleetID, Name: fleetID, Role: Worker}

// Pass returns what a worker of this name, and no other, can show instead of a
// token to enrol, again and again, for PassTTL. ok is false if nothing is signed
// here or the name is none.
func (k *Keys) Pass(worker string) (text string, ok bool) {
	if !goodName(worker) {
		return "", false
	}
	text, _, ok = k.sign(kindPass, fleetToken, worker, PassTTL)
	return text, ok
}

// Admit returns a credential for a worker of the fleet, whose identity the caller
// has seen to.
func (k *Keys) Admit(worker string) (text string, ends time.Time, ok bool) {
	if !goodName(worker) {
		return "", time.Time{}, false
	}
	return k.sign(kindWorker, fleetToken, worker, WorkerTTL)
}

// Replace writes a file that only its owner can open, in one step for whoever
// reads it; it is on the disk when Replace returns.
func Replace(name string, b []byte) error {
	if err := replace(name, b); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
