package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"workmanager/web/api"
)

// order is a job as its client means it. Its data is its name, so no two orders
// have the same value.
type order struct {
	name       string
	iterations uint64
	keyed      bool // sent with the name as Idempotency-Key, so safe to repeat
}

// values are those of orders checked before: most are checked more than once.
var values sync.Map

func (o order) value() string {
	v, ok := values.Load(o)
	if !ok {
		v, _ = values.LoadOrStore(o, chain(o.name, o.iterations))
	}
	return v.(string)
}

// ledger is what clients were promised: an order enters it after its 2xx reply
// and never before.
type ledger struct {
	mu      sync.Mutex // guards the rest
	next    int
	acked   map[string]order // by job ID
	id      map[string]string
	pending map[string]order // keyed orders that were sent and not answered
	faults  []string
	why     string // the last refusal
	refused int
	failing bool // the disk fails: an internal error is an honest answer
}

func newLedger() *ledger {
	return &ledger{acked: map[string]order{}, id: map[string]string{}, pending: map[string]order{}}
}

func (l *ledger) order(rng *rand.Rand, keyed bool) order {
	l.mu.Lock()
	defer l.mu.Unlock()
	if keyed { // what got no answer is sent again, with the same key
		for name, o := range l.pending {
			delete(l.pending, name)
			return o
		}
	}
	l.next++
	o := order{name: fmt.Sprintf("order/%d", l.next), iterations: 1 + rng.Uint64N(200), keyed: keyed}
	if rng.IntN(50) == 0 {
		o.iterations = 20_000
	}
	return o
}

// answered notes a 2xx for o.
func (l *ledger) answered(o order, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if other, ok := l.acked[id]; ok && other != o {
		l.faults = append(l.faults, fmt.Sprintf("id %s was given to %v and to %v", id, other, o))
	}
	if other, ok := l.id[o.name]; ok && other != id {
		l.faults = append(l.faults, fmt.Sprintf("%v has two ids, %s and %s", o, other, id))
	}
	l.acked[id], l.id[o.name] = o, id
}

// unanswered notes that nobody knows what became of o.
func (l *ledger) unanswered(o order) {
	if !o.keyed {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending[o.name] = o
}

func (l *ledger) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, fmt.Sprintf(format, args...))
}

func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// write submits jobs to n until ctx is done or the node has gone, in the three
// ways there are. A refusal (5xx) is no promise; every other answer but 2xx is a
// fault.
func (l *ledger) write(ctx context.Context, n *node, rng *rand.Rand) {
	for ctx.Err() == nil && n.running() {
		var ok bool
		switch rng.IntN(3) {
		case 0:
			ok = l.put(ctx, n, rng)
		case 1:
			ok = l.post(ctx, n, rng)
		default:
			ok = l.batch(ctx, n, rng)
		}
		if !ok {
			pause(time.Duration(1+rng.IntN(10)) * time.Millisecond) // the node is gone or refuses; do not spin
		}
	}
}

// writers runs k of them; the function returned ends and awaits them.
func (l *ledger) writers(n *node, rng *rand.Rand, k int) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range k {
		own := rand.New(rand.NewPCG(rng.Uint64(), 0))
		wg.Go(func() { l.write(ctx, n, own) })
	}
	return func() { cancel(); wg.Wait() }
}

// send sends one request and reads a 2xx into out.
func (l *ledger) send(ctx context.Context, n *node, method, path, contentType string, body io.Reader, key string, out any) bool {
	req, err := http.NewRequestWithContext(ctx, method, n.url(path), body)
	if err != nil {
		l.fault("%v", err)
		return false
	}
	req.Header.Set("Content-Type", contentType)
	if key != "" {
		req.Header.Set(api.HeaderIdempotencyKey, key)
	}
	res, err := n.http.Do(req)
	if err != nil {
		l.mu.Lock()
		l.why = err.Error()
		l.mu.Unlock()
		return false
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	switch {
	case res.StatusCode >= 500:
		l.mu.Lock()
		l.why = fmt.Sprintf("%s %s", res.Status, b)
		l.refused++
		l.mu.Unlock()
		if res.StatusCode == http.StatusInternalServerError && !l.failing {
			l.fault("%s %s: %s %s", method, path, res.Status, b)
		}
		return false
	case err != nil: // the status was there, the id was not
		return false
	case res.StatusCode/100 != 2:
		l.fault("%s %s: %s %s", method, path, res.Status, b)
		return false
	}
	if err := json.Unmarshal(b, out); err != nil {
		l.fault("%s %s: %v: %s", method, path, err, b)
		return false
	}
	return true
}

func (l *ledger) put(ctx context.Context, n *node, rng *rand.Rand) bool {
	o := l.order(rng, false)
	f := forms[rng.IntN(len(forms))]
	var w api.WorkID
	if !l.send(ctx, n, "PUT", fmt.Sprintf("/enqueue?iterations=%d", o.iterations), f.contentType, strings.NewReader(f.encode(o.name)), "", &w) {
		return false
	}
	l.answered(o, w.ID)
	return true
}

func (l *ledger) post(ctx context.Context, n *node, rng *rand.Rand) bool {
	o := l.order(rng, true)
	body := fmt.Sprintf(`{"data":"%s","iterations":%d}`, base64.StdEncoding.EncodeToString([]byte(o.name)), o.iterations)
	var j api.Job
	if !l.send(ctx, n, "POST", "/v1/jobs", "application/json", strings.NewReader(body), o.name, &j) {
		l.unanswered(o)
		return false
	}
	l.answered(o, j.ID)
	return true
}

func (l *ledger) batch(ctx context.Context, n *node, rng *rand.Rand) bool {
	orders := make([]order, 1+rng.IntN(60))
	var body bytes.Buffer
	for i := range orders {
		o := l.order(rng, i%2 == 0)
		orders[i] = o
		key := ""
		if o.keyed {
			key = fmt.Sprintf(`,"key":"%s"`, o.name)
		}
		fmt.Fprintf(&body, `{"data":"%s","iterations":%d%s}`+"\n", base64.StdEncoding.EncodeToString([]byte(o.name)), o.iterations, key)
	}
	seen := 0
	defer func() {
		for _, o := range orders[seen:] {
			l.unanswered(o)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, "POST", n.url("/v1/jobs/batch"), &body)
	if err != nil {
		l.fault("%v", err)
		return false
	}
	res, err := n.http.Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return false
	}
	r := bufio.NewReader(res.Body)
	for seen < len(orders) {
		text, err := r.ReadBytes('\n') // half a line is no promise
		if err != nil {
			return false
		}
		var a api.BatchLine
		if err := json.Unmarshal(text, &a); err != nil {
			l.fault("batch: %v: %s", err, text)
			return false
		}
		o := orders[seen]
		switch {
		case a.Error == nil:
			l.answered(o, a.ID)
		case a.Error.Status >= 500 && (a.Error.Status != http.StatusInternalServerError || l.failing):
			l.unanswered(o)
			l.mu.Lock()
			l.refused++
			l.mu.Unlock()
		case a.Error.Code == "malformed": // the body ended early because this client was told to
			l.unanswered(o)
		default:
			l.fault("batch: %s", text)
		}
		seen++
	}
	return true
}

// follower follows the results cursor over the lives of a node.
type follower struct {
	cursor string
	seen   map[string]string // id: value
	faults []string
}

// follow reads results from one process until ctx is done, the process has gone
// or, with toEnd, there are no more. While one process serves, no result may
// come twice.
func (f *follower) follow(ctx context.Context, n *node, toEnd bool) {
	here := map[string]bool{}
	for ctx.Err() == nil && n.running() && len(f.faults) < 100 {
		req, err := http.NewRequestWithContext(ctx, "GET", n.url("/v1/results?limit=500&wait=1s&after="+url.QueryEscape(f.cursor)), nil)
		if err != nil {
			f.faults = append(f.faults, err.Error())
			return
		}
		var page api.ResultList
		res, err := n.http.Do(req)
		if err == nil {
			err = json.NewDecoder(res.Body).Decode(&page)
			_ = res.Body.Close() // read to its end, or of no use
			if res.StatusCode != http.StatusOK {
				err = errors.New(res.Status)
			}
		}
		if err != nil {
			pause(5 * time.Millisecond) // the page is asked for again, from the same cursor
			continue
		}
		if page.Restarted {
			f.faults = append(f.faults, "the cursor was not known after a restart")
		}
		for _, r := range page.Results {
			if here[r.ID] {
				f.faults = append(f.faults, "result "+r.ID+" came twice from one process")
			}
			here[r.ID] = true
			if v, ok := f.seen[r.ID]; ok && v != r.Value {
				f.faults = append(f.faults, "result "+r.ID+" had another value before")
			}
			f.seen[r.ID] = r.Value
		}
		end := page.Cursor == f.cursor || len(page.Results) == 0
		f.cursor = page.Cursor
		if toEnd && end {
			return
		}
	}
}

// check compares what n holds with what was promised, once nothing is open.
func (l *ledger) check(t testing.TB, n *node) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	list, _ := n.results("")
	got := make(map[string]string, len(list))
	of := map[string]string{} // value: id
	for _, r := range list {
		if _, twice := got[r.ID]; twice {
			t.Errorf("result %s stands twice in the list", r.ID)
		}
		got[r.ID] = r.Value
		if other, twice := of[r.Value]; twice {
			t.Errorf("jobs %s and %s are the same order", other, r.ID)
		}
		of[r.Value] = r.ID
	}
	lost, wrong := 0, 0
	for id, o := range l.acked {
		want := o.value()
		switch v, ok := got[id]; {
		case !ok:
			if lost++; lost <= 5 {
				r, err := n.ask("GET", "/v1/jobs/"+id, nil)
				t.Errorf("job %s (%v) was acknowledged and has no result: %v %v", id, o, r, err)
			}
		case v != want:
			if wrong++; wrong <= 5 {
				t.Errorf("job %s (%v): got value %s, want %s", id, o, v, want)
			}
		}
	}
	if lost+wrong > 0 {
		t.Errorf("%d of %d acknowledged jobs are lost, %d have a wrong value", lost, len(l.acked), wrong)
	}
	for i, f := range l.faults {
		if i < 10 {
			t.Error(f)
		}
	}
}

// settle repeats every keyed order that got no answer, and those that did: each
// must be one job.
func (l *ledger) settle(t testing.TB, n *node) {
	t.Helper()
	l.mu.Lock()
	var again []order
	for _, o := range l.pending {
		again = append(again, o)
	}
	clear(l.pending)
	for _, o := range l.acked {
		if o.keyed && len(again) < 500 {
			again = append(again, o)
		}
	}
	l.mu.Unlock()
	for _, o := range again {
		body := fmt.Sprintf(`{"data":"%s","iterations":%d}`, base64.StdEncoding.EncodeToString([]byte(o.name)), o.iterations)
		var j api.Job
		for end := time.Now().Add(5 * time.Second); !l.send(context.Background(), n, "POST", "/v1/jobs", "application/json", strings.NewReader(body), o.name, &j); {
			t.Logf("%v: refused when repeated: %s", o, l.why) // as a client would, it tries again
			if len(l.faults) > 0 || time.Now().After(end) {
				t.Fatalf("%v: not accepted when repeated: %s, %v", o, l.why, l.faults)
			}
			pause(20 * time.Millisecond)
		}
		l.answered(o, j.ID)
	}
}
