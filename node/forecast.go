package node

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"workmanager/web/api"
)

// outlook is what a forecast is made of, beside the status.
type outlook struct {
	here, there flow // of this node, and as the peer says
	longest     float64
	rate        float64 // iterations a second of one job, 0 unknown
	reported    float64 // iterations a second that the workers at work say they do
	unreachable time.Duration
}

// Bounds of the states.
const (
	splitAfter   = 5 * time.Second
	stalledAfter = time.Minute
	holding      = 0.02 // of the rate: as much comes in as is done
)

// forecast says when the work of the pair will be done, and why then. It is
// pure: all views show what it says, so that they cannot disagree.
func forecast(s *api.Status, o outlook) api.Forecast {
	f := queueForecast(s, o)
	p := &s.Peer
	if p.Session != "down" || p.Node == "" || o.unreachable < splitAfter {
		return f
	}
	wait := "all jobs of this node are on both disks"
	if p.UnderReplicated > 0 {
		wait = plural(p.UnderReplicated, "job") + " may be on this disk only"
		if p.UnderReplicated == 1 {
			wait = "1 job may be on this disk only"
		}
	}
	queue := f.Text + ". " + f.Reason
	f.State = api.ForecastSplit
	f.Text = fmt.Sprintf("%s unreachable for %s: submits are still accepted here, %s", p.Node, age(o.unreachable), wait)
	f.Reason = strings.TrimSpace(queue)
	return f
}

// queueForecast is the forecast without the peer.
func queueForecast(s *api.Status, o outlook) api.Forecast {
	f := api.Forecast{
		RateCompleted: tidy(o.here.Completed + o.there.Completed), RateArriving: tidy(o.here.Arriving + o.there.Arriving),
	}
	speed := o.here.Iterations + o.there.Iterations
	over := max(o.here.Over, o.there.Over)
	if over < enough && o.reported+o.there.Iterations > 0 {
		speed = o.reported + o.there.Iterations // too little is measured: what the workers say
	}
	f.RateIterations = tidy(speed)
	coming := o.here.Incoming + o.there.Incoming
	open := s.Queued + s.Leased
	queued := plural(s.Queued, "job") + " queued"
	if s.Queued == 0 {
		queued = plural(s.Leased, "job") + " running"
	}
	rates := fmt.Sprintf("%s/s done, %s/s arriving, %s.", rate(f.RateCompleted), rate(f.RateArriving), plural(int64(s.Workers), "worker"))
	switch {
	case open == 0:
		f.State, f.Text, f.Reason = api.ForecastIdle, "Nothing queued", idleReason(s)
		return f
	case s.Workers == 0 && undecided(s):
		f.State, f.Text, f.Reason = api.ForecastStarting, queued+", the scheduler is about to decide", "No worker is connected yet."
		return f
	case s.Workers == 0 && booting(s) > 0:
		f.State = api.ForecastStarting
		f.Text = queued + ", " + plural(int64(booting(s)), "instance") + " starting" + readyIn(s)
		f.Reason = "No worker is connected yet."
		return f
	case s.Workers == 0 || o.here.Idle >= stalledAfter && o.there.Iterations == 0:
		f.State = api.ForecastStalled
		if s.Workers == 0 {
			f.Text, f.Reason = queued+", and no worker is connected", noWorker(s)
		} else {
			f.Text = fmt.Sprintf("%s, and nothing got on for %s", queued, age(o.here.Idle))
			f.Reason = plural(int64(s.Workers), "worker") + " connected. " + stalledReason(s)
		}
		if s.OldestQueuedAt != nil {
			f.Reason = "The oldest has waited " + age(s.Now.Sub(*s.OldestQueuedAt)) + ". " + f.Reason
		}
		return f
	case !(speed > 0):
		f.State, f.Text, f.Reason = api.ForecastMeasuring, queued+", measuring", "No rate is known yet. "+rates
		return f
	}
	net := speed - coming
	grow := f.RateArriving - f.RateCompleted
	switch {
	case s.Queued > 0 && net < -holding*speed:
		f.State = api.ForecastGrowing
		if grow > 0 {
			f.Text = fmt.Sprintf("%s and growing by %s/s", queued, rate(grow))
		} else {
			f.Text = fmt.Sprintf("%s and growing by %s iterations/s", queued, short(-net))
		}
		f.Reason = growingReason(s) + rates
		return f
	case s.Queued > 0 && net <= holding*speed:
		f.State = api.ForecastHolding
		f.Text = fmt.Sprintf("%s, not shrinking: as much comes in as is done", queued)
		f.Reason = growingReason(s) + rates
		return f
	}
	f.State = api.ForecastDraining
	left := s.RemainingIterations / speed
	if s.Queued > 0 { // else what comes in starts at once beside it
		left = s.RemainingIterations / net
	}
	serial := 0.0
	if o.longest > 0 && o.rate > 0 {
		serial = o.longest / o.rate
	}
	reason := rates + " " + short(s.RemainingIterations) + " iterations to go at " + short(speed) + "/s."
	if serial > 1.2*left && serial > 10 {
		reason += " The longest job alone takes " + about(serial) + ": a chain is serial, more workers do not shorten it."
	}
	left = max(left, serial)
	f.LeftSeconds = left
	if left < 250*365*86400 {
		at := s.Now.Add(time.Duration(left * float64(time.Second))).UTC().Truncate(time.Second)
		f.DoneAt = &at
	}
	verb := "clear"
	if open == 1 {
		verb = "clears"
	}
	what := plural(open, "job")
	if left < 1 {
		f.Text = fmt.Sprintf("%s %s within a second", what, verb)
	} else {
		f.Text = fmt.Sprintf("%s %s in about %s", what, verb, about(left))
	}
	f.Reason = reason + drainReason(s, left)
	return f
}

func idleReason(s *api.Status) string {
	if n := len(s.Fleet.Instances); n > 0 {
		return plural(int64(n), "instance") + " still there; the scheduler ends those that stay idle."
	}
	if s.Workers == 0 && fleetless(&s.Fleet) {
		return "No worker is connected: a new job would wait. " + noWorker(s)
	}
	if s.Completed+s.Failed+s.Cancelled == 0 {
		return "Submit a file to see it work."
	}
	if s.Workers == 0 {
		return "No instance runs: they come with the work."
	}
	return ""
}

func stalledReason(s *api.Status) string {
	if n := len(s.Audit.Quarantined); n > 0 {
		return plural(int64(n), "worker") + " quarantined: 'workmanager quarantine ls' says why."
	}
	return "A job runs and reports nothing, or no worker takes one: see Workers and the node's log."
}

// ---- how numbers are said -------------------------------------------------

// tidy is a rate that JSON and people can have: finite and not negative.
func tidy(x float64) float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) || x < 0 {
		return 0
	}
	return x
}

// plural is "1 job", "12,480 jobs".
func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return commas(n) + " " + what + "s"
}

func commas(n int64) string {
	if n < 0 {
		return "-" + commas(-n)
	}
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// rate is jobs a second: one decimal below 100.
func rate(x float64) string {
	if x >= 100 {
		return short(math.Round(x))
	}
	if x > 0 && x < 0.05 {
		return "under 0.1"
	}
	return strconv.FormatFloat(math.Round(x*10)/10, 'f', -1, 64)
}

// short is three significant digits with a prefix from ten thousand on: 3.21 M.
func short(x float64) string {
	for _, p := range []struct {
		size float64
		unit string
	}{{1e18, "E"}, {1e15, "P"}, {1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if x >= max(p.size, 1e4) {
			v := x / p.size
			digits := 2
			if v >= 99.95 {
				digits = 0
			} else if v >= 9.995 {
				digits = 1
			}
			return strconv.FormatFloat(v, 'f', digits, 64) + " " + p.unit
		}
	}
	if x >= 100 || x == math.Trunc(x) {
		return commas(int64(math.Round(x)))
	}
	return strconv.FormatFloat(x, 'f', 1, 64)
}

// about is a time to come, in two significant digits: 35 min.
func about(s float64) string {
	two := func(v float64) string {
		if v >= 100 { // of years only
			e := math.Pow(10, math.Floor(math.Log10(v))-1)
			v = math.Round(v/e) * e
			if v > 1e15 {
				return "over 1,000,000,000,000,000"
			}
			return commas(int64(v))
		}
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
	switch {
	case s < 1:
		return "1 s"
	case s < 99.5:
		return two(s) + " s"
	case s < 99.5*60:
		return two(s/60) + " min"
	case s < 48*3600:
		return two(s/3600) + " h"
	case s < 99.5*86400:
		return two(s/86400) + " days"
	case s < 2*365*86400:
		return two(s/86400) + " days"
	}
	return two(s/(365*86400)) + " years"
}

// age is a time that has passed: 2 min 14 s.
func age(d time.Duration) string {
	s := max(int64(d/time.Second), 0)
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%d h %d min", s/3600, s%3600/60)
	}
	return fmt.Sprintf("%s %d h", plural(s/86400, "day"), s%86400/3600)
}
