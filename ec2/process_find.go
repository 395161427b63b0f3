package ec2

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Processes that have outlived the node that started them, which was killed:
// they go on working for it when it is back, and are its to end.

// foundInterval is how often a found process is looked at that is to end.
const foundInterval = 50 * time.Millisecond

// keptProcess is what is remembered of one that runs.
type keptProcess struct {
	Instance
	PID   int
	Token string
}

// keep tells what runs. mu is held.
func (p *Processes) keep() {
	if p.cfg.Keep == nil {
		return
	}
	list := []keptProcess{}
	for _, x := range p.list {
		if x.State != Terminated {
			list = append(list, keptProcess{x.Instance, x.pid, x.token})
		}
	}
	b, err := json.Marshal(list)
	if err == nil {
		err = p.cfg.Keep(b)
	}
	if err != nil {
		p.cfg.Log.Warn("processes not remembered: after a crash they end by themselves", "err", err)
	}
}

// find takes in the processes that still run of those that were kept.
func (p *Processes) find() error {
	if len(p.cfg.Kept) == 0 {
		return nil
	}
	var list []keptProcess
	if err := json.Unmarshal(p.cfg.Kept, &list); err != nil {
		return fmt.Errorf("read which processes there were: %w", err)
	}
	for _, k := range list {
		if k.PID <= 1 || k.ID == "" || !runs(k.PID, k.ID) {
			continue
		}
		x := &process{Instance: k.Instance, pid: k.PID, token: k.Token, found: true, done: make(chan struct{})}
		x.State, x.Address = Running, "pid "+strconv.Itoa(k.PID)
		p.list, p.tokens[k.Token] = append(p.list, x), x
		p.cfg.Log.Info("process found that an earlier node started", "instance", x.ID, "pid", x.pid)
	}
	return nil
}

// look notes which of the found processes have ended. mu is held.
func (p *Processes) look(now time.Time) {
	ended := false
	for _, x := range p.list {
		if x.found && x.State != Terminated && !runs(x.pid, x.ID) {
			p.ended(x, nil)
			ended = true
		}
	}
	if ended {
		p.keep()
	}
}

// endsIn waits for the end of a process, at most d.
func (p *Processes) endsIn(x *process, d time.Duration) bool {
	late := time.NewTimer(d)
	defer late.Stop()
	tick := time.NewTicker(foundInterval)
	defer tick.Stop()
	for {
		select {
		case <-x.done:
			return true
		case <-late.C:
			return false
		case <-tick.C:
			if x.found {
				p.mu.Lock()
				p.look(p.cfg.Now())
				p.mu.Unlock()
			}
		}
	}
}
