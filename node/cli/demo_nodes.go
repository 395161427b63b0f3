package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"workmanager/web/client"
)

// demoNode is a place for a node: its processes come and go.
type demoNode struct {
	name, listen, gossip, dir string
	join                      string // the other one's gossip
	client                    *client.Client
	cmd                       *exec.Cmd
	exited                    chan struct{}
	log                       string // a file
}

// freeAddrs returns loopback addresses that nobody uses, by TCP or UDP.
func freeAddrs(n int) ([]string, error) {
	var addrs []string
	var held []io.Closer
	defer func() {
		for _, h := range held {
			_ = h.Close() // nothing was sent
		}
	}()
	// They are below the range of those that outgoing connections get: a node that is
	// started again finds its own free.
	const first, last, most = 20_000, 32_000, 1000
	for tries := 0; len(addrs) < n; tries++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+(os.Getpid()*61+tries)%(last-first)))
		var u net.PacketConn
		if err == nil {
			held = append(held, l)
			u, err = net.ListenPacket("udp", l.Addr().String())
		}
		if err != nil {
			if tries == most {
				return nil, fmt.Errorf("find a free port: %w", err)
			}
			continue
		}
		held = append(held, u)
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// start runs the node's process. It dies with this one where the system can do
// that.
func (n *demoNode) start() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of node %s: %w", n.name, err)
	}
	defer log.Close() // the process has its own
	n.cmd = exec.Command(self, "node", "--name", n.name, "--listen", n.listen, "--gossip", n.gossip, "--data-dir", n.dir,
		"--workers", "1", "--log-format", "text", "--join", n.join)
	n.cmd.Stderr = log
	n.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "WORKMANAGER_") })
	n.cmd.SysProcAttr = dieWithUs()
	if err := n.cmd.Start(); err != nil {
		return fmt.Errorf("start node %s: %w", n.name, err)
	}
	n.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) { // kill waits for it
		defer close(exited)
		_ = cmd.Wait() // it is killed in the end
	}(n.cmd, n.exited)
	return nil
}

// dieWithUs lets a process end with this one on Linux, where the system can do
// that; the field is on no other.
func dieWithUs() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{}
	if f := reflect.ValueOf(a).Elem().FieldByName("Pdeathsig"); f.IsValid() {
		f.Set(reflect.ValueOf(syscall.SIGKILL))
	}
	return a
}

// kill ends the node's process as a power cut would, and waits for it.
func (n *demoNode) kill() error {
	if n.cmd == nil || n.cmd.Process == nil {
		return nil
	}
	if err := n.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill node %s: %w", n.name, err)
	}
	<-n.exited
	return nil
}

// end leaves nothing behind.
func (d *demo) end() {
	for _, n := range d.nodes {
		if n == nil {
			continue
		}
		if err := n.kill(); err != nil {
			d.say("%v", err)
		}
		n.client.Close()
	}
	if d.both != nil {
		d.both.Close()
	}
	if d.dir != "" {
		if err := os.RemoveAll(d.dir); err != nil {
			d.say("not removed: %v", err)
		}
	}
}

// showLogs prints what the nodes said last.
func (d *demo) showLogs() {
	for _, n := range d.nodes {
		if n == nil {
			continue
		}
		b, err := os.ReadFile(n.log)
		if err != nil {
			continue // it never ran
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		fmt.Fprintf(d.p.stderr, "node %s said last:\n", n.name)
		for _, l := range lines[max(0, len(lines)-8):] {
			fmt.Fprintln(d.p.stderr, "  "+l)
		}
	}
}
