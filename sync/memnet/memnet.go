// Package memnet is an in-memory network for memberlist, for tests. It lets
// nodes gossip inside a testing/synctest bubble, where a real socket would stop
// virtual time and memberlist's own MockTransport leaks goroutines: its
// unbuffered sends block for ever once the receiver has shut down.
//
// It delivers at once and in order. What is lost, and in which direction, the
// test says. Hosts of one address may follow one another, as a node that is
// started again does.
package memnet

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	maxPackets = 256 // wait at a host; more are lost
	maxStreams = 16  // wait at a host to be accepted; more are refused
)

var errRefused = errors.New("memnet: connection refused")

// Network connects transports by address. The zero Network is ready to use.
type Network struct {
	// Drop, if set, decides whether what one address sends another is lost: a
	// packet, a dial, the answer to it, or what is written to a stream. It may
	// be called concurrently, and is set before the first host is added.
	Drop func(from, to string) bool

	mu    sync.Mutex // guards hosts and next, and every host's closed and streams
	hosts map[string]*Transport
	next  byte
}

// Transport is one host's end of a Network. It implements memberlist.Transport
// and is safe for concurrent use.
type Transport struct {
	net     *Network
	addr    *net.TCPAddr
	packets chan *memberlist.Packet
	streams chan net.Conn
	closed  bool
}

var _ memberlist.Transport = (*Transport)(nil)

// Host adds a host at an address that nobody had: 10.0.0.1:7946, 10.0.0.2:7946
// and so on. It panics when all 255 are given out.
func (n *Network) Host() *Transport {
	n.mu.Lock()
	n.next++
	next := n.next
	n.mu.Unlock()
	t, err := n.Listen(fmt.Sprintf("10.0.0.%d:7946", next))
	if err != nil {
		panic(err)
	}
	return t
}

// Listen adds a host at an address, an IP and a port. It returns an error if a
// host is there.
func (n *Network) Listen(addr string) (*Transport, error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("memnet: listen on %s: %w", addr, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts[tcp.String()] != nil {
		return nil, fmt.Errorf("memnet: listen on %s: address in use", addr)
	}
	t := &Transport{
		net:     n,
		addr:    tcp,
		packets: make(chan *memberlist.Packet, maxPackets),
		streams: make(chan net.Conn, maxStreams),
	}
	if n.hosts == nil {
		n.hosts = make(map[string]*Transport)
	}
	n.hosts[t.Addr()] = t
	return t, nil
}

// Again adds a host at the address of one that is shut down.
func (t *Transport) Again() (*Transport, error) { return t.net.Listen(t.Addr()) }

// Network returns the network that the host is in.
func (t *Transport) Network() *Network { return t.net }

func (n *Network) drops(from, to string) bool { return n.Drop != nil && n.Drop(from, to) }

// Addr is the address other hosts join.
func (t *Transport) Addr() string { return t.addr.String() }

// FinalAdvertiseAddr implements memberlist.Transport: it is always Addr.
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.addr.IP, t.addr.Port, nil
}

// WriteTo implements memberlist.Transport. Like UDP it never blocks and reports
// no loss: a packet for a host that is full, away or cut off is lost.
func (t *Transport) WriteTo(b []byte, to string) (time.Time, error) {
	now := time.Now()
	t.net.mu.Lock()
	peer, closed := t.net.hosts[to], t.closed
	t.net.mu.Unlock()
	if closed {
		return now, net.ErrClosed
	}
	if peer == nil || t.net.drops(t.Addr(), to) {
		return now, nil
	}
	select {
	case peer.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: t.addr, Timestamp: now}:
	default:
	}
	return now, nil
}

// DialTimeout implements memberlist.Transport. It is refused at once where no
// host is, and takes the whole timeout where the way there or back is cut.
func (t *Transport) DialTimeout(to string, timeout time.Duration) (net.Conn, error) {
	if t.net.drops(t.Addr(), to) || t.net.drops(to, t.Addr()) {
		time.Sleep(timeout)
		return nil, fmt.Errorf("memnet: dial %s: no answer in %v", to, timeout)
	}
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	if t.closed {
		return nil, net.ErrClosed
	}
	peer := t.net.hosts[to]
	if peer == nil {
		return nil, errRefused
	}
	ours, theirs := net.Pipe()
	select {
	case peer.streams <- &conn{Conn: theirs, net: t.net, from: peer.addr, to: t.addr}:
		return &conn{Conn: ours, net: t.net, from: t.addr, to: peer.addr}, nil
	default:
		return nil, errRefused
	}
}

// PacketCh implements memberlist.Transport.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown implements memberlist.Transport. The address is free then, later
// dials to it are refused, and the streams nobody accepted are closed.
func (t *Transport) Shutdown() error {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	delete(t.net.hosts, t.Addr())
	for {
		select {
		case c := <-t.streams:
			c.Close()
		default:
			return nil
		}
	}
}

// conn is one end of a stream. What it writes into a cut is lost in silence,
// and its reader waits for its deadline.
type conn struct {
	net.Conn
	net      *Network
	from, to *net.TCPAddr
}

// LocalAddr returns the host's address.
func (c *conn) LocalAddr() net.Addr { return c.from }

// RemoteAddr returns the other host's address.
func (c *conn) RemoteAddr() net.Addr { return c.to }

// Write writes, or loses, b.
func (c *conn) Write(b []byte) (int, error) {
	if c.net.drops(c.from.String(), c.to.String()) {
		return len(b), nil
	}
	return c.Conn.Write(b)
}
