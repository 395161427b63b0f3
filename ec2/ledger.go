package ec2

import (
	"fmt"
	"time"
)

const (
	asideLeast  = 3 * time.Minute
	asideMost   = 30 * time.Minute
	asideMemory = 3 * time.Hour // after so long without a refusal all is forgotten
	takenTime   = 5 * time.Minute
	retiredTime = 24 * time.Hour
)

// mark is how far a slot is: its generation, and whether that is seen to be
// dead. It only ever rises, so of two marks the higher one holds.
type mark uint64

func markOf(gen int, dead bool) mark {
	m := mark(max(gen, 0)) << 1
	if dead {
		m |= 1
	}
	return m
}

// next returns the generation that a launch asks for.
func (m mark) next() int { return int(m>>1) + int(m&1) }

// ledger is what is known of the slots and of what has run out. It is not safe
// for concurrent use.
type ledger struct {
	cfg   Config
	slots []slot
	aside map[Offer]aside // by pool
}

// pool is what runs out as one: a type in a zone, whatever its subnet.
func pool(o Offer) Offer {
	if o.Zone != "" {
		o.Subnet = ""
	}
	return o
}

// isAside reports whether an offer is left alone.
func (l *ledger) isAside(now time.Time, o Offer) bool { return now.Before(l.aside[pool(o)].until) }

type slot struct {
	mark       mark
	takenUntil time.Time // its token is someone else's
	mismatches int
}

type aside struct {
	until, last time.Time
	pause       time.Duration
	why         string
}

func newLedger(cfg Config) ledger {
	return ledger{cfg: cfg, slots: make([]slot, cfg.SlotCount()), aside: map[Offer]aside{}}
}

func (l *ledger) has(k int) bool { return k >= 0 && k < len(l.slots) }

// raise notes that the slot has come so far.
func (l *ledger) raise(k int, m mark) {
	if !l.has(k) || l.slots[k].mark >= m {
		return
	}
	if m>>1 > l.slots[k].mark>>1 {
		l.slots[k].mismatches, l.slots[k].takenUntil = 0, time.Time{}
	}
	l.slots[k].mark = m
}

// free returns the slots that may be filled, lowest first, as far as the ledger
// knows: one that has a machine is among them.
func (l *ledger) free(now time.Time) []Slot {
	var out []Slot
	for k := range l.slots {
		s, o := &l.slots[k], l.cfg.Offer(k)
		if now.Before(s.takenUntil) || l.isAside(now, o) {
			continue
		}
		out = append(out, Slot{Slot: k, Gen: s.mark.next(), Offer: o})
	}
	return out
}

// setAside leaves an offer alone for a while, the longer the more often that happens.
func (l *ledger) setAside(now time.Time, o Offer, why string) time.Duration {
	a := l.aside[pool(o)]
	switch {
	case a.pause == 0 || now.Sub(a.last) > asideMemory:
		a.pause = asideLeast
	case now.Before(a.until): // known so far
	default:
		a.pause = min(2*a.pause, asideMost)
	}
	a.last, a.until, a.why = now, now.Add(a.pause), why
	l.aside[pool(o)] = a
	return a.pause
}

// noSpot leaves all Spot offers alone for a day.
func (l *ledger) noSpot(now time.Time, why string) {
	for k := range l.slots {
		if o := l.cfg.Offer(k); o.Spot {
			l.aside[pool(o)] = aside{until: now.Add(retiredTime), last: now, pause: asideMost, why: why}
		}
	}
}

// mismatch notes that the slot's token was used for something else: by another
// version of the settings, or by a launch that failed.
func (l *ledger) mismatch(now time.Time, k int) time.Duration {
	s := &l.slots[k]
	s.mismatches++
	pause := takenTime
	if s.mismatches > 1 {
		pause = retiredTime
	}
	s.takenUntil = now.Add(pause)
	return pause
}

// asides says which offers are left alone, and until when.
func (l *ledger) asides(now time.Time) []string {
	var out []string
	told := map[Offer]bool{}
	for k := range l.slots {
		o := pool(l.cfg.Offer(k))
		if a := l.aside[o]; now.Before(a.until) && !told[o] {
			told[o] = true
			out = append(out, fmt.Sprintf("%s is set aside until %s: %s", o, a.until.UTC().Format(time.TimeOnly), a.why))
		}
		if until := l.slots[k].takenUntil; now.Before(until) {
			out = append(out, fmt.Sprintf("slot %d is set aside until %s: its token was used for something else", k, until.UTC().Format(time.TimeOnly)))
		}
	}
	return out
}
