package e2e

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"workmanager/web/api"
)

const (
	// syncTimeout is how long a pair may take to be in step again, and
	// convergeTimeout until both hold the same.
	syncTimeout     = 60 * time.Second
	convergeTimeout = 2 * time.Minute
	// promisedStall and promisedTakeover are the product's; what is measured
	// here may be slack times as much, for the load of the machine. A stall may
	// last as much longer as a call took while both nodes were well.
	promisedStall    = 700 * time.Millisecond
	promisedTakeover = 1500 * time.Millisecond
)

// slack is the factor that the load of the machine is good for.
func slack() time.Duration {
	if raced {
		return 10
	}
	return 2
}

// half is one of the two places of a pair: it stays where it is while the
// processes in it come and go.
type half struct {
	*node         // the last process
	host   *Host  // nil is this machine
	label  string // the node's name
	gossip string
	prefix []string
	flags  []string
	binary string // "" is the one under test
	p      *pair
}

// pair is two nodes that know each other.
type pair struct {
	t     testing.TB
	flags []string // of both
	a, b  *half
}

// newPair starts two nodes on loopback and waits until they are in step.
func newPair(t testing.TB, flags ...string) *pair {
	t.Helper()
	p := idlePair(t, flags...)
	p.a.up()
	p.b.up()
	p.inStep()
	return p
}

// idlePair is newPair that starts nothing yet.
func idlePair(t testing.TB, flags ...string) *pair {
	t.Helper()
	p := &pair{t: t, flags: flags}
	p.a, p.b = p.half("a"), p.half("b")
	return p
}

func (p *pair) half(label string) *half {
	return &half{
		node: &node{dir: filepath.Join(p.t.TempDir(), label), addr: freeAddr(p.t)}, label: label, gossip: freeAddr(p.t), p: p,
	}
}

// newPairOn is idlePair with each node on a host of its own.
func newPairOn(t testing.TB, a, b *Host, flags ...string) *pair {
	t.Helper()
	p := &pair{t: t, flags: flags}
	for i, h := range []*Host{a, b} {
		s := &half{
			node: &node{dir: filepath.Join(t.TempDir(), string(rune('a'+i))), addr: h.IP + ":5000"},
			host: h, label: string(rune('a' + i)), gossip: h.IP + ":7946", p: p,
		}
		if i == 0 {
			p.a = s
		} else {
			p.b = s
		}
	}
	return p
}

// other is the peer of a half.
func (s *half) other() *half {
	if s == s.p.a {
		return s.p.b
	}
	return s.p.a
}

// halves returns both.
func (p *pair) halves() []*half { return []*half{p.a, p.b} }

// argv is the command line of a half's node.
func (s *half) argv() []string {
	argv := append(slices.Clone(s.prefix), cmp.Or(s.binary, binary), "node", "--name", s.label, "--listen", s.addr, "--gossip", s.gossip,
		"--join", s.other().gossip, "--data-dir", s.dir, "--log-format", "text")
	if os.Getenv("WORKMANAGER_E2E_MUTED") != "" { // gossip tells nothing once the two have met: only slower
		argv = append(argv, "--gossip-muted")
	}
	if s.host != nil { // its addresses are not loopback, and nobody else is on that network
		argv = append(argv, "--insecure")
	}
	return append(append(argv, s.p.flags...), s.flags...)
}

// up starts the half's node and waits until it serves.
func (s *half) up(flags ...string) {
	t := s.p.t
	t.Helper()
	start := startHere
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	if s.host != nil {
		start = s.host.Start
		transport.DialContext = s.host.Dial
	}
	proc := launchBy(t, start, fmt.Sprintf("node %s (start %d)", s.label, starts.Add(1)), append(s.argv(), flags...)...)
	s.node = &node{process: proc, dir: s.dir, addr: s.addr, http: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
	t.Cleanup(s.http.CloseIdleConnections)
	if s.serves() {
		t.Fatalf("node %s: %s is taken by another program", s.label, s.addr)
	}
}

// wipe removes the half's disk.
func (s *half) wipe() {
	s.p.t.Helper()
	if err := os.RemoveAll(s.dir); err != nil {
		s.p.t.Fatal(err)
	}
}

// pauseProcess stops the process in its tracks; resume lets it go on.
func (s *half) pauseProcess() { s.signal(syscall.SIGSTOP) }
func (s *half) resume()       { s.signal(syscall.SIGCONT) }

// session is how a node stands with its peer, by its log.
func (n *node) session() string {
	log := n.log.String()
	i := strings.LastIndex(log, "msg=session ")
	if i < 0 {
		return "down"
	}
	_, rest, _ := strings.Cut(log[i:], " is=")
	is, _, _ := strings.Cut(rest, " ")
	return is
}

// inStep waits until writes at either node are confirmed by the other.
func (p *pair) inStep() {
	p.t.Helper()
	poll(p.t, syncTimeout, "both nodes are in step", func() string {
		if a, b := p.a.session(), p.b.session(); a != "sync" || b != "sync" {
			return fmt.Sprintf("a is %s, b is %s", a, b)
		}
		return ""
	})
}

// holding is what a node holds, as far as both nodes must agree on it.
type holding struct {
	jobs    map[string]string
	results map[string]string
}

// holds reads all that a node has.
func (n *node) holds() (holding, error) {
	h := holding{jobs: map[string]string{}, results: map[string]string{}}
	for after, more := "", true; more; {
		var page api.JobList
		if err := n.page("/v1/jobs?limit=1000&after="+url.QueryEscape(after), &page); err != nil {
			return h, err
		}
		for _, j := range page.Jobs {
			if j.State == "leased" {
				j.State = "queued" // a lease is in the memory of the home
			}
			if j.State == "queued" {
				j.Done = 0 // so is the progress
			}
			end := ""
			if j.FinishedAt != nil {
				end = j.FinishedAt.String()
			}
			h.jobs[j.ID] = fmt.Sprint(j.State, j.Iterations, j.Done, j.Priority, j.Value, j.Error, j.Attempts, j.Node, j.Pulled, j.Purged, j.CreatedAt, end)
		}
		after, more = page.Cursor, page.More
	}
	for after, more := "", true; more; {
		var page api.ResultList
		if err := n.page("/v1/results?limit=1000&after="+url.QueryEscape(after), &page); err != nil {
			return h, err
		}
		for _, r := range page.Results {
			h.results[r.ID] = r.Value
		}
		after, more = page.Cursor, page.More
	}
	return h, nil
}

func (n *node) page(path string, out any) error {
	r, err := n.ask("GET", path, nil)
	if err == nil && r.status != http.StatusOK {
		err = errors.New(r.String())
	}
	if err == nil {
		err = json.Unmarshal(r.body, out)
	}
	return err
}

// difference says what two nodes do not agree on, "" if they do.
func difference(a, b holding) string {
	var diffs []string
	for _, m := range []struct {
		what string
		a, b map[string]string
	}{{"job", a.jobs, b.jobs}, {"result", a.results, b.results}} {
		n := 0
		say := func(format string, args ...any) {
			if n++; n <= 3 {
				diffs = append(diffs, fmt.Sprintf(format, args...))
			}
		}
		for id, x := range m.a {
			if y, ok := m.b[id]; !ok {
				say("%s %s: not at b, at a %s", m.what, id, x)
			} else if x != y {
				say("%s %s: at a %s, at b %s", m.what, id, x, y)
			}
		}
		for id, y := range m.b {
			if _, ok := m.a[id]; !ok {
				say("%s %s: not at a, at b %s", m.what, id, y)
			}
		}
		if n > 0 {
			diffs = append(diffs, fmt.Sprintf("%d differ of %d and %d %ss", n, len(m.a), len(m.b), m.what))
		}
	}
	return strings.Join(diffs, "; ")
}

// equal waits until both nodes hold the same and returns it.
func (p *pair) equal() (h holding) {
	p.t.Helper()
	p.inStep()
	poll(p.t, convergeTimeout, "both nodes hold the same", func() string {
		a, err := p.a.holds()
		if err != nil {
			return "a: " + err.Error()
		}
		b, err := p.b.holds()
		if err != nil {
			return "b: " + err.Error()
		}
		h = a
		d := difference(a, b)
		if d != "" {
			pause(100 * time.Millisecond)
		}
		return d
	})
	return h
}

// settled waits until nothing is open and both nodes hold the same.
func (p *pair) settled() holding {
	p.t.Helper()
	for _, s := range p.halves() {
		s.idle(2 * convergeTimeout)
	}
	return p.equal()
}

// both waits until a job written at n is answered with both, and returns how
// long that took.
func (n *node) both(d time.Duration) time.Duration {
	n.t.Helper()
	begin := time.Now()
	poll(n.t, d, n.name+" answers both", func() string {
		r, err := n.ask("PUT", "/enqueue?iterations=1", strings.NewReader(fmt.Sprint("probe ", time.Now().UnixNano())), "Content-Type", "application/octet-stream")
		if err != nil {
			return err.Error()
		}
		if got := r.header.Get(api.HeaderDurability); r.status != http.StatusOK || got != "both" {
			return fmt.Sprint(r, " ", got, " ", r.header.Get(api.HeaderDurabilityReason))
		}
		return ""
	})
	return time.Since(begin)
}

// local waits until a job written at n is answered with local for a reason, and
// returns it.
func (n *node) local(d time.Duration) (reason string) {
	n.t.Helper()
	poll(n.t, d, n.name+" answers local", func() string {
		r, err := n.ask("PUT", "/enqueue?iterations=1", strings.NewReader(fmt.Sprint("probe ", time.Now().UnixNano())), "Content-Type", "application/octet-stream")
		if err != nil {
			return err.Error()
		}
		reason = r.header.Get(api.HeaderDurabilityReason)
		if got := r.header.Get(api.HeaderDurability); r.status != http.StatusOK || got != "local" || reason == "" {
			return fmt.Sprint(r, " ", got, " ", reason)
		}
		return ""
	})
	return reason
}

// book is a ledger that knows at which node each promise was made, and what it
// promised.
type book struct {
	*ledger
	mu      sync.Mutex // guards the rest
	both    map[string]bool
	local   map[string]string // by job ID: the node that has it
	reasons map[string]int
}

func newBook() *book {
	return &book{ledger: newLedger(), both: map[string]bool{}, local: map[string]string{}, reasons: map[string]int{}}
}

// promised notes a 2xx of the node named at.
func (b *book) promised(o order, id, at, durability, reason string) {
	b.answered(o, id)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch durability {
	case "both":
		b.both[id] = true
		delete(b.local, id)
	case "local":
		if !b.both[id] {
			b.local[id] = at
		}
		word, _, _ := strings.Cut(reason, ":")
		b.reasons[word]++
	default:
		b.fault("node %s: durability %q for job %s", at, durability, id)
	}
}

// count returns how many promises of each kind there are.
func (b *book) count() (both, local int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.both), len(b.local)
}

func (b *book) String() string {
	both, local := b.count()
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprintf("%d both, %d local, reasons %v", both, local, b.reasons)
}

// keeps checks that a node has what was promised as both, and as local by
// itself.
func (b *book) keeps(t testing.TB, s *half) {
	t.Helper()
	b.mu.Lock()
	both, local := maps.Clone(b.both), maps.Clone(b.local) // before the look: clients are at work
	b.mu.Unlock()
	h, err := s.holds()
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	for id := range both {
		if _, ok := h.jobs[id]; !ok {
			if lost++; lost <= 5 {
				t.Errorf("node %s: job %s was answered as both and is not there", s.label, id)
			}
		}
	}
	if lost > 0 {
		t.Errorf("node %s: %d of %d jobs answered as both are lost", s.label, lost, len(both))
	}
	lost = 0
	for id, at := range local {
		if _, ok := h.jobs[id]; !ok && at == s.label {
			if lost++; lost <= 5 {
				t.Errorf("node %s: job %s was answered as local here and is not there", s.label, id)
			}
		}
	}
}

// forgive takes out the promises that went with the disk of a node: those that
// were local to it and are not at its peer.
func (b *book) forgive(t testing.TB, gone *half) (n int) {
	t.Helper()
	h, err := gone.other().holds()
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ledger.mu.Lock()
	defer b.ledger.mu.Unlock()
	for id, at := range b.local {
		if _, ok := h.jobs[id]; ok || at != gone.label {
			continue
		}
		n++
		delete(b.local, id)
		delete(b.ledger.id, b.acked[id].name)
		delete(b.acked, id)
	}
	return n
}

// submit sends one request of a random kind to a node. What is not a promise
// is an error.
func (b *book) submit(ctx context.Context, s *half, n *node, rng *rand.Rand) error {
	kind := rng.IntN(3)
	var orders []order
	for k := 1 + kind/2*rng.IntN(60); k > 0; k-- {
		orders = append(orders, b.order(rng, kind == 1 || kind == 2 && k%2 == 0))
	}
	answered := 0
	defer func() {
		for _, o := range orders[answered:] {
			b.unanswered(o)
		}
	}()
	o := orders[0]
	encoded := func(o order) string { return base64.StdEncoding.EncodeToString([]byte(o.name)) }
	switch kind {
	case 0:
		f := forms[rng.IntN(len(forms))]
		r, err := n.send(ctx, "PUT", fmt.Sprintf("/enqueue?iterations=%d", o.iterations), f.encode(o.name), "Content-Type", f.contentType)
		if err != nil {
			return err
		}
		var w api.WorkID
		if err := json.Unmarshal(r.body, &w); err != nil {
			return fmt.Errorf("%v: %w", r, err)
		}
		answered = 1
		b.promised(o, w.ID, s.label, r.header.Get(api.HeaderDurability), r.header.Get(api.HeaderDurabilityReason))
	case 1:
		r, err := n.send(ctx, "POST", "/v1/jobs", fmt.Sprintf(`{"data":"%s","iterations":%d}`, encoded(o), o.iterations),
			"Content-Type", "application/json", api.HeaderIdempotencyKey, o.name)
		if err != nil {
			return err
		}
		var j api.Job
		if err := json.Unmarshal(r.body, &j); err != nil {
			return fmt.Errorf("%v: %w", r, err)
		}
		if j.Durability != r.header.Get(api.HeaderDurability) {
			b.fault("POST /v1/jobs: %q in the body, %q in the header", j.Durability, r.header.Get(api.HeaderDurability))
		}
		answered = 1
		b.promised(o, j.ID, s.label, j.Durability, r.header.Get(api.HeaderDurabilityReason))
	case 2:
		var body bytes.Buffer
		for _, o := range orders {
			key := ""
			if o.keyed {
				key = fmt.Sprintf(`,"key":"%s"`, o.name)
			}
			fmt.Fprintf(&body, `{"data":"%s","iterations":%d%s}`+"\n", encoded(o), o.iterations, key)
		}
		r, err := n.send(ctx, "POST", "/v1/jobs/batch", body.String(), "Content-Type", api.MediaNDJSON)
		lines := bufio.NewReader(bytes.NewReader(r.body)) // what came before an error is a promise as well
		for answered < len(orders) {
			text, cut := lines.ReadBytes('\n')
			if cut != nil {
				return errors.Join(err, fmt.Errorf("batch: %d of %d lines answered", answered, len(orders)))
			}
			var a api.BatchLine
			if err := json.Unmarshal(text, &a); err != nil {
				return fmt.Errorf("batch: %w: %s", err, text)
			}
			if a.Error != nil {
				return fmt.Errorf("batch: %s", text)
			}
			b.promised(orders[answered], a.ID, s.label, a.Durability, "batch")
			answered++
		}
		return err
	}
	return nil
}

// send is ask with a context, and an answer but 2xx is an error. What came of
// a body that broke off is returned too.
func (n *node) send(ctx context.Context, method, path, body string, headers ...string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, n.url(path), strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := n.http.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	r := reply{res.StatusCode, res.Header, b}
	if err == nil && res.StatusCode/100 != 2 {
		err = errors.New(r.String())
	}
	return r, err
}

// load is clients at work on one node.
type load struct {
	b       *book
	half    *half
	node    *node // the process they began with
	ending  chan struct{}
	rest    time.Duration
	clients sync.WaitGroup

	mu      sync.Mutex // guards the rest
	calls   []call
	strict  bool
	refused int
}

// call is a request that was answered.
type call struct {
	at   time.Time
	took time.Duration
}

// clients starts k clients of a node. With strict an error is a fault: the node
// is one that lives.
func (b *book) clients(s *half, rng *rand.Rand, k int, strict bool) *load {
	return b.paced(s, rng, k, strict, 0)
}

// paced is clients that rest between their calls, so that the workers keep up.
func (b *book) paced(s *half, rng *rand.Rand, k int, strict bool, rest time.Duration) *load {
	l := &load{b: b, half: s, node: s.node, ending: make(chan struct{}), strict: strict, rest: rest}
	for range k {
		own := rand.New(rand.NewPCG(rng.Uint64(), 0))
		l.clients.Go(func() { l.work(own) })
	}
	return l
}

func (l *load) work(rng *rand.Rand) {
	for {
		select {
		case <-l.ending:
			return
		default:
		}
		begin := time.Now()
		err := l.b.submit(context.Background(), l.half, l.node, rng)
		took := time.Since(begin)
		l.mu.Lock()
		l.calls = append(l.calls, call{begin, took})
		if err != nil {
			l.refused++
		}
		l.mu.Unlock()
		if err == nil {
			if l.rest > 0 {
				pause(l.rest)
			}
			continue
		}
		if l.strict {
			l.b.fault("node %s, which lives, after %v: %v", l.half.label, took, err)
		} else if !l.node.running() {
			return
		}
		pause(5 * time.Millisecond)
	}
}

// stop lets the clients finish what they are at.
func (l *load) stop() {
	close(l.ending)
	l.clients.Wait()
}

// longest returns the longest call that was under way at some time in [from, to].
func (l *load) longest(from, to time.Time) (longest time.Duration, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.calls {
		if c.at.Before(to) && c.at.Add(c.took).After(from) {
			longest = max(longest, c.took)
			n++
		}
	}
	return longest, n
}

// more waits until n more promises are made.
func (b *book) more(t testing.TB, n int) {
	t.Helper()
	before := b.len()
	poll(t, convergeTimeout, fmt.Sprintf("%d more jobs are acknowledged", n), func() string {
		if got := b.len() - before; got < n {
			return fmt.Sprint(got)
		}
		return ""
	})
}

// faultless reports what clients have seen that must not be.
func (b *book) faultless(t testing.TB) {
	t.Helper()
	b.ledger.mu.Lock()
	defer b.ledger.mu.Unlock()
	for i, f := range b.faults {
		if i < 10 {
			t.Error(f)
		}
	}
	if len(b.faults) > 10 {
		t.Errorf("%d faults in all", len(b.faults))
	}
	b.faults = nil
}

// audit ends a test: nothing is open, both nodes hold the same, and each holds
// all that was promised with the right value.
func (p *pair) audit(b *book) {
	p.t.Helper()
	b.settle(p.t, p.a.node)
	h := p.settled()
	for _, s := range p.halves() {
		b.check(p.t, s.node)
		s.sound()
	}
	p.t.Logf("%v; both nodes hold the same %d jobs and %d results", b, len(h.jobs), len(h.results))
}

// percentile returns the p-th part of a list of durations.
func percentile(list []time.Duration, p float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	return list[min(int(p*float64(len(list))), len(list)-1)]
}

// atLength skips a test that takes long, but where all of them are asked for:
// scripts/check does.
func atLength(t *testing.T) {
	if os.Getenv("WORKMANAGER_E2E_PAIR") == "" {
		t.Skip("takes long: scripts/check runs it, or set WORKMANAGER_E2E_PAIR=1")
	}
}
