//go:build unix

package ec2

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps a process from getting the signals of the terminal that this
// one runs in: it is asked to end in time.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func interrupt(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }

func kill(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // it has ended
