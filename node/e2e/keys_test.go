package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"workmanager/web/api"
)

// TestKeys takes a pair from nothing to closed, as its operator does: two nodes
// over TLS, each role let in where it may and nowhere else, certificates and
// tokens exchanged while it runs, a stranger kept out, and nothing secret told.
func TestKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	made := initKeys(t, dir)
	addrs := map[string]string{"a": freeAddr(t), "b": strings.Replace(freeAddr(t), "127.0.0.1", "127.0.0.2", 1)}
	gossip := map[string]string{"a": freeAddr(t), "b": strings.Replace(freeAddr(t), "127.0.0.1", "127.0.0.2", 1)}
	data := t.TempDir()
	up := func(name, other, keys string) *node {
		p := launch(t, "node "+name, binary, "node", "--keys", filepath.Join(keys, name), "--listen", addrs[name], "--gossip", gossip[name],
			"--join", gossip[other], "--data-dir", filepath.Join(data, name), "--workers", "0", "--log-level", "debug", "--log-format", "text")
		n := &node{process: p, addr: addrs[name], http: secure(t, dir)}
		poll(t, upTimeout, p.name+" serves", func() string {
			if !n.running() {
				t.Fatalf("%s ended at its start: %s", p.name, n.log.String())
			}
			return n.answers("", "GET", "/readyz", 200)
		})
		return n
	}
	a, b := up("a", "b", dir), up("b", "a", dir)
	nodes := []*node{a, b}

	marker := fmt.Sprintf("secret input %d", time.Now().UnixNano())
	enqueue := func(n *node, token string) string {
		r, err := n.tlsAsk("PUT", "/enqueue?iterations=1000&ack=both", marker, token)
		if err != nil {
			return err.Error()
		}
		if r.status != http.StatusOK || r.header.Get(api.HeaderDurability) != "both" {
			return r.String()
		}
		return ""
	}
	for _, n := range nodes {
		poll(t, syncTimeout, n.name+" has jobs on both disks", func() string { return enqueue(n, made.Tokens["client"]) })
	}

	t.Run("each_role_may_what_it_may", func(t *testing.T) {
		other := initKeys(t, filepath.Join(t.TempDir(), "keys"))
		wrong := made.Tokens["client"][:len(made.Tokens["client"])-4] + "AAAA"
		for _, row := range []struct {
			who, token, method, path string
			want                     int
		}{
			{"nobody", "", "PUT", "/enqueue?iterations=5", 401}, {"nobody", "", "GET", "/status", 401}, {"nobody", "", "GET", "/peer/changes", 401}, {"nobody", "", "GET", "/healthz", 200},
			{"wrong", wrong, "GET", "/status", 401}, {"another pair's", other.Tokens["operator"], "GET", "/status", 401},
			{"client", made.Tokens["client"], "GET", "/status", 200}, {"client", made.Tokens["client"], "GET", "/v1/fleet", 403},
			{"client", made.Tokens["client"], "GET", "/peer/changes", 403}, {"client", made.Tokens["client"], "POST", "/worker/enrol", 403},
			{"operator", made.Tokens["operator"], "GET", "/v1/fleet", 200}, {"operator", made.Tokens["operator"], "POST", "/peer/steal", 403},
			{"worker", made.Tokens["worker"], "PUT", "/enqueue?iterations=5", 403}, {"worker", made.Tokens["worker"], "GET", "/v1/results", 403},
		} {
			for _, n := range nodes {
				if said := n.answers(row.token, row.method, row.path, row.want); said != "" {
					t.Errorf("%s, %s: %s", n.name, row.who, said)
				}
			}
		}
	})

	t.Run("a_worker_is_let_in_by_its_token_and_computes", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(made.Tokens["worker"]+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		w := launch(t, "worker", binary, "worker", "--name", "w1", "--cores", "1", "--node", "https://"+addrs["a"], "--node", "https://"+addrs["b"],
			"--ca", filepath.Join(dir, "ca.crt"), "--token", "@"+file, "--log-level", "debug", "--log-format", "text")
		for _, n := range nodes { // one at each: the worker knows both
			poll(t, upTimeout, "jobs at "+n.name+" are computed", func() string {
				r, err := n.tlsAsk("GET", "/v1/jobs?state=completed", "", made.Tokens["client"])
				if err == nil && !strings.Contains(string(r.body), `"state":"completed"`) {
					return "none is"
				}
				if err != nil {
					return err.Error()
				}
				return ""
			})
		}
		w.signal(syscall.SIGTERM)
		if code := w.wait(downTimeout); code != 0 {
			t.Errorf("the worker ended with exit code %d", code)
		}
		if token := made.Tokens["worker"]; strings.Contains(w.log.String(), token[len(token)-20:]) || strings.Contains(w.log.String(), "wmc_") {
			t.Error("a token or a credential is in the log of the worker")
		}
	})

	t.Run("certificates_and_tokens_change_while_it_runs", func(t *testing.T) {
		serial := func(n *node) string {
			c, err := tls.Dial("tcp", n.addr, n.http.Transport.(*http.Transport).TLSClientConfig)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
		}
		before := []string{serial(a), serial(b)}
		if p := command(t, "init", "--out", dir, "--renew"); p.code != 0 {
			t.Fatalf("renew: exit code %d: %s", p.code, p.log.String())
		}
		extra := strings.TrimSpace(func() string {
			p := command(t, "token", "create", "--keys", dir, "--role", "operator", "--name", "second")
			return p.out.String()
		}())
		for i, n := range nodes {
			poll(t, upTimeout, n.name+" goes by its new certificate", func() string {
				if serial(n) == before[i] {
					return "it has the old one"
				}
				return ""
			})
			poll(t, upTimeout, n.name+" takes the new token", func() string { return n.answers(extra, "GET", "/v1/fleet", 200) })
			poll(t, syncTimeout, n.name+", renewed, has jobs on both disks", func() string { return enqueue(n, made.Tokens["client"]) })
		}
		if p := command(t, "token", "revoke", "--keys", dir, extra); p.code != 0 {
			t.Fatalf("revoke: exit code %d: %s", p.code, p.log.String())
		}
		for _, n := range nodes {
			poll(t, upTimeout, n.name+" no longer takes the token", func() string { return n.answers(extra, "GET", "/v1/fleet", 401) })
		}
		poll(t, syncTimeout, "the status says that all is well", func() string {
			r, err := a.tlsAsk("GET", "/v1/status", "", made.Tokens["client"])
			var st api.Status
			if err == nil {
				err = json.Unmarshal(r.body, &st)
			}
			if err != nil || st.Certificate == nil || st.Certificate.DaysLeft < 364 || st.Certificate.CADaysLeft < 3600 || st.Peer.Session != "sync" {
				return fmt.Sprintf("%v, certificate %+v, session %s", err, st.Certificate, st.Peer.Session)
			}
			return ""
		})
		made.Tokens["revoked"] = extra
	})

	t.Run("one_that_comes_back_with_a_new_certificate_is_known", func(t *testing.T) {
		b.kill()
		b = up("b", "a", dir)
		nodes[1] = b
		poll(t, syncTimeout, "jobs are on both disks again", func() string { return enqueue(a, made.Tokens["client"]) })
	})

	t.Run("a_stranger_is_kept_out", func(t *testing.T) {
		strange := filepath.Join(t.TempDir(), "keys")
		initKeys(t, strange)
		p := launch(t, "stranger", binary, "node", "--keys", filepath.Join(strange, "b"), "--listen", freeAddr(t), "--gossip", freeAddr(t),
			"--join", gossip["a"], "--data-dir", t.TempDir(), "--workers", "0", "--log-format", "text")
		plain := launch(t, "plain stranger", binary, "node", "--name", "c", "--listen", freeAddr(t), "--gossip", freeAddr(t),
			"--join", gossip["a"], "--data-dir", t.TempDir(), "--workers", "0", "--log-format", "text")
		poll(t, upTimeout, "the strangers have tried", func() string {
			if !strings.Contains(p.log.String(), "gossip reaches no peer") || !strings.Contains(plain.log.String(), "gossip reaches no peer") {
				return "they have not said so"
			}
			return ""
		})
		for _, x := range []*process{p, plain} {
			if strings.Contains(x.log.String(), "peer found") {
				t.Errorf("%s found a peer", x.name)
			}
		}
		poll(t, syncTimeout, "the pair has jobs on both disks beside them", func() string { return enqueue(a, made.Tokens["client"]) })
	})

	for _, n := range nodes {
		n.stop()
	}
	secrets := map[string]string{"the data of a job": marker}
	for role, text := range made.Tokens {
		secrets["the token of "+role] = text[len(text)-30:] // of its secret, which may have any character of base64
	}
	for _, name := range []string{"gossip.key", "credential.key"} {
		text, err := os.ReadFile(filepath.Join(dir, "a", name))
		if err != nil {
			t.Fatal(err)
		}
		secrets[name] = strings.TrimSpace(string(text))
	}
	for what, secret := range secrets {
		for _, n := range []*node{a, b} {
			if strings.Contains(n.log.String()+n.out.String(), secret) {
				t.Errorf("%s is in the log of %s", what, n.name)
			}
		}
	}
	err := filepath.WalkDir(data, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		fi, err := d.Info()
		if err == nil && fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be opened by others: %v", name, fi.Mode())
		}
		text, err2 := os.ReadFile(name)
		for what, secret := range secrets {
			if strings.Contains(string(text), secret) {
				t.Errorf("%s is in %s", what, name)
			}
		}
		return errors.Join(err, err2)
	})
	if err != nil {
		t.Error(err)
	}
}

// keysMade is what workmanager init prints.
type keysMade struct {
	Tokens map[string]string `json:"tokens"`
}

func initKeys(t testing.TB, dir string) (made keysMade) {
	t.Helper()
	p := command(t, "init", "--out", dir, "--node", "a=127.0.0.1", "--node", "b=127.0.0.2", "-o", "json")
	if err := json.Unmarshal([]byte(p.out.String()), &made); p.code != 0 || err != nil || len(made.Tokens) != 3 {
		t.Fatalf("init: exit code %d, %v: %s", p.code, err, p.log.String())
	}
	return made
}

// secure returns a client that knows the authority of a pair.
func secure(t testing.TB, dir string) *http.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: secureConfig(t, dir)}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

func secureConfig(t testing.TB, dir string) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil || !pool.AppendCertsFromPEM(ca) {
		t.Error("no authority", err)
	}
	return &tls.Config{RootCAs: pool}
}

func (n *node) tlsAsk(method, path, body, token string) (reply, error) {
	headers := []string{"Content-Type", "application/octet-stream"}
	if token != "" {
		headers = append(headers, "Authorization", "Bearer "+token)
	}
	return n.askAt("https://"+n.addr+path, method, strings.NewReader(body), headers...)
}

// answers says what is wrong with the answer of one request, "" if it has the
// status.
func (n *node) answers(token, method, path string, status int) string {
	r, err := n.tlsAsk(method, path, "", token)
	if err != nil {
		return err.Error()
	}
	if r.status != status {
		return fmt.Sprintf("%s %s: %v, want %d", method, path, r, status)
	}
	return ""
}
