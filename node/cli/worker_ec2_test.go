package cli

import (
	"context"
	"errors"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/worker"
)

// answers is a Source whose Lease fails as it is told.
type answers struct {
	directed
	err error
}

func (a *answers) Lease(context.Context, jobs.Worker, jobs.Capacity) ([]jobs.Lease, error) {
	return nil, a.err
}

func TestRefusable(t *testing.T) {
	refusal := jobs.Errorf(jobs.CodeForbidden, "no instance of ours")
	later := jobs.Errorf(jobs.CodeUnavailable, "not so far")
	for _, row := range []struct {
		what string
		says []error // each half a minute behind the last
		ends bool
	}{
		{"let in", []error{nil, nil, nil, nil, nil}, false},
		{"refused", []error{refusal, refusal, refusal}, false},
		{"refused for long", []error{refusal, refusal, refusal, refusal}, true},
		{"not known for long", []error{jobs.Errorf(jobs.CodeAuth, "x"), later, later, refusal}, true},
		{"not so far", []error{later, later, later, later, later, later}, false},
		{"let in at last", []error{refusal, refusal, refusal, nil, refusal, refusal, refusal}, false},
		{"nobody there", []error{errors.New("x"), errors.New("x"), errors.New("x"), errors.New("x")}, false},
	} {
		a, now := &answers{}, time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
		var ended error
		r := &refusable{directed: a, now: func() time.Time { return now }, end: func(err error) { ended = err }}
		for _, a.err = range row.says {
			if _, err := r.Lease(t.Context(), jobs.Worker{}, jobs.Capacity{}); !errors.Is(err, a.err) {
				t.Errorf("%s: Lease() = %v", row.what, err)
			}
			now = now.Add(30 * time.Second)
		}
		if (ended != nil) != row.ends || row.ends && !errors.Is(ended, refusal) {
			t.Errorf("%s: ended with %v", row.what, ended)
		}
	}
}

func (a *answers) Orders(time.Duration) (bool, time.Duration) { return true, time.Second }

// TestRefusable_passes_orders_on: a worker looks whether its Source is a Director.
func TestRefusable_passes_orders_on(t *testing.T) {
	d, ok := worker.Source(&refusable{directed: &answers{}}).(worker.Director)
	if !ok {
		t.Fatal("it is no Director")
	}
	if drain, most := d.Orders(time.Minute); !drain || most != time.Second {
		t.Errorf("Orders() = %v, %v", drain, most)
	}
}
