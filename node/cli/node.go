package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"

	"workmanager/node"
	"workmanager/node/keys"
)

func (p *program) nodeCommand() *cli.Command {
	def := node.Default()
	return &cli.Command{
		Name:  "node",
		Usage: "run a node: the queue, its API and dashboard, and workers in this process",
		Description: "One process at a time uses a data folder. SIGTERM and Ctrl-C stop the node\n" +
			"cleanly: what was acknowledged is on disk either way.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the node, which it keeps for good", Value: def.Name},
			&cli.StringFlag{Name: "listen", Usage: "`HOST:PORT` of the API", Value: def.Listen},
			&cli.StringFlag{Name: "data-dir", Usage: "`FOLDER` of the database; it is made if it is not there", Value: def.DataDir},
			&cli.IntFlag{Name: "workers", Usage: "compute on `N` cores; 0 computes nothing here", Value: def.Workers, DefaultText: "one per CPU, 0 with a fleet"},
			&cli.StringFlag{Name: "binaries", Usage: "`FOLDER` with workmanager-linux-arm64 and -amd64, for instances of another architecture than this machine's"},
			&cli.DurationFlag{Name: "retention", Usage: "keep jobs and their values for `DURATION` after their end", Value: def.Retention},
			&cli.StringFlag{Name: "gossip", Usage: "`HOST:PORT` that the peer joins, UDP and TCP", Value: defaultGossip, Category: groupPair},
			&cli.BoolFlag{Name: "gossip-muted", Usage: "for tests: once the peer is found gossip tells nothing more", Hidden: true, Category: groupPair},
			&cli.StringSliceFlag{Name: "join", Usage: "gossip `HOST:PORT` of the peer; may be given more than once", Category: groupPair},
			&cli.StringFlag{Name: "advertise", Usage: "`HOST:PORT` where the peer reaches this node's API; by default where it listens", Category: groupPair},
			&cli.StringFlag{Name: "cluster", Usage: "`NAME` of the pair; nodes of another are refused", Category: groupPair},
			&cli.DurationFlag{Name: "compare-interval", Usage: "compare what the two nodes hold every `DURATION`", Value: def.CompareInterval, Category: groupPair},
			&cli.StringFlag{Name: "keys", Usage: "`FOLDER` of this node that 'workmanager init' made: TLS, tokens, encrypted gossip", Category: groupKeys},
			&cli.StringFlag{Name: "tls-cert", Usage: "`FILE` with the node's certificate, instead of node.crt in --keys", Category: groupKeys},
			&cli.StringFlag{Name: "tls-key", Usage: "`FILE` with its key, instead of node.key", Category: groupKeys},
			&cli.StringFlag{Name: "tls-ca", Usage: "`FILE` with the pair's authority, instead of ca.crt", Category: groupKeys},
			&cli.BoolFlag{Name: "insecure", Usage: "listen to other machines without TLS and tokens: whoever reaches the node may do everything", Category: groupKeys, DisableDefaultText: true},
			&cli.GenericFlag{Name: "clients", Usage: "`WHOSE` jobs a client's token shows and cancels: own, those submitted with a token of its name, or all", Value: &choice{def.Clients, []string{node.ClientsOwn, node.ClientsAll}}, Category: groupKeys},
			&cli.IntFlag{Name: "cache", Usage: "remember `N` results, to answer the same work at once; 0 is off", Value: def.CacheEntries},
			&cli.DurationFlag{Name: "checkpoint-interval", Usage: "make a job's progress durable at most every `DURATION`", Value: def.CheckpointInterval},
			&cli.Float64Flag{Name: "audit-rate", Usage: "compute this `SHARE` of the work again to check what workers report; 0 is off", Value: def.AuditRate},
			&cli.GenericFlag{Name: "max-data-bytes", Usage: "`SIZE` of one job's data", Value: &size{def.Limits.DataBytes}, Category: groupLimits},
			&cli.IntFlag{Name: "max-top", Usage: "`N` results in one pull", Value: def.Limits.Top, Category: groupLimits},
			&cli.IntFlag{Name: "max-batch-jobs", Usage: "`N` jobs in one batch", Value: def.Limits.BatchJobs, Category: groupLimits},
			&cli.GenericFlag{Name: "max-line-bytes", Usage: "`SIZE` of one line of a batch", Value: &size{int64(def.Limits.BatchLineBytes)}, Category: groupLimits},
			&cli.Int64Flag{Name: "max-open-jobs", Usage: "`N` jobs that have not ended; submits above it are refused", Value: def.Limits.OpenJobs, Category: groupLimits},
			&cli.Int64Flag{Name: "max-client-jobs", Usage: "`N` open jobs of one client, which is the name of its token, at both nodes together; 0 is any number", Value: def.Limits.ClientJobs, DefaultText: "a quarter of --max-open-jobs", Category: groupLimits},
			&cli.GenericFlag{Name: "max-store-bytes", Usage: "`SIZE` of the database; 0 is as much as the disk has", Value: &size{def.Limits.StoreBytes}, Category: groupLimits},
			&cli.Int64Flag{Name: "rate", Usage: "`N` requests a second of one token, and of one address; 0 is any number; without --keys loopback has no such limit", Value: def.Limits.Rate, Category: groupLimits},
			&cli.GenericFlag{Name: "rate-bytes", Usage: "`SIZE` of all bodies a second, likewise; who sends more is read more slowly", Value: &size{def.Limits.RateBytes}, Category: groupLimits},
			&cli.IntFlag{Name: "max-tries", Usage: "`N` unknown tokens a minute of one address; 0 is any number", Value: def.Limits.Tries, Category: groupLimits},
			&cli.IntFlag{Name: "max-waiters", Usage: "`N` long polls and streams at once, a quarter of them of one token or address", Value: def.Limits.Waiters, Category: groupLimits},
			&cli.IntFlag{Name: "max-connections", Usage: "`N` connections at once, a quarter of them of one address; 0 is any number", Value: def.Limits.Conns, Category: groupLimits},
			&cli.StringFlag{Name: "debug-listen", Usage: "serve profiles (pprof) at `HOST:PORT` of loopback", DefaultText: "nowhere", Category: groupLog},
			&cli.GenericFlag{Name: "log-format", Usage: "`FORMAT`: auto, text, json; auto is text on a terminal", Value: &choice{"auto", []string{"auto", "text", "json"}}, Category: groupLog},
			&cli.GenericFlag{Name: "log-level", Usage: "`LEVEL`: debug, info, warn, error", Value: &choice{"info", []string{"debug", "info", "warn", "error"}}, Category: groupLog},
			reportFlag(),
		}, fleetFlags()...),
		Action: p.node,
	}
}

func nodeConfig(c *cli.Context) node.Config {
	cfg := node.Default()
	cfg.Name, cfg.Listen, cfg.DataDir = c.String("name"), c.String("listen"), c.String("data-dir")
	cfg.Workers, cfg.Retention, cfg.CacheEntries = c.Int("workers"), c.Duration("retention"), c.Int("cache")
	cfg.CheckpointInterval, cfg.AuditRate = c.Duration("checkpoint-interval"), c.Float64("audit-rate")
	cfg.Gossip, cfg.GossipOptional, cfg.Join = c.String("gossip"), !c.IsSet("gossip") && !c.IsSet("join"), c.StringSlice("join")
	cfg.Binaries = c.String("binaries")
	cfg.Advertise, cfg.GossipMuted = c.String("advertise"), c.Bool("gossip-muted")
	cfg.Keys = keys.Files{Dir: c.String("keys"), Cert: c.String("tls-cert"), Key: c.String("tls-key"), CA: c.String("tls-ca")}
	cfg.Insecure, cfg.DebugListen = c.Bool("insecure"), c.String("debug-listen")
	cfg.Clients = c.Generic("clients").(*choice).value
	if cfg.Keys.Given() && !c.IsSet("name") {
		if name, err := keys.NodeName(cfg.Keys); err == nil { // else the node says what is wrong
			cfg.Name = name
		}
	}
	cfg.Cluster, cfg.CompareInterval = c.String("cluster"), c.Duration("compare-interval")
	cfg.Fleet = fleetConfig(c)
	cfg.Limits.DataBytes = c.Generic("max-data-bytes").(*size).n
	cfg.Limits.Top = c.Int("max-top")
	cfg.Limits.BatchJobs = c.Int("max-batch-jobs")
	cfg.Limits.BatchLineBytes = int(c.Generic("max-line-bytes").(*size).n)
	cfg.Limits.OpenJobs, cfg.Limits.ClientJobs = c.Int64("max-open-jobs"), c.Int64("max-client-jobs")
	cfg.Limits.StoreBytes = c.Generic("max-store-bytes").(*size).n
	cfg.Limits.Rate, cfg.Limits.RateBytes = c.Int64("rate"), c.Generic("rate-bytes").(*size).n
	cfg.Limits.Tries, cfg.Limits.Waiters, cfg.Limits.Conns = c.Int("max-tries"), c.Int("max-waiters"), c.Int("max-connections")
	return cfg
}

func (p *program) node(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	cfg := nodeConfig(c)
	if err := cfg.Validate(); err != nil {
		return &failure{exit: exitUsage, code: "usage", err: errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")), hint: "workmanager node --help"}
	}
	if cfg.Keys.Dir != "" {
		if err := keysThere(cfg.Keys.Dir); err != nil {
			return err
		}
	}
	log, text := p.logger(c)
	node.Tune(cfg)
	parts := node.Parts{Log: log}
	if os.Getenv("NOTIFY_SOCKET") != "" { // systemd runs it
		parts.Notify = func(state string) error {
			_, err := daemon.SdNotify(false, state)
			return err
		}
		var err error
		if parts.Watchdog, err = daemon.SdWatchdogEnabled(false); err != nil {
			log.Warn("the watchdog of systemd is not told that the node works", "err", err)
		}
	}
	if cfg.Keys.Given() {
		hup := make(chan os.Signal, 1)
		signal.Notify(hup, syscall.SIGHUP)
		defer signal.Stop(hup)
		parts.Reload = hup
	}
	n, err := node.New(cfg, parts)
	if err != nil {
		return err
	}
	switch f := format(c); {
	case f != formatTable: // for whoever started it, such as a script that asked for port 0
		if err := p.printJSON(f, started{cfg.Name, scheme(cfg) + reachable(n.Addr()), n.GossipAddr(), cfg.DataDir, node.Version(), os.Getpid()}); err != nil {
			return err
		}
	case text:
		p.greet(cfg, n.Addr())
	}
	return n.Run(c.Context)
}

// started is what a node says of itself with -o json.
type started struct {
	Node    string `json:"node"`
	URL     string `json:"url"`
	Gossip  string `json:"gossip,omitempty"`
	DataDir string `json:"data_dir"`
	Version string `json:"version"`
	PID     int    `json:"pid"`
}

func scheme(cfg node.Config) string {
	if cfg.Keys.Given() {
		return "https://"
	}
	return "http://"
}

// logger returns the log that the flags ask for, and whether people read it.
func (p *program) logger(c *cli.Context) (log *slog.Logger, text bool) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Generic("log-level").(*choice).value)); err != nil {
		panic("cli: a level of --log-level is none of slog's: " + err.Error())
	}
	o := &slog.HandlerOptions{Level: level}
	switch format := c.Generic("log-format").(*choice).value; {
	case format == "text", format == "auto" && isTerminal(p.stderr):
		return slog.New(slog.NewTextHandler(p.stderr, o)), true
	}
	return slog.New(slog.NewJSONHandler(p.stderr, o)), false
}

// greet says where the node is and what to try first.
func (p *program) greet(cfg node.Config, addr string) {
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		dir = cfg.DataDir
	}
	if cfg.Keys.Given() { // it takes a token and a CA: the README says how
		fmt.Fprintf(p.stderr, "node %s: dashboard and API at https://%s, data in %s\n", cfg.Name, reachable(addr), dir)
		return
	}
	url, other := "http://"+reachable(addr), ""
	if url != defaultNode {
		other = " --node " + url
	}
	fmt.Fprintf(p.stderr, "node %s: dashboard and API at %s, data in %s\n", cfg.Name, url, dir)
	fmt.Fprintf(p.stderr, "  curl -X PUT -d data=hello '%s/enqueue?iterations=5'\n", url)
	self := os.Args[0]
	if strings.Contains(self, "go-build") { // go run keeps its binary in a folder of that name
		self = "go run ."
	}
	fmt.Fprintf(p.stderr, "  printf hello | %s enqueue - -n 5 --wait%s\n", self, other)
}

// reachable turns the address of a listener into one to connect to.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}
