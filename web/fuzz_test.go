package web_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/url"
	"strings"
	"testing"

	"workmanager/jobs"
	"workmanager/web"
)

const fuzzMax = 1 << 20

// wantForm is what PUT /enqueue must make of a body, by the standard library
// and the contract's rule. ok is false if the data cannot be read.
func wantForm(contentType string, body []byte) (data []byte, ok bool) {
	media, _, _ := strings.Cut(contentType, ";")
	switch strings.ToLower(strings.TrimSpace(media)) {
	case "application/json":
		var m map[string]json.RawMessage
		if json.Unmarshal(body, &m) != nil || m == nil {
			return nil, false
		}
		return wantBase64(m["data"])
	case "application/x-www-form-urlencoded":
		if !bytes.HasPrefix(body, []byte("data=")) {
			break
		}
		v, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, false
		}
		all := v["data"]
		last := all[len(all)-1]
		return []byte(last), last != ""
	}
	return body, len(body) > 0
}

// wantBase64 reads a JSON string of base64; line breaks are none.
func wantBase64(raw json.RawMessage) ([]byte, bool) {
	var s string
	if len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &s) != nil || strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	data, err := base64.StdEncoding.DecodeString(s)
	return data, err == nil && len(data) > 0
}

// deep reports whether a text is nested deeper than we read.
func deep(b []byte) bool {
	return bytes.Count(b, []byte("["))+bytes.Count(b, []byte("{")) >= web.MaxDepth
}

func FuzzForms(f *testing.F) {
	for _, body := range []string{
		"", "data", "data=", "data=a+b%20c", "data=a&data=b", "data=a&x=1;2", "data=%zz", "data=%4", "data=a%26b&da%74a=c&data", "data=\xff\xfe&&=&",
		"x=1&data=2", `{"data":"aGVsbG8="}`, `{"data":"aGVs\/G8="}`, `{"data":"aGVsbG8=","data":1}`, `{"data":1,"data":"QQ=="}`, `{"d\u0061ta":"QUJD","x":[1,-2.5e+3,{"data":"y"}],"y":null}`,
		`{"data":"QUJDRA=="} x`, `{"data":"QU` + "\n" + `JD"}`, `{"data":"QU\nJD"}`, "{\"data\":\"QQ\n\n\n\n==\"}", `{"data":"QQ\n\n\n\n=="}`, `{"data":"QQ==QQ=="}`, `[]`, `null`, `{"data":null}`, `{"DATA":"QUJD"}`, `{"data":"QUJ"}`, `{"a":"\ud83d\ude00"}`, `{"data":"QUJD",}`,
		strings.Repeat("x", 5000), `{"data":"` + strings.Repeat("QUJD", 3000) + `"}`, "data=" + strings.Repeat("%41b", 3000),
	} {
		for _, ct := range []string{"", "application/octet-stream", "application/json; charset=x", "application/x-www-form-urlencoded"} {
			f.Add(ct, []byte(body), []byte{1, 2, 3})
			f.Add(ct, []byte(body), []byte{5, 7, 64, 100})
		}
	}
	f.Fuzz(func(t *testing.T, contentType string, body, cuts []byte) {
		if media, _, _ := strings.Cut(contentType, ";"); strings.EqualFold(strings.TrimSpace(media), "multipart/form-data") || deep(body) {
			t.Skip()
		}
		data, ok := wantForm(contentType, body)
		if int64(len(data)) > fuzzMax || len(body) > fuzzMax {
			t.Skip()
		}
		got, err := web.ReadForm(contentType, web.Cut(body, cuts), fuzzMax)
		if ok != (err == nil) {
			t.Fatalf("%q as %q: error %v, want data %q (%v)", body, contentType, err, data, ok)
		}
		if err != nil {
			if code := jobs.CodeOf(err); code != jobs.CodeInvalid {
				t.Fatalf("%q as %q: code %q, want %q", body, contentType, code, jobs.CodeInvalid)
			}
			return
		}
		if want := jobs.Value(sha512.Sum512(data)); got != want {
			t.Fatalf("%q as %q: v1 is not that of %q", body, contentType, data)
		}
	})
}

// FuzzMultipart holds that where a multipart body is cut cannot matter, and
// that a file part's bytes arrive as they are.
func FuzzMultipart(f *testing.F) {
	f.Add([]byte("hello"), []byte("--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n"), []byte{1, 9, 30})
	f.Add([]byte("a=3Db\r\n--b-\r\n"), []byte(""), []byte{200})
	f.Add([]byte{}, []byte("--b\r\nContent-Disposition: form-data; name=\"data\"\r\n\r\nfirst\r\n"), []byte{7})
	f.Fuzz(func(t *testing.T, data, before, cuts []byte) {
		const ct = "multipart/form-data; boundary=b"
		if bytes.Contains(data, []byte("--b")) {
			t.Skip()
		}
		body := bytes.Clone(before)
		body = append(body, "--b\r\nContent-Disposition: form-data; name=\"data\"; filename=\"f\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"...)
		body = append(body, data...)
		body = append(body, "\r\n--b--\r\n"...)
		whole, err := web.ReadForm(ct, [][]byte{bytes.Clone(body)}, fuzzMax)
		cut, cutErr := web.ReadForm(ct, web.Cut(body, cuts), fuzzMax)
		if (err == nil) != (cutErr == nil) || whole != cut {
			t.Fatalf("%q: whole %v, %v; cut %v, %v", body, whole, err, cut, cutErr)
		}
		if want := jobs.Value(sha512.Sum512(data)); len(before) == 0 && (err != nil || whole != want) {
			t.Fatalf("%q: v1 is not that of %q: %v", body, data, err)
		}
	})
}

func FuzzJSONScan(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":1}`, `{"a":{"b":[1,2,{"a":3}]},"data":"QQ=="}`, `{"a":"x\"\\\u00e9"}`, `{"a":-0.1e-5 , "a" : true}`, `{"a":01}`, `{"a":1.}`, `{"a":-}`, `{"a":tru}`, `{"a" 1}`, `{"a":1 "b":2}`, `{"a":[1,]}`,
		`{"a":"` + "\x01" + `"}`, `{"a":"\x"}`, `{"a":"\u12"}`, ` { } `, `{}{}`, `{"data":["QQ=="]}`, `{"\u0061":[ ]}`, "{\"a\":\"\xff\"}",
		"{\"data\":\"QQ\r\r\r\r==\"}", `{"data":"QQ==QQ=="}`,
	} {
		f.Add([]byte(s), []byte{1, 1, 2})
	}
	f.Fuzz(func(t *testing.T, text, cuts []byte) {
		if deep(text) {
			t.Skip()
		}
		var want map[string]json.RawMessage
		valid := json.Unmarshal(text, &want) == nil && want != nil
		got, data, err := web.ScanObject(web.Cut(text, cuts), "a")
		if valid != (err == nil) {
			t.Fatalf("%q: error %v, encoding/json says valid: %v", text, err, valid)
		}
		if err != nil {
			return
		}
		raw, has := want["a"]
		if g, found := got["a"]; found != has || len(raw) < 2000 && !sameJSON(g, string(raw)) {
			t.Fatalf("%q: member a is %q (%v), want %q (%v)", text, g, found, raw, has)
		}
		raw, has = want["data"]
		if data.Seen != has {
			t.Fatalf("%q: data found: %v, want %v", text, data.Seen, has)
		}
		if b, ok := wantBase64(raw); has && len(b) > 0 && (data.Bad == ok || ok && data.V1 != jobs.Value(sha512.Sum512(b))) {
			t.Fatalf("%q: data is bad: %v, want good: %v", text, data.Bad, ok)
		}
	})
}

// sameJSON compares raw texts but for blanks at the end of a nested value.
func sameJSON(a, b string) bool { return strings.TrimSpace(a) == strings.TrimSpace(b) }

// FuzzBatchLine holds the fast reading of a line to the slow one, and that to
// encoding/json.
func FuzzBatchLine(f *testing.F) {
	for _, s := range []string{
		`{"data":"aGVsbG8=","iterations":5}`, `{"iterations": 9007199254740992, "data": "QQ==", "priority": 9, "key": "a/b"}`, `{"data":"","iterations":5}`,
		`{"data":"QQ==","iterations":0}`, `{"data":"QQ==","iterations":9007199254740993}`, `{"data":"QQ==","iterations":5,"key":""}`, `{"data":"QQ==","iterations":5,"key":null,"priority":null}`,
		`{"data":"QQ==","iterations":5,"checkpoints":3}`, `{"checkpoints":1001,"data":"QQ==","iterations":5}`, `{"data":"QQ==","iterations":5,"checkpoints":null}`, `{"data":"QQ==","iterations":5,"checkpoints":1,"checkpoints":2}`,
		`{"data":"QQ==","iterations":1.0}`, `{"data":"QQ==","iterations":"5"}`, `{"data":"QQ==","iterations":5,"x":1}`, `{"data":"QQ==","data":"QUI=","iterations":5}`, `{"data":"Q\u0051==","iterations":5}`,
		`{"data":"QQ==","iterations":007}`, `{"data":"QQ==","iterations":5,"priority":10}`, `{"data":"QQ==","iterations":5,"priority":-1}`, `{"data":"QQ==","iterations":5} `, `{"data":"QQ==","iterations":5}x`, `{"DATA":"QQ==","iterations":5}`,
		"{\"data\":\"QQ\r==\",\"iterations\":5}", "{\"data\":\"QQ\r\r\r\r==\",\"iterations\":5}", `{"data":"QQ==","iterations":5,"key":"a\"b"}`, `{"data":"QQ==" ,"iterations" :5	}` + "\r",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if deep(line) || len(line) > 1000 {
			t.Skip()
		}
		slow, err := web.SlowLine(line, fuzzMax)
		if fast, ok := web.FastLine(line, fuzzMax); ok && (err != nil || fast != slow) {
			t.Fatalf("%q: fast %+v, slow %+v, %v", line, fast, slow, err)
		}
		want, ok := wantLine(line)
		if ok != (err == nil) || ok && want != slow.Key() {
			t.Fatalf("%q: error %v, key %q, want %q, %v", line, err, slow.Key(), want, ok)
		}
	})
}

// wantLine reads a line with encoding/json and returns its key.
func wantLine(line []byte) (key string, ok bool) {
	var m map[string]json.RawMessage
	if json.Unmarshal(line, &m) != nil {
		return "", false
	}
	if _, good := wantBase64(m["data"]); !good {
		return "", false
	}
	in := func(name string, min, max int64, need bool) bool {
		raw, has := m[name]
		if !has || string(raw) == "null" {
			return !need
		}
		n, good := new(big.Int).SetString(string(raw), 10)
		return good && raw[0] != '+' && n.Cmp(big.NewInt(min)) >= 0 && n.Cmp(big.NewInt(max)) <= 0
	}
	if !in("iterations", 1, jobs.MaxIterations, true) || !in("priority", 0, jobs.MaxPriority, false) || !in("checkpoints", 0, jobs.MaxKeep, false) {
		return "", false
	}
	if raw, has := m["key"]; has && json.Unmarshal(raw, &key) != nil {
		return "", false
	}
	for _, c := range []byte(key) {
		if c < 0x21 || c > 0x7E {
			return "", false
		}
	}
	for name := range m {
		switch name {
		case "data", "iterations", "key", "priority", "checkpoints":
		default:
			return "", false
		}
	}
	return key, len(key) <= jobs.MaxKeyBytes
}

func FuzzWhole(f *testing.F) {
	for _, s := range []string{"", "+7", " 7 ", "007", "1_000", "_1", "1__0", "1_", "-3", "- 3", "1.5", "1e3", "99999999999999999999", "-99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := web.Whole(s)
		bare := strings.TrimSpace(s)
		digits := strings.TrimLeft(bare, "+-")
		good := len(bare)-len(digits) <= 1 && digits != "" && !strings.Contains(digits, "__") && !strings.HasPrefix(digits, "_") && !strings.HasSuffix(digits, "_") &&
			strings.Trim(digits, "0123456789_") == ""
		if ok != good {
			t.Fatalf("Whole(%q) ok = %v, want %v", s, ok, good)
		}
		if !ok {
			return
		}
		want, _ := new(big.Int).SetString(strings.ReplaceAll(bare, "_", ""), 10)
		if want.IsInt64() && want.CmpAbs(big.NewInt(1<<62)) < 0 && want.Int64() != got {
			t.Fatalf("Whole(%q) = %d, want %v", s, got, want)
		}
		if want.Sign() != big.NewInt(got).Sign() {
			t.Fatalf("Whole(%q) = %d, want the sign of %v", s, got, want)
		}
	})
}
