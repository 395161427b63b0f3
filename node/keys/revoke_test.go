package keys

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// TestLogout: a session that was ended is one no more, here, and its siblings are.
func TestLogout(t *testing.T) {
	dir, made := cluster(t)
	now := testNow
	k, _ := open(t, filepath.Join(dir, "a"), &now)
	kb, _ := open(t, filepath.Join(dir, "b"), &now)
	one, _, _ := k.Login(made.Tokens[Operator])
	two, _, _ := k.Login(made.Tokens[Operator])
	good := func(k *Keys, text string) bool { _, _, ok := k.Session(text); return ok }
	cred, _, _ := k.Enrol(made.Tokens[Worker], "w1")
	for _, none := range []string{"", "wmc_", one + "x", made.Tokens[Operator], cred} {
		k.Logout(none)
	}
	if n := len(k.ended.nonces); n != 0 || !good(k, one) {
		t.Errorf("what is no session ended %d, the session is good: %v", n, good(k, one))
	}
	k.Logout(one)
	if good(k, one) || !good(k, two) {
		t.Errorf("after the logout: %v, its sibling %v; want false, true", good(k, one), good(k, two))
	}
	if !good(kb, one) {
		t.Error("the other node has heard of it: then the words on this in the README are wrong")
	}
	if _, _, ok := k.Identify(cred); !ok {
		t.Error("the worker's credential has ended too")
	}
	// What is remembered is bounded, and the newest is never what is forgotten.
	for i := range maxOver + 10 {
		now = testNow.Add(time.Duration(i) * time.Second / 10)
		s, _, _ := k.Login(made.Tokens[Client])
		k.Logout(s)
		if good(k, s) {
			t.Fatalf("logout %d was forgotten at once", i)
		}
	}
	if n := len(k.ended.nonces); n != maxOver {
		t.Errorf("%d logouts are remembered, want %d", n, maxOver)
	}
	now = testNow.Add(24 * time.Hour)
	s, _, _ := k.Login(made.Tokens[Client])
	k.Logout(s)
	if n := len(k.ended.nonces); n != 1 {
		t.Errorf("a day later %d logouts are remembered, want 1", n)
	}
}

// TestTokens_for_one_worker: such a token buys credentials of that name only.
func TestTokens_for_one_worker(t *testing.T) {
	dir, made := cluster(t)
	now := testNow
	k, _ := open(t, filepath.Join(dir, "a"), &now)
	for i, row := range []struct {
		bound, worker string
		want          bool
	}{
		{"w1", "w1", true}, {"w1", "w2", false}, {"w1", "w11", false}, {"w1", "W1", false}, {"w1", "", false},
		{"lab-*", "lab-7", true}, {"lab-*", "lab-", true}, {"lab-*", "la", false}, {"lab-*", "xlab-1", false}, {"lab-*", "lab-é", false},
		{"", "w9", true},
	} {
		_, text, err := CreateToken(dir, Worker, fmt.Sprint("t", i), 0, now, ForWorker(row.bound))
		if err != nil {
			t.Fatal(err)
		}
		k.Reload(true)
		cred, _, ok := k.Enrol(text, row.worker)
		if ok != row.want {
			t.Errorf("a token of %q enrols %q: %v, want %v", row.bound, row.worker, ok, row.want)
		}
		if role, name, known := k.Identify(cred); known != row.want || known && (role != Enrolled || name != row.worker) {
			t.Errorf("the credential of %q is of %s %q, %v", row.worker, role, name, known)
		}
	}
	if _, _, ok := k.Enrol(made.Tokens[Worker], "any"); !ok {
		t.Error("init's token enrols not just anybody")
	}
	for _, bad := range []struct{ role, worker string }{{Client, "w1"}, {Operator, "w1"}, {Worker, "*"}, {Worker, "a b"}, {Worker, "a*b"}, {Worker, "**"}} {
		if _, _, err := CreateToken(dir, bad.role, "x", 0, now, ForWorker(bad.worker)); err == nil {
			t.Errorf("a %s's token for worker %q: no error", bad.role, bad.worker)
		}
	}
	if list, _, err := ListTokens(dir); err != nil || list[len(list)-1].Worker == "" && list[0].Worker == "" && len(list) != 3+11 {
		t.Errorf("ListTokens = %v, %v", list, err)
	}
}
