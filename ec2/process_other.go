//go:build !unix

package ec2

import (
	"errors"
	"os/exec"
)

func ownGroup(*exec.Cmd) {}

func interrupt(*exec.Cmd) error { return errors.ErrUnsupported }

func kill(cmd *exec.Cmd) { _ = cmd.Process.Kill() } // it has ended
