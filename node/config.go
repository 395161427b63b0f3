package node

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/go-playground/validator/v10"

	"workmanager/jobs"
	"workmanager/node/keys"
)

// Config is what an operator decides. The zero value is not usable; start from
// Default. Every field has a flag, named by its tag.
type Config struct {
	// Name is the node's stable name: lower-case letters, digits and hyphens.
	Name string `flag:"name" validate:"required,max=63,hostname_rfc1123"`
	// Listen is the address of the API, host:port; port 0 takes a free one.
	Listen string `flag:"listen" validate:"required"`
	// Gossip is the address of this node's gossip, host:port, which its peer
	// joins; "" is none, and then no peer. With GossipOptional a node whose
	// gossip cannot be opened runs without.
	Gossip         string `flag:"gossip"`
	GossipOptional bool
	// GossipMuted is for tests: once the peer is found gossip tells nothing more.
	GossipMuted bool
	// Join are gossip addresses of the peer, any of which will do. All else
	// about the peer is learnt from it.
	Join []string `flag:"join"`
	// Cluster names the pair; nodes of another are refused. Both nodes have the
	// same, and it must not change: keyed jobs get their IDs from it.
	Cluster string `flag:"cluster" validate:"max=200"`
	// CompareInterval is how often the two nodes compare what they hold.
	CompareInterval time.Duration `flag:"compare-interval" validate:"min=1s"`
	// Advertise is where the peer reaches this node's API, host:port; "" is where
	// it listens, at the address that the peer sees.
	Advertise string `flag:"advertise"`
	// Keys say who may come in, and encrypt what is sent; none: everybody who
	// reaches the node may do everything. So a node that can be reached from
	// elsewhere needs them, tokens and all, unless it is Insecure.
	Keys     keys.Files
	Insecure bool
	// Clients is whose jobs a client's token shows: ClientsOwn or ClientsAll. A
	// client is the name of its token. Both nodes should say the same.
	Clients string `flag:"clients" validate:"oneof=own all"`
	// DataDir holds the database; one process at a time uses it.
	DataDir string `flag:"data-dir" validate:"required"`
	// Binaries is a folder with this program for other architectures, which the
	// node gives to instances: workmanager-linux-amd64, workmanager-linux-arm64.
	Binaries string `flag:"binaries"`
	// Workers is how many cores compute in this process; -1 is all of them, and
	// none with a fleet.
	Workers int `flag:"workers" validate:"min=-1,max=4096"`
	// Retention is how long a job is kept after its end.
	Retention time.Duration `flag:"retention" validate:"min=1s"`
	// CacheEntries is how many results are remembered in memory, about 250
	// bytes each, to answer the same work at once; 0 turns the cache off.
	CacheEntries int `flag:"cache" validate:"min=0,max=100000000"`
	// CheckpointInterval is how often at most the progress of one job is made
	// durable: what a crash of the node costs.
	CheckpointInterval time.Duration `flag:"checkpoint-interval" validate:"min=100ms"`
	// AuditRate is the share of what workers compute that this node computes
	// again to check it; 0 is off. Values that differ are recomputed all the same.
	AuditRate float64 `flag:"audit-rate" validate:"min=0,max=1"`
	// Fleet says which workers the node starts as its work needs them.
	Fleet Fleet
	// DebugListen is where profiles of the process are served, host:port of
	// loopback; "" is nowhere.
	DebugListen string `flag:"debug-listen"`
	// Limits bound what clients can ask for.
	Limits jobs.Limits
}

// What a client may see: the jobs that it has submitted, or those of every client.
const (
	ClientsOwn = "own"
	ClientsAll = "all"
)

// Default returns the settings of a node on a laptop.
func Default() Config {
	return Config{
		Name:               "a",
		Listen:             "127.0.0.1:5000",
		Clients:            ClientsOwn,
		DataDir:            "./data",
		Workers:            -1,
		CompareInterval:    10 * time.Minute,
		Retention:          30 * 24 * time.Hour,
		CacheEntries:       65_536,
		CheckpointInterval: 10 * time.Second,
		AuditRate:          0.001,
		Limits:             jobs.DefaultLimits(),
	}
}

// Cores returns how many cores compute.
func (c Config) Cores() int {
	if c.Workers < 0 && c.Fleet.on() {
		return 0
	}
	if c.Workers < 0 {
		return runtime.NumCPU()
	}
	return c.Workers
}

// Validate reports every problem of the settings at once, each by the flag
// that sets it.
func (c Config) Validate() error {
	v := validator.New(validator.WithRequiredStructEnabled())
	v.RegisterTagNameFunc(func(f reflect.StructField) string { return f.Tag.Get("flag") })
	var errs []error
	if err := v.Struct(c); err != nil {
		invalid, ok := errors.AsType[validator.ValidationErrors](err)
		if !ok {
			return fmt.Errorf("check settings: %w", err)
		}
		for _, f := range invalid {
			errs = append(errs, fmt.Errorf("--%s %s: %q given", f.Field(), rule(f.Tag(), f.Param()), fmt.Sprint(f.Value())))
		}
	}
	errs = append(errs, checkAddr("listen", c.Listen, 0))
	if c.Gossip != "" {
		errs = append(errs, checkAddr("gossip", c.Gossip, 0))
	}
	if c.Advertise != "" {
		errs = append(errs, checkAddr("advertise", c.Advertise, 1))
	}
	for _, a := range c.Join {
		errs = append(errs, checkAddr("join", a, 1))
		if a == c.Gossip {
			errs = append(errs, fmt.Errorf("--join %s is this node's own --gossip: give the peer's", a))
		}
	}
	if len(c.Join) > 0 && c.Gossip == "" {
		errs = append(errs, errors.New("--join needs --gossip: an address of this node, HOST:PORT, for the peer to answer to"))
	}
	errs = append(errs, c.checkOpen(), c.checkDebug(), c.Fleet.check(c.Cluster))
	def := jobs.DefaultLimits()
	for _, l := range []struct {
		flag string
		got  int64
		min  int64
	}{
		{"max-data-bytes", c.Limits.DataBytes, 1}, {"max-top", int64(c.Limits.Top), 1},
		{"max-batch-jobs", int64(c.Limits.BatchJobs), 1}, {"max-open-jobs", c.Limits.OpenJobs, 1},
		{"max-client-jobs", c.Limits.ClientJobs, -1},
		{"max-store-bytes", c.Limits.StoreBytes, 0}, {"max-line-bytes", int64(c.Limits.BatchLineBytes), 1024},
		{"max-waiters", int64(c.Limits.Waiters), 4}, {"max-connections", int64(c.Limits.Conns), 0},
		{"rate", c.Limits.Rate, 0}, {"rate-bytes", c.Limits.RateBytes, 0}, {"max-tries", int64(c.Limits.Tries), 0},
	} {
		if l.got < l.min {
			errs = append(errs, fmt.Errorf("--%s must be at least %d: %d given", l.flag, l.min, l.got))
		}
	}
	if c.Limits.ListJobs < 1 || c.Limits.ResultsJobs < 1 {
		errs = append(errs, fmt.Errorf("limits of pages must be at least 1; the defaults are %d and %d", def.ListJobs, def.ResultsJobs))
	}
	return errors.Join(errs...)
}

// exposed returns the addresses that can be reached from other machines, each
// with its flag.
func (c Config) exposed() []string {
	var out []string
	for _, a := range []struct{ flag, addr string }{{"listen", c.Listen}, {"gossip", c.Gossip}} {
		host, _, err := net.SplitHostPort(a.addr)
		if err != nil || a.addr == "" { // told elsewhere
			continue
		}
		if ip := net.ParseIP(host); !strings.EqualFold(host, "localhost") && (ip == nil || !ip.IsLoopback()) {
			out = append(out, "--"+a.flag+" "+a.addr)
		}
	}
	return out
}

// checkOpen refuses to let others in without asking who they are.
func (c Config) checkOpen() error {
	open := c.exposed()
	if len(open) == 0 || c.Insecure || c.Keys.Dir != "" {
		return nil
	}
	return fmt.Errorf("%s can be reached from other machines, and without TLS and tokens everybody there could submit, read and cancel jobs and pose as the peer: "+
		"run 'workmanager init --out DIR --node %s=HOST --node OTHER=HOST' and give --keys DIR/%s; listen on 127.0.0.1; or take the risk with --insecure", strings.Join(open, " and "), c.Name, c.Name)
}

// checkAddr reports what is wrong with an address, whose port is lowest at least.
func checkAddr(flag, addr string, lowest uint64) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("--%s must be HOST:PORT: %q given", flag, addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n < lowest {
		from := "0 (any free one)"
		if lowest > 0 {
			from = "1"
		}
		return fmt.Errorf("--%s must have a port from %s to 65535: %q given", flag, from, addr)
	}
	return nil
}

// advertised returns where the peer reaches the API that listens at addr. A
// host that stands for all is left out: the peer sees which it is.
func (c Config) advertised(addr string) string {
	host, _, err := net.SplitHostPort(c.Listen)
	_, port, err2 := net.SplitHostPort(addr)
	if err != nil || err2 != nil {
		return addr
	}
	return net.JoinHostPort(host, port)
}

// rule says a validation rule in words.
func rule(tag, param string) string {
	switch tag {
	case "required":
		return "must not be empty"
	case "min":
		return "must be at least " + param
	case "max":
		return "must be at most " + param
	case "oneof":
		return "must be one of " + strings.ReplaceAll(param, " ", ", ")
	case "hostname_rfc1123":
		return "must be letters, digits and hyphens"
	}
	return strings.TrimSpace("must satisfy " + tag + " " + param)
}
