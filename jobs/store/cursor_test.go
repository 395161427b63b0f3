package store

import (
	"slices"
	"testing"

	"workmanager/jobs"
)

// FuzzCursors: what comes back from a client is refused or means one place; it
// is never trusted.
func FuzzCursors(f *testing.F) {
	f.Add(cursor(cursorCreated, 1, 2))
	f.Add(cursor(cursorOpen, 9, -1, 1<<62))
	f.Add(resultsCursor(place{jobs.ID{1, 2, 3}, 77}, place{}))
	f.Add(resultsCursor(place{jobs.ID{1, 2, 3}, 77}, place{jobs.ID{4, 5}, 9}))
	f.Add(homesCursor("a", Place{}))
	f.Add(homesCursor("", Place{started: true, priority: 3, created: -1, n: 1 << 62}))
	f.Add("Ug0000000000000000000000000000000AAAAAAAAAAAAAAAAAAAAAA0000000000A") // a second place of no boot
	f.Add("SAAAAAAAAAAA0000000000000000000000\r0")                              // a line break, which base64 skips
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
		home, at, err := parseHomesCursor(s)
		switch {
		case err != nil && jobs.CodeOf(err) != jobs.CodeInvalid:
			t.Errorf("parseHomesCursor(%q) = %v, want %s", s, err, jobs.CodeInvalid)
		case err == nil && s != "" && (homesCursor(home, at) != s || at.priority > jobs.MaxPriority):
			t.Errorf("parseHomesCursor(%q) = %q, %+v, which is %q", s, home, at, homesCursor(home, at))
		}
		places, err := parseResultsCursor(s)
		switch {
		case err == nil && (len(places) < 1 || len(places) > 2 || again(places) != s):
			t.Errorf("parseResultsCursor(%q) = %v", s, places)
		case err == nil && slices.ContainsFunc(places, func(p place) bool { return p.n < 0 }):
			t.Errorf("parseResultsCursor(%q) = %v, below the first", s, places)
		case err != nil && jobs.CodeOf(err) != jobs.CodeInvalid:
			t.Errorf("parseResultsCursor(%q) = %v, want %s", s, err, jobs.CodeInvalid)
		}
	})
}

// again packs places that were unpacked. A second place of no boot is none.
func again(places []place) string {
	if len(places) == 1 {
		return resultsCursor(places[0], place{})
	}
	return resultsCursor(places[0], places[1])
}
