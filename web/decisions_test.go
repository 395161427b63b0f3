package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// mind is a scheduler that decides when it is told to, and keeps three decisions.
type mind struct {
	orders
	mu   sync.Mutex // guards the rest
	kept []api.FleetDecision
	next chan struct{}
}

func (m *mind) Fleet(context.Context) (api.FleetStatus, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return api.FleetStatus{Kind: "process", Instances: []api.Instance{}, Decisions: slices.Clone(m.kept)}, nil
}

func (m *mind) Decided() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.next
}

// Status is the least that a stream tells every second.
func (m *mind) Status(context.Context) (api.Status, error) { return api.Status{}, nil }

// idle is a reader of no jobs.
type idle struct{ reader }

func (idle) Jobs(context.Context, jobs.ListQuery) (jobs.List, error) { return jobs.List{}, nil }

// decide makes a decision, the one of before once more if the text is the same.
func (m *mind) decide(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now().UTC()
	if len(m.kept) > 0 && m.kept[0].Why == why {
		m.kept[0].Times, m.kept[0].LastAt = m.kept[0].Times+1, now
	} else {
		d := api.FleetDecision{At: now, LastAt: now, Times: 1, Leader: true, Why: why, Actions: []api.FleetAction{}, Outcome: []string{}}
		m.kept = append([]api.FleetDecision{d}, m.kept...)
		m.kept = m.kept[:min(len(m.kept), 3)]
	}
	close(m.next)
	m.next = make(chan struct{})
}

// TestEvents_decisions: an operator's stream tells each decision as it is made,
// none twice, and first those that are kept; a client's tells none.
func TestEvents_decisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &mind{next: make(chan struct{})}
		s := New(Config{Limits: jobs.DefaultLimits(), Keeper: doorman{}, Fleet: m, Status: m, Reader: idle{}})
		watch := func(token string) (end func() []string) {
			ctx, cancel := context.WithCancel(t.Context())
			r := httptest.NewRequestWithContext(ctx, "GET", "/v1/events", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			w, done := httptest.NewRecorder(), make(chan struct{})
			go func() {
				defer close(done)
				s.ServeHTTP(w, r)
			}()
			synctest.Wait()
			return func() (told []string) {
				synctest.Wait()
				cancel()
				<-done
				for block := range strings.SplitSeq(w.Body.String(), "\n\n") {
					if data, ok := strings.CutPrefix(block, "event: decision\ndata: "); ok {
						var d api.FleetDecision
						if err := json.Unmarshal([]byte(data), &d); err != nil {
							t.Errorf("%s: %v", data, err)
						}
						told = append(told, fmt.Sprint(d.Why, " ", d.Times))
					}
				}
				return told
			}
		}
		for _, why := range []string{"before", "one", "two", "two", "three"} {
			m.decide(why)
			time.Sleep(10 * time.Second)
		}
		operator, client := watch("operator/ops"), watch("client/ci")
		m.decide("three")
		time.Sleep(100 * time.Millisecond)
		m.decide("four")
		time.Sleep(20 * time.Second)
		m.decide("four")
		if got, want := operator(), []string{"one 1", "two 2", "three 1", "three 2", "four 1", "four 2"}; !slices.Equal(got, want) {
			t.Errorf("an operator is told %q, want %q", got, want)
		}
		if got := client(); got != nil {
			t.Errorf("a client is told %q", got)
		}
		time.Sleep(5 * time.Second) // the snapshots end
	})
}
