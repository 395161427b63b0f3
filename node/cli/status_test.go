package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"workmanager/web/api"
)

func pairStatus(change func(*api.Status)) api.Status {
	now := time.Date(2026, 11, 25, 14, 22, 1, 0, time.UTC)
	since, heard := now.Add(-12*time.Second), now.Add(-13*time.Second)
	s := api.Status{
		Node: "a", Version: "1.2.3", Now: now, StartedAt: now.Add(-time.Hour), Writable: true, Retention: "720h0m0s",
		Jobs: 30, Queued: 30, Leased: 5, Workers: 3, Completed: 9,
		WorkerList: []api.WorkerStatus{{Name: "a", Cores: 2, Leases: 4, SeenAt: now}},
		Peer: api.PeerStatus{
			Node: "b", Session: "sync", Since: &since, HeardAt: &heard, Alive: true, Heard: true, Complete: true,
			Waiting: 10, Leased: 1, Workers: 1,
		},
	}
	if change != nil {
		change(&s)
	}
	return s
}

func TestPeerTrouble(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*api.Status)
		want   string
	}{
		"sync":  {nil, ""},
		"alone": {func(s *api.Status) { s.Peer = api.PeerStatus{Session: api.SessionNone} }, ""},
		"down": {func(s *api.Status) { s.Peer.Session, s.Peer.UnderReplicated = "down", 34 },
			"b does not answer since 12s; up to 34 jobs may be on this node's disk only."},
		"down, all is there": {func(s *api.Status) { s.Peer.Session = "down" },
			"b does not answer since 12s; all jobs of this node are on both disks."},
		"never met": {func(s *api.Status) {
			s.Peer = api.PeerStatus{Session: "down", Complete: true, UnderReplicated: 1}
		}, "No peer has ever answered; up to 1 job may be on this node's disk only."},
		"connected": {func(s *api.Status) { s.Peer.Session, s.Peer.UnderReplicated = "connected", 2 },
			"Only one of the two directions between b and this node works; up to 2 jobs may be on this node's disk only."},
		"catchup": {func(s *api.Status) { s.Peer.Session, s.Peer.UnderReplicated = "catchup", 1234 },
			"b is catching up; up to 1,234 jobs may be on this node's disk only."},
		"refused": {func(s *api.Status) { s.Peer.Session, s.Peer.Refused = "down", `node b is of cluster "x"` },
			`b and this node do not talk: node b is of cluster "x"; all jobs of this node are on both disks.`},
		"refilling": {func(s *api.Status) { s.Peer.Refilling, s.Peer.Behind = true, 70000 },
			"The copy of b's jobs on this node is not complete: up to 70,000 rows to go."},
		"incomplete": {func(s *api.Status) { s.Peer.Complete = false },
			"Not all jobs of b may be on this node: they were not read to their end since it started."},
		"behind after a start": {func(s *api.Status) { s.Peer.Complete, s.Peer.Behind = false, 1 },
			"The copy of b's jobs on this node is not complete: up to 1 row to go."},
		"alarm": {func(s *api.Status) { s.Peer.Compare.Alarms = 2 },
			"ALARM: 2 jobs damaged, or different at the two nodes again after a repair; see the node's log."},
		"compare failed": {func(s *api.Status) { s.Peer.Compare.Error = "b stopped" },
			"The last comparison of the two nodes did not end well: b stopped."},
		"ahead":  {func(s *api.Status) { s.Peer.SkewSeconds = 1.25 }, "The clock of b is 1.3s ahead."},
		"behind": {func(s *api.Status) { s.Peer.SkewSeconds = -0.5 }, "The clock of b is 500ms behind."},
		"ahead, when last heard": {func(s *api.Status) { s.Peer.Session, s.Peer.SkewSeconds = "down", 9 },
			"b does not answer since 12s; all jobs of this node are on both disks."},
		"in step": {func(s *api.Status) { s.Peer.SkewSeconds = -0.4 }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(peerTrouble(pairStatus(row.change)), "\n"); got != row.want {
				t.Errorf("got  %q\nwant %q", got, row.want)
			}
		})
	}
}

func TestStatus_table_has_both_nodes(t *testing.T) {
	show := func(s api.Status) string {
		t.Helper()
		var out bytes.Buffer
		if err := (&program{stdout: &out}).printStatus(formatTable, s); err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(out.String()), " ")
	}
	for name, row := range map[string]struct {
		change func(*api.Status)
		want   []string
		not    string
	}{
		"sync": {nil, []string{"a healthy 20 4 2 9", "b healthy 10 1 1", "b sync 12s 0 0s 0 complete not yet in step"}, "does not answer"},
		"gone": {func(s *api.Status) {
			s.Peer.Session, s.Peer.Gone, s.Peer.Heard, s.Peer.Workers = "down", true, false, 0
			s.Peer.UnderReplicated, s.Peer.LagSeconds = 3, 1.5
		}, []string{"b does not answer since 12s; up to 3 jobs", "b gone 10 1 0", "b down 12s 3 1.5s 0 complete not yet not known"}, "healthy 10"},
		"long gone": {func(s *api.Status) { s.Peer.Session, s.Peer.LagSeconds = "down", 20 }, []string{"b silent", "over 20s"}, ""},
		"refilling": {func(s *api.Status) { s.Peer.Refilling, s.Peer.Behind = true, 7 }, []string{"7 refilling"}, "0 complete"},
		"compared": {func(s *api.Status) {
			at := s.Now.Add(-3 * time.Minute)
			s.Peer.Compare = api.CompareStatus{At: &at, Running: true}
		}, []string{"complete 3m00s ago in step"}, "not yet"},
		"comparing": {func(s *api.Status) { s.Peer.Compare.Running = true }, []string{"complete running in step"}, "not yet"},
		"alone":     {func(s *api.Status) { s.Peer, s.Workers = api.PeerStatus{Session: api.SessionNone}, 2 }, []string{"a healthy 30 5 2 9"}, "PEER"},
	} {
		t.Run(name, func(t *testing.T) {
			got := show(pairStatus(row.change))
			for _, want := range row.want {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in %q", want, got)
				}
			}
			if row.not != "" && strings.Contains(got, row.not) {
				t.Errorf("%q in %q", row.not, got)
			}
		})
	}
}

func TestShareOf(t *testing.T) {
	n := func(n int64) *int64 { return &n }
	for want, c := range map[string]api.ClientsStatus{
		"":                     {MaxOpenJobs: 5, MostOpenJobs: 5, WithOpenJobs: 1}, // an operator
		"You have 1 open job.": {OwnOpenJobs: n(1)},
		"You have 1,200 open jobs of 5,000,000 that one client may have.":                                  {OwnOpenJobs: n(1200), MaxOpenJobs: 5_000_000},
		"You have 5 open jobs, the most that one client may have: more are refused until some have ended.": {OwnOpenJobs: n(5), MaxOpenJobs: 5},
	} {
		if got := strings.Join(shareOf(api.Status{Clients: c}), "\n"); got != want {
			t.Errorf("shareOf(%+v) = %q, want %q", c, got, want)
		}
	}
}
