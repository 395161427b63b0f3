package web

import (
	"errors"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"workmanager/jobs"
	"workmanager/web/api"
)

// figure is one metric of the snapshot. Labels are few and bounded: no job, no
// worker and no instance is ever one, whose number grows with use.
type figure struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
	read       func(s *api.Status, set func(v float64, labels ...string))
}

// instanceStates are all that an instance of the fleet can be in.
var instanceStates = []string{"pending", "booting", "working", "idle", "silent", "draining", "ending", "stopped"}

// one reads a figure without labels.
func one[N int | int64 | uint64 | float64](f func(s *api.Status) N) func(*api.Status, func(float64, ...string)) {
	return func(s *api.Status, set func(float64, ...string)) { set(float64(f(s))) }
}

// direction reads a figure of what comes in from the peer and what goes out to it.
func direction(f func(s *api.Status) (in, out int64)) func(*api.Status, func(float64, ...string)) {
	return func(s *api.Status, set func(float64, ...string)) {
		in, out := f(s)
		set(float64(in), "in")
		set(float64(out), "out")
	}
}

// yes is 1 for true.
func yes(b bool) int {
	if b {
		return 1
	}
	return 0
}

// figures are the metrics, in the order of a job's life and then the node's.
var figures = []figure{
	{"workmanager_jobs", "Jobs of the pair as this node knows them, by state. Do not add up those of two nodes.", prometheus.GaugeValue, []string{"state"},
		func(s *api.Status, set func(float64, ...string)) {
			set(float64(s.Queued), string(jobs.StateQueued))
			set(float64(s.Leased), string(jobs.StateLeased))
			set(float64(s.Completed), string(jobs.StateCompleted))
			set(float64(s.Failed), string(jobs.StateFailed))
			set(float64(s.Cancelled), string(jobs.StateCancelled))
		}},
	{"workmanager_jobs_pulled", "Completed jobs that a consuming pull has handed out.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int64 { return s.Pulled })},
	{"workmanager_client_open_jobs_limit", "Open jobs that one client may have, 0 for any number.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int64 { return s.Clients.MaxOpenJobs })},
	{"workmanager_client_open_jobs_most", "Open jobs of the client that has most of them, at both nodes.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int64 { return s.Clients.MostOpenJobs })},
	{"workmanager_clients_with_open_jobs", "Clients that have open jobs.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int { return s.Clients.WithOpenJobs })},
	{"workmanager_client_jobs_refused_total", "Jobs refused because their client had as many open as one may have, lines of batches among them.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Clients.RefusedJobs })},
	{"workmanager_remaining_iterations", "Iterations still to be computed, of all open jobs, from their checkpoints.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) float64 { return s.RemainingIterations })},
	{"workmanager_oldest_queued_age_seconds", "Age of the oldest queued job, 0 if none waits.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) float64 {
			if s.OldestQueuedAt == nil {
				return 0
			}
			return max(0, s.Now.Sub(*s.OldestQueuedAt).Seconds())
		})},
	{"workmanager_iterations_per_second", "Iterations computed a second, over the last 10 s.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) float64 { return s.RateIterations })},
	{"workmanager_jobs_completed_per_second", "Jobs completed a second, over the last 10 s.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) float64 { return s.RateCompleted })},
	{"workmanager_jobs_enqueued_per_second", "Jobs enqueued a second, over the last 10 s.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) float64 { return s.RateEnqueued })},
	{"workmanager_workers", "Live workers of both nodes, one a core.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int { return s.Workers })},
	{"workmanager_leases", "Leases that live workers of this node hold.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) (n int) {
			for _, w := range s.WorkerList {
				n += w.Leases
			}
			return n
		})},
	{"workmanager_leases_lost_total", "Leases that ended because their worker fell silent.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.SinceStart.LeasesLost })},
	{"workmanager_leases_stalled_total", "Leases that ended because their worker renewed them and did not bring the job on.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.SinceStart.LeasesStalled })},
	{"workmanager_jobs_enqueued_total", "Jobs that came in at this node.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.SinceStart.Enqueued })},
	{"workmanager_jobs_completed_total", "Jobs that completed at this node.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.SinceStart.Completed })},
	{"workmanager_iterations_total", "Iterations computed by workers of this node.", prometheus.CounterValue, nil,
		one(func(s *api.Status) float64 { return s.SinceStart.Iterations })},
	{"workmanager_requests_refused_total", "Requests answered with an error, by its code.", prometheus.CounterValue, []string{"code"},
		func(s *api.Status, set func(float64, ...string)) {
			for code := range kinds { // a code that was not answered so far is 0, so that its first is an increase
				set(float64(s.SinceStart.Refused[string(code)]), string(code))
			}
		}},
	{"workmanager_fleet_instances", "Instances that the scheduler owns, by state.", prometheus.GaugeValue, []string{"state"},
		func(s *api.Status, set func(float64, ...string)) {
			n := map[string]int{}
			for _, i := range s.Fleet.Instances {
				n[i.State]++
			}
			for _, state := range instanceStates {
				set(float64(n[state]), state)
			}
		}},
	{"workmanager_fleet_workers_wanted", "Workers that the work there is asks for.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int { return s.Fleet.Want })},
	{"workmanager_fleet_workers_max", "Workers that there may be, 0 where there is no fleet.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int { return s.Fleet.Max })},
	{"workmanager_fleet_leader", "1 if the scheduler of this node decides.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int { return yes(s.Fleet.Leader) })},
	{"workmanager_fleet_paused", "1 if nothing is launched, by an operator or after refusals.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int { return yes(s.Fleet.Paused != "") })},
	{"workmanager_fleet_launches_total", "Instances that this node has launched.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Fleet.Launched })},
	{"workmanager_fleet_launches_refused_total", "Launches that the cloud said no to.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Fleet.Refused })},
	{"workmanager_fleet_cost_dollars_per_hour", "Price of all instances, list price without volumes. Not there while a price is not known.", prometheus.GaugeValue, nil,
		func(s *api.Status, set func(float64, ...string)) {
			if p := s.Fleet.PricePerHour; p != nil {
				set(*p)
			}
		}},
	{"workmanager_fleet_spent_today_dollars", "Spent on instances this UTC day, as far as prices are known.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) float64 { return s.Fleet.SpentToday })},
	{"workmanager_alarms_total", "Pairs of different values seen for one job. Anything but 0 needs a person.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Alarms })},
	{"workmanager_audit_checked_total", "Reports and jobs that were recomputed to check them.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Audit.Checked })},
	{"workmanager_audit_wrong_total", "Of these, the wrong ones. Anything but 0 needs a person.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Audit.Wrong })},
	{"workmanager_workers_quarantined", "Workers that get no more leases here, at most 100.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int { return len(s.Audit.Quarantined) })},
	{"workmanager_peer_session", "How this node stands with its peer: 1 for the session it has, 0 for the others. In sync a write waits for the peer.", prometheus.GaugeValue, []string{"session"},
		func(s *api.Status, set func(float64, ...string)) {
			for _, name := range api.Sessions {
				set(float64(yes(s.Peer.Session == name)), name)
			}
		}},
	{"workmanager_peer_clock_skew_seconds", "The peer's clock less that of this node.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) float64 { return s.Peer.SkewSeconds })},
	{"workmanager_peer_complete", "1 if all that the peer had was read since the start of this node.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int { return yes(s.Peer.Complete) })},
	{"workmanager_under_replicated_rows", "Rows that are here and perhaps not at the peer, at most.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int64 { return s.Peer.UnderReplicated })},
	{"workmanager_replication_lag_rows", "Rows that one node has and the other perhaps not, at most: out, those of this node; in, those of the peer.", prometheus.GaugeValue, []string{"direction"},
		direction(func(s *api.Status) (in, out int64) { return s.Peer.Behind, s.Peer.UnderReplicated })},
	{"workmanager_replication_lag_seconds", "Age of the oldest row that is here and perhaps not at the peer, not counted beyond some 20 s; 0 if there is none.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) float64 { return s.Peer.LagSeconds })},
	{"workmanager_replication_rows_total", "Rows that the feed has carried.", prometheus.CounterValue, []string{"direction"},
		direction(func(s *api.Status) (in, out int64) { return s.Peer.Counters.RowsIn, s.Peer.Counters.RowsOut })},
	{"workmanager_replication_resets_total", "Times that the peer's feed had to be read anew from an earlier place.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Peer.Counters.Resets })},
	{"workmanager_ack_timeouts_total", "Writes answered as local because the peer did not confirm in time.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Peer.Counters.AckTimeouts })},
	{"workmanager_peer_refusals_total", "Times that one of the two nodes did not take the other for its peer.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Peer.Counters.Refusals })},
	{"workmanager_peer_bad_frames_total", "Frames of the peer that could not be read.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Peer.Counters.BadFrames })},
	{"workmanager_gossip_copies_total", "Rows that gossip has carried, best effort.", prometheus.CounterValue, []string{"direction"},
		direction(func(s *api.Status) (in, out int64) { return s.Peer.Counters.CopiesIn, s.Peer.Counters.CopiesOut })},
	{"workmanager_gossip_copies_dropped_total", "Rows that gossip had no room for; the feed carries them.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Peer.Counters.CopiesDropped })},
	{"workmanager_gossip_strangers_total", "Nodes that were kept out of gossip.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Peer.Counters.Strangers })},
	{"workmanager_floor_rounds_total", "Rounds in which both nodes agreed on the floor of retention.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Peer.Counters.FloorRounds })},
	{"workmanager_jobs_stolen_total", "Jobs that the living peer gave to this node, whose workers had none.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Peer.Counters.Stolen })},
	{"workmanager_jobs_taken_over_total", "Jobs of a dead peer that this node has made its own.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Peer.Counters.TakenOver })},
	{"workmanager_key_conflicts_total", "Idempotency keys that came with different work at the two nodes while they were apart.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Peer.Counters.Conflicts })},
	{"workmanager_compare_ranges_total", "Ranges of rows compared with the peer's.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Peer.Compare.Ranges })},
	{"workmanager_compare_differences_total", "Compared ranges that differed.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Peer.Compare.Differed })},
	{"workmanager_compare_repaired_rows_total", "Rows repaired because they differed.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Peer.Compare.Repaired })},
	{"workmanager_compare_alarms_total", "Rows that were damaged, or differ again after their repair. Anything but 0 needs a person.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Peer.Compare.Alarms })},
	{"workmanager_store_committed_rows_total", "Rows that commits of the store have changed.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.SinceStart.Commits.Rows })},
	{"workmanager_store_bytes", "Size of the database file.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int64 { return s.StoreBytes })},
	{"workmanager_store_wal_bytes", "Size of the database's write-ahead log.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int64 { return s.WALBytes })},
	{"workmanager_disk_free_bytes", "Free space where the database is.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int64 { return s.DiskFreeBytes })},
	{"workmanager_writable", "1 if submits are taken, 0 if the disk is full or nearly so.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int { return yes(s.Writable) })},
	{"workmanager_cache_hits_total", "Jobs that the result cache answered.", prometheus.CounterValue, nil,
		one(func(s *api.Status) uint64 { return s.Cache.Hits })},
	{"workmanager_cache_misses_total", "Jobs that the result cache did not know.", prometheus.CounterValue, nil,
		one(func(s *api.Status) uint64 { return s.Cache.Misses })},
	{"workmanager_cache_entries", "Results in the cache.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int { return s.Cache.Entries })},
	{"workmanager_cache_max_entries", "Results the cache may hold, 0 if it is off.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int { return yes(s.Cache.Enabled) * s.Cache.Max })},
	{"workmanager_certificate_expiry_timestamp_seconds", "When a certificate ends, in seconds since 1970: node, of this node; authority, of the pair. None without TLS.", prometheus.GaugeValue, []string{"certificate"},
		func(s *api.Status, set func(float64, ...string)) {
			if c := s.Certificate; c != nil {
				set(float64(c.ExpiresAt.Unix()), "node")
				set(float64(c.CAExpiresAt.Unix()), "authority")
			}
		}},
	{"workmanager_retention_seconds", "How long a job is kept after its end.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) float64 { return s.RetentionSecs })},
	{"workmanager_start_time_seconds", "When this node started, in seconds since 1970.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) float64 {
			return float64(s.StartedAt.UnixMicro()) / float64(time.Second/time.Microsecond)
		})},
	{"workmanager_build_info", "What runs; always 1.", prometheus.GaugeValue, []string{"version", "go_version"},
		func(s *api.Status, set func(float64, ...string)) { set(1, s.Version, runtime.Version()) }},
}

// descs are the descriptions of figures, in their order.
var descs = func() []*prometheus.Desc {
	d := make([]*prometheus.Desc, len(figures))
	for i, f := range figures {
		d[i] = prometheus.NewDesc(f.name, f.help, f.labels, nil)
	}
	return d
}()

// snapshot is a collector of one Status. A scrape reads one, so its figures
// agree with each other.
type snapshot struct{ status api.Status }

// Describe lists the figures.
func (snapshot) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
	ch <- commitDesc
}

// commitDesc is the one figure that is a histogram.
var commitDesc = prometheus.NewDesc("workmanager_store_commit_duration_seconds",
	"How long commits of the store took, the wait for the disk among it.", nil, nil)

func commits(c api.CommitStatus) prometheus.Metric {
	buckets := make(map[float64]uint64, len(c.Buckets))
	for _, b := range c.Buckets {
		buckets[b.Seconds] = uint64(max(b.Count, 0))
	}
	return prometheus.MustNewConstHistogram(commitDesc, uint64(max(c.Count, 0)), c.Seconds, buckets)
}

// Collect gives their values.
func (c snapshot) Collect(ch chan<- prometheus.Metric) {
	for i, f := range figures {
		f.read(&c.status, func(v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(descs[i], f.kind, v, labels...)
		})
	}
	ch <- commits(c.status.SinceStart.Commits)
}

// metrics serves the snapshot to Prometheus, and the figures of the Go runtime
// and the process under their usual names. It has its own registries: what a
// library registers globally is not ours to promise.
func (s *Server) metrics() http.Handler {
	process := prometheus.NewRegistry()
	process.MustRegister(s.sent.requests, s.sent.bytes, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return s.serve(func(w http.ResponseWriter, r *http.Request) error {
		status, err := s.snapshot(r.Context())
		if err != nil {
			return err
		}
		node := prometheus.NewRegistry()
		if err := errors.Join(node.Register(snapshot{status}), node.Register(pressure{s})); err != nil {
			return err
		}
		h := w.Header()
		h["Cache-Control"] = headerNoStore
		promhttp.HandlerFor(prometheus.Gatherers{node, process}, promhttp.HandlerOpts{}).ServeHTTP(w, r)
		return nil
	})
}
