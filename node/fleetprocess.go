package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"workmanager/ec2"
	"workmanager/node/keys"
)

const (
	// processesFile is which workers run as processes, so that those that a
	// killed node left are found again.
	processesFile = "processes.json"
	// processLog takes what they warn of; it is begun anew above maxProcessLog.
	processLog    = "workers.log"
	maxProcessLog = 16 << 20
	// processStop is what they have to hand back: less than the node takes to stop.
	processStop = 2200 * time.Millisecond
	// processIdle and processCutoff are when they end by themselves.
	processIdle, processCutoff = "90s", "30s"
)

// processCloud is a fleet of processes of this machine.
type processCloud struct {
	n    *Node
	log  *slog.Logger
	out  *os.File
	runs *ec2.Processes
}

// newProcessCloud finds the processes that an earlier run has left, and starts
// none.
func (n *Node) newProcessCloud() (*processCloud, error) {
	c := &processCloud{n: n, log: n.log}
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("--fleet process: find this program: %w", err)
	}
	name := filepath.Join(n.cfg.DataDir, processLog)
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if fi, err := os.Stat(name); err == nil && fi.Size() > maxProcessLog {
		flags |= os.O_TRUNC
	}
	// A file of their own: what they write to a node that is gone would end them.
	if c.out, err = os.OpenFile(name, flags, 0o600); err != nil {
		return nil, fmt.Errorf("--fleet process: open the log of the workers: %w", err)
	}
	file := filepath.Join(n.cfg.DataDir, processesFile)
	kept, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("--fleet process: %w", err), c.out.Close())
	}
	config := ec2.ProcessConfig{
		Command: n.workerCommand(program), Env: n.workerEnv, Output: c.out, StopTime: processStop, Now: n.now, Log: n.log,
		Keep: func(b []byte) error { return keys.Replace(file, b) }, Kept: kept,
	}
	c.runs, err = ec2.NewProcesses(config)
	if err != nil {
		n.log.Warn("workers of an earlier run are not found, they end by themselves", "file", file, "err", err)
		config.Kept = nil
		c.runs, err = ec2.NewProcesses(config)
	}
	if err != nil {
		return nil, errors.Join(err, c.out.Close())
	}
	return c, nil
}

func (c *processCloud) begin(context.Context) (ec2.Config, ec2.Parts, error) {
	cfg, err := c.n.cfg.Fleet.plan(c.n.cfg.Cluster)
	return cfg, ec2.Parts{Cloud: c.runs}, err
}

func (c *processCloud) end() error { return errors.Join(c.runs.Close(), c.out.Close()) }

// workerCommand is how a worker is started as a process of this machine.
func (n *Node) workerCommand(program string) []string {
	argv := []string{program, "worker", "--name", "{name}", "--node", n.ownURL(), "--cores", "1",
		"--idle-timeout", processIdle, "--cutoff-timeout", processCutoff, "--log-format", "text", "--log-level", "warn"}
	if n.keys != nil {
		argv = append(argv, "--ca", cmp.Or(n.cfg.Keys.CA, filepath.Join(n.cfg.Keys.Dir, keys.CAFile)))
	}
	return argv
}

// ownURL is where a process of this machine reaches the API.
func (n *Node) ownURL() string {
	at := n.Addr()
	if host, _, err := net.SplitHostPort(n.queue.advertise); err == nil && host != "" {
		at = n.queue.advertise // what the certificate says
	} else if host, port, err := net.SplitHostPort(at); err == nil {
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
			at = net.JoinHostPort("127.0.0.1", port)
		}
	}
	return n.queue.scheme + at
}

// workerEnv is the environment of a worker: none of this node's settings, and
// where tokens are asked for what lets it in. That is in no argument, which all
// users of the machine can read.
func (n *Node) workerEnv(name string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "WORKMANAGER_") {
			env = append(env, v)
		}
	}
	if n.keys != nil && n.keys.Tokens() {
		if pass, ok := n.keys.Pass(name); ok {
			env = append(env, "WORKMANAGER_TOKEN="+pass)
		}
	}
	return env
}
