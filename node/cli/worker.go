package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"workmanager/ec2"
	"workmanager/jobs"
	"workmanager/jobs/hashchain"
	"workmanager/jobs/worker"
	"workmanager/node"
	"workmanager/web/client"
)

// A client is a source of leases: a worker elsewhere computes as one in a node does.
var _ worker.Source = (*client.Client)(nil)

const (
	// workerHeartbeat is how often a worker elsewhere renews its leases, which
	// last for 7 s from then.
	workerHeartbeat = 2 * time.Second
	// talkThreads is how many threads may talk beside those that compute.
	talkThreads = 2
	maxCores    = 4096
)

func (p *program) workerCommand() *cli.Command {
	return &cli.Command{
		Name:  "worker",
		Usage: "compute jobs of a node, or of a pair, on this machine",
		Description: "Give both nodes of a pair and either will do; a node tells where the other is.\n" +
			"SIGTERM and Ctrl-C hand back what is being computed, with its progress, within\n" +
			"2 s; a second one ends at once. Values that no node has taken yet are kept in\n" +
			"memory, up to 16384 of them; then no more jobs are taken.",
		Flags: []cli.Flag{
			nodeFlag(),
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the worker; two of one name share nothing", DefaultText: "the host's name"},
			&cli.BoolFlag{Name: "ec2", Usage: "this is an instance of the fleet: its id is the name, and nothing is shown to the nodes, which look at what it is", DisableDefaultText: true},
			&cli.IntFlag{Name: "cores", Usage: "compute on `N` cores", DefaultText: "one per CPU"},
			&cli.IntFlag{Name: "lanes", Usage: "`N` chains that a core advances together", DefaultText: "as many as its kernels want"},
			&cli.DurationFlag{Name: "idle-timeout", Usage: "end after `DURATION` without a job", DefaultText: "never"},
			&cli.DurationFlag{Name: "cutoff-timeout", Usage: "end, with exit code 5, after `DURATION` without an answer of any node; 0 is never", Value: 10 * time.Minute},
			&cli.BoolFlag{Name: "spot-notice", Usage: "end in time when this EC2 Spot instance is taken away; without it where the instance metadata service answers at the start", DisableDefaultText: true},
			&cli.GenericFlag{Name: "log-format", Usage: "`FORMAT`: auto, text, json; auto is text on a terminal", Value: &choice{"auto", []string{"auto", "text", "json"}}, Category: groupLog},
			&cli.GenericFlag{Name: "log-level", Usage: "`LEVEL`: debug, info, warn, error", Value: &choice{"info", []string{"debug", "info", "warn", "error"}}, Category: groupLog},
			reportFlag(),
		},
		Action: p.worker,
	}
}

func (p *program) worker(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	cfg, err := workerConfig(c)
	if err != nil {
		return err
	}
	log, _ := p.logger(c)
	cfg.Log = log
	cl := p.client(c)
	cl.Worker = cfg.Name
	defer cl.Close()
	if c.Bool("ec2") {
		if err := onInstance(c, log, &cfg, cl); err != nil {
			return err
		}
	}
	if cfg.Cores == 0 {
		cfg.Cores = runtime.NumCPU()
	}
	// A thread that computes holds its place for a chunk: others have their own.
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + talkThreads)
	log.Info("worker runs", "worker", cfg.Name, "instance", cfg.Instance, "cores", cfg.Cores, "nodes", strings.Join(cl.URLs, " "))
	if f := format(c); f != formatTable {
		if err := p.printJSON(f, workerStarted{cfg.Name, cfg.Instance, cfg.Cores, cl.URLs, cfg.Version, os.Getpid()}); err != nil {
			return err
		}
	}
	ctx, end := context.WithCancelCause(c.Context)
	stop := func() { end(nil) }
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	watching.Go(func() { heed(ctx, log, ec2.NewNotices(0), c.Bool("spot-notice") || c.Bool("ec2"), stop) })
	if !c.Bool("ec2") {
		return p.compute(ctx, log, cfg, cl)
	}
	err = p.compute(ctx, log, cfg, &refusable{directed: cl, now: time.Now, end: end})
	if cause := context.Cause(ctx); err == nil && c.Context.Err() == nil && jobs.CodeOf(cause) != jobs.CodeInternal {
		return cause // nil if it was not the reason
	}
	return err
}

// workerStarted is what a worker says of itself with -o json.
type workerStarted struct {
	Worker   string   `json:"worker"`
	Instance string   `json:"instance"`
	Cores    int      `json:"cores"`
	Nodes    []string `json:"nodes"`
	Version  string   `json:"version"`
	PID      int      `json:"pid"`
}

// notices tells of the end of the machine that the worker is on.
type notices interface {
	Available(ctx context.Context) bool
	Wait(ctx context.Context) (ec2.Interruption, error)
}

// heed calls drain when the machine is to be taken away. Unless it is asked to
// it does not wait for a service that is not there.
func heed(ctx context.Context, log *slog.Logger, n notices, asked bool, drain func()) {
	if !asked && !n.Available(ctx) {
		return
	}
	i, err := n.Wait(ctx)
	if err != nil {
		return // the worker ends
	}
	log.Info("Spot notice: the worker ends", "action", i.Action, "at", i.Time)
	drain()
}

// compute runs the worker to its end.
func (p *program) compute(ctx context.Context, log *slog.Logger, cfg worker.Config, src worker.Source) error {
	err := worker.Run(ctx, cfg, src)
	if errors.Is(err, worker.ErrCutOff) {
		return fmt.Errorf("%w for %s: the worker ends", client.ErrUnreachable, cfg.CutoffTimeout)
	}
	if err == nil {
		log.Info("worker stopped", "worker", cfg.Name)
	}
	return err
}

func workerConfig(c *cli.Context) (worker.Config, error) {
	cfg := worker.Config{
		Name: c.String("name"), Version: node.Version(), Cores: c.Int("cores"), Lanes: c.Int("lanes"),
		IdleTimeout: c.Duration("idle-timeout"), CutoffTimeout: c.Duration("cutoff-timeout"),
		HeartbeatInterval: workerHeartbeat, Nice: true, Measure: true,
	}
	if cfg.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return cfg, usagef("--name is missing, and this host has none: %w", err)
		}
		cfg.Name = host
	}
	if err := workerName(cfg.Name); err != nil {
		return cfg, err
	}
	for _, f := range []struct {
		name    string
		n, most int
	}{{"cores", cfg.Cores, maxCores}, {"lanes", cfg.Lanes, hashchain.MaxLanes}} {
		if f.n < 0 || f.n > f.most {
			return cfg, usagef("--%s must be from 1 to %d: %d given", f.name, f.most, f.n)
		}
	}
	for _, name := range []string{"idle-timeout", "cutoff-timeout"} {
		if d := c.Duration(name); d < 0 {
			return cfg, usagef("--%s must not be negative: %s given", name, d)
		}
	}
	var chance [8]byte
	_, _ = rand.Read(chance[:]) // never fails
	cfg.Instance = hex.EncodeToString(chance[:])
	return cfg, nil
}

// workerName says what is wrong with a name that nodes would refuse.
func workerName(name string) error {
	if len(name) > 63 {
		return usagef("--name must have at most 63 characters: %d given", len(name))
	}
	for _, r := range name {
		plain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.'
		if !plain {
			return usagef("--name must be letters, digits, hyphens and dots: %q given", name)
		}
	}
	return nil
}
