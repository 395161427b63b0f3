package sync

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls. Its methods run in memberlist's receive
// loop, and those about members under its lock: they must neither block nor call
// it.
type delegate struct{ g *gossip }

var (
	_ memberlist.Delegate         = (*delegate)(nil)
	_ memberlist.EventDelegate    = (*delegate)(nil)
	_ memberlist.AliveDelegate    = (*delegate)(nil)
	_ memberlist.ConflictDelegate = (*delegate)(nil)
)

// NotifyAlive says whether a node may be listed. It is asked at every word of
// that node's being alive.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	if n.Name == d.g.cfg.Node {
		return nil // ourselves, or a namesake: NotifyConflict hears of it
	}
	if _, err := decodeMeta(n); err != nil {
		return d.g.refuse(n.Name, n.Address(), err.Error(), 0)
	}
	if ok, why := d.g.ev.Allowed(n.Name); !ok {
		return d.g.refuse(n.Name, n.Address(), why, 0)
	}
	d.g.mu.Lock()
	p := d.g.peer
	d.g.mu.Unlock()
	if p != nil && p.Node != n.Name {
		if ok, _ := d.g.ev.Allowed(p.Node); ok {
			return d.g.refuse(n.Name, n.Address(), "this node has its peer: "+p.Node, 0)
		}
	}
	return nil
}

// NotifyJoin hears of a node that was not there, or not alive.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.NotifyUpdate(n) }

// NotifyUpdate hears that a node's meta changed.
func (d *delegate) NotifyUpdate(n *memberlist.Node) {
	if n.Name == d.g.cfg.Node {
		return
	}
	m, err := decodeMeta(n)
	if err != nil {
		return // NotifyAlive has refused it
	}
	to := *n
	to.Addr, to.Meta = bytes.Clone(n.Addr), nil
	d.g.found(&peer{member: m, to: to})
}

// NotifyLeave hears of a node that is dead or has left.
func (d *delegate) NotifyLeave(n *memberlist.Node) {
	if n.Name != d.g.cfg.Node {
		d.g.lost(n.Name)
	}
}

// NotifyConflict hears of two addresses with one name. It is not said who is
// right: often it is one node, killed and back at another address before anyone
// missed it.
func (d *delegate) NotifyConflict(listed, other *memberlist.Node) {
	why := fmt.Sprintf("it has the name of the node at %s", listed.Address())
	if other.Name == d.g.cfg.Node {
		why = "it has our name"
		d.g.eager() // our peer lists that one, and must hear of us when it gives it up
	}
	_ = d.g.refuse(other.Name, other.Address(), why, conflictPatience) // memberlist refuses it by itself
}

// NodeMeta returns what a node says of itself.
func (d *delegate) NodeMeta(int) []byte { return d.g.meta }

// NotifyMsg hears a packet of the peer, or of whoever else knows the cluster's
// label: there is no sender in it.
func (d *delegate) NotifyMsg(b []byte) {
	p, ok := d.hears()
	switch {
	case !ok:
	case len(b) > 0 && b[0] == packetCopies:
		boot, _, err := openPacket(b, packetCopies)
		if err != nil || boot != p.Boot || len(b) > maxPacket {
			d.g.dropped.Add(1)
			return
		}
		d.g.copiesIn.Add(1)
		d.g.ev.Copies(p.Node, bytes.Clone(b)) // b is memberlist's
	default:
		d.hinted(p, b)
	}
}

// LocalState returns what goes along when two nodes compare their members: the
// same as a hint, so that one that was lost is made up for within seconds.
func (d *delegate) LocalState(bool) []byte {
	d.g.mu.Lock()
	h, muted := d.g.hint, d.g.muted
	d.g.mu.Unlock()
	if muted || d.g.cfg.Head == nil {
		return nil
	}
	return appendHint(nil, d.g.cfg.Boot, d.g.cfg.Head(), h.Waiting, h.FreeWorkers)
}

// MergeRemoteState hears the same of the other.
func (d *delegate) MergeRemoteState(b []byte, _ bool) {
	if p, ok := d.hears(); ok && len(b) > 0 {
		d.hinted(p, b)
	}
}

// GetBroadcasts has nothing: what we send goes to the peer directly.
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }

// hears returns the peer that what comes in is from, if the engine is to hear it.
func (d *delegate) hears() (*peer, bool) {
	d.g.mu.Lock()
	p, silent := d.g.peer, d.g.muted && d.g.met
	d.g.mu.Unlock()
	if p == nil && !silent {
		d.g.dropped.Add(1)
	}
	return p, p != nil && !silent
}

func (d *delegate) hinted(p *peer, b []byte) {
	h, err := decodeHint(b)
	if err != nil || h.Boot != p.Boot {
		d.g.dropped.Add(1)
		return
	}
	d.g.hintsIn.Add(1)
	d.g.ev.Hinted(p.Node, [8]byte(h.Boot[:8]), h.Head)
}

// A node's meta, within memberlist's 512 bytes: the version of this form, 1; the
// boot's 16 bytes and 8 of the store's ID; lowest and highest protocol and the
// schema, uvarint; the API's host:port behind its length, uvarint. Later
// releases write more behind it, which earlier ones do not read; the version
// never changes. The node's name and gossip address are memberlist's to carry.
const metaVersion = 1

func appendMeta(b []byte, cfg gossipConfig) ([]byte, error) {
	if _, err := apiAddr(cfg.API, net.IPv4zero); err != nil {
		return nil, err
	}
	b = append(b, metaVersion)
	b = append(b, cfg.Boot[:]...)
	b = append(b, cfg.Store[:8]...)
	b = binary.AppendUvarint(b, protoMin)
	b = binary.AppendUvarint(b, protoMax)
	b = binary.AppendUvarint(b, uint64(cfg.Schema))
	b = binary.AppendUvarint(b, uint64(len(cfg.API)))
	b = append(b, cfg.API...)
	if len(b) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("gossip: the address of the API has %d bytes, of which %d are too many", len(cfg.API), len(b)-memberlist.MetaMaxSize)
	}
	return b, nil
}

var errMeta = errors.New("what it says of itself cannot be read")

// decodeMeta reads what another node says of itself.
func decodeMeta(n *memberlist.Node) (member, error) {
	m := member{Node: n.Name, Gossip: n.Address()}
	b := n.Meta
	if len(b) < 1+len(m.Boot)+len(m.Store8) || b[0] != metaVersion {
		return member{}, errMeta
	}
	b = b[1:]
	b = b[copy(m.Boot[:], b):]
	b = b[copy(m.Store8[:], b):]
	var x [4]uint64 // lowest and highest protocol, schema, bytes of the API's address
	for i := range x {
		v, size := binary.Uvarint(b)
		if size <= 0 || v > 1<<31-1 {
			return member{}, errMeta
		}
		x[i], b = v, b[size:]
	}
	if x[0] > x[1] || x[3] > uint64(len(b)) {
		return member{}, errMeta
	}
	m.ProtoMin, m.ProtoMax, m.Schema = int(x[0]), int(x[1]), int(x[2])
	var err error
	if m.API, err = apiAddr(string(b[:x[3]]), n.Addr); err != nil {
		return member{}, errMeta
	}
	return m, nil
}

// apiAddr returns where the API of a node at ip is, by what the node says of it.
func apiAddr(said string, ip net.IP) (string, error) {
	host, port, err := net.SplitHostPort(said)
	if err != nil {
		return "", fmt.Errorf("gossip: address of the API: %w", err)
	}
	if at := net.ParseIP(host); host == "" || at != nil && at.IsUnspecified() {
		host = ip.String()
	}
	return net.JoinHostPort(host, port), nil
}

// logWriter passes on what memberlist logs. It logs every probe that fails, so
// what it warns of is said once a minute.
type logWriter struct{ g *gossip }

// What memberlist logs of another cluster's nodes: it tells nobody else of them.
var otherLabel = regexp.MustCompile(`unacceptable label "` + labelPrefix + `([^"]*)": from=(\S+)`)

// Write logs a line of memberlist's.
func (w *logWriter) Write(line []byte) (int, error) {
	log := w.g.cfg.Log
	level, text, _ := strings.Cut(string(bytes.TrimSpace(line)), " ")
	text = strings.TrimPrefix(text, "memberlist: ")
	if x := otherLabel.FindStringSubmatch(text); x != nil {
		_ = w.g.refuse("", x[2], "it belongs to cluster "+x[1], 0) // memberlist refuses it by itself
		level = ""
	}
	for _, s := range []string{
		"ignoring alive message", "Conflicting address", // refused, and told
		"Refuting an alive message", // we were started again
	} {
		if strings.HasPrefix(text, s) {
			level = ""
		}
	}
	switch level {
	case "[WARN]", "[ERR]", "[ERROR]":
		kind := text[:min(len(text), 24)]
		if missed, ok := w.g.warnings.due(kind, 0); ok {
			log.Warn("gossip", "says", text, "missed", missed)
			return len(line), nil
		}
	}
	log.Debug("gossip", "says", text)
	return len(line), nil
}
