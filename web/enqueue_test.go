package web_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/node"
	"workmanager/web/api"
)

// golden are values computed by another language's standard library.
var golden = []struct {
	name       string
	data       string
	iterations int
	value      string
}{
	{"hello", "hello", 1, "9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca72323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043"},
	{"hello", "hello", 2, "0592a10584ffabf96539f3d780d776828c67da1ab5b169e9e8aed838aaecc9ed36d49ff1423c55f019e050c66c6324f53588be88894fef4dcffdb74b98e2b200"},
	{"hello", "hello", 5, "5ab743e5b9704b2ae1584c7b768aba17d98388c1cb56b7c7240a0636157e21251ecb636baff93da58db7ea849c1f8717649a6963162ee8fe66fc9b391a2aa94c"},
	{"hello", "hello", 1000, "2f0d1593c9d82cc06935e69e4e8b230db1240f63a5ae7977d1a8517397895f7272544c5410618deeab6f6720c33b3b3a73ea0445c72127be8814bb4d07ff616e"},
	{"hello", "hello", 1_000_000, "17134c41e9c61bf16703a0e0d174818bc26c54379ecc1e223ed8a8fd66dbea0de3b9242f28c0735f1f23eef3a36eac36352266f431c3893ea74f1153b8d6b98b"},
	{"empty", "", 1, "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"},
	{"empty", "", 2, "826df068457df5dd195b437ab7e7739ff75d2672183f02bb8e1089fabcf97bd9dc80110cf42dbc7cff41c78ecb68d8ba78abe6b5178dea3984df8c55541bf949"},
	{"all_bytes", allBytes(), 5, "fd158ca267bf32735e8d57a10b75edea1c6d614a690d742f450b73605b4e473c4876b7c3414caeedc3ffa6936e5ccaf892af5cf0f22cf963c219d073552bf0e7"},
	{"no_text", "\xff\xfe\x80\xe9", 1, "49cccd4ad476c11b3ff49afb0e0717ab69ae0392767b21b0eb65176fd1dac1580a82ceb00b7e81fde9cbacbf5bf3a7238a3bb8aaaf8f8ed28b7b1e5c7d355742"},
	{"256KiB", strings.Repeat("\xa5", 256<<10), 1000, "7b8298f87aa6450d7d53879b8cb9b99a5fee6449cf9585b26ab861c1450493e08853eb7fc7ef616acbbfa04929ef3f27f8534b31c34022c213dfe645940c9116"},
	{"a_plus", "a+b%20c", 1, "03d591a4b5aa831519da206cd14ab071741dfc8af1b1ce3121b71e15c60d277ddbc35ff6559f0951aefb162ed49f91accd22218c6ff858cf3fa1ab7c38377766"},
	{"a_b_c", "a b c", 1, "22faaaf3e2fe358ab4ba165d2b83f2bf819ef42f833666fdb8f50a440fd00b5b0b15c687f3dce7d67bec7f3ecd2ed69d0a5a6c139ff448e60b2828a75e6439a1"},
}

func allBytes() string {
	var b [256]byte
	for i := range b {
		b[i] = byte(i)
	}
	return string(b[:])
}

// forms encode data as a body, each with its Content-Type.
var forms = []struct {
	name string
	body func(data string) (contentType, body string)
}{
	{"file", func(d string) (string, string) { return part(`form-data; name="data"; filename="f.bin"`, d) }},
	{"text", func(d string) (string, string) { return part(`form-data; name="data"`, d) }},
	{"urlencoded", func(d string) (string, string) {
		return "application/x-www-form-urlencoded", "data=" + url.QueryEscape(d)
	}},
	{"json", func(d string) (string, string) {
		return "application/json", `{"data":"` + base64.StdEncoding.EncodeToString([]byte(d)) + `"}`
	}},
	{"raw", func(d string) (string, string) { return "application/octet-stream", d }},
}

// part returns a multipart form with one part.
func part(disposition, data string) (contentType, body string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	p, _ := w.CreatePart(map[string][]string{"Content-Disposition": {disposition}, "Content-Type": {"text/plain; charset=latin1"}, "Content-Transfer-Encoding": {"quoted-printable"}})
	_, _ = io.WriteString(p, data)
	_ = w.Close()
	return w.FormDataContentType(), b.String()
}

// slowly reads a few bytes at a time, so that a body goes out in many chunks
// without a Content-Length.
type slowly struct{ r io.Reader }

func (s slowly) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), 1+rand.IntN(2000))]) }

func TestEnqueue_golden_values_through_every_form(t *testing.T) {
	t.Parallel()
	s := startNode(t, func(c *node.Config) { c.CacheEntries = 0 })
	for _, g := range golden {
		for _, f := range forms {
			if g.data == "" && f.name != "file" {
				continue
			}
			for _, chunked := range []bool{false, true} {
				if g.iterations > 1000 && (chunked || f.name != "raw") {
					continue
				}
				ct, text := f.body(g.data)
				var body io.Reader = strings.NewReader(text)
				if chunked {
					body = slowly{body}
				}
				a := s.do("PUT", fmt.Sprintf("/enqueue?iterations=%d", g.iterations), body, "Content-Type: "+ct)
				if d := a.header.Get(api.HeaderDurability); a.status == 200 && d != "local" {
					t.Errorf("durability %q of a node alone, want local", d)
				}
				if got := s.value(a.id(t)); got != g.value {
					t.Errorf("%s, %d iterations, as %s, chunked %v: value %s, want %s", g.name, g.iterations, f.name, chunked, got, g.value)
				}
			}
		}
	}
	// The same bytes as a form are other data.
	a := s.do("PUT", "/enqueue?iterations=1", strings.NewReader("data=a+b%20c"), "Content-Type: application/x-www-form-urlencoded")
	if got, want := s.value(a.id(t)), golden[len(golden)-1].value; got != want {
		t.Errorf("data=a+b%%20c: value %s, want that of \"a b c\", %s", got, want)
	}
}

// v1 is the value of one iteration, by which tests see what data arrived.
func (s *service) v1(contentType, body string) (string, answer) {
	s.t.Helper()
	headers := []string{}
	if contentType != "" {
		headers = append(headers, "Content-Type: "+contentType)
	}
	a := s.do("PUT", "/enqueue?iterations=1", strings.NewReader(body), headers...)
	if a.status != 200 {
		return "", a
	}
	return s.value(a.id(s.t)), a
}

func TestEnqueue_form_rule(t *testing.T) {
	t.Parallel()
	s := startNode(t)
	const mp = "multipart/form-data; boundary=b"
	p := func(headers, data string) string {
		return "--b\r\nContent-Disposition: form-data; " + headers + "\r\n\r\n" + data + "\r\n"
	}
	for _, c := range []struct {
		name, contentType, body, data string
		status                        int // 0: the data arrives
		words                         string
	}{
		{"no_type", "", "data=x", "data=x", 0, ""},
		{"unknown_type", "text/plain; charset=utf-16", "\xff\xfeA", "\xff\xfeA", 0, ""},
		{"broken_type", "application/json;;; =", `{"data":"QQ=="}`, "A", 0, ""},
		{"urlencoded_without_data_is_raw", "application/x-www-form-urlencoded", "x=1&data=2", "x=1&data=2", 0, ""},
		{"urlencoded_short_is_raw", "application/x-www-form-urlencoded", "dat", "dat", 0, ""},
		{"urlencoded_last_wins", "application/x-www-form-urlencoded", "data=a&x=1&data=b", "b", 0, ""},
		{"urlencoded_escaped_name", "application/x-www-form-urlencoded; charset=x", "data=a&d%61ta=c%2B", "c+", 0, ""},
		{"urlencoded_high_bytes", "application/x-www-form-urlencoded", "data=\xff\xfe", "\xff\xfe", 0, ""},
		{"urlencoded_semicolon", "application/x-www-form-urlencoded", "data=a;b", "", 422, ";"},
		{"urlencoded_bad_escape", "application/x-www-form-urlencoded", "data=a%2", "", 422, "escape"},
		{"urlencoded_empty", "application/x-www-form-urlencoded", "data=", "", 422, "multipart/form-data"},
		{"json_other_keys_ignored", "application/json", `{"x":[{"data":"Qg=="}],"data":"QQ=="}`, "A", 0, ""},
		{"json_last_wins", "Application/JSON", `{"data":1,"data":"QQ=="}`, "A", 0, ""},
		{"json_escaped", "application/json", `{"d\u0061ta":"\u0051\u0051=\u003d"}`, "A", 0, ""},
		{"json_case_sensitive", "application/json", `{"Data":"QQ=="}`, "", 422, "data: field required"},
		{"json_no_object", "application/json", `"QQ=="`, "", 422, "data"},
		{"json_unpadded", "application/json", `{"data":"QQ"}`, "", 422, "base64"},
		{"json_url_alphabet", "application/json", `{"data":"__8="}`, "", 422, "base64"},
		{"json_number", "application/json", `{"data":5}`, "", 422, "base64"},
		{"json_null", "application/json", `{"data":null}`, "", 422, "base64"},
		{"json_broken", "application/json", `{"data":"QQ=="`, "", 422, "ends too soon"},
		{"json_empty", "application/json", `{"data":""}`, "", 422, "multipart/form-data"},
		{"multipart_last_wins", mp, p(`name="data"`, "a") + p(`name="x"`, "y") + p(`name="data"; filename="f"`, "b") + "--b--\r\n", "b", 0, ""},
		{"multipart_name_is_case_sensitive", mp, p(`name="Data"`, "a") + "--b--\r\n", "", 422, "data: field required"},
		{"multipart_keeps_bytes", mp, p("name=\"data\"; filename=\"\xc3\xa9\"\r\nContent-Transfer-Encoding: base64", "QQ=3D\r\n\n") + "--b--", "QQ=3D\r\n\n", 0, ""},
		{"multipart_empty_file", mp, p(`name="data"; filename="f"`, "") + "--b--\r\n", "", 0, ""},
		{"multipart_empty_file_without_name", mp, p(`name="data"; filename=""`, "") + "--b--\r\n", "", 0, ""},
		{"multipart_empty_text", mp, p(`name="data"`, "") + "--b--\r\n", "", 422, "filename"},
		{"multipart_no_data", mp, p(`name="x"`, "1") + "--b--\r\n", "", 422, "data: field required"},
		{"multipart_no_boundary", "multipart/form-data", "x", "", 400, "boundary"},
		{"multipart_broken", mp, "nonsense", "", 400, "broken"},
		{"multipart_no_end", mp, p(`name="data"`, "a"), "", 400, "broken"},
		{"multipart_no_body", mp, "", "", 422, "data: field required"},
		{"multipart_mixed_is_raw", "multipart/mixed; boundary=b", "--b--", "--b--", 0, ""},
		{"raw_empty", "application/octet-stream", "", "", 422, "filename"},
		{"no_body", "", "", "", 422, "filename"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, pad := range []bool{false, true} {
				body := c.body
				got, a := "", answer{}
				if pad { // the same through the large buffer, in many chunks
					headers := []string{}
					if c.contentType != "" {
						headers = append(headers, "Content-Type: "+c.contentType)
					}
					if body == "" {
						continue
					}
					if a = s.do("PUT", "/enqueue?iterations=1", slowly{strings.NewReader(body)}, headers...); a.status == 200 {
						got = s.value(a.id(t))
					}
				} else {
					got, a = s.v1(c.contentType, body)
				}
				if c.status != 0 {
					code := jobs.CodeInvalid
					if c.status == 400 {
						code = jobs.CodeMalformed
					}
					a.refused(t, c.status, code, c.words)
					continue
				}
				if want := valueOf(c.data); got != want {
					t.Errorf("%q as %q, chunked %v: %d %s, data is not %q", c.body, c.contentType, pad, a.status, a.body, c.data)
				}
			}
		})
	}
}

func TestEnqueue_iterations(t *testing.T) {
	t.Parallel()
	s := startNode(t)
	for query, want := range map[string]uint64{
		"iterations=5": 5, "iterations=%2B7": 7, "iterations=+7": 7, "iterations=%207%20": 7, "iterations=007": 7, "iterations=1_000": 1000, "iterations=abc&iterations=3": 3,
		"iter%61tions=4": 4, "iterations=9007199254740992": jobs.MaxIterations, "x=1;2&iterations=6": 6,
	} {
		var j api.Job
		s.do("GET", "/v1/jobs/"+s.do("PUT", "/enqueue?"+query, strings.NewReader("x")).id(t), nil).into(t, &j)
		if j.Iterations != want {
			t.Errorf("?%s: %d iterations, want %d", query, j.Iterations, want)
		}
	}
	for query, want := range map[string][2]string{ // the type and words
		"":                                {"value_error.missing", "field required"},
		"ITERATIONS=5":                    {"value_error.missing", "field required"},
		"iterations=":                     {"type_error.integer", `""`},
		"iterations":                      {"type_error.integer", `""`},
		"iterations=1.5":                  {"type_error.integer", `"1.5"`},
		"iterations=1.0":                  {"type_error.integer", `"1.0"`},
		"iterations=1e3":                  {"type_error.integer", `"1e3"`},
		"iterations=abc":                  {"type_error.integer", `"abc"`},
		"iterations=%zz":                  {"type_error.integer", `"%zz"`},
		"iterations=1__0":                 {"type_error.integer", `"1__0"`},
		"iterations=3&iterations=abc":     {"type_error.integer", `"abc"`},
		"iterations=0":                    {"value_error.number", "0 is not from 1 to 9007199254740992"},
		"iterations=-5":                   {"value_error.number", "-5 is not from 1 to 9007199254740992"},
		"iterations=9007199254740993":     {"value_error.number", "9007199254740993 is not"},
		"iterations=18446744073709551617": {"value_error.number", "18446744073709551617 is not"},
		"iterations=" + strings.Repeat("9", 3000): {"value_error.number", "…"},
	} {
		p := s.do("PUT", "/enqueue?"+query, strings.NewReader("x")).refused(t, 422, jobs.CodeInvalid, "iterations: ", want[1])
		if len(p.Errors) != 1 || p.Errors[0].Type != want[0] || strings.Join(p.Errors[0].Loc, ".") != "query.iterations" || len(p.Detail) > 300 {
			t.Errorf("?%s: errors %+v, want one of type %s at query.iterations", clipped(query), p.Errors, want[0])
		}
	}
}

func clipped(s string) string { return s[:min(len(s), 40)] }

func TestEnqueue_all_problems_in_one_answer(t *testing.T) {
	t.Parallel()
	s := startNode(t)
	p := s.do("PUT", "/enqueue?iterations=abc&ack=maybe&priority=10", strings.NewReader(`{"data":"?"}`), "Content-Type: application/json", "Idempotency-Key: a b").
		refused(t, 422, jobs.CodeInvalid, "iterations: ", "data: ", "ack: ", "priority: ", "Idempotency-Key: ")
	if len(p.Errors) != 5 {
		t.Errorf("%d errors %+v, want 5", len(p.Errors), p.Errors)
	}
	p = s.do("PUT", "/enqueue", nil).refused(t, 422, jobs.CodeInvalid)
	if len(p.Errors) != 2 {
		t.Errorf("nothing sent: errors %+v, want iterations and data", p.Errors)
	}
}

func TestEnqueue_wrong_iterations_does_not_wait_for_the_body(t *testing.T) {
	t.Parallel()
	s := startNode(t)
	for _, length := range []int{60_000_000, 100_000, 100} {
		c := raw(t, s.Server, fmt.Sprintf("PUT /enqueue?iterations=0 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\nabc", length))
		began := time.Now()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("length %d: %v", length, err)
		}
		if took := time.Since(began); resp.StatusCode != 422 || took > 5*time.Second {
			t.Errorf("length %d: status %d after %v, want 422 at once", length, resp.StatusCode, took)
		}
	}
}

func TestEnqueue_idempotency_key(t *testing.T) {
	t.Parallel()
	s := startNode(t)
	put := func(key, body string) answer {
		return s.do("PUT", "/enqueue?iterations=3", strings.NewReader(body), "Idempotency-Key: "+key)
	}
	a, b, c := put("k", "x").id(t), put("k", "x").id(t), put("l", "x").id(t)
	if a != b || a == c {
		t.Errorf("IDs %s, %s of one key and %s of another", a, b, c)
	}
	put("k", "y").refused(t, 409, jobs.CodeConflict, a)
	put(strings.Repeat("k", 255), "x").id(t)
	put(strings.Repeat("k", 256), "x").refused(t, 422, jobs.CodeInvalid, "Idempotency-Key", "255")
	put("", "x").refused(t, 422, jobs.CodeInvalid, "Idempotency-Key")
	s.do("PUT", "/enqueue?iterations=3", strings.NewReader("x"), "Idempotency-Key: a", "Idempotency-Key: b").refused(t, 422, jobs.CodeInvalid, "2 times")
	if x, y := s.do("PUT", "/enqueue?iterations=3", strings.NewReader("x")).id(t), s.do("PUT", "/enqueue?iterations=3", strings.NewReader("x")).id(t); x == y {
		t.Errorf("two jobs without a key have one ID %s", x)
	}
}

func TestEnqueue_ack(t *testing.T) {
	t.Parallel()
	s := startNode(t)
	s.do("PUT", "/enqueue?iterations=3&ack=local", strings.NewReader("x")).id(t)
	a := s.do("PUT", "/enqueue?iterations=3&ack=both", strings.NewReader("x"))
	a.refused(t, 503, jobs.CodeUnavailable)
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestEnqueue_encoded_body_is_refused(t *testing.T) {
	t.Parallel()
	s := startNode(t)
	for _, path := range []string{"PUT /enqueue?iterations=1", "POST /v1/jobs?iterations=1", "POST /v1/jobs/batch"} {
		method, path, _ := strings.Cut(path, " ")
		s.do(method, path, strings.NewReader("x"), "Content-Encoding: gzip").refused(t, 415, jobs.CodeUnsupported, "gzip")
	}
}

// TestEnqueue_large_body_costs_no_memory sends 64 MiB in every form to both
// routes and counts what is allocated on the way.
func TestEnqueue_large_body_costs_no_memory(t *testing.T) {
	if testing.Short() {
		t.Skip("hashes 640 MiB")
	}
	s := startBare(t, func(h http.Handler) http.Handler { return h })
	const size = 64 << 20
	const piece = "\x00\xffdata=&;%\"\\\r\n--b"
	data := strings.Repeat(piece, size/len(piece))
	want := valueOf(data)
	for _, f := range forms {
		ct, body := f.body(data)
		for _, route := range []string{"PUT /enqueue", "POST /v1/jobs"} {
			method, path, _ := strings.Cut(route, " ")
			if f.name == "json" && path == "/v1/jobs" {
				body = `{"iterations":1,` + body[1:]
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			a := s.do(method, path+"?iterations=1", strings.NewReader(body), "Content-Type: "+ct)
			runtime.ReadMemStats(&after)
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
				t.Errorf("%s as %s: %d bytes allocated, want less than 4 MiB", route, f.name, grown)
			}
			var got string
			if path == "/enqueue" {
				got = s.value(a.id(t))
			} else {
				var j api.Job
				a.into(t, &j)
				got = j.Value
			}
			if got != want {
				t.Errorf("%s as %s: %d, another value than that of the data", route, f.name, a.status)
			}
		}
	}
}
