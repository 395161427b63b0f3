package keys

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
)

// FuzzCredential signs what it is given, as one who has the key would: what is
// taken has the kind, the token and the end that let it in, and what is not
// signed, or for another use, is never taken.
func FuzzCredential(f *testing.F) {
	dir, made := cluster(f)
	now := testNow
	k, _ := open(f, filepath.Join(dir, "a"), &now)
	ids := map[string]string{}
	for role, text := range made.Tokens {
		ids[role] = strings.Split(text, "_")[2]
	}
	seed := func(c credential) {
		b, err := json.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, []byte("credential"))
		f.Add(b, []byte("lease"))
	}
	ends := testNow.Add(time.Hour).Unix()
	seed(credential{kindWorker, ids[Worker], "w1", ends, "1"})
	seed(credential{kindWorker, ids[Client], "w1", ends, "1"})
	seed(credential{kindSession, ids[Operator], "", ends, "1"})
	seed(credential{kindSession, ids[Worker], "", ends, "1"})
	seed(credential{kindWorker, ids[Worker], "w1", testNow.Unix(), "1"})
	seed(credential{kindWorker, "", "", -1, ""})
	f.Add([]byte(`{"k":"worker","t":"`+ids[Worker]+`","n":"a","e":9223372036854775807,"r":""} `), []byte("credential"))
	f.Add([]byte(`{"K":"session","T":["x"]}`), []byte("credential"))
	f.Fuzz(func(t *testing.T, payload, use []byte) {
		b64 := base64.RawURLEncoding
		ring := *k.credential.Load()
		for _, text := range []string{
			credentialPrefix + b64.EncodeToString(payload) + "." + b64.EncodeToString(mac(ring[0], string(use), payload)),
			credentialPrefix + b64.EncodeToString(payload) + "." + b64.EncodeToString(mac(make([]byte, keyBytes), "credential", payload)),
			credentialPrefix + string(payload), string(payload), tokenPrefix + string(payload),
		} {
			role, name, worker := k.Identify(text)
			srole, _, session := k.Session(text)
			if !worker && !session {
				continue
			}
			var c credential
			if err := json.Unmarshal(payload, &c); err != nil || string(use) != "credential" || now.Unix() >= c.Ends || len(text) > maxCredential || worker && session {
				t.Fatalf("%q, signed for %q, lets %s %q in, or %s", payload, use, role, name, srole)
			}
			if worker && (role != Enrolled || c.Kind != kindWorker || c.Token != ids[Worker] || name != c.Name) {
				t.Fatalf("%q is %s %q", payload, role, name)
			}
			if session && (c.Kind != kindSession || c.Token != ids[srole] || srole == Worker) {
				t.Fatalf("%q is a login of %s", payload, srole)
			}
			k.Logout(text)
			if _, _, again := k.Session(text); again && session {
				t.Fatalf("%q was logged out and is a login", payload)
			}
			k.ended.nonces = nil
		}
		if k.Leased(string(use), jobs.ID{1}, string(payload)) && k.Ticket(string(use), jobs.ID{1}) != string(payload) {
			t.Fatalf("%q is a ticket of %q", payload, use)
		}
		if one := k.Ticket(string(use), jobs.ID{1}); !k.Leased(string(use), jobs.ID{1}, one) || k.Leased(string(use), jobs.ID{2}, one) || k.Leased(string(use)+"x", jobs.ID{1}, one) {
			t.Fatalf("the ticket of worker %q for one job is %q", use, one)
		}
	})
}

// FuzzFiles gives a running node other files: one that is broken is refused
// without a word of what is in it, one that is taken is whole, and the node
// goes on either way.
func FuzzFiles(f *testing.F) {
	dir, made := cluster(f)
	in := filepath.Join(dir, "a")
	names := []string{TokensFile, GossipFile, CredentialFile, CertFile, KeyFile, CAFile, ReceiptFile}
	good := map[string][]byte{}
	for n, name := range names {
		b, err := os.ReadFile(filepath.Join(in, name))
		if err != nil {
			f.Fatal(err)
		}
		good[name] = b
		f.Add(byte(n), b)
		f.Add(byte(n), b[:len(b)/2])
		f.Add(byte(n), append(bytes.Clone(b), b...))
	}
	f.Add(byte(0), []byte(`{"tokens":[{"id":"","role":"client","sha256":"00"}]}`))
	f.Add(byte(0), []byte(`{"tokens":[{"id":"x","role":"worker","name":"y","worker":"*","sha256":"`+strings.Repeat("00", 32)+`","expires_at":"2020-01-01T00:00:00Z"}]}`))
	f.Add(byte(1), []byte("# none\n\n"))
	f.Add(byte(2), []byte(strings.Repeat("A", 43)+"=\n"+strings.Repeat("A", 44)))
	log := &buffer{}
	k, err := Open(Files{Dir: in}, func() time.Time { return testNow }, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, n byte, b []byte) {
		name := names[int(n)%len(names)]
		if name == ReceiptFile || len(b) > 1<<16 { // the node reads that one
			t.Skip()
		}
		if err := os.WriteFile(filepath.Join(in, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		log.mu.Lock()
		log.b.Reset()
		log.mu.Unlock()
		k.Reload(true)
		said := log.String()
		refused := strings.Contains(said, "refused")
		switch name {
		case TokensFile:
			for id, tok := range *k.tokens.Load() {
				if id == "" || tok.ID != id || !oneOf(tok.Role) || len(tok.SHA256) != 64 {
					t.Errorf("%q: token %+v was taken", b, tok)
				}
			}
			if _, _, ok := k.Identify(made.Tokens[Client]); refused && !ok {
				t.Errorf("%q was refused, and the tokens before are gone", b)
			}
		case GossipFile, CredentialFile:
			for _, key := range append(k.Gossip(), *k.credential.Load()...) {
				if len(key) != keyBytes {
					t.Errorf("%q: a key of %d bytes was taken", b, len(key))
				}
			}
			for line := range strings.Lines(string(b)) {
				if line = strings.TrimSpace(line); len(line) > 20 && strings.Contains(said, line) {
					t.Errorf("the log says %q, which may be a key", said)
				}
			}
		default:
			if k.Name() != "a" || k.Expiry().Node.IsZero() {
				t.Errorf("%s %q: the node is %q until %v", name, b, k.Name(), k.Expiry().Node)
			}
		}
		if err := os.WriteFile(filepath.Join(in, name), good[name], 0o600); err != nil {
			t.Fatal(err)
		}
		k.Reload(true)
		if _, _, ok := k.Identify(made.Tokens[Operator]); !ok {
			t.Errorf("%s %q: not well again with the good file", name, b)
		}
	})
}

func oneOf(role string) bool { return role == Client || role == Operator || role == Worker }
