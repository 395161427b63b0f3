package web_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"workmanager/jobs"
)

func TestMetrics(t *testing.T) {
	got := get(pageServer(t, fixedStatus{status: busyStatus()}), "GET", "/metrics")
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
		`workmanager_remaining_iterations 1.25e+10`,
		`workmanager_oldest_queued_age_seconds 134`,
		`workmanager_iterations_per_second 6.4e+06`,
		`workmanager_jobs_completed_per_second 6.3`,
		`workmanager_jobs_enqueued_per_second 0.4`,
		`workmanager_workers 2`,
		`workmanager_leases 7`,
		`workmanager_fleet_instances 0`,
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
		want = append(want, `workmanager_requests_refused_total{reason="`+reason+`"} 0`)
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
