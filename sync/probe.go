package sync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
)

// Probed is what Probe found: nil is an answer.
type Probed struct {
	TCP, UDP error
	Took     time.Duration // of the answer by UDP
}

// probeTries is how many packets are sent before UDP counts as closed: one may be
// lost.
const probeTries = 3

// Probe asks whether gossip answers at addr, host:port: whether a connection can
// be made by TCP, and a ping is answered by UDP. It joins nobody, so the nodes
// there do not take note of it. Only gossip of that cluster, with one of the keys
// if there are any, answers a ping.
func Probe(ctx context.Context, addr, cluster string, keys [][]byte, timeout time.Duration) Probed {
	var p Probed
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		p.TCP = err
	} else {
		_ = conn.Close() // nothing was sent
	}
	p.Took, p.UDP = ping(addr, cluster, keys, timeout)
	return p
}

func ping(addr, cluster string, keys [][]byte, timeout time.Duration) (time.Duration, error) {
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return 0, err
	}
	out, err := net.DialUDP("udp", nil, to) // sends nothing; tells where packets leave from
	if err != nil {
		return 0, err
	}
	from := out.LocalAddr().(*net.UDPAddr).IP.String()
	_ = out.Close() // as above
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label = "probe", labelPrefix+cluster
	c.BindAddr, c.BindPort, c.AdvertiseAddr, c.AdvertisePort = from, 0, from, 0
	c.ProbeTimeout = max(timeout/probeTries, 50*time.Millisecond)
	c.ProbeInterval = 2 * c.ProbeTimeout // how long an answer is waited for
	c.EnableCompression = false
	c.Logger = log.New(io.Discard, "", 0)
	if len(keys) > 0 {
		if c.Keyring, err = memberlist.NewKeyring(keys, keys[0]); err != nil {
			return 0, fmt.Errorf("keys of gossip: %w", err)
		}
	}
	list, err := memberlist.Create(c)
	if err != nil {
		return 0, fmt.Errorf("open a port to ask from: %w", err)
	}
	defer list.Shutdown() //nolint:errcheck // it has done its work
	for range probeTries {
		begin := time.Now()
		if _, err = list.Ping("", to); err == nil {
			return time.Since(begin), nil
		}
	}
	if _, silent := errors.AsType[memberlist.NoPingResponseError](err); silent {
		err = fmt.Errorf("no answer in %s", timeout)
	}
	return 0, err
}
