package web

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"workmanager/jobs"
)

// refusal is why a request, or a connection, was refused: a label of a metric,
// so there are few.
type refusal int

const (
	refusedRate      refusal = iota + 1 // requests of one caller
	refusedBytes                        // bytes of one caller
	refusedTries                        // unknown tokens of one address
	refusedPlaces                       // long polls, streams, batches or reports of one caller
	refusedConns                        // all connections are in use
	refusedAddr                         // those of one address are
	closedIdle                          // an idle connection gave way to a new one
	refusedBusy                         // a limit of the whole node: open jobs, waits, writes
	refusedDiskFull                     // the disk, or the limit of the database
	refusedStopping                     //
	refusedTooLarge                     //
	refusedSlow                         // a body that came too slowly
	refusedAuth                         // not known
	refusedForbidden                    // known, and may not
	refusals
)

var refusalWords = [refusals]string{
	refusedRate: "rate", refusedBytes: "rate_bytes", refusedTries: "tries", refusedPlaces: "caller_places",
	refusedConns: "connections", refusedAddr: "address_connections", closedIdle: "idle_closed",
	refusedBusy: string(jobs.CodeBusy), refusedDiskFull: string(jobs.CodeDiskFull), refusedStopping: string(jobs.CodeStopping),
	refusedTooLarge: string(jobs.CodeTooLarge), refusedSlow: "too_slow", refusedAuth: string(jobs.CodeAuth), refusedForbidden: string(jobs.CodeForbidden),
}

// codeRefusals are the refusals that a code tells by itself. Those of one
// caller are counted where they arise.
var codeRefusals = map[jobs.Code]refusal{
	jobs.CodeBusy: refusedBusy, jobs.CodeDiskFull: refusedDiskFull, jobs.CodeStopping: refusedStopping, jobs.CodeTooLarge: refusedTooLarge,
	jobs.CodeTimeout: refusedSlow, jobs.CodeAuth: refusedAuth, jobs.CodeForbidden: refusedForbidden,
}

// refusalCounts counts refusals since the start.
type refusalCounts struct{ n [refusals]atomic.Int64 }

func (c *refusalCounts) count(why refusal) { c.n[why].Add(1) }

var (
	refusedDesc = prometheus.NewDesc("workmanager_limit_refusals_total", "Requests and connections that were refused, by reason.", []string{"reason"}, nil)
	connsDesc   = prometheus.NewDesc("workmanager_connections", "Connections to the API.", nil, nil)
	placesDesc  = prometheus.NewDesc("workmanager_waiting_requests", "Long polls, event streams, watched jobs and batches that are open.", []string{"kind"}, nil)
	callersDesc = prometheus.NewDesc("workmanager_callers", "Tokens and addresses whose rates are held in memory.", nil, nil)
)

// placeLabels are the kinds of places that are whole requests as labels.
var placeLabels = [placeKinds]string{placeWait: "wait", placeBatch: "batch"}

// pressure is a collector of what outsiders take, and are refused.
type pressure struct{ s *Server }

// Describe lists the figures.
func (pressure) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{refusedDesc, connsDesc, placesDesc, callersDesc} {
		ch <- d
	}
}

// Collect gives their values.
func (p pressure) Collect(ch chan<- prometheus.Metric) {
	for why := refusal(1); why < refusals; why++ {
		ch <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(p.s.refused.n[why].Load()), refusalWords[why])
	}
	ch <- prometheus.MustNewConstMetric(connsDesc, prometheus.GaugeValue, float64(p.s.conns.len()))
	for kind, label := range placeLabels {
		if label == "" {
			continue
		}
		ch <- prometheus.MustNewConstMetric(placesDesc, prometheus.GaugeValue, float64(p.s.taken[kind].Load()), label)
	}
	ch <- prometheus.MustNewConstMetric(callersDesc, prometheus.GaugeValue, float64(p.s.accounts.len()))
}
