package node

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// receiptKeyFile is the key that a node signs receipts with, PKCS #8 in PEM. It
// lies in the data folder and belongs to this node alone: the peer has its own.
const receiptKeyFile = "receipt.key"

// receiptKey returns the node's key for receipts, which it makes at the first
// start. It never overwrites one: receipts that are out there name it.
func receiptKey(dir string) (ed25519.PrivateKey, error) {
	name := filepath.Join(dir, receiptKeyFile)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return makeReceiptKey(name)
	}
	if err != nil {
		return nil, fmt.Errorf("read the key for receipts: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("read the key for receipts: %s is no PEM file; move it away and the next start makes another, with which older receipts cannot be checked", name)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the key for receipts in %s: %w", name, err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read the key for receipts: %s holds a %T, want Ed25519", name, key)
	}
	return private, nil
}

func makeReceiptKey(name string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key for receipts: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make a key for receipts: %w", err)
	}
	// Under another name until it is whole: a start that is killed leaves none.
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make a key for receipts: %w", err)
	}
	err = errors.Join(f.Chmod(0o600), pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der}), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return nil, fmt.Errorf("make a key for receipts: %w", err)
	}
	return key, nil
}
