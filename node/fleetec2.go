package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"workmanager/ec2"
	"workmanager/node/keys"
)

const (
	// programPath and healthPath are routes of package web that instances call.
	programPath, healthPath = "/worker/binary/", "/healthz"
	// instanceIdle is how long an idle instance waits where no scheduler has told
	// it, and instanceCutoff how long it tries to reach a node.
	instanceIdle, instanceCutoff = 90 * time.Second, 10 * time.Minute
	// findTimeout bounds the questions to EC2 at the beginning.
	findTimeout = 30 * time.Second
	// defaultType is what is launched where no type is named.
	defaultType = "c7a.large"
)

// ec2Cloud is a fleet of EC2 instances.
type ec2Cloud struct {
	n   *Node
	aws atomic.Pointer[ec2.AWS] // nil until it has begun
}

func (n *Node) newEC2Cloud() *ec2Cloud { return &ec2Cloud{n: n} }

// begin finds out what was not given, and renders what instances boot from. All
// of it is part of what a token stands for, so it must come out the same at both
// nodes.
func (c *ec2Cloud) begin(ctx context.Context) (ec2.Config, ec2.Parts, error) {
	fail := func(err error) (ec2.Config, ec2.Parts, error) { return ec2.Config{}, ec2.Parts{}, err }
	n := c.n
	cfg, err := n.cfg.Fleet.plan(n.cfg.Cluster)
	if err != nil {
		return fail(err)
	}
	if len(cfg.Types) == 0 {
		cfg.Types = []string{defaultType}
	}
	sums, err := n.programs.sums()
	if err != nil {
		return fail(err)
	}
	if err := ec2.CheckTypes(cfg.Types, sums); err != nil {
		return fail(err)
	}
	data, err := c.userData(sums)
	if err != nil {
		return fail(err)
	}
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	config := ec2.AWSConfig{Cluster: cfg.Cluster, UserData: data, Programs: sums}
	finder, err := ec2.NewAWS(ctx, config)
	if err != nil {
		return fail(err)
	}
	want := ec2.Place{Image: n.cfg.Fleet.Image, Subnets: cfg.Subnets, SecurityGroup: n.cfg.Fleet.SecurityGroup}
	place, err := finder.Find(ctx, want, ec2.ArchOf(cfg.Types[0]))
	if err != nil {
		return fail(err)
	}
	cfg.Subnets = place.Subnets
	config.Image, config.SecurityGroup, config.RootDevice, config.RootGiB = place.Image, place.SecurityGroup, place.RootDevice, place.RootGiB
	aws, err := ec2.NewAWS(ctx, config)
	if err != nil {
		return fail(err)
	}
	c.aws.Store(aws)
	n.log.Info("fleet begins", "cluster", cfg.Cluster, "image", place.Image, "subnets", place.Subnets, "types", cfg.Types, "group", place.SecurityGroup)
	return cfg, ec2.Parts{
		Cloud: aws,
		SpotPrices: func(ctx context.Context) (map[ec2.Offer]float64, error) {
			return aws.SpotPrices(ctx, cfg.Types, cfg.Subnets)
		},
	}, nil
}

// userData is what an instance boots from. It has no secret.
func (c *ec2Cloud) userData(sums map[string]string) ([]byte, error) {
	n := c.n
	if n.keys == nil {
		return nil, errors.New("--fleet ec2 needs --keys: instances reach the nodes over TLS")
	}
	nodes, err := c.nodes()
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(cmp.Or(n.cfg.Keys.CA, filepath.Join(n.cfg.Keys.Dir, keys.CAFile)))
	if err != nil {
		return nil, fmt.Errorf("read the authority for instances: %w", err)
	}
	return ec2.UserData{
		Nodes: nodes, CA: string(ca), BinaryPath: programPath, HealthPath: healthPath, SHA256: sums,
		Args: []string{"--idle-timeout", n.cfg.Fleet.hasten(instanceIdle).String(), "--cutoff-timeout", n.cfg.Fleet.hasten(instanceCutoff).String()},
	}.Render()
}

// nodes are the URLs of both nodes, in an order that both agree on.
func (c *ec2Cloud) nodes() ([]string, error) {
	if given := c.n.cfg.Fleet.Nodes; len(given) > 0 {
		return given, nil
	}
	own := c.n.queue.advertise
	if host, _, err := net.SplitHostPort(own); err != nil || host == "" {
		return nil, errors.New("it is not known at which address instances reach this node: give --advertise or --worker-node")
	}
	nodes := []string{"https://" + own}
	if c.n.pair.Paired() {
		peer := c.n.pair.Peer().API
		if peer == "" {
			return nil, errors.New("the other node was not seen so far, and instances need the addresses of both: it waits for it, or give --worker-node for each")
		}
		nodes = append(nodes, "https://"+strings.TrimPrefix(peer, "https://"))
	}
	slices.Sort(nodes)
	return nodes, nil
}

// terminates reports whether an instance ends when it powers itself off.
func (c *ec2Cloud) terminates(ctx context.Context, id string) (bool, error) {
	aws := c.aws.Load()
	if aws == nil {
		return false, errors.New("the fleet has not begun")
	}
	return aws.ShutdownTerminates(ctx, id)
}

// end leaves the instances to the other node; without one they end by themselves.
func (c *ec2Cloud) end() error { return nil }
