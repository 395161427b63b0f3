package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/receipt"
	"workmanager/jobs/store"
	"workmanager/node/keys"
	peersync "workmanager/sync"
	"workmanager/web"
)

// Parts are what a node takes from its surroundings. The zero value is a real
// clock and a silent log.
type Parts struct {
	Now func() time.Time
	Log *slog.Logger
	// Reload makes the node read its keys again; nil: it only looks at the files.
	Reload <-chan os.Signal
	// Notify tells the service manager how the node is, in the words of
	// sd_notify; nil: there is none. Watchdog is how often at least it wants to
	// hear that the node works, 0 never.
	Notify   func(state string) error
	Watchdog time.Duration
	// StoreDSN is appended to the database's data source name; tests put a
	// failing file system below it.
	StoreDSN string

	cloud func(n *Node) cloud // of tests: instead of the fleet's own
}

// Node is one node: a store, a queue, an API and the workers in this process.
type Node struct {
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	store    *store.Store
	queue    *Queue
	pair     *peersync.Engine
	fleet    *fleet // nil: it has none
	api      *web.Server
	server   *http.Server
	listener net.Listener
	keys     *keys.Keys // nil: it is open
	reload   <-chan os.Signal
	// programs are what instances run, and admission lets them in; nil: no fleet of EC2.
	programs  *programs
	admission *admission
	status    *status
	stepped   atomic.Int64 // when the loop stepped last, microseconds of now
	debug     *debugServer // nil: none
	notifier  notifier
}

// New opens the store and the listener of a node and wires its parts. It
// starts nothing: Run does, and closes what New opened.
func New(cfg Config, parts Parts) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if parts.Now == nil {
		parts.Now = time.Now
	}
	if parts.Log == nil {
		parts.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Limits.Conns = boundConns(cfg.Limits.Conns, parts.Log)
	n := &Node{cfg: cfg, log: parts.Log, now: parts.Now, reload: parts.Reload, notifier: notifier{parts.Notify, parts.Watchdog}}
	if err := n.openKeys(); err != nil {
		return nil, err
	}
	var err error
	if n.programs, err = openPrograms(cfg.Binaries); err != nil {
		return nil, err
	}
	made := false
	defer func() {
		if !made {
			_ = n.programs.close() // the error that ends this says more
		}
	}()
	watcher := &hook{}
	st, err := store.Open(context.Background(), cfg.DataDir, store.Options{
		Node: cfg.Name, Now: parts.Now, Limits: cfg.Limits, Log: parts.Log, DSN: parts.StoreDSN,
		OnStamp: watcher.stamped, OnCommit: watcher.committed, OnDisagree: watcher.disagreed,
	})
	if err != nil {
		return nil, err
	}
	n.store = st
	spill := filepath.Join(cfg.DataDir, "tmp")
	if err := errors.Join(os.RemoveAll(spill), os.MkdirAll(spill, 0o700)); err != nil {
		return nil, errors.Join(fmt.Errorf("make folder for replies: %w", err), st.Close())
	}
	signing, err := receiptKey(cmp.Or(cfg.Keys.Dir, cfg.DataDir)) // init makes one for both nodes
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	if n.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", cfg.Listen, err), st.Close())
	}
	if cfg.Advertise == "" {
		cfg.Advertise = cfg.advertised(n.Addr())
	}
	n.queue = newQueue(cfg, st, parts.Now, parts.Log, newCache(cfg.CacheEntries), n.keys)
	n.pair = n.queue.pair
	if err := n.queue.audit.restore(context.Background()); err != nil {
		return nil, errors.Join(err, n.listener.Close(), st.Close())
	}
	if n.fleet, err = n.newFleet(parts.cloud); err != nil {
		return nil, errors.Join(err, n.listener.Close(), st.Close())
	}
	n.queue.fleet = n.fleet
	if err := n.gossip(); err != nil {
		return nil, errors.Join(err, n.listener.Close(), st.Close())
	}
	watcher.queue, watcher.pair, watcher.fleet = n.queue, n.pair, n.fleet
	n.status = &status{
		cfg: cfg, signing: signing, version: Version(), startedAt: parts.Now(), queue: n.queue, store: st, now: parts.Now, keys: n.keys,
		fleet: n.fleet, history: newHistory(),
	}
	apiConfig := web.Config{
		Queue: n.queue, Reader: n.queue, Leaser: n.queue,
		Status: n.status, Insight: n.status, Alive: n.alive, Quarantine: n.queue,
		Sign: func(j jobs.Job) (receipt.Signed, error) {
			r, err := receipt.Of(j, cfg.Name)
			if err != nil {
				return receipt.Signed{}, err
			}
			return r.Sign(signing)
		},
		NewID: n.newID, OpenOf: st.OpenOf, Limits: cfg.Limits, SpillDir: spill, Version: Version(), Log: parts.Log,
		Keeper: n.keeper(), Instances: n.instances(), Programs: n.programs, Shared: cfg.Clients == ClientsAll, Peer: n.pair.Handler(),
	}
	if n.fleet != nil {
		apiConfig.Fleet = n.fleet
	}
	n.api = web.New(apiConfig)
	n.server = &http.Server{Handler: n.api, ErrorLog: slog.NewLogLogger(parts.Log.Handler(), slog.LevelDebug)}
	web.Tune(n.server)
	n.listener = n.api.Listener(n.listener, n.keys != nil)
	if n.debug, err = newDebug(cfg.DebugListen); err != nil {
		n.pair.Stop()
		return nil, errors.Join(err, n.listener.Close(), st.Close())
	}
	made = true
	return n, nil
}

// openKeys reads the keys, if there are any, and says what is given up without.
func (n *Node) openKeys() error {
	if open := n.cfg.exposed(); len(open) > 0 && n.cfg.Keys.Dir == "" {
		n.log.Warn("insecure: whoever reaches this node can submit, read and cancel jobs, pose as the peer and read all that is sent", "at", strings.Join(open, " "))
	}
	if !n.cfg.Keys.Given() {
		return nil
	}
	k, err := keys.Open(n.cfg.Keys, n.now, n.log)
	if err != nil {
		return err
	}
	if k.Name() != n.cfg.Name {
		return fmt.Errorf("the certificate is of node %q, this is node %q: give --name %s, or the --keys of %s", k.Name(), n.cfg.Name, k.Name(), n.cfg.Name)
	}
	n.keys = k
	return nil
}

// keeper is who lets callers in, nil if nobody is asked.
func (n *Node) keeper() web.Keeper {
	if n.keys == nil {
		return nil
	}
	return gate{n.keys, n}
}

// gate is the keys, but that no worker may take the name of a node: those of
// the nodes themselves go by it. Nor that of an instance.
type gate struct {
	*keys.Keys
	n *Node
}

// Enrol exchanges a token for a worker's credential. See web.Keeper.
func (g gate) Enrol(token, worker string) (string, time.Time, bool) {
	if !g.mayEnrol(worker) {
		return "", time.Time{}, false
	}
	return g.Keys.Enrol(token, worker)
}

// instances lets workers in by what they are, nil if there is no fleet of EC2.
func (n *Node) instances() web.Instances {
	if n.admission == nil || n.keys == nil {
		return nil
	}
	return n.admission
}

// hook passes commits on to those who are made after the store.
type hook struct {
	queue *Queue
	pair  *peersync.Engine
	fleet *fleet
}

func (h *hook) stamped(changed []jobs.Changed) {
	if h.pair != nil {
		h.pair.Stamped(changed)
	}
}

func (h *hook) committed(changed []jobs.Changed) {
	if h.pair != nil {
		h.queue.crossing.committed(changed)
		h.pair.Committed(changed)
		h.queue.watch.committed(changed)
		h.fleet.worked(changed)
	}
}

func (h *hook) disagreed(here, came, merged jobs.Job) {
	if h.queue != nil {
		h.queue.audit.disagree(here, came, merged)
	}
}

// gossip opens the address that the peer joins. One that nobody asked for may
// be taken by another program.
func (n *Node) gossip() error {
	if n.cfg.Gossip == "" {
		return nil
	}
	err := n.pair.Gossip(n.cfg.Gossip)
	if err != nil && n.cfg.GossipOptional {
		n.log.Warn("no peer can join this node", "gossip", n.cfg.Gossip, "err", err)
		return nil
	}
	return err
}

// newID makes a job's ID: from its Idempotency-Key, which is its owner's own, or
// a fresh one.
func (n *Node) newID(ctx context.Context, key string) (jobs.ID, error) {
	if key != "" {
		return jobs.KeyID(n.cfg.Cluster, jobs.OwnerOf(ctx), key), nil
	}
	return jobs.NewID(n.now(), rand.Reader)
}

// Addr returns the address the API listens on.
func (n *Node) Addr() string { return n.listener.Addr().String() }

// Handler returns the API. It serves while Run runs.
func (n *Node) Handler() http.Handler { return n.api }

// GossipAddr returns the address that the peer joins, "" if there is none.
func (n *Node) GossipAddr() string { return n.pair.GossipAddr() }

// Queue returns the node's queue.
func (n *Node) Queue() *Queue { return n.queue }

// Version returns the release, or the revision it was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}
