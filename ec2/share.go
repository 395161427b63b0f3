package ec2

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxShare bounds what a share unpacks to, and maxPacked its bytes: the
	// heartbeat of the pair takes no more.
	maxShare  = 256 << 10
	maxPacked = 8 << 10
	// maxSeconds bounds the times that it says: more of them are no time.Duration.
	maxSeconds = 1 << 31
)

// share is what one node's scheduler tells the other's. It fits the heartbeat
// of the pair, whatever the fleet: see TestShare_fits.
type share struct {
	Marks   []mark   `json:"m"`
	Workers []string `json:"w,omitempty"` // instance, lanes, rate, leases, leased: seconds ago or -1
	Leads   bool     `json:"l,omitempty"` // only then the next two count
	Drain   []string `json:"d,omitempty"`
	Idle    []string `json:"i,omitempty"` // instance and seconds
	Pauses  uint64   `json:"p,omitempty"` // the larger one holds
	Asked   []string `json:"o,omitempty"` // instance and what operators asked for
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

// Share returns what the other node's scheduler is to know. It has at most 8 KiB.
func (s *Scheduler) Share(now time.Time) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := share{Pauses: s.pauses}
	for k := range s.ledger.slots {
		out.Marks = append(out.Marks, s.ledger.slots[k].mark)
	}
	var strange []string // of machines that the other node may see, and this one does not
	for _, w := range s.direct {
		m := s.machines[w.Instance]
		switch {
		case now.Sub(w.SeenAt) >= aliveTime || m != nil && m.dead():
		case m == nil && len(strange) < MaxWorkers:
			strange = append(strange, shareWorker(now, w))
		case m != nil && len(out.Workers) < MaxWorkers:
			out.Workers = append(out.Workers, shareWorker(now, w))
		}
	}
	slices.Sort(out.Workers)
	slices.Sort(strange)
	for _, id := range slices.Sorted(maps.Keys(s.asked)) {
		out.Asked = append(out.Asked, id+" "+string(s.asked[id].do))
	}
	if out.Leads = s.leading; s.leading {
		out.Drain = s.orders.Drain
		for id, ttl := range s.orders.Idle {
			out.Idle = append(out.Idle, fmt.Sprintf("%s %d", id, int(ttl.Seconds())))
		}
		slices.Sort(out.Idle)
	}
	known := out.Workers
	for {
		out.Workers = slices.Concat(known, strange)
		b := out.encode()
		if len(b) <= maxPacked {
			return b
		}
		switch { // names that are not EC2's hardly pack
		case len(strange) > 0:
			strange = strange[:len(strange)/2]
		case len(out.Asked) > 0:
			out.Asked = out.Asked[:len(out.Asked)/2]
		default:
			return nil
		}
	}
}

// Heard takes in what the other node's scheduler shares.
func (s *Scheduler) Heard(now time.Time, b []byte) error {
	said, err := decodeShare(b)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, m := range said.Marks {
		s.ledger.raise(k, m)
	}
	for _, text := range said.Workers {
		w, err := readWorker(now, text)
		if err != nil {
			return err
		}
		if _, known := s.workers[w.Instance]; known || len(s.workers) < maxHeard {
			s.workers[w.Instance] = w
		}
	}
	if said.Pauses > s.pauses {
		s.pauses = said.Pauses
		s.nudge()
	}
	for _, text := range said.Asked {
		id, do, _ := strings.Cut(text, " ")
		if m := s.machines[id]; (m == nil || !m.dead()) && (Verb(do) == Drain || Verb(do) == Terminate) {
			s.ask(id, Verb(do))
		}
	}
	if said.Leads {
		theirs := said.orders()
		if !slices.Equal(theirs.Drain, s.theirs.Drain) || !maps.Equal(theirs.Idle, s.theirs.Idle) {
			s.nudge()
		}
		s.theirs = theirs
	}
	return nil
}

// maxHeard bounds the workers that are remembered of what the other node said.
const maxHeard = 4 * MaxWorkers

// memory is what a scheduler remembers over a restart of its node. Without it
// nothing is launched twice: it only spares finding things out anew.
type memory struct {
	Marks  []mark        `json:"marks"`
	Pauses uint64        `json:"pauses,omitempty"`
	Asked  []string      `json:"asked,omitempty"`
	Boot   time.Duration `json:"boot"`
	Lanes  float64       `json:"lanes"`
	Rate   float64       `json:"rate"`
	Bill   *savedBill    `json:"bill,omitempty"`
}

// Save returns what is to be remembered over a restart, as JSON. It is the same
// as long as nothing of it has changed.
func (s *Scheduler) Save() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := memory{Pauses: s.pauses, Boot: s.boot.Round(time.Second), Lanes: s.lanes, Rate: round2(s.rate), Bill: s.bill.save()}
	for k := range s.ledger.slots {
		m.Marks = append(m.Marks, s.ledger.slots[k].mark)
	}
	for _, id := range slices.Sorted(maps.Keys(s.asked)) {
		m.Asked = append(m.Asked, id+" "+string(s.asked[id].do))
	}
	b, err := json.Marshal(m)
	if err != nil { // of a type that is JSON
		panic("ec2: a memory is not JSON: " + err.Error())
	}
	return b
}

// round2 is f to two digits: what is measured changes with every look.
func round2(f float64) float64 {
	out, err := strconv.ParseFloat(strconv.FormatFloat(f, 'g', 2, 64), 64)
	if err != nil {
		return f
	}
	return out
}

// Restore takes in what Save returned. Call it before Run.
func (s *Scheduler) Restore(b []byte) error {
	var m memory
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("read what the scheduler remembers: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, mark := range m.Marks {
		s.ledger.raise(k, mark)
	}
	s.pauses = max(s.pauses, m.Pauses)
	s.bill.restore(m.Bill)
	for _, text := range m.Asked {
		id, do, _ := strings.Cut(text, " ")
		if v := Verb(do); v == Drain || v == Terminate {
			s.ask(id, v)
		}
	}
	if m.Boot >= s.cfg.BootLeast && m.Boot <= s.cfg.BootMost {
		s.boot = m.Boot
	}
	if m.Lanes >= 1 && m.Rate > 0 {
		s.lanes, s.rate = m.Lanes, m.Rate
	}
	return nil
}
