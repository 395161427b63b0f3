package e2e

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// guests are the instances of an EC2 that has none: whatever it says was launched
// runs its user data here, as processes, in a group of its own. They use nothing
// but the API, so they run on a fake as well as on moto.
type guests struct {
	t     *testing.T
	api   ec2API
	dir   string
	hurry float64 // times of a guest's timers are divided by it

	// deaf says of the n-th guest, from 0, that it never runs anything; nil: none.
	deaf func(n int) bool

	mu   sync.Mutex // guards list
	list []*guest   // the first launched first
}

// guest is one instance.
type guest struct {
	id, slot string
	dir      string
	deaf     atomic.Bool  // nothing runs on it, and it does not power itself off
	pgid     atomic.Int64 // 0: it runs nothing
	metadata *httptest.Server
	notice   atomic.Pointer[string] // of Spot
	ended    bool                   // the API was told, or told it
}

// startGuests looks for launches until the test ends, and then ends them all.
func startGuests(t *testing.T, endpoint string, hurry float64, deaf func(n int) bool) *guests {
	t.Helper()
	need(t, false, "python3", "awk", "sha256sum")
	g := &guests{t: t, api: ec2API{endpoint}, dir: t.TempDir(), hurry: hurry, deaf: deaf}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(300 * time.Millisecond)
		defer tick.Stop()
		for {
			if err := g.look(); err != nil {
				t.Logf("guests: %v", err)
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		for _, x := range g.all() {
			x.kill()
			x.metadata.Close()
			if t.Failed() {
				t.Logf("guest %s in slot %s:\n%s\n%s", x.id, x.slot, tail(x.read("calls"), 4000), tail(x.read("log"), 8000))
			}
		}
	})
	return g
}

// look does once what the machines of EC2 do all the time.
func (g *guests) look() error {
	shown, err := g.api.instances()
	if err != nil {
		return err
	}
	for _, i := range shown {
		x := g.of(i.ID)
		alive := i.State == "pending" || i.State == "running"
		switch {
		case x == nil && alive:
			if err := g.boot(i); err != nil {
				return err
			}
		case x == nil || x.ended:
		case !alive: // the machine is taken away under it
			x.kill()
			x.ended = true
		case !x.deaf.Load() && len(x.processes()) == 0: // it has powered itself off
			if err := g.api.terminate(x.id); err != nil {
				return err
			}
			x.ended = true
		}
	}
	return nil
}

// boot runs the user data of an instance as cloud-init does.
func (g *guests) boot(i shownInstance) error {
	script, err := g.api.userData(i.ID)
	if err != nil {
		return err
	}
	x := &guest{id: i.ID, slot: i.tag("workmanager:slot"), dir: filepath.Join(g.dir, i.ID)}
	x.metadata = httptest.NewServer(http.HandlerFunc(x.answer))
	g.mu.Lock()
	x.deaf.Store(g.deaf != nil && g.deaf(len(g.list)))
	g.list = append(g.list, x)
	g.mu.Unlock()
	if x.deaf.Load() {
		return os.MkdirAll(x.dir, 0o755)
	}
	if err := os.MkdirAll(filepath.Join(x.dir, "root"), 0o755); err != nil {
		return err
	}
	file := filepath.Join(x.dir, "user-data")
	if err := os.WriteFile(file, script, 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(x.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	stubs, err := filepath.Abs(filepath.Join("testdata", "guest"))
	if err != nil {
		return err
	}
	cmd := exec.Command(file)
	cmd.Dir = x.dir
	cmd.Env = []string{
		"PATH=" + stubs + ":" + os.Getenv("PATH"), "HOME=" + x.dir, "GUEST_DIR=" + x.dir, "GUEST_HURRY=" + strconv.FormatFloat(g.hurry, 'g', -1, 64),
		"WORKMANAGER_PREFIX=" + filepath.Join(x.dir, "root"), "WORKMANAGER_PAUSE=0.5", "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + x.metadata.URL,
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := startHere(cmd); err != nil {
		return err
	}
	x.pgid.Store(int64(cmd.Process.Pid))
	go func() { _ = cmd.Wait() }() // what it starts goes on
	return nil
}

// answer is the instance metadata service of one guest.
func (x *guest) answer(w http.ResponseWriter, r *http.Request) {
	say := func(text string) { _, _ = io.WriteString(w, text) }
	switch notice := x.notice.Load(); {
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
		say("token of " + x.id)
	case r.Header.Get("X-Aws-Ec2-Metadata-Token") != "token of "+x.id:
		http.Error(w, "no token", http.StatusUnauthorized)
	case r.URL.Path == "/latest/meta-data/instance-id":
		say(x.id)
	case r.URL.Path == "/latest/meta-data/tags/instance/workmanager:slot":
		say(x.slot)
	case r.URL.Path == "/latest/meta-data/spot/instance-action" && notice != nil:
		say(*notice)
	default:
		http.NotFound(w, r)
	}
}

// interrupt gives a guest the notice that it will be taken away.
func (x *guest) interrupt() {
	text := fmt.Sprintf(`{"action":"terminate","time":%q}`, time.Now().Add(2*time.Minute).UTC().Format(time.RFC3339))
	x.notice.Store(&text)
}

// kill ends all that runs on a guest, as when its machine fails.
func (x *guest) kill() {
	if len(x.processes()) > 0 {
		_ = syscall.Kill(-int(x.pgid.Load()), syscall.SIGKILL) // they may have ended
	}
}

// processes returns the commands that run on a guest; those that have ended and
// that nobody has waited for are none.
func (x *guest) processes() []string {
	group := strconv.FormatInt(x.pgid.Load(), 10)
	if group == "0" {
		return nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended meanwhile
		}
		name, rest, _ := strings.Cut(string(stat), ") ")
		if f := strings.Fields(rest); len(f) > 2 && f[2] == group && f[0] != "Z" && f[0] != "X" {
			out = append(out, name+")")
		}
	}
	return out
}

// read returns a file of a guest, "" if there is none.
func (x *guest) read(name string) string {
	b, err := os.ReadFile(filepath.Join(x.dir, name))
	if err != nil {
		return ""
	}
	return string(b)
}

func (g *guests) all() []*guest {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.list)
}

func (g *guests) of(id string) *guest {
	for _, x := range g.all() {
		if x.id == id {
			return x
		}
	}
	return nil
}

// gone says what is left of them, "" if nothing is.
func (g *guests) gone() string {
	shown, err := g.api.instances()
	if err != nil {
		return err.Error()
	}
	var left []string
	for _, i := range shown {
		if i.State != "terminated" {
			left = append(left, i.ID+" is "+i.State)
		}
	}
	for _, x := range g.all() {
		for _, p := range x.processes() {
			left = append(left, x.id+" runs "+p)
		}
	}
	return strings.Join(left, ", ")
}

// ec2API asks EC2 as its clients do, but for the signature.
type ec2API struct{ endpoint string }

type shownInstance struct {
	ID    string `xml:"instanceId"`
	State string `xml:"instanceState>name"`
	Tags  []struct {
		Key   string `xml:"key"`
		Value string `xml:"value"`
	} `xml:"tagSet>item"`
}

func (i shownInstance) tag(key string) string {
	for _, t := range i.Tags {
		if t.Key == key {
			return t.Value
		}
	}
	return ""
}

func (a ec2API) call(action string, form url.Values, out any) error {
	form.Set("Action", action)
	form.Set("Version", "2016-11-15")
	req, err := http.NewRequest(http.MethodPost, a.endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20261126/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=0")
	c := http.Client{Timeout: 2 * time.Minute} // moto loads much at its first calls
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s, %v: %.500s", action, resp.Status, err, b)
	}
	if err := xml.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s: %w: %.500s", action, err, b)
	}
	return nil
}

// instances returns every worker's instance, those that ended lately among them.
func (a ec2API) instances() ([]shownInstance, error) {
	var all []shownInstance
	form := url.Values{"Filter.1.Name": {"tag-key"}, "Filter.1.Value.1": {"workmanager:slot"}}
	for {
		var page struct {
			Instances []shownInstance `xml:"reservationSet>item>instancesSet>item"`
			Next      string          `xml:"nextToken"`
		}
		if err := a.call("DescribeInstances", form, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Instances...)
		if page.Next == "" {
			return all, nil
		}
		form.Set("NextToken", page.Next)
	}
}

func (a ec2API) userData(id string) ([]byte, error) {
	var out struct {
		Text string `xml:"userData>value"`
	}
	if err := a.call("DescribeInstanceAttribute", url.Values{"InstanceId": {id}, "Attribute": {"userData"}}, &out); err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(out.Text)
}

func (a ec2API) terminate(id string) error {
	var out struct{}
	return a.call("TerminateInstances", url.Values{"InstanceId.1": {id}}, &out)
}
