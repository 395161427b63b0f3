package ec2

import (
	"slices"
	"time"
)

const (
	arrivalMinutes = 9 // complete ones that are looked at
	arrivalRank    = 2 // how many of them may be lower than the rate
)

// Arrivals tells at which rate work keeps coming in, in the unit that it was
// added in a second. A burst is none: two thirds of the last nine minutes and
// more must have had work.
type Arrivals struct {
	minute int64                       // the one that sums is at
	sums   [arrivalMinutes + 1]float64 // by minute, the current one among them
}

// Add counts work that came in at now, its full cost.
func (a *Arrivals) Add(now time.Time, work float64) {
	a.turn(now)
	a.sums[a.place(0)] += work
}

// Rate returns the rate: the third smallest of the last nine complete minutes.
func (a *Arrivals) Rate(now time.Time) float64 {
	a.turn(now)
	var last [arrivalMinutes]float64
	for i := range last {
		last[i] = a.sums[a.place(i+1)]
	}
	slices.Sort(last[:])
	return last[arrivalRank] / 60
}

func (a *Arrivals) place(ago int) int {
	n := int64(len(a.sums))
	return int(((a.minute-int64(ago))%n + n) % n)
}

// turn goes on to the minute of now and empties those that are between. A clock
// that went back is not followed.
func (a *Arrivals) turn(now time.Time) {
	to := now.Unix() / 60
	if a.minute == 0 || to-a.minute > int64(len(a.sums)) {
		a.sums, a.minute = [arrivalMinutes + 1]float64{}, max(to, a.minute)
		return
	}
	for a.minute < to {
		a.minute++
		a.sums[a.place(0)] = 0
	}
}
