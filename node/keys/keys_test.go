package keys

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"workmanager/jobs"
)

var testNow = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// buffer is a log that may be written while it is read.
type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func noEnv(Made) string { return "" }

// cluster makes keys of nodes a and b.
func cluster(t testing.TB) (dir string, made Made) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "keys")
	made, err := Init(dir, []Host{{"a", []string{"127.0.0.1", "a.example"}}, {"b", []string{"::1"}}}, NodeTTL, testNow, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	return dir, made
}

// open reads the keys of a node whose clock says what now does.
func open(t testing.TB, dir string, now *time.Time) (*Keys, *buffer) {
	t.Helper()
	log := &buffer{}
	k, err := Open(Files{Dir: dir}, func() time.Time { return *now }, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	return k, log
}

func TestInit(t *testing.T) {
	dir, made := cluster(t)
	t.Run("only_their_owner_can_open_the_files", func(t *testing.T) {
		files := 0
		err := filepath.WalkDir(filepath.Dir(dir), func(name string, d fs.DirEntry, err error) error {
			if err != nil || name == filepath.Dir(dir) {
				return err
			}
			fi, err := d.Info()
			want := fs.FileMode(0o600)
			if d.IsDir() {
				want = fs.ModeDir | 0o700
			} else {
				files++
			}
			if err != nil || fi.Mode() != want {
				t.Errorf("%s has mode %v, want %v (%v)", name, fi.Mode(), want, err)
			}
			return nil
		})
		if err != nil || files < 4+2*7 {
			t.Errorf("%d files, %v", files, err)
		}
	})
	t.Run("the_authority_s_key_is_in_no_node_s_folder", func(t *testing.T) {
		for _, node := range []string{"a", "b"} {
			if _, err := os.Stat(filepath.Join(dir, node, CAKeyFile)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("node %s: %v", node, err)
			}
		}
	})
	t.Run("both_nodes_share_what_they_must", func(t *testing.T) {
		for _, name := range []string{CAFile, GossipFile, CredentialFile, ReceiptFile, TokensFile, CertFile, KeyFile} {
			a, err := os.ReadFile(filepath.Join(dir, "a", name))
			b, err2 := os.ReadFile(filepath.Join(dir, "b", name))
			own := name == CertFile || name == KeyFile
			if err != nil || err2 != nil || bytes.Equal(a, b) == own {
				t.Errorf("%s: equal is %v, own is %v, %v, %v", name, bytes.Equal(a, b), own, err, err2)
			}
		}
	})
	t.Run("tokens_are_kept_as_their_hash", func(t *testing.T) {
		b, err := os.ReadFile(filepath.Join(dir, "a", TokensFile))
		if err != nil {
			t.Fatal(err)
		}
		for role, text := range made.Tokens {
			secret := text[len(text)-30:]
			if raw, err := base64.RawURLEncoding.DecodeString(text[len(text)-43:]); err != nil || len(raw) != 32 {
				t.Errorf("the %s token has %d random bytes, want 32 (%v)", role, len(raw), err)
			}
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("the %s token is in %s", role, TokensFile)
			}
		}
	})
	t.Run("the_certificate_has_the_names", func(t *testing.T) {
		b, err := os.ReadFile(filepath.Join(dir, "a", CertFile))
		if err != nil {
			t.Fatal(err)
		}
		c, err := firstCert("a", b)
		if err != nil {
			t.Fatal(err)
		}
		for _, host := range []string{"127.0.0.1", "a.example", "localhost", "::1", "a.node.workmanager.internal"} {
			if err := c.VerifyHostname(host); err != nil {
				t.Error(err)
			}
		}
		if c.VerifyHostname("b.node.workmanager.internal") == nil || c.Subject.CommonName != "a" || c.IsCA {
			t.Errorf("subject %v, names %v, authority %v", c.Subject, c.DNSNames, c.IsCA)
		}
	})
	t.Run("nothing_is_overwritten", func(t *testing.T) {
		before, err := os.ReadFile(filepath.Join(dir, CAKeyFile))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Init(dir, []Host{{"a", nil}}, NodeTTL, testNow, noEnv); !errors.Is(err, ErrExists) {
			t.Errorf("Init again: %v, want %v", err, ErrExists)
		}
		if after, err := os.ReadFile(filepath.Join(dir, CAKeyFile)); err != nil || !bytes.Equal(before, after) {
			t.Errorf("the authority's key has changed, %v", err)
		}
	})
	t.Run("bad_names_leave_nothing_behind", func(t *testing.T) {
		for _, nodes := range [][]Host{nil, {{"", nil}}, {{"..", nil}}, {{"a/b", nil}}, {{"a", nil}, {"A", nil}}, {{"ca.key", nil}}, {{"a", []string{"bad\x00host é"}}}} {
			dir := filepath.Join(t.TempDir(), "x")
			if _, err := Init(dir, nodes, NodeTTL, testNow, noEnv); err == nil {
				t.Errorf("Init of %q: no error", nodes)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 0 {
				t.Errorf("Init of %q left %v", nodes, entries)
			}
		}
	})
}

func TestTokens(t *testing.T) {
	dir, made := cluster(t)
	_, foreign := cluster(t)
	now := testNow
	k, log := open(t, filepath.Join(dir, "a"), &now)
	for role, text := range made.Tokens {
		if got, name, ok := k.Identify(text); !ok || got != role || name != "init" {
			t.Errorf("Identify(%s) = %q, %q, %v", role, got, name, ok)
		}
		for _, wrong := range []string{text[:len(text)-1], text + "x", strings.ToUpper(text), " " + text, text[3:], strings.Replace(text, role, "operator ", 1), foreign.Tokens[role],
			"wm_" + role + "_" + strings.Split(text, "_")[2] + "_", "wm_operator" + strings.TrimPrefix(text, "wm_"+role)} {
			if got, _, ok := k.Identify(wrong); ok && wrong != text {
				t.Errorf("Identify(%q) = %q", wrong, got)
			}
		}
	}
	for _, wrong := range []string{"", "wm_", "wm___", "wmc_", "wmc_.", "wmc_a.b", "Bearer", strings.Repeat("x", 1<<20)} {
		if got, _, ok := k.Identify(wrong); ok {
			t.Errorf("Identify(%.20q) = %q", wrong, got)
		}
	}

	tok, text, err := CreateToken(dir, Client, "ci", time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok := k.Identify(text); ok {
		t.Error("a token is good before it was read")
	}
	k.Reload(false)
	if role, name, ok := k.Identify(text); !ok || role != Client || name != "ci" {
		t.Errorf("Identify = %q, %q, %v", role, name, ok)
	}
	kb, _ := open(t, filepath.Join(dir, "b"), &now)
	if _, _, ok := kb.Identify(text); !ok {
		t.Error("the token is not good at the other node")
	}
	now = now.Add(time.Hour)
	if _, _, ok := k.Identify(text); ok {
		t.Error("the token outlives its time")
	}
	now = testNow
	if list, missing, err := ListTokens(dir); err != nil || len(list) != 4 || len(missing) != 0 || !slices.ContainsFunc(list, func(t Token) bool { return t.ID == tok.ID }) {
		t.Errorf("ListTokens = %v, %v, %v", list, missing, err)
	}
	if err := RevokeToken(dir, "nosuch"); !errors.Is(err, ErrNoToken) {
		t.Errorf("RevokeToken of none: %v", err)
	}
	if err := RevokeToken(filepath.Join(dir, "a"), tok.ID); err != nil { // one node only
		t.Fatal(err)
	}
	if _, missing, err := ListTokens(dir); err != nil || len(missing[tok.ID]) != 1 {
		t.Errorf("a token that one node has not: %v, %v", missing, err)
	}
	k.Reload(false)
	if _, _, ok := k.Identify(text); ok {
		t.Error("the token outlives its revocation")
	}
	for _, bad := range []struct{ role, name string }{{"admin", "x"}, {Client, ""}, {Client, "a b"}, {Client, strings.Repeat("x", 64)}} {
		if _, _, err := CreateToken(dir, bad.role, bad.name, 0, now); err == nil {
			t.Errorf("CreateToken(%q, %q): no error", bad.role, bad.name)
		}
	}
	for _, text := range append(slices.Collect(func(yield func(string) bool) {
		for _, text := range made.Tokens {
			yield(text)
		}
	}), text) {
		if strings.Contains(log.String(), text[len(text)-20:]) {
			t.Error("a token is in the log")
		}
	}
}

func TestCredentials(t *testing.T) {
	dir, made := cluster(t)
	otherDir, other := cluster(t)
	now := testNow
	k, _ := open(t, filepath.Join(dir, "a"), &now)
	kb, _ := open(t, filepath.Join(dir, "b"), &now)
	foreign, _ := open(t, filepath.Join(otherDir, "a"), &now)

	cred, ends, ok := k.Enrol(made.Tokens[Worker], "w1")
	if !ok || !ends.Equal(now.Add(WorkerTTL)) {
		t.Fatalf("Enrol = %v, %v", ends, ok)
	}
	good := func(k *Keys, text string) bool {
		role, name, ok := k.Identify(text)
		return ok && role == Enrolled && name == "w1"
	}
	if !good(k, cred) || !good(kb, cred) {
		t.Error("the credential is not good at both nodes")
	}
	t.Run("only_a_worker_s_token_buys_one", func(t *testing.T) {
		for what, token := range map[string]string{"client": made.Tokens[Client], "operator": made.Tokens[Operator], "none": "", "another pair's": other.Tokens[Worker], "a credential": cred} {
			if _, _, ok := k.Enrol(token, "w1"); ok {
				t.Errorf("%s: enrolled", what)
			}
		}
		for _, name := range []string{"", "a b", "w\n", strings.Repeat("w", 64), "é"} {
			if _, _, ok := k.Enrol(made.Tokens[Worker], name); ok {
				t.Errorf("%q: enrolled", name)
			}
		}
	})
	t.Run("forged", func(t *testing.T) {
		for i := range len(cred) {
			b := []byte(cred)
			b[i] ^= 1
			if good(k, string(b)) {
				t.Errorf("byte %d changed: %s is taken", i, b)
			}
		}
		head, tail, _ := strings.Cut(strings.TrimPrefix(cred, "wmc_"), ".")
		payload, _ := base64.RawURLEncoding.DecodeString(head)
		forged := base64.RawURLEncoding.EncodeToString(bytes.Replace(payload, []byte(`"w1"`), []byte(`"w2"`), 1))
		for _, text := range []string{"wmc_" + forged + "." + tail, "wmc_" + head + ".", "wmc_" + head, "wmc_" + head + "." + tail[:len(tail)-3], "wmc_" + head + "." + tail + "AA"} {
			if _, name, ok := k.Identify(text); ok {
				t.Errorf("%s is taken for worker %s", text, name)
			}
		}
		if good(foreign, cred) {
			t.Error("another pair takes it")
		}
	})
	t.Run("it_is_no_session_and_a_session_is_none", func(t *testing.T) {
		if _, _, ok := k.Session(cred); ok {
			t.Error("a worker's credential is taken for a session")
		}
		session, _, ok := k.Login(made.Tokens[Operator])
		if role, name, sok := k.Session(session); !ok || !sok || role != Operator || name != "init" {
			t.Errorf("Session = %q, %q, %v", role, name, sok)
		}
		if _, _, ok := k.Identify(session); ok {
			t.Error("a session is taken for a token")
		}
		if _, _, ok := k.Login(made.Tokens[Worker]); ok {
			t.Error("a worker's token logs in")
		}
	})
	t.Run("replayed_after_its_time", func(t *testing.T) {
		now = testNow.Add(WorkerTTL - time.Second)
		before := good(k, cred)
		now = testNow.Add(WorkerTTL)
		if !before || good(k, cred) || good(kb, cred) {
			t.Errorf("good a second before its end: %v, at its end: %v, %v", before, good(k, cred), good(kb, cred))
		}
		now = testNow
	})
	t.Run("the_key_is_exchanged_without_a_gap", func(t *testing.T) {
		name := filepath.Join(dir, "a", CredentialFile)
		old, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := replace(name, append(newRing(), old...)); err != nil {
			t.Fatal(err)
		}
		k.Reload(true)
		fresh, _, _ := k.Enrol(made.Tokens[Worker], "w1")
		if !good(k, cred) || !good(k, fresh) || good(kb, fresh) {
			t.Error("with both keys: the old and the new must be good here, and the new not yet there")
		}
		if err := replace(name, old); err != nil {
			t.Fatal(err)
		}
		k.Reload(true)
		if !good(k, cred) || good(k, fresh) {
			t.Error("a key that is gone still signs")
		}
	})
	t.Run("tickets", func(t *testing.T) {
		one, two := jobs.ID{1}, jobs.ID{2}
		ticket := k.Ticket("w1", one)
		now = testNow.Add(1000 * time.Hour) // a late value counts
		if !k.Leased("w1", one, ticket) || !kb.Leased("w1", one, ticket) {
			t.Error("the worker's own ticket is not good at both nodes")
		}
		now = testNow
		for what, bad := range map[string]bool{
			"another job": k.Leased("w1", two, ticket), "another worker": k.Leased("w2", one, ticket), "another pair": foreign.Leased("w1", one, ticket),
			"none": k.Leased("w1", one, ""), "cut": k.Leased("w1", one, ticket[:10]), "longer": k.Leased("w1", one, ticket+"AA"),
		} {
			if bad {
				t.Errorf("%s: taken", what)
			}
		}
	})
	t.Run("it_ends_with_its_token", func(t *testing.T) {
		if err := RevokeToken(dir, strings.Split(made.Tokens[Worker], "_")[2]); err != nil {
			t.Fatal(err)
		}
		k.Reload(false)
		if good(k, cred) {
			t.Error("the credential outlives its token")
		}
	})
}

func TestReload(t *testing.T) {
	dir, made := cluster(t)
	now := testNow
	k, log := open(t, filepath.Join(dir, "a"), &now)
	in := func(name string) string { return filepath.Join(dir, "a", name) }
	for _, name := range []string{CertFile, KeyFile, CAFile, GossipFile, CredentialFile, TokensFile} {
		t.Run(name, func(t *testing.T) {
			good, err := os.ReadFile(in(name))
			if err != nil {
				t.Fatal(err)
			}
			for _, bad := range [][]byte{nil, []byte("nonsense\n"), good[:len(good)/2]} {
				if err := replace(in(name), bad); err != nil {
					t.Fatal(err)
				}
				before, was := len(log.String()), *k.tls.Load()
				k.Reload(false)
				k.Reload(false)
				said := log.String()[before:]
				if strings.Count(said, "refused, the former goes on") != 1 || !strings.Contains(said, name) {
					t.Errorf("%d bytes: the log says %q, want one refusal that names %s", len(bad), said, name)
				}
				if *k.tls.Load() != was || len(k.Gossip()) != 1 {
					t.Error("the former did not go on")
				}
				if _, _, ok := k.Identify(made.Tokens[Client]); !ok {
					t.Error("the tokens did not go on")
				}
			}
			if err := os.Remove(in(name)); err != nil {
				t.Fatal(err)
			}
			k.Reload(false)
			if err := replace(in(name), good); err != nil {
				t.Fatal(err)
			}
			k.Reload(false)
			if _, _, ok := k.Identify(made.Tokens[Client]); !ok {
				t.Error("not well again with the good file")
			}
		})
	}
	t.Run("renewed", func(t *testing.T) {
		old := k.tls.Load().cert.Leaf
		now = testNow.Add(300 * 24 * time.Hour)
		renewed, err := Renew(dir, nil, NodeTTL, now)
		if err != nil || len(renewed) != 2 {
			t.Fatalf("Renew = %v, %v", renewed, err)
		}
		k.Reload(false)
		leaf := k.tls.Load().cert.Leaf
		if !leaf.NotAfter.Equal(now.Add(NodeTTL)) || leaf.Equal(old) || leaf.VerifyHostname("a.example") != nil {
			t.Errorf("the node goes by a certificate until %v, want %v", leaf.NotAfter, now.Add(NodeTTL))
		}
		if e := k.Expiry(); DaysLeft(e.Node, now) != 365 || DaysLeft(e.CA, now) != 3650-300 {
			t.Errorf("expiry %+v", e)
		}
		if _, err := Renew(dir, []Host{{Node: "c"}}, NodeTTL, now); err == nil {
			t.Error("a node that is not there was renewed")
		}
	})
	t.Run("another_node_s_certificate_is_refused", func(t *testing.T) {
		for _, name := range []string{CertFile, KeyFile} {
			b, err := os.ReadFile(filepath.Join(dir, "b", name))
			if err != nil {
				t.Fatal(err)
			}
			if err := replace(in(name), b); err != nil {
				t.Fatal(err)
			}
		}
		k.Reload(false)
		if k.Name() != "a" {
			t.Errorf("node a has become %s", k.Name())
		}
	})
	t.Run("an_end_is_warned_of_in_time", func(t *testing.T) {
		now = k.Expiry().Node.Add(-31 * 24 * time.Hour)
		k.warn()
		if strings.Contains(log.String(), "ends soon") {
			t.Error("warned too early")
		}
		for range 3 {
			now = now.Add(25 * time.Hour)
			k.warn()
			k.warn()
		}
		if n := strings.Count(log.String(), "ends soon"); n != 3 {
			t.Errorf("warned %d times in three looks, 25 hours apart and each twice, want 3", n)
		}
	})
}

// TestTLS tries who gets through to whom.
func TestTLS(t *testing.T) {
	dir, _ := cluster(t)
	foreignDir, _ := cluster(t)
	now := testNow
	open := func(dir string) *Keys { k, _ := open(t, dir, &now); return k }
	a, b, foreign := open(filepath.Join(dir, "a")), open(filepath.Join(dir, "b")), open(filepath.Join(foreignDir, "b"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tl := tls.NewListener(l, a.Server())
	t.Cleanup(func() { tl.Close() })
	go func() {
		for {
			c, err := tl.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if c.(*tls.Conn).Handshake() == nil {
					who := "nobody"
					if chains := c.(*tls.Conn).ConnectionState().VerifiedChains; len(chains) > 0 {
						who = chains[0][0].Subject.CommonName
					}
					_, _ = io.WriteString(c, who) // the client may have gone
				}
			}()
		}
	}()
	said := func(c net.Conn, err error) (string, error) {
		if err != nil {
			return "", err
		}
		defer c.Close()
		who, err := io.ReadAll(c)
		return string(who), err
	}
	if who, err := said(b.Dial(t.Context(), l.Addr().String(), "a")); who != "b" || err != nil {
		t.Errorf("b dials a and is taken for %q, %v", who, err)
	}
	if _, err := said(b.Dial(t.Context(), l.Addr().String(), "c")); err == nil {
		t.Error("a is taken for node c")
	}
	if _, err := said(foreign.Dial(t.Context(), l.Addr().String(), "a")); err == nil {
		t.Error("a node of another pair connects")
	}
	client := func(min, max uint16, cert *Keys) (string, error) {
		cfg := &tls.Config{RootCAs: a.tls.Load().roots, MinVersion: min, MaxVersion: max, ServerName: "127.0.0.1", Time: func() time.Time { return testNow }}
		if cert != nil {
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert.tls.Load().cert, nil } // whatever is asked for
		}
		c, err := tls.Dial("tcp", l.Addr().String(), cfg)
		if err != nil {
			return "", err
		}
		return said(c, nil)
	}
	if who, err := client(tls.VersionTLS12, tls.VersionTLS13, nil); who != "nobody" || err != nil {
		t.Errorf("a client without a certificate is taken for %q, %v", who, err)
	}
	if _, err := client(tls.VersionTLS12, tls.VersionTLS12, nil); err != nil {
		t.Errorf("TLS 1.2: %v", err)
	}
	if _, err := client(tls.VersionTLS10, tls.VersionTLS11, nil); err == nil {
		t.Error("TLS 1.1 is taken")
	}
	if _, err := client(0, 0, foreign); err == nil {
		t.Error("a certificate of another authority is taken")
	}
	now = testNow.Add(NodeTTL + time.Hour)
	if _, err := client(0, 0, b); err == nil {
		t.Error("a certificate that has expired is taken")
	}
	if _, err := Open(Files{Dir: filepath.Join(dir, "a")}, func() time.Time { return now }, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "init --renew") {
		t.Errorf("Open with an expired certificate: %v", err)
	}
}

func TestRun_reads_again_on_a_signal_and_by_itself(t *testing.T) {
	dir, _ := cluster(t)
	now := testNow
	k, _ := open(t, filepath.Join(dir, "a"), &now)
	told := make(chan int, 10)
	k.OnGossip(func(ring [][]byte) { told <- len(ring) })
	ctx, cancel := context.WithCancel(t.Context())
	reload, done := make(chan os.Signal, 1), make(chan error, 1)
	go func() { done <- k.Run(ctx, reload) }()
	reload <- os.Interrupt
	if n := <-told; n != 1 {
		t.Errorf("%d keys after the signal, want 1", n)
	}
	if err := replace(filepath.Join(dir, "a", GossipFile), append(append([]byte("# two\n\n"), newRing()...), newRing()...)); err != nil {
		t.Fatal(err)
	}
	if n := <-told; n != 2 {
		t.Errorf("%d keys by itself, want 2", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOpen_says_what_is_missing(t *testing.T) {
	dir, _ := cluster(t)
	log := slog.New(slog.DiscardHandler)
	at := func() time.Time { return testNow }
	if _, err := Open(Files{Cert: "x"}, at, log); err == nil || !strings.Contains(err.Error(), "--tls-key") {
		t.Errorf("a certificate alone: %v", err)
	}
	_, err := Open(Files{Dir: dir}, at, log) // the folder above
	for _, name := range []string{CertFile, GossipFile, CredentialFile, TokensFile} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("an empty folder: %v, want %s named", err, name)
		}
	}
	in := func(name string) string { return filepath.Join(dir, "a", name) }
	k, err := Open(Files{Cert: in(CertFile), Key: in(KeyFile), CA: in(CAFile)}, at, log)
	if err != nil || k.Tokens() || k.Gossip() != nil {
		t.Errorf("TLS alone: %v", err)
	}
	if _, _, ok := k.Enrol("wm_worker_1_2", "w"); ok {
		t.Error("enrolled without tokens")
	}
	if err := os.Chmod(in(KeyFile), 0o644); err != nil {
		t.Fatal(err)
	}
	said := &buffer{}
	if _, err := Open(Files{Dir: filepath.Join(dir, "a")}, at, slog.New(slog.NewTextHandler(said, nil))); err != nil || !strings.Contains(said.String(), KeyFile) {
		t.Errorf("a key that others can read: %v, the log says %q", err, said)
	}
	ca, _ := os.ReadFile(filepath.Join(dir, CAFile))
	if block, _ := pem.Decode(ca); block == nil {
		t.Error("no authority")
	} else if c, err := x509.ParseCertificate(block.Bytes); err != nil || !c.IsCA || !c.MaxPathLenZero {
		t.Errorf("the authority: %v, %v", c, err)
	}
}

// FuzzIdentify: nothing but what was given out lets anybody in, and nothing panics.
func FuzzIdentify(f *testing.F) {
	dir, made := cluster(f)
	now := testNow
	k, _ := open(f, filepath.Join(dir, "a"), &now)
	cred, _, _ := k.Enrol(made.Tokens[Worker], "w1")
	given := []string{made.Tokens[Client], made.Tokens[Operator], made.Tokens[Worker], cred}
	for _, text := range given {
		f.Add(text)
	}
	f.Add("wmc_e30.e30")
	f.Fuzz(func(t *testing.T, text string) {
		if _, _, ok := k.Identify(text); ok && !slices.Contains(given, text) {
			t.Errorf("%q lets somebody in", text)
		}
		if _, _, ok := k.Session(text); ok {
			t.Errorf("%q is a session", text)
		}
		if k.Leased("w1", jobs.ID{1}, text) {
			t.Errorf("%q is a ticket", text)
		}
	})
}

// What a node signs for workers of its fleet is good at both nodes, for the one
// name, and for nothing but to work.
func TestPass(t *testing.T) {
	dir, made := cluster(t)
	otherDir, _ := cluster(t)
	now := testNow
	k, _ := open(t, filepath.Join(dir, "a"), &now)
	kb, _ := open(t, filepath.Join(dir, "b"), &now)
	foreign, _ := open(t, filepath.Join(otherDir, "a"), &now)

	pass, ok := k.Pass("p-1-0-1")
	if !ok {
		t.Fatal("no pass")
	}
	if role, name, ok := kb.Identify(pass); !ok || role != Worker || name != "p-1-0-1" {
		t.Errorf("Identify() of a pass = %s, %s, %t, want what may enrol", role, name, ok)
	}
	if _, _, ok := kb.Session(pass); ok {
		t.Error("a pass is a login")
	}
	if _, _, ok := kb.Login(pass); ok {
		t.Error("a pass buys a login")
	}
	cred, ends, ok := kb.Enrol(pass, "p-1-0-1")
	if !ok || !ends.Equal(now.Add(WorkerTTL)) {
		t.Fatalf("Enrol() with a pass = %v, %t", ends, ok)
	}
	if role, name, ok := k.Identify(cred); !ok || role != Enrolled || name != "p-1-0-1" {
		t.Errorf("Identify() of what it bought = %s, %s, %t", role, name, ok)
	}
	altered := pass[:len(pass)-1] + "A" // the last character of 32 bytes is one of sixteen, four apart
	if altered == pass {
		altered = pass[:len(pass)-1] + "E"
	}
	for what, try := range map[string]func() bool{
		"another name":             func() bool { _, _, ok := k.Enrol(pass, "p-1-0-2"); return ok },
		"another pair":             func() bool { _, _, ok := foreign.Enrol(pass, "p-1-0-1"); return ok },
		"a credential for a pass":  func() bool { _, _, ok := k.Enrol(cred, "p-1-0-1"); return ok },
		"a pass that was altered":  func() bool { _, _, ok := k.Enrol(altered, "p-1-0-1"); return ok },
		"a pass for no name":       func() bool { _, ok := k.Pass("a b"); return ok },
		"a credential for no name": func() bool { _, _, ok := k.Admit(""); return ok },
	} {
		if try() {
			t.Errorf("%s: let in", what)
		}
	}
	if _, _, ok := k.Enrol(made.Tokens[Worker], "w1"); !ok {
		t.Error("a token enrols no more")
	}
	now = now.Add(PassTTL - time.Minute)
	if _, _, ok := k.Enrol(pass, "p-1-0-1"); !ok {
		t.Error("it is not good for as long as a worker lives")
	}
	if _, _, ok := k.Identify(cred); ok {
		t.Error("a credential is good for ever")
	}
	now = now.Add(time.Minute)
	if _, _, ok := k.Enrol(pass, "p-1-0-1"); ok {
		t.Error("a pass is good for ever")
	}
}
