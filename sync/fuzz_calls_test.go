package sync

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"

	"workmanager/jobs"
)

// callPaths are the calls of the peer that have a body.
var callPaths = []string{"/peer/gc", "/peer/steal", "/peer/consume", "/peer/summary", "/peer/quarantine"}

// FuzzCalls: whatever the peer sends in a body, it gets an answer of the kinds
// there are, and nothing panics. The fields of a call are made known to it, so
// that what is fuzzed is behind the door too.
func FuzzCalls(f *testing.F) {
	id := peerIdentity()
	who, err := json.Marshal(caller{id.Node, id.Cluster, id.Store, id.Boot, [2]int{1, 1}})
	if err != nil {
		f.Fatal(err)
	}
	for n := range callPaths {
		f.Add(byte(n), []byte(`,"max":5,"top":3,"key":"k","again":true}`), true)
		f.Add(byte(n), []byte(`,"schema":3,"floor":1,"age":1000000,"bounds":[0,5,9]}`), true)
		f.Add(byte(n), []byte(`,"cut":{"from":0,"to":9},"list":{"from":0,"to":100},"ids":["00000000-0000-0000-0000-000000000000"],"recount":true}`), true)
		f.Add(byte(n), []byte(`,"adopt":["AAEC"],"resend":["01000000-0000-0000-0000-000000000000"],"ended":{"at":"2026-01-01T00:00:00Z"}}`), true)
		f.Add(byte(n), []byte(`,"sum":"00","rows":[{"worker":"w","turn":1,"barred":true,"since":1000000,"said":"0102030405060708"},{"worker":""}],"more":true}`), true)
		f.Add(byte(n), []byte(`{"node":1}`), false)
		f.Add(byte(n), encodeFloorRequest(FloorRequest{Identity: id, Floor: wireEpoch, Head: 9}), false)
		f.Add(byte(n), []byte(`,"max":-9223372036854775808,"top":1e3,"bounds":[9,1],"list":{"from":-1,"to":-5}}`), true)
	}
	for _, r := range wireRows() {
		row, _ := json.Marshal(appendRowFields(nil, &r)) // bytes are JSON
		f.Add(byte(3), fmt.Appendf(nil, `,"adopt":[%s]}`, row), true)
	}
	f.Fuzz(func(t *testing.T, path byte, body []byte, let bool) {
		if let {
			body = append(bytes.TrimSuffix(bytes.Clone(who), []byte("}")), body...)
		}
		c := &clock{}
		x := newShelved("a", 1, c.now)
		for n := range 3 {
			x.s.put(newJob(n, "a"))
		}
		x.up(t)
		rec := httptest.NewRecorder()
		x.Handler().ServeHTTP(rec, httptest.NewRequest("POST", callPaths[int(path)%len(callPaths)], bytes.NewReader(body)))
		switch rec.Code {
		case http.StatusOK, http.StatusBadRequest, http.StatusConflict, http.StatusUpgradeRequired, http.StatusServiceUnavailable:
		default:
			t.Errorf("%s %q: %d %s", callPaths[int(path)%len(callPaths)], body, rec.Code, rec.Body)
		}
		if !json.Valid(rec.Body.Bytes()) {
			t.Errorf("%q: the answer is no JSON: %q", body, rec.Body)
		}
	})
}

// FuzzReplies: what a peer answers is read as what it can be, or refused; the
// values that come out have the lengths that they must.
func FuzzReplies(f *testing.F) {
	f.Add([]byte(`{"results":[{"id":"01000000-0000-0000-0000-000000000000","value":"AA==","iterations":5,"done_at":1}]}`), 200)
	f.Add([]byte(`{"row":"AAEC","leased":true,"done":18446744073709551615,"rate":1e308,"worker":"w"}`), 200)
	f.Add([]byte(`{"ids":["01000000-0000-0000-0000-000000000000"]}`), 200)
	f.Add([]byte(`{"code":"stranger","detail":"x"}`), 409)
	f.Add([]byte(`{"floor":1,"digests":[{"rows":1,"lo":4294967295,"hi":1}],"cuts":[1,2],"sums":[{"id":"01000000-0000-0000-0000-000000000000","sum":"7"}],"standing":[{"found":true,"row":"AA=="}]}`), 200)
	f.Add(encodeFloorReply(FloorReply{Identity: peerIdentity(), Floor: wireEpoch, Head: 9}), 200)
	for _, r := range wireRows() {
		row, _ := json.Marshal(appendRowFields(nil, &r)) // bytes are JSON
		f.Add(fmt.Appendf(nil, `{"row":%s,"leased":true}`, row), 200)
	}
	f.Fuzz(func(t *testing.T, body []byte, status int) {
		if status < 200 || status > 599 || status == 204 || status == 304 {
			t.Skip()
		}
		c := &clock{}
		x := newShelved("a", 1, c.now)
		x.up(t)
		x.wire.client = &http.Client{Transport: answers(func() *http.Response {
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body))}
		})}
		x.Alive(member{Node: "b", API: "127.0.0.1:1"})
		for _, id := range []jobs.ID{{1}, {}} {
			v, found, err := x.Find(t.Context(), id)
			if found && (err != nil || status != 200 || v.ID != id) {
				t.Errorf("Find = %+v, %v of %d %q", v, err, status, body)
			}
		}
		got, err := x.Consume(t.Context(), 10, "", false)
		if err == nil && status != 200 {
			t.Errorf("Consume = %v of %d", got, status)
		}
		if n, err := x.Steal(t.Context(), 5); err == nil && (n < 0 || status != 200) {
			t.Errorf("Steal = %d of %d", n, status)
		}
	})
}

type answers func() *http.Response

func (a answers) RoundTrip(*http.Request) (*http.Response, error) { return a(), nil }

// FuzzDelegate: what memberlist hands on, be it a packet, a state or what a node
// says of itself, is from somebody who knows the key and may still be anything.
func FuzzDelegate(f *testing.F) {
	boot := wireID(0x30)
	cfg := gossipTestConfig("b")
	cfg.Boot = boot
	meta, err := appendMeta(nil, cfg)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(appendHint(nil, boot, 1<<40, 1000, 8), meta, "b")
	for _, r := range wireRows() {
		b, _ := appendCopies(nil, boot, []jobs.Row{r}, maxPacket)
		f.Add(b, meta, "b")
	}
	f.Add([]byte{packetCopies}, []byte{metaVersion}, "")
	f.Add([]byte{}, []byte{}, "a")
	f.Fuzz(func(t *testing.T, packet, said []byte, name string) {
		h := &heard{}
		g := &gossip{cfg: gossipTestConfig("a"), ev: h, join: make(chan struct{}, 1), hints: make(chan struct{}, 1)}
		d := &delegate{g}
		n := &memberlist.Node{Name: name, Addr: net.IPv4(10, 0, 0, 2), Port: 7946, Meta: said}
		if d.NotifyAlive(n) == nil {
			d.NotifyJoin(n)
		}
		d.NotifyConflict(n, &memberlist.Node{Name: "a", Addr: net.IPv4(10, 0, 0, 3), Port: 1})
		d.NotifyMsg(packet)
		d.MergeRemoteState(packet, false)
		mended := packet
		if len(packet) >= packetBytes { // else chance never meets the checksum
			mended = endPacket(bytes.Clone(packet), 0)
			d.NotifyMsg(mended)
		}
		if m := h.said().members; len(m) > 0 && (m[0].Node != name || name == "a" || m[0].API == "") {
			t.Errorf("a node of name %q that says %x is %+v", name, said, m[0])
		}
		for _, heads := range h.said().heads {
			if hint, err := decodeHint(mended); err != nil || hint.Head != heads {
				t.Errorf("%x: told of head %d", packet, heads)
			}
		}
		if len(h.said().members) == 0 && len(h.said().heads)+len(h.said().packets) > 0 {
			t.Errorf("%x of nobody's was heard", packet)
		}
		d.NotifyLeave(n)
		if strings.TrimSpace(name) != "" && g.peer != nil && g.peer.Node == name {
			t.Errorf("%q has left and is there", name)
		}
	})
}
