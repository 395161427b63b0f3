package web_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"workmanager/web/api"
)

var (
	alertName  = regexp.MustCompile(`(?m)^ +- alert: (\w+)$`)
	alertBook  = regexp.MustCompile(`(?m)^ +runbook: node/OPERATIONS\.md#(\w+)$`)
	metricName = regexp.MustCompile(`\bworkmanager_\w+`)
)

// alerts returns the rules of alerts.yml by their names, in the file's order.
func alerts(t *testing.T) (names []string, rules map[string]string) {
	t.Helper()
	b, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "\ngroups:")
	rules = map[string]string{}
	at := alertName.FindAllStringSubmatchIndex(text, -1)
	for i, m := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		name := text[m[2]:m[3]]
		names, rules[name] = append(names, name), text[m[0]:end]
	}
	return names, rules
}

// TestAlerts: each is made of metrics that there are, says how grave it is, and
// has its line in the runbook, which has no line too many.
func TestAlerts(t *testing.T) {
	st, price := busyStatus(), 0.1
	st.Fleet.PricePerHour = &price
	served := body(t, get(pageServer(t, fixedStatus{status: st}), "GET", "/metrics"))
	book, err := os.ReadFile("../node/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	names, rules := alerts(t)
	if len(names) < 20 || len(rules) != len(names) {
		t.Fatalf("%d alerts of %d names", len(names), len(rules))
	}
	for _, name := range names {
		rule := rules[name]
		_, expr, _ := strings.Cut(rule, "expr: ")
		expr, _, _ = strings.Cut(expr, "\n")
		found := metricName.FindAllString(expr, -1)
		if len(found) == 0 && !strings.HasPrefix(expr, `up{job="workmanager"}`) {
			t.Errorf("%s: no metric of ours in %q", name, expr)
		}
		for _, m := range found {
			if !strings.Contains(served, "\n"+m+" ") && !strings.Contains(served, "\n"+m+"{") {
				t.Errorf("%s: /metrics has no %s", name, m)
			}
		}
		if !strings.Contains(rule, "labels: {severity: critical}") && !strings.Contains(rule, "labels: {severity: warning}") {
			t.Errorf("%s does not say how grave it is", name)
		}
		if !regexp.MustCompile(`(?m)^ +summary: .{10,}\.("|)$`).MatchString(rule) {
			t.Errorf("%s has no sentence for people", name)
		}
		m := alertBook.FindStringSubmatch(rule)
		if m == nil || m[1] != strings.ToLower(name) {
			t.Errorf("%s leads to %q in the runbook, want its own line", name, m)
		}
		_, line, ok := strings.Cut(string(book), "\n### "+name+"\n")
		line, _, _ = strings.Cut(line, "\n#")
		if !ok || len(strings.TrimSpace(line)) < 40 {
			t.Errorf("node/OPERATIONS.md says nothing of %s", name)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### (Workmanager\w+)$`).FindAllStringSubmatch(string(book), -1) {
		if !slices.Contains(names, m[1]) {
			t.Errorf("node/OPERATIONS.md explains %s, which is no alert", m[1])
		}
	}
}

// healthy is a pair that is well, as series of promtool: each holds for eight hours.
var healthy = map[string]string{
	`up{job="workmanager",instance="a"}`:                                                                  "1x480",
	`workmanager_writable{job="workmanager",instance="a"}`:                                                "1x480",
	`workmanager_jobs{job="workmanager",instance="a",state="queued"}`:                                     "5x480",
	`workmanager_jobs{job="workmanager",instance="a",state="leased"}`:                                     "2x480",
	`workmanager_jobs{job="workmanager",instance="a",state="failed"}`:                                     "3x480",
	`workmanager_iterations_total{job="workmanager",instance="a"}`:                                        "0+1000000x480",
	`workmanager_alarms_total{job="workmanager",instance="a"}`:                                            "0x480",
	`workmanager_compare_alarms_total{job="workmanager",instance="a"}`:                                    "0x480",
	`workmanager_requests_refused_total{job="workmanager",instance="a",code="internal"}`:                  "0x480",
	`workmanager_requests_refused_total{job="workmanager",instance="a",code="busy"}`:                      "0x480",
	`workmanager_peer_session{job="workmanager",instance="a",session="sync"}`:                             "1x480",
	`workmanager_peer_session{job="workmanager",instance="a",session="none"}`:                             "0x480",
	`workmanager_replication_lag_seconds{job="workmanager",instance="a"}`:                                 "0x480",
	`workmanager_peer_clock_skew_seconds{job="workmanager",instance="a"}`:                                 "0.01x480",
	`workmanager_build_info{job="workmanager",instance="a",version="1"}`:                                  "1x480",
	`workmanager_build_info{job="workmanager",instance="b",version="1"}`:                                  "1x480",
	`workmanager_disk_free_bytes{job="workmanager",instance="a"}`:                                         "50000000000x480",
	`workmanager_oldest_queued_age_seconds{job="workmanager",instance="a"}`:                               "30x480",
	`workmanager_leases_lost_total{job="workmanager",instance="a"}`:                                       "0x480",
	`workmanager_workers_quarantined{job="workmanager",instance="a"}`:                                     "0x480",
	`workmanager_audit_wrong_total{job="workmanager",instance="a"}`:                                       "0x480",
	`workmanager_fleet_paused{job="workmanager",instance="a"}`:                                            "0x480",
	`workmanager_fleet_leader{job="workmanager",instance="a"}`:                                            "1x480",
	`workmanager_fleet_launches_refused_total{job="workmanager",instance="a"}`:                            "0x480",
	`workmanager_fleet_workers_wanted{job="workmanager",instance="a"}`:                                    "4x480",
	`workmanager_fleet_workers_max{job="workmanager",instance="a"}`:                                       "8x480",
	`workmanager_fleet_cost_dollars_per_hour{job="workmanager",instance="a"}`:                             "0.145x480",
	`workmanager_certificate_expiry_timestamp_seconds{job="workmanager",instance="a",certificate="node"}`: "31536000x480",
	`workmanager_store_commit_duration_seconds_bucket{job="workmanager",instance="a",le="0.01"}`:          "0+60x480",
	`workmanager_store_commit_duration_seconds_bucket{job="workmanager",instance="a",le="2.5"}`:           "0+60x480",
	`workmanager_store_commit_duration_seconds_bucket{job="workmanager",instance="a",le="+Inf"}`:          "0+60x480",
}

// ills are what makes each alert fire, and it alone: the series that differ.
var ills = map[string]map[string]string{
	"WorkmanagerNodeDown":        {`up{job="workmanager",instance="a"}`: "0x480"},
	"WorkmanagerNotWritable":     {`workmanager_writable{job="workmanager",instance="a"}`: "0x480"},
	"WorkmanagerStalled":         {`workmanager_iterations_total{job="workmanager",instance="a"}`: "7x480"},
	"WorkmanagerValuesDisagree":  {`workmanager_alarms_total{job="workmanager",instance="a"}`: "1x480"},
	"WorkmanagerRowsDamaged":     {`workmanager_compare_alarms_total{job="workmanager",instance="a"}`: "1x480"},
	"WorkmanagerInternalErrors":  {`workmanager_requests_refused_total{job="workmanager",instance="a",code="internal"}`: "0x470 1x10"},
	"WorkmanagerPairNotInStep":   {`workmanager_peer_session{job="workmanager",instance="a",session="sync"}`: "0x480"},
	"WorkmanagerReplicationLags": {`workmanager_replication_lag_seconds{job="workmanager",instance="a"}`: "6x480"},
	"WorkmanagerClocksDiffer":    {`workmanager_peer_clock_skew_seconds{job="workmanager",instance="a"}`: "-6x480"},
	"WorkmanagerVersionsDiffer":  {`workmanager_build_info{job="workmanager",instance="b",version="1"}`: "", `workmanager_build_info{job="workmanager",instance="b",version="2"}`: "1x480"},
	"WorkmanagerDiskFillsUp":     {`workmanager_disk_free_bytes{job="workmanager",instance="a"}`: "50000000000-50000000x480"},
	"WorkmanagerCommitsSlow":     {`workmanager_store_commit_duration_seconds_bucket{job="workmanager",instance="a",le="0.01"}`: "0+50x480"},
	"WorkmanagerQueueOld":        {`workmanager_oldest_queued_age_seconds{job="workmanager",instance="a"}`: "3601x480"},
	"WorkmanagerJobsFail":        {`workmanager_jobs{job="workmanager",instance="a",state="failed"}`: "3x470 4x10"},
	"WorkmanagerLeasesLost":      {`workmanager_leases_lost_total{job="workmanager",instance="a"}`: "0+2x480"},
	"WorkmanagerWorkerWrong":     {`workmanager_workers_quarantined{job="workmanager",instance="a"}`: "1x480"},
	"WorkmanagerOverloaded":      {`workmanager_requests_refused_total{job="workmanager",instance="a",code="busy"}`: "0+120x480"},
	"WorkmanagerCertificateEnds": {`workmanager_certificate_expiry_timestamp_seconds{job="workmanager",instance="a",certificate="node"}`: "1800000x480"},
	"WorkmanagerFleetPaused":     {`workmanager_fleet_paused{job="workmanager",instance="a"}`: "1x480"},
	"WorkmanagerLaunchesRefused": {`workmanager_fleet_launches_refused_total{job="workmanager",instance="a"}`: "0+1x480"},
	"WorkmanagerFleetAtMax":      {`workmanager_fleet_workers_wanted{job="workmanager",instance="a"}`: "9x480"},
	"WorkmanagerFleetIdle": {
		`workmanager_jobs{job="workmanager",instance="a",state="queued"}`: "0x480", `workmanager_jobs{job="workmanager",instance="a",state="leased"}`: "0x480",
	},
}

// TestAlerts_fire: on a pair that is well none does, and each on its own ill, by
// Prometheus's own tool.
func TestAlerts_fire(t *testing.T) {
	names, _ := alerts(t)
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool, of the package prometheus, is not installed: the alerts are not tried")
	}
	rules, err := filepath.Abs("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file strings.Builder
	fmt.Fprintf(&file, "rule_files: [%s]\nevaluation_interval: 5m\ntests:\n", rules)
	add := func(name string, ill map[string]string) {
		fmt.Fprintf(&file, "  - name: %s\n    interval: 1m\n    input_series:\n", name)
		all := maps.Clone(healthy)
		maps.Copy(all, ill)
		for series, values := range all {
			if values != "" {
				fmt.Fprintf(&file, "      - {series: '%s', values: '%s'}\n", series, values)
			}
		}
		fmt.Fprintf(&file, "    promql_expr_test:\n      - expr: count by (alertname) (ALERTS{alertstate=\"firing\"})\n        eval_time: 479m\n        exp_samples:")
		if ill == nil {
			fmt.Fprintf(&file, " []\n")
			return
		}
		fmt.Fprintf(&file, "\n          - {labels: '{alertname=\"%s\"}', value: 1}\n", name)
	}
	add("well", nil)
	for _, name := range names {
		if ills[name] == nil {
			t.Errorf("%s: this test knows nothing that makes it fire", name)
		}
		add(name, ills[name])
	}
	in := filepath.Join(t.TempDir(), "tests.yml")
	if err := os.WriteFile(in, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", in).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestMetrics_are_bounded: how many there are does not depend on how many
// workers, instances and quarantines there are.
func TestMetrics_are_bounded(t *testing.T) {
	count := func(n int) int {
		st, price := busyStatus(), 0.1
		st.Fleet.PricePerHour = &price
		for i := range n {
			name := fmt.Sprintf("w%d", i)
			st.WorkerList = append(st.WorkerList, api.WorkerStatus{Name: name, Instance: name, Kernel: name, Version: name, Cores: 1})
			st.Fleet.Instances = append(st.Fleet.Instances, api.Instance{ID: name, State: "working", Type: name, Zone: name})
			st.Audit.Quarantined = append(st.Audit.Quarantined, api.Quarantine{Worker: name, ID: name, Reason: name})
		}
		return len(regexp.MustCompile(`(?m)^workmanager_`).FindAllString(body(t, get(pageServer(t, fixedStatus{status: st}), "GET", "/metrics")), -1))
	}
	if few, many := count(0), count(90); few != many {
		t.Errorf("%d samples, with 90 more workers, instances and quarantines %d", few, many)
	}
}
