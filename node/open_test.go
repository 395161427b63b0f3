package node

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"workmanager/node/keys"
)

// TestConfig_is_closed_beyond_loopback: what others can reach asks who they are,
// or does not start.
func TestConfig_is_closed_beyond_loopback(t *testing.T) {
	for _, row := range []struct {
		listen, gossip string
		open           bool // from elsewhere
	}{
		{"127.0.0.1:5000", "127.0.0.1:7946", false}, {"127.0.0.2:5000", "127.8.8.8:7946", false}, {"[::1]:5000", "[::1]:7946", false},
		{"localhost:5000", "LocalHost:7946", false}, {"127.0.0.1:5000", "", false}, {"[::ffff:127.0.0.1]:5000", "", false},
		{"0.0.0.0:5000", "", true}, {":5000", "", true}, {"[::]:5000", "", true}, {"10.0.0.1:5000", "", true}, {"example.org:5000", "", true},
		{"127.0.0.1:5000", "0.0.0.0:7946", true}, {"127.0.0.1:5000", ":7946", true}, {"127.0.0.1:5000", "192.168.1.2:7946", true},
		{"localhost.example.org:5000", "", true}, {"127.0.0.1.example.org:5000", "", true}, {"[fe80::1%eth0]:5000", "", true},
	} {
		c := Default()
		c.Listen, c.Gossip = row.listen, row.gossip
		err := c.Validate()
		if !row.open {
			if err != nil {
				t.Errorf("%s, %s: %v, want nothing against it", row.listen, row.gossip, err)
			}
			continue
		}
		for _, word := range []string{"workmanager init", "--keys", "--insecure", "TLS and tokens"} {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("%s, %s: %v, want an error with %q", row.listen, row.gossip, err, word)
			}
		}
		c.Keys = keys.Files{Cert: "x", Key: "y", CA: "z"}
		if c.Validate() == nil {
			t.Errorf("%s, %s: TLS without tokens is taken", row.listen, row.gossip)
		}
		for _, closed := range []Config{{Insecure: true}, {Keys: keys.Files{Dir: "k"}}} {
			c.Insecure, c.Keys = closed.Insecure, closed.Keys
			if err := c.Validate(); err != nil {
				t.Errorf("%s, %s with %+v: %v", row.listen, row.gossip, closed, err)
			}
		}
	}
}

func TestInsecure_says_what_it_gives_up(t *testing.T) {
	log := &strings.Builder{}
	cfg := Default()
	cfg.Listen, cfg.DataDir, cfg.Workers, cfg.Insecure = "0.0.0.0:0", t.TempDir(), 0, true
	n, err := New(cfg, Parts{Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer n.store.Close()
	defer n.listener.Close()
	if !strings.Contains(log.String(), "insecure: whoever reaches this node can submit") || !strings.Contains(log.String(), "--listen 0.0.0.0:0") {
		t.Errorf("the log says %q", log)
	}
}

// TestDuo_over_TLS: the two nodes are in step with the keys of init, and one
// with other keys is none of them.
func TestDuo_over_TLS(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := keys.Init(dir, []keys.Host{{Node: "a"}, {Node: "b"}}, keys.NodeTTL, time.Now(), func(keys.Made) string { return "" }); err != nil {
		t.Fatal(err)
	}
	d := newDuo(t, false, func(a, b *Config) {
		a.Keys, b.Keys = keys.Files{Dir: filepath.Join(dir, "a")}, keys.Files{Dir: filepath.Join(dir, "b")}
	})
	if st := d.a.pair.Peer(); st.Node != "b" {
		t.Errorf("the peer of a is %q", st.Node)
	}
}
