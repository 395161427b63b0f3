package ec2_test

import (
	"testing"
	"time"

	"workmanager/ec2"
	"workmanager/ec2/ec2test"
)

// TestScheduler_unpriced: that a price of today is not known is not forgotten when
// its instance is, nor over a restart, and on the next day it is.
func TestScheduler_unpriced(t *testing.T) {
	cfg := fleetConfig()
	cfg.Types, cfg.Prices = []string{"c7a.large"}, map[string]float64{}
	w := newWorld(t, 1, ec2test.Options{Boot: 20 * time.Second})
	w.now = epoch.Truncate(24 * time.Hour).Add(30 * time.Second)
	s := w.scheduler("a", cfg, ec2.Parts{})
	w.steps(6, s)
	if s.Fleet(w.now).Unpriced {
		t.Error("without an instance some price is not known")
	}
	w.wanted = 1
	w.steps(6*5, s)
	if f := s.Fleet(w.now); !f.Unpriced || f.Spent != 0 {
		t.Errorf("an instance of no known price: unpriced %t, $%g", f.Unpriced, f.Spent)
	}
	w.wanted = 0
	w.steps(6*180, s)
	w.live(0, "without work")
	anew := w.scheduler("a", cfg, ec2.Parts{})
	if err := anew.Restore(s.Save()); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*ec2.Scheduler{"later": s, "after a restart": anew} {
		w.steps(1, s)
		if !s.Fleet(w.now).Unpriced {
			t.Errorf("%s it is forgotten", name)
		}
	}
	w.now = w.now.Add(24 * time.Hour)
	w.steps(1, s)
	if s.Fleet(w.now).Unpriced {
		t.Error("it stands on the bill of the next day")
	}
}
