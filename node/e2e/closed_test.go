package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"workmanager/web/api"
)

// closedPair is two nodes with keys, over TLS, each as an operator starts it.
type closedPair struct {
	t            testing.TB
	keys, data   string // folders
	made         keysMade
	addr, gossip map[string]string
	flags        []string
	prefix       []string          // a command that runs the binary
	builds       map[string]string // by node; the binary under test where there is none
	a, b         *node
}

// newClosedPair starts a pair and waits until its writes are on both disks.
func newClosedPair(t testing.TB, flags ...string) *closedPair {
	t.Helper()
	return newClosedPairBy(t, func(p *closedPair) { p.flags = flags })
}

// newClosedPairBy is newClosedPair for what depends on where the nodes are.
func newClosedPairBy(t testing.TB, set func(p *closedPair)) *closedPair {
	t.Helper()
	p := &closedPair{t: t, keys: filepath.Join(t.TempDir(), "keys"), data: t.TempDir(), addr: map[string]string{}, gossip: map[string]string{}}
	p.made = initKeys(t, p.keys)
	for name, ip := range map[string]string{"a": "127.0.0.1", "b": "127.0.0.2"} {
		p.addr[name] = strings.Replace(freeAddr(t), "127.0.0.1", ip, 1)
		p.gossip[name] = strings.Replace(freeAddr(t), "127.0.0.1", ip, 1)
	}
	set(p)
	p.a, p.b = p.up("a"), p.up("b")
	p.inStep()
	return p
}

// up starts a node of the pair.
func (p *closedPair) up(name string) *node {
	p.t.Helper()
	other := map[string]string{"a": "b", "b": "a"}[name]
	argv := append(slices.Clone(p.prefix), cmp.Or(p.builds[name], binary), "node", "--keys", filepath.Join(p.keys, name), "--listen", p.addr[name], "--gossip", p.gossip[name],
		"--join", p.gossip[other], "--data-dir", filepath.Join(p.data, name), "--log-level", "debug", "--log-format", "text")
	pr := launch(p.t, "node "+name, append(argv, p.flags...)...)
	n := &node{process: pr, addr: p.addr[name], dir: filepath.Join(p.data, name), http: secure(p.t, p.keys)}
	poll(p.t, upTimeout, pr.name+" serves", func() string {
		if !n.running() {
			p.t.Fatalf("%s ended at its start: %s", pr.name, n.log.String())
		}
		return n.answers("", "GET", "/readyz", 200)
	})
	return n
}

// inStep waits until what either node takes is on both disks.
func (p *closedPair) inStep() {
	p.t.Helper()
	for _, n := range []*node{p.a, p.b} {
		poll(p.t, syncTimeout, n.name+" has jobs on both disks", func() string { return p.enqueue(n, "in step", "both") })
	}
}

// enqueue submits a job at a node and says what is wrong with the answer, ""
// if it has that durability.
func (p *closedPair) enqueue(n *node, data, durability string) string {
	r, err := n.tlsAsk("PUT", "/enqueue?iterations=1000", data, p.made.Tokens["client"])
	switch {
	case err != nil:
		return err.Error()
	case r.status != http.StatusOK:
		return r.String()
	case r.header.Get(api.HeaderDurability) != durability:
		return fmt.Sprintf("durability %s, %s", r.header.Get(api.HeaderDurability), r.header.Get(api.HeaderDurabilityReason))
	}
	return ""
}

func (p *closedPair) status(n *node) (st api.Status) {
	p.t.Helper()
	r, err := n.tlsAsk("GET", "/v1/status", "", p.made.Tokens["client"])
	if err == nil {
		err = json.Unmarshal(r.body, &st)
	}
	if err != nil {
		p.t.Fatalf("status of %s: %v", n.name, err)
	}
	return st
}
