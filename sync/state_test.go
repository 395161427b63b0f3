package sync

import (
	"math/rand/v2"
	"testing"
	"time"

	"workmanager/jobs"
)

var stateEpoch = time.Date(2026, 4, 1, 12, 0, 0, 0, time.UTC)

// at returns the instant so many milliseconds after the epoch of these tests.
func at(ms int) time.Time { return stateEpoch.Add(time.Duration(ms) * time.Millisecond) }

// ticks ticks every 50 ms in (from, to].
func (d *detector) ticks(from, to int) {
	for ms := from + 50; ms <= to; ms += 50 {
		d.Tick(at(ms))
	}
}

// heardDetector is one that has just heard the peer, which gossip calls alive.
func heardDetector() detector {
	d := newDetector(at(0))
	d.Heard(at(0), false)
	d.Gossip(true)
	return d
}

func TestDetector(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(d *detector)
		gone bool
	}{
		{"eof_and_two_refusals_before_300ms", func(d *detector) {
			d.Lost(at(10))
			d.Refused(at(20))
			d.Refused(at(70))
			d.ticks(0, 300) // 290 ms after the loss
		}, false},
		{"eof_and_two_refusals_after_300ms", func(d *detector) {
			d.Lost(at(0))
			d.Refused(at(20))
			d.Refused(at(70))
			d.ticks(0, 300)
		}, true},
		{"eof_and_one_refusal_are_not_enough", func(d *detector) {
			d.Lost(at(0))
			d.Refused(at(20))
			d.ticks(0, 10_000)
		}, false},
		{"eof_alone_is_not_enough", func(d *detector) {
			d.Lost(at(0))
			d.ticks(0, 10_000)
		}, false},
		{"refusals_alone_count_as_a_loss", func(d *detector) {
			d.Refused(at(0))
			d.Refused(at(50))
			d.ticks(0, 300)
		}, true},
		{"one_refusal_and_gossip_dead", func(d *detector) {
			d.Refused(at(0))
			d.Gossip(false)
			d.ticks(0, 300)
		}, true},
		{"silence_and_gossip_alive", func(d *detector) { d.ticks(0, 60_000) }, false},
		{"silence_of_950ms_and_gossip_dead", func(d *detector) {
			d.Gossip(false)
			d.ticks(0, 950)
		}, false},
		{"silence_of_1s_and_gossip_dead", func(d *detector) {
			d.Gossip(false)
			d.ticks(0, 1000)
		}, true},
		{"gossip_dead_alone", func(d *detector) {
			d.Gossip(false)
			for ms := 50; ms <= 5000; ms += 50 {
				d.Heard(at(ms), true)
				d.Tick(at(ms))
			}
		}, false},
		{"eof_1s_ago_and_gossip_dead", func(d *detector) {
			d.Lost(at(0))
			d.Gossip(false)
			d.ticks(0, 1000)
		}, true},
		{"own_pause_discards_silence", func(d *detector) {
			d.Gossip(false)
			d.ticks(0, 500)
			d.Tick(at(3500)) // we slept for 3 s
			d.ticks(3500, 4450)
		}, false},
		{"after_an_own_pause_the_window_starts_again", func(d *detector) {
			d.Gossip(false)
			d.ticks(0, 500)
			d.Tick(at(3500))
			d.ticks(3500, 4500)
		}, true},
		{"a_gap_of_300ms_is_no_pause", func(d *detector) {
			d.Gossip(false)
			for ms := 300; ms <= 1200; ms += 300 {
				d.Tick(at(ms))
			}
		}, true},
		{"own_pause_starts_the_loss_again", func(d *detector) {
			d.Lost(at(0))
			d.Refused(at(10))
			d.Refused(at(20))
			d.Tick(at(2000))
			d.ticks(2000, 2250)
		}, false},
		{"a_frame_takes_it_all_back", func(d *detector) {
			d.Refused(at(0))
			d.Refused(at(10))
			d.ticks(0, 400)
			d.Heard(at(400), true)
			d.ticks(400, 600)
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := heardDetector()
			tc.do(&d)
			if d.Gone() != tc.gone {
				t.Errorf("gone %v, want %v: %+v", d.Gone(), tc.gone, d)
			}
		})
	}
}

func TestDetector_fresh_for_600ms(t *testing.T) {
	d := newDetector(at(0))
	if d.Fresh(at(0)) {
		t.Error("fresh without a frame")
	}
	d.Heard(at(0), false)
	for ms, want := range map[int]bool{0: true, 599: true, 600: false, 5000: false} {
		if got := d.Fresh(at(ms)); got != want {
			t.Errorf("fresh after %d ms: %v, want %v", ms, got, want)
		}
	}
	if d.Silent(at(999)) || !d.Silent(at(1000)) {
		t.Errorf("silent after 999 ms %v and after 1000 ms %v, want false and true", d.Silent(at(999)), d.Silent(at(1000)))
	}
	d.Lost(at(10))
	if d.Fresh(at(10)) {
		t.Error("fresh with the connection lost")
	}
}

// TestDetector_false_alarms: each doubles the silence that is borne, up to
// eight times; another boot is no false alarm; ten minutes halve it.
func TestDetector_false_alarms(t *testing.T) {
	d := heardDetector()
	d.Gossip(false)
	ms := 0
	alarm := func(sameBoot bool) {
		for !d.Gone() {
			ms += 50
			d.Tick(at(ms))
		}
		d.Heard(at(ms), sameBoot)
	}
	alarm(false)
	if d.patience != 1 {
		t.Fatalf("patience %d after another boot came, want 1", d.patience)
	}
	for _, want := range []int{2, 4, 8, 8} {
		before := ms
		took := d.patience * 1000
		alarm(true)
		if d.patience != want || ms-before != took {
			t.Errorf("patience %d after %d ms, want %d after %d", d.patience, ms-before, want, took)
		}
	}
	if !d.Fresh(at(ms+8*600-1)) || d.Fresh(at(ms+8*600)) {
		t.Error("with eightfold patience it is not fresh for 4.8 s")
	}
	d.Gossip(true)
	for _, want := range []int{8, 4, 2, 1, 1} {
		if d.patience != want {
			t.Errorf("patience %d, want %d", d.patience, want)
		}
		for end := ms + 10*60*1000 + 500; ms < end; ms += 250 {
			d.Heard(at(ms), true)
			d.Tick(at(ms))
		}
	}
}

// inSync returns a state in sync at at(0), with their cursor at l.
func inSync(t *testing.T, l jobs.LSeq) *state {
	t.Helper()
	s := newState(at(0))
	s.Heard(at(0), false)
	s.asked(at(0), jobs.Cursor{Boot: jobs.ID{9}, At: l, SeenHead: l}, l, false)
	s.asked(at(0), jobs.Cursor{Boot: jobs.ID{9}, At: l, SeenHead: l}, l, false)
	if s.session != SessionSync {
		t.Fatalf("session %s, want sync: %+v", s.session, s)
	}
	return &s
}

// alive keeps both directions well through (from, to], asking with a cursor.
func (s *state) alive(from, to int, c jobs.Cursor, head jobs.LSeq) {
	for ms := from + 50; ms <= to; ms += 50 {
		s.Heard(at(ms), true)
		s.asked(at(ms), c, head, false)
		s.Tick(at(ms))
		s.update(at(ms), head)
	}
}

// TestState_enters_sync: only a request does it, from within a batch of the
// head, with our own reading fresh.
func TestState_enters_sync(t *testing.T) {
	near := jobs.Cursor{Boot: jobs.ID{9}, At: 1000, SeenHead: 1000}
	for _, tc := range []struct {
		name   string
		heard  bool
		cursor jobs.Cursor
		head   jobs.LSeq
		want   Session
	}{
		{"at_head", true, near, 1000, SessionSync},
		{"512_rows_behind", true, near, 1512, SessionSync},
		{"513_rows_behind", true, near, 1513, SessionCatchup},
		{"we_do_not_hear_it", false, near, 1000, SessionConnected},
		{"its_cursor_is_not_good", true, jobs.Cursor{}, 100, SessionCatchup},
		{"it_refills_and_is_up_with_what_is_new", true, jobs.Cursor{Boot: jobs.ID{9}, At: 1000, SeenHead: 1000, BackTo: 900}, 1000, SessionSync},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newState(at(0))
			if tc.heard {
				s.Heard(at(0), false)
			}
			s.asked(at(10), tc.cursor, tc.head, false)
			if s.session != tc.want {
				t.Errorf("session %s, want %s", s.session, tc.want)
			}
		})
	}
	s := newState(at(0))
	s.asked(at(0), near, 1000, false)
	s.Heard(at(10), false)
	if s.update(at(10), 1000); s.session != SessionCatchup {
		t.Errorf("session %s without a request since the first frame, want catchup", s.session)
	}
}

func TestState_leaves_sync(t *testing.T) {
	c := jobs.Cursor{Boot: jobs.ID{9}, At: 100, SeenHead: 100}
	for _, tc := range []struct {
		name string
		do   func(s *state) (left bool)
		want Session
	}{
		{"silence_of_599ms", func(s *state) bool {
			s.asked(at(599), c, 100, false)
			return s.update(at(599), 100)
		}, SessionSync},
		{"silence_of_600ms", func(s *state) bool {
			s.theirsAt = at(600)
			return s.update(at(600), 100)
		}, SessionConnected},
		{"silence_while_writing_what_it_sent", func(s *state) bool {
			s.busy, s.theirsAt = true, at(5000)
			return s.update(at(5000), 100)
		}, SessionSync},
		{"eof", func(s *state) bool {
			s.Lost(at(1))
			return s.update(at(1), 100)
		}, SessionConnected},
		{"eof_while_writing_what_it_sent", func(s *state) bool {
			s.busy = true
			s.Lost(at(1))
			return s.update(at(1), 100)
		}, SessionConnected},
		{"it_does_not_ask_for_600ms", func(s *state) bool {
			s.Heard(at(600), true)
			return s.update(at(600), 100)
		}, SessionConnected},
		{"its_request_is_open", func(s *state) bool {
			s.asking = 1
			s.Heard(at(600), true)
			return s.update(at(600), 100)
		}, SessionSync},
		{"neither_direction", func(s *state) bool { return s.update(at(600), 100) }, SessionDown},
		{"two_timeouts", func(s *state) bool {
			s.timeouts = 2
			return s.update(at(1), 100)
		}, SessionSync},
		{"three_timeouts", func(s *state) bool {
			s.timeouts = 3
			return s.update(at(1), 100)
		}, SessionCatchup},
		{"50000_rows_behind", func(s *state) bool { return s.update(at(1), 50_100) }, SessionSync},
		{"50001_rows_behind", func(s *state) bool { return s.update(at(1), 50_101) }, SessionCatchup},
		{"behind_by_10s", func(s *state) bool { s.alive(0, 10_000, c, 101); return false }, SessionSync},
		{"behind_by_more_than_10s", func(s *state) bool { s.alive(0, 10_200, c, 101); return true }, SessionCatchup},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := inSync(t, 100)
			left := tc.do(s)
			if s.session != tc.want {
				t.Errorf("session %s, want %s", s.session, tc.want)
			}
			if left != (tc.want != SessionSync) {
				t.Errorf("update reports left = %v in session %s", left, s.session)
			}
		})
	}
}

// TestState_hold_off: who leaves sync for being slow comes back after a
// hold that doubles each time up to its bound; who was cut off comes back at once.
func TestState_hold_off(t *testing.T) {
	c := jobs.Cursor{Boot: jobs.ID{9}, At: 100, SeenHead: 100}
	s := inSync(t, 100)
	now := 0
	want := holdMin
	for range 8 {
		s.timeouts = maxTimeouts
		now += 50
		s.Heard(at(now), true)
		if left := s.update(at(now), 100); !left || s.reason() != reasonSlow {
			t.Fatalf("left %v, reason %q", left, s.reason())
		}
		began := now
		for s.session != SessionSync {
			s.alive(now, now+50, c, 100)
			now += 50
		}
		if took := time.Duration(now-began) * time.Millisecond; took != want {
			t.Errorf("back in sync after %v, want %v", took, want)
		}
		want = min(2*want, holdMax)
		if s.timeouts != 0 {
			t.Errorf("%d timeouts on entering sync, want 0", s.timeouts)
		}
	}
	s.Lost(at(now))
	s.update(at(now), 100)
	s.alive(now, now+50, c, 100)
	if s.session != SessionSync {
		t.Errorf("session %s after a lost connection that is back, want sync at once", s.session)
	}
	now += 50
	s.alive(now, now+301_000, c, 100) // ten times the hold without trouble
	if s.hold != holdMin {
		t.Errorf("hold %v after five good minutes, want %v", s.hold, holdMin)
	}
}

func TestState_barrier(t *testing.T) {
	s := newState(at(0))
	s.update(at(1950), 0)
	if !s.barrier {
		t.Error("lifted before 2 s without a session")
	}
	s.update(at(2000), 0)
	if s.barrier {
		t.Error("not lifted after 2 s without a session")
	}

	s = newState(at(0))
	s.complete = true
	s.update(at(1), 0)
	if s.barrier {
		t.Error("not lifted with the peer's feed read")
	}

	s = newState(at(0))
	for ms := 0; ms <= 5000; ms += 50 {
		s.Heard(at(ms), true)
		s.update(at(ms), 0)
	}
	if !s.barrier {
		t.Error("lifted while the peer's feed is being read")
	}
	s.update(at(5600), 0) // down from here
	s.update(at(7550), 0)
	if !s.barrier {
		t.Error("lifted before 2 s without a session")
	}
	s.update(at(7600), 0)
	if s.barrier {
		t.Error("not lifted 2 s after the session was lost")
	}
	s.Heard(at(7650), true)
	s.update(at(7650), 0)
	if s.barrier {
		t.Error("the barrier came back")
	}

	s = newState(at(0))
	for ms := 0; ms < int(barrierMost/time.Millisecond); ms += 50 {
		s.Heard(at(ms), true)
		if s.update(at(ms), 0); !s.barrier {
			t.Fatalf("lifted after %d ms while the peer's feed is being read", ms)
		}
	}
	if s.update(at(int(barrierMost/time.Millisecond)), 0); s.barrier {
		t.Errorf("not lifted after %v", barrierMost)
	}
}

func TestState_reasons(t *testing.T) {
	c := jobs.Cursor{Boot: jobs.ID{9}, At: 100, SeenHead: 100}
	s := inSync(t, 100)
	if s.reason() != "" {
		t.Errorf("reason %q in sync", s.reason())
	}
	s.alive(0, 50, c, 100_000)
	if s.reason() != reasonCatchup {
		t.Errorf("reason %q, want %q", s.reason(), reasonCatchup)
	}
	s.Lost(at(60))
	s.update(at(60), 100)
	if s.reason() != reasonDown {
		t.Errorf("reason %q, want %q", s.reason(), reasonDown)
	}
}

func TestMarks(t *testing.T) {
	m := marks{step: 100 * time.Millisecond, keep: 3}
	for i, ms := range []int{0, 50, 100, 200, 300} {
		m.note(at(ms), jobs.LSeq(10*(i+1)))
	}
	if len(m.list) != 3 { // 100, 200, 300 ms at 30, 40, 50
		t.Fatalf("%d marks kept, want 3: %v", len(m.list), m.list)
	}
	for _, tc := range []struct {
		l    jobs.LSeq
		want time.Duration
	}{{29, 300 * time.Millisecond}, {30, 200 * time.Millisecond}, {49, 100 * time.Millisecond}, {50, 0}, {99, 0}} {
		if got := m.age(at(400), tc.l); got != tc.want {
			t.Errorf("age(%d) = %v, want %v", tc.l, got, tc.want)
		}
	}
	for ms, want := range map[int]jobs.LSeq{99: 0, 100: 30, 199: 30, 300: 50, 1000: 50} {
		if got := m.before(at(ms)); got != want {
			t.Errorf("before(%d ms) = %d, want %d", ms, got, want)
		}
	}
	m.note(at(50), 60) // the clock went back
	if got := m.age(at(50), 20); got != 0 {
		t.Errorf("age = %v with a clock that went back, want 0", got)
	}
}

// FuzzState: whatever happens in whatever order, sync is entered by a request
// only, means that both directions work, and is not left without being told.
func FuzzState(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 1))
		now := stateEpoch
		s := newState(now)
		head, barrier := jobs.LSeq(rng.IntN(100)), true
		jumpy := rng.IntN(3) == 0
		for step := range 400 {
			gap := time.Duration(rng.IntN(60)) * time.Millisecond
			switch rng.IntN(60) {
			case 0:
				gap = time.Duration(rng.IntN(5000)) * time.Millisecond
			case 1:
				if jumpy {
					gap = -gap
				}
			}
			now = now.Add(gap)
			was, op := s.session, rng.IntN(12)
			left := false
			switch op {
			case 0, 1:
				s.Heard(now, rng.IntN(4) > 0)
				left = s.update(now, head)
			case 2:
				s.Lost(now)
				left = s.update(now, head)
			case 3:
				s.Refused(now)
				left = s.update(now, head)
			case 4:
				s.Gossip(rng.IntN(2) == 0)
				left = s.update(now, head)
			case 5, 6:
				s.Tick(now)
				left = s.update(now, head)
			case 7, 8:
				c := jobs.Cursor{}
				if rng.IntN(5) > 0 {
					c = jobs.Cursor{Boot: jobs.ID{1}, At: head - min(head, jobs.LSeq(rng.IntN(600)))}
					c.SeenHead = c.At
				}
				s.asked(now, c, head, rng.IntN(2) == 0)
				left = was == SessionSync && s.session != SessionSync
			case 9:
				head += jobs.LSeq(rng.IntN(1 << rng.IntN(17)))
				left = s.update(now, head)
			case 10:
				s.timeouts++
				left = s.update(now, head)
			case 11:
				switch rng.IntN(5) {
				case 0:
					s.asking++
				case 1:
					s.asking = max(s.asking-1, 0)
				case 2:
					s.reads = false
				case 3:
					s.busy = !s.busy
				case 4:
					s.complete = s.complete || rng.IntN(4) == 0
				}
				left = s.update(now, head)
			}
			if s.session == SessionSync {
				switch {
				case was != SessionSync && op != 7 && op != 8:
					t.Fatalf("step %d: sync was entered by op %d, not by a request", step, op)
				case !s.Fresh(now) && !(s.busy && s.ever && s.lost.IsZero()):
					t.Fatalf("step %d: in sync, not fresh: %+v", step, s)
				case !s.following(now):
					t.Fatalf("step %d: in sync, the peer does not follow: %+v", step, s)
				case s.timeouts >= maxTimeouts:
					t.Fatalf("step %d: in sync after %d timeouts", step, s.timeouts)
				case head-s.theirs.At > maxLagRows:
					t.Fatalf("step %d: in sync, %d rows behind", step, head-s.theirs.At)
				case s.theirs.Boot == jobs.ID{} && was != SessionSync:
					t.Fatalf("step %d: sync entered without a good cursor", step)
				}
			}
			if left != (was == SessionSync && s.session != SessionSync) {
				t.Fatalf("step %d: left = %v from %s to %s", step, left, was, s.session)
			}
			if (s.session == SessionSync) != (s.reason() == "") {
				t.Fatalf("step %d: session %s, reason %q", step, s.session, s.reason())
			}
			if s.barrier && !barrier {
				t.Fatalf("step %d: the barrier came back", step)
			}
			if barrier = s.barrier; s.barrier && s.complete {
				t.Fatalf("step %d: the barrier stands, all is read", step)
			}
			if s.patience < 1 || s.patience > maxPatience || s.hold < holdMin || s.hold > holdMax {
				t.Fatalf("step %d: patience %d, hold %v", step, s.patience, s.hold)
			}
			if len(s.recent.list) > s.recent.keep {
				t.Fatalf("step %d: %d marks, at most %d", step, len(s.recent.list), s.recent.keep)
			}
		}
	})
}
