package store

import (
	"testing"

	"workmanager/jobs"
)

// FuzzCursors: what comes back from a client is refused or means one place; it
// is never trusted.
func FuzzCursors(f *testing.F) {
	f.Add(cursor(cursorCreated, 1, 2))
	f.Add(cursor(cursorOpen, 9, -1, 1<<62))
	f.Add(resultsCursor(jobs.ID{1, 2, 3}, 77))
	f.Add("")
	f.Add("Qw==")
	f.Fuzz(func(t *testing.T, s string) {
		var a, b, c int64
		if err := parseCursor(s, cursorCreated, &a, &b); err == nil {
			if again := cursor(cursorCreated, a, b); again != s {
				t.Errorf("parseCursor(%q) = %d, %d, which is %q", s, a, b, again)
			}
		} else if jobs.CodeOf(err) != jobs.CodeInvalid {
			t.Errorf("parseCursor(%q) = %v, want %s", s, err, jobs.CodeInvalid)
		}
		if err := parseCursor(s, cursorOpen, &a, &b, &c); err == nil && cursor(cursorOpen, a, b, c) != s {
			t.Errorf("parseCursor(%q) = %d, %d, %d", s, a, b, c)
		}
		boot, n, err := parseResultsCursor(s)
		switch {
		case err == nil && (resultsCursor(boot, n) != s || n < 0):
			t.Errorf("parseResultsCursor(%q) = %v, %d", s, boot, n)
		case err != nil && jobs.CodeOf(err) != jobs.CodeInvalid:
			t.Errorf("parseResultsCursor(%q) = %v, want %s", s, err, jobs.CodeInvalid)
		}
	})
}
