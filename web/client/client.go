// Package client is the Go client of the public HTTP API: what the command
// line, remote workers and tests use. It speaks jobs types, so a caller can
// hardly tell a node elsewhere from one in its own process: an error body comes
// back as the *jobs.Error that was sent.
//
// A Client may know both nodes of a pair. A call that finds one away, stopping
// or busy goes to the other at once, and only then waits and tries again, a
// bounded number of times. Every submit carries an Idempotency-Key, so trying
// again never makes a second job. When no node could be reached the error is
// [ErrUnreachable].
package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// Client talks to one node, or to both of a pair. URLs is all it needs. It is
// safe for concurrent use; its fields must not change after the first call.
type Client struct {
	// URLs are the nodes, any of which can answer. "127.0.0.1:5000" is taken
	// as http://127.0.0.1:5000.
	URLs []string
	// HTTP makes the requests. Nil is a client with its own connection pools,
	// which gives up on a node that accepts a request and then says nothing.
	HTTP *http.Client
	// Token is shown to the nodes. It is never sent in the clear, but to loopback.
	Token string
	// CAFile holds the authority that the nodes' certificates are of; "" is those
	// of the system. With it a URL without a scheme is https.
	CAFile string
	// Worker, if given, is the worker this client stands for: Token is then one
	// for enrolment, and is exchanged for credentials as they run out.
	Worker string
	// Instance, if given, is the instance of EC2 that Worker, of its name, runs on.
	// It needs no Token: the nodes look at what it is.
	Instance *api.EnrolInstanceRequest
	// Rounds is how many times all the nodes are tried; 0 is DefaultRounds.
	Rounds int
	// WaitMin and WaitMax bound the wait between two rounds, which doubles
	// from the one to the other; 0 are 100 ms and 5 s. A Retry-After counts
	// instead, unless it is longer than MaxRetryAfter: then the call gives up.
	WaitMin, WaitMax time.Duration
	// Rand is where keys come from; nil is crypto/rand.
	Rand io.Reader

	once    sync.Once
	bases   []*url.URL
	baseErr error
	quick   *http.Client // for answers that come at once
	patient *http.Client // for long polls and streams
	good    atomic.Int32 // index of the base that answered last

	pair     pairState // what Lease and Report know of the nodes
	enrolled enrolment
}

// Bounds of trying again.
const (
	DefaultRounds = 5
	MaxRetryAfter = time.Minute

	defaultWaitMin = 100 * time.Millisecond
	defaultWaitMax = 5 * time.Second
	dialTimeout    = 3 * time.Second
	answerTimeout  = 15 * time.Second // from the end of a request to the head of its answer
	maxBodyBytes   = 256 << 20        // of one JSON answer; a pull of the most results is about 20 MB
)

// ErrUnreachable says that no node could be reached, or that none gave a
// whole answer. Trying again later may help.
var ErrUnreachable = errors.New("no node reachable")

func (c *Client) init() {
	c.once.Do(func() {
		if len(c.URLs) == 0 {
			c.baseErr = errors.New("no node URL given")
		}
		for _, s := range c.URLs {
			u, err := parseBase(s, c.CAFile != "")
			if err == nil && c.secret() && u.Scheme == "http" && !loopback(u.Hostname()) {
				err = jobs.Invalid("flag", "node", "value_error.url", "%q is not encrypted, and a token must not be sent so: use https", s)
			}
			if err != nil {
				c.baseErr = err
				return
			}
			c.bases = append(c.bases, u)
		}
		c.quick, c.patient = c.HTTP, c.HTTP
		if c.HTTP == nil {
			roots, err := c.roots()
			if err != nil {
				c.baseErr = err
			}
			c.quick, c.patient = newHTTP(answerTimeout, roots), newHTTP(answerTimeout+jobs.MaxWait, roots)
		}
	})
}

// Close drops the idle connections.
func (c *Client) Close() {
	c.init()
	for _, h := range []*http.Client{c.quick, c.patient} {
		if h != nil { // a URL that is none leaves it so
			h.CloseIdleConnections()
		}
	}
}

// defaultPort is where nodes listen, unless they are told otherwise.
const defaultPort = "5000"

// parseBase reads the URL of a node, or its host, with or without the port.
func parseBase(s string, secure bool) (*url.URL, error) {
	full := s
	bare := !strings.Contains(s, "://")
	if bare {
		full = "http://" + s
		if secure {
			full = "https://" + s
		}
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, jobs.Invalid("flag", "node", "value_error.url", "%q is no URL of a node; one looks like http://127.0.0.1:5000", s)
	}
	if bare && u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), defaultPort)
	}
	if u.Path == "" {
		u.Path = "/" // JoinPath makes a relative path of none
	}
	return u, nil
}

// roots returns the authority that nodes are known by, nil for the system's.
func (c *Client) roots() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	b, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read the authority of the nodes: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("read the authority of the nodes: %s has no certificate in it", c.CAFile)
	}
	return pool, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

func newHTTP(answer time.Duration, roots *x509.CertPool) *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext
	t.MaxIdleConnsPerHost = 64
	t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	t.ResponseHeaderTimeout = answer
	t.DisableCompression = true // an answer is hex and JSON to a machine near by
	return &http.Client{Transport: t}
}

func (c *Client) rounds() int {
	if c.Rounds > 0 {
		return c.Rounds
	}
	return DefaultRounds
}

func (c *Client) waits() (least, most time.Duration) {
	least, most = c.WaitMin, c.WaitMax
	if least <= 0 {
		least = defaultWaitMin
	}
	if most <= 0 {
		most = defaultWaitMax
	}
	return least, max(least, most)
}

// newKey returns a fresh Idempotency-Key: a UUID of version 7, whose time lets
// a node keep jobs that come together together on its disk.
func (c *Client) newKey() (string, error) {
	src := c.Rand
	if src == nil {
		src = rand.Reader
	}
	id, err := jobs.NewID(time.Now(), src)
	if err != nil {
		return "", err
	}
	return id.String(), nil
}

// get calls a route that answers JSON.
func get[T any](ctx context.Context, c *Client, r request) (T, http.Header, error) {
	var out T
	r.decode = func(body io.Reader) error {
		var fresh T // nothing of a broken answer may stay
		if err := json.NewDecoder(body).Decode(&fresh); err != nil {
			return fmt.Errorf("read the answer of %s %s: %w", r.method, r.path, err)
		}
		out = fresh
		return nil
	}
	head, err := c.do(ctx, r)
	return out, head, err
}
