package ec2

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestLedger_set_aside(t *testing.T) {
	l := newLedger(planConfig())
	now, o := noon, planConfig().Offer(0)
	for i, want := range []time.Duration{3, 6, 12, 24, 30, 30} {
		if got := l.setAside(now, o, "none left"); got != want*time.Minute {
			t.Errorf("after %d refusals the offer is set aside for %v, want %d min", i+1, got, want)
		}
		if got := l.setAside(now.Add(time.Second), o, "none left"); got != want*time.Minute {
			t.Errorf("a second refusal of the same time sets it aside for %v, want %d min", got, want)
		}
		if free := l.free(now.Add(2 * time.Second)); len(free) != 7 || free[0].Slot != 1 { // slots 0, 4 and 8 have it
			t.Errorf("free slots %+v", free)
		}
		now = now.Add(want*time.Minute + time.Second)
		if free := l.free(now); len(free) != 10 {
			t.Errorf("after %d min %d slots are free, want 10", want, len(free))
		}
	}
	if got := l.setAside(now.Add(4*time.Hour), o, "none left"); got != 3*time.Minute {
		t.Errorf("hours later it is set aside for %v, want 3 min", got)
	}
}

func TestLedger_marks_rise(t *testing.T) {
	l := newLedger(planConfig())
	for _, c := range []struct {
		gen  int
		dead bool
		next int
	}{{0, false, 0}, {0, true, 1}, {0, false, 1}, {3, false, 3}, {2, true, 3}, {3, true, 4}, {-1, true, 4}} {
		l.raise(0, markOf(c.gen, c.dead))
		if got := l.slots[0].mark.next(); got != c.next {
			t.Errorf("after generation %d, dead %v, the next is %d, want %d", c.gen, c.dead, got, c.next)
		}
	}
	l.raise(-1, markOf(1, true))
	l.raise(99, markOf(1, true))
}

// shortBody can be read until it is closed, as a body that net/http sends.
type shortBody struct {
	io.Reader
	closed bool
}

func (b *shortBody) Close() error { b.closed = true; return nil }

func (b *shortBody) Read(p []byte) (int, error) {
	if b.closed {
		return 0, io.ErrClosedPipe
	}
	return b.Reader.Read(p)
}

// early closes the body before it has sent it, as the SDK has it.
type early struct{ got string }

func (e *early) Do(r *http.Request) (*http.Response, error) {
	_ = r.Body.Close()
	b, err := io.ReadAll(r.Body)
	e.got = string(b)
	if err == nil && r.ContentLength != int64(len(b)) {
		err = io.ErrUnexpectedEOF
	}
	return nil, err
}

func TestWholeBody(t *testing.T) {
	text := strings.Repeat("Action=DescribeInstances&", 1000)
	body := &shortBody{Reader: bytes.NewReader([]byte(text))}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1/", body)
	if err != nil {
		t.Fatal(err)
	}
	var sent early
	if _, err := (wholeBody{&sent}).Do(r); err != nil || sent.got != text || !body.closed {
		t.Errorf("a body that is closed early: %d of %d bytes, %v", len(sent.got), len(text), err)
	}
}

func TestBorn(t *testing.T) {
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	for _, c := range []struct{ launched, before, now, want int }{
		{1, 0, 2, 1},       // as the cloud says
		{-60, 0, 2, 0},     // by a clock that is behind ours: not before the last look
		{60, 0, 2, 2},      // by one that is ahead: not after it is seen
		{-60, -90, 2, -60}, // a long time between two looks
	} {
		if got := born(at(c.launched), at(c.before), at(c.now)); !got.Equal(at(c.want)) {
			t.Errorf("born(%d, %d, %d) = %v, want minute %d", c.launched, c.before, c.now, got, c.want)
		}
	}
	if got := born(at(-60), time.Time{}, at(0)); !got.Equal(at(-60)) {
		t.Errorf("at the first look an instance was born at %v, want what the cloud says", got)
	}
}
