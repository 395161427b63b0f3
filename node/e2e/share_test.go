package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"workmanager/web/api"
)

// TestClientShare fills a closed pair with what one client may have open, as the
// client would who wants it all: others submit as ever at both nodes, also after
// both were killed, and what it withdraws it may submit anew.
func TestClientShare(t *testing.T) {
	t.Parallel()
	const share = 2000
	p := newClosedPair(t, "--workers", "0", "--max-client-jobs", fmt.Sprint(share))
	token := map[string]string{}
	for _, name := range []string{"alice", "bob"} {
		token[name] = strings.TrimSpace(command(t, "token", "create", "--keys", p.keys, "--role", "client", "--name", name).out.String())
		for _, n := range []*node{p.a, p.b} {
			poll(t, upTimeout, n.name+" knows "+name, func() string { return n.answers(token[name], "GET", "/v1/status", 200) })
		}
	}
	batch := func(n *node, lines int) (taken, refused []string) {
		t.Helper()
		var body strings.Builder
		for i := range lines {
			fmt.Fprintf(&body, `{"data":"aGVsbG8=","iterations":%d}`+"\n", 1<<40+i)
		}
		r, err := n.tlsAsk("POST", "/v1/jobs/batch", body.String(), token["alice"])
		if err != nil || r.status != 200 {
			t.Fatalf("batch at %s: %v, %v", n.name, r, err)
		}
		for line := range strings.Lines(string(r.body)) {
			var l api.BatchLine
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatal(err)
			}
			switch {
			case l.Error == nil:
				taken = append(taken, l.ID)
			case l.Error.Status == 429:
				refused = append(refused, l.Error.Detail)
			default:
				t.Fatalf("at %s: %s", n.name, line)
			}
		}
		return taken, refused
	}
	open := func(want int64) {
		t.Helper()
		for _, n := range []*node{p.a, p.b} {
			poll(t, syncTimeout, n.name+" counts what alice has open", func() string {
				r, err := n.tlsAsk("GET", "/v1/status", "", token["alice"])
				var st api.Status
				if err == nil {
					err = json.Unmarshal(r.body, &st)
				}
				if err != nil || st.Clients.OwnOpenJobs == nil || *st.Clients.OwnOpenJobs != want {
					return fmt.Sprintf("%s, %v, want %d", r.body, err, want)
				}
				return ""
			})
		}
	}
	full := func() {
		t.Helper()
		for _, n := range []*node{p.a, p.b} {
			r, err := n.tlsAsk("PUT", "/enqueue?iterations=5", "one more", token["alice"])
			if err != nil || r.status != 429 || r.header.Get("Retry-After") == "" || !strings.Contains(string(r.body), "2000 open jobs") {
				t.Errorf("over the share at %s: %v, %v, want 429 with both numbers and Retry-After", n.name, r, err)
			}
			if r, err := n.tlsAsk("PUT", "/enqueue?iterations=5", "bob's", token["bob"]); err != nil || r.status != 200 {
				t.Errorf("bob beside a full share, at %s: %v, %v", n.name, r, err)
			}
		}
	}

	first, refused := batch(p.a, share-500)
	if len(first) != share-500 || len(refused) > 0 {
		t.Fatalf("%d of %d lines taken", len(first), share-500)
	}
	open(share - 500)
	second, refused := batch(p.b, 1200)
	if len(second) != 500 || len(refused) != 700 {
		t.Errorf("at the other node %d lines taken, %d refused, want the 500 that are left and 700", len(second), len(refused))
	}
	open(share)
	full()

	p.a.kill()
	p.b.kill()
	p.a, p.b = p.up("a"), p.up("b")
	p.inStep()
	open(share)
	full()

	for i, id := range []string{first[0], second[0], first[1]} {
		path := "/v1/jobs/" + id
		if i == 2 {
			path += "?purge=true"
		}
		if said := p.b.answers(token["alice"], "DELETE", path, 200); said != "" {
			t.Fatal(said)
		}
	}
	open(share - 3)
	if taken, _ := batch(p.a, 9); len(taken) != 3 {
		t.Errorf("%d lines taken after 3 were withdrawn at the other node", len(taken))
	}
	for _, n := range []*node{p.a, p.b} {
		n.stop()
		if strings.Contains(n.log.String(), token["alice"]) {
			t.Errorf("alice's token is in the log of %s", n.name)
		}
	}
}
