package web_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/web"
	"workmanager/web/api"
	"workmanager/web/client"
)

// quarantines notes the orders, and lifts nothing of worker w9.
type quarantines struct{ orders []string }

func (q *quarantines) QuarantineList(context.Context) (api.QuarantineList, error) {
	at := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	return api.QuarantineList{Replicated: true, Quarantines: []api.Quarantine{
		{Worker: "w1", State: api.StateQuarantined, Reason: "wrong", At: at, Node: "a", ID: "0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801", Done: 500, Said: "0102030405060708", Right: "1112131415161718"},
		{Worker: "b", Inside: true, State: api.StateLifted, Reason: "mended", At: at, Node: "b", By: "ops"},
	}}, nil
}

func (q *quarantines) OrderQuarantine(_ context.Context, do, worker, by, reason string) error {
	if worker == "w9" {
		return jobs.Errorf(jobs.CodeNotFound, "worker w9 is not quarantined")
	}
	q.orders = append(q.orders, strings.Join([]string{do, worker, by, reason}, "/"))
	return nil
}

func TestQuarantine(t *testing.T) {
	q := &quarantines{}
	s := httptest.NewServer(validated(t, web.New(web.Config{Status: status{}, Quarantine: q, Limits: jobs.DefaultLimits()})))
	defer s.Close()
	c := &client.Client{URLs: []string{s.URL}}
	defer c.Close()
	got, err := c.Quarantines(t.Context())
	if err != nil || len(got.Quarantines) != 2 || !got.Replicated || got.Quarantines[0].Done != 500 || !got.Quarantines[1].Inside {
		t.Errorf("Quarantines() = %+v, %v", got, err)
	}
	for _, o := range [][2]string{{"add", "smells of smoke"}, {"lift", ""}} {
		if got, err := c.OrderQuarantine(t.Context(), o[0], "w 1+é", o[1]); err != nil || len(got.Quarantines) != 2 {
			t.Errorf("OrderQuarantine(%v) = %+v, %v", o, got, err)
		}
	}
	if got, want := strings.Join(q.orders, ", "), "add/w 1+é//smells of smoke, lift/w 1+é//"; got != want {
		t.Errorf("orders %q, want %q", got, want)
	}
	for _, bad := range []struct {
		do, worker, reason string
		code               jobs.Code
	}{
		{"", "w1", "", jobs.CodeInvalid}, {"end", "w1", "", jobs.CodeInvalid}, {"add", "", "", jobs.CodeInvalid}, {"add", "a/b", "", jobs.CodeInvalid},
		{"add", "a\nb", "", jobs.CodeInvalid}, {"lift", strings.Repeat("w", 253), "", jobs.CodeInvalid}, {"add", "w1", strings.Repeat("r", 257), jobs.CodeInvalid},
		{"add", "w1", "two\nlines", jobs.CodeInvalid}, {"lift", "w9", "", jobs.CodeNotFound},
	} {
		if _, err := c.OrderQuarantine(t.Context(), bad.do, bad.worker, bad.reason); jobs.CodeOf(err) != bad.code {
			t.Errorf("OrderQuarantine(%q, %.20q, %.20q) = %v, want code %s", bad.do, bad.worker, bad.reason, err, bad.code)
		}
	}
	if len(q.orders) != 2 {
		t.Errorf("orders %q", q.orders)
	}
}

func TestQuarantine_none(t *testing.T) {
	s := httptest.NewServer(validated(t, web.New(web.Config{Status: status{}, Limits: jobs.DefaultLimits()})))
	defer s.Close()
	c := &client.Client{URLs: []string{s.URL}}
	defer c.Close()
	if got, err := c.Quarantines(t.Context()); err != nil || got.Quarantines == nil || len(got.Quarantines) != 0 {
		t.Errorf("Quarantines() = %+v, %v", got, err)
	}
	if _, err := c.OrderQuarantine(t.Context(), "add", "w1", ""); jobs.CodeOf(err) != jobs.CodeNotFound {
		t.Errorf("OrderQuarantine() = %v", err)
	}
}
