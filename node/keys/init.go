package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The files beside the nodes' folders. The authority's key signs nodes: it
// belongs on no node.
const (
	CAKeyFile      = "ca.key"
	ReceiptPubFile = "receipt.pub"
	EnvFile        = "client.env"

	CATTL   = 10 * 365 * 24 * time.Hour
	NodeTTL = 365 * 24 * time.Hour
	// backdate lets machines whose clocks are behind take a new certificate.
	backdate = time.Hour
)

// Host is a node and where it is reached: names and addresses for its
// certificate.
type Host struct {
	Node  string
	Hosts []string
}

// Made is what Init made.
type Made struct {
	Fingerprint string            `json:"fingerprint"` // of the authority, SHA-256
	Folders     map[string]string `json:"folders"`     // by node
	Tokens      map[string]string `json:"tokens"`      // by role: given out once
}

// ErrExists says that there are keys already.
var ErrExists = errors.New("there are keys already")

// Init makes the keys of a cluster in dir, which must be empty or not there: a
// folder for each node, ready to be copied, the authority's own key, and a file
// with the environment of a client. env returns its text.
func Init(dir string, nodes []Host, ttl time.Duration, now time.Time, env func(made Made) string) (made Made, err error) {
	if len(nodes) == 0 {
		return Made{}, errors.New("no node was named")
	}
	seen := map[string]bool{}
	for _, n := range nodes {
		if !goodName(n.Node) || strings.Trim(n.Node, "._") != n.Node || strings.Contains(n.Node, "_") || seen[strings.ToLower(n.Node)] {
			return Made{}, fmt.Errorf("node %q: want a name of its own, of letters, digits and hyphens", n.Node)
		}
		seen[strings.ToLower(n.Node)] = true
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return Made{}, fmt.Errorf("%s is not empty: %w", dir, ErrExists)
	}
	if err := makeDir(dir); err != nil {
		return Made{}, err
	}
	var done []string
	defer func() {
		if err != nil { // nothing half made stays behind
			for _, name := range done {
				err = errors.Join(err, os.RemoveAll(name))
			}
		}
	}()
	put := func(b []byte, path ...string) error {
		name := filepath.Join(append([]string{dir}, path...)...)
		done = append(done, name)
		return create(name, b)
	}

	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Made{}, err
	}
	var tag [4]byte
	_, _ = rand.Read(tag[:]) // never fails
	ca, caDER, err := signCert(&x509.Certificate{
		Subject:   pkix.Name{Organization: []string{"workmanager"}, CommonName: "workmanager pair " + hex.EncodeToString(tag[:])},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(CATTL),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil, caKey.Public(), caKey)
	if err != nil {
		return Made{}, err
	}
	caKeyPEM, err := keyPEM(caKey)
	if err != nil {
		return Made{}, err
	}
	_, receipt, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Made{}, err
	}
	receiptPEM, err := keyPEM(receipt)
	if err != nil {
		return Made{}, err
	}
	pub, err := x509.MarshalPKIXPublicKey(receipt.Public())
	if err != nil {
		return Made{}, err
	}
	caPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	sum := sha256.Sum256(caDER)
	made = Made{Fingerprint: "SHA256:" + hex.EncodeToString(sum[:]), Folders: map[string]string{}, Tokens: map[string]string{}}
	var tokens []Token
	for _, role := range Roles {
		t, text, err := newToken(role, "init", 0, now)
		if err != nil {
			return Made{}, err
		}
		tokens, made.Tokens[role] = append(tokens, t), text
	}
	gossip, signing := newRing(), newRing()

	for _, n := range nodes {
		folder := filepath.Join(dir, n.Node)
		done = append(done, folder)
		if err := os.Mkdir(folder, 0o700); err != nil {
			return Made{}, err
		}
		certPEM, certKey, err := nodeCert(n, ca, caKey, ttl, now)
		if err != nil {
			return Made{}, err
		}
		err = errors.Join(
			put(caPEM, n.Node, CAFile), put(certPEM, n.Node, CertFile), put(certKey, n.Node, KeyFile), put(gossip, n.Node, GossipFile),
			put(signing, n.Node, CredentialFile), put(receiptPEM, n.Node, ReceiptFile), writeTokens(filepath.Join(folder, TokensFile), tokens))
		if err != nil {
			return Made{}, err
		}
		made.Folders[n.Node] = folder
	}
	err = errors.Join(put(caPEM, CAFile), put(caKeyPEM, CAKeyFile),
		put(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}), ReceiptPubFile), put([]byte(env(made)), EnvFile))
	return made, err
}

// Renew gives the nodes below dir, or those named, new certificates and keys of
// the same authority. A node keeps its names and addresses unless others are
// given. It returns the folders that were renewed.
func Renew(dir string, nodes []Host, ttl time.Duration, now time.Time) ([]string, error) {
	caPEM, err := read(filepath.Join(dir, CAFile))
	if err != nil {
		return nil, err
	}
	ca, err := firstCert(CAFile, caPEM)
	if err != nil {
		return nil, err
	}
	b, err := read(filepath.Join(dir, CAKeyFile))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s: no key in it", CAKeyFile)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", CAKeyFile, err)
	}
	caKey, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: not a key that signs", CAKeyFile)
	}
	in, err := folders(dir)
	if err != nil {
		return nil, err
	}
	var renewed []string
	for _, folder := range in {
		name := filepath.Base(folder)
		i := slices.IndexFunc(nodes, func(n Host) bool { return n.Node == name })
		if len(nodes) > 0 && i < 0 {
			continue
		}
		n := Host{Node: name}
		if i >= 0 {
			n = nodes[i]
		}
		if len(n.Hosts) == 0 {
			old, err := read(filepath.Join(folder, CertFile))
			if err != nil {
				return renewed, err
			}
			c, err := firstCert(filepath.Join(folder, CertFile), old)
			if err != nil {
				return renewed, err
			}
			n.Hosts = slices.Clone(c.DNSNames)
			for _, ip := range c.IPAddresses {
				n.Hosts = append(n.Hosts, ip.String())
			}
		}
		certPEM, key, err := nodeCert(n, ca, caKey, ttl, now)
		if err != nil {
			return renewed, err
		}
		// A node that looks in between finds two that do not fit, and waits.
		if err := errors.Join(replace(filepath.Join(folder, KeyFile), key), replace(filepath.Join(folder, CertFile), certPEM)); err != nil {
			return renewed, err
		}
		renewed = append(renewed, folder)
	}
	for _, n := range nodes {
		if !slices.Contains(renewed, filepath.Join(dir, n.Node)) {
			return renewed, fmt.Errorf("%s has no node %s", dir, n.Node)
		}
	}
	return renewed, nil
}

// nodeCert makes a node's certificate, for both ends of a connection, and its key.
func nodeCert(n Host, ca *x509.Certificate, caKey crypto.Signer, ttl time.Duration, now time.Time) (certPEM, key []byte, err error) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{"workmanager"}, OrganizationalUnit: []string{"node"}, CommonName: n.Node},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(ttl),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if t.NotAfter.After(ca.NotAfter) {
		t.NotAfter = ca.NotAfter
	}
	for _, h := range append([]string{peerHost(n.Node), "localhost", "127.0.0.1", "::1"}, n.Hosts...) {
		if ip := net.ParseIP(h); ip != nil {
			if !slices.ContainsFunc(t.IPAddresses, ip.Equal) {
				t.IPAddresses = append(t.IPAddresses, ip)
			}
		} else if !slices.Contains(t.DNSNames, h) {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	_, der, err := signCert(t, ca, priv.Public(), caKey)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate of node %s: %w", n.Node, err)
	}
	if key, err = keyPEM(priv); err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key, nil
}

// signCert signs a certificate; parent nil is itself.
func signCert(t, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, []byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	t.SerialNumber = serial
	if parent == nil {
		parent = t
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		return nil, nil, err
	}
	c, err := x509.ParseCertificate(der)
	return c, der, err
}

func keyPEM(key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func newRing() []byte {
	var key [keyBytes]byte
	_, _ = rand.Read(key[:]) // never fails
	return []byte(base64.StdEncoding.EncodeToString(key[:]) + "\n")
}

// makeDir makes a folder that only its owner can open.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.Chmod(dir, 0o700) // it may have been there, empty
}

// create writes a new file, which only its owner can open.
func create(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// replace writes a file anew, in one step for whoever reads it.
func replace(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
