//go:build !unix

package ec2

import (
	"errors"
	"os"
	"os/exec"
)

func ownGroup(*exec.Cmd) {}

func interrupt(int) error { return errors.ErrUnsupported }

func kill(pid int) {
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill() // it has ended
	}
}

// runs finds nobody: what outlives the node ends by itself.
func runs(int, string) bool { return false }
