package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"workmanager/web/api"
)

// golden are values computed by another language's library; see the contract.
var golden = []struct {
	name, data string
	iterations uint64
	value      string
}{
	{"hello_1", "hello", 1, "9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca72323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043"},
	{"hello_2", "hello", 2, "0592a10584ffabf96539f3d780d776828c67da1ab5b169e9e8aed838aaecc9ed36d49ff1423c55f019e050c66c6324f53588be88894fef4dcffdb74b98e2b200"},
	{"hello_5", "hello", 5, "5ab743e5b9704b2ae1584c7b768aba17d98388c1cb56b7c7240a0636157e21251ecb636baff93da58db7ea849c1f8717649a6963162ee8fe66fc9b391a2aa94c"},
	{"hello_1000", "hello", 1000, "2f0d1593c9d82cc06935e69e4e8b230db1240f63a5ae7977d1a8517397895f7272544c5410618deeab6f6720c33b3b3a73ea0445c72127be8814bb4d07ff616e"},
	{"hello_1000000", "hello", 1_000_000, "17134c41e9c61bf16703a0e0d174818bc26c54379ecc1e223ed8a8fd66dbea0de3b9242f28c0735f1f23eef3a36eac36352266f431c3893ea74f1153b8d6b98b"},
	{"all_bytes_5", allBytes(), 5, "fd158ca267bf32735e8d57a10b75edea1c6d614a690d742f450b73605b4e473c4876b7c3414caeedc3ffa6936e5ccaf892af5cf0f22cf963c219d073552bf0e7"},
	{"not_utf8_1", "\xff\xfe\x80\xe9", 1, "49cccd4ad476c11b3ff49afb0e0717ab69ae0392767b21b0eb65176fd1dac1580a82ceb00b7e81fde9cbacbf5bf3a7238a3bb8aaaf8f8ed28b7b1e5c7d355742"},
	{"256KiB_1000", strings.Repeat("\xa5", 256<<10), 1000, "7b8298f87aa6450d7d53879b8cb9b99a5fee6449cf9585b26ab861c1450493e08853eb7fc7ef616acbbfa04929ef3f27f8534b31c34022c213dfe645940c9116"},
	{"plus_and_percent_1", "a+b%20c", 1, "03d591a4b5aa831519da206cd14ab071741dfc8af1b1ce3121b71e15c60d277ddbc35ff6559f0951aefb162ed49f91accd22218c6ff858cf3fa1ab7c38377766"},
	{"blanks_1", "a b c", 1, "22faaaf3e2fe358ab4ba165d2b83f2bf819ef42f833666fdb8f50a440fd00b5b0b15c687f3dce7d67bec7f3ecd2ed69d0a5a6c139ff448e60b2828a75e6439a1"},
}

func allBytes() string {
	var b [256]byte
	for i := range b {
		b[i] = byte(i)
	}
	return string(b[:])
}

const (
	emptyOnce  = "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
	emptyTwice = "826df068457df5dd195b437ab7e7739ff75d2672183f02bb8e1089fabcf97bd9dc80110cf42dbc7cff41c78ecb68d8ba78abe6b5178dea3984df8c55541bf949"
)

// TestNewcomer is the first quarter of an hour of a user: a fresh folder, the
// three old routes, every form of a body, the right values.
func TestNewcomer(t *testing.T) {
	t.Parallel()
	n := start(t, filepath.Join(t.TempDir(), "made", "by", "the", "node"), nil)

	type sent struct{ name, id, value string }
	var all []sent
	for _, g := range golden {
		for _, f := range forms {
			r := n.must(http.StatusOK, "PUT", fmt.Sprintf("/enqueue?iterations=%d", g.iterations),
				strings.NewReader(f.encode(g.data)), "Content-Type", f.contentType)
			var w api.WorkID
			decode(t, r, &w)
			if got, want := string(r.body), `{"Work ID":"`+w.ID+`"}`; got != want || len(w.ID) != 36 {
				t.Errorf("%s as %s: got body %s, want exactly %s", g.name, f.name, got, want)
			}
			if got := r.header.Get(api.HeaderDurability); got != "local" {
				t.Errorf("%s as %s: durability %q, want local: there is no peer", g.name, f.name, got)
			}
			all = append(all, sent{g.name + " as " + f.name, w.ID, g.value})
		}
	}
	for i, want := range []string{emptyOnce, emptyTwice} {
		var w api.WorkID
		decode(t, n.must(http.StatusOK, "PUT", fmt.Sprintf("/enqueue?iterations=%d", i+1),
			strings.NewReader(forms[0].encode("")), "Content-Type", forms[0].contentType), &w)
		all = append(all, sent{"empty file", w.ID, want})
	}
	// What curl -d data=… sends, blanks as plus signs.
	var w api.WorkID
	decode(t, n.must(http.StatusOK, "PUT", "/enqueue?iterations=1", strings.NewReader("data=a+b%20c"),
		"Content-Type", "application/x-www-form-urlencoded"), &w)
	all = append(all, sent{"blanks_1 as curl -d", w.ID, golden[len(golden)-1].value})

	want := map[string]string{}
	for _, s := range all {
		n.completed(s.id, s.value)
		if _, twice := want[s.id]; twice {
			t.Errorf("%s: Work ID %s was given before", s.name, s.id)
		}
		want[s.id] = s.value
	}

	var pulled []api.PulledResult
	for range 2 { // a pull removes nothing
		decode(t, n.must(http.StatusOK, "POST", "/pullCompleted?top=1000", nil), &pulled)
		if len(pulled) != len(want) {
			t.Errorf("pull: got %d results, want %d", len(pulled), len(want))
		}
	}
	for _, p := range pulled {
		if p.Value != want[p.ID] {
			t.Errorf("pull: job %s has %s, want %s", p.ID, p.Value, want[p.ID])
		}
	}
	newest := pulled[0]
	decode(t, n.must(http.StatusOK, "POST", "/pullCompleted?top=1", nil), &pulled)
	if len(pulled) != 1 || pulled[0] != newest {
		t.Errorf("pull of 1: got %v, want the newest, %v", pulled, newest)
	}

	list, cursor := n.results("")
	if len(list) != len(want) {
		t.Errorf("results: got %d, want %d", len(list), len(want))
	}
	for _, r := range list {
		if r.Value != want[r.ID] {
			t.Errorf("results: job %s has %s, want %s", r.ID, r.Value, want[r.ID])
		}
	}
	if again, _ := n.results(cursor); len(again) != 0 {
		t.Errorf("results behind the end: got %d, want none", len(again))
	}

	s := n.status()
	if s.Jobs != 0 || s.Workers < 1 || s.Completed != int64(len(want)) || !s.Writable {
		t.Errorf("status: got %+v, want 0 jobs, some workers, %d completed, writable", s, len(want))
	}
	n.stop()
}
