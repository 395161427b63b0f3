package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// terminal runs the program of its arguments on a terminal of its own, prints
// what it wrote there, and exits as it did.
func terminal() {
	code, err := onTerminal(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "terminal:", err)
		code = 99
	}
	os.Exit(code)
}

func onTerminal(argv []string) (int, error) {
	far, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return 0, err
	}
	defer far.Close()
	if err := unix.IoctlSetPointerInt(int(far.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return 0, err
	}
	n, err := unix.IoctlGetInt(int(far.Fd()), unix.TIOCGPTN)
	if err != nil {
		return 0, err
	}
	near, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = near, near, near
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	near.Close()
	if err != nil {
		return 0, err
	}
	var text bytes.Buffer
	if _, err := io.Copy(&text, far); err != nil && !errors.Is(err, unix.EIO) { // EIO: nobody has it open any more
		return 0, err
	}
	_ = cmd.Wait() // the code tells
	_, err = os.Stdout.Write(bytes.ReplaceAll(text.Bytes(), []byte("\r\n"), []byte("\n")))
	return cmd.ProcessState.ExitCode(), err
}
