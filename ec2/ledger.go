package ec2

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
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
	aside map[Offer]aside
}

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
		if now.Before(s.takenUntil) || now.Before(l.aside[o].until) {
			continue
		}
		out = append(out, Slot{Slot: k, Gen: s.mark.next(), Offer: o})
	}
	return out
}

// setAside leaves an offer alone for a while, the longer the more often that happens.
func (l *ledger) setAside(now time.Time, o Offer, why string) time.Duration {
	a := l.aside[o]
	switch {
	case a.pause == 0 || now.Sub(a.last) > asideMemory:
		a.pause = asideLeast
	case now.Before(a.until): // known so far
	default:
		a.pause = min(2*a.pause, asideMost)
	}
	a.last, a.until, a.why = now, now.Add(a.pause), why
	l.aside[o] = a
	return a.pause
}

// noSpot leaves all Spot offers alone for a day.
func (l *ledger) noSpot(now time.Time, why string) {
	for k := range l.slots {
		if o := l.cfg.Offer(k); o.Spot {
			l.aside[o] = aside{until: now.Add(retiredTime), last: now, pause: asideMost, why: why}
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
		o := l.cfg.Offer(k)
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

const (
	maxShare   = 256 << 10 // bytes that a share unpacks to
	maxSeconds = 1 << 31   // that it says: more of them are no time.Duration
)

// share is what one node's scheduler tells the other's. It fits the heartbeat
// of the pair, whatever the fleet: see TestShare_fits.
type share struct {
	Marks   []mark   `json:"m"`
	Workers []string `json:"w,omitempty"` // instance, lanes, rate, leases, leased: seconds ago or -1
	Leads   bool     `json:"l,omitempty"` // only then the next two count
	Drain   []string `json:"d,omitempty"`
	Idle    []string `json:"i,omitempty"` // instance and seconds
}

func shareWorker(now time.Time, w Worker) string {
	leased := -1
	if w.Leased {
		leased = int(now.Sub(w.LeasedAt).Seconds())
	}
	return fmt.Sprintf("%s %d %.3g %d %d", w.Instance, w.Lanes, w.Rate, w.Leases, leased)
}

func readWorker(now time.Time, text string) (Worker, error) {
	w := Worker{SeenAt: now}
	leased := 0
	if _, err := fmt.Sscanf(text, "%s %d %g %d %d", &w.Instance, &w.Lanes, &w.Rate, &w.Leases, &leased); err != nil {
		return w, fmt.Errorf("read worker %.100q: %w", text, err)
	}
	if w.Leased = leased >= 0; w.Leased {
		w.LeasedAt = now.Add(-time.Duration(min(leased, maxSeconds)) * time.Second)
	}
	return w, nil
}

func (s share) encode() []byte {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err == nil {
		err = errors.Join(json.NewEncoder(w).Encode(s), w.Close())
	}
	if err != nil { // into memory, and of a type that is JSON
		panic("ec2: a share is not JSON: " + err.Error())
	}
	return b.Bytes()
}

func decodeShare(b []byte) (share, error) {
	var s share
	if err := json.NewDecoder(io.LimitReader(flate.NewReader(bytes.NewReader(b)), maxShare)).Decode(&s); err != nil {
		return share{}, fmt.Errorf("read what the other scheduler says: %w", err)
	}
	for _, m := range s.Marks {
		if m > 1<<40 { // nobody launches so often: it would only lock the slot
			return share{}, fmt.Errorf("read what the other scheduler says: generation %d", m>>1)
		}
	}
	return s, nil
}

func (s share) orders() Orders {
	o := Orders{Drain: s.Drain, Idle: map[string]time.Duration{}}
	for _, text := range s.Idle {
		id, seconds, _ := strings.Cut(text, " ")
		if n, err := strconv.Atoi(seconds); err == nil {
			o.Idle[id] = time.Duration(min(max(n, 0), maxSeconds)) * time.Second
		}
	}
	return o
}
