package sync

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
)

// asks is a good request of the peer, changed.
func asks(change func(url.Values)) string {
	v := encodeRequest(Request{Identity: peerIdentity(), Now: stateEpoch, Cursor: jobs.Cursor{Boot: jobs.ID{1, 2}, At: 1, SeenHead: 1}})
	if change != nil {
		change(v)
	}
	return "/peer/changes?" + v.Encode()
}

func set(kv ...string) func(url.Values) {
	return func(v url.Values) {
		for i := 0; i < len(kv); i += 2 {
			v.Set(kv[i], kv[i+1])
		}
	}
}

// refusalOf reads why an answer refuses.
func refusalOf(t *testing.T, res *http.Response) string {
	t.Helper()
	r, err := decodeRefusal(res.Body)
	if err != nil {
		t.Fatalf("the answer, %s, is no refusal: %v", res.Status, err)
	}
	return r.Code
}

// TestServe_hostile: no request but the peer's is answered, whatever it asks
// for, and nothing changes.
func TestServe_hostile(t *testing.T) {
	body := func(id Identity, more string) string {
		c, err := json.Marshal(caller{Node: id.Node, Cluster: id.Cluster, Store: id.Store, Boot: id.Boot, Proto: [2]int{id.ProtoMin, id.ProtoMax}})
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSuffix(string(c), "}") + more + "}"
	}
	floor := func(id Identity) string {
		return string(encodeFloorRequest(FloorRequest{Identity: id, Floor: stateEpoch, Head: 0}))
	}
	huge := strings.Repeat(" ", maxBody+1) + body(peerIdentity(), "")
	type request struct {
		name, method, target, body string
		status                     int
		code                       string
	}
	bad := func(name string, change func(url.Values)) request {
		return request{"changes_" + name, "GET", asks(change), "", 400, RefusedMalformed}
	}
	list := []request{
		bad("no_parameters", func(v url.Values) { clear(v) }),
		bad("at_is_no_number", set(askAt, "x")),
		bad("at_negative", set(askAt, "-1")),
		bad("at_above_int64", set(askAt, "9223372036854775808")),
		bad("at_above_its_head", set(askAt, "2")),
		bad("at_twice", func(v url.Values) { v[askAt] = []string{"1", "1"} }),
		bad("back_at_above_back_to", set(askBackAt, "2", askBackTo, "1", askSeenHead, "9")),
		bad("back_to_above_its_head", set(askBackTo, "2")),
		bad("boot_short", set(askBoot, "00")),
		bad("boot_no_hex", set(askBoot, strings.Repeat("z", 32))),
		bad("boot_long", set(askBoot, strings.Repeat("0", 1<<16))),
		bad("me_missing", func(v url.Values) { v.Del(askMe) }),
		bad("store_missing", func(v url.Values) { v.Del(askStore) }),
		bad("node_missing", func(v url.Values) { v.Del(askNode) }),
		bad("node_long", set(askNode, strings.Repeat("n", maxNode+1))),
		bad("cluster_long", set(askCluster, strings.Repeat("n", maxCluster+1))),
		bad("proto_backwards", set(askProto, "2-1")),
		bad("proto_zero", set(askProto, "0-1")),
		bad("now_beyond_time", set(askNow, "9223372036854775807")),
		bad("complete_maybe", set(askComplete, "maybe")),
		bad("wait_negative", set(askWait, "-5")),
		bad("durable_above_its_head", set(askAhead, "1", askDone+askAt, "5")),
		bad("word_negative", set(askWord, "-5")),
		{"find_no_id", "GET", "/peer/jobs/%2e%2e%2f", "", 400, RefusedMalformed},
		{"find_long", "GET", "/peer/jobs/" + strings.Repeat("a", 5000), "", 400, RefusedMalformed},
		{"gc_without_names", "POST", "/peer/gc", `{}`, 400, RefusedMalformed},
		{"gc_negative", "POST", "/peer/gc", strings.Replace(floor(peerIdentity()), `"head":0`, `"head":-1`, 1), 400, RefusedMalformed},
		{"gc_before_the_feed_is_read", "POST", "/peer/gc", floor(peerIdentity()), 409, RefusedRound},
	}
	for _, path := range []string{"gc", "steal", "consume", "summary"} {
		for name, b := range map[string]string{"empty": "", "null_byte": "\x00", "array": "[1]", "wrong_type": `{"node":1}`, "cut": `{"node":"b`, "huge": huge} {
			list = append(list, request{path + "_" + name, "POST", "/peer/" + path, b, 400, RefusedMalformed})
		}
	}
	for _, s := range strangers() {
		status := 409
		if s.code == RefusedProto {
			status = 426
		}
		v := encodeRequest(Request{Identity: s.id, Cursor: jobs.Cursor{Boot: jobs.ID{1, 2}, At: 1, SeenHead: 1}})
		list = append(list, request{"changes_of_" + s.code, "GET", "/peer/changes?" + v.Encode(), "", status, s.code},
			request{"gc_of_" + s.code, "POST", "/peer/gc", floor(s.id), status, s.code},
			request{"steal_of_" + s.code, "POST", "/peer/steal", body(s.id, `,"max":100`), status, s.code},
			request{"consume_of_" + s.code, "POST", "/peer/consume", body(s.id, `,"top":100`), status, s.code},
			request{"summary_of_" + s.code, "POST", "/peer/summary", body(s.id, ""), status, s.code})
	}
	for _, tc := range list {
		t.Run(tc.name, func(t *testing.T) {
			c := &clock{}
			x := newShelved("a", 1, c.now)
			x.s.put(newJob(1, "a"))
			x.up(t)
			w := x.Expect([]jobs.ID{waitID})
			x.stamp(waitID, 1)
			before, peer := x.s.kept(), x.Peer()
			rec := httptest.NewRecorder()
			x.Handler().ServeHTTP(rec, httptest.NewRequest(tc.method, tc.target, strings.NewReader(tc.body)))
			if res := rec.Result(); res.StatusCode != tc.status || refusalOf(t, res) != tc.code {
				t.Errorf("%s %.200s: %s, want %d %s", tc.method, tc.target, res.Status, tc.status, tc.code)
			}
			if after := x.s.kept(); after != before {
				t.Errorf("the store went from %+v to %+v", before, after)
			}
			if _, decided := x.Confirmed(w); decided {
				t.Error("it decided what waits for the peer")
			}
			if n := x.host.consumes.Load() + x.host.gives.Load(); n != 0 {
				t.Errorf("the node was asked %d times", n)
			}
			after := x.Peer()
			if got := after.Counters.Refusals - peer.Counters.Refusals; got != 1 && tc.code != RefusedRound {
				t.Errorf("%d refusals counted, want 1", got)
			}
			after.Counters, peer.Counters = Counters{}, Counters{}
			if !reflect.DeepEqual(after, peer) {
				t.Errorf("the peer looks like %+v, before like %+v", after, peer)
			}
		})
	}
}

// TestServe_methods: other methods and paths are none of ours.
func TestServe_methods(t *testing.T) {
	x := newShelved("a", 1, time.Now)
	for target, want := range map[string]int{
		"POST /peer/changes": 405, "GET /peer/gc": 405, "GET /peer/steal": 405, "PUT /peer/consume": 405, "DELETE /peer/jobs/x": 405,
		"GET /peer/": 404, "GET /peer/jobs/": 404, "GET /peer/jobs/a/b": 404, "GET /peer/snapshot": 404,
	} {
		method, path, _ := strings.Cut(target, " ")
		rec := httptest.NewRecorder()
		x.Handler().ServeHTTP(rec, httptest.NewRequest(method, path, nil))
		if rec.Code != want {
			t.Errorf("%s: %d, want %d", target, rec.Code, want)
		}
	}
}

// TestServe_peer: what the peer asks for it gets, in bounds.
func TestServe_peer(t *testing.T) {
	c := &clock{}
	x := newShelved("a", 1, c.now)
	for n := range 1500 {
		x.s.put(newJob(n, "a"))
	}
	srv := httptest.NewServer(x.Handler())
	defer srv.Close()
	get := func(target string) (Reply, *http.Response) {
		t.Helper()
		res, err := http.Get(srv.URL + target)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return Reply{}, res
		}
		y := newShelved("b", 2, c.now) // reads as the peer does
		reply, err := y.readReply(t.Context(), bufio.NewReader(res.Body), func() {})
		if err != nil {
			t.Fatalf("%s: %v", target, err)
		}
		return reply, res
	}
	first, _ := get(asks(func(v url.Values) {
		for k := range v {
			if k == askBoot || k == askAt || k == askSeenHead {
				v.Del(k)
			}
		}
		v.Set(askRows, "99999999")
		v.Set(askBytes, "99999999999")
	}))
	if !first.Hello.Reset || first.Hello.LiveFrom != 1500 || len(first.Rows) != maxChunkRows || !first.End.More {
		t.Errorf("a first request gets reset %v, live_from %d, %d rows, more %v", first.Hello.Reset, first.Hello.LiveFrom, len(first.Rows), first.End.More)
	}
	other, _ := get(asks(set(askBoot, strings.Repeat("9", 32))))
	if !other.Hello.Reset {
		t.Error("a cursor of a boot that never was is not reset")
	}
	few, _ := get(asks(set(askRows, "3")))
	if len(few.Rows) != 3 || few.End.At != 4 || !few.End.More || few.Hello.Load.Waiting != 7 {
		t.Errorf("three rows behind 1: %d rows up to %d, more %v, waiting %d", len(few.Rows), few.End.At, few.End.More, few.Hello.Load.Waiting)
	}
	if n := x.Peer().Counters.Resets; n != 2 {
		t.Errorf("%d resets counted, want 2", n)
	}

	post := func(path, more string) (int, string) {
		t.Helper()
		id := peerIdentity()
		b, err := json.Marshal(caller{id.Node, id.Cluster, id.Store, id.Boot, [2]int{1, 1}})
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.Post(srv.URL+path, "application/json", strings.NewReader(strings.TrimSuffix(string(b), "}")+more+"}"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
	for _, tc := range []struct{ path, more, want string }{
		{"/peer/steal", `,"max":-5`, `{"ids":[]}`},
		{"/peer/steal", `,"max":2`, `{"ids":["00000000-0000-0000-0000-000000000000","00000000-0000-0000-0000-000000000000"]}`},
		{"/peer/consume", `,"top":-1`, `"iterations":2`},
	} {
		if status, text := post(tc.path, tc.more); status != 200 || !strings.Contains(text, tc.want) {
			t.Errorf("%s with %s: %d %s, want %s", tc.path, tc.more, status, text, tc.want)
		}
	}

	x.Stop()
	if _, res := get(asks(nil)); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a node that stops answers %s, want 503", res.Status)
	}
}

// TestServe_parks in virtual time: a request of one who is up waits, with a
// heartbeat every 100 ms, ends at the first news, and at the latest when it
// said; rows that came from the asker are no news.
func TestServe_parks(t *testing.T) {
	for _, tc := range []struct {
		name   string
		wait   time.Duration
		do     func(x *shelved) // 450 ms after it began
		took   time.Duration
		frames string // h for hello, b for a heartbeat, r for a row, e for the end
		cut    bool
	}{
		{"no_wait", 0, nil, 0, "he", false},
		{"nothing_new", time.Second, nil, time.Second, "h" + strings.Repeat("b", 10) + "e", false},
		{"for_ever_is_2_s", time.Hour, nil, maxPark, "h" + strings.Repeat("b", 20) + "e", false},
		{"news", time.Second, func(x *shelved) { x.s.put(newJob(1, "a")) }, 450 * time.Millisecond, "hbbbbre", false},
		{"its_own_row", time.Second, func(x *shelved) {
			x.Committed([]jobs.Changed{{Row: jobs.Row{Job: newJob(1, "b"), LSeq: 1}, Via: jobs.ID{2, 2}}})
		}, 500 * time.Millisecond, "hbbbbbe", false},
		{"a_word", time.Second, func(x *shelved) {
			x.mu.Lock()
			x.nudge()
			x.mu.Unlock()
		}, 450 * time.Millisecond, "hbbbbe", false},
		{"stops", time.Second, func(x *shelved) { x.Stop() }, 450 * time.Millisecond, "hbbbbe", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newShelved("a", 1, time.Now)
				x.up(t)
				p := newPipes()
				srv := &http.Server{Handler: x.Handler()}
				var all sync.WaitGroup
				all.Go(func() { _ = srv.Serve(p) })
				defer all.Wait()
				defer srv.Close()
				client := &http.Client{Transport: &http.Transport{DialContext: p.dial, DisableKeepAlives: true}}
				if tc.do != nil {
					time.AfterFunc(450*time.Millisecond, func() { tc.do(x) })
				}
				began := time.Now()
				v := encodeRequest(Request{Identity: peerIdentity(), Cursor: jobs.Cursor{Boot: x.s.boot}, Now: began, Wait: tc.wait, WordOf: x.s.boot})
				res, err := client.Get("http://peer/peer/changes?" + v.Encode())
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				frames, got := newFrameReader(res.Body), ""
				for {
					kind, _, err := frames.next()
					if err != nil {
						if !errors.Is(err, io.EOF) {
							t.Error(err)
						}
						break
					}
					got += string(" hrbe"[kind])
				}
				if took := time.Since(began); took != tc.took || got != tc.frames {
					t.Errorf("frames %s after %v, want %s after %v", got, took, tc.frames, tc.took)
				}
			})
		})
	}
}

// TestServe_asker_goes: when the connection of a parked request ends, the
// session is left at once, and nothing stays behind.
func TestServe_asker_goes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newShelved("a", 1, time.Now)
		x.up(t)
		p := newPipes()
		srv := &http.Server{Handler: x.Handler()}
		var all sync.WaitGroup
		all.Go(func() { _ = srv.Serve(p) })
		defer all.Wait()
		defer srv.Close()
		client := &http.Client{Transport: &http.Transport{DialContext: p.dial, DisableKeepAlives: true}}
		ctx, cancel := context.WithCancel(t.Context())
		v := encodeRequest(Request{Identity: peerIdentity(), Cursor: jobs.Cursor{Boot: x.s.boot}, Now: time.Now(), Wait: time.Second})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://peer/peer/changes?"+v.Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if why := x.Unsynced(); why != "" {
			t.Fatalf("not in sync: %s", why)
		}
		w := x.Expect([]jobs.ID{waitID})
		cancel()
		synctest.Wait()
		if why := x.Unsynced(); why == "" {
			t.Error("still in sync with nobody there")
		}
		if both, decided := x.Confirmed(w); both || !decided {
			t.Errorf("a write that waited: both %v, decided %v, want local", both, decided)
		}
		x.mu.Lock()
		if x.state.asking != 0 {
			t.Errorf("%d requests counted as open", x.state.asking)
		}
		x.mu.Unlock()
	})
}

// TestServe_reader_stands_still: one that takes nothing of its answer holds it
// for the time of a write at most.
func TestServe_reader_stands_still(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newShelved("a", 1, time.Now)
		x.up(t)
		for n := range 1000 {
			x.s.put(newJob(n, "a"))
		}
		p := newPipes()
		srv := &http.Server{Handler: x.Handler()}
		var all sync.WaitGroup
		all.Go(func() { _ = srv.Serve(p) })
		defer all.Wait()
		defer srv.Close()
		conn, err := p.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		v := encodeRequest(Request{Identity: peerIdentity(), Cursor: jobs.Cursor{Boot: x.s.boot}, Now: time.Now(), Wait: time.Second})
		if _, err := io.WriteString(conn, "GET /peer/changes?"+v.Encode()+" HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(writeTimeout + 10*time.Millisecond)
		synctest.Wait()
		x.mu.Lock()
		if x.state.asking != 0 {
			t.Errorf("%d requests are open after %v", x.state.asking, writeTimeout)
		}
		x.mu.Unlock()
		if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
	})
}

// FuzzServe: no query makes a request for changes panic or change the store.
func FuzzServe(f *testing.F) {
	f.Add(strings.TrimPrefix(asks(nil), "/peer/changes?"))
	f.Add("node=b&at=1&at=2")
	f.Add("node=b;cluster=c&%zz")
	f.Fuzz(func(t *testing.T, query string) {
		v, _ := url.ParseQuery(query) // what can be read of it, as the server does
		v.Del(askWait)
		x := newShelved("a", 1, func() time.Time { return stateEpoch })
		x.s.put(newJob(1, "a"))
		before := x.s.kept()
		rec := httptest.NewRecorder()
		x.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/peer/changes?"+v.Encode(), nil))
		after := x.s.kept()
		after.reading, before.reading = jobs.Reading{}, jobs.Reading{} // the first that is good becomes the peer
		if after != before {
			t.Errorf("%q: the store went from %+v to %+v", query, before, after)
		}
		if rec.Code == 500 || rec.Code == 200 && !bytes.HasPrefix(rec.Body.Bytes()[4:], []byte{kindHello}) {
			t.Errorf("%q: %d", query, rec.Code)
		}
	})
}

// TestServe_certificates: over TLS a node is who its certificate says, and no
// request that says otherwise is heard.
func TestServe_certificates(t *testing.T) {
	shown := func(name string) *tls.ConnectionState {
		s := &tls.ConnectionState{}
		if name != "" {
			s.VerifiedChains = [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: name}}}}
		}
		return s
	}
	for _, target := range []string{"GET " + asks(nil), "POST /peer/gc", "POST /peer/steal", "POST /peer/consume", "POST /peer/summary", "GET /peer/jobs/0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801"} {
		for _, name := range []string{"", "a", "c", "B", "b"} {
			c := &clock{}
			x := newShelved("a", 1, c.now)
			x.up(t)
			method, path, _ := strings.Cut(target, " ")
			text := ""
			if method == "POST" {
				id := peerIdentity()
				text = fmt.Sprintf(`{"node":%q,"cluster":%q,"store":%q,"boot":%q,"proto":[%d,%d]}`, id.Node, id.Cluster, id.Store, id.Boot, id.ProtoMin, id.ProtoMax)
			}
			if path == "/peer/gc" {
				text = string(encodeFloorRequest(FloorRequest{Identity: peerIdentity(), Floor: stateEpoch}))
			}
			r := httptest.NewRequest(method, path, strings.NewReader(text))
			r.TLS = shown(name)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			rec := httptest.NewRecorder()
			func() {
				defer func() { _ = recover() }() // an answer that breaks off says so
				x.Handler().ServeHTTP(rec, r.WithContext(ctx))
			}()
			cancel()
			refused := strings.Contains(rec.Body.String(), "the certificate of node")
			if refused == (name == peerIdentity().Node) || refused && rec.Code != http.StatusConflict {
				t.Errorf("%s with the certificate of %q: %d %s", target, name, rec.Code, rec.Body)
			}
		}
	}
}
