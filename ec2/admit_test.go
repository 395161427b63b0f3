package ec2_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"workmanager/ec2"
	"workmanager/ec2/ec2test"
	"workmanager/jobs"
)

// TestScheduler_admit lets in what EC2 shows, and nothing else.
func TestScheduler_admit(t *testing.T) {
	o := ec2test.Options{Boot: 20 * time.Second}
	w := newWorld(t, 1, o)
	s := w.scheduler("a", fleetConfig(), ec2.Parts{})
	w.wanted = 3
	w.steps(9, s)
	w.live(3, "at work")
	mine := w.cloud.Alive()[1]
	slot := int(mine.Tags["workmanager:slot"][0] - '0')
	at := netip.MustParseAddr(mine.Address)
	rows := []struct {
		what, id string
		slot     int
		from     netip.Addr
		code     jobs.Code
		says     string
	}{
		{"ours", mine.ID, slot, at, "", ""},
		{"ours, without a slot", mine.ID, -1, at, "", ""},
		{"ours, mapped", mine.ID, slot, netip.AddrFrom16(at.As16()), "", ""},
		{"another address", mine.ID, slot, netip.MustParseAddr("10.9.9.9"), jobs.CodeForbidden, "not the private address"},
		{"another of ours", mine.ID, slot, netip.MustParseAddr(w.cloud.Alive()[0].Address), jobs.CodeForbidden, "not the private address"},
		{"another slot", mine.ID, slot + 1, at, jobs.CodeForbidden, "slot"},
		{"no address", mine.ID, slot, netip.Addr{}, jobs.CodeForbidden, "not the private address"},
		{"unknown", "i-0123456789abcdef0", -1, at, jobs.CodeUnavailable, "does not show"},
		{"no instance", "w1", -1, at, jobs.CodeForbidden, "no instance"},
		{"nothing", "", -1, at, jobs.CodeForbidden, "no instance"},
	}
	check := func(when string) {
		t.Helper()
		for _, r := range rows {
			err := s.Admit(r.id, r.slot, r.from)
			if jobs.CodeOf(err) != r.code || err != nil && !strings.Contains(err.Error(), r.says) {
				t.Errorf("%s, %s: Admit() = %v, want %q %q", when, r.what, err, r.code, r.says)
			}
		}
	}
	check("at work")

	// One that the cloud no longer shows is none of ours, one that ends neither.
	if err := s.Order(mine.ID, ec2.Terminate); err != nil {
		t.Fatal(err)
	}
	if err := s.Step(t.Context(), w.now); err != nil {
		t.Fatal(err)
	}
	rows = rows[:1]
	rows[0].code, rows[0].says = jobs.CodeForbidden, "is being terminated"
	check("told to end")
	w.steps(3, s)
	rows[0].says = "has ended"
	check("ended")
}

// TestScheduler_admit_without_address waits for an instance whose address is not
// told, rather than let anybody in for it.
func TestScheduler_admit_without_address(t *testing.T) {
	w := newWorld(t, 1, ec2test.Options{Address: func(int) string { return "" }})
	s := w.scheduler("a", fleetConfig(), ec2.Parts{})
	w.wanted = 1
	w.steps(2, s)
	for _, from := range []netip.Addr{{}, netip.MustParseAddr("10.0.0.1")} {
		if err := s.Admit(w.cloud.Alive()[0].ID, -1, from); jobs.CodeOf(err) != jobs.CodeUnavailable {
			t.Errorf("Admit() from %v = %v", from, err)
		}
	}
}

func TestInstanceName(t *testing.T) {
	for name, want := range map[string]bool{"i-0123456789abcdef0": true, "i-12345678": true, "i-": false, "i-0123456789ABCDEF0": false, "w1": false, "xi-12345678": false, "i-12345678.": false, "": false} {
		if got := ec2.InstanceName(name); got != want {
			t.Errorf("InstanceName(%q) = %v", name, got)
		}
	}
}
