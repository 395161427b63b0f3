package sync

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"workmanager/jobs"
)

// The parameters of GET /peer/changes. A number, flag or instant that is zero
// is left out; wait and now are microseconds, IDs 32 hexadecimal digits.
const (
	askNode        = "node"
	askCluster     = "cluster"
	askStore       = "store"
	askMe          = "me"
	askProto       = "proto" // "min-max"
	askSchema      = "schema"
	askMemberEpoch = "member_epoch"
	askComplete    = "complete"
	askNow         = "now"
	askBoot        = "boot"
	askAt          = "at"
	askSeenHead    = "seen_head"
	askBackAt      = "back_at"
	askBackTo      = "back_to"
	askUnlisted    = "unlisted"
	askWait        = "wait"
	askRows        = "max_rows"
	askBytes       = "max_bytes"
	askAhead       = "ahead"
	askWordOf      = "word_of"
	askWord        = "word"
	askDone        = "done_" // begins the names of Durable
)

// encodeRequest returns q as the query of GET /peer/changes.
func encodeRequest(q Request) url.Values {
	v := url.Values{}
	number := func(name string, n int64) {
		if n != 0 {
			v.Set(name, strconv.FormatInt(n, 10))
		}
	}
	flag := func(name string, set bool) {
		if set {
			v.Set(name, "1")
		}
	}
	v.Set(askNode, q.Node)
	if q.Cluster != "" {
		v.Set(askCluster, q.Cluster)
	}
	v.Set(askStore, hex.EncodeToString(q.Store[:]))
	v.Set(askMe, hex.EncodeToString(q.Boot[:]))
	v.Set(askProto, strconv.Itoa(q.ProtoMin)+"-"+strconv.Itoa(q.ProtoMax))
	number(askSchema, int64(q.Schema))
	number(askMemberEpoch, q.MemberEpoch)
	flag(askComplete, q.Complete)
	number(askNow, max(instantMicros(q.Now), 0)) // a wrong clock is no reason to be refused
	if q.Cursor.Boot != (jobs.ID{}) {
		v.Set(askBoot, hex.EncodeToString(q.Cursor.Boot[:]))
	}
	number(askAt, int64(q.Cursor.At))
	number(askSeenHead, int64(q.Cursor.SeenHead))
	number(askBackAt, int64(q.Cursor.BackAt))
	number(askBackTo, int64(q.Cursor.BackTo))
	if q.Ahead {
		flag(askAhead, true)
		if q.Durable.Boot != (jobs.ID{}) {
			v.Set(askDone+askBoot, hex.EncodeToString(q.Durable.Boot[:]))
		}
		number(askDone+askAt, int64(q.Durable.At))
		number(askDone+askSeenHead, int64(q.Durable.SeenHead))
		number(askDone+askBackAt, int64(q.Durable.BackAt))
		number(askDone+askBackTo, int64(q.Durable.BackTo))
	}
	if q.WordOf != (jobs.ID{}) {
		v.Set(askWordOf, hex.EncodeToString(q.WordOf[:]))
		number(askWord, int64(q.Word))
	}
	flag(askUnlisted, q.Unlisted)
	number(askWait, max(q.Wait.Microseconds(), 0))
	number(askRows, int64(q.Rows))
	number(askBytes, int64(q.Bytes))
	return v
}

// decodeRequest reads the query of GET /peer/changes. The error names the first
// parameter that is missing, there twice, malformed or negative, or says why
// no cursor is so; parameters it does not know are skipped. Wait, Rows and
// Bytes are cut to maxPark, maxChunkRows and maxChunkBytes; who does not say
// how much it takes gets the most.
func decodeRequest(v url.Values) (Request, error) {
	p := params{v: v}
	var q Request
	q.Node = p.text(askNode)
	q.Cluster = p.text(askCluster)
	q.Store = p.id(askStore)
	q.Boot = p.id(askMe)
	q.ProtoMin, q.ProtoMax = p.span(askProto)
	q.Schema = int(p.number(askSchema, math.MaxInt32))
	q.MemberEpoch = p.number(askMemberEpoch, math.MaxInt64)
	q.Complete = p.flag(askComplete)
	now := p.number(askNow, math.MaxInt64)
	q.Cursor = p.cursor("")
	if q.Ahead = p.flag(askAhead); q.Ahead {
		q.Durable = p.cursor(askDone)
	}
	q.WordOf, q.Word = p.id(askWordOf), uint64(p.number(askWord, math.MaxInt64))
	q.Unlisted = p.flag(askUnlisted)
	wait := p.number(askWait, math.MaxInt64)
	rows, size := p.number(askRows, math.MaxInt64), p.number(askBytes, math.MaxInt64)
	if p.err != nil {
		return Request{}, p.err
	}
	var err error
	if q.Now, err = microInstant(now); err != nil {
		return Request{}, fmt.Errorf("parameter %s: %w", askNow, err)
	}
	if err := q.Identity.check(askStore, askMe); err != nil {
		return Request{}, fmt.Errorf("parameter %w", err)
	}
	if p.err != nil {
		return Request{}, p.err
	}
	q.Wait = time.Duration(min(wait, maxPark.Microseconds())) * time.Microsecond
	q.Rows, q.Bytes = maxChunkRows, maxChunkBytes
	if rows > 0 {
		q.Rows = int(min(rows, maxChunkRows))
	}
	if size > 0 {
		q.Bytes = int(min(size, maxChunkBytes))
	}
	return q, nil
}

// params reads parameters; err is the first that is wrong.
type params struct {
	v   url.Values
	err error
}

// cursor reads a cursor, the names of whose parts begin with prefix.
func (p *params) cursor(prefix string) jobs.Cursor {
	c := jobs.Cursor{
		Boot: p.id(prefix + askBoot),
		At:   jobs.LSeq(p.number(prefix+askAt, math.MaxInt64)), SeenHead: jobs.LSeq(p.number(prefix+askSeenHead, math.MaxInt64)),
		BackAt: jobs.LSeq(p.number(prefix+askBackAt, math.MaxInt64)), BackTo: jobs.LSeq(p.number(prefix+askBackTo, math.MaxInt64)),
	}
	switch {
	case c.At > c.SeenHead:
		p.fail(prefix+askAt, "%d is above the head, %d", c.At, c.SeenHead)
	case c.BackTo > c.SeenHead:
		p.fail(prefix+askBackTo, "%d is above the head, %d", c.BackTo, c.SeenHead)
	case c.BackAt > c.BackTo:
		p.fail(prefix+askBackAt, "%d is above %s, %d", c.BackAt, prefix+askBackTo, c.BackTo)
	}
	return c
}

func (p *params) fail(name, format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("parameter %s: %s", name, fmt.Sprintf(format, args...))
	}
}

// get returns the parameter, false if it is not there.
func (p *params) get(name string) (string, bool) {
	switch v := p.v[name]; len(v) {
	case 0:
		return "", false
	case 1:
		return v[0], true
	default:
		p.fail(name, "is there %d times", len(v))
		return "", false
	}
}

func (p *params) text(name string) string {
	s, _ := p.get(name)
	return s
}

func (p *params) id(name string) jobs.ID {
	s, ok := p.get(name)
	if !ok {
		return jobs.ID{}
	}
	id, err := parseHexID(s)
	if err != nil {
		p.fail(name, "%v", err)
	}
	return id
}

func (p *params) number(name string, limit int64) int64 {
	s, ok := p.get(name)
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > uint64(limit) {
		p.fail(name, "%.40q is no number from 0 to %d", s, limit)
		return 0
	}
	return int64(n)
}

func (p *params) flag(name string) bool {
	s, ok := p.get(name)
	if ok && s != "0" && s != "1" {
		p.fail(name, "%.40q is neither 0 nor 1", s)
	}
	return s == "1"
}

func (p *params) span(name string) (low, high int) {
	s, _ := p.get(name)
	a, b, _ := strings.Cut(s, "-")
	l, errLow := strconv.ParseUint(a, 10, 31)
	h, errHigh := strconv.ParseUint(b, 10, 31)
	if errLow != nil || errHigh != nil || l < 1 || h < l {
		p.fail(name, "%.40q is no range of versions, as 1-2 is", s)
		return 0, 0
	}
	return int(l), int(h)
}

// parseHexID reads 32 hexadecimal digits.
func parseHexID(s string) (jobs.ID, error) {
	var id jobs.ID
	if len(s) != 2*len(id) {
		return jobs.ID{}, fmt.Errorf("has %d characters, want %d hexadecimal digits", len(s), 2*len(id))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return jobs.ID{}, fmt.Errorf("%q is not hexadecimal", s)
	}
	return id, nil
}

// maxBody bounds a JSON body between nodes.
const maxBody = 1 << 20

// decodeBody reads one JSON value of at most maxBody bytes into v. Fields it
// does not know are skipped.
func decodeBody(r io.Reader, v any) error {
	b, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	if len(b) > maxBody {
		return fmt.Errorf("body too long: at most %d bytes", maxBody)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	return nil
}

// encodeBody is for values that JSON always holds.
func encodeBody(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("sync: a body that is no JSON: " + err.Error())
	}
	return b
}

// floorBody is a FloorRequest or FloorReply in JSON: IDs are 32 hexadecimal
// digits, the floor microseconds since the Unix epoch.
type floorBody struct {
	Node        string `json:"node"`
	Cluster     string `json:"cluster"`
	Store       string `json:"store"`
	Boot        string `json:"boot"`
	ProtoMin    int    `json:"proto_min"`
	ProtoMax    int    `json:"proto_max"`
	Schema      int    `json:"schema"`
	MemberEpoch int64  `json:"member_epoch"`
	Floor       int64  `json:"floor"`
	Head        int64  `json:"head"`
}

// encodeFloorRequest returns f as the body of POST /peer/gc.
func encodeFloorRequest(f FloorRequest) []byte {
	return encodeBody(floorBody{
		Node: f.Node, Cluster: f.Cluster, Store: hex.EncodeToString(f.Store[:]), Boot: hex.EncodeToString(f.Boot[:]),
		ProtoMin: f.ProtoMin, ProtoMax: f.ProtoMax, Schema: f.Schema, MemberEpoch: f.MemberEpoch,
		Floor: instantMicros(f.Floor), Head: int64(f.Head),
	})
}

// decodeFloorRequest reads what encodeFloorRequest has written. The error names
// the field that is wrong.
func decodeFloorRequest(r io.Reader) (FloorRequest, error) {
	var b floorBody
	if err := decodeBody(r, &b); err != nil {
		return FloorRequest{}, err
	}
	f := FloorRequest{
		Identity: Identity{Node: b.Node, Cluster: b.Cluster, ProtoMin: b.ProtoMin, ProtoMax: b.ProtoMax,
			Schema: b.Schema, MemberEpoch: b.MemberEpoch},
		Head: jobs.LSeq(b.Head),
	}
	var err error
	if f.Store, err = parseHexID(b.Store); err != nil {
		return FloorRequest{}, fmt.Errorf("body: store: %w", err)
	}
	if f.Boot, err = parseHexID(b.Boot); err != nil {
		return FloorRequest{}, fmt.Errorf("body: boot: %w", err)
	}
	if f.Floor, err = microInstant(b.Floor); err != nil {
		return FloorRequest{}, fmt.Errorf("body: floor: %w", err)
	}
	if b.Floor < 0 {
		return FloorRequest{}, fmt.Errorf("body: floor: %d is negative", b.Floor)
	}
	if b.Head < 0 {
		return FloorRequest{}, fmt.Errorf("body: head: %d is negative", b.Head)
	}
	if err := f.Identity.check("store", "boot"); err != nil {
		return FloorRequest{}, fmt.Errorf("body: %w", err)
	}
	return f, nil
}

// encodeFloorReply returns f as the answer to POST /peer/gc.
func encodeFloorReply(f FloorReply) []byte { return encodeFloorRequest(FloorRequest(f)) }

// decodeFloorReply reads what encodeFloorReply has written.
func decodeFloorReply(r io.Reader) (FloorReply, error) {
	f, err := decodeFloorRequest(r)
	return FloorReply(f), err
}

// refusalBody is a Refusal in JSON.
type refusalBody struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// encodeRefusal returns r as the body of an answer that is no 200.
func encodeRefusal(r *Refusal) []byte { return encodeBody(refusalBody(*r)) }

// decodeRefusal reads what encodeRefusal has written. It returns an error if
// that did not come from a node: it has no code.
func decodeRefusal(r io.Reader) (*Refusal, error) {
	var b refusalBody
	if err := decodeBody(r, &b); err != nil {
		return nil, err
	}
	if b.Code == "" {
		return nil, errors.New("body: code: is missing")
	}
	return &Refusal{Code: b.Code, Detail: b.Detail}, nil
}
