package web_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"workmanager/jobs"
	"workmanager/web/api"
)

func TestMetrics(t *testing.T) {
	st, price := busyStatus(), 0.145
	st.Fleet = api.FleetStatus{
		Kind: "process", Leader: true, Max: 8, Want: 4, Have: 3, Paused: "an operator asked for it", PricePerHour: &price, SpentToday: 1.25, Launched: 124, Refused: 125,
		Instances: []api.Instance{{ID: "i-1", State: "working"}, {ID: "i-2", State: "working"}, {ID: "i-3", State: "booting"}},
	}
	srv := pageServer(t, fixedStatus{status: st})
	get(srv, "GET", "/nowhere")
	get(srv, "GET", "/nowhere/else")
	got := get(srv, "GET", "/metrics")
	text := body(t, got)
	if got.StatusCode != 200 || !strings.HasPrefix(got.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Fatalf("GET /metrics = %d, %q", got.StatusCode, got.Header.Get("Content-Type"))
	}
	// Every metric of ours, with the value that busyStatus gives it. A new one
	// is added here, and one that goes breaks somebody's alert.
	want := []string{
		`workmanager_jobs{state="queued"} 12480`,
		`workmanager_jobs{state="leased"} 7`,
		`workmanager_jobs{state="completed"} 90210`,
		`workmanager_jobs{state="failed"} 3`,
		`workmanager_jobs{state="cancelled"} 2`,
		`workmanager_jobs_pulled 11`,
		`workmanager_client_open_jobs_limit 5e+06`,
		`workmanager_client_open_jobs_most 12000`,
		`workmanager_clients_with_open_jobs 3`,
		`workmanager_client_jobs_refused_total 126`,
		`workmanager_remaining_iterations 1.25e+10`,
		`workmanager_oldest_queued_age_seconds 134`,
		`workmanager_iterations_per_second 6.4e+06`,
		`workmanager_jobs_completed_per_second 6.3`,
		`workmanager_jobs_enqueued_per_second 0.4`,
		`workmanager_workers 2`,
		`workmanager_leases 7`,
		`workmanager_leases_lost_total 122`,
		`workmanager_leases_stalled_total 127`,
		`workmanager_jobs_enqueued_total 119`,
		`workmanager_jobs_completed_total 120`,
		`workmanager_iterations_total 121`,
		`workmanager_fleet_instances{state="pending"} 0`,
		`workmanager_fleet_instances{state="booting"} 1`,
		`workmanager_fleet_instances{state="working"} 2`,
		`workmanager_fleet_instances{state="idle"} 0`,
		`workmanager_fleet_instances{state="silent"} 0`,
		`workmanager_fleet_instances{state="draining"} 0`,
		`workmanager_fleet_instances{state="ending"} 0`,
		`workmanager_fleet_instances{state="stopped"} 0`,
		`workmanager_fleet_workers_wanted 4`,
		`workmanager_fleet_workers_max 8`,
		`workmanager_fleet_leader 1`,
		`workmanager_fleet_paused 1`,
		`workmanager_fleet_launches_total 124`,
		`workmanager_fleet_launches_refused_total 125`,
		`workmanager_fleet_cost_dollars_per_hour 0.145`,
		`workmanager_fleet_spent_today_dollars 1.25`,
		`workmanager_store_committed_rows_total 123`,
		`workmanager_store_commit_duration_seconds_bucket{le="0.001"} 4`,
		`workmanager_store_commit_duration_seconds_bucket{le="0.1"} 9`,
		`workmanager_store_commit_duration_seconds_bucket{le="+Inf"} 10`,
		`workmanager_store_commit_duration_seconds_sum 0.5`,
		`workmanager_store_commit_duration_seconds_count 10`,
		`workmanager_alarms_total 0`,
		`workmanager_audit_checked_total 31`,
		`workmanager_audit_wrong_total 2`,
		`workmanager_workers_quarantined 0`,
		`workmanager_peer_session{session="none"} 0`,
		`workmanager_peer_session{session="down"} 0`,
		`workmanager_peer_session{session="connected"} 0`,
		`workmanager_peer_session{session="catchup"} 1`,
		`workmanager_peer_session{session="sync"} 0`,
		`workmanager_peer_clock_skew_seconds -0.25`,
		`workmanager_peer_complete 1`,
		`workmanager_under_replicated_rows 34`,
		`workmanager_replication_lag_rows{direction="in"} 9`,
		`workmanager_replication_lag_rows{direction="out"} 34`,
		`workmanager_replication_lag_seconds 1.5`,
		`workmanager_replication_rows_total{direction="in"} 101`,
		`workmanager_replication_rows_total{direction="out"} 102`,
		`workmanager_replication_resets_total 103`,
		`workmanager_ack_timeouts_total 104`,
		`workmanager_peer_refusals_total 105`,
		`workmanager_peer_bad_frames_total 106`,
		`workmanager_gossip_copies_total{direction="in"} 107`,
		`workmanager_gossip_copies_total{direction="out"} 108`,
		`workmanager_gossip_copies_dropped_total 109`,
		`workmanager_gossip_strangers_total 110`,
		`workmanager_floor_rounds_total 111`,
		`workmanager_jobs_stolen_total 112`,
		`workmanager_jobs_taken_over_total 113`,
		`workmanager_key_conflicts_total 118`,
		`workmanager_compare_ranges_total 114`,
		`workmanager_compare_differences_total 115`,
		`workmanager_compare_repaired_rows_total 116`,
		`workmanager_compare_alarms_total 117`,
		`workmanager_store_bytes 4.2991616e+07`,
		`workmanager_store_wal_bytes 2.097152e+06`,
		`workmanager_disk_free_bytes 9.4489280512e+10`,
		`workmanager_writable 1`,
		`workmanager_cache_hits_total 21`,
		`workmanager_cache_misses_total 34`,
		`workmanager_cache_entries 5`,
		`workmanager_cache_max_entries 1000`,
		`workmanager_certificate_expiry_timestamp_seconds{certificate="authority"} 2.110976521e+09`,
		`workmanager_certificate_expiry_timestamp_seconds{certificate="node"} 1.795616521e+09`,
		`workmanager_retention_seconds 2.592e+06`,
		`workmanager_start_time_seconds 1.795612921e+09`,
		`workmanager_connections 0`,
		`workmanager_callers 1`,
		`workmanager_waiting_requests{kind="wait"} 0`,
		`workmanager_waiting_requests{kind="batch"} 0`,
	}
	for _, reason := range []string{
		"rate", "rate_bytes", "tries", "caller_places", "connections", "address_connections", "idle_closed",
		"busy", "disk_full", "stopping", "too_large", "too_slow", "unauthorized", "forbidden",
	} {
		want = append(want, `workmanager_limit_refusals_total{reason="`+reason+`"} 0`)
	}
	doc, err := loadAPIDoc()
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range doc.doc.Components.Schemas["Problem"].Value.Properties["code"].Value.Enum {
		want = append(want, fmt.Sprintf(`workmanager_requests_refused_total{code=%q} %d`, code, map[any]int{string(jobs.CodeNoRoute): 2}[code]))
	}
	for _, line := range want {
		if !strings.Contains("\n"+text, "\n"+line+"\n") {
			name, _, _ := strings.Cut(line, " ")
			t.Errorf("want %q, got %q", line, regexp.MustCompile("(?m)^"+regexp.QuoteMeta(name)+" .*").FindString(text))
		}
	}
	if !regexp.MustCompile(`(?m)^workmanager_build_info\{go_version="go[^"]+",version="1\.2\.3"\} 1$`).MatchString(text) {
		t.Errorf("no workmanager_build_info of version 1.2.3")
	}
	if samples := len(regexp.MustCompile(`(?m)^workmanager_`).FindAllString(text, -1)); samples != len(want)+1 {
		t.Errorf("%d samples of ours, %d are known to this test", samples, len(want)+1)
	}
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes", "process_open_fds"} {
		if !strings.Contains(text, "\n"+name+" ") {
			t.Errorf("no %s", name)
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("promlint: %s: %s", p.Metric, p.Text)
	}
}

func TestMetrics_of_nothing(t *testing.T) {
	text := body(t, get(pageServer(t, fixedStatus{}), "GET", "/metrics"))
	for _, line := range []string{"workmanager_oldest_queued_age_seconds 0", "workmanager_writable 0", "workmanager_cache_max_entries 0", `workmanager_peer_session{session="sync"} 0`} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no %q", line)
		}
	}
}

func TestMetrics_without_a_status(t *testing.T) {
	for _, row := range []struct {
		err  error
		want int
	}{{jobs.Errorf(jobs.CodeUnavailable, "not now"), 503}, {errors.New("store: gone"), 500}} {
		got := get(pageServer(t, fixedStatus{err: row.err}), "GET", "/metrics")
		if text := body(t, got); got.StatusCode != row.want || strings.Contains(text, "gone") {
			t.Errorf("GET /metrics while Status fails with %q = %d %q, want %d", row.err, got.StatusCode, text, row.want)
		}
	}
}
