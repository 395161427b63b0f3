package e2e

import (
	"bytes"
	"context"
	"crypto/sha512"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSecrets does with a closed pair all that there is to do, rightly and
// wrongly, with its logs at debug, and then looks for what must not be told: in
// logs, metrics, status, events, command lines, environments and files; and for
// files that others may open, though nothing but the program itself sees to it.
func TestSecrets(t *testing.T) {
	open := `umask 0; exec "$@"` // files are closed because they are made so
	dir, data := filepath.Join(t.TempDir(), "keys"), filepath.Join(t.TempDir(), "data")
	p := &closedPair{t: t, keys: dir, data: data, addr: map[string]string{}, gossip: map[string]string{}}
	init := launch(t, "init", "sh", "-c", open, "sh", binary, "init", "--out", dir, "--node", "a=127.0.0.1", "--node", "b=127.0.0.2", "-o", "json")
	if code := init.wait(downTimeout); code != 0 {
		t.Fatalf("init: exit code %d: %s", code, init.log.String())
	}
	if err := json.Unmarshal([]byte(init.out.String()), &p.made); err != nil {
		t.Fatal(err)
	}
	for name, ip := range map[string]string{"a": "127.0.0.1", "b": "127.0.0.2"} {
		p.addr[name] = strings.Replace(freeAddr(t), "127.0.0.1", ip, 1)
		p.gossip[name] = strings.Replace(freeAddr(t), "127.0.0.1", ip, 1)
	}
	p.prefix = []string{"sh", "-c", open, "sh"}
	p.flags = []string{"--workers", "0"}
	p.a, p.b = p.up("a"), p.up("b")
	p.inStep()
	nodes := []*node{p.a, p.b}
	client, operator := p.made.Tokens["client"], p.made.Tokens["operator"]

	secrets := map[string]string{}
	keep := func(what, text string) {
		if len(text) < 20 {
			t.Fatalf("%s is %q, too short to look for", what, text)
		}
		secrets[what] = text
	}
	token := func(what, text string) { keep(what, text[len(text)-30:]) } // of its secret, which may have any character of base64
	for role, text := range p.made.Tokens {
		token("the token of "+role, text)
	}
	for _, name := range []string{"a/gossip.key", "a/credential.key", "a/node.key", "b/node.key", "a/receipt.key", "ca.key"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); len(line) > 40 && !strings.HasPrefix(line, "-") {
				keep("a line of "+name, line)
				break
			}
		}
	}
	// stored is what a node must have, and tells only whoever asks for it by name.
	stored := map[string]string{}
	values := func(what string, data []byte) {
		v1 := sha512.Sum512(data)
		v2 := sha512.Sum512(v1[:])
		keep("the data of "+what, string(data))
		keep("the data of "+what+" in base64", base64.StdEncoding.EncodeToString(data)[:24])
		for name, v := range map[string][]byte{"v1": v1[:], "the value": v2[:]} {
			stored[name+" of "+what] = hex.EncodeToString(v)
			stored[name+" of "+what+" in base64"] = base64.StdEncoding.EncodeToString(v)[:80]
			stored[name+" of "+what+" as bytes"] = string(v)
			stored[name+" of "+what+" in Go"] = strings.Trim(fmt.Sprint(v), "[]")
		}
	}

	// What is read while all goes on: metrics, status, events.
	var told buffer
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	streams := make(chan struct{}, len(nodes))
	for _, n := range nodes {
		r, err := http.NewRequestWithContext(ctx, "GET", "https://"+n.addr+"/v1/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+client)
		stream := *n.http
		stream.Timeout = 0
		resp, err := stream.Do(r)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("events: %v, %v", resp, err)
		}
		go func() {
			defer resp.Body.Close()
			_, _ = io.Copy(&told, resp.Body) // it is cut
			streams <- struct{}{}
		}()
	}
	look := func() {
		for _, n := range nodes {
			for _, path := range []string{"/metrics", "/status", "/v1/status", "/v1/fleet", "/healthz", "/readyz"} {
				r, err := n.tlsAsk("GET", path, "", operator)
				if err != nil || r.status != 200 {
					t.Errorf("%s: %v, %v", path, r, err)
				}
				_, _ = told.Write(r.body) // of a buffer
			}
		}
	}

	ids := map[string]string{}
	mark := time.Now().UnixNano()
	for n, form := range []string{"application/octet-stream", "application/x-www-form-urlencoded", "multipart/form-data", "application/json", "batch"} {
		text := fmt.Sprintf("input-of-a-customer-%d-%d", mark, n)
		values(form, []byte(text))
		path, body, ct := "/enqueue?iterations=2", text, form
		method := "PUT"
		switch form {
		case "application/x-www-form-urlencoded":
			body = "data=" + text
		case "multipart/form-data":
			var b bytes.Buffer
			w := multipart.NewWriter(&b)
			part, err := w.CreateFormFile("data", "customer.bin")
			if err == nil {
				_, err = io.WriteString(part, text)
			}
			if err != nil || w.Close() != nil {
				t.Fatal(err)
			}
			body, ct = b.String(), w.FormDataContentType()
		case "application/json":
			body = `{"data":"` + base64.StdEncoding.EncodeToString([]byte(text)) + `"}`
		case "batch":
			method, path, ct = "POST", "/v1/jobs/batch", "application/x-ndjson"
			line := `{"data":"` + base64.StdEncoding.EncodeToString([]byte(text)) + `","iterations":`
			body = line + "2}\n" + line + "0}\n" + line + "\n"
		}
		r, err := nodes[n%2].askAt("https://"+nodes[n%2].addr+path, method, strings.NewReader(body), "Content-Type", ct, "Authorization", "Bearer "+client)
		if err != nil || r.status != 200 {
			t.Fatalf("%s: %v, %v", form, r, err)
		}
		if n == 0 {
			ids["job"] = strings.Split(string(r.body), `"`)[3]
		}
	}
	look()

	// Wrongly: each of these is refused, and a token is where none belongs.
	wrong := client[:len(client)-6] + "AAAAAA"
	for _, n := range nodes {
		for _, row := range []struct {
			method, path, body, token string
		}{
			{"GET", "/v1/status", "", wrong}, {"GET", "/v1/status?token=" + client, "", ""}, {"GET", "/" + client, "", client}, {"GET", "/v1/jobs/" + operator, "", client},
			{"GET", "/v1/jobs?after=" + client, "", client}, {"PUT", "/enqueue?iterations=" + client, "x", client}, {"POST", "/v1/jobs", `{"data":"` + client + `"}`, client},
			{"POST", "/worker/enrol", `{"name":"` + operator + `"}`, p.made.Tokens["worker"]}, {"POST", "/worker/lease", `{"worker":{"name":"` + client + `"}}`, client},
			{"POST", "/login", "token=" + wrong, ""}, {"POST", "/peer/steal", `{"node":"b"}`, operator}, {"POST", "/v1/fleet?do=nosuch&instance=i-1", "", operator},
			{"PUT", "/enqueue?iterations=2&priority=x", "input that is refused, of a customer", client}, {"DELETE", "/v1/jobs/" + client, "", client},
		} {
			if r, err := n.tlsAsk(row.method, row.path, row.body, row.token); err != nil || r.status >= 500 || r.status < 300 && row.path != "/login" { // which leads back to its page
				t.Errorf("%s %.30s: %v, %v", row.method, row.path, r, err)
			}
		}
		plain, err := tls.Dial("tcp", n.addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}) //nolint:gosec // it is to be refused
		if err == nil {
			plain.Close()
			t.Error("TLS 1.1 is taken")
		}
		if r, err := n.askAt("http://"+n.addr+"/v1/status?token="+client, "GET", nil, "Authorization", "Bearer "+client); err != nil || r.status != 400 {
			t.Errorf("in the clear: %v, %v", r, err)
		}
	}
	keep("data that is refused", "input that is refused, of a customer")

	// The dashboard, and a worker's credential.
	form := url.Values{"token": {operator}}.Encode()
	h := *p.a.http
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := h.Post("https://"+p.a.addr+"/login", "application/x-www-form-urlencoded", strings.NewReader(form))
	if err != nil || len(resp.Cookies()) != 1 {
		t.Fatalf("login: %v, %v", resp, err)
	}
	resp.Body.Close()
	cookie := resp.Cookies()[0]
	token("a login", cookie.Value)
	for path, status := range map[string]int{"/": 200, "/v1/status": 200, "/login": 200, "/docs": 200, "/v1/fleet": 200} {
		r, err := p.a.askAt("https://"+p.a.addr+path, "GET", nil, "Cookie", cookie.Name+"="+cookie.Value)
		if err != nil || r.status != status {
			t.Errorf("logged in, %s: %.300v, %v", path, r, err)
		}
		_, _ = told.Write(r.body) // of a buffer
	}
	if r, err := p.a.askAt("https://"+p.a.addr+"/logout", "POST", nil, "Cookie", cookie.Name+"="+cookie.Value); err != nil || r.status != 200 { // of the page of the login
		t.Errorf("logout: %v, %v", r, err)
	}
	r, err := p.b.tlsAsk("POST", "/worker/enrol", `{"name":"by-hand"}`, p.made.Tokens["worker"])
	var enrolled struct{ Credential string }
	if err == nil {
		err = json.Unmarshal(r.body, &enrolled)
	}
	if err != nil || enrolled.Credential == "" {
		t.Fatalf("enrol: %v, %v", r, err)
	}
	token("a worker's credential", enrolled.Credential)

	// The command line, with the token where it belongs; tokens made and revoked.
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(p.made.Tokens["worker"]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	logs := map[string]*process{"node a": p.a.process, "node b": p.b.process}
	urls := []string{"--node", "https://" + p.addr["a"], "--node", "https://" + p.addr["b"], "--ca", filepath.Join(dir, "ca.crt")}
	w := launch(t, "worker", slices.Concat([]string{binary, "worker", "--name", "w1", "--cores", "1", "--token", "@" + file, "--log-level", "debug", "--log-format", "text"}, urls)...)
	logs["worker"] = w
	created := command(t, "token", "create", "--keys", dir, "--role", "client", "--name", "short")
	short := strings.TrimSpace(created.out.String())
	token("a token made later", short)
	shortFile := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(shortFile, []byte(short), 0o600); err != nil {
		t.Fatal(err)
	}
	poll(t, upTimeout, "the new token is taken, and the jobs are computed", func() string {
		r, err := p.a.tlsAsk("GET", "/v1/jobs?limit=1", "", short)
		if err != nil || r.status != 200 {
			return fmt.Sprint(r.status, err)
		}
		if r, err = p.a.tlsAsk("GET", "/v1/jobs?state=completed&limit=100", "", p.made.Tokens["operator"]); err != nil {
			return err.Error()
		}
		if n := strings.Count(string(r.body), `"state":"completed"`); n < 5 {
			return fmt.Sprintf("%d %d are", r.status, n)
		}
		return ""
	})
	for n, args := range [][]string{
		{"status"}, {"job", "get", ids["job"]}, {"job", "ls"}, {"results"}, {"pull", "--top", "3"}, {"job", "receipt", ids["job"]}, {"fleet", "ls"}, {"enqueue", file, "-n", "2", "--wait"}, {"job", "get", "nosuch"},
	} {
		c := launch(t, args[0], slices.Concat([]string{binary}, args, []string{"--token", "@" + shortFile}, urls)...)
		c.wait(downTimeout)
		logs[fmt.Sprint("command ", n, " ", args[0])] = c
	}
	if c := command(t, "token", "revoke", "--keys", dir, short); c.code != 0 {
		t.Errorf("revoke: exit code %d", c.code)
	} else {
		logs["token revoke"] = c
	}
	c := command(t, "token", "ls", "--keys", dir, "-o", "json")
	logs["token ls"] = c
	_, _ = told.Write([]byte(c.out.String())) // of a buffer

	// A batch whose replies nobody takes: they are spooled.
	spooled := p.spool(p.a, client)
	look()

	// As they run: command lines, environments, open files.
	for _, x := range []*process{p.a.process, p.b.process, w} {
		for _, name := range []string{"cmdline", "environ"} {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", x.cmd.Process.Pid, name))
			if err != nil {
				t.Fatal(err)
			}
			told.Write(b)
		}
	}
	deleted := 0
	for _, n := range nodes {
		fds := fmt.Sprintf("/proc/%d/fd", n.cmd.Process.Pid)
		entries, err := os.ReadDir(fds)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			name, _ := os.Readlink(filepath.Join(fds, e.Name()))
			fi, err := os.Stat(filepath.Join(fds, e.Name()))
			if err != nil || !fi.Mode().IsRegular() || !strings.HasPrefix(name, data) {
				continue
			}
			if strings.Contains(name, "/tmp/replies-") {
				deleted++
			}
			if fi.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has %s open, which others may open: %v", n.name, name, fi.Mode())
			}
		}
	}
	if deleted == 0 {
		t.Error("no reply was spooled: this test looked at no such file")
	}
	spooled.Close()
	for _, root := range []string{dir, data} {
		err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := d.Info()
			if err != nil {
				return err
			}
			if fi.Mode().Perm()&0o077 != 0 {
				t.Errorf("others may open %s: %v", name, fi.Mode())
			}
			if !fi.Mode().IsRegular() || root == dir {
				return nil
			}
			b, err := os.ReadFile(name)
			for what, text := range secrets {
				if bytes.Contains(b, []byte(text)) && !strings.HasSuffix(name, ".key") {
					t.Errorf("%s is in %s", what, name)
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	w.signal(syscall.SIGTERM)
	if code := w.wait(downTimeout); code != 0 {
		t.Errorf("the worker ended with exit code %d", code)
	}
	for _, n := range nodes {
		n.stop()
	}
	cancel()
	for range nodes {
		<-streams
	}

	for what, text := range secrets {
		for _, of := range slices.Sorted(maps.Keys(logs)) {
			if strings.Contains(logs[of].log.String(), text) {
				t.Errorf("%s is in the log of %s", what, of)
			}
		}
		if strings.Contains(told.String(), text) {
			t.Errorf("%s is in the metrics, the status, an event, a page, a command line or an environment", what)
		}
	}
	for what, text := range stored {
		for _, of := range slices.Sorted(maps.Keys(logs)) {
			if strings.Contains(logs[of].log.String(), text) {
				t.Errorf("%s is in the log of %s", what, of)
			}
		}
		if strings.Contains(told.String(), text) {
			t.Errorf("%s is in the metrics, the status, an event, a page, a command line or an environment", what)
		}
	}
	// The same eyes see what is there: a search that finds nothing may look nowhere.
	for what, text := range map[string]string{"requests": "path=/enqueue", "a read of the tokens": "tokens read again"} {
		if !strings.Contains(p.a.log.String(), text) {
			t.Errorf("the log of node a has no %s", what)
		}
	}
	for what, text := range map[string]string{"metrics": "workmanager_certificate_expiry_timestamp_seconds", "events": "event: status", "progress": "event: progress", "status": `"days_left"`, "command lines": "--keys", "environments": "PATH="} {
		if !strings.Contains(told.String(), text) {
			t.Errorf("what was read has no %s", what)
		}
	}
	t.Logf("%d secrets looked for in %d logs, %d bytes of them, and %d bytes that were told", len(secrets)+len(stored), len(logs), len(p.a.log.String())+len(p.b.log.String()), len(told.String()))
}

// spool sends a node a batch and takes no reply until the node has put some
// into a file. The connection stays as it is until it is closed.
func (p *closedPair) spool(n *node, token string) io.Closer {
	p.t.Helper()
	cfg := n.http.Transport.(*http.Transport).TLSClientConfig.Clone()
	conn, err := tls.Dial("tcp", n.addr, cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	go func() { // ends with the connection
		w := &chunks{conn}
		_, _ = fmt.Fprintf(conn, "POST /v1/jobs/batch HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\n", n.addr, token)
		lines := []byte(strings.Repeat(`{"data":"QQ==","iterations":0}`+"\n", 500))
		for {
			if _, err := w.Write(lines); err != nil {
				return
			}
		}
	}()
	poll(p.t, upTimeout, "replies are spooled", func() string {
		for _, name := range n.files() {
			if strings.Contains(name, "/tmp/replies-") {
				return ""
			}
		}
		return "they are not"
	})
	return conn
}

type chunks struct{ w io.Writer }

func (c *chunks) Write(b []byte) (int, error) {
	_, err := fmt.Fprintf(c.w, "%x\r\n%s\r\n", len(b), b)
	return len(b), err
}
