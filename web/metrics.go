package web

import (
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

// one reads a figure without labels.
func one[N int | int64 | uint64 | float64](f func(s *api.Status) N) func(*api.Status, func(float64, ...string)) {
	return func(s *api.Status, set func(float64, ...string)) { set(float64(f(s))) }
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
	{"workmanager_jobs", "Jobs this node knows, by state.", prometheus.GaugeValue, []string{"state"},
		func(s *api.Status, set func(float64, ...string)) {
			set(float64(s.Queued), string(jobs.StateQueued))
			set(float64(s.Leased), string(jobs.StateLeased))
			set(float64(s.Completed), string(jobs.StateCompleted))
			set(float64(s.Failed), string(jobs.StateFailed))
			set(float64(s.Cancelled), string(jobs.StateCancelled))
		}},
	{"workmanager_jobs_pulled", "Completed jobs that a consuming pull has handed out.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int64 { return s.Pulled })},
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
	{"workmanager_workers", "Live workers, one a core.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int { return s.Workers })},
	{"workmanager_leases", "Leases that live workers hold.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) (n int) {
			for _, w := range s.WorkerList {
				n += w.Leases
			}
			return n
		})},
	{"workmanager_fleet_instances", "Instances that the scheduler owns.", prometheus.GaugeValue, nil,
		one(func(s *api.Status) int { return len(s.Fleet.Instances) })},
	{"workmanager_alarms_total", "Pairs of different values seen for one job. Anything but 0 needs a person.", prometheus.CounterValue, nil,
		one(func(s *api.Status) int64 { return s.Alarms })},
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
}

// Collect gives their values.
func (c snapshot) Collect(ch chan<- prometheus.Metric) {
	for i, f := range figures {
		f.read(&c.status, func(v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(descs[i], f.kind, v, labels...)
		})
	}
}

// metrics serves the snapshot to Prometheus, and the figures of the Go runtime
// and the process under their usual names. It has its own registries: what a
// library registers globally is not ours to promise.
func (s *Server) metrics() http.Handler {
	process := prometheus.NewRegistry()
	process.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return s.serve(func(w http.ResponseWriter, r *http.Request) error {
		status, err := s.cfg.Status.Status(r.Context())
		if err != nil {
			return err
		}
		node := prometheus.NewRegistry()
		if err := node.Register(snapshot{status}); err != nil {
			return err
		}
		h := w.Header()
		h["Cache-Control"] = headerNoStore
		promhttp.HandlerFor(prometheus.Gatherers{node, process}, promhttp.HandlerOpts{}).ServeHTTP(w, r)
		return nil
	})
}
