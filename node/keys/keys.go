// Package keys holds what lets callers into a node: the pair's own certificate
// authority, the certificates of its nodes, the key of their gossip, tokens of
// clients, operators and workers, and the short-lived credentials that are made
// of them.
//
// All of it is files of one folder a node, which Init makes. A running node
// reads them again when they change; a new file that is broken is refused, with
// a warning, and what was read before goes on. Tokens are kept as their SHA-256:
// they are 256 random bits, so nothing slower is needed.
//
// It does not say who may do what: package web does, in its table of routes.
package keys

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The files of a node's folder.
const (
	CAFile         = "ca.crt"
	CertFile       = "node.crt"
	KeyFile        = "node.key"
	GossipFile     = "gossip.key"     // AES-256, base64, one a line; the first one sends
	CredentialFile = "credential.key" // HMAC, base64, one a line; the first one signs
	ReceiptFile    = "receipt.key"    // Ed25519, PKCS #8
	TokensFile     = "tokens.json"
)

const (
	// pollInterval is how often the files are looked at.
	pollInterval = 2 * time.Second
	// warnBefore is how long before its end a certificate is warned of, and
	// warnInterval how often.
	warnBefore   = 30 * 24 * time.Hour
	warnInterval = 24 * time.Hour

	handshakeTimeout = 2 * time.Second
	keyBytes         = 32
	maxFile          = 4 << 20
)

// Files says where the keys are. Dir is the folder; the others, if given, stand
// in for files of it. Without a Dir there is TLS, and neither tokens nor a key
// for gossip.
type Files struct {
	Dir           string
	Cert, Key, CA string
}

// Given reports whether there are any.
func (f Files) Given() bool { return f != Files{} }

func (f Files) path(given, name string) string {
	if given != "" || f.Dir == "" {
		return given
	}
	return filepath.Join(f.Dir, name)
}

func (f Files) cert() string { return f.path(f.Cert, CertFile) }
func (f Files) key() string  { return f.path(f.Key, KeyFile) }
func (f Files) ca() string   { return f.path(f.CA, CAFile) }

// NodeName returns the name that the node's certificate gives it.
func NodeName(f Files) (string, error) {
	b, err := read(f.cert())
	if err != nil {
		return "", err
	}
	c, err := firstCert(f.cert(), b)
	if err != nil {
		return "", err
	}
	return c.Subject.CommonName, nil
}

// Keys are the keys of a running node. It is safe for concurrent use.
type Keys struct {
	files Files
	now   func() time.Time
	log   *slog.Logger
	dial  net.Dialer

	tls        atomic.Pointer[identity]
	gossip     atomic.Pointer[[][]byte]
	credential atomic.Pointer[[][]byte]
	tokens     atomic.Pointer[map[string]Token]

	mu       sync.Mutex // guards the rest
	seen     map[string]string
	warned   time.Time
	onGossip func([][]byte)

	ended struct {
		sync.Mutex                  // guards nonces
		nonces     map[string]int64 // of sessions that were logged out, and their ends in unix seconds
	}
}

// identity is who the node is, and whom it trusts.
type identity struct {
	cert   *tls.Certificate
	roots  *x509.CertPool
	expiry Expiry
}

// Expiry is until when the certificates are good.
type Expiry struct {
	Node, CA time.Time
}

// Open reads the keys. It returns an error that names the file if one is
// missing or broken. It starts nothing: Run does.
func Open(f Files, now func() time.Time, log *slog.Logger) (*Keys, error) {
	if f.Dir == "" && (f.Cert == "" || f.Key == "" || f.CA == "") {
		return nil, errors.New("--tls-cert, --tls-key and --tls-ca go together; or give --keys, the folder that 'workmanager init' made")
	}
	k := &Keys{files: f, now: now, log: log, seen: map[string]string{}, dial: net.Dialer{Timeout: time.Second, KeepAlive: 5 * time.Second}}
	var errs []error
	for _, p := range k.parts() {
		p.changed()
		errs = append(errs, p.load())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("read the keys: %w", err)
	}
	for _, name := range []string{f.key(), k.inDir(GossipFile), k.inDir(CredentialFile), k.inDir(ReceiptFile)} {
		if fi, err := os.Stat(name); name != "" && err == nil && fi.Mode().Perm()&0o077 != 0 {
			log.Warn("others than its owner may open a key; make it 0600", "file", name, "mode", fi.Mode().Perm().String())
		}
	}
	k.warn()
	return k, nil
}

// part is what is read, and refused, together.
type part struct {
	k     *Keys
	name  string
	files []string
	load  func() error
}

func (k *Keys) inDir(name string) string { return k.files.path("", name) }

func (k *Keys) parts() []part {
	parts := []part{{k, "certificate", []string{k.files.cert(), k.files.key(), k.files.ca()}, k.loadTLS}}
	if k.files.Dir != "" {
		parts = append(parts,
			part{k, "gossip key", []string{k.inDir(GossipFile)}, k.loadGossip},
			part{k, "credential key", []string{k.inDir(CredentialFile)}, k.loadCredential},
			part{k, "tokens", []string{k.inDir(TokensFile)}, k.loadTokens})
	}
	return parts
}

// changed reports whether the part's files are others than when it was last
// asked. mu is held, or nobody else knows of k yet.
func (p part) changed() bool {
	var now strings.Builder
	for _, name := range p.files {
		fi, err := os.Stat(name)
		if err != nil {
			fmt.Fprintf(&now, "%v;", err)
			continue
		}
		fmt.Fprintf(&now, "%v %d;", fi.ModTime().UnixNano(), fi.Size())
	}
	was := p.k.seen[p.name]
	p.k.seen[p.name] = now.String()
	return was != now.String()
}

// Run reads the files again when they change, or when reload says so, until ctx
// is done.
func (k *Keys) Run(ctx context.Context, reload <-chan os.Signal) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		forced := false
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-reload:
			forced = true
		}
		k.Reload(forced)
		k.warn()
	}
}

// Reload reads what has changed since it was last read, or all if forced. What
// cannot be read is told in the log, and the former goes on.
func (k *Keys) Reload(forced bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.parts() {
		if !p.changed() && !forced {
			continue
		}
		if err := p.load(); err != nil {
			k.log.Warn("new "+p.name+" refused, the former goes on", "err", err)
			continue
		}
		k.log.Info(p.name + " read again")
	}
}

// OnGossip is told of the keys of gossip when they have changed.
func (k *Keys) OnGossip(f func(ring [][]byte)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.onGossip = f
}

// Gossip returns the keys of gossip, the one that sends first; nil if there are
// none. k may be nil.
func (k *Keys) Gossip() [][]byte {
	if k == nil {
		return nil
	}
	if p := k.gossip.Load(); p != nil {
		return *p
	}
	return nil
}

// Tokens reports whether callers must show a token.
func (k *Keys) Tokens() bool { return k.files.Dir != "" }

// Name returns the node's name by its certificate.
func (k *Keys) Name() string { return k.tls.Load().cert.Leaf.Subject.CommonName }

// Expiry returns until when the certificates are good.
func (k *Keys) Expiry() Expiry { return k.tls.Load().expiry }

// warn says once a day that a certificate ends soon.
func (k *Keys) warn() {
	e, now := k.Expiry(), k.now()
	if now.Sub(k.warned) < warnInterval && !k.warned.IsZero() {
		return
	}
	for what, at := range map[string]time.Time{"the node's certificate": e.Node, "the pair's authority": e.CA} {
		if left := at.Sub(now); left < warnBefore {
			k.warned = now
			k.log.Warn("a certificate ends soon; renew it with 'workmanager init --renew'", "which", what, "at", at, "days_left", DaysLeft(at, now))
		}
	}
}

// DaysLeft returns the whole days until at, negative once it is past.
func DaysLeft(at, now time.Time) int {
	d := at.Sub(now)
	if d < 0 {
		return -int(-d/(24*time.Hour)) - 1
	}
	return int(d / (24 * time.Hour))
}

func (k *Keys) loadTLS() error {
	files := k.files
	certPEM, err := read(files.cert())
	if err != nil {
		return err
	}
	keyPEM, err := read(files.key())
	if err != nil {
		return err
	}
	caPEM, err := read(files.ca())
	if err != nil {
		return err
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return fmt.Errorf("%s and %s: %w", files.cert(), files.key(), err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(caPEM) {
		return fmt.Errorf("%s: no certificate in it", files.ca())
	}
	ca, err := firstCert(files.ca(), caPEM)
	if err != nil {
		return err
	}
	// A node whose certificate its peer will not take is better told here.
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: k.now(), KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			return fmt.Errorf("%s is not good by %s (renew it with 'workmanager init --renew'): %w", files.cert(), files.ca(), err)
		}
	}
	if err := cert.Leaf.VerifyHostname(peerHost(cert.Leaf.Subject.CommonName)); err != nil {
		return fmt.Errorf("%s is no node's certificate; 'workmanager init' makes them: %w", files.cert(), err)
	}
	if was := k.tls.Load(); was != nil && was.cert.Leaf.Subject.CommonName != cert.Leaf.Subject.CommonName {
		return fmt.Errorf("%s is of node %s, this one is %s", files.cert(), cert.Leaf.Subject.CommonName, was.cert.Leaf.Subject.CommonName)
	}
	k.tls.Store(&identity{cert: &cert, roots: roots, expiry: Expiry{Node: cert.Leaf.NotAfter.UTC(), CA: ca.NotAfter.UTC()}})
	return nil
}

// Check reads the certificates and reports until when they are good, or what is
// wrong with them.
func Check(f Files, now time.Time) (Expiry, error) {
	k := &Keys{files: f, now: func() time.Time { return now }}
	if err := k.loadTLS(); err != nil {
		return Expiry{}, err
	}
	return k.Expiry(), nil
}

// GossipKeys reads the keys of gossip in a node's folder, the one that sends first.
func GossipKeys(dir string) ([][]byte, error) { return readRing(filepath.Join(dir, GossipFile)) }

func (k *Keys) loadGossip() error {
	ring, err := readRing(k.inDir(GossipFile))
	if err != nil {
		return err
	}
	k.gossip.Store(&ring)
	if k.onGossip != nil {
		k.onGossip(ring)
	}
	return nil
}

func (k *Keys) loadCredential() error {
	ring, err := readRing(k.inDir(CredentialFile))
	if err != nil {
		return err
	}
	k.credential.Store(&ring)
	return nil
}

func (k *Keys) loadTokens() error {
	list, err := readTokens(k.inDir(TokensFile))
	if err != nil {
		return err
	}
	byID := make(map[string]Token, len(list))
	for _, t := range list {
		byID[t.ID] = t
	}
	k.tokens.Store(&byID)
	return nil
}

// ciphers are those of TLS 1.2 that are taken: forward secret, with
// authenticated encryption. Those of 1.3 all are.
var ciphers = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// Server returns the settings of the listener. Nobody need show a certificate;
// whoever does must have one of this pair. Sessions are not resumed, so that a
// certificate is looked at with every connection.
func (k *Keys) Server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			id := k.tls.Load()
			return &tls.Config{
				MinVersion: tls.VersionTLS12, CipherSuites: ciphers, NextProtos: []string{"http/1.1"},
				Certificates: []tls.Certificate{*id.cert}, ClientCAs: id.roots, ClientAuth: tls.VerifyClientCertIfGiven,
				SessionTicketsDisabled: true, Time: k.now,
			}, nil
		},
	}
}

// Dialer returns Dial; nil if k is.
func (k *Keys) Dialer() func(ctx context.Context, addr, node string) (net.Conn, error) {
	if k == nil {
		return nil
	}
	return k.Dial
}

// Dial connects to a node of the pair, showing who we are. Whatever answers
// must have the certificate of that node: its address does not matter.
func (k *Keys) Dial(ctx context.Context, addr, node string) (net.Conn, error) {
	conn, err := k.dial.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	id := k.tls.Load()
	c := tls.Client(conn, &tls.Config{
		MinVersion: tls.VersionTLS12, CipherSuites: ciphers, NextProtos: []string{"http/1.1"},
		Certificates: []tls.Certificate{*id.cert}, RootCAs: id.roots, ServerName: peerHost(node), Time: k.now,
	})
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("node %s at %s: %w", node, addr, err)
	}
	return c, nil
}

// peerHost is the name under which a node is known to its peer, whatever its
// address: one of the names in its certificate.
func peerHost(node string) string { return strings.ToLower(node) + ".node.workmanager.internal" }

func read(name string) ([]byte, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if fi.Size() > maxFile {
		return nil, fmt.Errorf("%s: %d bytes are too many", name, fi.Size())
	}
	return os.ReadFile(name)
}

func firstCert(name string, b []byte) (*x509.Certificate, error) {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			return c, nil
		}
	}
	return nil, fmt.Errorf("%s: no certificate in it", name)
}

// readRing reads keys of 32 bytes, base64, one a line. What is wrong is told
// without the line: it may be a key.
func readRing(name string) ([][]byte, error) {
	b, err := read(name)
	if err != nil {
		return nil, err
	}
	var ring [][]byte
	n := 0
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		n++
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != keyBytes {
			return nil, fmt.Errorf("%s: line %d is not a key of %d bytes in base64", name, n, keyBytes)
		}
		ring = append(ring, key)
	}
	if len(ring) == 0 {
		return nil, fmt.Errorf("%s: no key in it", name)
	}
	return ring, nil
}
