package client

import "testing"

func TestParseBase(t *testing.T) {
	for _, tc := range []struct {
		in     string
		secure bool
		want   string // "": refused
	}{
		{"http://127.0.0.1:5000", false, "http://127.0.0.1:5000/"},
		{"https://a.example", true, "https://a.example/"}, // who names a scheme means its port
		{"127.0.0.1:5001", false, "http://127.0.0.1:5001/"},
		{"127.0.0.1", false, "http://127.0.0.1:5000/"},
		{"a.example", true, "https://a.example:5000/"},
		{"[::1]", false, "http://[::1]:5000/"},
		{"a.example/queue", false, "http://a.example:5000/queue"},
		{"htp://127.0.0.1", false, ""},
		{"http://", false, ""},
		{"", false, ""},
	} {
		u, err := parseBase(tc.in, tc.secure)
		if got := ""; err != nil && tc.want != "" || err == nil && u.String() != tc.want {
			if err == nil {
				got = u.String()
			}
			t.Errorf("parseBase(%q, %t) = %q, %v, want %q", tc.in, tc.secure, got, err, tc.want)
		}
	}
}
