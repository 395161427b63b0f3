package node

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReceiptKey(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, receiptKeyFile)
	first, err := receiptKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(name); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v, %v, want 0600", st.Mode(), err)
	}
	again, err := receiptKey(dir)
	if err != nil || !bytes.Equal(again, first) {
		t.Errorf("the second start has another key, %v", err)
	}
	if other, _ := receiptKey(t.TempDir()); bytes.Equal(other, first) {
		t.Error("two nodes have one key")
	}
	for what, text := range map[string]string{
		"no PEM": "hello", "no key": "-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n", "empty": "",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := receiptKey(dir); err == nil || !strings.Contains(err.Error(), receiptKeyFile) {
			t.Errorf("%s: %v, want an error that names the file", what, err)
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != text {
			t.Errorf("%s: the file was changed to %q, %v", what, got, err)
		}
	}
}
