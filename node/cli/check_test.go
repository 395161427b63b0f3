package cli

import (
	"strings"
	"testing"
	"time"

	"workmanager/web/api"
)

func TestCheck(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	well := api.Status{Now: now, Node: "a", Writable: true, Workers: 2, Queued: 3, Peer: api.PeerStatus{Session: "sync", Heard: true}}
	for name, row := range map[string]struct {
		ill   func(*api.Status)
		nodes int
		code  int
		says  string
	}{
		"well":                {func(*api.Status) {}, 2, checkOK, "node a, 3 jobs queued, 0 leased, 2 workers"},
		"alone_by_choice":     {func(s *api.Status) { s.Peer = api.PeerStatus{Session: "none"} }, 1, checkOK, ""},
		"disk_full":           {func(s *api.Status) { s.Writable, s.WriteProblem = false, "the disk is full" }, 1, checkCritical, "new jobs are refused: the disk is full"},
		"alarm":               {func(s *api.Status) { s.Alarms = 1 }, 1, checkCritical, "1 pair of different values"},
		"damaged":             {func(s *api.Status) { s.Peer.Compare.Alarms = 2 }, 1, checkCritical, "2 rows damaged"},
		"no_worker":           {func(s *api.Status) { s.Workers = 0 }, 1, checkCritical, "3 jobs and no worker"},
		"no_worker_no_work":   {func(s *api.Status) { s.Workers, s.Queued = 0, 0 }, 1, checkOK, ""},
		"peer_down":           {func(s *api.Status) { s.Peer = api.PeerStatus{Session: "down"} }, 1, checkWarning, "the session with the peer is down"},
		"peer_down_two_asked": {func(s *api.Status) { s.Peer = api.PeerStatus{Session: "down"} }, 2, checkCritical, "1 of 2 nodes answers"},
		"old":                 {func(s *api.Status) { at := now.Add(-11 * time.Minute); s.OldestQueuedAt = &at }, 1, checkWarning, "the oldest job waits for 11m00s"},
		"not_so_old":          {func(s *api.Status) { at := now.Add(-9 * time.Minute); s.OldestQueuedAt = &at }, 1, checkOK, ""},
		"lag":                 {func(s *api.Status) { s.Peer.LagSeconds = 6 }, 1, checkWarning, "rows are 6s old and not at the peer"},
		"clocks":              {func(s *api.Status) { s.Peer.SkewSeconds = -31 }, 1, checkWarning, "the clocks of the two nodes differ by 31s"},
		"certificate":         {func(s *api.Status) { s.Certificate = &api.CertificateStatus{DaysLeft: 20, CADaysLeft: 900} }, 1, checkWarning, "a certificate ends in 20 days"},
		"certificate_now":     {func(s *api.Status) { s.Certificate = &api.CertificateStatus{DaysLeft: -1, CADaysLeft: 900} }, 1, checkCritical, "a certificate ends in 0 days"},
		"certificate_fresh":   {func(s *api.Status) { s.Certificate = &api.CertificateStatus{DaysLeft: 300, CADaysLeft: 900} }, 1, checkOK, ""},
		"quarantined":         {func(s *api.Status) { s.Audit.Quarantined = []api.Quarantine{{Worker: "w"}} }, 1, checkWarning, "1 worker quarantined"},
		"paused":              {func(s *api.Status) { s.Fleet = api.FleetStatus{Leader: true, Paused: "an operator asked for it"} }, 1, checkWarning, "launches pause"},
		"the_gravest_first":   {func(s *api.Status) { s.Peer.LagSeconds, s.Alarms = 6, 1 }, 1, checkCritical, "1 pair of different values for one job; rows are"},
	} {
		t.Run(name, func(t *testing.T) {
			s := well
			row.ill(&s)
			got := check(s, 10*time.Minute, 5*time.Second, row.nodes)
			if got.Code != row.code || got.State != checkWords[row.code] || !strings.Contains(got.Said, row.says) || (len(got.Problems) > 0) != (row.code > 0) {
				t.Errorf("check = %+v, want %s with %q", got, checkWords[row.code], row.says)
			}
		})
	}
}

func TestUnknownTwins(t *testing.T) {
	app := testApp()
	for env, want := range map[string]string{
		"WORKMANAGER_NODE=x": "", "NODE=x": "", "WORKMANAGER_E2E_SEED=1": "", "WORKMANAGER_DATA_DIR=x": "", "WORKMANAGER_CA=": "",
		"WORKMANAGER_NODES=x":      "no setting has the name WORKMANAGER_NODES (did you mean WORKMANAGER_NODE?)",
		"WORKMANAGER_DATADIR=":     "no setting has the name WORKMANAGER_DATADIR (did you mean WORKMANAGER_DATA_DIR?)",
		"WORKMANAGER_NO_SUCH=5=5":  "no setting has the name WORKMANAGER_NO_SUCH",
		"WORKMANAGER_LOGG_LEVEL=x": "no setting has the name WORKMANAGER_LOGG_LEVEL (did you mean WORKMANAGER_LOG_LEVEL?)",
	} {
		got := ""
		if list := unknownTwins([]string{env, "PATH=x"}, app.Commands); len(list) > 0 {
			got = unknownSaid(list)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", env, got, want)
		}
	}
}
