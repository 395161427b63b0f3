package cli

import (
	"bytes"
	"strings"
	"testing"

	"workmanager/web/api"
)

// TestFleetLine: what is booting is not running, and what is not known costs
// never $0.
func TestFleetLine(t *testing.T) {
	dollars := func(x float64) *float64 { return &x }
	for want, f := range map[string]api.FleetStatus{
		"1 booting, 0 running, of at most 1 worker; 1 wanted. Price unknown: give --prices TYPE=DOLLARS to both nodes.": {Kind: "ec2", Booting: 1, Have: 1, Max: 1, Want: 1, SpentUnknown: true},
		"2 running, of at most 10 workers; 3 wanted. $0.2052/h now, list price without volumes; $1.40 today.":           {Kind: "ec2", Running: 2, Max: 10, Want: 3, PricePerHour: dollars(0.2052), SpentToday: 1.4},
		"2 running, of at most 10 workers; 0 wanted. Price unknown; more than $1.40 today.":                             {Kind: "ec2", Running: 2, Max: 10, SpentToday: 1.4, SpentUnknown: true},
		"0 running, of at most 10 workers; 0 wanted. $0/h now, list price without volumes; $0.00 today.":                {Kind: "ec2", Max: 10, PricePerHour: dollars(0)},
		"0 running, of at most 10 workers; 0 wanted. $0/h now, list price without volumes; unknown today.":              {Kind: "ec2", Max: 10, PricePerHour: dollars(0), SpentUnknown: true},
		"1 booting, 3 running, of at most 4 workers; 9 wanted. They are processes of this machine.":                     {Kind: "process", Booting: 1, Running: 3, Max: 4, Want: 9, SpentUnknown: true},
	} {
		if got := fleetLine(f); got != want {
			t.Errorf("%+v:\ngot  %s\nwant %s", f, got, want)
		}
	}
}

// TestFleet_held: what holds the fleet is said once.
func TestFleet_held(t *testing.T) {
	for want, f := range map[string]api.FleetStatus{
		"Held by the day's budget.\n":                 {Kind: "ec2", Max: 1, Held: "the day's budget"},
		"Launches pause: an operator asked for it.\n": {Kind: "ec2", Max: 1, Held: "an operator", Paused: "an operator asked for it", PauseAsked: true},
	} {
		var out bytes.Buffer
		p := &program{stdout: &out}
		if err := p.printFleet(formatTable, f); err != nil {
			t.Fatal(err)
		}
		if lines := strings.SplitAfter(out.String(), "\n"); len(lines) < 3 || lines[1] != want || strings.Count(out.String(), "Held")+strings.Count(out.String(), "pause") != 1 {
			t.Errorf("%+v: %q, want the second line %q", f, out.String(), want)
		}
	}
}

// TestStatus_of_a_client: the workers of this node are counted though it is not
// told which they are.
func TestStatus_of_a_client(t *testing.T) {
	for name, change := range map[string]func(*api.Status){
		"operator": nil,
		"client":   func(s *api.Status) { s.WorkerList = []api.WorkerStatus{} },
	} {
		var out bytes.Buffer
		if err := (&program{stdout: &out}).printStatus(formatTable, pairStatus(change)); err != nil {
			t.Fatal(err)
		}
		line := ""
		for l := range strings.Lines(out.String()) {
			if strings.HasPrefix(l, "a ") && line == "" {
				line = l
			}
		}
		if f := strings.Fields(line); len(f) < 5 || f[4] != "2" {
			t.Errorf("%s: %q, want 2 workers at node a", name, line)
		}
		if has := strings.Contains(out.String(), "KERNEL"); has != (name == "operator") {
			t.Errorf("%s: a table of workers: %t", name, has)
		}
	}
}
