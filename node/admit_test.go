package node

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/node/keys"
)

func TestAdmission(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	made, err := keys.Init(dir, []keys.Host{{Node: "a"}, {Node: "b"}}, keys.NodeTTL, now.Add(-time.Hour), func(keys.Made) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	open := func(node string) *keys.Keys {
		k, err := keys.Open(keys.Files{Dir: filepath.Join(dir, node)}, func() time.Time { return now }, logger)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	ka, kb := open("a"), open("b")
	const id = "i-0123456789abcdef0"
	from := netip.MustParseAddr("10.0.0.7")
	var owns, failed error
	terminates, asked := true, 0
	a := &admission{
		keys: ka, log: logger,
		owns: func(instance string, slot int, at netip.Addr) error {
			if instance != id || slot != 3 || at != from {
				t.Errorf("looks for %s in slot %d at %s", instance, slot, at)
			}
			return owns
		},
		ends: func(_ context.Context, instance string) (bool, error) {
			asked++
			if instance != id {
				t.Errorf("asks for %s", instance)
			}
			return terminates, failed
		},
	}
	admit := func() (string, time.Time, error) { return a.Admit(t.Context(), id, 3, from) }

	owns = jobs.Errorf(jobs.CodeForbidden, "not ours")
	if cred, _, err := admit(); cred != "" || !errors.Is(err, owns) || asked != 0 {
		t.Errorf("not ours: %q, %v, EC2 asked %d times", cred, err, asked)
	}
	owns = nil
	failed = errors.New("EC2 is away")
	if cred, _, err := admit(); cred != "" || jobs.CodeOf(err) != jobs.CodeUnavailable {
		t.Errorf("EC2 away: %q, %v", cred, err)
	}
	failed, terminates = nil, false
	for range 2 { // that it would stop is not remembered: somebody may mend it
		if cred, _, err := admit(); cred != "" || jobs.CodeOf(err) != jobs.CodeForbidden || !strings.Contains(err.Error(), "shutdown behaviour must be terminate") {
			t.Errorf("one that would only stop: %q, %v", cred, err)
		}
	}
	if asked != 3 || !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("EC2 was asked %d times, and the log says %s", asked, &log)
	}
	terminates = true
	cred, ends, err := admit()
	if err != nil || !ends.Equal(now.Add(keys.InstanceTTL)) {
		t.Fatalf("Admit() = %v, %v", ends, err)
	}
	if _, _, err := admit(); err != nil || asked != 4 {
		t.Errorf("again: %v, EC2 asked %d times, want 4", err, asked)
	}
	for _, k := range []*keys.Keys{ka, kb} {
		if role, name, ok := k.Identify(cred); !ok || role != keys.Enrolled || name != id {
			t.Errorf("the credential is of %s %q, %v", role, name, ok)
		}
	}
	if _, _, ok := ka.Session(cred); ok {
		t.Error("it is taken for a login")
	}
	if _, _, ok := ka.Enrol(cred, "w1"); ok {
		t.Error("it buys another name")
	}
	now = now.Add(keys.InstanceTTL)
	if _, _, ok := ka.Identify(cred); ok {
		t.Error("it is good behind its end")
	}

	// A token does not buy the name of an instance where there is a fleet of them.
	cfg := Default()
	cfg.DataDir, cfg.Listen, cfg.Workers = t.TempDir(), "127.0.0.1:0", 0
	n, err := New(cfg, Parts{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.store.Close()    //nolint:errcheck // of a test
	defer n.listener.Close() //nolint:errcheck // of a test
	g := gate{ka, n}
	if _, _, ok := g.Enrol(made.Tokens[keys.Worker], id); !ok {
		t.Error("without a fleet the name is one as any other")
	}
	n.admission = a
	if _, _, ok := g.Enrol(made.Tokens[keys.Worker], id); ok {
		t.Error("a token buys an instance's name")
	}
	if _, _, ok := g.Enrol(made.Tokens[keys.Worker], "w1"); !ok {
		t.Error("a token buys no name at all")
	}
}
